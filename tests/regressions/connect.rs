//! The connect that hung: a log line "connecting with a 10 s timeout", then nothing, for minutes, at whatever stage. Here
//! each stage ends at its own deadline to the nanosecond, says which it was, and is followed by the next attempt.

use super::*;
use std::net::{IpAddr, Ipv4Addr};

const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

fn setup() -> Setup {
    Setup::new(7, &["BTCUSDT", "ETHUSDT"]).over_tls()
}

/// A fault that never lets a connection be: three attempts, one outage, and back.
fn hangs(faults: &[NetFault], stage: &str, deadline: Span, reason: &str, address: Option<&str>) {
    let lasts = s(120);
    let mut world = world(&setup(), faults, lasts);
    // The first attempt ends exactly when its stage's time is over.
    assert!(world.run_until(s(20), |w| !endings(w).is_empty()), "{faults:?}: the first attempt never ended");
    let (first_at, first, pause) = endings(&world).remove(0);
    assert_eq!((first.stage.as_str(), first.elapsed, first.attempt), (stage, deadline, 1), "{faults:?}");
    assert_eq!(first.reason, reason);
    assert_eq!(first.address.map(|address| address.to_string()).as_deref(), address);
    let pause = pause.expect("there is always a next attempt");
    let words = format!("market-0: attempt 1 of 3 failed: {stage} after {deadline}: {reason}");
    assert_eq!(times(&world, &words), [first_at]);
    let (failure, status) = (last_failure(&world), world.status());
    assert_eq!((failure.stage, failure.elapsed_ms, failure.close_code), (stage, deadline.as_ms(), None));
    assert_eq!(failure.reason, reason);
    assert_eq!((status.connections[0].state, status.connections[0].failed), ("backoff", 1));
    assert_eq!(format!("{:?}", status.health.level), "Degraded");
    assert!(status.streams.iter().all(|row| row.state == "wanted" && row.attempts == 0));
    assert!(status.streams[0].reason.as_deref().is_some_and(|words| words.contains(reason)));
    assert!(!ready(&world));

    // The second begins when its pause is over, between min and min·2².
    assert!(ms(500) <= pause && pause <= s(2), "{pause}");
    assert!(world.run_until(s(3), |w| w.status().connections[0].epoch == 2));
    assert_eq!(world.now(), first_at + pause);
    assert_eq!(times(&world, "attempt 2: wss://venue.example:9443/market/stream"), [world.now()]);

    // Three in a row are one outage, told once; then a reminder each time the failures have doubled.
    assert!(world.run_until(s(60), |w| !said(w, "outage").is_empty()));
    let told = world.notes().len();
    let outage = &world.notes()[told - 1];
    assert_eq!((outage.note.level(), outage.at), (log::Level::Error, endings(&world)[2].0));
    assert!(outage.note.to_string().starts_with("market-0: outage: 3 failures in a row, no data for "));
    assert!(outage.note.to_string().ends_with("; retrying goes on"));
    assert_eq!(format!("{:?}", world.status().health.level), "Unhealthy");
    let rest = lasts.saturating_sub(world.now().since(Instant::ZERO));
    world.run_for(rest);
    let row = &world.status().connections[0];
    let of_the_feed = world.notes()[told..].iter().filter(|stamped| !matches!(stamped.note, Note::RestFailed { .. }));
    let since: Vec<String> = of_the_feed.map(|stamped| stamped.note.to_string()).collect();
    assert_eq!(
        since.len() as u32,
        row.attempt.saturating_sub(u32::from(row.state != "backoff")).ilog2() - 1,
        "{since:#?}"
    );
    assert!(since.iter().all(|line| line.starts_with("market-0: still out: ")), "{since:#?}");
    assert!(row.failed >= 5 && row.failures_by_stage.get(stage) == Some(&row.failed), "{row:?}");
    assert!(world.status().health.reasons[0].contains("market-0: outage, "), "{:?}", world.status().health);

    // The fault is over: within the longest pause, an attempt that was under way, and a moment, all is live.
    assert!(world.run_until(s(30 + 10 + 5), healthy), "{faults:?}");
    assert!(world.status().streams.iter().all(|row| row.state == "live"));
    assert_eq!(count(&world, log::Level::Error), 1);
    assert_eq!(said(&world, "outage over: data flows again after").len(), 1);
    assert_eq!(world.status().connections[0].attempt, 0);
    is_true(&world);
}

#[test]
fn a_resolver_that_never_answers() {
    hangs(&[NetFault::ResolverSilent], "resolve", s(3), "no answer from the resolver", None);
}

#[test]
fn an_address_that_never_answers() {
    hangs(&[NetFault::SynLost], "tcp", s(4), "no answer", Some("127.0.0.1:9443"));
}

#[test]
fn tls_that_says_nothing() {
    hangs(&[NetFault::Mute], "tls", s(4), "no answer to our hello", Some("127.0.0.1:9443"));
}

#[test]
fn tls_that_stops_in_the_middle() {
    hangs(&[NetFault::MuteAfter(300)], "tls", s(4), "stalled after 300 bytes", Some("127.0.0.1:9443"));
}

#[test]
fn tls_that_trickles() {
    let mut world = world(&setup(), &[NetFault::Trickle(ms(20))], s(4));
    world.run_for(s(5));
    let (_, ending, _) = endings(&world).remove(0);
    assert_eq!((ending.stage.as_str(), ending.elapsed), ("tls", s(4)));
    // Less than 200 bytes come in 4 s, one each 20 ms.
    let bytes: u64 =
        ending.reason.strip_prefix("stalled after ").unwrap().strip_suffix(" bytes").unwrap().parse().unwrap();
    assert!((195..=200).contains(&bytes), "{bytes}");
}

#[test]
fn an_upgrade_that_is_never_answered() {
    hangs(&[NetFault::MuteUpgrade], "upgrade", s(4), "no complete answer to the upgrade", Some("127.0.0.1:9443"));
}

#[test]
fn an_upgrade_that_trickles() {
    let trickle = NetFault::TrickleUpgrade(ms(100));
    hangs(&[trickle], "upgrade", s(4), "no complete answer to the upgrade", Some("127.0.0.1:9443"));
}

#[test]
fn tls_that_is_cut_is_a_failure_at_once() {
    let mut world = world(&setup(), &[NetFault::CutAfter(300)], s(2));
    assert!(world.run_until(s(1), |w| !endings(w).is_empty()));
    let (_, ending, _) = endings(&world).remove(0);
    assert_eq!((ending.stage.as_str(), ending.reason.as_str()), ("tls", "connection reset"));
    assert!(ending.elapsed < ms(100), "{}", ending.elapsed);
    assert!(world.run_until(s(10), healthy));
    is_true(&world);
}

#[test]
fn no_stage_outlives_the_deadline_of_the_whole() {
    // 2.9 s of 3 for the name, 2 s for a dead address, TLS in more than 3 s: each is within its own time.
    let mut setup = setup();
    setup.addresses.push(SECOND);
    let faults = [
        NetFault::ResolverSlow(ms(2_900)),
        NetFault::AddressDead(FIRST),
        NetFault::Trickle(Span::from_us(3_500)),
        NetFault::MuteUpgrade,
    ];
    let mut world = world(&setup, &faults, s(10));
    world.run_for(s(11));
    let (ended_at, ending, _) = endings(&world).remove(0);
    assert_eq!(ended_at, at(s(10)), "{ending}");
    assert_eq!(ending.stage.as_str(), "upgrade");
    assert_eq!(ending.reason, "no complete answer to the upgrade (connect deadline of 10s)");
    assert!(ending.elapsed < s(4) && last_failure(&world).elapsed_ms == ending.elapsed.as_ms());
    assert_eq!(ending.address, Some((SECOND, 9443).into()));
}

#[test]
fn a_dead_first_address_costs_its_share_and_no_failure() {
    let mut setup = setup();
    setup.addresses.push(SECOND);
    let mut world = world(&setup, &[NetFault::AddressDead(FIRST)], s(3_600));
    assert!(world.run_until(s(10), healthy));
    let open = said(&world, "open after")[0];
    // Half of the 4 s for TCP, and a moment for everything else.
    let elapsed = open.at.since(Instant::ZERO);
    assert!(s(2) < elapsed && elapsed < ms(2_400), "{elapsed}");
    assert!(open.note.to_string().ends_with("(127.0.0.2:9443)"), "{}", open.note);
    assert_eq!(world.status().connections[0].failed, 0);
    // The next time the good one is first.
    world.schedule(NetFault::Reset, world.now(), ms(1));
    world.run_for(ms(1));
    assert!(world.run_until(s(5), healthy));
    let (again, ended) = (said(&world, "open after")[1].at, endings(&world)[0].clone());
    assert!(again.since(ended.0 + ended.2.unwrap()) < ms(500));
    is_true(&world);
}

#[test]
fn a_resolver_that_dies_later_is_not_needed_for_an_address_that_was_good() {
    let mut world = World::new(&setup());
    assert!(world.run_until(s(10), healthy));
    world.schedule(NetFault::ResolverSilent, world.now(), s(600));
    world.schedule(NetFault::Reset, world.now(), ms(1));
    world.run_for(ms(1));
    assert!(world.run_until(s(10), healthy));
    assert_eq!(said(&world, "no answer from the resolver; dialling the addresses that answered before").len(), 1);
    is_true(&world);
}

#[test]
fn a_stop_in_any_stage_ends_the_process() {
    let faults =
        [NetFault::ResolverSilent, NetFault::SynLost, NetFault::Mute, NetFault::MuteUpgrade, NetFault::BlackHole];
    for fault in faults {
        let mut world = world(&setup(), &[fault], s(60));
        world.run_for(s(1));
        let began = world.now();
        world.stop();
        assert!(world.run_until(s(2), World::exited), "{fault:?}");
        assert!(world.now().since(began) <= ms(1_500), "{fault:?}");
    }
}
