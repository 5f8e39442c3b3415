//! `exchangeInfo`: what is listed, with its grid.

use super::{Malformed, json, rows::narrow};
use crate::fixed::Fixed;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// One listed symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedSymbol {
    /// The venue's name.
    pub name: String,
    /// `TRADING`, `BREAK`, `SETTLING`, … : the venue's word.
    pub status: String,
    /// `PERPETUAL`, `CURRENT_QUARTER`, … : the venue's word; `None` on spot.
    pub contract_type: Option<String>,
    /// The asset that prices are in.
    pub quote: String,
    /// Step of prices, > 0; `None` where the venue sets none.
    pub tick: Option<Fixed>,
    /// Step of quantities, > 0; `None` where the venue sets none.
    pub step: Option<Fixed>,
}

#[derive(Deserialize)]
struct Info<'a> {
    #[serde(borrow)]
    symbols: Vec<Row<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    contract_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    quote_asset: Cow<'a, str>,
    #[serde(borrow)]
    filters: Vec<Filter<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter<'a> {
    #[serde(borrow)]
    filter_type: Cow<'a, str>,
    #[serde(borrow, default)]
    tick_size: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    step_size: Option<Cow<'a, str>>,
}

/// Everything listed, in the venue's order.
///
/// # Errors
/// [`Malformed`] if any row is, or a symbol is listed twice.
pub fn exchange_info(body: &[u8]) -> Result<Vec<ListedSymbol>, Malformed> {
    let info: Info<'_> = json(body, "an object with the listed symbols")?;
    let mut names = BTreeSet::new();
    let mut listed = Vec::with_capacity(info.symbols.len());
    for (at, row) in info.symbols.iter().enumerate() {
        if row.symbol.is_empty() || !names.insert(&*row.symbol) {
            return Err(Malformed::field(at, "symbol", "expected a name that is not listed before"));
        }
        listed.push(ListedSymbol {
            name: row.symbol.to_string(),
            status: row.status.to_string(),
            contract_type: row.contract_type.as_deref().map(str::to_owned),
            quote: row.quote_asset.to_string(),
            tick: step_of(row, at, "PRICE_FILTER", "tickSize", |filter| filter.tick_size.as_deref())?,
            step: step_of(row, at, "LOT_SIZE", "stepSize", |filter| filter.step_size.as_deref())?,
        });
    }
    Ok(listed)
}

/// The step in a filter of this type. Zero is how the venue says that there is none.
fn step_of<'r>(
    row: &'r Row<'_>,
    at: usize,
    kind: &str,
    field: &'static str,
    of: impl Fn(&'r Filter<'_>) -> Option<&'r str>,
) -> Result<Option<Fixed>, Malformed> {
    let Some(filter) = row.filters.iter().find(|filter| filter.filter_type == kind) else { return Ok(None) };
    let text = of(filter).ok_or_else(|| Malformed::field(at, field, format!("expected it in {kind}")))?;
    let (step, _) = narrow(text, at, field)?;
    if step < Fixed::ZERO {
        return Err(Malformed::field(at, field, "expected a step that is not negative"));
    }
    Ok(Some(step).filter(|step| *step != Fixed::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USDM: &str = r#"{"timezone":"UTC","serverTime":1,"rateLimits":[],"symbols":[
        {"symbol":"BTCUSDT","pair":"BTCUSDT","contractType":"PERPETUAL","status":"TRADING","quoteAsset":"USDT","filters":[
            {"filterType":"PRICE_FILTER","minPrice":"402","maxPrice":"1246396.60","tickSize":"0.10"},
            {"filterType":"LOT_SIZE","minQty":"0.001","maxQty":"1000","stepSize":"0.001"},
            {"filterType":"MARKET_LOT_SIZE","minQty":"0.001","maxQty":"1000","stepSize":"0.01"},
            {"filterType":"MAX_NUM_ORDERS","limit":200}]},
        {"symbol":"\u5e01USDT","contractType":"","status":"SETTLING","quoteAsset":"USDT","filters":[
            {"filterType":"PRICE_FILTER","tickSize":"0"}]}]}"#;

    #[test]
    fn what_is_listed_is_read_with_its_grid() {
        let listed = exchange_info(USDM.as_bytes()).unwrap();
        assert_eq!(
            listed[0],
            ListedSymbol {
                name: "BTCUSDT".into(),
                status: "TRADING".into(),
                contract_type: Some("PERPETUAL".into()),
                quote: "USDT".into(),
                tick: Some(Fixed(10_000_000)),
                step: Some(Fixed(100_000)),
            }
        );
        assert_eq!((listed[1].name.as_str(), listed[1].tick, listed[1].step), ("币USDT", None, None));
        let spot = r#"{"symbols":[{"symbol":"ETHBTC","status":"BREAK","baseAsset":"ETH","quoteAsset":"BTC","filters":[
            {"filterType":"LOT_SIZE","stepSize":"0.00010000"},{"filterType":"NOTIONAL","minNotional":"5"}]}]}"#;
        let listed = exchange_info(spot.as_bytes()).unwrap();
        assert_eq!((&listed[0].contract_type, listed[0].step), (&None, Some(Fixed(10_000))));
    }

    #[test]
    fn one_bad_row_refuses_all_and_is_named() {
        for (good, evil, words) in [
            ("\"tickSize\":\"0.10\"", "\"tickSize\":\"ten\"", "row 0, \"tickSize\": expected a plain decimal"),
            ("\"stepSize\":\"0.001\"", "\"stepSize\":\"-1\"", "row 0, \"stepSize\": expected a step"),
            (",\"tickSize\":\"0.10\"", "", "row 0, \"tickSize\": expected it in PRICE_FILTER"),
            (r"\u5e01USDT", "BTCUSDT", "row 1, \"symbol\": expected a name that is not listed before"),
            ("\"quoteAsset\":\"USDT\",", "", "missing field `quoteAsset`"),
            ("\"status\":\"TRADING\"", "\"status\":7", "invalid type: integer `7`"),
            ("]}]}", "]}]", "EOF while parsing"),
        ] {
            let text = USDM.replacen(good, evil, 1);
            let refused = exchange_info(text.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
        assert!(exchange_info(b"{\"code\":-1,\"msg\":\"x\"}").unwrap_err().to_string().contains("missing field"));
    }
}
