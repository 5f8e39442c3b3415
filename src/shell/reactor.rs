//! Sockets by session: who is ready, the bytes in, the bytes out.
//!
//! mio is edge-triggered: a socket speaks once. What it said is remembered here until a call answers `WouldBlock`, so a
//! socket with bytes left makes the next [`wait`](Reactor::wait) return at once. A session outlives its sockets: each
//! new one has its own generation in its token, and what an old one still has to say is not heard.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use socket2::{SockRef, TcpKeepalive};

use super::clock::SystemClock;
use crate::engine::{Event, SessionId};
use crate::time::{Instant, Span};

/// The loop turns at least this often, so that whoever watches it can tell sleep from death.
pub const LONGEST_SLEEP: Span = Span::from_ms(250);
/// Socket events taken in one turn; the rest follow in the next.
const EVENTS_MAX: usize = 1_024;
/// The waker's token; no session has it, for their generations start at 1 and the table is smaller than this.
const WAKER: Token = Token(0);
// A token holds the session in its low half and the generation in its high half.
const _: () = assert!(usize::BITS >= 64);

/// All sockets of the loop.
#[derive(Debug)]
pub struct Reactor {
    poll: Poll,
    events: Events,
    /// Owned for as long as the poll is: a wake-up through a waker that was dropped right after can be lost.
    waker: Arc<Waker>,
    slots: Vec<Slot>,
    /// Sessions with something to read or to hear.
    ready: VecDeque<SessionId>,
    /// How many of `ready` are of this turn.
    turn: usize,
    /// Sessions that could not write and now can.
    writable: VecDeque<SessionId>,
    /// Sessions that had no room to be read into; asked again each turn.
    paused: Vec<SessionId>,
}

/// One session's place.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    state: State,
    /// Is in `Reactor::ready`.
    queued: bool,
}

#[derive(Debug, Default)]
enum State {
    /// No socket, and none needed.
    #[default]
    Empty,
    /// The connect has not been answered.
    Connecting(TcpStream),
    /// Connected, and the engine may not know yet.
    Open(Open),
    /// Failed, and the engine does not know yet.
    Failed(ErrorKind),
}

#[derive(Debug)]
struct Open {
    socket: TcpStream,
    /// The engine was told that it is connected.
    told: bool,
    /// It may have bytes.
    readable: bool,
    /// The peer ended its direction or the socket failed: read until that shows.
    ending: bool,
    /// That was read; there is nothing after it.
    ended: bool,
    /// The last write did not fit; a writable event is to come.
    blocked: bool,
}

impl Reactor {
    /// A reactor without sockets.
    ///
    /// # Errors
    /// If the system has no descriptors for it.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            waker,
            slots: Vec::new(),
            ready: VecDeque::new(),
            turn: 0,
            writable: VecDeque::new(),
            paused: Vec::new(),
        })
    }

    /// For other threads: makes the present or the next [`wait`](Self::wait) return.
    #[must_use]
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Connects a new socket for the session, in place of any it has. What comes of it, an immediate failure too, is an
    /// event of a later turn.
    pub fn dial(&mut self, session: SessionId, address: SocketAddr) {
        self.hangup(session);
        let registry = self.poll.registry();
        let Some(slot) = slot_of(&mut self.slots, session) else { return };
        let token = token(session, slot.generation);
        slot.state = match connect(registry, token, address) {
            Ok(socket) => State::Connecting(socket),
            Err(error) => {
                log::warn!("no connection to {address}: {error}");
                State::Failed(kind_of(&error))
            }
        };
        if matches!(slot.state, State::Failed(_)) {
            enqueue(&mut self.ready, slot, session);
        }
    }

    /// Closes the session's socket, if it has one. Nothing more is heard from it.
    pub fn hangup(&mut self, session: SessionId) {
        let Some(slot) = slot_of(&mut self.slots, session) else { return };
        // Never 0 and never the same twice in a row; a stale event older than 2³² sockets does not exist.
        slot.generation = slot.generation.wrapping_add(1).max(1);
        match std::mem::take(&mut slot.state) {
            State::Connecting(mut socket) | State::Open(Open { mut socket, .. }) => {
                // Closing it deregisters it as well; a failure here changes nothing.
                let _ = self.poll.registry().deregister(&mut socket);
            }
            State::Empty | State::Failed(_) => {}
        }
    }

    /// Sleeps until a socket or a waker speaks, or until `deadline`, at most [`LONGEST_SLEEP`]. Does not sleep at all if
    /// `busy`, or if a socket still has something. Begins a new turn.
    ///
    /// # Errors
    /// If the poll itself fails; that is the end of the loop.
    pub fn wait(&mut self, deadline: Instant, clock: &SystemClock, busy: bool) -> io::Result<()> {
        let sleep = if busy || !self.ready.is_empty() || !self.writable.is_empty() {
            Duration::ZERO
        } else {
            deadline.since(clock.mono()).min(LONGEST_SLEEP).to_std()
        };
        match self.poll.poll(&mut self.events, Some(sleep)) {
            Ok(()) => self.note_events(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        for session in self.paused.drain(..) {
            if let Some(slot) = self.slots.get_mut(session.index()) {
                enqueue(&mut self.ready, slot, session);
            }
        }
        self.turn = self.ready.len();
        Ok(())
    }

    fn note_events(&mut self) {
        for event in &self.events {
            let (session, generation) = parts(event.token());
            if event.token() == WAKER {
                continue;
            }
            let Some(slot) = self.slots.get_mut(session.index()).filter(|slot| slot.generation == generation) else {
                continue;
            };
            match &mut slot.state {
                State::Connecting(socket) => match outcome(socket) {
                    None => continue,
                    Some(Ok(())) => {
                        let State::Connecting(socket) = std::mem::take(&mut slot.state) else { continue };
                        let ending = event.is_read_closed() || event.is_error();
                        let readable = event.is_readable() || ending;
                        slot.state =
                            State::Open(Open { socket, told: false, readable, ending, ended: false, blocked: false });
                        enqueue(&mut self.ready, slot, session);
                    }
                    Some(Err(kind)) => {
                        slot.state = State::Failed(kind);
                        enqueue(&mut self.ready, slot, session);
                    }
                },
                State::Open(open) => {
                    open.ending |= event.is_read_closed() || event.is_error();
                    if (event.is_writable() || event.is_error()) && std::mem::take(&mut open.blocked) {
                        self.writable.push_back(session);
                    }
                    if (event.is_readable() || open.ending) && !open.ended {
                        open.readable = true;
                        enqueue(&mut self.ready, slot, session);
                    }
                }
                State::Empty | State::Failed(_) => {}
            }
        }
    }

    /// The next session that is ready; each once a turn, so that none starves another.
    pub fn next_ready(&mut self) -> Option<SessionId> {
        self.turn = self.turn.checked_sub(1)?;
        let session = self.ready.pop_front()?;
        if let Some(slot) = self.slots.get_mut(session.index()) {
            slot.queued = false;
        }
        Some(session)
    }

    /// What a ready session has to say: one event, with at most one read into `buffer`. `None` if it was a false alarm.
    /// A session that may have more is ready again in the next turn. One without a buffer is not read, and is asked again
    /// in the next turn that comes for another reason: to ask at once would only burn the core.
    pub fn read(&mut self, session: SessionId, buffer: &mut [u8]) -> Option<Event> {
        let slot = self.slots.get_mut(session.index())?;
        let event = match &mut slot.state {
            State::Empty | State::Connecting(_) => None,
            State::Failed(kind) => {
                let kind = *kind;
                slot.state = State::Empty;
                Some(Event::Failed(session, kind))
            }
            State::Open(open) if !open.told => {
                open.told = true;
                Some(Event::Connected(session))
            }
            State::Open(open) => match open.read(buffer) {
                Ok(None) => None,
                Ok(Some(0)) => Some(Event::Eof(session)),
                Ok(Some(n)) => Some(Event::Received(session, n)),
                Err(kind) => {
                    slot.state = State::Empty;
                    Some(Event::Failed(session, kind))
                }
            },
        };
        match &slot.state {
            State::Open(open) if !open.readable => {}
            State::Open(_) if event.is_none() && buffer.is_empty() => self.paused.push(session),
            State::Open(_) => enqueue(&mut self.ready, slot, session),
            State::Empty | State::Connecting(_) | State::Failed(_) => {}
        }
        event
    }

    /// Offers bytes to the session's socket and returns how many it took. If it took fewer, the session comes back from
    /// [`next_writable`](Self::next_writable), or its failure is an event.
    pub fn write(&mut self, session: SessionId, mut bytes: &[u8]) -> usize {
        let Some(slot) = self.slots.get_mut(session.index()) else { return 0 };
        let State::Open(open) = &mut slot.state else { return 0 };
        let offered = bytes.len();
        while !bytes.is_empty() && !open.blocked {
            match open.socket.write(bytes) {
                // Edge-triggered: only a refusal promises an event, so ask until there is one.
                Ok(n) if n > 0 => bytes = bytes.get(n..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => open.blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                refused => {
                    // What the peer said before it went may still be there to read; reading meets the failure too. If
                    // the reading side has ended, nothing else would tell.
                    if open.ended {
                        let kind = refused.err().map_or(ErrorKind::WriteZero, |error| kind_of(&error));
                        slot.state = State::Failed(kind);
                    } else {
                        open.blocked = true;
                        open.ending = true;
                        open.readable = true;
                    }
                    enqueue(&mut self.ready, slot, session);
                    break;
                }
            }
        }
        offered - bytes.len()
    }

    /// A session whose last write did not fit, now that more may fit.
    pub fn next_writable(&mut self) -> Option<SessionId> {
        self.writable.pop_front()
    }

    /// Sessions that have a socket, connected or not.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot.state, State::Connecting(_) | State::Open(_))).count()
    }
}

impl Open {
    /// `Some(0)` is the end, once.
    fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, ErrorKind> {
        if !self.readable || buffer.is_empty() {
            return Ok(None);
        }
        loop {
            match self.socket.read(buffer) {
                Ok(0) => {
                    self.ended = true;
                    self.readable = false;
                    return Ok(Some(0));
                }
                Ok(n) => {
                    // Less than there was room for: the socket is empty, and what comes later is a new event. Unless
                    // the end was announced already, for that is not announced again.
                    self.readable = n == buffer.len() || self.ending;
                    return Ok(Some(n));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(kind_of(&error)),
            }
        }
    }
}

fn token(session: SessionId, generation: u32) -> Token {
    Token((generation as usize) << 32 | session.0 as usize)
}

fn parts(token: Token) -> (SessionId, u32) {
    // Both halves fit by construction.
    (SessionId((token.0 & 0xffff_ffff) as u32), (token.0 >> 32) as u32)
}

/// The session's slot; sessions are few and dense, so the table only grows.
fn slot_of(slots: &mut Vec<Slot>, session: SessionId) -> Option<&mut Slot> {
    if slots.len() <= session.index() {
        slots.resize_with(session.index() + 1, Slot::default);
    }
    slots.get_mut(session.index())
}

fn enqueue(ready: &mut VecDeque<SessionId>, slot: &mut Slot, session: SessionId) {
    if !std::mem::replace(&mut slot.queued, true) {
        ready.push_back(session);
    }
}

fn connect(registry: &Registry, token: Token, address: SocketAddr) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    // The engine's deadlines judge a connection. These two only see to it that the kernel does not keep one for a
    // quarter of an hour after its peer has gone, whatever the deadlines are.
    let options = SockRef::from(&socket);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    options.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    options.set_tcp_user_timeout(Some(Duration::from_secs(120)))?;
    registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(socket)
}

/// What became of a connect; `None` while it is not decided.
fn outcome(socket: &TcpStream) -> Option<Result<(), ErrorKind>> {
    match socket.take_error() {
        Ok(None) => {}
        Ok(Some(error)) | Err(error) => return Some(Err(kind_of(&error))),
    }
    // Without an error and without a peer it is a false alarm; the engine's deadline bounds the wait.
    let peer = socket.peer_addr().ok()?;
    // On loopback a socket can meet itself where nobody listens.
    let met_itself = socket.local_addr().is_ok_and(|local| local == peer);
    Some(if met_itself { Err(ErrorKind::ConnectionRefused) } else { Ok(()) })
}

/// The error's kind, with a name for the one that the standard library has none for.
fn kind_of(error: &io::Error) -> ErrorKind {
    /// `EMFILE` and `ENFILE`: descriptors are exhausted.
    const NO_DESCRIPTORS: [i32; 2] = [24, 23];
    match error.raw_os_error() {
        Some(code) if NO_DESCRIPTORS.contains(&code) => ErrorKind::QuotaExceeded,
        Some(_) | None => error.kind(),
    }
}

#[cfg(test)]
mod tests;
