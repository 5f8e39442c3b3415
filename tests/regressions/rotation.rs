//! Connections are replaced before they end: by age, at a time of day, and not by what delivers less.

use super::*;
use binance_edge::config::{SubscribeBy, TimeOfDay};
use binance_edge::sim::exchange::{Cure, Harm};

const TEN_MINUTES: Span = Span::from_secs(600);

/// Rotations each ten minutes, until each connection has been replaced ten times, by one that proved itself in its time.
fn ten_rotations(setup: &mut Setup, proof: Span, prepare: impl FnOnce(&mut World)) -> World {
    setup.config.rotation.every = TEN_MINUTES;
    let mut world = World::new(setup);
    prepare(&mut world);
    world.run_for(s(60));
    assert!(healthy(&world) && ready(&world), "{:?}", world.status().health);
    let names: Vec<String> = world.status().connections.iter().map(|row| row.name.clone()).collect();
    // The youngest a connection is when it is replaced is nine minutes.
    watch(&mut world, s(5_300));
    while names.iter().any(|name| replaced(&world, name).len() < 10) {
        assert!(world.now() < at(s(6_400)), "{} replaced", times(&world, ": replaced after").len());
        watch(&mut world, s(1));
    }
    assert_eq!(times(&world, "not replaced"), []);
    for name in &names {
        // Each is replaced nine to ten minutes after it opened, by one that took what it took to prove itself.
        let rotations = replaced(&world, name);
        assert!((10..=11).contains(&rotations.len()), "{name}: {}", rotations.len());
        for (when, age) in rotations {
            assert!(s(540) <= age && age.saturating_sub(proof) <= TEN_MINUTES, "{name} at {when:?}: {age}");
        }
    }
    // Nothing ended but what was replaced.
    assert_eq!(endings(&world), []);
    let status = world.status();
    assert!(status.streams.iter().all(|row| row.failures == 0) || !said(&world, ": failed on").is_empty());
    world
}

fn opened(world: &World) -> u64 {
    world.exchange().ledger().connections.len() as u64
}

#[test]
fn ten_rotations_of_fifteen_symbols_lose_nothing_and_darken_nothing() {
    for by in [SubscribeBy::Message, SubscribeBy::Url] {
        let mut setup = many(1, 15, 1.0);
        setup.config.streams.subscribe_by = by;
        setup.config.tape.trades = 16_384;
        let world = ten_rotations(&mut setup, s(65), |_| ());
        assert!((11..=12).contains(&opened(&world)), "{}", opened(&world));
        nothing_is_missing(&world);
    }
}

#[test]
fn ten_rotations_of_thirty_seven_symbols_lose_nothing_and_darken_nothing() {
    let mut setup = many(2, 37, 0.3);
    setup.config.streams.per_connection = 40;
    let world = ten_rotations(&mut setup, s(65), |_| ());
    assert!((33..=36).contains(&opened(&world)), "{}", opened(&world));
    nothing_is_missing(&world);
}

#[test]
fn ten_rotations_of_six_hundred_symbols_lose_nothing_and_darken_nothing() {
    let mut setup = many(3, 600, 0.01);
    setup.config.streams.per_connection = 200;
    (setup.config.tape.trades, setup.config.tape.candles) = (256, 128);
    let world = ten_rotations(&mut setup, s(65), |_| ());
    assert_eq!(world.status().streams.len(), 1_800);
    nothing_is_missing(&world);
}

#[test]
fn streams_that_are_silent_on_every_new_connection_are_healed_by_the_successor_itself() {
    let of_fifteen = ["s003usdt@aggTrade", "s004usdt@markPrice@1s", "s005usdt@kline_1m", "s014usdt@markPrice@1s"];
    let of_more = ["s003usdt@aggTrade", "s030usdt@markPrice@1s", "s036usdt@kline_1m"];
    for (symbols, rate, silent) in [(15, 1.0, &of_fifteen[..]), (37, 0.5, &of_more[..])] {
        for cure in [Cure::AskedAgain, Cure::AskedAfresh] {
            let mut setup = many(4, symbols, rate);
            setup.config.tape.trades = 16_384;
            let world = ten_rotations(&mut setup, s(150), |world| {
                world.schedule_harm(Harm::MuteUntil(cure), Instant::ZERO, s(100_000), |fault| fault.streams(silent));
            });
            nothing_is_missing(&world);
            // What they need is asked for on each connection.
            let ledger = world.exchange().ledger();
            let asks = if cure == Cure::AskedAgain { 2 } else { 3 };
            assert!(ledger.connections.values().all(|record| record.subscribes >= asks), "{ledger:?}");
        }
    }
}

#[test]
fn streams_that_are_silent_now_and_then_on_new_connections_cost_no_rotation() {
    for (symbols, every) in [(15, 7), (37, 11)] {
        let mut setup = many(5, symbols, 0.5);
        setup.config.tape.trades = 16_384;
        // Good where it begins: both streams of a symbol that could tell must not be silent at once.
        let world = ten_rotations(&mut setup, s(150), |world| {
            world.schedule_harm(Harm::Mute, at(s(100)), s(100_000), |fault| fault.every(every));
        });
        nothing_is_missing(&world);
    }
}

#[test]
fn the_old_connection_stays_while_the_new_one_lacks_a_stream_and_goes_when_it_does_not() {
    for mute in ["btcusdt@markPrice@1s", "btcusdt@aggTrade", "ethusdt@kline_1m"] {
        let mut setup = Setup::new(6, &["BTCUSDT", "ETHUSDT"]);
        setup.config.rotation.every = TEN_MINUTES;
        setup.config.tape.trades = 65_536;
        let mut world = World::new(&setup);
        world.schedule_harm(Harm::Mute, Instant::ZERO, s(1_500), |fault| fault.on(mute).connections(2..=u64::MAX));
        assert!(world.run_until(s(20), healthy));
        watch(&mut world, s(1_480));
        let failed = said(&world, "market-0: not replaced (planned rotation), the old connection stays: ");
        assert!(failed.len() >= 3 && failed.iter().all(|note| note.note.to_string().contains(mute)), "{failed:?}");
        assert!(failed.iter().all(|note| note.note.level() == log::Level::Warn));
        assert_eq!(replaced(&world, "market-0"), []);
        let row = row(&world, mute);
        assert_eq!((row.state, row.failures, row.epoch), ("live", 0, 1), "{row:?}");
        // Each successor was one more connection, and closed.
        let open = world.exchange().connections().count();
        assert!(open <= 2, "{open}");
        watch(&mut world, s(600));
        assert!(!replaced(&world, "market-0").is_empty());
        assert!(endings(&world).is_empty());
        nothing_is_missing(&world);
    }
}

#[test]
fn no_connection_lives_to_the_venues_day() {
    let mut setup = many(7, 1, 0.02);
    setup.config.tape.trades = 16_384;
    let mut world = World::new(&setup);
    assert!(world.run_until(s(90), healthy));
    watch(&mut world, s(25 * 3_600));
    let [(_, age)] = replaced(&world, "market-0")[..] else { panic!("{:?}", replaced(&world, "market-0")) };
    assert!(s(74_520) <= age && age < s(82_860), "{age}: 23 h, up to a tenth earlier");
    assert_eq!((opened(&world), endings(&world).len()), (2, 0));
    nothing_is_missing(&world);
}

#[test]
fn a_rotation_at_a_time_of_day_comes_within_ten_minutes_after_it_every_day() {
    let mut setup = many(8, 6, 0.01);
    setup.config.streams.per_connection = 6;
    setup.config.streams.klines.clear();
    (setup.config.rotation.at, setup.config.rotation.every) = (TimeOfDay::parse("04:00"), s(24 * 3_600));
    let mut world = World::new(&setup);
    assert!(world.run_until(s(90), healthy));
    watch(&mut world, s(5 * 24 * 3_600));
    // The world begins at 23:05; it is four o'clock after 4 h 55 min and each day from there.
    let four = |day: u64| at(s(day * 86_400 + 4 * 3_600 + 55 * 60));
    let rotations: Vec<Instant> = times(&world, ": replaced after");
    for day in 0..5 {
        let today = |when: &&Instant| **when >= four(day) && **when <= four(day) + TEN_MINUTES + s(30);
        assert!((2..=4).contains(&rotations.iter().filter(today).count()), "day {day}: {rotations:?}");
    }
    let outside = |when: &Instant| !(0..5).any(|day| *when >= four(day) && *when <= four(day) + TEN_MINUTES + s(30));
    assert_eq!(rotations.iter().copied().filter(outside).collect::<Vec<_>>(), []);
    assert_eq!(endings(&world).len(), 0, "the venue ended none");
    nothing_is_missing(&world);
}

#[test]
fn a_venue_that_takes_no_new_connections_costs_the_rotation_and_nothing_else() {
    let too_many = Harm::RefuseUpgrade { status: 429, retry_after_s: Some(30) };
    let forbidden = Harm::RefuseUpgrade { status: 403, retry_after_s: None };
    for (fault, harm) in [
        (Some(NetFault::Refused), None),
        (Some(NetFault::SynLost), None),
        (None, Some(too_many)),
        (None, Some(forbidden)),
    ] {
        let told = format!("{fault:?} {harm:?}");
        let mut setup = Setup::new(9, &["BTCUSDT", "ETHUSDT"]);
        (setup.config.rotation.every, setup.config.tape.trades) = (TEN_MINUTES, 65_536);
        let mut world = World::new(&setup);
        world.run_for(s(30));
        if let Some(fault) = fault {
            world.schedule(fault, at(s(500)), s(1_000));
        }
        if let Some(harm) = harm {
            world.schedule_harm(harm, at(s(500)), s(1_000), |fault| fault);
        }
        watch(&mut world, s(1_470));
        let failed = said(&world, "market-0: not replaced (planned rotation), the old connection stays: ");
        assert!((2..=8).contains(&failed.len()), "{told}: {failed:?}");
        assert_eq!((replaced(&world, "market-0"), count(&world, log::Level::Error)), (Vec::new(), 0), "{told}");
        watch(&mut world, s(500));
        assert_eq!(replaced(&world, "market-0").len(), 1, "{told}");
        nothing_is_missing(&world);
    }
}

#[test]
fn two_legs_rotate_each_for_itself_and_nothing_is_lost() {
    let mut setup = many(10, 6, 1.0);
    setup.config.streams.legs = 2;
    (setup.config.rotation.every, setup.config.tape.trades) = (TEN_MINUTES, 16_384);
    let mut world = World::new(&setup);
    world.run_for(s(60));
    watch(&mut world, s(3_600));
    for leg in ["market-0 leg a", "market-0 leg b"] {
        assert!((6..=7).contains(&replaced(&world, leg).len()), "{leg}: {:?}", replaced(&world, leg));
    }
    assert_eq!((endings(&world).len(), times(&world, "not replaced").len()), (0, 0));
    nothing_is_missing(&world);
}
