//! Asking for streams: requests within the venue's limits, and what their answers mean.

use super::*;

impl Feed {
    /// Sends the next requests, as many as the budget allows.
    pub(super) fn ask(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        loop {
            let connection = &mut self.connections[slot];
            let nothing = connection.to_ask.is_empty() && connection.to_drop.is_empty();
            // The answers set the pace: what a frozen path holds back must not arrive as a burst.
            if nothing || !connection.session.is_open() || !connection.may_ask() {
                return;
            }
            let until = now + self.deadlines.ack;
            let (dropping, id) = (!connection.to_drop.is_empty(), connection.next_id);
            let method = if dropping { "UNSUBSCRIBE" } else { "SUBSCRIBE" };
            let mut waiting =
                if dropping { connection.to_drop.iter() } else { connection.to_ask.make_contiguous().iter() };
            let (mut text, mut named) = (format!(r#"{{"method":"{method}","params":["#), Vec::new());
            while let Some(stream) = waiting.next().filter(|_| named.len() < SUBSCRIBE_NAMES_MAX) {
                let name = &self.streams[*stream].name;
                if text.len() + name.len() + 40 > SUBSCRIBE_BYTES_MAX {
                    break;
                }
                let comma = if named.is_empty() { "" } else { "," };
                // Names are the configuration's, which allows nothing that JSON would have to escape.
                write!(text, "{comma}\"{name}\"").ok();
                named.push(*stream);
            }
            write!(text, "],\"id\":{id}}}").ok();
            if connection.session.send(&text, now).is_err() {
                // Over the budget, perhaps by a pong; or the connection ended, and everything is asked for anew.
                let at = connection.session.may_send_at();
                return self.arm(slot, at);
            }
            connection.asked();
            if dropping {
                connection.to_drop.drain(..named.len());
                connection.pending.push(PendingAsk { id, streams: Vec::new(), until });
                self.arm(slot, until);
                continue;
            }
            connection.to_ask.drain(..named.len());
            let label = connection.label.clone();
            for at in &named {
                self.count_request(slot, *at, now);
                // Data that came before the request is data all the same.
                if let Some(run) = self.streams[*at].run_mut(slot).filter(|run| !run.state.is_live()) {
                    run.state = StreamState::Sent { until };
                }
            }
            // That a stream which failed is asked for again was said when it failed.
            let untroubled = |at: &usize| self.streams[*at].run(slot).is_some_and(|run| run.failures_in_a_row == 0);
            let first = named.iter().any(untroubled);
            let streams = named.len();
            self.connections[slot].pending.push(PendingAsk { id, streams: named, until });
            self.arm(slot, until);
            if first && !self.connections[slot].in_outage {
                self.say(slot, Note::Asked { connection: label, streams, by: "SUBSCRIBE" }, ctx);
            }
        }
    }

    pub(super) fn on_reply(&mut self, slot: usize, reply: Reply, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let connection = &mut self.connections[slot];
        let (id, error) = match reply {
            Reply::Ack { id } => (id, None),
            // We never ask for a list or a property; an answer to one is nobody's.
            Reply::Result { id } => (id.filter(|_| false), None),
            Reply::Error { id, code, message } => (id, Some(format!("refused by the venue: {code} {message}"))),
        };
        let at = match (id, &error) {
            (Some(id), _) => connection.pending.iter().position(|ask| ask.id == id),
            // An error that names no request can only mean the one that is open.
            (None, Some(_)) if connection.pending.len() == 1 => Some(0),
            (None, _) => None,
        };
        let Some(at) = at else {
            let words = match error {
                Some(words) => words,
                None => {
                    format!("an answer to no request of ours (id {})", id.map_or("none".into(), |id| id.to_string()))
                }
            };
            let connection = connection.label.clone();
            return self.say(slot, Note::Answer { connection, words }, ctx);
        };
        let ask = connection.pending.swap_remove(at);
        match error {
            None => {
                let until = now + self.deadlines.first_data;
                for at in ask.streams {
                    if self.was_sent(slot, at) {
                        self.acknowledge(slot, at, until, now);
                        if self.canary.ack_is_proof {
                            self.prove(slot, at, ctx);
                        }
                    }
                }
                self.arm(slot, until);
                self.reconsider(slot, now);
            }
            Some(words) => {
                let words: Rc<str> = words.into();
                for at in ask.streams {
                    if self.was_sent(slot, at) {
                        self.fail(slot, at, false, words.clone(), ctx);
                    }
                }
                self.replace_if_useless(slot, Stage::Ack, ctx);
            }
        }
    }

    fn was_sent(&self, slot: usize, at: usize) -> bool {
        self.streams[at].run(slot).is_some_and(|run| matches!(run.state, StreamState::Sent { .. }))
    }

    /// The stream is asked for on this connection.
    pub(super) fn count_request(&mut self, slot: usize, at: usize, now: Instant) {
        self.streams[at].count_request();
        if let Some(run) = self.streams[at].run_mut(slot) {
            (run.asked_at, run.evidence_at, run.answered) = (now, None, false);
        }
    }

    pub(super) fn acknowledge(&mut self, slot: usize, at: usize, until: Instant, now: Instant) {
        let lead = match self.streams[at].kind {
            StreamKind::MarkPrice => Span::ZERO,
            StreamKind::AggTrade | StreamKind::Kline(_) => self.rest_lead(self.deadlines.first_data),
        };
        let until = until - lead;
        self.arm(slot, until);
        let stream = &mut self.streams[at];
        let polled = stream.polled.then(|| questions::polled_words().into());
        let Some(run) = stream.run_mut(slot) else { return };
        run.acked_at = now;
        run.reason = polled;
        run.state = StreamState::Acked { until };
        self.waiting[self.streams[at].symbol.index()] += 1;
    }

    /// Takes a run out of the count of those that wait for data.
    pub(super) fn unwait(&mut self, slot: usize, at: usize) {
        let stream = &self.streams[at];
        if stream.run(slot).is_some_and(|run| run.state.waits_for_data()) {
            self.waiting[stream.symbol.index()] -= 1;
        }
    }
}
