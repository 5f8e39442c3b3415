//! The text, read back by a strict parser with the rules of `promtool check metrics`.

use super::*;
use std::collections::BTreeSet;

/// Samples by family, or what is wrong.
fn parse(text: &str) -> Result<BTreeMap<String, Vec<(String, f64)>>, String> {
    let mut families: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
    let mut current: Option<(String, String)> = None;
    let mut helped: Option<String> = None;
    let mut seen = BTreeSet::new();
    if !text.ends_with('\n') {
        return Err("no line feed at the end".into());
    }
    for line in text.lines() {
        let fail = |why: &str| Err(format!("{why}: {line}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or("no help")?;
            if help.trim().is_empty() || families.contains_key(name) {
                return fail("empty or second HELP");
            }
            helped = Some(name.into());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("no type")?;
            if helped.as_deref() != Some(name) || !["counter", "gauge", "histogram"].contains(&kind) {
                return fail("TYPE without its HELP, or unknown");
            }
            if (kind == "counter") != name.ends_with("_total") {
                return fail("counters, and they alone, end in _total");
            }
            for suffix in ["_bucket", "_count", "_sum", "_info_total"] {
                if name.ends_with(suffix) {
                    return fail("reserved suffix");
                }
            }
            let words: Vec<_> = name.split('_').collect();
            for unit in ["milliseconds", "ms", "us", "ns", "minutes", "hours", "kilobytes", "kb", "mb", "percent"] {
                if words.contains(&unit) {
                    return fail("not a base unit");
                }
            }
            for word in ["counter", "gauge", "histogram"] {
                if words.contains(&word) {
                    return fail("type in the name");
                }
            }
            families.insert(name.into(), Vec::new());
            current = Some((name.into(), kind.into()));
        } else {
            let (family, kind) = current.clone().ok_or("sample without a family")?;
            let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
            let (name, labels) = match series.split_once('{') {
                Some((name, rest)) => (name, rest.strip_suffix('}').ok_or("open labels")?),
                None => (series, ""),
            };
            let expected = match kind.as_str() {
                "histogram" => ["_bucket", "_sum", "_count"].iter().any(|s| name == format!("{family}{s}")),
                _ => name == family,
            };
            if !expected || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
                return fail("a sample of another family");
            }
            check_labels(labels).map_err(|why| format!("{why}: {line}"))?;
            if !seen.insert(series.to_owned()) {
                return fail("duplicate series");
            }
            let value: f64 = value.parse().map_err(|_| format!("no number: {line}"))?;
            families.entry(family).or_default().push((series.into(), value));
        }
    }
    match families.iter().find(|(_, samples)| samples.is_empty()) {
        Some((name, _)) => Err(format!("{name} has no samples")),
        None => Ok(families),
    }
}

fn check_labels(mut text: &str) -> Result<(), &'static str> {
    let mut names = BTreeSet::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").ok_or("no label value")?;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') || !names.insert(name) {
            return Err("bad or second label");
        }
        let mut escaped = false;
        let end = rest.char_indices().find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        let (end, _) = end.ok_or("open label value")?;
        text = &rest[end + 1..];
        if let Some(more) = text.strip_prefix(',') {
            text = more;
        } else if !text.is_empty() {
            return Err("no comma between labels");
        }
    }
    Ok(())
}

fn value(text: &str, series: &str) -> String {
    let full = format!("{PREFIX}{series} ");
    text.lines().find_map(|line| line.strip_prefix(&full)).map(str::to_owned).unwrap_or_else(|| panic!("no {series}"))
}

#[test]
fn every_promised_family_is_there_and_clean() {
    let text = render(&super::super::sample::status());
    let families = parse(&text).unwrap();
    for name in [
        "frames_total",
        "received_bytes_total",
        "frames_rejected_total",
        "connection_failures_total",
        "stream_live",
        "stream_last_data_age_seconds",
        "trades_received_total",
        "trades_duplicate_total",
        "trades_backfilled_total",
        "trades_missing",
        "loop_turn_seconds",
        "loop_stalls_total",
        "build_info",
        "uptime_seconds",
        "streams",
        "stream_failures_total",
        "stream_healed_total",
        "successions_begun_total",
        "successions_total",
    ] {
        assert!(families.contains_key(&format!("{PREFIX}{name}")), "{name}");
    }
    assert!(families.len() >= 20, "{}", families.len());
}

#[test]
fn figures_arrive_with_their_labels() {
    let text = render(&super::super::sample::status());
    // Two rows share a name while one connection takes over from the other.
    assert_eq!(value(&text, r#"frames_total{connection="market-0"}"#), "2469134");
    assert_eq!(value(&text, r#"connection_up{connection="market-0"}"#), "1");
    assert_eq!(value(&text, r#"connection_up{connection="market-1"}"#), "0");
    assert_eq!(value(&text, r#"connection_failures_total{connection="market-1",stage="read"}"#), "9");
    assert_eq!(value(&text, r#"frames_rejected_total{connection="market-1",reason="malformed"}"#), "2");
    assert_eq!(value(&text, r#"stream_live{stream="btcusdt@aggTrade"}"#), "1");
    assert_eq!(value(&text, r#"stream_live{stream="ethusdt@kline_1m"}"#), "0");
    assert_eq!(value(&text, r#"stream_last_data_age_seconds{stream="btcusdt@aggTrade"}"#), "0.012000");
    assert_eq!(value(&text, r#"trades_missing{symbol="ETHUSDT"}"#), "5");
    assert_eq!(value(&text, r#"mark_price{symbol="BTCUSDT"}"#), "64123.40");
    assert_eq!(value(&text, r#"candles_held{symbol="BTCUSDT",interval="1m"}"#), "328");
    assert_eq!(value(&text, r#"loop_turn_seconds_bucket{le="0.001"}"#), "9999990");
    assert_eq!(value(&text, "loop_turn_seconds_count"), "10000000");
    assert_eq!(value(&text, "loop_turn_seconds_sum"), "61.234567");
    assert_eq!(value(&text, r#"health{level="degraded"}"#), "1");
    assert_eq!(value(&text, r#"connection_attempts_total{connection="market-0"}"#), "5");
    assert_eq!(value(&text, r#"connection_streams{connection="market-0"}"#), "4");
    assert_eq!(value(&text, r#"connection_rotates_in_seconds{connection="market-0"}"#), "3600");
    assert_eq!(value(&text, r#"streams{state="quiet"}"#), "1");
    assert_eq!(value(&text, r#"streams{state="sent"}"#), "0");
    assert_eq!(value(&text, r#"stream_healed_total{step="new connection"}"#), "1");
    assert_eq!(value(&text, r#"successions_begun_total{purpose="planned"}"#), "3");
    assert_eq!(value(&text, r#"successions_total{purpose="healing",result="failed"}"#), "1");
    assert_eq!(value(&text, r#"successions_total{purpose="announced",result="succeeded"}"#), "0");
    assert_eq!(value(&text, r#"worker_timeouts_total{lane="resolver"}"#), "3");
}

#[test]
fn what_can_happen_is_counted_from_the_start() {
    let text = render(&super::super::sample::status());
    for stage in crate::net::Stage::ALL {
        value(&text, &format!("connection_failures_total{{connection=\"market-0\",stage=\"{}\"}}", stage.as_str()));
    }
    for kind in crate::wire::market::RejectKind::ALL {
        let series = format!("frames_rejected_total{{connection=\"market-1\",reason=\"{}\"}}", kind.as_str());
        assert_eq!(value(&text, &series), "0");
    }
}

#[test]
fn two_legs_are_one_connection_and_a_leg_has_its_own_series() {
    let status = super::super::sample::two_legs();
    let text = render(&status);
    let families = parse(&text).unwrap();
    // Leg a, its successor and leg b; the retiring row is in leg b's.
    assert_eq!(value(&text, r#"frames_total{connection="market-0"}"#), (3 * status.connections[0].frames).to_string());
    assert_eq!(value(&text, r#"connection_attempts_total{connection="market-0"}"#), "7");
    assert_eq!(value(&text, r#"connection_streams{connection="market-0"}"#), "4");
    assert_eq!(value(&text, r#"leg_first_total{leg="a"}"#), "640000");
    assert_eq!(value(&text, r#"leg_late_total{leg="b"}"#), "640000");
    assert_eq!(value(&text, r#"leg_lost_total{leg="b"}"#), "81");
    assert_eq!(value(&text, r#"leg_lead_longest_seconds{leg="a"}"#), "0.061377");
    assert!(families.contains_key("binance_edge_leg_lead_seconds_total"));
    let alone = parse(&render(&super::super::sample::status())).unwrap();
    assert!(!alone.keys().any(|name| name.contains("_leg_")), "there is one leg");
}

#[test]
fn names_from_outside_are_escaped() {
    let mut status = super::super::sample::status();
    status.streams[0].stream = "a\"b\\c\nd} 1".into();
    let text = render(&status);
    parse(&text).unwrap();
    assert_eq!(value(&text, r#"stream_live{stream="a\"b\\c\nd} 1"}"#), "1");
}

#[test]
fn a_process_that_knows_nothing_yet_is_clean_too() {
    let mut status = super::super::sample::status();
    status.connections.clear();
    status.streams.clear();
    status.symbols.clear();
    let families = parse(&render(&status)).unwrap();
    assert!(!families.contains_key("binance_edge_frames_total"));
}

#[test]
fn the_parser_is_strict() {
    let help = "# HELP x help\n";
    assert!(parse("x 1\n").is_err());
    assert!(parse(&format!("{help}# TYPE x counter\nx 1\n")).is_err());
    assert!(parse(&format!("{help}# TYPE x gauge\nx 1\nx 2\n")).is_err());
    assert!(parse(&format!("{help}# TYPE x gauge\nx{{a=\"b}} 2\n")).is_err());
    assert!(parse(&format!("{help}# TYPE x gauge\ny 2\n")).is_err());
    assert!(parse(&format!("{help}# TYPE x gauge\n")).is_err());
}
