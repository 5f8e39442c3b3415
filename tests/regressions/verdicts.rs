//! Which streams are flagged: exactly those that are mute, each in its time, whatever the others do.

use super::*;
use binance_edge::sim::exchange::{Cure, Harm};
use std::collections::{BTreeMap, BTreeSet};

const SYMBOLS: [&str; 3] = ["BTCUSDT", "ETHUSDT", "SOLUSDT"];
const KINDS: [&str; 3] = ["markPrice@1s", "aggTrade", "kline_1m"];

fn name(symbol: &str, kind: &str) -> String {
    format!("{}@{kind}", symbol.to_lowercase())
}

/// So many of the nine streams.
fn draw(seed: u64, k: usize) -> BTreeSet<String> {
    let mut all: Vec<String> = SYMBOLS.iter().flat_map(|symbol| KINDS.map(|kind| name(symbol, kind))).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut all);
    all.into_iter().take(k).collect()
}

/// When each stream was flagged first, and when data of it last came before that.
fn flagged(world: &mut World, until: Instant) -> BTreeMap<String, (Instant, Span)> {
    let mut flagged = BTreeMap::new();
    let (mut seen, left) = (0, until.since(world.now()));
    world.run_until(left, |world| {
        for stamped in &world.notes()[seen..] {
            let Note::StreamFailed { stream, .. } = &stamped.note else { continue };
            let row = world.engine().feed().streams().find(|row| row.name == *stream).expect("a wanted stream");
            let silent = row.last_data.map_or(Span::ZERO, |at| stamped.at.since(at));
            flagged.entry(stream.to_string()).or_insert((stamped.at, silent));
        }
        seen = world.notes().len();
        false
    });
    flagged
}

/// Whoever is not mute is as if nothing were.
fn others_are_untouched(world: &World, mute: &BTreeSet<String>, seed: u64) {
    for row in world.status().streams {
        if !mute.contains(&row.stream) {
            assert_eq!((row.state, row.failures, row.attempts), ("live", 0, 1), "seed {seed}: {row:?}");
        }
    }
}

#[test]
fn exactly_those_that_never_deliver_fail_each_in_its_time() {
    for seed in 0..1_000 {
        let mute = draw(seed, seed as usize % 10);
        let mut world = World::new(&Setup::new(seed, &SYMBOLS));
        let names: Vec<&str> = mute.iter().map(String::as_str).collect();
        if !names.is_empty() {
            world.schedule_harm(Harm::Mute, Instant::ZERO, s(60), |fault| fault.streams(&names));
        }
        assert!(world.run_until(s(2), |w| !said(w, "9 streams asked for").is_empty()), "seed {seed}");
        let asked = world.now();
        let flagged = flagged(&mut world, asked + ms(11_150));
        // Where trades and candles of a symbol are mute together, REST tells that it trades.
        assert_eq!(flagged.keys().cloned().collect::<BTreeSet<_>>(), mute, "seed {seed}");
        for (stream, (when, _)) in &flagged {
            let after = when.since(asked);
            assert!(s(10) < after && after < ms(11_100), "seed {seed}: {stream} failed after {after}");
        }
        if mute.len() < 9 {
            assert!(endings(&world).is_empty(), "seed {seed}");
            others_are_untouched(&world, &mute, seed);
        }
        assert_eq!(world.violations(), [""; 0], "seed {seed}");
    }
}

#[test]
fn exactly_those_that_fall_silent_are_stale_each_in_its_time() {
    let mut lulls = 0;
    for seed in 0..1_000 {
        let mute = draw(seed, seed as usize % 10);
        let mut setup = Setup::new(seed, &SYMBOLS);
        setup.config.deadlines.stale = s(8);
        let mut world = World::new(&setup);
        let names: Vec<&str> = mute.iter().map(String::as_str).collect();
        let silent = Harm::MuteAfter { ms: 4_000, cure: Cure::Never };
        if !names.is_empty() {
            world.schedule_harm(silent, Instant::ZERO, s(60), |fault| fault.streams(&names));
        }
        if !world.run_until(ms(3_900), |w| w.status().streams.iter().all(|row| row.state == "live")) {
            // A lull on one symbol.
            lulls += 1;
            continue;
        }
        let flagged = flagged(&mut world, at(ms(13_300)));
        if mute.len() == 9 {
            let (_, ending, _) = &endings(&world)[0];
            assert_eq!(ending.reason, "all streams silent for 8s", "seed {seed}");
            continue;
        }
        for (stream, (_, silent)) in &flagged {
            assert!(s(8) <= *silent && *silent <= s(9), "seed {seed}: {stream} stale after {silent}");
            assert!(mute.contains(stream), "seed {seed}: {stream} is not mute");
        }
        // Where trades and candles fell silent together only REST can tell, and it is asked within a budget.
        let late: BTreeSet<&String> = mute.iter().filter(|stream| !flagged.contains_key(*stream)).collect();
        for stream in &late {
            let symbol = stream.split_once('@').unwrap().0.to_uppercase();
            assert!(
                KINDS[1..].iter().all(|kind| mute.contains(&name(&symbol, kind))),
                "seed {seed}: {stream} was missed: {:?}",
                row(&world, stream)
            );
            let reason = row(&world, stream).reason;
            assert!(reason.is_none_or(|reason| reason.starts_with("quiet")), "seed {seed}: {stream}");
        }
        assert!(endings(&world).is_empty(), "seed {seed}");
        others_are_untouched(&world, &mute, seed);
        if !late.is_empty() {
            let then = self::flagged(&mut world, at(s(24)));
            assert!(late.iter().all(|stream| then.contains_key(*stream)), "seed {seed}: {late:?}");
        }
        assert_eq!(world.violations(), [""; 0], "seed {seed}");
    }
    assert!(lulls < 20, "{lulls}");
}
