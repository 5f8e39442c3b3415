//! One wanted stream, and its runs: the same stream on each connection that carries it.
//!
//! A run goes wanted → sent → acked → live, and only its own data makes it live. A stream has one run, two while a
//! successor proves itself or with two legs, and it is as well as the best of them.

use super::ladder::Rung;
use super::race::Race;
use crate::time::{Instant, UtcMs};
use crate::wire::{StreamKind, SymbolId};
use std::rc::Rc;

/// Where a run is. Each variant that waits says until when; `Wanted` waits for its connection, which has deadlines of
/// its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// Not asked for on a connection that is open.
    Wanted,
    /// Asked for.
    Sent {
        /// When the missing acknowledgement is a failure.
        until: Instant,
    },
    /// Acknowledged, which proves nothing.
    Acked {
        /// When the missing data is judged.
        until: Instant,
    },
    /// Silent, and nobody trades: no failure.
    Quiet {
        /// When it is judged again.
        until: Instant,
        /// Its own data has come on this connection; otherwise it is acknowledged only.
        lived: bool,
    },
    /// Its own data arrived on this connection.
    Live {
        /// When its silence is looked at; data moves that only when it is looked at.
        until: Instant,
    },
    /// It lived and has been silent for too long, or brings old data only.
    Stale {
        /// When the next step is taken.
        until: Instant,
    },
    /// Did not do what it should in its time.
    Failed {
        /// When the next step is taken.
        until: Instant,
    },
}

impl StreamState {
    /// One word, as in `/status`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Wanted => "wanted",
            Self::Sent { .. } => "sent",
            Self::Acked { .. } | Self::Quiet { lived: false, .. } => "acked",
            Self::Live { .. } | Self::Quiet { lived: true, .. } => "live",
            Self::Stale { .. } => "stale",
            Self::Failed { .. } => "failed",
        }
    }

    /// When it has to be looked at.
    pub const fn deadline(&self) -> Instant {
        match self {
            Self::Wanted => Instant::FAR,
            Self::Sent { until }
            | Self::Acked { until }
            | Self::Quiet { until, .. }
            | Self::Live { until }
            | Self::Stale { until }
            | Self::Failed { until } => *until,
        }
    }

    /// The same, to be looked at another time.
    pub(super) const fn put_off(self, until: Instant) -> Self {
        match self {
            Self::Wanted => self,
            Self::Sent { .. } => Self::Sent { until },
            Self::Acked { .. } => Self::Acked { until },
            Self::Quiet { lived, .. } => Self::Quiet { until, lived },
            Self::Live { .. } => Self::Live { until },
            Self::Stale { .. } => Self::Stale { until },
            Self::Failed { .. } => Self::Failed { until },
        }
    }

    /// Its own data has come, and its silence, if it is silent, is the market's.
    pub const fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. } | Self::Quiet { lived: true, .. })
    }

    /// Delivering, or rightly silent.
    pub const fn is_fine(&self) -> bool {
        matches!(self, Self::Live { .. } | Self::Quiet { .. })
    }

    /// Failed or stale.
    pub const fn is_down(&self) -> bool {
        matches!(self, Self::Stale { .. } | Self::Failed { .. })
    }

    /// Another stream of the symbol that has data can tell it something.
    pub(super) const fn waits_for_data(&self) -> bool {
        matches!(self, Self::Acked { .. } | Self::Quiet { .. })
    }
}

/// A stream on one connection.
#[derive(Clone, Debug)]
pub struct Run {
    /// The connection's slot.
    pub slot: usize,
    /// Where it is.
    pub state: StreamState,
    /// The connection serves; a successor, or a socket of the other form, counts only for what it delivers.
    pub serves: bool,
    /// When it was asked for.
    pub asked_at: Instant,
    /// When it was acknowledged.
    pub acked_at: Instant,
    /// When data last came that was new by its own time.
    pub fresh_at: Instant,
    /// First and newest trade id since the connection opened; zero before any.
    pub(super) ids: (i64, i64),
    /// The newest time the venue wrote into its data, and when data with that time first came.
    pub(super) event: (UtcMs, Instant),
    /// Of candles: when the next push comes at the latest, whether anybody trades or not.
    pub(super) beat_by: Instant,
    /// When another stream first told, since the acknowledgement, that this one should have had data.
    pub(super) evidence_at: Option<Instant>,
    /// Data has come since it was last asked for.
    pub(super) answered: bool,
    /// Failures since the last data.
    pub failures_in_a_row: u32,
    /// The step that was taken last to heal it, since it failed first.
    pub rung: Option<Rung>,
    /// A successor of the connection did not deliver it either, and the other form has not been tried since.
    pub(super) tried_elsewhere: bool,
    /// Why it is not live, or why it may be silent.
    pub reason: Option<Rc<str>>,
}

impl Run {
    pub(super) fn new(slot: usize, serves: bool) -> Self {
        Self {
            slot,
            state: StreamState::Wanted,
            serves,
            asked_at: Instant::ZERO,
            acked_at: Instant::ZERO,
            fresh_at: Instant::ZERO,
            ids: (0, 0),
            event: (UtcMs(0), Instant::ZERO),
            beat_by: Instant::ZERO,
            evidence_at: None,
            answered: false,
            failures_in_a_row: 0,
            rung: None,
            tried_elsewhere: false,
            reason: None,
        }
    }

    /// What is known of its data ends with its connection.
    pub(super) fn forget_data(&mut self) {
        (self.ids, self.event, self.answered) = ((0, 0), (UtcMs(0), Instant::ZERO), false);
        self.beat_by = Instant::ZERO;
    }

    /// The best is shown. A successor counts only for what it has proved.
    fn rank(&self) -> u8 {
        let rank = match self.state {
            StreamState::Live { .. } => return 0,
            StreamState::Quiet { lived: true, .. } => return 1,
            StreamState::Quiet { lived: false, .. } => 2,
            StreamState::Acked { .. } => 3,
            StreamState::Sent { .. } => 4,
            StreamState::Stale { .. } => 5,
            StreamState::Failed { .. } => 6,
            StreamState::Wanted => 7,
        };
        if self.serves { rank } else { rank + 8 }
    }
}

/// One wanted stream and its history.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Whose.
    pub symbol: SymbolId,
    /// What it carries.
    pub kind: StreamKind,
    /// Its name on the wire.
    pub name: Rc<str>,
    /// The group of streams that share connections.
    pub(super) group: usize,
    /// Only the user's wish makes this false.
    pub wanted: bool,
    /// The venue's list does not have its symbol.
    pub unknown: bool,
    /// Nothing heals it: its news are fetched over REST.
    pub polled: bool,
    /// One per connection that carries it, the serving ones in the order of their legs.
    pub runs: Vec<Run>,
    /// When its newest data arrived, on whichever connection.
    pub last_data: Option<Instant>,
    /// Requests.
    pub attempts: u64,
    /// First data after a request.
    pub successes: u64,
    /// Entries into `Failed` or `Stale` while no other connection delivered it.
    pub failures: u64,
    /// Attempts after a failure.
    pub retries: u64,
    /// Failures since the last data.
    pub failures_in_a_row: u32,
    /// When the first of them was.
    pub(super) down_since: Instant,
    /// How often each step of the ladder brought it back.
    pub healed: [u64; Rung::ALL.len()],
    /// Who of two legs was first; `None` without legs.
    pub(super) race: Option<Box<Race>>,
}

impl Stream {
    pub(super) fn new(symbol: SymbolId, kind: StreamKind, name: Rc<str>, group: usize) -> Self {
        Self {
            symbol,
            kind,
            name,
            group,
            wanted: true,
            unknown: false,
            polled: false,
            runs: Vec::with_capacity(2),
            last_data: None,
            attempts: 0,
            successes: 0,
            failures: 0,
            retries: 0,
            failures_in_a_row: 0,
            down_since: Instant::ZERO,
            healed: [0; Rung::ALL.len()],
            race: None,
        }
    }

    /// The run that delivers, or the one that is nearest to it. `None` only while the stream is being taken out.
    pub fn shown(&self) -> Option<&Run> {
        self.runs.iter().min_by_key(|run| run.rank())
    }

    /// How it stands, by its best run.
    pub fn state(&self) -> StreamState {
        self.shown().map_or(StreamState::Wanted, |run| run.state)
    }

    /// Its run on a connection.
    pub fn run(&self, slot: usize) -> Option<&Run> {
        self.runs.iter().find(|run| run.slot == slot)
    }

    pub(super) fn run_mut(&mut self, slot: usize) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.slot == slot)
    }

    /// Does any connection but this one deliver it, or is rightly silent?
    pub(super) fn is_fine_without(&self, slot: usize) -> bool {
        self.runs.iter().any(|run| run.slot != slot && run.state.is_fine() && (run.serves || run.state.is_live()))
    }

    pub(super) fn count_request(&mut self) {
        self.attempts += 1;
        if self.failures_in_a_row > 0 {
            self.retries += 1;
        }
    }
}
