//! The exchange behind real loopback sockets with TLS, for other people's clients and for tests of our own sockets.
//!
//! One thread owns the exchange, its [`Hub`] and every socket; others reach in by closures that it runs between two
//! turns ([`Served::with`]). Nothing here knows the exchange's rules. What it adds is time, TLS, and the ways in which a
//! transport fails: [`Faults`] hold until they are changed, a [`Strike`] happens once.
#![allow(clippy::disallowed_methods, reason = "real sockets and threads for the exchange")]

mod clock;
mod faults;
mod lost_syn;
mod server;
mod socket;
mod tls;

pub use faults::{Faults, Pace, Strike};
pub use lost_syn::{LostSyn, lost_syn};

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use mio::net::TcpListener;
use mio::{Interest, Poll, Waker};

use super::hub::Hub;
use super::peer::{Rules, Tally};
use crate::time::UtcMs;
use clock::{Clock, Lines};
use server::{LISTENER, READ_SIZE, Server, WAKER};
use tls::certify;

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

/// How long another thread waits for the server to come to its order; a turn takes far less.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long clients have to take the goodbye when the server stops.
pub const STOP_WITHIN: Duration = Duration::from_millis(500);
