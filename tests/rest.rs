//! REST over real loopback sockets: what the lane's call does with answers, and with those that never end. And the desk
//! in its simulated world, with the exchange's own weights and bans; and answers of the venue as they were captured.
//!
//! Nothing is asserted about how long something takes beyond its deadline and a generous bound.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::disallowed_methods, reason = "a test, outside the core")]

use binance_edge::config::Url;
use binance_edge::engine::rest::Ask;
use binance_edge::engine::{GetFailure, Response};
use binance_edge::fixed::Fixed;
use binance_edge::net;
use binance_edge::shell::clock::SystemClock;
use binance_edge::shell::rest;
use binance_edge::shell::workers::{Get, Resolve, system_resolver};
use binance_edge::sim::exchange::{Exchange, ExchangeConfig};
use binance_edge::sim::serve::{Faults, Pace, ServeOptions, Served, serve};
use binance_edge::sim::world::network::NetFault;
use binance_edge::sim::world::{Setup, World};
use binance_edge::time::{self, Span, UtcMs};
use binance_edge::wire::rest::{agg_trades, exchange_info, klines, premium_index, venue_error};
use binance_edge::wire::{Interval, SymbolId};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here should take, on the busiest machine.
const PATIENCE: Span = Span::from_secs(30);
/// A deadline that is to be met.
const SHORT: Span = Span::from_ms(700);

fn exchange(tls: bool, tune: impl FnOnce(&mut ExchangeConfig)) -> Served<Exchange> {
    let mut config = ExchangeConfig { warm_up_ms: 60_000, ..ExchangeConfig::default() };
    tune(&mut config);
    let options = ServeOptions { tls, ..ServeOptions::default() };
    serve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), move |utc| Exchange::new(config, utc), options).unwrap()
}

fn client(ca_pem: &str) -> Get {
    let pem = (!ca_pem.is_empty()).then_some(ca_pem);
    rest::client(Some(net::client_config(pem).unwrap()), system_resolver(), SystemClock::start())
}

fn base(scheme: &'static str, host: &str, port: u16) -> Url {
    Url { scheme, host: host.into(), port, path: String::new() }
}

/// A server of one answer, written by hand; says how many connections came.
fn by_hand(answer: impl Fn(&mut dyn Write) + Send + 'static) -> (Url, Arc<AtomicU32>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let came = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&came);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let _ = socket.read(&mut [0; 4096]);
            answer(&mut socket);
        }
    });
    (base("http", "127.0.0.1", port), came)
}

/// A call that must fail at its deadline, or soon after it.
fn in_time(get: &Get, base: &Url, target: &str) -> GetFailure {
    let began = Instant::now();
    let failure = get(base, target, SHORT).unwrap_err();
    let took = began.elapsed();
    assert!(took >= SHORT.to_std() && took < Duration::from_secs(10), "{took:?}: {failure:?}");
    assert!(failure.words.contains("not done within 700ms"), "{failure:?}");
    failure
}

#[test]
fn the_exchange_is_asked_over_tls_and_its_refusals_are_answers() {
    let served = exchange(true, |_| {});
    let get = client(&served.ca_pem);
    let base = base("https", "127.0.0.1", served.address.port());
    let ok = get(&base, "/fapi/v1/aggTrades?symbol=BTCUSDT&limit=50", PATIENCE).unwrap();
    assert_eq!((ok.status, ok.retry_after, ok.used_weight), (200, None, Some(20)));
    assert!(!agg_trades(&ok.body, SymbolId(0), None, 50).unwrap().is_empty());
    let info = get(&base, "/fapi/v1/exchangeInfo", PATIENCE).unwrap();
    assert!(exchange_info(&info.body).unwrap().iter().any(|listed| listed.name == "币安人生USDT"));
    let bad = get(&base, "/fapi/v1/klines?symbol=NOSUCH&interval=1m&limit=1", PATIENCE).unwrap();
    assert_eq!((bad.status, venue_error(&bad.body).unwrap().code), (400, -1121));
    assert_eq!(served.closing().unwrap().connections, 1, "the connection is kept");
}

#[test]
fn too_much_weight_comes_back_with_the_time_to_wait() {
    let served = exchange(false, |config| {
        config.limits.weight_per_min = 30;
        config.retry_after = true;
    });
    let (get, base) = (client(""), base("http", "127.0.0.1", served.address.port()));
    let answers: Vec<Response> =
        (0..4).map(|_| get(&base, "/fapi/v1/aggTrades?symbol=BTCUSDT&limit=1", PATIENCE).unwrap()).collect();
    let last = answers.iter().find(|answer| answer.status == 429).expect("80 of 30");
    assert!(last.retry_after.unwrap() <= Span::from_secs(60) && last.retry_after.unwrap() >= Span::from_secs(1));
}

#[test]
fn a_stranger_is_not_trusted_and_is_told_nothing() {
    let served = exchange(true, |_| {});
    let base = base("https", "127.0.0.1", served.address.port());
    let failure = client("")(&base, "/fapi/v1/time?signature=secret", PATIENCE).unwrap_err();
    assert!(failure.words.starts_with("TLS: ") && failure.words.contains("UnknownIssuer"), "{failure:?}");
    assert!(!failure.sent && !failure.words.contains("secret"), "{failure:?}");
    let without = rest::client(None, system_resolver(), SystemClock::start());
    assert!(!without(&base, "/", PATIENCE).unwrap_err().sent);
}

#[test]
fn the_deadline_is_total_whatever_trickles_or_hangs() {
    let served = exchange(true, |_| {});
    let get = client(&served.ca_pem);
    let base = base("https", "127.0.0.1", served.address.port());
    let target = "/fapi/v1/exchangeInfo?signature=secret";
    for (faults, sent) in [
        (Faults { tls: Pace::Mute, ..Faults::default() }, false),
        (Faults { tls: Pace::Trickle(Duration::from_millis(40)), ..Faults::default() }, false),
        (Faults { rest: Pace::Mute, ..Faults::default() }, true),
        (Faults { rest: Pace::Trickle(Duration::from_millis(5)), ..Faults::default() }, true),
    ] {
        assert!(served.set(faults));
        let failure = in_time(&get, &base, target);
        assert_eq!(failure.sent, sent, "{failure:?}");
        assert!(!failure.words.contains("secret"), "{failure:?}");
    }
    assert!(served.set(Faults::default()));
    assert_eq!(get(&base, "/fapi/v1/time", PATIENCE).unwrap().status, 200);
}

#[test]
fn a_body_that_trickles_without_end_or_is_too_long_is_left() {
    let (base, _) = by_hand(|socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while socket.write_all(b"1\r\nx\r\n").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(in_time(&client(""), &base, "/").sent);
    let (base, _) = by_hand(|socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let megabyte = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            let _ = socket.write_all(b"100000\r\n").and_then(|()| socket.write_all(&megabyte));
            let _ = socket.write_all(b"\r\n");
        }
    });
    let failure = client("")(&base, "/", PATIENCE).unwrap_err();
    assert!(failure.words.contains("larger than request limit"), "{failure:?}");
}

#[test]
fn a_redirect_is_an_answer_and_is_not_followed() {
    let (elsewhere, came) = by_hand(|_| {});
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: {elsewhere}/x?signature=secret\r\nContent-Length: 0\r\n\r\n");
    let (base, _) = by_hand(move |socket| socket.write_all(answer.as_bytes()).unwrap());
    let response = client("")(&base, "/fapi/v1/time", PATIENCE).unwrap();
    assert_eq!((response.status, response.body.len(), came.load(Ordering::SeqCst)), (302, 0, 0));
}

#[test]
fn what_is_cut_refused_or_no_http_is_a_failure_in_words() {
    let (cut, _) = by_hand(|socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let (other, _) = by_hand(|socket| {
        let _ = socket.write_all(b"SSH-2.0-OpenSSH_9.6\r\n");
    });
    for base in [&cut, &other] {
        let failure = client("")(base, "/x?signature=secret", PATIENCE).unwrap_err();
        assert!(failure.sent && failure.words.starts_with("answer: "), "{failure:?}");
        assert!(!failure.words.contains("secret"), "{failure:?}");
    }
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let failure = client("")(&base("http", "127.0.0.1", closed), "/", PATIENCE).unwrap_err();
    assert!(!failure.sent && failure.words.starts_with("connect: "), "{failure:?}");
}

#[test]
fn a_resolver_that_hangs_costs_no_more_than_the_deadline() {
    let served = exchange(false, |_| {});
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let resolve: Resolve = Arc::new(move |host, port| {
        count.fetch_add(1, Ordering::SeqCst);
        if host.starts_with("hang") {
            thread::sleep(Duration::from_secs(60));
        }
        Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))])
    });
    let get = rest::client(None, resolve, SystemClock::start());
    let port = served.address.port();
    for _ in 0..6 {
        let failure = get(&base("http", "hang.example", port), "/", SHORT).unwrap_err();
        assert!(!failure.sent && failure.words.starts_with("name lookup: "), "{failure:?}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 4, "no more of them hang at once");
}

#[test]
fn a_good_address_is_kept_for_a_while() {
    let served = exchange(false, |_| {});
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let resolve: Resolve = Arc::new(move |_, port| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))]),
        _ => Err("gone".to_owned()),
    });
    let get = rest::client(None, resolve, SystemClock::start());
    let base = base("http", "venue.example", served.address.port());
    for _ in 0..3 {
        assert_eq!(get(&base, "/fapi/v1/ping", PATIENCE).unwrap().body, b"{}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

const BTC: SymbolId = SymbolId(0);
const NEWEST: Ask = Ask::Trades { symbol: BTC, from_id: None, limit: 1000 };

/// What the process says of its calls: endpoint, result, count.
fn calls(world: &World) -> Vec<(&'static str, &'static str, u64)> {
    world.status().rest_requests.iter().map(|row| (row.endpoint, row.result, row.count)).collect()
}

#[test]
fn in_the_world_everything_that_can_be_asked_is_answered() {
    let run = |ask: bool| {
        let mut world = World::new(&Setup::new(7, &["BTCUSDT", "币安人生USDT"]));
        world.run_for(Span::from_secs(20));
        let klines = Ask::Klines { symbol: SymbolId(1), interval: Interval::M1, start: None, end: None, limit: 500 };
        if ask {
            for ask in [NEWEST, klines, Ask::Premium { symbol: SymbolId(1) }, Ask::ExchangeInfo] {
                world.ask(ask).unwrap();
            }
        }
        world.run_for(Span::from_secs(5));
        assert_eq!(world.violations(), [""; 0]);
        assert!(world.engine().rest().is_idle());
        (world.hash(), calls(&world))
    };
    let (hash, answered) = run(true);
    // The process itself reads the venue's list, and asks about the one symbol that was silent for a while.
    let by_itself = [("aggTrades", "ok", 1), ("exchangeInfo", "ok", 1)];
    assert_eq!(run(false).1, by_itself);
    assert_eq!(
        answered,
        [("aggTrades", "ok", 2), ("klines", "ok", 1), ("premiumIndex", "ok", 1), ("exchangeInfo", "ok", 2)]
    );
    assert_eq!(run(true), (hash, answered));
}

#[test]
fn in_the_world_silence_is_a_timeout_and_a_closed_port_a_failure() {
    let mut world = World::new(&Setup::new(8, &["BTCUSDT"]));
    let at = |s| time::Instant::ZERO + Span::from_secs(s);
    world.schedule(NetFault::RestSilent, at(10), Span::from_secs(10));
    world.schedule(NetFault::RestFails, at(30), Span::from_secs(10));
    world.run_for(Span::from_secs(15));
    world.ask(NEWEST).unwrap();
    world.run_for(Span::from_secs(20));
    world.ask(NEWEST).unwrap();
    world.run_for(Span::from_secs(15));
    world.ask(NEWEST).unwrap();
    world.run_for(Span::from_secs(5));
    assert_eq!(
        calls(&world),
        [("aggTrades", "ok", 1), ("aggTrades", "failed", 1), ("aggTrades", "timeout", 1), ("exchangeInfo", "ok", 1)]
    );
    let said: Vec<String> = world.notes().iter().map(|stamped| stamped.note.to_string()).collect();
    for words in ["rest: aggTrades: no whole answer in 5s", "rest: aggTrades: connect: refused"] {
        assert!(said.iter().any(|said| said == words), "{said:#?}");
    }
}

#[test]
fn in_the_world_the_budget_keeps_us_below_the_limit_and_a_429_silences_us() {
    let mut world = World::new(&Setup::new(9, &["BTCUSDT"]));
    (0..200).for_each(|_| world.ask(NEWEST).unwrap());
    world.run_for(Span::from_secs(240));
    assert_eq!(calls(&world), [("aggTrades", "ok", 200), ("exchangeInfo", "ok", 1)]);
    let used = world.exchange().ledger().max_weight;
    assert!((1_100..=1_200).contains(&used), "{used} of 2400 in a minute");

    let mut setup = Setup::new(9, &["BTCUSDT"]);
    setup.exchange.limits.weight_per_min = 200;
    let mut world = World::new(&setup);
    (0..40).for_each(|_| world.ask(NEWEST).unwrap());
    world.run_for(Span::from_secs(5));
    let refused = calls(&world).iter().find(|(_, result, _)| *result == "refused").map(|(.., count)| *count);
    assert!((1..=4).contains(&refused.unwrap()), "{refused:?}: those under way, and no more");
    let before = world.exchange().ledger().rest_requests;
    world.run_until(Span::from_secs(120), |world| world.exchange().ledger().rest_requests > before);
    let named = world.engine().rest().blocked_until();
    assert!(world.now() >= named && world.now().since(named) < Span::from_secs(1), "{named:?} {:?}", world.now());
    assert!(world.notes().iter().any(|stamped| stamped.note.to_string().starts_with("rest: HTTP 429: -1003 Too many")));
}

/// Captured answers beside the project, if this machine has them.
fn captured(name: &str) -> Option<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = ["../shared/data", "../../shared/data"].map(|place| root.join(place).join("fixtures/rest").join(name));
    let found = places.into_iter().find_map(|path| std::fs::read(path).ok());
    if found.is_none() {
        eprintln!("skipped: captured answers not present");
    }
    found
}

#[test]
fn captured_answers_are_read() {
    for (name, rows) in [
        ("um_aggTrades_2026-10-07.json", 3),
        ("um_aggTrades_LTCUSDT_500_2020-10-16.json", 500),
        ("spot_aggTrades_BTCUSDT_1000_2020-01-02.json", 1000),
    ] {
        let Some(body) = captured(name) else { return };
        assert_eq!(agg_trades(&body, BTC, None, 1000).map(|trades| trades.len()), Ok(rows), "{name}");
    }
    for (name, interval, rows) in [
        ("um_klines_1m_2026-10-07.json", Interval::M1, 2),
        ("um_klines_LTCUSDT_5m_500_2020-10.json", Interval::M5, 500),
    ] {
        let Some(body) = captured(name) else { return };
        let now = UtcMs(1_791_383_000_000);
        let read = klines(&body, (BTC, interval), (None, None), 1000, now);
        assert_eq!(read.map(|candles| candles.len()), Ok(rows), "{name}");
    }
    let Some(body) = captured("um_premiumIndex_2023-06-20.json") else { return };
    assert_eq!(premium_index(&body, BTC, "BTCUSDT").map(|mark| mark.price), Ok(Fixed(2_678_082_240_476)));
    for name in [
        "um_exchangeInfo_2026-10-07_5symbols.json",
        "um_exchangeInfo_full_2021-07-22.json",
        "um_exchangeInfo_full_2023-12-16.json",
    ] {
        let Some(body) = captured(name) else { return };
        let listed = exchange_info(&body).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert!(listed.len() >= 5 && listed[0].tick.is_some() && listed[0].step.is_some(), "{name}");
    }
}
