//! Messages: whose they are, what they prove, and what is done about those that nobody should send.

use super::*;

impl Feed {
    pub(super) fn on_text(&mut self, index: usize, text: &str, ctx: &mut Context<'_>) {
        self.connections[index].frames += 1;
        match self.decoder.decode(text, ctx.market.symbols()) {
            Ok(Decoded::Frame(frame)) => self.on_frame(index, &frame, text, ctx),
            Ok(Decoded::Marks { refused, first }) => {
                for row in 0..self.decoder.marks().len() {
                    let frame = Frame::Mark(self.decoder.marks()[row]);
                    self.on_frame(index, &frame, text, ctx);
                }
                for reject in first.into_iter().cycle().take(refused as usize) {
                    self.refuse(index, reject, || wire::sample(text.as_bytes()), ctx);
                }
            }
            Ok(Decoded::Control(reply)) => self.on_reply(index, reply, ctx),
            Ok(Decoded::Shutdown) => {
                let connection = self.connections[index].name.clone();
                ctx.note(Note::Shutdown { connection });
            }
            Ok(Decoded::Other) => {
                let reject = Reject { kind: RejectKind::Unasked, field: None };
                self.refuse(index, reject, || wire::sample(text.as_bytes()), ctx);
            }
            Err(reject) => self.refuse(index, reject, || wire::sample(text.as_bytes()), ctx),
        }
    }

    pub(super) fn on_frame(&mut self, index: usize, frame: &Frame, text: &str, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let at = self.slots[frame.symbol().index() * SLOTS + slot(frame.kind())] as usize;
        let Some(stream) = self.streams.get_mut(at).filter(|stream| stream.connection == index) else {
            let reject = Reject { kind: RejectKind::Unasked, field: None };
            return self.refuse(index, reject, || wire::sample(text.as_bytes()), ctx);
        };
        stream.last_data = Some(now);
        let proved = stream.state == StreamState::Live;
        let connection = &mut self.connections[index];
        connection.last_data = Some(now);
        let source = Source { session: index as u32, epoch: connection.session.epoch() };
        match ctx.market.apply(frame, source, ctx.now) {
            Applied::Trade(TapeEvent::Refused) => {
                let reject = Reject { kind: RejectKind::Id, field: Some("a") };
                return self.refuse(index, reject, || wire::sample(text.as_bytes()), ctx);
            }
            Applied::Trade(TapeEvent::Gap(hole)) => {
                let symbol = ctx.market.symbols().name(frame.symbol()).into();
                ctx.note(Note::HoleOpened { symbol, hole });
            }
            Applied::Trade(TapeEvent::Filled) => {
                let tape = ctx.market.book(frame.symbol()).tape.as_ref();
                if tape.is_some_and(|tape| tape.missing() == 0) {
                    let symbol = ctx.market.symbols().name(frame.symbol()).into();
                    ctx.note(Note::HolesClosed { symbol });
                }
            }
            Applied::Trade(TapeEvent::Next | TapeEvent::Duplicate) | Applied::Mark | Applied::Candle => {}
        }
        if !proved {
            self.prove(index, at, ctx);
        }
        // A candle is pushed when somebody trades, except for the last push, which may come by the clock.
        let traded = match frame {
            Frame::Trade(_) => true,
            Frame::Kline(kline) => !kline.closed,
            Frame::Mark(_) => false,
        };
        if traded {
            self.traded_at[frame.symbol().index()] = now;
            if self.waiting[frame.symbol().index()] > 0 {
                self.testify(frame.symbol(), at, ctx);
            }
        }
    }

    /// The stream's own data has come: nothing else makes it live.
    pub(super) fn prove(&mut self, index: usize, at: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        if self.streams[at].state == StreamState::Wanted && !self.forgo(index, at) {
            return;
        }
        self.unwait(at);
        let stream = &mut self.streams[at];
        stream.state = StreamState::Live;
        stream.successes += 1;
        stream.failures_in_a_row = 0;
        stream.reason = None;
        let connection = &mut self.connections[index];
        connection.live += 1;
        let (name, elapsed) = (stream.name.clone(), now.since(stream.asked_at));
        ctx.note(Note::StreamLive { stream: name, connection: connection.name.clone(), elapsed });
        if !connection.proved {
            connection.proved = true;
            connection.session.proved();
            if std::mem::take(&mut connection.in_outage) {
                let dark = now.since(connection.dark_since);
                ctx.note(Note::OutageOver { connection: connection.name.clone(), dark });
            }
            let at = self.all_silent_at(index);
            self.arm(index, at);
        }
        self.tell_all_live(index, ctx);
    }

    /// A stream waits to be asked for again and delivers: it need not be asked for. False if it was taken back already,
    /// so that what comes is the last of it.
    fn forgo(&mut self, index: usize, at: usize) -> bool {
        let taken_back = self.streams[at].failures_in_a_row > 1;
        let connection = &mut self.connections[index];
        if taken_back && !connection.to_drop.contains(&at) {
            return false;
        }
        connection.to_drop.retain(|stream| *stream != at);
        connection.to_ask.retain(|stream| *stream != at);
        true
    }

    pub(super) fn tell_all_live(&mut self, index: usize, ctx: &mut Context<'_>) {
        let connection = &self.connections[index];
        if connection.all_live_told || !connection.streams.iter().all(|at| self.streams[*at].state.is_fine()) {
            return;
        }
        let (live, streams) = (connection.live, connection.streams.len() as u32);
        let note = Note::AllLive {
            connection: connection.name.clone(),
            live,
            quiet: streams - live,
            elapsed: ctx.now.mono.since(connection.session.since()),
        };
        self.connections[index].all_live_told = true;
        self.say(index, note, ctx);
    }

    pub(super) fn refuse(
        &mut self,
        index: usize,
        reject: Reject,
        sample: impl FnOnce() -> String,
        ctx: &mut Context<'_>,
    ) {
        let kind = RejectKind::ALL.iter().position(|kind| *kind == reject.kind).unwrap_or(0);
        if self.connections[index].refusals[kind].add(reject, sample, ctx.now.mono) {
            self.tell_refusals(index, kind, ctx);
        }
    }

    pub(super) fn tell_refusals(&mut self, index: usize, kind: usize, ctx: &mut Context<'_>) {
        let connection = &mut self.connections[index];
        if let Some((reject, count, sample)) = connection.refusals[kind].tell(ctx.now.mono) {
            ctx.note(Note::Refused { connection: connection.name.clone(), reject, count, sample });
        }
    }
}
