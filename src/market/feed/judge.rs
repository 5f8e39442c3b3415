//! The verdicts: what a stream that has not delivered in its time is, and what follows.
//!
//! Silence of a mark price is a failure. Silence of trades or candles is one only if somebody traded, or if nothing at
//! hand can tell; a symbol that nobody trades is *quiet*. Trades are known from another stream of the same symbol, and
//! the symbol's mark price shows that the path to it works.

use super::{Context, Feed, Stream, StreamState};
use crate::config::SubscribeBy;
use crate::net::Stage;
use crate::note::Note;
use crate::time::{Instant, Span};
use crate::wire::{StreamKind, SymbolId};
use std::rc::Rc;

/// A candle is pushed about 150 ms before the trade it tells of (measured, USD-M): evidence younger than this may
/// still be followed by the data it speaks for.
const EVIDENCE_MATURES: Span = Span::from_secs(1);

impl Feed {
    /// Looks at every stream of a connection whose time has come.
    pub(super) fn judge(&mut self, index: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        if !self.connections[index].session.is_open() {
            return;
        }
        if self.all_silent_at(index) <= now && self.silence_is_the_markets(index, now) {
            self.connections[index].excused_until = now + self.deadlines.first_data;
        }
        if self.all_silent_at(index) <= now {
            let silent = self.deadlines.stale;
            let words = format!("all streams silent for {silent}");
            self.connections[index].session.abandon(Stage::Read, &words, silent, now);
            return self.drain(index, ctx);
        }
        self.connections[index].pending.retain(|ask| ask.until > now);
        let mut failed_at = None;
        for position in 0..self.connections[index].streams.len() {
            let at = self.connections[index].streams[position];
            if self.streams[at].state.deadline() > now {
                continue;
            }
            match self.streams[at].state {
                StreamState::Sent { .. } => {
                    let words = format!("not acknowledged within {} on {}", self.deadlines.ack, self.path(index));
                    self.fail(index, at, words.into(), ctx);
                    failed_at = Some(Stage::Ack);
                }
                StreamState::Acked { .. } | StreamState::Quiet { .. } => {
                    if self.judge_silence(index, at, ctx) {
                        failed_at = Some(Stage::FirstData);
                    }
                }
                StreamState::Failed { .. } if self.by == SubscribeBy::Message => {
                    self.streams[at].state = StreamState::Wanted;
                    self.connections[index].to_ask.push_back(at);
                    // A venue that believes it already delivers ignores the same request: take it back first.
                    if self.streams[at].failures_in_a_row > 1 {
                        self.connections[index].to_drop.push(at);
                    }
                }
                // Asked for by the URL: asking anew takes a new connection. Its data would still make it live.
                StreamState::Failed { .. } => {
                    let until = now + self.pause(self.streams[at].failures_in_a_row);
                    self.streams[at].state = StreamState::Failed { until };
                }
                StreamState::Wanted | StreamState::Live => {}
            }
        }
        if let Some(stage) = failed_at {
            self.replace_if_useless(index, stage, ctx);
        }
        self.tell_all_live(index, ctx);
    }

    /// An acknowledged stream without data, at its deadline. True if it failed.
    fn judge_silence(&mut self, index: usize, at: usize, ctx: &mut Context<'_>) -> bool {
        let now = ctx.now.mono;
        let stream = &self.streams[at];
        let within = self.deadlines.first_data;
        let verdict: Result<&'static str, String> = match (stream.kind, stream.evidence_at) {
            (StreamKind::MarkPrice, _) => Err(format!("acknowledged, no data within {within} on {}", self.path(index))),
            (_, Some(evidence)) if evidence + EVIDENCE_MATURES > now => {
                let until = evidence + EVIDENCE_MATURES;
                let was_quiet = matches!(stream.state, StreamState::Quiet { .. });
                self.streams[at].state =
                    if was_quiet { StreamState::Quiet { until } } else { StreamState::Acked { until } };
                return false;
            }
            (_, Some(_)) => Err(format!("acknowledged, no data within {within}, while other streams tell of trades")),
            (_, None) if self.path_works(stream) => Ok("quiet: acknowledged, and nobody has traded since"),
            (_, None) => Err(format!("acknowledged, no data within {within} on {}", self.path(index))),
        };
        match verdict {
            Ok(reason) => {
                let until = now + within;
                let stream = &mut self.streams[at];
                if !matches!(stream.state, StreamState::Quiet { .. }) {
                    stream.reason = Some(reason.into());
                    let stream = stream.name.clone();
                    self.say(index, Note::StreamQuiet { stream, reason }, ctx);
                }
                self.streams[at].state = StreamState::Quiet { until };
                false
            }
            Err(words) => {
                self.fail(index, at, words.into(), ctx);
                true
            }
        }
    }

    /// Does another stream of the symbol deliver, so that silence can be told from a dead path?
    fn path_works(&self, stream: &Stream) -> bool {
        self.of_symbol(stream.symbol).any(|at| self.streams[at].state == StreamState::Live)
    }

    fn of_symbol(&self, symbol: SymbolId) -> impl Iterator<Item = usize> + use<'_> {
        let first = symbol.index() * super::SLOTS;
        self.slots[first..first + super::SLOTS].iter().filter(|at| **at != super::NONE).map(|at| *at as usize)
    }

    /// A trade or candle of the symbol has come over stream `witness`: those that wait should have theirs soon.
    pub(super) fn testify(&mut self, symbol: SymbolId, witness: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let first = symbol.index() * super::SLOTS;
        for slot in first..first + super::SLOTS {
            let at = self.slots[slot] as usize;
            if at == witness || at >= self.streams.len() {
                continue;
            }
            let stream = &mut self.streams[at];
            let waits = matches!(stream.state, StreamState::Acked { .. } | StreamState::Quiet { .. });
            // One trade is told by a candle and, later, by itself; what was traded around the acknowledgement may have
            // been told to one stream before it was asked for and to the other after.
            let too_soon = now < stream.acked_at + EVIDENCE_MATURES;
            if !waits || too_soon || stream.kind == StreamKind::MarkPrice || stream.evidence_at.is_some() {
                continue;
            }
            stream.evidence_at = Some(now);
            if let StreamState::Quiet { .. } = stream.state {
                // It was rightly silent until now; from here on it has its full time again.
                let until = now + self.deadlines.first_data;
                stream.state = StreamState::Quiet { until };
                let connection = stream.connection;
                self.arm(connection, until);
            }
        }
    }

    /// The stream failed; it is asked for again after a pause, for ever.
    pub(super) fn fail(&mut self, index: usize, at: usize, reason: Rc<str>, ctx: &mut Context<'_>) {
        self.unwait(at);
        let stream = &mut self.streams[at];
        if stream.state == StreamState::Live {
            self.connections[index].live -= 1;
        }
        stream.failures += 1;
        stream.failures_in_a_row += 1;
        stream.reason = Some(reason.clone());
        let failures = stream.failures_in_a_row;
        let pause = self.pause(failures);
        let until = ctx.now.mono + pause;
        self.streams[at].state = StreamState::Failed { until };
        self.arm(index, until);
        let (stream, connection) = (self.streams[at].name.clone(), self.connections[index].name.clone());
        // Told when it begins, and then each time the failures have doubled.
        if failures.is_power_of_two() {
            self.say(index, Note::StreamFailed { stream, connection, reason, pause, failures }, ctx);
        }
    }

    fn pause(&mut self, failures: u32) -> Span {
        let (min, max) = (self.backoff.min.as_ns(), self.backoff.max.as_ns());
        let ceiling = min.saturating_mul(1 << failures.min(40)).min(max).max(min);
        Span::from_ns(self.rng.u64(min..=ceiling))
    }

    /// When nothing on a connection delivers or can still be expected to, only another connection can help.
    pub(super) fn replace_if_useless(&mut self, index: usize, stage: Stage, ctx: &mut Context<'_>) {
        let connection = &self.connections[index];
        if !connection.streams.iter().all(|at| matches!(self.streams[*at].state, StreamState::Failed { .. })) {
            return;
        }
        let (words, elapsed) = if stage == Stage::Ack {
            ("no stream was acknowledged", self.deadlines.ack)
        } else {
            ("no stream delivered", self.deadlines.first_data)
        };
        let words = format!("{words} in its time on {}", self.path(index));
        self.connections[index].session.abandon(stage, &words, elapsed, ctx.now.mono);
        self.drain(index, ctx);
    }

    /// When the silence of all streams of a connection that lived becomes its end.
    pub(super) fn all_silent_at(&self, index: usize) -> Instant {
        let connection = &self.connections[index];
        match connection.last_data {
            Some(at) if connection.proved => (at + self.deadlines.stale).max(connection.excused_until),
            _ => Instant::FAR,
        }
    }

    /// All streams of a connection have been silent for long: is that so because nobody trades, as other connections
    /// can tell? A mark price has no such excuse, and where nothing can tell there is none either.
    fn silence_is_the_markets(&self, index: usize, now: Instant) -> bool {
        let connection = &self.connections[index];
        let silent_since = connection.last_data.unwrap_or(Instant::ZERO);
        connection.streams.iter().all(|at| {
            let stream = &self.streams[*at];
            let traded_since = self.traded_at[stream.symbol.index()] > silent_since + EVIDENCE_MATURES;
            let told = self.of_symbol(stream.symbol).any(|sibling| {
                let sibling = &self.streams[sibling];
                let fresh = sibling.last_data.is_some_and(|data| now.since(data) < self.deadlines.first_data);
                sibling.connection != index && sibling.state == StreamState::Live && fresh
            });
            stream.kind != StreamKind::MarkPrice && !traded_since && told
        })
    }
}
