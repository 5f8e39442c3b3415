//! Two legs carry the same streams: what one of them suffers, nobody notices.

use super::*;
use binance_edge::market::feed::LegBooks;
use binance_edge::sim::exchange::{Cure, Harm};
use binance_edge::status::Level;
use std::net::{IpAddr, Ipv4Addr};

const WELL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SICK: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// What the network itself puts between two legs at most: latencies of its wires, jitter, messages cut in two.
const NETWORK: u64 = 21;

fn setup(seed: u64) -> Setup {
    let mut setup = Setup::new(seed, &["BTCUSDT", "ETHUSDT"]);
    setup.config.streams.legs = 2;
    setup.config.tape.trades = 65_536;
    setup.addresses = vec![WELL, SICK];
    setup
}

/// Both legs are open at 20 s. The one to the sick address was the second that the exchange accepted.
fn open_with(setup: &Setup, prepare: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(setup);
    world.schedule(NetFault::FreezeAt(SICK), Instant::ZERO, s(1));
    prepare(&mut world);
    world.run_for(s(20));
    assert!(healthy(&world) && ready(&world), "{:?}", world.status().health);
    assert_eq!(addresses(&world), [SICK, WELL]);
    world
}

fn open(setup: &Setup) -> World {
    open_with(setup, |_| ())
}

/// The addresses in use, the sick one first.
fn addresses(world: &World) -> Vec<IpAddr> {
    let feed = world.engine().feed();
    let mut all: Vec<IpAddr> = feed.connections().filter_map(|c| c.session.address()).map(|a| a.ip()).collect();
    all.sort_by_key(|address| *address != SICK);
    all
}

/// The books of the leg to this address.
fn books(world: &World, address: IpAddr) -> LegBooks {
    let feed = world.engine().feed();
    let row = feed.connections().find(|c| c.session.address().is_some_and(|a| a.ip() == address));
    *feed.leg_books(row.expect("a leg there")).expect("two legs")
}

/// What was added to the books since.
fn since(then: LegBooks, now: LegBooks) -> LegBooks {
    let lead_sum = now.lead_sum.saturating_sub(then.lead_sum);
    let (first, late, lost) = (now.first - then.first, now.late - then.late, now.lost - then.lost);
    LegBooks { first, late, lost, lead_sum, lead_max: now.lead_max, leads: now.leads - then.leads }
}

/// Trades counted, and copies of them.
fn trades(world: &World) -> (u64, u64) {
    let status = world.status();
    let tapes: Vec<_> = status.symbols.values().filter_map(|symbol| symbol.trades.as_ref()).collect();
    (tapes.iter().map(|tape| tape.received).sum(), tapes.iter().map(|tape| tape.duplicates).sum())
}

/// Lets time pass, in which nobody may be alarmed.
fn calm(world: &mut World, span: Span) {
    let begun = world.now();
    let alarmed = world.run_until(span, |w| !healthy(w) || !ready(w));
    assert!(!alarmed, "after {}: {:?}", world.now().since(begun), world.status().health);
    for words in [": stale on", ": failed on", "outage", "ids ", "refused"] {
        assert_eq!(said(world, words).iter().map(|note| note.note.to_string()).collect::<Vec<_>>(), [""; 0]);
    }
    assert_eq!(count(world, log::Level::Error), 0);
}

/// Every id is there once, and every stream is live on both legs.
fn whole(world: &World) {
    is_true(world);
    let status = world.status();
    for (name, symbol) in &status.symbols {
        let tape = symbol.trades.as_ref().expect("trades are wanted");
        assert_eq!((tape.missing, tape.holes.len()), (0, 0), "{name}");
        let ids = tape.first_id.zip(tape.last_id).map_or(0, |(first, last)| last - first + 1);
        assert_eq!(ids as u64, tape.received, "{name}: each id once");
    }
    assert_eq!(status.streams.len(), 6, "one row a stream");
    assert_eq!(status.connections.iter().map(|row| (row.leg, row.live)).collect::<Vec<_>>(), [("a", 6), ("b", 6)]);
}

#[test]
fn a_delay_of_one_leg_is_its_lead_in_the_books_and_nothing_else() {
    for (seed, delay) in [(1, 30), (2, 400)] {
        let mut world = open(&setup(seed));
        world.schedule(NetFault::SlowAt(SICK, ms(delay)), world.now(), s(600));
        world.run_for(s(1));
        let (sick, well, before) = (books(&world, SICK), books(&world, WELL), trades(&world));
        let updates = updates_of(&world);
        calm(&mut world, s(300));
        let (sick, well) = (since(sick, books(&world, SICK)), since(well, books(&world, WELL)));
        let (received, duplicates) = trades(&world);
        assert_eq!((sick.first, sick.lost, well.lost, well.late, sick.leads), (0, 0, 0, 0, 0), "{delay} ms");
        assert_eq!(sick.late, well.leads, "each late copy has its lead");
        // What is on its way at either end makes the difference.
        assert!(well.first.abs_diff(sick.late) < 100, "{delay} ms: {well:?} {sick:?}");
        assert!((received - before.0).abs_diff(duplicates - before.1) < 60, "{delay} ms");
        let mean = well.lead_sum.as_us() as f64 / well.leads as f64 / 1e3;
        let (least, most) = ((delay - NETWORK) as f64, (delay + NETWORK) as f64);
        assert!(least < mean && mean < most, "{delay} ms: the mean lead is {mean} ms");
        assert!(well.lead_max.as_ms() < delay + NETWORK + 5, "{delay} ms: {:?}", well.lead_max);
        // A candle is pushed four times a second at most, whoever brings it.
        for ((candle, then), (_, now)) in updates.into_iter().zip(updates_of(&world)) {
            assert!((1..=300 * 4 + 20).contains(&(now - then)), "{candle}: {} updates in 300 s", now - then);
        }
        whole(&world);
    }
}

fn updates_of(world: &World) -> Vec<(String, u64)> {
    world.status().symbols.iter().map(|(name, symbol)| (name.clone(), symbol.candles["1m"].updates)).collect()
}

#[test]
fn the_later_copy_moves_neither_candle_nor_mark() {
    // The same exchange, by one leg and by two: what is held differs in nothing but the copies.
    let run = |legs: u8| {
        let mut setup = setup(3);
        setup.config.streams.legs = legs;
        let mut world = World::new(&setup);
        world.schedule(NetFault::SlowAt(SICK, ms(700)), Instant::ZERO, s(600));
        let (mut newest, mut turned) = (Vec::new(), 0);
        while world.now() < at(s(301)) {
            world.run_for(ms(100));
            let marks: Vec<_> =
                world.engine().market().books().map(|(_, book)| book.mark.as_ref().map(|m| m.0.event_time)).collect();
            turned += newest.iter().zip(&marks).filter(|(before, now)| before > now).count();
            newest = marks;
        }
        is_true(&world);
        assert_eq!(turned, 0, "a mark price went backwards");
        world
    };
    let (one, two) = (run(1), run(2));
    for ((name, one), (_, two)) in updates_of(&one).iter().map(|row| (&row.0, row.1)).zip(updates_of(&two)) {
        assert!(one.abs_diff(two) < 20, "{name}: {one} updates by one leg, {two} by two");
    }
    for symbol in two.status().symbols.values() {
        assert!(symbol.mark_price.as_ref().unwrap().age_ms.unwrap() < 1_030, "its age is that of the first arrival");
    }
}

#[test]
fn what_one_leg_loses_the_other_has_and_the_books_say_which() {
    let mut world = open(&setup(4));
    let (sick, well, before) = (books(&world, SICK), books(&world, WELL), trades(&world));
    let skip = |fault: binance_edge::sim::exchange::Fault| fault.on("@aggTrade").connections(2..=2).every(10);
    world.schedule_harm(Harm::Skip, world.now(), s(600), skip);
    calm(&mut world, s(400));
    let (sick, well) = (since(sick, books(&world, SICK)), since(well, books(&world, WELL)));
    let after = trades(&world);
    let skipped = (after.0 - before.0) - (after.1 - before.1);
    assert!(skipped > 300 && skipped.abs_diff((after.0 - before.0) / 10) < 10, "{skipped} of {before:?} to {after:?}");
    // A loss is known when its place is needed, some hundred messages of the stream later.
    assert!(sick.lost <= skipped && skipped - sick.lost < 80, "{skipped} lost, {sick:?}");
    assert_eq!(well.lost, 0, "{well:?}");
    whole(&world);
}

#[test]
fn a_stream_that_is_mute_on_one_leg_is_healed_behind_the_others_back() {
    for cure in [Cure::AskedAfresh, Cure::NewConnection] {
        for mute in ["btcusdt@markPrice@1s", "btcusdt@aggTrade", "ethusdt@kline_1m"] {
            let mut world = open_with(&setup(5), |world| {
                world.schedule_harm(Harm::MuteUntil(cure), Instant::ZERO, s(900), |fault| {
                    fault.streams(&[mute]).connections(2..=2)
                });
            });
            let live = |w: &World| w.status().connections.iter().map(|row| row.live).collect::<Vec<_>>();
            assert!(live(&world).contains(&5), "{mute}: {:?}", live(&world));
            calm(&mut world, s(240));
            assert_eq!(row(&world, mute).failures, 0, "{mute}");
            assert!(!said(&world, &format!("{mute}: silent on")).is_empty(), "{mute} {cure:?}: nobody was told");
            whole(&world);
            let replaced = said(&world, ": replaced after").len();
            assert_eq!(replaced, usize::from(cure == Cure::NewConnection), "{mute} {cure:?}");
        }
    }
}

#[test]
fn a_leg_that_dies_comes_back_to_an_address_of_its_own() {
    // A black hole while it lasts, a cut, an address that is dead for a while.
    for fault in [Some(NetFault::BlackHoleAt(SICK)), Some(NetFault::FreezeAt(SICK)), None] {
        let mut world = open(&setup(6));
        match fault {
            Some(fault) => world.schedule(fault, world.now(), s(100)),
            None => {
                world.schedule(NetFault::AddressDead(SICK), world.now(), s(100));
                world.with_exchange(|exchange| {
                    let second = exchange.connections().nth(1).expect("two connections");
                    exchange.cut(second);
                });
            }
        }
        calm(&mut world, s(100));
        assert!(!endings(&world).is_empty(), "{fault:?}: nobody noticed");
        calm(&mut world, s(60));
        whole(&world);
        // Whoever connects from now on finds the other address free.
        world.with_exchange(|exchange| {
            let newest = exchange.connections().last().expect("two connections");
            exchange.close(newest, 1001, "");
        });
        calm(&mut world, s(30));
        assert_eq!(addresses(&world), [SICK, WELL], "{fault:?}");
        whole(&world);
    }
}

#[test]
fn both_legs_down_is_an_outage_and_says_so() {
    let mut world = open(&setup(7));
    world.schedule(NetFault::SynLost, world.now(), s(120));
    world.schedule(NetFault::Reset, world.now(), ms(1));
    assert!(world.run_until(s(1), |w| !healthy(w) && !ready(w)));
    assert!(world.run_until(s(100), |w| !said(w, "outage: ").is_empty()), "{:?}", world.status().health);
    assert!(world.run_until(s(20), |w| said(w, "outage: ").len() == 2), "{:?}", world.status().health);
    assert_eq!(world.status().health.level, Level::Unhealthy);
    assert!(world.run_until(s(140), healthy));
    world.run_for(s(20));
    assert_eq!(said(&world, "outage over").len(), 2);
    is_true(&world);
}

#[test]
fn each_leg_rotates_by_itself_and_there_is_never_a_hole() {
    let mut setup = setup(8);
    setup.config.rotation.every = s(120);
    let mut world = open(&setup);
    calm(&mut world, s(900));
    let rotations = |leg: &str| said(&world, &format!("{leg}: replaced after")).len();
    assert!(rotations("leg a") >= 6 && rotations("leg b") >= 6, "{} and {}", rotations("leg a"), rotations("leg b"));
    let together: Vec<_> = times(&world, ": replaced after");
    assert!(together.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(world.run_until(s(30), |w| w.status().connections.len() == 2));
    assert_eq!(addresses(&world), [SICK, WELL]);
    whole(&world);
}

#[test]
fn of_two_legs_that_fall_silent_together_neither_is_said_to_deliver() {
    let mut setup = Setup::new(12, &["BTCUSDT", "ETHUSDT"]);
    setup.config.streams.legs = 2;
    setup.config.deadlines.stale_mark_price = Some(s(5));
    let mut world = World::new(&setup);
    assert!(world.run_until(s(20), healthy));
    world.schedule(NetFault::Freeze, world.now(), s(8));
    world.run_for(s(7));
    assert_eq!(said(&world, "stale on market-0").len(), 2, "each mark price once");
    assert_eq!(said(&world, "while another connection delivers it").len(), 0);
    assert!(world.run_until(s(120), healthy));
    is_true(&world);
}
