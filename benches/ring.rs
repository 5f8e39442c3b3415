//! What it costs to keep one event: ours against a bare ring, in one run, and what many symbols do to it.
//!
//! The bare ring is a `Vec` of the same records and an index that wraps. All rings are full, so every push overwrites;
//! the events' symbols come in no order, so with many symbols every push meets memory that it has not seen lately.
//! Contenders take turns within each round, so that whatever else the machine does falls on all of them; the medians
//! over the rounds are shown. Making the next event of its symbol is inside every row.
//!
//! `cargo bench --bench ring`; with `--tiny` or `--test` (and under `cargo test`) it only runs once through.
#![allow(clippy::disallowed_methods, reason = "outside the core")]
#![allow(clippy::print_stdout, missing_docs)]

mod common;

use binance_edge::config::TapeLimits;
use binance_edge::fixed::{Fixed, Wide};
use binance_edge::market::Market;
use binance_edge::market::tape::{Source, Tape, TradeRecord};
use binance_edge::ring::Ring;
use binance_edge::time::{Now, UtcMs};
use binance_edge::wire::{AggTrade, Frame, Interval, Kline, MarkPrice, StreamKind, SymbolId, Symbols};
use common::{frames, median, tiny};
use std::hint::black_box;
use std::time::Instant;

const LIMITS: TapeLimits = TapeLimits { trades: 1024, candles: 500, backfill: false };
const KINDS: [StreamKind; 3] = [StreamKind::AggTrade, StreamKind::MarkPrice, StreamKind::Kline(Interval::M1)];
const NOON: i64 = 1_785_000_000_000;
/// Pushes of a symbol's candle before the next one begins: four a second.
const PUSHES: i64 = 240;

fn main() {
    let (rounds, events) = if tiny() { (1, 2_000) } else { (31, 200_000) };
    println!(
        "{:<9}{:>10}{:>10}{:>10}{:>13}{:>12}{:>13}{:>11}{:>12}",
        "symbols", "bare ns", "ring", "tape", "apply trade", "apply mark", "apply kline", "ring/bare", "trade/bare"
    );
    for symbols in [1, 10, 100, 600] {
        let mut random = fastrand::Rng::with_seed(3);
        let order: Vec<SymbolId> = (0..events).map(|_| SymbolId(random.u16(..symbols))).collect();
        let mut contenders: [Box<dyn Contender>; 6] = [
            Box::new(Bare::new(symbols)),
            Box::new(Rings::new(symbols)),
            Box::new(Tapes::new(symbols)),
            Box::new(Applied::new(symbols, trade)),
            Box::new(Applied::new(symbols, mark)),
            Box::new(Applied::new(symbols, kline)),
        ];
        // Once around every ring, so that all memory is there and every push overwrites.
        let everyone: Vec<SymbolId> =
            (0..if tiny() { 1 } else { LIMITS.trades + 1 }).flat_map(|_| (0..symbols).map(SymbolId)).collect();
        contenders.iter_mut().for_each(|contender| contender.run(&everyone));
        let mut times = contenders.each_ref().map(|_| Vec::new());
        for _ in 0..rounds {
            for (contender, times) in contenders.iter_mut().zip(&mut times) {
                let begun = Instant::now();
                contender.run(black_box(&order));
                times.push(begun.elapsed().as_nanos() as f64 / f64::from(events));
            }
        }
        let sums: Vec<i64> = contenders.iter().map(|contender| contender.sum()).collect();
        assert!(sums[..4].iter().all(|sum| *sum == sums[0]), "rings hold different trades: {sums:?}");
        let [bare, ring, tape, trade, mark, kline] = times.each_mut().map(|times| median(times));
        println!(
            "{symbols:<9}{bare:>10.1}{ring:>10.1}{tape:>10.1}{trade:>13.1}{mark:>12.1}{kline:>13.1}{:>11.2}{:>12.2}   sum {:08x}",
            ring / bare,
            trade / bare,
            sums.iter().fold(0, |sum, of| sum ^ of) as u32
        );
    }
}

trait Contender {
    /// Pushes the next event of each of these symbols in turn.
    fn run(&mut self, order: &[SymbolId]);
    /// What is held in the end, folded into one number.
    fn sum(&self) -> i64;
}

// ---- events: the n-th of a symbol ----

fn trade(symbol: SymbolId, n: i64) -> Frame {
    Frame::Trade(agg_trade(symbol, n))
}

fn agg_trade(symbol: SymbolId, n: i64) -> AggTrade {
    AggTrade {
        symbol,
        id: 3_000_000_000 + n,
        price: Fixed(6_500_010_000_000 + n),
        qty: Fixed(1_000_000),
        first_id: 7_000_000_000 + 3 * n,
        last_id: 7_000_000_000 + 3 * n + 2,
        trade_time: UtcMs(NOON + n),
        event_time: UtcMs(NOON + n + 20),
        buyer_is_maker: n % 2 == 0,
        price_decimals: 2,
        qty_decimals: 3,
    }
}

fn record(trade: &AggTrade) -> TradeRecord {
    TradeRecord {
        id: trade.id,
        price: trade.price,
        qty: trade.qty,
        first_id: trade.first_id,
        trade_time: trade.trade_time,
        recv_ns: 0,
        further_fills: (trade.last_id - trade.first_id) as u32,
        event_lag_ms: (trade.event_time.0 - trade.trade_time.0) as i32,
        buyer_is_maker: trade.buyer_is_maker,
    }
}

fn mark(symbol: SymbolId, n: i64) -> Frame {
    Frame::Mark(MarkPrice {
        symbol,
        price: Fixed(6_500_010_000_000 + n),
        index_price: Fixed(6_500_000_000_000 + n),
        settle_price: None,
        funding_rate: Some(Fixed(10_000)),
        next_funding: Some(UtcMs(NOON)),
        event_time: UtcMs(NOON + n),
    })
}

fn kline(symbol: SymbolId, n: i64) -> Frame {
    let open_time = NOON / 60_000 * 60_000 + n / PUSHES * 60_000;
    Frame::Kline(Kline {
        symbol,
        interval: Interval::M1,
        open_time: UtcMs(open_time),
        close_time: UtcMs(open_time + 59_999),
        open: Fixed(6_500_000_000_000),
        high: Fixed(6_600_000_000_000),
        low: Fixed(6_400_000_000_000),
        close: Fixed(6_500_000_000_000 + n),
        volume: Wide(1_000_000_000),
        quote_volume: Wide(65_000_000_000_000),
        taker_buy_volume: Wide(500_000_000),
        taker_buy_quote_volume: Wide(32_000_000_000_000),
        trades: n,
        first_id: n,
        last_id: 2 * n,
        closed: n % PUSHES == PUSHES - 1,
        event_time: UtcMs(open_time + n % PUSHES),
        price_decimals: 2,
        qty_decimals: 3,
    })
}

/// How many events each symbol has had.
struct Counters(Vec<i64>);

impl Counters {
    fn new(symbols: u16) -> Self {
        Self(vec![0; usize::from(symbols)])
    }

    fn next(&mut self, symbol: SymbolId) -> i64 {
        let n = &mut self.0[symbol.index()];
        *n += 1;
        *n
    }
}

fn sum<'a>(trades: impl Iterator<Item = &'a TradeRecord>) -> i64 {
    trades.fold(0, |sum, trade| sum.wrapping_mul(31).wrapping_add(trade.id ^ trade.price.0 ^ trade.first_id))
}

// ---- the contenders ----

struct Bare {
    counters: Counters,
    rings: Vec<(Vec<TradeRecord>, usize)>,
}

impl Bare {
    fn new(symbols: u16) -> Self {
        // Filled from the start; what the first lap did not overwrite would show in the sum.
        let ring = || (vec![record(&agg_trade(SymbolId(0), 0)); LIMITS.trades], 0);
        Self { counters: Counters::new(symbols), rings: (0..symbols).map(|_| ring()).collect() }
    }
}

impl Contender for Bare {
    fn run(&mut self, order: &[SymbolId]) {
        for symbol in order {
            let trade = agg_trade(*symbol, self.counters.next(*symbol));
            let (slots, next) = &mut self.rings[symbol.index()];
            slots[*next] = record(&trade);
            *next = (*next + 1) % LIMITS.trades;
        }
    }

    fn sum(&self) -> i64 {
        self.rings.iter().zip(&self.counters.0).fold(0, |total, ((slots, next), count)| {
            let (newer, older) = slots.split_at(*next);
            let held = (*count as usize).min(LIMITS.trades);
            total ^ sum(older.iter().chain(newer).skip(LIMITS.trades - held))
        })
    }
}

struct Rings {
    counters: Counters,
    rings: Vec<Ring<TradeRecord>>,
}

impl Rings {
    fn new(symbols: u16) -> Self {
        let rings = (0..symbols).map(|_| Ring::new(LIMITS.trades)).collect();
        Self { counters: Counters::new(symbols), rings }
    }
}

impl Contender for Rings {
    fn run(&mut self, order: &[SymbolId]) {
        for symbol in order {
            let trade = agg_trade(*symbol, self.counters.next(*symbol));
            self.rings[symbol.index()].push(record(&trade));
        }
    }

    fn sum(&self) -> i64 {
        self.rings.iter().fold(0, |total, ring| total ^ sum(ring.iter()))
    }
}

struct Tapes {
    counters: Counters,
    tapes: Vec<Tape>,
}

impl Tapes {
    fn new(symbols: u16) -> Self {
        let tapes = (0..symbols).map(|_| Tape::new(LIMITS.trades)).collect();
        Self { counters: Counters::new(symbols), tapes }
    }
}

impl Contender for Tapes {
    fn run(&mut self, order: &[SymbolId]) {
        for symbol in order {
            let trade = agg_trade(*symbol, self.counters.next(*symbol));
            black_box(self.tapes[symbol.index()].push(&trade, Source::default(), Now::default()));
        }
    }

    fn sum(&self) -> i64 {
        self.tapes.iter().fold(0, |total, tape| total ^ sum(tape.ring().iter()))
    }
}

struct Applied {
    counters: Counters,
    market: Market,
    make: fn(SymbolId, i64) -> Frame,
}

impl Applied {
    fn new(symbols: u16, make: fn(SymbolId, i64) -> Frame) -> Self {
        let names = frames::names(usize::from(symbols));
        let market = Market::new(Symbols::new(names.iter().map(String::as_str)), &KINDS, LIMITS);
        Self { counters: Counters::new(symbols), market, make }
    }
}

impl Contender for Applied {
    fn run(&mut self, order: &[SymbolId]) {
        for symbol in order {
            let frame = (self.make)(*symbol, self.counters.next(*symbol));
            black_box(self.market.apply(&frame, Source::default(), Now::default()));
        }
    }

    fn sum(&self) -> i64 {
        self.market.books().fold(0, |total, (_, book)| {
            let trades = book.tape.iter().fold(0, |total, tape| total ^ sum(tape.ring().iter()));
            let mark = book.mark.map_or(0, |(mark, _)| mark.price.0);
            let candles = book.candles.iter().flat_map(|candles| candles.ring().iter());
            total ^ trades ^ mark ^ candles.fold(0, |sum, candle| sum ^ candle.kline.close.0)
        })
    }
}
