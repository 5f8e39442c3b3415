//! What the opening and the end of a connection mean for its streams.

use super::judge::UNKNOWN_AGAIN;
use super::questions::UNKNOWN;
use super::*;

/// Streams named in one line.
const NAMED: usize = 5;

impl Feed {
    pub(super) fn on_open(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let connection = &mut self.connections[slot];
        (connection.proved, connection.all_live_told, connection.restored_told) = (false, false, false);
        connection.announced = false;
        connection.pending.clear();
        connection.to_ask.clear();
        connection.to_drop.clear();
        let note = Note::Open {
            connection: connection.label.clone(),
            elapsed: now.since(connection.attempt_began),
            address: connection.session.address(),
        };
        // Within an outage, opening is no news; data is.
        if !connection.in_outage {
            self.say(slot, note, ctx);
        }
        for position in 0..self.connections[slot].streams.len() {
            let at = self.connections[slot].streams[position];
            let unknown = self.streams[at].unknown;
            if let Some(run) = self.streams[at].run_mut(slot) {
                run.forget_data();
                if unknown {
                    // Known to fail: that is no news, and not asked for again.
                    run.state = StreamState::Failed { until: now + UNKNOWN_AGAIN };
                    run.reason = Some(UNKNOWN.into());
                } else if run.state.is_down() {
                    run.state = StreamState::Wanted;
                }
            }
        }
        self.succeed_the_absent(slot, ctx);
        if self.connections[slot].role == Role::Current {
            self.plan_rotation(slot, now, ctx);
        }
        match self.connections[slot].by {
            SubscribeBy::Message => {
                let streams = self.connections[slot].streams.iter().copied();
                let known = streams.filter(|at| !self.streams[*at].unknown).collect();
                self.connections[slot].to_ask = known;
            }
            SubscribeBy::Url => {
                // The upgrade's answer is all the acknowledgement there is.
                let until = now + self.deadlines.first_data;
                for position in 0..self.connections[slot].streams.len() {
                    let at = self.connections[slot].streams[position];
                    if self.streams[at].unknown {
                        continue;
                    }
                    self.count_request(slot, at, now);
                    self.acknowledge(slot, at, until, now);
                }
                let (connection, streams) =
                    (self.connections[slot].label.clone(), self.connections[slot].streams.len());
                self.say(slot, Note::Asked { connection, streams, by: "URL" }, ctx);
                self.arm(slot, until);
            }
        }
    }

    pub(super) fn on_ended(&mut self, slot: usize, ending: Ending, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        if self.connections[slot].role == Role::Retiring {
            return self.vacate_if_over(slot);
        }
        if ending.violation && ending.stage == Stage::Read {
            let reject = Reject { kind: RejectKind::Protocol, field: None };
            self.refuse(slot, reject, || ending.reason.clone(), ctx);
        }
        let live = self.live_on(slot);
        let goes_on = self.connections[slot].role != Role::Side && self.heir(slot).is_none();
        let connection = &mut self.connections[slot];
        if let Some(at) = Stage::ALL.iter().position(|stage| *stage == ending.stage) {
            connection.endings_by_stage[at] += 1;
        }
        connection.last_ending = Some((ending.clone(), ctx.now.utc()));
        if live > 0 {
            connection.dark_since = now;
        }
        connection.to_ask.clear();
        connection.to_drop.clear();
        connection.pending.clear();
        let pause = match connection.session.state() {
            // A socket of the other form is given up with its first end, and an heir makes no attempt.
            State::Backoff { until } => Some(until.since(now)).filter(|_| goes_on),
            State::Resolving { .. }
            | State::Dialing { .. }
            | State::Securing { .. }
            | State::Upgrading { .. }
            | State::Open
            | State::Closing { .. }
            | State::Stopped => None,
        };
        let reason: Rc<str> = format!("{}: {ending}", connection.label).into();
        for position in 0..self.connections[slot].streams.len() {
            let at = self.connections[slot].streams[position];
            self.unwait(slot, at);
            let Some(run) = self.streams[at].run_mut(slot) else { continue };
            let delivered = run.state.is_live();
            let counts_on = self.canary.old_epoch_counts && delivered;
            if !run.state.is_down() && !counts_on {
                run.state = StreamState::Wanted;
                run.reason = Some(reason.clone());
            }
            if delivered {
                self.fell_back(at, ctx);
            }
        }
        self.tell_ended(slot, &ending, pause, live, ctx);
        if let Some(wait) = ending.retry_after {
            // The venue counts by our address: all its connections stay away as long, those included that are made later.
            self.held_until = self.held_until.max(now + wait);
            for other in (0..self.connections.len())
                .filter(|other| self.connections[*other].role != Role::Vacant)
                .collect::<Vec<_>>()
            {
                self.connections[other].session.hold(self.held_until, now);
                // What that ended is told at once, in its own turn.
                self.arm(other, now);
            }
        }
        match self.connections[slot].role {
            Role::Side => self.end_side(slot, ctx),
            Role::Successor(_) => {
                self.successor_ended(slot, &ending, ctx);
            }
            Role::Current => {
                self.succeed_the_dead(slot, ctx);
            }
            Role::Retiring | Role::Vacant => {}
        }
    }

    /// An outage is told once. It is an alarm unless the other leg delivers; a successor has none, it is given up.
    fn tell_ended(&mut self, slot: usize, ending: &Ending, pause: Option<Span>, live: u32, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let (serves, stood_in_for) = (self.connections[slot].role == Role::Current, self.is_stood_in_for(slot));
        let connection = &mut self.connections[slot];
        let (name, attempts) = (connection.label.clone(), self.deadlines.attempts);
        let (failures, dark) = (ending.attempt, now.since(connection.dark_since));
        let told = connection.in_outage;
        let outage = serves && pause.is_some() && failures >= attempts && !told;
        connection.in_outage |= outage;
        if !told {
            let ending = ending.clone();
            self.say(slot, Note::Ended { connection: name.clone(), ending, attempts, pause, live }, ctx);
        }
        if outage {
            ctx.note(Note::Outage { connection: name, failures, dark, stood_in_for });
        } else if told && failures.is_power_of_two() {
            ctx.note(Note::StillOut { connection: name, failures, dark, last: ending.clone() });
        }
        // The leg that stood in for the other one is gone as well: what was no alarm becomes one.
        if let Some(other) = self.other_leg(slot)
            && !self.is_stood_in_for(other)
            && self.connections[other].in_outage
        {
            let other = &self.connections[other];
            let (failures, dark) = (other.session.attempt(), now.since(other.dark_since));
            if live > 0 {
                ctx.note(Note::BothLegsOut { connection: other.label.clone(), failures, dark });
            }
        }
    }

    /// Does the other leg deliver what this connection should?
    pub fn is_stood_in_for(&self, slot: usize) -> bool {
        let Some(other) = self.other_leg(slot) else { return false };
        self.connections[other].session.is_open() && self.connections[other].proved
    }

    /// A socket of the other form is gone: its streams are nobody's any more.
    fn end_side(&mut self, slot: usize, ctx: &mut Context<'_>) {
        for at in self.connections[slot].streams.clone() {
            if self.connections[slot].role != Role::Side {
                return;
            }
            let waits =
                self.streams[at].runs.iter().filter(|run| run.serves && run.slot != slot && run.state.is_down());
            let waits: Vec<usize> = waits.map(|run| run.slot).collect();
            let delivered = self.streams[at].run(slot).is_some_and(|run| run.answered);
            self.leave_side(slot, at, ctx);
            for other in waits {
                // Nothing else delivers the stream: what did is tried again at once, if it lived for a while.
                if let Some(run) = self.streams[at].run_mut(other) {
                    run.tried_elsewhere |= delivered;
                }
                self.set_pause(other, at, ctx.now.mono + self.backoff.min);
            }
        }
    }

    /// Once every stream was decided about: how many are back. What is not goes on being asked for.
    pub(super) fn tell_restored(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let connection = &self.connections[slot];
        if connection.restored_told || !connection.session.is_open() || connection.role == Role::Retiring {
            return self.tell_all_live(slot, ctx);
        }
        let known = connection.streams.iter().filter(|at| !self.streams[**at].unknown);
        let runs = known.filter_map(|at| self.streams[*at].run(slot).map(|run| (*at, run)));
        let (mut fine, mut missing) = (0, Vec::new());
        for (at, run) in runs {
            if run.state.is_fine() {
                fine += 1;
            } else if run.state.is_down() {
                missing.push(at);
            } else {
                return;
            }
        }
        self.connections[slot].restored_told = true;
        if missing.is_empty() {
            return self.tell_all_live(slot, ctx);
        }
        if self.connections[slot].role != Role::Current {
            // Whether a successor delivers what it should is told by what becomes of it.
            return;
        }
        let mut names: Vec<&str> = missing.iter().take(NAMED).map(|at| &*self.streams[*at].name).collect();
        let more = format!("and {} more", missing.len().saturating_sub(NAMED));
        if missing.len() > NAMED {
            names.push(&more);
        }
        let note = Note::Restored {
            connection: self.connections[slot].label.clone(),
            restored: fine,
            of: fine + missing.len() as u32,
            missing: names.join(" "),
            elapsed: ctx.now.mono.since(self.connections[slot].session.since()),
        };
        self.say(slot, note, ctx);
    }

    pub(super) fn tell_all_live(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let connection = &self.connections[slot];
        if connection.all_live_told || connection.role == Role::Retiring || !connection.session.is_open() {
            return;
        }
        let (mut live, mut quiet) = (0, 0);
        let known = connection.streams.iter().filter(|at| !self.streams[**at].unknown);
        for run in known.filter_map(|at| self.streams[*at].run(slot)) {
            match run.state {
                state if state.is_live() => live += 1,
                state if state.is_fine() => quiet += 1,
                _ => return,
            }
        }
        let elapsed = ctx.now.mono.since(connection.session.since());
        let note = Note::AllLive { connection: connection.label.clone(), live, quiet, elapsed };
        self.connections[slot].all_live_told = true;
        self.connections[slot].restored_told = true;
        self.say(slot, note, ctx);
    }
}
