//! The words of the command line. Each reads its arguments, does one thing, and says how it went in its exit code.
#![allow(clippy::disallowed_methods, reason = "words read clocks and the environment")]

pub mod check;
mod closing;
mod columns;
pub mod config;
pub mod demo;
pub mod exchange;
pub mod replay;
pub mod run;
pub mod simulate;
pub mod status;

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// It ran and something failed, said on stderr.
const FAILED: u8 = 1;
/// The arguments or the configuration cannot be used.
const USAGE: u8 = 2;

/// Prints a result. A reader that has seen enough (`| head -1`) is content; any other failure is one.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("stdout: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Says on stderr what is wrong. If nobody listens there, the exit code has to do.
fn complain(what: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{what}");
}

/// Text of someone else's, harmless on a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
