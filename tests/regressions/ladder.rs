//! What is done about a stream that does not deliver: the weakest step that works, and no other stream pays for it.

use super::*;
use binance_edge::config::SubscribeBy;
use binance_edge::market::feed::Rung;
use binance_edge::sim::exchange::{Cure, Harm};

const ONE_OF_EACH: [&str; 3] = ["btcusdt@markPrice@1s", "btcusdt@aggTrade", "ethusdt@kline_1m"];
const FOR_EVER: Span = Span::from_secs(1_000_000);

fn setup(by: SubscribeBy) -> Setup {
    let mut setup = Setup::new(31, &["BTCUSDT", "ETHUSDT"]);
    setup.config.streams.subscribe_by = by;
    setup.config.tape.trades = 65_536;
    setup
}

fn live(world: &World, name: &str) -> bool {
    world.engine().feed().streams().any(|stream| *stream.name == *name && stream.state().is_live())
}

/// One second, in which no stream but this one is anything but live and on time.
fn second_of_the_others(world: &mut World, ill: &str) {
    world.run_for(s(1));
    let now = world.now();
    for stream in world.engine().feed().streams().filter(|stream| *stream.name != *ill) {
        let age = stream.last_data.map(|at| now.since(at));
        let late = stream.kind == StreamKind::MarkPrice && age.is_none_or(|age| age > ms(1_500));
        assert!(stream.state().is_live() && !late, "{} at {now:?}: {:?}", stream.name, stream.state());
        assert_eq!(stream.failures, 0, "{}", stream.name);
    }
}

fn healed(world: &World, name: &str) -> [u64; 4] {
    world.engine().feed().streams().find(|stream| *stream.name == *name).expect("a wanted stream").healed
}

/// Attempts to connect in the busiest minute.
fn busiest_minute(world: &World) -> usize {
    let opened: Vec<i64> = world.exchange().ledger().connections.values().map(|record| record.opened.0).collect();
    opened.iter().map(|from| opened.iter().filter(|at| (*from..from + 60_000).contains(*at)).count()).max().unwrap_or(0)
}

#[test]
fn a_fault_that_yields_to_one_step_alone_is_healed_by_that_step() {
    let message = [
        (Cure::AskedAgain, Rung::Again),
        (Cure::AskedAfresh, Rung::Afresh),
        (Cure::NewConnection, Rung::Elsewhere),
        (Cure::OtherForm, Rung::OtherForm),
    ];
    for (by, cures) in [(SubscribeBy::Message, &message[..]), (SubscribeBy::Url, &message[2..])] {
        for (cure, rung) in cures {
            for ill in ONE_OF_EACH {
                let told = format!("{ill} asked for by {by:?} until {cure:?}");
                let mut world = World::new(&setup(by));
                world.schedule_harm(Harm::MuteUntil(*cure), Instant::ZERO, FOR_EVER, |fault| fault.streams(&[ill]));
                world.run_for(s(9));
                while !live(&world, ill) {
                    second_of_the_others(&mut world, ill);
                    assert!(world.now() < at(s(150)), "{told}");
                }
                let note = said(&world, "healed by");
                let words = format!("{ill}: delivers again on market-");
                let text = note[0].note.to_string();
                assert!(text.starts_with(&words) && text.ends_with(&format!("healed by: {}", rung.as_str())), "{text}");
                let mut expected = [0; 4];
                expected[*rung as usize] = 1;
                assert_eq!((note.len(), healed(&world, ill)), (1, expected), "{told}");
                let took = world.now();
                for _ in 0..120 {
                    second_of_the_others(&mut world, ill);
                    assert!(live(&world, ill), "{told}, healed at {took:?}");
                }
                assert!(healthy(&world) && ready(&world));
                within_limits(&world);
                assert!(busiest_minute(&world) <= 60 && endings(&world).is_empty(), "{told}");
                nothing_is_missing(&world);
            }
        }
    }
}

#[test]
fn what_nothing_heals_costs_a_bounded_amount_of_work_and_nobody_else() {
    for by in [SubscribeBy::Message, SubscribeBy::Url] {
        for ill in ONE_OF_EACH {
            let mut setup = setup(by);
            setup.exchange.rate = 0.3;
            let mut world = World::new(&setup);
            world.schedule_harm(Harm::MuteUntil(Cure::Never), Instant::ZERO, FOR_EVER, |fault| fault.streams(&[ill]));
            world.run_for(s(30));
            let mut failed = 0;
            for _ in 0..3_570 {
                second_of_the_others(&mut world, ill);
                let row = row(&world, ill);
                assert!(row.state != "live" && !healthy(&world), "{row:?}");
                failed += u32::from(row.state == "failed" && row.reason.is_some_and(|words| words.contains("no data")));
            }
            assert!(failed > 1_500, "{by:?} {ill}: failed for {failed} s, otherwise being asked for");
            let ledger = world.exchange().ledger();
            let messages: u64 = ledger.connections.values().map(|record| record.messages).sum();
            assert!(ledger.connections.len() <= 40 && messages <= 700, "{} {messages}", ledger.connections.len());
            assert!(world.exchange().connections().count() <= 3 && busiest_minute(&world) <= 6);
            let warned = count(&world, log::Level::Warn);
            assert!(warned <= 60, "{warned} warnings in an hour");
            nothing_is_missing(&world);
        }
    }
}

#[test]
fn a_stream_that_is_served_by_a_socket_of_its_own_stays_live_for_hours_and_is_not_disturbed() {
    for (by, ill) in
        [SubscribeBy::Message, SubscribeBy::Url].into_iter().flat_map(|by| ONE_OF_EACH.map(|ill| (by, ill)))
    {
        let mut setup = setup(by);
        setup.exchange.rate = 0.3;
        setup.config.rotation.every = s(5_000);
        let mut world = World::new(&setup);
        world.schedule_harm(Harm::MuteUntil(Cure::OtherForm), Instant::ZERO, FOR_EVER, |fault| fault.streams(&[ill]));
        assert!(world.run_until(s(120), healthy));
        watch(&mut world, s(3 * 3_600));
        let ledger = world.exchange().ledger();
        assert!(ledger.connections.len() <= 30, "{}", ledger.connections.len());
        assert_eq!(row(&world, ill).failures, row(&world, ill).failures.min(5), "none since it is served");
        assert!(count(&world, log::Level::Warn) <= 40, "{}", count(&world, log::Level::Warn));
        nothing_is_missing(&world);
    }
}

#[test]
fn a_stream_that_falls_silent_is_found_in_its_time_and_never_before() {
    for (limit, good) in [(s(60), s(90)), (s(60), s(600)), (s(5), s(90)), (s(5), s(600))] {
        for ill in ONE_OF_EACH {
            if limit == s(5) && !ill.contains("markPrice") {
                continue;
            }
            let mut setup = setup(SubscribeBy::Message);
            if limit == s(5) {
                setup.config.deadlines.stale_mark_price = Some(limit);
            }
            let mut world = World::new(&setup);
            let silent = Harm::MuteAfter { ms: good.as_ms() as i64, cure: Cure::AskedAfresh };
            world.schedule_harm(silent, Instant::ZERO, FOR_EVER, |fault| fault.streams(&[ill]));
            let stale = |w: &World| row(w, ill).state == "stale";
            world.run_for(good);
            for _ in 0..(limit.as_ms() / 1_000).saturating_sub(1) {
                second_of_the_others(&mut world, ill);
                assert!(live(&world, ill), "{ill}: judged early at {:?}", world.now());
            }
            assert!(world.run_until(s(3), stale), "{ill} {limit} {good}");
            let silent = ms(row(&world, ill).last_data_age_ms.unwrap());
            assert!(limit <= silent && silent.as_ms() <= limit.as_ms() + 1_000, "{ill}: found after {silent}");
            assert_eq!((row(&world, ill).failures, times(&world, ": stale on market-0").len()), (1, 1));
            assert_eq!(world.status().subscriptions.problem_symbols.len(), 1);
            while !live(&world, ill) {
                second_of_the_others(&mut world, ill);
                assert!(world.now() < at(good) + s(120));
            }
            assert_eq!(healed(&world, ill), [0, 1, 0, 0]);
            within_limits(&world);
            is_true(&world);
        }
    }
}

#[test]
fn data_that_comes_by_itself_while_stale_makes_it_live_and_is_no_success_of_ours() {
    for seed in 0..20 {
        let mut setup = Setup::new(seed, &["BTCUSDT", "ETHUSDT"]);
        setup.config.backoff.min = s(5);
        let mut world = World::new(&setup);
        world.run_for(s(30));
        let ill = "btcusdt@markPrice@1s";
        // What is pushed in sixty seconds and a half never comes; it is stale a little before the next.
        world.schedule_harm(Harm::Hush, at(ms(30_500)), ms(61_000), |fault| fault.on(ill));
        assert!(world.run_until(s(75), |w| row(w, ill).state == "stale"), "seed {seed}");
        let before = row(&world, ill);
        assert!(world.run_until(s(3), |w| live(w, ill)), "seed {seed}");
        let row = row(&world, ill);
        assert_eq!((before.successes, before.failures, before.attempts), (1, 1, 1), "seed {seed}");
        assert_eq!((row.successes, row.failures, row.attempts, row.retries), (1, 1, 1, 0), "seed {seed}");
        let text = said(&world, &format!("{ill}: delivers again")).last().unwrap().note.to_string();
        assert!(!text.contains("healed by"), "{text}");
        world.run_for(s(60));
        assert_eq!(
            world.status().streams.iter().map(|row| row.attempts).sum::<u64>(),
            6,
            "nothing was asked for again"
        );
        assert!(healthy(&world));
        is_true(&world);
    }
}

#[test]
fn a_socket_of_its_own_that_ends_is_replaced_by_another_at_once() {
    for by in [SubscribeBy::Message, SubscribeBy::Url] {
        for ill in ONE_OF_EACH {
            let mut world = World::new(&setup(by));
            world.schedule_harm(Harm::MuteUntil(Cure::OtherForm), Instant::ZERO, FOR_EVER, |fault| {
                fault.streams(&[ill])
            });
            assert!(world.run_until(s(150), healthy), "{by:?} {ill}");
            world.run_for(s(300));
            // The youngest connection is that socket.
            let side = world.exchange().connections().last().unwrap();
            world.with_exchange(|exchange| exchange.cut(side));
            let cut = world.now();
            world.run_for(s(1));
            while !healthy(&world) {
                second_of_the_others(&mut world, ill);
                assert!(world.now().since(cut) < s(60), "{by:?} {ill}");
            }
            let dark = world.now().since(cut);
            assert!(dark < s(6), "{by:?} {ill}: {dark}");
            within_limits(&world);
            is_true(&world);
        }
    }
}
