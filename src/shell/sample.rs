//! A document as a night with one failed stream leaves it; for tests and for looking at the page.

use crate::fixed::{Fixed, Shown};
use crate::status::*;
use crate::time::UtcMs;
use std::collections::BTreeMap;

fn price(cents: i64) -> Shown {
    Fixed(cents * 1_000_000).show(2)
}

fn connection(name: &str, epoch: u64, state: &'static str, last_failure: Option<Failure>) -> Connection {
    Connection {
        name: name.into(),
        leg: "a",
        role: "current",
        purpose: None,
        url: "wss://fstream.binance.com/market/stream".into(),
        state,
        epoch,
        begun: epoch,
        attempt: 1,
        opened: epoch,
        failed: 1,
        frames: 1_234_567,
        bytes: 345_678_901,
        rejected: 3,
        rejected_by: BTreeMap::from([("malformed", 2), ("unknown stream", 1)]),
        failures_by_stage: BTreeMap::from([("tls", 1), ("read", epoch)]),
        streams: 4,
        live: 3,
        address: Some("203.0.113.7:443".into()),
        last_byte_age_ms: (state == "open").then_some(31),
        rotates_in_ms: Some(3_600_000),
        race: None,
        last_failure,
    }
}

fn stream(name: &str, state: &'static str, age: Option<u64>, reason: Option<&str>) -> Stream {
    Stream {
        stream: name.into(),
        connection: "market-0".into(),
        epoch: 4,
        state,
        last_data_age_ms: age,
        attempts: 4,
        successes: 3,
        failures: u64::from(state == "failed"),
        retries: 1,
        reason: reason.map(str::to_owned),
        healed_by: BTreeMap::new(),
        runs: Vec::new(),
    }
}

fn symbol(cents: i64, holes: Vec<Hole>) -> Symbol {
    let candles = Candles {
        len: 328,
        capacity: 500,
        closed: 327,
        unclosed: 0,
        updates: 81_234,
        last_open: Some(UtcMs(1_795_215_900_000)),
        close: Some(price(cents)),
    };
    Symbol {
        trades: Some(Trades {
            len: 16_384,
            capacity: 16_384,
            first_id: Some(2_400_000_000),
            last_id: Some(2_400_016_391),
            received: 1_000_000,
            duplicates: 12,
            backfilled: 8_000,
            missing: holes.iter().map(|hole| (hole.to - hole.from + 1) as u64).sum(),
            holes,
        }),
        mark_price: Some(Mark {
            price: price(cents),
            index_price: price(cents + 1234),
            funding_rate: Some(Fixed(10_000).show(8)),
            age_ms: Some(300),
        }),
        candles: BTreeMap::from([("1m", candles.clone()), ("15m", candles)]),
        flow: None,
    }
}

/// The document with two legs, and with every kind of row there is.
#[must_use]
#[allow(dead_code, reason = "each user needs one of them")]
pub(crate) fn two_legs() -> Status {
    let mut status = status();
    let race = |first, lost| Race {
        first,
        late: 1_000_000 - first,
        lost,
        leads: first - lost,
        lead_mean_us: Some(412),
        lead_max_us: 61_377,
        lead_sum_us: 412 * (first - lost),
    };
    let (a, b) = (race(640_000, 7), race(360_000, 81));
    status.connections.truncate(2);
    status.connections[0].race = Some(a);
    let other = Connection { leg: "b", race: Some(b), ..connection("market-0", 2, "open", None) };
    let side = Connection {
        role: "side",
        rotates_in_ms: None,
        streams: 1,
        live: 1,
        ..connection("market-1", 1, "open", None)
    };
    let old =
        Connection { leg: "b", role: "retiring", rotates_in_ms: None, ..connection("market-0", 1, "closing", None) };
    status.connections.extend([other, old, side]);
    status.legs = vec![Leg { leg: "a", race: a }, Leg { leg: "b", race: b }];
    let run = |leg, epoch, role, state| Run {
        connection: "market-0".into(),
        leg,
        epoch,
        role,
        state,
        last_fresh_age_ms: Some(12),
        reason: None,
    };
    let failed = Run {
        reason: Some("acknowledged, no data within 10s on /market/stream".into()),
        ..run("b", 2, "current", "failed")
    };
    status.streams[0].runs = vec![run("a", 4, "current", "live"), failed, run("a", 5, "successor", "acked")];
    status.streams[0].healed_by = BTreeMap::from([("asked again", 2)]);
    status
}

/// The document.
#[must_use]
#[allow(dead_code, reason = "each user needs one of them")]
pub(crate) fn status() -> Status {
    let failure = Failure {
        stage: "tls",
        reason: "certificate expired: check the clock of this machine, or \"the peer\" <lies>".into(),
        close_code: None,
        elapsed_ms: 412,
        at: UtcMs(1_795_215_000_000),
    };
    let closed = Failure { stage: "close", close_code: Some(1000), reason: "bye".into(), ..failure.clone() };
    Status {
        version: "0.1.0",
        now: UtcMs(1_795_215_900_000),
        uptime_ms: 83_456_789,
        health: Health {
            level: Level::Degraded,
            reasons: vec!["stream ethusdt@kline_1m: failed: no data within 10s of the acknowledgement".into()],
        },
        turns: Turns {
            turns: 10_000_000,
            stalls: 2,
            max_turn_us: 74_512,
            turn_histogram: [9_000_000, 9_990_000, 9_999_990, 9_999_998, 10_000_000, 10_000_000],
            turn_sum_us: 61_234_567,
        },
        connections: vec![
            connection("market-0", 4, "open", Some(closed)),
            Connection {
                role: "successor",
                purpose: Some("planned"),
                begun: 5,
                rotates_in_ms: None,
                ..connection("market-0", 5, "tls", None)
            },
            connection("market-1", 9, "backoff", Some(failure)),
        ],
        streams: vec![
            stream("btcusdt@aggTrade", "live", Some(12), None),
            stream("btcusdt@markPrice@1s", "live", Some(412), None),
            stream("btcusdt@kline_1m", "live", Some(231), None),
            stream("ethusdt@aggTrade", "acked", None, Some("quiet: no trade since the acknowledgement")),
            stream("ethusdt@markPrice@1s", "stale", Some(61_000), Some("silent for 61 s")),
            stream("ethusdt@kline_1m", "failed", None, Some("no data within 10s of the acknowledgement")),
        ],
        subscriptions: Subscriptions {
            attempts: 24,
            successes: 18,
            failures: 2,
            retries: 6,
            success_rate: Some(90.0),
            problem_symbols: vec!["ETHUSDT".into()],
            states: States { live: 3, quiet: 1, stale: 1, failed: 1, ..States::default() },
            healed_by: BTreeMap::from([("asked again", 7), ("new connection", 1)]),
            often_failing: BTreeMap::from([("ETHUSDT".into(), 12)]),
        },
        successions: vec![
            Successions { purpose: "planned", begun: 3, succeeded: 2, failed: 0 },
            Successions { purpose: "healing", begun: 2, succeeded: 1, failed: 1 },
        ],
        legs: Vec::new(),
        symbols: BTreeMap::from([
            ("BTCUSDT".into(), symbol(6_412_340, Vec::new())),
            ("ETHUSDT".into(), symbol(312_055, vec![Hole { from: 7, to: 11, reason: "asked again in 4 s".into() }])),
            ("币安人生USDT".into(), Symbol::default()),
        ]),
        plans: Vec::new(),
        signals: None,
        waves: Vec::new(),
        positions: Vec::new(),
        store: None,
        workers: Workers { resolver: Lane { queued: 1, in_flight: 2, timeouts: 3 }, ..Workers::default() },
        rest_requests: vec![RestRequests { endpoint: "aggTrades", result: "ok", count: 12 }],
        decoder_fallbacks: 5,
        log_lines_dropped: 0,
    }
}
