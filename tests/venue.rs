//! Stories about the simulated exchange: what it does to clients, and that its books are the truth.
#![allow(clippy::unwrap_used)]

#[path = "venue/harm.rs"]
mod harm;

use binance_edge::config::Market;
use binance_edge::sim::exchange::*;
use binance_edge::time::UtcMs;
use binance_edge::wire::Interval;
use serde_json::Value;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// 2026-11-25T12:00:00Z, a Wednesday, on an hour.
const NOON: i64 = 1_795_608_000_000;

struct World {
    exchange: Exchange,
    now: i64,
    got: Vec<(ConnId, Action)>,
}

impl World {
    fn new(config: ExchangeConfig) -> Self {
        Self { exchange: Exchange::new(config, UtcMs(NOON)), now: NOON, got: Vec::new() }
    }

    fn futures() -> Self {
        Self::new(ExchangeConfig::default())
    }

    fn open(&mut self, target: &str) -> ConnId {
        self.exchange.open(target, UtcMs(self.now)).unwrap()
    }

    fn say(&mut self, conn: ConnId, text: &str) {
        self.exchange.on_text(conn, text, text.len() + 8, UtcMs(self.now));
    }

    fn subscribe(&mut self, conn: ConnId, streams: &[&str]) {
        self.say(conn, &format!(r#"{{"method":"SUBSCRIBE","params":{streams:?},"id":1}}"#));
    }

    /// Lets time pass from one due moment to the next; what was sent meanwhile, with when.
    fn pass(&mut self, ms: i64) -> Vec<(i64, ConnId, Action)> {
        let end = self.now + ms;
        let mut all = Vec::new();
        loop {
            while let Some((conn, action)) = self.exchange.poll_action() {
                self.got.push((conn, action.clone()));
                all.push((self.now, conn, action));
            }
            let due = self.exchange.next_due().0;
            if due > end {
                break;
            }
            self.now = self.now.max(due);
            self.exchange.advance(UtcMs(due));
        }
        self.now = end;
        self.exchange.advance(UtcMs(end));
        all
    }

    fn texts(&mut self, ms: i64) -> Vec<String> {
        let text = |(_, _, action)| match action {
            Action::Text(text) => Some(text.to_string()),
            Action::Ping(_) | Action::Close { .. } | Action::Cut => None,
        };
        self.pass(ms).into_iter().filter_map(text).collect()
    }

    fn rest(&mut self, path: &str, query: &str) -> (u16, Value, BTreeMap<String, String>) {
        let request = RestRequest {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        let answer = self.exchange.rest(&request, UtcMs(self.now));
        (answer.status, serde_json::from_str(&answer.body).unwrap(), answer.headers.into_iter().collect())
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn frames(texts: &[String], event: &str) -> Vec<Value> {
    texts.iter().map(|text| json(text)).filter(|frame| frame["e"] == event).collect()
}

fn ids(texts: &[String]) -> Vec<i64> {
    frames(texts, "aggTrade").iter().map(|frame| frame["a"].as_i64().unwrap()).collect()
}

#[test]
fn the_same_seed_says_the_same_and_clients_do_not_move_the_market() {
    let run = |seed, streams: &[&str]| {
        let mut world = World::new(ExchangeConfig { seed, ..ExchangeConfig::default() });
        let conn = world.open("/market/stream");
        world.subscribe(conn, streams);
        let mut hash = DefaultHasher::new();
        world.texts(90_000).hash(&mut hash);
        let trades: Vec<_> = world.exchange.truth().iter().map(|book| book.trades().clone()).collect();
        (hash.finish(), trades)
    };
    let streams = ["btcusdt@aggTrade", "ethusdt@kline_1m", "solusdt@markPrice@1s"];
    let (hash, trades) = run(1, &streams);
    assert_eq!((hash, &trades), (run(1, &streams).0, &run(1, &["!markPrice@arr@1s"]).1));
    assert_ne!(hash, run(2, &streams).0);
}

#[test]
fn books_agree_with_themselves() {
    for market in [Market::Usdm, Market::Spot] {
        let mut world = World::new(ExchangeConfig::of(market));
        world.pass(20 * 60_000);
        for book in world.exchange.truth().iter() {
            let name = &book.listing.name;
            let trades = book.trades();
            let mut pairs = trades.iter().zip(trades.iter().skip(1));
            assert!(pairs.all(|(a, b)| b.id == a.id + 1 && b.first_id > a.last_id && b.event_time >= a.event_time));
            assert!(trades.iter().all(|trade| trade.plain_qty <= trade.qty && trade.event_time > trade.trade_time));
            assert_eq!(book.ids(), Some((trades[0].id, trades.back().unwrap().id)), "{name}");
            let minutes = world.exchange.truth().candles(name, Interval::M1, UtcMs(0));
            assert_eq!(minutes.len(), 31, "{name}: ten minutes before, twenty since, and the running one");
            assert_eq!(minutes.iter().map(|candle| candle.volume.0).sum::<i128>(), book.filled, "{name}");
            assert_eq!(minutes.iter().map(|candle| candle.trades).sum::<i64>(), book.fills as i64, "{name}");
            let pushed: i128 = trades.iter().map(|trade| i128::from(trade.qty.0)).sum();
            assert!(pushed <= book.filled, "{name}");
            for interval in [Interval::M5, Interval::H1, Interval::D1, Interval::W1, Interval::Mo1] {
                let longer = world.exchange.truth().candles(name, interval, UtcMs(0));
                assert_eq!(longer.iter().map(|candle| candle.volume.0).sum::<i128>(), book.filled, "{name} {interval}");
                assert!(longer.iter().all(|c| c.low <= c.open && c.close <= c.high && c.open_time <= c.close_time));
            }
        }
        let rates: f64 = world.exchange.truth().iter().map(|book| book.listing.rate).sum();
        let trades: usize = world.exchange.truth().iter().map(|book| book.trades().len()).sum();
        let per_second = trades as f64 / 1800.0;
        assert!((rates * 0.6..rates * 1.6).contains(&per_second), "{market:?}: {per_second} for {rates}");
    }
}

#[test]
fn candles_come_before_their_trade_close_once_and_equal_the_books() {
    let mut world = World::futures();
    let conn = world.open("/market/ws/btcusdt@kline_1m/btcusdt@aggTrade/quietusdt@kline_1m");
    let passed = world.pass(5 * 60_000 + 10_000);
    let (mut closings, mut last_push, mut seen) = (Vec::new(), 0, BTreeMap::new());
    for (at, _, action) in passed {
        let Action::Text(text) = action else { continue };
        let frame = json(&text);
        assert_eq!(frame["E"], at, "{text}");
        if frame["e"] == "aggTrade" {
            let trade_time = frame["T"].as_i64().unwrap();
            assert!((1..=158).contains(&(at - trade_time)), "{text}");
            continue;
        }
        let (candle, symbol) = (&frame["k"], frame["s"].as_str().unwrap().to_owned());
        let open = candle["t"].as_i64().unwrap();
        if candle["x"] == true {
            closings.push((symbol.clone(), open));
            let book = world.exchange.truth().candle(&symbol, Interval::M1, UtcMs(open)).unwrap();
            assert_eq!(candle["n"], book.trades);
            assert_eq!(candle["v"], book.volume.show(if symbol == "BTCUSDT" { 3 } else { 1 }).to_string());
            let late = at - candle["T"].as_i64().unwrap();
            assert!((1..=2_006).contains(&late));
            assert!(symbol == "BTCUSDT" || (2_004..=2_006).contains(&late), "{late}");
        } else {
            assert_eq!(symbol, "BTCUSDT", "only trades move a candle");
            assert!(at - last_push >= 250 || seen.get(&symbol) != Some(&open));
            last_push = at;
        }
        seen.insert(symbol, open);
    }
    let expected: Vec<i64> = (0..5).map(|minute| NOON + minute * 60_000).collect();
    for symbol in ["BTCUSDT", "QUIETUSDT"] {
        let of: Vec<i64> = closings.iter().filter(|(name, _)| name == symbol).map(|(_, open)| *open).collect();
        assert_eq!(of.iter().rev().take(5).rev().copied().collect::<Vec<_>>(), expected, "{symbol}");
    }
    assert!(world.exchange.ledger().connections[&conn].ended.is_none());
}

#[test]
fn marks_tick_each_second_and_the_whole_market_comes_in_two_arrays() {
    let mut world = World::futures();
    world.open("/market/ws/btcusdt@markPrice@1s/ethusdt@markPrice/btcusdt_261225@markPrice@1s/!markPrice@arr@1s");
    let texts = world.texts(30_000);
    let marks = frames(&texts, "markPriceUpdate");
    let of = |symbol: &str| marks.iter().filter(|mark| mark["s"] == symbol).cloned().collect::<Vec<_>>();
    assert!((29..=31).contains(&of("BTCUSDT").len()));
    assert!((9..=11).contains(&of("ETHUSDT").len()));
    assert!(of("BTCUSDT").iter().all(|mark| mark["E"].as_i64().unwrap() % 1000 <= 12));
    assert!(of("BTCUSDT_261225").iter().all(|mark| mark["r"] == "" && mark["T"] == 0));
    let arrays: Vec<Value> = texts.iter().map(|text| json(text)).filter(Value::is_array).collect();
    assert!((58..=62).contains(&arrays.len()), "{}", arrays.len());
    let has = |array: &Value, st: i64| array.as_array().unwrap().iter().any(|row| row["st"] == st);
    assert!(arrays.iter().any(|array| has(array, 2)) && arrays.iter().all(|array| has(array, 1)));
}

#[test]
fn everything_is_acknowledged_and_only_the_right_name_at_the_right_root_delivers() {
    let mut world = World::futures();
    let silent = [
        ("/ws", "btcusdt@aggTrade"),
        ("/public/ws", "btcusdt@aggTrade"),
        ("/private/ws", "btcusdt@aggTrade"),
        ("/market/ws", "BTCUSDT@aggTrade"),
        ("/market/ws", "btcusdt@aggtrade"),
        ("/market/ws", "nosuchusdt@aggTrade"),
        ("/market/ws", "btcusdt@kline_1s"),
        ("/market/ws", "nonsense"),
    ];
    for (target, stream) in silent {
        let conn = world.open(target);
        world.subscribe(conn, &[stream]);
        assert_eq!(world.texts(20_000), [r#"{"result":null,"id":1}"#], "{target} {stream}");
        world.say(conn, r#"{"method":"LIST_SUBSCRIPTIONS","id":2}"#);
        assert_eq!(world.texts(1_000), [format!(r#"{{"result":["{stream}"],"id":2}}"#)]);
        world.exchange.on_gone(conn);
    }
    for target in
        ["/market/ws/%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9Fusdt@markPrice@1s", "/market/ws/币安人生usdt@markPrice@1s"]
    {
        let conn = world.open(target);
        assert!(!frames(&world.texts(3_000), "markPriceUpdate").is_empty());
        world.exchange.on_gone(conn);
    }
    assert_eq!(world.exchange.open("/nowhere", UtcMs(world.now)).map_err(|refusal| refusal.status), Err(404));
    let mut spot = World::new(ExchangeConfig::of(Market::Spot));
    spot.open("/stream?streams=btcusdt@aggTrade/btcusdt@kline_1s");
    let texts = spot.texts(20_000);
    assert!(texts.iter().any(|text| text.starts_with(r#"{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","#)));
    assert!(texts.iter().any(|text| text.starts_with(r#"{"stream":"btcusdt@kline_1s","data":{"e":"kline","#)));
    assert_eq!(spot.exchange.open("/market/ws", UtcMs(spot.now)).map_err(|refusal| refusal.status), Err(404));
}

#[test]
fn wrapping_is_a_property_that_flips_live_and_replies_are_never_wrapped() {
    let mut world = World::futures();
    let conn = world.open("/market/stream?streams=btcusdt@markPrice@1s");
    assert!(world.texts(2_000).iter().all(|text| text.starts_with(r#"{"stream":"#)));
    world.say(conn, r#"{"method":"SET_PROPERTY","params":["combined",false],"id":5}"#);
    let texts = world.texts(2_000);
    assert!(texts.contains(&r#"{"result":null,"id":5}"#.to_owned()));
    assert!(!frames(&texts, "markPriceUpdate").is_empty());
    world.say(conn, r#"{"method":"GET_PROPERTY","params":["combined"],"id":6}"#);
    assert!(world.texts(100).contains(&r#"{"result":false,"id":6}"#.to_owned()));
    world.say(conn, r#"{"method":"UNSUBSCRIBE","params":["btcusdt@markPrice@1s","never@had"],"id":7}"#);
    assert_eq!(world.texts(5_000), [r#"{"result":null,"id":7}"#]);
    world.say(conn, "nonsense");
    assert_eq!(world.texts(100), [r#"{"code":3,"msg":"Invalid JSON: expected ident at line 1 column 2"}"#]);
}

#[test]
fn one_message_too_many_in_a_second_ends_the_connection() {
    let mut world = World::futures();
    let conn = world.open("/market/ws");
    for _ in 0..3 {
        for _ in 0..5 {
            world.say(conn, r#"{"method":"LIST_SUBSCRIPTIONS","id":2}"#);
        }
        assert_eq!(world.texts(1_000).len(), 5);
    }
    for _ in 0..5 {
        world.exchange.on_ping(conn, UtcMs(world.now));
    }
    assert!(world.pass(999).is_empty());
    world.say(conn, r#"{"method":"LIST_SUBSCRIPTIONS","id":2}"#);
    let end = (world.now, conn, Action::Close { code: 1008, reason: "Too many requests" });
    assert_eq!(world.pass(5_000), [end]);
    assert_eq!(world.exchange.ledger().max_per_s(), 6);
    assert_eq!(world.exchange.ledger().violations, 1);
}

#[test]
fn large_frames_are_swallowed_and_too_many_streams_are_the_end() {
    let mut world = World::futures();
    let conn = world.open("/market/ws");
    let text = r#"{"method":"SUBSCRIBE","params":["btcusdt@markPrice@1s"],"id":1}"#;
    world.exchange.on_text(conn, text, 4097, UtcMs(world.now));
    assert!(world.texts(10_000).is_empty());
    world.exchange.on_text(conn, text, 4096, UtcMs(world.now));
    assert!(!world.texts(2_000).is_empty());
    let names: Vec<String> = (0..1024).map(|n| format!("s{n}usdt@aggTrade")).collect();
    let text = format!(r#"{{"method":"SUBSCRIBE","params":{names:?},"id":19}}"#);
    world.exchange.on_text(conn, &text, 100, UtcMs(world.now));
    let texts: Vec<Action> = world.pass(2_000).into_iter().map(|(_, _, action)| action).collect();
    let error = r#"{"error":{"code":4,"msg":"Too many subscriptions"},"id":19}"#;
    let end = [Action::Text(error.into()), Action::Close { code: 1008, reason: "Invalid request" }];
    assert_eq!(texts[texts.len() - 2..], end);
}

#[test]
fn pings_want_their_own_payload_back() {
    for (answer, cut) in [(true, false), (false, true)] {
        let mut world = World::futures();
        let conn = world.open("/market/ws");
        let mut ends = Vec::new();
        for _ in 0..25 {
            for (_, _, action) in world.pass(60_000) {
                match action {
                    Action::Ping(payload) if answer => {
                        world.exchange.on_pong(conn, payload.as_bytes(), UtcMs(world.now));
                    }
                    Action::Ping(_) => world.exchange.on_pong(conn, b"else", UtcMs(world.now)),
                    Action::Text(_) => {}
                    Action::Close { .. } | Action::Cut => ends.push((world.now - NOON, action)),
                }
            }
        }
        assert_eq!(ends == [(13 * 60_000, Action::Cut)], cut, "{ends:?}");
        assert_eq!(world.exchange.ledger().violations > 0, cut);
    }
}

#[test]
fn connections_end_after_a_day_and_attempts_are_counted() {
    let limits = Limits { pong_within_ms: i64::MAX / 4, lifetime_ms: 60_000, attempts: 3, ..Limits::of(Market::Usdm) };
    let mut world =
        World::new(ExchangeConfig { limits, shutdown: Some((UtcMs(NOON + 1_000), 500_000)), ..Default::default() });
    let conn = world.open("/market/stream");
    let passed = world.pass(61_000);
    let shutdown = format!(r#"{{"stream":"!serverShutdown","data":{{"e":"serverShutdown","E":{}}}}}"#, NOON + 1_000);
    assert_eq!(passed[0], (NOON + 1_000, conn, Action::Text(shutdown.into())));
    assert_eq!(passed[1], (NOON + 60_000, conn, Action::Close { code: 1001, reason: "" }));
    world.open("/market/ws");
    world.open("/market/ws");
    let refusal = world.exchange.open("/market/ws", UtcMs(world.now)).unwrap_err();
    assert_eq!(refusal, Refusal { status: 429, retry_after_s: Some(239) });
    world.pass(300_000);
    world.open("/market/ws");
}

#[test]
fn rest_serves_the_books_and_counts_weight() {
    let mut world = World::futures();
    world.pass(60_000);
    let (first, last) = world.exchange.truth().book("BTCUSDT").unwrap().ids().unwrap();
    let (mut next, mut pages) = (first, 0);
    while next <= last {
        let (status, rows, _) = world.rest("/fapi/v1/aggTrades", &format!("symbol=BTCUSDT&fromId={next}&limit=1000"));
        assert_eq!(status, 200);
        for row in rows.as_array().unwrap() {
            assert_eq!(row["a"], next);
            next += 1;
        }
        pages += 1;
    }
    let (_, rows, headers) = world.rest("/fapi/v1/aggTrades", "symbol=BTCUSDT");
    assert_eq!(rows.as_array().unwrap().len(), 500);
    assert_eq!(rows[499]["a"], last);
    assert_eq!(headers["x-mbx-used-weight-1m"], ((pages + 1) * 20).to_string());
    let (_, rows, _) = world.rest("/fapi/v1/klines", "symbol=BTCUSDT&interval=1m&limit=3");
    assert_eq!(rows[2][0], NOON + 60_000);
    assert_eq!(rows[0][0], NOON - 60_000);
    let (_, rows, _) =
        world.rest("/fapi/v1/klines", &format!("symbol=BTCUSDT&interval=1m&startTime={}", NOON - 59_999));
    assert_eq!(rows[0][0], NOON);
    let (_, row, _) = world.rest("/fapi/v1/premiumIndex", "symbol=%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT");
    assert_eq!(row["symbol"], "币安人生USDT");
    assert_eq!(world.rest("/fapi/v1/time", "").1["serverTime"], world.now);
    let mut code = |path, query: &str| {
        let (status, body, _) = world.rest(path, query);
        (status, body["code"].as_i64().unwrap())
    };
    assert_eq!(code("/fapi/v1/aggTrades", "symbol=NOSUCH"), (400, -1121));
    assert_eq!(code("/fapi/v1/aggTrades", ""), (400, -1102));
    assert_eq!(code("/fapi/v1/aggTrades", "symbol=BTCUSDT&limit=1001"), (400, -1130));
    assert_eq!(code("/fapi/v1/aggTrades", "symbol=BTCUSDT&limit=x"), (400, -1102));
    assert_eq!(code("/fapi/v1/aggTrades", "symbol=BTCUSDT&fromid=1"), (400, -1104));
    assert_eq!(code("/fapi/v1/aggTrades", "symbol=BTCUSDT&fromId=1&startTime=5"), (400, -1128));
    let old = NOON - 49 * 3_600_000;
    assert_eq!(code("/fapi/v1/aggTrades", &format!("symbol=BTCUSDT&startTime={old}")), (400, -4166));
    assert_eq!(code("/fapi/v1/klines", "symbol=BTCUSDT&interval=1s"), (400, -1120));
    assert_eq!(code("/fapi/v1/klines", "symbol=BTCUSDT&interval=1m&limit=1501"), (400, -1130));
    assert_eq!(code("/fapi/v2/time", ""), (404, -5000));
    assert_eq!(code("/api/v3/time", ""), (404, -5000));
}

#[test]
fn too_much_weight_is_429_then_418_until_the_ban_is_over() {
    let mut world = World::futures();
    world.pass(30_000);
    for _ in 0..120 {
        assert_eq!(world.rest("/fapi/v1/aggTrades", "symbol=BTCUSDT&limit=1").0, 200);
    }
    for _ in 0..10 {
        let (status, body, headers) = world.rest("/fapi/v1/ping", "");
        assert_eq!((status, &body["code"], &*headers["retry-after"]), (429, &Value::from(-1003), "30"));
    }
    let (status, body, headers) = world.rest("/fapi/v1/ping", "");
    assert_eq!((status, &*headers["retry-after"]), (418, "120"));
    assert!(body["msg"].as_str().unwrap().contains(&format!("banned until {}", world.now + 120_000)));
    world.pass(119_000);
    assert_eq!(world.rest("/fapi/v1/ping", "").0, 418);
    world.pass(1_000);
    assert_eq!(world.rest("/fapi/v1/ping", "").0, 200);
}

#[test]
fn what_goes_wrong_on_purpose() {
    let run = |fault: Fault| {
        let mut world = World::futures();
        world.exchange.set_fault(fault.on("btcusdt@aggTrade"));
        let conn = world.open("/market/ws");
        world.subscribe(conn, &["btcusdt@aggTrade"]);
        world.texts(60_000)
    };
    let clean = ids(&run(Fault::new(Harm::Hush).times(0)));
    assert!(clean.windows(2).all(|pair| pair[1] == pair[0] + 1) && clean.len() > 50);
    let skipped = ids(&run(Fault::new(Harm::Skip).every(10)));
    assert_eq!(skipped.len(), clean.len() - clean.len() / 10);
    let twice = ids(&run(Fault::new(Harm::Duplicate).every(10)));
    assert_eq!(twice.len(), clean.len() + clean.len() / 10);
    let mut reordered = ids(&run(Fault::new(Harm::Reorder).every(10)));
    assert_eq!(reordered[9..11], [clean[10], clean[9]]);
    reordered.sort_unstable();
    assert_eq!(reordered[..clean.len() - 1], clean[..clean.len() - 1]);
    for harm in [Harm::ExtraKeys, Harm::ShuffledKeys, Harm::WithoutKeys(vec!["nq", "st"])] {
        let texts = run(Fault::new(harm.clone()));
        assert_eq!(ids(&texts), clean, "{harm:?}");
        let lacking = harm == Harm::WithoutKeys(vec!["nq", "st"]);
        assert!(frames(&texts, "aggTrade").iter().all(|frame| frame["st"].is_null() == lacking));
    }
    let texts = run(Fault::new(Harm::hostile()));
    assert_eq!(texts.len(), 1 + 2 * clean.len());
    assert_eq!(run(Fault::new(Harm::Mute)), [r#"{"result":null,"id":1}"#]);
    assert_eq!(ids(&run(Fault::new(Harm::AckLost))).len(), run(Fault::new(Harm::AckLost)).len());
    assert!(run(Fault::new(Harm::AckWrongId)).contains(&r#"{"result":null,"id":999999999}"#.to_owned()));
    let refused = Harm::AckError { code: 2, msg: "no", bare: true };
    assert_eq!(run(Fault::new(refused)), [r#"{"code":2,"msg":"no"}"#]);

    let mut world = World::futures();
    let refuse = Harm::RefuseUpgrade { status: 503, retry_after_s: Some(7) };
    let fault = world.exchange.set_fault(Fault::new(refuse));
    let refusal = world.exchange.open("/market/ws", UtcMs(NOON)).unwrap_err();
    assert_eq!(refusal, Refusal { status: 503, retry_after_s: Some(7) });
    world.exchange.clear_fault(fault);
    world.exchange.set_fault(Fault::new(Harm::Mute).every(2));
    world.open("/market/ws/btcusdt@markPrice@1s/ethusdt@markPrice@1s/solusdt@markPrice@1s/bnbusdt@markPrice@1s");
    let marks = frames(&world.texts(1_100), "markPriceUpdate");
    let names: Vec<&str> = marks.iter().filter_map(|mark| mark["s"].as_str()).collect();
    assert!(names.contains(&"BTCUSDT") && names.contains(&"SOLUSDT"));
    assert!(!names.contains(&"ETHUSDT") && !names.contains(&"BNBUSDT"));
}
