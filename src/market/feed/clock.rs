//! The venue's clock as its data shows it: how far behind the newest news a message is.
//!
//! A path that froze and thaws delivers minutes of old messages at once; by their arrival alone they look fresh. So the
//! time that the venue writes into each message is held against the largest lead it ever had over our monotonic clock.
//! Our wall clock plays no part: it may be wrong by hours.

use crate::time::{Instant, Span, UtcMs};

/// Two good clocks drift apart by less than this: the best lead is forgotten at that pace.
const DRIFT_PPM: i64 = 200;
/// A message this far ahead of all others is no better path but a wrong time, until others agree.
const AHEAD_MAX_NS: i64 = 2_000_000_000;
/// So many in a row, and it is the venue's clock that was set.
const AGREE: u32 = 8;
/// Data that repeats one venue time for longer than this carries no clock.
const STANDS_STILL: Span = Span::from_secs(2);

/// What is known of the venue's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct VenueClock {
    /// The largest (venue time − our monotonic time) in ns, and when it was seen.
    best: Option<(i64, Instant)>,
    ahead: u32,
}

impl VenueClock {
    /// How much older a message with this venue time is than the best path would have delivered.
    pub(super) fn behind(&mut self, event: UtcMs, now: Instant) -> Span {
        let lead = event.0.saturating_mul(1_000_000).saturating_sub_unsigned(now.as_ns());
        let Some((best, at)) = self.best else {
            self.best = Some((lead, now));
            return Span::ZERO;
        };
        let forgotten = (now.since(at).as_us() as i64).saturating_mul(DRIFT_PPM) / 1_000;
        let best = best.saturating_sub(forgotten);
        if lead < best {
            self.ahead = 0;
            return Span::from_ns(best.abs_diff(lead));
        }
        if lead.saturating_sub(best) > AHEAD_MAX_NS {
            self.ahead += 1;
            if self.ahead < AGREE {
                return Span::ZERO;
            }
        }
        (self.best, self.ahead) = (Some((lead, now)), 0);
        Span::ZERO
    }

    /// When something that the venue dates so would have reached us at the earliest; `None` before any message.
    pub(super) fn arrival_of(&self, event: UtcMs) -> Option<Instant> {
        let (lead, _) = self.best?;
        let ns = event.0.saturating_mul(1_000_000).saturating_sub(lead);
        Some(Instant::from_ns(u64::try_from(ns).unwrap_or(0)))
    }
}

/// Is a message with this venue time old news on its stream? `seen` is the stream's newest venue time and when it first
/// came; both are brought up to date.
pub(super) fn is_old(seen: &mut (UtcMs, Instant), event: UtcMs, behind: Span, limit: Span, now: Instant) -> bool {
    if event != seen.0 {
        *seen = (event, now);
    }
    behind > limit && now.since(seen.1) <= STANDS_STILL
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Span::from_ms(ms)
    }

    const VENUE: i64 = 1_795_000_000_000;

    #[test]
    fn a_burst_after_a_freeze_is_old_by_its_own_time() {
        let mut clock = VenueClock::default();
        for second in 0..100 {
            let jitter = (second * 7) % 13;
            let behind = clock.behind(UtcMs(VENUE + second * 1_000), at(second as u64 * 1_000 + jitter as u64));
            assert!(behind <= Span::from_ms(13), "{behind}");
        }
        // Sixty seconds frozen, then everything at once.
        for second in 100..160 {
            let behind = clock.behind(UtcMs(VENUE + second * 1_000), at(160_000));
            assert!(
                behind >= Span::from_ms((160_000 - second * 1_000) as u64).saturating_sub(Span::from_ms(40)),
                "{behind}"
            );
        }
        assert!(clock.behind(UtcMs(VENUE + 160_990), at(161_000)) < Span::from_ms(40));
    }

    #[test]
    fn one_wrong_time_does_not_make_all_others_look_old_and_a_clock_that_was_set_does() {
        let mut clock = VenueClock::default();
        clock.behind(UtcMs(VENUE), at(0));
        assert_eq!(clock.behind(UtcMs(i64::MAX), at(1)), Span::ZERO);
        assert_eq!(clock.behind(UtcMs(VENUE + 86_400_000), at(2)), Span::ZERO);
        assert!(clock.behind(UtcMs(VENUE + 3), at(3)) < Span::from_ms(2));
        for ms in 4..20 {
            clock.behind(UtcMs(VENUE + 3_600_000 + ms), at(ms as u64));
        }
        assert!(clock.behind(UtcMs(VENUE + 21), at(21)) > Span::from_secs(3_599), "the venue's clock was set");
    }

    #[test]
    fn a_source_whose_time_stands_still_is_not_judged_by_it() {
        let mut seen = (UtcMs(0), Instant::ZERO);
        let limit = Span::from_secs(60);
        assert!(is_old(&mut seen, UtcMs(VENUE), Span::from_secs(70), limit, at(0)));
        assert!(is_old(&mut seen, UtcMs(VENUE), Span::from_secs(71), limit, at(900)));
        assert!(!is_old(&mut seen, UtcMs(VENUE), Span::from_secs(73), limit, at(3_000)));
    }

    #[test]
    fn clocks_that_drift_apart_make_nothing_old() {
        let mut clock = VenueClock::default();
        for minute in 0..3 * 24 * 60_i64 {
            // Ours gains 100 ms in 1,000 s.
            let ours = minute as u64 * 60_000;
            let behind = clock.behind(UtcMs(VENUE + minute * 60_000 - minute * 6), at(ours));
            assert!(behind < Span::from_secs(1), "{behind} after {minute} minutes");
        }
    }
}
