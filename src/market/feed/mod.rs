//! Streams over connections: asked for, acknowledged, and live only when their own data has come.
//!
//! Streams are laid out in groups. A group has one connection that serves it, two with two legs, and for a while a
//! successor that proves itself before it takes over. Each stream is proved, found silent, or fails, by itself and on
//! each connection; what heals it is the weakest step that works. Nothing here waits: every step has a deadline and
//! another place to go.
//!
//! | file | what it does |
//! |---|---|
//! | [`stream`] | a stream and its runs: one per connection that carries it |
//! | [`ask`] | requests within the venue's limits, and their answers |
//! | [`data`] | messages: whose they are and what they prove |
//! | [`judge`], [`evidence`], [`clock`] | silence: whose fault it is |
//! | [`ladder`] | what is done about it, step by step |
//! | [`succession`] | a connection is replaced by one that has proved itself |
//! | [`questions`] | what only REST can tell or bring |
//! | [`race`] | two legs: who was first |
//! | [`books`] | what became of it all, for reports |
//! | [`universe`] | symbols come and go |

mod ask;
mod books;
mod budget;
mod clock;
mod connection;
mod data;
mod evidence;
mod judge;
mod ladder;
mod life;
mod questions;
mod race;
mod seats;
mod stream;
mod succession;
mod universe;
mod voice;

pub use books::{Books, Successions};
pub use connection::{Connection, Purpose, Role};
pub use ladder::Rung;
pub(crate) use questions::Question;
pub use race::LegBooks;
pub use stream::{Run, Stream, StreamState};

use super::layout::{self, SUBSCRIBE_BYTES_MAX, SUBSCRIBE_NAMES_MAX};
use super::tape::{Hole, Source, TapeEvent};
use super::{Applied, Market};
use crate::config::{Config, Rotation, SubscribeBy, Url};
use crate::net::{self, Ending, Incoming, Session, SessionEvent, Settings, Stage, State};
use crate::note::{Note, Notes};
use crate::time::{Instant, Now, Span, UtcMs};
use crate::wire::market::{self as wire, Decoded, Decoder, Reject, RejectKind, Reply};
use crate::wire::{Frame, Interval, StreamKind, SymbolId, Symbols};
use budget::ConnectBudget;
use clock::VenueClock;
use connection::PendingAsk;
use evidence::Traded;
use questions::Questions;
use seats::Group;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;

/// Longest message that is read; real ones are below 200 KiB.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Slots of a symbol in the table of streams: trades, mark price, one per interval.
const SLOTS: usize = 2 + Interval::ALL.len();
const NONE: u32 = u32::MAX;
/// Rounds over the connections in one turn; two or three happen.
const PASSES_MAX: usize = 16;

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
    /// A successor takes over as soon as its streams are acknowledged.
    pub takes_over_unproved: bool,
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
    /// By slot. A slot outlives the connections that use it one after another.
    connections: Vec<Connection>,
    streams: Vec<Stream>,
    groups: Vec<Group>,
    /// Index of the stream of a symbol and kind, [`SLOTS`] a symbol.
    slots: Vec<u32>,
    /// Runs of a symbol that are acknowledged and have no data: whoever has data tells them.
    waiting: Vec<u16>,
    /// When trades were last told of, by symbol.
    traded: Vec<Traded>,
    clock: VenueClock,
    questions: Questions,
    has_rest: bool,
    market: crate::wire::Market,
    /// Holes that another connection may be about to fill, and when they are told if it does not.
    holes: VecDeque<(Instant, SymbolId, Hole)>,
    decoder: Decoder,
    budget: ConnectBudget,
    /// The slot whose turn to connect is next.
    turn: usize,
    base: Url,
    tls: Option<Arc<rustls::ClientConfig>>,
    deadlines: crate::config::Deadlines,
    backoff: crate::config::Backoff,
    rotation: Rotation,
    by: SubscribeBy,
    per_connection: usize,
    legs: usize,
    kinds: Vec<StreamKind>,
    rng: fastrand::Rng,
    canary: Canary,
    stopping: bool,
    books: Books,
    /// The venue asked this host to stay away until then.
    held_until: Instant,
    /// Slots with bytes to write or wishes to obey.
    touched: Vec<usize>,
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
        let base = config.exchange.market_ws.clone();
        let mut feed = Self {
            connections: Vec::new(),
            streams: Vec::new(),
            groups: Vec::new(),
            slots: Vec::new(),
            waiting: Vec::new(),
            traded: Vec::new(),
            clock: VenueClock::default(),
            questions: Questions::default(),
            has_rest: config.exchange.rest.is_some(),
            market: config.exchange.market,
            holes: VecDeque::new(),
            decoder: Decoder::default(),
            budget: ConnectBudget::default(),
            turn: 0,
            tls: tls.filter(|_| base.is_tls()),
            base,
            deadlines: config.deadlines.clone(),
            backoff: config.backoff,
            rotation: config.rotation,
            by: config.streams.subscribe_by,
            per_connection: config.streams.per_connection,
            legs: usize::from(config.streams.legs.clamp(1, 2)),
            kinds: layout::kinds(config),
            rng: fastrand::Rng::with_seed(seed),
            canary,
            stopping: false,
            books: Books::default(),
            held_until: Instant::ZERO,
            touched: Vec::new(),
            wake: now,
        };
        if canary.deadline_not_armed {
            (feed.deadlines.upgrade, feed.deadlines.connect) = (Span::MAX, Span::MAX);
        }
        let all: Vec<_> = symbols.iter().collect();
        feed.lay_out(&all, now);
        feed
    }

    /// One row per connection that is in use, in the order of their names and legs.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        let mut rows: Vec<&Connection> =
            self.connections.iter().filter(|connection| connection.role != Role::Vacant).collect();
        let order = |role: Role| match role {
            Role::Current => 0,
            Role::Successor(_) => 1,
            Role::Side => 2,
            Role::Retiring => 3,
            Role::Vacant => 4,
        };
        rows.sort_by_key(|row| (row.group, row.role == Role::Side, row.leg, order(row.role)));
        rows.into_iter()
    }

    /// The connection in a slot, in use or not.
    pub fn connection(&self, slot: usize) -> Option<&Connection> {
        self.connections.get(slot)
    }

    /// Slots there are.
    pub fn slots(&self) -> usize {
        self.connections.len()
    }

    /// One row per wanted stream.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> + Clone {
        self.streams.iter().filter(|stream| stream.wanted)
    }

    /// The kinds of streams each symbol has.
    pub fn kinds(&self) -> &[StreamKind] {
        &self.kinds
    }

    /// Are the news of this stream fetched over REST?
    pub(crate) fn is_polled(&self, symbol: SymbolId, kind: StreamKind) -> bool {
        let at = self.slots.get(symbol.index() * SLOTS + slot(kind)).map_or(usize::MAX, |at| *at as usize);
        self.streams.get(at).is_some_and(|stream| stream.polled)
    }

    /// A stream by its index, wanted or not.
    pub fn stream(&self, at: usize) -> &Stream {
        &self.streams[at]
    }

    /// How many streams of a connection are live on it.
    pub fn live_on(&self, slot: usize) -> u32 {
        let streams = self.connections.get(slot).map_or(&[][..], |connection| &connection.streams);
        streams.iter().filter(|at| self.streams[**at].run(slot).is_some_and(|run| run.state.is_live())).count() as u32
    }

    /// The books of a leg: who was first on the streams that a connection carries. `None` without a second leg.
    pub fn leg_books(&self, connection: &Connection) -> Option<&LegBooks> {
        (self.legs > 1 && connection.role == Role::Current)
            .then(|| &self.groups[connection.group].books[connection.leg])
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
    pub(crate) fn session_mut(&mut self, slot: usize) -> Option<&mut Session> {
        self.connections.get_mut(slot).map(|connection| &mut connection.session)
    }

    /// A slot with bytes to write or wishes to obey. To be asked until there is none.
    pub(crate) fn poll_touched(&mut self) -> Option<usize> {
        self.touched.pop()
    }

    /// Asks all connections to say goodbye.
    pub(crate) fn stop(&mut self, ctx: &mut Context<'_>) {
        self.stopping = true;
        for slot in 0..self.connections.len() {
            self.connections[slot].session.stop(ctx.now.mono);
            self.connections[slot].to_ask.clear();
            self.connections[slot].to_drop.clear();
            self.settle(slot, ctx);
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
        // What one connection does may concern another, or make a new one: until nothing is due any more.
        for _ in 0..PASSES_MAX {
            // Those behind the one that connected last come first, so that a budget that is used up passes nobody over.
            let (first, all) = (self.turn, self.connections.len());
            for slot in (first..first + all).map(|slot| slot % all) {
                if self.connections[slot].wake <= ctx.now.mono {
                    self.connection_timeout(slot, ctx);
                }
            }
            self.wake = self.connections.iter().map(|connection| connection.wake).min().unwrap_or(Instant::FAR);
            if self.wake > ctx.now.mono {
                break;
            }
        }
        self.tell_holes(ctx);
        self.handle_questions(ctx.now.mono);
    }

    fn connection_timeout(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        if self.connections[slot].role == Role::Vacant {
            self.connections[slot].wake = Instant::FAR;
            return;
        }
        if let State::Backoff { until } = self.connections[slot].session.state()
            && until <= now
        {
            self.begin_attempt(slot, ctx);
        }
        self.connections[slot].session.handle_timeout(now);
        self.drain(slot, ctx);
        self.judge(slot, ctx);
        self.succeed(slot, ctx);
        for kind in 0..RejectKind::ALL.len() {
            if self.connections[slot].refusals[kind].due() <= now {
                self.tell_refusals(slot, kind, ctx);
            }
        }
        let connection = &mut self.connections[slot];
        if connection.voice.due() <= now
            && let Some((count, newest)) = connection.voice.sum(now)
        {
            ctx.note(Note::Held { connection: connection.label.clone(), count, newest });
        }
        self.settle(slot, ctx);
        self.rearm(slot);
    }

    /// An attempt to connect begins, if the process may make one more.
    fn begin_attempt(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let connection = &self.connections[slot];
        // Whoever has been connected before adds to a storm; the first attempt of a new connection does not.
        let retry = connection.session.epoch() > 0;
        let beside = match connection.role {
            Role::Successor(Purpose::Planned | Purpose::Healing) | Role::Side => true,
            Role::Successor(Purpose::Announced) | Role::Current | Role::Retiring | Role::Vacant => false,
        };
        if let Err(at) = self.budget.permit(retry, beside, now) {
            return self.connections[slot].session.postpone(at);
        }
        self.turn = slot + 1;
        let epoch = self.next_epoch(slot);
        self.avoid_the_other_legs_address(slot);
        let connection = &mut self.connections[slot];
        connection.session.number_next(epoch);
        connection.attempt_began = now;
        let attempt = connection.session.attempt() + 1;
        let (label, url) = (connection.label.clone(), connection.url.clone());
        // An outage is told once; its attempts are in the books.
        if !connection.in_outage {
            self.say(slot, Note::Attempt { connection: label, attempt, url }, ctx);
        }
    }

    /// Sends what may be sent, and makes sure that the next deadline wakes us.
    fn settle(&mut self, slot: usize, ctx: &mut Context<'_>) {
        self.ask(slot, ctx);
        let connection = &mut self.connections[slot];
        connection.wake = connection.wake.min(connection.session.deadline()).min(connection.sums_due());
        self.wake = self.wake.min(connection.wake);
        self.touched.push(slot);
    }

    fn arm(&mut self, slot: usize, at: Instant) {
        let connection = &mut self.connections[slot];
        connection.wake = connection.wake.min(at);
        self.wake = self.wake.min(at);
    }

    /// The exact next deadline of a connection: after it woke, never per frame.
    fn rearm(&mut self, slot: usize) {
        let connection = &self.connections[slot];
        let mut wake = connection.session.deadline().min(connection.sums_due());
        if connection.role == Role::Vacant {
            wake = Instant::FAR;
        } else if connection.session.is_open() {
            let waiting = !connection.to_ask.is_empty() || !connection.to_drop.is_empty();
            if waiting && connection.may_ask() {
                wake = wake.min(connection.session.may_send_at());
            }
            wake = connection.pending.iter().map(|ask| ask.until).fold(wake, Instant::min);
            wake = wake.min(self.all_silent_at(slot)).min(connection.review_at).min(self.rotation_due(slot));
            let runs = connection.streams.iter().filter_map(|at| self.streams[*at].run(slot));
            wake = runs.map(|run| run.state.deadline()).fold(wake, Instant::min);
        }
        self.connections[slot].wake = wake;
    }

    /// Says something about one connection, unless it has said too much lately.
    fn say(&mut self, slot: usize, note: Note, ctx: &mut Context<'_>) {
        if self.connections[slot].voice.admit(|| note.to_string(), ctx.now.mono) {
            ctx.note(note);
        }
    }

    // ---- what a connection tells

    /// Bytes were put into the session's buffer.
    pub(crate) fn handle_received(&mut self, slot: usize, n: usize, ctx: &mut Context<'_>) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.session.handle_received(n, ctx.now.mono);
        self.drain(slot, ctx);
        self.settle(slot, ctx);
    }

    /// The session was told something else than bytes.
    pub(crate) fn handled(&mut self, slot: usize, ctx: &mut Context<'_>) {
        self.drain(slot, ctx);
        self.settle(slot, ctx);
    }

    fn drain(&mut self, slot: usize, ctx: &mut Context<'_>) {
        while let Some(event) = self.connections[slot].session.poll_event(ctx.now.mono) {
            match event {
                SessionEvent::Message(Incoming::Text(text)) => self.on_text(slot, text.as_str(), ctx),
                SessionEvent::Message(Incoming::Binary(bytes)) => {
                    self.connections[slot].frames += 1;
                    let reject = Reject { kind: RejectKind::Binary, field: None };
                    self.refuse(slot, reject, || format!("{bytes} bytes"), ctx);
                }
                SessionEvent::Message(Incoming::Control | Incoming::Closed(_)) => {}
                SessionEvent::Open => self.on_open(slot, ctx),
                SessionEvent::Remembered(reason) => {
                    let connection = self.connections[slot].label.clone();
                    ctx.note(Note::Remembered { connection, reason });
                }
                SessionEvent::Ended(ending) => self.on_ended(slot, ending, ctx),
            }
        }
    }

    /// Why streams fail says which path they were asked for on; the wrong one is acknowledged and silent.
    fn path(&self, slot: usize) -> &str {
        let target = &self.connections[slot].session.settings().target;
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
