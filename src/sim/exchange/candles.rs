//! Candles as the exchange keeps them: folded from fills, every interval, empty ones included when asked for.

use super::tides::Fill;
use crate::fixed::{Fixed, ONE, Wide};
use crate::wire::Interval;
use std::collections::VecDeque;

const DAY_MS: i64 = 86_400_000;
/// The first Monday after 1970-01-01: weeks begin on Mondays.
const FIRST_MONDAY_MS: i64 = 4 * DAY_MS;

/// One candle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candle {
    /// First millisecond inside.
    pub open_time: i64,
    /// Last millisecond inside.
    pub close_time: i64,
    /// First price.
    pub open: Fixed,
    /// Highest price.
    pub high: Fixed,
    /// Lowest price.
    pub low: Fixed,
    /// Last price.
    pub close: Fixed,
    /// Base volume.
    pub volume: Wide,
    /// Quote volume.
    pub quote_volume: Wide,
    /// Base volume of taker buys.
    pub taker_buy_volume: Wide,
    /// Quote volume of taker buys.
    pub taker_buy_quote_volume: Wide,
    /// Fills inside.
    pub trades: i64,
    /// First raw trade id, -1 if empty.
    pub first_id: i64,
    /// Last raw trade id, -1 if empty.
    pub last_id: i64,
}

impl Candle {
    /// A candle in which nothing happened.
    pub fn flat(interval: Interval, open_time: i64, price: Fixed) -> Self {
        Self {
            open_time,
            close_time: open_after(interval, open_time) - 1,
            open: price,
            high: price,
            low: price,
            close: price,
            volume: Wide::ZERO,
            quote_volume: Wide::ZERO,
            taker_buy_volume: Wide::ZERO,
            taker_buy_quote_volume: Wide::ZERO,
            trades: 0,
            first_id: -1,
            last_id: -1,
        }
    }

    fn add(&mut self, fill: &Fill) {
        if self.trades == 0 {
            (self.open, self.high, self.low) = (fill.price, fill.price, fill.price);
            self.first_id = fill.id;
        }
        self.high = self.high.max(fill.price);
        self.low = self.low.min(fill.price);
        self.close = fill.price;
        self.last_id = fill.id;
        self.trades += 1;
        // Exact: the decimals of a price and a quantity together are at most eight.
        let quote = fill.price.times(fill.qty) / i128::from(ONE);
        self.volume.0 += i128::from(fill.qty.0);
        self.quote_volume.0 += quote;
        if !fill.buyer_is_maker {
            self.taker_buy_volume.0 += i128::from(fill.qty.0);
            self.taker_buy_quote_volume.0 += quote;
        }
    }

    /// Appends a later candle's content.
    fn append(&mut self, later: &Self) {
        if self.trades == 0 {
            (self.open, self.high, self.low) = (later.open, later.high, later.low);
            self.first_id = later.first_id;
        }
        self.high = self.high.max(later.high);
        self.low = self.low.min(later.low);
        self.close = later.close;
        self.last_id = later.last_id;
        self.trades += later.trades;
        self.volume.0 += later.volume.0;
        self.quote_volume.0 += later.quote_volume.0;
        self.taker_buy_volume.0 += later.taker_buy_volume.0;
        self.taker_buy_quote_volume.0 += later.taker_buy_quote_volume.0;
    }
}

/// The candle of `interval` that holds `at_ms`, by its open time.
pub fn open_time(interval: Interval, at_ms: i64) -> i64 {
    match interval {
        Interval::Mo1 => month_start(month_of(at_ms)),
        Interval::W1 => (at_ms - FIRST_MONDAY_MS).div_euclid(7 * DAY_MS) * 7 * DAY_MS + FIRST_MONDAY_MS,
        Interval::S1
        | Interval::M1
        | Interval::M3
        | Interval::M5
        | Interval::M15
        | Interval::M30
        | Interval::H1
        | Interval::H2
        | Interval::H4
        | Interval::H6
        | Interval::H8
        | Interval::H12
        | Interval::D1
        | Interval::D3 => at_ms.div_euclid(interval.millis()) * interval.millis(),
    }
}

/// The open time of the candle after the one that opens at `open`.
pub fn open_after(interval: Interval, open: i64) -> i64 {
    if interval == Interval::Mo1 { month_start(month_of(open) + 1) } else { open + interval.millis() }
}

/// Months since year 0, of the proleptic Gregorian calendar (days-to-civil after Hinnant).
fn month_of(at_ms: i64) -> i64 {
    let z = at_ms.div_euclid(DAY_MS) + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    // Months here begin in March, so that the leap day is a year's last.
    let march = (5 * doy + 2) / 153;
    (yoe + era * 400) * 12 + march + 2
}

fn month_start(month: i64) -> i64 {
    let (year, march) = ((month - 2).div_euclid(12), (month - 2).rem_euclid(12));
    let (era, yoe) = (year.div_euclid(400), year.rem_euclid(400));
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + (153 * march + 2) / 5;
    (era * 146_097 + doe - 719_468) * DAY_MS
}

/// The candles of one symbol. The shortest interval is folded from fills, the others from its finished candles.
#[derive(Clone, Debug)]
pub struct Candles {
    /// Shortest first. Only candles in which something happened; the gaps are filled on reading.
    rows: Vec<(Interval, VecDeque<Candle>)>,
    kept: usize,
    /// False if candles are taken as pushed elsewhere: then nothing is folded and no gap is filled.
    folded: bool,
}

impl Candles {
    /// Nothing yet, to be folded from fills; at most `kept` of each interval.
    pub fn new(intervals: &[Interval], kept: usize) -> Self {
        let rows = intervals.iter().map(|interval| (*interval, VecDeque::new())).collect();
        Self { rows, kept: kept.max(2), folded: true }
    }

    /// Nothing yet, to be taken as pushed elsewhere.
    pub fn pushed(kept: usize) -> Self {
        Self { rows: Vec::new(), kept: kept.max(2), folded: false }
    }

    /// Folds a fill in. Fills come in order of time.
    pub fn add(&mut self, fill: &Fill) {
        let Some((base, rest)) = self.rows.split_first_mut() else { return };
        let open = open_time(base.0, fill.at_ms);
        if base.1.back().is_none_or(|last| last.open_time < open) {
            if let Some(finished) = base.1.back().copied() {
                for (interval, row) in rest {
                    settle(*interval, row, &finished, self.kept);
                }
            }
            push(&mut base.1, Candle::flat(base.0, open, fill.price), self.kept);
        }
        if let Some(last) = base.1.back_mut() {
            last.add(fill);
        }
    }

    /// Takes a candle as it was pushed elsewhere (playback); a newer push of the same candle replaces the older.
    pub fn put(&mut self, interval: Interval, candle: Candle) {
        let index = match self.rows.iter().position(|(known, _)| *known == interval) {
            Some(index) => index,
            None => {
                self.rows.push((interval, VecDeque::new()));
                self.rows.len() - 1
            }
        };
        let row = &mut self.rows[index].1;
        match row.binary_search_by_key(&candle.open_time, |known| known.open_time) {
            Ok(at) => row[at] = candle,
            Err(at) if at == row.len() => push(row, candle, self.kept),
            Err(at) => row.insert(at, candle),
        }
    }

    /// Candles that hold something, oldest first.
    fn row(&self, interval: Interval) -> Vec<Candle> {
        let Some(index) = self.rows.iter().position(|(known, _)| *known == interval) else { return Vec::new() };
        let mut row: Vec<Candle> = self.rows[index].1.iter().copied().collect();
        if self.folded
            && index > 0
            && let Some(running) = self.rows[0].1.back()
        {
            settle_vec(interval, &mut row, running);
        }
        row
    }

    /// The newest candle of `interval` in which something happened, as far as it has come.
    pub fn newest(&self, interval: Interval) -> Option<Candle> {
        let index = self.rows.iter().position(|(known, _)| *known == interval)?;
        let base = self.rows[0].1.back()?;
        if index == 0 || !self.folded {
            return self.rows[index].1.back().copied();
        }
        let open = open_time(interval, base.open_time);
        let mut candle = match self.rows[index].1.back() {
            Some(last) if last.open_time == open => *last,
            _ => Candle::flat(interval, open, base.open),
        };
        candle.append(base);
        Some(candle)
    }

    /// All candles of `interval` from `from` to the one that holds `now_ms`, without gaps, oldest first.
    pub fn range(&self, interval: Interval, from: i64, now_ms: i64) -> Vec<Candle> {
        let row = self.row(interval);
        let Some(first) = row.first() else { return Vec::new() };
        if !self.folded {
            return row.into_iter().filter(|candle| candle.open_time >= from && candle.open_time <= now_ms).collect();
        }
        let from = open_time(interval, from.max(first.open_time));
        let skip = row.partition_point(|candle| candle.open_time < from);
        let mut close = row[skip.saturating_sub(1)].close;
        let mut held = row[skip..].iter().peekable();
        let (mut open, mut out) = (from, Vec::new());
        while open <= now_ms {
            let candle = match held.next_if(|candle| candle.open_time == open) {
                Some(candle) => *candle,
                None => Candle::flat(interval, open, close),
            };
            close = candle.close;
            out.push(candle);
            open = open_after(interval, open);
        }
        out
    }

    /// The candle that opens at `open`: as it stands, or flat if nothing happened in it. `None` before the first.
    pub fn at(&self, interval: Interval, open: i64) -> Option<Candle> {
        let newest = self.newest(interval)?;
        if open == newest.open_time {
            return Some(newest);
        }
        if open > newest.open_time {
            return Some(Candle::flat(interval, open, newest.close));
        }
        let (_, row) = self.rows.iter().find(|(known, _)| *known == interval)?;
        let upto = row.partition_point(|candle| candle.open_time <= open);
        let last = row.get(upto.checked_sub(1)?)?;
        Some(if last.open_time == open { *last } else { Candle::flat(interval, open, last.close) })
    }
}

fn push(row: &mut VecDeque<Candle>, candle: Candle, kept: usize) {
    if row.len() >= kept {
        row.pop_front();
    }
    row.push_back(candle);
}

fn settle(interval: Interval, row: &mut VecDeque<Candle>, finished: &Candle, kept: usize) {
    let open = open_time(interval, finished.open_time);
    if row.back().is_none_or(|last| last.open_time < open) {
        push(row, Candle::flat(interval, open, finished.open), kept);
    }
    if let Some(last) = row.back_mut() {
        last.append(finished);
    }
}

fn settle_vec(interval: Interval, row: &mut Vec<Candle>, running: &Candle) {
    let open = open_time(interval, running.open_time);
    if row.last().is_none_or(|last| last.open_time < open) {
        row.push(Candle::flat(interval, open, running.open));
    }
    if let Some(last) = row.last_mut() {
        last.append(running);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_begin_on_mondays_and_months_on_their_first() {
        let at = 1_795_611_108_000; // 2026-11-25T12:51:48Z, a Wednesday
        assert_eq!(open_time(Interval::W1, at), 1_795_392_000_000); // 2026-11-23
        assert_eq!(open_time(Interval::Mo1, at), 1_793_491_200_000); // 2026-11-01
        assert_eq!(open_after(Interval::Mo1, 1_793_491_200_000), 1_796_083_200_000); // 2026-12-01
        assert_eq!(open_time(Interval::Mo1, 951_782_400_000), 949_363_200_000); // 2000-02-29 is in 2000-02
        assert_eq!(open_time(Interval::M5, 1_795_611_108_000), 1_795_611_000_000);
    }

    #[test]
    fn longer_candles_are_the_fold_of_all_fills_and_gaps_are_flat() {
        let fill = |at_ms, id, price, qty| Fill {
            at_ms,
            id,
            price: Fixed(price * ONE),
            qty: Fixed(qty * ONE),
            rpi: false,
            buyer_is_maker: id % 2 == 0,
        };
        let fills = [fill(10_000, 1, 5, 1), fill(70_000, 2, 9, 2), fill(250_000, 3, 4, 1), fill(310_000, 4, 6, 1)];
        let mut candles = Candles::new(&[Interval::M1, Interval::M5], 100);
        for fill in &fills {
            candles.add(fill);
        }
        let minutes = candles.range(Interval::M1, 0, 370_000);
        assert_eq!(minutes.len(), 7);
        assert_eq!((minutes[2].trades, minutes[2].open, minutes[2].first_id), (0, Fixed(9 * ONE), -1));
        let fives = candles.range(Interval::M5, 0, 370_000);
        assert_eq!(fives.len(), 2);
        assert_eq!((fives[0].open, fives[0].close, fives[0].high), (Fixed(5 * ONE), Fixed(4 * ONE), Fixed(9 * ONE)));
        assert_eq!((fives[0].volume.0, fives[0].trades), (4 * i128::from(ONE), 3));
        assert_eq!(fives[0].quote_volume.0, 27 * i128::from(ONE));
        assert_eq!(fives[0].taker_buy_volume.0, 2 * i128::from(ONE));
        assert_eq!(candles.newest(Interval::M5), fives.last().copied());
        assert_eq!(candles.at(Interval::M1, 120_000), Some(minutes[2]));
    }
}
