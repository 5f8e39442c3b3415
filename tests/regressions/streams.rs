//! Streams that are asked for, acknowledged, and not delivered; answers that are wrong, late or lost; data that is.

use super::*;
use binance_edge::config::SubscribeBy;
use binance_edge::sim::exchange::Harm;
use binance_edge::sim::world::swarm;

fn setup() -> Setup {
    Setup::new(11, &["BTCUSDT", "ETHUSDT"])
}

/// The busiest streams, where something comes each second.
fn harmed(harm: Harm, on: &str, lasts: Span) -> World {
    let mut world = World::new(&setup());
    world.schedule_harm(harm, Instant::ZERO, lasts, |fault| fault.on(on));
    world
}

/// When SUBSCRIBE was sent.
fn asked(world: &World) -> Instant {
    times(world, "6 streams asked for by SUBSCRIBE")[0]
}

#[test]
fn exactly_the_mute_streams_are_flagged_and_no_other_is_touched() {
    for mute in [vec!["btcusdt@markPrice@1s"], vec!["ethusdt@aggTrade", "ethusdt@kline_1m", "ethusdt@markPrice@1s"]] {
        let part = if mute.len() == 1 { mute[0] } else { "ethusdt@" };
        let mut world = harmed(Harm::Mute, part, s(300));
        let flagged = |w: &World| said(w, ": failed on market-0: acknowledged, no data within 10s").len() == mute.len();
        assert!(world.run_until(s(12), flagged), "{mute:?}");
        let acked = world.now() - s(10);
        assert!(ms(0) < acked.since(asked(&world)) && acked.since(asked(&world)) < ms(200), "from the acknowledgement");
        for state in world.status().streams {
            let is_mute = mute.contains(&state.stream.as_str());
            assert_eq!(state.state, if is_mute { "failed" } else { "live" }, "{}", state.stream);
            assert_eq!(state.failures, u64::from(is_mute));
        }
        assert_eq!(world.status().subscriptions.problem_symbols, [if mute.len() == 1 { "BTCUSDT" } else { "ETHUSDT" }]);
        assert!(!ready(&world) && world.status().health.reasons.len() == mute.len());
        // They are asked for again and again, here and elsewhere; those that live are left alone on their connection.
        world.run_for(s(288));
        assert_eq!(world.status().connections[0].epoch, 1);
        let other = row(&world, "btcusdt@aggTrade");
        assert_eq!((other.state, other.failures, other.retries), ("live", 0, 0));
        let tries = row(&world, mute[0]);
        assert!(tries.attempts >= 8 && tries.retries == tries.attempts - 1, "{tries:?}");
        assert!(world.run_until(s(45), healthy), "{:?}", world.status().health);
        is_true(&world);
    }
}

#[test]
fn a_lost_acknowledgement_does_not_hide_data_and_without_data_it_fails_in_its_time() {
    let mut world = harmed(Harm::AckLost, "", s(60));
    assert!(world.run_until(s(10), healthy), "data is the proof");
    world.run_for(s(50));
    assert!(endings(&world).is_empty() && said(&world, "failed").is_empty());

    let mut world = harmed(Harm::AckLost, "", s(60));
    world.schedule_harm(Harm::Mute, Instant::ZERO, s(60), |fault| fault);
    assert!(world.run_until(s(10), |w| !endings(w).is_empty()));
    assert_eq!(world.now(), asked(&world) + s(5));
    assert_eq!(times(&world, "not acknowledged within 5s on /market/stream"), [world.now(); 6]);
    let failure = last_failure(&world);
    assert_eq!((failure.stage, failure.elapsed_ms), ("ack", 5_000));
    assert!(world.run_until(s(120), healthy));
    is_true(&world);
}

#[test]
fn data_that_comes_while_a_failed_stream_pauses_makes_it_live_and_it_is_not_asked_for_again() {
    let mut came_in_the_pause = 0;
    for seed in 0..40 {
        let mut world = World::new(&Setup::new(seed, &["BTCUSDT", "ETHUSDT"]));
        world.schedule_harm(Harm::AckLost, Instant::ZERO, s(1), |fault| fault);
        // Marks are silent until just before everything unacknowledged has failed.
        world.schedule_harm(Harm::Hush, Instant::ZERO, ms(5_800), |fault| fault.on("markPrice"));
        assert!(world.run_until(s(30), healthy), "seed {seed}");
        world.run_for(s(20));
        assert_eq!(world.status().connections[0].live, 6, "seed {seed}");
        for row in world.status().streams {
            assert_eq!(row.successes, 1, "seed {seed}: it fell out of live: {row:?}");
            came_in_the_pause += u64::from(row.failures == 1 && row.attempts == 1);
        }
        is_true(&world);
    }
    assert!(came_in_the_pause > 0, "no seed tells the story");
}

#[test]
fn a_path_that_hesitates_does_not_deliver_more_requests_at_once_than_the_venue_allows() {
    for seed in 0..40 {
        let mut world = World::new(&Setup::new(seed, &["BTCUSDT", "ETHUSDT"]));
        assert!(world.run_until(s(15), healthy));
        world.schedule_harm(Harm::Mute, world.now(), s(30), |fault| fault.on("markPrice"));
        world.schedule(NetFault::Reset, world.now(), ms(1));
        // Marks fail and are asked for again, while nothing moves.
        world.schedule(NetFault::Freeze, world.now() + s(11), s(18));
        world.run_for(s(120));
        let ledger = world.exchange().ledger();
        assert_eq!(ledger.first_violations, [], "seed {seed}");
        assert!(healthy(&world), "seed {seed}");
        is_true(&world);
    }
}

#[test]
fn an_acknowledgement_of_nothing_we_asked_acknowledges_nothing() {
    let mut world = harmed(Harm::AckWrongId, "", s(60));
    world.schedule_harm(Harm::Mute, Instant::ZERO, s(60), |fault| fault);
    assert!(world.run_until(s(10), |w| !endings(w).is_empty()));
    assert_eq!(world.now(), asked(&world) + s(5));
    assert_eq!(said(&world, "an answer to no request of ours (id 999999999)").len(), 1);
    assert_eq!(last_failure(&world).stage, "ack");
}

#[test]
fn an_error_in_either_shape_fails_its_streams_at_once_in_the_venues_words() {
    for bare in [true, false] {
        let error = Harm::AckError { code: 2, msg: "Invalid request: too many parameters", bare };
        let mut world = harmed(error, "", s(60));
        assert!(world.run_until(s(2), |w| !endings(w).is_empty()), "bare {bare}");
        let words = "failed on market-0: refused by the venue: 2 Invalid request: too many parameters";
        assert_eq!(times(&world, words), [world.now(); 6]);
        assert!(world.now().since(asked(&world)) < ms(200));
        assert_eq!(last_failure(&world).stage, "ack");
        assert!(world.run_until(s(120), healthy));
        is_true(&world);
    }
}

#[test]
fn data_before_its_acknowledgement_is_proof_and_the_late_answer_changes_nothing() {
    let mut world = harmed(Harm::AckLate { ms: 4_500 }, "", s(60));
    let live = |w: &World| w.status().streams.iter().filter(|row| row.state == "live").count();
    assert!(world.run_until(ms(4_400), |w| live(w) >= 4), "{:?}", world.status().streams);
    let before = world.notes().len();
    let live_before = live(&world);
    assert!(world.run_until(s(10), healthy));
    world.run_for(s(60));
    assert!(live(&world) >= live_before && world.notes().len() >= before);
    assert!(world.status().streams.iter().all(|row| row.attempts == 1 && row.failures == 0));
    // Later than its time, the answer is nobody's; the data has spoken.
    let mut world = harmed(Harm::AckLate { ms: 7_000 }, "", s(60));
    assert!(world.run_until(s(10), healthy));
    world.run_for(s(60));
    assert!(world.status().streams.iter().all(|row| row.state == "live"));
    is_true(&world);
}

#[test]
fn what_nobody_should_send_is_counted_by_kind_told_once_a_minute_and_harms_nothing() {
    let mut world = harmed(Harm::Malformed(swarm::hostile()), "btcusdt@", s(240));
    assert!(world.run_until(s(10), healthy));
    world.run_for(s(300));
    let connection = &world.status().connections[0];
    let kinds: Vec<_> = connection.rejected_by.keys().copied().collect();
    for kind in ["json", "number", "shape"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    assert!(connection.rejected > 500, "{}", connection.rejected);
    assert_eq!((connection.epoch, connection.live), (1, 6), "no message, however bad, ends the connection");
    // The witness holds every kind to one note a minute; the samples are short and on one line.
    for note in said(&world, "refused") {
        let text = note.note.to_string();
        assert!(text.chars().count() < 400 && !text.chars().any(char::is_control), "{text:?}");
    }
    let told: u64 = world
        .notes()
        .iter()
        .map(|stamped| if let Note::Refused { count, .. } = &stamped.note { *count } else { 0 })
        .sum();
    assert_eq!(told, connection.rejected, "the sums told add up");
    assert!(healthy(&world));
    is_true(&world);
}

#[test]
fn a_symbol_nobody_trades_is_quiet_and_nobody_is_alarmed() {
    let mut world = World::new(&Setup::new(4, &["BTCUSDT", "QUIETUSDT"]));
    world.run_for(s(3_600));
    for stream in ["quietusdt@aggTrade", "quietusdt@kline_1m"] {
        let row = row(&world, stream);
        assert_eq!(row.failures + row.retries, 0, "{row:?}");
        assert!(row.state == "live" || row.reason.is_some_and(|words| words.starts_with("quiet")), "{stream}");
    }
    assert!(ready(&world) && healthy(&world));
    assert_eq!(count(&world, log::Level::Warn) + count(&world, log::Level::Error), 0);
    assert_eq!(world.status().connections[0].epoch, 1);
    is_true(&world);
}

#[test]
fn one_stream_a_connection_means_a_connection_for_each_symbol() {
    let mut setup = setup();
    setup.config.streams.per_connection = 1;
    let mut world = World::new(&setup);
    assert!(world.run_until(s(15), healthy));
    let status = world.status();
    assert_eq!(
        status.connections.iter().map(|c| (c.name.as_str(), c.live)).collect::<Vec<_>>(),
        [("market-0", 3), ("market-1", 3)]
    );
    let of = |name: &str| status.streams.iter().find(|row| row.stream == name).unwrap().connection.clone();
    assert_eq!((of("btcusdt@kline_1m"), of("ethusdt@kline_1m")), ("market-0".into(), "market-1".into()));
}

#[test]
fn streams_asked_for_by_the_url_are_never_asked_for_by_a_message() {
    let mut setup = setup();
    setup.config.streams.subscribe_by = SubscribeBy::Url;
    let mut world = World::new(&setup);
    world.schedule(NetFault::Reset, at(s(100)), ms(1));
    world.schedule_harm(Harm::Hush, at(s(200)), s(120), |fault| fault);
    world.run_for(s(600));
    assert!(healthy(&world), "{:?}", world.status().health);
    let ledger = world.exchange().ledger();
    assert!(ledger.connections.len() >= 3, "{ledger:?}");
    assert_eq!(ledger.connections.values().map(|record| record.messages).sum::<u64>(), 0);
    assert_eq!(said(&world, "SUBSCRIBE").len(), 0);
    is_true(&world);
}

#[test]
fn all_streams_silent_while_pings_flow_replaces_the_connection_in_its_time() {
    let mut setup = setup();
    setup.exchange.limits.ping_every_ms = 15_000;
    let mut world = World::new(&setup);
    assert!(world.run_until(s(10), healthy));
    world.schedule_harm(Harm::Hush, at(s(30)), s(75), |fault| fault);
    world.run_for(s(20).saturating_sub(Span::from_ns(0)));
    assert!(world.run_until(s(90), |w| !endings(w).is_empty()));
    let (ended_at, ending, _) = endings(&world).remove(0);
    let last = row(&world, "btcusdt@markPrice@1s").last_data_age_ms.unwrap();
    assert_eq!((ending.stage.as_str(), ending.reason.as_str()), ("read", "all streams silent for 1m"));
    assert!(last >= 60_000 && ended_at > at(s(89)) && ended_at < at(s(91)), "{ended_at:?} {last}");
    assert!(world.run_until(s(60), healthy));
    is_true(&world);
}
