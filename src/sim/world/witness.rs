//! Who watches the process in the simulated world: an independent memory of what was delivered, and the invariants.

use crate::config::Config;
use crate::engine::Engine;
use crate::market::feed::{Connection, Feed, Role};
use crate::net::State;
use crate::note::{Note, Stamped};
use crate::time::{Instant, Span};
use std::collections::{BTreeMap, BTreeSet};

/// Violations remembered.
const VIOLATIONS_MAX: usize = 20;

/// Refused messages of one kind are told this far apart at least.
const REFUSALS_APART: Span = Span::from_secs(60);

/// What has come over a session's present socket, by the witness's own reading of the bytes.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// What the log calls the connection.
    label: String,
    bytes: Vec<u8>,
    upgraded: bool,
    /// Streams whose data has come, by the name in the wrapper.
    streams: BTreeSet<String>,
}

/// What was said of a connection so far.
#[derive(Clone, Debug, Default)]
struct Said {
    /// An outage was reported and is not over: nothing more is to be said of attempts.
    outage: bool,
    /// When refused messages were last told, by kind.
    refusals: BTreeMap<&'static str, Instant>,
}

/// The watcher.
pub(super) struct Witness {
    /// By slot.
    seen: Vec<Seen>,
    /// By the connection's label.
    said: BTreeMap<String, Said>,
    /// The venue sent somebody away: when, and until when.
    away: (Instant, Instant),
    violations: Vec<String>,
    /// Longest a session may be in each connect stage.
    stage_max: [Span; 4],
    connect_max: Span,
    looked: u64,
}

impl Witness {
    pub(super) fn new(config: &Config) -> Self {
        let d = &config.deadlines;
        Self {
            seen: Vec::new(),
            said: BTreeMap::new(),
            away: (Instant::ZERO, Instant::ZERO),
            violations: Vec::new(),
            stage_max: [d.resolve, d.tcp, d.tls, d.upgrade],
            connect_max: d.connect,
            looked: 0,
        }
    }

    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }

    fn violated(&mut self, now: Instant, words: &str) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(format!("at {}: {words}", now.since(Instant::ZERO)));
        }
    }

    fn seen(&mut self, slot: usize) -> &mut Seen {
        if self.seen.len() <= slot {
            self.seen.resize(slot + 1, Seen::default());
        }
        &mut self.seen[slot]
    }

    /// Invariant: nobody dials a host that asked us to stay away.
    pub(super) fn dialled(&mut self, slot: usize, label: &str, now: Instant) {
        *self.seen(slot) = Seen { label: label.to_owned(), ..Seen::default() };
        if now < self.away.1 {
            self.violated(now, &format!("{label} dials, although the venue asked us to stay away"));
        }
    }

    pub(super) fn hung_up(&mut self, slot: usize) {
        let label = std::mem::take(&mut self.seen(slot).label);
        *self.seen(slot) = Seen { label, ..Seen::default() };
    }

    /// Reads WebSocket frames as they were delivered. The exchange sends them whole and unmasked.
    pub(super) fn delivered(&mut self, session: usize, bytes: &[u8]) {
        let seen = self.seen(session);
        seen.bytes.extend_from_slice(bytes);
        let mut at = 0;
        if !seen.upgraded {
            match seen.bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                Some(end) => {
                    seen.upgraded = true;
                    at = end + 4;
                }
                None => return,
            }
        }
        while let Some((start, end)) = frame_at(&seen.bytes[at..]) {
            let payload = &seen.bytes[at + start..at + end];
            if let Some(rest) = payload.strip_prefix(br#"{"stream":""#)
                && let Some(quote) = rest.iter().position(|byte| *byte == b'"')
            {
                let name = std::str::from_utf8(&rest[..quote]).unwrap_or("");
                if !seen.streams.contains(name) {
                    seen.streams.insert(name.to_owned());
                }
            }
            at += end;
        }
        seen.bytes.drain(..at);
    }

    /// Invariant: a wake-up leaves nothing that is due now.
    pub(super) fn spun(&mut self, now: Instant) {
        self.violated(now, "the engine wants to be woken at a time that has passed: it would spin");
    }

    /// Invariants of what is said: a stream is called live only after its own data came over its present connection; an
    /// outage is told once; refused messages of a kind are told once a minute.
    pub(super) fn noted(&mut self, stamped: &Stamped, feed: &Feed) {
        let at = stamped.at;
        match &stamped.note {
            Note::StreamLive { stream, connection, .. } => {
                // A successor may have been given another label since.
                let is_its = |slot: usize, seen: &Seen| {
                    *seen.label == **connection || feed.connection(slot).is_some_and(|c| c.label == *connection)
                };
                let shown =
                    self.seen.iter().enumerate().any(|(slot, s)| is_its(slot, s) && s.streams.contains(&**stream));
                if !shown {
                    self.violated(at, &format!("{stream} is called live without data on {connection}"));
                }
            }
            Note::Attempt { connection, .. } | Note::Ended { connection, .. } => {
                if self.said.get(&**connection).is_some_and(|said| said.outage) {
                    self.violated(at, &format!("{connection}: one more attempt of a reported outage is told"));
                }
            }
            Note::Outage { connection, .. } | Note::OutageOver { connection, .. } => {
                let begins = matches!(stamped.note, Note::Outage { .. });
                let said = self.said.entry(connection.to_string()).or_default();
                if std::mem::replace(&mut said.outage, begins) == begins {
                    self.violated(at, &format!("{connection}: told twice: {}", stamped.note));
                }
            }
            Note::Refused { connection, reject, .. } => {
                let said = self.said.entry(connection.to_string()).or_default();
                let before = said.refusals.insert(reject.kind.as_str(), at);
                if before.is_some_and(|before| at.since(before) < REFUSALS_APART) {
                    self.violated(at, &format!("{connection}: told twice in a minute: {}", stamped.note));
                }
            }
            Note::Remembered { .. }
            | Note::Open { .. }
            | Note::Asked { .. }
            | Note::AllLive { .. }
            | Note::StreamQuiet { .. }
            | Note::StillOut { .. }
            | Note::BothLegsOut { .. }
            | Note::Held { .. }
            | Note::StreamFailed { .. }
            | Note::StreamHealed { .. }
            | Note::RunFailed { .. }
            | Note::Polled { .. }
            | Note::Universe { .. }
            | Note::Restored { .. }
            | Note::SuccessionBegins { .. }
            | Note::Succeeded { .. }
            | Note::Inherited { .. }
            | Note::SuccessionFailed { .. }
            | Note::OtherForm { .. }
            | Note::Answer { .. }
            | Note::HoleOpened { .. }
            | Note::HolesClosed { .. }
            | Note::Shutdown { .. }
            | Note::Reloaded { .. }
            | Note::RestBlocked { .. }
            | Note::RestFailed { .. }
            | Note::Statistics(_)
            | Note::Stopping => {}
        }
    }

    /// Invariant: once the venue asked to stay away, no connection asks it for anything before the time is over.
    fn stays_away(&mut self, connection: &Connection, now: Instant) {
        let session = &connection.session;
        let since = session.since();
        if matches!(session.state(), State::Backoff { .. })
            && since == now
            && let Some((ending, _)) = &connection.last_ending
            && let Some(wait) = ending.retry_after
            && now + wait > self.away.1
        {
            self.away = (now, now + wait);
        }
        if matches!(session.state(), State::Upgrading { .. }) && self.away.0 < since && since < self.away.1 {
            self.violated(
                now,
                &format!("{} asks to upgrade, although the venue asked us to stay away", connection.label),
            );
        }
    }

    /// Invariants of time and of claims: those that are cheap at every step, the others now and then.
    pub(super) fn look(&mut self, engine: &Engine, now: Instant) {
        self.looked += 1;
        let feed = engine.feed();
        // In a large world so seldom that looking costs no more than what is looked at.
        let carried = (0..feed.slots()).filter_map(|slot| feed.connection(slot)).map(|row| row.streams.len()).sum();
        let all = self.looked.is_multiple_of(64.max(carried) as u64);
        for slot in 0..feed.slots() {
            let Some(connection) = feed.connection(slot).filter(|c| c.role != Role::Vacant) else { continue };
            self.stays_away(connection, now);
            if *self.seen(slot).label != *connection.label {
                self.seen(slot).label = connection.label.to_string();
            }
            let session = &connection.session;
            let stage = match session.state() {
                State::Resolving { .. } => Some(("resolve", self.stage_max[0])),
                State::Dialing { .. } => Some(("tcp", self.stage_max[1])),
                State::Securing { .. } => Some(("tls", self.stage_max[2])),
                State::Upgrading { .. } => Some(("upgrade", self.stage_max[3])),
                State::Backoff { .. } | State::Open | State::Closing { .. } | State::Stopped => None,
            };
            if let Some((stage, most)) = stage {
                let spent = now.since(session.since());
                if spent > most.min(self.connect_max) {
                    self.violated(now, &format!("{} has been in {stage} for {spent}", connection.label));
                }
            }
            if session.is_open() && !all {
                continue;
            }
            for at in &connection.streams {
                let stream = feed.stream(*at);
                let live = stream.run(slot).is_some_and(|run| run.state.is_live());
                if live && !self.seen(slot).streams.contains(&*stream.name) {
                    self.violated(now, &format!("{} is live, its data is not of this connection", stream.name));
                }
            }
        }
    }
}

/// Start and end of the first whole frame's payload.
fn frame_at(bytes: &[u8]) -> Option<(usize, usize)> {
    let (start, len): (usize, usize) = match bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        n => (2, usize::from(n)),
    };
    let end = start.checked_add(len)?;
    (bytes.len() >= end).then_some((start, end))
}
