//! What it costs to read one frame: ours against simd-json and serde_json, as ratios taken in one run.
//!
//! Contenders take turns within each round, so that whatever else the machine does falls on all of them; the medians
//! over the rounds are shown. Nobody copies a frame: simd-json reads each in place in a padded buffer of its own, with
//! a recycled tape, which is its fastest use. All three end in the same values, exact decimals and interned symbols
//! included, and their checksums must agree. Ours alone also checks what it read.
//!
//! `cargo bench --bench parse`; with `--tiny` or `--test` (and under `cargo test`) it only runs once through.
#![allow(clippy::disallowed_methods, reason = "outside the core")]
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

mod common;

use binance_edge::wire::market::{Decoded, Decoder};
use binance_edge::wire::{Frame, Symbols};
use common::frames::{self, combined};
use common::{median, tiny};
use serde::Deserialize;
use simd_json::{Buffers, Node, StaticNode, Tape};
use std::hint::black_box;
use std::time::Instant;

const NAMES: [&str; 6] = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "1000SHIBUSDT", "BTCUSDT_261225", "XRPUSDT"];

/// What a contender made of a frame, folded into one number: every field that is read takes part.
type Sum = i128;

fn main() {
    let (rounds, passes) = if tiny() { (1, 1) } else { (31, 40) };
    let symbols = Symbols::new(NAMES);
    let mut random = fastrand::Rng::with_seed(7);

    println!(
        "{:<20}{:>7}{:>9}{:>9}{:>9}{:>9}{:>10}{:>10}",
        "ns/frame", "bytes", "ours", "general", "simd", "serde", "/simd", "/serde"
    );
    for (kind, make) in KINDS {
        let frames: Vec<String> = (0..1024).map(|n| make(&mut random, n)).collect();
        let bytes = frames.iter().map(String::len).sum::<usize>() / frames.len();
        let mut ours = Ours(Decoder::default());
        let mut general = General(Decoder::default());
        let mut simd = Simd::new(&frames);
        let mut serde = Serde;
        let mut contenders: [&mut dyn Contender; 4] = [&mut ours, &mut general, &mut simd, &mut serde];
        let mut times = vec![Vec::new(); contenders.len()];
        let mut sums = vec![0; contenders.len()];
        for _ in 0..rounds {
            for (place, contender) in contenders.iter_mut().enumerate() {
                let begun = Instant::now();
                for _ in 0..passes {
                    sums[place] = contender.run(black_box(&frames), &symbols);
                }
                times[place].push(begun.elapsed().as_nanos() as f64 / f64::from(passes * 1024));
            }
        }
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{kind}: contenders read different values: {sums:?}");
        assert_eq!(ours.0.fallbacks(), 0, "{kind}: not the usual shape");
        let [ours, general, simd, serde] = [0, 1, 2, 3].map(|place| median(&mut times[place]));
        println!(
            "{kind:<20}{bytes:>7}{ours:>9.1}{general:>9.1}{simd:>9.1}{serde:>9.1}{:>10.3}{:>10.3}   sum {:016x}",
            ours / simd,
            ours / serde,
            sums[0] as u64
        );
    }
}

// ---- the frames ----

type Make = fn(&mut fastrand::Rng, usize) -> String;
const KINDS: [(&str, Make); 6] = [
    ("aggTrade raw", |random, n| raw(random, n)),
    ("aggTrade combined", |random, n| combined(name(n), "aggTrade", &raw(random, n))),
    ("aggTrade spot", |random, n| {
        let id = frames::id(random);
        combined(name(n), "aggTrade", &frames::spot(random, name(n), id))
    }),
    ("markPrice combined", |random, n| combined(name(n), "markPrice@1s", &frames::mark(random, name(n)))),
    ("kline combined", |random, n| combined(name(n), "kline_1m", &kline(random, n, ", "))),
    ("kline spot", |random, n| combined(name(n), "kline_1m", &kline(random, n, ","))),
];

fn name(n: usize) -> &'static str {
    NAMES[n % NAMES.len()]
}

fn raw(random: &mut fastrand::Rng, n: usize) -> String {
    let id = frames::id(random);
    frames::trade(random, name(n), id)
}

fn kline(random: &mut fastrand::Rng, n: usize, comma: &str) -> String {
    let open_time = frames::time(random) / 60_000 * 60_000;
    frames::kline(random, name(n), open_time, comma)
}

// ---- the contenders ----

trait Contender {
    fn run(&mut self, frames: &[String], symbols: &Symbols) -> Sum;
}

fn of_frame(frame: &Frame) -> Sum {
    match frame {
        Frame::Trade(t) => {
            let ids = t.id + t.first_id + t.last_id + t.trade_time.0 + t.event_time.0 + i64::from(t.symbol.0);
            i128::from(ids + t.price.0 + t.qty.0 + i64::from(t.buyer_is_maker))
        }
        Frame::Mark(m) => {
            let next = m.next_funding.map_or(0, |next| next.0) + m.event_time.0 + i64::from(m.symbol.0);
            let rates = m.funding_rate.map_or(0, |rate| rate.0) + m.settle_price.map_or(0, |price| price.0);
            i128::from(next + rates + m.price.0 + m.index_price.0)
        }
        Frame::Kline(k) => {
            let ids = k.first_id + k.last_id + k.trades + i64::from(k.closed) + i64::from(k.symbol.0);
            let times = k.open_time.0 + k.close_time.0 + k.event_time.0 + k.interval.millis();
            let prices = k.open.0 + k.high.0 + k.low.0 + k.close.0;
            let volumes = k.volume.0 + k.quote_volume.0 + k.taker_buy_volume.0 + k.taker_buy_quote_volume.0;
            i128::from(ids + times + prices) + volumes
        }
    }
}

struct Ours(Decoder);

impl Contender for Ours {
    fn run(&mut self, frames: &[String], symbols: &Symbols) -> Sum {
        let mut sum = 0;
        for frame in frames {
            if let Ok(Decoded::Frame(frame)) = self.0.decode(frame, symbols) {
                sum += of_frame(&frame);
            }
        }
        sum
    }
}

struct General(Decoder);

impl Contender for General {
    fn run(&mut self, frames: &[String], symbols: &Symbols) -> Sum {
        let mut sum = 0;
        for frame in frames {
            if let Ok(Decoded::Frame(frame)) = self.0.read_only(frame, symbols) {
                sum += of_frame(&frame);
            }
        }
        sum
    }
}

/// A decimal text in units of 1e-8, byte by byte: as fast as it gets for texts this short.
fn units(text: &str) -> i64 {
    let (mut number, mut decimals, mut after_point, mut negative) = (0_i64, 0, false, false);
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' => {
                number = number.wrapping_mul(10).wrapping_add(i64::from(byte - b'0'));
                decimals += usize::from(after_point);
            }
            b'.' => after_point = true,
            _ => negative = true,
        }
    }
    let number = number.wrapping_mul(10_i64.pow(8 - decimals.min(8) as u32));
    if negative { -number } else { number }
}

/// Each frame in its own padded buffer, the tape and the buffers used again, the nodes walked once.
struct Simd {
    padded: Vec<Vec<u8>>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Simd {
    fn new(frames: &[String]) -> Self {
        let pad = |frame: &String| [frame.as_bytes(), &[b' '; simd_json::INPUT_PADDING]].concat();
        Self { padded: frames.iter().map(pad).collect(), buffers: Buffers::new(1024), tape: Tape(Vec::new()) }
    }
}

impl Contender for Simd {
    fn run(&mut self, _: &[String], symbols: &Symbols) -> Sum {
        let mut sum = 0;
        for frame in &mut self.padded {
            let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
            let len = frame.len() - simd_json::INPUT_PADDING;
            simd_json::fill_tape_padded(frame, len, &mut self.buffers, &mut tape).unwrap();
            sum += walk(&tape.0, symbols);
            self.tape = tape.reset();
        }
        sum
    }
}

fn walk(nodes: &[Node<'_>], symbols: &Symbols) -> Sum {
    let mut sum = 0;
    let mut candle = false;
    let mut at = 1;
    while at + 1 < nodes.len() {
        let Node::String(key) = nodes[at] else { break };
        match &nodes[at + 1] {
            // the wrapper's payload and the candle: their keys follow as if they were of this object
            Node::Object { .. } => candle = key == "k",
            Node::String(text) => match key {
                "s" if candle => {}
                "s" => sum += i128::from(symbols.find(text.as_bytes()).map_or(0, |id| id.0)),
                "i" if candle => {
                    sum += i128::from(binance_edge::wire::Interval::parse(text.as_bytes()).map_or(0, |i| i.millis()));
                }
                "p" | "q" | "o" | "h" | "l" | "c" | "v" | "V" | "Q" | "i" | "P" | "r" => sum += i128::from(units(text)),
                _ => {}
            },
            Node::Static(node) => match (key, node) {
                ("M" | "st", _) => {}
                (_, StaticNode::U64(number)) => sum += i128::from(*number),
                (_, StaticNode::I64(number)) => sum += i128::from(*number),
                (_, StaticNode::Bool(flag)) => sum += i128::from(*flag),
                (_, StaticNode::F64(_) | StaticNode::Null) => {}
            },
            Node::Array { .. } => break,
        }
        at += 2;
    }
    sum
}

#[derive(Deserialize)]
struct Wrapper<'a, T> {
    #[serde(rename = "stream", borrow)]
    _stream: &'a str,
    data: T,
}

#[derive(Deserialize)]
#[allow(non_snake_case)]
struct Trade<'a> {
    E: i64,
    a: i64,
    s: &'a str,
    p: &'a str,
    q: &'a str,
    f: i64,
    l: i64,
    T: i64,
    m: bool,
}

#[derive(Deserialize)]
#[allow(non_snake_case)]
struct Mark<'a> {
    E: i64,
    s: &'a str,
    p: &'a str,
    P: &'a str,
    i: &'a str,
    r: &'a str,
    T: i64,
}

#[derive(Deserialize)]
#[allow(non_snake_case)]
struct Push<'a> {
    E: i64,
    s: &'a str,
    #[serde(borrow)]
    k: Candle<'a>,
}

#[derive(Deserialize)]
#[allow(non_snake_case)]
struct Candle<'a> {
    t: i64,
    T: i64,
    i: &'a str,
    f: i64,
    L: i64,
    o: &'a str,
    c: &'a str,
    h: &'a str,
    l: &'a str,
    v: &'a str,
    n: i64,
    x: bool,
    q: &'a str,
    V: &'a str,
    Q: &'a str,
}

/// Borrowed structs, told beforehand which one comes.
struct Serde;

impl Contender for Serde {
    fn run(&mut self, frames: &[String], symbols: &Symbols) -> Sum {
        let id = |name: &str| i64::from(symbols.find(name.as_bytes()).map_or(0, |id| id.0));
        let of_trade = |t: Trade<'_>| t.E + t.a + id(t.s) + units(t.p) + units(t.q) + t.f + t.l + t.T + i64::from(t.m);
        let mut sum = 0;
        for frame in frames {
            sum += i128::from(if frame.starts_with("{\"e") {
                of_trade(serde_json::from_str(frame).unwrap())
            } else if frame.contains("@agg") {
                of_trade(serde_json::from_str::<Wrapper<'_, Trade<'_>>>(frame).unwrap().data)
            } else if frame.contains("@mark") {
                let m = serde_json::from_str::<Wrapper<'_, Mark<'_>>>(frame).unwrap().data;
                m.E + id(m.s) + units(m.p) + units(m.P) + units(m.i) + units(m.r) + m.T
            } else {
                let Push { E, s, k } = serde_json::from_str::<Wrapper<'_, Push<'_>>>(frame).unwrap().data;
                let interval = binance_edge::wire::Interval::parse(k.i.as_bytes()).map_or(0, |i| i.millis());
                let ids = E + id(s) + k.t + k.T + interval + k.f + k.L + k.n + i64::from(k.x);
                ids + [k.o, k.c, k.h, k.l, k.v, k.q, k.V, k.Q].map(units).iter().sum::<i64>()
            });
        }
        sum
    }
}
