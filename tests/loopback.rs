//! The real process on real sockets, with real TLS, threads and clocks, against the built-in exchange and its faults.
//!
//! Nothing here asserts how long something took beyond a generous bound: the machine may be busy. Exact times are told
//! in virtual time elsewhere.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "outside the core")]

use binance_edge::config::{Config, Url};
use binance_edge::market::Market;
use binance_edge::shell::logger::{self, Logger};
use binance_edge::shell::run::{Shell, Stopper};
use binance_edge::shell::workers::{Resolve, system_resolver};
use binance_edge::sim::exchange::{Exchange, ExchangeConfig, Fault, Harm};
use binance_edge::sim::serve::{Faults, Pace, ServeOptions, Served, Strike, lost_syn, serve};
use binance_edge::sim::world::audit::audit;
use binance_edge::time::{Span, UtcMs};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

static LOGGER: LazyLock<Logger> = LazyLock::new(|| logger::start("off").unwrap());

/// Longer than anything here should take, on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(40);

fn exchange(tune: impl FnOnce(&mut ExchangeConfig)) -> Served<Exchange> {
    let mut config = ExchangeConfig { warm_up_ms: 0, ..ExchangeConfig::default() };
    tune(&mut config);
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    serve(listen, move |utc| Exchange::new(config, utc), ServeOptions::default()).unwrap()
}

/// The documented defaults, in a hurry.
fn config(served: &Served<Exchange>, symbols: &[&str]) -> Config {
    let url = Url { scheme: "wss", host: "localhost".into(), port: served.address.port(), path: "/market".into() };
    let mut config = Config::for_exchange(symbols, url, None, Some(served.ca_pem.clone()));
    let d = &mut config.deadlines;
    for stage in [&mut d.resolve, &mut d.tcp, &mut d.tls, &mut d.upgrade, &mut d.ack, &mut d.ping_after, &mut d.pong] {
        *stage = Span::from_ms(400);
    }
    d.connect = Span::from_ms(1_500);
    d.first_data = Span::from_secs(3);
    config.backoff.min = Span::from_ms(50);
    config.backoff.max = Span::from_ms(200);
    config
}

struct Process {
    http: SocketAddr,
    stopper: Stopper,
    thread: JoinHandle<(binance_edge::status::Status, Market, bool)>,
}

impl Process {
    fn start(config: Config, resolve: Resolve) -> Self {
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let shell = Shell::start(&config, 1, resolve, None, LOGGER.clone()).unwrap();
            tell.send((shell.http_address(), shell.stopper())).unwrap();
            let finished = shell.run(None, |_, _| {}).unwrap();
            (finished.status, finished.engine.into_market(), finished.clean)
        });
        let (http, stopper) = told.recv_timeout(PATIENCE).unwrap();
        Self { http, stopper, thread }
    }

    fn get(&self, path: &str) -> Value {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
        let mut answer = agent.get(format!("http://{}{path}", self.http)).call().unwrap();
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    }

    /// Asks for the status until it is so.
    fn until(&self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.get("/status");
            if so(&status) {
                return status;
            }
            assert!(Instant::now() < end, "never: {what}\n{status:#}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn until_all_live(&self) -> Value {
        self.until("all streams live", |s| rows(s, "streams").iter().all(|row| row["state"] == "live"))
    }

    fn stop(self) -> (binance_edge::status::Status, Market) {
        self.stopper.stop();
        let (status, market, clean) = self.thread.join().unwrap();
        assert!(clean, "the stop was not clean");
        (status, market)
    }
}

fn rows<'v>(status: &'v Value, part: &str) -> &'v [Value] {
    status[part].as_array().unwrap()
}

fn last_stage(status: &Value) -> &str {
    rows(status, "connections")[0]["last_failure"]["stage"].as_str().unwrap_or("none")
}

/// What is held is the exchange's own.
fn assert_equal(served: &Served<Exchange>, market: Market) -> u64 {
    let audit = served.with(move |exchange, _| audit(&market, exchange.truth())).unwrap();
    assert_eq!((audit.differences, audit.missing), (Vec::new(), 0));
    audit.trades
}

fn loud(config: &mut ExchangeConfig) {
    config.rate = 20.0;
}

#[test]
fn streams_go_live_and_what_is_held_is_the_exchanges_own() {
    let served = exchange(loud);
    let mut config = config(&served, &["BTCUSDT", "ETHUSDT", "币安人生USDT"]);
    config.streams.per_connection = 1;
    let process = Process::start(config, system_resolver());
    let status = process.until_all_live();
    assert_eq!(rows(&status, "connections").len(), 3, "a connection a symbol");
    assert_eq!(process.get("/readyz")["ready"], true);
    assert_eq!(process.get("/healthz")["ok"], true);
    process.until("a thousand trades", |s| s["symbols"]["BTCUSDT"]["trades"]["received"].as_u64() >= Some(1_000));
    let (_, market) = process.stop();
    assert!(assert_equal(&served, market) > 1_000);
}

#[test]
fn a_resolver_that_hangs_costs_its_stage_and_never_the_loop() {
    let served = exchange(loud);
    let address = served.address;
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(Some(gate));
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let resolve: Resolve = Arc::new(move |_, _| {
        if seen.fetch_add(1, Ordering::Relaxed) < 2 {
            // Like getaddrinfo behind a dead name server; the first two lookups hang until the test lets go.
            let gate = gate.lock().unwrap().take();
            if let Some(gate) = gate {
                let _ = gate.recv();
            } else {
                thread::sleep(Duration::from_secs(4));
            }
        }
        Ok(vec![address])
    });
    let process = Process::start(config(&served, &["BTCUSDT"]), resolve);
    let status =
        process.until("three failures in resolve", |s| rows(s, "connections")[0]["failed"].as_u64() >= Some(3));
    assert_eq!(last_stage(&status), "resolve");
    assert_eq!(status["health"]["level"], "unhealthy");
    assert_eq!(status["loop"]["stalls"], 0, "the loop never waited");
    assert_eq!(process.get("/healthz")["ok"], true);
    drop(release);
    process.until_all_live();
    process.stop();
}

#[test]
fn a_lost_syn_ends_in_its_stage_and_the_other_address_is_tried() {
    let served = exchange(loud);
    let dead = lost_syn(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
    let (address, lost) = (served.address, dead.address);
    let only_dead: Resolve = Arc::new(move |_, _| Ok(vec![lost]));
    let process = Process::start(config(&served, &["BTCUSDT"]), only_dead);
    let status = process.until("two failures", |s| rows(s, "connections")[0]["failed"].as_u64() >= Some(2));
    assert_eq!(last_stage(&status), "tcp");
    process.stop();
    let dead_first: Resolve = Arc::new(move |_, _| Ok(vec![lost, address]));
    let process = Process::start(config(&served, &["BTCUSDT"]), dead_first);
    let status = process.until_all_live();
    assert_eq!(rows(&status, "connections")[0]["failed"], 0, "within one attempt");
    process.stop();
}

#[test]
fn every_stage_that_hangs_or_trickles_ends_by_its_name_and_heals() {
    let trickle = Pace::Trickle(Duration::from_millis(50));
    let cases: [(&str, Faults); 5] = [
        ("tcp", Faults { port_closed: true, ..Faults::default() }),
        ("tls", Faults { tls: Pace::Mute, ..Faults::default() }),
        ("tls", Faults { tls: trickle, ..Faults::default() }),
        ("upgrade", Faults { upgrade: Pace::Mute, ..Faults::default() }),
        ("upgrade", Faults { upgrade: trickle, ..Faults::default() }),
    ];
    for (stage, faults) in cases {
        let served = exchange(loud);
        assert!(served.set(faults));
        let process = Process::start(config(&served, &["BTCUSDT"]), system_resolver());
        let status = process.until("an outage", |s| s["health"]["level"] == "unhealthy" && last_stage(s) == stage);
        assert_eq!(rows(&status, "streams")[0]["state"], "wanted");
        assert!(served.set(Faults::default()));
        process.until_all_live();
        let (_, market) = process.stop();
        assert_equal(&served, market);
    }
}

#[test]
fn whatever_ends_an_open_connection_it_comes_back_and_says_what_was_missed() {
    for strike in [Strike::Reset, Strike::Fin, Strike::Hold] {
        let served = exchange(loud);
        let process = Process::start(config(&served, &["BTCUSDT", "ETHUSDT"]), system_resolver());
        process.until_all_live();
        assert_eq!(served.strike(strike), Some(1));
        let status = process.until("another epoch, live", |s| {
            rows(s, "streams").iter().all(|row| row["state"] == "live" && row["epoch"].as_u64() >= Some(2))
        });
        let stage = last_stage(&status);
        assert_eq!(stage, if strike == Strike::Hold { "pong" } else { "read" }, "{strike:?}");
        process.until("trades of the new epoch", |s| s["symbols"]["BTCUSDT"]["trades"]["missing"].as_u64() >= Some(1));
        let (_, market) = process.stop();
        let audit = served.with(move |exchange, _| audit(&market, exchange.truth())).unwrap();
        assert_eq!(audit.differences, Vec::<String>::new(), "every absent id lies in a hole that says so");
        assert!(audit.missing > 0);
    }
}

#[test]
fn acknowledged_and_mute_is_found_and_named() {
    let served = exchange(|config| {
        loud(config);
        config.faults = vec![Fault::new(Harm::Mute).between(UtcMs(0), UtcMs(i64::MAX)).connections(1..=2)];
    });
    let process = Process::start(config(&served, &["BTCUSDT"]), system_resolver());
    let status = process.until("first data missed", |s| last_stage(s) == "first_data");
    let reason = rows(&status, "connections")[0]["last_failure"]["reason"].as_str().unwrap();
    assert!(reason.contains("/market/stream"), "{reason}");
    process.until_all_live();
    process.stop();
}

#[test]
fn a_flood_is_held_to_the_last_trade() {
    let served = exchange(|config| config.rate = 1_000.0);
    let process = Process::start(config(&served, &["BTCUSDT", "ETHUSDT", "SOLUSDT"]), system_resolver());
    let status =
        process.until("a hundred thousand messages", |s| rows(s, "connections")[0]["frames"].as_u64() >= Some(100_000));
    assert_eq!(rows(&status, "connections")[0]["epoch"], 1);
    let (status, market) = process.stop();
    assert_eq!(status.connections[0].rejected, 0);
    assert_equal(&served, market);
}

#[test]
fn a_busy_loop_is_the_same_loop() {
    let served = exchange(loud);
    let mut config = config(&served, &["BTCUSDT"]);
    config.runtime.busy_poll = true;
    let process = Process::start(config, system_resolver());
    process.until_all_live();
    let (_, market) = process.stop();
    assert_equal(&served, market);
}

/// Rotations each three seconds for so long, under somebody who looks all the time.
fn rotates(for_how_long: Duration) {
    let served = exchange(loud);
    let mut config = config(&served, &["BTCUSDT", "ETHUSDT", "SOLUSDT"]);
    config.streams.per_connection = 6;
    config.rotation.every = Span::from_secs(3);
    config.tape.trades = 65_536;
    let process = Process::start(config, system_resolver());
    process.until_all_live();
    let end = Instant::now() + for_how_long;
    while Instant::now() < end {
        let status = process.get("/status");
        for row in rows(&status, "streams") {
            assert_eq!((&row["state"], row["failures"].as_u64()), (&Value::from("live"), Some(0)), "{row}");
        }
        for row in rows(&status, "connections") {
            assert!(row["last_failure"].is_null(), "{row}");
        }
        assert!(rows(&status, "connections").len() <= 4, "{:#}", status["connections"]);
        thread::sleep(Duration::from_millis(100));
    }
    let (status, market) = process.stop();
    // Two connections, each replaced every three seconds at most; a busy machine may take longer to prove a successor.
    let rotations: u64 = status.connections.iter().map(|row| row.opened - 1).sum();
    assert!(rotations >= for_how_long.as_secs() / 5, "{rotations} rotations");
    for (symbol, row) in &status.symbols {
        let trades = row.trades.as_ref().unwrap();
        assert_eq!((trades.missing, trades.holes.len()), (0, 0), "{symbol}");
    }
    assert!(status.streams.iter().all(|row| row.failures == 0));
    assert!(assert_equal(&served, market) > 1_000);
    let (complaints, left_open) = served
        .with(|exchange, _| {
            let ledger = exchange.ledger();
            let open = ledger.connections.values().filter(|record| record.ended.is_none()).count();
            (ledger.first_violations.clone(), open)
        })
        .unwrap();
    assert_eq!((complaints, left_open), (Vec::new(), 0), "every connection was closed");
}

#[test]
fn rotations_on_real_sockets_lose_nothing() {
    rotates(Duration::from_secs(20));
}

#[test]
#[ignore = "the same for a minute"]
fn a_minute_of_rotations_on_real_sockets_loses_nothing() {
    rotates(Duration::from_secs(60));
}
