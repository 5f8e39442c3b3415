//! What comes of an ask.

use crate::time::Span;
use crate::wire::rest::{ListedSymbol, Malformed, PastTrade, VenueError};
use crate::wire::{Kline, MarkPrice};
use std::fmt;

/// A good answer, to the ask of the same kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Ids rise. May be empty, and may end before what the stream has shown already: REST lags behind it.
    Trades(Vec<PastTrade>),
    /// Oldest first; the last one may still be running.
    Klines(Vec<Kline>),
    /// The mark price.
    Premium(MarkPrice),
    /// In the venue's order.
    ExchangeInfo(Vec<ListedSymbol>),
}

/// Why there is no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The venue answered with another status than 200.
    Refused {
        /// HTTP status; 3xx too, since redirects are not followed.
        status: u16,
        /// The venue's own error, where the body is one.
        error: Option<VenueError>,
    },
    /// No connection, or one that broke: in words.
    Failed(String),
    /// An answer that is not what was asked for.
    Malformed(Malformed),
    /// No whole answer in this time.
    Timeout(Span),
    /// No thread for it; nothing was sent.
    Overloaded,
}

/// Results as labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKind {
    /// A good answer.
    Ok,
    /// Another status than 200.
    Refused,
    /// No answer, or a malformed one.
    Failed,
    /// No whole answer in time.
    Timeout,
    /// Never sent.
    Overloaded,
}

impl ResultKind {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Refused, Self::Failed, Self::Timeout, Self::Overloaded];

    /// One word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
        }
    }
}

impl Failure {
    /// How it is counted.
    pub const fn kind(&self) -> ResultKind {
        match self {
            Self::Refused { .. } => ResultKind::Refused,
            Self::Failed(_) | Self::Malformed(_) => ResultKind::Failed,
            Self::Timeout(_) => ResultKind::Timeout,
            Self::Overloaded => ResultKind::Overloaded,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status, error: Some(error) } => write!(f, "HTTP {status}: {error}"),
            Self::Refused { status: status @ 300..=399, error: None } => {
                write!(f, "HTTP {status}, and redirects are not followed")
            }
            Self::Refused { status, error: None } => write!(f, "HTTP {status}"),
            Self::Failed(words) => f.write_str(words),
            Self::Malformed(fault) => write!(f, "answer refused whole: {fault}"),
            Self::Timeout(after) => write!(f, "no whole answer in {after}"),
            Self::Overloaded => f.write_str("all REST threads are busy"),
        }
    }
}
