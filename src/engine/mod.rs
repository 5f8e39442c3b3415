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

pub use port::{Command, Event, Job, JobId, Reply, SessionId};
pub use report::symbol as symbol_report;

use crate::config::{Config, Streams};
use crate::market::feed::{Canary, Context, Feed};
use crate::market::{Market, layout};
use crate::net::{Request, State};
use crate::note::{Note, Notes, Stamped};
use crate::time::{Instant, Now, Span, UtcMs};
use crate::wire::Symbols;
use std::collections::VecDeque;
use std::sync::Arc;

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
    /// What the operator wants to be subscribed to.
    wanted: Streams,
    feed: Feed,
    market: Market,
    notes: Notes,
    commands: VecDeque<Command>,
    /// Sessions that may have bytes to write; no session twice.
    to_transmit: VecDeque<SessionId>,
    queued_to_transmit: Vec<bool>,
    lookups: Vec<Lookup>,
    lookup_timeouts: u64,
    next_job: u64,
    stopping: Option<Instant>,
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
        let sessions = feed.connections().len();
        Self {
            wanted: config.streams.clone(),
            feed,
            market: Market::new(symbols, &layout::kinds(config), config.tape),
            notes: Notes::default(),
            commands: VecDeque::new(),
            to_transmit: VecDeque::new(),
            queued_to_transmit: vec![false; sessions],
            lookups: Vec::new(),
            lookup_timeouts: 0,
            next_job: 0,
            stopping: None,
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
                self.after(session);
            }
            Event::Connected(session) => self.tell(session, now, |session, now| session.handle_connected(now)),
            Event::Eof(session) => self.tell(session, now, |session, now| session.handle_socket_end(None, now)),
            Event::Failed(session, kind) => {
                self.tell(session, now, move |session, now| session.handle_socket_end(Some(kind), now));
            }
            Event::Reply(job, reply) => self.on_reply(job, reply, now),
            Event::Timeout => self.on_timeout(now),
            Event::Reload(streams) => self.on_reload(*streams, now),
            Event::Stop => self.on_stop(now),
        }
        self.obey_requests(now);
    }

    fn tell(&mut self, session: SessionId, now: Now, what: impl FnOnce(&mut crate::net::Session, Instant)) {
        if let Some(slot) = self.feed.session_mut(session.index()) {
            what(slot, now.mono);
            let mut ctx = Context { now, market: &mut self.market, notes: &mut self.notes };
            self.feed.handled(session.index(), &mut ctx);
            self.after(session);
        }
    }

    fn on_timeout(&mut self, now: Now) {
        if self.feed.deadline() <= now.mono {
            let mut ctx = Context { now, market: &mut self.market, notes: &mut self.notes };
            self.feed.handle_timeout(&mut ctx);
            for index in 0..self.queued_to_transmit.len() {
                self.after(SessionId(index as u32));
            }
        }
        let before = self.lookups.len();
        self.lookups.retain(|lookup| lookup.began + LOOKUP_REMEMBERED > now.mono);
        self.lookup_timeouts += (before - self.lookups.len()) as u64;
        if let Some(until) = self.stopping
            && !self.exited
            && (until <= now.mono || self.feed.is_stopped())
        {
            self.exited = true;
            self.commands.push_back(Command::Exit);
        }
    }

    fn on_reload(&mut self, wanted: Streams, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        let beyond = |these: &Streams, those: &Streams| these.symbols.iter().filter(|name| !those.want(name)).count();
        let (added, removed) = (beyond(&wanted, &self.wanted), beyond(&self.wanted, &wanted));
        self.wanted = wanted;
        self.notes.push(now.mono, now.utc(), Note::Reloaded { added, removed });
    }

    fn on_stop(&mut self, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now.mono + STOP_WITHIN);
        self.notes.push(now.mono, now.utc(), Note::Stopping);
        let mut ctx = Context { now, market: &mut self.market, notes: &mut self.notes };
        self.feed.stop(&mut ctx);
        for index in 0..self.queued_to_transmit.len() {
            self.after(SessionId(index as u32));
        }
    }

    fn on_reply(&mut self, job: JobId, reply: Reply, now: Now) {
        let Some(at) = self.lookups.iter().position(|lookup| lookup.job == job) else { return };
        let lookup = self.lookups.swap_remove(at);
        let result = match &reply {
            Reply::Resolved(Ok(addresses)) => Ok(addresses.as_slice()),
            Reply::Resolved(Err(words)) => Err(words.as_str()),
            Reply::Overloaded => Err("all resolver threads are busy with lookups that hang"),
        };
        for index in 0..self.queued_to_transmit.len() {
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
        // Requests only come from sessions that something happened to; those are queued to transmit as well.
        for at in 0..self.to_transmit.len() {
            let id = self.to_transmit[at];
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
        let job = JobId(self.next_job);
        self.next_job += 1;
        self.lookups.push(Lookup { job, host: host.clone(), port, began: now.mono });
        let deadline = now.mono + LOOKUP_REMEMBERED;
        self.commands.push_back(Command::Work { id: job, job: Job::Resolve { host, port }, deadline });
    }

    fn after(&mut self, session: SessionId) {
        if let Some(queued) = self.queued_to_transmit.get_mut(session.index())
            && !std::mem::replace(queued, true)
        {
            self.to_transmit.push_back(session);
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
        lookups.fold(self.feed.deadline().min(stopping), Instant::min)
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
        self.feed.connections().get(session.index()).map_or(&[], |connection| connection.session.transmit())
    }

    /// So many of them were written.
    pub fn transmitted(&mut self, session: SessionId, n: usize) {
        if let Some(session) = self.feed.session_mut(session.index()) {
            session.transmitted(n);
        }
    }

    /// What the operator wants to be subscribed to: what the configuration said at the start, or said last.
    pub fn wanted(&self) -> &Streams {
        &self.wanted
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
