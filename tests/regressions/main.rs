//! One scripted world per incident and per bug: what an operator sees, and exactly when, in virtual time.

mod candles;
mod connect;
mod endings;
mod streams;
mod universe;

use binance_edge::net::Ending;
use binance_edge::note::{Note, Stamped};
use binance_edge::sim::world::network::NetFault;
use binance_edge::sim::world::{Setup, World};
use binance_edge::status::{Failure, Stream};
use binance_edge::time::{Instant, Span};

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
