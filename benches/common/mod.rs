//! What the benches share: frames like the venue's, its end of a connection, and how results are told.
#![allow(dead_code, unreachable_pub, reason = "each program uses a part of it")]

pub mod frames;
pub mod peer;

/// True if the program is only to run once through: it is not what is asked of it, or not under `cargo bench`.
pub fn tiny() -> bool {
    let args: Vec<String> = std::env::args().collect();
    let has = |word: &str| args.iter().any(|arg| arg == word);
    has("--tiny") || has("--test") || !has("--bench")
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
