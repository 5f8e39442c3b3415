//! What the operator says with signals: SIGINT and SIGTERM stop the process, a second one ends it, SIGHUP reloads.
//!
//! One wish to stop can arrive as two signals: `timeout` signals its child and then the whole group, a terminal the group
//! and a wrapper its child again. What comes within [`SAME_SIGNAL`] of the first is therefore the first again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use mio::Waker;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals as Incoming;

/// What was asked for and not yet taken.
#[derive(Clone, Debug)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    /// Takes the signals over, for the rest of the process's life. Every signal wakes the loop.
    ///
    /// # Errors
    /// If the system refuses a handler or the thread.
    pub fn install(waker: Arc<Waker>) -> io::Result<Self> {
        let this = Self { stop: Arc::default(), reload: Arc::default() };
        signal_hook::flag::register(SIGHUP, Arc::clone(&this.reload))?;
        // A file that hits its size limit is a failed write, not the end of the process.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        listen(&[SIGINT, SIGTERM, SIGHUP], Arc::clone(&this.stop), move || {
            // A waker fails only when its poll is gone, and then there is nobody left to wake.
            let _ = waker.wake();
        })?;
        Ok(this)
    }

    /// True from the first SIGINT or SIGTERM on.
    #[must_use]
    pub fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// True once for any number of SIGHUPs since the last call.
    #[must_use]
    pub fn take_reload(&self) -> bool {
        self.reload.load(Ordering::Relaxed) && self.reload.swap(false, Ordering::Relaxed)
    }
}

/// The same for a process without a loop and with nothing to reload: a hangup does to it what it always did. Something
/// can be received once a stop is asked for.
///
/// # Errors
/// As [`Signals::install`].
pub fn stop_alone() -> io::Result<Receiver<()>> {
    let (tell, told) = bounded(1);
    listen(&[SIGINT, SIGTERM], Arc::default(), move || {
        // Full means that it was told already.
        let _ = tell.try_send(());
    })?;
    Ok(told)
}

/// Raises `stop` with the first SIGINT or SIGTERM, ends the process with the second, and wakes with each of `signals`.
fn listen(signals: &[i32], stop: Arc<AtomicBool>, wake: impl Fn() + Send + 'static) -> io::Result<()> {
    let armed = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Inside the handler itself, whatever any thread is stuck in.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&armed))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut incoming = Incoming::new(signals)?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in incoming.forever() {
            wake();
            if stop.load(Ordering::Relaxed) && !armed.load(Ordering::Relaxed) {
                thread::sleep(SAME_SIGNAL);
                armed.store(true, Ordering::Relaxed);
            }
        }
    })?;
    Ok(())
}

/// Nobody presses Ctrl-C twice in this time.
const SAME_SIGNAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    /// SIGHUP alone: the other two would end the test process for whoever runs it.
    #[test]
    fn a_hangup_wakes_the_loop_and_is_taken_once() {
        let mut poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let signals = Signals::install(Arc::clone(&waker)).unwrap();
        assert!(!signals.stop() && !signals.take_reload());
        signal_hook::low_level::raise(SIGHUP).unwrap();
        let mut events = mio::Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
        assert!(!events.is_empty(), "the loop was not woken");
        assert!(signals.take_reload());
        assert!(!signals.take_reload());
        assert!(!signals.stop());
    }
}
