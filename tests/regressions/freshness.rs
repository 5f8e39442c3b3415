//! Old news is no news: data is as fresh as the venue dates it, whatever the clocks here say.

use super::*;
use binance_edge::sim::exchange::Harm;

fn setup() -> Setup {
    Setup::new(21, &["BTCUSDT", "ETHUSDT"])
}

/// A path may hesitate for minutes without being given up for it.
fn patient() -> Setup {
    let mut setup = setup();
    setup.config.deadlines.ping_after = s(300);
    setup.config.deadlines.stale = s(90);
    (setup.config.deadlines.stale_mark_price, setup.config.deadlines.stale_agg_trade) = (Some(s(60)), Some(s(60)));
    setup.config.tape.trades = 65_536;
    setup
}

/// The path gets slower by 5 s each 10 s, until it lags by so many.
fn lag(world: &mut World, seconds: u64, lasts: Span) {
    let begin = world.now();
    for step in 0..seconds / 5 {
        let at = begin + s(10 * step);
        world.schedule(NetFault::Slow(s(5)), at, (begin + lasts).since(at));
    }
}

fn state(world: &World, stream: &str) -> &'static str {
    row(world, stream).state
}

#[test]
fn a_burst_after_a_freeze_makes_nothing_fresh_until_what_comes_is_new() {
    let mut world = World::new(&patient());
    world.run_for(s(60));
    world.schedule(NetFault::Freeze, world.now(), s(70));
    let mark = "btcusdt@markPrice@1s";
    assert!(world.run_until(s(62), |w| state(w, mark) == "stale"));
    assert!(at(s(118)) < world.now() && world.now() < at(s(122)), "{:?}", world.now());
    let frames = |w: &World| w.status().connections[0].frames;
    let before = frames(&world);
    // The first messages come together, and they are more than a minute old.
    assert!(world.run_until(s(20), |w| frames(w) > before + 10));
    assert!(world.now() >= at(s(130)));
    assert_ne!(state(&world, mark), "live", "old news does not heal");
    assert!(world.run_until(s(2), healthy), "{:?}", world.status().health);
    world.run_for(s(60));
    let status = world.status();
    assert_eq!((status.connections[0].epoch, count(&world, log::Level::Error)), (1, 0));
    for symbol in status.symbols.values() {
        let tape = symbol.trades.as_ref().unwrap();
        assert_eq!((tape.missing, tape.duplicates), (0, 0));
    }
    is_true(&world);
}

#[test]
fn a_path_that_lags_by_more_than_the_deadline_is_dealt_with_although_data_flows() {
    let mut world = World::new(&setup());
    world.run_for(s(60));
    lag(&mut world, 70, s(400));
    let words = "what comes is older than 1m, by the venue's own time";
    assert!(world.run_until(s(300), |w| !said(w, words).is_empty()), "{:?}", world.status().health);
    // What is sent later than 120 s after it began is older than a minute when it comes; a minute after the last that
    // was not, it is said.
    let told = world.now().since(at(s(60)));
    assert!(s(236) < told && told < s(242), "{told}");
    let last = row(&world, "btcusdt@markPrice@1s").last_data_age_ms.unwrap();
    assert!(last < 6_000, "data flows: {last} ms");
    assert!(!healthy(&world) && !ready(&world));
    // Nothing on this path heals it; another connection is made, as often as the budget allows.
    assert!(world.run_until(s(260), |w| w.status().connections[0].epoch > 1 || w.status().connections.len() > 1));
    let left = at(s(460)).since(world.now());
    world.run_for(left);
    assert!(world.run_until(s(150), healthy), "{:?}", world.status().health);
    world.run_for(s(120));
    assert!(healthy(&world));
    is_true(&world);
}

#[test]
fn a_path_that_dies_of_its_lag_is_an_outage_and_comes_back() {
    let mut world = World::new(&setup());
    world.run_for(s(60));
    // From one moment to the next: nothing comes for 70 s, and no connection can be made.
    world.schedule(NetFault::Slow(s(70)), world.now(), s(300));
    assert!(world.run_until(s(30), |w| !endings(w).is_empty()));
    assert_eq!(last_failure(&world).reason, "no byte for 25s, our ping unanswered");
    assert!(world.run_until(s(200), |w| count(w, log::Level::Error) == 1));
    let left = at(s(360)).since(world.now());
    world.run_for(left);
    assert!(world.run_until(s(120), healthy), "{:?}", world.status().health);
    is_true(&world);
}

#[test]
fn a_lag_within_the_deadline_alarms_nobody() {
    for stepwise in [true, false] {
        let mut world = World::new(&setup());
        world.run_for(s(60));
        if stepwise {
            lag(&mut world, 20, s(900));
        } else {
            world.schedule(NetFault::Slow(s(20)), world.now(), s(900));
        }
        assert!(!world.run_until(s(800), |w| !healthy(w)), "{:?}", world.status().health);
        assert_eq!(count(&world, log::Level::Warn) + count(&world, log::Level::Error), 0);
        world.run_for(s(300));
        assert!(healthy(&world));
        is_true(&world);
    }
}

#[test]
fn the_wall_clock_decides_nothing_of_it() {
    let run = |steps: &[(u64, i64)]| {
        let mut world = World::new(&setup());
        for (second, by_ms) in steps {
            world.schedule_clock_step(at(s(*second)), *by_ms);
        }
        world.run_for(s(60));
        lag(&mut world, 70, s(300));
        world.schedule(NetFault::Freeze, at(s(600)), s(20));
        world.run_for(s(900));
        assert!(healthy(&world), "{:?}", world.status().health);
        is_true(&world);
        world.hash()
    };
    let hour = 3_600_000;
    let never = run(&[]);
    assert_eq!(run(&[(90, hour), (250, -2 * hour), (610, hour)]), never);
    assert_eq!(run(&[(1, -hour), (605, hour)]), never);
}

#[test]
fn a_venue_time_that_is_wild_or_stands_still_raises_no_false_alarm() {
    // Beside the real ones, marks and trades of a venue whose clock is anywhere.
    let mark = |event: i64| {
        format!(
            r#"{{"stream":"ethusdt@markPrice@1s","data":{{"e":"markPriceUpdate","E":{event},"s":"ETHUSDT","p":"2664.30","ap":"2664.30","P":"2664.30","i":"2664.30","r":"0.0001","T":1795219200000,"st":1}}}}"#
        )
    };
    let day = 86_400_000;
    let begin = 1_795_215_900_000_i64;
    let wild: Vec<String> = [
        0,
        1,
        begin - day,
        begin + day,
        begin + 400 * day,
        begin - 3_600_000,
        begin + 3_600_000,
        i64::MAX,
        begin,
        begin,
    ]
    .map(mark)
    .to_vec();
    let still = vec![mark(begin)];
    for texts in [wild, still] {
        let mut world = World::new(&setup());
        assert!(world.run_until(s(15), healthy));
        world.schedule_harm(Harm::Malformed(texts), world.now(), s(300), |fault| fault.on("ethusdt@markPrice"));
        assert!(!world.run_until(s(300), |w| !healthy(w)), "{:?}", world.status().health);
        for words in [": stale", ": failed"] {
            assert_eq!(said(&world, words).len(), 0);
        }
        world.run_for(s(120));
        assert!(healthy(&world) && world.status().connections[0].epoch == 1);
        assert_eq!(world.violations(), [""; 0]);
        // A price from the future does not stand for ever.
        assert_eq!(world.audit(), [""; 0]);
        assert!(world.status().symbols["ETHUSDT"].mark_price.as_ref().unwrap().age_ms.unwrap() < 2_000);
    }
}

#[test]
fn answered_pings_do_not_stand_for_data() {
    // A zombie: it answers our pings and sends its own, and no data comes any more.
    let mut setup = setup();
    setup.exchange.limits.ping_every_ms = 15_000;
    let mut world = World::new(&setup);
    world.run_for(s(30));
    world.schedule_harm(Harm::Hush, world.now(), s(75), |fault| fault);
    assert!(world.run_until(s(62), |w| !endings(w).is_empty()));
    let (ended_at, ending, _) = endings(&world).remove(0);
    assert_eq!((ending.stage.as_str(), ending.reason.as_str()), ("read", "all streams silent for 1m"));
    assert!(at(s(89)) < ended_at && ended_at < at(s(91)), "{ended_at:?}");
    let ledger = world.exchange().ledger();
    let record = ledger.connections.values().next().unwrap();
    assert!(record.pongs >= 5, "the pings of both sides were answered: {record:?}");
    assert!(world.run_until(s(60), healthy));
    is_true(&world);
}
