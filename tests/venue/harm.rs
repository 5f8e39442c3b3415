//! Stories about what goes wrong on purpose: which streams, until when, and what helps.

use super::*;

const MARKS: &str = "btcusdt@markPrice@1s";

fn harmed(fault: Fault) -> World {
    let mut world = World::futures();
    world.exchange.set_fault(fault);
    world
}

/// The symbols of the marks that come within two seconds and a half.
fn marked(world: &mut World) -> Vec<String> {
    let texts = world.texts(2_500);
    let mut names: Vec<String> =
        frames(&texts, "markPriceUpdate").iter().filter_map(|mark| mark["s"].as_str().map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    names
}

fn speaks(world: &mut World) -> bool {
    !marked(world).is_empty()
}

fn unsubscribe(world: &mut World, conn: ConnId, stream: &str) {
    world.say(conn, &format!(r#"{{"method":"UNSUBSCRIBE","params":["{stream}"],"id":2}}"#));
}

/// What a client may try after a stream fell silent that it had asked for by a message.
const STEPS: [fn(&mut World, ConnId); 4] = [
    |world, conn| world.subscribe(conn, &[MARKS]),
    |world, conn| {
        unsubscribe(world, conn, MARKS);
        world.subscribe(conn, &[MARKS]);
    },
    |world, _| {
        let other = world.open("/market/ws");
        world.subscribe(other, &[MARKS]);
    },
    |world, _| {
        world.open("/market/ws/btcusdt@markPrice@1s");
    },
];

/// The cures: which of the steps helps if the stream was mute from the start, and if it fell silent later.
const CURES: [(Cure, [bool; 4], [bool; 4]); 6] = [
    (Cure::AskedAgain, [true, false, false, false], [true, false, false, false]),
    (Cure::AskedAfresh, [false, true, false, false], [false, true, false, false]),
    (Cure::NewConnection, [false, false, true, true], [false, false, true, true]),
    (Cure::OtherForm, [false, false, false, true], [false, false, false, true]),
    (Cure::Never, [false; 4], [false; 4]),
    (Cure::DecidedAnew, [false; 4], [false, true, true, true]),
];

#[test]
fn one_rule_strikes_the_named_streams_and_no_other() {
    let streams = ["btcusdt@markPrice@1s", "solusdt@markPrice@1s", "ethusdt@aggTrade"];
    let mut world = harmed(Fault::new(Harm::Hush).streams(&streams));
    let conn = world.open("/market/ws/btcusdt@markPrice@1s/ethusdt@markPrice@1s/solusdt@markPrice@1s");
    world.subscribe(conn, &["bnbusdt@markPrice@1s", "btcusdt@aggTrade", "ethusdt@aggTrade"]);
    assert_eq!(marked(&mut world), ["BNBUSDT", "ETHUSDT"]);
    let trades = frames(&world.texts(30_000), "aggTrade");
    assert!(trades.len() > 50 && trades.iter().all(|trade| trade["s"] == "BTCUSDT"));
    // A request is struck if one of its streams is named.
    world.exchange.set_fault(Fault::new(Harm::AckLost).streams(&["trxusdt@aggTrade"]));
    world.subscribe(conn, &["xrpusdt@aggTrade", "trxusdt@aggTrade"]);
    world.subscribe(conn, &["trxusdt@aggTrade2"]);
    assert_eq!(world.texts(1_000).iter().filter(|text| text.contains("result")).count(), 1);
}

#[test]
fn a_mute_stream_comes_back_by_its_cure_alone() {
    for (cure, from_the_start, fallen) in CURES {
        for (at, step) in STEPS.iter().enumerate() {
            let mut world = harmed(Fault::new(Harm::MuteUntil(cure)).streams(&[MARKS]));
            let conn = world.open("/market/ws");
            world.subscribe(conn, &[MARKS]);
            assert!(!speaks(&mut world));
            step(&mut world, conn);
            assert_eq!(speaks(&mut world), from_the_start[at], "{cure:?} by step {at}");

            let mut world = harmed(Fault::new(Harm::MuteAfter { ms: 3_500, cure }).streams(&[MARKS]));
            let conn = world.open("/market/ws");
            world.subscribe(conn, &[MARKS]);
            assert!(speaks(&mut world));
            world.pass(1_000);
            assert!(!speaks(&mut world));
            step(&mut world, conn);
            assert_eq!(speaks(&mut world), fallen[at], "{cure:?} by step {at}");
        }
    }
}

#[test]
fn a_stream_of_the_url_is_cured_by_a_message_even_on_its_own_connection() {
    for afresh in [false, true] {
        let mut world = harmed(Fault::new(Harm::MuteUntil(Cure::OtherForm)).on("btcusdt"));
        let conn = world.open("/market/ws/btcusdt@markPrice@1s");
        assert!(!speaks(&mut world));
        if afresh {
            unsubscribe(&mut world, conn, MARKS);
        }
        world.subscribe(conn, &[MARKS]);
        assert!(speaks(&mut world));
        world.exchange.on_gone(conn);
        world.open("/market/ws/btcusdt@markPrice@1s");
        assert!(!speaks(&mut world), "the URL is still no good");
    }
}

#[test]
fn the_ill_stay_ill_until_they_are_cured_or_the_rule_ends() {
    let until = UtcMs(NOON + 60_000);
    let never = Fault::new(Harm::MuteUntil(Cure::Never)).every(2).times(1).between(UtcMs(0), until);
    let mut world = harmed(never);
    let target = "/market/ws/btcusdt@markPrice@1s/ethusdt@markPrice@1s/solusdt@markPrice@1s/bnbusdt@markPrice@1s";
    for _ in 0..3 {
        let conn = world.open(target);
        assert_eq!(marked(&mut world), ["BNBUSDT", "BTCUSDT", "SOLUSDT"]);
        world.exchange.on_gone(conn);
    }
    let conn = world.open(target);
    world.pass(60_000);
    assert_eq!(marked(&mut world).len(), 3, "what was decided lasts as long as the subscription");
    world.exchange.on_gone(conn);
    world.open(target);
    assert_eq!(marked(&mut world).len(), 4);
}

#[test]
fn a_stream_proves_itself_and_falls_silent_ten_minutes_later() {
    let mut world = harmed(Fault::new(Harm::MuteAfter { ms: 600_000, cure: Cure::NewConnection }).on("btcusdt"));
    let conn = world.open("/market/ws");
    world.pass(500);
    world.subscribe(conn, &[MARKS, "ethusdt@markPrice@1s"]);
    let began = world.now;
    let (mut last, mut others) = (0, 0);
    for (at, _, action) in world.pass(700_000) {
        match action {
            Action::Text(text) if text.contains("BTCUSDT") => last = at - began,
            Action::Text(text) if text.contains("ETHUSDT") => others = at - began,
            Action::Ping(payload) => world.exchange.on_pong(conn, payload.as_bytes(), UtcMs(at)),
            Action::Text(_) | Action::Close { .. } | Action::Cut => {}
        }
    }
    assert!((598_900..600_000).contains(&last), "{last}");
    assert!(others > 698_900);
    // A subscription that ended in good time has not made the stream ill.
    let mut world = harmed(Fault::new(Harm::MuteAfter { ms: 10_000, cure: Cure::Never }).times(1));
    let conn = world.open("/market/ws");
    world.subscribe(conn, &[MARKS]);
    world.pass(9_000);
    unsubscribe(&mut world, conn, MARKS);
    world.subscribe(conn, &[MARKS]);
    world.pass(9_000);
    assert!(speaks(&mut world));
}

#[test]
fn who_sent_too_much_is_refused_for_two_minutes() {
    for retry_after in [true, false] {
        let mut world = World::new(ExchangeConfig { retry_after, ..ExchangeConfig::default() });
        let (conn, bystander) = (world.open("/market/ws"), world.open("/market/ws"));
        for _ in 0..6 {
            world.say(conn, r#"{"method":"LIST_SUBSCRIPTIONS","id":2}"#);
        }
        assert_eq!(world.exchange.connections().collect::<Vec<_>>(), [bystander]);
        world.pass(500);
        let refused = |left_s| Err(Refusal { status: 429, retry_after_s: Some(left_s).filter(|_| retry_after) });
        assert_eq!(world.exchange.open("/market/ws", UtcMs(world.now)), refused(120));
        world.pass(119_499);
        assert_eq!(world.exchange.open("/market/ws", UtcMs(world.now)), refused(1));
        world.pass(1);
        world.open("/market/ws");
        let ledger = world.exchange.ledger();
        assert_eq!((ledger.attempts, ledger.refused, ledger.penalized, ledger.violations), (5, 2, 2, 1));
    }
    let mut lenient = World::new(ExchangeConfig { limits: Limits::lenient(Market::Usdm), ..ExchangeConfig::default() });
    let conn = lenient.open("/market/ws");
    (0..16).for_each(|_| lenient.say(conn, r#"{"method":"LIST_SUBSCRIPTIONS","id":2}"#));
    assert_eq!(lenient.exchange.connections().count(), 0);
    lenient.open("/market/ws");
    // Nor is there one when a connection is closed by hand.
    let mut strict = World::futures();
    let conn = strict.open("/market/ws");
    strict.exchange.close(conn, 1008, "Too many requests");
    strict.open("/market/ws");
}

#[test]
fn an_upgrade_can_be_the_beginning_of_a_short_life() {
    for (code, reason, penalty) in [
        (1000, "", false),
        (1001, "going away", false),
        (1008, "Too many requests", true),
        (1008, "Invalid request", false),
        (1011, "internal error", false),
        (1012, "service restart", false),
        (1013, "try again later", false),
    ] {
        let mut world = harmed(Fault::new(Harm::CloseAfter { ms: 5_000, code, reason }).on("/market/stream").times(1));
        let spared = world.open("/market/ws");
        let struck = world.open("/market/stream?streams=btcusdt@aggTrade");
        let ends: Vec<_> =
            world.pass(60_000).into_iter().filter(|(.., action)| !matches!(action, Action::Text(_))).collect();
        assert_eq!(ends, [(NOON + 5_000, struck, Action::Close { code, reason })]);
        assert_eq!(world.exchange.connections().collect::<Vec<_>>(), [spared]);
        assert_eq!(world.exchange.open("/market/stream", UtcMs(world.now)).is_err(), penalty, "{code} {reason}");
        assert_eq!(world.exchange.ledger().violations, 0);
    }
}

#[test]
fn a_halted_symbol_does_not_trade_and_all_others_go_on_as_if_nothing_were() {
    let run = |halts: Vec<Halt>| {
        let mut world = World::new(ExchangeConfig { halts, ..ExchangeConfig::default() });
        let conn = world.open("/market/ws/btcusdt@aggTrade/btcusdt@kline_1m/btcusdt@markPrice@1s/ethusdt@aggTrade");
        let mut texts = world.texts(300_000);
        world.exchange.on_pong(conn, (NOON + 180_000).to_string().as_bytes(), UtcMs(world.now));
        texts.extend(world.texts(300_000));
        texts
    };
    let (from, until) = (NOON + 30_000, NOON + 330_000);
    let halt = |marks| Halt { symbols: vec!["BTCUSDT".to_owned()], from: UtcMs(from), until: UtcMs(until), marks };
    let usual = run(Vec::new());
    for marks in [false, true] {
        let texts = run(vec![halt(marks)]);
        let of = |texts: &[String], event: &str, symbol: &str| -> Vec<Value> {
            frames(texts, event).into_iter().filter(|frame| frame["s"] == symbol).collect()
        };
        assert_eq!(of(&texts, "aggTrade", "ETHUSDT"), of(&usual, "aggTrade", "ETHUSDT"));
        let trades = of(&texts, "aggTrade", "BTCUSDT");
        assert!(trades.iter().all(|trade| !(from..until).contains(&trade["T"].as_i64().unwrap())));
        let after: Vec<i64> = trades.iter().filter_map(|t| t["T"].as_i64()).filter(|at| *at >= until).collect();
        assert!(after[0] - until < 1_000 && after.len() > 500, "the market goes on where it stopped");
        assert!(trades.windows(2).all(|pair| pair[1]["a"].as_i64() == pair[0]["a"].as_i64().map(|id| id + 1)));
        let closed = |candle: &&Value| candle["k"]["x"] == true;
        let candles = of(&texts, "kline", "BTCUSDT");
        let halted: Vec<&Value> =
            candles.iter().filter(|c| (from + 1_000..until).contains(&c["E"].as_i64().unwrap())).collect();
        assert!(halted.iter().all(closed) && halted.len() == 5, "closed by the clock, and no more");
        assert!(halted[1..].iter().all(|candle| candle["k"]["n"] == 0));
        let marked = of(&texts, "markPriceUpdate", "BTCUSDT");
        let within = marked.iter().filter(|mark| (from + 20..until).contains(&mark["E"].as_i64().unwrap())).count();
        assert_eq!(within, if marks { 0 } else { 299 });
        assert!(marked.len() - within >= 298);
    }
}

#[test]
fn all_symbols_can_be_halted_at_run_time() {
    let mut world = World::futures();
    world.open("/market/ws/btcusdt@aggTrade/ethusdt@aggTrade");
    assert!(ids(&world.texts(10_000)).len() > 10);
    let from = world.now;
    world.exchange.halt(Halt { symbols: Vec::new(), from: UtcMs(from), until: UtcMs(from + 20_000), marks: false });
    world.exchange.halt(Halt {
        symbols: Vec::new(),
        from: UtcMs(from + 15_000),
        until: UtcMs(from + 40_000),
        marks: true,
    });
    let late = frames(&world.texts(40_000), "aggTrade");
    assert!(late.iter().all(|trade| trade["T"].as_i64().unwrap() < from), "what was matched before still comes");
    assert!(world.exchange.truth().book("BTCUSDT").unwrap().mark.unwrap().event_time.0 < from + 15_000);
    assert!(ids(&world.texts(10_000)).len() > 10);
    world.exchange.halt(Halt { symbols: Vec::new(), from: UtcMs(world.now), until: UtcMs(i64::MAX), marks: false });
    world.pass(1_000);
    assert!(world.texts(3_600_000).iter().all(|text| !text.contains("aggTrade")));
}

#[test]
fn a_frame_kept_back_comes_even_if_its_rule_has_ended() {
    let until = UtcMs(NOON + 1_500);
    let mut world = harmed(Fault::new(Harm::Reorder).times(1).between(UtcMs(NOON + 500), until));
    world.open("/market/ws/btcusdt@markPrice@1s");
    let marks = frames(&world.texts(4_500), "markPriceUpdate");
    let seconds: Vec<i64> = marks.iter().map(|mark| (mark["E"].as_i64().unwrap() - NOON) / 1_000).collect();
    assert_eq!(seconds[seconds.len() - 4..], [2, 1, 3, 4]);
}
