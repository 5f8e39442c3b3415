//! The exchange's own books: every pushed aggTrade, all candles, the newest mark of every symbol. What a client holds is
//! compared with these.

use super::candles::{Candle, Candles};
use super::setup::{Contract, Listing};
use super::tides::Fill;
use crate::config::Market;
use crate::fixed::{Fixed, ONE};
use crate::time::UtcMs;
use crate::wire::Interval;
use std::collections::{BTreeMap, VecDeque};

/// Fills within this time of the first one join it.
const WINDOW_MS: i64 = 100;
/// A futures aggregate that nothing closes is pushed this long after its first fill, at least.
const HOLD_MS: i64 = 150;

/// One aggregated trade, as pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print {
    /// Aggregate id.
    pub id: i64,
    /// Price.
    pub price: Fixed,
    /// Quantity.
    pub qty: Fixed,
    /// Quantity without retail-only fills (`nq`).
    pub plain_qty: Fixed,
    /// First raw trade id.
    pub first_id: i64,
    /// Last raw trade id.
    pub last_id: i64,
    /// Time of the first fill.
    pub trade_time: UtcMs,
    /// When it was pushed.
    pub event_time: UtcMs,
    /// The taker sold.
    pub buyer_is_maker: bool,
}

/// One mark price, as pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Mark price, and its average.
    pub price: Fixed,
    /// Index price.
    pub index: Fixed,
    /// Estimated settle price.
    pub settle: Fixed,
    /// Funding rate; `None` without funding.
    pub funding: Option<Fixed>,
    /// Next funding; 0 without.
    pub next_funding: UtcMs,
    /// When it was pushed.
    pub event_time: UtcMs,
}

/// The books of one symbol.
#[derive(Clone, Debug)]
pub struct Book {
    /// What it is.
    pub listing: Listing,
    trades: VecDeque<Print>,
    kept: usize,
    /// Candles of all intervals.
    pub candles: Candles,
    /// Newest mark.
    pub mark: Option<Mark>,
    /// Fills so far.
    pub fills: u64,
    /// Base quantity of all of them, in units of 1e-8.
    pub filled: i128,
    /// Price of the newest fill.
    pub last_price: Fixed,
    first_ever: Option<i64>,
    pub(super) waiting: VecDeque<(Print, i64)>,
    next_id: i64,
}

impl Book {
    pub(super) fn new(listing: Listing, kept: usize, candles: Candles, first_id: i64) -> Self {
        Self {
            last_price: listing.price,
            listing,
            trades: VecDeque::new(),
            kept: kept.max(1),
            candles,
            mark: None,
            fills: 0,
            filled: 0,
            first_ever: None,
            waiting: VecDeque::new(),
            next_id: first_id,
        }
    }

    /// Pushed aggTrades in the ring, oldest first.
    pub fn trades(&self) -> &VecDeque<Print> {
        &self.trades
    }

    /// The pushed aggTrade of this id, if it is still in the ring.
    pub fn trade(&self, id: i64) -> Option<&Print> {
        let at = self.trades.binary_search_by_key(&id, |print| print.id).ok()?;
        self.trades.get(at)
    }

    /// First and last aggregate id ever pushed, the warm-up included.
    pub fn ids(&self) -> Option<(i64, i64)> {
        Some((self.first_ever?, self.trades.back()?.id))
    }

    /// Puts an aggTrade into the ring. Ids rise; one that was there before is passed over.
    pub(super) fn push(&mut self, print: Print) -> bool {
        if self.trades.back().is_some_and(|last| last.id >= print.id) {
            return false;
        }
        if self.trades.len() >= self.kept {
            self.trades.pop_front();
        }
        self.first_ever.get_or_insert(print.id);
        self.trades.push_back(print);
        true
    }

    /// Aggregates a fill as this market does. `now` is when the exchange learnt of it, `jitter` 0 to 8.
    pub(super) fn add(&mut self, fill: &Fill, market: Market, now: i64, jitter: i64) {
        self.candles.add(fill);
        self.fills += 1;
        self.filled += i128::from(fill.qty.0);
        self.last_price = fill.price;
        let plain = if fill.rpi { Fixed::ZERO } else { fill.qty };
        let same = self.waiting.back_mut().filter(|(print, _)| {
            print.price == fill.price
                && print.buyer_is_maker == fill.buyer_is_maker
                && match market {
                    Market::Usdm => fill.at_ms - print.trade_time.0 < WINDOW_MS,
                    // Per taker order: all its fills come at one moment, and are pushed before the next order's.
                    Market::Spot => true,
                }
        });
        if let Some((print, _)) = same {
            print.qty.0 += fill.qty.0;
            print.plain_qty.0 += plain.0;
            print.last_id = fill.id;
            return;
        }
        let due = match market {
            Market::Usdm => {
                // Whatever waits is complete now, and goes out soon. A second aggregate of the same price only waits.
                let differs = self
                    .waiting
                    .back()
                    .is_some_and(|(print, _)| print.price != fill.price || print.buyer_is_maker != fill.buyer_is_maker);
                if differs {
                    for (_, due) in &mut self.waiting {
                        *due = (*due).min(now + 1 + jitter / 3);
                    }
                }
                fill.at_ms + HOLD_MS + jitter
            }
            Market::Spot => now,
        };
        let due = due.max(self.waiting.back().map_or(now, |(_, due)| *due));
        let print = Print {
            id: self.next_id,
            price: fill.price,
            qty: fill.qty,
            plain_qty: plain,
            first_id: fill.id,
            last_id: fill.id,
            trade_time: UtcMs(fill.at_ms),
            event_time: UtcMs(due),
            buyer_is_maker: fill.buyer_is_maker,
        };
        self.next_id += 1;
        self.waiting.push_back((print, due));
    }

    /// The next aggregate that is due, put into the ring.
    pub(super) fn due(&mut self, now: i64) -> Option<Print> {
        let (print, _) = self.waiting.pop_front_if(|(_, due)| *due <= now)?;
        let print = Print { event_time: UtcMs(now), ..print };
        self.push(print);
        Some(print)
    }

    /// Makes the mark of this second. `noise` is any number that differs from mark to mark.
    pub(super) fn mark_at(&mut self, second: i64, event_time: i64, noise: u64) -> Mark {
        let price = self.last_price.0;
        let wiggle = |bits: u64| price / 100_000 * ((bits % 41) as i64 - 20);
        let mark = price + if noise.is_multiple_of(3) { wiggle(noise >> 8) / 7 } else { 0 };
        let index = price + price / 2_000 + wiggle(noise >> 16) / 3;
        let settle = index + price / 1_500 + wiggle(noise >> 24) / 11;
        let hours = match self.listing.contract {
            Contract::Perpetual { funding_hours } => Some(funding_hours.max(1)),
            Contract::TradFi => Some(4),
            Contract::Dated => None,
        };
        let grid = hours.map_or(0, |hours| hours * 3_600_000);
        // The rate drifts slowly and is the same all over a minute.
        let minute = super::tides::seed_of((second / 60_000) as u64, &self.listing.name);
        let funding = hours.map(|_| Fixed((minute % 20_001) as i64 - 6_000));
        // At the funding second the old time is still sent.
        let next_funding = if grid == 0 { 0 } else { (second + grid - 1).div_euclid(grid) * grid };
        let positive = |units: i64| Fixed(units.max(1));
        let mark = Mark {
            price: positive(mark),
            index: positive(index),
            settle: positive(settle),
            funding,
            next_funding: UtcMs(next_funding),
            event_time: UtcMs(event_time),
        };
        self.mark = Some(mark);
        mark
    }
}

/// The books of all symbols.
#[derive(Clone, Debug, Default)]
pub struct Books {
    books: Vec<Book>,
    by_name: BTreeMap<String, usize>,
    pub(super) now: UtcMs,
}

impl Books {
    pub(super) fn add(&mut self, book: Book) -> usize {
        self.by_name.insert(book.listing.name.clone(), self.books.len());
        self.books.push(book);
        self.books.len() - 1
    }

    pub(super) fn index(&self, symbol: &str) -> Option<usize> {
        self.by_name.get(symbol).copied()
    }

    pub(super) fn at_mut(&mut self, index: usize) -> &mut Book {
        &mut self.books[index]
    }

    pub(super) fn at(&self, index: usize) -> &Book {
        &self.books[index]
    }

    /// All of them, in the order of the listing.
    pub fn iter(&self) -> impl Iterator<Item = &Book> {
        self.books.iter()
    }

    /// How many symbols there are.
    pub fn len(&self) -> usize {
        self.books.len()
    }

    /// True without any symbol.
    pub fn is_empty(&self) -> bool {
        self.books.is_empty()
    }

    /// The books of a symbol, by its upper-case name.
    pub fn book(&self, symbol: &str) -> Option<&Book> {
        self.books.get(self.index(symbol)?)
    }

    /// All candles of a symbol from `from` (an open time) to the running one, oldest first, empty ones included.
    pub fn candles(&self, symbol: &str, interval: Interval, from: UtcMs) -> Vec<Candle> {
        self.book(symbol).map_or_else(Vec::new, |book| book.candles.range(interval, from.0, self.now.0))
    }

    /// One candle by its open time, as it stands.
    pub fn candle(&self, symbol: &str, interval: Interval, open: UtcMs) -> Option<Candle> {
        self.book(symbol)?.candles.at(interval, open.0)
    }
}

/// Decimals of quote volumes on the futures wire: those of a price and a quantity together.
pub fn quote_decimals(listing: &Listing) -> u8 {
    (listing.price_decimals + listing.qty_decimals).min(ONE.ilog10() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book {
        Book::new(Listing::new("AUSDT", "100", 1.0), 100, Candles::new(&[Interval::M1], 10), 50)
    }

    fn fill(at_ms: i64, id: i64, price: i64, sold: bool) -> Fill {
        Fill { at_ms, id, price: Fixed(price * ONE), qty: Fixed(ONE), rpi: id == 2, buyer_is_maker: sold }
    }

    #[test]
    fn futures_fills_join_for_a_tenth_of_a_second_and_go_out_when_closed() {
        let mut book = book();
        for (at, id) in [(1000, 1), (1060, 2), (1099, 3), (1100, 5)] {
            book.add(&fill(at, id, 100, true), Market::Usdm, at + 3, 4);
        }
        assert!(book.due(1153).is_none());
        let first = book.due(1154).unwrap();
        assert_eq!((first.id, first.first_id, first.last_id), (50, 1, 3));
        assert_eq!((first.qty, first.plain_qty), (Fixed(3 * ONE), Fixed(2 * ONE)));
        assert_eq!((first.trade_time, first.event_time), (UtcMs(1000), UtcMs(1154)));
        // The other side of the market closes the second one at once.
        book.add(&fill(1160, 6, 100, false), Market::Usdm, 1163, 3);
        assert_eq!(book.due(1165).map(|print| print.id), Some(51));
        assert!(book.due(1300).is_none());
        assert_eq!(book.due(1313).map(|print| (print.id, print.first_id)), Some((52, 6)));
        assert_eq!(book.ids(), Some((50, 52)));
    }

    #[test]
    fn spot_goes_out_at_once_per_price() {
        let mut book = book();
        for (id, price) in [(1, 100), (3, 100), (4, 101)] {
            book.add(&fill(1000, id, price, false), Market::Spot, 1002, 5);
        }
        let prints: Vec<Print> = std::iter::from_fn(|| book.due(1002)).collect();
        assert_eq!(prints.iter().map(|p| (p.first_id, p.last_id)).collect::<Vec<_>>(), [(1, 3), (4, 4)]);
    }

    #[test]
    fn funding_time_is_still_the_old_one_at_its_own_second() {
        let mut book = book();
        let eight = 8 * 3_600_000;
        assert_eq!(book.mark_at(eight, eight + 3, 1).next_funding, UtcMs(eight));
        assert_eq!(book.mark_at(eight + 1000, eight + 1001, 1).next_funding, UtcMs(2 * eight));
        book.listing.contract = Contract::Dated;
        let mark = book.mark_at(eight, eight, 1);
        assert_eq!((mark.funding, mark.next_funding), (None, UtcMs(0)));
    }
}
