//! The whole system in a world of its own: engine, network, resolver and exchange under one virtual clock and one seed.
//!
//! The engine is the real one, unchanged; so are the exchange and both ends of the WebSocket. A step moves the clock to
//! the next thing that happens, tells whom it concerns, obeys what the engine wants, and checks the invariants. First
//! faults are on, and nothing false may be said (safety); then they are off, and everything must come back (liveness).

pub mod audit;
pub mod network;
pub mod swarm;
mod tls;
mod traffic;
pub mod vigil;
mod witness;

use crate::config::{Config, Streams, Url};
use crate::engine::rest::{Ask, NotAsked};
use crate::engine::{Engine, Event, GetFailure, JobId, Reply, Response};
use crate::market::feed::{self, Canary};
use crate::note::Stamped;
use crate::sim::exchange::{Exchange, ExchangeConfig, Fault, Harm, Listing};
use crate::sim::hub::{Hub, PeerId};
use crate::time::{Instant, Now, Span, UtcMs};
use network::{NetFault, Network, WireId};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{DefaultHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tls::{Identity, Secure};
use witness::Witness;

/// When every world begins: 2026-11-20T23:05:00Z.
pub const BEGINNING: UtcMs = UtcMs(1_795_215_900_000);

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Decides everything that is drawn.
    pub seed: u64,
    /// The process's configuration; its addresses are the exchange's.
    pub config: Config,
    /// The exchange.
    pub exchange: ExchangeConfig,
    /// What the exchange's name resolves to.
    pub addresses: Vec<IpAddr>,
    /// The connections are encrypted, whatever the address in the configuration says.
    pub tls: bool,
    /// A bug put into the engine.
    pub canary: Canary,
}

impl Setup {
    /// Some symbols of the exchange's universe under the documented defaults.
    pub fn new(seed: u64, symbols: &[&str]) -> Self {
        let venue = Url { scheme: "ws", host: "venue.example".into(), port: 9443, path: "/market".into() };
        let rest = Url { scheme: "https", path: String::new(), ..venue.clone() };
        let mut config = Config::for_exchange(symbols, venue, Some(rest), None);
        config.tape.trades = 4_096;
        let mut exchange = ExchangeConfig { seed, warm_up_ms: 0, ..ExchangeConfig::default() };
        exchange.symbols.retain(|listing| symbols.contains(&listing.name.as_str()));
        for symbol in symbols {
            if exchange.symbols.iter().all(|listing| listing.name != **symbol) {
                exchange.symbols.push(Listing::new(symbol, "100", 1.0));
            }
        }
        let addresses = vec![Ipv4Addr::LOCALHOST.into()];
        Self { seed, config, exchange, addresses, tls: false, canary: Canary::default() }
    }

    /// The same over TLS.
    pub fn over_tls(mut self) -> Self {
        self.tls = true;
        self
    }
}

/// Something on its way.
#[derive(Debug)]
enum Happening {
    ToProcess(WireId, Vec<u8>),
    ToExchange(WireId, Vec<u8>),
    Connected(WireId),
    Refused(WireId),
    ProcessSeesEnd(WireId, Option<std::io::ErrorKind>),
    ExchangeSeesEnd(WireId),
    Resolved(JobId, Result<Vec<SocketAddr>, String>),
    /// With the target as the exchange sees it.
    RestAsked(JobId, String),
    RestDone(JobId, Result<Response, GetFailure>),
    FaultBegins(usize),
    FaultEnds(usize),
    ClockSteps(i64),
}

/// A fault of the network, with its time.
#[derive(Clone, Copy, Debug)]
pub struct Episode {
    /// What.
    pub fault: NetFault,
    /// From when.
    pub from: Instant,
    /// For how long.
    pub lasts: Span,
}

/// The world.
pub struct World {
    now: Instant,
    engine: Engine,
    hub: Hub<Exchange>,
    network: Network,
    /// By session: the wire it uses.
    wires: Vec<Option<WireId>>,
    /// By wire: the exchange's end of it.
    peers: Vec<Option<PeerId>>,
    /// By peer: its wire.
    peer_wires: Vec<Option<WireId>>,
    /// What the exchange shows over TLS; `None` without.
    identity: Option<Identity>,
    /// By wire: TLS at the exchange's end.
    secure: Vec<Option<Secure>>,
    addresses: Vec<IpAddr>,
    heap: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    happenings: Vec<Option<Happening>>,
    free: Vec<usize>,
    sequence: u64,
    episodes: Vec<Episode>,
    /// How far the process's wall clock is off.
    skew_ms: i64,
    witness: Witness,
    hash: DefaultHasher,
    notes: Vec<Stamped>,
    keep_notes: bool,
    steps: u64,
    exited: bool,
    /// The engine would spin: time stands still from here on.
    stuck: bool,
}

impl World {
    /// A world at its beginning: nothing has been dialled yet.
    pub fn new(setup: &Setup) -> Self {
        let mut rng = fastrand::Rng::with_seed(setup.seed);
        let now = Now { mono: Instant::ZERO, utc_ns: BEGINNING.0 * 1_000_000 };
        let mut config = setup.config.clone();
        let identity = setup.tls.then(|| Identity::new(&config.exchange.market_ws.host));
        if let Some(identity) = &identity {
            config.exchange.market_ws.scheme = "wss";
            config.exchange.ca_pem = Some(identity.ca_pem.clone());
        }
        let tls = feed::tls_for(&config).expect("a CA made here is one");
        let engine = Engine::with_canary(&config, tls, rng.u64(..), now, setup.canary);
        Self {
            now: Instant::ZERO,
            engine,
            hub: Hub::new(Exchange::new(setup.exchange.clone(), BEGINNING)),
            network: Network::new(rng.fork()),
            wires: Vec::new(),
            peers: Vec::new(),
            peer_wires: Vec::new(),
            identity,
            secure: Vec::new(),
            addresses: setup.addresses.clone(),
            heap: BinaryHeap::new(),
            happenings: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            episodes: Vec::new(),
            skew_ms: 0,
            witness: Witness::new(&config),
            hash: DefaultHasher::new(),
            notes: Vec::new(),
            keep_notes: true,
            steps: 0,
            exited: false,
            stuck: false,
        }
    }

    /// Keeps no notes: for long runs.
    pub fn forget_notes(&mut self) {
        self.keep_notes = false;
    }

    /// Adds a fault of the network.
    pub fn schedule(&mut self, fault: NetFault, from: Instant, lasts: Span) {
        let index = self.episodes.len();
        self.episodes.push(Episode { fault, from, lasts });
        self.at(from, Happening::FaultBegins(index));
        self.at(from + lasts, Happening::FaultEnds(index));
    }

    /// Adds a fault of the exchange.
    pub fn schedule_harm(&mut self, harm: Harm, from: Instant, lasts: Span, tune: impl FnOnce(Fault) -> Fault) {
        let (from, until) = (utc_of(from), utc_of(from + lasts));
        let fault = tune(Fault::new(harm).between(from, until));
        self.hub.with(|exchange| exchange.set_fault(fault));
    }

    /// Moves the process's wall clock, and nothing else.
    pub fn step_wall_clock(&mut self, by_ms: i64) {
        self.skew_ms += by_ms;
    }

    /// Moves it at a time to come.
    pub fn schedule_clock_step(&mut self, at: Instant, by_ms: i64) {
        self.at(at, Happening::ClockSteps(by_ms));
    }

    /// Since the beginning.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The process.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The other side.
    pub fn exchange(&self) -> &Exchange {
        self.hub.rules()
    }

    /// The other side, to set faults.
    pub fn with_exchange<R>(&mut self, f: impl FnOnce(&mut Exchange) -> R) -> R {
        let result = self.hub.with(f);
        self.carry();
        result
    }

    /// What has been said so far.
    pub fn notes(&self) -> &[Stamped] {
        &self.notes
    }

    /// A number that two runs of the same seed share.
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    /// The engine would spin, which is a violation: nothing happens any more.
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What the process said of itself that was not so, or did too late.
    pub fn violations(&self) -> &[String] {
        self.witness.violations()
    }

    /// What the process would say of itself.
    pub fn status(&self) -> crate::status::Status {
        self.engine.status(self.stamp())
    }

    fn stamp(&self) -> Now {
        Now { mono: self.now, utc_ns: (BEGINNING.0 + self.skew_ms) * 1_000_000 + self.now.as_ns() as i64 }
    }

    fn utc(&self) -> UtcMs {
        utc_of(self.now)
    }

    fn at(&mut self, at: Instant, happening: Happening) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.happenings.push(None);
            self.happenings.len() - 1
        });
        self.happenings[slot] = Some(happening);
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence, slot)));
    }

    /// Has the process ask REST for something, beside what it asks by itself.
    ///
    /// # Errors
    /// See [`Engine::ask`].
    pub fn ask(&mut self, ask: Ask) -> Result<(), NotAsked> {
        self.engine.ask(ask)?;
        self.tell(Event::Timeout);
        Ok(())
    }

    /// The operator wants other symbols.
    pub fn reload(&mut self, streams: Streams) {
        self.tell(Event::Reload(Box::new(streams)));
    }

    /// The operator wants a clean stop.
    pub fn stop(&mut self) {
        self.tell(Event::Stop);
    }

    /// True when the process has ended.
    pub fn exited(&self) -> bool {
        self.exited
    }

    // ---- time

    /// Lets time pass.
    pub fn run_for(&mut self, span: Span) {
        let end = self.now + span;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until something is so; false if it is not so at the end.
    pub fn run_until(&mut self, most: Span, mut so: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + most;
        while !so(self) {
            if !self.step(end) {
                self.now = end;
                return so(self);
            }
        }
        true
    }

    /// One thing that happens before `end`; false if there is none.
    fn step(&mut self, end: Instant) -> bool {
        if self.stuck {
            return false;
        }
        let happening = self.heap.peek().map_or(Instant::FAR, |Reverse((at, ..))| *at);
        let exchange = instant_of(self.hub.next_due());
        let engine = self.engine.poll_timeout();
        let next = happening.min(exchange).min(engine);
        if next > end {
            return false;
        }
        self.steps += 1;
        self.now = self.now.max(next);
        if happening <= exchange.min(engine) {
            if let Some(Reverse((_, _, slot))) = self.heap.pop()
                && let Some(happening) = self.happenings[slot].take()
            {
                self.free.push(slot);
                self.happen(happening);
            }
        } else if exchange <= engine {
            self.hub.advance(self.utc());
            self.carry();
        } else {
            self.tell(Event::Timeout);
            if self.engine.poll_timeout() <= self.now {
                self.witness.spun(self.now);
                self.stuck = true;
            }
        }
        self.witness.look(&self.engine, self.now);
        true
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::ToProcess(wire, bytes) => self.deliver(wire, &bytes),
            Happening::ToExchange(wire, bytes) => {
                self.receive(wire, &bytes);
            }
            Happening::Connected(wire) => {
                if self.current(wire) {
                    self.accept(wire);
                    self.tell(Event::Connected(self.session(wire)));
                }
            }
            Happening::Refused(wire) => {
                if self.current(wire) {
                    self.end_wire(wire);
                    self.tell(Event::Failed(self.session(wire), std::io::ErrorKind::ConnectionRefused));
                }
            }
            Happening::ProcessSeesEnd(wire, kind) => {
                if self.current(wire) {
                    self.end_wire(wire);
                    let session = self.session(wire);
                    self.tell(kind.map_or(Event::Eof(session), |kind| Event::Failed(session, kind)));
                }
            }
            Happening::ExchangeSeesEnd(wire) => {
                if let Some(peer) = self.peers[wire.0].take() {
                    self.hub.gone(peer);
                    self.carry();
                }
            }
            Happening::Resolved(job, result) => self.tell(Event::Reply(job, Reply::Resolved(result))),
            Happening::RestAsked(job, target) => self.ask_exchange(job, &target),
            Happening::RestDone(job, result) => self.tell(Event::Reply(job, Reply::Got(result))),
            Happening::FaultBegins(index) => self.begin(index),
            Happening::FaultEnds(index) => self.network.end(self.episodes[index].fault),
            Happening::ClockSteps(by_ms) => self.step_wall_clock(by_ms),
        }
    }

    fn begin(&mut self, index: usize) {
        let Episode { fault, from, lasts } = self.episodes[index];
        self.network.begin(fault, from + lasts);
        if matches!(fault, NetFault::Reset | NetFault::EndOfFile) {
            let kind = (fault == NetFault::Reset).then_some(std::io::ErrorKind::ConnectionReset);
            let wires: Vec<WireId> = self.network.open_wires().collect();
            for wire in wires {
                self.at(self.now, Happening::ProcessSeesEnd(wire, kind));
                self.at(self.now, Happening::ExchangeSeesEnd(wire));
            }
        }
    }

    /// Compares everything the process holds with the exchange's own books; what differs, in words.
    pub fn audit(&self) -> Vec<String> {
        audit::audit(self.engine.market(), self.exchange().truth()).differences
    }
}

fn utc_of(at: Instant) -> UtcMs {
    UtcMs(BEGINNING.0 + (at.as_ns() / 1_000_000) as i64)
}

fn instant_of(utc: UtcMs) -> Instant {
    Instant::from_ns((utc.0.saturating_sub(BEGINNING.0).max(0) as u64).saturating_mul(1_000_000))
}
