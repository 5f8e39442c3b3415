//! The generated market: who trades when, at what price, how much. Fills, before anybody aggregates them.
//!
//! Arrivals are clustered: every order makes the next ones likelier for a moment, and now and then one sets off a storm
//! of dozens within a tenth of a second. Each symbol has a generator of its own, so that listing one more changes nothing
//! for the others.

use super::setup::Listing;
use crate::fixed::{Fixed, ONE};

/// One order brings so many more, within the time of `HEAT_MS`.
const HEAT_CHILDREN: f64 = 0.45;
const HEAT_MS: f64 = 150.0;
/// An order sets off a storm this often; storms are Pareto with this least size and exponent, at most `STORM_MAX`.
const STORM_CHANCE: f64 = 0.006;
const STORM_MIN: f64 = 12.0;
const STORM_EXPONENT: f64 = 1.4;
const STORM_MAX: f64 = 220.0;
const STORM_MS: f64 = 40.0;
/// Orders that come from calm for each order there is; the others are children and storms of these.
const CALM_SHARE: f64 = 0.30;
/// aggTrades for each taker order the rate is meant for (measured: see the tests).
const AGGREGATES_PER_ORDER: f64 = 0.76;
/// The price's standard deviation over an hour, as a fraction.
const HOURLY_MOVE: f64 = 0.006;
/// Chance that the price moves after an order.
const MOVE_CHANCE: f64 = 0.14;
/// Far beyond any run.
const NEVER_MS: i64 = i64::MAX / 4;

/// One match: a taker order met one resting order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// When.
    pub at_ms: i64,
    /// Raw trade id. Matches outside the market (insurance fund, ADL) take ids and appear nowhere.
    pub id: i64,
    /// At what price.
    pub price: Fixed,
    /// How much.
    pub qty: Fixed,
    /// The resting order was for retail only: left out of `nq`.
    pub rpi: bool,
    /// The taker sold.
    pub buyer_is_maker: bool,
}

/// The orders of one symbol, one after the other.
#[derive(Debug)]
pub struct Tide {
    rng: fastrand::Rng,
    tick: i64,
    step: i64,
    /// Best bid, in ticks; the ask is one above.
    bid: i64,
    bounds: (i64, i64),
    /// A usual move, in ticks.
    move_ticks: f64,
    /// A usual fill, in steps.
    usual_steps: f64,
    /// Orders per millisecond: from nowhere, from recent orders, from a storm.
    calm: f64,
    heat: f64,
    storm: f64,
    start_ms: i64,
    /// Milliseconds since the start, with fractions.
    clock: f64,
    next_ms: i64,
    next_id: i64,
    selling: bool,
}

/// A seed of its own for each symbol.
pub fn seed_of(seed: u64, name: &str) -> u64 {
    name.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
    })
}

impl Tide {
    /// The market of `listing` from `start_ms` on, its rate multiplied by `rate`.
    pub fn new(listing: &Listing, seed: u64, rate: f64, start_ms: i64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed_of(seed, &listing.name));
        let tick = listing.tick.0.max(1);
        let bid = (listing.price.0 / tick).max(2);
        let per_second = (listing.rate * rate).max(0.0);
        let orders_per_hour = (per_second * 3600.0 / AGGREGATES_PER_ORDER).max(1.0);
        let move_ticks = bid as f64 * HOURLY_MOVE / (orders_per_hour * MOVE_CHANCE).sqrt();
        // A usual fill is worth a few hundred of the quote.
        let usual_steps = (250.0 * ONE as f64 / listing.price.0 as f64 * ONE as f64 / listing.step.0 as f64).max(1.0);
        let next_id = 1_000_000_000 + rng.i64(0..7_000_000_000);
        Self {
            rng,
            tick,
            step: listing.step.0.max(1),
            bid,
            bounds: ((bid / 8).max(2), bid.saturating_mul(8)),
            move_ticks,
            usual_steps,
            calm: per_second / AGGREGATES_PER_ORDER * CALM_SHARE / 1000.0,
            heat: 0.0,
            storm: 0.0,
            start_ms,
            clock: 0.0,
            // Every symbol has traded once before anybody looks.
            next_ms: start_ms,
            next_id,
            selling: false,
        }
    }

    /// When the next order comes.
    pub fn next_ms(&self) -> i64 {
        self.next_ms
    }

    /// The next order comes at this time instead, and all later ones so much later.
    pub fn put_off(&mut self, until_ms: i64) {
        self.start_ms = self.start_ms.saturating_add(until_ms.saturating_sub(self.next_ms));
        self.next_ms = until_ms;
    }

    /// Appends the fills of the next order, and draws when the one after it comes.
    pub fn order(&mut self, fills: &mut Vec<Fill>) {
        let at_ms = self.next_ms;
        let excited = self.heat + self.storm > self.calm;
        if self.rng.f64() < if excited { 0.45 } else { 0.55 } {
            self.selling = !self.selling;
        }
        let direction = if self.selling { -1 } else { 1 };
        let mut price = if self.selling { self.bid } else { self.bid + 1 };
        let levels = self.geometric(0.80, 8);
        for level in 0..levels {
            if level > 0 {
                price = (price + direction * self.rng.i64(1..=3)).clamp(self.bounds.0, self.bounds.1);
            }
            for _ in 0..self.geometric(0.50, 40) {
                if self.rng.f64() < 0.001 {
                    self.next_id += self.rng.i64(1..=3);
                }
                let steps = (self.usual_steps * pareto(&mut self.rng, 1.3) * 0.3).clamp(1.0, 1e8) as i64;
                fills.push(Fill {
                    at_ms,
                    id: self.next_id,
                    price: Fixed(price * self.tick),
                    qty: Fixed(steps * self.step),
                    rpi: self.rng.f64() < 0.03,
                    buyer_is_maker: self.selling,
                });
                self.next_id += 1;
            }
        }
        if levels > 1 {
            self.bid = if self.selling { price } else { price - 1 };
        }
        if self.rng.f64() < MOVE_CHANCE {
            // Three uniform draws are bell enough; at least one tick.
            let bell = (0..3).map(|_| self.rng.f64() * 2.0 - 1.0).sum::<f64>() * self.move_ticks;
            self.bid += if bell < 0.0 { bell.floor() } else { bell.ceil() } as i64;
        }
        self.bid = self.bid.clamp(self.bounds.0, self.bounds.1);
        self.schedule();
    }

    /// Ogata's thinning: the intensity only falls until the next order, so its present value bounds it.
    fn schedule(&mut self) {
        if self.calm <= 0.0 {
            self.next_ms = NEVER_MS;
            return;
        }
        self.heat += HEAT_CHILDREN / HEAT_MS;
        if self.rng.f64() < STORM_CHANCE {
            self.storm += (STORM_MIN * pareto(&mut self.rng, STORM_EXPONENT)).min(STORM_MAX) / STORM_MS;
        }
        loop {
            let bound = self.calm + self.heat + self.storm;
            let wait = -(1.0 - self.rng.f64()).ln() / bound;
            self.clock += wait;
            self.heat *= (-wait / HEAT_MS).exp();
            self.storm *= (-wait / STORM_MS).exp();
            if self.rng.f64() * bound <= self.calm + self.heat + self.storm {
                break;
            }
        }
        self.next_ms = self.start_ms + self.clock as i64;
    }

    /// 1 with chance `stop`, else one more, and so on up to `most`.
    fn geometric(&mut self, stop: f64, most: u32) -> u32 {
        let mut n = 1;
        while n < most && self.rng.f64() >= stop {
            n += 1;
        }
        n
    }
}

/// At least 1, heavy-tailed.
fn pareto(rng: &mut fastrand::Rng, exponent: f64) -> f64 {
    (1.0 - rng.f64()).powf(-1.0 / exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_market_and_prices_stay_on_the_grid() {
        let listing = Listing::new("AUSDT", "64123.40", 5.0);
        let run = |seed| {
            let (mut tide, mut fills) = (Tide::new(&listing, seed, 1.0, 0), Vec::new());
            while tide.next_ms() < 600_000 {
                tide.order(&mut fills);
            }
            fills
        };
        let fills = run(7);
        assert_eq!(fills, run(7));
        assert_ne!(fills, run(8));
        for pair in fills.windows(2) {
            assert!(pair[0].id < pair[1].id && pair[0].at_ms <= pair[1].at_ms);
        }
        assert!(fills.iter().all(|fill| fill.price.0 > 0 && fill.price.0 % listing.tick.0 == 0));
        assert!(fills.iter().all(|fill| fill.qty.0 > 0 && fill.qty.0 % listing.step.0 == 0));
    }

    #[test]
    fn arrivals_are_clustered_around_their_mean() {
        let listing = Listing::new("AUSDT", "64123.40", 10.0);
        let (mut tide, mut fills) = (Tide::new(&listing, 3, 1.0, 0), Vec::new());
        let (mut orders, mut windows) = (0_u32, vec![0_u32; 36_000]);
        while tide.next_ms() < 3_600_000 {
            windows[(tide.next_ms() / 100) as usize] += 1;
            tide.order(&mut fills);
            orders += 1;
        }
        let per_second = f64::from(orders) / 3600.0;
        assert!((5.0..14.0).contains(&per_second), "{per_second} orders a second");
        let peak = windows.iter().max().copied().unwrap_or(0);
        assert!((40..400).contains(&peak), "peak of {peak} in 100 ms");
    }
}
