//! Servers that misbehave, one way each, for tests of a whole process from the outside.
//!
//! A [`BadPeer`] speaks TLS, HTTP and WebSocket well enough to reach the stage that its [`Mode`] is about, and misbehaves
//! there, towards everyone who connects. What it saw of its clients comes out of its log, so that a test can assert from
//! the far side too. It shares no code with what it tests: frames are written and read here by hand.
//!
//! Every wait is a short one under a flag: dropping a [`BadPeer`] stops all its threads, whatever they do.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "a test has clocks and threads of its own")]

mod certificate;
mod line;
mod modes;
mod text;

pub(crate) use modes::{Data, End, Frame, Mode, Subscription, Tls, Upgrade};

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use line::Line;

/// A running server. Dropping it stops it.
pub(crate) struct BadPeer {
    /// Where it listens: a free port of 127.0.0.1.
    pub(crate) address: SocketAddr,
    /// The root to trust, in PEM; empty without TLS. In some modes what is served is not under it.
    pub(crate) ca_pem: String,
    /// What its clients did.
    pub(crate) log: Receiver<Event>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Something seen on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Since the server started.
    pub(crate) at: Duration,
    /// Counted as they were accepted, from 1.
    pub(crate) connection: u64,
    pub(crate) what: What,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Connected,
    /// The TLS handshake is complete.
    Encrypted,
    /// The request line.
    Request(String),
    /// A text message.
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// A close frame with this code.
    Close(Option<u16>),
    /// A frame that RFC 6455 forbids, or none that a client of market data has a reason to send.
    Broken(String),
    /// Nothing follows on this connection. The reason is in words: the client left, or what we did.
    Ended(String),
}

/// What all connections of a server share.
struct Shared {
    mode: Mode,
    tls: Option<Arc<rustls::ServerConfig>>,
    log: Sender<Event>,
    started: Instant,
    stop: AtomicBool,
    /// Of the last trade: they go on over reconnects.
    trade: AtomicU64,
}

impl BadPeer {
    /// Listens, and misbehaves towards everyone who comes, in this mode; with TLS under a certificate of its own or
    /// without.
    pub(crate) fn start(mode: Mode, tls: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("a socket that can be asked without waiting");
        let (tls, ca_pem) = match tls {
            true => {
                let (config, pem) = certificate::certify(mode).expect("a certificate");
                (Some(config), pem)
            }
            false => (None, String::new()),
        };
        let (tell, log) = channel();
        let shared = Arc::new(Shared {
            mode,
            tls,
            log: tell,
            started: Instant::now(),
            stop: AtomicBool::new(false),
            trade: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("badpeer".into()).spawn(move || accept(&listener, &theirs));
        Self { address, ca_pem, log, shared, thread: Some(thread.expect("a thread")) }
    }

    /// The next event for which `wanted` is true, if it comes within this span. Those before it are gone.
    pub(crate) fn find(&self, within: Duration, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let until = Instant::now() + within;
        loop {
            let event = self.log.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?;
            if wanted(&event) {
                return Some(event);
            }
        }
    }

    /// `ws://` or `wss://` and the address.
    pub(crate) fn base(&self) -> String {
        format!("{}://{}", if self.ca_pem.is_empty() { "ws" } else { "wss" }, self.address)
    }
}

impl Drop for BadPeer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn tell(&self, connection: u64, what: What) {
        // A test that dropped its end is not interested.
        let _ = self.log.send(Event { at: self.started.elapsed(), connection, what });
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut accepted = 0;
    while !shared.stopped() {
        match listener.accept() {
            // More than a client has a reason to hold: dropped at once.
            Ok(_) if threads.len() >= CONNECTIONS_MAX => {}
            Ok((stream, _)) => {
                accepted += 1;
                let (number, shared) = (accepted, Arc::clone(shared));
                let thread = thread::Builder::new().name(format!("badpeer {number}"));
                threads.extend(thread.spawn(move || serve(stream, &shared, number)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(TICK),
            Err(_) => thread::sleep(TICK),
        }
        threads.retain(|thread| !thread.is_finished());
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn serve(stream: std::net::TcpStream, shared: &Arc<Shared>, number: u64) {
    shared.tell(number, What::Connected);
    let mut line = Line::new(stream, Arc::clone(shared), number);
    let why = match modes::play(shared.mode, &mut line) {
        Ok(()) => "done".to_owned(),
        Err(line::Gone(why)) => why,
    };
    // First the socket, then the news of it.
    drop(line);
    shared.tell(number, What::Ended(why));
}

/// Connections at once.
const CONNECTIONS_MAX: usize = 32;
/// How long a thread with nothing to do sleeps before it looks again.
const TICK: Duration = Duration::from_millis(2);
