//! What clients did, as the exchange counted it.

use super::venue::ConnId;
use crate::time::UtcMs;
use std::collections::{BTreeMap, VecDeque};

/// Violations remembered; more are counted only.
const VIOLATIONS_KEPT: usize = 1024;

/// A rule of the exchange that a client broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// More messages in a second than allowed.
    TooManyMessages,
    /// More streams than allowed.
    TooManyStreams,
    /// A control frame larger than the exchange reads.
    Oversized,
    /// A message that is no request.
    BadRequest,
    /// A pong whose payload is no open ping's.
    BadPong,
    /// A ping that was not answered in time.
    NoPong,
    /// More upgrades than allowed.
    TooManyAttempts,
    /// A path that does not exist.
    BadTarget,
    /// More REST weight than allowed, or a call during a ban.
    OverWeight,
    /// A REST request with bad parameters.
    BadParameter,
}

/// One client connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// Text messages received.
    pub messages: u64,
    /// SUBSCRIBE requests among them.
    pub subscribes: u64,
    /// Names asked for in all of them and in the URL.
    pub streams_asked: u64,
    /// Pings of the client.
    pub pings: u64,
    /// Pongs that matched an open ping.
    pub pongs: u64,
    /// Most client frames in any rolling second.
    pub max_per_s: usize,
    /// When it was accepted.
    pub opened: UtcMs,
    /// When it ended, by either side.
    pub ended: Option<UtcMs>,
    recent: VecDeque<i64>,
}

impl ConnectionRecord {
    /// Counts a client frame; the number within the second that ends now.
    pub(super) fn count(&mut self, now: UtcMs) -> usize {
        self.recent.push_back(now.0);
        while self.recent.front().is_some_and(|at| *at <= now.0 - 1_000) {
            self.recent.pop_front();
        }
        self.max_per_s = self.max_per_s.max(self.recent.len());
        self.recent.len()
    }
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Per accepted connection.
    pub connections: BTreeMap<ConnId, ConnectionRecord>,
    /// Upgrades tried.
    pub attempts: u64,
    /// Upgrades refused.
    pub refused: u64,
    /// Those of them that came within the penalty after a 1008 "Too many requests".
    pub penalized: u64,
    /// REST requests.
    pub rest_requests: u64,
    /// Most REST weight used in one minute.
    pub max_weight: u32,
    /// Rules broken.
    pub violations: u64,
    /// The first of them.
    pub first_violations: Vec<(UtcMs, Option<ConnId>, Violation)>,
}

impl Ledger {
    pub(super) fn violation(&mut self, now: UtcMs, conn: Option<ConnId>, what: Violation) {
        self.violations += 1;
        if self.first_violations.len() < VIOLATIONS_KEPT {
            self.first_violations.push((now, conn, what));
        }
    }

    /// Most client frames of any connection in any rolling second.
    pub fn max_per_s(&self) -> usize {
        self.connections.values().map(|record| record.max_per_s).max().unwrap_or(0)
    }
}
