//! What heals a stream: the weakest step that works, each proved by data, each with a budget.
//!
//! | step | what it does | when again |
//! |---|---|---|
//! | again | the same SUBSCRIBE on the same connection | after the pause, paced like every message |
//! | afresh | UNSUBSCRIBE, then SUBSCRIBE | the same |
//! | elsewhere | a successor of the whole connection, which takes over only if it delivers more | [`HEAL_PAUSE`], doubling |
//! | other form | a socket of its own, asked for by the URL where SUBSCRIBE is usual, and the reverse | the same |
//! | polling | REST, declared as such; the stream stays failed, and the steps above go on | see `questions` |
//!
//! A stream asked for by the URL cannot be asked for again on its connection, and begins at *elsewhere*.

use super::judge::UNKNOWN_AGAIN;
use super::*;

/// Between two successors of one connection, or two sockets of the other form; doubles while they do not help.
const HEAL_PAUSE: Span = Span::from_secs(60);
const HEAL_PAUSE_MAX: Span = Span::from_secs(1_800);
/// How long a run waits for a successor or another socket to tell; those have deadlines of their own, which are shorter.
const ELSEWHERE_WITHIN: Span = Span::from_secs(600);
/// A stream that is served by a socket of the other form is tried on its own connection again after this long.
pub(super) const SERVED_ELSEWHERE: Span = Span::from_secs(900);
/// Sockets of the other form, for the whole process.
const SIDES_MAX: usize = 8;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Asked for again.
    Again,
    /// Taken back, and asked for anew.
    Afresh,
    /// Asked for on a successor of the connection.
    Elsewhere,
    /// Asked for on a socket of its own, in the other form.
    OtherForm,
}

impl Rung {
    /// All of them, the weakest first.
    pub const ALL: [Self; 4] = [Self::Again, Self::Afresh, Self::Elsewhere, Self::OtherForm];

    /// In words, as in the log and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Again => "asked again",
            Self::Afresh => "asked afresh",
            Self::Elsewhere => "new connection",
            Self::OtherForm => "other form",
        }
    }
}

impl Feed {
    /// Takes the next step for every run of a connection that is down and has paused for long enough.
    pub(super) fn climb(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let (role, by) = (self.connections[slot].role, self.connections[slot].by);
        let (mut elsewhere, mut other_form, mut gone) = (false, false, Vec::new());
        for position in 0..self.connections[slot].streams.len() {
            let at = self.connections[slot].streams[position];
            let Some(run) = self.streams[at].run(slot).filter(|run| run.state.is_down()) else { continue };
            if run.state.deadline() > now {
                continue;
            }
            if self.streams[at].unknown {
                // The list may be wrong, or late. A URL has it asked for again when its connection is replaced.
                match by {
                    SubscribeBy::Message => self.ask_again(slot, at, false),
                    SubscribeBy::Url => self.set_pause(slot, at, now + UNKNOWN_AGAIN),
                }
                continue;
            }
            match (role, self.next_rung(slot, at, now)) {
                (Role::Side, _) => gone.push(at),
                (Role::Retiring | Role::Vacant, _) => {}
                (_, Some(rung @ (Rung::Again | Rung::Afresh))) if by == SubscribeBy::Message => {
                    self.ask_again(slot, at, rung == Rung::Afresh);
                }
                (Role::Current, Some(Rung::Elsewhere)) => elsewhere = true,
                (Role::Current, Some(Rung::OtherForm)) => other_form = true,
                // Nothing that can be done now; its data would still make it live.
                (Role::Current | Role::Successor(_), _) => self.wait_longer(slot, at, now),
            }
        }
        for at in gone {
            self.leave_side(slot, at, ctx);
        }
        if elsewhere {
            self.heal_elsewhere(slot, ctx);
        }
        if other_form {
            self.heal_in_other_form(slot, ctx);
        }
    }

    /// The weakest step that has not been tried since the run failed, and that its budget allows; `None` to wait.
    fn next_rung(&self, slot: usize, at: usize, now: Instant) -> Option<Rung> {
        let stream = &self.streams[at];
        let run = stream.run(slot)?;
        let by_url = self.connections[slot].by == SubscribeBy::Url;
        if !by_url {
            match run.failures_in_a_row {
                0 | 1 => return Some(Rung::Again),
                2 => return Some(Rung::Afresh),
                _ => {}
            }
        }
        let seat = self.seat(slot)?;
        if !by_url && self.is_served_aside(slot, at) {
            return Some(Rung::Afresh);
        }
        if run.tried_elsewhere && !stream.is_fine_without(slot) && seat.side_after <= now {
            return Some(Rung::OtherForm);
        }
        if seat.successor.is_none() && seat.heal_after <= now {
            return Some(Rung::Elsewhere);
        }
        (!by_url).then_some(Rung::Afresh)
    }

    fn ask_again(&mut self, slot: usize, at: usize, afresh: bool) {
        let Some(run) = self.streams[at].run_mut(slot) else { return };
        run.state = StreamState::Wanted;
        run.rung = Some(if afresh { Rung::Afresh } else { Rung::Again });
        let connection = &mut self.connections[slot];
        connection.to_ask.push_back(at);
        if afresh && !connection.to_drop.contains(&at) {
            // A venue that believes it already delivers ignores the same request: take it back first.
            connection.to_drop.push(at);
        }
    }

    fn wait_longer(&mut self, slot: usize, at: usize, now: Instant) {
        let until = now + self.pause_of(slot, at);
        self.set_pause(slot, at, until);
    }

    /// How long until the next step for a run that is down.
    pub(super) fn pause_of(&mut self, slot: usize, at: usize) -> Span {
        if self.is_served_aside(slot, at) {
            return SERVED_ELSEWHERE;
        }
        let failures = self.streams[at].run(slot).map_or(1, |run| run.failures_in_a_row);
        self.pause(failures)
    }

    /// Does a socket of the other form deliver what this connection does not?
    fn is_served_aside(&self, slot: usize, at: usize) -> bool {
        self.streams[at]
            .runs
            .iter()
            .any(|run| run.slot != slot && run.state.is_live() && self.connections[run.slot].role == Role::Side)
    }

    /// Puts off the next step of a run that is down.
    pub(super) fn set_pause(&mut self, slot: usize, at: usize, to: Instant) {
        if let Some(run) = self.streams[at].run_mut(slot).filter(|run| run.state.is_down()) {
            run.state = run.state.put_off(to);
            self.arm(slot, to);
        }
    }

    /// All runs of a connection that are down and past the steps on it, marked with the step they wait for.
    fn take_up(&mut self, slot: usize, rung: Rung, now: Instant) -> Vec<usize> {
        let by_url = self.connections[slot].by == SubscribeBy::Url;
        let mut taken = Vec::new();
        for at in self.connections[slot].streams.clone() {
            let covered = self.streams[at].is_fine_without(slot);
            let unknown = self.streams[at].unknown;
            let sick = |run: &&mut Run| !unknown && run.failures_in_a_row > 0 && !run.state.is_fine();
            let Some(run) = self.streams[at].run_mut(slot).filter(sick) else { continue };
            let past = by_url || run.failures_in_a_row > 2;
            if !past || rung == Rung::OtherForm && (covered || !run.tried_elsewhere) {
                continue;
            }
            run.rung = Some(rung);
            run.tried_elsewhere &= rung != Rung::OtherForm;
            taken.push(at);
        }
        for at in &taken {
            // What is asked by message goes on being asked for meanwhile: perhaps only answers were lost.
            let until = if by_url { now + ELSEWHERE_WITHIN } else { now + self.pause_of(slot, *at) };
            self.set_pause(slot, *at, until);
        }
        taken
    }

    fn heal_elsewhere(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let taken = self.take_up(slot, Rung::Elsewhere, ctx.now.mono);
        if !taken.is_empty() {
            self.begin_succession(slot, Purpose::Healing, ctx);
        }
    }

    fn heal_in_other_form(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let sides = self.connections.iter().filter(|row| row.role == Role::Side).count();
        let setbacks = self.seat(slot).map_or(0, |seat| seat.setbacks);
        if let Some(seat) = self.seat_mut(slot) {
            seat.side_after = now + heal_pause(setbacks);
        }
        let mut taken = self.take_up(slot, Rung::OtherForm, now);
        if sides >= SIDES_MAX {
            for at in taken {
                self.step_failed(slot, at, now);
            }
            return;
        }
        let other = match self.connections[slot].by {
            SubscribeBy::Message => SubscribeBy::Url,
            SubscribeBy::Url => SubscribeBy::Message,
        };
        if other == SubscribeBy::Url {
            // A URL has room for so many names; the others have their turn later.
            let names = taken.iter().map(|at| &*self.streams[*at].name);
            let fit = layout::fit_in_url(&self.base.path, names);
            for at in taken.split_off(fit) {
                self.step_failed(slot, at, now);
            }
        }
        if taken.is_empty() {
            return;
        }
        let (group, leg) = (self.connections[slot].group, self.connections[slot].leg);
        let streams = taken.len();
        let aside = self.connect(group, leg, Role::Side, other, taken, now);
        let (connection, side) = (self.connections[slot].label.clone(), self.connections[aside].label.clone());
        ctx.note(Note::OtherForm { connection, side, streams, by: word(other) });
    }

    /// The step that a run waited for did not help.
    pub(super) fn step_failed(&mut self, slot: usize, at: usize, now: Instant) {
        let Some(run) = self.streams[at].run_mut(slot).filter(|run| run.state.is_down()) else { return };
        run.failures_in_a_row += 1;
        self.wait_longer(slot, at, now);
    }

    /// A successor came to its end without taking over: those that waited for it go on.
    pub(super) fn succession_failed(&mut self, current: usize, now: Instant) {
        for at in self.connections[current].streams.clone() {
            let Some(run) = self.streams[at].run_mut(current) else { continue };
            // It did not deliver those either that are being asked for at this moment.
            run.tried_elsewhere |= run.failures_in_a_row > 1 || run.rung == Some(Rung::Elsewhere);
            if run.rung == Some(Rung::Elsewhere) {
                self.step_failed(current, at, now);
            }
        }
        if let Some(seat) = self.seat_mut(current) {
            seat.heal_after = now + heal_pause(seat.setbacks);
            seat.setbacks += 1;
        }
    }

    /// A stream is not delivered by its socket of the other form, or no longer needs it.
    pub(super) fn leave_side(&mut self, slot: usize, at: usize, ctx: &mut Context<'_>) {
        self.remove_run(slot, at, ctx);
        let connection = &mut self.connections[slot];
        connection.streams.retain(|stream| *stream != at);
        connection.to_ask.retain(|stream| *stream != at);
        if connection.streams.is_empty() {
            self.retire(slot, ctx);
        }
        let waits: Vec<usize> =
            self.streams[at].runs.iter().filter(|run| run.serves && run.state.is_down()).map(|run| run.slot).collect();
        let healed = !self.streams[at].wanted || self.streams[at].state().is_fine();
        for waits in waits {
            self.step_failed(waits, at, ctx.now.mono);
            if !healed {
                self.begin_polling(waits, at, ctx);
            }
        }
    }

    /// Data has come on a run: whatever was done to heal the stream is over.
    pub(super) fn healed(&mut self, slot: usize, at: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let role = self.connections[slot].role;
        let stream = &mut self.streams[at];
        let Some(run) = stream.run_mut(slot) else { return };
        let own = run.rung.take();
        run.failures_in_a_row = 0;
        run.tried_elsewhere = false;
        run.reason = None;
        (stream.polled, stream.unknown) = (false, false);
        let rung = match role {
            Role::Successor(_) => Some(Rung::Elsewhere),
            Role::Side => Some(Rung::OtherForm),
            Role::Current | Role::Retiring | Role::Vacant => {
                own.filter(|rung| matches!(rung, Rung::Again | Rung::Afresh))
            }
        };
        if stream.failures_in_a_row > 0 {
            let (name, dark) = (stream.name.clone(), now.since(stream.down_since));
            stream.failures_in_a_row = 0;
            if let Some(rung) = rung {
                stream.healed[rung as usize] += 1;
            }
            let connection = self.connections[slot].label.clone();
            let by = rung.map(Rung::as_str);
            self.say(slot, Note::StreamHealed { stream: name, connection, by, dark }, ctx);
        }
        // Its own connection delivers it again: the socket of the other form is not needed. Or that one delivers it, and
        // its own connection can wait.
        let others: Vec<usize> =
            self.streams[at].runs.iter().map(|run| run.slot).filter(|other| *other != slot).collect();
        for other in others {
            match (role, self.connections[other].role) {
                (Role::Current, Role::Side) => self.leave_side(other, at, ctx),
                (Role::Side, Role::Current) => self.set_pause(other, at, now + SERVED_ELSEWHERE),
                _ => {}
            }
        }
    }
}

pub(super) fn heal_pause(setbacks: u32) -> Span {
    let doubled = HEAL_PAUSE.times(1 << setbacks.min(10));
    doubled.min(HEAL_PAUSE_MAX)
}

/// How a connection asks, in a word.
pub(super) const fn word(by: SubscribeBy) -> &'static str {
    match by {
        SubscribeBy::Message => "SUBSCRIBE",
        SubscribeBy::Url => "URL",
    }
}
