//! The exchange's JSON, by format strings: what the wire looked like when it was captured, to the byte.

use super::books::{Mark, Print, quote_decimals};
use super::candles::Candle;
use super::setup::{Contract, Listing};
use crate::config::Market;
use crate::fixed::Fixed;
use crate::time::UtcMs;
use crate::wire::Interval;
use std::fmt::Write;

/// Decimals of every number on spot, and of every mark price.
const EIGHT: u8 = 8;

fn decimals(market: Market, listing: &Listing) -> (u8, u8, u8) {
    match market {
        Market::Usdm => (listing.price_decimals, listing.qty_decimals, quote_decimals(listing)),
        Market::Spot => (EIGHT, EIGHT, EIGHT),
    }
}

/// `aggTrade`
pub fn agg_trade(market: Market, listing: &Listing, print: &Print) -> String {
    let (price_decimals, qty_decimals, _) = decimals(market, listing);
    let (symbol, price) = (&listing.name, print.price.show(price_decimals));
    let (qty, plain) = (print.qty.show(qty_decimals), print.plain_qty.show(qty_decimals));
    let Print { id, first_id, last_id, trade_time, event_time, buyer_is_maker, .. } = print;
    let (trade_time, event_time) = (trade_time.0, event_time.0);
    match market {
        Market::Usdm => format!(
            r#"{{"e":"aggTrade","E":{event_time},"a":{id},"s":"{symbol}","p":"{price}","q":"{qty}","nq":"{plain}","f":{first_id},"l":{last_id},"T":{trade_time},"m":{buyer_is_maker},"st":1}}"#
        ),
        Market::Spot => format!(
            r#"{{"e":"aggTrade","E":{event_time},"s":"{symbol}","a":{id},"p":"{price}","q":"{qty}","f":{first_id},"l":{last_id},"T":{trade_time},"m":{buyer_is_maker},"M":true}}"#
        ),
    }
}

/// A row of REST aggTrades.
pub fn agg_trade_row(market: Market, listing: &Listing, print: &Print) -> String {
    let (price_decimals, qty_decimals, _) = decimals(market, listing);
    let price = print.price.show(price_decimals);
    let (qty, plain) = (print.qty.show(qty_decimals), print.plain_qty.show(qty_decimals));
    let Print { id, first_id, last_id, trade_time, buyer_is_maker, .. } = print;
    let trade_time = trade_time.0;
    match market {
        Market::Usdm => format!(
            r#"{{"a":{id},"p":"{price}","q":"{qty}","nq":"{plain}","f":{first_id},"l":{last_id},"T":{trade_time},"m":{buyer_is_maker}}}"#
        ),
        Market::Spot => format!(
            r#"{{"a":{id},"p":"{price}","q":"{qty}","f":{first_id},"l":{last_id},"T":{trade_time},"m":{buyer_is_maker},"M":true}}"#
        ),
    }
}

/// `markPriceUpdate`; `st` is 1 for USD-M, 2 for COIN-M.
pub fn mark_price(symbol: &str, mark: &Mark, st: u8) -> String {
    let (price, settle, index) = (mark.price.show(EIGHT), mark.settle.show(EIGHT), mark.index.show(EIGHT));
    let funding = mark.funding.map_or_else(String::new, |rate| rate.show(EIGHT).to_string());
    let (event_time, next) = (mark.event_time.0, mark.next_funding.0);
    format!(
        r#"{{"e":"markPriceUpdate","E":{event_time},"s":"{symbol}","p":"{price}","ap":"{price}","P":"{settle}","i":"{index}","r":"{funding}","T":{next},"st":{st}}}"#
    )
}

/// `kline`: on futures with blanks after the commas inside `k`.
pub fn kline(
    market: Market,
    listing: &Listing,
    interval: Interval,
    candle: &Candle,
    closed: bool,
    event_time: UtcMs,
) -> String {
    let (price_decimals, qty_decimals, quote_decimals) = decimals(market, listing);
    let symbol = &listing.name;
    let comma = match market {
        Market::Usdm => ", ",
        Market::Spot => ",",
    };
    let price = |price: Fixed| price.show(price_decimals);
    let mut text = format!(r#"{{"e":"kline","E":{},"s":"{symbol}","k":{{"t":{}"#, event_time.0, candle.open_time);
    // Writing to a String cannot fail.
    let mut put = |key: &str, value: std::fmt::Arguments<'_>| {
        let _ = write!(text, r#"{comma}"{key}":{value}"#);
    };
    put("T", format_args!("{}", candle.close_time));
    put("s", format_args!(r#""{symbol}""#));
    put("i", format_args!(r#""{interval}""#));
    put("f", format_args!("{}", candle.first_id));
    put("L", format_args!("{}", candle.last_id));
    put("o", format_args!(r#""{}""#, price(candle.open)));
    put("c", format_args!(r#""{}""#, price(candle.close)));
    put("h", format_args!(r#""{}""#, price(candle.high)));
    put("l", format_args!(r#""{}""#, price(candle.low)));
    put("v", format_args!(r#""{}""#, candle.volume.show(qty_decimals)));
    put("n", format_args!("{}", candle.trades));
    put("x", format_args!("{closed}"));
    put("q", format_args!(r#""{}""#, candle.quote_volume.show(quote_decimals)));
    put("V", format_args!(r#""{}""#, candle.taker_buy_volume.show(qty_decimals)));
    put("Q", format_args!(r#""{}""#, candle.taker_buy_quote_volume.show(quote_decimals)));
    put("B", format_args!(r#""0""#));
    text.push_str("}}");
    text
}

/// A row of REST klines.
pub fn kline_row(market: Market, listing: &Listing, candle: &Candle) -> String {
    let (price_decimals, qty_decimals, quote_decimals) = decimals(market, listing);
    format!(
        r#"[{},"{}","{}","{}","{}","{}",{},"{}",{},"{}","{}","0"]"#,
        candle.open_time,
        candle.open.show(price_decimals),
        candle.high.show(price_decimals),
        candle.low.show(price_decimals),
        candle.close.show(price_decimals),
        candle.volume.show(qty_decimals),
        candle.close_time,
        candle.quote_volume.show(quote_decimals),
        candle.trades,
        candle.taker_buy_volume.show(qty_decimals),
        candle.taker_buy_quote_volume.show(quote_decimals),
    )
}

/// A row of REST premiumIndex.
pub fn premium_index(symbol: &str, mark: &Mark) -> String {
    format!(
        r#"{{"symbol":"{symbol}","markPrice":"{}","indexPrice":"{}","estimatedSettlePrice":"{}","lastFundingRate":"{}","interestRate":"0.00010000","nextFundingTime":{},"time":{}}}"#,
        mark.price.show(EIGHT),
        mark.index.show(EIGHT),
        mark.settle.show(EIGHT),
        mark.funding.map_or_else(String::new, |rate| rate.show(EIGHT).to_string()),
        mark.next_funding.0,
        mark.event_time.0,
    )
}

/// A JSON array of texts.
pub fn array<T: AsRef<str>>(rows: impl IntoIterator<Item = T>) -> String {
    let mut text = String::from("[");
    for (index, row) in rows.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(row.as_ref());
    }
    text.push(']');
    text
}

/// A payload as `/stream` sends it.
pub fn combined(stream: &str, data: &str) -> String {
    format!(r#"{{"stream":"{stream}","data":{data}}}"#)
}

/// A reply; `id` as the request wrote it.
pub fn reply(result: &str, id: &str) -> String {
    format!(r#"{{"result":{result},"id":{id}}}"#)
}

/// An error without the request's id.
pub fn error_bare(code: i32, msg: &str) -> String {
    format!(r#"{{"code":{code},"msg":"{}"}}"#, escape(msg))
}

/// An error with the request's id.
pub fn error_with_id(code: i32, msg: &str, id: &str) -> String {
    format!(r#"{{"error":{},"id":{id}}}"#, error_bare(code, msg))
}

/// `serverShutdown`, bare.
pub fn server_shutdown(at: UtcMs) -> String {
    format!(r#"{{"e":"serverShutdown","E":{}}}"#, at.0)
}

/// REST `time`.
pub fn time(now: UtcMs) -> String {
    format!(r#"{{"serverTime":{}}}"#, now.0)
}

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
        out
    })
}

/// REST `exchangeInfo`.
pub fn exchange_info<'a>(
    market: Market,
    now: UtcMs,
    weight: u32,
    listings: impl IntoIterator<Item = &'a Listing>,
) -> String {
    let now = now.0;
    match market {
        Market::Usdm => format!(
            r#"{{"timezone":"UTC","serverTime":{now},"futuresType":"U_MARGINED","rateLimits":[{{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE","intervalNum":1,"limit":{weight}}},{{"rateLimitType":"ORDERS","interval":"MINUTE","intervalNum":1,"limit":1200}},{{"rateLimitType":"ORDERS","interval":"SECOND","intervalNum":10,"limit":300}}],"exchangeFilters":[],"assets":[{{"asset":"USDT","marginAvailable":true,"autoAssetExchange":"-10000"}}],"symbols":{}}}"#,
            array(listings.into_iter().map(futures_symbol)),
        ),
        Market::Spot => format!(
            r#"{{"timezone":"UTC","serverTime":{now},"rateLimits":[{{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE","intervalNum":1,"limit":{weight}}},{{"rateLimitType":"ORDERS","interval":"SECOND","intervalNum":10,"limit":100}},{{"rateLimitType":"ORDERS","interval":"DAY","intervalNum":1,"limit":200000}},{{"rateLimitType":"RAW_REQUESTS","interval":"MINUTE","intervalNum":5,"limit":61000}}],"exchangeFilters":[],"symbols":{}}}"#,
            array(listings.into_iter().map(spot_symbol)),
        ),
    }
}

fn assets(name: &str) -> (&str, &str) {
    let pair = name.split('_').next().unwrap_or(name);
    ["USDT", "USDC", "BTC", "ETH", "BNB"]
        .iter()
        .find_map(|quote| pair.strip_suffix(quote).filter(|base| !base.is_empty()).map(|base| (base, *quote)))
        .unwrap_or((pair, "USDT"))
}

fn futures_symbol(listing: &Listing) -> String {
    let Listing { name, price_decimals, qty_decimals, .. } = listing;
    let (base, quote) = assets(name);
    let pair = name.split('_').next().unwrap_or(name);
    let (contract, delivery, underlying) = match listing.contract {
        Contract::Perpetual { .. } => ("PERPETUAL", 4_133_404_800_000_i64, "COIN"),
        Contract::TradFi => ("TRADIFI_PERPETUAL", 4_133_404_800_000, "COMMODITY"),
        Contract::Dated => ("CURRENT_QUARTER", 1_798_185_600_000, "COIN"),
    };
    let (tick, step) = (listing.tick.show(*price_decimals), listing.step.show(*qty_decimals));
    let low = listing.tick.show(*price_decimals);
    let high = Fixed(listing.price.0.saturating_mul(20)).show(0);
    format!(
        r#"{{"symbol":"{name}","pair":"{pair}","contractType":"{contract}","deliveryDate":{delivery},"onboardDate":1567965300000,"status":"TRADING","maintMarginPercent":"2.5000","requiredMarginPercent":"5.0000","baseAsset":"{base}","quoteAsset":"{quote}","marginAsset":"{quote}","pricePrecision":{price_decimals},"quantityPrecision":{qty_decimals},"baseAssetPrecision":8,"quotePrecision":8,"underlyingType":"{underlying}","underlyingSubType":[],"triggerProtect":"0.0500","liquidationFee":"0.012500","marketTakeBound":"0.05","maxMoveOrderLimit":10000,"filters":[{{"filterType":"PRICE_FILTER","minPrice":"{low}","maxPrice":"{high}","tickSize":"{tick}"}},{{"filterType":"LOT_SIZE","minQty":"{step}","maxQty":"1000000","stepSize":"{step}"}},{{"filterType":"MARKET_LOT_SIZE","minQty":"{step}","maxQty":"100000","stepSize":"{step}"}},{{"filterType":"MAX_NUM_ORDERS","limit":200}},{{"filterType":"MIN_NOTIONAL","notional":"5"}},{{"filterType":"PERCENT_PRICE","multiplierUp":"1.0500","multiplierDown":"0.9500","multiplierDecimal":"4"}},{{"filterType":"POSITION_RISK_CONTROL","positionControlSide":"NONE"}}],"orderTypes":["LIMIT","MARKET","STOP","STOP_MARKET","TAKE_PROFIT","TAKE_PROFIT_MARKET","TRAILING_STOP_MARKET"],"timeInForce":["GTC","IOC","FOK","GTX","GTD"],"permissionSets":["GRID","COPY","DCA"]}}"#
    )
}

fn spot_symbol(listing: &Listing) -> String {
    let name = &listing.name;
    let (base, quote) = assets(name);
    let (tick, step) = (listing.tick.show(EIGHT), listing.step.show(EIGHT));
    let high = Fixed(listing.price.0.saturating_mul(20)).show(EIGHT);
    format!(
        r#"{{"symbol":"{name}","status":"TRADING","baseAsset":"{base}","baseAssetPrecision":8,"quoteAsset":"{quote}","quotePrecision":8,"quoteAssetPrecision":8,"baseCommissionPrecision":8,"quoteCommissionPrecision":8,"orderTypes":["LIMIT","LIMIT_MAKER","MARKET","STOP_LOSS","STOP_LOSS_LIMIT","TAKE_PROFIT","TAKE_PROFIT_LIMIT"],"icebergAllowed":true,"ocoAllowed":true,"otoAllowed":true,"quoteOrderQtyMarketAllowed":true,"allowTrailingStop":true,"cancelReplaceAllowed":true,"isSpotTradingAllowed":true,"isMarginTradingAllowed":true,"filters":[{{"filterType":"PRICE_FILTER","minPrice":"{tick}","maxPrice":"{high}","tickSize":"{tick}"}},{{"filterType":"LOT_SIZE","minQty":"{step}","maxQty":"9000000.00000000","stepSize":"{step}"}},{{"filterType":"NOTIONAL","minNotional":"5.00000000","applyMinToMarket":true,"maxNotional":"9000000.00000000","applyMaxToMarket":false,"avgPriceMins":5}},{{"filterType":"MAX_NUM_ORDERS","maxNumOrders":200}}],"permissions":[],"permissionSets":[["SPOT"]],"defaultSelfTradePreventionMode":"EXPIRE_MAKER","allowedSelfTradePreventionModes":["EXPIRE_TAKER","EXPIRE_MAKER","EXPIRE_BOTH"]}}"#
    )
}
