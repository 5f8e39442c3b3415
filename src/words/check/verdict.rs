//! Whose fault it is, in one word.
//!
//! Two thoughts decide. Before TLS has proved who answers, nobody says that it was the venue: names, packets and
//! certificates are the path's, or this machine's where nothing else works either. After that, what the peer says or
//! does not say is its own; only a cut connection still speaks of the path.
//!
//! | stage | what happened | verdict |
//! |---|---|---|
//! | resolve | not resolved | local if no name was, else path |
//! | tcp | refused by the system itself: permission, limits, no address | local |
//! | tcp | no way there | local if nobody beyond this machine was reached, else path |
//! | tcp | refused | local on loopback: nothing listens here; else path |
//! | tcp | no answer, cut | path |
//! | tls | certificate outside its time | path if our clock was found right, else local |
//! | tls | mute, stalled, cut, no TLS, another name, an unknown issuer | path |
//! | upgrade, ack, first_data, rest | TLS broken, connection cut | path |
//! | upgrade, ack, first_data, rest | an error, a refusal, a close frame, rubbish, silence | venue |
//! | clock | off | local, if nothing else failed |
//!
//! Failures at the exchange's addresses count before those elsewhere, whose "venue" is the peer that they are about.
//! Among them local counts before path, and path before venue: whoever repairs the first may find the others gone.

use super::stages::{Cause, Row, Step};

/// Where an endpoint's host is, by its name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On this machine.
    Loopback,
    /// At a literal address elsewhere.
    Address,
    /// Where the resolver says.
    Name,
}

/// An endpoint and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) name: &'static str,
    /// As configured, without what could be a secret.
    pub(super) url: String,
    pub(super) host: String,
    pub(super) place: Place,
    pub(super) of_exchange: bool,
    pub(super) rows: Vec<Row>,
}

impl Endpoint {
    /// True if that stage was reached and is done.
    fn passed(&self, step: Step) -> bool {
        self.rows.iter().any(|row| row.step == step && row.failure.is_none())
    }

    /// The stage that failed, and of what kind its failure is.
    pub(super) fn failure(&self) -> Option<(Step, Cause)> {
        self.rows.iter().find_map(|row| row.failure.as_ref().map(|failure| (row.step, failure.cause)))
    }
}

/// The word, the most pressing first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Word {
    Local,
    Path,
    Venue,
    Ok,
}

impl Word {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Local => "local",
            Self::Path => "path",
            Self::Venue => "venue",
        }
    }
}

/// The word, and a sentence why.
pub(super) fn verdict(endpoints: &[Endpoint]) -> (Word, String) {
    let all: Vec<_> = endpoints
        .iter()
        .filter_map(|endpoint| endpoint.failure().map(|(step, cause)| (endpoint, step, cause)))
        .collect();
    let mut failures: Vec<_> = all.iter().filter(|(_, _, cause)| *cause != Cause::Clock).collect();
    if failures.is_empty() {
        failures = all.iter().collect();
    }
    if failures.iter().any(|(endpoint, ..)| endpoint.of_exchange) {
        failures.retain(|(endpoint, ..)| endpoint.of_exchange);
    }
    // The first of the most pressing ones speaks.
    failures
        .into_iter()
        .map(|(endpoint, step, cause)| judge(endpoint, *step, *cause, endpoints))
        .min_by_key(|(word, _)| *word)
        .unwrap_or_else(|| (Word::Ok, "every endpoint did all that was asked of it".to_owned()))
}

fn judge(endpoint: &Endpoint, step: Step, cause: Cause, all: &[Endpoint]) -> (Word, String) {
    let (name, host) = (endpoint.name, &endpoint.host);
    match (step, cause) {
        (_, Cause::Name) if all.iter().any(|other| other.place == Place::Name && other.passed(Step::Resolve)) => {
            (Word::Path, format!("{host} ({name}) does not resolve while another name does"))
        }
        (_, Cause::Name) => {
            (Word::Local, "names do not resolve: see to this machine's network and resolver".to_owned())
        }
        (_, Cause::Machine) => (
            Word::Local,
            format!("this machine's system refused to connect {name}: see to its limits, permissions and firewall"),
        ),
        (_, Cause::Unreachable)
            if all.iter().any(|other| other.place != Place::Loopback && other.passed(Step::Tcp)) =>
        {
            (Word::Path, format!("there is no way to {host} ({name}) while other hosts are reached"))
        }
        (_, Cause::Unreachable) => (Word::Local, "there is no way out of this machine: see to its network".to_owned()),
        (_, Cause::Refused) if endpoint.place == Place::Loopback => {
            (Word::Local, format!("nothing listens on this machine where {name} is configured"))
        }
        (_, Cause::Refused) => {
            (Word::Path, format!("connections to {host} ({name}) are refused before anybody proved to be it"))
        }
        (_, Cause::CertificateTime) if all.iter().any(|other| other.passed(Step::Clock)) => (
            Word::Path,
            format!("the certificate shown for {host} ({name}) is outside its time, and this machine's clock is right"),
        ),
        (_, Cause::CertificateTime) => (
            Word::Local,
            format!("by this machine's clock the certificate of {host} ({name}) is outside its time: set the clock"),
        ),
        (_, Cause::Stranger) => {
            (Word::Path, format!("whoever answers for {host} ({name}) did not prove to be it: something is in between"))
        }
        (_, Cause::Cut) => (Word::Path, format!("the connection to {host} ({name}) is cut at {}", step.as_str())),
        (_, Cause::Clock) => (Word::Local, "only this machine's clock is wrong: set it".to_owned()),
        (Step::Resolve | Step::Tcp | Step::Tls, Cause::Silence) => {
            (Word::Path, format!("packets to or from {host} ({name}) are lost on the way, at {}", step.as_str()))
        }
        (Step::Resolve | Step::Tcp | Step::Tls, Cause::Words) => {
            (Word::Path, format!("something that is not {host} ({name}) answers at {}", step.as_str()))
        }
        (Step::Upgrade | Step::Ack | Step::FirstData | Step::Rest | Step::Clock, Cause::Silence) => {
            (Word::Venue, format!("{host} ({name}) was reached, and is mute at {}", step.as_str()))
        }
        (Step::Upgrade | Step::Ack | Step::FirstData | Step::Rest | Step::Clock, Cause::Words) => {
            (Word::Venue, format!("{host} ({name}) was reached, and refuses at {}", step.as_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stages::Failure;
    use super::*;
    use crate::time::Span;
    use Cause::{CertificateTime, Cut, Machine, Refused, Silence, Stranger, Unreachable, Words};
    use Place::{Address, Loopback, Name};
    use Step::{Ack, Clock, FirstData, Resolve, Rest, Tcp, Tls, Upgrade};

    const SOCKET: [Step; 6] = [Resolve, Tcp, Tls, Upgrade, Ack, FirstData];
    const HTTP: [Step; 5] = [Resolve, Tcp, Tls, Rest, Clock];

    fn endpoint(name: &'static str, place: Place, failure: Option<(Step, Cause)>) -> Endpoint {
        let steps: &[Step] = if name == "rest" { &HTTP } else { &SOCKET };
        let mut rows = Vec::new();
        for step in steps {
            let failed = failure.filter(|(at, _)| at == step);
            rows.push(Row {
                step: *step,
                elapsed: Span::ZERO,
                failure: failed.map(|(_, cause)| Failure::new(cause, "words")),
                shown: None,
            });
            if failed.is_some() {
                break;
            }
        }
        let of_exchange = name != "signals";
        Endpoint { name, url: String::new(), host: format!("{name}.example"), place, of_exchange, rows }
    }

    /// A socket and REST, at names.
    fn pair(socket: Option<(Step, Cause)>, rest: Option<(Step, Cause)>) -> Word {
        verdict(&[endpoint("market_ws", Name, socket), endpoint("rest", Name, rest)]).0
    }

    #[test]
    fn the_table() {
        let name = Some((Resolve, Cause::Name));
        let no_way = Some((Tcp, Unreachable));
        let dated = Some((Tls, CertificateTime));
        assert_eq!(pair(None, None), Word::Ok);
        assert_eq!(pair(name, name), Word::Local);
        assert_eq!(pair(name, None), Word::Path);
        assert_eq!(pair(name, Some((Tcp, Silence))), Word::Path);
        assert_eq!(pair(no_way, no_way), Word::Local);
        assert_eq!(pair(no_way, None), Word::Path);
        assert_eq!(pair(Some((Tcp, Machine)), None), Word::Local);
        assert_eq!(pair(Some((Tcp, Refused)), None), Word::Path);
        assert_eq!(pair(dated, dated), Word::Local);
        assert_eq!(pair(dated, None), Word::Path);
        assert_eq!(pair(None, Some((Clock, Cause::Clock))), Word::Local);
        for cause in [Silence, Cut] {
            assert_eq!(pair(Some((Tcp, cause)), None), Word::Path, "{cause:?}");
        }
        for cause in [Silence, Cut, Stranger] {
            assert_eq!(pair(Some((Tls, cause)), None), Word::Path, "{cause:?}");
            assert_eq!(pair(None, Some((Tls, cause))), Word::Path, "{cause:?}");
        }
        for (cause, word) in [(Words, Word::Venue), (Silence, Word::Venue), (Cut, Word::Path), (Stranger, Word::Path)] {
            for step in [Upgrade, Ack, FirstData] {
                assert_eq!(pair(Some((step, cause)), None), word, "{step:?} {cause:?}");
            }
            assert_eq!(pair(None, Some((Rest, cause))), word, "{cause:?}");
        }
    }

    #[test]
    fn of_several_the_one_to_repair_first_speaks() {
        let venue = Some((FirstData, Silence));
        assert_eq!(pair(venue, Some((Clock, Cause::Clock))), Word::Venue, "a clock speaks only alone");
        assert_eq!(pair(venue, Some((Tcp, Silence))), Word::Path);
        assert_eq!(pair(Some((Tcp, Silence)), Some((Tcp, Machine))), Word::Local);
    }

    #[test]
    fn loopback_proves_nothing_of_the_network_and_listens_on_this_machine() {
        let here = endpoint("signals", Loopback, None);
        let lost = endpoint("market_ws", Address, Some((Tcp, Unreachable)));
        assert_eq!(verdict(&[lost, here]).0, Word::Local);
        let refused = endpoint("market_ws", Loopback, Some((Tcp, Refused)));
        assert_eq!(verdict(&[refused]).0, Word::Local);
    }

    #[test]
    fn what_is_not_the_exchange_speaks_only_when_the_exchange_is_well() {
        let absent = endpoint("signals", Loopback, Some((Tcp, Refused)));
        let mute = endpoint("market_ws", Name, Some((FirstData, Silence)));
        let (word, why) = verdict(&[absent.clone(), mute]);
        assert_eq!((word, why.contains("market_ws")), (Word::Venue, true), "{why}");
        let (word, why) = verdict(&[absent, endpoint("market_ws", Name, None)]);
        assert_eq!((word, why.contains("signals")), (Word::Local, true), "{why}");
    }
}
