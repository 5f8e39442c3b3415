//! Messages: whose they are, what they prove, and what is done about those that nobody should send.

use super::evidence::next_push_within;
use super::*;

/// A hole that another connection may be about to fill is told only if it lasts.
const HOLE_LASTS: Span = Span::from_secs(1);
const HOLES_UNTOLD_MAX: usize = 1_024;

impl Feed {
    pub(super) fn on_text(&mut self, slot: usize, text: &str, ctx: &mut Context<'_>) {
        self.connections[slot].frames += 1;
        if self.connections[slot].role == Role::Retiring {
            return self.on_late_text(slot, text, ctx);
        }
        match self.decoder.decode(text, ctx.market.symbols()) {
            Ok(Decoded::Frame(frame)) => self.on_frame(slot, &frame, text, ctx),
            Ok(Decoded::Marks { refused, first }) => {
                for row in 0..self.decoder.marks().len() {
                    let frame = Frame::Mark(self.decoder.marks()[row]);
                    self.on_frame(slot, &frame, text, ctx);
                }
                for reject in first.into_iter().cycle().take(refused as usize) {
                    self.refuse(slot, reject, || wire::sample(text.as_bytes()), ctx);
                }
            }
            Ok(Decoded::Control(reply)) => self.on_reply(slot, reply, ctx),
            Ok(Decoded::Shutdown) => {
                let connection = self.connections[slot].label.clone();
                self.say(slot, Note::Shutdown { connection }, ctx);
                self.connections[slot].announced = true;
                self.leave_if_announced(slot, ctx);
            }
            Ok(Decoded::Other) => {
                let reject = Reject { kind: RejectKind::Unasked, field: None };
                self.refuse(slot, reject, || wire::sample(text.as_bytes()), ctx);
            }
            Err(reject) => self.refuse(slot, reject, || wire::sample(text.as_bytes()), ctx),
        }
    }

    /// What was on its way when the connection was replaced. Its successor has it as well, except for a trade that was
    /// published before that one was subscribed: such a trade is awaited.
    fn on_late_text(&mut self, slot: usize, text: &str, ctx: &mut Context<'_>) {
        let Ok(Decoded::Frame(Frame::Trade(trade))) = self.decoder.decode(text, ctx.market.symbols()) else { return };
        let group = self.connections[slot].group;
        let is_its = |at: usize| self.streams[at].wanted && self.streams[at].group == group;
        let wanted = self.of_symbol(trade.symbol).any(is_its);
        let awaited = ctx.market.book(trade.symbol).tape.as_ref().is_some_and(|tape| tape.awaits(trade.id));
        if wanted && awaited {
            let applied = ctx.market.apply(&Frame::Trade(trade), Source::Further, ctx.now);
            if applied == Applied::Trade(TapeEvent::Filled) {
                self.tell_if_whole(slot, trade.symbol, ctx);
            }
        }
    }

    pub(super) fn on_frame(&mut self, slot: usize, frame: &Frame, text: &str, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let place = frame.symbol().index() * SLOTS + self::slot(frame.kind());
        let at = self.slots.get(place).map_or(usize::MAX, |at| *at as usize);
        let Some(stream) = self.streams.get_mut(at) else { return self.refuse_unasked(slot, text, ctx) };
        let Some(position) = stream.runs.iter().position(|run| run.slot == slot) else {
            return self.on_stray(slot, at, text, ctx);
        };
        let behind = self.clock.behind(frame.event_time(), now);
        let limit = self.deadlines.stale_of(frame.kind());
        stream.last_data = Some(now);
        let serving = stream.runs.len();
        let run = &mut stream.runs[position];
        let old = clock::is_old(&mut run.event, frame.event_time(), behind, limit, now);
        let before = run.state;
        if !old {
            run.fresh_at = now;
            if let Frame::Kline(kline) = frame {
                run.beat_by = now + next_push_within(kline);
            }
        }
        let source = if matches!(frame, Frame::Trade(_)) && run.ids.1 == 0 {
            Source::First
        } else if serving > 1 {
            Source::OneOfSeveral
        } else {
            Source::Further
        };
        let connection = &mut self.connections[slot];
        connection.last_data = Some(now);
        match ctx.market.apply(frame, source, ctx.now) {
            Applied::Trade(TapeEvent::Refused) => {
                let reject = Reject { kind: RejectKind::Id, field: Some("a") };
                return self.refuse(slot, reject, || wire::sample(text.as_bytes()), ctx);
            }
            Applied::Trade(TapeEvent::Gap(hole)) => {
                if serving > 1 && self.holes.len() < HOLES_UNTOLD_MAX {
                    self.holes.push_back((now + HOLE_LASTS, frame.symbol(), hole));
                    self.wake = self.wake.min(now + HOLE_LASTS);
                } else {
                    let symbol = ctx.market.symbols().name(frame.symbol()).into();
                    self.say(slot, Note::HoleOpened { symbol, hole }, ctx);
                }
            }
            Applied::Trade(TapeEvent::Filled) => {
                self.tell_if_whole(slot, frame.symbol(), ctx);
            }
            Applied::Trade(TapeEvent::Next | TapeEvent::Duplicate) | Applied::Mark | Applied::Candle => {}
        }
        let run = &mut self.streams[at].runs[position];
        if let Frame::Trade(trade) = frame {
            if run.ids.1 == 0 {
                run.ids.0 = trade.id;
            }
            run.ids.1 = run.ids.1.max(trade.id);
        }
        match before {
            _ if old => {}
            StreamState::Live { .. } => {}
            StreamState::Quiet { lived: true, .. } => self.speaks_again(slot, at, now),
            StreamState::Wanted
            | StreamState::Sent { .. }
            | StreamState::Acked { .. }
            | StreamState::Quiet { lived: false, .. }
            | StreamState::Stale { .. }
            | StreamState::Failed { .. } => self.prove(slot, at, ctx),
        }
        if self.streams[at].race.is_some() {
            self.race(slot, at, frame, now);
        }
        // A candle is pushed when somebody trades, except for the last push, which may come by the clock.
        let traded = match frame {
            Frame::Trade(_) => true,
            Frame::Kline(kline) => !kline.closed,
            Frame::Mark(_) => false,
        };
        if traded && !old {
            self.traded[frame.symbol().index()].note(now);
            if self.waiting[frame.symbol().index()] > 0 {
                self.testify(frame.symbol(), (slot, at), ctx);
            }
        }
    }

    /// Data of a stream that this connection does not carry, or no longer: it was taken back, or came by a URL and is no
    /// longer wanted.
    fn on_stray(&mut self, slot: usize, at: usize, text: &str, ctx: &mut Context<'_>) {
        let connection = &self.connections[slot];
        let stream = &self.streams[at];
        // What stands in a URL comes until its connection is replaced, even if it is wanted again elsewhere.
        let came_by_message = connection.by == SubscribeBy::Message && connection.role != Role::Side;
        if stream.wanted && came_by_message && connection.group != stream.group {
            self.refuse_unasked(slot, text, ctx);
        }
    }

    fn refuse_unasked(&mut self, slot: usize, text: &str, ctx: &mut Context<'_>) {
        let reject = Reject { kind: RejectKind::Unasked, field: None };
        self.refuse(slot, reject, || wire::sample(text.as_bytes()), ctx);
    }

    /// A stream that was rightly silent has data again.
    fn speaks_again(&mut self, slot: usize, at: usize, now: Instant) {
        self.unwait(slot, at);
        let until = self.first_look(at, now);
        if let Some(run) = self.streams[at].run_mut(slot) {
            run.state = StreamState::Live { until };
            (run.reason, run.evidence_at) = (None, None);
        }
    }

    /// Who of the two legs was first with this message?
    fn race(&mut self, slot: usize, at: usize, frame: &Frame, now: Instant) {
        let connection = &self.connections[slot];
        if connection.role != Role::Current {
            return;
        }
        let event = frame.event_time().0;
        let key = match frame {
            Frame::Trade(trade) => (trade.id, trade.id),
            Frame::Mark(_) => (event, event.div_euclid(1_000)),
            // The end of a candle and the beginning of the next are pushed at one time.
            Frame::Kline(kline) => {
                let closed = i64::from(kline.closed);
                (event.saturating_mul(2).saturating_add(closed), 2 * event.div_euclid(250) + closed)
            }
        };
        let (group, leg) = (connection.group, connection.leg);
        let Some(other) = self.other_leg(slot) else { return };
        let stream = &mut self.streams[at];
        let other_live = stream.run(other).is_some_and(|run| run.state.is_live());
        if let Some(race) = &mut stream.race {
            race.arrived(key, leg, other_live, &mut self.groups[group].books, now);
        }
    }

    /// A hole was filled: is it said that nothing is missing any more?
    fn tell_if_whole(&mut self, slot: usize, symbol: SymbolId, ctx: &mut Context<'_>) {
        let tape = ctx.market.book(symbol).tape.as_ref();
        let untold = self.holes.iter().any(|(_, hole_of, _)| *hole_of == symbol);
        if tape.is_some_and(|tape| tape.missing() == 0) && !untold {
            let symbol = ctx.market.symbols().name(symbol).into();
            self.say(slot, Note::HolesClosed { symbol }, ctx);
        }
    }

    /// Holes that have lasted are told.
    pub(super) fn tell_holes(&mut self, ctx: &mut Context<'_>) {
        while let Some((due, symbol, hole)) = self.holes.front().copied() {
            if due > ctx.now.mono {
                return self.wake = self.wake.min(due);
            }
            self.holes.pop_front();
            let tape = ctx.market.book(symbol).tape.as_ref();
            let lasts = tape.is_some_and(|tape| tape.holes().any(|open| open.from <= hole.to && hole.from <= open.to));
            if lasts {
                let symbol = ctx.market.symbols().name(symbol).into();
                ctx.note(Note::HoleOpened { symbol, hole });
            }
        }
    }

    /// The stream's own data has come: nothing else makes it live.
    pub(super) fn prove(&mut self, slot: usize, at: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        if self.streams[at].run(slot).is_some_and(|run| run.state == StreamState::Wanted) && !self.forgo(slot, at) {
            return;
        }
        self.unwait(slot, at);
        let until = self.first_look(at, now);
        let stream = &mut self.streams[at];
        let Some(run) = stream.run_mut(slot) else { return };
        run.state = StreamState::Live { until };
        run.evidence_at = None;
        if self.canary.ack_is_proof {
            run.fresh_at = now;
        }
        // It comes by itself after a silence: no request of ours succeeded.
        let answers = !std::mem::replace(&mut run.answered, true);
        let elapsed = now.since(run.asked_at);
        stream.successes += u64::from(answers);
        let name = stream.name.clone();
        self.arm(slot, until);
        let connection = &mut self.connections[slot];
        ctx.note(Note::StreamLive { stream: name, connection: connection.label.clone(), elapsed });
        if !connection.proved {
            connection.proved = true;
            connection.session.proved();
            if std::mem::take(&mut connection.in_outage) {
                let dark = now.since(connection.dark_since);
                ctx.note(Note::OutageOver { connection: connection.label.clone(), dark });
            }
            let at = self.all_silent_at(slot);
            self.arm(slot, at);
        }
        self.healed(slot, at, ctx);
        self.reconsider(slot, now);
        self.tell_restored(slot, ctx);
    }

    /// A stream waits to be asked for again and delivers: it need not be asked for. False if it was taken back already,
    /// so that what comes is the last of it.
    fn forgo(&mut self, slot: usize, at: usize) -> bool {
        let taken_back = self.streams[at].run(slot).is_some_and(|run| run.failures_in_a_row > 1);
        let connection = &mut self.connections[slot];
        if taken_back && !connection.to_drop.contains(&at) {
            return false;
        }
        connection.to_drop.retain(|stream| *stream != at);
        connection.to_ask.retain(|stream| *stream != at);
        true
    }

    pub(super) fn refuse(
        &mut self,
        slot: usize,
        reject: Reject,
        sample: impl FnOnce() -> String,
        ctx: &mut Context<'_>,
    ) {
        let kind = RejectKind::ALL.iter().position(|kind| *kind == reject.kind).unwrap_or(0);
        if self.connections[slot].refusals[kind].add(reject, sample, ctx.now.mono) {
            self.tell_refusals(slot, kind, ctx);
        }
    }

    pub(super) fn tell_refusals(&mut self, slot: usize, kind: usize, ctx: &mut Context<'_>) {
        let connection = &mut self.connections[slot];
        if let Some((reject, count, sample)) = connection.refusals[kind].tell(ctx.now.mono) {
            ctx.note(Note::Refused { connection: connection.label.clone(), reject, count, sample });
        }
    }
}
