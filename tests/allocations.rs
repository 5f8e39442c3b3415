//! No allocation of ours per frame: the whole engine, from received bytes to the rings, under a counting allocator.
//!
//! Without TLS nothing is allocated at all once the rings exist. Over TLS one vector a record is left, inside rustls'
//! 0.23 line (`benches/wire_to_ring.rs` counts it: 1.000 a record, 0.031 a message with 32 messages a record).

use binance_edge::config::{Config, SubscribeBy, Url};
use binance_edge::engine::{Command, Engine, Event, SessionId};
use binance_edge::time::{Instant, Now};
use tungstenite::handshake::derive_accept_key;

const SESSION: SessionId = SessionId(0);
const T0: i64 = 1_785_000_000_000;

struct Line {
    engine: Engine,
    ns: u64,
}

impl Line {
    fn now(&self) -> Now {
        Now { mono: Instant::from_ns(self.ns), utc_ns: T0 * 1_000_000 + self.ns as i64 }
    }

    fn tell(&mut self, event: Event) {
        self.ns += 1_000;
        self.engine.handle(event, self.now());
        while self.engine.poll_command().is_some() {}
        while self.engine.poll_transmit().is_some() {}
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let buffer = self.engine.receive_buffer(SESSION);
            let n = buffer.len().min(bytes.len());
            buffer[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            self.tell(Event::Received(SESSION, n));
        }
    }
}

/// An engine whose one connection is open, its streams asked for by the URL.
fn open() -> Line {
    let url = Url { scheme: "ws", host: "127.0.0.1".into(), port: 9443, path: "/market".into() };
    let mut config = Config::for_exchange(&["BTCUSDT"], url, None, None);
    config.streams.subscribe_by = SubscribeBy::Url;
    config.tape.trades = 1_000;
    let now = Now { mono: Instant::ZERO, utc_ns: T0 * 1_000_000 };
    let mut line = Line { engine: Engine::new(&config, None, 1, now), ns: 0 };
    line.engine.handle(Event::Timeout, line.now());
    assert!(matches!(line.engine.poll_command(), Some(Command::Dial { .. })));
    line.tell(Event::Connected(SESSION));
    let request = String::from_utf8(line.engine.transmit(SESSION).to_vec()).expect("our request is text");
    line.engine.transmitted(SESSION, request.len());
    let key = request.split("Sec-WebSocket-Key: ").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("a key");
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    line.receive(answer.as_bytes());
    line
}

fn frame(stream: &str, data: &str) -> Vec<u8> {
    let text = format!(r#"{{"stream":"btcusdt@{stream}","data":{data}}}"#);
    let mut frame = vec![0x81, 126];
    frame.extend((text.len() as u16).to_be_bytes());
    frame.extend(text.as_bytes());
    frame
}

fn trade(n: i64) -> Vec<u8> {
    let (id, at) = (1_000_000 + n, T0 + n);
    frame(
        "aggTrade",
        &format!(
            r#"{{"e":"aggTrade","E":{at},"a":{id},"s":"BTCUSDT","p":"64123.40","q":"0.215","nq":"0.215","f":{id},"l":{id},"T":{at},"m":true,"st":1}}"#
        ),
    )
}

fn mark(n: i64) -> Vec<u8> {
    let at = T0 + n;
    frame(
        "markPrice@1s",
        &format!(
            r#"{{"e":"markPriceUpdate","E":{at},"s":"BTCUSDT","p":"64123.40000000","ap":"64123.40000000","P":"64120.10000000","i":"64130.12345678","r":"0.00010000","T":{T0},"st":1}}"#
        ),
    )
}

fn kline(n: i64) -> Vec<u8> {
    // A new candle each hundred pushes, its last push closing it.
    let open = (T0 / 60_000 + n / 100) * 60_000;
    let (at, close, closed) = (open + 30_000 + n % 100, open + 59_999, n % 100 == 99);
    frame(
        "kline_1m",
        &format!(
            r#"{{"e":"kline","E":{at},"s":"BTCUSDT","k":{{"t":{open}, "T":{close}, "s":"BTCUSDT", "i":"1m", "f":1, "L":9, "o":"64000.00", "c":"64123.40", "h":"64200.00", "l":"63900.00", "v":"12.500", "n":9, "x":{closed}, "q":"800000.00000", "V":"6.000", "Q":"384000.00000", "B":"0"}}}}"#
        ),
    )
}

type Make = fn(i64) -> Vec<u8>;

#[test]
fn no_frame_costs_an_allocation() {
    let mut line = open();
    let kinds: [(&str, Make); 3] = [("aggTrade", trade), ("markPrice", mark), ("kline", kline)];
    // Everything is live, every ring has wrapped, every buffer has its size.
    for n in 0..60_000 {
        for (_, make) in kinds {
            line.receive(&make(n));
        }
    }
    while line.engine.poll_note().is_some() {}
    for (kind, make) in kinds {
        // Some frames at once, cut anywhere, as a socket gives them.
        let bytes: Vec<u8> = (60_000..80_000).flat_map(make).collect();
        bytes.chunks(7_777).for_each(|piece| line.receive(piece));
        let bytes: Vec<u8> = (80_000..100_000).flat_map(make).collect();
        let info = allocation_counter::measure(|| bytes.chunks(7_777).for_each(|piece| line.receive(piece)));
        assert_eq!((info.count_total, info.count_current), (0, 0), "{kind}: {} bytes", info.bytes_total);
    }
    let book = line.engine.market().books().next().expect("one symbol").1;
    let tape = book.tape.as_ref().expect("trades are subscribed to");
    assert_eq!(
        (tape.received(), tape.missing(), line.engine.feed().connection(0).unwrap().rejected().map(|r| r.1).sum()),
        (100_000, 0, 0_u64)
    );
}
