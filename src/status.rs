//! What the process says of itself: the body of `/status`, as plain data.
//!
//! The engine fills a [`Status`] between turns; another thread turns it into JSON and metrics. Numbers that money is
//! made of are [`Shown`]: exact decimal text. A part that is switched off is `None` or empty.

use crate::fixed::Shown;
use crate::time::UtcMs;
use serde::Serialize;
use std::collections::BTreeMap;

/// The whole document.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// When this was filled.
    pub now: UtcMs,
    /// Since the start.
    pub uptime_ms: u64,
    /// The verdict.
    pub health: Health,
    /// The loop.
    #[serde(rename = "loop")]
    pub turns: Turns,
    /// One row per connection.
    pub connections: Vec<Connection>,
    /// One row per stream.
    pub streams: Vec<Stream>,
    /// Sums over the streams.
    pub subscriptions: Subscriptions,
    /// What became of successors, by purpose.
    pub successions: Vec<Successions>,
    /// Both legs over all connections; empty without a second leg.
    pub legs: Vec<Leg>,
    /// One entry per symbol.
    pub symbols: BTreeMap<String, Symbol>,
    /// Order-flow plans; none yet.
    pub plans: Vec<serde_json::Value>,
    /// The signal client; off.
    pub signals: Option<serde_json::Value>,
    /// Waves; none.
    pub waves: Vec<serde_json::Value>,
    /// Positions; none.
    pub positions: Vec<serde_json::Value>,
    /// The store; off.
    pub store: Option<serde_json::Value>,
    /// The lanes of worker threads.
    pub workers: Workers,
    /// REST calls by endpoint and result; what never happened is absent.
    pub rest_requests: Vec<RestRequests>,
    /// Messages read by the general reader instead of the field scanner.
    pub decoder_fallbacks: u64,
    /// Log lines lost because nobody read them.
    pub log_lines_dropped: u64,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Everything wanted is proved.
    #[default]
    Healthy,
    /// Something is missing, something works.
    Degraded,
    /// Nothing works, or an outage has lasted.
    Unhealthy,
}

/// The verdict and why.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Health {
    /// The verdict.
    pub level: Level,
    /// Each names the stream, connection or part.
    pub reasons: Vec<String>,
}

/// The loop's own figures.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Turns {
    /// Turns since the start.
    pub turns: u64,
    /// Turns longer than `runtime.stall`.
    pub stalls: u64,
    /// The longest turn, sleep excluded.
    pub max_turn_us: u64,
    /// Turns by length, cumulative: at most 10 us, 100 us, 1 ms, 10 ms, 100 ms, any.
    pub turn_histogram: [u64; 6],
    /// Sum of all turns' lengths.
    pub turn_sum_us: u64,
}

/// One connection.
#[derive(Clone, Debug, Serialize)]
pub struct Connection {
    /// `market-N`
    pub name: String,
    /// `a` or `b`
    pub leg: &'static str,
    /// What it dials, without anything secret.
    pub url: String,
    /// `current|successor|side|retiring`; a retiring row's figures are in its successor's already.
    pub role: &'static str,
    /// Of a successor: `planned|announced|healing`; else null.
    pub purpose: Option<&'static str>,
    /// `backoff|resolving|connecting|tls|upgrading|open|closing`
    pub state: &'static str,
    /// Attempts begun.
    pub epoch: u64,
    /// Attempts begun under this name and leg, on whichever row.
    pub begun: u64,
    /// Tries since the last data.
    pub attempt: u32,
    /// Attempts that reached `open`.
    pub opened: u64,
    /// Attempts that ended before `open`.
    pub failed: u64,
    /// Messages received.
    pub frames: u64,
    /// Bytes received, TLS included.
    pub bytes: u64,
    /// Messages refused, and protocol violations.
    pub rejected: u64,
    /// The same by kind; kinds that never happened are absent.
    pub rejected_by: BTreeMap<&'static str, u64>,
    /// Ended attempts by the stage they ended in.
    pub failures_by_stage: BTreeMap<&'static str, u64>,
    /// Streams that this connection carries, and how many of them are live.
    pub streams: u32,
    /// See `streams`.
    pub live: u32,
    /// The address in use or tried last.
    pub address: Option<String>,
    /// Since the last byte; null when not connected.
    pub last_byte_age_ms: Option<u64>,
    /// Until it is replaced because of its age; null if never, or while a successor is under way.
    pub rotates_in_ms: Option<u64>,
    /// How it does against the other leg; null without a second leg and on rows that do not serve.
    pub race: Option<Race>,
    /// The newest ending.
    pub last_failure: Option<Failure>,
}

/// Two legs carry the same streams: how one of them does. Counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Race {
    /// Messages that it brought first.
    pub first: u64,
    /// Messages that the other leg had brought before.
    pub late: u64,
    /// Messages that only the other leg brought, while this one was live.
    pub lost: u64,
    /// Messages that came twice and were first here.
    pub leads: u64,
    /// Their mean lead over the other leg; null before any.
    pub lead_mean_us: Option<u64>,
    /// The longest lead.
    pub lead_max_us: u64,
    /// Sum of the leads.
    pub lead_sum_us: u64,
}

/// A leg over all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Leg {
    /// `a` or `b`
    pub leg: &'static str,
    /// How it does.
    #[serde(flatten)]
    pub race: Race,
}

/// What became of the successors of one purpose, since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Successions {
    /// `planned|announced|healing`
    pub purpose: &'static str,
    /// Began to connect.
    pub begun: u64,
    /// Proved themselves and took over.
    pub succeeded: u64,
    /// Could not, and the old connection stayed.
    pub failed: u64,
}

/// How an attempt or a connection ended.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// `resolve|tcp|tls|upgrade|ack|first_data|read|pong|close`
    pub stage: &'static str,
    /// The cause, for people.
    pub reason: String,
    /// The peer's close code, if it sent one.
    pub close_code: Option<u16>,
    /// Time spent in that stage.
    pub elapsed_ms: u64,
    /// When.
    pub at: UtcMs,
}

/// One stream.
#[derive(Clone, Debug, Serialize)]
pub struct Stream {
    /// `btcusdt@aggTrade`
    pub stream: String,
    /// The connection that carries it.
    pub connection: String,
    /// That connection's epoch.
    pub epoch: u64,
    /// `wanted|sent|acked|live|stale|failed`
    pub state: &'static str,
    /// Since its newest data, on whichever connection; null before any.
    pub last_data_age_ms: Option<u64>,
    /// Requests.
    pub attempts: u64,
    /// First data after a request.
    pub successes: u64,
    /// Entries into `failed` or `stale`.
    pub failures: u64,
    /// Attempts after a failure.
    pub retries: u64,
    /// Why it is not live, or why it is allowed not to be.
    pub reason: Option<String>,
    /// How often each step brought it back; steps that never did are absent.
    pub healed_by: BTreeMap<&'static str, u64>,
    /// Its runs, one per connection that carries it; absent if there is only one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Run>,
}

/// A stream on one connection.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The connection.
    pub connection: String,
    /// `a` or `b`
    pub leg: &'static str,
    /// The connection's epoch.
    pub epoch: u64,
    /// What the connection is there for, see [`Connection::role`].
    pub role: &'static str,
    /// `wanted|sent|acked|live|stale|failed`
    pub state: &'static str,
    /// Since its newest data there that was new by its own time; null before any.
    pub last_fresh_age_ms: Option<u64>,
    /// Why it is not live there, or why it is allowed not to be.
    pub reason: Option<String>,
}

/// Sums over the streams.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Subscriptions {
    /// See [`Stream::attempts`].
    pub attempts: u64,
    /// See [`Stream::successes`].
    pub successes: u64,
    /// See [`Stream::failures`].
    pub failures: u64,
    /// See [`Stream::retries`].
    pub retries: u64,
    /// 100·successes/(successes+failures), one decimal; null before any.
    pub success_rate: Option<f64>,
    /// Symbols with a stream `failed` or `stale` now.
    pub problem_symbols: Vec<String>,
    /// Streams by state.
    pub states: States,
    /// How often each step brought a stream back, since the start; steps that never did are absent.
    pub healed_by: BTreeMap<&'static str, u64>,
    /// Symbols with more than three failures since the start, and how many they are.
    pub often_failing: BTreeMap<String, u64>,
}

/// Streams by state. Those that are rightly silent are `quiet` here, and in no other count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct States {
    /// Not asked for on a connection that is open.
    pub wanted: u64,
    /// Asked for.
    pub sent: u64,
    /// Acknowledged, and waiting for data.
    pub acked: u64,
    /// Silent because nobody trades.
    pub quiet: u64,
    /// Delivering.
    pub live: u64,
    /// Lived, and silent for too long.
    pub stale: u64,
    /// Did not do what it should in its time.
    pub failed: u64,
}

impl States {
    /// All of them by name, the good ones first.
    pub const fn by_name(&self) -> [(&'static str, u64); 7] {
        [
            ("live", self.live),
            ("quiet", self.quiet),
            ("acked", self.acked),
            ("sent", self.sent),
            ("wanted", self.wanted),
            ("stale", self.stale),
            ("failed", self.failed),
        ]
    }

    /// How many streams there are.
    pub fn total(&self) -> u64 {
        self.by_name().iter().map(|(_, count)| count).sum()
    }
}

/// What is known of one symbol.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Symbol {
    /// The trade tape; null if not subscribed to.
    pub trades: Option<Trades>,
    /// The newest mark price; null before any.
    pub mark_price: Option<Mark>,
    /// By interval.
    pub candles: BTreeMap<&'static str, Candles>,
    /// Order flow; none yet.
    pub flow: Option<serde_json::Value>,
}

/// One trade ring.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Trades {
    /// Held.
    pub len: usize,
    /// Fit.
    pub capacity: usize,
    /// Oldest id held.
    pub first_id: Option<i64>,
    /// Newest id held.
    pub last_id: Option<i64>,
    /// Ids counted once each, as they were pushed.
    pub received: u64,
    /// Pushed again.
    pub duplicates: u64,
    /// Ids that came over REST.
    pub backfilled: u64,
    /// Ids known to be absent now.
    pub missing: u64,
    /// Where they are; open holes only.
    pub holes: Vec<Hole>,
}

/// Absent ids, both ends included.
#[derive(Clone, Debug, Serialize)]
pub struct Hole {
    /// First absent id.
    pub from: i64,
    /// Last absent id.
    pub to: i64,
    /// Why.
    pub reason: String,
}

/// The newest mark price.
#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    /// Quote per base.
    pub price: Shown,
    /// Quote per base.
    pub index_price: Shown,
    /// Fraction per funding interval; null for contracts without.
    pub funding_rate: Option<Shown>,
    /// Since it arrived; absent in a replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

/// One candle ring.
#[derive(Clone, Debug, Serialize)]
pub struct Candles {
    /// Held, the running one included.
    pub len: usize,
    /// Fit.
    pub capacity: usize,
    /// Closed ones held.
    pub closed: usize,
    /// Held, superseded, and never closed by the venue's own word.
    pub unclosed: usize,
    /// Pushes since the start.
    pub updates: u64,
    /// Open time of the newest; null before any.
    pub last_open: Option<UtcMs>,
    /// Last price of the newest; null before any.
    pub close: Option<Shown>,
}

/// The lanes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Workers {
    /// REST calls.
    pub rest: Lane,
    /// Name lookups.
    pub resolver: Lane,
    /// Alerts.
    pub alerts: Lane,
}

/// REST calls of one endpoint with one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RestRequests {
    /// The venue's name of it.
    pub endpoint: &'static str,
    /// `ok|refused|failed|timeout|overloaded`
    pub result: &'static str,
    /// How many.
    pub count: u64,
}

/// One lane of worker threads.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Lane {
    /// Waiting for a thread.
    pub queued: u64,
    /// Being worked on, hung ones included.
    pub in_flight: u64,
    /// Given up on.
    pub timeouts: u64,
}
