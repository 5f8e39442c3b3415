//! What the opening and the end of a connection mean for its streams.

use super::*;

impl Feed {
    pub(super) fn on_open(&mut self, index: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let connection = &mut self.connections[index];
        (connection.proved, connection.all_live_told) = (false, false);
        connection.pending.clear();
        connection.to_ask.clear();
        connection.to_drop.clear();
        for at in &connection.streams {
            if matches!(self.streams[*at].state, StreamState::Failed { .. }) {
                self.streams[*at].state = StreamState::Wanted;
            }
        }
        let note = Note::Open {
            connection: connection.name.clone(),
            elapsed: now.since(connection.attempt_began),
            address: connection.session.address(),
        };
        // Within an outage, opening is no news; data is.
        if !connection.in_outage {
            self.say(index, note, ctx);
        }
        match self.by {
            SubscribeBy::Message => {
                self.connections[index].to_ask = self.connections[index].streams.iter().copied().collect();
            }
            SubscribeBy::Url => {
                // The upgrade's answer is all the acknowledgement there is.
                let until = now + self.deadlines.first_data;
                for at in 0..self.connections[index].streams.len() {
                    let stream = self.connections[index].streams[at];
                    self.streams[stream].ask(now);
                    self.acknowledge(stream, until, now);
                }
                let (connection, streams) =
                    (self.connections[index].name.clone(), self.connections[index].streams.len());
                self.say(index, Note::Asked { connection, streams, by: "URL" }, ctx);
                self.arm(index, until);
            }
        }
    }

    pub(super) fn on_ended(&mut self, index: usize, ending: Ending, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        if ending.violation && ending.stage == Stage::Read {
            let reject = Reject { kind: RejectKind::Protocol, field: None };
            self.refuse(index, reject, || ending.reason.clone(), ctx);
        }
        let connection = &mut self.connections[index];
        if let Some(at) = Stage::ALL.iter().position(|stage| *stage == ending.stage) {
            connection.endings_by_stage[at] += 1;
        }
        connection.last_ending = Some((ending.clone(), ctx.now.utc()));
        let live = std::mem::take(&mut connection.live);
        if live > 0 {
            connection.dark_since = now;
        }
        connection.to_ask.clear();
        connection.pending.clear();
        let pause = match connection.session.state() {
            State::Backoff { until } => Some(until.since(now)),
            State::Resolving { .. }
            | State::Dialing { .. }
            | State::Securing { .. }
            | State::Upgrading { .. }
            | State::Open
            | State::Closing { .. }
            | State::Stopped => None,
        };
        let reason: Rc<str> = format!("{}: {ending}", connection.name).into();
        for at in 0..connection.streams.len() {
            let stream = self.connections[index].streams[at];
            if !(self.canary.old_epoch_counts && self.streams[stream].state == StreamState::Live) {
                self.unwait(stream);
                if !matches!(self.streams[stream].state, StreamState::Failed { .. }) {
                    self.streams[stream].state = StreamState::Wanted;
                    self.streams[stream].reason = Some(reason.clone());
                }
            }
        }
        let connection = &mut self.connections[index];
        let (name, attempts) = (connection.name.clone(), self.deadlines.attempts);
        let (failures, dark) = (ending.attempt, now.since(connection.dark_since));
        let told = connection.in_outage;
        let outage = pause.is_some() && failures >= attempts && !told;
        connection.in_outage |= outage;
        if !told {
            let ending = ending.clone();
            self.say(index, Note::Ended { connection: name.clone(), ending, attempts, pause, live }, ctx);
        }
        if outage {
            ctx.note(Note::Outage { connection: name, failures, dark });
        } else if told && failures.is_power_of_two() {
            ctx.note(Note::StillOut { connection: name, failures, dark, last: ending.clone() });
        }
        if let Some(wait) = ending.retry_after {
            // The venue counts by address, so whoever goes to the same host stays away as long.
            let host = self.connections[index].session.settings().host.clone();
            for other in 0..self.connections.len() {
                if self.connections[other].session.settings().host == host {
                    self.connections[other].session.hold(now + wait, now);
                    // What that ended is told at once, in its own turn.
                    self.arm(other, now);
                }
            }
        }
    }
}
