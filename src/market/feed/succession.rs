//! Make before break: a connection is replaced by one that delivers everything it delivers, and only then closed.
//!
//! A successor carries the same streams. It takes over when each stream that the old connection delivers has come on it,
//! when the ids of both overlap, and, if it was to heal something, when it does. Until then the old one stays; if the
//! successor cannot do it, the old one stays for good, and that is told. If the old one ends meanwhile, there is nothing
//! to lose: the successor is then the connection.

use super::ladder::heal_pause;
use super::*;

/// Between two looks at a successor that waits for the old connection to catch up.
const REVIEW_EVERY: Span = Span::from_ms(200);
/// A stream that the old connection delivered lately is proved by its data, unless nobody trades for so long.
const PROVED_WITHIN: Span = Span::from_secs(60);
/// Requests for one stream on a successor before it is held unable to deliver it: most of them afresh.
const TRIES: u32 = 5;
/// A successor that is not ready after this long never will be.
const READY_WITHIN: Span = Span::from_secs(180);
/// Attempts to connect a successor.
const ATTEMPTS: u32 = 3;
/// Jitter of planned rotations: up to a tenth earlier.
const JITTER_DIVISOR: u64 = 10;
/// Planned successors at once that have yet to deliver anything; the others wait their turn, a moment each.
const PLANNED_AT_ONCE: usize = 4;
const TURN: Span = Span::from_ms(500);
/// A venue that announces an end to every new connection is not followed more often than this.
const LEAVE_PAUSE: Span = Span::from_secs(10);
/// Rotations that are due at one time of day begin within so long after it, and are over ten minutes after it.
const SPREAD_MAX: Span = Span::from_secs(500);
const DAY: Span = Span::from_secs(86_400);

/// What a look at a successor comes to.
enum Review {
    /// Something may still come; its own deadline will tell.
    Undecided,
    /// The old connection has to catch up first, or the new one may still be proved by data.
    Soon,
    Ready,
    /// What is in the way.
    Unable(String),
}

impl Feed {
    /// When the connection is to be replaced because of its age.
    pub(super) fn rotation_due(&self, slot: usize) -> Instant {
        match self.seat(slot) {
            Some(seat) if seat.current == slot && seat.successor.is_none() => seat.rotate_at,
            _ => Instant::FAR,
        }
    }

    /// A connection opened at `opened` and serves: when is it to be replaced?
    pub(super) fn plan_rotation(&mut self, slot: usize, opened: Instant, ctx: &Context<'_>) {
        let every = self.rotation.every;
        if every == Span::ZERO {
            return;
        }
        let at = match self.rotation.at {
            None => {
                let tenth = every.as_ns() / JITTER_DIVISOR;
                opened + every.saturating_sub(Span::from_ns(self.rng.u64(0..=tenth)))
            }
            Some(time) => {
                let utc = ctx.now.utc();
                let wait = Span::from_ms(time.next_after(utc).0.abs_diff(utc.0));
                let (next, oldest) = (ctx.now.mono + wait, opened + every.saturating_sub(READY_WITHIN));
                if oldest > next {
                    let spread = oldest.since(next).min(SPREAD_MAX).as_ns();
                    next + Span::from_ns(self.rng.u64(spread / 2..=spread))
                } else {
                    // It opened just after that time and would end just after it: once more today.
                    let last = (wait.as_ns() + SPREAD_MAX.as_ns()).saturating_sub(DAY.as_ns());
                    ctx.now.mono + Span::from_ns(last)
                }
            }
        };
        if let Some(seat) = self.seat_mut(slot) {
            seat.rotate_at = at;
        }
        self.arm(slot, at);
    }

    /// Whatever is due of a connection's replacement.
    pub(super) fn succeed(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        if self.stopping {
            return;
        }
        match self.connections[slot].role {
            Role::Current if self.rotation_due(slot) <= now && self.connections[slot].session.is_open() => {
                if self.connections[slot].announced && self.seat(slot).is_some_and(|seat| seat.leave_after <= now) {
                    return self.leave_if_announced(slot, ctx);
                }
                let planned = |row: &&Connection| row.role == Role::Successor(Purpose::Planned) && !row.proved;
                if self.connections.iter().filter(planned).count() < PLANNED_AT_ONCE {
                    self.begin_succession(slot, Purpose::Planned, ctx);
                } else if let Some(seat) = self.seat_mut(slot) {
                    seat.rotate_at = now + TURN;
                }
            }
            Role::Successor(_) if self.connections[slot].review_at <= now => self.review(slot, ctx),
            Role::Successor(_) | Role::Current | Role::Side | Role::Retiring | Role::Vacant => {}
        }
    }

    /// A successor begins to connect, if there is none yet.
    pub(super) fn begin_succession(&mut self, current: usize, purpose: Purpose, ctx: &mut Context<'_>) {
        let Some(seat) = self.seat(current).filter(|seat| seat.current == current && seat.successor.is_none()) else {
            return;
        };
        if self.stopping || seat.current != current {
            return;
        }
        let (group, leg) = (self.connections[current].group, self.connections[current].leg);
        let streams = self.groups[group].streams.clone();
        let successor = self.connect(group, leg, Role::Successor(purpose), self.by, streams, ctx.now.mono);
        self.groups[group].seats[leg].successor = Some(successor);
        self.books.of(purpose).begun += 1;
        let label = self.connections[current].label.clone();
        self.say(current, Note::SuccessionBegins { connection: label, purpose }, ctx);
    }

    /// Something has changed that may decide about a successor: it is looked at in its turn.
    pub(super) fn reconsider(&mut self, slot: usize, now: Instant) {
        if let Role::Successor(_) = self.connections[slot].role {
            self.connections[slot].review_at = now;
            self.arm(slot, now);
        }
    }

    fn review(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        self.connections[slot].review_at = Instant::FAR;
        let Some(seat) = self.seat(slot) else { return };
        let current = seat.current;
        let opened = self.connections[slot].session.since();
        match self.look_at(slot, current, now) {
            Review::Ready => self.take_over(slot, ctx),
            Review::Unable(words) => self.give_up_successor(slot, words, ctx),
            Review::Undecided | Review::Soon if now.since(opened) >= READY_WITHIN => {
                let words = format!("not ready {READY_WITHIN} after it opened");
                self.give_up_successor(slot, words, ctx);
            }
            Review::Undecided => {
                self.connections[slot].review_at = opened + READY_WITHIN;
                self.arm(slot, opened + READY_WITHIN);
            }
            Review::Soon => {
                self.connections[slot].review_at = now + REVIEW_EVERY;
                self.arm(slot, now + REVIEW_EVERY);
            }
        }
    }

    fn look_at(&self, slot: usize, current: usize, now: Instant) -> Review {
        let connection = &self.connections[slot];
        if !connection.session.is_open() || !connection.to_ask.is_empty() {
            return Review::Undecided;
        }
        let healing = connection.role == Role::Successor(Purpose::Healing);
        // What only asking anew could heal has been asked anew on the old connection.
        let tries = if healing || connection.by == SubscribeBy::Url { 1 } else { TRIES };
        let (mut soon, mut healed, mut open) = (false, false, false);
        for at in &connection.streams {
            let stream = &self.streams[*at];
            let (Some(new), Some(old)) = (stream.run(slot), stream.run(current)) else { continue };
            match new.state {
                StreamState::Wanted | StreamState::Sent { .. } => return Review::Undecided,
                StreamState::Acked { .. } if self.canary.takes_over_unproved => {}
                // The old one does not deliver it either, because nobody trades.
                StreamState::Acked { .. } if matches!(old.state, StreamState::Quiet { .. }) => {}
                StreamState::Acked { .. } => open = true,
                // Silent on both, and nobody trades. Is the new one mute? The next trade tells.
                StreamState::Quiet { lived: false, .. }
                    if matches!(old.state, StreamState::Live { .. }) && now.since(new.acked_at) < PROVED_WITHIN =>
                {
                    soon = true;
                }
                StreamState::Live { .. } | StreamState::Quiet { .. } => {
                    healed |= old.state.is_down() && new.state.is_live();
                    let behind = old.ids.1 > 0 && new.ids.0 > old.ids.1 + 1;
                    soon |= behind && old.state.is_live();
                }
                StreamState::Stale { .. } | StreamState::Failed { .. } if old.state.is_fine() => {
                    if new.failures_in_a_row >= tries {
                        let why = new.reason.as_deref().unwrap_or("it does not deliver");
                        return Review::Unable(format!("{}: {why}", stream.name));
                    }
                    open = true;
                }
                // Neither delivers it.
                StreamState::Stale { .. } | StreamState::Failed { .. } => {
                    open |= healing && new.failures_in_a_row < tries
                }
            }
        }
        if open {
            Review::Undecided
        } else if soon {
            Review::Soon
        } else if healing && !healed {
            Review::Unable("it does not deliver what the old one does not deliver either".to_owned())
        } else {
            Review::Ready
        }
    }

    /// The successor serves from here on, and the old connection says goodbye.
    fn take_over(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let Some(seat) = self.seat(slot) else { return };
        let old = seat.current;
        let Role::Successor(purpose) = self.connections[slot].role else { return };
        let opened = self.connections[slot].session.since();
        let took = ctx.now.mono.since(self.connections[slot].attempt_began);
        let age = ctx.now.mono.since(self.connections[old].session.since());
        self.promote(slot, old, ctx);
        if let Some(seat) = self.seat_mut(slot) {
            seat.setbacks = 0;
            seat.heal_after = ctx.now.mono + heal_pause(0);
        }
        self.plan_rotation(slot, opened, ctx);
        self.books.of(purpose).succeeded += 1;
        let (streams, live) = (self.connections[slot].streams.len() as u32, self.live_on(slot));
        let connection = self.connections[slot].label.clone();
        ctx.note(Note::Succeeded { connection, live, streams, took, age });
        self.leave_if_announced(slot, ctx);
    }

    /// The venue said that it will close this connection, perhaps when another succession was under way.
    pub(super) fn leave_if_announced(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let announced = self.connections[slot].announced;
        let Some(seat) = self.seat_mut(slot).filter(|seat| announced && seat.current == slot) else { return };
        if seat.leave_after > now {
            seat.rotate_at = seat.rotate_at.min(seat.leave_after);
            let at = seat.rotate_at;
            return self.arm(slot, at);
        }
        if seat.successor.is_none() {
            seat.leave_after = now + LEAVE_PAUSE;
            self.begin_succession(slot, Purpose::Announced, ctx);
        }
    }

    /// Puts the successor in the old connection's place, however far it is.
    pub(super) fn promote(&mut self, slot: usize, old: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let (group, leg) = (self.connections[old].group, self.connections[old].leg);
        for at in self.connections[slot].streams.clone() {
            let before = self.streams[at].run(old).map(|run| (run.failures_in_a_row, run.rung));
            let quiet = self.streams[at].run(old).filter(|run| matches!(run.state, StreamState::Quiet { .. }));
            let quiet = quiet.and_then(|run| run.reason.clone());
            let Some(new) = self.streams[at].run_mut(slot) else { continue };
            new.serves = true;
            if let (StreamState::Acked { until }, Some(reason)) = (new.state, quiet) {
                // Nobody has traded since long before it was asked for here.
                (new.state, new.reason) = (StreamState::Quiet { until, lived: false }, Some(reason));
            }
            if let Some((failures, rung)) = before
                && (new.state.is_down() || new.state == StreamState::Wanted)
            {
                // It goes on from where it was.
                new.failures_in_a_row = new.failures_in_a_row.max(failures);
                (new.rung, new.tried_elsewhere) = (rung, new.state.is_down());
            }
            let mut sides: Vec<usize> = Vec::new();
            if new.state.is_live() {
                let others = self.streams[at].runs.iter().map(|run| run.slot);
                sides.extend(others.filter(|other| self.connections[*other].role == Role::Side));
            }
            for side in sides {
                self.leave_side(side, at, ctx);
            }
        }
        self.groups[group].seats[leg].current = slot;
        self.groups[group].seats[leg].successor = None;
        self.groups[group].seats[leg].rotate_at = Instant::FAR;
        let (dark_since, label) = (self.connections[old].dark_since, self.connections[old].label.clone());
        let told = self.connections[old].in_outage;
        let [new_row, old_row] = self.connections.get_disjoint_mut([slot, old]).expect("two connections");
        new_row.inherit(old_row);
        (new_row.role, new_row.review_at) = (Role::Current, Instant::FAR);
        if !new_row.proved {
            (new_row.dark_since, new_row.in_outage) = (dark_since, told);
        } else if told {
            let dark = now.since(dark_since);
            ctx.note(Note::OutageOver { connection: label, dark });
        }
        self.retire(old, ctx);
        self.relabel(slot);
        for at in self.connections[slot].streams.clone() {
            self.streams[at].runs.sort_by_key(|run| self.connections[run.slot].leg);
        }
        self.arm(slot, now);
    }

    /// The successor cannot take over: the old connection stays.
    pub(super) fn give_up_successor(&mut self, slot: usize, reason: String, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let Some(seat) = self.seat(slot) else { return };
        let current = seat.current;
        let (group, leg) = (self.connections[slot].group, self.connections[slot].leg);
        let Role::Successor(purpose) = self.connections[slot].role else { return };
        self.groups[group].seats[leg].successor = None;
        let [row, gone] = self.connections.get_disjoint_mut([current, slot]).expect("two connections");
        row.inherit(gone);
        self.succession_failed(current, now);
        let again = self.groups[group].seats[leg].heal_after.since(now);
        if purpose != Purpose::Healing {
            self.groups[group].seats[leg].rotate_at = now + again;
        }
        self.books.of(purpose).failed += 1;
        let connection = self.connections[current].label.clone();
        ctx.note(Note::SuccessionFailed { connection, purpose, reason, again });
        self.retire(slot, ctx);
        self.arm(current, now);
        if purpose != Purpose::Announced {
            self.leave_if_announced(current, ctx);
        }
    }

    /// A successor's attempt or connection ended. True if that was the end of it.
    pub(super) fn successor_ended(&mut self, slot: usize, ending: &Ending, ctx: &mut Context<'_>) -> bool {
        let Role::Successor(purpose) = self.connections[slot].role else { return false };
        // What the venue will close is better replaced late than never.
        if purpose != Purpose::Announced && ending.attempt >= ATTEMPTS {
            self.give_up_successor(slot, ending.to_string(), ctx);
            return true;
        }
        false
    }

    /// Who takes the place of a connection that serves, should it end now: a successor that is under way.
    pub(super) fn heir(&self, old: usize) -> Option<usize> {
        let successor = self.seat(old).filter(|seat| seat.current == old)?.successor?;
        let pauses = matches!(self.connections[successor].session.state(), State::Backoff { .. } | State::Stopped);
        (!pauses).then_some(successor)
    }

    /// A successor has opened, and the connection that serves is down: it has nothing to lose, and is not waited for.
    pub(super) fn succeed_the_absent(&mut self, slot: usize, ctx: &mut Context<'_>) {
        let Some(old) = self.seat(slot).filter(|seat| seat.successor == Some(slot)).map(|seat| seat.current) else {
            return;
        };
        if !self.connections[old].session.is_open() {
            self.promote(slot, old, ctx);
            let connection = self.connections[slot].label.clone();
            let state = self.connections[slot].session.state().as_str();
            self.say(slot, Note::Inherited { connection, state }, ctx);
        }
    }

    /// The connection that serves has ended, and a successor is under way: it takes its place.
    pub(super) fn succeed_the_dead(&mut self, old: usize, ctx: &mut Context<'_>) {
        let Some(successor) = self.heir(old) else { return };
        self.promote(successor, old, ctx);
        let session = &self.connections[successor].session;
        let (opened, state) = (session.is_open().then(|| session.since()), session.state().as_str());
        if let Some(opened) = opened {
            self.plan_rotation(successor, opened, ctx);
        }
        self.leave_if_announced(successor, ctx);
        let connection = self.connections[successor].label.clone();
        self.say(successor, Note::Inherited { connection, state }, ctx);
    }
}
