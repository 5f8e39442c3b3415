//! Which symbols: what the operator wants, held against what the venue lists.

use super::rest::{Answer, Ask, Failure};
use super::{Context, Engine};
use crate::config::Streams;
use crate::market::feed::Question;
use crate::note::Note;
use crate::time::{Instant, Now, Span, UtcMs};
use crate::wire::rest::{AGG_TRADES_MAX, ListedSymbol};
use crate::wire::{Kline, StreamKind, SymbolId};
use std::collections::BTreeSet;

/// The list is read again this often: new symbols may match a pattern.
const LIST_EVERY: Span = Span::from_secs(3_600);
/// After a failure; doubles up to the usual.
const LIST_AGAIN: Span = Span::from_secs(5);
/// Newest trades that are asked for, to see whether a silent symbol trades; they cost the same whatever their number.
const TRADES_ASKED: u16 = 200;
/// Names told in one line.
const NAMED: usize = 5;

/// What the operator wants, and when the venue's list is read next.
pub(super) struct Universe {
    pub(super) wanted: Streams,
    pub(super) list_at: Instant,
    failures: u32,
    /// Names that are subscribed to.
    names: BTreeSet<String>,
    /// What was said last: names that are not listed, and how many were left out.
    told: (Vec<String>, usize),
}

impl Universe {
    /// The list is read at once, beside everything else, if there is REST.
    pub(super) fn new(wanted: &Streams, has_rest: bool, now: Instant) -> Self {
        let list_at = if has_rest { now } else { Instant::FAR };
        Self {
            wanted: wanted.clone(),
            list_at,
            failures: 0,
            names: wanted.symbols.iter().cloned().collect(),
            told: (Vec::new(), 0),
        }
    }
}

impl Engine {
    /// Asks for the venue's list, if it is time.
    pub(super) fn refresh_list(&mut self, now: Instant) {
        if self.universe.list_at <= now && self.stopping.is_none() {
            self.universe.list_at = now + LIST_EVERY;
            if self.ask(Ask::ExchangeInfo).is_err() {
                self.list_again(now);
            }
        }
    }

    fn list_again(&mut self, now: Instant) {
        self.universe.failures += 1;
        let pause = LIST_AGAIN.times(1 << self.universe.failures.min(10)).min(LIST_EVERY);
        self.universe.list_at = now + pause;
    }

    /// The operator has changed his mind about the symbols.
    pub(super) fn on_reload(&mut self, wanted: Streams, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        let before = std::mem::replace(&mut self.universe.wanted, wanted);
        let wanted = &self.universe.wanted;
        let gone: Vec<String> = self.universe.names.iter().filter(|name| !wanted.want(name)).cloned().collect();
        let new: Vec<String> =
            wanted.symbols.iter().filter(|name| !self.universe.names.contains(*name)).cloned().collect();
        if before.patterns != wanted.patterns || !new.is_empty() {
            // What is new may be unknown to the venue, or may match more than what is known here.
            self.universe.list_at = self.universe.list_at.min(now.mono);
        }
        self.notes.push(now.mono, now.utc(), Note::Reloaded { added: new.len(), removed: gone.len() });
        self.drop_symbols(&gone, now);
        self.add_symbols(&new, now);
        self.refresh_list(now.mono);
    }

    fn drop_symbols(&mut self, names: &[String], now: Now) {
        let ids: Vec<SymbolId> = names.iter().filter_map(|name| self.market.symbols().find(name.as_bytes())).collect();
        let mut ctx = Context { now, market: &mut self.market, notes: &mut self.notes };
        self.feed.remove_symbols(&ids, &mut ctx);
        for id in ids {
            self.market.let_go(id);
        }
        for name in names {
            self.universe.names.remove(name);
        }
    }

    fn add_symbols(&mut self, names: &[String], now: Now) {
        let kinds = self.feed.kinds().to_vec();
        let ids: Vec<(SymbolId, &str)> =
            names.iter().filter_map(|name| Some((self.market.want(name, &kinds)?, name.as_str()))).collect();
        let mut ctx = Context { now, market: &mut self.market, notes: &mut self.notes };
        self.feed.add_symbols(&ids, &mut ctx);
        // A name for which the table of symbols has no room is not subscribed to.
        self.universe.names.extend(ids.iter().map(|(_, name)| (*name).to_owned()));
    }

    /// The venue's list has come: patterns are filled, and what it does not have is unknown.
    fn on_list(&mut self, listed: &[ListedSymbol], now: Now) {
        self.universe.failures = 0;
        let Streams { symbols, patterns, symbols_max, .. } = &self.universe.wanted;
        let matches = |name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        let mut matching: Vec<&str> = listed
            .iter()
            .filter(|row| row.status == TRADING && !symbols.contains(&row.name) && matches(&row.name))
            .map(|row| row.name.as_str())
            .collect();
        matching.sort_unstable();
        let room = symbols_max.saturating_sub(symbols.len());
        let left_out = matching.len().saturating_sub(room);
        matching.truncate(room);
        let new: Vec<String> = matching
            .iter()
            .filter(|name| !self.universe.names.contains(**name))
            .map(|name| (*name).to_owned())
            .collect();
        self.add_symbols(&new, now);
        let known: BTreeSet<&str> = listed.iter().map(|row| row.name.as_str()).collect();
        let mut unknown = Vec::new();
        for name in self.universe.names.clone() {
            let is_known = known.contains(name.as_str());
            if let Some(id) = self.market.symbols().find(name.as_bytes()) {
                let mut ctx = Context { now, market: &mut self.market, notes: &mut self.notes };
                self.feed.set_known(id, is_known, &mut ctx);
            }
            if !is_known {
                unknown.push(name);
            }
        }
        let news = !new.is_empty() || self.universe.told.1 != left_out || self.universe.told.0 != unknown;
        self.universe.told = (unknown.clone(), left_out);
        if news {
            let names = unknown.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(" ");
            let unknown = (names, unknown.len());
            let note = Note::Universe { wanted: self.universe.names.len(), added: new.len(), left_out, unknown };
            self.notes.push(now.mono, now.utc(), note);
        }
    }

    /// Takes the feed's questions to REST.
    pub(super) fn ask_feeds_questions(&mut self) {
        while let Some(question) = self.feed.poll_question() {
            let ask = match question {
                Question::Trades(symbol) => Ask::Trades { symbol, from_id: None, limit: TRADES_ASKED },
                Question::News(symbol, StreamKind::MarkPrice) => Ask::Premium { symbol },
                Question::News(symbol, StreamKind::AggTrade) => {
                    let newest = self.market.book(symbol).tape.as_ref().and_then(|tape| tape.newest_id());
                    Ask::Trades { symbol, from_id: newest.map(|id| id + 1), limit: AGG_TRADES_MAX }
                }
                Question::News(symbol, StreamKind::Kline(interval)) => {
                    Ask::Klines { symbol, interval, start: None, end: None, limit: 2 }
                }
            };
            // Full: it is asked again when it is due again.
            self.ask(ask).ok();
        }
    }

    /// What came of something that was asked of REST.
    pub(super) fn on_rest_outcome(&mut self, ask: Ask, result: Result<Answer, Failure>, now: Now) {
        match (ask, result) {
            (_, Ok(Answer::ExchangeInfo(listed))) => self.on_list(&listed, now),
            (ask, Ok(Answer::Trades(trades))) => {
                let Ask::Trades { symbol, from_id, .. } = ask else { return };
                let times: Vec<UtcMs> = trades.iter().map(|trade| trade.trade_time).collect();
                // The newest trades alone would leave a hole behind what is held.
                let tape = self.market.book(symbol).tape.as_ref();
                let goes_on = from_id.is_some() || tape.is_some_and(|tape| tape.newest_id().is_none());
                if goes_on && self.feed.is_polled(symbol, StreamKind::AggTrade) {
                    self.market.fill(&trades, now);
                }
                let mut ctx = Context { now, market: &mut self.market, notes: &mut self.notes };
                self.feed.testify_from_rest(symbol, &times, &mut ctx);
            }
            (_, Ok(Answer::Klines(klines))) => {
                let polled = |kline: &Kline| self.feed.is_polled(kline.symbol, StreamKind::Kline(kline.interval));
                if klines.first().is_some_and(polled) {
                    self.market.take_fetched_candles(&klines);
                }
            }
            (_, Ok(Answer::Premium(mark))) => {
                if self.feed.is_polled(mark.symbol, StreamKind::MarkPrice) {
                    self.market.take_fetched_mark(&mark, now);
                }
            }
            (ask, Err(failure)) => {
                if ask == Ask::ExchangeInfo {
                    self.list_again(now.mono);
                }
                let (endpoint, words) = (ask.endpoint().as_str(), failure.to_string());
                self.notes.push(now.mono, now.utc(), Note::RestFailed { endpoint, words });
            }
        }
    }
}

/// What the venue calls a symbol that trades.
const TRADING: &str = "TRADING";
