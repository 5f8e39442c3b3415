//! The text of the venue against values typed by hand, and three readings of it against each other: the field scanner,
//! the general reader, and one by serde that shares no code with either.
#![allow(clippy::disallowed_methods, reason = "outside the core")]
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use binance_edge::fixed::{Fixed, Wide};
use binance_edge::time::UtcMs;
use binance_edge::wire::market::{Decoded, Decoder, Reject, RejectKind, Reply, sample};
use binance_edge::wire::{AggTrade, Frame, Interval, Kline, MarkPrice, SymbolId, Symbols};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::str::FromStr;

const NAMES: [&str; 6] = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "币安人生USDT", "ETHUSDT_261225", "SHIB1000USDT"];
const BTC: SymbolId = SymbolId(0);
const ETH: SymbolId = SymbolId(1);
const SOL: SymbolId = SymbolId(2);

fn symbols() -> Symbols {
    Symbols::new(NAMES)
}

/// What `decode` says, after making sure that both readers say it.
fn read(text: &str) -> Result<Decoded, Reject> {
    let symbols = symbols();
    let general = Decoder::default().read_only(text, &symbols);
    if let Some(frame) = Decoder::scan_only(text, &symbols) {
        assert_eq!(Ok(Decoded::Frame(frame)), general, "the scanner differs: {}", sample(text.as_bytes()));
    }
    assert_eq!(Decoder::default().decode(text, &symbols), general);
    general
}

fn ours(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ws").join(format!("{name}.json"));
    std::fs::read_to_string(path).unwrap().trim_end().to_owned()
}

/// The captured data beside the project, if this machine has it.
fn captured(what: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = ["../shared/data", "../../shared/data"].map(|place| root.join(place).join(what));
    let found = places.into_iter().find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: captured fixtures not present");
    }
    found
}

fn refused(kind: RejectKind, field: &'static str) -> Result<Decoded, Reject> {
    Err(Reject { kind, field: Some(field) })
}

fn trade(frame: AggTrade) -> Result<Decoded, Reject> {
    Ok(Decoded::Frame(Frame::Trade(frame)))
}

fn mark(frame: MarkPrice) -> Result<Decoded, Reject> {
    Ok(Decoded::Frame(Frame::Mark(frame)))
}

fn kline(frame: Kline) -> Result<Decoded, Reject> {
    Ok(Decoded::Frame(Frame::Kline(frame)))
}

// ---- messages of our own, values typed by hand ----

#[test]
fn trades_read_as_typed_by_hand() {
    let eth = AggTrade {
        symbol: ETH,
        id: 2_900_000_017,
        price: Fixed(432_105_000_000),
        qty: Fixed(125_000_000),
        first_id: 6_100_000_003,
        last_id: 6_100_000_009,
        trade_time: UtcMs(1_789_000_000_004),
        event_time: UtcMs(1_789_000_000_157),
        buyer_is_maker: true,
        price_decimals: 2,
        qty_decimals: 3,
    };
    assert_eq!(read(&ours("um_aggTrade")), trade(eth));
    let sol = AggTrade {
        symbol: SOL,
        id: 1_000_000_001,
        price: Fixed(18_743_000_000),
        qty: Fixed(2_500_000_000),
        first_id: 3_000_000_000,
        last_id: 3_000_000_000,
        trade_time: UtcMs(1_752_000_000_001),
        event_time: UtcMs(1_752_000_000_153),
        buyer_is_maker: false,
        price_decimals: 4,
        qty_decimals: 0,
    };
    assert_eq!(read(&ours("um_aggTrade_without_nq_and_st")), trade(sol));
    let other_script = AggTrade {
        symbol: SymbolId(3),
        id: 7,
        price: Fixed(18_740_000),
        qty: Fixed(120_000_000_000),
        first_id: 40,
        last_id: 41,
        trade_time: UtcMs(1_789_000_000_800),
        event_time: UtcMs(1_789_000_000_950),
        buyer_is_maker: false,
        price_decimals: 4,
        qty_decimals: 0,
    };
    assert_eq!(read(&ours("um_aggTrade_other_script")), trade(other_script));
    let spot = AggTrade {
        symbol: ETH,
        id: 2_100_000_005,
        price: Fixed(432_091_000_000),
        qty: Fixed(230_000),
        first_id: 3_300_000_001,
        last_id: 3_300_000_004,
        trade_time: UtcMs(1_789_000_000_009),
        event_time: UtcMs(1_789_000_000_010),
        buyer_is_maker: true,
        price_decimals: 8,
        qty_decimals: 8,
    };
    assert_eq!(read(&ours("spot_aggTrade")), trade(spot));
}

#[test]
fn mark_prices_read_as_typed_by_hand() {
    let eth = MarkPrice {
        symbol: ETH,
        price: Fixed(432_117_000_000),
        index_price: Fixed(432_298_765_432),
        settle_price: Some(Fixed(432_501_234_567)),
        funding_rate: Some(Fixed(-1_250)),
        next_funding: Some(UtcMs(1_789_027_200_000)),
        event_time: UtcMs(1_789_000_001_003),
    };
    assert_eq!(read(&ours("um_markPrice")), mark(eth));
    let documented = MarkPrice {
        symbol: SOL,
        price: Fixed(18_745_000_000),
        index_price: Fixed(18_750_000_001),
        settle_price: Some(Fixed(18_800_000_000)),
        funding_rate: Some(Fixed(10_000)),
        next_funding: Some(UtcMs(1_789_012_800_000)),
        event_time: UtcMs(1_789_000_002_000),
    };
    assert_eq!(read(&ours("um_markPrice_as_documented")), mark(documented));
    let dated = MarkPrice {
        symbol: SymbolId(4),
        price: Fixed(440_000_000_000),
        index_price: Fixed(432_200_000_000),
        settle_price: None,
        funding_rate: None,
        next_funding: None,
        event_time: UtcMs(1_789_000_003_001),
    };
    assert_eq!(read(&ours("um_markPrice_without_funding")), mark(dated));
    // without what is optional
    let bare = r#"{"e":"markPriceUpdate","E":1789000003001,"s":"ETHUSDT_261225","p":"4400","i":"4322"}"#;
    assert_eq!(read(bare), mark(dated));
    let null = bare.replace('}', r#","P":null,"r":null,"T":null}"#);
    assert_eq!(read(&null), mark(dated));
}

#[test]
fn arrays_keep_what_is_ours_and_count_what_is_malformed() {
    let symbols = symbols();
    let mut decoder = Decoder::default();
    let first = Some(Reject { kind: RejectKind::Number, field: Some("p") });
    assert_eq!(decoder.decode(&ours("um_markPrice_arr"), &symbols), Ok(Decoded::Marks { refused: 1, first }));
    let eth = MarkPrice {
        symbol: ETH,
        price: Fixed(432_120_000_000),
        index_price: Fixed(432_300_000_000),
        settle_price: Some(Fixed(432_500_000_000)),
        funding_rate: Some(Fixed(5_000)),
        next_funding: Some(UtcMs(1_789_027_200_000)),
        event_time: UtcMs(1_789_000_004_000),
    };
    assert_eq!(decoder.marks(), [eth]);
    // nobody's symbols alone are still an array of mark prices
    let nobody = r#"[{"e":"markPriceUpdate","s":"NOBODY"}]"#;
    assert_eq!(decoder.decode(nobody, &symbols), Ok(Decoded::Marks { refused: 0, first: None }));
    assert!(decoder.marks().is_empty());
    let shape = Err(Reject { kind: RejectKind::Shape, field: None });
    for text in ["[]", "[1]", "[[]]", r#"[{"x":1}]"#, r#"{"stream":"!x","data":[]}"#, r#"[{"e":5}]"#] {
        assert_eq!(read(text), shape, "{text}");
    }
}

#[test]
fn candles_read_as_typed_by_hand() {
    let open = Kline {
        symbol: ETH,
        interval: Interval::M1,
        open_time: UtcMs(1_788_999_960_000),
        close_time: UtcMs(1_789_000_019_999),
        open: Fixed(432_000_000_000),
        high: Fixed(432_250_000_000),
        low: Fixed(431_995_000_000),
        close: Fixed(432_105_000_000),
        volume: Wide(12_025_000_000),
        quote_volume: Wide(51_960_012_500_000),
        taker_buy_volume: Wide(6_012_500_000),
        taker_buy_quote_volume: Wide(25_980_006_250_000),
        trades: 98,
        first_id: 6_100_000_001,
        last_id: 6_100_000_100,
        closed: false,
        event_time: UtcMs(1_789_000_012_345),
        price_decimals: 2,
        qty_decimals: 3,
    };
    assert_eq!(read(&ours("um_kline_open")), kline(open));
    let closed = Kline {
        symbol: SOL,
        interval: Interval::M15,
        open_time: UtcMs(1_788_999_300_000),
        close_time: UtcMs(1_789_000_199_999),
        open: Fixed(18_600_000_000),
        high: Fixed(18_801_000_000),
        low: Fixed(18_550_000_000),
        close: Fixed(18_743_000_000),
        volume: Wide(9_000_000_000_000),
        quote_volume: Wide(1_680_000_050_000_000),
        taker_buy_volume: Wide(4_500_000_000_000),
        taker_buy_quote_volume: Wide(840_000_025_000_000),
        trades: 9_000,
        first_id: 3_000_000_001,
        last_id: 3_000_009_000,
        closed: true,
        event_time: UtcMs(1_789_000_200_961),
        price_decimals: 4,
        qty_decimals: 0,
    };
    assert_eq!(read(&ours("um_kline_closed")), kline(closed));
    let flat = Fixed(440_000_000_000);
    let empty = Kline {
        symbol: SymbolId(4),
        interval: Interval::M1,
        open_time: UtcMs(1_789_000_020_000),
        close_time: UtcMs(1_789_000_079_999),
        open: flat,
        high: flat,
        low: flat,
        close: flat,
        volume: Wide(0),
        quote_volume: Wide(0),
        taker_buy_volume: Wide(0),
        taker_buy_quote_volume: Wide(0),
        trades: 0,
        first_id: -1,
        last_id: -1,
        closed: true,
        event_time: UtcMs(1_789_000_080_004),
        price_decimals: 2,
        qty_decimals: 3,
    };
    assert_eq!(read(&ours("um_kline_empty")), kline(empty));
    let Ok(Decoded::Frame(Frame::Kline(huge))) = read(&ours("um_kline_huge_volume")) else { panic!("not read") };
    assert_eq!(huge.volume, Wide(12_345_678_901_234_550_000_000));
    assert_eq!(huge.taker_buy_volume, Wide(10_000_000_000_000_025_000_000));
    assert_eq!((huge.interval, huge.low, huge.quote_volume), (Interval::D1, Fixed(900), Wide(123_456_789_012_345_678)));
}

#[test]
fn replies_come_in_every_shape() {
    let error = |id, code, message: &str| Ok(Decoded::Control(Reply::Error { id, code, message: message.to_owned() }));
    assert_eq!(read(&ours("ack")), Ok(Decoded::Control(Reply::Ack { id: Some(7) })));
    assert_eq!(read(&ours("ack_id_of_text")), Ok(Decoded::Control(Reply::Ack { id: None })));
    assert_eq!(read(r#"{"result":null,"id":null}"#), Ok(Decoded::Control(Reply::Ack { id: None })));
    assert_eq!(read(r#"{"result":null}"#), Ok(Decoded::Control(Reply::Ack { id: None })));
    assert_eq!(read(r#"{"result":null,"id":-4}"#), Ok(Decoded::Control(Reply::Ack { id: None })));
    assert_eq!(read(r#"{"error":null,"result":null,"id":3}"#), Ok(Decoded::Control(Reply::Ack { id: Some(3) })));
    assert_eq!(read(&ours("list")), Ok(Decoded::Control(Reply::Result { id: Some(8) })));
    assert_eq!(read(&ours("property")), Ok(Decoded::Control(Reply::Result { id: Some(9) })));
    assert_eq!(read(&ours("error_with_id")), error(Some(19), 4, "Too many subscriptions"));
    let words =
        "Invalid request: unknown variant `SUBSCRIBED`, expected one of `SUBSCRIBE`, `UNSUBSCRIBE` at line 1 column 28";
    assert_eq!(read(&ours("error_bare")), error(None, 2, words));
    let escaped = r#"Invalid JSON: \"expected\" value\nat line 1 column 1"#;
    assert_eq!(read(&ours("error_id_null")), error(None, 3, escaped));
    assert_eq!(read(r#"{"code":-1,"msg":"\u001b[2Jx"}"#), error(None, -1, r"\u{1b}[2Jx"));
    assert_eq!(read(r#"{"code":-1}"#), error(None, -1, ""));
    let long = format!(r#"{{"code":1,"msg":"{}"}}"#, "a".repeat(5000));
    assert_eq!(read(&long), error(None, 1, &format!("{}…", "a".repeat(120))));
    assert_eq!(read(r#"{"error":"no","id":1}"#), refused(RejectKind::Type, "error"));
    assert_eq!(read(r#"{"error":{"msg":"x"},"id":1}"#), refused(RejectKind::Missing, "code"));
    assert_eq!(read(r#"{"id":1}"#), Err(Reject { kind: RejectKind::Shape, field: None }));
}

#[test]
fn shutdown_and_what_nobody_asked_for_are_told_apart() {
    for name in ["shutdown", "shutdown_combined", "shutdown_event"] {
        assert_eq!(read(&ours(name)), Ok(Decoded::Shutdown), "{name}");
    }
    for name in ["depthUpdate", "forceOrder", "spot_bookTicker", "depth_snapshot", "ticker_arr", "trade"] {
        assert_eq!(read(&ours(&format!("other_{name}"))), Ok(Decoded::Other), "{name}");
    }
}

// ---- messages of the venue, captured by others ----

#[test]
fn captured_messages_read_as_typed_by_hand() {
    let Some(folder) = captured("fixtures/ws") else { return };
    let line = |name: &str, at: usize| {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        text.lines().nth(at).unwrap().to_owned()
    };
    let um = AggTrade {
        symbol: BTC,
        id: 3_404_749_954,
        price: Fixed(6_499_090_000_000),
        qty: Fixed(200_000),
        first_id: 7_960_913_511,
        last_id: 7_960_913_511,
        trade_time: UtcMs(1_786_171_884_471),
        event_time: UtcMs(1_786_171_884_624),
        buyer_is_maker: true,
        price_decimals: 2,
        qty_decimals: 3,
    };
    assert_eq!(read(&line("um_aggTrade_2026-08-08.json", 0)), trade(um));
    let demo = AggTrade {
        symbol: BTC,
        id: 309_896_910,
        price: Fixed(7_696_830_000_000),
        qty: Fixed(104_676_500_000),
        first_id: 537_859_420,
        last_id: 537_859_465,
        trade_time: UtcMs(1_789_469_121_938),
        event_time: UtcMs(1_789_469_122_045),
        buyer_is_maker: false,
        price_decimals: 2,
        qty_decimals: 4,
    };
    assert_eq!(read(&line("um_aggTrade_demo_46fills_2026-09-15.json", 0)), trade(demo));
    let spot = AggTrade {
        symbol: BTC,
        id: 4_023_160_398,
        price: Fixed(6_534_000_000_000),
        qty: Fixed(765_000),
        first_id: 6_536_456_692,
        last_id: 6_536_456_693,
        trade_time: UtcMs(1_785_161_328_335),
        event_time: UtcMs(1_785_161_328_336),
        buyer_is_maker: true,
        price_decimals: 8,
        qty_decimals: 8,
    };
    assert_eq!(read(&line("spot_2021-2026.jsonl", 4)), trade(spot));
    let price = MarkPrice {
        symbol: BTC,
        price: Fixed(6_499_137_858_696),
        index_price: Fixed(6_501_605_673_913),
        settle_price: Some(Fixed(6_498_001_344_384)),
        funding_rate: Some(Fixed(3_936)),
        next_funding: Some(UtcMs(1_786_176_000_000)),
        event_time: UtcMs(1_786_171_884_000),
    };
    assert_eq!(read(&line("um_markPrice_2026-08-08.json", 0)), mark(price));
    let candle = Kline {
        symbol: BTC,
        interval: Interval::M1,
        open_time: UtcMs(1_786_173_300_000),
        close_time: UtcMs(1_786_173_359_999),
        open: Fixed(6_497_080_000_000),
        high: Fixed(6_497_090_000_000),
        low: Fixed(6_496_940_000_000),
        close: Fixed(6_496_940_000_000),
        volume: Wide(909_000_000),
        quote_volume: Wide(59_057_796_880_000),
        taker_buy_volume: Wide(346_000_000),
        taker_buy_quote_volume: Wide(22_479_509_440_000),
        trades: 194,
        first_id: 7_960_920_076,
        last_id: 7_960_920_277,
        closed: true,
        event_time: UtcMs(1_786_173_360_960),
        price_decimals: 2,
        qty_decimals: 3,
    };
    assert_eq!(read(&line("um_kline_1m_closed_2026-08-08.json", 0)), kline(candle));
    assert_eq!(read(&line("um_forceOrder_arr_2026-10-08.json", 0)), Ok(Decoded::Other));
    assert_eq!(read(&line("um_trade_2026-08-02.json", 0)), Ok(Decoded::Other));
    let symbols = symbols();
    let mut decoder = Decoder::default();
    let pair = decoder.decode(&line("um_markPrice_arr_2items_2026-10-05.json", 0), &symbols);
    assert_eq!(pair, Ok(Decoded::Marks { refused: 0, first: None }));
    let prices: Vec<_> = decoder.marks().iter().map(|mark| (mark.symbol, mark.price)).collect();
    assert_eq!(prices, [(BTC, Fixed(8_614_100_000_000)), (ETH, Fixed(271_593_000_000))]);
}

// ---- the third reading ----

/// What serde makes of a message; `None` where it finds nothing to believe.
#[derive(Debug, PartialEq)]
enum Plain {
    Frame(Frame),
    Marks(Vec<MarkPrice>),
    Control,
    Other,
}

fn plain(text: &str, symbols: &Symbols) -> Option<Plain> {
    let mut value: Value = serde_json::from_str(text).ok()?;
    if value.get("stream").is_some() {
        value = value["data"].take();
    }
    if let Some(rows) = value.as_array() {
        let rows: Vec<_> = rows.iter().filter(|row| row["e"] == "markPriceUpdate").collect();
        return Some(if rows.is_empty() {
            Plain::Other
        } else {
            Plain::Marks(rows.iter().filter(|row| row["st"] != 2).filter_map(|row| plain_mark(row, symbols)).collect())
        });
    }
    match value.get("e").map(Value::as_str) {
        Some(Some("aggTrade")) => plain_trade(&value, symbols).map(|trade| Plain::Frame(Frame::Trade(trade))),
        Some(Some("markPriceUpdate")) => plain_mark(&value, symbols).map(|mark| Plain::Frame(Frame::Mark(mark))),
        Some(Some("kline")) => plain_kline(&value, symbols).map(|kline| Plain::Frame(Frame::Kline(kline))),
        Some(Some(_)) => Some(Plain::Other),
        Some(None) => None,
        None if ["result", "error", "code"].iter().any(|key| value.get(key).is_some()) => Some(Plain::Control),
        None if value.get("lastUpdateId").is_some() || value.get("u").is_some() => Some(Plain::Other),
        None => None,
    }
}

fn decimal(value: &Value) -> Option<(i128, u8)> {
    let text = value.as_str()?;
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
    let count = digits.len() - whole.len();
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (kept, lost) = decimals.split_at_checked(8).unwrap_or((decimals, ""));
    if !all_digits(whole) || !all_digits(decimals) || lost.bytes().any(|byte| byte != b'0') {
        return None;
    }
    let units = format!("{whole}{kept:0<8}").parse::<i128>().ok().filter(|units| *units < 10_i128.pow(34))?;
    Some((sign * units, count.saturating_sub(1).min(8) as u8))
}

fn positive(value: &Value) -> Option<Fixed> {
    i64::try_from(decimal(value)?.0).ok().filter(|units| *units > 0).map(Fixed)
}

/// An integer; serde makes a float of `-0`, which is a zero like any other.
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_f64().filter(|float| *float == 0.0 && float.is_sign_negative()).map(|_| 0))
}

fn time(value: &Value) -> Option<UtcMs> {
    whole(value).filter(|ms| (1_262_304_000_000..4_102_444_800_000).contains(ms)).map(UtcMs)
}

fn symbol(value: &Value, symbols: &Symbols) -> Option<SymbolId> {
    let name = value.as_str()?;
    symbols.iter().find(|(_, known)| *known == name).map(|(id, _)| id)
}

fn plain_trade(v: &Value, symbols: &Symbols) -> Option<AggTrade> {
    let (first_id, last_id) = (whole(&v["f"]).filter(|id| *id >= 0)?, whole(&v["l"])?);
    (first_id <= last_id).then_some(AggTrade {
        symbol: symbol(&v["s"], symbols)?,
        id: whole(&v["a"]).filter(|id| *id >= 0)?,
        price: positive(&v["p"])?,
        qty: positive(&v["q"])?,
        first_id,
        last_id,
        trade_time: time(&v["T"])?,
        event_time: time(&v["E"])?,
        buyer_is_maker: v["m"].as_bool()?,
        price_decimals: decimal(&v["p"])?.1,
        qty_decimals: decimal(&v["q"])?.1,
    })
}

fn plain_mark(v: &Value, symbols: &Symbols) -> Option<MarkPrice> {
    let given = |key: &str| v.get(key).filter(|value| !value.is_null() && **value != "");
    let settle_price = match given("P") {
        Some(value) if decimal(value)?.0 != 0 => Some(positive(value)?),
        Some(_) | None => None,
    };
    let funding_rate = match given("r") {
        Some(value) => Some(Fixed(i64::try_from(decimal(value)?.0).ok()?)),
        None => None,
    };
    let next_funding = match v.get("T").filter(|value| !value.is_null() && whole(value) != Some(0)) {
        Some(value) => Some(time(value)?),
        None => None,
    };
    Some(MarkPrice {
        symbol: symbol(&v["s"], symbols)?,
        price: positive(&v["p"])?,
        index_price: positive(&v["i"])?,
        settle_price,
        funding_rate,
        next_funding,
        event_time: time(&v["E"])?,
    })
}

fn plain_kline(v: &Value, symbols: &Symbols) -> Option<Kline> {
    let k = &v["k"];
    let wide = |key: &str| decimal(&k[key]).filter(|(units, _)| *units >= 0).map(|(units, _)| Wide(units));
    let kline = Kline {
        symbol: symbol(&v["s"], symbols).filter(|_| k.get("s").is_none() || k["s"] == v["s"])?,
        interval: Interval::ALL.into_iter().find(|interval| k["i"] == interval.as_str())?,
        open_time: time(&k["t"])?,
        close_time: time(&k["T"])?,
        open: positive(&k["o"])?,
        high: positive(&k["h"])?,
        low: positive(&k["l"])?,
        close: positive(&k["c"])?,
        volume: wide("v")?,
        quote_volume: wide("q")?,
        taker_buy_volume: wide("V")?,
        taker_buy_quote_volume: wide("Q")?,
        trades: whole(&k["n"]).filter(|n| *n >= 0)?,
        first_id: whole(&k["f"]).filter(|id| *id >= -1)?,
        last_id: whole(&k["L"])?,
        closed: k["x"].as_bool()?,
        event_time: time(&v["E"])?,
        price_decimals: decimal(&k["c"])?.1,
        qty_decimals: decimal(&k["v"])?.1,
    };
    let inside = [kline.open, kline.close].iter().all(|price| (kline.low..=kline.high).contains(price));
    let taken = kline.taker_buy_volume <= kline.volume && kline.taker_buy_quote_volume <= kline.quote_volume;
    (inside && taken && kline.first_id <= kline.last_id && kline.open_time < kline.close_time).then_some(kline)
}

/// Holds the general reader against serde.
fn agree(text: &str, general: &Result<Decoded, Reject>, marks: &[MarkPrice], symbols: &Symbols) {
    let ours = match general {
        Ok(Decoded::Frame(frame)) => Some(Plain::Frame(*frame)),
        Ok(Decoded::Marks { .. }) => Some(Plain::Marks(marks.to_vec())),
        Ok(Decoded::Control(_)) => Some(Plain::Control),
        Ok(Decoded::Shutdown | Decoded::Other) => Some(Plain::Other),
        Err(_) => None,
    };
    assert_eq!(ours, plain(text, symbols), "{general:?}: {text}");
}

#[test]
fn every_captured_frame_is_read_alike_three_times() {
    let (Some(frames), Some(fixtures)) = (captured("frames"), captured("fixtures/ws")) else { return };
    let mut files = Vec::new();
    let mut folders = vec![frames, fixtures];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    assert!(files.len() > 20, "{files:?}");
    // frames, and those of them that the scanner read, by file and kind
    let mut tally: BTreeMap<(String, &str), (u64, u64)> = BTreeMap::new();
    for path in &files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let file = std::fs::File::open(path).unwrap();
        let lines: Vec<String> = if name.ends_with(".zst") {
            BufReader::new(zstd::stream::read::Decoder::new(file).unwrap()).lines().map(Result::unwrap).collect()
        } else {
            BufReader::new(file).lines().map(Result::unwrap).collect()
        };
        let texts: Vec<&str> = lines.iter().map(|line| line.rsplit('\t').next().unwrap()).collect();
        let names = texts.iter().flat_map(|text| text.split("\"s\":\"").skip(1)).filter_map(|at| at.split('"').next());
        let symbols = Symbols::new(names);
        let mut decoder = Decoder::default();
        for text in texts {
            let general = decoder.read_only(text, &symbols);
            agree(text, &general, decoder.marks(), &symbols);
            let scanned = Decoder::scan_only(text, &symbols);
            let Ok(Decoded::Frame(frame)) = general else {
                assert_eq!(scanned, None, "{text}");
                assert!(general.is_ok(), "{general:?}: {text}");
                continue;
            };
            assert!(scanned.is_none_or(|scanned| scanned == frame), "{text}");
            let kind = match frame {
                Frame::Trade(_) => "aggTrade",
                Frame::Mark(_) => "markPrice",
                Frame::Kline(_) => "kline",
            };
            let count = tally.entry((name.clone(), kind)).or_default();
            count.0 += 1;
            count.1 += u64::from(scanned.is_some());
            let before = decoder.fallbacks();
            assert_eq!(decoder.decode(text, &symbols), Ok(Decoded::Frame(frame)));
            assert_eq!(decoder.fallbacks() - before, u64::from(scanned.is_none()));
        }
    }
    let (all, scanned) = tally.values().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    assert!(all > 70_000 && scanned * 100 >= all * 99, "the scanner knows too few shapes: {tally:#?}");
}

// ---- shapes and damage at random ----

/// A frame in the usual shape: its keys in the venue's order, values as JSON text.
fn usual(random: &mut fastrand::Rng) -> Vec<(String, String)> {
    let text = |text: String| format!("\"{text}\"");
    let number = |random: &mut fastrand::Rng| match random.u8(0..4) {
        0 => format!("{}.{:08}", random.u32(1..99_999), random.u32(..100_000_000)),
        1 => format!("{}", random.u64(1..90_000_000_000)),
        2 => format!("0.{:0width$}", 1, width = random.usize(1..=8)),
        _ => format!("{}.{:02}", random.u32(1..999_999), random.u32(..100)),
    };
    let at = 1_780_000_000_000 + random.i64(0..9_000_000_000);
    let name = text(NAMES[random.usize(..NAMES.len())].to_owned());
    let first = 10_i64.pow(random.u32(0..15)) + random.i64(0..10);
    let last = first + random.i64(0..40);
    let pairs: Vec<(&str, String)> = match random.u8(0..4) {
        0 => vec![
            ("e", text("aggTrade".into())),
            ("E", (at + 150).to_string()),
            ("a", first.to_string()),
            ("s", name),
            ("p", text(number(random))),
            ("q", text(number(random))),
            ("nq", text(number(random))),
            ("f", first.to_string()),
            ("l", last.to_string()),
            ("T", at.to_string()),
            ("m", random.bool().to_string()),
            ("st", "1".into()),
        ],
        1 => vec![
            ("e", text("aggTrade".into())),
            ("E", at.to_string()),
            ("s", name),
            ("a", first.to_string()),
            ("p", text(number(random))),
            ("q", text(number(random))),
            ("f", first.to_string()),
            ("l", last.to_string()),
            ("T", at.to_string()),
            ("m", random.bool().to_string()),
            ("M", "true".into()),
        ],
        2 => vec![
            ("e", text("markPriceUpdate".into())),
            ("E", at.to_string()),
            ("s", name),
            ("p", text(number(random))),
            ("ap", text(number(random))),
            ("P", text(number(random))),
            ("i", text(number(random))),
            ("r", text(["", "-0.00001000", "0.00010000", "-1.5", "0"][random.usize(..5)].into())),
            ("T", if random.bool() { at.to_string() } else { "0".into() }),
            ("st", "1".into()),
        ],
        _ => {
            let low = random.u32(1..1_000_000);
            let prices = [low + random.u32(..9), low + random.u32(..9), low + 9, low];
            let [open, close, high, low] = prices.map(|price| text(format!("{price}.50")));
            let (some, more) = (random.u64(0..1_000_000), random.u64(1_000_000..99_000_000_000_000));
            let interval = Interval::ALL[random.usize(..16)];
            let empty = random.u8(0..9) == 0;
            let ids = if empty { (-1, -1) } else { (first, last) };
            let comma = if random.bool() { ", " } else { "," };
            let mut inner = vec![
                ("t", at.to_string()),
                ("T", (at + 59_999).to_string()),
                ("s", name.clone()),
                ("i", text(interval.as_str().into())),
                ("f", ids.0.to_string()),
                ("L", ids.1.to_string()),
                ("o", open),
                ("c", close),
                ("h", high),
                ("l", low),
                ("v", text(format!("{more}.125"))),
                ("n", (last - first).to_string()),
                ("x", random.bool().to_string()),
                ("q", text(more.to_string())),
                ("V", text(format!("{some}.00000001"))),
                ("Q", text(some.to_string())),
                ("B", text("0".into())),
            ];
            if random.u8(0..3) == 0 {
                random.shuffle(&mut inner);
            }
            let inner: Vec<_> = inner.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            let candle = format!("{{{}}}", inner.join(comma));
            vec![("e", text("kline".into())), ("E", (at + 99).to_string()), ("s", name), ("k", candle)]
        }
    };
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn object(pairs: &[(String, String)], blank: &str) -> String {
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("\"{key}\":{blank}{value}")).collect();
    format!("{{{}}}", pairs.join(&format!(",{blank}")))
}

/// The same frame as anybody's JSON might have it.
fn unusual(random: &mut fastrand::Rng) -> String {
    let mut pairs = usual(random);
    for n in 0..random.usize(0..4) {
        let unknown = [
            r#"{"e":"aggTrade","s":["x",{"p":"0"}],"":null}"#,
            r#"[[[1e3,-0.5,true]],"\"\\\u0000}",{}]"#,
            "123456789012345678901234567890",
            "null",
            r#""\ud83d\ude00 {\"p\":\"1\"}""#,
        ];
        pairs.push((format!("new{n}"), unknown[random.usize(..unknown.len())].to_owned()));
    }
    if random.bool() {
        random.shuffle(&mut pairs);
    }
    let blank = ["", "", " ", "\n\t "][random.usize(..4)];
    let data = object(&pairs, blank);
    let mut wrapper = vec![("stream".to_owned(), "\"a\\u0040b\"".to_owned()), ("data".to_owned(), data.clone())];
    match random.u8(0..4) {
        0 => data,
        1 => format!("{{\"stream\":\"x@y\",\"data\":{data}}}"),
        2 => object(&wrapper, blank),
        _ => {
            wrapper.reverse();
            wrapper.insert(1, ("other".to_owned(), "[{}]".to_owned()));
            format!(" {} \n", object(&wrapper, blank))
        }
    }
}

/// Bytes changed, lost, added or repeated; whatever is no UTF-8 then is replaced, since a text message is UTF-8.
fn damaged(text: &str, random: &mut fastrand::Rng) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let words: [&[u8]; 12] =
        [b"\"", b"\\", b"{", b"}", b",", b"-", b".", b"0", b"NaN", b"\0", b" ", b"99999999999999999999"];
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=bytes.len());
        let end = (at + random.usize(0..12)).min(bytes.len());
        match random.u8(0..6) {
            0 if at < bytes.len() => bytes[at] = random.u8(..),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.u8(0..8),
            2 => bytes.truncate(at),
            3 => drop(bytes.splice(at..at, words[random.usize(..words.len())].iter().copied())),
            4 => drop(bytes.splice(at..end, words[random.usize(..words.len())].iter().copied())),
            _ => {
                let slice = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, slice));
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn usual_frames_are_scanned_and_right(seed: u64) {
        let random = &mut fastrand::Rng::with_seed(seed);
        let text = object(&usual(random), "");
        let symbols = symbols();
        let mut decoder = Decoder::default();
        let general = decoder.read_only(&text, &symbols);
        prop_assert!(matches!(general, Ok(Decoded::Frame(_))), "{general:?}: {text}");
        agree(&text, &general, &[], &symbols);
        prop_assert_eq!(decoder.decode(&text, &symbols), general);
    }

    #[test]
    fn unusual_frames_are_read_as_serde_reads_them(seed: u64) {
        let text = unusual(&mut fastrand::Rng::with_seed(seed));
        let general = read(&text);
        prop_assert!(matches!(general, Ok(Decoded::Frame(_))), "{general:?}: {text}");
        agree(&text, &general, &[], &symbols());
    }

    #[test]
    fn damage_is_contained_in_its_frame(seed: u64) {
        let random = &mut fastrand::Rng::with_seed(seed);
        let symbols = symbols();
        let mut decoder = Decoder::default();
        let good = ours("um_kline_open");
        let expected = decoder.decode(&good, &symbols);
        let text = if random.bool() { object(&usual(random), "") } else { unusual(random) };
        let bad = damaged(&text, random);
        let general = read(&bad);
        // whatever is believed, serde believes too; what is refused may be a key that stands twice
        if general.is_ok() && serde_json::from_str::<Value>(&bad).is_ok() {
            agree(&bad, &general, &[], &symbols);
        }
        prop_assert_eq!(decoder.decode(&bad, &symbols), general);
        prop_assert_eq!(decoder.decode(&good, &symbols), expected);
        prop_assert!(sample(bad.as_bytes()).chars().all(|c| !c.is_control()));
    }
}

// ---- hostile text ----

const TRADE: &str = r#"{"e":"aggTrade","E":1789000000157,"a":5,"s":"ETHUSDT","p":"4321.05","q":"1.25","nq":"1.25","f":3,"l":9,"T":1789000000004,"m":true,"st":1}"#;

/// A good trade with one piece of it replaced.
fn spoilt(from: &str, to: &str) -> Result<Decoded, Reject> {
    assert!(TRADE.contains(from));
    read(&TRADE.replacen(from, to, 1))
}

#[test]
fn numbers_that_are_none_are_refused() {
    assert!(read(TRADE).is_ok());
    let long = format!("1.{}1", "0".repeat(60));
    for number in [
        "NaN",
        "Infinity",
        "-Infinity",
        "-1",
        "0",
        "0.00000000",
        "-0",
        "",
        " 1",
        "1 ",
        "+1",
        "1e400",
        "1e5",
        ".5",
        "5.",
        "1.2.3",
        "0x10",
        "1,5",
        "1.000000001",
        "92233720368.54775808",
        "99999999999",
        "999999999999999999999999999999",
        "１",
        &long,
    ] {
        for key in ["p", "q"] {
            let (from, to) = if key == "p" { ("4321.05", number) } else { ("\"q\":\"1.25", number) };
            let to = if key == "p" { to.to_owned() } else { format!("\"q\":\"{to}") };
            assert_eq!(spoilt(from, &to), refused(RejectKind::Number, if key == "p" { "p" } else { "q" }), "{number}");
        }
    }
    // zeros beyond the eighth decimal and before the first digit say nothing, so they are no fault
    let same = read(&TRADE.replace("1.25", "001.25000000000000000"));
    assert!(matches!(same, Ok(Decoded::Frame(Frame::Trade(trade))) if trade.qty == Fixed(125_000_000)));
    assert!(spoilt("4321.05", "92233720368.54775807").is_ok());
    for value in ["4321.05", "null", "true", "[]", "{}"] {
        assert_eq!(spoilt("\"4321.05\"", value), refused(RejectKind::Type, "p"), "{value}");
    }
    assert_eq!(spoilt("\"p\":\"4321.05\",", ""), refused(RejectKind::Missing, "p"));
    for (id, kind) in [
        ("-1", RejectKind::Number),
        ("9223372036854775808", RejectKind::Number),
        ("123456789012345678901234567890", RejectKind::Number),
        ("5.5", RejectKind::Type),
        ("5e0", RejectKind::Type),
        ("\"5\"", RejectKind::Type),
        ("null", RejectKind::Type),
    ] {
        assert_eq!(spoilt("\"a\":5", &format!("\"a\":{id}")), refused(kind, "a"), "{id}");
    }
    for id in ["05", "-", "1e400", "+5", "0x5", "5.", "NaN", ""] {
        let json = Err(Reject { kind: RejectKind::Json, field: None });
        assert_eq!(spoilt("\"a\":5", &format!("\"a\":{id}")), json, "{id}");
    }
    assert!(spoilt("\"a\":5", "\"a\":9223372036854775807").is_ok());
    assert_eq!(spoilt("\"l\":9", "\"l\":2"), refused(RejectKind::Number, "l"));
    for flag in ["1", "\"true\"", "null"] {
        assert_eq!(spoilt("true", flag), refused(RejectKind::Type, "m"), "{flag}");
    }
}

#[test]
fn times_out_of_this_century_are_refused() {
    for time in ["0", "1", "-1", "1262303999999", "4102444800000", "1789000000004000", "9223372036854775808"] {
        assert_eq!(spoilt("1789000000004", time), refused(RejectKind::Time, "T"), "{time}");
        assert_eq!(spoilt("1789000000157", time), refused(RejectKind::Time, "E"), "{time}");
    }
    for time in ["1262304000000", "4102444799999"] {
        assert!(spoilt("1789000000004", time).is_ok());
    }
    assert_eq!(spoilt("1789000000004", "\"1789000000004\""), refused(RejectKind::Type, "T"));
}

#[test]
fn candles_that_contradict_themselves_are_refused() {
    let good = ours("um_kline_closed");
    for (from, to, kind, field) in [
        ("\"h\":\"188.0100\"", "\"h\":\"187.0000\"", RejectKind::Number, "h"),
        ("\"l\":\"185.5000\"", "\"l\":\"186.5000\"", RejectKind::Number, "l"),
        ("\"o\":\"186.0000\"", "\"o\":\"0\"", RejectKind::Number, "o"),
        ("\"v\":\"90000\"", "\"v\":\"-1\"", RejectKind::Number, "v"),
        ("\"V\":\"45000\"", "\"V\":\"90001\"", RejectKind::Number, "V"),
        ("\"Q\":\"8400000.2500\"", "\"Q\":\"16800000.5001\"", RejectKind::Number, "Q"),
        ("\"n\":9000", "\"n\":-1", RejectKind::Number, "n"),
        ("\"f\":3000000001", "\"f\":-2", RejectKind::Number, "f"),
        ("\"L\":3000009000", "\"L\":1", RejectKind::Number, "L"),
        ("\"T\":1789000199999", "\"T\":1788999300000", RejectKind::Time, "T"),
        ("\"i\":\"15m\"", "\"i\":\"16m\"", RejectKind::Type, "i"),
        ("\"x\":true", "\"x\":1", RejectKind::Type, "x"),
        ("\"k\":{", "\"k\":[],\"kk\":{", RejectKind::Type, "k"),
        ("\"s\":\"SOLUSDT\",\"i\"", "\"s\":\"ETHUSDT\",\"i\"", RejectKind::Symbol, "s"),
        ("\"s\":\"SOLUSDT\",\"k\"", "\"s\":\"XXXUSDT\",\"k\"", RejectKind::Symbol, "s"),
    ] {
        assert!(good.contains(from), "{from}");
        assert_eq!(read(&good.replacen(from, to, 1)), refused(kind, field), "{to}");
    }
    assert_eq!(
        read(&good.replacen("\"s\":\"SOLUSDT\",\"i\"", "\"i\"", 1)),
        read(&good),
        "the inner symbol is optional"
    );
}

#[test]
fn symbols_that_nobody_asked_for_are_refused() {
    let long = "X".repeat(100_000);
    for name in ["DOGEUSDT", "ethusdt", "ETHUSDT\\u0000", "../../etc/passwd", "'; DROP TABLE agg_trade; --", "", &long]
    {
        assert_eq!(spoilt("ETHUSDT", name), refused(RejectKind::Symbol, "s"), "{}", sample(name.as_bytes()));
    }
    assert_eq!(spoilt("\"ETHUSDT\"", "5"), refused(RejectKind::Type, "s"));
    assert!(spoilt("ETHUSDT", "ETH\\u0055SDT").is_ok(), "an escape is the letter it stands for");
    assert_eq!(spoilt("ETHUSDT", "ETHUSDT\0"), Err(Reject { kind: RejectKind::Json, field: None }));
}

#[test]
fn keys_that_stand_twice_are_refused_where_they_are_read() {
    assert_eq!(spoilt("\"m\":true", "\"m\":true,\"m\":true"), refused(RejectKind::Shape, "m"));
    assert_eq!(spoilt("\"a\":5", "\"a\":5,\"p\":\"1\""), refused(RejectKind::Shape, "p"));
    assert_eq!(spoilt("\"a\":5", "\"a\":5,\"e\":\"trade\""), refused(RejectKind::Shape, "e"));
    assert!(spoilt("\"a\":5", "\"a\":5,\"zz\":1,\"zz\":2").is_ok());
    let twice = format!(r#"{{"stream":"a","data":{TRADE},"data":{TRADE}}}"#);
    assert_eq!(read(&twice), refused(RejectKind::Shape, "data"));
}

#[test]
fn text_that_is_no_message_is_refused_and_forgotten() {
    let symbols = symbols();
    let mut decoder = Decoder::default();
    let expected = decoder.decode(TRADE, &symbols);
    let json = Reject { kind: RejectKind::Json, field: None };
    let shape = Reject { kind: RejectKind::Shape, field: None };
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let cases = [
        (String::new(), json),
        (" ".to_owned(), json),
        ("\u{feff}".to_owned() + TRADE, json),
        (TRADE.to_owned() + "x", json),
        (TRADE.to_owned() + TRADE, json),
        (TRADE[..TRADE.len() - 1].to_owned(), json),
        (deep("[", "]"), json),
        (deep("{\"a\":", "}"), json),
        ("[".repeat(1_000_000), json),
        ("\"".repeat(1_000_001), json),
        (format!("{{\"e\":\"aggTrade\",\"x\":{}}}", deep("[", "]")), json),
        ("{'e':'aggTrade'}".to_owned(), json),
        (format!("{{\"stream\":\"a\tb\",\"data\":{TRADE}}}"), json),
        (format!("{{\"stream\":\"a long name\u{1f}\",\"data\":{TRADE}}}"), json),
        ("null".to_owned(), shape),
        ("true".to_owned(), shape),
        ("5".to_owned(), shape),
        ("\"text\"".to_owned(), shape),
        (format!("{:?}", TRADE), shape),
        ("{}".to_owned(), shape),
        (r#"{"data":{}}"#.to_owned(), shape),
        (r#"{"stream":"a","data":{}}"#.to_owned(), shape),
        (r#"{"stream":"a"}"#.to_owned(), Reject { kind: RejectKind::Missing, field: Some("data") }),
        (format!(r#"{{"stream":"a","data":{:?}}}"#, TRADE), Reject { kind: RejectKind::Type, field: Some("data") }),
        (format!(r#"{{"stream":5,"data":{TRADE}}}"#), Reject { kind: RejectKind::Type, field: Some("stream") }),
        (r#"{"e":null}"#.to_owned(), Reject { kind: RejectKind::Type, field: Some("e") }),
        (
            r#"{"e":"kline","s":"ETHUSDT","E":1789000000157}"#.to_owned(),
            Reject { kind: RejectKind::Missing, field: Some("k") },
        ),
    ];
    for (text, reason) in cases {
        let begun = std::time::Instant::now();
        assert_eq!(decoder.decode(&text, &symbols), Err(reason), "{}", sample(text.as_bytes()));
        assert!(begun.elapsed().as_millis() < 500, "{}", sample(text.as_bytes()));
        assert_eq!(read(&text), Err(reason));
        assert_eq!(decoder.decode(TRADE, &symbols), expected);
    }
}

#[test]
fn decimals_of_a_text_are_kept() {
    let Ok(Decoded::Frame(Frame::Trade(trade))) = read(TRADE) else { panic!("not read") };
    assert_eq!(trade.price.show(trade.price_decimals).to_string(), "4321.05");
    assert_eq!(rust_decimal::Decimal::from_str("4321.05"), Ok(trade.price.to_decimal()));
}
