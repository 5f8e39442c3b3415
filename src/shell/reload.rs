//! The configuration read again, on a thread of its own: a file can take as long as it likes, the loop never waits for it.
//!
//! One reading is under way at most, and one more is remembered: it begins after the last wish for it, so that it sees
//! what was written before.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::Waker;

use crate::config::{Config, Streams};

/// Reads the configuration again; its complaints otherwise, each a line. Takes as long as it likes.
pub type Reload = Arc<dyn Fn() -> Answer + Send + Sync>;

/// What became of a reading.
pub type Answer = Result<Config, Vec<String>>;

/// The thread that reads, as the loop sees it.
pub struct Reloader {
    running: Config,
    /// `None` where there is nothing to read.
    wishes: Option<Sender<()>>,
    answers: Receiver<Answer>,
}

impl Reloader {
    /// Starts the thread, if there is something to read. `running` is what the process runs with, `waker` wakes the loop
    /// for an answer.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(running: Config, reload: Option<Reload>, waker: Arc<Waker>) -> io::Result<Self> {
        let (deliver, answers) = bounded(1);
        let wishes = reload.map(|reload| {
            let (wishes, wished) = bounded(1);
            let work = move || work(&reload, &wished, &deliver, &waker);
            thread::Builder::new().name("reload".into()).spawn(work).map(|_| wishes)
        });
        Ok(Self { running, wishes: wishes.transpose()?, answers })
    }

    /// The operator wants it.
    pub fn wish(&self) {
        let Some(wishes) = &self.wishes else {
            log::warn!("SIGHUP: there is no configuration file to read again; nothing changes");
            return;
        };
        // Full means that a reading is remembered that has not begun: it will do for this wish as well.
        let _ = wishes.try_send(());
    }

    /// The symbols wanted from now on, if a reading has ended and found some. What it says otherwise is logged.
    pub fn next_streams(&mut self) -> Option<Box<Streams>> {
        let answer = self.answers.try_recv().ok()?;
        let reloaded = answer.and_then(|file| self.running.reloaded(&file).map_err(|words| vec![words]));
        match reloaded {
            Ok(reloaded) => {
                if !reloaded.unchanged.is_empty() {
                    let keys = reloaded.unchanged.join(", ");
                    log::warn!("SIGHUP: not changed while running: {keys}: restart to change them");
                }
                self.running.streams = reloaded.streams.clone();
                Some(Box::new(reloaded.streams))
            }
            Err(complaints) => {
                for complaint in complaints {
                    log::warn!("SIGHUP: nothing changes: {complaint}");
                }
                None
            }
        }
    }
}

/// Ends when the loop has.
fn work(reload: &Reload, wished: &Receiver<()>, deliver: &Sender<Answer>, waker: &Waker) {
    while wished.recv().is_ok() {
        let answer = catch_unwind(AssertUnwindSafe(|| reload()))
            .unwrap_or_else(|_| Err(vec!["reading the configuration panicked".to_owned()]));
        if deliver.send(answer).is_err() {
            return;
        }
        // A waker fails only when its poll is gone, and then there is nobody left to wake.
        let _ = waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Pattern, Url};
    use crate::shell::clock::SystemClock;
    use crate::shell::reactor::Reactor;
    use crate::time::Span;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    fn config(symbols: &[&str]) -> Config {
        Config::for_exchange(symbols, Url::parse("wss://localhost:1").unwrap(), None, None)
    }

    struct Bench {
        reactor: Reactor,
        reloader: Reloader,
        clock: SystemClock,
    }

    impl Bench {
        fn new(reload: Option<Reload>) -> Self {
            let (reactor, clock) = (Reactor::new().unwrap(), SystemClock::start());
            let reloader = Reloader::start(config(&["BTCUSDT"]), reload, reactor.waker()).unwrap();
            Self { reactor, reloader, clock }
        }

        /// The next answer, waiting only where the loop would.
        fn answer(&mut self) -> Option<Box<Streams>> {
            for _ in 0..400 {
                if !self.reloader.answers.is_empty() {
                    return self.reloader.next_streams();
                }
                self.reactor.wait(self.clock.mono() + Span::from_ms(50), &self.clock, false).unwrap();
            }
            panic!("no answer");
        }
    }

    #[test]
    fn a_wish_during_a_reading_is_one_more_and_further_ones_are_the_same() {
        let (begun, begins) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let readings = AtomicUsize::new(0);
        let mut bench = Bench::new(Some(Arc::new(move || {
            let number = readings.fetch_add(1, Ordering::Relaxed);
            begun.send(()).unwrap();
            let _ = gate.lock().unwrap_or_else(|e| e.into_inner()).recv();
            Ok(config(&[["ETHUSDT", "SOLUSDT", "XRPUSDT"][number]]))
        })));
        bench.reloader.wish();
        begins.recv().unwrap();
        for _ in 0..5 {
            bench.reloader.wish();
        }
        assert!(bench.reloader.next_streams().is_none(), "the loop does not wait");
        drop(open);
        assert_eq!(bench.answer().unwrap().symbols, ["ETHUSDT"]);
        assert_eq!(bench.answer().unwrap().symbols, ["SOLUSDT"]);
        assert_eq!(bench.reloader.running.streams.symbols, ["SOLUSDT"]);
        assert!(begins.recv().is_ok() && begins.try_recv().is_err(), "two readings");
    }

    #[test]
    fn what_cannot_be_had_changes_nothing_and_the_thread_lives() {
        let asked = AtomicUsize::new(0);
        let mut bench = Bench::new(Some(Arc::new(move || match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Err(vec!["edge.toml:1: streams.symbols: expected something".to_owned()]),
            1 => panic!("as some parsers do"),
            2 => {
                let mut by_pattern = config(&["ETHUSDT"]);
                by_pattern.streams.patterns.extend(Pattern::parse("all"));
                Ok(by_pattern)
            }
            _ => Ok(config(&["ETHUSDT"])),
        })));
        for _ in 0..3 {
            bench.reloader.wish();
            assert!(bench.answer().is_none());
            assert_eq!(bench.reloader.running, config(&["BTCUSDT"]));
        }
        bench.reloader.wish();
        assert_eq!(bench.answer().unwrap().symbols, ["ETHUSDT"]);
    }

    #[test]
    fn without_a_file_a_wish_is_refused() {
        let mut bench = Bench::new(None);
        bench.reloader.wish();
        assert!(bench.reloader.next_streams().is_none());
    }
}
