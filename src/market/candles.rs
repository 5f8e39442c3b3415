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
    /// The same push came before, perhaps over another connection.
    Duplicate,
}

/// Pushes that are remembered, to tell copies of them: those of some seconds, so far may two legs be apart.
const REMEMBERED: usize = 16;

/// The candles of one symbol and interval.
#[derive(Clone, Debug)]
pub struct Candles {
    interval: Interval,
    ring: Ring<Candle>,
    /// Times of the newest pushes, in no order; twice the time, and one more if it closed.
    pushed: [i64; REMEMBERED],
    updates: u64,
    closed: usize,
    unclosed: usize,
}

impl Candles {
    /// An empty ring that keeps the newest `capacity` candles.
    pub fn new(interval: Interval, capacity: usize) -> Self {
        Self { interval, ring: Ring::new(capacity), pushed: [i64::MIN; REMEMBERED], updates: 0, closed: 0, unclosed: 0 }
    }

    /// The candle that opened then, if it is held.
    pub fn at(&self, open_time: UtcMs) -> Option<&Candle> {
        let at = self.ring.partition_point(|candle| candle.kline.open_time < open_time);
        self.ring.get(at).filter(|candle| candle.kline.open_time == open_time)
    }

    /// Takes in a push.
    pub fn push(&mut self, kline: &Kline) -> CandleEvent {
        self.updates += 1;
        self.is_known(kline);
        self.take_in(kline)
    }

    /// Takes in a push of a stream that several connections deliver: a copy of what came is no update.
    pub fn push_one_of_several(&mut self, kline: &Kline) -> CandleEvent {
        let known = self.is_known(kline);
        let held = self.ring.iter().rev().take(2).any(|candle| candle.kline == *kline);
        let event = self.take_in(kline);
        if held || known && event == CandleEvent::Late {
            return CandleEvent::Duplicate;
        }
        self.updates += 1;
        event
    }

    fn take_in(&mut self, kline: &Kline) -> CandleEvent {
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
    /// Did a push of this time come before? One that is older than all that are remembered is held to have.
    fn is_known(&mut self, kline: &Kline) -> bool {
        let key = kline.event_time.0.saturating_mul(2).saturating_add(kline.closed.into());
        if self.pushed.contains(&key) {
            return true;
        }
        let Some(oldest) = self.pushed.iter_mut().min() else { return false };
        if key < *oldest {
            return true;
        }
        *oldest = key;
        false
    }

    /// Pushes taken in, late ones included; copies over another connection are not.
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
    fn a_copy_of_a_push_is_no_update_however_late_it_comes() {
        let mut candles = Candles::new(Interval::M1, 500);
        let pushes: Vec<Kline> = (0..200).map(|n| kline(n / 100, n % 100 * 250, n % 100 == 99)).collect();
        for (at, push) in pushes.iter().enumerate() {
            assert_ne!(candles.push_one_of_several(push), CandleEvent::Duplicate);
            // The other leg is behind, by little and by more than is remembered.
            for behind in [0, 3, 40] {
                if let Some(copy) = at.checked_sub(behind) {
                    assert_eq!(candles.push_one_of_several(&pushes[copy]), CandleEvent::Duplicate);
                }
            }
        }
        assert_eq!((candles.updates(), candles.closed()), (200, 2));
        // What one leg never brought is no copy, even if the other is behind.
        assert_eq!(candles.push_one_of_several(&kline(2, 2_000, false)), CandleEvent::Began);
        assert_eq!(candles.push_one_of_several(&kline(2, 1_000, false)), CandleEvent::Late);
        assert_eq!(candles.updates(), 202);
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
