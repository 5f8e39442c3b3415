//! The exchange behind real loopback sockets with TLS, for other people's clients and for tests of our own sockets.
//!
//! One thread owns the exchange, its [`Hub`] and every socket; others reach in by closures that it runs between two
//! turns ([`Served::with`]). Nothing here knows the exchange's rules. What it adds is time, TLS, and the ways in which a
//! transport fails: [`Faults`] hold until they are changed, a [`Strike`] happens once.
#![allow(clippy::disallowed_methods, reason = "real sockets and threads for the exchange")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, unbounded};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use rustls::ServerConnection;
use socket2::SockRef;

use super::hub::{Hub, PeerId};
use super::peer::{Ending, Rules, Stage, Tally};
use crate::time::UtcMs;

/// How to serve.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// TLS 1.2 and 1.3 under a certificate made at the start; without it plain `ws://` and `http://`.
    pub tls: bool,
    /// Connections at once; more are reset.
    pub connections_max: usize,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self { tls: true, connections_max: 1024 }
    }
}

/// How fast the bytes of a stage leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As the client reads.
    #[default]
    Normal,
    /// Not at all.
    Mute,
    /// One byte each time this long has passed.
    Trickle(Duration),
}

/// What is wrong with the transport, from now until it is set otherwise, for every connection in that stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The port is closed: connecting is refused. Open connections stay.
    pub port_closed: bool,
    /// Our side of the TLS handshake.
    pub tls: Pace,
    /// The 101 answer.
    pub upgrade: Pace,
    /// Everything on an open WebSocket.
    pub frames: Pace,
    /// REST answers and refusals.
    pub rest: Pace,
    /// Nothing is read any more; what is queued still leaves.
    pub deaf: bool,
}

/// Something that befalls all present connections at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// RST.
    Reset,
    /// FIN without a close frame or a TLS goodbye.
    Fin,
    /// Half-open: the sockets stay, nothing is read or sent on them ever again.
    Hold,
    /// Nothing moves for this long, not even for those who come meanwhile; then everything that was queued leaves. A
    /// later freeze takes the place of an earlier one, so one of no length is a thaw.
    Freeze(Duration),
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Served<R> {
    /// Where it listens.
    pub address: SocketAddr,
    /// The certificate to trust, in PEM; empty without TLS.
    pub ca_pem: String,
    orders: Sender<Order<R>>,
    waker: Arc<Waker>,
    /// Ends when the thread has ended.
    done: Receiver<()>,
}

/// What a server says when it stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closing {
    /// Connections accepted.
    pub connections: u64,
    /// What passed through them.
    pub tally: Tally,
}

type Job<R> = Box<dyn FnOnce(&mut Hub<R>, UtcMs) + Send>;

enum Order<R> {
    With(Job<R>),
    Set(Faults),
    Strike(Strike, Sender<usize>),
    Stop(Job<R>),
}

impl<R> std::fmt::Debug for Order<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Order")
    }
}

/// Serves an exchange at `listen` (port 0: any free one). `build` makes it on the server's own thread, since an
/// exchange need not be `Send`; clients that come before it is built wait.
///
/// # Errors
/// The address cannot be listened on, or the thread or the certificate cannot be made.
pub fn serve<R: Rules + 'static>(
    listen: SocketAddr,
    build: impl FnOnce(UtcMs) -> R + Send + 'static,
    options: ServeOptions,
) -> io::Result<Served<R>> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let mut listener = TcpListener::bind(listen)?;
    let address = listener.local_addr()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (tls, ca_pem) = if options.tls {
        let (config, pem) = certify(address.ip()).map_err(io::Error::other)?;
        (Some(config), pem)
    } else {
        (None, String::new())
    };
    let (orders, inbox) = unbounded();
    let (ended, done) = bounded(1);
    let thread_waker = Arc::clone(&waker);
    std::thread::Builder::new().name("exchange".into()).spawn(move || {
        let mut clock = Clock::default();
        let hub = Hub::new(build(clock.utc()));
        let server = Server {
            poll,
            _waker: thread_waker,
            listener: Some(listener),
            address,
            tls,
            options,
            hub,
            wires: BTreeMap::new(),
            again: Vec::new(),
            accepting: true,
            faults: Faults::default(),
            frozen_until: None,
            sweep_at: None,
            clock,
            lines: Lines::default(),
            buffer: vec![0; READ_SIZE],
        };
        server.run(&inbox);
        drop(ended);
    })?;
    Ok(Served { address, ca_pem, orders, waker, done })
}

impl<R: Rules + 'static> Served<R> {
    /// Runs `f` on the server's thread, where the exchange may be looked at and changed; `None` if the server does not
    /// come to it within [`ANSWER_WITHIN`].
    pub fn with<T: Send + 'static>(&self, f: impl FnOnce(&mut R, UtcMs) -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = bounded(1);
        let job: Job<R> = Box::new(move |hub, utc| {
            let _ = reply.send(hub.with(|rules| f(rules, utc)));
        });
        self.order(Order::With(job))?;
        answer.recv_timeout(ANSWER_WITHIN).ok()
    }

    /// What passed through so far; `None` as in [`with`](Self::with).
    pub fn closing(&self) -> Option<Closing> {
        let (reply, answer) = bounded(1);
        self.order(Order::With(Box::new(move |hub, _| {
            let _ = reply.send(Closing { connections: hub.accepted(), tally: hub.tally() });
        })))?;
        answer.recv_timeout(ANSWER_WITHIN).ok()
    }

    /// Sets what is wrong with the transport; false if the server is gone. It holds for everything done afterwards.
    pub fn set(&self, faults: Faults) -> bool {
        self.order(Order::Set(faults)).is_some()
    }

    /// Strikes all present connections, and says how many there were; `None` as in [`with`](Self::with).
    pub fn strike(&self, strike: Strike) -> Option<usize> {
        let (reply, answer) = bounded(1);
        self.order(Order::Strike(strike, reply))?;
        answer.recv_timeout(ANSWER_WITHIN).ok()
    }

    /// Stops: closes every WebSocket with 1001, gives clients [`STOP_WITHIN`] to take it, then reads the exchange's
    /// books with `f` one last time. `None` if the server does not end in time.
    pub fn stop<T: Send + 'static>(self, f: impl FnOnce(&mut R, Closing) -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = bounded(1);
        self.order(Order::Stop(Box::new(move |hub, _| {
            let closing = Closing { connections: hub.accepted(), tally: hub.tally() };
            let _ = reply.send(hub.with(|rules| f(rules, closing)));
        })))?;
        answer.recv_timeout(ANSWER_WITHIN).ok()
    }
}

impl<R> Served<R> {
    fn order(&self, order: Order<R>) -> Option<()> {
        self.orders.send(order).ok()?;
        // If the wake-up fails the server still looks once a turn, and a turn has a bound.
        let _ = self.waker.wake();
        Some(())
    }
}

impl<R> Drop for Served<R> {
    fn drop(&mut self) {
        let _ = self.order(Order::Stop(Box::new(|_, _| {})));
        // Disconnected is the end of the thread. One that is stuck is left behind rather than waited for.
        match self.done.recv_timeout(ANSWER_WITHIN) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => log::warn!("the exchange's thread did not end in time"),
        }
    }
}

/// The thread's whole state.
struct Server<R> {
    poll: Poll,
    /// Kept here too: a wake-up given just before its sender is dropped must not be lost.
    _waker: Arc<Waker>,
    /// `None` while the port is closed.
    listener: Option<TcpListener>,
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    options: ServeOptions,
    hub: Hub<R>,
    wires: BTreeMap<PeerId, Wire>,
    /// Connections that were left with bytes to read, so that none starves the others.
    again: Vec<PeerId>,
    /// The listener may have someone waiting.
    accepting: bool,
    faults: Faults,
    frozen_until: Option<Instant>,
    /// The earliest [`Wire::until`].
    sweep_at: Option<Instant>,
    clock: Clock,
    lines: Lines,
    buffer: Vec<u8>,
}

/// One socket.
struct Wire {
    stream: TcpStream,
    tls: Option<Box<ServerConnection>>,
    /// Bytes for the socket; the first `sent` have left.
    out: Vec<u8>,
    sent: usize,
    readable: bool,
    /// The client sends no more.
    eof: bool,
    /// We send no more.
    fin: bool,
    held: bool,
    /// When a trickling stage gives its next byte.
    next_byte: Option<Instant>,
    /// When an ending connection is dropped whatever the client does.
    until: Option<Instant>,
}

/// Why a socket is dropped.
#[derive(Clone, Copy)]
enum End {
    /// Both sides said goodbye.
    Clean,
    /// The client did not take the goodbye in time.
    Late,
    /// By a fault, the exchange, or a limit.
    Reset,
    /// The client is gone.
    Gone(io::ErrorKind),
    /// Not TLS, or not ours.
    Tls,
}

impl<R: Rules> Server<R> {
    fn run(mut self, inbox: &Receiver<Order<R>>) {
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

    fn welcome(&mut self, mut stream: TcpStream, from: SocketAddr) {
        if self.wires.len() >= self.options.connections_max {
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            self.lines.say(|| format!("connection from {from} reset: {} are open", self.options.connections_max));
            return;
        }
        let tls = match &self.tls {
            None => None,
            Some(config) => match ServerConnection::new(Arc::clone(config)) {
                Ok(tls) => Some(Box::new(tls)),
                Err(error) => {
                    self.lines.say(|| format!("connection from {from} dropped: {error}"));
                    return;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let id = self.hub.accept();
        let token = Token(FIRST_PEER + id.0 as usize);
        let registered = self.poll.registry().register(&mut stream, token, Interest::READABLE.add(Interest::WRITABLE));
        if let Err(error) = registered {
            self.hub.gone(id);
            self.lines.say(|| format!("connection from {from} dropped: {error}"));
            return;
        }
        self.lines.say(|| format!("connection {} from {from}", id.0));
        let wire = Wire {
            stream,
            tls,
            out: Vec::new(),
            sent: 0,
            readable: true,
            eof: false,
            fin: false,
            held: false,
            next_byte: None,
            until: None,
        };
        self.wires.insert(id, wire);
        self.again.push(id);
    }

    /// Reads what is there, sends what is queued, and ends what has ended.
    fn service(&mut self, id: PeerId) {
        if self.frozen_until.is_some() || self.wires.get(&id).is_none_or(|wire| wire.held) {
            return;
        }
        if let Err(end) = self.read(id).and_then(|()| self.write(id)).and_then(|()| self.finish(id)) {
            self.end(id, end);
        }
    }

    fn read(&mut self, id: PeerId) -> Result<(), End> {
        let utc = self.clock.utc();
        let Some(wire) = self.wires.get_mut(&id) else { return Ok(()) };
        let mut reads = 0;
        while wire.readable && !wire.eof && !self.faults.deaf {
            if reads == READS_PER_TURN {
                self.again.push(id);
                break;
            }
            reads += 1;
            let read = match &mut wire.tls {
                None => wire.stream.read(&mut self.buffer),
                Some(tls) => tls.read_tls(&mut wire.stream),
            };
            let n = match read {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wire.readable = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(End::Gone(error.kind())),
            };
            wire.eof = n == 0;
            match &mut wire.tls {
                None => self.hub.received(id, &self.buffer[..n], utc),
                Some(tls) => {
                    let Ok(state) = tls.process_new_packets() else {
                        // The alert says why, if the client still listens.
                        let _ = tls.write_tls(&mut wire.stream);
                        return Err(End::Tls);
                    };
                    wire.eof |= state.peer_has_closed();
                    let mut left = state.plaintext_bytes_to_read();
                    while left > 0 {
                        match tls.reader().read(&mut self.buffer) {
                            Ok(n) if n > 0 => {
                                left = left.saturating_sub(n);
                                self.hub.received(id, &self.buffer[..n], utc);
                            }
                            _ => break,
                        }
                    }
                }
            }
        }
        if wire.eof {
            self.hub.eof(id);
        }
        Ok(())
    }

    fn write(&mut self, id: PeerId) -> Result<(), End> {
        let Some(wire) = self.wires.get_mut(&id) else { return Ok(()) };
        let now = Instant::now();
        loop {
            let mut moved = 0;
            let handshaking = wire.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
            if !handshaking && wire.out.len() - wire.sent < OUT_HIGH {
                let queued = self.hub.transmit(id);
                let (pace, stage_len) = match self.hub.stage(id) {
                    Stage::Http => (self.faults.rest, queued.len()),
                    Stage::Upgrading(left) => (self.faults.upgrade, left),
                    Stage::Open => (self.faults.frames, queued.len()),
                };
                let n = pace.allow(stage_len.min(queued.len()).min(OUT_HIGH), now, &mut wire.next_byte);
                if n > 0 {
                    moved = match &mut wire.tls {
                        Some(tls) => tls.writer().write(&queued[..n]).unwrap_or(0),
                        None => {
                            wire.out.extend_from_slice(&queued[..n]);
                            n
                        }
                    };
                    self.hub.transmitted(id, moved);
                }
            }
            if let Some(tls) = &mut wire.tls {
                while tls.wants_write() {
                    // Into memory: cannot fail.
                    let _ = tls.write_tls(&mut wire.out);
                }
            }
            let queued = wire.out.len() - wire.sent;
            let pace = if handshaking { self.faults.tls } else { Pace::Normal };
            let n = pace.allow(queued, now, &mut wire.next_byte);
            if n > 0 {
                match wire.stream.write(&wire.out[wire.sent..wire.sent + n]) {
                    Ok(n) => {
                        moved += n;
                        wire.sent += n;
                        if wire.sent == wire.out.len() {
                            wire.out.clear();
                            wire.sent = 0;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(End::Gone(error.kind())),
                }
            }
            if moved == 0 {
                return Ok(());
            }
        }
    }

    /// Takes an ending connection one step further.
    fn finish(&mut self, id: PeerId) -> Result<(), End> {
        let Some(wire) = self.wires.get_mut(&id) else { return Ok(()) };
        match self.hub.ending(id) {
            None => return Ok(()),
            Some(Ending::Cut) => return Err(End::Reset),
            Some(Ending::Close) => {}
        }
        // What a fault holds back may take longer.
        if self.faults == Faults::default() {
            wire.drop_after(LINGER, &mut self.sweep_at);
        }
        if self.hub.transmit(id).is_empty() && wire.out.is_empty() && !wire.fin {
            wire.fin = true;
            if let Some(tls) = &mut wire.tls {
                tls.send_close_notify();
                let _ = tls.write_tls(&mut wire.out);
                let _ = wire.stream.write(&wire.out);
                wire.out.clear();
            }
            // The reading side stays open for a while: dropping the socket with unread bytes would reset it, and the
            // client could lose what was just sent.
            let _ = wire.stream.shutdown(Shutdown::Write);
        }
        if wire.fin && wire.eof { Err(End::Clean) } else { Ok(()) }
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

    fn end(&mut self, id: PeerId, end: End) {
        let Some(mut wire) = self.wires.remove(&id) else { return };
        let _ = self.poll.registry().deregister(&mut wire.stream);
        if matches!(end, End::Reset) {
            // A linger of zero makes the close an RST.
            let _ = SockRef::from(&wire.stream).set_linger(Some(Duration::ZERO));
        }
        let tally = self.hub.tally_of(id);
        self.hub.gone(id);
        self.lines.say(|| {
            let why = match end {
                End::Clean => "closed".to_owned(),
                End::Late => "closed without the client's goodbye".to_owned(),
                End::Reset => "reset by us".to_owned(),
                End::Gone(kind) => format!("client gone: {kind}"),
                End::Tls => "TLS failed".to_owned(),
            };
            format!(
                "connection {} ended ({why}): {} requests, {} messages in, {} frames out",
                id.0, tally.requests, tally.messages, tally.frames
            )
        });
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

impl Wire {
    /// Sets, once, how long the connection may still take to end.
    fn drop_after(&mut self, span: Duration, sweep_at: &mut Option<Instant>) {
        let until = *self.until.get_or_insert_with(|| Instant::now() + span);
        *sweep_at = Some(sweep_at.map_or(until, |at| at.min(until)));
    }
}

impl Pace {
    /// How many of `queued` bytes may leave now.
    fn allow(self, queued: usize, now: Instant, next_byte: &mut Option<Instant>) -> usize {
        match self {
            Self::Normal => queued,
            Self::Mute => 0,
            Self::Trickle(every) => {
                if queued == 0 || next_byte.is_some_and(|at| now < at) {
                    return 0;
                }
                *next_byte = Some(now + every);
                1
            }
        }
    }
}

impl Faults {
    /// How often trickling connections have to be looked at; `None` if nothing trickles.
    fn tick(&self) -> Option<Duration> {
        [self.tls, self.upgrade, self.frames, self.rest]
            .into_iter()
            .filter_map(|pace| match pace {
                Pace::Trickle(every) => Some(every),
                Pace::Normal | Pace::Mute => None,
            })
            .min()
    }
}

/// The wall clock, which for the exchange never goes back.
#[derive(Default)]
struct Clock {
    last: i64,
}

impl Clock {
    fn utc(&mut self) -> UtcMs {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last = self.last.max(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        UtcMs(self.last)
    }
}

/// Log lines about connections, so many a second: a storm of clients is not a storm of lines.
struct Lines {
    since: Instant,
    said: u32,
    hushed: u64,
}

impl Default for Lines {
    fn default() -> Self {
        Self { since: Instant::now(), said: 0, hushed: 0 }
    }
}

impl Lines {
    fn say(&mut self, line: impl FnOnce() -> String) {
        if self.since.elapsed() >= Duration::from_secs(1) {
            if self.hushed > 0 {
                log::info!("{} more lines about connections left out", self.hushed);
            }
            *self = Self::default();
        }
        if self.said == LINES_PER_SECOND {
            self.hushed += 1;
            return;
        }
        self.said += 1;
        log::info!("{}", line());
    }
}

/// A fresh CA and a leaf for the loopback addresses under it: the server's configuration, and the CA in PEM. Neither
/// key leaves the process.
fn certify(ip: IpAddr) -> Result<(Arc<rustls::ServerConfig>, String), Box<dyn std::error::Error + Send + Sync>> {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
        SanType,
    };
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "binance-edge built-in exchange");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca = params.self_signed(&ca_key)?;
    let issuer = Issuer::new(params, ca_key);

    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    if !ip.is_unspecified() && !addresses.contains(&ip) {
        addresses.push(ip);
    }
    params.subject_alt_names.extend(addresses.into_iter().map(SanType::IpAddress));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Asked for by strict verifiers such as Python's.
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, &issuer)?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.into())?;
    Ok((Arc::new(config), ca.pem()))
}

/// An address where every SYN is lost: a listener whose queue is full and never emptied.
#[derive(Debug)]
pub struct LostSyn {
    /// Connecting here neither succeeds nor fails.
    pub address: SocketAddr,
    _listener: socket2::Socket,
    _queue: Vec<std::net::TcpStream>,
}

/// Listens on a free port of `ip` and fills the queue.
///
/// # Errors
/// The port cannot be had, or the system's queue does not fill.
pub fn lost_syn(ip: IpAddr) -> io::Result<LostSyn> {
    let listener =
        socket2::Socket::new(socket2::Domain::for_address(SocketAddr::new(ip, 0)), socket2::Type::STREAM, None)?;
    listener.bind(&SocketAddr::new(ip, 0).into())?;
    listener.listen(0)?;
    let address = listener.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no address"))?;
    let mut queue = Vec::new();
    for _ in 0..SYN_QUEUE_MAX {
        match std::net::TcpStream::connect_timeout(&address, SYN_WAIT) {
            Ok(stream) => queue.push(stream),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Ok(LostSyn { address, _listener: listener, _queue: queue });
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("the listen queue does not fill"))
}

const WAKER: Token = Token(0);
const LISTENER: Token = Token(1);
const FIRST_PEER: usize = 2;

/// How long another thread waits for the server to come to its order; a turn takes far less.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long clients have to take the goodbye when the server stops.
pub const STOP_WITHIN: Duration = Duration::from_millis(500);
/// How long a connection that ends may take to flush and to hear the client's goodbye.
const LINGER: Duration = Duration::from_secs(2);
/// Longest wait for sockets.
const TURN_MAX: Duration = Duration::from_millis(500);
/// Reads of one connection before the others have their turn.
const READS_PER_TURN: usize = 8;
const READ_SIZE: usize = 16 * 1024;
/// Bytes given to TLS and the socket ahead of what the client takes; the rest waits in the peer, where it is counted.
const OUT_HIGH: usize = 64 * 1024;
const LINES_PER_SECOND: u32 = 40;
/// On loopback an accepted SYN is answered in microseconds.
const SYN_WAIT: Duration = Duration::from_millis(300);
const SYN_QUEUE_MAX: usize = 16;
