//! Upgrades: who is let in, and with which streams.

use super::faults::Harm;
use super::ledger::Violation;
use super::request::{self, Root};
use super::rules::{Form, Occasion};
use super::venue::{ConnId, Refusal};
use super::{Conn, Due, Exchange};
use crate::time::UtcMs;
use std::collections::{BTreeMap, VecDeque};

impl Exchange {
    /// A client asks to upgrade; `target` is the request target with its query, `/market/stream?streams=a/b`.
    ///
    /// # Errors
    /// [`Refusal`] with the HTTP status.
    pub fn open(&mut self, target: &str, utc: UtcMs) -> Result<ConnId, Refusal> {
        self.advance(utc);
        self.ledger.attempts += 1;
        let opened = self.try_open(target);
        if opened.is_err() {
            self.ledger.refused += 1;
        }
        opened
    }

    fn try_open(&mut self, target: &str) -> Result<ConnId, Refusal> {
        let refuse = |status| Refusal { status, retry_after_s: None };
        let (limits, now) = (self.config.limits, UtcMs(self.now));
        self.attempts.push_back(self.now);
        while self.attempts.front().is_some_and(|at| *at <= self.now - limits.attempts_window_ms) {
            self.attempts.pop_front();
        }
        if self.attempts.len() > limits.attempts {
            self.ledger.violation(now, None, Violation::TooManyAttempts);
            let first = self.attempts.front().copied().unwrap_or(self.now);
            let retry_after_s = whole_seconds(first + limits.attempts_window_ms - self.now);
            return Err(Refusal { status: 429, retry_after_s });
        }
        if self.now < self.penalty_until {
            self.ledger.penalized += 1;
            let left_s = whole_seconds(self.penalty_until - self.now);
            return Err(Refusal { status: 429, retry_after_s: left_s.filter(|_| self.config.retry_after) });
        }
        let ordinal = self.accepted + 1;
        if let Some((Harm::RefuseUpgrade { status, retry_after_s }, _)) =
            self.rules.strike(Occasion::Upgrade, target, ordinal, now)
        {
            return Err(Refusal { status: *status, retry_after_s: *retry_after_s });
        }
        if target.len() > limits.target_bytes {
            self.ledger.violation(now, None, Violation::BadTarget);
            return Err(refuse(414));
        }
        let Some(read) = request::target(target, self.config.market) else {
            self.ledger.violation(now, None, Violation::BadTarget);
            return Err(refuse(404));
        };
        self.accepted = ordinal;
        let id = ConnId(ordinal);
        self.ledger.connections.entry(id).or_default().opened = now;
        let (root, combined) = (read.root, read.combined);
        let conn = Conn {
            ordinal,
            root,
            combined,
            streams: BTreeMap::new(),
            subscribed: 0,
            replies: VecDeque::new(),
            pings: VecDeque::new(),
        };
        self.conns.insert(id, conn);
        self.later(limits.ping_every_ms, Due::Ping(id));
        self.later(limits.lifetime_ms, Due::End(id));
        if let Some((Harm::CloseAfter { ms, code, reason }, _)) =
            self.rules.strike(Occasion::Accepted, target, ordinal, now)
        {
            let (after_ms, code, reason) = (*ms, *code, *reason);
            self.later(after_ms.max(0), Due::Close(id, code, reason));
        }
        // Names in a listenKey's place are no streams.
        if root != Root::Private && self.subscribe(id, read.streams, Form::Url).is_err() {
            self.too_many_streams(id, "null");
        }
        Ok(id)
    }
}

/// As `Retry-After` says it: rounded up.
fn whole_seconds(ms: i64) -> Option<u32> {
    u32::try_from(ms.saturating_add(999) / 1000).ok()
}
