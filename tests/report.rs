//! What the process says of its streams and connections, in virtual time: figures that belong together agree.

use binance_edge::engine::Statistics;
use binance_edge::note::Note;
use binance_edge::shell::metrics;
use binance_edge::sim::world::{Setup, World};
use binance_edge::status::Status;
use binance_edge::time::{Instant, Span};

/// Nobody trades the last one.
const SYMBOLS: [&str; 3] = ["BTCUSDT", "ETHUSDT", "QUIETUSDT"];

fn world(change: impl FnOnce(&mut Setup)) -> World {
    let mut setup = Setup::new(11, &SYMBOLS);
    change(&mut setup);
    World::new(&setup)
}

fn statistics(world: &World) -> Vec<(Instant, Statistics)> {
    let all = world.notes().iter().filter_map(|stamped| {
        let Note::Statistics(statistics) = &stamped.note else { return None };
        Some((stamped.at, (**statistics).clone()))
    });
    all.collect()
}

/// The value of a series.
fn figure(status: &Status, series: &str) -> u64 {
    let text = metrics::render(status);
    let prefix = format!("binance_edge_{series} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("no {series}"));
    value.parse().unwrap_or_else(|_| panic!("{series} is {value}"))
}

#[test]
fn statistics_are_said_every_five_minutes_and_when_a_stop_begins() {
    let mut world = world(|_| {});
    world.run_for(Span::from_secs(910));
    world.stop();
    world.run_for(Span::from_secs(600));
    let said = statistics(&world);
    let times: Vec<_> = said.iter().map(|(at, _)| at.since(Instant::ZERO)).collect();
    assert_eq!(times, [300, 600, 900, 910].map(Span::from_secs));
    let (_, last) = &said[3];
    let states = last.subscriptions.states;
    assert_eq!((states.live, states.quiet, states.total()), (8, 1, 9), "as before the stop");
    let text = last.to_string();
    assert!(text.starts_with("streams: 9, of them 8 live, 1 quiet\nsubscriptions: 9 attempts, "), "{text}");
    assert!(text.ends_with("\nsymbols in trouble now: none"), "{text}");
    assert!(world.violations().is_empty(), "{:?}", world.violations());
}

#[test]
fn a_rotation_shows_both_rows_and_is_counted_once() {
    let mut world = world(|setup| setup.config.rotation.every = Span::from_secs(600));
    world.run_for(Span::from_secs(30));
    let status = world.status();
    let rotates = status.connections[0].rotates_in_ms.expect("it has a time");
    assert!((500_000..=600_000).contains(&rotates), "{rotates} ms");
    let both = |world: &World| world.status().connections.iter().any(|row| row.role == "successor");
    assert!(world.run_until(Span::from_secs(620), both), "no successor");
    let status = world.status();
    let rows: Vec<_> = status.connections.iter().map(|row| (&*row.name, row.role, row.purpose)).collect();
    assert_eq!(rows, [("market-0", "current", None), ("market-0", "successor", Some("planned"))]);
    assert_eq!(status.connections[0].rotates_in_ms, None, "it is being replaced");
    assert!(status.streams.iter().all(|row| row.runs.len() == 2), "one run on each");
    assert_eq!(figure(&status, r#"successions_begun_total{purpose="planned"}"#), 1);
    let (mut frames, mut attempts) = (0, 0);
    // Counters only grow, while rows come and go.
    for _ in 0..400 {
        world.run_for(Span::from_ms(50));
        let status = world.status();
        let now = figure(&status, r#"frames_total{connection="market-0"}"#);
        let begun = figure(&status, r#"connection_attempts_total{connection="market-0"}"#);
        assert!(now >= frames && begun >= attempts, "{frames} to {now}, {attempts} to {begun}");
        (frames, attempts) = (now, begun);
    }
    let status = world.status();
    assert_eq!(figure(&status, r#"successions_total{purpose="planned",result="succeeded"}"#), 1);
    assert_eq!((status.connections.len(), status.connections[0].epoch, attempts), (1, 2, 2));
    assert!(status.streams.iter().all(|row| row.runs.is_empty()), "one run is the stream itself");
}

#[test]
fn two_legs_race_under_one_name() {
    let mut world = world(|setup| setup.config.streams.legs = 2);
    world.run_for(Span::from_secs(60));
    let status = world.status();
    let rows: Vec<_> = status.connections.iter().map(|row| (&*row.name, row.leg, row.role)).collect();
    assert_eq!(rows, [("market-0", "a", "current"), ("market-0", "b", "current")]);
    let [a, b] = [0, 1].map(|at| status.connections[at].race.expect("a race"));
    assert!(a.first + b.first > 1_000 && a.leads == b.late && b.leads == a.late, "{a:?} {b:?}");
    assert_eq!(status.legs.iter().map(|leg| leg.race).collect::<Vec<_>>(), [a, b]);
    assert_eq!(figure(&status, r#"leg_first_total{leg="a"}"#), a.first);
    let frames = status.connections.iter().map(|row| row.frames).sum::<u64>();
    assert_eq!(figure(&status, r#"frames_total{connection="market-0"}"#), frames);
    for row in &status.streams {
        assert_eq!(row.runs.iter().map(|run| run.leg).collect::<Vec<_>>(), ["a", "b"], "{}", row.stream);
    }
    let states = status.subscriptions.states;
    assert_eq!((states.live + states.quiet, states.quiet > 0), (9, true), "{states:?}");
    assert_eq!(figure(&status, r#"streams{state="quiet"}"#), states.quiet);
}
