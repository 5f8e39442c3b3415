//! Answers with rows: trades, candles, mark prices. They end in the checks that pushed events have to pass, too.

use super::{Malformed, json};
use crate::fixed::{self, Fixed, Wide};
use crate::time::UtcMs;
use crate::wire::market::rules;
use crate::wire::{AggTrade, Interval, Kline, MarkPrice, SymbolId};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;

/// One aggregated trade as REST tells it: what was pushed, without the time of the push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastTrade {
    /// Whose trade: the symbol that was asked for, which the row does not name.
    pub symbol: SymbolId,
    /// Aggregate id (`a`).
    pub id: i64,
    /// Price (`p`), quote per base, > 0.
    pub price: Fixed,
    /// Base quantity (`q`), > 0.
    pub qty: Fixed,
    /// First raw trade id inside (`f`).
    pub first_id: i64,
    /// Last raw trade id inside (`l`), not before the first.
    pub last_id: i64,
    /// Time of the first fill (`T`).
    pub trade_time: UtcMs,
    /// True when the aggressor sold (`m`).
    pub buyer_is_maker: bool,
    /// Decimals of the price's text, to print it as the venue does.
    pub price_decimals: u8,
    /// Decimals of the quantity's text.
    pub qty_decimals: u8,
}

/// The trades of an answer that was asked for `from_id` on, at most `limit` of them. Ids rise; holes among them are the
/// caller's to see.
///
/// # Errors
/// [`Malformed`] if any row is, or was not asked for.
pub fn agg_trades(
    body: &[u8],
    symbol: SymbolId,
    from_id: Option<i64>,
    limit: u16,
) -> Result<Vec<PastTrade>, Malformed> {
    #[derive(Deserialize)]
    struct Row<'a> {
        a: i64,
        p: &'a str,
        q: &'a str,
        f: i64,
        l: i64,
        #[serde(rename = "T")]
        time: i64,
        m: bool,
    }
    let rows: Vec<Row<'_>> = json(body, "an array of trades")?;
    at_most(rows.len(), limit)?;
    let mut trades: Vec<PastTrade> = Vec::with_capacity(rows.len());
    for (at, row) in rows.iter().enumerate() {
        let (price, price_decimals) = narrow(row.p, at, "p")?;
        let (qty, qty_decimals) = narrow(row.q, at, "q")?;
        let trade_time = time(row.time, at, "T")?;
        let pushed = AggTrade {
            symbol,
            id: row.a,
            price,
            qty,
            first_id: row.f,
            last_id: row.l,
            trade_time,
            event_time: trade_time,
            buyer_is_maker: row.m,
            price_decimals,
            qty_decimals,
        };
        rules::trade(&pushed).map_err(|reject| Malformed::rule(at, reject, |key| key))?;
        if let Some(from) = from_id.filter(|from| row.a < *from) {
            return Err(Malformed::field(at, "a", format!("expected ids from {from} on, got {}", row.a)));
        }
        if let Some(last) = trades.last().filter(|last| last.id >= row.a) {
            return Err(Malformed::field(at, "a", format!("expected an id above {}, got {}", last.id, row.a)));
        }
        trades.push(PastTrade {
            symbol,
            id: row.a,
            price,
            qty,
            first_id: row.f,
            last_id: row.l,
            trade_time,
            buyer_is_maker: row.m,
            price_decimals,
            qty_decimals,
        });
    }
    Ok(trades)
}

/// Open, high, low, close and volume lie between open and close time; behind them quote volume, number of trades, the
/// takers' two volumes and one value without a meaning.
type KlineRow<'a> = (i64, &'a str, &'a str, &'a str, &'a str, &'a str, i64, &'a str, i64, &'a str, &'a str, IgnoredAny);

/// The candles of an answer, oldest first, asked for by open time from `start` to `end`, at most `limit` of them.
///
/// A row does not say whether its candle is closed: it is if its close time lies before `now`, which should be behind
/// the venue's clock rather than ahead of it. `now` stands for the event's time, too, and the raw trade ids, which REST
/// does not give, are -1.
///
/// # Errors
/// [`Malformed`] if any row is, or was not asked for.
pub fn klines(
    body: &[u8],
    (symbol, interval): (SymbolId, Interval),
    (start, end): (Option<UtcMs>, Option<UtcMs>),
    limit: u16,
    now: UtcMs,
) -> Result<Vec<Kline>, Malformed> {
    let rows: Vec<KlineRow<'_>> = json(body, "an array of candles, each an array of 12")?;
    at_most(rows.len(), limit)?;
    let mut candles: Vec<Kline> = Vec::with_capacity(rows.len());
    for (at, row) in rows.iter().enumerate() {
        let (open, high, low, close, volume) = (row.1, row.2, row.3, row.4, row.5);
        let (close, price_decimals) = narrow(close, at, "close")?;
        let (volume, qty_decimals) = wide(volume, at, "volume")?;
        let close_time = time(row.6, at, "close time")?;
        let kline = Kline {
            symbol,
            interval,
            open_time: time(row.0, at, "open time")?,
            close_time,
            open: narrow(open, at, "open")?.0,
            high: narrow(high, at, "high")?.0,
            low: narrow(low, at, "low")?.0,
            close,
            volume,
            quote_volume: wide(row.7, at, "quote volume")?.0,
            taker_buy_volume: wide(row.9, at, "taker buy volume")?.0,
            taker_buy_quote_volume: wide(row.10, at, "taker buy quote volume")?.0,
            trades: row.8,
            first_id: -1,
            last_id: -1,
            closed: close_time < now,
            event_time: now,
            price_decimals,
            qty_decimals,
        };
        rules::kline(&kline).map_err(|reject| Malformed::rule(at, reject, kline_field))?;
        on_the_grid(&kline, at)?;
        let open = kline.open_time;
        if start.is_some_and(|start| open < start) || end.is_some_and(|end| open > end) {
            return Err(Malformed::field(at, "open time", format!("expected a time that was asked for, got {open}")));
        }
        if let Some(last) = candles.last().filter(|last| last.open_time >= open) {
            let expected = format!("expected a time after {}, got {open}", last.open_time);
            return Err(Malformed::field(at, "open time", expected));
        }
        candles.push(kline);
    }
    Ok(candles)
}

/// Candles of up to a day begin at multiples of their length and fill it; longer ones follow the calendar.
fn on_the_grid(kline: &Kline, at: usize) -> Result<(), Malformed> {
    let millis = kline.interval.millis();
    if millis > Interval::D1.millis() {
        return Ok(());
    }
    if kline.open_time.0 % millis != 0 {
        return Err(Malformed::field(at, "open time", format!("expected a multiple of {}", kline.interval)));
    }
    if kline.close_time.0 != kline.open_time.0 + millis - 1 {
        return Err(Malformed::field(at, "close time", format!("expected the end of {}", kline.interval)));
    }
    Ok(())
}

fn kline_field(key: &'static str) -> &'static str {
    match key {
        "T" => "close time",
        "o" => "open",
        "h" => "high",
        "l" => "low",
        "c" => "close",
        "v" => "volume",
        "q" => "quote volume",
        "V" => "taker buy volume",
        "Q" => "taker buy quote volume",
        "n" => "trades",
        other => other,
    }
}

/// The mark price of the one symbol that was asked for.
///
/// # Errors
/// [`Malformed`] if the answer is, or speaks of another symbol.
pub fn premium_index(body: &[u8], symbol: SymbolId, name: &str) -> Result<MarkPrice, Malformed> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        #[serde(borrow)]
        symbol: Cow<'a, str>,
        mark_price: &'a str,
        index_price: &'a str,
        #[serde(default)]
        estimated_settle_price: &'a str,
        last_funding_rate: &'a str,
        next_funding_time: i64,
        time: i64,
    }
    let row: Row<'_> = json(body, "the mark price of one symbol")?;
    if row.symbol != name {
        return Err(Malformed::field(0, "symbol", format!("expected {name}")));
    }
    let given = |text: &str, field| match text {
        "" => Ok(None),
        text => narrow(text, 0, field).map(|(number, _)| Some(number)),
    };
    let mark = MarkPrice {
        symbol,
        price: narrow(row.mark_price, 0, "markPrice")?.0,
        index_price: narrow(row.index_price, 0, "indexPrice")?.0,
        // zero is how the venue says that there is none
        settle_price: given(row.estimated_settle_price, "estimatedSettlePrice")?.filter(|price| *price != Fixed::ZERO),
        funding_rate: given(row.last_funding_rate, "lastFundingRate")?,
        next_funding: match row.next_funding_time {
            0 => None,
            ms => Some(time(ms, 0, "nextFundingTime")?),
        },
        event_time: time(row.time, 0, "time")?,
    };
    rules::mark(&mark).map_err(|reject| {
        Malformed::rule(0, reject, |key| match key {
            "p" => "markPrice",
            "i" => "indexPrice",
            "P" => "estimatedSettlePrice",
            other => other,
        })
    })?;
    Ok(mark)
}

fn at_most(rows: usize, limit: u16) -> Result<(), Malformed> {
    if rows <= usize::from(limit) {
        return Ok(());
    }
    Err(Malformed::answer(format!("expected at most {limit} rows, got {rows}")))
}

fn time(ms: i64, row: usize, field: &'static str) -> Result<UtcMs, Malformed> {
    rules::time(ms, field).map_err(|_| Malformed::field(row, field, "expected milliseconds of this century"))
}

fn parsed(text: &str, row: usize, field: &'static str) -> Result<fixed::Parsed, Malformed> {
    let fault = |fault| Malformed::field(row, field, format!("expected a plain decimal number: {fault}"));
    fixed::parse(text.as_bytes()).map_err(fault)
}

fn wide(text: &str, row: usize, field: &'static str) -> Result<(Wide, u8), Malformed> {
    parsed(text, row, field).map(|number| (Wide(number.units), number.decimals))
}

pub(super) fn narrow(text: &str, row: usize, field: &'static str) -> Result<(Fixed, u8), Malformed> {
    let number = parsed(text, row, field)?;
    let units = i64::try_from(number.units).map_err(|_| Malformed::field(row, field, "number out of range"))?;
    Ok((Fixed(units), number.decimals))
}

#[cfg(test)]
mod tests;
