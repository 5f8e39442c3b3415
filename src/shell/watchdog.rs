//! Watches the loop from outside: names a turn that takes too long, and ends a process whose loop has died.
//!
//! The loop says where it is by storing one number. A thread looks at it every few milliseconds. Sleeping in
//! [`wait`](super::reactor::Reactor::wait) is not a stall; not coming back from it is.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fmt, thread};

use super::clock::SystemClock;
use crate::engine::SessionId;
use crate::status::Turns;
use crate::time::{Instant, Span};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The most that one look can add to the time without a turn: if the whole process was stopped, or starved, this thread
/// was too, and that is not the loop's fault.
const LOOK_MAX: Span = Span::from_ms(250);
/// The last line must not wait for whoever reads the standard error.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Upper ends of the histogram's classes; the last class has none.
const CLASSES: [Span; 5] =
    [Span::from_us(10), Span::from_us(100), Span::from_ms(1), Span::from_ms(10), Span::from_ms(100)];

/// What the loop is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for sockets and wakers.
    Sleep,
    /// Reading a session's socket and handling what it said.
    Read(SessionId),
    /// Obeying a command for a session.
    Obey(SessionId),
    /// Writing to a session's socket.
    Write(SessionId),
    /// Handling replies of workers.
    Replies,
    /// Handling what is due.
    Timers,
    /// Printing notes.
    Notes,
    /// Handing a snapshot to the server.
    Publish,
}

impl Stage {
    fn pack(self) -> u64 {
        let (number, session) = match self {
            Self::Sleep => (0, 0),
            Self::Read(session) => (1, session.0),
            Self::Obey(session) => (2, session.0),
            Self::Write(session) => (3, session.0),
            Self::Replies => (4, 0),
            Self::Timers => (5, 0),
            Self::Notes => (6, 0),
            Self::Publish => (7, 0),
        };
        number << 32 | u64::from(session)
    }

    fn unpack(word: u64) -> Self {
        // The low half holds a u32 by construction.
        let session = SessionId((word & 0xffff_ffff) as u32);
        match word >> 32 & 0xff {
            1 => Self::Read(session),
            2 => Self::Obey(session),
            3 => Self::Write(session),
            4 => Self::Replies,
            5 => Self::Timers,
            6 => Self::Notes,
            7 => Self::Publish,
            _ => Self::Sleep,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sleep => f.write_str("waking up"),
            Self::Read(session) => write!(f, "reading session {}", session.0),
            Self::Obey(session) => write!(f, "obeying for session {}", session.0),
            Self::Write(session) => write!(f, "writing to session {}", session.0),
            Self::Replies => f.write_str("handling replies"),
            Self::Timers => f.write_str("handling timers"),
            Self::Notes => f.write_str("printing notes"),
            Self::Publish => f.write_str("publishing a snapshot"),
        }
    }
}

/// The loop's numbers. One thread writes them, any thread reads.
#[derive(Debug, Default)]
struct Shared {
    /// The stage in the low 40 bits, the turn's last 24 bits above them.
    word: AtomicU64,
    /// When the present or last turn began.
    began_ns: AtomicU64,
    /// When the last turn ended.
    ended_ns: AtomicU64,
    turns: AtomicU64,
    stalls: AtomicU64,
    /// The last turn that was counted as a stall; turns begin at 1.
    stalled_turn: AtomicU64,
    max_ns: AtomicU64,
    sum_ns: AtomicU64,
    /// Turns by class, not cumulative.
    classes: [AtomicU64; 6],
}

/// The loop's end: says where it is.
#[derive(Debug)]
pub struct Beat {
    shared: Arc<Shared>,
    stall: Span,
    turn: u64,
    began: Instant,
}

/// Anybody's end: how the loop is.
#[derive(Clone, Debug)]
pub struct Gauge {
    shared: Arc<Shared>,
    clock: SystemClock,
}

/// When the watchdog speaks and when it bites.
pub struct Limits {
    /// A turn longer than this is counted and named.
    pub stall: Span,
    /// Without a turn for this long, the process is ended.
    pub give_up: Span,
    /// Ends it, having said so. [`abort`] outside of tests.
    pub end: fn(String),
}

impl Limits {
    /// As the contract has them.
    #[must_use]
    pub fn new(stall: Span) -> Self {
        Self { stall, give_up: Span::from_secs(10), end: abort }
    }
}

/// Starts the watching thread. It ends when the [`Beat`] is dropped.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(limits: Limits, clock: SystemClock) -> io::Result<(Beat, Gauge)> {
    let shared = Arc::<Shared>::default();
    // The time of starting up is not the loop's.
    shared.ended_ns.store(clock.mono().as_ns(), Ordering::Relaxed);
    let watched = Arc::downgrade(&shared);
    let stall = limits.stall;
    thread::Builder::new().name("watchdog".into()).spawn(move || {
        let mut watch = Watch::new(limits, clock.mono());
        while let Some(shared) = watched.upgrade() {
            watch.look(&shared, clock.mono());
            drop(shared);
            thread::sleep(LOOK_EVERY);
        }
    })?;
    let beat = Beat { shared: Arc::clone(&shared), stall, turn: 0, began: Instant::ZERO };
    Ok((beat, Gauge { shared, clock }))
}

impl Beat {
    /// The loop has woken: a turn begins.
    pub fn wake(&mut self, now: Instant) {
        self.turn += 1;
        self.began = now;
        self.shared.began_ns.store(now.as_ns(), Ordering::Relaxed);
        self.stage(Stage::Timers);
    }

    /// The loop is about to do this. One store.
    pub fn stage(&mut self, stage: Stage) {
        self.shared.word.store((self.turn & 0xff_ffff) << 40 | stage.pack(), Ordering::Release);
    }

    /// The turn is over, the loop goes to sleep.
    pub fn sleep(&mut self, now: Instant) {
        let shared = &self.shared;
        let took = now.since(self.began);
        let word = shared.word.load(Ordering::Relaxed);
        shared.ended_ns.store(now.as_ns(), Ordering::Relaxed);
        shared.sum_ns.store(shared.sum_ns.load(Ordering::Relaxed).saturating_add(took.as_ns()), Ordering::Relaxed);
        if took.as_ns() > shared.max_ns.load(Ordering::Relaxed) {
            shared.max_ns.store(took.as_ns(), Ordering::Relaxed);
        }
        let class = CLASSES.iter().position(|end| took <= *end).unwrap_or(CLASSES.len());
        if let Some(class) = shared.classes.get(class) {
            class.store(class.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        shared.turns.store(self.turn, Ordering::Relaxed);
        if took > self.stall {
            shared.count_stall(self.turn);
            log::warn!("the loop's turn {} took {took}, it ended {}", self.turn, Stage::unpack(word));
        }
        self.stage(Stage::Sleep);
    }
}

impl Drop for Beat {
    /// The loop is over; the process may live on without it for the rest of a clean stop.
    fn drop(&mut self) {
        self.shared.word.store(u64::MAX, Ordering::Release);
    }
}

impl Shared {
    /// Counts a turn once, whoever notices it first.
    fn count_stall(&self, turn: u64) {
        if self.stalled_turn.fetch_max(turn, Ordering::AcqRel) < turn {
            self.stalls.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Gauge {
    /// Since the end of the last turn.
    #[must_use]
    pub fn last_turn_age(&self) -> Span {
        let ended = Instant::from_ns(self.shared.ended_ns.load(Ordering::Relaxed));
        self.clock.mono().since(ended)
    }

    /// Since the end of the last turn, for `/healthz`.
    #[must_use]
    pub fn last_turn_age_ms(&self) -> u64 {
        self.last_turn_age().as_ms()
    }

    /// The figures of `/status`.
    #[must_use]
    pub fn turns(&self) -> Turns {
        let shared = &self.shared;
        let mut sum = 0;
        let turn_histogram = std::array::from_fn(|class| {
            sum += shared.classes.get(class).map_or(0, |count| count.load(Ordering::Relaxed));
            sum
        });
        Turns {
            turns: shared.turns.load(Ordering::Relaxed),
            stalls: shared.stalls.load(Ordering::Relaxed),
            max_turn_us: Span::from_ns(shared.max_ns.load(Ordering::Relaxed)).as_us(),
            turn_histogram,
            turn_sum_us: Span::from_ns(shared.sum_ns.load(Ordering::Relaxed)).as_us(),
        }
    }
}

/// The watching thread's memory.
struct Watch {
    limits: Limits,
    looked: Instant,
    /// The end of the last turn when we looked, and the time we have seen pass since then.
    ended_ns: u64,
    without_turn: Span,
    /// The turn that was named.
    named: u64,
}

impl Watch {
    fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, looked: now, ended_ns: 0, without_turn: Span::ZERO, named: u64::MAX }
    }

    fn look(&mut self, shared: &Shared, now: Instant) {
        let passed = now.since(self.looked).min(LOOK_MAX);
        self.looked = now;
        let word = shared.word.load(Ordering::Acquire);
        if word == u64::MAX {
            return;
        }
        let began = Instant::from_ns(shared.began_ns.load(Ordering::Relaxed));
        let ended_ns = shared.ended_ns.load(Ordering::Relaxed);
        let turns = shared.turns.load(Ordering::Relaxed);
        let (stage, turn) = (Stage::unpack(word), word >> 40);
        if ended_ns != self.ended_ns {
            self.ended_ns = ended_ns;
            self.without_turn = Span::ZERO;
        } else {
            self.without_turn = Span::from_ns(self.without_turn.as_ns() + passed.as_ns());
        }
        let so_far = now.since(began);
        // The numbers are of one turn only if that turn still runs after they were read.
        let same_turn = shared.word.load(Ordering::Acquire) >> 40 == turn && (turns + 1) & 0xff_ffff == turn;
        if stage != Stage::Sleep && same_turn && so_far > self.limits.stall && turn != self.named {
            self.named = turn;
            shared.count_stall(turns + 1);
            log::warn!("the loop's turn {} has taken {so_far} so far, it is {stage}", turns + 1);
        }
        if self.without_turn >= self.limits.give_up {
            (self.limits.end)(format!("no turn of the loop for {}, it is {stage}: aborting", self.without_turn));
            self.without_turn = Span::ZERO;
        }
    }
}

/// Writes a last line to the standard error, if that takes it at once, and aborts the process.
pub fn abort(line: String) {
    let at = super::clock::utc_now();
    let (done, written) = crossbeam_channel::bounded::<()>(1);
    let writer = thread::Builder::new().name("last words".into()).spawn(move || {
        let _ = writeln!(io::stderr(), "{at} ERROR watchdog {line}");
        drop(done);
    });
    if writer.is_ok() {
        let _ = written.recv_timeout(LAST_WORDS);
    }
    std::process::abort();
}

#[cfg(test)]
mod tests;
