//! REST `exchangeInfo`: what is listed, with its grid.

use super::number::EIGHT;
use super::setup::{Contract, Listing};
use super::text::array;
use crate::config::Market;
use crate::fixed::Fixed;
use crate::time::UtcMs;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_symbols_are_listed_with_their_grid() {
        for market in [Market::Usdm, Market::Spot] {
            let info = exchange_info(market, UtcMs(5), 2400, &Listing::universe(market));
            let read: serde_json::Value = serde_json::from_str(&info).unwrap();
            assert_eq!(read["symbols"][0]["symbol"], "BTCUSDT");
            assert_eq!(read["symbols"][0]["filters"][0]["filterType"], "PRICE_FILTER");
        }
    }
}
