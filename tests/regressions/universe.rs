//! Symbols by pattern, symbols that come and go while everything runs, symbols the venue does not know; and what REST
//! tells when no stream can.

use super::*;
use binance_edge::config::{Pattern, SubscribeBy};
use binance_edge::sim::exchange::{Fault, Harm, Listing};

fn setup(symbols: &[&str], listed: &[&str]) -> Setup {
    let mut setup = Setup::new(21, symbols);
    setup.exchange.symbols = listed.iter().map(|name| Listing::new(name, "100", 1.0)).collect();
    setup
}

fn names(world: &World) -> Vec<String> {
    world.status().symbols.into_keys().collect()
}

#[test]
fn a_pattern_is_filled_from_the_venues_list_and_what_was_asked_for_by_name_does_not_wait_for_it() {
    let mut setup = setup(&["BTCUSDT"], &["BTCUSDT", "ETHUSDT", "ETHBTC", "SOLUSDT", "1000PEPEUSDT"]);
    setup.config.streams.patterns = vec![Pattern::parse("*USDT").unwrap()];
    let mut world = World::new(&setup);
    assert!(world.run_until(s(20), |w| ready(w) && names(w).len() == 4), "{:?}", world.status().health);
    assert_eq!(names(&world), ["1000PEPEUSDT", "BTCUSDT", "ETHUSDT", "SOLUSDT"]);
    assert_eq!(said(&world, "symbols: 4 wanted, 3 of them new by the venue's list").len(), 1);
    let attempts = row(&world, "btcusdt@aggTrade").attempts;
    assert_eq!(attempts, 1, "what ran already was left alone");
    world.run_for(s(60));
    assert!(healthy(&world));
    is_true(&world);
}

#[test]
fn with_patterns_alone_nothing_is_called_healthy_before_the_list_has_come() {
    let mut setup = setup(&["ETHUSDT"], &["BTCUSDT", "ETHUSDT"]);
    setup.config.streams.symbols.clear();
    setup.config.streams.patterns = vec![Pattern::parse("all").unwrap()];
    let mut world = World::new(&setup);
    world.schedule(NetFault::RestSilent, Instant::ZERO, s(12));
    world.run_for(s(10));
    assert!(!healthy(&world) && world.status().symbols.is_empty());
    assert!(world.run_until(s(60), |w| ready(w) && healthy(w)), "the list is asked for again");
    assert_eq!(names(&world), ["BTCUSDT", "ETHUSDT"]);
    is_true(&world);
}

#[test]
fn too_many_matches_are_cut_by_name_and_that_is_said() {
    let mut setup = setup(&["ZZZUSDT"], &["AUSDT", "BUSDT", "CUSDT", "DUSDT", "ZZZUSDT"]);
    setup.config.streams.patterns = vec![Pattern::parse("*USDT").unwrap()];
    setup.config.streams.symbols_max = 3;
    let mut world = World::new(&setup);
    assert!(world.run_until(s(20), |w| ready(w) && names(w).len() == 3));
    assert_eq!(names(&world), ["AUSDT", "BUSDT", "ZZZUSDT"]);
    assert_eq!(said(&world, "2 more match and were left out: streams.symbols_max").len(), 1);
}

#[test]
fn a_symbol_the_venue_does_not_list_is_failed_as_unknown_and_costs_the_others_nothing() {
    for (by, legs) in [(SubscribeBy::Message, 1), (SubscribeBy::Url, 1), (SubscribeBy::Message, 2)] {
        let mut setup = setup(&["BTCUSDT", "NOSUCHUSDT"], &["BTCUSDT"]);
        setup.config.streams.subscribe_by = by;
        setup.config.streams.legs = legs;
        let mut world = World::new(&setup);
        world.run_for(s(300));
        world.schedule(NetFault::Reset, world.now(), ms(1));
        world.run_for(s(300));
        for row in world.status().streams {
            if row.stream.starts_with("nosuch") {
                assert_eq!((row.state, row.reason.as_deref()), ("failed", Some("unknown symbol")), "{}", row.stream);
                assert!(row.attempts <= u64::from(legs) && row.failures == 1, "{row:?}");
            } else {
                assert_eq!((row.state, row.failures), ("live", 0), "{}", row.stream);
            }
        }
        assert_eq!(world.status().connections.iter().map(|row| row.epoch).max(), Some(2), "the reset, and no other");
        assert_eq!(world.status().subscriptions.problem_symbols, ["NOSUCHUSDT"]);
        assert_eq!(said(&world, "1 unknown to the venue: NOSUCHUSDT").len(), 1);
        assert_eq!(world.violations(), [""; 0]);
    }
}

#[test]
fn symbols_come_and_go_and_the_others_notice_nothing() {
    for by in [SubscribeBy::Message, SubscribeBy::Url] {
        let mut setup = setup(&["BTCUSDT", "ETHUSDT"], &["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"]);
        setup.config.streams.subscribe_by = by;
        let mut world = World::new(&setup);
        assert!(world.run_until(s(20), ready));
        let mut wanted = setup.config.streams.clone();
        wanted.symbols = vec!["BTCUSDT".into(), "SOLUSDT".into(), "XRPUSDT".into()];
        world.reload(wanted.clone());
        assert_eq!(said(&world, "reloaded: 2 symbols added, 1 removed").len(), 1);
        assert!(world.run_until(s(20), |w| ready(w) && names(w).len() == 3), "{:?}", world.status().streams);
        assert_eq!(names(&world), ["BTCUSDT", "SOLUSDT", "XRPUSDT"]);
        world.run_for(s(30));
        let kept = row(&world, "btcusdt@aggTrade");
        assert_eq!((kept.attempts, kept.failures, kept.epoch), (1, 0, 1), "{by:?}");
        let rejected: u64 = world.status().connections.iter().map(|row| row.rejected).sum();
        assert_eq!(rejected, 0, "what still comes of a symbol that went is passed over");
        // And back again, with a new tape.
        wanted.symbols = vec!["BTCUSDT".into(), "ETHUSDT".into()];
        world.reload(wanted);
        assert!(world.run_until(s(20), |w| ready(w) && names(w) == ["BTCUSDT", "ETHUSDT"]), "{by:?}");
        world.run_for(s(30));
        let trades = world.status().symbols["ETHUSDT"].trades.clone().unwrap();
        assert_eq!((trades.missing, trades.duplicates), (0, 0));
        assert!(healthy(&world));
        is_true(&world);
        let ledger = world.exchange().ledger();
        assert_eq!(ledger.first_violations, []);
    }
}

#[test]
fn the_last_symbol_of_a_connection_takes_it_along() {
    let mut setup = setup(&["BTCUSDT", "ETHUSDT"], &["BTCUSDT", "ETHUSDT"]);
    setup.config.streams.per_connection = 1;
    let mut world = World::new(&setup);
    assert!(world.run_until(s(20), ready));
    let mut wanted = setup.config.streams.clone();
    wanted.symbols.pop();
    world.reload(wanted.clone());
    world.run_for(s(5));
    assert_eq!(world.status().connections.len(), 1);
    assert_eq!(world.exchange().connections().count(), 1);
    wanted.symbols.push("ETHUSDT".into());
    world.reload(wanted);
    assert!(world.run_until(s(20), |w| ready(w) && w.status().connections.len() == 2));
    assert_eq!(world.status().connections[1].name, "market-1", "the name is free again");
    is_true(&world);
}

/// Trades and candles of a symbol are silent together; its mark price lives and can tell nothing about trades.
#[test]
fn rest_tells_what_no_stream_can_and_a_symbol_that_nobody_trades_stays_quiet() {
    let mute = ["btcusdt@aggTrade", "btcusdt@kline_1m"];
    let mut world = World::new(&Setup::new(5, &["BTCUSDT", "QUIETUSDT"]));
    world.with_exchange(|exchange| exchange.set_fault(Fault::new(Harm::Mute).streams(&mute)));
    assert!(world.run_until(s(12), |w| mute.iter().all(|name| row(w, name).state == "failed")), "{:?}", world.status());
    assert!(world.now() < at(ms(11_000)), "within a second of the deadline: {:?}", world.now());
    for stream in ["quietusdt@aggTrade", "quietusdt@kline_1m"] {
        let row = row(&world, stream);
        let quiet = row.reason.as_deref().is_some_and(|words| words.starts_with("quiet"));
        assert!(row.failures == 0 && (row.state == "live" || quiet), "{row:?}");
    }
    world.with_exchange(binance_edge::sim::exchange::Exchange::clear_faults);
    assert!(world.run_until(s(120), healthy), "{:?}", world.status().health);
    let asked: u64 = world.engine().rest().counts().map(|(_, _, n)| n).sum();
    assert!(asked < 40, "{asked} calls");
    is_true(&world);
}

#[test]
fn what_nothing_heals_is_polled_and_said_to_be() {
    let mute = ["btcusdt@markPrice@1s", "ethusdt@aggTrade", "ethusdt@kline_1m"];
    let mut setup = Setup::new(6, &["BTCUSDT", "ETHUSDT"]);
    setup.exchange.rate = 0.5;
    let mut world = World::new(&setup);
    let fault = world.with_exchange(|exchange| exchange.set_fault(Fault::new(Harm::Mute).streams(&mute)));
    world.run_for(s(300));
    for n in world.notes() {
        println!("{} {}", n.utc, n.note);
    }
    for name in mute {
        let row = row(&world, name);
        assert_ne!(row.state, "live", "polled is not live");
        assert!(row.reason.as_deref().is_some_and(|words| words.ends_with("polled over REST every 5s")), "{row:?}");
        assert_eq!(said(&world, &format!("{name}: nothing heals it: polled over REST every 5s")).len(), 1);
    }
    let status = world.status();
    assert!(status.symbols["BTCUSDT"].mark_price.as_ref().unwrap().age_ms.unwrap() < 6_000);
    let trades = status.symbols["ETHUSDT"].trades.clone().unwrap();
    assert!(trades.backfilled > 20 && trades.received == 0 && trades.missing == 0, "{trades:?}");
    assert!(status.symbols["ETHUSDT"].candles["1m"].len >= 4);
    is_true(&world);
    world.with_exchange(|exchange| exchange.clear_fault(fault));
    assert!(world.run_until(s(180), healthy), "{:?}", world.status().health);
    let before: u64 = world.engine().rest().counts().map(|(_, _, n)| n).sum();
    world.run_for(s(120));
    let after: u64 = world.engine().rest().counts().map(|(_, _, n)| n).sum();
    assert!(after - before <= 1, "what delivers is polled no more");
    is_true(&world);
}

/// Trades and candles alone, as on spot: only REST can tell whether somebody trades.
#[test]
fn without_a_mark_price_rest_is_asked_before_the_verdict() {
    let mut setup = Setup::new(8, &["BTCUSDT", "QUIETUSDT"]);
    setup.config.streams.mark_price = false;
    setup.config.streams.klines.clear();
    let mut world = World::new(&setup);
    world.run_for(s(600));
    let quiet = row(&world, "quietusdt@aggTrade");
    let is_quiet = quiet.reason.as_deref().is_some_and(|words| words.starts_with("quiet"));
    assert!(quiet.failures == 0 && is_quiet, "{quiet:?}");
    assert!(healthy(&world) && said(&world, "failed").is_empty() && said(&world, "stale").is_empty());

    // Where REST is silent too, nothing can tell, and that is said in its time.
    let mut world = World::new(&setup);
    world.schedule(NetFault::RestSilent, Instant::ZERO, s(3_600));
    assert!(world.run_until(s(70), |w| row(w, "quietusdt@aggTrade").state == "stale"));
    let silent = row(&world, "quietusdt@aggTrade").last_data_age_ms.unwrap();
    assert!((60_000..61_000).contains(&silent), "its one trade came {silent} ms ago");
    world.run_for(s(600));
    assert_eq!(row(&world, "btcusdt@aggTrade").failures, 0);
    is_true(&world);
}

#[test]
fn what_delivers_exists_whatever_a_list_says() {
    let mut setup = setup(&["BTCUSDT"], &["BTCUSDT", "ETHUSDT"]);
    setup.config.rotation.every = s(200);
    let mut world = World::new(&setup);
    assert!(world.run_until(s(20), ready));
    let answer = Harm::RestAnswer { status: 200, retry_after_s: None, body: r#"{"symbols":[]}"#.to_owned() };
    world.schedule_harm(answer, world.now(), s(60), |fault| fault.on("exchangeInfo"));
    let mut wanted = setup.config.streams.clone();
    wanted.symbols.push("ETHUSDT".into());
    world.reload(wanted);
    world.run_for(s(600));
    let kept = row(&world, "btcusdt@markPrice@1s");
    assert_eq!((kept.state, kept.failures), ("live", 0), "{kept:?}");
    assert!(said(&world, "replaced after").len() >= 2 && said(&world, "not replaced").is_empty());
    is_true(&world);
}

/// The question whether a busy symbol trades is answered with its newest trades, far behind which the tape may end.
#[test]
fn what_is_polled_has_no_hole_however_busy_it_is() {
    let mute = ["ethusdt@aggTrade", "ethusdt@kline_1m"];
    let mut setup = Setup::new(6, &["BTCUSDT", "ETHUSDT"]);
    setup.exchange.rate = 12.0;
    // Without a mark price the question is asked each time the stream is.
    setup.config.streams.mark_price = false;
    let mut world = World::new(&setup);
    world.with_exchange(|exchange| exchange.set_fault(Fault::new(Harm::Mute).streams(&mute)));
    world.run_for(s(420));
    let trades = world.status().symbols["ETHUSDT"].trades.clone().unwrap();
    assert!(trades.backfilled > 5_000 && trades.missing == 0, "{trades:?}");
    is_true(&world);
}
