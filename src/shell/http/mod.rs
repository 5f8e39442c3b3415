//! What the process says of itself: `/status`, `/healthz`, `/readyz`, `/metrics` and the page at `/`.
//!
//! A thread of its own with a poll of its own. The loop never waits for it and never formats for it: when somebody asks,
//! this thread raises a ticket and wakes the loop, the loop hands over one [`Status`] as plain data, and everything else
//! happens here. An answer is therefore newer than its question, unless the loop is late; then it is the last one there
//! was, and says so.

mod connection;
mod routes;
mod server;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender};
use mio::{Poll, Waker};

use super::clock::SystemClock;
use super::watchdog::Gauge;
use crate::status::Status;
use crate::time::{Instant, Span};

/// Without anybody asking, a snapshot is handed over this often, so that a dead loop leaves a fresh one.
const UNASKED_EVERY: Span = Span::from_secs(1);
/// Snapshots on their way; the server takes them all and keeps the newest.
const ON_THE_WAY: usize = 4;
/// After a refused hand-over the loop builds no further snapshot for this long.
const REFUSED_PAUSE: Span = Span::from_ms(20);

/// The loop's end of the hand-over.
#[derive(Debug)]
pub struct Publisher {
    snapshots: Sender<(u64, Box<Status>)>,
    /// The newest ticket that was raised.
    wanted: Arc<AtomicU64>,
    waker: Arc<Waker>,
    /// The ticket that the snapshot being made will answer, and the last that was answered.
    ticket: u64,
    answered: u64,
    asked_at: Instant,
    /// When the last one was handed over; none yet, so that the first is at once.
    published: Option<Instant>,
    not_before: Instant,
}

impl Publisher {
    /// Whether a snapshot made now would be welcome: somebody asked, or the last one is a second old.
    pub fn wanted(&mut self, now: Instant) -> bool {
        self.asked_at = now;
        self.ticket = self.wanted.load(Ordering::Acquire);
        let due = self.published.is_none_or(|at| now.since(at) >= UNASKED_EVERY);
        (self.ticket != self.answered || due) && now >= self.not_before
    }

    /// Hands over what was made after [`wanted`](Self::wanted) said yes. Never waits.
    pub fn publish(&mut self, status: Box<Status>) {
        if self.snapshots.try_send((self.ticket, status)).is_ok() {
            self.answered = self.ticket;
            self.published = Some(self.asked_at);
        } else {
            self.not_before = self.asked_at + REFUSED_PAUSE;
        }
        // A waker fails only when its poll is gone, and then there is nobody left to wake.
        let _ = self.waker.wake();
    }
}

/// The server's thread, as the rest of the process sees it. Dropping it stops the thread without waiting.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    ended: Receiver<()>,
}

impl Server {
    /// Where it listens; the real port if any free one was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it: what is answered is written if that is possible at once. True if the thread ended in time.
    pub fn stop(self, within: Span) -> bool {
        self.tell();
        // The thread's end drops the sender.
        matches!(self.ended.recv_timeout(within.to_std()), Err(crossbeam_channel::RecvTimeoutError::Disconnected))
    }

    fn tell(&self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.waker.wake();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tell();
    }
}

/// The server's ends.
struct Channels {
    snapshots: Receiver<(u64, Box<Status>)>,
    wanted: Arc<AtomicU64>,
    /// Wakes the loop.
    loop_waker: Arc<Waker>,
    /// Wakes the server; kept for as long as its poll lives.
    _waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
}

/// Listens on `listen` and starts the thread. Until the loop's first snapshot, `initial` is what is known.
///
/// # Errors
/// Names the address if it cannot be had.
pub fn start(
    listen: SocketAddr,
    initial: Status,
    gauge: Gauge,
    clock: SystemClock,
    loop_waker: Arc<Waker>,
) -> io::Result<(Server, Publisher)> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}"));
    let listener = std::net::TcpListener::bind(listen).map_err(named)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), server::WAKER)?);
    let (sender, snapshots) = crossbeam_channel::bounded(ON_THE_WAY);
    let (ending, ended) = crossbeam_channel::bounded(0);
    let (wanted, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let channels = Channels {
        snapshots,
        wanted: Arc::clone(&wanted),
        loop_waker,
        _waker: Arc::clone(&waker),
        stop: Arc::clone(&stop),
    };
    let listener = mio::net::TcpListener::from_std(listener);
    let mut state = server::State::new(poll, listener, channels, Box::new(initial), gauge, clock)?;
    thread::Builder::new().name("http".into()).spawn(move || {
        state.run();
        drop(ending);
    })?;
    let publisher = Publisher {
        snapshots: sender,
        wanted,
        waker: Arc::clone(&waker),
        ticket: 0,
        answered: 0,
        asked_at: Instant::ZERO,
        published: None,
        not_before: Instant::ZERO,
    };
    Ok((Server { address, stop, waker, ended }, publisher))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_made_when_asked_for_and_once_a_second() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), server::WAKER).unwrap());
        let (snapshots, received) = crossbeam_channel::bounded(1);
        let wanted = Arc::<AtomicU64>::default();
        let mut publisher = Publisher {
            snapshots,
            wanted: Arc::clone(&wanted),
            waker,
            ticket: 0,
            answered: 0,
            asked_at: Instant::ZERO,
            published: None,
            not_before: Instant::ZERO,
        };
        let at = |ms: u64| Instant::from_ns(ms * 1_000_000);
        let status = || Box::new(crate::shell::sample::status());
        assert!(publisher.wanted(at(0)), "the first one is at once");
        publisher.publish(status());
        assert!(!publisher.wanted(at(1)));
        wanted.store(1, Ordering::Release);
        assert!(publisher.wanted(at(2)));
        publisher.publish(status());
        assert!(!publisher.wanted(at(3)), "refused: not again at once");
        assert!(publisher.wanted(at(22)), "and still owed");
        assert_eq!(received.try_recv().unwrap().0, 0);
        publisher.publish(status());
        assert_eq!(received.try_recv().unwrap().0, 1);
        assert!(!publisher.wanted(at(1_000)));
        assert!(publisher.wanted(at(1_022)), "a second later, unasked");
    }
}
