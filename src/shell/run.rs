//! The loop: sockets, replies, time, output, in this order, for ever.
//!
//! [`Shell::start`] gets hold of everything that can fail to be had; [`Shell::run`] turns the loop until a signal, the
//! end of the given time, or the engine's own end.

use super::clock::SystemClock;
use super::http::{self, Publisher, Server};
use super::logger::Logger;
use super::pin;
use super::reactor::Reactor;
use super::reload::{Reload, Reloader};
use super::rest;
use super::signals::Signals;
use super::watchdog::{self, Beat, Gauge, Limits, Stage};
use super::workers::{Resolve, Workers};
use crate::config::Config;
use crate::engine::{Command, Engine, Event, JobId, Reply, Statistics};
use crate::market::feed;
use crate::net;
use crate::note::Note;
use crate::status::{Status, Turns};
use crate::time::{Instant, Now, Span};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Between two calls of the observer, at least.
const OBSERVE_EVERY: Span = Span::from_ms(50);
/// Kept of `runtime.stop_within` for what follows the loop: the page, the log, the last words.
const STOP_RESERVE: Span = Span::from_ms(1_000);

/// Why the process cannot start. Always exit code 1: the configuration itself is good.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

impl StartError {
    fn of(what: &str) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |error| Self(format!("{what}: {error}"))
    }
}

/// A process about to run.
pub struct Shell {
    engine: Engine,
    reactor: Reactor,
    workers: Workers,
    clock: SystemClock,
    beat: Beat,
    gauge: Gauge,
    publisher: Publisher,
    server: Server,
    signals: Signals,
    reloader: Reloader,
    stopper: Stopper,
    logger: Logger,
    busy: bool,
    stop_within: Span,
    cpu: Option<usize>,
    /// Jobs that no lane could take, with the answer the engine has yet to hear.
    refused: Vec<(JobId, Reply)>,
}

/// Asks for a clean stop, as a signal does.
#[derive(Clone)]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    waker: Arc<mio::Waker>,
}

impl Stopper {
    /// Asks for it.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // A waker fails only when its poll is gone, and then the loop has ended.
        let _ = self.waker.wake();
    }
}

/// What is left when the loop has ended.
pub struct Finished {
    /// The engine, with everything it holds.
    pub engine: Engine,
    /// What it would have said of itself at the end.
    pub status: Status,
    /// How subscribing went, as of when the stop began: at the end no stream is live any more.
    pub statistics: Statistics,
    /// False if something did not end in its time.
    pub clean: bool,
}

impl Shell {
    /// Gets hold of sockets, threads and handlers. `seed` decides the engine's jitter, `resolve` looks names up, `reload`
    /// reads the configuration again on SIGHUP; without it a SIGHUP changes nothing.
    ///
    /// # Errors
    /// Names what could not be had: the HTTP address above all.
    pub fn start(
        config: &Config,
        seed: u64,
        resolve: Resolve,
        reload: Option<Reload>,
        logger: Logger,
    ) -> Result<Self, StartError> {
        let clock = SystemClock::start();
        let tls = feed::tls_for(config).map_err(|error| StartError(format!("exchange.custom.ca_file: {error}")))?;
        let rest_tls = match &config.exchange.rest {
            Some(url) if url.is_tls() && tls.is_none() => {
                let made = net::client_config(config.exchange.ca_pem.as_deref());
                Some(made.map_err(|error| StartError(format!("exchange.custom.ca_file: {error}")))?)
            }
            Some(_) | None => tls.clone(),
        };
        let get = rest::client(rest_tls, Arc::clone(&resolve), clock);
        let engine = Engine::new(config, tls, seed, clock.now());
        let reactor = Reactor::new().map_err(StartError::of("cannot poll sockets"))?;
        let waker = reactor.waker();
        let (beat, gauge) =
            watchdog::start(Limits::new(config.runtime.stall), clock).map_err(StartError::of("watchdog"))?;
        let initial = engine.status(clock.now());
        let (server, publisher) = http::start(config.http_listen, initial, gauge.clone(), clock, waker.clone())
            .map_err(|error| StartError(format!("http.listen: {error}")))?;
        let workers = Workers::start(clock, waker.clone(), resolve, get).map_err(StartError::of("workers"))?;
        let reloader = Reloader::start(config.clone(), reload, waker.clone()).map_err(StartError::of("reload"))?;
        let signals = Signals::install(waker.clone()).map_err(StartError::of("signals"))?;
        Ok(Self {
            engine,
            reactor,
            workers,
            clock,
            beat,
            gauge,
            publisher,
            server,
            signals,
            reloader,
            stopper: Stopper { stop: Arc::default(), waker },
            logger,
            busy: config.runtime.busy_poll,
            stop_within: config.runtime.stop_within,
            cpu: config.runtime.cpu,
            refused: Vec::new(),
        })
    }

    /// Where the page is.
    pub fn http_address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Ends the loop from another thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Turns the loop until it is told to stop, or for `duration`. `observe` sees the engine now and then; it runs on the
    /// loop and must not block.
    ///
    /// # Errors
    /// If the poll itself fails.
    pub fn run(
        mut self,
        duration: Option<Span>,
        mut observe: impl FnMut(&Engine, Now),
    ) -> Result<Finished, StartError> {
        if let Some(cpu) = self.cpu {
            // Last, because threads that are started later would be pinned as well.
            pin::pin_to(cpu).map_err(|words| StartError(format!("runtime.cpu: {words}")))?;
        }
        let end = duration.map_or(Instant::FAR, |duration| self.clock.mono() + duration);
        let mut observed = Instant::ZERO;
        let mut stop_by = Instant::FAR;
        let mut clean = true;
        let mut statistics = None;
        loop {
            let now = self.clock.mono();
            let wake = self.engine.poll_timeout().min(if self.engine.is_stopping() { stop_by } else { end });
            self.beat.sleep(now);
            self.reactor.wait(wake, &self.clock, self.busy).map_err(StartError::of("poll"))?;
            self.beat.wake(self.clock.mono());
            let told = self.signals.stop() || self.stopper.stop.load(Ordering::Relaxed);
            if !self.engine.is_stopping() && (told || self.clock.mono() >= end) {
                stop_by = self.clock.mono() + self.stop_within.saturating_sub(STOP_RESERVE);
                statistics = Some(self.engine.statistics());
                self.engine.handle(Event::Stop, self.clock.now());
                if self.obey() {
                    break;
                }
            }
            let over = self.turn();
            let now = self.clock.now();
            if now.mono.since(observed) >= OBSERVE_EVERY {
                observed = now.mono;
                observe(&self.engine, now);
            }
            if self.publisher.wanted(now.mono) {
                self.beat.stage(Stage::Publish);
                let status = self.status(now);
                self.publisher.publish(Box::new(status));
            }
            if over {
                break;
            }
            if now.mono >= stop_by {
                log::warn!(target: "binance_edge::shell", "not every connection said goodbye in its time");
                clean = false;
                break;
            }
        }
        self.notes();
        let status = self.status(self.clock.now());
        self.beat.sleep(self.clock.mono());
        let Self { engine, server, .. } = self;
        clean &= server.stop(Span::from_ms(300));
        let statistics = statistics.unwrap_or_else(|| engine.statistics());
        Ok(Finished { engine, status, statistics, clean })
    }

    /// One turn, awake. True when the engine has come to its end.
    fn turn(&mut self) -> bool {
        let mut over = false;
        // One clock read for all sockets that are ready now: they became ready while we slept or worked.
        while let Some(session) = self.reactor.next_ready() {
            self.beat.stage(Stage::Read(session));
            if let Some(event) = self.reactor.read(session, self.engine.receive_buffer(session)) {
                self.engine.handle(event, self.clock.now());
                over |= self.obey();
            }
        }
        self.beat.stage(Stage::Replies);
        while let Some((id, reply)) = self.workers.next_reply(self.clock.mono()) {
            self.engine.handle(Event::Reply(id, reply), self.clock.now());
            over |= self.obey();
        }
        if self.signals.take_reload() {
            self.reloader.wish();
        }
        while let Some(streams) = self.reloader.next_streams() {
            self.engine.handle(Event::Reload(streams), self.clock.now());
            over |= self.obey();
        }
        self.beat.stage(Stage::Timers);
        self.engine.handle(Event::Timeout, self.clock.now());
        over |= self.obey();
        while let Some(session) = self.engine.poll_transmit().or_else(|| self.reactor.next_writable()) {
            self.beat.stage(Stage::Write(session));
            self.transmit(session);
        }
        self.beat.stage(Stage::Notes);
        self.notes();
        over
    }

    fn transmit(&mut self, session: crate::engine::SessionId) {
        let bytes = self.engine.transmit(session);
        if !bytes.is_empty() {
            let written = self.reactor.write(session, bytes);
            self.engine.transmitted(session, written);
        }
    }

    /// Does what the engine wants. True when that is to end.
    fn obey(&mut self) -> bool {
        let mut over = false;
        while let Some(command) = self.engine.poll_command() {
            match command {
                Command::Dial { session, address } => {
                    self.beat.stage(Stage::Obey(session));
                    self.reactor.dial(session, address);
                }
                Command::Hangup { session } => {
                    self.beat.stage(Stage::Obey(session));
                    self.transmit(session);
                    self.reactor.hangup(session);
                }
                Command::Work { id, job, deadline } => {
                    if let Err(reply) = self.workers.submit(id, job, deadline) {
                        // The lane is full: the engine is told as if a worker had said so.
                        self.refused.push((id, reply));
                    }
                }
                Command::Exit => over = true,
            }
        }
        while let Some((id, reply)) = self.refused.pop() {
            self.engine.handle(Event::Reply(id, reply), self.clock.now());
            over |= self.obey();
        }
        over
    }

    fn notes(&mut self) {
        while let Some(stamped) = self.engine.poll_note() {
            let of_tape = matches!(stamped.note, Note::HoleOpened { .. } | Note::HolesClosed { .. });
            let target = if of_tape { "binance_edge::tape" } else { "binance_edge::feed" };
            let level = stamped.note.level();
            if !matches!(stamped.note, Note::Statistics(_)) {
                log::log!(target: target, level, "{}", stamped.note);
                continue;
            }
            // One line of the log each, so that it stays readable line by line.
            for line in stamped.note.to_string().lines() {
                log::log!(target: target, level, "{line}");
            }
        }
    }

    fn status(&mut self, now: Now) -> Status {
        let mut status = self.engine.status(now);
        let timeouts = status.workers.resolver.timeouts;
        status.workers = self.workers.status(now.mono);
        status.workers.resolver.timeouts += timeouts;
        status.log_lines_dropped += self.logger.dropped();
        status.turns = self.turns();
        status
    }

    fn turns(&self) -> Turns {
        self.gauge.turns()
    }
}
