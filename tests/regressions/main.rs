//! One scripted world per incident and per bug: what an operator sees, and exactly when, in virtual time.

mod candles;
mod connect;
mod corners;
mod endings;
mod freshness;
mod ladder;
mod legs;
mod restore;
mod rotation;
mod streams;
mod universe;
mod verdicts;

use binance_edge::net::Ending;
use binance_edge::note::{Note, Stamped};
use binance_edge::sim::world::network::NetFault;
use binance_edge::sim::world::{Setup, World};
use binance_edge::status::{Failure, Stream};
use binance_edge::time::{Instant, Span};
use binance_edge::wire::StreamKind;

fn s(seconds: u64) -> Span {
    Span::from_secs(seconds)
}

fn ms(ms: u64) -> Span {
    Span::from_ms(ms)
}

fn at(span: Span) -> Instant {
    Instant::ZERO + span
}

/// A world with its faults, from the beginning.
fn world(setup: &Setup, faults: &[NetFault], lasts: Span) -> World {
    let mut world = World::new(setup);
    for fault in faults {
        world.schedule(*fault, Instant::ZERO, lasts);
    }
    world
}

/// All notes whose text holds `words`.
fn said<'w>(world: &'w World, words: &str) -> Vec<&'w Stamped> {
    world.notes().iter().filter(|stamped| stamped.note.to_string().contains(words)).collect()
}

/// When all notes whose text holds `words` were said.
fn times(world: &World, words: &str) -> Vec<Instant> {
    said(world, words).iter().map(|stamped| stamped.at).collect()
}

/// How attempts and connections ended, and the pause after each.
fn endings(world: &World) -> Vec<(Instant, Ending, Option<Span>)> {
    let ended = world.notes().iter().filter_map(|stamped| {
        let Note::Ended { ending, pause, .. } = &stamped.note else { return None };
        Some((stamped.at, ending.clone(), *pause))
    });
    ended.collect()
}

fn count(world: &World, level: log::Level) -> usize {
    world.notes().iter().filter(|stamped| stamped.note.level() == level).count()
}

fn last_failure(world: &World) -> Failure {
    world.status().connections[0].last_failure.clone().expect("something failed")
}

fn row(world: &World, stream: &str) -> Stream {
    world.status().streams.into_iter().find(|row| row.stream == stream).expect("a wanted stream")
}

/// What `/readyz` goes by: every wanted stream is live or rightly quiet.
fn ready(world: &World) -> bool {
    let quiet = |row: &Stream| row.reason.as_deref().is_some_and(|reason| reason.starts_with("quiet"));
    world.status().streams.iter().all(|row| row.state == "live" || (row.state == "acked" && quiet(row)))
}

fn healthy(world: &World) -> bool {
    world.engine().health(world.now()).reasons.is_empty()
}

/// Nothing false was said, and everything held is the exchange's own.
fn is_true(world: &World) {
    assert_eq!(world.violations(), [""; 0]);
    assert_eq!(world.audit(), [""; 0]);
}

/// A world of so many symbols that trade at this rate, three streams each.
fn many(seed: u64, symbols: usize, rate: f64) -> Setup {
    let names: Vec<String> = (0..symbols).map(|n| format!("S{n:03}USDT")).collect();
    let mut setup = Setup::new(seed, &names.iter().map(String::as_str).collect::<Vec<_>>());
    for listing in &mut setup.exchange.symbols {
        listing.rate = rate;
    }
    setup
}

/// Lets time pass under the eyes of somebody who looks each second: no stream is ever anything but live or rightly quiet,
/// and no mark price older than its own pace.
fn watch(world: &mut World, span: Span) {
    let end = world.now() + span;
    while world.now() < end {
        world.run_for(s(1).min(end.since(world.now())));
        all_flows(world);
    }
}

fn all_flows(world: &World) {
    let now = world.now();
    for stream in world.engine().feed().streams() {
        let age = stream.last_data.map(|at| now.since(at));
        let late = stream.kind == StreamKind::MarkPrice && age.is_none_or(|age| age > ms(1_500));
        assert!(stream.state().is_fine() && !late, "{} at {now:?}: {:?}, {age:?} old", stream.name, stream.state());
    }
}

/// No id is absent and none is there twice, everything held is the exchange's own, and the exchange has no complaint.
fn nothing_is_missing(world: &World) {
    for (symbol, book) in world.engine().market().books() {
        let Some(tape) = &book.tape else { continue };
        let ids: Vec<i64> = tape.ring().iter().map(|trade| trade.id).collect();
        assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "{symbol}");
        assert_eq!((tape.missing(), tape.holes().len()), (0, 0), "{symbol}");
        let taken = tape.received() + tape.backfilled();
        assert_eq!(taken.min(tape.ring().capacity() as u64), ids.len() as u64, "{symbol}");
    }
    is_true(world);
    within_limits(world);
}

fn within_limits(world: &World) {
    let ledger = world.exchange().ledger();
    assert_eq!(
        (ledger.violations, ledger.max_per_s().min(4)),
        (0, ledger.max_per_s()),
        "{:?}",
        ledger.first_violations
    );
}

/// When a connection was replaced, and how old it was then.
fn replaced(world: &World, name: &str) -> Vec<(Instant, Span)> {
    let succeeded = world.notes().iter().filter_map(|stamped| {
        let Note::Succeeded { connection, age, .. } = &stamped.note else { return None };
        (**connection == *name).then_some((stamped.at, *age))
    });
    succeeded.collect()
}
