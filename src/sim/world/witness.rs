//! Who watches the process in the simulated world: an independent memory of what was delivered, and the invariants.

use crate::config::Config;
use crate::engine::Engine;
use crate::market::feed::StreamState;
use crate::net::State;
use crate::note::{Note, Stamped};
use crate::time::{Instant, Span};
use std::collections::BTreeSet;

/// Violations remembered.
const VIOLATIONS_MAX: usize = 20;

/// What has come over a session's present socket, by the witness's own reading of the bytes.
#[derive(Clone, Debug, Default)]
struct Seen {
    bytes: Vec<u8>,
    upgraded: bool,
    /// Streams whose data has come, by the name in the wrapper.
    streams: BTreeSet<String>,
}

/// The watcher.
pub(super) struct Witness {
    seen: Vec<Seen>,
    violations: Vec<String>,
    /// Longest a session may be in each connect stage.
    stage_max: [Span; 4],
    connect_max: Span,
    looked: u64,
}

impl Witness {
    pub(super) fn new(config: &Config, sessions: usize) -> Self {
        let d = &config.deadlines;
        Self {
            seen: vec![Seen::default(); sessions],
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

    pub(super) fn dialled(&mut self, session: usize) {
        self.seen[session] = Seen::default();
    }

    pub(super) fn hung_up(&mut self, session: usize) {
        self.seen[session] = Seen::default();
    }

    /// Reads WebSocket frames as they were delivered. The exchange sends them whole and unmasked.
    pub(super) fn delivered(&mut self, session: usize, bytes: &[u8]) {
        let seen = &mut self.seen[session];
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

    /// Invariant: a stream is called live only after its own data came over its present connection.
    pub(super) fn noted(&mut self, stamped: &Stamped) {
        if let Note::StreamLive { stream, connection, .. } = &stamped.note {
            let session: usize = connection.trim_start_matches("market-").parse().unwrap_or(usize::MAX);
            if !self.seen.get(session).is_some_and(|seen| seen.streams.contains(&**stream)) {
                self.violated(stamped.at, &format!("{stream} is called live without data on {connection}"));
            }
        }
    }

    /// Invariants of time and of claims: those that are cheap at every step, the others now and then.
    pub(super) fn look(&mut self, engine: &Engine, now: Instant) {
        self.looked += 1;
        let all = self.looked.is_multiple_of(64);
        for (index, connection) in engine.feed().connections().iter().enumerate() {
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
                    self.violated(now, &format!("{} has been in {stage} for {spent}", connection.name));
                }
            }
            if session.is_open() && !all {
                continue;
            }
            for at in &connection.streams {
                let stream = &engine.feed().streams()[*at];
                if stream.state == StreamState::Live && !self.seen[index].streams.contains(&*stream.name) {
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
