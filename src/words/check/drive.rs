//! All endpoints at once: sessions in a small loop of their own, HTTP endpoints on their threads, and one end for all.

use super::direct::Direct;
use super::socket::{Input, Probe};
use super::stages::{Cause, Failure, Log};
use crate::engine::{Event, Job, JobId, Reply, SessionId};
use crate::net::Request;
use crate::shell::clock::SystemClock;
use crate::shell::reactor::Reactor;
use crate::shell::rest;
use crate::shell::workers::{Resolve, Workers};
use crate::time::{Instant, Span};
use crossbeam_channel::Receiver;
use std::io;
use std::sync::Arc;
use std::thread;

/// How long connections may take to say goodbye, and threads to hand in what they have, when the time is over.
const GRACE: Span = Span::from_ms(300);

/// How an endpoint is tried.
pub(super) enum Way {
    Socket(Box<Probe>),
    Direct(Box<Direct>),
}

/// Tries each endpoint once. Returns what became of them, in their order, when all are done, or `whole` is over.
///
/// # Errors
/// If this machine has no descriptors or threads for it.
pub(super) fn run(ways: Vec<Way>, whole: Span, clock: SystemClock, resolve: &Resolve) -> io::Result<Vec<Log>> {
    let reactor = Reactor::new()?;
    let workers =
        Workers::start(clock, reactor.waker(), Arc::clone(resolve), rest::client(None, Arc::clone(resolve), clock))?;
    let (hand_in, handed_in) = crossbeam_channel::bounded(ways.len());
    let mut places = Vec::new();
    let mut probes = Vec::new();
    for (index, way) in ways.into_iter().enumerate() {
        match way {
            Way::Socket(probe) => {
                places.push(Place::Socket(probes.len()));
                probes.push(*probe);
            }
            Way::Direct(direct) => {
                places.push(Place::Direct(direct.log(clock.mono())));
                let (hand_in, resolve, waker) = (hand_in.clone(), Arc::clone(resolve), reactor.waker());
                thread::Builder::new().name(format!("check-{index}")).spawn(move || {
                    let _ = hand_in.send((index, direct.run(&resolve, clock)));
                    let _ = waker.wake();
                })?;
            }
        }
    }
    drop(hand_in);
    let mut results: Vec<Option<Log>> = places.iter().map(|_| None).collect();
    let mut driver = Driver { probes, reactor, workers, clock };
    driver.turn_until_done(whole, &handed_in, &mut results)?;
    let mut logs: Vec<_> = driver.probes.into_iter().map(|probe| Some(probe.into_log())).collect();
    let now = clock.mono();
    let finish = |(place, result): (Place, Option<Log>)| match place {
        Place::Socket(at) => logs.get_mut(at).and_then(Option::take),
        Place::Direct(mut log) => result.or_else(|| {
            // Its own deadlines end it earlier, unless its thread died.
            log.fail(Failure::new(Cause::Machine, "the check itself failed"), now);
            Some(log)
        }),
    };
    Ok(places.into_iter().zip(results).filter_map(finish).collect())
}

/// Where an endpoint's result comes from.
enum Place {
    Socket(usize),
    /// With a log in which nothing has happened, should its thread be lost.
    Direct(Log),
}

struct Driver {
    probes: Vec<Probe>,
    reactor: Reactor,
    workers: Workers,
    clock: SystemClock,
}

impl Driver {
    fn turn_until_done(
        &mut self,
        whole: Span,
        handed_in: &Receiver<(usize, Log)>,
        results: &mut [Option<Log>],
    ) -> io::Result<()> {
        let until = Instant::ZERO + whole;
        let mut missing = results.len() - self.probes.len();
        let mut leave_at = Instant::FAR;
        for at in 0..self.probes.len() {
            self.tell(at, Input::Timeout);
        }
        loop {
            while let Ok((index, log)) = handed_in.try_recv() {
                results[index] = Some(log);
                missing -= 1;
            }
            let now = self.clock.mono();
            for at in 0..self.probes.len() {
                if now >= until && !self.probes[at].is_over() {
                    self.probes[at].expire(whole, now);
                    self.obey(at);
                } else if self.probes[at].deadline() <= now {
                    self.tell(at, Input::Timeout);
                }
            }
            let known = missing == 0 && self.probes.iter().all(Probe::is_over);
            if leave_at == Instant::FAR && (known || now >= until) {
                leave_at = now + GRACE;
            }
            let gone = known && self.probes.iter().all(Probe::is_gone);
            if gone || now >= leave_at {
                return Ok(());
            }
            let end = if leave_at == Instant::FAR { until } else { leave_at };
            let wake = self.probes.iter().map(Probe::deadline).fold(end, Instant::min);
            self.reactor.wait(wake, &self.clock, false)?;
            self.turn();
        }
    }

    fn turn(&mut self) {
        while let Some(session) = self.reactor.next_ready() {
            let at = session.index();
            let Some(probe) = self.probes.get_mut(at) else { continue };
            match self.reactor.read(session, probe.session().receive_buffer()) {
                Some(Event::Connected(_)) => self.tell(at, Input::Connected),
                Some(Event::Received(_, n)) => self.tell(at, Input::Received(n)),
                Some(Event::Eof(_)) => self.tell(at, Input::Ended(None)),
                Some(Event::Failed(_, kind)) => self.tell(at, Input::Ended(Some(kind))),
                // Not a socket's.
                Some(Event::Reply(..) | Event::Timeout | Event::Reload(_) | Event::Stop) | None => {}
            }
        }
        while let Some(session) = self.reactor.next_writable() {
            self.transmit(session.index());
        }
        while let Some((id, reply)) = self.workers.next_reply(self.clock.mono()) {
            self.resolved(id, &reply);
        }
    }

    fn tell(&mut self, at: usize, input: Input<'_>) {
        self.probes[at].handle(input, self.clock.mono());
        self.obey(at);
    }

    /// Does what the session wants done, and writes what it has to say.
    fn obey(&mut self, at: usize) {
        let id = session_id(at);
        while let Some(request) = self.probes[at].session().poll_request() {
            match request {
                Request::Dial(address) => self.reactor.dial(id, address),
                Request::Hangup => {
                    self.transmit(at);
                    self.reactor.hangup(id);
                }
                Request::Resolve => {
                    let session = self.probes[at].session();
                    let job = Job::Resolve { host: session.settings().host.clone(), port: session.settings().port };
                    let until = session.deadline();
                    let job_id = JobId(at as u64);
                    if let Err(reply) = self.workers.submit(job_id, job, until) {
                        self.resolved(job_id, &reply);
                    }
                }
            }
        }
        self.transmit(at);
    }

    /// One lookup per session: the job's number is the session's.
    fn resolved(&mut self, id: JobId, reply: &Reply) {
        let result = match reply {
            Reply::Resolved(Ok(addresses)) => Ok(addresses.as_slice()),
            Reply::Resolved(Err(words)) => Err(words.as_str()),
            Reply::Got(_) => Err("the lane answered something else"),
            Reply::Overloaded => Err("all resolver threads are busy with lookups that hang"),
        };
        if let Ok(at) = usize::try_from(id.0)
            && at < self.probes.len()
        {
            self.tell(at, Input::Resolved(result));
        }
    }

    fn transmit(&mut self, at: usize) {
        let session = self.probes[at].session();
        if !session.transmit().is_empty() {
            let written = self.reactor.write(session_id(at), session.transmit());
            session.transmitted(written);
        }
    }
}

fn session_id(at: usize) -> SessionId {
    // A handful.
    SessionId(at as u32)
}
