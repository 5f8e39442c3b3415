//! The page of `status`: first what is wrong, then connections, streams by state, and symbols.
//!
//! Reads the document by key, so that it also shows the parts it knows of an older or newer process.

use crate::words::clean;
use crate::words::columns::{Table, line};
use serde_json::Value;
use std::collections::BTreeMap;

/// The whole page.
pub(super) fn page(status: &Value) -> String {
    let mut page = String::new();
    head(&mut page, status);
    connections(&mut page, list(status, "connections"));
    streams(&mut page, status);
    symbols(&mut page, status);
    parts(&mut page, status);
    page
}

fn head(page: &mut String, status: &Value) {
    let (version, now) = (text(status, "version"), text(status, "now"));
    line(page, &format!("binance-edge {version}   up {}   {now}", age(status.get("uptime_ms"))));
    let health = status.get("health").unwrap_or(&Value::Null);
    line(page, &format!("health  {}", text(health, "level")));
    for reason in list(health, "reasons") {
        line(page, &format!("  - {}", shown(reason)));
    }
    let turns = status.get("loop").unwrap_or(&Value::Null);
    let (count, stalls, longest) = (text(turns, "turns"), text(turns, "stalls"), text(turns, "max_turn_us"));
    line(page, &format!("loop    {count} turns, {stalls} stalls, longest {longest} us"));
}

fn connections(page: &mut String, rows: &[Value]) {
    let mut table =
        Table::new(["CONNECTION", "LEG", "ROLE", "STATE", "EPOCH", "LIVE", "FRAMES", "BYTES", "REJECTED", "FAILED"]);
    for row in rows {
        let live = format!("{}/{}", text(row, "live"), text(row, "streams"));
        table.row([
            text(row, "name"),
            text(row, "leg"),
            text(row, "role"),
            text(row, "state"),
            text(row, "epoch"),
            live,
            text(row, "frames"),
            bytes(row.get("bytes")),
            text(row, "rejected"),
            text(row, "failed"),
        ]);
        let purpose =
            row.get("purpose").and_then(Value::as_str).map(|purpose| format!("successor: {}", clean(purpose)));
        let rotates = row.get("rotates_in_ms").filter(|ms| !ms.is_null());
        let rotates = rotates.map(|ms| format!("replaced in {}", age(Some(ms))));
        let race = row.get("race").filter(|race| !race.is_null()).map(race);
        let words: Vec<_> = [purpose, rotates, race].into_iter().flatten().collect();
        if !words.is_empty() {
            table.note(words.join("; "));
        }
        if let Some(failure) = row.get("last_failure").filter(|failure| !failure.is_null()) {
            let code = failure.get("close_code").and_then(Value::as_u64).map(|code| format!(" (code {code})"));
            table.note(format!(
                "last failure in {} after {} ms at {}: {}{}",
                text(failure, "stage"),
                text(failure, "elapsed_ms"),
                text(failure, "at"),
                text(failure, "reason"),
                code.unwrap_or_default()
            ));
        }
    }
    table.draw(page);
}

/// How a leg does against the other one.
fn race(race: &Value) -> String {
    let lead = race.get("lead_mean_us").and_then(Value::as_u64);
    let lead = lead.map(|mean| format!(", ahead by {mean} us on average, {} us at most", text(race, "lead_max_us")));
    let (first, late, lost) = (text(race, "first"), text(race, "late"), text(race, "lost"));
    format!("first {first} times, late {late}, lost {lost}{}", lead.unwrap_or_default())
}

fn streams(page: &mut String, status: &Value) {
    let rows = list(status, "streams");
    let sums = status.get("subscriptions").unwrap_or(&Value::Null);
    line(page, "");
    line(page, &format!("STREAMS  {} wanted: {}", rows.len(), states(rows, sums)));
    line(
        page,
        &format!(
            "  {} requests, {} answered with data, {} failures, {} retries, success {} %",
            text(sums, "attempts"),
            text(sums, "successes"),
            text(sums, "failures"),
            text(sums, "retries"),
            text(sums, "success_rate")
        ),
    );
    let often = counts(sums.get("often_failing"));
    if !often.is_empty() {
        line(page, &format!("  failed more than 3 times: {}", some(&often)));
    }
    let healed = counts(sums.get("healed_by"));
    if !healed.is_empty() {
        line(page, &format!("  healed by: {}", some(&healed)));
    }
    for row in list(status, "successions").iter().filter(|row| row.get("begun").and_then(Value::as_u64) > Some(0)) {
        let (purpose, begun) = (text(row, "purpose"), text(row, "begun"));
        let (done, failed) = (text(row, "succeeded"), text(row, "failed"));
        line(page, &format!("  connections replaced, {purpose}: {begun} begun, {done} done, {failed} failed"));
    }
    for leg in list(status, "legs") {
        line(page, &format!("  leg {}: {}", text(leg, "leg"), race(leg)));
    }
    let not_live: Vec<_> = rows.iter().filter(|row| text(row, "state") != "live").collect();
    if not_live.is_empty() {
        return;
    }
    let mut table = Table::new(["NOT LIVE", "CONNECTION", "STATE", "LAST DATA", "FAILURES", "REASON"]);
    for row in not_live.iter().take(ROWS_MAX) {
        table.row([
            text(row, "stream"),
            text(row, "connection"),
            text(row, "state"),
            age(row.get("last_data_age_ms")),
            text(row, "failures"),
            text(row, "reason"),
        ]);
    }
    if not_live.len() > ROWS_MAX {
        table.note(format!("and {} more", not_live.len() - ROWS_MAX));
    }
    table.draw(page);
}

/// `16 live, 2 quiet`: as the process counts them, or by the rows of one that does not.
fn states(rows: &[Value], sums: &Value) -> String {
    let mut by_state: BTreeMap<String, u64> = BTreeMap::new();
    match sums.get("states").and_then(Value::as_object) {
        Some(states) => {
            let states = states.iter().map(|(state, count)| (clean(state), count.as_u64().unwrap_or(0)));
            by_state.extend(states.filter(|(_, count)| *count > 0));
        }
        None => rows.iter().for_each(|row| *by_state.entry(text(row, "state")).or_default() += 1),
    }
    let place = |state: &str| STATES.iter().position(|known| *known == state).unwrap_or(STATES.len());
    let mut by_state: Vec<_> = by_state.into_iter().collect();
    by_state.sort_by_key(|(state, _)| place(state));
    by_state.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}

/// Names and how often, the most frequent first.
fn counts(of: Option<&Value>) -> Vec<String> {
    let all = of.and_then(Value::as_object).into_iter().flatten();
    let mut all: Vec<_> = all.map(|(name, count)| (clean(name), count.as_u64().unwrap_or(0))).collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    all.into_iter().map(|(name, count)| format!("{name} {count}")).collect()
}

/// The first few, and how many more there are.
fn some(words: &[String]) -> String {
    let shown = words[..words.len().min(NAMED_MAX)].join(", ");
    if words.len() > NAMED_MAX { format!("{shown} and {} more", words.len() - NAMED_MAX) } else { shown }
}

fn symbols(page: &mut String, status: &Value) {
    let Some(rows) = status.get("symbols").and_then(Value::as_object) else { return };
    let mut table =
        Table::new(["SYMBOL", "MARK", "TRADES", "LAST ID", "DUPLICATES", "BACKFILLED", "MISSING", "CANDLES"]);
    for (name, row) in rows {
        let trades = row.get("trades").unwrap_or(&Value::Null);
        let held = format!("{}/{}", text(trades, "len"), text(trades, "capacity"));
        let candles = row.get("candles").and_then(Value::as_object).into_iter().flatten();
        let candles: Vec<_> = candles
            .map(|(interval, row)| format!("{} {} at {}", clean(interval), text(row, "len"), text(row, "close")))
            .collect();
        table.row([
            clean(name),
            row.get("mark_price").map_or_else(|| "-".to_owned(), |mark| text(mark, "price")),
            if trades.is_null() { "-".to_owned() } else { held },
            text(trades, "last_id"),
            text(trades, "duplicates"),
            text(trades, "backfilled"),
            text(trades, "missing"),
            candles.join(", "),
        ]);
    }
    table.draw(page);
}

/// The parts that are off stay unmentioned.
fn parts(page: &mut String, status: &Value) {
    line(page, "");
    for plan in list(status, "plans") {
        line(page, &format!("plan {} on {}: {}", text(plan, "name"), text(plan, "symbol"), text(plan, "state")));
    }
    if let Some(signals) = status.get("signals").filter(|part| !part.is_null()) {
        let (state, received, refused) = (text(signals, "state"), text(signals, "received"), text(signals, "refused"));
        line(page, &format!("signals  {state}, {received} received, {refused} refused"));
    }
    for position in list(status, "positions").iter().filter(|row| text(row, "state") != "closed") {
        let words = ["symbol", "side", "qty", "entry_price", "state"].map(|key| text(position, key));
        line(page, &format!("position {}, stop {}", words.join(" "), text(position, "stop_price")));
    }
    if let Some(store) = status.get("store").filter(|part| !part.is_null()) {
        let (queued, dropped, error) = (text(store, "queued"), text(store, "dropped"), text(store, "last_error"));
        line(page, &format!("store    {queued} rows queued, {dropped} dropped, last error {error}"));
    }
    let lanes = status.get("workers").and_then(Value::as_object).into_iter().flatten();
    let lanes: Vec<_> = lanes
        .map(|(name, lane)| {
            let (queued, running) = (text(lane, "queued"), text(lane, "in_flight"));
            format!("{} {queued} queued {running} running {} timed out", clean(name), text(lane, "timeouts"))
        })
        .collect();
    line(page, &format!("workers  {}", lanes.join(", ")));
}

fn list<'v>(of: &'v Value, key: &str) -> &'v [Value] {
    of.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A value as a person reads it; absent and null are `-`.
fn text(of: &Value, key: &str) -> String {
    of.get(key).map_or_else(|| "-".to_owned(), shown)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => clean(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn age(ms: Option<&Value>) -> String {
    let Some(ms) = ms.and_then(Value::as_u64) else { return "-".to_owned() };
    match ms / 1_000 {
        0 => format!("{ms} ms"),
        s @ 1..=119 => format!("{s} s"),
        s @ 120..=7_199 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3_600, s / 60 % 60),
    }
}

fn bytes(count: Option<&Value>) -> String {
    let Some(count) = count.and_then(Value::as_u64) else { return "-".to_owned() };
    match count {
        0..=9_999 => format!("{count} B"),
        10_000..=9_999_999 => format!("{} kB", count / 1_000),
        _ => format!("{} MB", count / 1_000_000),
    }
}

/// A screen's worth; the rest is counted.
const ROWS_MAX: usize = 30;
/// Names in a line.
const NAMED_MAX: usize = 10;
/// The order in which states are counted.
const STATES: [&str; 7] = ["live", "quiet", "acked", "sent", "wanted", "stale", "failed"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_first_what_is_wrong() {
        let status = serde_json::json!({
            "version": "0.1.0", "now": "2026-11-20T23:05:00.000Z", "uptime_ms": 7_260_000,
            "health": {"level": "degraded", "reasons": ["ethusdt@aggTrade is stale"]},
            "loop": {"turns": 9, "stalls": 0, "max_turn_us": 12},
            "connections": [{"name": "market-0", "leg": "a", "role": "current", "state": "open", "epoch": 4, "live": 1, "streams": 2,
                "frames": 120, "bytes": 2_500_000, "rejected": 0, "failed": 1, "purpose": null, "rotates_in_ms": 7_260_000,
                "race": {"first": 90, "late": 20, "lost": 1, "leads": 70, "lead_mean_us": 412, "lead_max_us": 9_000},
                "last_failure": {"stage": "close", "reason": "going\u{1b}[2J away", "close_code": 1001, "elapsed_ms": 4000,
                    "at": "2026-11-20T23:00:00.000Z"}},
                {"name": "market-0", "leg": "a", "role": "successor", "purpose": "healing", "state": "tls", "epoch": 5,
                 "live": 0, "streams": 2, "frames": 0, "bytes": 0, "rejected": 0, "failed": 0, "race": null}],
            "streams": [{"stream": "btcusdt@aggTrade", "connection": "market-0", "state": "live"},
                {"stream": "ethusdt@aggTrade", "connection": "market-0", "state": "stale", "last_data_age_ms": 61_000,
                 "failures": 1, "reason": "silent"}],
            "subscriptions": {"attempts": 2, "successes": 2, "failures": 1, "retries": 0, "success_rate": 66.7,
                "states": {"wanted": 0, "stale": 1, "live": 1}, "healed_by": {"asked afresh": 1, "asked again": 2},
                "often_failing": {"ETHUSDT": 5}},
            "successions": [{"purpose": "planned", "begun": 0, "succeeded": 0, "failed": 0},
                {"purpose": "healing", "begun": 2, "succeeded": 0, "failed": 1}],
            "legs": [{"leg": "b", "first": 1, "late": 2, "lost": 0, "lead_mean_us": null, "lead_max_us": 0}],
            "symbols": {"BTCUSDT": {"trades": {"len": 5, "capacity": 16, "last_id": 77, "duplicates": 0,
                "backfilled": 2, "missing": 1}, "mark_price": {"price": "64123.40"},
                "candles": {"1m": {"len": 3, "close": "64123.40"}}}},
            "plans": [], "signals": null, "waves": [], "positions": [], "store": null,
            "workers": {"rest": {"queued": 0, "in_flight": 1, "timeouts": 0}}});
        let expected = "\
binance-edge 0.1.0   up 2 h 1 min   2026-11-20T23:05:00.000Z
health  degraded
  - ethusdt@aggTrade is stale
loop    9 turns, 0 stalls, longest 12 us

CONNECTION  LEG  ROLE       STATE  EPOCH  LIVE  FRAMES  BYTES    REJECTED  FAILED
market-0    a    current    open   4      1/2   120     2500 kB  0         1
  replaced in 2 h 1 min; first 90 times, late 20, lost 1, ahead by 412 us on average, 9000 us at most
  last failure in close after 4000 ms at 2026-11-20T23:00:00.000Z: going?[2J away (code 1001)
market-0    a    successor  tls    5      0/2   0       0 B      0         0
  successor: healing

STREAMS  2 wanted: 1 live, 1 stale
  2 requests, 2 answered with data, 1 failures, 0 retries, success 66.7 %
  failed more than 3 times: ETHUSDT 5
  healed by: asked again 2, asked afresh 1
  connections replaced, healing: 2 begun, 0 done, 1 failed
  leg b: first 1 times, late 2, lost 0

NOT LIVE          CONNECTION  STATE  LAST DATA  FAILURES  REASON
ethusdt@aggTrade  market-0    stale  61 s       1         silent

SYMBOL   MARK      TRADES  LAST ID  DUPLICATES  BACKFILLED  MISSING  CANDLES
BTCUSDT  64123.40  5/16    77       0           2           1        1m 3 at 64123.40

workers  rest 0 queued 1 running 0 timed out
";
        assert_eq!(page(&status), expected);
    }

    #[test]
    fn a_document_without_anything_is_still_a_page() {
        assert!(page(&serde_json::json!({})).starts_with("binance-edge -   up -   -\nhealth  -\n"));
    }
}
