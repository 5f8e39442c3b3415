//! What was tried at an endpoint, stage by stage: how each went and how long it took.

use crate::net::CLOCK_HINT;
use crate::time::{Instant, Span};
use std::io::ErrorKind;

/// A stage of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Resolve,
    Tcp,
    Tls,
    Upgrade,
    Ack,
    FirstData,
    Rest,
    Clock,
}

impl Step {
    pub(super) const ALL: [Self; 8] =
        [Self::Resolve, Self::Tcp, Self::Tls, Self::Upgrade, Self::Ack, Self::FirstData, Self::Rest, Self::Clock];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Upgrade => "upgrade",
            Self::Ack => "ack",
            Self::FirstData => "first_data",
            Self::Rest => "rest",
            Self::Clock => "clock",
        }
    }
}

/// Of what kind a failure is; with its stage it decides who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The name was not resolved.
    Name,
    /// This machine's own system would not have it: a permission, a limit, no address to come from.
    Machine,
    /// There is no way to the address.
    Unreachable,
    /// The connection was refused.
    Refused,
    /// Nothing came, or not all of it, in time.
    Silence,
    /// The connection was cut.
    Cut,
    /// Whoever answered cannot prove to be the host, or does not speak TLS.
    Stranger,
    /// The certificate is outside its time, by this machine's clock.
    CertificateTime,
    /// The peer said so itself: a status, an error, a close code, rubbish.
    Words,
    /// The clocks differ.
    Clock,
}

impl Cause {
    /// Of a connect that failed. What has no name here the system refused before anything was sent.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that may grow")]
    pub(super) fn of_connect(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::NetworkDown => Self::Unreachable,
            ErrorKind::TimedOut => Self::Silence,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::UnexpectedEof => Self::Cut,
            _ => Self::Machine,
        }
    }

    /// Of a connected socket that failed.
    pub(super) fn of_socket(kind: ErrorKind) -> Self {
        if kind == ErrorKind::TimedOut { Self::Silence } else { Self::Cut }
    }

    /// Of TLS that went wrong, by the words of [`tls_words`](crate::net::tls_words).
    pub(super) fn of_tls(words: &str) -> Self {
        if words.contains(CLOCK_HINT) { Self::CertificateTime } else { Self::Stranger }
    }
}

/// Why a stage failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) cause: Cause,
}

impl Failure {
    pub(super) fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), cause }
    }
}

/// One stage that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) step: Step,
    pub(super) elapsed: Span,
    pub(super) failure: Option<Failure>,
    /// What to show for a stage whose duration says nothing.
    pub(super) shown: Option<String>,
}

/// The stages of one endpoint as they pass: those ahead, the present one, and the rows of those behind.
#[derive(Debug)]
pub(super) struct Log {
    /// The present stage and those after it, the last first.
    ahead: Vec<Step>,
    rows: Vec<Row>,
    since: Instant,
}

impl Log {
    /// At the first of `steps`. `tls` is left out where the endpoint is plain.
    pub(super) fn new(steps: &[Step], tls: bool, now: Instant) -> Self {
        let ahead = steps.iter().rev().copied().filter(|step| tls || *step != Step::Tls).collect();
        Self { ahead, rows: Vec::new(), since: now }
    }

    /// The stage under way; `None` when it is over.
    pub(super) fn step(&self) -> Option<Step> {
        self.ahead.last().copied()
    }

    pub(super) fn is_over(&self) -> bool {
        self.ahead.is_empty()
    }

    /// The stage under way is done.
    pub(super) fn pass(&mut self, now: Instant) {
        self.pass_showing(None, now);
    }

    /// The same, with something better to show than the time it took.
    pub(super) fn pass_showing(&mut self, shown: Option<String>, now: Instant) {
        if let Some(step) = self.ahead.pop() {
            self.rows.push(Row { step, elapsed: now.since(self.since), failure: None, shown });
            self.since = now;
        }
    }

    /// All stages before `step` are done. Those behind already stay as they are.
    pub(super) fn reach(&mut self, step: Step, now: Instant) {
        while self.step().is_some_and(|present| present < step) {
            self.pass(now);
        }
    }

    /// The stage under way failed, and with it the endpoint.
    pub(super) fn fail(&mut self, failure: Failure, now: Instant) {
        if let Some(step) = self.ahead.pop() {
            self.rows.push(Row { step, elapsed: now.since(self.since), failure: Some(failure), shown: None });
            self.ahead.clear();
        }
    }

    pub(super) fn into_rows(self) -> Vec<Row> {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Span::from_ms(ms)
    }

    #[test]
    fn each_stage_has_its_own_time_and_nothing_follows_a_failure() {
        let mut log = Log::new(&[Step::Resolve, Step::Tcp, Step::Tls, Step::Upgrade, Step::Ack], true, at(0));
        log.reach(Step::Tcp, at(3));
        log.reach(Step::Tls, at(10));
        log.reach(Step::Tcp, at(11));
        log.reach(Step::Ack, at(30));
        log.fail(Failure::new(Cause::Silence, "mute"), at(80));
        log.pass(at(90));
        log.fail(Failure::new(Cause::Silence, "again"), at(99));
        assert!(log.is_over());
        let rows: Vec<_> =
            log.into_rows().iter().map(|row| (row.step, row.elapsed.as_ms(), row.failure.is_none())).collect();
        let expected = [
            (Step::Resolve, 3, true),
            (Step::Tcp, 7, true),
            (Step::Tls, 20, true),
            (Step::Upgrade, 0, true),
            (Step::Ack, 50, false),
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_plain_endpoint_has_no_tls() {
        let mut log = Log::new(&[Step::Resolve, Step::Tcp, Step::Tls, Step::Rest], false, at(0));
        log.reach(Step::Rest, at(1));
        log.pass(at(2));
        let steps: Vec<_> = log.into_rows().iter().map(|row| row.step).collect();
        assert_eq!(steps, [Step::Resolve, Step::Tcp, Step::Rest]);
    }

    #[test]
    fn connects_fail_for_reasons_of_three_places() {
        assert_eq!(Cause::of_connect(ErrorKind::ConnectionRefused), Cause::Refused);
        assert_eq!(Cause::of_connect(ErrorKind::NetworkUnreachable), Cause::Unreachable);
        assert_eq!(Cause::of_connect(ErrorKind::PermissionDenied), Cause::Machine);
        assert_eq!(Cause::of_connect(ErrorKind::QuotaExceeded), Cause::Machine);
        assert_eq!(Cause::of_connect(ErrorKind::TimedOut), Cause::Silence);
        assert_eq!(Cause::of_socket(ErrorKind::ConnectionReset), Cause::Cut);
    }
}
