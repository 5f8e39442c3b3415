//! Questions: path and query of each GET, and what it costs.

use crate::time::UtcMs;
use crate::wire::names::url_encoded;
use crate::wire::{Interval, Market};
use std::fmt::Write;

/// Most trades in one answer.
pub const AGG_TRADES_MAX: u16 = 1000;
/// Most candles in one answer of either market; USD-M alone would give 1500.
pub const KLINES_MAX: u16 = 1000;

/// Path and query of a GET, to be put behind the base address, and its price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Begins with `/`; names are percent-encoded.
    pub text: String,
    /// Request weight, taken by the venue even if the request is refused.
    pub weight: u32,
}

fn path(market: Market) -> &'static str {
    match market {
        Market::Usdm => "/fapi/v1/",
        Market::Spot => "/api/v3/",
    }
}

/// Trades from an id on (that id included), or the newest ones. `limit` is kept within 1 and [`AGG_TRADES_MAX`].
pub fn agg_trades_target(market: Market, symbol: &str, from_id: Option<i64>, limit: u16) -> Target {
    let (path, symbol, limit) = (path(market), url_encoded(symbol), limit.clamp(1, AGG_TRADES_MAX));
    let from = from_id.map_or_else(String::new, |id| format!("&fromId={id}"));
    let weight = match market {
        Market::Usdm => 20,
        Market::Spot => 4,
    };
    Target { text: format!("{path}aggTrades?symbol={symbol}{from}&limit={limit}"), weight }
}

/// Candles that open from `start` to `end`, both included and both open if absent; without a start, the newest ones.
/// `limit` is kept within 1 and [`KLINES_MAX`].
pub fn klines_target(
    market: Market,
    symbol: &str,
    interval: Interval,
    start: Option<UtcMs>,
    end: Option<UtcMs>,
    limit: u16,
) -> Target {
    let (path, symbol, limit) = (path(market), url_encoded(symbol), limit.clamp(1, KLINES_MAX));
    let mut text = format!("{path}klines?symbol={symbol}&interval={interval}");
    for (name, time) in [("startTime", start), ("endTime", end)] {
        if let Some(UtcMs(ms)) = time {
            // Writing to a String cannot fail.
            let _ = write!(text, "&{name}={ms}");
        }
    }
    let _ = write!(text, "&limit={limit}");
    // By what the venue takes, which is more than it documents at exactly 100 and 500.
    let weight = match (market, limit) {
        (Market::Spot, _) => 2,
        (Market::Usdm, ..=100) => 1,
        (Market::Usdm, ..=500) => 2,
        (Market::Usdm, _) => 5,
    };
    Target { text, weight }
}

/// Mark price and funding of one symbol. Spot has none: there the venue answers 404.
pub fn premium_index_target(market: Market, symbol: &str) -> Target {
    Target { text: format!("{}premiumIndex?symbol={}", path(market), url_encoded(symbol)), weight: 1 }
}

/// Everything listed. On spot without the lists of permissions, which are most of the answer and mean nothing here.
pub fn exchange_info_target(market: Market) -> Target {
    match market {
        Market::Usdm => Target { text: format!("{}exchangeInfo", path(market)), weight: 1 },
        Market::Spot => Target { text: format!("{}exchangeInfo?showPermissionSets=false", path(market)), weight: 20 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(target: Target, text: &str, weight: u32) {
        assert_eq!(target, Target { text: text.into(), weight });
    }

    #[test]
    fn questions_read_as_the_venue_documents_them() {
        use Market::{Spot, Usdm};
        is(agg_trades_target(Usdm, "BTCUSDT", None, 5000), "/fapi/v1/aggTrades?symbol=BTCUSDT&limit=1000", 20);
        is(
            agg_trades_target(Usdm, "币安人生USDT", Some(7), 0),
            "/fapi/v1/aggTrades?symbol=%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT&fromId=7&limit=1",
            20,
        );
        is(agg_trades_target(Spot, "BTCUSDT", Some(0), 2), "/api/v3/aggTrades?symbol=BTCUSDT&fromId=0&limit=2", 4);
        let klines = |market, limit| klines_target(market, "BTCUSDT", Interval::M1, None, None, limit);
        is(klines(Usdm, 100), "/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=100", 1);
        assert_eq!([101, 500, 501, 9000].map(|limit| klines(Usdm, limit).weight), [2, 2, 5, 5]);
        is(
            klines_target(Spot, "BTCUSDT", Interval::Mo1, Some(UtcMs(5)), Some(UtcMs(9)), 2),
            "/api/v3/klines?symbol=BTCUSDT&interval=1M&startTime=5&endTime=9&limit=2",
            2,
        );
        is(premium_index_target(Usdm, "BTCUSDT"), "/fapi/v1/premiumIndex?symbol=BTCUSDT", 1);
        is(exchange_info_target(Usdm), "/fapi/v1/exchangeInfo", 1);
        is(exchange_info_target(Spot), "/api/v3/exchangeInfo?showPermissionSets=false", 20);
    }
}
