//! Recorded frames, sent again: the same exchange, with a market that happened before.
//!
//! Times inside the frames stay as recorded. The books are what the frames said.

use super::books::{Book, Mark, Print};
use super::candles::{Candle, Candles};
use super::fields::{elements, field, fields, string};
use super::push::Watch;
use super::setup::Listing;
use super::{Due, Exchange};
use crate::config::Market;
use crate::fixed::{self, Fixed, Wide};
use crate::time::UtcMs;
use crate::wire::Interval;
use std::collections::BTreeSet;
use std::rc::Rc;

/// A recording that waited for a listener begins so much later: who comes together hears it together.
const HEAD_START_MS: i64 = 500;

/// One line of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedFrame {
    /// Receive time, nanoseconds since 1970-01-01Z.
    pub at_ns: i64,
    /// The frame as received, wrapped or bare.
    pub text: String,
}

impl RecordedFrame {
    /// Reads the lines of a recording: `time TAB connection TAB frame`, or a bare frame, which is dated by its event
    /// time, else like the line before. Lines whose second column names another market (`um`, `cm`, `spot`, `us`) are
    /// left out, unless there are no others: one exchange cannot play two markets.
    pub fn of_lines<'a>(lines: impl IntoIterator<Item = &'a str>, market: Market) -> Vec<Self> {
        let others: &[&str] = match market {
            Market::Usdm => &["cm", "spot", "us"],
            Market::Spot => &["um", "cm"],
        };
        let lines: Vec<&str> = lines.into_iter().collect();
        let ours = Self::without(&lines, others);
        if ours.is_empty() { Self::without(&lines, &[]) } else { ours }
    }

    fn without(lines: &[&str], others: &[&str]) -> Vec<Self> {
        let (mut out, mut last_ns): (Vec<Self>, i64) = (Vec::new(), 0);
        for line in lines.iter().copied() {
            let mut columns = line.splitn(3, '\t');
            let dated = match (columns.next().map(str::parse::<i64>), columns.next(), columns.next()) {
                (Some(Ok(at_ns)), Some(source), Some(text)) => Some((at_ns, source, text)),
                _ => None,
            };
            if dated.is_some_and(|(_, source, _)| others.contains(&source)) || line.trim().is_empty() {
                continue;
            }
            let (at_ns, text) = match dated {
                Some((at_ns, _, text)) => (at_ns, text),
                None => (event_ns(line).unwrap_or(last_ns), line),
            };
            // Times never go back, whatever the recorder's clock did.
            last_ns = last_ns.max(at_ns);
            out.push(Self { at_ns: last_ns, text: text.to_owned() });
        }
        out
    }
}

/// The event time of a frame, wrapped or bare.
fn event_ns(text: &str) -> Option<i64> {
    let all = fields(text)?;
    let inner = field(&all, "data").and_then(fields).unwrap_or(all);
    number(&inner, "E")?.checked_mul(1_000_000)
}

#[derive(Debug)]
struct Played {
    at_ns: i64,
    stream: Rc<str>,
    data: String,
}

/// A recording on its way.
#[derive(Debug)]
pub struct Playback {
    frames: Vec<Played>,
    streams: BTreeSet<Rc<str>>,
    next: usize,
    speed: f64,
    /// The exchange's clock when the first frame was due.
    started: Option<i64>,
    /// Frames that belong to no stream: acknowledgements, malformed ones, bare ones of unknown kinds.
    pub(super) passed_over: usize,
}

impl Playback {
    pub(super) fn done(&self) -> bool {
        self.next >= self.frames.len()
    }

    fn first_ns(&self) -> i64 {
        self.frames.first().map_or(0, |frame| frame.at_ns)
    }

    fn due(&self) -> Option<i64> {
        let after_ms = (self.frames.get(self.next)?.at_ns - self.first_ns()) as f64 / 1e6 / self.speed;
        Some(self.started? + after_ms as i64)
    }
}

impl Exchange {
    /// Takes a recording instead of a market. Its symbols are the exchange's.
    pub(super) fn start_playback(&mut self, recorded: Vec<RecordedFrame>, speed: f64, wait_for_subscriber: bool) {
        let (total, mut frames) = (recorded.len(), Vec::with_capacity(recorded.len()));
        let mut streams: BTreeSet<Rc<str>> = BTreeSet::new();
        for RecordedFrame { at_ns, text } in recorded {
            let Some((stream, data)) = split(&text) else { continue };
            let stream = streams.get(stream.as_str()).cloned().unwrap_or_else(|| Rc::from(stream));
            streams.insert(Rc::clone(&stream));
            frames.push(Played { at_ns, stream, data: data.to_owned() });
        }
        let passed_over = total - frames.len();
        self.config.symbols.clear();
        for frame in &frames {
            let rows = elements(&frame.data).unwrap_or_else(|| vec![&frame.data]);
            for row in rows {
                let Some(name) = fields(row).and_then(|all| string(field(&all, "s")?)) else { continue };
                self.list_recorded(name, row);
            }
        }
        let speed = if speed.is_finite() && speed > 0.0 { speed } else { 1.0 };
        let started = (!wait_for_subscriber).then_some(self.now);
        self.playback = Some(Playback { frames, streams, next: 0, speed, started, passed_over });
        if started.is_some() {
            self.at(self.now, Due::Frame);
        }
    }

    /// Lists a symbol with the decimals its numbers show; trades and candles show more than marks do.
    fn list_recorded(&mut self, name: &str, row: &str) {
        let Some(all) = fields(row) else { return };
        let inner = field(&all, "k").and_then(fields);
        let price = |key| string(field(inner.as_ref().unwrap_or(&all), key)?);
        let (price, qty) = match &inner {
            Some(_) => (price("c"), price("v")),
            None => (price("p"), price("q")),
        };
        let parsed = |text: Option<&str>| text.and_then(|text| fixed::parse(text.as_bytes()).ok());
        let mut listing = Listing::new(name, price.unwrap_or("1"), 0.0);
        if let (Some(price), Some(qty)) = (parsed(price), parsed(qty)) {
            listing.price_decimals = price.decimals;
            listing.qty_decimals = qty.decimals;
            listing.tick = Fixed(10_i64.pow(8 - u32::from(price.decimals.min(8))));
            listing.step = Fixed(10_i64.pow(8 - u32::from(qty.decimals.min(8))));
        }
        match self.books.index(name) {
            None => {
                self.config.symbols.push(listing.clone());
                let candles = Candles::pushed(self.config.candles_kept);
                self.books.add(Book::new(listing, self.config.trades_kept, candles, 0));
                self.watches.push(Watch::default());
            }
            // Until a trade was seen the decimals were a guess.
            Some(index) if parsed(qty).is_some() && self.books.at(index).fills == 0 => {
                self.books.at_mut(index).fills = 1;
                self.config.symbols[index] = listing.clone();
                self.books.at_mut(index).listing = listing;
            }
            Some(_) => {}
        }
    }

    /// Somebody listens: a recording that waited for that begins.
    pub(super) fn playback_wanted(&mut self, stream: &str) {
        let start = self.now + HEAD_START_MS;
        let waits = |playback: &&mut Playback| playback.started.is_none() && playback.streams.contains(stream);
        if let Some(playback) = self.playback.as_mut().filter(waits) {
            playback.started = Some(start);
            self.at(start, Due::Frame);
        }
    }

    /// The streams of the recording, by name.
    pub fn recorded_streams(&self) -> impl Iterator<Item = &str> {
        self.playback.iter().flat_map(|playback| playback.streams.iter().map(|stream| &**stream))
    }

    /// Frames of the recording that belong to no stream and are not sent.
    pub fn passed_over(&self) -> usize {
        self.playback.as_ref().map_or(0, |playback| playback.passed_over)
    }

    /// The market's clock: the recording's in playback, else the exchange's.
    pub(super) fn market_now(&self) -> i64 {
        let Some(playback) = &self.playback else { return self.now };
        let passed = playback.started.map_or(0.0, |started| (self.now - started).max(0) as f64 * playback.speed);
        playback.first_ns() / 1_000_000 + passed as i64
    }

    /// Sends the frames that are due.
    pub(super) fn play(&mut self) {
        while let Some(playback) = &mut self.playback {
            let Some(due) = playback.due() else { return };
            if due > self.now {
                self.at(due, Due::Frame);
                return;
            }
            let at = playback.next;
            playback.next += 1;
            let stream = Rc::clone(&playback.frames[at].stream);
            let data = std::mem::take(&mut playback.frames[at].data);
            for row in elements(&data).unwrap_or_else(|| vec![&data]) {
                self.enter(row);
            }
            if let Some(channel) = self.by_stream.get(&*stream).copied() {
                let closing = data.contains(r#""x":true"#);
                self.publish(channel, &data, closing);
            }
        }
    }

    /// Writes a recorded event into the books. What cannot be read is sent all the same, and not entered.
    fn enter(&mut self, row: &str) -> Option<()> {
        let all = fields(row)?;
        let book = self.books.index(string(field(&all, "s")?)?)?;
        let book = self.books.at_mut(book);
        match string(field(&all, "e")?)? {
            "aggTrade" => {
                let print = read_print(&all)?;
                book.last_price = print.price;
                book.push(print);
            }
            "markPriceUpdate" => book.mark = Some(read_mark(&all)?),
            "kline" => {
                let inner = fields(field(&all, "k")?)?;
                let interval = Interval::parse(string(field(&inner, "i")?)?.as_bytes())?;
                let candle = read_candle(&inner)?;
                book.candles.put(interval, candle);
            }
            _ => {}
        }
        Some(())
    }
}

/// The stream and the bare payload of a recorded text. A bare one says its stream by its content; a mark price is taken
/// for one of the second.
fn split(text: &str) -> Option<(String, &str)> {
    if let Some(all) = fields(text) {
        if let (Some(stream), Some(data)) = (field(&all, "stream"), field(&all, "data")) {
            return Some((string(stream)?.to_owned(), data));
        }
        let symbol = string(field(&all, "s")?)?.to_lowercase();
        let kind = match string(field(&all, "e")?)? {
            "aggTrade" => "aggTrade".to_owned(),
            "trade" => "trade".to_owned(),
            "bookTicker" => "bookTicker".to_owned(),
            "markPriceUpdate" => "markPrice@1s".to_owned(),
            "kline" => format!("kline_{}", string(field(&fields(field(&all, "k")?)?, "i")?)?),
            _ => return None,
        };
        return Some((format!("{symbol}@{kind}"), text));
    }
    let first = elements(text)?.into_iter().next().and_then(fields)?;
    (string(field(&first, "e")?)? == "markPriceUpdate").then(|| ("!markPrice@arr@1s".to_owned(), text))
}

type Fields<'a> = [(&'a str, &'a str)];

fn number(all: &Fields<'_>, key: &str) -> Option<i64> {
    field(all, key)?.parse().ok()
}

fn decimal(all: &Fields<'_>, key: &str) -> Option<Fixed> {
    Fixed::parse(string(field(all, key)?)?).ok()
}

fn wide(all: &Fields<'_>, key: &str) -> Option<Wide> {
    fixed::parse(string(field(all, key)?)?.as_bytes()).ok().map(|parsed| Wide(parsed.units))
}

fn read_print(all: &Fields<'_>) -> Option<Print> {
    let qty = decimal(all, "q")?;
    Some(Print {
        id: number(all, "a")?,
        price: decimal(all, "p")?,
        qty,
        plain_qty: decimal(all, "nq").unwrap_or(qty),
        first_id: number(all, "f")?,
        last_id: number(all, "l")?,
        trade_time: UtcMs(number(all, "T")?),
        event_time: UtcMs(number(all, "E")?),
        buyer_is_maker: field(all, "m")?.parse().ok()?,
    })
}

fn read_mark(all: &Fields<'_>) -> Option<Mark> {
    let price = decimal(all, "p")?;
    Some(Mark {
        price,
        index: decimal(all, "i")?,
        settle: decimal(all, "P").unwrap_or(price),
        funding: decimal(all, "r"),
        next_funding: UtcMs(number(all, "T")?),
        event_time: UtcMs(number(all, "E")?),
    })
}

fn read_candle(all: &Fields<'_>) -> Option<Candle> {
    Some(Candle {
        open_time: number(all, "t")?,
        close_time: number(all, "T")?,
        open: decimal(all, "o")?,
        high: decimal(all, "h")?,
        low: decimal(all, "l")?,
        close: decimal(all, "c")?,
        volume: wide(all, "v")?,
        quote_volume: wide(all, "q")?,
        taker_buy_volume: wide(all, "V")?,
        taker_buy_quote_volume: wide(all, "Q")?,
        trades: number(all, "n")?,
        first_id: number(all, "f")?,
        last_id: number(all, "L")?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::setup::{ExchangeConfig, Source};
    use super::super::venue::{Action, RestRequest};
    use super::*;
    use std::io::{BufRead, BufReader};

    const START: i64 = 1_795_608_000_000;

    fn exchange(frames: Vec<RecordedFrame>, speed: f64) -> Exchange {
        let source = Source::Recorded { frames, speed, wait_for_subscriber: true };
        Exchange::new(ExchangeConfig { source, ..ExchangeConfig::default() }, UtcMs(START))
    }

    fn texts(exchange: &mut Exchange) -> Vec<String> {
        std::iter::from_fn(|| exchange.poll_action())
            .filter_map(|(_, action)| if let Action::Text(text) = action { Some(text.to_string()) } else { None })
            .collect()
    }

    fn rest(exchange: &mut Exchange, path: &str, query: &str) -> serde_json::Value {
        let request = RestRequest {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        let now = exchange.now();
        serde_json::from_str(&exchange.rest(&request, now).body).unwrap()
    }

    #[test]
    fn a_recording_is_sent_again_as_it_was() {
        let trade = |id: i64, at: i64| {
            format!(
                r#"{{"e":"aggTrade","E":{at},"a":{id},"s":"ABCUSDT","p":"10.50","q":"0.100","f":{id},"l":{id},"T":{at},"m":true}}"#
            )
        };
        let candle = r#"{"e":"kline","E":61000,"s":"ABCUSDT","k":{"t":0, "T":59999, "s":"ABCUSDT", "i":"1m", "f":1, "L":3, "o":"10.50", "c":"10.50", "h":"10.50", "l":"10.50", "v":"0.300", "n":3, "x":true, "q":"3.15000", "V":"0.000", "Q":"0.00000", "B":"0"}}"#;
        let frame = |at_ms: i64, text: String| RecordedFrame { at_ns: at_ms * 1_000_000, text };
        let wrapped = |text: &str| format!(r#"{{"stream":"abcusdt@aggTrade","data":{text}}}"#);
        let (one, two) = (trade(1, 990), trade(2, 2_990));
        let mut exchange = exchange(
            vec![
                frame(1_000, wrapped(&one)),
                frame(2_000, r#"{"result":null,"id":1}"#.to_owned()),
                frame(3_000, two.clone()),
                frame(61_000, format!(r#"{{"stream":"abcusdt@kline_1m","data":{candle}}}"#)),
            ],
            10.0,
        );
        assert_eq!(exchange.recorded_streams().collect::<Vec<_>>(), ["abcusdt@aggTrade", "abcusdt@kline_1m"]);
        let later = START + 60_000;
        exchange.advance(UtcMs(later));
        let info = rest(&mut exchange, "/fapi/v1/exchangeInfo", "");
        assert_eq!(info["symbols"][0]["filters"][0]["tickSize"], "0.01");
        exchange.open("/market/ws/abcusdt@aggTrade/abcusdt@kline_1m", UtcMs(later)).unwrap();
        exchange.open("/market/stream?streams=abcusdt@aggTrade", UtcMs(later)).unwrap();
        exchange.advance(UtcMs(later + HEAD_START_MS + 5_999));
        assert_eq!(texts(&mut exchange), [one.clone(), wrapped(&one), two.clone(), wrapped(&two)]);
        assert!(!exchange.done());
        exchange.advance(UtcMs(later + HEAD_START_MS + 6_000));
        assert_eq!(texts(&mut exchange), [candle]);
        assert!(exchange.done());
        assert_eq!(exchange.passed_over(), 1);
        assert_eq!(exchange.truth().book("ABCUSDT").unwrap().ids(), Some((1, 2)));
        assert_eq!(
            rest(&mut exchange, "/fapi/v1/klines", "symbol=ABCUSDT&interval=1m").to_string(),
            r#"[[0,"10.50","10.50","10.50","10.50","0.300",59999,"3.15000",3,"0.000","0.00000","0"]]"#
        );
        assert_eq!(
            rest(&mut exchange, "/fapi/v1/aggTrades", "symbol=ABCUSDT&fromId=2")[0]["p"],
            serde_json::Value::from("10.50")
        );
    }

    #[test]
    fn lines_are_dated_or_bare_and_of_one_market() {
        let lines = ["5000000\tum\t{}", "6000000\tspot\t[1]", "", r#"{"data":{"E":7}}"#, "x\ty", "4\tmarket-0\t{\t}"];
        let frames = RecordedFrame::of_lines(lines, Market::Usdm);
        let read: Vec<(i64, &str)> = frames.iter().map(|frame| (frame.at_ns, &*frame.text)).collect();
        assert_eq!(
            read,
            [(5_000_000, "{}"), (7_000_000, r#"{"data":{"E":7}}"#), (7_000_000, "x\ty"), (7_000_000, "{\t}")]
        );
    }

    #[test]
    fn real_recordings_play() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let name = "data/frames/rebuilt/agg_um+spot_BTCUSDT_2026-02-16.jsonl.zst";
        let found =
            ["../shared", "../../shared"].iter().find_map(|at| std::fs::File::open(root.join(at).join(name)).ok());
        let Some(file) = found else {
            println!("skipped: no {name} beside the project");
            return;
        };
        let lines = BufReader::new(zstd::Decoder::new(file).unwrap()).lines().map_while(Result::ok);
        let lines: Vec<String> = lines.collect();
        let frames = RecordedFrame::of_lines(lines.iter().map(String::as_str), Market::Usdm);
        let (total, originals) = (frames.len(), frames.clone());
        let mut exchange = exchange(frames, 1.0);
        exchange.open("/market/stream?streams=btcusdt@aggTrade/btcusdt@kline_1m", UtcMs(START)).unwrap();
        exchange.advance(UtcMs(START + 3_600_000));
        assert!(exchange.done());
        assert_eq!((exchange.passed_over(), total), (0, 5301));
        let sent = texts(&mut exchange);
        assert!(sent.iter().eq(originals.iter().map(|frame| &frame.text)));
        let book = exchange.truth().book("BTCUSDT").unwrap();
        assert_eq!(book.trades().len(), 4646);
        assert_eq!((book.listing.price_decimals, book.listing.qty_decimals), (2, 3));
        assert_eq!(exchange.truth().candles("BTCUSDT", Interval::M1, UtcMs(0)).len(), 5);
    }
}
