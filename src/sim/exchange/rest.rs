//! REST of the exchange: public market data, strict parameters, weights and bans.

use super::Exchange;
use super::books::{Book, Print};
use super::faults::Harm;
use super::ledger::Violation;
use super::rules::Occasion;
use super::venue::{RestAnswer, RestRequest};
use super::{info, request, text};
use crate::config::Market;
use crate::time::UtcMs;
use crate::wire::Interval;

const MINUTE_MS: i64 = 60_000;
const TWO_DAYS_MS: i64 = 48 * 60 * MINUTE_MS;
const TRADES_MAX: usize = 1000;

/// Weight used, and what follows from too much of it.
#[derive(Debug, Default)]
pub(super) struct Weights {
    /// Number of the UTC minute.
    minute: i64,
    used: u32,
    /// Requests refused in this minute.
    refused: u32,
    banned_until: i64,
}

/// Why a request gets an error: HTTP status, code, text.
type Bad = (u16, i32, String);

fn bad(code: i32, msg: impl Into<String>) -> Bad {
    (400, code, msg.into())
}

/// The parameters of a request, each to be asked for once.
struct Params {
    pairs: Vec<(String, String)>,
    read: usize,
}

impl Params {
    fn new(query: &str) -> Result<Self, Bad> {
        let pairs = request::query(query).ok_or_else(|| bad(-1100, "Illegal characters found in a parameter."))?;
        for (at, (name, _)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(other, _)| other == name) {
                return Err(bad(-1101, "Duplicate values for a parameter detected."));
            }
        }
        Ok(Self { pairs, read: 0 })
    }

    fn optional(&mut self, name: &str) -> Option<String> {
        let (_, value) = self.pairs.iter().find(|(known, _)| known == name)?;
        self.read += 1;
        Some(value.clone())
    }

    fn mandatory(&mut self, name: &str) -> Result<String, Bad> {
        self.optional(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            bad(-1102, format!("Mandatory parameter '{name}' was not sent, was empty/null, or malformed."))
        })
    }

    fn integer(&mut self, name: &str) -> Result<Option<i64>, Bad> {
        let Some(value) = self.optional(name) else { return Ok(None) };
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse() {
            Ok(number) if digits => Ok(Some(number)),
            _ => Err(bad(-1102, format!("Mandatory parameter '{name}' was not sent, was empty/null, or malformed."))),
        }
    }

    fn limit(&mut self, usual: usize, most: usize) -> Result<usize, Bad> {
        match self.integer("limit")?.map(usize::try_from) {
            None => Ok(usual),
            Some(Ok(limit)) if (1..=most).contains(&limit) => Ok(limit),
            Some(_) => Err(bad(-1130, "Data sent for parameter 'limit' is not valid.")),
        }
    }

    /// All that was sent must have been asked for.
    fn end(self) -> Result<(), Bad> {
        let (read, sent) = (self.read, self.pairs.len());
        if read == sent {
            return Ok(());
        }
        Err(bad(-1104, format!("Not all sent parameters were read; read '{read}' parameter(s) but was sent '{sent}'.")))
    }
}

impl Exchange {
    /// Answers a REST request.
    pub fn rest(&mut self, request: &RestRequest, utc: UtcMs) -> RestAnswer {
        self.advance(utc);
        self.ledger.rest_requests += 1;
        let path = request::percent_decode(&request.path).unwrap_or_default();
        if let Some((Harm::RestAnswer { status, retry_after_s, body }, _)) =
            self.rules.strike(Occasion::Rest, &path, 0, UtcMs(self.now))
        {
            let (status, body) = (*status, body.clone());
            let retry = retry_after_s.map(|seconds| ("retry-after".to_owned(), seconds.to_string()));
            return RestAnswer { status, headers: retry.into_iter().collect(), body };
        }
        if let Some(refusal) = self.over_weight(weight(&path, &request.query, self.config.market)) {
            return refusal;
        }
        let used = ("x-mbx-used-weight-1m".to_owned(), self.weights.used.to_string());
        match self.answer(request, &path) {
            Ok(body) => RestAnswer { status: 200, headers: vec![used], body },
            Err((status, code, msg)) => {
                self.ledger.violation(UtcMs(self.now), None, Violation::BadParameter);
                RestAnswer { status, headers: vec![used], body: text::error_bare(code, &msg) }
            }
        }
    }

    /// Takes the weight of a request; an answer if that was too much. A refused request has cost its weight, too.
    fn over_weight(&mut self, weight: u32) -> Option<RestAnswer> {
        let limits = self.config.limits;
        let minute = self.now.div_euclid(MINUTE_MS);
        if self.weights.minute != minute {
            (self.weights.minute, self.weights.used, self.weights.refused) = (minute, 0, 0);
        }
        self.weights.used = self.weights.used.saturating_add(weight);
        self.ledger.max_weight = self.ledger.max_weight.max(self.weights.used);
        let banned = self.now < self.weights.banned_until;
        if !banned && self.weights.used <= limits.weight_per_min {
            return None;
        }
        self.ledger.violation(UtcMs(self.now), None, Violation::OverWeight);
        self.weights.refused += 1;
        if !banned && self.weights.refused > limits.patience {
            self.weights.banned_until = self.now + limits.ban_ms;
        }
        let until = self.weights.banned_until;
        let (status, end, body) = if self.now < until {
            let msg = format!(
                "Way too many requests; IP banned until {until}. Please use the websocket for live updates to avoid bans."
            );
            (418, until, text::error_bare(-1003, &msg))
        } else {
            let msg = format!(
                "Too many requests; current limit of IP is {} requests per minute. Please use the websocket for live updates to avoid polling the API.",
                limits.weight_per_min
            );
            (429, (minute + 1) * MINUTE_MS, text::error_bare(-1003, &msg))
        };
        let mut headers = vec![("x-mbx-used-weight-1m".to_owned(), self.weights.used.to_string())];
        if self.config.retry_after {
            headers.push(("retry-after".to_owned(), ((end - self.now + 999) / 1000).max(1).to_string()));
        }
        Some(RestAnswer { status, headers, body })
    }

    fn answer(&self, request: &RestRequest, path: &str) -> Result<String, Bad> {
        let nowhere = || (404, -5000, format!("Path {path}, Method {} is invalid", request.method));
        let prefix = if self.spot() { "/api/v3/" } else { "/fapi/v1/" };
        let name = path.strip_prefix(prefix).filter(|_| request.method == "GET").ok_or_else(nowhere)?;
        let mut params = Params::new(&request.query)?;
        let body = match name {
            "ping" => "{}".to_owned(),
            "time" => text::time(UtcMs(self.now)),
            "exchangeInfo" => self.exchange_info(&mut params)?,
            "aggTrades" => self.agg_trades(&mut params)?,
            "klines" => self.klines(&mut params)?,
            "premiumIndex" if !self.spot() => self.premium_index(&mut params)?,
            _ => return Err(nowhere()),
        };
        params.end()?;
        Ok(body)
    }

    fn symbol(&self, params: &mut Params) -> Result<&Book, Bad> {
        let name = params.mandatory("symbol")?;
        self.books.book(&name).ok_or_else(|| bad(-1121, "Invalid symbol."))
    }

    fn exchange_info(&self, params: &mut Params) -> Result<String, Bad> {
        let weight = self.config.limits.weight_per_min;
        let info = |books: Vec<&Book>| {
            info::exchange_info(
                self.config.market,
                UtcMs(self.now),
                weight,
                books.into_iter().map(|book| &book.listing),
            )
        };
        if !self.spot() {
            return Ok(info(self.books.iter().collect()));
        }
        // The lists of permissions are empty here either way.
        if params.optional("showPermissionSets").is_some_and(|shown| !["true", "false"].contains(&shown.as_str())) {
            return Err(bad(-1100, "Illegal characters found in parameter 'showPermissionSets'."));
        }
        let mut names: Vec<String> = params.optional("symbol").into_iter().collect();
        if let Some(list) = params.optional("symbols") {
            names = serde_json::from_str(&list)
                .map_err(|_| bad(-1100, "Illegal characters found in parameter 'symbols'."))?;
        }
        if names.is_empty() {
            return Ok(info(self.books.iter().collect()));
        }
        let known = |name: &String| self.books.book(name).ok_or_else(|| bad(-1121, "Invalid symbol."));
        Ok(info(names.iter().map(known).collect::<Result<_, _>>()?))
    }

    fn agg_trades(&self, params: &mut Params) -> Result<String, Bad> {
        let book = self.symbol(params)?;
        let (from_id, from, to) = (params.integer("fromId")?, params.integer("startTime")?, params.integer("endTime")?);
        let limit = params.limit(500, TRADES_MAX)?;
        if from_id.is_some() && (from.is_some() || to.is_some()) {
            return Err(bad(-1128, "Combination of optional parameters invalid."));
        }
        if let (Some(from), Some(to)) = (from, to) {
            if from > to {
                return Err(bad(-1130, "Data sent for parameter 'startTime' is not valid."));
            }
            if !self.spot() && to - from > 60 * MINUTE_MS {
                return Err(bad(-1127, "More than 1 hours between startTime and endTime."));
            }
        }
        let now = self.market_now();
        let oldest = now - TWO_DAYS_MS;
        if !self.spot() && from.or(to).is_some_and(|time| time < oldest) {
            return Err(bad(-4166, "Search window is restricted to recent 2 days only."));
        }
        let visible = now - self.config.rest_lag_ms;
        let recorded = self.playback.is_some();
        let shown = |print: &&Print| {
            (recorded || print.event_time.0 <= visible) && (self.spot() || recorded || print.trade_time.0 >= oldest)
        };
        let prints: Vec<&Print> = match (from_id, from, to) {
            (Some(id), ..) => {
                let start = book.trades().partition_point(|print| print.id < id);
                let too_old = book.trades().get(start).is_some_and(|print| !recorded && print.trade_time.0 < oldest);
                if !self.spot() && too_old {
                    return Err(bad(-4166, "Search window is restricted to recent 2 days only."));
                }
                book.trades().range(start..).filter(shown).take(limit).collect()
            }
            (None, Some(from), to) => {
                let inside = |print: &&Print| to.is_none_or(|to| print.trade_time.0 <= to);
                let start = book.trades().partition_point(|print| print.trade_time.0 < from);
                book.trades().range(start..).filter(inside).filter(shown).take(limit).collect()
            }
            (None, None, to) => {
                let inside = |print: &&Print| to.is_none_or(|to| print.trade_time.0 <= to);
                let mut newest: Vec<&Print> =
                    book.trades().iter().rev().filter(inside).filter(shown).take(limit).collect();
                newest.reverse();
                newest
            }
        };
        let row = |print: &Print| text::agg_trade_row(self.config.market, &book.listing, print);
        Ok(text::array(prints.into_iter().map(row)))
    }

    fn klines(&self, params: &mut Params) -> Result<String, Bad> {
        let book = self.symbol(params)?;
        let interval = params.mandatory("interval")?;
        let interval = Interval::parse(interval.as_bytes())
            .filter(|interval| self.spot() || *interval != Interval::S1)
            .ok_or_else(|| bad(-1120, "Invalid interval."))?;
        let (from, to) = (params.integer("startTime")?, params.integer("endTime")?);
        let limit = params.limit(500, if self.spot() { 1000 } else { 1500 })?;
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            return Err(bad(-1130, "Data sent for parameter 'startTime' is not valid."));
        }
        let end = to.unwrap_or(i64::MAX).min(self.market_now());
        // A candle belongs to the answer if it opens at or after the start.
        let mut rows = book.candles.range(interval, from.unwrap_or(i64::MIN), end);
        rows.retain(|candle| from.is_none_or(|from| candle.open_time >= from));
        if from.is_some() {
            rows.truncate(limit);
        } else {
            rows.drain(..rows.len().saturating_sub(limit));
        }
        let row = |candle: &_| text::kline_row(self.config.market, &book.listing, candle);
        Ok(text::array(rows.iter().map(row)))
    }

    fn premium_index(&self, params: &mut Params) -> Result<String, Bad> {
        let row = |book: &Book| book.mark.map(|mark| text::premium_index(&book.listing.name, &mark));
        match params.optional("symbol") {
            Some(name) => {
                let book = self.books.book(&name).ok_or_else(|| bad(-1121, "Invalid symbol."))?;
                row(book).ok_or_else(|| bad(-1121, "Invalid symbol."))
            }
            None => Ok(text::array(self.books.iter().filter_map(row))),
        }
    }
}

/// What a request costs, good or bad.
fn weight(path: &str, query: &str, market: Market) -> u32 {
    let value = |name: &str| query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name));
    let spot = market == Market::Spot;
    match path.rsplit('/').next() {
        Some("aggTrades") => {
            if spot {
                4
            } else {
                20
            }
        }
        Some("klines") if spot => 2,
        Some("klines") => match value("limit").and_then(|(_, limit)| limit.parse::<u32>().ok()) {
            Some(..=100) => 1,
            Some(101..=500) => 2,
            Some(501..=1000) | None => 5,
            Some(_) => 10,
        },
        Some("exchangeInfo") if spot => 20,
        Some("premiumIndex") if value("symbol").is_none() => 10,
        _ => 1,
    }
}
