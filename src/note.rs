//! What happened, in words an operator can act on: one note a transition, never one a frame.
//!
//! Notes are the engine's only voice. The shell prints them; the simulated world hashes them, so two runs of the same
//! seed must say the same things at the same times.

use crate::engine::Statistics;
use crate::market::feed::Purpose;
use crate::market::tape::Hole;
use crate::net::Ending;
use crate::time::{Instant, Span, UtcMs};
use crate::wire::market::Reject;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

/// Notes waiting to be taken; beyond that the oldest are dropped and counted.
const WAITING_MAX: usize = 4_096;

/// A note and when it was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamped {
    /// On the monotonic clock.
    pub at: Instant,
    /// On the wall clock.
    pub utc: UtcMs,
    /// What happened.
    pub note: Note,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// An attempt to connect begins.
    Attempt {
        /// The connection.
        connection: Rc<str>,
        /// Tries since the last data.
        attempt: u32,
        /// What is dialled.
        url: Rc<str>,
    },
    /// The resolver failed and addresses that worked before are dialled.
    Remembered {
        /// The connection.
        connection: Rc<str>,
        /// The resolver's words.
        reason: String,
    },
    /// The connection is open. Says nothing about data.
    Open {
        /// The connection.
        connection: Rc<str>,
        /// Since the attempt began.
        elapsed: Span,
        /// Where to.
        address: Option<std::net::SocketAddr>,
    },
    /// An attempt, or a connection that was open, ended.
    Ended {
        /// The connection.
        connection: Rc<str>,
        /// How.
        ending: Ending,
        /// Failures in a row after which an outage is reported.
        attempts: u32,
        /// Until the next attempt; `None` if there is none.
        pause: Option<Span>,
        /// Streams that were live on it.
        live: u32,
    },
    /// So many failures in a row that people should know.
    Outage {
        /// The connection.
        connection: Rc<str>,
        /// In a row.
        failures: u32,
        /// Since the last data, or since the start.
        dark: Span,
        /// The other leg delivers what this connection should.
        stood_in_for: bool,
    },
    /// A connection is out, and now the other leg, which delivered in its stead, has ended as well.
    BothLegsOut {
        /// The connection that was out before.
        connection: Rc<str>,
        /// Its failures in a row.
        failures: u32,
        /// Since its last data.
        dark: Span,
    },
    /// The outage goes on: said each time the failures in a row have doubled.
    StillOut {
        /// The connection.
        connection: Rc<str>,
        /// In a row.
        failures: u32,
        /// Since the last data, or since the start.
        dark: Span,
        /// How the newest attempt ended.
        last: Ending,
    },
    /// A connection had so much to say that some of it was left out.
    Held {
        /// The connection.
        connection: Rc<str>,
        /// Notes left out.
        count: u64,
        /// The newest of them.
        newest: String,
    },
    /// Data flows again after an outage.
    OutageOver {
        /// The connection.
        connection: Rc<str>,
        /// How long there was none.
        dark: Span,
    },
    /// Streams were asked for.
    Asked {
        /// The connection.
        connection: Rc<str>,
        /// How many.
        streams: usize,
        /// In a SUBSCRIBE message, or by the URL.
        by: &'static str,
    },
    /// Not every stream of a connection that opened is back; those that are not go on being asked for.
    Restored {
        /// The connection.
        connection: Rc<str>,
        /// How many are live, or rightly quiet.
        restored: u32,
        /// Of how many.
        of: u32,
        /// Some of the others.
        missing: String,
        /// Since it opened.
        elapsed: Span,
    },
    /// A connection gets a successor, which has to prove itself before it takes over.
    SuccessionBegins {
        /// The connection.
        connection: Rc<str>,
        /// Why.
        purpose: Purpose,
    },
    /// A successor has taken over, and the old connection is closed.
    Succeeded {
        /// The connection.
        connection: Rc<str>,
        /// Streams that are live on it.
        live: u32,
        /// Streams that it carries.
        streams: u32,
        /// From the attempt to connect it.
        took: Span,
        /// How old the connection was that it replaces.
        age: Span,
    },
    /// A connection ended while its successor was under way, which takes its place however far it is.
    Inherited {
        /// The connection.
        connection: Rc<str>,
        /// How far the successor is.
        state: &'static str,
    },
    /// A successor could not take over: the old connection stays.
    SuccessionFailed {
        /// The connection.
        connection: Rc<str>,
        /// Why it was to be replaced.
        purpose: Purpose,
        /// What was in the way.
        reason: String,
        /// Until the next try, if it is still needed then.
        again: Span,
    },
    /// Streams are asked for on a socket of their own, in the other form.
    OtherForm {
        /// The connection that does not deliver them.
        connection: Rc<str>,
        /// The socket.
        side: Rc<str>,
        /// How many.
        streams: usize,
        /// In a SUBSCRIBE message, or by the URL.
        by: &'static str,
    },
    /// A stream that was down delivers again.
    StreamHealed {
        /// The stream.
        stream: Rc<str>,
        /// The connection.
        connection: Rc<str>,
        /// What healed it; `None` if it came by itself, or with a new connection.
        by: Option<&'static str>,
        /// How long it was down.
        dark: Span,
    },
    /// Nothing heals a stream: its news are fetched over REST, until it delivers again.
    Polled {
        /// The stream.
        stream: Rc<str>,
        /// How often.
        every: Span,
    },
    /// The venue's list of symbols was read.
    Universe {
        /// Symbols that are wanted now.
        wanted: usize,
        /// Of them, those that were not before.
        added: usize,
        /// Symbols that match and were left out, because there are too many.
        left_out: usize,
        /// Wanted symbols that are not listed: some of them, and how many.
        unknown: (String, usize),
    },
    /// A stream does not deliver on one connection, while another one delivers it.
    RunFailed {
        /// The stream.
        stream: Rc<str>,
        /// The connection on which it does not.
        connection: Rc<str>,
        /// Why.
        reason: Rc<str>,
    },
    /// A stream delivered its first data on this connection.
    StreamLive {
        /// The stream.
        stream: Rc<str>,
        /// The connection.
        connection: Rc<str>,
        /// Since it was asked for.
        elapsed: Span,
    },
    /// Every stream of a connection is live, or allowed to be quiet.
    AllLive {
        /// The connection.
        connection: Rc<str>,
        /// How many are live.
        live: u32,
        /// How many are quiet.
        quiet: u32,
        /// Since the connection opened.
        elapsed: Span,
    },
    /// A stream is acknowledged and has no data, and nobody trades.
    StreamQuiet {
        /// The stream.
        stream: Rc<str>,
        /// Why that is no failure.
        reason: &'static str,
    },
    /// A stream did not do what it should in its time.
    StreamFailed {
        /// The stream.
        stream: Rc<str>,
        /// The connection.
        connection: Rc<str>,
        /// It had lived.
        stale: bool,
        /// What did not happen.
        reason: Rc<str>,
        /// Until it is asked for again.
        pause: Span,
        /// Failures since its last data.
        failures: u32,
    },
    /// The venue answered a request of ours with an error, or answered what nobody asked.
    Answer {
        /// The connection.
        connection: Rc<str>,
        /// The venue's words, escaped and capped.
        words: String,
    },
    /// Messages were refused: the first one at once, the others as a sum.
    Refused {
        /// The connection.
        connection: Rc<str>,
        /// Of what kind, and where.
        reject: Reject,
        /// So many since the last such note.
        count: u64,
        /// One of them, escaped and capped.
        sample: String,
    },
    /// Trade ids are absent.
    HoleOpened {
        /// The symbol.
        symbol: Rc<str>,
        /// Which, and why.
        hole: Hole,
    },
    /// All absent ids of a symbol have come.
    HolesClosed {
        /// The symbol.
        symbol: Rc<str>,
    },
    /// The venue says it will close the connection.
    Shutdown {
        /// The connection.
        connection: Rc<str>,
    },
    /// The operator's choice of symbols was read again.
    Reloaded {
        /// Symbols that were not wanted before.
        added: usize,
        /// Symbols that are not wanted any more.
        removed: usize,
    },
    /// The venue forbids REST for a while.
    RestBlocked {
        /// Status and the venue's words.
        words: String,
        /// Until the next call.
        pause: Span,
    },
    /// Something asked of REST was not answered well.
    RestFailed {
        /// The venue's name of what was asked.
        endpoint: &'static str,
        /// Why.
        words: String,
    },
    /// How subscribing goes: every few minutes, and when a stop begins. Several lines, each complete by itself.
    Statistics(Box<Statistics>),
    /// A clean stop begins.
    Stopping,
}

impl Note {
    /// How loud it is. ERROR means that a person should look.
    pub fn level(&self) -> log::Level {
        use log::Level;
        match self {
            Self::Outage { stood_in_for: false, .. } | Self::BothLegsOut { .. } => Level::Error,
            Self::Outage { stood_in_for: true, .. }
            | Self::Ended { pause: Some(_), .. }
            | Self::Remembered { .. }
            | Self::StreamFailed { .. }
            | Self::RunFailed { .. }
            | Self::Polled { .. }
            | Self::Restored { .. }
            | Self::SuccessionFailed { .. }
            | Self::OtherForm { .. }
            | Self::StillOut { .. }
            | Self::Held { .. }
            | Self::Answer { .. }
            | Self::Refused { .. }
            | Self::HoleOpened { .. }
            | Self::RestBlocked { .. }
            | Self::Shutdown { .. } => Level::Warn,
            Self::Attempt { .. }
            | Self::Open { .. }
            | Self::Ended { pause: None, .. }
            | Self::OutageOver { .. }
            | Self::Asked { .. }
            | Self::AllLive { .. }
            | Self::StreamHealed { .. }
            | Self::SuccessionBegins { .. }
            | Self::Succeeded { .. }
            | Self::Inherited { .. }
            | Self::HolesClosed { .. }
            | Self::Reloaded { .. }
            | Self::Statistics(_)
            | Self::Stopping => Level::Info,
            Self::Universe { left_out: 0, unknown: (_, 0), .. } => Level::Info,
            Self::Universe { .. } => Level::Warn,
            // A thin symbol is quiet each time nobody trades for a while; how many are is in the sums.
            Self::StreamLive { .. } | Self::StreamQuiet { .. } | Self::RestFailed { .. } => Level::Debug,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attempt { connection, attempt, url } => write!(f, "{connection}: attempt {attempt}: {url}"),
            Self::Remembered { connection, reason } => {
                write!(f, "{connection}: {reason}; dialling the addresses that answered before")
            }
            Self::Open { connection, elapsed, address } => {
                write!(f, "{connection}: open after {elapsed}")?;
                if let Some(address) = address {
                    write!(f, " ({address})")?;
                }
                Ok(())
            }
            Self::Ended { connection, ending, attempts, pause, live } => {
                write!(f, "{connection}: ")?;
                match (pause, ending.attempt) {
                    // Attempt 0: the connection had delivered, so this is no failed attempt.
                    (_, 0) => write!(f, "ended: {ending}")?,
                    (None, _) => write!(f, "ended: {ending}")?,
                    (Some(_), attempt) => write!(f, "attempt {attempt} of {attempts} failed: {ending}")?,
                }
                if *live > 0 {
                    write!(f, "; {live} streams were live")?;
                }
                match pause {
                    Some(pause) => write!(f, "; next attempt in {pause}"),
                    None => Ok(()),
                }
            }
            Self::Outage { connection, failures, dark, stood_in_for } => {
                write!(f, "{connection}: outage: {failures} failures in a row, no data for {dark}; retrying goes on")?;
                if *stood_in_for {
                    f.write_str(", and the other leg delivers")?;
                }
                Ok(())
            }
            Self::BothLegsOut { connection, failures, dark } => {
                write!(
                    f,
                    "{connection}: outage: {failures} failures in a row, no data for {dark}, and the other leg has ended too"
                )
            }
            Self::StillOut { connection, failures, dark, last } => {
                write!(f, "{connection}: still out: {failures} failures in a row, no data for {dark}; the last: {last}")
            }
            Self::Held { connection, count, newest } => {
                write!(f, "{connection}: {count} more lines held back, the newest: {newest}")
            }
            Self::OutageOver { connection, dark } => {
                write!(f, "{connection}: outage over: data flows again after {dark}")
            }
            Self::Asked { connection, streams, by } => write!(f, "{connection}: {streams} streams asked for by {by}"),
            Self::StreamLive { stream, connection, elapsed } => {
                write!(f, "{stream}: live on {connection}, first data {elapsed} after it was asked for")
            }
            Self::AllLive { connection, live, quiet: 0, elapsed } => {
                write!(f, "{connection}: all {live} streams live {elapsed} after it opened")
            }
            Self::AllLive { connection, live, quiet, elapsed } => {
                write!(f, "{connection}: {live} streams live, {quiet} quiet, {elapsed} after it opened")
            }
            Self::StreamQuiet { stream, reason } => write!(f, "{stream}: {reason}"),
            Self::Restored { connection, restored, of, missing, elapsed } => {
                write!(
                    f,
                    "{connection}: restored {restored} of {of} streams {elapsed} after it opened; still asked for: {missing}"
                )
            }
            Self::SuccessionBegins { connection, purpose } => {
                write!(f, "{connection}: a new connection is made before this one is closed: {purpose}")
            }
            Self::Succeeded { connection, live, streams, took, age } => {
                write!(
                    f,
                    "{connection}: replaced after {age}: {live} of {streams} streams live on the new connection, {took} after \
                     it was begun"
                )
            }
            Self::Inherited { connection, state } => {
                write!(f, "{connection}: the new connection that was under way takes its place; it is {state}")
            }
            Self::SuccessionFailed { connection, purpose, reason, again } => {
                write!(
                    f,
                    "{connection}: not replaced ({purpose}), the old connection stays: {reason}; tried again in {again} \
                     if it is needed then"
                )
            }
            Self::OtherForm { connection, side, streams, by } => {
                write!(f, "{connection}: {streams} streams asked for by {by} on a socket of their own, {side}")
            }
            Self::StreamHealed { stream, connection, by: Some(by), dark } => {
                write!(f, "{stream}: delivers again on {connection} after {dark}, healed by: {by}")
            }
            Self::StreamHealed { stream, connection, by: None, dark } => {
                write!(f, "{stream}: delivers again on {connection} after {dark}")
            }
            Self::Polled { stream, every } => {
                write!(f, "{stream}: nothing heals it: polled over REST every {every}, until it delivers again")
            }
            Self::Universe { wanted, added, left_out, unknown: (names, unknown) } => {
                write!(f, "symbols: {wanted} wanted, {added} of them new by the venue's list")?;
                if *left_out > 0 {
                    write!(f, "; {left_out} more match and were left out: streams.symbols_max")?;
                }
                if *unknown > 0 {
                    write!(f, "; {unknown} unknown to the venue: {names}")?;
                }
                Ok(())
            }
            Self::RunFailed { stream, connection, reason } => {
                write!(f, "{stream}: silent on {connection}, while another connection delivers it: {reason}")
            }
            Self::StreamFailed { stream, connection, stale, reason, pause, failures } => {
                let how = if *stale { "stale" } else { "failed" };
                write!(f, "{stream}: {how} on {connection}: {reason}; ")?;
                if *failures > 1 {
                    write!(f, "{failures} times in a row; ")?;
                }
                write!(f, "asked for again in {pause}")
            }
            Self::Answer { connection, words } => write!(f, "{connection}: {words}"),
            Self::Refused { connection, reject, count: 1, sample } => {
                write!(f, "{connection}: message refused: {reject}: {sample}")
            }
            Self::Refused { connection, reject, count, sample } => {
                write!(f, "{connection}: {count} messages refused, the last: {reject}: {sample}")
            }
            Self::HoleOpened { symbol, hole } => {
                let count = hole.to - hole.from + 1;
                write!(f, "{symbol}: {count} trades missing, ids {} to {}: {}", hole.from, hole.to, hole.reason)
            }
            Self::HolesClosed { symbol } => write!(f, "{symbol}: no trade is missing any more"),
            Self::Shutdown { connection } => write!(f, "{connection}: the venue announces that it will close it"),
            Self::Reloaded { added: 0, removed: 0 } => f.write_str("reloaded: the same symbols"),
            Self::Reloaded { added, removed } => write!(f, "reloaded: {added} symbols added, {removed} removed"),
            Self::RestBlocked { words, pause } => write!(f, "rest: {words}; no call for {pause}"),
            Self::RestFailed { endpoint, words } => write!(f, "rest: {endpoint}: {words}"),
            Self::Statistics(statistics) => {
                for (at, line) in statistics.to_string().lines().enumerate() {
                    write!(f, "{}statistics: {line}", if at == 0 { "" } else { "\n" })?;
                }
                Ok(())
            }
            Self::Stopping => f.write_str("stopping"),
        }
    }
}

/// The notes that wait to be taken.
#[derive(Default)]
pub struct Notes {
    waiting: VecDeque<Stamped>,
    dropped: u64,
}

impl Notes {
    /// Adds a note.
    pub fn push(&mut self, at: Instant, utc: UtcMs, note: Note) {
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back(Stamped { at, utc, note });
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<Stamped> {
        self.waiting.pop_front()
    }

    /// How many were dropped because nobody took them.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
