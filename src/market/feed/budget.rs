//! How often the process may connect: the venue bans addresses that connect too often.

use crate::time::{Instant, Span};
use std::collections::VecDeque;

/// The venue allows 300 attempts in five minutes from one address; this leaves room for a neighbour's.
const WINDOW: Span = Span::from_secs(300);
const ATTEMPTS_MAX: usize = 280;
/// Attempts after a failure, so that a venue that refuses everybody meets no storm.
const RETRY_WINDOW: Span = Span::from_secs(60);
const RETRIES_MAX: usize = 60;
/// What is done beside connections that work leaves the other half to those that are down.
const BESIDE_MAX: usize = ATTEMPTS_MAX / 2;

/// Counts attempts of all connections together.
#[derive(Default)]
pub(super) struct ConnectBudget {
    attempts: VecDeque<Instant>,
    retries: VecDeque<Instant>,
}

impl ConnectBudget {
    /// Takes one attempt out of the budget, or says when there may be one. `beside`: a connection that works stays
    /// whatever comes of it.
    pub(super) fn permit(&mut self, retry: bool, beside: bool, now: Instant) -> Result<(), Instant> {
        until_free(&mut self.attempts, WINDOW, if beside { BESIDE_MAX } else { ATTEMPTS_MAX }, now)?;
        if retry {
            until_free(&mut self.retries, RETRY_WINDOW, RETRIES_MAX, now)?;
            self.retries.push_back(now);
        }
        self.attempts.push_back(now);
        Ok(())
    }
}

fn until_free(recent: &mut VecDeque<Instant>, window: Span, most: usize, now: Instant) -> Result<(), Instant> {
    while recent.front().is_some_and(|oldest| *oldest + window <= now) {
        recent.pop_front();
    }
    match recent.front() {
        Some(oldest) if recent.len() >= most => Err(*oldest + window),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_has_more_than_sixty_retries_and_no_five_more_than_the_venue_allows() {
        let mut budget = ConnectBudget::default();
        let (mut now, mut begun) = (Instant::ZERO, Vec::new());
        while begun.len() < 1_000 {
            match budget.permit(true, false, now) {
                Ok(()) => begun.push(now),
                Err(at) => {
                    assert!(at > now);
                    now = at;
                }
            }
        }
        assert!(budget.permit(false, true, now).is_err(), "the rest is for those that are down");
        assert!(begun.windows(61).all(|w| w[60].since(w[0]) >= RETRY_WINDOW));
        assert!(begun.windows(281).all(|w| w[280].since(w[0]) >= WINDOW));
    }
}
