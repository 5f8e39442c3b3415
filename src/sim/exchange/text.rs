//! The exchange's JSON, by format strings: what the wire looked like when it was captured, to the byte.

use super::books::{Mark, Print, quote_decimals};
use super::candles::Candle;
use super::number::{EIGHT, number};
use super::setup::Listing;
use crate::config::Market;
use crate::fixed::Fixed;
use crate::time::UtcMs;
use crate::wire::Interval;
use std::fmt::Write;

fn decimals(market: Market, listing: &Listing) -> (u8, u8, u8) {
    match market {
        Market::Usdm => (listing.price_decimals, listing.qty_decimals, quote_decimals(listing)),
        Market::Spot => (EIGHT, EIGHT, EIGHT),
    }
}

/// `aggTrade`
pub fn agg_trade(market: Market, listing: &Listing, print: &Print) -> String {
    let (price_decimals, qty_decimals, _) = decimals(market, listing);
    let (symbol, price) = (&listing.name, number(print.price, price_decimals));
    let (qty, plain) = (number(print.qty, qty_decimals), number(print.plain_qty, qty_decimals));
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
    let price = number(print.price, price_decimals);
    let (qty, plain) = (number(print.qty, qty_decimals), number(print.plain_qty, qty_decimals));
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
    let (price, settle, index) = (number(mark.price, EIGHT), number(mark.settle, EIGHT), number(mark.index, EIGHT));
    let funding = mark.funding.map_or_else(String::new, |rate| number(rate, EIGHT).to_string());
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
    let price = |price: Fixed| number(price, price_decimals);
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
    put("v", format_args!(r#""{}""#, number(candle.volume, qty_decimals)));
    put("n", format_args!("{}", candle.trades));
    put("x", format_args!("{closed}"));
    put("q", format_args!(r#""{}""#, number(candle.quote_volume, quote_decimals)));
    put("V", format_args!(r#""{}""#, number(candle.taker_buy_volume, qty_decimals)));
    put("Q", format_args!(r#""{}""#, number(candle.taker_buy_quote_volume, quote_decimals)));
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
        number(candle.open, price_decimals),
        number(candle.high, price_decimals),
        number(candle.low, price_decimals),
        number(candle.close, price_decimals),
        number(candle.volume, qty_decimals),
        candle.close_time,
        number(candle.quote_volume, quote_decimals),
        candle.trades,
        number(candle.taker_buy_volume, qty_decimals),
        number(candle.taker_buy_quote_volume, quote_decimals),
    )
}

/// A row of REST premiumIndex.
pub fn premium_index(symbol: &str, mark: &Mark) -> String {
    format!(
        r#"{{"symbol":"{symbol}","markPrice":"{}","indexPrice":"{}","estimatedSettlePrice":"{}","lastFundingRate":"{}","interestRate":"0.00010000","nextFundingTime":{},"time":{}}}"#,
        number(mark.price, EIGHT),
        number(mark.index, EIGHT),
        number(mark.settle, EIGHT),
        mark.funding.map_or_else(String::new, |rate| number(rate, EIGHT).to_string()),
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
    [r#"{"stream":""#, stream, r#"","data":"#, data, "}"].concat()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::{self, Wide};

    fn fixed(text: &str) -> Fixed {
        Fixed::parse(text).unwrap()
    }

    fn wide(text: &str) -> Wide {
        Wide(fixed::parse(text.as_bytes()).unwrap().units)
    }

    fn listing(name: &str, price_decimals: u8, qty_decimals: u8) -> Listing {
        Listing { price_decimals, qty_decimals, ..Listing::new(name, "1", 1.0) }
    }

    fn print(ids: (i64, i64, i64), numbers: [&str; 3], times: (i64, i64), sold: bool) -> Print {
        Print {
            id: ids.0,
            price: fixed(numbers[0]),
            qty: fixed(numbers[1]),
            plain_qty: fixed(numbers[2]),
            first_id: ids.1,
            last_id: ids.2,
            trade_time: UtcMs(times.0),
            event_time: UtcMs(times.1),
            buyer_is_maker: sold,
        }
    }

    fn mark(numbers: [&str; 4], next: i64, at: i64) -> Mark {
        Mark {
            price: fixed(numbers[0]),
            settle: fixed(numbers[1]),
            index: fixed(numbers[2]),
            funding: Fixed::parse(numbers[3]).ok(),
            next_funding: UtcMs(next),
            event_time: UtcMs(at),
        }
    }

    /// Prices: open, close, high, low; volumes: v, q, V, Q.
    fn candle(open_time: i64, ids: (i64, i64), trades: i64, prices: [&str; 4], volumes: [&str; 4]) -> Candle {
        Candle {
            open: fixed(prices[0]),
            close: fixed(prices[1]),
            high: fixed(prices[2]),
            low: fixed(prices[3]),
            volume: wide(volumes[0]),
            quote_volume: wide(volumes[1]),
            taker_buy_volume: wide(volumes[2]),
            taker_buy_quote_volume: wide(volumes[3]),
            trades,
            first_id: ids.0,
            last_id: ids.1,
            ..Candle::flat(Interval::M1, open_time, Fixed(1))
        }
    }

    #[test]
    fn futures_payloads_in_the_order_and_with_the_blanks_of_the_wire() {
        let btc = listing("BTCUSDT", 2, 3);
        let trade = print((7, 20, 24), ["64123.40", "0.215", "0.2"], (1_785_000_000_071, 1_785_000_000_224), false);
        assert_eq!(
            combined("btcusdt@aggTrade", &agg_trade(Market::Usdm, &btc, &trade)),
            r#"{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1785000000224,"a":7,"s":"BTCUSDT","p":"64123.40","q":"0.215","nq":"0.200","f":20,"l":24,"T":1785000000071,"m":false,"st":1}}"#
        );
        assert_eq!(
            agg_trade_row(Market::Usdm, &btc, &trade),
            r#"{"a":7,"p":"64123.40","q":"0.215","nq":"0.200","f":20,"l":24,"T":1785000000071,"m":false}"#
        );
        let marked = mark(["64100.5", "64110", "64099.12345678", "-0.0000123"], 1_785_024_000_000, 1_785_000_000_003);
        assert_eq!(
            mark_price("BTCUSDT", &marked, 1),
            r#"{"e":"markPriceUpdate","E":1785000000003,"s":"BTCUSDT","p":"64100.50000000","ap":"64100.50000000","P":"64110.00000000","i":"64099.12345678","r":"-0.00001230","T":1785024000000,"st":1}"#
        );
        let dated = mark(["1", "1", "1", ""], 0, 5);
        assert!(mark_price("BTCUSDT_261225", &dated, 1).ends_with(r#""r":"","T":0,"st":1}"#));
        let prices = ["10.10", "10.20", "10.30", "10"];
        let flat = candle(1_785_000_000_000, (5, 9), 4, prices, ["2", "20.4", "1.5", "15.3"]);
        assert_eq!(
            kline(Market::Usdm, &btc, Interval::M1, &flat, false, UtcMs(1_785_000_000_500)),
            r#"{"e":"kline","E":1785000000500,"s":"BTCUSDT","k":{"t":1785000000000, "T":1785000059999, "s":"BTCUSDT", "i":"1m", "f":5, "L":9, "o":"10.10", "c":"10.20", "h":"10.30", "l":"10.00", "v":"2.000", "n":4, "x":false, "q":"20.40000", "V":"1.500", "Q":"15.30000", "B":"0"}}"#
        );
        assert_eq!(
            kline_row(Market::Usdm, &btc, &flat),
            r#"[1785000000000,"10.10","10.30","10.00","10.20","2.000",1785000059999,"20.40000",4,"1.500","15.30000","0"]"#
        );
    }

    #[test]
    fn spot_payloads_have_eight_decimals_and_no_blanks() {
        let btc = listing("BTCUSDT", 2, 5);
        let trade = print((7, 20, 24), ["64123.40", "0.215", "0.215"], (1_785_000_000_071, 1_785_000_000_072), true);
        assert_eq!(
            agg_trade(Market::Spot, &btc, &trade),
            r#"{"e":"aggTrade","E":1785000000072,"s":"BTCUSDT","a":7,"p":"64123.40000000","q":"0.21500000","f":20,"l":24,"T":1785000000071,"m":true,"M":true}"#
        );
        let prices = ["10.10", "10.20", "10.30", "10"];
        let flat = candle(1_785_000_000_000, (5, 9), 4, prices, ["2", "20.4", "1.5", "15.3"]);
        let text = kline(Market::Spot, &btc, Interval::M1, &flat, true, UtcMs(1_785_000_062_003));
        assert!(text.contains(r#","k":{"t":1785000000000,"T":1785000059999,"s":"BTCUSDT","i":"1m","f":5,"#), "{text}");
        assert!(text.ends_with(r#""x":true,"q":"20.40000000","V":"1.50000000","Q":"15.30000000","B":"0"}}"#), "{text}");
    }

    #[test]
    fn replies_and_errors() {
        assert_eq!(reply("null", "1"), r#"{"result":null,"id":1}"#);
        assert_eq!(error_with_id(4, "x", "19"), r#"{"error":{"code":4,"msg":"x"},"id":19}"#);
        assert_eq!(error_bare(2, "a `b` \"c\"\n"), r#"{"code":2,"msg":"a `b` \"c\" "}"#);
        assert_eq!(server_shutdown(UtcMs(5)), r#"{"e":"serverShutdown","E":5}"#);
    }

    /// Captured text, if it lies beside the project.
    fn captured(name: &str) -> Option<Vec<String>> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let found = ["../shared", "../../shared"]
            .iter()
            .find_map(|shared| std::fs::read_to_string(root.join(shared).join("data/fixtures").join(name)).ok());
        if found.is_none() {
            println!("skipped: no {name} beside the project");
        }
        found.map(|text| text.lines().map(str::to_owned).collect())
    }

    fn equals(name: &str, line: usize, text: &str) {
        if let Some(lines) = captured(name) {
            assert_eq!(lines[line], text, "{name}:{line}");
        }
    }

    #[test]
    fn futures_text_equals_what_was_captured() {
        let btc = listing("BTCUSDT", 2, 3);
        let trade = |listing: &Listing, print| combined("btcusdt@aggTrade", &agg_trade(Market::Usdm, listing, &print));
        let ids = (3_404_749_954, 7_960_913_511, 7_960_913_511);
        let one = print(ids, ["64990.90", "0.002", "0.002"], (1_786_171_884_471, 1_786_171_884_624), true);
        equals("ws/um_aggTrade_2026-08-08.json", 0, &trade(&btc, one));
        let ids = (309_896_910, 537_859_420, 537_859_465);
        let demo = print(ids, ["76968.30", "1046.765", "1046.765"], (1_789_469_121_938, 1_789_469_122_045), false);
        equals("ws/um_aggTrade_demo_46fills_2026-09-15.json", 0, &trade(&listing("BTCUSDT", 2, 4), demo));
        let numbers = ["64991.37858696", "64980.01344384", "65016.05673913", "0.00003936"];
        let three = mark_price("BTCUSDT", &mark(numbers, 1_786_176_000_000, 1_786_171_884_000), 1);
        equals("ws/um_markPrice_2026-08-08.json", 0, &combined("btcusdt@markPrice", &three));
        let first = ["86141", "86110.40591268", "86181.65630435", "0.00003779"];
        let second = ["2715.93", "2717.36292584", "2717.21325581", "0.00006061"];
        let row = |name, numbers| mark_price(name, &mark(numbers, 1_791_216_000_000, 1_791_201_678_000), 1);
        let both = array([row("BTCUSDT", first), row("ETHUSDT", second)]);
        equals("ws/um_markPrice_arr_2items_2026-10-05.json", 0, &both);
        let closed = candle(
            1_786_173_300_000,
            (7_960_920_076, 7_960_920_277),
            194,
            ["64970.80", "64969.40", "64970.90", "64969.40"],
            ["9.090", "590577.96880", "3.460", "224795.09440"],
        );
        let text = kline(Market::Usdm, &btc, Interval::M1, &closed, true, UtcMs(1_786_173_360_960));
        equals("ws/um_kline_1m_closed_2026-08-08.json", 0, &combined("btcusdt@kline_1m", &text));
    }

    #[test]
    fn spot_text_equals_what_was_captured() {
        let btc = listing("BTCUSDT", 2, 5);
        let ids = (4_023_160_398, 6_536_456_692, 6_536_456_693);
        let raw = print(ids, ["65340", "0.00765", "0.00765"], (1_785_161_328_335, 1_785_161_328_336), true);
        equals("ws/spot_2021-2026.jsonl", 4, &agg_trade(Market::Spot, &btc, &raw));
        let running = candle(
            1_653_818_760_000,
            (1_384_844_002, 1_384_844_032),
            31,
            ["29038.46", "29038.47", "29038.47", "29038.46"],
            ["0.20926", "6076.5891832", "0.10436", "3030.45472920"],
        );
        let text = kline(Market::Spot, &btc, Interval::M1, &running, false, UtcMs(1_653_818_762_502));
        equals("ws/spot_2021-2026.jsonl", 1, &combined("btcusdt@kline_1m", &text));
    }

    #[test]
    fn rest_rows_equal_what_was_captured() {
        let btc = listing("BTCUSDT", 2, 3);
        let rows = [
            print(
                (3_477_868_380, 8_153_634_282, 8_153_634_282),
                ["83084.3", "0.002", "0.002"],
                (1_791_382_990_569, 0),
                true,
            ),
            print(
                (3_477_868_381, 8_153_634_283, 8_153_634_283),
                ["83084.4", "0.014", "0.014"],
                (1_791_382_990_794, 0),
                false,
            ),
            print(
                (3_477_868_382, 8_153_634_284, 8_153_634_285),
                ["83084.3", "0.015", "0.015"],
                (1_791_382_990_860, 0),
                true,
            ),
        ];
        let text = array(rows.iter().map(|print| agg_trade_row(Market::Usdm, &btc, print)));
        equals("rest/um_aggTrades_2026-10-07.json", 0, &text);
        let first = candle(
            1_791_382_920_000,
            (0, 0),
            4409,
            ["83137.9", "83084.9", "83155.7", "83082.9"],
            ["102.437", "8514292.6122", "49.832", "4141805.9334"],
        );
        let row = kline_row(Market::Usdm, &btc, &first);
        if let Some(lines) = captured("rest/um_klines_1m_2026-10-07.json") {
            assert!(lines[0].starts_with(&format!("[{row},")), "{row}");
        }
        let numbers = ["83067.3", "83195.99445417", "83114.69956522", "0.00000078"];
        let row = premium_index("BTCUSDT", &mark(numbers, 1_791_388_800_000, 1_791_382_985_000));
        if let Some(lines) = captured("rest/um_premiumIndex_2026-10-07.json") {
            assert!(lines[0].starts_with(&format!("[{row},")), "{row}");
        }
    }
}
