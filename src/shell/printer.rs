//! Lines for a stream that may block: a bounded queue and a thread that writes.
//!
//! Whoever prints never waits. If the reader at the other end is too slow, lines are dropped and counted, and the count
//! is written as soon as there is room again.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::time::Span;

/// Lines that fit into the queue.
pub const LINES: usize = 8_192;
/// Between two looks at whether everything was written, and before a full non-blocking stream is tried again.
const GRAIN: Duration = Duration::from_millis(1);
/// Between two notices about lost lines while they go on getting lost.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What is said about so many lost lines; without the line feed.
pub type Lost = fn(u64) -> String;

/// Hands lines to the writing thread. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Printer {
    queue: Sender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Lines that entered the queue.
    queued: AtomicU64,
    /// Lines that left it, whether or not the stream took them.
    done: AtomicU64,
    /// Lines that found the queue full or whose write failed.
    dropped: AtomicU64,
}

impl Printer {
    /// Starts the thread `name` that writes to `out`. `lost` words the notice about dropped lines, if there shall be one.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(name: &str, out: impl Write + Send + 'static, lost: Option<Lost>) -> io::Result<Self> {
        Self::with_capacity(name, out, lost, LINES)
    }

    /// To the standard output.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn stdout() -> io::Result<Self> {
        Self::start("stdout", io::stdout(), None)
    }

    fn with_capacity(
        name: &str,
        out: impl Write + Send + 'static,
        lost: Option<Lost>,
        lines: usize,
    ) -> io::Result<Self> {
        let (queue, incoming) = crossbeam_channel::bounded(lines);
        let counts = Arc::<Counts>::default();
        let shared = Arc::clone(&counts);
        thread::Builder::new().name(name.into()).spawn(move || write_all_lines(&incoming, out, &shared, lost))?;
        Ok(Self { queue, counts })
    }

    /// Hands over one or more whole lines, each ending with a line feed. False if they were dropped.
    pub fn print(&self, lines: Vec<u8>) -> bool {
        let taken = self.queue.try_send(lines).is_ok();
        let count = if taken { &self.counts.queued } else { &self.counts.dropped };
        count.fetch_add(1, Ordering::Release);
        taken
    }

    /// Lines lost so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything printed before this call was written, or `within` is over. True if it was written.
    pub fn flush(&self, within: Span) -> bool {
        let goal = self.counts.queued.load(Ordering::Acquire);
        let end = Instant::now() + within.to_std().min(Duration::from_secs(3600));
        loop {
            if self.counts.done.load(Ordering::Acquire) >= goal {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(GRAIN);
        }
    }
}

fn write_all_lines(incoming: &Receiver<Vec<u8>>, mut out: impl Write, counts: &Counts, lost: Option<Lost>) {
    let (mut told, mut told_at) = (0, Instant::now());
    while let Ok(lines) = incoming.recv() {
        if put(&mut out, &lines).is_err() {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            let dropped = counts.dropped.load(Ordering::Relaxed);
            // Room again: the queue is empty, or lines have been getting lost for a while.
            if let Some(lost) = lost
                && dropped > told
                && (incoming.is_empty() || told_at.elapsed() >= TELL_EVERY)
                && put(&mut out, format!("{}\n", lost(dropped - told)).as_bytes()).is_ok()
            {
                (told, told_at) = (dropped, Instant::now());
            }
        }
        counts.done.fetch_add(1, Ordering::Release);
    }
}

/// As `write_all`, for streams that somebody else made non-blocking too: a terminal's settings are shared.
fn put(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(GRAIN),
            Err(error) => return Err(error),
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Takes nothing until it is opened.
    #[derive(Clone, Default)]
    struct Gate(Arc<Mutex<Vec<u8>>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_stream_costs_lines_and_says_how_many() {
        let gate = Gate::default();
        let shut = gate.0.lock().unwrap();
        let printer =
            Printer::with_capacity("test", gate.clone(), Some(|n| format!("{n} lines were dropped")), 4).unwrap();
        let taken = (0..100).filter(|n| printer.print(format!("line {n}\n").into_bytes())).count();
        assert!((4..=5).contains(&taken), "{taken} lines were taken: the queue holds 4, the thread one");
        assert_eq!(printer.dropped(), 100 - taken as u64);
        assert!(!printer.flush(Span::from_ms(5)), "nothing can have been written");
        drop(shut);
        assert!(printer.flush(Span::from_secs(20)));
        let text = String::from_utf8(gate.0.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("line 0\n"), "{text}");
        assert!(text.contains(&format!("\n{} lines were dropped\n", 100 - taken)), "{text}");
        assert_eq!(text.matches("dropped").count(), 1, "told once: {text}");
    }

    /// Fails as a closed pipe does.
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_counted_and_harmless() {
        let printer = Printer::start("test", Broken, None).unwrap();
        assert!(printer.print(b"a\n".to_vec()));
        assert!(printer.print(b"b\n".to_vec()));
        assert!(printer.flush(Span::from_secs(20)));
        assert_eq!(printer.dropped(), 2);
    }
}
