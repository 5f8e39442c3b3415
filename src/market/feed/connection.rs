//! One row of connections: a session, the streams it carries, and its books.

use super::voice::{Refusals, Voice};
use crate::config::SubscribeBy;
use crate::net::{Ending, Session, Stage};
use crate::time::{Instant, UtcMs};
use crate::wire::market::RejectKind;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

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

/// Why a connection gets a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its time has come.
    Planned,
    /// The venue announced that it will close it.
    Announced,
    /// Some of its streams do not deliver, and asking again has not helped.
    Healing,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Planned, Self::Announced, Self::Healing];

    /// One word, as in `/status` and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Announced => "announced",
            Self::Healing => "healing",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Planned => "planned rotation",
            Self::Announced => "the venue will close it",
            Self::Healing => "some of its streams do not deliver",
        })
    }
}

/// What a connection is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It serves its group.
    Current,
    /// It proves itself, to take the current one's place.
    Successor(Purpose),
    /// It carries streams that the current one does not deliver, asked for in the other form.
    Side,
    /// It was replaced, and says goodbye.
    Retiring,
    /// It is free.
    Vacant,
}

impl Role {
    /// One word, as in `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Successor(_) => "successor",
            Self::Side => "side",
            Self::Retiring => "retiring",
            Self::Vacant => "vacant",
        }
    }
}

/// One connection's row.
pub struct Connection {
    /// `market-N`
    pub name: Rc<str>,
    /// The name as the log has it: with the leg, and whether it is a successor.
    pub label: Rc<str>,
    /// 0 is leg a, 1 is leg b.
    pub leg: usize,
    /// What it is there for.
    pub role: Role,
    /// The slot it lives in.
    pub slot: usize,
    /// What it dials.
    pub url: Rc<str>,
    /// The connection itself.
    pub session: Session,
    /// Indices of the streams it carries.
    pub streams: Vec<usize>,
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
    pub(super) group: usize,
    /// How its streams are asked for.
    pub(super) by: SubscribeBy,
    pub(super) voice: Voice,
    pub(super) refusals: [Refusals; RejectKind::ALL.len()],
    /// Streams that wait for their turn in a SUBSCRIBE.
    pub(super) to_ask: VecDeque<usize>,
    /// Streams to be taken back first, because asking again alone did not help, or for good.
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
    /// It was said how many of its streams are back since it opened.
    pub(super) restored_told: bool,
    pub(super) all_live_told: bool,
    /// The venue said, since it opened, that it will close it.
    pub(super) announced: bool,
    /// Of a successor: when it is to be seen whether it can take over.
    pub(super) review_at: Instant,
    /// Not before this does anything here have to be looked at.
    pub(super) wake: Instant,
}

impl Connection {
    pub(super) fn new(name: Rc<str>, group: usize, leg: usize, role: Role, session: Session, now: Instant) -> Self {
        Self {
            label: name.clone(),
            name,
            leg,
            role,
            slot: usize::MAX,
            url: "".into(),
            session,
            streams: Vec::new(),
            frames: 0,
            last_ending: None,
            endings_by_stage: [0; Stage::ALL.len()],
            last_data: None,
            in_outage: false,
            group,
            by: SubscribeBy::Message,
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
            restored_told: false,
            all_live_told: false,
            announced: false,
            review_at: Instant::FAR,
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

    /// `a` or `b`
    pub fn leg_name(&self) -> &'static str {
        if self.leg == 0 { "a" } else { "b" }
    }

    /// What it is to do, if it is a successor.
    pub fn purpose(&self) -> Option<Purpose> {
        match self.role {
            Role::Successor(purpose) => Some(purpose),
            Role::Current | Role::Side | Role::Retiring | Role::Vacant => None,
        }
    }

    /// Messages refused, and protocol violations, by kind.
    pub fn rejected(&self) -> impl Iterator<Item = (RejectKind, u64)> {
        RejectKind::ALL.into_iter().zip(&self.refusals).map(|(kind, refusals)| (kind, refusals.count))
    }

    /// When a sum of what was held back is to be told.
    pub(super) fn sums_due(&self) -> Instant {
        self.refusals.iter().map(Refusals::due).fold(self.voice.due(), Instant::min)
    }

    /// A connection beside this one says no more than both together may.
    pub(super) fn lend_voice(&self, to: &mut Self) {
        to.voice = self.voice.beside();
        to.refusals = std::array::from_fn(|kind| self.refusals[kind].beside());
    }

    /// It is over, and what it said was said.
    pub(super) fn take_voice_back(&mut self, from: &Self) {
        self.voice.heard(&from.voice);
        for (mine, theirs) in self.refusals.iter_mut().zip(&from.refusals) {
            mine.heard(theirs);
        }
    }

    /// Takes over the books of a row that ends, so that what is shown under one name only grows.
    pub(super) fn inherit(&mut self, old: &mut Self) {
        self.frames += old.frames;
        for (mine, theirs) in self.endings_by_stage.iter_mut().zip(old.endings_by_stage) {
            *mine += theirs;
        }
        for (mine, theirs) in self.refusals.iter_mut().zip(&mut old.refusals) {
            mine.inherit(theirs);
        }
        if self.last_ending.is_none() {
            self.last_ending.clone_from(&old.last_ending);
        }
        self.session.inherit(&old.session);
    }
}
