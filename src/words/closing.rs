//! The last words of a run: one line per connection, stream trouble, and one line per symbol.

use crate::status::Status;
use std::fmt::Write;

/// What the process did, from its own last status.
pub(super) fn statistics(status: &Status) -> String {
    let mut out = String::new();
    let up = std::time::Duration::from_millis(status.uptime_ms);
    writeln!(out, "-- {} after {:.1} s", status.now, up.as_secs_f64()).ok();
    let turns = &status.turns;
    writeln!(out, "loop {} turns, longest {} us, {} stalls", turns.turns, turns.max_turn_us, turns.stalls).ok();
    for row in &status.connections {
        write!(
            out,
            "{} {} messages, {} bytes, {} refused, opened {}, failed {}, epoch {}",
            row.name, row.frames, row.bytes, row.rejected, row.opened, row.failed, row.epoch
        )
        .ok();
        if let Some(failure) = &row.last_failure {
            write!(out, ", last ended at {} in {}: {}", failure.at, failure.stage, failure.reason).ok();
        }
        out.push('\n');
    }
    let s = &status.subscriptions;
    let rate = s.success_rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate} %"));
    writeln!(
        out,
        "streams {}: {} attempts, {} successes, {} failures, {} retries, success rate {rate}",
        status.streams.len(),
        s.attempts,
        s.successes,
        s.failures,
        s.retries
    )
    .ok();
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
