//! What it costs to judge streams by their data: a message when few streams are subscribed and when many are.
//!
//! Two engines are fed the same messages, of the same four symbols over the same connection, without a socket and
//! without TLS: one is subscribed to these symbols' twelve streams alone, the other to 1,800 streams on nine connections.
//! Whatever is done per message for the other streams shows in the ratio. Contenders take turns within each round; the
//! medians over the rounds are shown. Then what a wake-up costs that finds nothing due, one connection to be looked at,
//! or all 1,800 streams.
//!
//! `cargo bench --bench judge`; with `--tiny` or `--test` (and under `cargo test`) it only runs once through.
#![allow(clippy::disallowed_methods, reason = "outside the core")]
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

mod common;

use binance_edge::config::{Config, TapeLimits, Url};
use binance_edge::engine::{Command, Engine, Event, Job, Reply, SessionId};
use binance_edge::time::{self, Now, Span};
use common::peer::Peer;
use common::{frames, median, tiny};
use std::time::Instant;

const SYMBOLS: usize = 600;
/// Symbols that have messages.
const SPEAKING: usize = 4;
const LIMITS: TapeLimits = TapeLimits { trades: 512, candles: 16, backfill: false };
/// Between two messages: 20,000 a second.
const PAUSE: Span = Span::from_us(50);

fn main() {
    let (rounds, count) = if tiny() { (3, 4_000) } else { (31, 40_000) };
    let names = frames::names(SYMBOLS);
    let mut few = Lane::new(&names[..SPEAKING]);
    let mut many = Lane::new(&names);
    let messages = mix(&names[..SPEAKING], count);
    println!("{} and {} streams, {count} messages a round, {rounds} rounds", few.streams(), many.streams());

    for per_read in [1, 16] {
        let (mut one, mut other, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            // Whoever is first in a round is second in the next.
            let (a, b) = if round % 2 == 0 {
                let a = few.read(&messages, per_read);
                (a, many.read(&messages, per_read))
            } else {
                let b = many.read(&messages, per_read);
                (few.read(&messages, per_read), b)
            };
            one.push(a);
            other.push(b);
            ratio.push(b / a);
        }
        println!(
            "{per_read:>2} messages a read: {:>7.1} ns with {}, {:>7.1} ns with {}, ratio {:.3}",
            median(&mut one),
            few.streams(),
            median(&mut other),
            many.streams(),
            median(&mut ratio)
        );
    }

    let (mut none, mut each, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        none.push(many.wake_early());
        // Within a minute each stream has its deadline looked at; all connections have theirs at their own times.
        let (wakes, took) = many.wake_for(Span::from_secs(120));
        each.push(took / wakes as f64);
        all.push(took / 120e3);
        assert_eq!(many.live(), many.streams(), "nobody fell silent");
    }
    println!("a wake-up that finds nothing due     {:>9.1} ns", median(&mut none));
    println!("a wake-up at a deadline              {:>9.1} ns", median(&mut each));
    println!("all wake-ups for {} live streams   {:>9.2} µs a second", many.streams(), median(&mut all));
}

/// A message on the wire whose time and id are written when it is sent: the venue's clock goes as ours does.
#[derive(Clone)]
struct Message {
    bytes: Vec<u8>,
    time_at: usize,
    /// Of a trade, when it was traded: at the same time.
    traded_at: Option<usize>,
    /// Of a trade.
    id_at: Option<usize>,
    symbol: usize,
}

const BEGINNING_MS: i64 = 1_785_000_000_000;
/// As many digits as a time.
const FIRST_ID: i64 = 1_000_000_000_000;

impl Message {
    fn new(random: &mut fastrand::Rng, name: &str, symbol: usize, kind: &str) -> Self {
        let data = match kind {
            "aggTrade" => frames::trade(random, name, FIRST_ID as u64),
            "markPrice@1s" => frames::mark(random, name),
            _ => frames::kline(random, name, BEGINNING_MS, ", ").replace("\"x\":true", "\"x\":false"),
        };
        let bytes = Peer::new(None).seal(&[frames::combined(name, kind, &data)], 1);
        let after = |key: &[u8]| bytes.windows(key.len()).position(|part| part == key).map(|at| at + key.len());
        let time_at = after(b"\"E\":").unwrap();
        let is_trade = kind == "aggTrade";
        let (id_at, traded_at) = (after(b"\"a\":").filter(|_| is_trade), after(b"\"T\":").filter(|_| is_trade));
        Self { bytes, time_at, traded_at, id_at, symbol }
    }

    fn send(&mut self, now: time::Instant, ids: &mut [i64]) -> &[u8] {
        let ms = BEGINNING_MS + now.since(time::Instant::ZERO).as_ms() as i64;
        for at in [Some(self.time_at), self.traded_at].into_iter().flatten() {
            self.bytes[at..at + 13].copy_from_slice(ms.to_string().as_bytes());
        }
        if let Some(at) = self.id_at {
            ids[self.symbol] += 1;
            self.bytes[at..at + 13].copy_from_slice(ids[self.symbol].to_string().as_bytes());
        }
        &self.bytes
    }
}

/// Of ten messages seven are trades, two are mark prices and one is a candle.
fn mix(names: &[String], count: usize) -> Vec<Message> {
    let mut random = fastrand::Rng::with_seed(11);
    let mut one = |n: usize| {
        let symbol = random.usize(..names.len());
        let kind = ["aggTrade", "markPrice@1s", "kline_1m"][[0, 0, 0, 0, 0, 0, 0, 1, 1, 2][n % 10]];
        Message::new(&mut random, &names[symbol], symbol, kind)
    };
    (0..count).map(&mut one).collect()
}

/// An engine and the other end of its connections, in memory.
struct Lane {
    engine: Engine,
    now: Now,
    peers: Vec<Option<Peer>>,
    /// One message of each stream, with its connection.
    beats: Vec<(SessionId, Message)>,
    /// The newest trade of each symbol.
    ids: Vec<i64>,
}

impl Lane {
    fn new(names: &[String]) -> Self {
        let url = Url { scheme: "ws", host: "127.0.0.1".into(), port: 9, path: String::new() };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut config = Config::for_exchange(&names, url, None, None);
        config.tape = LIMITS;
        let now = Now { mono: time::Instant::ZERO, utc_ns: 1_785_000_000_000_000_000 };
        let mut lane = Self {
            engine: Engine::new(&config, None, 1, now),
            now,
            peers: Vec::new(),
            beats: Vec::new(),
            ids: vec![FIRST_ID; names.len()],
        };
        lane.handle(Event::Timeout);
        // The venue's answers do not matter: data proves.
        let mut random = fastrand::Rng::with_seed(5);
        for slot in 0..lane.engine.feed().slots() {
            let streams = lane.engine.feed().connection(slot).unwrap().streams.clone();
            for at in streams {
                let stream = lane.engine.feed().stream(at);
                let (name, kind) = stream.name.split_once('@').unwrap();
                let symbol = name.to_uppercase();
                let number = names.iter().position(|known| **known == *symbol).unwrap();
                assert!(number >= SPEAKING || slot == 0, "who speaks speaks on the first connection");
                let message = Message::new(&mut random, &symbol, number, kind);
                lane.beats.push((SessionId(slot as u32), message));
            }
        }
        lane.beat();
        while lane.engine.poll_note().is_some() {}
        assert_eq!(lane.live(), lane.streams(), "all streams have data");
        lane
    }

    fn streams(&self) -> usize {
        self.engine.feed().streams().count()
    }

    fn live(&self) -> usize {
        self.engine.feed().streams().filter(|stream| stream.state().is_live()).count()
    }

    /// Every stream delivers once.
    fn beat(&mut self) {
        for at in 0..self.beats.len() {
            self.beat_of(at);
        }
    }

    fn beat_of(&mut self, at: usize) {
        let (session, message) = &mut self.beats[at];
        let (session, bytes) = (*session, message.send(self.now.mono, &mut self.ids).to_vec());
        self.received(session, &bytes);
    }

    /// Reads these bytes on the first connection; nanoseconds per message.
    fn read(&mut self, messages: &[Message], per_read: usize) -> f64 {
        // Whatever is due by now is done before.
        self.beat();
        self.handle(Event::Timeout);
        let mut sent_at = self.now.mono;
        let mut reads: Vec<Vec<u8>> = Vec::with_capacity(messages.len().div_ceil(per_read));
        for group in messages.chunks(per_read) {
            sent_at += Span::from_ns(PAUSE.as_ns() * per_read as u64);
            reads.push(group.iter().flat_map(|one| one.clone().send(sent_at, &mut self.ids).to_vec()).collect());
        }
        let began = Instant::now();
        for bytes in &reads {
            self.now.mono += Span::from_ns(PAUSE.as_ns() * per_read as u64);
            self.received(SessionId(0), bytes);
            if self.engine.poll_timeout() <= self.now.mono {
                self.handle(Event::Timeout);
            }
        }
        let took = began.elapsed().as_nanos() as f64 / (reads.len() * per_read) as f64;
        while self.engine.poll_note().is_some() {}
        took
    }

    fn received(&mut self, session: SessionId, bytes: &[u8]) {
        let buffer = self.engine.receive_buffer(session);
        buffer[..bytes.len()].copy_from_slice(bytes);
        self.handle(Event::Received(session, bytes.len()));
    }

    /// Nanoseconds of a wake-up at which nothing is due.
    fn wake_early(&mut self) -> f64 {
        self.handle(Event::Timeout);
        assert!(self.engine.poll_timeout() > self.now.mono);
        let began = Instant::now();
        for _ in 0..1_000 {
            self.handle(Event::Timeout);
        }
        began.elapsed().as_nanos() as f64 / 1e3
    }

    /// Lets time pass, in which every stream delivers each ten seconds: how many wake-ups there were, and nanoseconds
    /// spent in them.
    fn wake_for(&mut self, span: Span) -> (u64, f64) {
        let end = self.now.mono + span;
        let (mut wakes, mut took) = (0, 0);
        let mut beat_at = self.now.mono;
        while self.now.mono < end {
            let due = self.engine.poll_timeout();
            if due <= beat_at {
                self.now.mono = self.now.mono.max(due);
                let began = Instant::now();
                self.handle(Event::Timeout);
                took += began.elapsed().as_nanos();
                wakes += 1;
            } else {
                self.now.mono = beat_at;
                // Each at its own moment, as in life.
                for at in 0..self.beats.len() {
                    self.now.mono += Span::from_ms(5);
                    self.beat_of(at);
                }
                beat_at = self.now.mono + Span::from_secs(1);
            }
            while self.engine.poll_note().is_some() {}
        }
        (wakes, took as f64)
    }

    /// The shell's part.
    fn handle(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.engine.handle(event, self.now);
            while let Some(command) = self.engine.poll_command() {
                match command {
                    Command::Work { id, job: Job::Resolve { port, .. }, .. } => {
                        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
                        events.push_back(Event::Reply(id, Reply::Resolved(Ok(vec![address]))));
                    }
                    Command::Dial { session, .. } => {
                        if self.peers.len() <= session.index() {
                            self.peers.resize_with(session.index() + 1, || None);
                        }
                        self.peers[session.index()] = Some(Peer::new(None));
                        events.push_back(Event::Connected(session));
                    }
                    Command::Hangup { .. } | Command::Work { .. } | Command::Exit => panic!("{command:?}"),
                }
            }
            while let Some(session) = self.engine.poll_transmit() {
                let bytes = self.engine.transmit(session).to_vec();
                if bytes.is_empty() {
                    continue;
                }
                self.engine.transmitted(session, bytes.len());
                let Some(peer) = self.peers.get_mut(session.index()).and_then(Option::as_mut) else { continue };
                let answer = if peer.upgraded() { Vec::new() } else { peer.take(&bytes) };
                if !answer.is_empty() {
                    let buffer = self.engine.receive_buffer(session);
                    buffer[..answer.len()].copy_from_slice(&answer);
                    events.push_back(Event::Received(session, answer.len()));
                }
            }
        }
    }
}
