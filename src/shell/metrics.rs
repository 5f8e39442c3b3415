//! `/metrics`: a [`Status`] as Prometheus text.
//!
//! Rows of the same name (a rotation's successor, a second leg) are one series: figures are summed, states are the best
//! of them. A family without samples is left out; counters whose labels are known are there from the start, at zero.

mod feed;

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::status::{Lane, Level, Status, Symbol, Trades, Turns};

/// The content type of the text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Before every name.
const PREFIX: &str = "binance_edge_";

/// The whole page.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut text = Text { out: String::with_capacity(16 * 1024) };
    process(&mut text, status);
    turns(&mut text, &status.turns);
    feed::connections(&mut text, &status.connections);
    feed::streams(&mut text, &status.streams);
    feed::sums(&mut text, &status.subscriptions, &status.successions);
    feed::legs(&mut text, &status.legs);
    symbols(&mut text, &status.symbols);
    let lanes =
        [("rest", status.workers.rest), ("resolver", status.workers.resolver), ("alerts", status.workers.alerts)];
    workers(&mut text, &lanes);
    let calls = status.rest_requests.iter();
    let calls = calls.map(|row| (labels(&[("endpoint", row.endpoint), ("result", row.result)]), row.count.to_string()));
    text.family("rest_requests_total", Kind::Counter, "REST calls by endpoint and result.", &calls.collect());
    text.out
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Samples of one family by their labels: sorted, and each only once.
type Samples = BTreeMap<String, String>;

struct Text {
    out: String,
}

impl Text {
    fn family(&mut self, name: &str, kind: Kind, help: &str, samples: &Samples) {
        if samples.is_empty() {
            return;
        }
        self.head(name, kind, help);
        for (labels, value) in samples {
            self.line(format_args!("{PREFIX}{name}{labels} {value}"));
        }
    }

    fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl fmt::Display) {
        self.head(name, kind, help);
        self.line(format_args!("{PREFIX}{name} {value}"));
    }

    fn head(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {PREFIX}{name} {help}"));
        self.line(format_args!("# TYPE {PREFIX}{name} {kind}"));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "{line}");
    }
}

fn process(text: &mut Text, status: &Status) {
    let build = Samples::from([(labels(&[("version", status.version)]), "1".into())]);
    text.family("build_info", Kind::Gauge, "The program's version, as a label of a constant 1.", &build);
    text.single("uptime_seconds", Kind::Gauge, "Time since the start.", Seconds::of_ms(status.uptime_ms));
    let of = |level: Level| (status.health.level == level) as u8;
    let health = [("healthy", Level::Healthy), ("degraded", Level::Degraded), ("unhealthy", Level::Unhealthy)]
        .map(|(name, level)| (labels(&[("level", name)]), of(level).to_string()));
    text.family("health", Kind::Gauge, "1 for the present level of health, 0 for the others.", &health.into());
    let reasons = status.health.reasons.len();
    text.single("health_reasons", Kind::Gauge, "Reasons why the process is not healthy.", reasons);
    let fallbacks = status.decoder_fallbacks;
    text.single("decoder_fallbacks_total", Kind::Counter, "Messages left to the general reader.", fallbacks);
    text.single("log_lines_dropped_total", Kind::Counter, "Log lines that nobody read.", status.log_lines_dropped);
}

fn turns(text: &mut Text, turns: &Turns) {
    const ENDS: [&str; 6] = ["1e-05", "0.0001", "0.001", "0.01", "0.1", "+Inf"];
    text.head("loop_turn_seconds", Kind::Histogram, "Length of the loop's turns, sleep excluded.");
    for (end, count) in ENDS.iter().zip(turns.turn_histogram) {
        text.line(format_args!("{PREFIX}loop_turn_seconds_bucket{{le=\"{end}\"}} {count}"));
    }
    text.line(format_args!("{PREFIX}loop_turn_seconds_sum {}", Seconds { us: turns.turn_sum_us }));
    // The last class is the count by definition; the turn counter is read at another moment.
    text.line(format_args!("{PREFIX}loop_turn_seconds_count {}", turns.turn_histogram.last().unwrap_or(&0)));
    text.single("loop_stalls_total", Kind::Counter, "Turns of the loop longer than runtime.stall.", turns.stalls);
    let longest = Seconds { us: turns.max_turn_us };
    text.single("loop_turn_longest_seconds", Kind::Gauge, "The longest turn of the loop since the start.", longest);
}

/// A family by connection, stream or symbol: name, kind, help, figure.
type Row<T> = (&'static str, Kind, &'static str, fn(&T) -> u64);

fn symbols(text: &mut Text, symbols: &BTreeMap<String, Symbol>) {
    use Kind::{Counter, Gauge};
    const FAMILIES: [Row<Trades>; 6] = [
        ("trades_received_total", Counter, "Trades counted once each, as pushed.", |t| t.received),
        ("trades_duplicate_total", Counter, "Trades that were pushed again.", |t| t.duplicates),
        ("trades_backfilled_total", Counter, "Trades that came over REST.", |t| t.backfilled),
        ("trades_missing", Gauge, "Trade ids known to be absent now.", |t| t.missing),
        ("trades_held", Gauge, "Trades in the ring.", |t| t.len as u64),
        ("trade_holes", Gauge, "Runs of absent trade ids that are open.", |t| t.holes.len() as u64),
    ];
    for (name, kind, help, figure) in FAMILIES {
        let samples = symbols.iter().filter_map(|(symbol, row)| {
            let trades = row.trades.as_ref()?;
            Some((labels(&[("symbol", symbol)]), figure(trades).to_string()))
        });
        text.family(name, kind, help, &samples.collect());
    }
    let marks = || symbols.iter().filter_map(|(symbol, row)| Some((symbol, row.mark_price.as_ref()?)));
    let prices = marks().map(|(symbol, mark)| (labels(&[("symbol", symbol)]), mark.price.to_string())).collect();
    text.family("mark_price", Gauge, "The newest mark price, in the quote asset.", &prices);
    let ages = youngest(marks().filter_map(|(symbol, mark)| Some((labels(&[("symbol", symbol)]), mark.age_ms?))));
    text.family("mark_price_age_seconds", Gauge, "Time since the newest mark price.", &ages);
    let candles = |figure: fn(&crate::status::Candles) -> u64| {
        let rows = symbols.iter().flat_map(|(symbol, row)| row.candles.iter().map(move |entry| (symbol, entry)));
        let label = |symbol: &str, interval: &str| labels(&[("symbol", symbol), ("interval", interval)]);
        rows.map(|(symbol, (interval, candles))| (label(symbol, interval), figure(candles).to_string())).collect()
    };
    text.family("candles_held", Gauge, "Candles in the ring, the running one included.", &candles(|c| c.len as u64));
    text.family("candles_closed", Gauge, "Closed candles in the ring.", &candles(|c| c.closed as u64));
    text.family("candle_updates_total", Counter, "Candle messages since the start.", &candles(|c| c.updates));
}

fn workers(text: &mut Text, lanes: &[(&str, Lane)]) {
    use Kind::{Counter, Gauge};
    let of = |figure: fn(&Lane) -> u64| {
        lanes.iter().map(|(name, lane)| (labels(&[("lane", name)]), figure(lane).to_string())).collect::<Samples>()
    };
    text.family("worker_jobs_queued", Gauge, "Jobs that wait for a thread.", &of(|lane| lane.queued));
    text.family(
        "worker_jobs_in_flight",
        Gauge,
        "Jobs being worked on, hung ones included.",
        &of(|lane| lane.in_flight),
    );
    text.family("worker_timeouts_total", Counter, "Jobs given up on at their deadline.", &of(|lane| lane.timeouts));
}

fn sum(rows: impl Iterator<Item = (String, u64)>) -> Samples {
    let mut sums = BTreeMap::<String, u64>::new();
    rows.for_each(|(labels, figure)| {
        let sum = sums.entry(labels).or_default();
        *sum = sum.saturating_add(figure);
    });
    sums.into_iter().map(|(labels, sum)| (labels, sum.to_string())).collect()
}

fn youngest(rows: impl Iterator<Item = (String, u64)>) -> Samples {
    let mut ages = BTreeMap::<String, u64>::new();
    rows.for_each(|(labels, age_ms)| {
        let age = ages.entry(labels).or_insert(age_ms);
        *age = age_ms.min(*age);
    });
    ages.into_iter().map(|(labels, age_ms)| (labels, Seconds::of_ms(age_ms).to_string())).collect()
}

/// `{name="value",…}`, escaped.
fn labels(pairs: &[(&str, &str)]) -> String {
    let mut out = String::from("{");
    for (at, (name, value)) in pairs.iter().enumerate() {
        let _ = write!(out, "{}{name}=\"", if at == 0 { "" } else { "," });
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out.push('}');
    out
}

/// Seconds, exactly.
struct Seconds {
    us: u64,
}

impl Seconds {
    fn of_ms(ms: u64) -> Self {
        Self { us: ms.saturating_mul(1_000) }
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, micros) = (self.us / 1_000_000, self.us % 1_000_000);
        if micros == 0 { write!(f, "{whole}") } else { write!(f, "{whole}.{micros:06}") }
    }
}

#[cfg(test)]
mod tests;
