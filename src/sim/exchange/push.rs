//! From the market to the streams: what is pushed when, and who listens.

use super::books::{Book, Mark};
use super::candles::{Candles, open_after, open_time};
use super::request::Root;
use super::setup::Contract;
use super::text;
use super::tides::{Fill, Tide, seed_of};
use super::venue::ConnId;
use super::{Due, Exchange};
use crate::config::Market;
use crate::fixed::{Fixed, ONE};
use crate::time::UtcMs;
use crate::wire::Interval;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The exchange learns of a match this long after it.
const FUTURES_LAG_MS: i64 = 3;
const SPOT_LAG_MS: i64 = 2;
/// Marks of metals and shares come this far into the second.
const TRADFI_OFFSET_MS: i64 = 684;
/// A candle whose end no trade announces is closed this long after it, or up to 2 ms later.
const CLOSING_MS: i64 = 2_003;
/// Rows of the all-market array that nobody here lists: name, price in cents, symbol type.
const STRANGERS: [(&str, i64, u8); 4] =
    [("BTCUSD_PERP", 8_309_000, 2), ("ETHUSD_PERP", 266_500, 2), ("ZKUSDT", 14, 1), ("MEGAUSDT", 20, 1)];
const TRADFI_STRANGERS: [(&str, i64, u8); 2] = [("XAUUSDT", 410_392, 1), ("XAGUSDT", 5_963, 1)];

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Trades(usize),
    /// Each second, or each third one.
    Marks(usize, i64),
    Candles(usize, Interval),
    AllMarks(i64),
    /// Frames of the recording with this stream's name.
    Recorded,
}

/// One stream somebody has listened to.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: Rc<str>,
    topic: Topic,
    pub(super) listeners: Vec<ConnId>,
    /// Frames kept back, to be sent after the next one.
    pub(super) held: BTreeMap<ConnId, Rc<str>>,
    /// Of a candle stream: the running candle's open time, and when it was last pushed.
    current: i64,
    last_push: i64,
}

/// The channels fed by one symbol.
#[derive(Debug, Default)]
pub(super) struct Watch {
    trades: Option<usize>,
    marks: Vec<usize>,
    candles: Vec<usize>,
    /// When the next look at waiting aggregates is planned, or was.
    push_at: i64,
}

impl Exchange {
    /// Lists the symbols and lets them trade through the warm-up, silently.
    pub(super) fn start_market(&mut self, utc: i64) {
        let start = utc - self.config.warm_up_ms.max(0);
        self.now = start;
        let shortest = if self.spot() { Interval::S1 } else { Interval::M1 };
        let intervals: Vec<Interval> = Interval::ALL.into_iter().filter(|interval| *interval >= shortest).collect();
        for listing in std::mem::take(&mut self.config.symbols) {
            let first_id = 100_000_000 + (seed_of(self.config.seed, &listing.name) % 3_900_000_000) as i64;
            let tide = Tide::new(&listing, self.config.seed, self.config.rate, start);
            let candles = Candles::new(&intervals, self.config.candles_kept);
            self.config.symbols.push(listing.clone());
            let index = self.books.add(Book::new(listing, self.config.trades_kept, candles, first_id));
            self.watches.push(Watch::default());
            self.at(tide.next_ms() + self.lag(), Due::Order(index));
            self.tides.push(tide);
        }
        if !self.spot() {
            let second = utc.div_euclid(1000) * 1000;
            self.at(second + self.mark_jitter(second), Due::Marks(second, false));
            self.at(second + TRADFI_OFFSET_MS, Due::Marks(second, true));
        }
    }

    fn lag(&self) -> i64 {
        if self.spot() { SPOT_LAG_MS } else { FUTURES_LAG_MS }
    }

    fn mark_jitter(&self, second: i64) -> i64 {
        (seed_of(self.config.seed ^ second as u64, "jitter") % 13) as i64
    }

    /// A taker order: fills, candles, aggregates; and the candle streams at once.
    pub(super) fn order(&mut self, symbol: usize) {
        if let Some(until_ms) = self.halted_until(symbol, self.tides[symbol].next_ms()) {
            self.tides[symbol].put_off(until_ms);
            self.at(until_ms.saturating_add(self.lag()), Due::Order(symbol));
            return;
        }
        let mut fills: Vec<Fill> = std::mem::take(&mut self.fills);
        fills.clear();
        self.tides[symbol].order(&mut fills);
        let next = self.tides[symbol].next_ms() + self.lag();
        let Some(at_ms) = fills.first().map(|fill| fill.at_ms) else { return };
        let (now, market) = (self.now, self.config.market);
        let book = self.books.at_mut(symbol);
        for fill in &fills {
            book.add(fill, market, now, (seed_of(fill.id as u64, "") % 9) as i64);
        }
        self.fills = fills;
        self.plan_push(symbol);
        self.at(next, Due::Order(symbol));
        for at in 0..self.watches[symbol].candles.len() {
            let channel = self.watches[symbol].candles[at];
            self.candle_trade(channel, at_ms);
        }
    }

    /// Pushes the aggregates that are due.
    pub(super) fn push_trades(&mut self, symbol: usize) {
        while let Some(print) = self.books.at_mut(symbol).due(self.now) {
            let Some(channel) = self.watches[symbol].trades.filter(|at| self.listened(*at)) else { continue };
            let raw = text::agg_trade(self.config.market, &self.books.at(symbol).listing, &print);
            self.publish(channel, &raw, false);
        }
        self.plan_push(symbol);
    }

    /// The first aggregate that waits has its moment; one that was closed early has an earlier one now.
    fn plan_push(&mut self, symbol: usize) {
        let Some(due) = self.books.at(symbol).waiting.front().map(|(_, due)| *due) else { return };
        let planned = &mut self.watches[symbol].push_at;
        if *planned <= self.now || due < *planned {
            *planned = due;
            self.at(due, Due::Push(symbol));
        }
    }

    /// A trade at `at_ms` moves a candle stream.
    fn candle_trade(&mut self, channel: usize, at_ms: i64) {
        let Topic::Candles(_, interval) = self.channels[channel].topic else { return };
        if !self.listened(channel) {
            return;
        }
        let open = open_time(interval, at_ms);
        if open > self.channels[channel].current {
            self.push_candle(channel, self.channels[channel].current, true);
            self.begin_candle(channel, open);
        }
        let pause = match (self.config.market, interval) {
            (Market::Usdm, _) => 250,
            (Market::Spot, Interval::S1) => 1_000,
            (Market::Spot, _) => 2_000,
        };
        if self.now - self.channels[channel].last_push >= pause {
            self.channels[channel].last_push = self.now;
            self.push_candle(channel, open, false);
        }
    }

    /// The candle that a stream which begins now would push next: the last one, if nothing has closed it yet.
    fn open_candle(&self, channel: usize, interval: Interval) -> i64 {
        let open = open_time(interval, self.now - CLOSING_MS);
        let Topic::Candles(symbol, _) = self.channels[channel].topic else { return open };
        self.books.at(symbol).candles.newest(interval).map_or(open, |newest| newest.open_time.max(open))
    }

    fn begin_candle(&mut self, channel: usize, open: i64) {
        let Topic::Candles(symbol, interval) = self.channels[channel].topic else { return };
        (self.channels[channel].current, self.channels[channel].last_push) = (open, i64::MIN / 2);
        let after = CLOSING_MS + (seed_of(open as u64, &self.books.at(symbol).listing.name) % 3) as i64;
        self.at(open_after(interval, open) + after, Due::Closing(channel));
    }

    /// No trade has announced the end of the running candle.
    pub(super) fn close_candle(&mut self, channel: usize) {
        let Topic::Candles(_, interval) = self.channels[channel].topic else { return };
        let current = self.channels[channel].current;
        let next = open_after(interval, current);
        if self.now < next + CLOSING_MS || !self.listened(channel) {
            return;
        }
        self.push_candle(channel, current, true);
        self.begin_candle(channel, next);
    }

    fn push_candle(&mut self, channel: usize, open: i64, closed: bool) {
        let Topic::Candles(symbol, interval) = self.channels[channel].topic else { return };
        let book = self.books.at(symbol);
        let Some(candle) = book.candles.at(interval, open) else { return };
        if candle.trades == 0 && self.config.skip_empty_candles {
            return;
        }
        let raw = text::kline(self.config.market, &book.listing, interval, &candle, closed, UtcMs(self.now));
        self.publish(channel, &raw, closed);
    }

    /// The marks of a second: all symbols, or those on metals and shares.
    pub(super) fn marks(&mut self, second: i64, tradfi: bool) {
        let after = if tradfi { TRADFI_OFFSET_MS } else { self.mark_jitter(second + 1000) };
        self.at(second + 1000 + after, Due::Marks(second + 1000, tradfi));
        let third = second.rem_euclid(3_000) == 0;
        let arrays: Vec<usize> = (0..self.channels.len())
            .filter(|at| {
                matches!(self.channels[*at].topic, Topic::AllMarks(every) if every == 1 || third) && self.listened(*at)
            })
            .collect();
        let mut rows = Vec::new();
        for symbol in 0..self.books.len() {
            if (self.books.at(symbol).listing.contract == Contract::TradFi) != tradfi || self.marks_halted(symbol) {
                continue;
            }
            let book = self.books.at_mut(symbol);
            let noise = seed_of(second as u64, &book.listing.name);
            let mark = book.mark_at(second, self.now, noise);
            let own = self.watches[symbol].marks.len();
            if arrays.is_empty() && !(0..own).any(|at| self.marks_wanted(symbol, at, third)) {
                continue;
            }
            let raw = text::mark_price(&self.books.at(symbol).listing.name, &mark, 1);
            for at in 0..own {
                if self.marks_wanted(symbol, at, third) {
                    self.publish(self.watches[symbol].marks[at], &raw, false);
                }
            }
            if !arrays.is_empty() {
                rows.push(raw);
            }
        }
        if arrays.is_empty() {
            return;
        }
        let strangers: &[_] = if tradfi { &TRADFI_STRANGERS } else { &STRANGERS };
        for (name, cents, st) in strangers.iter().filter(|(name, ..)| self.books.index(name).is_none()) {
            let price = Fixed(cents * (ONE / 100));
            let mark = Mark {
                price,
                index: price,
                settle: price,
                funding: Some(Fixed(10_000)),
                next_funding: UtcMs((second + 28_799_999).div_euclid(28_800_000) * 28_800_000),
                event_time: UtcMs(self.now),
            };
            rows.insert(rows.len() / 2, text::mark_price(name, &mark, *st));
        }
        let raw = text::array(&rows);
        for channel in arrays {
            self.publish(channel, &raw, false);
        }
    }

    /// Does somebody listen to this one of a symbol's mark streams, and is it in this second?
    fn marks_wanted(&self, symbol: usize, at: usize, third: bool) -> bool {
        let channel = self.watches[symbol].marks[at];
        matches!(self.channels[channel].topic, Topic::Marks(_, every) if every == 1 || third) && self.listened(channel)
    }

    /// What a stream name means on a root. `None`: acknowledged like any other, and silent.
    fn topic(&self, root: Root, stream: &str) -> Option<Topic> {
        let (name, kind) = stream.split_once('@')?;
        let public = kind.starts_with("depth") || kind.starts_with("rpiDepth") || kind == "bookTicker";
        let here = match root {
            Root::Market => !public,
            Root::Public => public,
            Root::Spot => true,
            Root::Private | Root::Unrouted => false,
        };
        if !here || (name != name.to_lowercase() && !name.starts_with('!')) {
            return None;
        }
        if self.playback.is_some() {
            return Some(Topic::Recorded);
        }
        let usdm = !self.spot();
        match (name, kind) {
            ("!markPrice", "arr@1s") if usdm => return Some(Topic::AllMarks(1)),
            ("!markPrice", "arr") if usdm => return Some(Topic::AllMarks(3)),
            _ => {}
        }
        let symbol = self.books.index(&name.to_uppercase())?;
        match kind {
            "aggTrade" => Some(Topic::Trades(symbol)),
            "markPrice@1s" if usdm => Some(Topic::Marks(symbol, 1)),
            "markPrice" if usdm => Some(Topic::Marks(symbol, 3)),
            _ => {
                let interval = Interval::parse(kind.strip_prefix("kline_")?.as_bytes())?;
                (self.spot() || interval != Interval::S1).then_some(Topic::Candles(symbol, interval))
            }
        }
    }

    /// A connection listens to a stream from now on, if there is one of that name at its root.
    pub(super) fn listen(&mut self, conn: ConnId, stream: &str) {
        let Some(root) = self.conns.get(&conn).map(|open| open.root) else { return };
        let Some(topic) = self.topic(root, stream) else { return };
        let channel = match self.by_stream.get(stream) {
            Some(channel) => *channel,
            None => self.new_channel(stream, topic),
        };
        if self.channels[channel].listeners.is_empty()
            && let Topic::Candles(_, interval) = topic
        {
            let open = self.open_candle(channel, interval);
            self.begin_candle(channel, open);
        }
        self.channels[channel].listeners.push(conn);
        if topic == Topic::Recorded {
            self.playback_wanted(stream);
        }
    }

    fn new_channel(&mut self, stream: &str, topic: Topic) -> usize {
        let index = self.channels.len();
        self.channels.push(Channel {
            name: stream.into(),
            topic,
            listeners: Vec::new(),
            held: BTreeMap::new(),
            current: 0,
            last_push: 0,
        });
        self.by_stream.insert(stream.to_owned(), index);
        match topic {
            Topic::Trades(symbol) => self.watches[symbol].trades = Some(index),
            Topic::Marks(symbol, _) => self.watches[symbol].marks.push(index),
            Topic::Candles(symbol, _) => self.watches[symbol].candles.push(index),
            Topic::AllMarks(_) | Topic::Recorded => {}
        }
        index
    }

    /// And no longer.
    pub(super) fn unlisten(&mut self, conn: ConnId, stream: &str) {
        if let Some(channel) = self.by_stream.get(stream) {
            let channel = &mut self.channels[*channel];
            channel.listeners.retain(|id| *id != conn);
            channel.held.remove(&conn);
        }
    }

    fn listened(&self, channel: usize) -> bool {
        !self.channels[channel].listeners.is_empty()
    }
}
