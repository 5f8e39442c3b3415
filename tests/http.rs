//! The status server, asked over real sockets. Every wait is bounded; no test passes because time went by.
#![allow(clippy::disallowed_methods, reason = "outside the core")]
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use binance_edge::shell::clock::SystemClock;
use binance_edge::shell::reactor::Reactor;
use binance_edge::shell::{http, watchdog};
use binance_edge::time::{Instant, Span};
// The sample speaks of the crate's modules by these names.
use binance_edge::{fixed, status, time};

#[path = "../src/shell/sample.rs"]
mod sample;

/// The server and a stand-in for the loop that publishes whenever it is asked.
struct World {
    server: Option<http::Server>,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    turns: Option<JoinHandle<()>>,
}

impl World {
    fn new() -> Self {
        Self::with(sample::status(), true)
    }

    fn with(initial: status::Status, publishing: bool) -> Self {
        let clock = SystemClock::start();
        let mut reactor = Reactor::new().unwrap();
        let (mut beat, gauge) = watchdog::start(watchdog::Limits::new(Span::from_secs(1)), clock).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let (server, mut publisher) = http::start(listen, initial.clone(), gauge, clock, reactor.waker()).unwrap();
        let (stop, published) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&published));
        let turns = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                reactor.wait(Instant::FAR, &clock, false).unwrap();
                let now = clock.mono();
                beat.wake(now);
                if publishing && publisher.wanted(now) {
                    let mut status = initial.clone();
                    status.uptime_ms = 1_000_000 + count.fetch_add(1, Ordering::AcqRel);
                    publisher.publish(Box::new(status));
                }
                beat.sleep(clock.mono());
            }
        });
        let address = server.address();
        Self { server: Some(server), address, stop, published, turns: Some(turns) }
    }

    fn client(&self) -> Client {
        Client::connect(self.address)
    }

    fn get(&self, path: &str) -> Answer {
        self.client().get(path)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.turns.take().unwrap().join().unwrap();
        assert!(self.server.take().unwrap().stop(Span::from_secs(20)), "the server did not stop");
    }
}

struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { socket, buffer: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        self.answer(true)
    }

    /// False at the end.
    fn more(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        let n = self.socket.read(&mut chunk).unwrap();
        self.buffer.extend_from_slice(&chunk[..n]);
        n > 0
    }

    fn answer(&mut self, with_body: bool) -> Answer {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more(), "ended before an answer");
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        let length: usize = if with_body { length.parse().unwrap() } else { 0 };
        while self.buffer.len() < length {
            assert!(self.more(), "ended inside an answer");
        }
        let body = String::from_utf8(self.buffer.drain(..length).collect()).unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { code, head, body }
    }

    fn ended(&mut self) -> bool {
        self.buffer.is_empty() && !matches!(self.socket.read(&mut [0; 1]), Ok(1..))
    }
}

#[test]
fn status_has_the_promised_keys() {
    let world = World::new();
    let answer = world.get("/status");
    assert_eq!(answer.code, 200);
    assert!(answer.head.contains("Content-Type: application/json\r\n"), "{}", answer.head);
    assert!(answer.head.contains("GMT\r\n"), "{}", answer.head);
    let body = answer.json();
    for key in [
        "version",
        "now",
        "uptime_ms",
        "health",
        "loop",
        "connections",
        "streams",
        "subscriptions",
        "symbols",
        "plans",
        "signals",
        "waves",
        "positions",
        "store",
        "workers",
    ] {
        assert!(body.get(key).is_some(), "{key}");
    }
    assert_eq!(body["health"]["level"], "degraded");
    assert_eq!(body["connections"][0]["last_failure"]["close_code"], 1000);
    assert_eq!(body["symbols"]["BTCUSDT"]["mark_price"]["price"], "64123.40");
    assert_eq!(body["symbols"]["ETHUSDT"]["trades"]["holes"][0]["from"], 7);
    assert!(body["loop"]["turns"].as_u64().unwrap() < 10_000, "the loop's own figures, not the sample's");
}

#[test]
fn an_answer_is_newer_than_its_question() {
    let world = World::new();
    let mut client = world.client();
    for _ in 0..20 {
        let before = world.published.load(Ordering::Acquire);
        let uptime = client.get("/status").json()["uptime_ms"].as_u64().unwrap();
        assert!(uptime >= 1_000_000 + before, "{uptime} was made before {before} others");
    }
}

#[test]
fn without_a_loop_that_answers_the_last_snapshot_is_served() {
    let world = World::with(sample::status(), false);
    let answer = world.get("/status");
    assert_eq!(answer.code, 200);
    assert_eq!(answer.json()["uptime_ms"], 83_456_789);
}

#[test]
fn a_dead_loop_is_said_and_not_hidden() {
    let clock = SystemClock::start();
    let reactor = Reactor::new().unwrap();
    let (beat, gauge) = watchdog::start(watchdog::Limits::new(Span::from_secs(1)), clock).unwrap();
    // A loop that has returned: nobody beats any more.
    drop(beat);
    let mut status = sample::status();
    status.streams.truncate(3);
    let listen = "127.0.0.1:0".parse().unwrap();
    let (server, _publisher) = http::start(listen, status, gauge.clone(), clock, reactor.waker()).unwrap();
    for _ in 0..30_000 {
        if gauge.last_turn_age() >= Span::from_secs(1) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut client = Client::connect(server.address());
    let health = client.get("/healthz");
    assert_eq!((health.code, &health.json()["ok"]), (503, &false.into()));
    let ready = client.get("/readyz");
    assert_eq!((ready.code, &ready.json()["ready"]), (503, &false.into()));
    let status = client.get("/status");
    assert_eq!((status.code, &status.json()["health"]["level"]), (200, &"unhealthy".into()));
    assert!(client.get("/metrics").body.contains("binance_edge_health{level=\"unhealthy\"} 1\n"));
    assert!(server.stop(Span::from_secs(20)));
}

#[test]
fn healthz_readyz_metrics_page_and_the_rest() {
    let world = World::new();
    let mut client = world.client();
    let health = client.get("/healthz");
    assert_eq!(health.code, 200);
    assert_eq!(health.json()["ok"], true);
    assert!(health.json()["last_turn_age_ms"].as_u64().is_some());
    let ready = client.get("/readyz");
    assert_eq!(ready.code, 503);
    assert_eq!(ready.body, r#"{"ready":false,"not_live":["ethusdt@markPrice@1s","ethusdt@kline_1m"]}"#);
    let metrics = client.get("/metrics");
    assert!(metrics.head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(metrics.body.contains("\nbinance_edge_stream_live{stream=\"btcusdt@aggTrade\"} 1\n"));
    let page = client.get("/");
    assert_eq!(page.code, 200);
    assert!(page.head.contains("Content-Type: text/html; charset=utf-8\r\n"));
    assert!(page.head.contains("default-src 'none'"));
    for outside in ["http://", "https://", "//cdn", "@import", "url("] {
        assert!(!page.body.contains(outside), "the page fetches {outside}");
    }
    let nothing = client.get("/nothing");
    assert_eq!(nothing.code, 404);
    assert!(nothing.json()["error"].as_str().unwrap().contains("/status"));
}

#[test]
fn ready_when_all_are_live_or_quiet() {
    let mut status = sample::status();
    status.streams.truncate(4);
    let world = World::with(status, true);
    let ready = world.get("/readyz");
    assert_eq!((ready.code, ready.body.as_str()), (200, r#"{"ready":true}"#));
}

#[test]
fn only_get_and_head() {
    let world = World::new();
    let mut client = world.client();
    client.send(b"HEAD /status HTTP/1.1\r\n\r\n");
    let head = client.answer(false);
    assert_eq!(head.code, 200);
    for method in ["PUT", "DELETE", "OPTIONS"] {
        client.send(format!("{method} /status HTTP/1.1\r\n\r\n").as_bytes());
        let answer = client.answer(true);
        assert_eq!(answer.code, 405, "{method}");
        assert!(answer.head.contains("Allow: GET, HEAD\r\n"));
    }
    // A body is not read as the next request.
    client.send(b"POST /status HTTP/1.1\r\nContent-Length: 40\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n");
    assert_eq!(client.answer(true).code, 405);
    assert!(client.ended());
}

#[test]
fn connections_are_kept_and_closed_as_asked() {
    let world = World::new();
    let mut client = world.client();
    for _ in 0..5 {
        assert_eq!(client.get("/healthz").code, 200);
    }
    client.send(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(client.answer(true).head.contains("Connection: close\r\n"));
    assert!(client.ended());
    let mut old = world.client();
    old.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(old.answer(true).head.contains("Connection: keep-alive\r\n"));
    old.send(b"GET /healthz HTTP/1.0\r\n\r\n");
    assert!(old.answer(true).head.contains("Connection: close\r\n"));
    assert!(old.ended());
    // A client that has said all it had to say still wants its answer.
    let mut half = world.client();
    half.send(b"GET /status HTTP/1.1\r\n\r\n");
    half.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(half.answer(true).code, 200);
    assert!(half.ended());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let world = World::new();
    let mut client = world.client();
    let paths = ["/status", "/healthz", "/nothing", "/metrics", "/readyz", "/"];
    let codes = [200, 200, 404, 200, 503, 200];
    let all: String = (0..60).map(|n| format!("GET {} HTTP/1.1\r\n\r\n", paths[n % 6])).collect();
    client.send(all.as_bytes());
    for n in 0..60 {
        assert_eq!(client.answer(true).code, codes[n % 6], "request {n}");
    }
    // Cut anywhere, empty lines between.
    for byte in b"\r\n\r\nGET /healthz HTTP/1.1\r\nA: b\r\n\r\n\r\nGET /nothing HTTP/1.1\r\n\r\n" {
        client.send(&[*byte]);
    }
    assert_eq!(client.answer(true).code, 200);
    assert_eq!(client.answer(true).code, 404);
}

#[test]
fn heads_have_a_limit() {
    let world = World::new();
    let mut client = world.client();
    let request = |filler: usize| format!("GET /healthz HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(filler));
    let around = request(0).len();
    client.send(request(8192 - around).as_bytes());
    assert_eq!(client.answer(true).code, 200, "8 KiB to the byte");
    client.send(request(8193 - around).as_bytes());
    assert_eq!(client.answer(true).code, 431);
    assert!(client.ended());
    // Whoever sends far more still gets to read why it was refused.
    let mut endless = world.client();
    let _ = endless.socket.write_all(request(100_000).as_bytes());
    assert_eq!(endless.answer(true).code, 431);
    let mut many = world.client();
    let headers: String = (0..100).map(|n| format!("H{n}: x\r\n")).collect();
    many.send(format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes());
    assert_eq!(many.answer(true).code, 431);
}

#[test]
fn rubbish_is_refused_and_harmless() {
    let world = World::new();
    for rubbish in
        ["\x16\x03\x01\x02\x00\x01\x00\x01", "GET\r\n\r\n", "PRI * HTTP/2.0\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"]
    {
        let mut client = world.client();
        client.send(rubbish.as_bytes());
        let code = client.answer(true).code;
        assert!([400, 505].contains(&code), "{code} for {rubbish:?}");
        assert!(client.ended());
    }
    assert_eq!(world.get("/healthz").code, 200);
}

#[test]
fn many_clients_and_the_idlest_goes_first() {
    let world = World::new();
    let mut clients: Vec<_> = (0..64).map(|_| world.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/healthz").code, 200, "64 at a time");
    }
    // The first one stays busy while others come.
    for _ in 0..200 {
        let mut client = world.client();
        assert_eq!(client.get("/healthz").code, 200);
        clients.push(client);
        assert_eq!(clients[0].get("/healthz").code, 200, "the busiest is kept");
    }
    assert!(clients[1].ended(), "the idlest is not");
    assert!(clients[2].ended());
    assert_eq!(clients.last_mut().unwrap().get("/status").code, 200);
}

#[test]
fn a_slow_head_keeps_nobody_waiting() {
    let world = World::new();
    let mut slow = world.client();
    for byte in b"GET /healthz HTT" {
        slow.send(&[*byte]);
        assert_eq!(world.get("/status").code, 200);
    }
    slow.send(b"P/1.1\r\n\r\n");
    assert_eq!(slow.answer(true).code, 200);
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let world = World::new();
    let mut blocked = world.client();
    // Far more answers than the kernel's buffers hold; the server stops reading long before it has answered them.
    let requests = "GET / HTTP/1.1\r\n\r\n".repeat(2_000);
    blocked.socket.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Ok(n @ 1..) = blocked.socket.write(&requests.as_bytes()[sent..]) {
        sent += n;
    }
    for _ in 0..20 {
        assert_eq!(world.get("/status").code, 200);
    }
    // And it gets all its answers once it reads.
    blocked.socket.set_nonblocking(false).unwrap();
    let whole = sent / "GET / HTTP/1.1\r\n\r\n".len();
    for n in 0..whole {
        assert_eq!(blocked.answer(true).code, 200, "answer {n} of {whole}");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let world = World::new();
    let clock = SystemClock::start();
    let reactor = Reactor::new().unwrap();
    let (_beat, gauge) = watchdog::start(watchdog::Limits::new(Span::from_secs(1)), clock).unwrap();
    let error = http::start(world.address, sample::status(), gauge, clock, reactor.waker()).unwrap_err();
    assert!(error.to_string().contains(&world.address.to_string()), "{error}");
}

/// Serves the sample for a look at the page: `cargo test --test http -- --ignored --nocapture look`.
#[test]
#[ignore = "for people: serves the sample for a minute"]
fn look() {
    let mut status = sample::two_legs();
    for n in 0..60 {
        let mut stream = status.streams[1].clone();
        stream.stream = format!("coin{n}usdt@aggTrade");
        status.streams.push(stream);
    }
    let world = World::with(status, true);
    println!("http://{}/", world.address);
    std::thread::sleep(Duration::from_secs(60));
}
