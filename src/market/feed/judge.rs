//! The verdicts: what a run that has not delivered in its time is, and what follows.
//!
//! Silence of a mark price is a failure. Silence of trades or candles is one only if somebody traded, or if nothing at
//! hand can tell; a symbol that nobody trades is *quiet*. Trades are known from another stream of the same symbol, and
//! the symbol's mark price shows that the path to it works.

use super::evidence::EVIDENCE_MATURES;
use super::questions::{UNKNOWN, polled_words};
use super::*;

/// What the venue does not list is asked for again after this long, or when it is listed.
pub(super) const UNKNOWN_AGAIN: Span = Span::from_secs(3_600);

/// After so many failures in a row the news of a stream are fetched, whichever steps are still to come.
const POLLED_AFTER: u32 = 6;

/// What the silence of a run is.
enum Verdict {
    /// Nobody traded.
    Quiet(&'static str),
    /// Somebody did, and its data may still come until then.
    Wait(Instant),
    /// A failure, in words.
    Guilty(String),
}

impl Feed {
    /// Looks at every run of a connection whose time has come.
    pub(super) fn judge(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        if !self.connections[slot].session.is_open() || self.stopping {
            return;
        }
        if self.all_silent_at(slot) <= now
            && let Some(until) = self.silence_is_the_markets(slot, now)
        {
            self.connections[slot].excused_until = until;
        }
        if self.all_silent_at(slot) <= now {
            let silent = self.deadlines.stale;
            let words = format!("all streams silent for {silent}");
            self.connections[slot].session.abandon(Stage::Read, &words, silent, now);
            return self.drain(slot, ctx);
        }
        self.connections[slot].pending.retain(|ask| ask.until > now);
        let (mut failed_at, mut asked_for_help) = (None, false);
        for position in 0..self.connections[slot].streams.len() {
            let at = self.connections[slot].streams[position];
            let Some(run) = self.streams[at].run(slot) else { continue };
            if run.state.deadline() > now {
                continue;
            }
            match run.state {
                StreamState::Sent { .. } => {
                    let words = format!("not acknowledged within {} on {}", self.deadlines.ack, self.path(slot));
                    self.fail(slot, at, false, words.into(), ctx);
                    failed_at = Some(Stage::Ack);
                }
                StreamState::Acked { .. } | StreamState::Quiet { lived: false, .. } => {
                    if self.judge_first_data(slot, at, ctx) {
                        failed_at = Some(Stage::FirstData);
                    }
                }
                StreamState::Live { .. } | StreamState::Quiet { lived: true, .. } => {
                    self.judge_life(slot, at, ctx);
                }
                StreamState::Stale { .. } | StreamState::Failed { .. } => asked_for_help = true,
                StreamState::Wanted => {}
            }
        }
        if asked_for_help {
            self.climb(slot, ctx);
        }
        if let Some(stage) = failed_at {
            self.replace_if_useless(slot, stage, ctx);
        }
        self.tell_restored(slot, ctx);
    }

    /// A run that was acknowledged and has no data, at its deadline. True if it failed.
    fn judge_first_data(&mut self, slot: usize, at: usize, ctx: &mut Context<'_>) -> bool {
        let now = ctx.now.mono;
        let within = self.deadlines.first_data;
        let (kind, symbol) = (self.streams[at].kind, self.streams[at].symbol);
        let Some(run) = self.streams[at].run(slot) else { return false };
        let (acked_at, due) = (run.acked_at, run.acked_at + within);
        if now < due {
            // Time enough for REST to tell before the verdict, if nothing else can.
            if kind != StreamKind::MarkPrice && run.evidence_at.is_none() && !self.path_works(slot, at, now) {
                self.doubt(symbol, true, now);
            }
            if let Some(run) = self.streams[at].run_mut(slot) {
                run.state = run.state.put_off(due);
            }
            return false;
        }
        let stream = &self.streams[at];
        let Some(run) = stream.run(slot) else { return false };
        let verdict = match (stream.kind, run.evidence_at) {
            (StreamKind::MarkPrice, _) => {
                Verdict::Guilty(format!("acknowledged, no data within {within} on {}", self.path(slot)))
            }
            (_, Some(evidence)) if evidence + EVIDENCE_MATURES > now => Verdict::Wait(evidence + EVIDENCE_MATURES),
            (_, Some(_)) => {
                let path = self.path(slot);
                Verdict::Guilty(format!("acknowledged, no data within {within} on {path}, while others tell of trades"))
            }
            (_, None) if self.path_works(slot, at, now) => {
                Verdict::Quiet("quiet: acknowledged, and nobody has traded since")
            }
            (_, None) if self.traded[symbol.index()].rest_tells_quiet(acked_at, now) => {
                Verdict::Quiet("quiet: acknowledged, and by REST nobody has traded since")
            }
            (_, None) => Verdict::Guilty(format!("acknowledged, no data within {within} on {}", self.path(slot))),
        };
        match verdict {
            Verdict::Wait(until) => {
                let Some(run) = self.streams[at].run_mut(slot) else { return false };
                run.state = run.state.put_off(until);
                false
            }
            Verdict::Quiet(words) => {
                self.call_quiet(slot, at, words, false, ctx);
                false
            }
            Verdict::Guilty(words) => {
                self.fail(slot, at, false, words.into(), ctx);
                true
            }
        }
    }

    /// A run that lived, when its silence is looked at.
    fn judge_life(&mut self, slot: usize, at: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let (kind, symbol) = (self.streams[at].kind, self.streams[at].symbol);
        let limit = self.stale_of(kind);
        let stream = &self.streams[at];
        let Some(run) = stream.run(slot) else { return };
        if run.fresh_at + limit > now {
            let (due, ask_at) = (run.fresh_at + limit, self.first_look(at, run.fresh_at));
            let until = if now < ask_at { ask_at } else { due };
            if kind != StreamKind::MarkPrice && now >= ask_at && !self.path_works(slot, at, now) {
                self.doubt(symbol, false, now);
            }
            if let Some(run) = self.streams[at].run_mut(slot) {
                run.state = StreamState::Live { until };
            }
            return;
        }
        let silent = now.since(run.fresh_at);
        let verdict = match stream.kind {
            _ if run.event.1 > run.fresh_at => {
                Verdict::Guilty(format!("what comes is older than {limit}, by the venue's own time"))
            }
            StreamKind::MarkPrice => Verdict::Guilty(format!("no data for {silent}")),
            StreamKind::AggTrade | StreamKind::Kline(_) => self.judge_silence(slot, at, silent, now),
        };
        match verdict {
            Verdict::Quiet(words) => self.call_quiet(slot, at, words, true, ctx),
            Verdict::Wait(until) => {
                if let Some(run) = self.streams[at].run_mut(slot) {
                    run.state = run.state.put_off(until);
                }
            }
            Verdict::Guilty(words) => self.fail(slot, at, true, words.into(), ctx),
        }
    }

    /// The silence of trades or candles that lived.
    fn judge_silence(&self, slot: usize, at: usize, silent: Span, now: Instant) -> Verdict {
        let stream = &self.streams[at];
        let Some(run) = stream.run(slot) else { return Verdict::Wait(now + EVIDENCE_MATURES) };
        let traded = &self.traded[stream.symbol.index()];
        if let (StreamState::Quiet { .. }, Some(evidence)) = (run.state, run.evidence_at) {
            // It was rightly silent, and then somebody traded: it had its time from there. Unless that was before it was
            // called quiet, and only REST knew.
            let before = evidence + EVIDENCE_MATURES <= run.fresh_at + self.stale_of(stream.kind);
            let until = if before { now } else { evidence + self.deadlines.first_data };
            return if until > now {
                Verdict::Wait(until)
            } else {
                Verdict::Guilty(format!("no data for {silent}, while others tell of trades"))
            };
        }
        // One trade is told of by a candle and, later, by itself.
        if traded.mature(now) > run.fresh_at + EVIDENCE_MATURES || traded.rest_tells_of_trades(run.fresh_at, now) {
            return Verdict::Guilty(format!("no data for {silent}, while others tell of trades"));
        }
        match traded.ripens(now) {
            Some(at) if at > run.fresh_at + EVIDENCE_MATURES.times(2) => return Verdict::Wait(at),
            _ => {}
        }
        let overdue_at = self.overdue_at(run, self.stale_of(stream.kind));
        if self.path_worked_since(slot, at, run.fresh_at + EVIDENCE_MATURES, now) {
            Verdict::Quiet("quiet: nobody has traded since its newest data")
        } else if traded.rest_tells_quiet(run.fresh_at, now) {
            Verdict::Quiet("quiet: by REST nobody has traded since its newest data")
        } else if overdue_at > now {
            Verdict::Wait(overdue_at)
        } else {
            Verdict::Guilty(format!("no data for {silent}, and nothing else of the symbol can tell why"))
        }
    }

    /// So long before a verdict REST is asked, where only it can tell.
    pub(super) fn rest_lead(&self, limit: Span) -> Span {
        if !self.has_rest {
            return Span::ZERO;
        }
        let half = Span::from_ns(limit.as_ns() / 2);
        Span::from_ns(self.deadlines.rest.as_ns().saturating_add(500_000_000)).min(half)
    }

    /// When the silence of a stream whose newest data came then is first looked at.
    pub(super) fn first_look(&self, at: usize, fresh_at: Instant) -> Instant {
        let limit = self.stale_of(self.streams[at].kind);
        match self.streams[at].kind {
            StreamKind::MarkPrice => fresh_at + limit,
            StreamKind::AggTrade | StreamKind::Kline(_) => fresh_at + limit - self.rest_lead(limit),
        }
    }

    fn call_quiet(&mut self, slot: usize, at: usize, reason: &'static str, lived: bool, ctx: &mut Context<'_>) {
        let until = ctx.now.mono + self.deadlines.first_data;
        self.unwait(slot, at);
        let Some(run) = self.streams[at].run_mut(slot) else { return };
        let told = matches!(run.state, StreamState::Quiet { .. });
        if lived && !told {
            run.evidence_at = None;
        }
        run.state = StreamState::Quiet { until, lived };
        let news = run.serves && !told;
        if !told {
            run.reason = Some(reason.into());
        }
        self.waiting[self.streams[at].symbol.index()] += 1;
        self.arm(slot, until);
        self.reconsider(slot, ctx.now.mono);
        // A stream that was found guilty before is not believed so easily.
        let urgent = self.streams[at].failures_in_a_row > 0;
        self.doubt(self.streams[at].symbol, urgent, ctx.now.mono);
        if news && !self.streams[at].is_fine_without(slot) {
            let stream = self.streams[at].name.clone();
            ctx.note(Note::StreamQuiet { stream, reason });
        }
    }

    /// The run failed, or became stale; the next step to heal it is taken after a pause, for ever.
    pub(super) fn fail(&mut self, slot: usize, at: usize, stale: bool, reason: Rc<str>, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        self.unwait(slot, at);
        let (stream_unknown, polled) = (self.streams[at].unknown, self.streams[at].polled);
        let Some(run) = self.streams[at].run_mut(slot) else { return };
        run.failures_in_a_row += 1;
        let reason: Rc<str> = match (stream_unknown, polled) {
            (true, _) => UNKNOWN.into(),
            (false, true) => format!("{reason}; {}", polled_words()).into(),
            (false, false) => reason,
        };
        run.reason = Some(reason.clone());
        let pause = if stream_unknown { UNKNOWN_AGAIN } else { self.pause_of(slot, at) };
        let until = now + pause;
        let covered = self.streams[at].is_fine_without(slot);
        let Some(run) = self.streams[at].run_mut(slot) else { return };
        run.state = if stale { StreamState::Stale { until } } else { StreamState::Failed { until } };
        let (serves, in_a_row) = (run.serves, run.failures_in_a_row);
        self.arm(slot, until);
        self.reconsider(slot, now);
        if !serves && self.connections[slot].role != Role::Side {
            // What a successor does not deliver is no failure of the stream, which another connection may deliver.
            return;
        }
        if covered {
            // One that has been silent as long, and is looked at in a moment, delivers no more than this one.
            let mine = self.streams[at].run(slot).map_or(Instant::ZERO, |run| run.fresh_at);
            let newer = |run: &Run| run.fresh_at > mine + EVIDENCE_MATURES;
            let delivers = |run: &Run| run.slot != slot && run.state.is_live() && newer(run);
            if in_a_row.is_power_of_two() && self.streams[at].runs.iter().any(delivers) {
                let (stream, connection) = (self.streams[at].name.clone(), self.connections[slot].label.clone());
                self.say(slot, Note::RunFailed { stream, connection, reason }, ctx);
            }
            return;
        }
        self.count_failure(slot, at, (stale, reason, pause), ctx);
    }

    /// The connection that delivered a stream is gone, and where else it is asked for it is down.
    pub(super) fn fell_back(&mut self, at: usize, ctx: &mut Context<'_>) {
        let stream = &self.streams[at];
        let Some(run) = stream.shown().filter(|run| stream.wanted && run.state.is_down()) else { return };
        let (slot, stale) = (run.slot, matches!(run.state, StreamState::Stale { .. }));
        let reason = run.reason.clone().unwrap_or_else(|| "what delivered it is gone".into());
        let pause = run.state.deadline().since(ctx.now.mono);
        self.count_failure(slot, at, (stale, reason, pause), ctx);
    }

    /// The stream, on whichever connection, has entered `Failed` or `Stale`.
    fn count_failure(
        &mut self,
        slot: usize,
        at: usize,
        (stale, reason, pause): (bool, Rc<str>, Span),
        ctx: &mut Context<'_>,
    ) {
        let now = ctx.now.mono;
        let connection = self.connections[slot].label.clone();
        let stream = &mut self.streams[at];
        let name = stream.name.clone();
        stream.failures += 1;
        stream.failures_in_a_row += 1;
        if stream.failures_in_a_row == 1 {
            stream.down_since = now;
        }
        let failures = stream.failures_in_a_row;
        if failures >= POLLED_AFTER {
            self.begin_polling(slot, at, ctx);
        }
        // Told when it begins, and then each time the failures have doubled.
        if failures.is_power_of_two() {
            let note = Note::StreamFailed { stream: name, connection, stale, reason, pause, failures };
            self.say(slot, note, ctx);
        }
    }

    pub(super) fn pause(&mut self, failures: u32) -> Span {
        let (min, max) = (self.backoff.min.as_ns(), self.backoff.max.as_ns());
        let ceiling = min.saturating_mul(1 << failures.min(40)).min(max).max(min);
        Span::from_ns(self.rng.u64(min..=ceiling))
    }

    /// When nothing on a connection delivers or can still be expected to, only another connection can help.
    pub(super) fn replace_if_useless(&mut self, slot: usize, stage: Stage, ctx: &mut Context<'_>) {
        let connection = &self.connections[slot];
        let known = connection.streams.iter().filter(|at| !self.streams[**at].unknown);
        let mut runs = known.filter_map(|at| self.streams[*at].run(slot)).peekable();
        if runs.peek().is_none() || !runs.all(|run| run.state.is_down()) {
            return;
        }
        let (words, elapsed) = if stage == Stage::Ack {
            ("no stream was acknowledged", self.deadlines.ack)
        } else {
            ("no stream delivered", self.deadlines.first_data)
        };
        let words = format!("{words} in its time on {}", self.path(slot));
        self.connections[slot].session.abandon(stage, &words, elapsed, ctx.now.mono);
        self.drain(slot, ctx);
    }

    /// When the silence of all streams of a connection that lived becomes its end.
    pub(super) fn all_silent_at(&self, slot: usize) -> Instant {
        let connection = &self.connections[slot];
        match connection.last_data {
            Some(at) if connection.proved => (at + self.deadlines.stale).max(connection.excused_until),
            _ => Instant::FAR,
        }
    }

    /// All streams of a connection have been silent for long: is that so because nobody trades, as other connections
    /// can tell, or the candle that is about to be closed? Until when is it so? A mark price has no such excuse, and where
    /// nothing can tell there is none either.
    fn silence_is_the_markets(&self, slot: usize, now: Instant) -> Option<Instant> {
        let connection = &self.connections[slot];
        let silent_since = connection.last_data.unwrap_or(Instant::ZERO);
        let (mut told, mut beat) = (true, Instant::ZERO);
        for at in &connection.streams {
            let stream = &self.streams[*at];
            let traded_since = self.traded[stream.symbol.index()].mature(now) > silent_since + EVIDENCE_MATURES;
            if stream.kind == StreamKind::MarkPrice || traded_since {
                return None;
            }
            told &= self.of_symbol(stream.symbol).any(|sibling| {
                self.streams[sibling].runs.iter().any(|run| {
                    let fresh = now.since(run.fresh_at) < self.deadlines.first_data;
                    run.slot != slot && matches!(run.state, StreamState::Live { .. }) && fresh
                })
            });
            if let Some(run) = stream.run(slot) {
                beat = beat.max(self.overdue_at(run, self.deadlines.stale));
            }
        }
        if told { Some(now + self.deadlines.first_data) } else { Some(beat).filter(|beat| *beat > now) }
    }
}
