//! Quiet days: a whole day of symbols that hardly trade, with halts, and now and then a stream that really falls silent.
//!
//! A process that watches silence can be wrong in two ways: it calls a stream ill because nobody traded, or it calls one
//! well that should have had data. Here every call is held against the exchange's own books.

use super::{BEGINNING, Setup, World, utc_of};
use crate::market::feed::Stream;
use crate::note::{Note, Stamped};
use crate::sim::exchange::{Cure, Halt, Harm, Listing};
use crate::time::{Instant, Span};
use crate::wire::StreamKind;
use std::collections::{BTreeMap, BTreeSet};

/// One virtual day.
pub const DAY: Span = Span::from_secs(86_400);

/// How far apart the streams of a symbol may tell of the same trade, when a call is judged.
const SAME_TRADE: Span = Span::from_ms(500);
/// A trade this soon after a stream's newest data cannot show that the stream is silent: a candle tells of it before.
const TELLS_NOTHING: Span = Span::from_ms(2_500);
/// Evidence has to ripen, a verdict has to show, and a message has to travel.
const VERDICT_WITHIN: Span = Span::from_secs(3);
/// How often somebody looks whether a silence was overlooked.
const LOOK_EVERY: Span = Span::from_secs(10);
/// What is asked for falls ill for this long; who was asked for before stays ill until it is asked for afresh.
const FAULT_LASTS: Span = Span::from_secs(7_200);
/// What failed in a fault may be told of this long after data came again.
const FAULT_ECHOES: Span = Span::from_secs(600);

/// What a call was worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// A fault was on, and data was due.
    True,
    /// There was nothing wrong.
    False,
    /// Data was due, did not come, and nobody said so in time.
    Missed,
    /// Nothing that is subscribed to could tell silence from illness: no mark price, and no other data of the symbol.
    Blind,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::True, Self::False, Self::Missed, Self::Blind];

    /// One word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "true",
            Self::False => "false",
            Self::Missed => "missed",
            Self::Blind => "blind",
        }
    }

    /// No watcher could do better.
    pub const fn is_good(self) -> bool {
        matches!(self, Self::True | Self::Blind)
    }
}

/// What calls are about.
pub const KINDS: [&str; 4] = ["aggTrade", "markPrice", "kline", "connection"];

/// Something that was said of a stream or a connection, or should have been.
#[derive(Clone, Debug)]
pub struct Call {
    /// `aggTrade`, `markPrice`, `kline` or `connection`
    pub kind: &'static str,
    /// Since the beginning.
    pub at: Span,
    /// What it was worth.
    pub verdict: Verdict,
    /// What was said.
    pub words: String,
}

/// What a day came to.
#[derive(Clone, Debug)]
pub struct Day {
    /// Its seed.
    pub seed: u64,
    /// Two runs of the same seed share it.
    pub hash: u64,
    /// What was drawn: symbols and events.
    pub drawn: Vec<String>,
    /// Everything that was said, or should have been.
    pub calls: Vec<Call>,
    /// Streams that were wanted.
    pub streams: usize,
    /// Messages the process received.
    pub frames: u64,
    /// Steps of the world.
    pub steps: u64,
    /// What was violated besides.
    pub violations: Vec<String>,
    /// Everything the process said, if that was to be kept.
    pub notes: Vec<String>,
}

impl Day {
    /// A day of this seed on which nothing happened.
    pub fn of(seed: u64) -> Self {
        let (drawn, calls, violations, notes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { seed, hash: 0, drawn, calls, streams: 0, frames: 0, steps: 0, violations, notes }
    }

    /// Nothing false was said, and nothing overlooked.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.calls.iter().all(|call| call.verdict.is_good())
    }
}

/// A stream that was made ill, or a symbol that was frozen.
struct Wrong {
    /// Of the streams concerned, all or the beginning.
    stream: String,
    from: Instant,
    /// Until then it may begin once more: what was asked for later falls silent later.
    until: Instant,
    /// When data came again, if it has.
    healed: Option<Instant>,
}

/// One day of this seed.
pub fn day(seed: u64, keep_notes: bool) -> Day {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xda7);
    let mut drawn = Vec::new();
    let setup = draw_world(seed, &mut rng, &mut drawn);
    let mut world = World::new(&setup);
    let wrongs = draw_events(&setup, &mut world, &mut rng, &mut drawn);
    let mut watch = Watch {
        stale: setup.config.deadlines.stale,
        first_data: setup.config.deadlines.first_data,
        wrongs,
        called: BTreeMap::new(),
        ended: false,
        overlooked: BTreeSet::new(),
    };
    let (mut calls, mut notes, mut heard) = (Vec::new(), Vec::new(), 0);
    let end = Instant::ZERO + DAY;
    while world.now() < end && !world.is_stuck() {
        let look_at = world.now() + LOOK_EVERY;
        while world.now() < look_at {
            world.run_until(look_at.since(world.now()), |world| world.notes().len() > heard);
            for stamped in &world.notes()[heard..] {
                calls.extend(watch.judge(stamped, &world));
                if keep_notes {
                    notes.push(format!("{} {} {}", stamped.utc, stamped.note.level(), stamped.note));
                }
            }
            heard = world.notes().len();
        }
        watch.look(&world, &mut calls);
    }
    let mut violations = world.violations().to_vec();
    violations.extend(world.audit());
    let feed = world.engine().feed();
    for stream in feed.streams().filter(|stream| stream.state().is_down()) {
        if !watch.is_wrong(&stream.name, world.now()) {
            violations.push(format!("{} is still {} at the end", stream.name, stream.state().as_str()));
        }
    }
    Day {
        seed,
        hash: world.hash(),
        drawn,
        calls,
        streams: feed.streams().count(),
        frames: feed.connections().map(|connection| connection.frames).sum(),
        steps: world.steps(),
        violations,
        notes,
    }
}

/// Three to five symbols: one that trades now and then, the others hardly or never.
fn draw_world(seed: u64, rng: &mut fastrand::Rng, drawn: &mut Vec<String>) -> Setup {
    let names = ["NORMALUSDT", "THINUSDT", "DEADUSDT", "RAREUSDT", "MUTEUSDT"];
    let count = rng.usize(3..=names.len());
    let mut setup = Setup::new(seed, &names[..count]);
    // A trade in so many seconds.
    let every = [rng.u64(15..90), rng.u64(180..900), 0, rng.u64(3_600..30_000), [0, 1_800][rng.usize(..2)]];
    setup.exchange.symbols = names[..count]
        .iter()
        .zip(every)
        .map(|(name, seconds)| {
            let rate = if seconds == 0 { 0.0 } else { 1.0 / seconds as f64 };
            drawn.push(format!(
                "{name}: {}",
                if seconds == 0 { "never trades".into() } else { format!("a trade in {seconds} s") }
            ));
            Listing::new(name, ["83084.3", "7.35", "1.23", "0.4762", "143.54"][rng.usize(..5)], rate)
        })
        .collect();
    // There is a past: the candle before the first is closed like any other.
    setup.exchange.warm_up_ms = 300_000;
    setup.config.streams.per_connection = [2, 6, 200][rng.usize(..3)];
    if rng.u8(..) < 64 {
        setup.config.streams.mark_price = false;
        setup.config.streams.per_connection = 200;
        drawn.push("no mark prices".to_owned());
    } else if rng.u8(..) < 64 {
        setup.exchange.skip_empty_candles = true;
        drawn.push("candles without trades are not closed".to_owned());
    }
    setup
}

fn draw_events(setup: &Setup, world: &mut World, rng: &mut fastrand::Rng, drawn: &mut Vec<String>) -> Vec<Wrong> {
    let names: Vec<String> = setup.config.streams.symbols.clone();
    let marks = setup.config.streams.mark_price;
    let (mut halts, mut wrongs) = (Vec::new(), Vec::new());
    let minutes = |rng: &mut fastrand::Rng, from: u64, to: u64| Span::from_secs(60 * rng.u64(from..to) + rng.u64(..60));
    for _ in 0..rng.usize(..4) {
        let name = names[rng.usize(..names.len())].clone();
        halts.push((vec![name], minutes(rng, 10, 1_300), minutes(rng, 2, 360), false));
    }
    if rng.u8(..) < 85 {
        halts.push((Vec::new(), minutes(rng, 10, 1_300), minutes(rng, 5, 90), false));
    }
    if marks && rng.bool() {
        let name = names[rng.usize(..names.len())].clone();
        halts.push((vec![name], minutes(rng, 10, 1_300), minutes(rng, 3, 40), true));
    }
    for (symbols, from, lasts, frozen) in halts {
        let (from, until) = (Instant::ZERO + from, Instant::ZERO + from + lasts);
        let what = if frozen { "frozen, marks and all" } else { "halted" };
        drawn.push(format!(
            "{} {what} at {} for {lasts}",
            symbols.first().map_or("all", |name| name),
            from.since(Instant::ZERO)
        ));
        if frozen {
            wrongs.push(Wrong {
                stream: format!("{}@markPrice", symbols[0].to_lowercase()),
                from,
                until,
                healed: None,
            });
        }
        world.with_exchange(|exchange| {
            exchange.halt(Halt { symbols, from: utc_of(from), until: utc_of(until), marks: frozen });
        });
    }
    if rng.u8(..) < 115 {
        let symbol = names[rng.usize(..names.len())].to_lowercase();
        let kind = ["aggTrade", "kline_1m", "markPrice@1s"][rng.usize(..if marks { 3 } else { 2 })];
        let (stream, after) = (format!("{symbol}@{kind}"), minutes(rng, 20, 1_050));
        drawn.push(format!("{stream} falls silent after {after}, until it is asked for afresh"));
        let harm = Harm::MuteAfter { ms: after.as_ms() as i64, cure: Cure::AskedAfresh };
        let (from, until) = (Instant::ZERO + after, Instant::ZERO + after + FAULT_LASTS);
        world.schedule_harm(harm, Instant::ZERO, until.since(Instant::ZERO), |fault| fault.streams(&[&stream]));
        wrongs.push(Wrong { stream, from, until, healed: None });
    }
    wrongs
}

/// Who knows what is really wrong.
struct Watch {
    stale: Span,
    first_data: Span,
    wrongs: Vec<Wrong>,
    /// When a stream was last called ill.
    called: BTreeMap<String, Instant>,
    /// A connection was ended, whatever for.
    ended: bool,
    /// Silences that were overlooked, by the stream's newest data.
    overlooked: BTreeSet<(String, Instant)>,
}

impl Watch {
    /// Is something wrong with this stream, or was it until just now?
    fn is_wrong(&self, stream: &str, at: Instant) -> bool {
        let is_on = |wrong: &&Wrong| {
            let over = wrong.healed.map(|healed| (healed + FAULT_ECHOES).max(wrong.until));
            wrong.from <= at && over.is_none_or(|over| at <= over)
        };
        self.wrongs.iter().filter(is_on).any(|wrong| stream.starts_with(&wrong.stream))
    }

    /// Does anything suffer from what is wrong, or did it until just now?
    fn anybody_suffers(&self, world: &World, at: Instant) -> bool {
        let mut streams = world.engine().feed().streams();
        let just_now = |name: &str| self.called.get(name).is_some_and(|called| at.since(*called) < FAULT_ECHOES);
        let silent = |newest: Option<Instant>| newest.is_none_or(|newest| at.since(newest) >= self.stale);
        streams.any(|row| self.is_wrong(&row.name, at) && (silent(row.last_data) || just_now(&row.name)))
            || self.wrongs.iter().any(|wrong| wrong.healed.is_some_and(|healed| at.since(healed) < FAULT_ECHOES))
    }

    /// Brings up to date whose data has come again.
    fn notice_healing(&mut self, world: &World) {
        for wrong in self.wrongs.iter_mut().filter(|wrong| wrong.healed.is_none() && wrong.from < world.now()) {
            let streams = world.engine().feed().streams();
            let newest =
                streams.filter(|row| row.name.starts_with(&wrong.stream)).filter_map(|row| row.last_data).max();
            wrong.healed = newest.filter(|newest| *newest > wrong.from + VERDICT_WITHIN);
        }
    }

    /// What a note is worth, if it is a call.
    fn judge(&mut self, stamped: &Stamped, world: &World) -> Option<Call> {
        self.notice_healing(world);
        let note = &stamped.note;
        let (kind, verdict) = if let Note::StreamFailed { stream, .. } | Note::RunFailed { stream, .. } = note {
            let row = world.engine().feed().streams().find(|row| row.name == *stream)?;
            let silent = row.last_data.is_none_or(|newest| stamped.at.since(newest) >= self.first_data);
            let is_mark = row.kind == StreamKind::MarkPrice;
            let due = if is_mark { silent } else { first_missed(world, stream, SAME_TRADE).is_some() };
            self.called.insert(stream.to_string(), stamped.at);
            let verdict = if due && self.is_wrong(stream, stamped.at) {
                Verdict::True
            } else if !is_mark && !due && self.is_blind(stream, world) {
                Verdict::Blind
            } else {
                Verdict::False
            };
            (word(row.kind), verdict)
        } else if note.level() <= log::Level::Warn {
            let was_done = self.ended && matches!(note, Note::HoleOpened { .. });
            self.ended |= matches!(note, Note::Ended { .. });
            ("connection", self.worth_of_a_consequence(world, stamped.at, was_done))
        } else {
            return None;
        };
        Some(Call { kind, at: stamped.at.since(Instant::ZERO), verdict, words: stamped.note.to_string() })
    }

    /// What is done about streams is as right as what was said of them.
    fn worth_of_a_consequence(&self, world: &World, at: Instant, was_done: bool) -> Verdict {
        let lasts = self.wrongs.iter().any(|wrong| wrong.from <= at && wrong.healed.is_none());
        let just_now = self.called.values().any(|called| at.since(*called) < FAULT_ECHOES);
        if self.anybody_suffers(world, at) {
            Verdict::True
        } else if lasts || just_now || was_done {
            Verdict::Blind
        } else {
            Verdict::False
        }
    }

    /// Is there nothing else of the symbol that delivers, so that nobody can tell why this stream is silent?
    fn is_blind(&self, stream: &str, world: &World) -> bool {
        let symbol = stream.split_once('@').map_or("", |(symbol, _)| symbol);
        let is_its = |name: &str| name != stream && name.split_once('@').is_some_and(|(its, _)| its == symbol);
        let recent = |newest: Instant| world.now().since(newest) < self.stale;
        let delivers = |row: &Stream| row.state().is_live() && row.last_data.is_some_and(recent);
        !world.engine().feed().streams().any(|row| is_its(&row.name) && delivers(row))
    }

    /// Is there a stream that should be called ill by now, and is not?
    fn look(&mut self, world: &World, calls: &mut Vec<Call>) {
        self.notice_healing(world);
        for stream in world.engine().feed().streams().filter(|stream| stream.state().is_fine()) {
            let newest = stream.last_data.unwrap_or(Instant::ZERO);
            let due = match stream.kind {
                StreamKind::MarkPrice => newest + self.stale,
                StreamKind::AggTrade | StreamKind::Kline(_) => match first_missed(world, &stream.name, TELLS_NOTHING) {
                    Some(traded) => (newest + self.stale).max(traded + self.first_data),
                    None => continue,
                },
            };
            let called = self.called.get(&*stream.name).is_some_and(|called| *called > newest);
            if due + VERDICT_WITHIN < world.now()
                && !called
                && self.overlooked.insert((stream.name.to_string(), newest))
            {
                let words = format!(
                    "{} is called {}, its newest data came {} ago",
                    stream.name,
                    stream.state().as_str(),
                    world.now().since(newest)
                );
                calls.push(Call {
                    kind: word(stream.kind),
                    at: world.now().since(Instant::ZERO),
                    verdict: Verdict::Missed,
                    words,
                });
            }
        }
    }
}

/// When the first trade was pushed that a stream of trades or candles should have told of: later than its newest data by
/// more than this, since it was asked for.
fn first_missed(world: &World, stream: &str, by: Span) -> Option<Instant> {
    let row = world.engine().feed().streams().find(|row| *row.name == *stream)?;
    // What was traded before it was asked for will not come.
    let asked = row.shown().map_or(Instant::ZERO, |run| run.asked_at);
    let newest = row.last_data.unwrap_or(Instant::ZERO).max(asked) + by;
    let symbol = world.engine().market().symbols().name(row.symbol);
    let trades = world.exchange().truth().book(symbol)?.trades();
    let first = trades.partition_point(|print| print.event_time <= utc_of(newest));
    let pushed = trades.get(first)?.event_time;
    Some(Instant::ZERO + Span::from_ms((pushed.0 - BEGINNING.0).max(0) as u64))
}

fn word(kind: StreamKind) -> &'static str {
    match kind {
        StreamKind::AggTrade => "aggTrade",
        StreamKind::MarkPrice => "markPrice",
        StreamKind::Kline(_) => "kline",
    }
}
