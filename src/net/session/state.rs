//! The states, each with the instant at which it gives up.

use crate::time::Instant;

/// Where a session is. Each variant that waits says until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Pausing before the next attempt.
    Backoff {
        /// When the attempt begins.
        until: Instant,
    },
    /// Waiting for the name's addresses.
    Resolving {
        /// When it gives up.
        until: Instant,
    },
    /// Waiting for TCP.
    Dialing {
        /// When it gives up on all addresses.
        until: Instant,
        /// When it goes on to the next one.
        address_until: Instant,
    },
    /// In the TLS handshake.
    Securing {
        /// When it gives up.
        until: Instant,
    },
    /// Waiting for the answer to the upgrade.
    Upgrading {
        /// When it gives up.
        until: Instant,
    },
    /// Connected. Silence has its own deadlines.
    Open,
    /// We said goodbye and wait for the answer.
    Closing {
        /// When it stops waiting.
        until: Instant,
    },
    /// Ended for good.
    Stopped,
}

impl State {
    /// One word, as in `/status`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Backoff { .. } => "backoff",
            Self::Resolving { .. } => "resolving",
            Self::Dialing { .. } => "connecting",
            Self::Securing { .. } => "tls",
            Self::Upgrading { .. } => "upgrading",
            Self::Open => "open",
            Self::Closing { .. } | Self::Stopped => "closing",
        }
    }
}
