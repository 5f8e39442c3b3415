//! One stream: wanted → sent → acked → live, or failed and asked for again. Only its own data makes it live.

use crate::time::Instant;
use crate::wire::{StreamKind, SymbolId};
use std::rc::Rc;

/// Where a stream is. Each variant that waits says until when; `Wanted` waits for its connection, which has deadlines
/// of its own.
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
    /// Acknowledged and silent, and nobody trades: no failure.
    Quiet {
        /// When it is judged again.
        until: Instant,
    },
    /// Its own data arrived on its present connection.
    Live,
    /// Did not do what it should in its time.
    Failed {
        /// When it is asked for again.
        until: Instant,
    },
}

impl StreamState {
    /// One word, as in `/status`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Wanted => "wanted",
            Self::Sent { .. } => "sent",
            Self::Acked { .. } | Self::Quiet { .. } => "acked",
            Self::Live => "live",
            Self::Failed { .. } => "failed",
        }
    }

    /// When it has to be looked at.
    pub const fn deadline(&self) -> Instant {
        match self {
            Self::Sent { until } | Self::Acked { until } | Self::Quiet { until } | Self::Failed { until } => *until,
            Self::Wanted | Self::Live => Instant::FAR,
        }
    }

    /// Delivering, or rightly silent.
    pub const fn is_fine(&self) -> bool {
        matches!(self, Self::Live | Self::Quiet { .. })
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
    /// Index of the connection that carries it.
    pub connection: usize,
    /// Where it is.
    pub state: StreamState,
    /// When it was asked for on this connection.
    pub asked_at: Instant,
    /// When it was acknowledged on this connection.
    pub acked_at: Instant,
    /// When its newest data arrived, on whichever connection.
    pub last_data: Option<Instant>,
    /// When another stream first told, since the acknowledgement, that this one should have had data.
    pub evidence_at: Option<Instant>,
    /// Requests.
    pub attempts: u64,
    /// First data after a request.
    pub successes: u64,
    /// Entries into `Failed`.
    pub failures: u64,
    /// Attempts after a failure.
    pub retries: u64,
    /// Failures since the last data.
    pub failures_in_a_row: u32,
    /// Why it is not live, or why it may be silent.
    pub reason: Option<Rc<str>>,
}

impl Stream {
    /// A stream that nobody has asked for yet.
    pub fn new(symbol: SymbolId, kind: StreamKind, name: Rc<str>, connection: usize) -> Self {
        Self {
            symbol,
            kind,
            name,
            connection,
            state: StreamState::Wanted,
            asked_at: Instant::ZERO,
            acked_at: Instant::ZERO,
            last_data: None,
            evidence_at: None,
            attempts: 0,
            successes: 0,
            failures: 0,
            retries: 0,
            failures_in_a_row: 0,
            reason: None,
        }
    }

    /// It is being asked for.
    pub fn ask(&mut self, now: Instant) {
        self.attempts += 1;
        if self.failures_in_a_row > 0 {
            self.retries += 1;
        }
        self.asked_at = now;
        self.evidence_at = None;
    }
}
