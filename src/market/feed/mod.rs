//! Streams over connections: asked for, acknowledged, and live only when their own data has come.
//!
//! One connection carries many streams. Each stream is proved, or fails, by itself; when none of a connection's streams
//! delivers, the connection is replaced. Nothing here waits: every step has a deadline and another place to go.
//!
//! Not here yet, and where it will be: staleness of single streams and the ladder that heals them (beside
//! [`judge`](self)), rotation and legs (a second [`Connection`] of the same name).

mod ask;
mod budget;
mod connection;
mod data;
mod judge;
mod life;
mod stream;

pub use connection::Connection;
pub use stream::{Stream, StreamState};

use super::layout::{self, SUBSCRIBE_BYTES_MAX, SUBSCRIBE_NAMES_MAX};
use super::tape::{Source, TapeEvent};
use super::{Applied, Market};
use crate::config::{Config, SubscribeBy};
use crate::net::{self, Ending, Incoming, Session, SessionEvent, Settings, Stage, State};
use crate::note::{Note, Notes};
use crate::time::{Instant, Now, Span};
use crate::wire::market::{self as wire, Decoded, Decoder, Reject, RejectKind, Reply};
use crate::wire::{Frame, Interval, StreamKind, Symbols};
use budget::ConnectBudget;
use connection::PendingAsk;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;

/// Longest message that is read; real ones are below 200 KiB.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Slots of a symbol in the table of streams: trades, mark price, one per interval.
const SLOTS: usize = 2 + Interval::ALL.len();
const NONE: u32 = u32::MAX;

/// Bugs put in on purpose, to show that the simulation finds them. All off outside its tests.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Canary {
    /// The upgrade has no deadline.
    pub deadline_not_armed: bool,
    /// An acknowledgement makes a stream live.
    pub ack_is_proof: bool,
    /// Streams stay live over a reconnect.
    pub old_epoch_counts: bool,
}

/// What the parts of one call share.
pub(crate) struct Context<'a> {
    pub(crate) now: Now,
    pub(crate) market: &'a mut Market,
    pub(crate) notes: &'a mut Notes,
}

impl Context<'_> {
    fn note(&mut self, note: Note) {
        self.notes.push(self.now.mono, self.now.utc(), note);
    }
}

/// All connections of the market streams.
pub struct Feed {
    connections: Vec<Connection>,
    streams: Vec<Stream>,
    /// Index of the stream of a symbol and kind, [`SLOTS`] a symbol.
    slots: Vec<u32>,
    /// Streams of a symbol that are acknowledged and have no data: whoever has data tells them.
    waiting: Vec<u8>,
    /// When a trade, or a candle pushed because of one, last came, by symbol.
    traded_at: Vec<Instant>,
    decoder: Decoder,
    budget: ConnectBudget,
    deadlines: crate::config::Deadlines,
    backoff: crate::config::Backoff,
    by: SubscribeBy,
    rng: fastrand::Rng,
    canary: Canary,
    /// Not before this does any connection have to be looked at.
    wake: Instant,
}

impl Feed {
    /// Lays the configured streams out over connections, which begin to connect at once.
    pub fn new(
        config: &Config,
        tls: Option<Arc<rustls::ClientConfig>>,
        symbols: &Symbols,
        seed: u64,
        canary: Canary,
        now: Instant,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut feed = Self {
            connections: Vec::new(),
            streams: Vec::new(),
            slots: vec![NONE; symbols.len() * SLOTS],
            waiting: vec![0; symbols.len()],
            traded_at: vec![Instant::ZERO; symbols.len()],
            decoder: Decoder::default(),
            budget: ConnectBudget::default(),
            deadlines: config.deadlines.clone(),
            backoff: config.backoff,
            by: config.streams.subscribe_by,
            rng: rng.fork(),
            canary,
            wake: now,
        };
        let base = &config.exchange.market_ws;
        for (index, group) in layout::lay_out(config, symbols).into_iter().enumerate() {
            let target = layout::target(config, &group);
            let mut deadlines = config.deadlines.clone();
            if canary.deadline_not_armed {
                (deadlines.upgrade, deadlines.connect) = (Span::MAX, Span::MAX);
            }
            let settings = Settings {
                host: base.host.clone(),
                port: base.port,
                tls: tls.clone().filter(|_| base.is_tls()),
                target: target.clone(),
                deadlines,
                backoff: config.backoff,
                message_bytes_max: MESSAGE_BYTES_MAX,
            };
            let session = Session::new(settings, rng.u64(..), now);
            let first = feed.streams.len();
            for wanted in group {
                let at = feed.streams.len();
                feed.slots[wanted.symbol.index() * SLOTS + slot(wanted.kind)] = at as u32;
                feed.streams.push(Stream::new(wanted.symbol, wanted.kind, wanted.name.into(), index));
            }
            let short = target.split_once("?streams=").map_or(target.as_str(), |(path, _)| path);
            let url = format!("{}://{}{short}", base.scheme, base.authority());
            let name = format!("market-{index}");
            let streams = (first..feed.streams.len()).collect();
            feed.connections.push(Connection::new(name.into(), url.into(), session, streams, now));
        }
        feed
    }

    /// One row per connection.
    pub fn connections(&self) -> &[Connection] {
        &self.connections
    }

    /// One row per stream.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// The reader of messages, for its counters.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// When something may have to be done.
    pub fn deadline(&self) -> Instant {
        self.wake
    }

    /// The session in a slot.
    pub(crate) fn session_mut(&mut self, connection: usize) -> Option<&mut Session> {
        self.connections.get_mut(connection).map(|connection| &mut connection.session)
    }

    /// Asks all connections to say goodbye.
    pub(crate) fn stop(&mut self, ctx: &mut Context<'_>) {
        for index in 0..self.connections.len() {
            self.connections[index].session.stop(ctx.now.mono);
            self.connections[index].to_ask.clear();
            self.settle(index, ctx);
        }
    }

    /// True when every connection has ended for good.
    pub fn is_stopped(&self) -> bool {
        self.connections.iter().all(|connection| connection.session.is_stopped())
    }

    // ---- time

    /// Does whatever is due.
    pub(crate) fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        if self.wake > ctx.now.mono {
            return;
        }
        for index in 0..self.connections.len() {
            if self.connections[index].wake <= ctx.now.mono {
                self.connection_timeout(index, ctx);
            }
        }
        self.wake = self.connections.iter().map(|connection| connection.wake).min().unwrap_or(Instant::FAR);
    }

    fn connection_timeout(&mut self, index: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let connection = &mut self.connections[index];
        let before = connection.session.epoch();
        if let State::Backoff { until } = connection.session.state()
            && until <= now
        {
            match self.budget.permit(before > 0, now) {
                Ok(()) => {
                    connection.attempt_began = now;
                    let attempt = connection.session.attempt() + 1;
                    let (name, url) = (connection.name.clone(), connection.url.clone());
                    // An outage is told once; its attempts are in the books.
                    if !connection.in_outage {
                        self.say(index, Note::Attempt { connection: name, attempt, url }, ctx);
                    }
                }
                Err(at) => connection.session.postpone(at),
            }
        }
        self.connections[index].session.handle_timeout(now);
        self.drain(index, ctx);
        self.judge(index, ctx);
        for kind in 0..RejectKind::ALL.len() {
            if self.connections[index].refusals[kind].due() <= now {
                self.tell_refusals(index, kind, ctx);
            }
        }
        let connection = &mut self.connections[index];
        if connection.voice.due() <= now
            && let Some((count, newest)) = connection.voice.sum(now)
        {
            ctx.note(Note::Held { connection: connection.name.clone(), count, newest });
        }
        self.settle(index, ctx);
        self.rearm(index);
    }

    /// Sends what may be sent, and makes sure that the next deadline wakes us.
    fn settle(&mut self, index: usize, ctx: &mut Context<'_>) {
        self.ask(index, ctx);
        let connection = &mut self.connections[index];
        connection.wake = connection.wake.min(connection.session.deadline()).min(connection.sums_due());
        self.wake = self.wake.min(connection.wake);
    }

    fn arm(&mut self, index: usize, at: Instant) {
        let connection = &mut self.connections[index];
        connection.wake = connection.wake.min(at);
        self.wake = self.wake.min(at);
    }

    /// The exact next deadline of a connection: after it woke, never per frame.
    fn rearm(&mut self, index: usize) {
        let connection = &self.connections[index];
        let mut wake = connection.session.deadline().min(connection.sums_due());
        if connection.session.is_open() {
            let waiting = !connection.to_ask.is_empty() || !connection.to_drop.is_empty();
            if waiting && connection.may_ask() {
                wake = wake.min(connection.session.may_send_at());
            }
            wake = connection.pending.iter().map(|ask| ask.until).fold(wake, Instant::min);
            wake = wake.min(self.all_silent_at(index));
            let streams = connection.streams.iter();
            wake = streams.map(|at| self.streams[*at].state.deadline()).fold(wake, Instant::min);
        }
        self.connections[index].wake = wake;
    }

    /// Says something about one connection, unless it has said too much lately.
    fn say(&mut self, index: usize, note: Note, ctx: &mut Context<'_>) {
        if self.connections[index].voice.admit(|| note.to_string(), ctx.now.mono) {
            ctx.note(note);
        }
    }

    // ---- what a connection tells

    /// Bytes were put into the session's buffer.
    pub(crate) fn handle_received(&mut self, index: usize, n: usize, ctx: &mut Context<'_>) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        connection.session.handle_received(n, ctx.now.mono);
        self.drain(index, ctx);
        self.settle(index, ctx);
    }

    /// The session was told something else than bytes.
    pub(crate) fn handled(&mut self, index: usize, ctx: &mut Context<'_>) {
        self.drain(index, ctx);
        self.settle(index, ctx);
    }

    fn drain(&mut self, index: usize, ctx: &mut Context<'_>) {
        while let Some(event) = self.connections[index].session.poll_event(ctx.now.mono) {
            match event {
                SessionEvent::Message(Incoming::Text(text)) => self.on_text(index, text.as_str(), ctx),
                SessionEvent::Message(Incoming::Binary(bytes)) => {
                    self.connections[index].frames += 1;
                    let reject = Reject { kind: RejectKind::Binary, field: None };
                    self.refuse(index, reject, || format!("{bytes} bytes"), ctx);
                }
                SessionEvent::Message(Incoming::Control | Incoming::Closed(_)) => {}
                SessionEvent::Open => self.on_open(index, ctx),
                SessionEvent::Remembered(reason) => {
                    let connection = self.connections[index].name.clone();
                    ctx.note(Note::Remembered { connection, reason });
                }
                SessionEvent::Ended(ending) => self.on_ended(index, ending, ctx),
            }
        }
    }

    /// Why streams fail says which path they were asked for on; the wrong one is acknowledged and silent.
    fn path(&self, index: usize) -> &str {
        let target = &self.connections[index].session.settings().target;
        target.split_once('?').map_or(target, |(path, _)| path)
    }
}

/// Where a kind of stream is in a symbol's part of the table.
fn slot(kind: StreamKind) -> usize {
    match kind {
        StreamKind::AggTrade => 0,
        StreamKind::MarkPrice => 1,
        StreamKind::Kline(interval) => 2 + interval as usize,
    }
}

/// The extra-root and web-root TLS configuration a feed of this configuration needs, if it needs any.
///
/// # Errors
/// See [`net::client_config`].
pub fn tls_for(config: &Config) -> Result<Option<Arc<rustls::ClientConfig>>, net::TlsError> {
    if !config.exchange.market_ws.is_tls() {
        return Ok(None);
    }
    net::client_config(config.exchange.ca_pem.as_deref()).map(Some)
}
