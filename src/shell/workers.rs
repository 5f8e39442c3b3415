//! Work that blocks, done by lanes of threads: a [`Job`] goes in, a [`Reply`] comes back and wakes the loop.
//!
//! A lane is a bounded queue and a bounded number of threads. The loop only ever tries: a full lane is
//! [`Reply::Overloaded`] at once. A job that hangs costs its thread, a job that panics costs its reply; neither costs
//! the lane. The engine keeps each job's deadline; a reply that comes after it is counted here and dropped there.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender};
use mio::Waker;

use super::clock::SystemClock;
use crate::config::Url;
use crate::engine::{GetFailure, Job, JobId, Reply, Response};
use crate::status;
use crate::time::{Instant, Span};

/// Jobs that may wait in one lane.
const QUEUE: usize = 64;
/// Threads for name lookups: the system's resolver can hold each for half a minute.
const RESOLVERS: u64 = 4;
/// Threads for REST: as many as the engine has calls under way.
const CALLERS: u64 = 4;
/// Replies that may wait for the loop: more than can exist, so that no thread ever waits to deliver one.
const REPLIES: usize = 4 * (QUEUE + 16);
const _: () = assert!(REPLIES as u64 > 2 * QUEUE as u64 + RESOLVERS + CALLERS);

/// Looks up a host's addresses; takes as long as it likes.
pub type Resolve = Arc<dyn Fn(&str, u16) -> Result<Vec<SocketAddr>, String> + Send + Sync>;

/// GETs a target below a base address within this time.
pub type Get = Arc<dyn Fn(&Url, &str, Span) -> Result<Response, GetFailure> + Send + Sync>;

/// All lanes, as the loop sees them.
pub struct Workers {
    resolver: Lane,
    rest: Lane,
    replies: Receiver<(JobId, Reply)>,
    /// Jobs without a reply and when the engine gives up on them. A handful.
    pending: Vec<Pending>,
}

struct Pending {
    id: JobId,
    deadline: Instant,
    lane: LaneName,
    /// Its deadline has passed and was counted.
    overdue: bool,
}

/// Which lane does a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneName {
    Resolver,
    Rest,
}

impl Workers {
    /// Starts one thread per lane; the lanes start more of their own when they need them.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(clock: SystemClock, waker: Arc<Waker>, resolve: Resolve, get: Get) -> io::Result<Self> {
        let (outgoing, replies) = crossbeam_channel::bounded(REPLIES);
        let deliver = Deliver { replies: outgoing, waker };
        let handler: Handler = Arc::new(move |job, within| match job {
            Job::Resolve { host, port } => Reply::Resolved(resolve(host, *port)),
            Job::Get { base, target } => Reply::Got(get(base, target, within)),
        });
        let resolver = Lane::start("resolver", RESOLVERS, clock, Arc::clone(&handler), deliver.clone())?;
        let rest = Lane::start("rest", CALLERS, clock, handler, deliver)?;
        Ok(Self { resolver, rest, replies, pending: Vec::new() })
    }

    /// Hands a job to its lane.
    ///
    /// # Errors
    /// The reply, if the lane is full: nothing was begun.
    pub fn submit(&mut self, id: JobId, job: Job, deadline: Instant) -> Result<(), Reply> {
        let lane = match job {
            Job::Resolve { .. } => LaneName::Resolver,
            Job::Get { .. } => LaneName::Rest,
        };
        self.lane(lane).submit(Task { id, job, deadline })?;
        self.pending.push(Pending { id, deadline, lane, overdue: false });
        Ok(())
    }

    fn lane(&self, name: LaneName) -> &Lane {
        match name {
            LaneName::Resolver => &self.resolver,
            LaneName::Rest => &self.rest,
        }
    }

    /// The next reply, in the order in which they came. They are few: a turn takes all there are.
    pub fn next_reply(&mut self, now: Instant) -> Option<(JobId, Reply)> {
        let (id, reply) = self.replies.try_recv().ok()?;
        if let Some(at) = self.pending.iter().position(|job| job.id == id) {
            let job = self.pending.swap_remove(at);
            if now >= job.deadline && !job.overdue {
                self.count_timeout(job.lane);
            }
        }
        Some((id, reply))
    }

    /// The lanes' figures.
    pub fn status(&mut self, now: Instant) -> status::Workers {
        let mut late = Vec::new();
        for job in self.pending.iter_mut().filter(|job| !job.overdue && now >= job.deadline) {
            job.overdue = true;
            late.push(job.lane);
        }
        late.into_iter().for_each(|lane| self.count_timeout(lane));
        let (resolver, rest) = (self.resolver.status(), self.rest.status());
        status::Workers { resolver, rest, ..status::Workers::default() }
    }

    fn count_timeout(&self, lane: LaneName) {
        self.lane(lane).shared.timeouts.fetch_add(1, Ordering::Relaxed);
    }
}

/// The system's own resolver.
#[must_use]
pub fn system_resolver() -> Resolve {
    Arc::new(|host, port| {
        let addresses = (host, port).to_socket_addrs().map_err(|error| error.to_string())?;
        let mut unique: Vec<SocketAddr> = Vec::new();
        for address in addresses {
            if !unique.contains(&address) {
                unique.push(address);
            }
        }
        if unique.is_empty() { Err("the name has no addresses".into()) } else { Ok(unique) }
    })
}

/// Does one job, for which so much time is left.
type Handler = Arc<dyn Fn(&Job, Span) -> Reply + Send + Sync>;

struct Task {
    id: JobId,
    job: Job,
    deadline: Instant,
}

/// The way back to the loop.
#[derive(Clone)]
struct Deliver {
    replies: Sender<(JobId, Reply)>,
    waker: Arc<Waker>,
}

/// One bounded queue and its threads.
struct Lane {
    queue: Sender<Task>,
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    tasks: Receiver<Task>,
    handler: Handler,
    deliver: Deliver,
    clock: SystemClock,
    threads_max: u64,
    threads: AtomicU64,
    in_flight: AtomicU64,
    timeouts: AtomicU64,
}

impl Lane {
    fn start(
        name: &'static str,
        threads_max: u64,
        clock: SystemClock,
        handler: Handler,
        deliver: Deliver,
    ) -> io::Result<Self> {
        let (queue, tasks) = crossbeam_channel::bounded(QUEUE);
        let shared = Arc::new(Shared {
            name,
            tasks,
            handler,
            deliver,
            clock,
            threads_max,
            threads: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
        });
        shared.start_thread()?;
        Ok(Self { queue, shared })
    }

    fn submit(&self, task: Task) -> Result<(), Reply> {
        self.queue.try_send(task).map_err(|_| Reply::Overloaded)
    }

    fn status(&self) -> status::Lane {
        status::Lane {
            queued: self.queue.len() as u64,
            in_flight: self.shared.in_flight.load(Ordering::Relaxed),
            timeouts: self.shared.timeouts.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let more = |threads| (threads < self.threads_max).then_some(threads + 1);
        let Ok(number) = self.threads.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) else { return Ok(()) };
        let this = Arc::clone(self);
        let started =
            thread::Builder::new().name(format!("{}-{number}", self.name)).spawn(move || this.work()).map(|_| ());
        if started.is_err() {
            self.threads.fetch_sub(1, Ordering::AcqRel);
        }
        started
    }

    /// Before a thread begins what may hang it, it sees to it that another one is left for the next job. So the loop
    /// never starts threads, and those it has do not inherit the core that it is pinned to.
    fn keep_one_free(self: &Arc<Self>) {
        let busy = self.in_flight.fetch_add(1, Ordering::AcqRel) + 1;
        if busy >= self.threads.load(Ordering::Acquire)
            && let Err(error) = self.start_thread()
        {
            log::warn!("no further {} thread: {error}", self.name);
        }
    }

    fn work(self: &Arc<Self>) {
        while let Ok(task) = self.tasks.recv() {
            self.keep_one_free();
            // What waited too long is not begun: nobody wants it any more.
            let left = task.deadline.since(self.clock.mono());
            let reply = if left == Span::ZERO { Reply::Overloaded } else { self.run(&task.job, left) };
            self.in_flight.fetch_sub(1, Ordering::AcqRel);
            if self.deliver.replies.send((task.id, reply)).is_err() {
                return;
            }
            // A waker fails only when its poll is gone, and then there is nobody left to wake.
            let _ = self.deliver.waker.wake();
        }
    }

    fn run(&self, job: &Job, left: Span) -> Reply {
        catch_unwind(AssertUnwindSafe(|| (self.handler)(job, left))).unwrap_or_else(|_| {
            log::error!("a {} job panicked", self.name);
            match job {
                Job::Resolve { .. } => Reply::Resolved(Err("the resolver panicked".into())),
                Job::Get { .. } => Reply::Got(Err(GetFailure { words: "the call panicked".into(), sent: true })),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::reactor::Reactor;
    use crate::time::Span;
    use std::sync::Mutex;
    use std::sync::mpsc;
    use std::time::Duration;

    struct Bench {
        reactor: Reactor,
        workers: Workers,
        clock: SystemClock,
    }

    impl Bench {
        fn new(resolve: Resolve) -> Self {
            let (reactor, clock) = (Reactor::new().unwrap(), SystemClock::start());
            let workers = Workers::start(clock, reactor.waker(), resolve, Arc::new(echo)).unwrap();
            Self { reactor, workers, clock }
        }

        fn ask(&mut self, id: u64, host: &str) -> Result<(), Reply> {
            let job = Job::Resolve { host: host.into(), port: 443 };
            self.workers.submit(JobId(id), job, Instant::FAR)
        }

        /// The next reply, waiting only where the loop would.
        fn reply(&mut self) -> (u64, Reply) {
            for _ in 0..400 {
                if let Some((id, reply)) = self.workers.next_reply(self.clock.mono()) {
                    return (id.0, reply);
                }
                self.reactor.wait(self.clock.mono() + Span::from_ms(50), &self.clock, false).unwrap();
            }
            panic!("no reply");
        }
    }

    /// Answers with the target; one that is not wanted panics.
    fn echo(_: &Url, target: &str, within: Span) -> Result<Response, GetFailure> {
        assert_ne!(target, "panic");
        assert!(within > Span::ZERO);
        Ok(Response { status: 200, body: target.into(), ..Response::default() })
    }

    fn found() -> Reply {
        Reply::Resolved(Ok(vec!["10.0.0.1:443".parse().unwrap()]))
    }

    /// Names that begin with `hang` do not return before the gate is opened.
    fn scripted() -> (Resolve, mpsc::Sender<()>) {
        let (open, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let resolve: Resolve = Arc::new(move |host, port| {
            if host.starts_with("hang") {
                let _ = gate.lock().unwrap_or_else(|e| e.into_inner()).recv_timeout(Duration::from_secs(60));
            }
            assert_ne!(host, "panic");
            Ok(vec![SocketAddr::new([10, 0, 0, 1].into(), port)])
        });
        (resolve, open)
    }

    #[test]
    fn a_hung_lookup_costs_its_thread_only() {
        let (resolve, open) = scripted();
        let mut bench = Bench::new(resolve);
        for id in 0..3 {
            bench.ask(id, "hang").unwrap();
        }
        bench.ask(10, "works").unwrap();
        assert_eq!(bench.reply(), (10, found()));
        bench.ask(11, "works").unwrap();
        assert_eq!(bench.reply(), (11, found()));
        assert_eq!(bench.workers.status(Instant::ZERO).resolver.in_flight, 3);
        drop(open);
        let mut ids = [bench.reply().0, bench.reply().0, bench.reply().0];
        ids.sort_unstable();
        assert_eq!(ids, [0, 1, 2]);
    }

    #[test]
    fn a_lane_without_threads_left_fills_and_says_so() {
        let (resolve, open) = scripted();
        let mut bench = Bench::new(resolve);
        let refused = (0..500).map(|id| bench.ask(id, "hang")).filter(Result::is_err).count();
        assert!((500 - QUEUE - RESOLVERS as usize..=500 - QUEUE).contains(&refused), "{refused} were refused");
        assert_eq!(bench.ask(1000, "works"), Err(Reply::Overloaded));
        drop(open);
        for _ in 0..500 - refused {
            bench.reply();
        }
        bench.ask(1001, "works").unwrap();
        assert_eq!(bench.reply(), (1001, found()));
        assert_eq!(bench.workers.pending.len(), 0);
    }

    #[test]
    fn a_panic_is_a_reply_and_the_lane_lives() {
        let (resolve, _open) = scripted();
        let mut bench = Bench::new(resolve);
        for id in 0..10 {
            bench.ask(id, "panic").unwrap();
            assert_eq!(bench.reply(), (id, Reply::Resolved(Err("the resolver panicked".into()))));
        }
        bench.ask(11, "works").unwrap();
        assert_eq!(bench.reply(), (11, found()));
        assert_eq!(bench.workers.status(Instant::ZERO).resolver.in_flight, 0);
    }

    #[test]
    fn calls_have_a_lane_of_their_own() {
        let (resolve, _open) = scripted();
        let mut bench = Bench::new(resolve);
        (0..10).for_each(|id| bench.ask(id, "hang").unwrap());
        let base = Url::parse("http://localhost").unwrap();
        let job = |target: &str| Job::Get { base: base.clone(), target: target.into() };
        for id in 20..30 {
            bench.workers.submit(JobId(id), job("panic"), Instant::FAR).unwrap();
            let Reply::Got(Err(failure)) = bench.reply().1 else { panic!("another reply") };
            assert!(failure.sent, "nobody knows");
        }
        bench.workers.submit(JobId(30), job("/x"), Instant::FAR).unwrap();
        let Reply::Got(Ok(response)) = bench.reply().1 else { panic!("another reply") };
        assert_eq!(response.body, b"/x");
        assert_eq!(bench.workers.status(Instant::ZERO).rest.in_flight, 0);
    }

    #[test]
    fn what_waited_too_long_is_counted_and_not_begun() {
        let mut bench = Bench::new(Arc::new(|_, _| panic!("begun")));
        let job = Job::Resolve { host: "late".into(), port: 1 };
        bench.workers.submit(JobId(1), job, Instant::ZERO).unwrap();
        assert_eq!(bench.workers.status(bench.clock.mono()).resolver.timeouts, 1);
        assert_eq!(bench.reply(), (1, Reply::Overloaded));
        assert_eq!(bench.workers.status(bench.clock.mono()).resolver.timeouts, 1, "counted once");
    }

    #[test]
    fn the_system_resolves_literals_and_refuses_rubbish() {
        let resolve = system_resolver();
        assert_eq!(resolve("127.0.0.1", 9), Ok(vec!["127.0.0.1:9".parse().unwrap()]));
        assert!(resolve("a name with spaces", 9).is_err());
    }
}
