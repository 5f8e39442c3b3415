//! Why an attempt or a connection ended: one value for every end there is.

use crate::time::Span;
use std::fmt;
use std::net::SocketAddr;

/// Where an attempt or a connection was when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Looking up the name.
    Resolve,
    /// Connecting, over all addresses.
    Tcp,
    /// TLS handshake.
    Tls,
    /// WebSocket upgrade.
    Upgrade,
    /// Open, waiting for the first acknowledgement.
    Ack,
    /// Open, acknowledged, waiting for the first data.
    FirstData,
    /// Open: the connection failed, or the peer broke the protocol.
    Read,
    /// Open: silent, and our ping was not answered.
    Pong,
    /// The peer, or we, closed it.
    Close,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Resolve,
        Self::Tcp,
        Self::Tls,
        Self::Upgrade,
        Self::Ack,
        Self::FirstData,
        Self::Read,
        Self::Pong,
        Self::Close,
    ];

    /// One word, as in `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Upgrade => "upgrade",
            Self::Ack => "ack",
            Self::FirstData => "first_data",
            Self::Read => "read",
            Self::Pong => "pong",
            Self::Close => "close",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How one attempt, or one connection, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Where.
    pub stage: Stage,
    /// Why, for people. Peer's words in it are escaped and capped.
    pub reason: String,
    /// The peer's close code, if it sent one.
    pub close_code: Option<u16>,
    /// Time spent in the stage.
    pub elapsed: Span,
    /// The address in use or tried last.
    pub address: Option<SocketAddr>,
    /// Which attempt since the last data.
    pub attempt: u32,
    /// True if the peer broke TLS, HTTP or WebSocket rules, rather than the path having failed.
    pub violation: bool,
    /// The peer asked us to stay away for this long (`Retry-After`, or a ban).
    pub retry_after: Option<Span>,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {}: {}", self.stage, self.elapsed, self.reason)?;
        if let Some(address) = self.address {
            write!(f, " ({address})")?;
        }
        Ok(())
    }
}

/// A peer's words for a log line: control characters escaped, at most `max` characters.
pub(crate) fn escaped(words: &str, max: usize) -> String {
    let mut out = String::new();
    for (n, c) in words.chars().enumerate() {
        if n == max {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}
