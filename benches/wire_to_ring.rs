//! What it costs to bring one message from the socket into its ring: ours against the usual stack, in one run.
//!
//! A server on loopback encrypts everything beforehand (TLS 1.3, AES-128-GCM) and then writes as fast as TCP takes it,
//! so the client is what limits. The client runs on the main thread; what is shown is that thread's CPU time per
//! message, its time in the kernel included, after a quarter of the messages has warmed it up and wrapped the rings. Of
//! ten messages seven are aggTrade, two markPrice and one kline, all combined, of 60 symbols.
//!
//! Contenders take turns within each round, so that whatever else the machine does falls on all of them; the medians
//! over the rounds are shown. Allocations are counted in a round of their own, which is not timed.
//!
//! - `floor`: reads the bytes and throws them away.
//! - `usual`: mio, rustls' `StreamOwned`, tungstenite as it comes, simd-json on a padded copy with a recycled tape, then
//!   the same rings as ours.
//! - `ours`: the reactor and the engine as they run in the process.
//!
//! `cargo bench --bench wire_to_ring`; with `--tiny` or `--test` (and under `cargo test`) it only runs once through.
#![allow(clippy::disallowed_methods, reason = "outside the core")]
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::wildcard_enum_match_arm, missing_docs)]

mod common;

use binance_edge::config::{Config, SubscribeBy, TapeLimits, Url};
use binance_edge::engine::{Command, Engine, Event};
use binance_edge::fixed::{Fixed, Wide};
use binance_edge::market::tape::Source;
use binance_edge::market::{Market, feed, layout};
use binance_edge::net;
use binance_edge::shell::clock::SystemClock;
use binance_edge::shell::reactor::Reactor;
use binance_edge::time::UtcMs;
use binance_edge::wire::{AggTrade, Frame, Interval, Kline, MarkPrice, SymbolId, Symbols};
use common::peer::{Identity, Peer};
use common::{frames, median, tiny};
use mio::{Events, Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};
use simd_json::{Buffers, Node, StaticNode, Tape};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tungstenite::{Message, WebSocket};

const SYMBOLS: usize = 60;
/// Small enough that the warm-up wraps the rings: no page is touched for the first time while the clock runs.
const LIMITS: TapeLimits = TapeLimits { trades: 512, candles: 16, backfill: false };

fn main() {
    let (rounds, messages) = (if tiny() { 1 } else { 11 }, 240_000);
    let identity = Arc::new(Identity::new());
    let names = frames::names(SYMBOLS);
    let messages = Arc::new(frames::mix(&names, messages));
    let bytes = messages.iter().map(String::len).sum::<usize>() / messages.len();

    println!("{} messages of {bytes} bytes a round, {rounds} rounds", messages.len());
    println!(
        "{:<16}{:<8}{:>9}{:>9}{:>9}{:>12}{:>14}",
        "messages/record", "", "CPU ns", "/usual", "wall ns", "allocations", "checksum"
    );
    for per_record in [1, 32] {
        let lane = Lane { identity: &identity, names: &names, messages: &messages, per_record };
        let makers: [(&str, Maker); 3] = [
            ("floor", |lane| Box::new(Floor::new(lane))),
            ("usual", |lane| Box::new(Usual::new(lane))),
            ("ours", |lane| Box::new(Ours::new(lane))),
        ];
        let mut results = makers.map(|_| (Vec::new(), Vec::new()));
        for _ in 0..rounds {
            for ((_, make), (cpu, wall)) in makers.iter().zip(&mut results) {
                let run = timed(&mut *make(&lane), messages.len() as u64);
                cpu.push(run.0);
                wall.push(run.1);
            }
        }
        let [floor, usual, ours] = makers.map(|(_, make)| counted(&mut *make(&lane), messages.len() as u64));
        assert_eq!(usual.1, ours.1, "the rings must hold the same");
        let usual_cpu = median(&mut results[1].0);
        for (((name, _), (cpu, wall)), (allocations, sum)) in makers.iter().zip(&mut results).zip([floor, usual, ours])
        {
            let cpu = median(cpu);
            println!(
                "{per_record:<16}{name:<8}{cpu:>9.1}{:>9.3}{:>9.1}{allocations:>12.3}{:>14}",
                cpu / usual_cpu,
                median(wall),
                if *name == "floor" { String::new() } else { format!("{:08x}", sum as u32) }
            );
        }
    }
}

/// CPU and wall nanoseconds per message, without the first quarter.
fn timed(client: &mut dyn Client, messages: u64) -> (f64, f64) {
    let before = client.take(messages / 4);
    let (cpu, wall) = (thread_cpu(), Instant::now());
    let taken = (client.take(messages) - before) as f64;
    ((thread_cpu() - cpu).as_nanos() as f64 / taken, wall.elapsed().as_nanos() as f64 / taken)
}

/// Allocations per message, without the first quarter, and what the rings hold in the end.
fn counted(client: &mut dyn Client, messages: u64) -> (f64, u64) {
    let before = client.take(messages / 4);
    let mut after = 0;
    let info = allocation_counter::measure(|| after = client.take(messages));
    (info.count_total as f64 / (after - before) as f64, client.checksum())
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

type Maker = for<'a> fn(&Lane<'a>) -> Box<dyn Client>;

trait Client {
    /// Reads until so many messages have come since the beginning, or a few more; returns how many have.
    fn take(&mut self, messages: u64) -> u64;
    /// What the rings hold, as one number.
    fn checksum(&self) -> u64;
}

/// What a contender is up against.
struct Lane<'a> {
    identity: &'a Arc<Identity>,
    names: &'a [String],
    messages: &'a Arc<Vec<String>>,
    per_record: usize,
}

impl Lane<'_> {
    /// A server for one client: shakes hands, encrypts everything, then writes it.
    fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr().expect("a listener has an address");
        let (identity, messages, per_record) = (self.identity.clone(), self.messages.clone(), self.per_record);
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("the client comes");
            let mut peer = Peer::new(Some(&identity));
            shake_hands(&mut socket, &mut peer);
            let sealed = peer.seal(&messages, per_record);
            // The client leaves when it has enough.
            let _ = socket.write_all(&sealed);
            let _ = socket.read(&mut [0]);
        });
        address
    }

    /// What the process would be told to do.
    fn config(&self, address: SocketAddr) -> Config {
        let url = Url { scheme: "wss", host: address.ip().to_string(), port: address.port(), path: String::new() };
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let mut config = Config::for_exchange(&names, url, None, Some(self.identity.ca_pem.clone()));
        config.streams.subscribe_by = SubscribeBy::Url;
        config.tape = LIMITS;
        config
    }
}

fn shake_hands(socket: &mut TcpStream, peer: &mut Peer) {
    let mut buffer = [0; 16 * 1024];
    while !peer.upgraded() {
        let n = socket.read(&mut buffer).expect("the client speaks");
        assert!(n > 0, "the client left during the handshake");
        let answer = peer.take(&buffer[..n]);
        socket.write_all(&answer).expect("the client listens");
    }
}

fn checksum(market: &Market) -> u64 {
    let mut sum = 0_u64;
    let mut add = |n: i64| sum = (sum ^ n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    for (_, book) in market.books() {
        let tape = book.tape.as_ref().expect("trades are subscribed to");
        add(tape.received() as i64);
        for trade in tape.ring().iter() {
            [trade.id, trade.price.0, trade.qty.0, trade.first_id, trade.trade_time.0].into_iter().for_each(&mut add);
            [i64::from(trade.further_fills), i64::from(trade.event_lag_ms), trade.buyer_is_maker.into()]
                .into_iter()
                .for_each(&mut add);
        }
        if let Some((mark, _)) = &book.mark {
            [mark.price.0, mark.index_price.0, mark.event_time.0].into_iter().for_each(&mut add);
            [mark.funding_rate.map_or(0, |rate| rate.0), mark.next_funding.map_or(0, |at| at.0)]
                .into_iter()
                .for_each(&mut add);
        }
        for candle in book.candles.iter().flat_map(|candles| candles.ring().iter()) {
            let kline = candle.kline;
            [kline.open_time.0, kline.open.0, kline.high.0, kline.low.0, kline.close.0, kline.trades]
                .into_iter()
                .for_each(&mut add);
            for volume in [kline.volume, kline.quote_volume, kline.taker_buy_volume, kline.taker_buy_quote_volume] {
                add(volume.0 as i64);
            }
        }
    }
    sum
}

// ---- the contenders ----

/// The kernel's part.
struct Floor {
    socket: TcpStream,
    buffer: Vec<u8>,
    bytes: u64,
    /// How many bytes a message takes on the wire.
    per_message: f64,
}

impl Floor {
    fn new(lane: &Lane<'_>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).expect("the server listens");
        let messages = lane.messages.clone();
        // A record adds 22 bytes, a frame's header 4.
        let overhead = 4.0 + 22.0 / lane.per_record as f64;
        let bytes = messages.iter().map(String::len).sum::<usize>() + (overhead * messages.len() as f64) as usize;
        std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("the client comes");
            let _ = peer.write_all(&vec![0; bytes]);
            let _ = peer.read(&mut [0]);
        });
        socket.write_all(&[]).expect("the server reads");
        let per_message = bytes as f64 / lane.messages.len() as f64;
        Self { socket, buffer: vec![0; 128 * 1024], bytes: 0, per_message }
    }

    fn messages(&self) -> u64 {
        (self.bytes as f64 / self.per_message).round() as u64
    }
}

impl Client for Floor {
    fn take(&mut self, messages: u64) -> u64 {
        while self.messages() < messages {
            self.bytes += self.socket.read(&mut self.buffer).expect("the server writes") as u64;
        }
        self.messages()
    }

    fn checksum(&self) -> u64 {
        0
    }
}

/// mio, rustls and tungstenite as their documents show them, then simd-json at its fastest.
struct Usual {
    poll: Poll,
    events: Events,
    socket: WebSocket<rustls::StreamOwned<rustls::ClientConnection, mio::net::TcpStream>>,
    clock: SystemClock,
    market: Market,
    taken: u64,
    scratch: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Usual {
    fn new(lane: &Lane<'_>) -> Self {
        let address = lane.serve();
        let config = lane.config(address);
        let tls = net::client_config(Some(&lane.identity.ca_pem)).expect("the root is one");
        let tls = rustls::ClientConnection::new(tls, address.ip().into()).expect("the configuration is complete");
        let stream = rustls::StreamOwned::new(tls, TcpStream::connect(address).expect("the server listens"));
        let url = format!("wss://{address}/stream");
        let (socket, _) = tungstenite::client(url, stream).expect("the server upgrades");
        // Only now it is not to block any more; nothing of a message has been read yet.
        let rustls::StreamOwned { conn, sock } = socket.into_inner();
        sock.set_nonblocking(true).expect("a socket can be told");
        let mut sock = mio::net::TcpStream::from_std(sock);
        let poll = Poll::new().expect("the system polls");
        poll.registry().register(&mut sock, Token(0), Interest::READABLE).expect("a socket can be polled");
        let stream = rustls::StreamOwned::new(conn, sock);
        let symbols = Symbols::new(lane.names.iter().map(String::as_str));
        Self {
            poll,
            events: Events::with_capacity(16),
            socket: WebSocket::from_raw_socket(stream, tungstenite::protocol::Role::Client, None),
            clock: SystemClock::start(),
            market: Market::new(symbols, &layout::kinds(&config), LIMITS),
            taken: 0,
            scratch: vec![0; 1 << 16],
            buffers: Buffers::new(1 << 12),
            tape: Tape(Vec::new()),
        }
    }
}

impl Client for Usual {
    fn take(&mut self, messages: u64) -> u64 {
        while self.taken < messages {
            self.poll.poll(&mut self.events, None).expect("the system polls");
            let now = self.clock.now();
            loop {
                let text = match self.socket.read() {
                    Ok(Message::Text(text)) => text,
                    Ok(_) => continue,
                    Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                };
                self.scratch[..text.len()].copy_from_slice(text.as_bytes());
                let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
                simd_json::fill_tape_padded(&mut self.scratch, text.len(), &mut self.buffers, &mut tape).unwrap();
                let frame = typed(&tape.0, self.market.symbols()).expect("a frame of ours");
                self.tape = tape.reset();
                self.market.apply(&frame, Source::default(), now);
                self.taken += 1;
                // Reading may go on without the poll for as long as the server is ahead; the count must end.
                if self.taken == messages {
                    return self.taken;
                }
            }
        }
        self.taken
    }

    fn checksum(&self) -> u64 {
        checksum(&self.market)
    }
}

/// The event that the nodes of a combined frame make, in one pass. Its kind is its first member, so what follows is
/// known to be of it; what is nested follows as if it were of the same object.
fn typed(nodes: &[Node<'_>], symbols: &Symbols) -> Option<Frame> {
    let mut members = nodes[1..].chunks_exact(2).filter_map(|pair| match pair {
        [Node::String(key), value] => Some((*key, value)),
        _ => None,
    });
    let (_, kind) = members.find(|(key, _)| *key == "e")?;
    let Node::String(kind) = kind else { return None };
    let id = |value: &Node<'_>| symbols.find(text(value).as_bytes());
    Some(match *kind {
        "aggTrade" => {
            let mut trade = NO_TRADE;
            for (key, value) in members {
                match key {
                    "E" => trade.event_time = UtcMs(number(value)),
                    "a" => trade.id = number(value),
                    "s" => trade.symbol = id(value)?,
                    "p" => (trade.price, trade.price_decimals) = fixed(value),
                    "q" => (trade.qty, trade.qty_decimals) = fixed(value),
                    "f" => trade.first_id = number(value),
                    "l" => trade.last_id = number(value),
                    "T" => trade.trade_time = UtcMs(number(value)),
                    "m" => trade.buyer_is_maker = flag(value),
                    _ => {}
                }
            }
            Frame::Trade(trade)
        }
        "markPriceUpdate" => {
            let mut mark = NO_MARK;
            for (key, value) in members {
                match key {
                    "E" => mark.event_time = UtcMs(number(value)),
                    "s" => mark.symbol = id(value)?,
                    "p" => mark.price = fixed(value).0,
                    "i" => mark.index_price = fixed(value).0,
                    "P" => mark.settle_price = Some(fixed(value).0),
                    "r" => mark.funding_rate = Some(fixed(value).0),
                    "T" => mark.next_funding = Some(UtcMs(number(value))),
                    _ => {}
                }
            }
            Frame::Mark(mark)
        }
        "kline" => {
            let mut kline = NO_KLINE;
            for (key, value) in members {
                match key {
                    "E" => kline.event_time = UtcMs(number(value)),
                    "s" => kline.symbol = id(value)?,
                    "t" => kline.open_time = UtcMs(number(value)),
                    "T" => kline.close_time = UtcMs(number(value)),
                    "i" => kline.interval = Interval::parse(text(value).as_bytes())?,
                    "f" => kline.first_id = number(value),
                    "L" => kline.last_id = number(value),
                    "o" => kline.open = fixed(value).0,
                    "c" => (kline.close, kline.price_decimals) = fixed(value),
                    "h" => kline.high = fixed(value).0,
                    "l" => kline.low = fixed(value).0,
                    "v" => (kline.volume, kline.qty_decimals) = wide(value),
                    "n" => kline.trades = number(value),
                    "x" => kline.closed = flag(value),
                    "q" => kline.quote_volume = wide(value).0,
                    "V" => kline.taker_buy_volume = wide(value).0,
                    "Q" => kline.taker_buy_quote_volume = wide(value).0,
                    _ => {}
                }
            }
            Frame::Kline(kline)
        }
        _ => return None,
    })
}

fn text<'a>(value: &Node<'a>) -> &'a str {
    if let Node::String(text) = value { text } else { "" }
}

fn number(value: &Node<'_>) -> i64 {
    match value {
        Node::Static(StaticNode::U64(number)) => *number as i64,
        Node::Static(StaticNode::I64(number)) => *number,
        _ => 0,
    }
}

fn flag(value: &Node<'_>) -> bool {
    matches!(value, Node::Static(StaticNode::Bool(true)))
}

fn fixed(value: &Node<'_>) -> (Fixed, u8) {
    let (number, decimals) = units(text(value));
    (Fixed(number), decimals)
}

fn wide(value: &Node<'_>) -> (Wide, u8) {
    let (number, decimals) = units(text(value));
    (Wide(i128::from(number)), decimals)
}

const NO_TRADE: AggTrade = AggTrade {
    symbol: SymbolId(0),
    id: 0,
    price: Fixed::ZERO,
    qty: Fixed::ZERO,
    first_id: 0,
    last_id: 0,
    trade_time: UtcMs(0),
    event_time: UtcMs(0),
    buyer_is_maker: false,
    price_decimals: 0,
    qty_decimals: 0,
};
const NO_MARK: MarkPrice = MarkPrice {
    symbol: SymbolId(0),
    price: Fixed::ZERO,
    index_price: Fixed::ZERO,
    settle_price: None,
    funding_rate: None,
    next_funding: None,
    event_time: UtcMs(0),
};
const NO_KLINE: Kline = Kline {
    symbol: SymbolId(0),
    interval: Interval::M1,
    open_time: UtcMs(0),
    close_time: UtcMs(0),
    open: Fixed::ZERO,
    high: Fixed::ZERO,
    low: Fixed::ZERO,
    close: Fixed::ZERO,
    volume: Wide(0),
    quote_volume: Wide(0),
    taker_buy_volume: Wide(0),
    taker_buy_quote_volume: Wide(0),
    trades: 0,
    first_id: 0,
    last_id: 0,
    closed: false,
    event_time: UtcMs(0),
    price_decimals: 0,
    qty_decimals: 0,
};

/// A decimal text in units of 1e-8, byte by byte: as fast as it gets for texts this short. And its decimals.
fn units(text: &str) -> (i64, u8) {
    let (mut number, mut decimals, mut after_point, mut negative) = (0_i64, 0, false, false);
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' => {
                number = number.wrapping_mul(10).wrapping_add(i64::from(byte - b'0'));
                decimals += u8::from(after_point);
            }
            b'.' => after_point = true,
            _ => negative = true,
        }
    }
    let number = number.wrapping_mul(10_i64.pow(8 - u32::from(decimals.min(8))));
    (if negative { -number } else { number }, decimals)
}

/// The loop as the process runs it.
struct Ours {
    reactor: Reactor,
    engine: Engine,
    clock: SystemClock,
}

impl Ours {
    fn new(lane: &Lane<'_>) -> Self {
        let config = lane.config(lane.serve());
        let tls = feed::tls_for(&config).expect("the root is one");
        let clock = SystemClock::start();
        let engine = Engine::new(&config, tls, 1, clock.now());
        assert_eq!(engine.feed().connections().count(), 1, "all streams fit on one connection");
        Self { reactor: Reactor::new().expect("the system polls"), engine, clock }
    }

    fn handle(&mut self, event: Event) {
        self.engine.handle(event, self.clock.now());
        while let Some(command) = self.engine.poll_command() {
            match command {
                Command::Dial { session, address } => self.reactor.dial(session, address),
                Command::Hangup { .. } | Command::Work { .. } | Command::Exit => panic!("{command:?}"),
            }
        }
        while let Some(session) = self.engine.poll_transmit() {
            let n = self.reactor.write(session, self.engine.transmit(session));
            self.engine.transmitted(session, n);
        }
    }
}

impl Client for Ours {
    fn take(&mut self, messages: u64) -> u64 {
        while self.engine.feed().connection(0).unwrap().frames < messages {
            self.reactor.wait(self.engine.poll_timeout(), &self.clock, false).expect("the system polls");
            while let Some(session) = self.reactor.next_ready() {
                if let Some(event) = self.reactor.read(session, self.engine.receive_buffer(session)) {
                    self.handle(event);
                }
            }
            self.handle(Event::Timeout);
        }
        assert_eq!(self.engine.feed().decoder().fallbacks(), 0, "frames of the usual shape");
        self.engine.feed().connection(0).unwrap().frames
    }

    fn checksum(&self) -> u64 {
        checksum(self.engine.market())
    }
}
