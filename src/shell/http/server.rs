//! The server's own loop: clients in, answers out, nothing ever waited for but the poll.

use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::Channels;
use super::connection::{Connection, Next, Request, Waiting};
use super::routes;
use crate::shell::clock::SystemClock;
use crate::shell::watchdog::Gauge;
use crate::status::Status;
use crate::time::{Instant, Span};

/// Clients at a time; one more ends the idlest.
const CLIENTS_MAX: usize = 128;
/// How long an answer waits for a snapshot newer than its question.
const SNAPSHOT_WITHIN: Span = Span::from_ms(200);
/// The loop is asked at most this often, however many ask us.
const ASK_EVERY: Span = Span::from_ms(20);
/// After the system had no descriptor for a client, and before the next try.
const ACCEPT_PAUSE: Span = Span::from_ms(250);
/// Between two lines about clients that could not be admitted.
const WARN_EVERY: Span = Span::from_secs(10);
/// Clients accepted in one turn.
const ACCEPTS_MAX: usize = 64;
/// Requests of one client answered in one turn.
const REQUESTS_MAX: usize = 32;

/// What `accept` says of a client, and not of itself.
const GONE: [ErrorKind; 3] = [ErrorKind::Interrupted, ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset];

pub(super) const WAKER: Token = Token(0);
const LISTENER: Token = Token(1);
/// Tokens of clients count up from here.
const FIRST_CLIENT: u64 = 2;

pub(super) struct State {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    channels: Channels,
    gauge: Gauge,
    clock: SystemClock,
    /// In the order in which they came. Tokens are never used twice, so no event reaches another client.
    clients: Vec<(Token, Connection)>,
    next_client: u64,
    /// The listener may have clients, from this time on.
    accept_at: Option<Instant>,
    snapshot: Box<Status>,
    /// The ticket it answers, and when it came.
    ticket: u64,
    came: Instant,
    /// The ticket of questions that come now, and whether any came.
    next_ticket: u64,
    ask: bool,
    /// A client has requests left for the next turn.
    more: bool,
    /// When a refused client was last spoken of.
    warned: Option<Instant>,
}

impl State {
    pub(super) fn new(
        poll: Poll,
        mut listener: TcpListener,
        channels: Channels,
        snapshot: Box<Status>,
        gauge: Gauge,
        clock: SystemClock,
    ) -> io::Result<Self> {
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(256),
            listener,
            channels,
            gauge,
            clock,
            clients: Vec::new(),
            next_client: FIRST_CLIENT,
            accept_at: None,
            snapshot,
            ticket: 0,
            came: Instant::ZERO,
            next_ticket: 1,
            ask: false,
            more: false,
            warned: None,
        })
    }

    /// Until it is told to stop.
    pub(super) fn run(&mut self) {
        while !self.channels.stop.load(Ordering::Acquire) {
            let turn = catch_unwind(AssertUnwindSafe(|| self.turn())).unwrap_or_else(|_| {
                // Whichever client it was, the next one finds a clean table.
                self.clients.clear();
                Err(io::Error::other("a turn panicked"))
            });
            if let Err(error) = turn {
                log::error!("the status server goes on after: {error}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let now = self.clock.mono();
        for (_, client) in &mut self.clients {
            client.flush(now);
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let now = self.clock.mono();
        let ask_at = if self.ask { self.came + ASK_EVERY } else { Instant::FAR };
        let deadline = self.clients.iter().map(|(_, client)| client.deadline()).min().unwrap_or(Instant::FAR);
        let until = deadline.min(ask_at).min(self.accept_at.unwrap_or(Instant::FAR));
        let until = if std::mem::take(&mut self.more) { now } else { until };
        let sleep = (until != Instant::FAR).then(|| until.since(now).to_std());
        match self.poll.poll(&mut self.events, sleep) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        let now = self.clock.mono();
        self.note_events(now);
        self.take_snapshots(now);
        self.accept(now);
        for at in 0..self.clients.len() {
            self.serve(at, now);
        }
        self.clients.retain(|(_, client)| !client.is_over());
        self.ask_loop(now);
        Ok(())
    }

    fn note_events(&mut self, now: Instant) {
        for event in &self.events {
            if event.token() == LISTENER {
                self.accept_at = Some(now);
            } else if let Ok(at) = self.clients.binary_search_by_key(&event.token(), |(token, _)| *token)
                && let Some((_, client)) = self.clients.get_mut(at)
            {
                client.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                client.writable |= event.is_writable() || event.is_error();
            }
        }
    }

    /// Keeps the newest that came.
    fn take_snapshots(&mut self, now: Instant) {
        while let Ok((ticket, snapshot)) = self.channels.snapshots.try_recv() {
            self.snapshot = snapshot;
            self.ticket = ticket;
            self.came = now;
        }
    }

    fn accept(&mut self, now: Instant) {
        if self.accept_at.is_none_or(|at| now < at) {
            return;
        }
        for _ in 0..ACCEPTS_MAX {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    if let Err(error) = self.admit(socket, now) {
                        self.warn(&error, now);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.accept_at = None;
                    return;
                }
                // A client that went away before it was accepted.
                Err(error) if GONE.contains(&error.kind()) => {}
                Err(error) => {
                    // No descriptors, most likely. The idlest client's will do; without one, later rather than at once.
                    self.warn(&error, now);
                    if !self.evict_idlest() {
                        self.accept_at = Some(now + ACCEPT_PAUSE);
                        return;
                    }
                }
            }
        }
    }

    /// Says it, and not again for every client that follows.
    fn warn(&mut self, error: &io::Error, now: Instant) {
        if self.warned.is_none_or(|at| now.since(at) >= WARN_EVERY) {
            self.warned = Some(now);
            log::warn!("a client could not be admitted: {error}");
        }
    }

    fn admit(&mut self, mut socket: TcpStream, now: Instant) -> io::Result<()> {
        while self.clients.len() >= CLIENTS_MAX {
            self.evict_idlest();
        }
        // Answers are written whole; there is nothing to gather.
        let _ = socket.set_nodelay(true);
        let token = Token(usize::try_from(self.next_client).map_err(io::Error::other)?);
        self.next_client += 1;
        self.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        self.clients.push((token, Connection::new(socket, now)));
        Ok(())
    }

    /// False if there is nobody.
    fn evict_idlest(&mut self) -> bool {
        let idlest = self.clients.iter().enumerate().min_by_key(|(_, (_, client))| client.last_active);
        let at = idlest.map(|(at, _)| at);
        at.map(|at| self.clients.remove(at)).is_some()
    }

    fn serve(&mut self, at: usize, now: Instant) {
        let Some((_, client)) = self.clients.get_mut(at) else { return };
        let mut answer = |request: Request| routes::answer(request.route, &mut self.snapshot, &self.gauge);
        let mut left = REQUESTS_MAX;
        while left > 0 {
            left -= 1;
            client.flush(now);
            client.fill(now);
            if let Some(Waiting { request, .. }) =
                client.waiting.take_if(|waiting| self.ticket >= waiting.ticket || now >= waiting.until)
            {
                client.respond(request, &answer(request));
            }
            match client.next_request(now) {
                Next::Request(request) if request.route.needs_snapshot() => {
                    self.ask = true;
                    let until = now + SNAPSHOT_WITHIN;
                    client.waiting = Some(Waiting { request, ticket: self.next_ticket, until });
                    break;
                }
                Next::Request(request) => client.respond(request, &answer(request)),
                Next::Refused => {}
                Next::Nothing => break,
            }
        }
        // Its socket may not speak again for what we already have.
        self.more |= left == 0;
        client.expire(now);
        client.flush(now);
        client.fill(now);
    }

    /// Wakes the loop for everybody who asked since the last time.
    fn ask_loop(&mut self, now: Instant) {
        if self.ask && now >= self.came + ASK_EVERY {
            self.ask = false;
            self.channels.wanted.store(self.next_ticket, Ordering::Release);
            self.next_ticket += 1;
            // A waker fails only when its poll is gone; then the last snapshot is all there is.
            let _ = self.channels.loop_waker.wake();
        }
    }
}
