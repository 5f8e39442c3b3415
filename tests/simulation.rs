//! The whole system in its simulated world.
#![allow(clippy::disallowed_methods, reason = "outside the core")]

use binance_edge::market::feed::Canary;
use binance_edge::sim::world::network::NetFault;
use binance_edge::sim::world::{Setup, World};
use binance_edge::sim::world::{swarm, vigil};
use binance_edge::time::{Instant, Span};

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str, default| std::env::var(name).map_or(default, |value| value.parse().expect("a number"));
    let first = number("SIM_SEED", 0);
    first..first + number("SIM_SEEDS", 64)
}

#[test]
fn an_hour_without_faults_is_held_to_the_last_trade() {
    let symbols = [
        "BTCUSDT",
        "ETHUSDT",
        "SOLUSDT",
        "BNBUSDT",
        "XRPUSDT",
        "DOGEUSDT",
        "1000SHIBUSDT",
        "币安人生USDT",
        "BTCUSDT_261225",
        "QUIETUSDT",
    ];
    let mut setup = Setup::new(1, &symbols);
    setup.config.tape.trades = 65_536;
    let mut world = World::new(&setup);
    assert!(world.run_until(Span::from_secs(15), |w| w.engine().health(w.now()).reasons.is_empty()));
    world.run_for(Span::from_secs(3600));
    let status = world.status();
    assert_eq!(world.violations(), [""; 0]);
    assert_eq!(world.audit(), [""; 0]);
    for (name, symbol) in &status.symbols {
        let trades = symbol.trades.as_ref().unwrap();
        let truth = world.exchange().truth().book(name).unwrap();
        assert_eq!(trades.missing + trades.duplicates, 0, "{name}");
        let last = truth.ids().unwrap().1;
        assert!(last - trades.last_id.unwrap() <= 30, "{name}: {:?} of {last}", trades.last_id);
    }
}

#[test]
fn over_tls_the_process_says_the_same_whatever_tls_draws() {
    let run = || {
        let mut world = World::new(&Setup::new(3, &["BTCUSDT", "币安人生USDT"]).over_tls());
        world.schedule(NetFault::Trickle(Span::from_ms(3)), Instant::ZERO, Span::from_secs(5));
        world.schedule(NetFault::Reset, Instant::ZERO + Span::from_secs(20), Span::from_ms(1));
        world.run_for(Span::from_secs(120));
        assert_eq!(world.violations(), [""; 0]);
        assert_eq!(world.audit(), [""; 0]);
        let connection = world.status().connections[0].clone();
        assert_eq!((connection.opened, connection.live), (2, 6));
        assert!(connection.url.starts_with("wss://venue.example:9443/"), "{}", connection.url);
        (world.hash(), connection.bytes, connection.frames)
    };
    assert_eq!(run(), run());
}

#[test]
fn faults_of_every_kind_are_survived_and_nothing_false_is_said() {
    let mut failed = Vec::new();
    for seed in seeds() {
        let run = swarm::run(seed, Span::from_secs(60), Canary::default(), seeds().count() == 1);
        for note in &run.notes {
            println!("{note}");
        }
        if !run.violations.is_empty() {
            failed.push(format!("SIM_SEED={seed} SIM_SEEDS=1: {:#?}\nfaults: {:#?}", run.violations, run.faults));
        }
    }
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn bugs_put_in_on_purpose_are_found() {
    let bugs = [
        ("a deadline that is not armed", Canary { deadline_not_armed: true, ..Canary::default() }),
        ("an acknowledgement that counts as data", Canary { ack_is_proof: true, ..Canary::default() }),
        ("data of an old connection that counts", Canary { old_epoch_counts: true, ..Canary::default() }),
    ];
    for (words, canary) in bugs {
        let found = (0..SEEDS_TO_FIND_IN).find(|seed| !sweep(*seed, canary).violations.is_empty());
        let Some(seed) = found else { panic!("{words}: not found in {SEEDS_TO_FIND_IN} seeds") };
        println!("{words}: found by seed {seed}: {}", sweep(seed, canary).violations[0]);
        assert_eq!(sweep(seed, Canary::default()).violations, [""; 0], "{words}: seed {seed} fails without it too");
    }
}

#[test]
fn the_same_seed_says_the_same_things_at_the_same_times() {
    for seed in 0..24 {
        let (one, two) = (sweep(seed, Canary::default()), sweep(seed, Canary::default()));
        assert_eq!((one.hash, one.frames, one.attempts), (two.hash, two.frames, two.attempts), "seed {seed}");
    }
    assert_ne!(sweep(0, Canary::default()).hash, sweep(1, Canary::default()).hash);
}

#[test]
fn on_quiet_days_nobody_is_alarmed_for_nothing_and_no_silence_is_overlooked() {
    let first = seeds().start;
    let days = std::env::var("SIM_DAYS").map_or(3, |days| days.parse().expect("a number"));
    let mut failed = Vec::new();
    for seed in first..first + days {
        let day = vigil::day(seed, days == 1);
        for note in &day.notes {
            println!("{note}");
        }
        if !day.is_good() {
            let calls = day.calls.iter().filter(|call| !call.verdict.is_good());
            let calls: Vec<_> = calls.map(|call| format!("{:?} {} {}", call.verdict, call.at, call.words)).collect();
            failed.push(format!("SIM_SEED={seed} SIM_DAYS=1: {:#?}\n{calls:#?}\n{:#?}", day.drawn, day.violations));
        }
    }
    assert!(failed.is_empty(), "{} of {days} days failed\n{}", failed.len(), failed.join("\n"));
}

/// Seeds within which each planted bug must be found.
const SEEDS_TO_FIND_IN: u64 = 32;

fn sweep(seed: u64, canary: Canary) -> swarm::Run {
    swarm::run(seed, Span::from_secs(60), canary, false)
}
