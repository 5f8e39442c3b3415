//! One row of connections: a session, the streams it carries, and its books.

use crate::net::{Ending, Session, Stage};
use crate::time::{Instant, Span, UtcMs};
use crate::wire::market::{Reject, RejectKind};
use std::collections::VecDeque;
use std::rc::Rc;

/// Refused messages of one kind are summed up this often at most.
const REFUSALS_TOLD_EVERY: Span = Span::from_secs(60);

/// Requests of one connection that wait for their answers, or for any byte at all.
const REQUESTS_IN_FLIGHT: usize = 2;

/// A request that waits for its answer.
#[derive(Clone, Debug)]
pub(super) struct PendingAsk {
    pub(super) id: u64,
    /// None for an UNSUBSCRIBE, whose answer proves nothing.
    pub(super) streams: Vec<usize>,
    /// When it is no longer waited for.
    pub(super) until: Instant,
}

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

/// One connection's row.
pub struct Connection {
    /// `market-N`
    pub name: Rc<str>,
    /// What it dials.
    pub url: Rc<str>,
    /// The connection itself.
    pub session: Session,
    /// Indices of the streams it carries.
    pub streams: Vec<usize>,
    /// How many of them are live on it.
    pub live: u32,
    /// Messages received.
    pub frames: u64,
    /// The newest ending and when.
    pub last_ending: Option<(Ending, UtcMs)>,
    /// Endings by stage, in the order of [`Stage::ALL`].
    pub endings_by_stage: [u64; Stage::ALL.len()],
    /// When data last came; `None` before any.
    pub last_data: Option<Instant>,
    /// True from `attempts` failures in a row until data comes.
    pub in_outage: bool,
    pub(super) voice: Voice,
    pub(super) refusals: [Refusals; RejectKind::ALL.len()],
    /// Streams that wait for their turn in a SUBSCRIBE.
    pub(super) to_ask: VecDeque<usize>,
    /// Streams to be taken back first, because asking again alone did not help.
    pub(super) to_drop: Vec<usize>,
    pub(super) pending: Vec<PendingAsk>,
    pub(super) next_id: u64,
    /// Requests sent since a byte came, and when that byte came.
    unheard: (usize, Instant),
    pub(super) attempt_began: Instant,
    pub(super) dark_since: Instant,
    /// The silence of all its streams was found to be the market's; not judged again before this.
    pub(super) excused_until: Instant,
    /// Data came since the connection opened.
    pub(super) proved: bool,
    pub(super) all_live_told: bool,
    /// Not before this does anything here have to be looked at.
    pub(super) wake: Instant,
}

impl Connection {
    pub(super) fn new(name: Rc<str>, url: Rc<str>, session: Session, streams: Vec<usize>, now: Instant) -> Self {
        Self {
            name,
            url,
            session,
            streams,
            live: 0,
            frames: 0,
            last_ending: None,
            endings_by_stage: [0; Stage::ALL.len()],
            last_data: None,
            in_outage: false,
            voice: Voice::default(),
            refusals: std::array::from_fn(|_| Refusals::default()),
            to_ask: VecDeque::new(),
            to_drop: Vec::new(),
            pending: Vec::new(),
            next_id: 1,
            unheard: (0, now),
            attempt_began: now,
            dark_since: now,
            excused_until: Instant::ZERO,
            proved: false,
            all_live_told: false,
            wake: now,
        }
    }

    /// May one more request go out, as far as answers tell? A path that hesitates keeps requests and delivers them
    /// together, those included whose answers are no longer waited for; so the peer must have been heard meanwhile.
    pub(super) fn may_ask(&self) -> bool {
        self.pending.len() < REQUESTS_IN_FLIGHT && self.unheard() < REQUESTS_IN_FLIGHT
    }

    fn unheard(&self) -> usize {
        if self.unheard.1 == self.session.last_byte() { self.unheard.0 } else { 0 }
    }

    /// A request was sent.
    pub(super) fn asked(&mut self) {
        self.unheard = (self.unheard() + 1, self.session.last_byte());
        self.next_id += 1;
    }

    /// Since when no stream of it delivers; the start if none ever did.
    pub fn dark_since(&self) -> Instant {
        self.dark_since
    }

    /// Messages refused, and protocol violations, by kind.
    pub fn rejected(&self) -> impl Iterator<Item = (RejectKind, u64)> {
        RejectKind::ALL.into_iter().zip(&self.refusals).map(|(kind, refusals)| (kind, refusals.count))
    }

    /// When a sum of what was held back is to be told.
    pub(super) fn sums_due(&self) -> Instant {
        self.refusals.iter().map(Refusals::due).fold(self.voice.due(), Instant::min)
    }
}
