//! The last words of a run: one line per connection, stream trouble, and one line per symbol.

use crate::shell::run::Finished;
use std::fmt::Write;

/// What the process did, from its own last status.
pub(super) fn statistics(finished: &Finished) -> String {
    let status = &finished.status;
    let mut out = String::new();
    let up = std::time::Duration::from_millis(status.uptime_ms);
    writeln!(out, "-- {} after {:.1} s", status.now, up.as_secs_f64()).ok();
    let turns = &status.turns;
    writeln!(out, "loop {} turns, longest {} us, {} stalls", turns.turns, turns.max_turn_us, turns.stalls).ok();
    // A row that says goodbye is in its successor's figures already.
    for row in status.connections.iter().filter(|row| row.role != "retiring") {
        write!(
            out,
            "{}{} {} messages, {} bytes, {} refused, opened {}, failed {}, epoch {}",
            row.name,
            if status.legs.is_empty() { String::new() } else { format!(" leg {}", row.leg) },
            row.frames,
            row.bytes,
            row.rejected,
            row.opened,
            row.failed,
            row.epoch
        )
        .ok();
        if let Some(failure) = &row.last_failure {
            write!(out, ", last ended at {} in {}: {}", failure.at, failure.stage, failure.reason).ok();
        }
        out.push('\n');
    }
    writeln!(out, "{}", finished.statistics).ok();
    for stream in status.streams.iter().filter(|stream| matches!(stream.state, "failed" | "stale")) {
        writeln!(out, "{} {}: {}", stream.stream, stream.state, stream.reason.as_deref().unwrap_or("-")).ok();
    }
    for (name, symbol) in &status.symbols {
        write!(out, "{name}").ok();
        if let Some(trades) = &symbol.trades {
            write!(out, " {} trades", trades.received).ok();
            if let (Some(first), Some(last)) = (trades.first_id, trades.last_id) {
                write!(out, " (ids {first} to {last} held)").ok();
            }
            write!(out, ", {} duplicates, {} missing", trades.duplicates, trades.missing).ok();
        }
        for (interval, candles) in &symbol.candles {
            write!(
                out,
                ", {interval}: {} candles, {} closed, {} updates",
                candles.len, candles.closed, candles.updates
            )
            .ok();
        }
        if let Some(mark) = &symbol.mark_price {
            write!(out, ", mark {}", mark.price).ok();
        }
        out.push('\n');
    }
    out
}
