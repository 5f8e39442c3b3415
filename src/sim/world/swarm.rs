//! Many worlds: each seed draws which faults there are at all, then when and how long, then the run.
//!
//! A run has two parts. While faults are on, nothing false may be said. After the last one ended, everything must come
//! back by itself: every stream live or rightly quiet, and everything held equal to the exchange's books.

use super::network::NetFault;
use super::{Setup, World};
use crate::config::SubscribeBy;
use crate::market::feed::{Canary, Connection, Role};
use crate::sim::exchange::Harm;
use crate::sim::exchange::ledger::Violation;
use crate::time::{Instant, Span};
use std::net::{IpAddr, Ipv4Addr};

/// How long after the last fault everything must be back: the longest pause, one whole attempt, a first-data deadline,
/// and as much again for what failed while others healed.
const HEAL_WITHIN: Span = Span::from_secs(150);

/// How long a half-open path can look well: what a path that broke down still holds, `ping_after` and `pong`, a moment.
const FOUND_WITHIN: Span = Span::from_secs(40);

/// The second address of the exchange's name, where it has two.
const OTHER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// Two runs of the same seed share it.
    pub hash: u64,
    /// Messages the process received.
    pub frames: u64,
    /// Attempts to connect that were begun.
    pub attempts: u64,
    /// From the end of the last fault until all was back; `None` if it never was.
    pub healed_after: Option<Span>,
    /// Faults that were on.
    pub faults: Vec<String>,
    /// The kind of each of them, in one word.
    pub kinds: Vec<&'static str>,
    /// How much time passed in it.
    pub passed: Span,
    /// What was violated; empty for a good run.
    pub violations: Vec<String>,
    /// Everything the process said, if that was to be kept.
    pub notes: Vec<String>,
}

impl Run {
    /// A run of this seed to which nothing happened.
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            hash: 0,
            frames: 0,
            attempts: 0,
            healed_after: None,
            faults: Vec::new(),
            kinds: Vec::new(),
            passed: Span::ZERO,
            violations: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// One world of this seed, with `faulty` of faults before everything must heal.
pub fn run(seed: u64, faulty: Span, canary: Canary, keep_notes: bool) -> Run {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let setup = setup(seed, &mut rng, canary);
    let mut world = World::new(&setup);
    if !keep_notes {
        world.forget_notes();
    }
    let Drawn { told: faults, kinds, last_end } = draw_faults(&mut world, &mut rng, faulty);
    world.run_for(last_end);
    let mut violations = Vec::new();
    let calm = world.now();
    // A path that died silently is found by our ping; until then all looks well.
    let (mut ill, mut settled) = (calm, false);
    let found_within = FOUND_WITHIN.max(faulty.saturating_sub(last_end));
    world.run_until(found_within, |world| {
        if !settled && !all_well(world) {
            ill = world.now();
        } else if world.now().since(calm) > FOUND_WITHIN {
            // What ends after this, by its age perhaps, is another story.
            settled = true;
        }
        false
    });
    settled |= all_well(&world);
    let back = settled || world.run_until(HEAL_WITHIN, all_well);
    let healed_at = if settled { ill } else { world.now() };
    let healed_after = back.then(|| healed_at.since(calm));
    if !back {
        let health = world.engine().health(world.now());
        violations.push(format!("not back {HEAL_WITHIN} after the last fault: {}", health.reasons.join("; ")));
    }
    // A while of calm: what healed stays healed.
    world.run_for(Span::from_secs(5));
    let short_lives = setup.exchange.limits.lifetime_ms < 1_000_000;
    // A stream that was asked for while the exchange muted it shows only when somebody trades: quiet until then.
    let latent = kinds.contains(&Harm::Mute.kind());
    let more = if latent { HEAL_WITHIN } else { Span::ZERO };
    if back && !short_lives && !world.run_until(more, all_well) {
        let health = world.engine().health(world.now());
        violations.push(format!("healed and fell ill again without a fault: {}", health.reasons.join("; ")));
    }
    violations.extend(world.violations().iter().cloned());
    violations.extend(world.audit());
    violations.extend(count(&world));
    Run {
        seed,
        hash: world.hash(),
        frames: world.engine().feed().connections().map(|c| c.frames).sum(),
        attempts: world.engine().feed().connections().map(|c| c.session.epoch()).sum(),
        healed_after,
        faults,
        kinds,
        passed: world.now().since(Instant::ZERO),
        violations,
        notes: world.notes().iter().map(|s| format!("{} {} {}", s.utc, s.note.level(), s.note)).collect(),
    }
}

fn all_well(world: &World) -> bool {
    let feed = world.engine().feed();
    let serving = |connection: &&Connection| connection.role == Role::Current;
    feed.connections().filter(serving).all(|c| c.session.is_open()) && feed.streams().all(|s| s.state().is_fine())
}

/// Counters must add up, and the exchange must have no complaint.
fn count(world: &World) -> Vec<String> {
    let mut words = Vec::new();
    let ledger = world.exchange().ledger();
    // A pong may be missing because the path died: the exchange never learnt that nobody is there any more.
    let ours: Vec<_> = ledger.first_violations.iter().filter(|(.., what)| *what != Violation::NoPong).collect();
    if !ours.is_empty() {
        words.push(format!("the exchange counts {} violations: {:?}", ours.len(), &ours[..ours.len().min(5)]));
    }
    for stream in world.engine().feed().streams() {
        if stream.successes > stream.attempts || stream.retries > stream.attempts {
            words.push(format!("{}: {} attempts, {} successes", stream.name, stream.attempts, stream.successes));
        }
    }
    for (symbol, book) in world.engine().market().books() {
        let Some(tape) = &book.tape else { continue };
        let (len, capacity) = (tape.ring().len() as u64, tape.ring().capacity() as u64);
        if (tape.received() + tape.backfilled()).min(capacity) != len {
            words.push(format!("{symbol}: {} received, {len} held of {capacity}", tape.received()));
        }
    }
    words
}

fn setup(seed: u64, rng: &mut fastrand::Rng, canary: Canary) -> Setup {
    let all = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "币安人生USDT", "BTCUSDT_261225", "QUIETUSDT"];
    let symbols: Vec<&str> = all.into_iter().filter(|_| rng.bool()).collect();
    let mut setup = Setup::new(seed, if symbols.is_empty() { &all[..1] } else { &symbols });
    setup.canary = canary;
    setup.config.streams.per_connection = [1, 2, 5, 200][rng.usize(..4)];
    if rng.u8(..) < 64 {
        setup.config.streams.subscribe_by = SubscribeBy::Url;
    }
    setup.exchange.rate = [0.1, 0.3, 1.0][rng.usize(..3)];
    setup.exchange.limits.ping_every_ms = [15_000, 180_000][rng.usize(..2)];
    setup.exchange.end_by_cut = rng.bool();
    setup.tls = rng.u8(..) < 96;
    if rng.bool() {
        setup.addresses.push(OTHER_ADDRESS);
    }
    if rng.u8(..) < 32 {
        setup.exchange.limits.lifetime_ms = rng.i64(20_000..90_000);
    }
    if rng.u8(..) < 96 {
        setup.config.rotation.every = Span::from_ms(rng.u64(3_000..60_000));
    }
    if rng.u8(..) < 96 {
        setup.config.streams.legs = 2;
    }
    if rng.u8(..) < 64 {
        setup.config.deadlines.stale_mark_price = Some(Span::from_secs(5));
    }
    setup
}

/// The faults of a run: in words, by kind, and when the last of them ends.
struct Drawn {
    told: Vec<String>,
    kinds: Vec<&'static str>,
    last_end: Span,
}

/// Swarm testing: each kind of fault is in a run or not, so that some runs have few kinds in many episodes.
fn draw_faults(world: &mut World, rng: &mut fastrand::Rng, faulty: Span) -> Drawn {
    let ms = |rng: &mut fastrand::Rng, from: u64, to: u64| Span::from_ms(rng.u64(from..to));
    let network = [
        NetFault::ResolverSilent,
        NetFault::ResolverSlow(ms(rng, 500, 6_000)),
        NetFault::ResolverFails,
        NetFault::SynLost,
        NetFault::Refused,
        NetFault::Mute,
        NetFault::Trickle(ms(rng, 20, 400)),
        NetFault::Freeze,
        NetFault::BlackHole,
        NetFault::Reset,
        NetFault::EndOfFile,
        NetFault::Slow(ms(rng, 20, 900)),
        NetFault::AddressDead(Ipv4Addr::LOCALHOST.into()),
        NetFault::AddressDead(OTHER_ADDRESS),
        NetFault::MuteAfter(rng.u64(1..1_500)),
        NetFault::CutAfter(rng.u64(1..1_500)),
        NetFault::MuteUpgrade,
        NetFault::TrickleUpgrade(ms(rng, 20, 400)),
        NetFault::RestSilent,
        NetFault::RestFails,
    ];
    let network: Vec<NetFault> = network.into_iter().filter(|_| rng.u8(..) < 80).collect();
    let harms = [
        Harm::AckLost,
        Harm::AckWrongId,
        Harm::AckError { code: 2, msg: "Invalid request: too many parameters", bare: true },
        Harm::AckError { code: 4, msg: "Too many subscriptions", bare: false },
        Harm::AckLate { ms: rng.i64(100..9_000) },
        Harm::CloseOnSubscribe { code: 1008 },
        Harm::Mute,
        Harm::DropClosing,
        Harm::Duplicate,
        Harm::Reorder,
        Harm::Skip,
        Harm::Malformed(hostile()),
        Harm::ExtraKeys,
        Harm::ShuffledKeys,
        Harm::WithoutKeys(vec!["nq", "st"]),
        Harm::RefuseUpgrade { status: 429, retry_after_s: Some(rng.u32(1..15)) },
        Harm::RefuseUpgrade { status: 403, retry_after_s: None },
        Harm::RefuseUpgrade { status: 503, retry_after_s: None },
    ];
    let harms: Vec<Harm> = harms.into_iter().filter(|_| rng.u8(..) < 60).collect();
    let (mut told, mut kinds, mut last_end) = (Vec::new(), Vec::new(), Span::ZERO);
    let minutes = faulty.as_ms().div_ceil(60_000).max(1);
    let episodes: usize = (0..minutes).map(|_| rng.usize(1..7)).sum();
    for episode in 0..episodes {
        // What hurts connecting hurts at the start, or when something makes everyone connect again.
        let at_start = episode == 0 && rng.bool();
        let from = if at_start { Span::ZERO } else { Span::from_ns(rng.u64(0..faulty.as_ns() * 4 / 5)) };
        let lasts = ms(rng, 200, 20_000);
        let lasts = Span::from_ns(lasts.as_ns().min(faulty.as_ns() - from.as_ns()));
        last_end = last_end.max(Span::from_ns(from.as_ns() + lasts.as_ns()));
        if !network.is_empty() && (rng.bool() || harms.is_empty()) {
            let fault = network[rng.usize(..network.len())];
            world.schedule(fault, Instant::ZERO + from, lasts);
            kinds.push(fault.kind());
            told.push(format!("{fault:?} at {from} for {lasts}"));
            if !at_start && rng.bool() {
                world.schedule(NetFault::Reset, Instant::ZERO + from, Span::from_ms(1));
                kinds.push(NetFault::Reset.kind());
                told.push(format!("{:?} at {from}", NetFault::Reset));
            }
        } else if !harms.is_empty() {
            let harm = harms[rng.usize(..harms.len())].clone();
            let stream = ["", "aggTrade", "markPrice", "kline", "btcusdt@"][rng.usize(..5)];
            let every = [1, 1, 3, 10][rng.usize(..4)];
            let name = harm.kind();
            kinds.push(name);
            world.schedule_harm(harm, Instant::ZERO + from, lasts, |fault| fault.on(stream).every(every));
            told.push(format!("{name} on \"{stream}\" each {every} at {from} for {lasts}"));
        }
    }
    // The process's wall clock is set, as a time server does that was away for long.
    for _ in 0..rng.usize(..3) {
        let (at, by_s) = (Span::from_ns(rng.u64(0..faulty.as_ns().max(1))), rng.i64(-3_600..=3_600));
        world.schedule_clock_step(Instant::ZERO + at, by_s * 1_000);
        kinds.push("wall-clock");
        told.push(format!("wall clock stepped by {by_s} s at {at}"));
    }
    Drawn { told, kinds, last_end }
}

/// Messages that nobody should send.
pub fn hostile() -> Vec<String> {
    let trade = |field: &str| {
        format!(
            r#"{{"stream":"btcusdt@aggTrade","data":{{"e":"aggTrade","E":1795215900000,"s":"BTCUSDT","a":1,{field},"f":1,"l":1,"T":1795215900000,"m":true}}}}"#
        )
    };
    let mut texts: Vec<String> = [
        r#""p":"NaN","q":"1""#,
        r#""p":"Infinity","q":"1""#,
        r#""p":"-1","q":"1""#,
        r#""p":"0","q":"1""#,
        r#""p":"1e400","q":"1""#,
        r#""p":"1.000000000000000000000000000000000000000000000000000000000001","q":"1""#,
        r#""p":"","q":"1""#,
        r#""p":1.5,"q":"1""#,
        r#""p":null,"q":"1""#,
        r#""p":["1"],"q":"1""#,
        r#""p":"1","q":"99999999999999999999999999""#,
    ]
    .map(trade)
    .to_vec();
    texts.extend(
        [
            "",
            "null",
            "42",
            "[]",
            "{",
            "\u{feff}{}",
            r#""{\"e\":\"aggTrade\"}""#,
            r#"{"e":"aggTrade","a":99999999999999999999999999}"#,
            r#"{"e":"aggTrade","s":"../../etc/passwd","a":1}"#,
            r#"{"e":"aggTrade","s":"BTC\u0000USDT","a":1,"p":"1","q":"1","f":1,"l":1,"T":1,"E":1,"m":true}"#,
            r#"{"result":null,"id":987654321}"#,
            r#"{"code":2,"msg":"Invalid request: request ID must be an unsigned integer"}"#,
        ]
        .map(str::to_owned),
    );
    texts.push("[".repeat(100_000));
    texts.push(format!(r#"{{"e":"aggTrade","s":"{}","a":1}}"#, "X".repeat(100_000)));
    texts
}
