//! The server's end of one connection, without a socket: plaintext bytes in, plaintext bytes out.
//!
//! A connection begins as HTTP/1.1 and may carry any number of REST requests; one upgrade turns it into a WebSocket for
//! the rest of its life. What requests and messages *mean* is asked of [`Rules`]; here is only their framing, held as
//! strictly as RFC 9112 and RFC 6455 word it, so that a client which is merely tolerated elsewhere fails here.
//!
//! No clock, no thread, no socket: the virtual world and the loopback server drive the same code.

mod http;
mod rules;
mod websocket;

pub use rules::Rules;

use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocket};

use super::exchange::{Action, ConnId};
use crate::time::UtcMs;
use websocket::Pipe;

/// How the server's side wants the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Once [`Peer::transmit`] is empty, with the ordinary goodbye of the transport.
    Close,
    /// At once, whatever is queued, with a reset.
    Cut,
}

/// How far the connection has come. A transport that plays faults paces each stage differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// HTTP; what is queued are REST answers or refusals.
    Http,
    /// A WebSocket whose 101 answer has not left; so many queued bytes belong to it and to what precedes it.
    Upgrading(usize),
    /// A WebSocket.
    Open,
}

/// What passed through connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// REST requests answered.
    pub requests: u64,
    /// Upgrades granted.
    pub upgrades: u64,
    /// Upgrades refused by the exchange.
    pub refused: u64,
    /// Text messages received.
    pub messages: u64,
    /// Text frames queued for sending.
    pub frames: u64,
    /// Requests or frames that broke HTTP or RFC 6455.
    pub violations: u64,
    /// Connections cut because their client did not read.
    pub slow: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.upgrades += other.upgrades;
        self.refused += other.refused;
        self.messages += other.messages;
        self.frames += other.frames;
        self.violations += other.violations;
        self.slow += other.slow;
    }
}

/// The server's end of one connection.
#[derive(Debug)]
pub struct Peer {
    state: State,
    /// Queued for the client; the first `sent` bytes have left.
    out: Vec<u8>,
    sent: usize,
    /// Queued bytes up to the end of the 101 answer.
    upgrade_left: usize,
    ending: Option<Ending>,
    tally: Tally,
}

#[derive(Debug)]
enum State {
    /// The bytes of a request that is not whole yet.
    Http(Vec<u8>),
    /// `conn` is `None` once the exchange knows that the connection is over.
    Open { conn: Option<ConnId>, socket: Box<WebSocket<Pipe>> },
}

impl Default for Peer {
    fn default() -> Self {
        Self::new()
    }
}

impl Peer {
    /// A connection on which nothing was said yet.
    pub fn new() -> Self {
        Self {
            state: State::Http(Vec::new()),
            out: Vec::new(),
            sent: 0,
            upgrade_left: 0,
            ending: None,
            tally: Tally::default(),
        }
    }

    /// Bytes from the client. Nothing is read any more once the connection is [`ending`](Self::ending).
    pub fn received(&mut self, bytes: &[u8], rules: &mut impl Rules, utc: UtcMs) {
        if self.ending.is_some() {
            return;
        }
        match &mut self.state {
            State::Http(inbox) => {
                inbox.extend_from_slice(bytes);
                self.requests(rules, utc);
            }
            State::Open { socket, .. } => {
                socket.get_mut().rx.extend_from_slice(bytes);
                self.messages(rules, utc);
            }
        }
    }

    /// The client will send no more. What was asked before is still answered.
    pub fn eof(&mut self, rules: &mut impl Rules) {
        self.forget(rules);
        self.ending.get_or_insert(Ending::Close);
    }

    /// The whole exchange goes away.
    pub fn shut_down(&mut self, rules: &mut impl Rules) {
        self.forget(rules);
        if self.ending.is_none()
            && let State::Open { socket, .. } = &mut self.state
        {
            let _ = socket.close(Some(CloseFrame { code: CloseCode::Away, reason: "going away".into() }));
            self.collect();
        }
        self.ending.get_or_insert(Ending::Close);
    }

    /// Does what the exchange decided. Gives back the connection if its client is so far behind that it was cut, which
    /// the exchange has to be told.
    #[must_use]
    pub fn perform(&mut self, action: Action) -> Option<ConnId> {
        if self.ending.is_some() {
            return None;
        }
        let State::Open { conn, socket } = &mut self.state else {
            return None;
        };
        match action {
            Action::Text(text) => {
                self.tally.frames += 1;
                // Cannot fail: the pipe takes everything, and a closed socket has an ending.
                let _ = socket.write(Message::text(&*text));
            }
            Action::Ping(payload) => {
                let _ = socket.write(Message::Ping(payload.into_bytes().into()));
            }
            Action::Close { code, reason } => {
                *conn = None;
                let _ = socket.close(Some(CloseFrame { code: CloseCode::from(code), reason: reason.into() }));
                self.ending = Some(Ending::Close);
            }
            Action::Cut => {
                *conn = None;
                self.ending = Some(Ending::Cut);
            }
        }
        self.collect();
        self.bound()
    }

    /// Bytes for the client.
    pub fn transmit(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// The first `n` bytes of [`transmit`](Self::transmit) have left.
    pub fn transmitted(&mut self, n: usize) {
        self.sent = (self.sent + n).min(self.out.len());
        self.upgrade_left = self.upgrade_left.saturating_sub(n);
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent >= COMPACT_AT {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// The exchange's name for the WebSocket, while both sides hold it open.
    pub fn conn(&self) -> Option<ConnId> {
        match &self.state {
            State::Open { conn, .. } => *conn,
            State::Http(_) => None,
        }
    }

    /// How the connection is to be ended, once that is decided.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// How far the connection has come.
    pub fn stage(&self) -> Stage {
        match &self.state {
            State::Http(_) => Stage::Http,
            State::Open { .. } if self.upgrade_left > 0 => Stage::Upgrading(self.upgrade_left),
            State::Open { .. } => Stage::Open,
        }
    }

    /// What passed through this connection so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Tells the exchange, once, that the connection is over.
    fn forget(&mut self, rules: &mut impl Rules) {
        if let State::Open { conn, .. } = &mut self.state
            && let Some(conn) = conn.take()
        {
            rules.on_gone(conn);
        }
    }

    /// Moves what the WebSocket wrote behind what is queued.
    fn collect(&mut self) {
        if let State::Open { socket, .. } = &mut self.state {
            self.out.append(&mut socket.get_mut().tx);
        }
    }

    /// Cuts a client that does not read what it asked for, and gives back its connection if the exchange knows it.
    fn bound(&mut self) -> Option<ConnId> {
        if self.out.len() - self.sent <= OUT_MAX {
            return None;
        }
        self.tally.slow += 1;
        self.ending = Some(Ending::Cut);
        match &mut self.state {
            State::Open { conn, .. } => conn.take(),
            State::Http(_) => None,
        }
    }
}

/// A client with more than this unread is cut.
pub const OUT_MAX: usize = 8 * 1024 * 1024;
/// Sent bytes are dropped from the front of the queue in steps of this size.
const COMPACT_AT: usize = 256 * 1024;

#[cfg(test)]
pub(crate) mod tests;
