//! The pure core: it is told what happened and when, and says what to do and when to be woken.
//!
//! ```text
//! loop {
//!     wait until engine.poll_timeout(), or a socket or a worker has something
//!     for each socket that has:    read into engine.receive_buffer(session); engine.handle(Received(session, n), now)
//!     for each reply of a worker:  engine.handle(Reply(job, reply), now)
//!     engine.handle(Timeout, now)
//!     after each of them:          obey engine.poll_command(), write engine.transmit(session) for poll_transmit()
//! }
//! ```
//!
//! It owns all state and does no I/O: no socket, no thread, no file, no clock. Same configuration, seed and inputs give
//! the same commands and notes.

mod port;
mod report;
pub mod rest;
mod statistics;
mod universe;

pub use port::{Command, Event, GetFailure, Job, JobId, Reply, Response, SessionId};
pub use report::symbol as symbol_report;
pub use statistics::Statistics;

use crate::config::{Config, Streams};
use crate::market::feed::{Canary, Context, Feed};
use crate::market::{Market, layout};
use crate::net::{Request, State};
use crate::note::{Note, Notes, Stamped};
use crate::time::{Instant, Now, Span, UtcMs};
use crate::wire::Symbols;
use rest::{Ask, NotAsked, RestDesk};
use std::collections::VecDeque;
use std::sync::Arc;
use universe::Universe;

/// How long the engine remembers a name lookup; a hung one is forgotten after it, and its late answer dropped.
const LOOKUP_REMEMBERED: Span = Span::from_secs(60);
/// A lookup older than this is not joined but repeated, up to [`LOOKUPS_PER_HOST`].
const LOOKUP_JOINED: Span = Span::from_secs(2);
/// Lookups of one name under way at once.
const LOOKUPS_PER_HOST: usize = 2;
/// How long connections may take to say goodbye.
const STOP_WITHIN: Span = Span::from_ms(1_500);

/// A name that is being looked up, for everyone who wants it.
struct Lookup {
    job: JobId,
    host: String,
    port: u16,
    began: Instant,
}

/// The process, without its shell.
pub struct Engine {
    universe: Universe,
    feed: Feed,
    market: Market,
    notes: Notes,
    commands: VecDeque<Command>,
    /// Sessions that may have bytes to write; no session twice.
    to_transmit: VecDeque<SessionId>,
    queued_to_transmit: Vec<bool>,
    lookups: Vec<Lookup>,
    lookup_timeouts: u64,
    rest: RestDesk,
    next_job: u64,
    stopping: Option<Instant>,
    /// When statistics are said next.
    statistics_at: Instant,
    exited: bool,
    started: Now,
}

impl Engine {
    /// An engine that begins to connect at its first [`Event::Timeout`]. `tls` is needed if the configuration's
    /// addresses are; see [`tls_for`](crate::market::feed::tls_for).
    pub fn new(config: &Config, tls: Option<Arc<rustls::ClientConfig>>, seed: u64, now: Now) -> Self {
        Self::with_canary(config, tls, seed, now, Canary::default())
    }

    /// An engine with a bug in it, for the tests of the simulation.
    #[doc(hidden)]
    pub fn with_canary(
        config: &Config,
        tls: Option<Arc<rustls::ClientConfig>>,
        seed: u64,
        now: Now,
        canary: Canary,
    ) -> Self {
        let symbols = Symbols::new(config.streams.symbols.iter().map(String::as_str));
        let feed = Feed::new(config, tls, &symbols, seed, canary, now.mono);
        let slots = feed.slots();
        Self {
            universe: Universe::new(&config.streams, config.exchange.rest.is_some(), now.mono),
            feed,
            market: Market::new(symbols, &layout::kinds(config), config.tape),
            notes: Notes::default(),
            commands: VecDeque::new(),
            to_transmit: VecDeque::new(),
            queued_to_transmit: vec![false; slots],
            lookups: Vec::new(),
            lookup_timeouts: 0,
            rest: RestDesk::new(config),
            next_job: 0,
            stopping: None,
            statistics_at: now.mono + statistics::STATISTICS_EVERY,
            exited: false,
            started: now,
        }
    }

    /// Something happened. Commands of the last event must have been taken.
    pub fn handle(&mut self, event: Event, now: Now) {
        debug_assert!(self.commands.is_empty(), "commands are obeyed before the next event");
        match event {
            Event::Received(session, n) => {
                let mut ctx = Context { now, market: &mut self.market, notes: &mut self.notes };
                self.feed.handle_received(session.index(), n, &mut ctx);
            }
            Event::Connected(session) => self.tell(session, now, |session, now| session.handle_connected(now)),
            Event::Eof(session) => self.tell(session, now, |session, now| session.handle_socket_end(None, now)),
            Event::Failed(session, kind) => {
                self.tell(session, now, move |session, now| session.handle_socket_end(Some(kind), now));
            }
            Event::Reply(job, reply) => match self.lookups.iter().position(|lookup| lookup.job == job) {
                Some(at) => {
                    let lookup = self.lookups.swap_remove(at);
                    self.on_resolved(&lookup, &reply, now);
                }
                None => self.rest.handle_reply(job, reply, self.market.symbols(), now),
            },
            Event::Timeout => self.on_timeout(now),
            Event::Reload(streams) => self.on_reload(*streams, now),
            Event::Stop => self.on_stop(now),
        }
        self.obey_requests(now);
        self.serve_rest(now);
    }

    fn tell(&mut self, session: SessionId, now: Now, what: impl FnOnce(&mut crate::net::Session, Instant)) {
        if let Some(slot) = self.feed.session_mut(session.index()) {
            what(slot, now.mono);
            let mut ctx = Context { now, market: &mut self.market, notes: &mut self.notes };
            self.feed.handled(session.index(), &mut ctx);
        }
    }

    fn on_timeout(&mut self, now: Now) {
        if self.feed.deadline() <= now.mono {
            let mut ctx = Context { now, market: &mut self.market, notes: &mut self.notes };
            self.feed.handle_timeout(&mut ctx);
        }
        let before = self.lookups.len();
        self.lookups.retain(|lookup| lookup.began + LOOKUP_REMEMBERED > now.mono);
        self.lookup_timeouts += (before - self.lookups.len()) as u64;
        self.rest.handle_timeout(now.mono);
        self.refresh_list(now.mono);
        if self.statistics_at <= now.mono {
            self.say_statistics(now);
        }
        if let Some(until) = self.stopping
            && !self.exited
            && (until <= now.mono || self.feed.is_stopped())
        {
            self.exited = true;
            self.commands.push_back(Command::Exit);
        }
    }

    fn on_stop(&mut self, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now.mono + STOP_WITHIN);
        self.notes.push(now.mono, now.utc(), Note::Stopping);
        // While there still are streams to speak of.
        self.say_statistics(now);
        self.rest.stop();
        let mut ctx = Context { now, market: &mut self.market, notes: &mut self.notes };
        self.feed.stop(&mut ctx);
    }

    fn on_resolved(&mut self, lookup: &Lookup, reply: &Reply, now: Now) {
        let result = match reply {
            Reply::Resolved(Ok(addresses)) => Ok(addresses.as_slice()),
            Reply::Resolved(Err(words)) => Err(words.as_str()),
            Reply::Got(_) => Err("the lane answered something else"),
            Reply::Overloaded => Err("all resolver threads are busy with lookups that hang"),
        };
        for index in 0..self.feed.slots() {
            self.feed.before_dialling(index);
            let Some(session) = self.feed.session_mut(index) else { continue };
            let settings = session.settings();
            let wants = matches!(session.state(), State::Resolving { .. } | State::Backoff { .. });
            if wants && settings.host == lookup.host && settings.port == lookup.port {
                self.tell(SessionId(index as u32), now, |session, now| session.handle_resolved(result, now));
            }
        }
    }

    /// Turns what sessions want into commands.
    fn obey_requests(&mut self, now: Now) {
        while let Some(slot) = self.feed.poll_touched() {
            let id = SessionId(slot as u32);
            self.queue_to_transmit(slot);
            while let Some(request) = self.feed.session_mut(id.index()).and_then(|session| session.poll_request()) {
                match request {
                    Request::Dial(address) => self.commands.push_back(Command::Dial { session: id, address }),
                    Request::Hangup => self.commands.push_back(Command::Hangup { session: id }),
                    Request::Resolve => self.resolve(id, now),
                }
            }
        }
    }

    fn resolve(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.feed.session_mut(id.index()) else { return };
        let (host, port) = (session.settings().host.clone(), session.settings().port);
        let same = self.lookups.iter().filter(|lookup| lookup.host == host && lookup.port == port);
        let fresh = same.clone().any(|lookup| lookup.began + LOOKUP_JOINED > now.mono);
        if fresh || same.count() >= LOOKUPS_PER_HOST {
            return;
        }
        let job = self.new_job();
        self.lookups.push(Lookup { job, host: host.clone(), port, began: now.mono });
        let deadline = now.mono + LOOKUP_REMEMBERED;
        self.commands.push_back(Command::Work { id: job, job: Job::Resolve { host, port }, deadline });
    }

    fn new_job(&mut self) -> JobId {
        self.next_job += 1;
        JobId(self.next_job - 1)
    }

    /// Takes what came of earlier asks, then sends those that may go, those that were just made included.
    fn serve_rest(&mut self, now: Now) {
        self.ask_feeds_questions();
        if self.rest.is_idle() {
            return;
        }
        if let Some(block) = self.rest.poll_block() {
            let pause = block.until.since(now.mono);
            self.notes.push(now.mono, now.utc(), Note::RestBlocked { words: block.words, pause });
        }
        while let Some((ask, result)) = self.rest.poll_outcome() {
            self.on_rest_outcome(ask, result, now);
        }
        while let Some(work) = self.rest.poll_work(JobId(self.next_job), now.mono) {
            let id = self.new_job();
            self.commands.push_back(Command::Work { id, job: work.job, deadline: work.deadline });
        }
    }

    /// Asks REST for something, beside what the engine asks by itself.
    ///
    /// # Errors
    /// There is no REST, or too much waits already.
    pub fn ask(&mut self, ask: Ask) -> Result<(), NotAsked> {
        self.rest.ask(ask, self.market.symbols())
    }

    /// Where REST is asked.
    pub fn rest(&self) -> &RestDesk {
        &self.rest
    }

    fn queue_to_transmit(&mut self, slot: usize) {
        if self.queued_to_transmit.len() <= slot {
            self.queued_to_transmit.resize(slot + 1, false);
        }
        if !std::mem::replace(&mut self.queued_to_transmit[slot], true) {
            self.to_transmit.push_back(SessionId(slot as u32));
        }
    }

    /// The next thing to do. To be asked until there is none, after every event.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// A session that may have bytes to write, see [`transmit`](Self::transmit). To be asked until there is none.
    pub fn poll_transmit(&mut self) -> Option<SessionId> {
        let session = self.to_transmit.pop_front()?;
        self.queued_to_transmit[session.index()] = false;
        Some(session)
    }

    /// When [`Event::Timeout`] is to be handled at the latest.
    pub fn poll_timeout(&self) -> Instant {
        let lookups = self.lookups.iter().map(|lookup| lookup.began + LOOKUP_REMEMBERED);
        let stopping = self.stopping.filter(|_| !self.exited).unwrap_or(Instant::FAR);
        let list = if self.stopping.is_none() { self.universe.list_at } else { Instant::FAR };
        let own = stopping.min(list).min(self.statistics_at);
        lookups.fold(self.feed.deadline().min(own).min(self.rest.deadline()), Instant::min)
    }

    /// The oldest note that nobody has taken.
    pub fn poll_note(&mut self) -> Option<Stamped> {
        self.notes.pop()
    }

    /// Where the bytes of a session's socket go. Empty when there is nothing to read for.
    pub fn receive_buffer(&mut self, session: SessionId) -> &mut [u8] {
        match self.feed.session_mut(session.index()) {
            Some(session) => session.receive_buffer(),
            None => &mut [],
        }
    }

    /// Bytes for a session's socket.
    pub fn transmit(&self, session: SessionId) -> &[u8] {
        self.feed.connection(session.index()).map_or(&[], |connection| connection.session.transmit())
    }

    /// So many of them were written.
    pub fn transmitted(&mut self, session: SessionId, n: usize) {
        if let Some(session) = self.feed.session_mut(session.index()) {
            session.transmitted(n);
        }
    }

    /// What the operator wants to be subscribed to: what the configuration said at the start, or said last.
    pub fn wanted(&self) -> &Streams {
        &self.universe.wanted
    }

    /// The connections and streams.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// What is held about every symbol.
    pub fn market(&self) -> &Market {
        &self.market
    }

    /// What it held, when nothing else of it is needed any more.
    pub fn into_market(self) -> Market {
        self.market
    }

    /// When the engine was made.
    pub fn started(&self) -> UtcMs {
        self.started.utc()
    }

    /// True once a clean stop has begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }
}
