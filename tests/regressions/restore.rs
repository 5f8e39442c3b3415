//! What ends in the middle of coming back, and a venue that says that it will close.

use super::*;
use binance_edge::sim::world::BEGINNING;
use binance_edge::time::UtcMs;

/// All streams are back, and stay.
fn all_come_back(world: &mut World, within: Span, told: &str) {
    let back = |w: &World| healthy(w) && w.engine().feed().streams().all(|stream| stream.state().is_fine());
    assert!(world.run_until(within, back), "{told}: {:?}", world.status().health);
    world.run_for(s(20));
    all_flows(world);
    is_true(world);
    within_limits(world);
}

#[test]
fn a_cut_in_the_middle_of_a_restore_forgets_no_stream() {
    for after in [100, 200, 350, 500, 700, 1_000, 1_300, 1_700, 2_200, 3_000] {
        let mut world = World::new(&many(after, 15, 1.0));
        assert!(world.run_until(s(20), healthy));
        for n in 0..4 {
            world.schedule(NetFault::Reset, at(s(30)) + ms(n * after), ms(1));
        }
        let left = (at(s(30)) + ms(3 * after + 1)).since(world.now());
        world.run_for(left);
        all_come_back(&mut world, s(30), &format!("cuts each {after} ms"));
        assert_eq!(world.status().streams.len(), 45);
    }
}

#[test]
fn a_cut_between_two_requests_of_one_restore_forgets_no_stream() {
    let mut setup = many(21, 600, 0.01);
    setup.config.streams.per_connection = 200;
    (setup.config.tape.trades, setup.config.tape.candles) = (64, 16);
    let mut world = World::new(&setup);
    assert!(world.run_until(s(30), healthy), "{:?}", world.status().health);
    world.schedule(NetFault::Reset, world.now(), ms(1));
    // Each new connection is cut when its first request has come and before the second.
    let (old, mut cut) = (world.exchange().ledger().connections.len(), 0);
    let end = world.now() + s(8);
    while world.now() < end && cut < 20 {
        world.run_for(ms(5));
        let asked_once: Vec<_> = {
            let exchange = world.exchange();
            let records = exchange.ledger().connections.iter().skip(old);
            let open: Vec<_> = exchange.connections().collect();
            records.filter(|(id, r)| r.subscribes == 1 && open.contains(id)).map(|(id, _)| *id).collect()
        };
        cut += asked_once.len();
        world.with_exchange(|exchange| asked_once.into_iter().for_each(|conn| exchange.cut(conn)));
    }
    assert!(cut >= 20, "{cut}");
    all_come_back(&mut world, s(40), "cut between two requests");
    assert_eq!(world.status().connections.iter().map(|row| row.streams).sum::<u32>(), 1_800);
}

#[test]
fn a_cut_in_the_middle_of_a_succession_forgets_no_stream() {
    let (old, successor, both) = ([true, false], [false, true], [true, true]);
    for which in [old, successor, both] {
        for after in [0, 30, 60, 100, 150, 250, 400, 700, 1_000, 3_000, 8_000, 9_900] {
            let mut setup = many(after, 15, 0.2);
            setup.config.rotation.every = s(100);
            let mut world = World::new(&setup);
            assert!(world.run_until(s(105), |w| !times(w, "a new connection is made before").is_empty()));
            world.run_for(ms(after));
            let told = format!("{which:?} after {after} ms");
            let over = !times(&world, ": replaced after").is_empty();
            let conns: Vec<_> = world.exchange().connections().collect();
            world.with_exchange(|exchange| {
                let cut = conns.iter().zip(which).filter(|(_, cut)| *cut);
                cut.for_each(|(conn, _)| exchange.cut(*conn));
            });
            if which == successor && !over {
                // Nobody notices.
                watch(&mut world, s(15));
                nothing_is_missing(&world);
            }
            all_come_back(&mut world, s(30), &told);
            assert!(world.run_until(s(200), |w| !times(w, ": replaced after").is_empty()), "{told}");
            all_come_back(&mut world, s(30), &told);
        }
    }
}

/// The venue says at 300 s that it will close, and does so `grace` later.
fn announced(seed: u64, grace: Span) -> World {
    let mut setup = Setup::new(seed, &["BTCUSDT", "ETHUSDT"]);
    setup.config.tape.trades = 16_384;
    setup.exchange.shutdown = Some((UtcMs(BEGINNING.0 + 300_000), grace.as_ms() as i64));
    let mut world = World::new(&setup);
    assert!(world.run_until(s(20), healthy));
    let left = at(s(299)).since(world.now());
    watch(&mut world, left);
    world
}

#[test]
fn an_announced_shutdown_is_answered_by_a_successor_at_once_and_with_grace_nothing_is_lost() {
    for seed in 0..10 {
        let mut world = announced(seed, s(10));
        watch(&mut world, s(60));
        let (told, begun) = (times(&world, "the venue will close"), times(&world, "a new connection is made before"));
        assert_eq!((begun.len(), told[0]), (1, begun[0]), "at once");
        assert!(begun[0].since(at(s(300))) < ms(100));
        let rotations = replaced(&world, "market-0");
        assert_eq!(rotations.len(), 1, "{rotations:?}");
        assert!(rotations[0].0.since(begun[0]) < s(5), "{rotations:?}");
        assert_eq!(endings(&world), []);
        nothing_is_missing(&world);
    }
}

#[test]
fn an_announced_shutdown_with_little_grace_or_none_costs_a_moment() {
    for grace in [s(1), ms(150), ms(50), Span::ZERO] {
        for seed in 0..10 {
            let mut world = announced(seed, grace);
            world.run_for(ms(2_500));
            all_come_back(&mut world, s(6), &format!("grace {grace}"));
            assert_eq!(count(&world, log::Level::Error), 0);
            if grace == s(1) {
                // The successor was open before the old one ended: only what had not come yet is missing.
                assert!(world.status().connections[0].epoch <= 3, "{:?}", world.status().connections);
            }
        }
    }
}

#[test]
fn an_announcement_in_the_middle_of_a_succession_reaches_both_and_a_third_takes_over() {
    for after in [50, 150, 300, 600, 1_200] {
        let mut setup = Setup::new(after, &["BTCUSDT", "ETHUSDT"]);
        (setup.config.tape.trades, setup.config.rotation.every) = (16_384, s(100));
        let mut world = World::new(&setup);
        assert!(world.run_until(s(105), |w| !times(w, "a new connection is made before").is_empty()));
        world.run_for(ms(after));
        world.with_exchange(|exchange| exchange.shut_down(10_000));
        watch(&mut world, s(40));
        assert_eq!(endings(&world), [], "after {after} ms");
        nothing_is_missing(&world);
    }
}

#[test]
fn a_venue_that_announces_its_end_all_the_time_is_not_followed_all_the_time() {
    let mut setup = Setup::new(41, &["BTCUSDT", "ETHUSDT"]);
    setup.config.tape.trades = 65_536;
    let mut world = World::new(&setup);
    world.run_for(s(20));
    for _ in 0..300 {
        world.with_exchange(|exchange| exchange.shut_down(1_000_000));
        watch(&mut world, s(1));
    }
    let connections = world.exchange().ledger().connections.len();
    assert!((20..=31).contains(&connections), "{connections} in five minutes");
    assert_eq!(endings(&world), []);
    nothing_is_missing(&world);
}
