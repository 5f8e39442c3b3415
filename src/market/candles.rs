//! Candles of one symbol and interval, keyed by open time. An update replaces, only the venue's closing push closes.
//!
//! A push is not a candle: four pushes a second of one running candle are one candle and four updates.

use crate::ring::Ring;
use crate::time::UtcMs;
use crate::wire::{Interval, Kline};

/// How a candle stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Still being traded, as last pushed.
    Running,
    /// Closed by the venue's own word (`x`).
    Closed,
    /// A newer candle began, and the closing push never came: its values may not be final.
    Unclosed,
}

/// One candle and how it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candle {
    /// As last pushed.
    pub kline: Kline,
    /// How it stands.
    pub standing: Standing,
}

const _: () = assert!(std::mem::size_of::<Candle>() <= 224);

/// What a push did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandleEvent {
    /// A new candle began.
    Began,
    /// The candle was replaced by a newer push.
    Updated,
    /// The candle closed.
    Closed,
    /// The push was older than what is held, or of a candle already closed or gone.
    Late,
}

/// The candles of one symbol and interval.
#[derive(Clone, Debug)]
pub struct Candles {
    interval: Interval,
    ring: Ring<Candle>,
    updates: u64,
    closed: usize,
    unclosed: usize,
}

impl Candles {
    /// An empty ring that keeps the newest `capacity` candles.
    pub fn new(interval: Interval, capacity: usize) -> Self {
        Self { interval, ring: Ring::new(capacity), updates: 0, closed: 0, unclosed: 0 }
    }

    /// The candle that opened then, if it is held.
    pub fn at(&self, open_time: UtcMs) -> Option<&Candle> {
        let at = self.ring.partition_point(|candle| candle.kline.open_time < open_time);
        self.ring.get(at).filter(|candle| candle.kline.open_time == open_time)
    }

    /// Takes in a push.
    pub fn push(&mut self, kline: &Kline) -> CandleEvent {
        self.updates += 1;
        let standing = if kline.closed { Standing::Closed } else { Standing::Running };
        let newest = self.ring.last().map(|candle| candle.kline.open_time);
        if newest.is_none_or(|newest| kline.open_time > newest) {
            if let Some(candle) = self.ring.last_mut()
                && candle.standing == Standing::Running
            {
                candle.standing = Standing::Unclosed;
                self.unclosed += 1;
            }
            let gone = self.ring.push(Candle { kline: *kline, standing });
            match gone.map(|candle| candle.standing) {
                Some(Standing::Closed) => self.closed -= 1,
                Some(Standing::Unclosed) => self.unclosed -= 1,
                Some(Standing::Running) | None => {}
            }
            if kline.closed {
                self.closed += 1;
                return CandleEvent::Closed;
            }
            return CandleEvent::Began;
        }
        let at = self.ring.partition_point(|candle| candle.kline.open_time < kline.open_time);
        let Some(candle) = self.ring.get_mut(at).filter(|candle| candle.kline.open_time == kline.open_time) else {
            return CandleEvent::Late;
        };
        let late = kline.event_time < candle.kline.event_time && !kline.closed;
        if candle.standing == Standing::Closed || late {
            return CandleEvent::Late;
        }
        candle.kline = *kline;
        if kline.closed {
            if candle.standing == Standing::Unclosed {
                self.unclosed -= 1;
            }
            candle.standing = Standing::Closed;
            self.closed += 1;
            return CandleEvent::Closed;
        }
        CandleEvent::Updated
    }

    /// Which candles.
    pub fn interval(&self) -> Interval {
        self.interval
    }
    /// Oldest first, the running one last.
    pub fn ring(&self) -> &Ring<Candle> {
        &self.ring
    }
    /// Pushes taken in, late ones included.
    pub fn updates(&self) -> u64 {
        self.updates
    }
    /// Closed ones held.
    pub fn closed(&self) -> usize {
        self.closed
    }
    /// Ones held whose closing push never came.
    pub fn unclosed(&self) -> usize {
        self.unclosed
    }
    /// Open time of the newest.
    pub fn last_open(&self) -> Option<UtcMs> {
        self.ring.last().map(|candle| candle.kline.open_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::{Fixed, Wide};
    use crate::wire::SymbolId;

    fn kline(minute: i64, event_ms: i64, closed: bool) -> Kline {
        let open_time = UtcMs(1_785_000_000_000 + minute * 60_000);
        let price = Fixed(100 + event_ms);
        Kline {
            symbol: SymbolId(0),
            interval: Interval::M1,
            open_time,
            close_time: UtcMs(open_time.0 + 59_999),
            open: price,
            high: price,
            low: price,
            close: price,
            volume: Wide(1),
            quote_volume: Wide(1),
            taker_buy_volume: Wide(0),
            taker_buy_quote_volume: Wide(0),
            trades: 1,
            first_id: 1,
            last_id: 1,
            closed,
            event_time: UtcMs(open_time.0 + event_ms),
            price_decimals: 2,
            qty_decimals: 3,
        }
    }

    #[test]
    fn three_hundred_updates_are_as_many_candles_as_they_belong_to() {
        let mut candles = Candles::new(Interval::M1, 500);
        for n in 0..328 {
            let (minute, step) = (n / 164, n % 164);
            candles.push(&kline(minute, step * 250, false));
        }
        assert_eq!((candles.updates(), candles.ring().len(), candles.closed()), (328, 2, 0));
        assert_eq!(candles.unclosed(), 1, "the first never got its closing push, and says so");
        assert_eq!(candles.push(&kline(0, 60_500, true)), CandleEvent::Closed);
        assert_eq!((candles.unclosed(), candles.closed()), (0, 1));
    }

    #[test]
    fn only_the_closing_push_closes_and_nothing_reopens() {
        let mut candles = Candles::new(Interval::M1, 3);
        assert_eq!(candles.push(&kline(0, 500, false)), CandleEvent::Began);
        assert_eq!(candles.push(&kline(0, 250, false)), CandleEvent::Late);
        assert_eq!(candles.push(&kline(0, 61_000, true)), CandleEvent::Closed);
        assert_eq!(candles.push(&kline(0, 62_000, false)), CandleEvent::Late);
        for minute in 1..5 {
            candles.push(&kline(minute, 61_000, true));
        }
        assert_eq!((candles.ring().len(), candles.closed()), (3, 3));
        assert_eq!(candles.push(&kline(0, 63_000, true)), CandleEvent::Late);
    }
}
