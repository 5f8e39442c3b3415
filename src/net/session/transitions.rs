//! How a session goes from one state to the next, and the budget of its messages.

use super::*;

impl Session {
    /// Puts off an attempt that would begin before `to`.
    pub fn postpone(&mut self, to: Instant) {
        if let State::Backoff { until } = &mut self.state {
            *until = (*until).max(to);
        }
    }

    pub(super) fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.stage_since = now;
    }

    /// A stage's deadline, within what is left of the whole attempt.
    pub(super) fn bounded(&self, now: Instant, stage: Span) -> Instant {
        (now + stage).min(self.connect_until)
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.epoch += 1;
        self.attempt = self.attempt.saturating_add(1);
        self.connect_until = now + self.settings.deadlines.connect;
        self.farewell.clear();
        self.pinged = None;
        self.unheard = 0;
        self.bytes_before = self.bytes;
        match self.settings.host.parse::<IpAddr>() {
            Ok(ip) => {
                self.addresses = vec![SocketAddr::new(ip, self.settings.port)];
                self.dial_all(now);
            }
            Err(_) => {
                self.enter(State::Resolving { until: self.bounded(now, self.settings.deadlines.resolve) }, now);
                self.requests.push_back(Request::Resolve);
            }
        }
    }

    pub(super) fn dial_all(&mut self, now: Instant) {
        let until = self.bounded(now, self.settings.deadlines.tcp);
        self.enter(State::Dialing { until, address_until: until }, now);
        self.dial(0, until, now);
    }

    /// Dials one address; those behind it keep an equal share of the time that is left.
    pub(super) fn dial(&mut self, index: usize, until: Instant, now: Instant) {
        self.address = index;
        let left = (self.addresses.len() - index) as u64;
        let share = Span::from_ns(until.since(now).as_ns() / left.max(1));
        self.state = State::Dialing { until, address_until: if left > 1 { now + share } else { until } };
        self.requests.push_back(Request::Dial(self.addresses[index]));
    }

    pub(super) fn tcp_words(&self, words: &str) -> String {
        match self.addresses.len() {
            0 | 1 => words.to_owned(),
            n => format!("{words} (last of {n} addresses)"),
        }
    }

    pub(super) fn bytes_of_attempt(&self) -> u64 {
        self.bytes - self.bytes_before
    }

    pub(super) fn give_up(&mut self, stage: Stage, words: &str, now: Instant) {
        let whole = matches!(
            self.state,
            State::Resolving { .. } | State::Dialing { .. } | State::Securing { .. } | State::Upgrading { .. }
        ) && now >= self.connect_until;
        let reason = if whole {
            format!("{words} (connect deadline of {})", self.settings.deadlines.connect)
        } else {
            words.to_owned()
        };
        self.end(stage, reason, None, now);
    }

    pub(super) fn broken(&mut self, stage: Stage, broken: Broken, now: Instant) {
        self.end_with(stage, broken, None, now);
    }

    pub(super) fn end(&mut self, stage: Stage, reason: String, close_code: Option<u16>, now: Instant) {
        self.end_with(stage, Broken { reason, violation: false, retry_after: None }, close_code, now);
    }

    /// The one transition that every end of every kind takes.
    pub(super) fn end_with(&mut self, stage: Stage, broken: Broken, close_code: Option<u16>, now: Instant) {
        let Broken { reason, violation, retry_after } = broken;
        let ending = Ending {
            stage,
            reason,
            close_code,
            elapsed: now.since(self.stage_since),
            address: if stage == Stage::Resolve { None } else { self.address() },
            attempt: self.attempt,
            violation,
            retry_after,
        };
        let (was_open, stopping) = (self.state == State::Open, matches!(self.state, State::Closing { .. }));
        if !was_open && !stopping {
            self.failed += 1;
        }
        self.hang_up();
        if stopping {
            self.enter(State::Stopped, now);
        } else {
            if let Some(wait) = retry_after {
                self.hold_until = self.hold_until.max(now + wait);
            }
            let until = (now + self.pause()).max(self.hold_until);
            self.enter(State::Backoff { until }, now);
        }
        self.events.push_back(SessionEvent::Ended(ending));
    }

    /// Full jitter above the minimum: before attempt n from [min, min(max, min·2ⁿ)].
    pub(super) fn pause(&mut self) -> Span {
        let Backoff { min, max } = self.settings.backoff;
        let n = self.attempt.saturating_add(1).min(40);
        let ceiling = min.as_ns().saturating_mul(1 << n).min(max.as_ns()).max(min.as_ns());
        Span::from_ns(self.rng.u64(min.as_ns()..=ceiling))
    }

    pub(super) fn hang_up(&mut self) {
        if matches!(self.state, State::Backoff { .. } | State::Resolving { .. } | State::Stopped) {
            return;
        }
        self.farewell = self.link.take().map(Link::farewell).unwrap_or_default();
        self.pinged = None;
        // Forget requests of the attempt that is over; its socket is closed in any case.
        self.requests.clear();
        self.requests.push_back(Request::Hangup);
    }

    // ---- the outgoing budget

    pub(super) fn count_message(&mut self, now: Instant) {
        self.unheard += 1;
        self.may_send_at = now + MESSAGE_EVERY;
    }

    pub(super) fn pong_due(&self, now: Instant) -> bool {
        self.is_open() && self.may_send_at() <= now && self.link.as_ref().is_some_and(Link::has_pong)
    }

    pub(super) fn release_pong(&mut self, now: Instant) {
        self.count_message(now);
        if let Some(link) = &mut self.link
            && let Err(broken) = link.release_pong()
        {
            self.broken(Stage::Read, broken, now);
        }
    }
}

/// As a `Host` header names it: without the scheme's own port.
pub(crate) fn authority(host: &str, port: u16, tls: bool) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if port == if tls { 443 } else { 80 } { host } else { format!("{host}:{port}") }
}

pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned()).map_err(|_| "the host is no name a certificate can bear".to_owned())
}

/// IPv6 and IPv4 in turn, so that one broken family costs one address's share; the last good one first, and last the one
/// that another connection for the same streams uses.
pub(super) fn in_order(
    addresses: &[SocketAddr],
    last_good: Option<SocketAddr>,
    avoided: Option<SocketAddr>,
) -> Vec<SocketAddr> {
    let mut ordered: Vec<SocketAddr> = last_good.filter(|good| addresses.contains(good)).into_iter().collect();
    let mut six = addresses.iter().filter(|a| a.is_ipv6());
    let mut four = addresses.iter().filter(|a| a.is_ipv4());
    loop {
        let pair = [six.next(), four.next()];
        if pair == [None, None] {
            break;
        }
        for address in pair.into_iter().flatten() {
            if !ordered.contains(address) && ordered.len() < ADDRESSES_MAX {
                ordered.push(*address);
            }
        }
    }
    if let Some(at) = ordered.iter().position(|address| Some(*address) == avoided) {
        ordered[at..].rotate_left(1);
    }
    ordered
}
