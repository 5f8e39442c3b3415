//! Rows in the venue's shape, typed by hand, and what is refused of them.

use super::*;

const BTC: SymbolId = SymbolId(3);
const TRADES: &str = r#"[{"a":26129,"p":"0.01633102","q":"4.70443515","nq":"4.7","f":27781,"l":27781,"T":1498793709153,"m":true},
    {"T":1498793709154,"a":26131,"f":27783,"l":27785,"m":false,"p":"83084.30","q":"0.002","M":true}]"#;
const KLINES: &str = r#"[[1791382920000,"83137.90","83155.70","83082.90","83084.90","102.437",1791382979999,"8514292.61220",4409,"49.832","4141805.93340","0"],
    [1791382980000,"83084.90","83086.20","83051.20","83078.00","10.541",1791383039999,"875630.54300",801,"4.063","337524.14620","0"]]"#;
const PREMIUM: &str = r#"{"symbol":"BTCUSDT","markPrice":"11793.63104562","indexPrice":"11781.80495970","estimatedSettlePrice":"11781.16138815",
    "lastFundingRate":"-0.00038246","interestRate":"0.00010000","nextFundingTime":1597392000000,"time":1597370495002}"#;

fn trades(text: &str) -> Result<Vec<PastTrade>, Malformed> {
    agg_trades(text.as_bytes(), BTC, Some(26_129), 2)
}

fn candles(text: &str, now: i64) -> Result<Vec<Kline>, Malformed> {
    let asked = (Some(UtcMs(1_791_382_920_000)), Some(UtcMs(1_791_383_000_000)));
    klines(text.as_bytes(), (BTC, Interval::M1), asked, 2, UtcMs(now))
}

fn premium(text: &str) -> Result<MarkPrice, Malformed> {
    premium_index(text.as_bytes(), BTC, "BTCUSDT")
}

/// Each of these changes makes the whole text refused, in these words.
fn refused<T: std::fmt::Debug>(
    text: &str,
    read: impl Fn(&str) -> Result<T, Malformed>,
    changes: &[(&str, &str, &str)],
) {
    assert!(read(text).is_ok());
    for (good, evil, words) in changes {
        assert!(text.contains(good), "{good}");
        let refused = read(&text.replacen(good, evil, 1)).unwrap_err().to_string();
        assert!(refused.contains(words), "{evil}: {refused}");
    }
}

#[test]
fn trades_are_read_to_the_digit() {
    let read = trades(TRADES).unwrap();
    assert_eq!(
        read[0],
        PastTrade {
            symbol: BTC,
            id: 26_129,
            price: Fixed(1_633_102),
            qty: Fixed(470_443_515),
            first_id: 27_781,
            last_id: 27_781,
            trade_time: UtcMs(1_498_793_709_153),
            buyer_is_maker: true,
            price_decimals: 8,
            qty_decimals: 8,
        }
    );
    assert_eq!((read[1].id, read[1].price, read[1].price_decimals), (26_131, Fixed(8_308_430_000_000), 2));
    assert_eq!(trades("[]"), Ok(Vec::new()));
}

#[test]
fn one_bad_or_unasked_trade_refuses_all() {
    refused(
        TRADES,
        trades,
        &[
            (r#""p":"83084.30""#, r#""p":"NaN""#, "row 1, \"p\": expected a plain decimal number"),
            (r#""p":"83084.30""#, r#""p":83084.30"#, "expected an array of trades: invalid type: floating point"),
            (r#""p":"83084.30""#, r#""p":"0""#, "row 1, \"p\": expected a number in its range"),
            (r#""p":"83084.30""#, r#""p":"99999999999999999""#, "row 1, \"p\": number out of range"),
            (r#""q":"0.002""#, r#""q":"-1""#, "row 1, \"q\""),
            (r#""q":"0.002""#, r#""q":"0.002","q":"1""#, "duplicate field `q`"),
            (r#","q":"0.002""#, "", "missing field `q`"),
            (r#""l":27785"#, r#""l":27782"#, "row 1, \"l\""),
            (r#""a":26131"#, r#""a":26129"#, "row 1, \"a\": expected an id above 26129, got 26129"),
            (r#""a":26129"#, r#""a":26128"#, "row 0, \"a\": expected ids from 26129 on, got 26128"),
            (r#""T":1498793709153"#, r#""T":1498793709"#, "row 0, \"T\": expected milliseconds"),
            (r#""m":true"#, r#""m":"true""#, "invalid type: string"),
            ("]", "] x", "trailing characters"),
            ("[{", "[null,{", "invalid type: null"),
        ],
    );
    let three = TRADES.replace(']', r#",{"T":1498793709155,"a":26132,"f":3,"l":3,"m":false,"p":"1","q":"1"}]"#);
    assert_eq!(trades(&three).unwrap_err().to_string(), "answer: expected at most 2 rows, got 3");
    let html = trades("<html>\u{1b}[2J").unwrap_err().to_string();
    assert!(html.starts_with("answer: expected an array of trades: expected value"), "{html}");
}

#[test]
fn candles_are_read_and_closed_by_the_clock() {
    let read = candles(KLINES, 1_791_383_000_000).unwrap();
    let first = &read[0];
    assert_eq!(first.open_time, UtcMs(1_791_382_920_000));
    assert_eq!(
        [first.open, first.high, first.low, first.close].map(|price| price.show(2).to_string()),
        ["83137.90", "83155.70", "83082.90", "83084.90"]
    );
    let volumes =
        [first.volume, first.quote_volume, first.taker_buy_volume, first.taker_buy_quote_volume].map(|v| v.to_string());
    assert_eq!(volumes, ["102.437", "8514292.6122", "49.832", "4141805.9334"]);
    assert_eq!((first.trades, first.price_decimals, first.qty_decimals, first.first_id), (4409, 2, 3, -1));
    assert_eq!(read.iter().map(|candle| candle.closed).collect::<Vec<_>>(), [true, false]);
    assert!(!candles(KLINES, 1_791_383_039_999).unwrap()[1].closed, "the last millisecond still belongs to it");
    assert!(candles(KLINES, 1_791_383_040_000).unwrap()[1].closed);
}

#[test]
fn one_bad_or_unasked_candle_refuses_all() {
    refused(
        KLINES,
        |text| candles(text, 1_791_383_000_000),
        &[
            ("83086.20", "83078.20", "row 1, \"high\""),
            ("83051.20", "83079.00", "row 1, \"low\""),
            ("\"4.063\"", "\"10.542\"", "row 1, \"taker buy volume\""),
            ("\"10.541\"", "\"1e3\"", "row 1, \"volume\": expected a plain decimal number"),
            ("\"10.541\"", "10.541", "invalid type: floating point"),
            (",801,", ",-1,", "row 1, \"trades\""),
            (",801,", ",", "each an array of 12"),
            ("\"0\"]]", "\"0\",1]]", "each an array of 12"),
            ("1791383039999", "1791383039998", "row 1, \"close time\": expected the end of 1m"),
            ("1791382980000", "1791382980001", "row 1, \"open time\": expected a multiple of 1m"),
            ("1791382980000", "1791382980", "row 1, \"open time\": expected milliseconds"),
            (
                "1791382980000,\"83084.90\",\"83086.20\",\"83051.20\",\"83078.00\",\"10.541\",1791383039999",
                "1791382920000,\"83084.90\",\"83086.20\",\"83051.20\",\"83078.00\",\"10.541\",1791382979999",
                "row 1, \"open time\": expected a time after 2026-10-07T14:22:00.000Z",
            ),
            (
                "1791382980000,\"83084.90\",\"83086.20\",\"83051.20\",\"83078.00\",\"10.541\",1791383039999",
                "1791383040000,\"83084.90\",\"83086.20\",\"83051.20\",\"83078.00\",\"10.541\",1791383099999",
                "row 1, \"open time\": expected a time that was asked for",
            ),
        ],
    );
}

#[test]
fn a_mark_price_is_that_of_the_symbol_asked_for() {
    let mark = premium(PREMIUM).unwrap();
    assert_eq!((mark.price, mark.funding_rate), (Fixed(1_179_363_104_562), Some(Fixed(-38_246))));
    assert_eq!((mark.next_funding, mark.event_time), (Some(UtcMs(1_597_392_000_000)), UtcMs(1_597_370_495_002)));
    let dated = PREMIUM.replace("-0.00038246", "").replace("1597392000000", "0").replace("11781.16138815", "0.00");
    let mark = premium(&dated).unwrap();
    assert_eq!((mark.funding_rate, mark.next_funding, mark.settle_price), (None, None, None));
    refused(
        PREMIUM,
        premium,
        &[
            ("BTCUSDT", "ETHUSDT", "row 0, \"symbol\": expected BTCUSDT"),
            ("11793.63104562", "0", "row 0, \"markPrice\""),
            ("11781.80495970", "-1", "row 0, \"indexPrice\""),
            ("11793.63104562", "1.000000001", "\"markPrice\": expected a plain decimal number: more than 8 decimals"),
            ("1597370495002", "5", "\"time\": expected milliseconds"),
            ("\"markPrice\"", "\"other\"", "missing field `markPrice`"),
            ("{", "[{", "expected the mark price of one symbol"),
        ],
    );
}
