//! The process's memory against the exchange's own books. Every difference is a sentence.

use crate::market::Market;
use crate::market::candles::Standing;
use crate::sim::exchange::Books;
use crate::wire::Interval;

/// Differences told; one is one too many already.
const TOLD_MAX: usize = 10;

/// What was compared, and what differed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Trades compared.
    pub trades: u64,
    /// Closed candles compared.
    pub candles: u64,
    /// Mark prices compared.
    pub marks: u64,
    /// Ids that the process knows it does not hold.
    pub missing: u64,
    /// Each a sentence; empty when all is equal.
    pub differences: Vec<String>,
}

/// Compares every trade held, every hole, every closed candle and the newest mark price.
pub fn audit(market: &Market, books: &Books) -> Audit {
    let mut audit = Audit::default();
    let mut told = Vec::new();
    for (symbol, book) in market.books() {
        let Some(truth) = books.book(symbol) else {
            told.push(format!("{symbol} is not a symbol of the exchange"));
            continue;
        };
        if let Some(tape) = &book.tape {
            let listed: u64 = tape.holes().map(|hole| (hole.to - hole.from + 1) as u64).sum();
            let mut before: Option<i64> = None;
            audit.missing += tape.missing();
            for trade in tape.ring().iter() {
                audit.trades += 1;
                match truth.trade(trade.id) {
                    Some(print) => {
                        let same = print.price == trade.price
                            && print.qty == trade.qty
                            && print.first_id == trade.first_id
                            && print.last_id == trade.first_id + i64::from(trade.further_fills)
                            && print.trade_time == trade.trade_time
                            && print.buyer_is_maker == trade.buyer_is_maker;
                        if !same {
                            told.push(format!("{symbol} trade {}: held {trade:?}, true {print:?}", trade.id));
                        }
                    }
                    // The exchange's books are as long as its ring; what is older cannot be compared.
                    None if truth.trades().front().is_some_and(|first| first.id > trade.id) => {}
                    None => told.push(format!("{symbol} trade {} was never pushed", trade.id)),
                }
                if let Some(before) = before
                    && trade.id != before + 1
                {
                    // Beyond a number of holes the oldest are counted and no longer listed.
                    let unlisted =
                        tape.missing() > listed && tape.holes().next().is_some_and(|hole| before < hole.from);
                    let labelled = unlisted
                        || tape.holes().any(|hole| hole.from <= before + 1 && trade.id - 1 <= hole.to)
                        || holes_cover(tape, before + 1, trade.id - 1);
                    if !labelled {
                        told.push(format!(
                            "{symbol}: ids {} to {} are absent and in no hole",
                            before + 1,
                            trade.id - 1
                        ));
                    }
                }
                before = Some(trade.id);
            }
            if listed > tape.missing() {
                told.push(format!("{symbol}: holes list {listed} ids, missing says {}", tape.missing()));
            }
        }
        for candles in &book.candles {
            for candle in candles.ring().iter().filter(|candle| candle.standing == Standing::Closed) {
                audit.candles += 1;
                told.extend(differs(symbol, candles.interval(), candle, books));
            }
        }
        if let (Some((mark, _)), Some(truth)) = (&book.mark, &truth.mark) {
            // The books keep the newest alone; one that was pushed after the process stopped cannot be compared.
            let same = (mark.price, mark.index_price, mark.funding_rate) == (truth.price, truth.index, truth.funding);
            if mark.event_time == truth.event_time {
                audit.marks += 1;
            }
            if mark.event_time > truth.event_time || (mark.event_time == truth.event_time && !same) {
                told.push(format!("{symbol} mark price: held {mark:?}, true {truth:?}"));
            }
        }
    }
    let more = told.len().saturating_sub(TOLD_MAX);
    told.truncate(TOLD_MAX);
    if more > 0 {
        told.push(format!("and {more} more differences"));
    }
    audit.differences = told;
    audit
}

fn holes_cover(tape: &crate::market::tape::Tape, from: i64, to: i64) -> bool {
    (from..=to).all(|id| tape.holes().any(|hole| hole.from <= id && id <= hole.to))
}

fn differs(symbol: &str, interval: Interval, candle: &crate::market::candles::Candle, books: &Books) -> Option<String> {
    let held = &candle.kline;
    let Some(truth) = books.candle(symbol, interval, held.open_time) else {
        return Some(format!("{symbol} {interval} candle of {} is not in the books", held.open_time));
    };
    let same = (held.open, held.high, held.low, held.close) == (truth.open, truth.high, truth.low, truth.close)
        && held.volume == truth.volume
        && held.quote_volume == truth.quote_volume
        && held.trades == truth.trades;
    (!same).then(|| format!("{symbol} {interval} candle of {}: held {held:?}, true {truth:?}", held.open_time))
}
