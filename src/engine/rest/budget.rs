//! How much request weight may be spent, and when.

use crate::time::{Instant, Span};
use crate::wire::Market;
use std::collections::VecDeque;

/// The venue counts by its own UTC minutes; in no 60 seconds of any clock do we take more than our part of one.
const MINUTE: Span = Span::from_secs(60);

/// Weight spent lately, by us and, as the venue reports it, by everybody at this address.
pub(super) struct Budget {
    /// Ours, in any minute: half of what the venue gives to the address.
    ours_max: u64,
    /// Everybody's: the part of it that we do not fill up further.
    all_max: u64,
    spent: VecDeque<(Instant, u32)>,
    /// The venue's newest figure and what we spent since; it means nothing a minute later.
    reported: Option<(Instant, u64)>,
}

impl Budget {
    pub(super) fn new(market: Market) -> Self {
        let venue = match market {
            Market::Usdm => 2_400,
            Market::Spot => 6_000,
        };
        Self { ours_max: venue / 2, all_max: venue * 4 / 5, spent: VecDeque::new(), reported: None }
    }

    /// When a call of this weight may go. In the past if now.
    pub(super) fn free_at(&self, weight: u32) -> Instant {
        let mut too_much = (self.ours() + u64::from(weight)).saturating_sub(self.ours_max);
        let mut free = Instant::ZERO;
        for (at, weight) in &self.spent {
            if too_much == 0 {
                break;
            }
            too_much = too_much.saturating_sub(u64::from(*weight));
            free = *at + MINUTE;
        }
        match self.reported {
            Some((at, all)) if all + u64::from(weight) > self.all_max => free.max(at + MINUTE),
            Some(_) | None => free,
        }
    }

    /// A call of this weight goes.
    pub(super) fn spend(&mut self, weight: u32, now: Instant) {
        while self.spent.front().is_some_and(|(at, _)| *at + MINUTE <= now) {
            self.spent.pop_front();
        }
        self.spent.push_back((now, weight));
        self.reported = self.reported.filter(|(at, _)| *at + MINUTE > now);
        if let Some((_, all)) = &mut self.reported {
            *all += u64::from(weight);
        }
    }

    /// A call of this weight never went.
    pub(super) fn refund(&mut self, weight: u32) {
        if let Some(at) = self.spent.iter().rposition(|(_, spent)| *spent == weight) {
            self.spent.remove(at);
        }
        if let Some((_, all)) = &mut self.reported {
            *all = all.saturating_sub(u64::from(weight));
        }
    }

    /// The venue says how much was used in its minute. Calls under way, `uncounted` together, may not be in it yet.
    pub(super) fn report(&mut self, used: i64, uncounted: u32, now: Instant) {
        if let Ok(used) = u64::try_from(used) {
            self.reported = Some((now, used.saturating_add(u64::from(uncounted))));
        }
    }

    fn ours(&self) -> u64 {
        self.spent.iter().map(|(_, weight)| u64::from(*weight)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::ZERO + Span::from_secs(s)
    }

    #[test]
    fn no_minute_has_more_than_half_of_the_venues() {
        let mut budget = Budget::new(Market::Usdm);
        let (mut now, mut sent) = (Instant::ZERO, Vec::new());
        for call in 0..500 {
            now = now.max(budget.free_at(20)) + Span::from_ms(call % 7 * 100);
            budget.spend(20, now);
            sent.push(now);
        }
        assert!(sent.windows(61).all(|calls| calls[60].since(calls[0]) >= MINUTE));
        assert!(now < at(500 / 60 * 60 + 60), "and no time is wasted: {now:?}");
        assert!(budget.spent.len() <= 60);
    }

    #[test]
    fn what_others_use_is_seen_in_the_venues_figure() {
        let mut budget = Budget::new(Market::Usdm);
        budget.spend(20, at(1));
        budget.report(1_880, 20, at(2));
        assert!(budget.free_at(20) <= at(2));
        budget.spend(20, at(2));
        assert_eq!(budget.free_at(1), at(62));
        budget.report(-1, 0, at(3));
        assert_eq!(budget.free_at(1), at(62), "a sentinel says nothing");
        budget.report(5, 0, at(4));
        assert!(budget.free_at(1) <= at(4), "the venue's minute began anew");
        budget.report(9_999, 0, at(5));
        budget.spend(1, at(65));
        assert!(budget.free_at(20) <= at(65), "and an old figure means nothing");
    }

    #[test]
    fn what_never_went_costs_nothing() {
        let mut budget = Budget::new(Market::Spot);
        budget.report(0, 0, at(0));
        for _ in 0..150 {
            budget.spend(20, at(0));
        }
        assert_eq!(budget.free_at(20), at(60));
        budget.refund(20);
        assert!(budget.free_at(20) <= at(0));
    }
}
