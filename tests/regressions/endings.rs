//! How connections end, how long we stay away, and what keeps them alive.

use super::*;
use binance_edge::sim::exchange::Harm;

/// A healthy world at 20 s.
fn open(setup: &Setup) -> World {
    let mut world = World::new(setup);
    world.run_for(s(20));
    assert!(healthy(&world), "{:?}", world.status().health);
    world
}

fn setup() -> Setup {
    Setup::new(13, &["BTCUSDT", "ETHUSDT"])
}

/// Whatever ended it: one note, every stream falls back at once, and all is live after one pause.
fn one_transition(world: &mut World, stage: &str, reason: &str, code: Option<u16>) {
    assert!(world.run_until(s(1), |w| !endings(w).is_empty()), "{reason}");
    let (ended_at, ending, pause) = endings(world).remove(0);
    assert_eq!((ending.stage.as_str(), ending.reason.as_str(), ending.close_code), (stage, reason, code));
    let pause = pause.expect("the next attempt has its time");
    assert!(ms(500) <= pause && pause <= s(1), "before attempt 1 the pause is at most min·2: {pause}");
    let ended = said(world, "market-0: ended: ");
    assert_eq!((ended.len(), ended[0].note.level()), (1, log::Level::Warn));
    assert!(ended[0].note.to_string().contains("; 6 streams were live; next attempt in "), "{}", ended[0].note);
    let status = world.status();
    assert!(status.streams.iter().all(|row| row.state == "wanted"), "{:?}", status.streams);
    assert!(!ready(world) && !healthy(world));
    let (row, failure) = (&status.connections[0], last_failure(world));
    assert_eq!((row.state, row.failed, row.opened, row.live), ("backoff", 0, 1, 0));
    assert_eq!((failure.stage, failure.close_code), (stage, code));
    assert!(world.run_until(s(2), |w| w.status().connections[0].epoch == 2));
    assert_eq!(world.now(), ended_at + pause);
    assert!(world.run_until(s(10), healthy), "{reason}");
    assert_eq!((endings(world).len(), count(world, log::Level::Error)), (1, 0));
    is_true(world);
}

#[test]
fn every_close_is_one_transition_with_its_code() {
    for (code, words, reason) in [
        (1000, "", "peer closed with code 1000"),
        (1001, "", "peer closed with code 1001"),
        (1008, "Too many requests", "peer closed with code 1008: Too many requests"),
        (1011, "", "peer closed with code 1011"),
    ] {
        for setup in [setup(), setup().over_tls()] {
            let mut world = open(&setup);
            world.with_exchange(|exchange| {
                for conn in exchange.connections().collect::<Vec<_>>() {
                    exchange.close(conn, code, words);
                }
            });
            one_transition(&mut world, "close", reason, Some(code));
        }
    }
}

#[test]
fn an_end_without_a_word_is_one_transition_too() {
    for (fault, reason) in [
        (NetFault::EndOfFile, "peer ended the connection without a close frame"),
        (NetFault::Reset, "connection reset without a close frame"),
    ] {
        let mut world = open(&setup().over_tls());
        world.schedule(fault, world.now(), ms(1));
        one_transition(&mut world, "read", reason, None);
    }
}

#[test]
fn a_path_that_dies_silently_is_found_by_our_ping() {
    let mut world = open(&setup().over_tls());
    world.schedule(NetFault::BlackHole, world.now(), ms(1));
    let died = world.now();
    assert!(world.run_until(s(30), |w| !endings(w).is_empty()));
    let (ended_at, ending, _) = endings(&world).remove(0);
    assert_eq!(ending.stage.as_str(), "pong");
    assert_eq!(ending.reason, "no byte for 25s, our ping unanswered");
    // The last byte came up to a second before the path died, or was on its way then.
    let after = ended_at.since(died);
    assert!(s(24) <= after && after <= ms(25_100), "{after}");
    assert!(world.run_until(s(10), healthy));
    is_true(&world);
}

#[test]
fn who_is_sent_away_stays_away_to_the_second_and_so_do_all_connections_to_the_host() {
    let mut setup = Setup::new(13, &["BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT"]).over_tls();
    setup.config.streams.per_connection = 1;
    let mut put_off = 0;
    for (status, after) in [(429, Some(7)), (418, Some(9)), (418, None)] {
        let wait = s(u64::from(after.unwrap_or(60)));
        let mut world = open(&setup);
        let refuse = Harm::RefuseUpgrade { status, retry_after_s: after };
        world.schedule_harm(refuse, world.now(), s(3_600), |fault| fault.times(1));
        // All begin again within half a second, and each takes longer than that.
        world.schedule(NetFault::Reset, world.now(), ms(1));
        world.schedule(NetFault::Slow(ms(90)), world.now(), s(4));
        assert!(world.run_until(s(10), |w| !said(w, &format!("HTTP {status}")).is_empty()));
        let (told_at, attempts) = (world.now(), world.exchange().ledger().attempts);
        let in_state = |w: &World, state: &str| w.status().connections.iter().filter(|row| row.state == state).count();
        let asked = in_state(&world, "upgrading");
        // Those that have asked already may get their answer; nobody begins or goes on.
        world.run_for(s(1));
        let arrived = world.exchange().ledger().attempts - attempts;
        assert!(arrived <= asked as u64, "{arrived} asked, {asked} had asked before");
        put_off += said(&world, "put off: the venue asked this host to stay away").len();
        let still =
            world.status().connections.iter().filter(|row| row.state != "open" && row.state != "backoff").count();
        assert_eq!(still, 0, "{:?}", world.status().connections);
        let attempts = world.exchange().ledger().attempts;
        assert!(!world.run_until(wait.saturating_sub(ms(1_001)), |w| w.exchange().ledger().attempts > attempts));
        assert!(world.run_until(s(12), healthy), "{:?}", world.status().health);
        let first = said(&world, "attempt ").iter().map(|n| n.at).find(|at| *at > told_at + s(1)).unwrap();
        assert_eq!(first, told_at + wait);
        is_true(&world);
    }
    assert!(put_off > 0, "nobody was on the way");
}

#[test]
fn a_refusal_without_a_time_gets_the_usual_pause() {
    let mut world = open(&setup());
    world.schedule_harm(Harm::RefuseUpgrade { status: 403, retry_after_s: None }, world.now(), s(60), |fault| fault);
    world.schedule(NetFault::Reset, world.now(), ms(1));
    world.run_for(s(60));
    let refusals = world.exchange().ledger().refused;
    assert!((3..=30).contains(&refusals), "{refusals} attempts in a minute");
    assert_eq!(count(&world, log::Level::Error), 1);
    assert_eq!(last_failure(&world).reason, "HTTP 403 Forbidden");
    assert!(world.run_until(s(40), healthy));
    is_true(&world);
}

#[test]
fn pings_of_the_server_are_answered_for_an_hour() {
    let mut setup = setup().over_tls();
    setup.exchange.limits.ping_every_ms = 15_000;
    setup.exchange.limits.pong_within_ms = 15_000;
    setup.exchange.rate = 0.2;
    let mut world = World::new(&setup);
    world.run_for(s(3_600));
    let ledger = world.exchange().ledger();
    let record = ledger.connections.values().next().unwrap();
    assert_eq!((ledger.connections.len(), ledger.violations), (1, 0), "{:?}", ledger.first_violations);
    assert!(record.pongs >= 239 && record.max_per_s <= 4, "{record:?}");
    assert!(healthy(&world) && endings(&world).is_empty());
    is_true(&world);
}

#[test]
fn the_cut_after_a_day_is_one_transition() {
    for by_cut in [false, true] {
        let mut setup = Setup::new(3, &["BTCUSDT"]);
        setup.exchange.rate = 0.05;
        setup.exchange.end_by_cut = by_cut;
        setup.config.rotation.every = Span::ZERO;
        let mut world = World::new(&setup);
        world.run_for(s(24 * 3_600 + 60));
        let ended = endings(&world);
        assert_eq!(ended.len(), 1, "{ended:?}");
        let (stage, code) = if by_cut { ("read", None) } else { ("close", Some(1001)) };
        assert_eq!((ended[0].1.stage.as_str(), ended[0].1.close_code), (stage, code));
        assert!(ended[0].0.since(at(s(24 * 3_600))) < s(1));
        assert!(healthy(&world) && count(&world, log::Level::Error) == 0);
        is_true(&world);
    }
}

#[test]
fn a_wall_clock_that_is_set_by_an_hour_moves_nothing() {
    let run = |steps: bool| {
        let mut world = World::new(&setup());
        for (second, by_ms) in [(3, 3_600_000), (31, -3_600_000), (62, -3_600_000), (93, 7_200_000)] {
            if steps {
                world.schedule_clock_step(at(s(second)), by_ms);
            }
        }
        world.schedule_harm(Harm::Mute, Instant::ZERO, s(30), |fault| fault);
        world.schedule(NetFault::Mute, at(s(60)), s(40));
        world.schedule(NetFault::Reset, at(s(60)), ms(1));
        world.run_for(s(200));
        assert!(healthy(&world));
        is_true(&world);
        // The hash is made of what was said and when, on the clock that measures.
        world.hash()
    };
    assert_eq!(run(false), run(true));
}
