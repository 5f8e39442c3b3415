//! The desk where REST is asked: a bounded queue, a budget of request weight, and silence while the venue forbids.
//!
//! Whoever needs something puts an [`Ask`] on the desk and gets its outcome later, exactly one each. The desk decides
//! when it is sent: at most four at once, each with a total deadline, never beyond the budget, and after a
//! 429 or 418 not at all until the time that the venue names.

mod budget;
mod outcome;

pub use outcome::{Answer, Failure, ResultKind};

use super::port::{GetFailure, Job, JobId, Reply, Response};
use crate::config::{Config, Url};
use crate::time::{Instant, Now, Span, UtcMs};
use crate::wire::rest::{self, Target};
use crate::wire::{Interval, Market, SymbolId, Symbols};
use budget::Budget;
use std::collections::VecDeque;

/// Calls under way at once: as many as the lane has threads.
const IN_FLIGHT_MAX: usize = 4;
/// Asks that may wait.
const WAITING_MAX: usize = 256;
/// Silence after a 429 or 418 that does not say how long.
const BLOCKED_USUALLY: Span = Span::from_secs(60);
/// The least silence after one, and the most: the venue's longest ban. A wall clock that is off must not make it either
/// nothing or for ever.
const BLOCKED_MIN: Span = Span::from_secs(1);
const BLOCKED_MAX: Span = Span::from_secs(3 * 24 * 3600);

/// Something to be asked of REST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Aggregated trades.
    Trades {
        /// Of which symbol.
        symbol: SymbolId,
        /// From this id on, it included; without one, the newest.
        from_id: Option<i64>,
        /// At most so many, up to [`rest::AGG_TRADES_MAX`].
        limit: u16,
    },
    /// Candles.
    Klines {
        /// Of which symbol.
        symbol: SymbolId,
        /// How long each is.
        interval: Interval,
        /// The first to open then or later; without one, the newest.
        start: Option<UtcMs>,
        /// The last to open then or earlier.
        end: Option<UtcMs>,
        /// At most so many, up to [`rest::KLINES_MAX`].
        limit: u16,
    },
    /// Mark price and funding; not on spot.
    Premium {
        /// Of which symbol.
        symbol: SymbolId,
    },
    /// What is listed.
    ExchangeInfo,
}

/// The venue's endpoints, as labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `aggTrades`
    AggTrades,
    /// `klines`
    Klines,
    /// `premiumIndex`
    PremiumIndex,
    /// `exchangeInfo`
    ExchangeInfo,
}

impl Endpoint {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 4] = [Self::AggTrades, Self::Klines, Self::PremiumIndex, Self::ExchangeInfo];

    /// The venue's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AggTrades => "aggTrades",
            Self::Klines => "klines",
            Self::PremiumIndex => "premiumIndex",
            Self::ExchangeInfo => "exchangeInfo",
        }
    }
}

impl Ask {
    /// Where it is asked.
    pub const fn endpoint(&self) -> Endpoint {
        match self {
            Self::Trades { .. } => Endpoint::AggTrades,
            Self::Klines { .. } => Endpoint::Klines,
            Self::Premium { .. } => Endpoint::PremiumIndex,
            Self::ExchangeInfo => Endpoint::ExchangeInfo,
        }
    }

    fn target(&self, market: Market, symbols: &Symbols) -> Target {
        match *self {
            Self::Trades { symbol, from_id, limit } => {
                rest::agg_trades_target(market, symbols.name(symbol), from_id, limit)
            }
            Self::Klines { symbol, interval, start, end, limit } => {
                rest::klines_target(market, symbols.name(symbol), interval, start, end, limit)
            }
            Self::Premium { symbol } => rest::premium_index_target(market, symbols.name(symbol)),
            Self::ExchangeInfo => rest::exchange_info_target(market),
        }
    }

    fn read(&self, body: &[u8], symbols: &Symbols, now: UtcMs) -> Result<Answer, rest::Malformed> {
        match *self {
            Self::Trades { symbol, from_id, limit } => {
                rest::agg_trades(body, symbol, from_id, limit.clamp(1, rest::AGG_TRADES_MAX)).map(Answer::Trades)
            }
            Self::Klines { symbol, interval, start, end, limit } => {
                let limit = limit.clamp(1, rest::KLINES_MAX);
                rest::klines(body, (symbol, interval), (start, end), limit, now).map(Answer::Klines)
            }
            Self::Premium { symbol } => rest::premium_index(body, symbol, symbols.name(symbol)).map(Answer::Premium),
            Self::ExchangeInfo => rest::exchange_info(body).map(Answer::ExchangeInfo),
        }
    }
}

/// Why something cannot even be put on the desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAsked {
    /// There is no REST address, or the process is stopping.
    Unavailable,
    /// Too much waits already; counted as `overloaded`.
    Full,
}

/// A call under way.
struct Call {
    id: JobId,
    ask: Ask,
    weight: u32,
    deadline: Instant,
}

/// An ask that waits for its turn.
struct Waiting {
    ask: Ask,
    target: Target,
}

/// A job for the lane.
#[derive(Debug)]
pub struct Work {
    /// What to do.
    pub job: Job,
    /// When nobody waits for it any more.
    pub deadline: Instant,
}

/// The venue forbids further calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Until when.
    pub until: Instant,
    /// The status that said so, and the venue's words.
    pub words: String,
}

/// The desk.
pub struct RestDesk {
    base: Option<Url>,
    market: Market,
    patience: Span,
    waiting: VecDeque<Waiting>,
    calls: Vec<Call>,
    outcomes: VecDeque<(Ask, Result<Answer, Failure>)>,
    budget: Budget,
    blocked_until: Instant,
    news: Option<Block>,
    /// Not before this is there anything to do: to be found out at every change, so that asking for it costs nothing.
    wake: Instant,
    counts: [[u64; ResultKind::ALL.len()]; Endpoint::ALL.len()],
}

impl RestDesk {
    /// A desk for this venue.
    pub fn new(config: &Config) -> Self {
        Self {
            base: config.exchange.rest.clone(),
            market: config.exchange.market,
            patience: config.deadlines.rest,
            waiting: VecDeque::new(),
            calls: Vec::new(),
            outcomes: VecDeque::new(),
            budget: Budget::new(config.exchange.market),
            blocked_until: Instant::ZERO,
            news: None,
            wake: Instant::FAR,
            counts: Default::default(),
        }
    }

    /// True if anything can be asked at all.
    pub fn is_available(&self) -> bool {
        self.base.is_some()
    }

    /// Puts something on the desk. Its outcome comes out of [`poll_outcome`](Self::poll_outcome), however long the
    /// venue forbids calls.
    ///
    /// # Errors
    /// There is no REST, or the desk is full; then there will be no outcome.
    pub fn ask(&mut self, ask: Ask, symbols: &Symbols) -> Result<(), NotAsked> {
        if self.base.is_none() {
            return Err(NotAsked::Unavailable);
        }
        if self.waiting.len() >= WAITING_MAX {
            self.count(&ask, ResultKind::Overloaded);
            return Err(NotAsked::Full);
        }
        self.waiting.push_back(Waiting { ask, target: ask.target(self.market, symbols) });
        self.set_wake();
        Ok(())
    }

    /// Nothing more is asked; what is under way is forgotten.
    pub fn stop(&mut self) {
        self.base = None;
        self.waiting.clear();
        self.calls.clear();
        self.set_wake();
    }

    /// Nothing waits, nothing is under way, nothing is to be told.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.calls.is_empty() && self.outcomes.is_empty()
    }

    /// The next call that may go now, which will be answered under `id`.
    pub fn poll_work(&mut self, id: JobId, now: Instant) -> Option<Work> {
        if now < self.wake || now < self.next_call_at()? {
            return None;
        }
        let (base, Waiting { ask, target }) = (self.base.as_ref()?, self.waiting.pop_front()?);
        let job = Job::Get { base: base.clone(), target: target.text };
        let deadline = now + self.patience;
        self.budget.spend(target.weight, now);
        self.calls.push(Call { id, ask, weight: target.weight, deadline });
        self.set_wake();
        Some(Work { job, deadline })
    }

    /// When the first of those that wait may go; `None` before another call has ended.
    fn next_call_at(&self) -> Option<Instant> {
        let next = self.waiting.front().filter(|_| self.calls.len() < IN_FLIGHT_MAX)?;
        Some(self.blocked_until.max(self.budget.free_at(next.target.weight)))
    }

    fn set_wake(&mut self) {
        let called_off = self.calls.iter().map(|call| call.deadline);
        self.wake = called_off.chain(self.next_call_at()).fold(Instant::FAR, Instant::min);
    }

    /// A lane answered. A job that is not known here, or not any more, is somebody else's or too late, and is ignored.
    pub fn handle_reply(&mut self, id: JobId, reply: Reply, symbols: &Symbols, now: Now) {
        let Some(at) = self.calls.iter().position(|call| call.id == id) else { return };
        let call = self.calls.swap_remove(at);
        let unsent = matches!(reply, Reply::Overloaded | Reply::Got(Err(GetFailure { sent: false, .. })));
        if unsent {
            self.budget.refund(call.weight);
        }
        let outcome = match reply {
            Reply::Got(Ok(response)) => self.judge(&call.ask, &response, symbols, now),
            // The lane's own clock may have called it off a moment before ours would have.
            Reply::Got(Err(_)) if now.mono >= call.deadline => Err(Failure::Timeout(self.patience)),
            Reply::Got(Err(failure)) => Err(Failure::Failed(failure.words)),
            Reply::Overloaded => Err(Failure::Overloaded),
            Reply::Resolved(_) => Err(Failure::Failed("the lane answered something else".to_owned())),
        };
        self.settle(call.ask, outcome);
        self.set_wake();
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(at) = self.calls.iter().position(|call| call.deadline <= now) {
            let call = self.calls.remove(at);
            self.settle(call.ask, Err(Failure::Timeout(self.patience)));
            self.set_wake();
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) or [`poll_work`](Self::poll_work) is to be called at the latest.
    pub fn deadline(&self) -> Instant {
        self.wake
    }

    /// What became of something, oldest first.
    pub fn poll_outcome(&mut self) -> Option<(Ask, Result<Answer, Failure>)> {
        self.outcomes.pop_front()
    }

    /// That the venue forbids further calls, said once each time.
    pub fn poll_block(&mut self) -> Option<Block> {
        self.news.take()
    }

    /// No call goes before this.
    pub fn blocked_until(&self) -> Instant {
        self.blocked_until
    }

    /// Calls by endpoint and result.
    pub fn counts(&self) -> impl Iterator<Item = (Endpoint, ResultKind, u64)> {
        Endpoint::ALL.into_iter().zip(self.counts).flat_map(|(endpoint, counts)| {
            ResultKind::ALL.into_iter().zip(counts).map(move |(kind, count)| (endpoint, kind, count))
        })
    }

    fn judge(&mut self, ask: &Ask, response: &Response, symbols: &Symbols, now: Now) -> Result<Answer, Failure> {
        if let Some(used) = response.used_weight {
            let uncounted = self.calls.iter().map(|call| call.weight).sum();
            self.budget.report(used, uncounted, now.mono);
        }
        if response.status == 200 {
            return ask.read(&response.body, symbols, now.utc()).map_err(Failure::Malformed);
        }
        let error = rest::venue_error(&response.body);
        let refused = Failure::Refused { status: response.status, error: error.clone() };
        if matches!(response.status, 418 | 429) {
            let named = error.and_then(|error| error.banned_until);
            let named = named.and_then(|until| u64::try_from(until.0 - now.utc().0).ok()).map(Span::from_ms);
            let silence = response.retry_after.or(named).unwrap_or(BLOCKED_USUALLY);
            let until = now.mono + silence.clamp(BLOCKED_MIN, BLOCKED_MAX);
            if until > self.blocked_until {
                self.blocked_until = until;
                self.news = Some(Block { until, words: refused.to_string() });
            }
        }
        Err(refused)
    }

    fn settle(&mut self, ask: Ask, outcome: Result<Answer, Failure>) {
        self.count(&ask, outcome.as_ref().map_or_else(Failure::kind, |_| ResultKind::Ok));
        self.outcomes.push_back((ask, outcome));
    }

    fn count(&mut self, ask: &Ask, kind: ResultKind) {
        self.counts[ask.endpoint() as usize][kind as usize] += 1;
    }
}

#[cfg(test)]
mod tests;
