//! What a connection says: refused messages are summed up, and a peer that makes it flap cannot bury all else in the log.

use crate::time::{Instant, Span};
use crate::wire::market::Reject;

/// Refused messages of one kind are summed up this often at most.
const REFUSALS_TOLD_EVERY: Span = Span::from_secs(60);

/// Refusals of one kind, and what has been said of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    pub(super) count: u64,
    told_at: Option<Instant>,
    untold: u64,
    newest: Option<(Reject, String)>,
}

impl Refusals {
    /// Counts one; `sample` is only asked for when it will be told. True if it is to be told now.
    pub(super) fn add(&mut self, reject: Reject, sample: impl FnOnce() -> String, now: Instant) -> bool {
        self.count += 1;
        self.untold += 1;
        if self.untold == 1 {
            self.newest = Some((reject, sample()));
        }
        self.due() <= now
    }

    /// The books of a connection beside this one: what was told of the one is not told anew of the other.
    pub(super) fn beside(&self) -> Self {
        Self { told_at: self.told_at, ..Self::default() }
    }

    /// What was told beside it was told.
    pub(super) fn heard(&mut self, other: &Self) {
        self.told_at = self.told_at.max(other.told_at);
    }

    /// Goes on where a row that ends left off.
    pub(super) fn inherit(&mut self, old: &mut Self) {
        self.count += old.count;
        self.untold += std::mem::take(&mut old.untold);
        self.told_at = self.told_at.max(old.told_at);
        self.newest = self.newest.take().or(old.newest.take());
    }

    /// When the next sum is to be told.
    pub(super) fn due(&self) -> Instant {
        match (self.untold, self.told_at) {
            (0, _) => Instant::FAR,
            (_, None) => Instant::ZERO,
            (_, Some(at)) => at + REFUSALS_TOLD_EVERY,
        }
    }

    /// Takes what is to be told.
    pub(super) fn tell(&mut self, now: Instant) -> Option<(Reject, u64, String)> {
        let (reject, sample) = self.newest.take()?;
        self.told_at = Some(now);
        Some((reject, std::mem::take(&mut self.untold), sample))
    }
}

/// What one connection may say in [`VOICE_WINDOW`]; a peer that makes it flap, or fails hundreds of streams at once, must
/// not bury everything else in the log.
const VOICE_LINES: u32 = 30;
const VOICE_WINDOW: Span = Span::from_secs(60);

/// How much a connection has said lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Voice {
    since: Instant,
    said: u32,
    held: u64,
    newest: Option<String>,
}

impl Voice {
    /// The voice of a connection beside this one, which shares what may be said.
    pub(super) fn beside(&self) -> Self {
        Self { since: self.since, said: self.said, ..Self::default() }
    }

    /// What was said beside it was said.
    pub(super) fn heard(&mut self, other: &Self) {
        if other.since >= self.since {
            (self.since, self.said) = (other.since, self.said.max(other.said));
        }
    }

    /// True if this may be said now; otherwise it is counted.
    pub(super) fn admit(&mut self, words: impl FnOnce() -> String, now: Instant) -> bool {
        if self.held == 0 && self.since + VOICE_WINDOW <= now {
            (self.since, self.said) = (now, 0);
        }
        if self.said < VOICE_LINES {
            self.said += 1;
            return true;
        }
        self.held += 1;
        self.newest = Some(words());
        false
    }

    /// When what was held back is to be summed up.
    pub(super) fn due(&self) -> Instant {
        if self.held == 0 { Instant::FAR } else { self.since + VOICE_WINDOW }
    }

    /// The sum, which begins a new window.
    pub(super) fn sum(&mut self, now: Instant) -> Option<(u64, String)> {
        let newest = self.newest.take()?;
        (self.since, self.said) = (now, 0);
        Some((std::mem::take(&mut self.held), newest))
    }
}
