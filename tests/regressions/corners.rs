//! Corners where two steps of healing, or of replacing a connection, meet.

use super::*;
use binance_edge::config::SubscribeBy;
use binance_edge::sim::exchange::{Cure, Fault, Harm};

const MARK: &str = "btcusdt@markPrice@1s";

fn polled(world: &World) -> bool {
    world.engine().feed().streams().any(|stream| stream.polled)
}

fn roles(world: &World) -> Vec<&'static str> {
    world.status().connections.iter().map(|row| row.role).collect()
}

/// One mark price is silent on the first connection and on the first one that should heal it; a socket of its own has it.
fn served_aside(seed: u64, every: Span) -> World {
    let mut setup = Setup::new(seed, &["BTCUSDT", "ETHUSDT"]);
    setup.config.rotation.every = every;
    let mut world = World::new(&setup);
    let mute = Fault::new(Harm::MuteUntil(Cure::Never)).streams(&[MARK]).connections(1..=2);
    world.with_exchange(|exchange| exchange.set_fault(mute));
    assert!(world.run_until(s(250), |w| roles(w).contains(&"side") && row(w, MARK).state == "live"));
    world
}

#[test]
fn a_stream_that_a_successor_delivers_is_not_polled_when_its_own_socket_goes() {
    let mut world = served_aside(1, s(400));
    assert!(world.run_until(s(400), |w| !roles(w).contains(&"side")), "{:?}", world.status().connections);
    world.run_for(s(5));
    assert_eq!(row(&world, MARK).state, "live");
    assert!(!polled(&world) && said(&world, "nothing heals it").is_empty());
    is_true(&world);
}

#[test]
fn a_stream_that_falls_back_to_a_connection_where_it_is_down_has_failed_once_more() {
    let mut world = served_aside(2, Span::ZERO);
    let before = row(&world, MARK).failures;
    world.with_exchange(|exchange| {
        let newest = exchange.connections().last().expect("the socket of its own");
        exchange.cut(newest);
    });
    assert!(world.run_until(s(2), |w| row(w, MARK).state == "failed"));
    let now = row(&world, MARK);
    assert_eq!(now.failures, before + 1, "{now:?}");
    is_true(&world);
}

/// The connection ends while its successor pauses; the successor is there first and has to stay.
#[test]
fn a_successor_that_opens_while_the_old_connection_is_down_takes_its_place() {
    let mut told = 0;
    for seed in 0..12 {
        let mut setup = Setup::new(seed, &["BTCUSDT", "ETHUSDT"]);
        setup.config.deadlines.first_data = s(2);
        (setup.config.backoff.min, setup.config.backoff.max) = (s(10), s(40));
        let mut world = World::new(&setup);
        world.with_exchange(|exchange| {
            exchange.set_fault(Fault::new(Harm::MuteUntil(Cure::Never)).streams(&[MARK]));
        });
        assert!(world.run_until(s(300), |w| roles(w).contains(&"successor")));
        world.schedule(NetFault::Refused, world.now(), ms(100));
        world.schedule(NetFault::Reset, world.now() + ms(200), ms(1));
        world.run_for(ms(300));
        let open = |w: &World| w.status().connections.iter().any(|row| row.state == "open");
        assert!(!open(&world) && world.run_until(s(60), open));
        let rows = world.status().connections;
        let is_successor = |row: &binance_edge::status::Connection| row.role == "successor" && row.state == "open";
        if rows.len() > 1 && !rows.iter().any(is_successor) {
            continue;
        }
        told += 1;
        let other = "ethusdt@markPrice@1s";
        assert!(world.run_until(s(5), |w| row(w, other).state == "live"));
        let lost = world.run_until(s(15), |w| row(w, other).state != "live");
        assert!(!lost, "seed {seed}: {:?}", world.status().health);
        is_true(&world);
    }
    assert!(told > 0, "no seed tells the story");
}

fn many(count: usize) -> Setup {
    let names: Vec<String> = (0..count).map(|n| format!("S{n:03}USDT")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut setup = Setup::new(3, &names);
    setup.config.streams.per_connection = 1;
    setup.config.tape.trades = 64;
    setup.exchange.rate = 0.05;
    setup
}

#[test]
fn what_heals_streams_leaves_attempts_for_connections_that_are_down() {
    let mut setup = many(120);
    setup.exchange.rate = 1.0;
    let mut world = World::new(&setup);
    world.schedule_harm(Harm::MuteUntil(Cure::Never), Instant::ZERO, s(3_600), |fault| fault.on("markPrice"));
    world.forget_notes();
    world.run_for(s(150));
    world.schedule(NetFault::Reset, world.now(), ms(1));
    world.run_for(s(1));
    let down = |w: &World| {
        let rows = w.status().connections;
        rows.iter().filter(|row| row.role == "current" && row.state != "open").count()
    };
    assert!(down(&world) > 0);
    // Sixty a minute, as for every storm; not what the healing has left of five minutes.
    assert!(world.run_until(s(150), |w| down(w) == 0), "{} are still down", down(&world));
}

#[test]
fn in_an_outage_of_many_connections_each_is_tried_again() {
    let mut world = World::new(&many(130));
    world.schedule(NetFault::Refused, Instant::ZERO, s(3_600));
    world.forget_notes();
    world.run_for(s(900));
    let rows = world.status().connections;
    let begun: Vec<u64> = rows.iter().map(|row| row.begun).collect();
    let (least, most) = (begun.iter().min().unwrap(), begun.iter().max().unwrap());
    assert!(*least >= 4 && most - least <= 4, "{begun:?}");
}

#[test]
fn a_symbol_that_went_while_it_was_polled_is_polled_again_when_it_is_back() {
    let setup = Setup::new(4, &["BTCUSDT", "ETHUSDT"]);
    let mut world = World::new(&setup);
    world.with_exchange(|exchange| {
        exchange.set_fault(Fault::new(Harm::MuteUntil(Cure::Never)).streams(&[MARK]));
    });
    assert!(world.run_until(s(300), polled));
    let mut wanted = setup.config.streams.clone();
    wanted.symbols = vec!["ETHUSDT".into()];
    world.reload(wanted.clone());
    world.run_for(s(10));
    wanted.symbols.push("BTCUSDT".into());
    world.reload(wanted);
    world.run_for(s(400));
    let row = row(&world, MARK);
    assert!(row.reason.as_deref().is_some_and(|words| words.contains("polled")), "{row:?}");
    let mark = world.status().symbols["BTCUSDT"].mark_price.clone().expect("it is said to be polled");
    assert!(mark.age_ms.unwrap() < 6_000, "{mark:?}");
}

#[test]
fn what_still_comes_by_an_old_url_of_a_symbol_that_is_wanted_again_is_passed_over() {
    let mut setup = Setup::new(5, &["BTCUSDT", "ETHUSDT"]);
    setup.config.streams.subscribe_by = SubscribeBy::Url;
    let mut world = World::new(&setup);
    assert!(world.run_until(s(20), ready));
    let both = setup.config.streams.clone();
    let mut one = both.clone();
    one.symbols.pop();
    world.reload(one);
    world.run_for(s(1));
    world.reload(both);
    world.run_for(s(60));
    assert!(ready(&world));
    assert_eq!(world.status().connections.iter().map(|row| row.rejected).sum::<u64>(), 0);
    is_true(&world);
}

#[test]
fn what_the_venue_does_not_list_is_asked_for_again_now_and_then() {
    let mut setup = Setup::new(6, &["BTCUSDT", "NOSUCHUSDT"]);
    setup.exchange.symbols.retain(|listing| listing.name == "BTCUSDT");
    setup.exchange.rate = 0.1;
    let mut world = World::new(&setup);
    world.run_for(s(600));
    let before = row(&world, "nosuchusdt@aggTrade").attempts;
    world.run_for(s(7_200));
    let after = row(&world, "nosuchusdt@aggTrade");
    assert!((before + 1..=before + 3).contains(&after.attempts), "{before} {after:?}");
    assert_eq!((after.state, after.reason.as_deref()), ("failed", Some("unknown symbol")));
}

#[test]
fn an_announcement_that_is_repeated_does_not_fill_the_log() {
    let text = r#"{"e":"serverShutdown","E":1795215900000}"#.to_owned();
    let mut world = World::new(&Setup::new(7, &["BTCUSDT", "ETHUSDT"]));
    world.schedule_harm(Harm::Malformed(vec![text]), at(s(5)), s(60), |fault| fault);
    world.run_for(s(70));
    let shutdowns = world.notes().iter().filter(|stamped| matches!(stamped.note, Note::Shutdown { .. })).count();
    assert!((1..=200).contains(&shutdowns), "{shutdowns} lines");
}
