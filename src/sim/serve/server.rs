//! The server's thread: whom to listen to, whom to obey, what is due.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

use super::clock::{Clock, Lines};
use super::faults::{Faults, Strike};
use super::socket::{End, FIRST_PEER, LINGER, Wire};
use super::{Job, Order, STOP_WITHIN, ServeOptions};
use crate::sim::hub::{Hub, PeerId};
use crate::sim::peer::Rules;

/// The thread's whole state.
pub(super) struct Server<R> {
    pub(super) poll: Poll,
    /// Kept here too: a wake-up given just before its sender is dropped must not be lost.
    pub(super) _waker: Arc<Waker>,
    /// `None` while the port is closed.
    pub(super) listener: Option<TcpListener>,
    pub(super) address: SocketAddr,
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    pub(super) options: ServeOptions,
    pub(super) hub: Hub<R>,
    pub(super) wires: BTreeMap<PeerId, Wire>,
    /// Connections that were left with bytes to read, so that none starves the others.
    pub(super) again: Vec<PeerId>,
    /// The listener may have someone waiting.
    pub(super) accepting: bool,
    pub(super) faults: Faults,
    pub(super) frozen_until: Option<Instant>,
    /// The earliest [`Wire::until`].
    pub(super) sweep_at: Option<Instant>,
    pub(super) clock: Clock,
    pub(super) lines: Lines,
    pub(super) buffer: Vec<u8>,
}

impl<R: Rules> Server<R> {
    pub(super) fn run(mut self, inbox: &Receiver<Order<R>>) {
        let mut events = Events::with_capacity(1024);
        let last = loop {
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("the exchange cannot wait for its sockets: {error}");
                return;
            }
            let mut ready = std::mem::take(&mut self.again);
            self.note(&events, &mut ready);
            match self.orders(inbox) {
                Some(job) => break job,
                None => self.turn(ready),
            }
        };
        self.close(&mut events);
        let utc = self.clock.utc();
        last(&mut self.hub, utc);
    }

    /// One turn: who came, what time it is, who is ready, who was spoken to.
    fn turn(&mut self, ready: Vec<PeerId>) {
        if self.frozen_until.is_some_and(|until| Instant::now() >= until) {
            self.frozen_until = None;
            self.again.extend(self.wires.keys());
        }
        let utc = self.clock.utc();
        // The exchange goes on in a frozen world: what it says then arrives late and in a heap.
        self.hub.advance(utc);
        if self.frozen_until.is_none() {
            self.accept();
            for id in ready {
                self.service(id);
            }
            while let Some(id) = self.hub.poll_touched() {
                self.service(id);
            }
            if self.faults.tick().is_some() {
                let waiting: Vec<_> = self.wires.keys().copied().collect();
                waiting.into_iter().for_each(|id| self.service(id));
            }
        }
        self.sweep();
    }

    fn timeout(&mut self) -> Duration {
        let utc = self.clock.utc();
        let now = Instant::now();
        let mut timeout = TURN_MAX;
        let due = self.hub.next_due();
        if due.0 < utc.0.saturating_add(TURN_MAX.as_millis() as i64) {
            timeout = Duration::from_millis(u64::try_from(due.0 - utc.0).unwrap_or(0));
        }
        match self.frozen_until {
            Some(until) => timeout = timeout.min(until.saturating_duration_since(now)),
            None => {
                if !self.again.is_empty() {
                    timeout = Duration::ZERO;
                }
                if let Some(tick) = self.faults.tick() {
                    timeout = timeout.min(tick);
                }
            }
        }
        if let Some(at) = self.sweep_at {
            timeout = timeout.min(at.saturating_duration_since(now));
        }
        timeout
    }

    /// Takes down who became ready, each once.
    fn note(&mut self, events: &Events, ready: &mut Vec<PeerId>) {
        for event in events {
            match event.token() {
                WAKER => {}
                LISTENER => self.accepting = true,
                Token(token) => {
                    let id = PeerId((token - FIRST_PEER) as u64);
                    if let Some(wire) = self.wires.get_mut(&id) {
                        wire.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                        ready.push(id);
                    }
                }
            }
        }
        ready.sort_unstable();
        ready.dedup();
    }

    /// Obeys what other threads want; gives back the job that ends the server.
    fn orders(&mut self, inbox: &Receiver<Order<R>>) -> Option<Job<R>> {
        loop {
            match inbox.try_recv() {
                Ok(Order::With(job)) => {
                    let utc = self.clock.utc();
                    job(&mut self.hub, utc);
                }
                Ok(Order::Set(faults)) => self.set(faults),
                Ok(Order::Strike(strike, reply)) => {
                    let struck = self.wires.len();
                    self.strike(strike);
                    let _ = reply.send(struck);
                }
                Ok(Order::Stop(job)) => return Some(job),
                Err(TryRecvError::Empty) => return None,
                // Unreachable while `Served` says goodbye in its drop; then it means the same.
                Err(TryRecvError::Disconnected) => return Some(Box::new(|_, _| {})),
            }
        }
    }

    fn set(&mut self, faults: Faults) {
        if faults.port_closed {
            self.listener = None;
        } else if self.listener.is_none() {
            match self.listen() {
                Ok(listener) => self.listener = Some(listener),
                Err(error) => log::error!("cannot listen on {} again: {error}", self.address),
            }
            self.accepting = true;
        }
        self.faults = faults;
        // What the old faults held back may move now.
        self.again.extend(self.wires.keys());
    }

    fn listen(&self) -> io::Result<TcpListener> {
        let mut listener = TcpListener::bind(self.address)?;
        self.poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(listener)
    }

    fn strike(&mut self, strike: Strike) {
        let ids: Vec<_> = self.wires.keys().copied().collect();
        match strike {
            Strike::Reset => ids.into_iter().for_each(|id| self.end(id, End::Reset)),
            Strike::Fin => {
                for id in ids {
                    // Kept for a while without being read: dropped at once it could become a reset.
                    if let Some(wire) = self.wires.get_mut(&id) {
                        let _ = wire.stream.shutdown(Shutdown::Write);
                        wire.held = true;
                        wire.drop_after(LINGER, &mut self.sweep_at);
                    }
                    self.hub.gone(id);
                }
            }
            Strike::Hold => self.wires.values_mut().for_each(|wire| wire.held = true),
            Strike::Freeze(span) => self.frozen_until = Some(Instant::now() + span),
        }
    }

    fn accept(&mut self) {
        while self.accepting {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, from)) => self.welcome(stream, from),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.accepting = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Out of descriptors, or the client left: try again a turn later.
                    self.lines.say(|| format!("cannot accept: {error}"));
                    return;
                }
            }
        }
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        if self.sweep_at.is_none_or(|at| now < at) {
            return;
        }
        let late: Vec<_> =
            self.wires.iter().filter(|(_, wire)| wire.until.is_some_and(|at| now >= at)).map(|(id, _)| *id).collect();
        late.into_iter().for_each(|id| self.end(id, End::Late));
        self.sweep_at = self.wires.values().filter_map(|wire| wire.until).min();
    }

    /// Says goodbye to everyone, for at most [`STOP_WITHIN`].
    fn close(&mut self, events: &mut Events) {
        self.listener = None;
        self.faults = Faults::default();
        self.frozen_until = None;
        self.hub.close_all();
        let until = Instant::now() + STOP_WITHIN;
        loop {
            let mut ready = std::mem::take(&mut self.again);
            self.note(events, &mut ready);
            for id in ready {
                self.service(id);
            }
            while let Some(id) = self.hub.poll_touched() {
                self.service(id);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.wires.values().all(|wire| wire.held) {
                break;
            }
            let wait = if self.again.is_empty() { left } else { Duration::ZERO };
            if let Err(error) = self.poll.poll(events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                break;
            }
        }
        let ids: Vec<_> = self.wires.keys().copied().collect();
        ids.into_iter().for_each(|id| self.end(id, End::Late));
    }
}

pub(super) const WAKER: Token = Token(0);
pub(super) const LISTENER: Token = Token(1);
/// Longest wait for sockets.
const TURN_MAX: Duration = Duration::from_millis(500);
pub(super) const READ_SIZE: usize = 16 * 1024;
