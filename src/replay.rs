//! Recorded frames through the parser and the market that live ones go through: lines in, books and counters out.
//!
//! No clock, no files, no randomness: the same lines give the same report. Each source (column two of a recording) has
//! a market of its own, because ids of one market mean nothing in another. Nobody says beforehand which symbols there
//! are: a name is taken in with the first well-formed frame that bears it, and never from a malformed one.

use crate::config::TapeLimits;
use crate::engine::symbol_report;
use crate::market::tape::{Source, TapeEvent};
use crate::market::{Applied, Book, Market};
use crate::recording::Line;
use crate::status::Symbol;
use crate::time::{Instant, Now};
use crate::wire::market::{Decoded, Decoder, Reject, RejectKind};
use crate::wire::names::SYMBOLS_MAX;
use crate::wire::{Frame, Symbols};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Most sources that are told apart; a recorder has a handful of connections.
pub const SOURCES_MAX: usize = 1024;
/// All of a source came over one connection as far as a recording knows, so no id is missed between two.
const CONNECTION: Source = Source::Further;

/// What became of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It went into a book.
    Applied,
    /// Well formed and nothing for a book: another kind of event, a reply, an announcement of a shutdown.
    PassedOver,
    /// It was refused, for this reason.
    Rejected(&'static str),
}

/// Lines counted by what became of them: `frames` is the sum of the other three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All lines.
    pub frames: u64,
    /// Refused ones.
    pub rejected: u64,
    /// Those that were not for a book.
    pub passed_over: u64,
    /// Those that went into one.
    pub applied: u64,
}

/// Why a line was rejected that is none.
const NO_LINE: &str = "line";
/// Why a frame was rejected whose source is one too many.
const NO_ROOM: &str = "source";

impl Counts {
    /// What came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            frames: self.frames - earlier.frames,
            rejected: self.rejected - earlier.rejected,
            passed_over: self.passed_over - earlier.passed_over,
            applied: self.applied - earlier.applied,
        }
    }

    fn count(&mut self, outcome: Outcome, times: u64) {
        self.frames += times;
        *match outcome {
            Outcome::Applied => &mut self.applied,
            Outcome::PassedOver => &mut self.passed_over,
            Outcome::Rejected(_) => &mut self.rejected,
        } += times;
    }
}

/// What all lines together came to.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Lines of all sources and of none.
    #[serde(flatten)]
    pub counts: Counts,
    /// Those of the rejected that are no line of a recording at all; they belong to no source.
    pub malformed_lines: u64,
    /// The rejected by reason.
    pub rejected_by: BTreeMap<&'static str, u64>,
    /// Rows refused inside arrays of mark prices. Such a frame counts once: as applied if any row of it was good.
    pub rejected_rows: u64,
    /// By name.
    pub sources: BTreeMap<String, SourceReport>,
}

/// What the lines of one source came to.
#[derive(Debug, Serialize)]
pub struct SourceReport {
    /// Its lines.
    #[serde(flatten)]
    pub counts: Counts,
    /// By name, as `/status` has them, without ages.
    pub symbols: BTreeMap<String, Symbol>,
}

/// Takes lines and keeps what they say.
pub struct Replay {
    decoder: Decoder,
    limits: TapeLimits,
    sources: BTreeMap<String, Lane>,
    /// Symbols that may still be learnt, over all sources.
    room: usize,
    counts: Counts,
    rejected_by: BTreeMap<&'static str, u64>,
    rejected_rows: u64,
}

/// One source.
struct Lane {
    market: Market,
    counts: Counts,
}

impl Replay {
    /// Nothing yet; rings of these sizes for whatever comes.
    pub fn new(limits: TapeLimits) -> Self {
        Self {
            decoder: Decoder::default(),
            limits,
            sources: BTreeMap::new(),
            room: SYMBOLS_MAX,
            counts: Counts::default(),
            rejected_by: BTreeMap::new(),
            rejected_rows: 0,
        }
    }

    /// Takes in one line. Several recordings are one sequence: a later one goes on where the earlier ended.
    pub fn take(&mut self, line: &Line<'_>) -> Outcome {
        let full = self.sources.len() >= SOURCES_MAX;
        let lane = match self.sources.get_mut(line.source) {
            Some(lane) => lane,
            None if full => {
                self.count(Outcome::Rejected(NO_ROOM), 1);
                return Outcome::Rejected(NO_ROOM);
            }
            None => {
                let market = Market::learning(self.limits);
                self.sources.entry(line.source.to_owned()).or_insert(Lane { market, counts: Counts::default() })
            }
        };
        let mut reader = Reader { decoder: &mut self.decoder, market: &mut lane.market, room: &mut self.room };
        let (outcome, refused_rows) = reader.take(line);
        lane.counts.count(outcome, 1);
        self.rejected_rows += refused_rows;
        self.count(outcome, 1);
        outcome
    }

    /// Counts so many lines that are none: each of them is a rejected frame of no source.
    pub fn take_malformed(&mut self, lines: u64) {
        if lines > 0 {
            self.count(Outcome::Rejected(NO_LINE), lines);
        }
    }

    fn count(&mut self, outcome: Outcome, times: u64) {
        self.counts.count(outcome, times);
        if let Outcome::Rejected(reason) = outcome {
            *self.rejected_by.entry(reason).or_default() += times;
        }
    }

    /// The lines so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The market of each source, by name.
    pub fn markets(&self) -> impl Iterator<Item = (&str, &Market)> {
        self.sources.iter().map(|(name, lane)| (name.as_str(), &lane.market))
    }

    /// What it all came to.
    pub fn report(&self) -> Report {
        let sources = self.sources.iter().map(|(name, lane)| {
            let held = lane.market.books().filter(|(_, book)| holds_anything(book));
            let symbols = held.map(|(name, book)| (name.to_owned(), symbol_report(book, None))).collect();
            (name.clone(), SourceReport { counts: lane.counts, symbols })
        });
        Report {
            counts: self.counts,
            malformed_lines: self.rejected_by.get(NO_LINE).copied().unwrap_or_default(),
            rejected_by: self.rejected_by.clone(),
            rejected_rows: self.rejected_rows,
            sources: sources.collect(),
        }
    }
}

/// False where the tape refused all there was.
fn holds_anything(book: &Book) -> bool {
    book.tape.as_ref().is_some_and(|tape| tape.received() > 0) || book.mark.is_some() || !book.candles.is_empty()
}

/// What it takes to read a line of one source.
struct Reader<'r> {
    decoder: &'r mut Decoder,
    market: &'r mut Market,
    room: &'r mut usize,
}

impl Reader<'_> {
    /// What became of the line, and how many rows of it were refused if it had any.
    fn take(&mut self, line: &Line<'_>) -> (Outcome, u64) {
        // A frame that stands alone has no time; nothing that is reported depends on it.
        let utc_ns = line.recv_ns.unwrap_or(0);
        let now = Now { mono: Instant::from_ns(utc_ns.unsigned_abs()), utc_ns };
        match self.decode(line.frame) {
            Ok(Decoded::Frame(frame)) => (self.apply(&frame, now), 0),
            Ok(Decoded::Marks { refused, first }) => {
                for mark in self.decoder.marks() {
                    self.market.apply(&Frame::Mark(*mark), CONNECTION, now);
                }
                let outcome = match first {
                    _ if !self.decoder.marks().is_empty() => Outcome::Applied,
                    Some(reject) => Outcome::Rejected(reject.kind.as_str()),
                    None => Outcome::PassedOver,
                };
                (outcome, u64::from(refused))
            }
            Ok(Decoded::Control(_) | Decoded::Shutdown | Decoded::Other) => (Outcome::PassedOver, 0),
            Err(reject) => (Outcome::Rejected(reject.kind.as_str()), 0),
        }
    }

    fn apply(&mut self, frame: &Frame, now: Now) -> Outcome {
        match self.market.apply(frame, CONNECTION, now) {
            Applied::Trade(TapeEvent::Refused) => Outcome::Rejected(RejectKind::Id.as_str()),
            Applied::Trade(TapeEvent::Next | TapeEvent::Gap(_) | TapeEvent::Filled | TapeEvent::Duplicate)
            | Applied::Mark
            | Applied::Candle => Outcome::Applied,
        }
    }

    /// Reads a frame, whoever's it is. Its names are tried in a table of their own first, and only those are learnt
    /// whose frame or row is good with them.
    fn decode(&mut self, text: &str) -> Result<Decoded, Reject> {
        let decoded = self.decoder.decode(text, self.market.symbols());
        let may_name_others =
            matches!(decoded, Err(Reject { kind: RejectKind::Symbol, .. }) | Ok(Decoded::Marks { .. }));
        if !may_name_others {
            return decoded;
        }
        let unknown = unknown_names(text, self.market.symbols());
        if unknown.is_empty() {
            return decoded;
        }
        let mut tried = self.market.symbols().clone();
        for name in &unknown {
            tried.intern(name);
        }
        let verdict = self.decoder.decode(text, &tried);
        match verdict {
            Ok(Decoded::Frame(frame)) => learn(self.market, self.room, tried.name(frame.symbol())),
            Ok(Decoded::Marks { .. }) => {
                for mark in self.decoder.marks() {
                    learn(self.market, self.room, tried.name(mark.symbol));
                }
            }
            Ok(Decoded::Control(_) | Decoded::Shutdown | Decoded::Other) | Err(_) => return verdict,
        }
        let decoded = self.decoder.decode(text, self.market.symbols());
        // Rows of names that were not learnt are silently passed over now; the verdict has counted them.
        if matches!(decoded, Ok(Decoded::Marks { .. })) { verdict } else { decoded }
    }
}

/// Takes in a name while there is room for one.
fn learn(market: &mut Market, room: &mut usize, name: &str) {
    let known = market.symbols().find(name.as_bytes()).is_some();
    if !known && *room > 0 && market.learn(name).is_some() {
        *room -= 1;
    }
}

/// The names in a frame, or in the rows of one, that are not in the table and could be somebody's.
fn unknown_names(text: &str, symbols: &Symbols) -> Vec<String> {
    let Ok(message) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let event = if message.get("stream").is_some() { message.get("data") } else { Some(&message) };
    let rows = match event {
        Some(Value::Array(rows)) => rows.as_slice(),
        Some(event) => std::slice::from_ref(event),
        None => &[],
    };
    let names = rows.iter().filter_map(|row| row.get("s")?.as_str());
    // A table takes none that is empty or too long.
    let could_be = |name: &&str| !name.chars().any(char::is_control) && symbols.find(name.as_bytes()).is_none();
    names.filter(could_be).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trade(symbol: &str, id: i64) -> String {
        format!(
            r#"{{"e":"aggTrade","E":1789000000150,"a":{id},"s":"{symbol}","p":"100.10","q":"0.5","f":{id},"l":{id},"T":1789000000000,"m":true}}"#
        )
    }

    fn mark(symbol: &str, price: &str) -> String {
        format!(
            r#"{{"e":"markPriceUpdate","E":1789000004000,"s":"{symbol}","p":"{price}","P":"0","i":"1.5","r":"","T":0}}"#
        )
    }

    fn candle(symbol: &str, again: &str) -> String {
        format!(
            r#"{{"e":"kline","E":1789000000150,"s":"{symbol}","k":{{"t":1788999960000,"T":1789000019999,"s":"{again}","i":"1m","f":1,"L":1,"o":"1","c":"1","h":"1","l":"1","v":"1","n":1,"x":false,"q":"1","V":"1","Q":"1","B":"0"}}}}"#
        )
    }

    fn take(replay: &mut Replay, source: &str, frame: &str) -> Outcome {
        replay.take(&Line { recv_ns: None, source, frame })
    }

    fn replay() -> Replay {
        Replay::new(TapeLimits { trades: 8, candles: 8, backfill: false })
    }

    fn names(replay: &Replay) -> Vec<(String, Vec<String>)> {
        let report = replay.report();
        report.sources.into_iter().map(|(name, source)| (name, source.symbols.into_keys().collect())).collect()
    }

    #[test]
    fn symbols_are_learnt_from_good_frames_only() {
        let mut replay = replay();
        for (frame, expected) in [
            (trade("AUSDT", 5), Outcome::Applied),
            (format!(r#"{{"stream":"x","data":{}}}"#, trade("币USDT", 5)), Outcome::Applied),
            (candle("CUSDT", "CUSDT"), Outcome::Applied),
            (candle("DUSDT", "EUSDT"), Outcome::Rejected("symbol")),
            (trade("FUSDT", -1), Outcome::Rejected("number")),
            (mark("GUSDT", "none"), Outcome::Rejected("number")),
            (trade("", 5), Outcome::Rejected("symbol")),
            (trade("H\\u001bUSDT", 5), Outcome::Rejected("symbol")),
            (trade(&"I".repeat(65), 5), Outcome::Rejected("symbol")),
            (trade(&"J".repeat(64), 5), Outcome::Applied),
            // a day's lag fits, a month's does not: nobody's trade
            (trade("KUSDT", 5).replace("\"T\":1789000000000", "\"T\":1780000000000"), Outcome::Rejected("id")),
            (trade("AUSDT", 500_000_000), Outcome::Rejected("id")),
        ] {
            assert_eq!(take(&mut replay, "um", &frame), expected, "{frame}");
        }
        let long = "J".repeat(64);
        assert_eq!(names(&replay), [("um".into(), vec!["AUSDT".into(), "CUSDT".into(), long, "币USDT".into()])]);
    }

    #[test]
    fn every_good_row_of_mark_prices_is_learnt() {
        let mut replay = replay();
        let rows = [mark("AUSDT", "1.0"), mark("BUSDT", "x"), mark("CUSDT", "2.0"), "7".into()].join(",");
        assert_eq!(take(&mut replay, "um", &format!("[{rows}]")), Outcome::Applied);
        let wrapped =
            format!(r#"{{"stream":"!markPrice@arr","data":[{},{}]}}"#, mark("BUSDT", "x"), mark("CUSDT", "3"));
        assert_eq!(take(&mut replay, "um", &wrapped), Outcome::Applied);
        assert_eq!(take(&mut replay, "um", &format!("[{}]", mark("DUSDT", "0"))), Outcome::Rejected("number"));
        assert_eq!(names(&replay), [("um".into(), vec!["AUSDT".to_owned(), "CUSDT".to_owned()])]);
        let report = replay.report();
        assert_eq!(report.rejected_rows, 4);
        assert_eq!(report.counts, Counts { frames: 3, rejected: 1, passed_over: 0, applied: 2 });
        let mark = report.sources["um"].symbols["CUSDT"].mark_price.as_ref().unwrap();
        assert_eq!((mark.price.to_string(), mark.age_ms), ("3".to_owned(), None));
    }

    #[test]
    fn sources_share_nothing_and_lines_add_up() {
        let mut replay = replay();
        for (source, id) in [("um", 1), ("spot", 9), ("um", 2), ("spot", 9), ("um", 4)] {
            take(&mut replay, source, &trade("AUSDT", id));
        }
        for frame in ["", "{}", r#"{"result":null,"id":1}"#, r#"{"e":"serverShutdown","E":1}"#, r#"{"e":"trade"}"#] {
            take(&mut replay, "um", frame);
        }
        replay.take_malformed(2);
        let report = replay.report();
        assert_eq!(report.counts, Counts { frames: 12, rejected: 4, passed_over: 3, applied: 5 });
        assert_eq!(report.sources["um"].counts, Counts { frames: 8, rejected: 2, passed_over: 3, applied: 3 });
        assert_eq!(report.rejected_by, BTreeMap::from([("json", 1), ("line", 2), ("shape", 1)]));
        let tape = |source: &str| {
            let trades = report.sources[source].symbols["AUSDT"].trades.clone().unwrap();
            (trades.received, trades.duplicates, trades.missing, trades.holes.first().map(|hole| hole.reason.clone()))
        };
        assert_eq!(tape("um"), (3, 0, 1, Some("not delivered on an open connection".to_owned())));
        assert_eq!(tape("spot"), (1, 1, 0, None));
    }

    #[test]
    fn sources_and_symbols_without_end_are_bounded() {
        let mut replay = replay();
        for n in 0..SOURCES_MAX + 5 {
            take(&mut replay, &n.to_string(), "{}");
        }
        assert_eq!(replay.report().sources.len(), SOURCES_MAX);
        assert_eq!(replay.report().rejected_by["source"], 5);
        replay.room = 3;
        let learnt = (0..6).filter(|n| take(&mut replay, "0", &mark(&format!("S{n}"), "1")) == Outcome::Applied);
        assert_eq!(learnt.count(), 3);
        assert_eq!(take(&mut replay, "1", &mark("S1", "1")), Outcome::Rejected("symbol"));
        assert_eq!(take(&mut replay, "0", &mark("S1", "2")), Outcome::Applied);
    }
}
