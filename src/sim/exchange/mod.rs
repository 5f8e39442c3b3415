//! The exchange as a whole: connections, their clocks and their ends. A pure state machine over virtual time.
//!
//! Upgrades are in `upgrade`, market data in [`push`] and `deliver`, control messages in [`control`], REST in [`rest`].

pub mod books;
pub mod candles;
pub mod control;
mod deliver;
pub mod faults;
pub mod fields;
pub mod halts;
pub mod info;
pub mod ledger;
pub mod number;
pub mod playback;
pub mod push;
pub mod request;
pub mod rest;
mod rules;
pub mod setup;
pub mod text;
pub mod tides;
mod upgrade;
pub mod venue;

pub use books::Books;
pub use faults::{Cure, Fault, FaultId, Harm};
pub use halts::Halt;
pub use ledger::Ledger;
pub use playback::RecordedFrame;
pub use setup::{Contract, ExchangeConfig, Limits, Listing, Source};
pub use venue::{Action, ConnId, Refusal, RestAnswer, RestRequest};

use crate::config::Market;
use crate::time::UtcMs;
use ledger::{ConnectionRecord, Violation};
use playback::Playback;
use push::{Channel, Watch};
use request::Root;
use rest::Weights;
use rules::{Mute, Rules};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::rc::Rc;
use tides::{Fill, Tide};

/// How a connection ends that sent too much. A penalty follows.
const TOO_MANY_REQUESTS: (u16, &str) = (1008, "Too many requests");

/// Something the exchange will do by itself. Entries that turn out to be moot are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The next taker order of a symbol.
    Order(usize),
    /// An aggregate of a symbol may be complete.
    Push(usize),
    /// A candle of a watched channel ends without a next one.
    Closing(usize),
    /// The marks of a second (its ms): all symbols, or those on metals and shares.
    Marks(i64, bool),
    /// A control reply of a connection.
    Reply(ConnId),
    /// The server's ping.
    Ping(ConnId),
    /// Is the pong there?
    Pong(ConnId),
    /// The end of a connection's life.
    End(ConnId),
    /// An end with this code and reason.
    Close(ConnId, u16, &'static str),
    /// Subscriptions of a connection fall silent.
    Silence(ConnId),
    /// The next recorded frame.
    Frame,
    /// The planned shutdown is announced, with this grace.
    Announce(i64),
    /// The announced shutdown: connections up to this one, which were told, are closed.
    Shutdown(u64),
}

/// A control reply on its way.
#[derive(Debug)]
struct Reply {
    due: i64,
    text: Rc<str>,
    /// And then this end.
    close: Option<(u16, &'static str)>,
}

/// One stream of a connection.
#[derive(Debug)]
struct Subscription {
    /// Counted as they were asked for.
    ordinal: u64,
    /// Silent, or going to be.
    mute: Option<Mute>,
}

/// One open connection.
#[derive(Debug)]
struct Conn {
    /// Counted as they were accepted, from 1.
    ordinal: u64,
    root: Root,
    combined: bool,
    /// By name as asked for.
    streams: BTreeMap<String, Subscription>,
    /// How many were asked for so far.
    subscribed: u64,
    replies: VecDeque<Reply>,
    /// Open pings: payload and when sent.
    pings: VecDeque<(String, i64)>,
}

/// The exchange. See the module.
#[derive(Debug)]
pub struct Exchange {
    config: ExchangeConfig,
    now: i64,
    due: BinaryHeap<Reverse<(i64, u64, Due)>>,
    sequence: u64,
    books: Books,
    tides: Vec<Tide>,
    watches: Vec<Watch>,
    channels: Vec<Channel>,
    by_stream: BTreeMap<String, usize>,
    conns: BTreeMap<ConnId, Conn>,
    actions: VecDeque<(ConnId, Action)>,
    ledger: Ledger,
    rules: Rules,
    /// Delays and jitter; never the market, which has generators of its own.
    rng: fastrand::Rng,
    playback: Option<Playback>,
    weights: Weights,
    attempts: VecDeque<i64>,
    /// Until when upgrades are refused, after somebody sent too much.
    penalty_until: i64,
    accepted: u64,
    /// Room for the fills of one order.
    fills: Vec<Fill>,
}

impl Exchange {
    /// An exchange that opens at `utc`, with the past of its warm-up.
    pub fn new(mut config: ExchangeConfig, utc: UtcMs) -> Self {
        let rules = Rules::new(std::mem::take(&mut config.faults));
        let mut exchange = Self {
            now: utc.0,
            due: BinaryHeap::new(),
            sequence: 0,
            books: Books::default(),
            tides: Vec::new(),
            watches: Vec::new(),
            channels: Vec::new(),
            by_stream: BTreeMap::new(),
            conns: BTreeMap::new(),
            actions: VecDeque::new(),
            ledger: Ledger::default(),
            rules,
            rng: fastrand::Rng::with_seed(tides::seed_of(config.seed, "delays")),
            playback: None,
            weights: Weights::default(),
            attempts: VecDeque::new(),
            penalty_until: i64::MIN,
            accepted: 0,
            fills: Vec::new(),
            config,
        };
        match std::mem::take(&mut exchange.config.source) {
            Source::Generated => exchange.start_market(utc.0),
            Source::Recorded { frames, speed, wait_for_subscriber } => {
                exchange.start_playback(frames, speed, wait_for_subscriber);
            }
        }
        if let Some((at, grace_ms)) = exchange.config.shutdown {
            exchange.at(at.0, Due::Announce(grace_ms));
        }
        exchange.advance(utc);
        exchange
    }

    /// A text message of a client; `wire_bytes` is its frame's size with header and mask.
    pub fn on_text(&mut self, conn: ConnId, text: &str, wire_bytes: usize, utc: UtcMs) {
        self.advance(utc);
        if self.conns.contains_key(&conn) && self.count(conn) {
            self.control(conn, text, wire_bytes);
        }
    }

    /// A ping of a client. The carrier answers it; it counts as a message.
    pub fn on_ping(&mut self, conn: ConnId, utc: UtcMs) {
        self.advance(utc);
        if self.conns.contains_key(&conn) && self.count(conn) {
            self.record(conn, |record| record.pings += 1);
        }
    }

    /// A pong of a client, which must repeat the payload of an open ping. It counts as a message.
    pub fn on_pong(&mut self, conn: ConnId, payload: &[u8], utc: UtcMs) {
        self.advance(utc);
        if !self.conns.contains_key(&conn) || !self.count(conn) {
            return;
        }
        let Some(open) = self.conns.get_mut(&conn) else { return };
        match open.pings.iter().position(|(sent, _)| sent.as_bytes() == payload) {
            Some(at) => {
                open.pings.drain(..=at);
                self.record(conn, |record| record.pongs += 1);
            }
            None => self.ledger.violation(UtcMs(self.now), Some(conn), Violation::BadPong),
        }
    }

    /// The connection ended, by whoever's hand.
    pub fn on_gone(&mut self, conn: ConnId) {
        self.forget(conn);
        self.actions.retain(|(id, _)| *id != conn);
    }

    /// When the exchange next does something by itself; `i64::MAX` if only a client can move it (a recording that waits,
    /// or is over).
    pub fn next_due(&self) -> UtcMs {
        self.due.peek().map_or(UtcMs(i64::MAX), |Reverse((at, ..))| UtcMs(*at))
    }

    /// Does everything that is due up to and including `utc`, in its order. Time never goes back.
    pub fn advance(&mut self, utc: UtcMs) {
        while let Some(Reverse((at, ..))) = self.due.peek() {
            if *at > utc.0 {
                break;
            }
            let Some(Reverse((at, _, due))) = self.due.pop() else { break };
            self.now = self.now.max(at);
            self.books.now = UtcMs(self.market_now());
            self.act(due);
        }
        self.now = self.now.max(utc.0);
        self.books.now = UtcMs(self.market_now());
    }

    /// What is to be done to which connection, in its order.
    pub fn poll_action(&mut self) -> Option<(ConnId, Action)> {
        self.actions.pop_front()
    }

    /// The books.
    pub fn truth(&self) -> &Books {
        &self.books
    }

    /// What clients did.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The exchange's clock.
    pub fn now(&self) -> UtcMs {
        UtcMs(self.now)
    }

    /// The configuration, without faults and recorded frames.
    pub fn config(&self) -> &ExchangeConfig {
        &self.config
    }

    /// Open connections.
    pub fn connections(&self) -> impl Iterator<Item = ConnId> {
        self.conns.keys().copied()
    }

    /// True when a recording has been played to its end. Never for a generated market.
    pub fn done(&self) -> bool {
        self.playback.as_ref().is_some_and(Playback::done)
    }

    /// Something goes wrong from now on.
    pub fn set_fault(&mut self, fault: Fault) -> FaultId {
        self.rules.add(fault)
    }

    /// It goes right again.
    pub fn clear_fault(&mut self, fault: FaultId) {
        self.rules.remove(fault);
    }

    /// Everything goes right again.
    pub fn clear_faults(&mut self) {
        self.rules.clear();
    }

    /// Changes the limits; open connections keep the timers they have.
    pub fn set_limits(&mut self, limits: Limits) {
        self.config.limits = limits;
    }

    /// Closes a connection with a close frame. Done by hand, it brings no penalty with it.
    pub fn close(&mut self, conn: ConnId, code: u16, reason: &'static str) {
        if self.forget(conn) {
            self.actions.push_back((conn, Action::Close { code, reason }));
        }
    }

    /// Cuts a connection without a word.
    pub fn cut(&mut self, conn: ConnId) {
        if self.forget(conn) {
            self.actions.push_back((conn, Action::Cut));
        }
    }

    /// Says `serverShutdown` on all connections, and closes them with 1001 after `grace_ms`. Connections that are made
    /// meanwhile meet another server.
    pub fn shut_down(&mut self, grace_ms: i64) {
        let bare = text::server_shutdown(UtcMs(self.now));
        let wrapped = text::combined("!serverShutdown", &bare);
        for (id, conn) in &self.conns {
            let text = if conn.combined { &wrapped } else { &bare };
            self.actions.push_back((*id, Action::Text(text.as_str().into())));
        }
        self.later(grace_ms, Due::Shutdown(self.accepted));
    }

    fn later(&mut self, after_ms: i64, due: Due) {
        self.at(self.now.saturating_add(after_ms), due);
    }

    fn at(&mut self, at: i64, due: Due) {
        self.sequence += 1;
        self.due.push(Reverse((at, self.sequence, due)));
    }

    fn act(&mut self, due: Due) {
        match due {
            Due::Order(symbol) => self.order(symbol),
            Due::Push(symbol) => self.push_trades(symbol),
            Due::Closing(channel) => self.close_candle(channel),
            Due::Marks(second, tradfi) => self.marks(second, tradfi),
            Due::Reply(conn) => self.send_replies(conn),
            Due::Ping(conn) => self.ping(conn),
            Due::Pong(conn) => self.miss_pong(conn),
            Due::End(conn) if self.config.end_by_cut => self.cut(conn),
            Due::End(conn) => self.close(conn, 1001, ""),
            Due::Close(conn, code, reason) => self.close_and_punish(conn, code, reason),
            Due::Silence(conn) => self.fall_silent(conn),
            Due::Frame => self.play(),
            Due::Announce(grace_ms) => self.shut_down(grace_ms),
            Due::Shutdown(last) => {
                let told = self.conns.iter().filter(|(_, conn)| conn.ordinal <= last);
                for conn in told.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.close(conn, 1001, "");
                }
            }
        }
    }

    /// Closes a connection; if it is for too many requests, upgrades are refused for a while.
    fn close_and_punish(&mut self, conn: ConnId, code: u16, reason: &'static str) {
        if (code, reason) == TOO_MANY_REQUESTS && self.conns.contains_key(&conn) {
            self.penalty_until = self.now.saturating_add(self.config.limits.penalty_ms);
        }
        self.close(conn, code, reason);
    }

    fn ping(&mut self, conn: ConnId) {
        let payload = self.now.to_string();
        let Some(open) = self.conns.get_mut(&conn) else { return };
        open.pings.push_back((payload.clone(), self.now));
        self.actions.push_back((conn, Action::Ping(payload)));
        self.later(self.config.limits.pong_within_ms, Due::Pong(conn));
        self.later(self.config.limits.ping_every_ms, Due::Ping(conn));
    }

    fn miss_pong(&mut self, conn: ConnId) {
        let late = |(_, sent): &(String, i64)| *sent + self.config.limits.pong_within_ms <= self.now;
        if self.conns.get(&conn).is_some_and(|open| open.pings.front().is_some_and(late)) {
            self.ledger.violation(UtcMs(self.now), Some(conn), Violation::NoPong);
            self.cut(conn);
        }
    }

    /// Counts a client frame. False if it was one too many: then the connection is closed.
    fn count(&mut self, conn: ConnId) -> bool {
        let now = UtcMs(self.now);
        let within = self.ledger.connections.get_mut(&conn).map_or(0, |record| record.count(now));
        if within <= self.config.limits.messages_per_s {
            return true;
        }
        self.ledger.violation(now, Some(conn), Violation::TooManyMessages);
        let (code, reason) = TOO_MANY_REQUESTS;
        self.close_and_punish(conn, code, reason);
        false
    }

    fn record(&mut self, conn: ConnId, change: impl FnOnce(&mut ConnectionRecord)) {
        if let Some(record) = self.ledger.connections.get_mut(&conn) {
            change(record);
        }
    }

    /// Drops a connection with its subscriptions. False if there was none.
    fn forget(&mut self, conn: ConnId) -> bool {
        let Some(gone) = self.conns.remove(&conn) else { return false };
        for stream in gone.streams.keys() {
            self.unlisten(conn, stream);
        }
        let now = UtcMs(self.now);
        self.record(conn, |record| record.ended = Some(now));
        true
    }

    /// True on spot: no roots, no aggregation window, no marks.
    fn spot(&self) -> bool {
        self.config.market == Market::Spot
    }
}
