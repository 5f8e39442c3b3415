//! The life of one connection: Backoff → Resolving → Dialing → Securing → Upgrading → Open → Closing, and round again.
//!
//! Every state carries the instant at which it gives up, so [`Session::deadline`] is total: there is no way to wait
//! without an end. A session never stops trying on its own; only [`Session::stop`] ends it.
//!
//! ```text
//!              ┌──────────────────────────── any failure, with stage, reason, elapsed ─────────────────────────┐
//!              ▼                                                                                                │
//!   start ► Resolving ──► Dialing (address by address) ──► Securing ──► Upgrading ──► Open ──► (Closing) ──► Backoff
//!              ▲             └ deadlines.tcp, all ┘      deadlines.tls  .upgrade    ping_after, pong            │
//!              └────────────────────────────────── after the pause ─────────────────────────────────────────────┘
//! ```

mod place;
mod state;
mod transitions;

pub use state::State;
pub(crate) use transitions::authority;

use super::ending::{Ending, Stage};
use super::link::{Broken, Incoming, Link, Progress};
use crate::config::{Backoff, Deadlines};
use crate::time::{Instant, Span};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use transitions::{in_order, server_name};

/// Between two messages of ours, pings and pongs included: four a second, evenly, and a little more, so that a path whose
/// delay varies does not deliver five in a second. The venue's strictest limit is five in any second.
const MESSAGE_EVERY: Span = Span::from_ms(260);
/// Bytes waiting for a peer that does not read.
const BACKLOG_BYTES_MAX: usize = 64 * 1024;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// How long a closing handshake may take.
const CLOSE_WITHIN: Span = Span::from_secs(1);

/// What a session connects to, and how patiently.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name or literal address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS, unless the connection is plain (loopback only).
    pub tls: Option<Arc<ClientConfig>>,
    /// Path and query of the upgrade request.
    pub target: String,
    /// Per stage.
    pub deadlines: Deadlines,
    /// Between attempts.
    pub backoff: Backoff,
    /// Longest message accepted.
    pub message_bytes_max: usize,
}

/// What the session wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Look up the host.
    Resolve,
    /// Connect a new socket, in place of any other of this session.
    Dial(SocketAddr),
    /// Write what [`Session::transmit`] still holds if that is possible at once, and close the socket.
    Hangup,
}

/// What the session has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The connection is open: messages may flow. Proves nothing about data.
    Open,
    /// The resolver failed; addresses that worked before are tried instead.
    Remembered(String),
    /// A message.
    Message(Incoming),
    /// The attempt or the connection is over.
    Ended(Ending),
}

/// A message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendRefused {
    /// There is no open connection.
    NotOpen,
    /// The venue's message limit would be exceeded; see [`Session::may_send_at`].
    OverBudget,
}

/// One connection's slot, and the attempts that serve it one after another.
pub struct Session {
    settings: Settings,
    state: State,
    epoch: u64,
    attempt: u32,
    opened: u64,
    failed: u64,
    bytes: u64,
    /// `bytes` when this attempt began.
    bytes_before: u64,
    stage_since: Instant,
    /// Bound on the sum of the connect stages of this attempt.
    connect_until: Instant,
    addresses: Vec<SocketAddr>,
    /// The address in use, or tried last: an index into `addresses`.
    address: usize,
    last_good: Option<SocketAddr>,
    /// Dialled last, because another connection for the same streams uses it.
    avoided: Option<SocketAddr>,
    link: Option<Link>,
    farewell: Vec<u8>,
    last_byte: Instant,
    pinged: Option<Instant>,
    /// When the next message of ours may go out.
    may_send_at: Instant,
    /// Messages of ours since the last byte.
    unheard: u32,
    /// Asked to stay away until then.
    hold_until: Instant,
    requests: VecDeque<Request>,
    events: VecDeque<SessionEvent>,
    rng: fastrand::Rng,
}

impl Session {
    /// A session that begins its first attempt when its deadline, which is `now`, comes.
    pub fn new(settings: Settings, seed: u64, now: Instant) -> Self {
        Self {
            settings,
            state: State::Backoff { until: now },
            epoch: 0,
            attempt: 0,
            opened: 0,
            failed: 0,
            bytes: 0,
            bytes_before: 0,
            stage_since: now,
            connect_until: Instant::FAR,
            addresses: Vec::new(),
            address: 0,
            last_good: None,
            avoided: None,
            link: None,
            farewell: Vec::new(),
            last_byte: now,
            pinged: None,
            may_send_at: Instant::ZERO,
            unheard: 0,
            hold_until: Instant::ZERO,
            requests: VecDeque::new(),
            events: VecDeque::new(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    // ---- what others may ask

    /// Where the session is.
    pub fn state(&self) -> State {
        self.state
    }
    /// What it connects to.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
    /// Attempts begun.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
    /// Tries since the last data.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
    /// Attempts that reached open.
    pub fn opened(&self) -> u64 {
        self.opened
    }
    /// Attempts that ended before they were open.
    pub fn failed(&self) -> u64 {
        self.failed
    }
    /// Bytes received, TLS included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    /// True while messages may flow.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }
    /// True after [`stop`](Self::stop) has run its course.
    pub fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }
    /// When the last byte came; meaningful while open.
    pub fn last_byte(&self) -> Instant {
        self.last_byte
    }
    /// When the present state was entered.
    pub fn since(&self) -> Instant {
        self.stage_since
    }
    /// The address in use or tried last.
    pub fn address(&self) -> Option<SocketAddr> {
        self.addresses.get(self.address).copied()
    }

    /// When the session wants to be woken. There always is such a time.
    pub fn deadline(&self) -> Instant {
        match self.state {
            State::Backoff { until }
            | State::Resolving { until }
            | State::Securing { until }
            | State::Upgrading { until }
            | State::Closing { until } => until,
            State::Dialing { until, address_until } => until.min(address_until),
            State::Open => {
                let silence = match self.pinged {
                    Some(at) => at + self.settings.deadlines.pong,
                    None => self.last_byte + self.settings.deadlines.ping_after,
                };
                let pong = match &self.link {
                    Some(link) if link.has_pong() => self.may_send_at(),
                    _ => Instant::FAR,
                };
                // A ping that the budget does not allow yet waits for it.
                let silence = if self.pinged.is_none() { silence.max(self.may_send_at()) } else { silence };
                silence.min(pong)
            }
            State::Stopped => Instant::FAR,
        }
    }

    // ---- what happens to it

    /// Time has passed: whatever is due is done. Spurious calls are free.
    pub fn handle_timeout(&mut self, now: Instant) {
        while self.deadline() <= now {
            match self.state {
                State::Backoff { .. } => self.begin(now),
                State::Resolving { .. } if !self.addresses.is_empty() => {
                    self.fall_back("no answer from the resolver".into(), now);
                }
                State::Resolving { .. } => self.give_up(Stage::Resolve, "no answer from the resolver", now),
                State::Dialing { until, .. } if until > now && self.address + 1 < self.addresses.len() => {
                    self.dial(self.address + 1, until, now);
                }
                State::Dialing { .. } => self.give_up(Stage::Tcp, &self.tcp_words("no answer"), now),
                State::Securing { .. } => {
                    let words = match self.bytes_of_attempt() {
                        0 => "no answer to our hello".to_owned(),
                        n => format!("stalled after {n} bytes"),
                    };
                    self.give_up(Stage::Tls, &words, now);
                }
                State::Upgrading { .. } => self.give_up(Stage::Upgrade, "no complete answer to the upgrade", now),
                State::Open => self.open_timeout(now),
                State::Closing { .. } => self.end(Stage::Close, "closed by us, unanswered".into(), None, now),
                State::Stopped => return,
            }
        }
    }

    fn open_timeout(&mut self, now: Instant) {
        if self.pong_due(now) {
            self.release_pong(now);
            return;
        }
        match self.pinged {
            Some(_) => {
                let words = format!("no byte for {}, our ping unanswered", now.since(self.last_byte));
                self.give_up(Stage::Pong, &words, now);
            }
            None => {
                self.count_message(now);
                self.pinged = Some(now);
                if let Some(link) = &mut self.link
                    && let Err(broken) = link.send_ping()
                {
                    self.broken(Stage::Read, broken, now);
                }
            }
        }
    }

    /// The resolver's answer. One that comes after its deadline is kept for the next attempt.
    pub fn handle_resolved(&mut self, result: Result<&[SocketAddr], &str>, now: Instant) {
        if let (State::Backoff { .. }, Ok(addresses)) = (self.state, result)
            && !addresses.is_empty()
        {
            (self.addresses, self.address) = (in_order(addresses, self.last_good, self.avoided), 0);
        }
        if !matches!(self.state, State::Resolving { .. }) {
            return;
        }
        match result {
            Ok(addresses) if !addresses.is_empty() => {
                self.addresses = in_order(addresses, self.last_good, self.avoided);
                self.dial_all(now);
            }
            Ok(_) => self.unresolved("the name has no address".into(), now),
            Err(words) => self.unresolved(super::ending::escaped(words, 160), now),
        }
    }

    fn unresolved(&mut self, words: String, now: Instant) {
        if self.addresses.is_empty() { self.give_up(Stage::Resolve, &words, now) } else { self.fall_back(words, now) }
    }

    /// Addresses that worked before are better than none; TLS verifies the name either way.
    fn fall_back(&mut self, words: String, now: Instant) {
        self.events.push_back(SessionEvent::Remembered(words));
        self.addresses = in_order(&self.addresses, self.last_good, self.avoided);
        self.dial_all(now);
    }

    /// The socket is connected.
    pub fn handle_connected(&mut self, now: Instant) {
        if !matches!(self.state, State::Dialing { .. }) {
            return;
        }
        let tls = match &self.settings.tls {
            None => None,
            Some(config) => match server_name(&self.settings.host) {
                Ok(name) => Some((config.clone(), name)),
                Err(words) => return self.give_up(Stage::Tls, &words, now),
            },
        };
        self.enter(State::Securing { until: self.bounded(now, self.settings.deadlines.tls) }, now);
        match Link::new(tls, self.settings.message_bytes_max) {
            Ok(link) => {
                self.link = Some(link);
                self.advance(now);
            }
            Err(broken) => self.broken(Stage::Tls, broken, now),
        }
    }

    /// Where the socket's bytes go. Empty while there is no socket to read.
    pub fn receive_buffer(&mut self) -> &mut [u8] {
        match &mut self.link {
            Some(link) => link.buffer(),
            None => &mut [],
        }
    }

    /// So many bytes were put into the buffer. Messages in them are taken with [`poll_event`](Self::poll_event).
    pub fn handle_received(&mut self, n: usize, now: Instant) {
        let Some(link) = &mut self.link else { return };
        link.received(n);
        self.bytes += n as u64;
        self.last_byte = now;
        self.pinged = None;
        if self.unheard > 1 {
            // A path that hesitated may be delivering them all at this moment: what follows counts from here.
            self.may_send_at = self.may_send_at.max(now + MESSAGE_EVERY.times(u64::from(self.unheard) - 1));
        }
        self.unheard = 0;
        if !matches!(self.state, State::Open | State::Closing { .. }) {
            self.advance(now);
        }
    }

    fn advance(&mut self, now: Instant) {
        let Some(link) = &mut self.link else { return };
        let authority = authority(&self.settings.host, self.settings.port, self.settings.tls.is_some());
        match link.advance(&authority, &self.settings.target) {
            Ok(Progress::Securing) => {}
            Ok(Progress::Upgrading) => self.enter_upgrading(now),
            Ok(Progress::Open) => {
                self.enter_upgrading(now);
                self.enter(State::Open, now);
                self.opened += 1;
                self.last_byte = now;
                self.last_good = self.address();
                self.events.push_back(SessionEvent::Open);
            }
            Err(broken) => {
                let stage = if broken.reason.starts_with("TLS") || broken.reason == "peer closed TLS" {
                    Stage::Tls
                } else {
                    Stage::Upgrade
                };
                self.broken(stage, broken, now);
            }
        }
    }

    fn enter_upgrading(&mut self, now: Instant) {
        if matches!(self.state, State::Securing { .. }) {
            self.enter(State::Upgrading { until: self.bounded(now, self.settings.deadlines.upgrade) }, now);
        }
    }

    /// The peer will send no more, or the socket failed.
    pub fn handle_socket_end(&mut self, failure: Option<io::ErrorKind>, now: Instant) {
        let words = match failure {
            None => "peer ended the connection".to_owned(),
            Some(kind) => kind.to_string(),
        };
        match self.state {
            State::Dialing { until, .. } if self.address + 1 < self.addresses.len() && until > now => {
                self.dial(self.address + 1, until, now);
            }
            State::Dialing { .. } => self.give_up(Stage::Tcp, &self.tcp_words(&words), now),
            State::Securing { .. } => self.give_up(Stage::Tls, &words, now),
            State::Upgrading { .. } => self.give_up(Stage::Upgrade, &words, now),
            State::Open => self.give_up(Stage::Read, &format!("{words} without a close frame"), now),
            State::Closing { .. } => self.end(Stage::Close, "closed by us".into(), None, now),
            State::Backoff { .. } | State::Resolving { .. } | State::Stopped => {}
        }
    }

    /// The next thing to tell. Messages are read here, one by one, so nothing is queued.
    pub fn poll_event(&mut self, now: Instant) -> Option<SessionEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if !matches!(self.state, State::Open | State::Closing { .. }) {
            return None;
        }
        let incoming = match self.link.as_mut()?.read() {
            Ok(Some(incoming)) => incoming,
            Ok(None) => {
                if self.pong_due(now) {
                    self.release_pong(now);
                    return self.events.pop_front();
                }
                return None;
            }
            Err(broken) => {
                self.broken(Stage::Read, broken, now);
                return self.events.pop_front();
            }
        };
        if let Incoming::Closed(frame) = incoming {
            let (code, words) = match frame {
                Some((code, words)) => (Some(code), words),
                None => (None, String::new()),
            };
            let by_us = matches!(self.state, State::Closing { .. });
            let mut reason = if by_us { "closed by us" } else { "peer closed" }.to_owned();
            if !by_us {
                match code {
                    Some(code) => write!(reason, " with code {code}").ok(),
                    None => write!(reason, " without a code").ok(),
                };
                if !words.is_empty() {
                    write!(reason, ": {words}").ok();
                }
            }
            self.end(Stage::Close, reason, code, now);
            return self.events.pop_front();
        }
        Some(SessionEvent::Message(incoming))
    }

    /// The next thing to do.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// Bytes for the socket.
    pub fn transmit(&self) -> &[u8] {
        match &self.link {
            Some(link) => link.transmit(),
            None => &self.farewell,
        }
    }

    /// So many of them were taken. What is left of a goodbye is dropped: it is written at once or never.
    pub fn transmitted(&mut self, n: usize) {
        match &mut self.link {
            Some(link) => link.transmitted(n),
            // The socket is closed whatever it took: what it did not take at once is not kept.
            None => self.farewell.clear(),
        }
    }

    // ---- what its owner does with it

    /// When the next message may be sent; in the past if it may be sent now.
    pub fn may_send_at(&self) -> Instant {
        self.may_send_at
    }

    /// Sends a text message within the venue's limits.
    ///
    /// # Errors
    /// [`SendRefused`]; nothing was sent and nothing is remembered.
    pub fn send(&mut self, text: &str, now: Instant) -> Result<(), SendRefused> {
        if !self.is_open() {
            return Err(SendRefused::NotOpen);
        }
        if self.pong_due(now) {
            self.release_pong(now);
        }
        if self.may_send_at() > now {
            return Err(SendRefused::OverBudget);
        }
        self.count_message(now);
        let Some(link) = &mut self.link else { return Err(SendRefused::NotOpen) };
        match link.send_text(text) {
            Ok(()) if link.transmit().len() > BACKLOG_BYTES_MAX => {
                self.give_up(Stage::Read, "peer does not read", now);
                Err(SendRefused::NotOpen)
            }
            Ok(()) => Ok(()),
            Err(broken) => {
                self.broken(Stage::Read, broken, now);
                Err(SendRefused::NotOpen)
            }
        }
    }

    /// The connection delivered what it was opened for: the next failure starts counting anew.
    pub fn proved(&mut self) {
        self.attempt = 0;
    }

    /// Ends an open connection because of what its owner sees, and tries anew after the pause.
    pub fn abandon(&mut self, stage: Stage, reason: &str, elapsed: Span, now: Instant) {
        if self.is_open() {
            if let Some(link) = &mut self.link {
                link.close(1000);
            }
            self.stage_since = now - elapsed;
            self.give_up(stage, reason, now);
        }
    }

    /// Stays away from the peer until then. An attempt that has not asked for the upgrade yet is given up: its request
    /// would reach a peer that wants none. One that has asked takes its answer.
    pub fn hold(&mut self, until: Instant, now: Instant) {
        self.hold_until = self.hold_until.max(until);
        let stage = match &mut self.state {
            State::Backoff { until } => {
                *until = (*until).max(self.hold_until);
                return;
            }
            State::Resolving { .. } => Stage::Resolve,
            State::Dialing { .. } => Stage::Tcp,
            State::Securing { .. } => Stage::Tls,
            State::Upgrading { .. } | State::Open | State::Closing { .. } | State::Stopped => return,
        };
        self.end(stage, "put off: the venue asked this host to stay away".into(), None, now);
    }

    /// Ends for good: an open connection says goodbye first.
    pub fn stop(&mut self, now: Instant) {
        match self.state {
            State::Open => {
                if let Some(link) = &mut self.link {
                    link.close(1000);
                }
                self.enter(State::Closing { until: now + CLOSE_WITHIN }, now);
            }
            State::Closing { .. } | State::Stopped => {}
            State::Backoff { .. } | State::Resolving { .. } => self.enter(State::Stopped, now),
            State::Dialing { .. } | State::Securing { .. } | State::Upgrading { .. } => {
                self.hang_up();
                self.enter(State::Stopped, now);
            }
        }
    }
}

#[cfg(test)]
mod tests;
