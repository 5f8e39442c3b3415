//! Frames and messages, right and wrong.

use std::time::SystemTime;

/// Continues a message.
pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;
/// The bit of the first byte that ends a message.
pub(super) const FIN: u8 = 0x80;
/// The first reserved bit: compressed.
pub(super) const RSV1: u8 = 0x40;

/// A server's frame: this first byte, this payload.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    frame.extend_from_slice(payload);
    frame
}

/// The header of a frame of this length.
pub(super) fn header(first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first];
    match length {
        0..=125 => header.push(length as u8),
        126..=0xffff => {
            header.push(126);
            header.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            header.push(127);
            header.extend_from_slice(&length.to_be_bytes());
        }
    }
    header
}

/// A whole text message in one frame.
pub(super) fn message(text: &str) -> Vec<u8> {
    frame(FIN | TEXT, text.as_bytes())
}

/// A close frame.
pub(super) fn close(code: Option<u16>, reason: &[u8]) -> Vec<u8> {
    let mut payload: Vec<u8> = code.into_iter().flat_map(u16::to_be_bytes).collect();
    payload.extend_from_slice(reason);
    frame(FIN | CLOSE, &payload)
}

/// A trade of this id, as the venue writes it, except for the price.
pub(super) fn trade_at(symbol: &str, id: u64, time_ms: i64, price: &str) -> String {
    format!(
        r#"{{"e":"aggTrade","E":{time_ms},"a":{id},"s":"{symbol}","p":{price},"q":"0.010","nq":"0.010","f":{id},"l":{id},"T":{time_ms},"m":false}}"#
    )
}

/// A trade of now.
pub(super) fn trade(symbol: &str, id: u64) -> String {
    trade_at(symbol, id, now_ms(), r#""65000.10""#)
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Messages that mean nothing, contradict themselves, or try to break a reader. The trades among them have ids from
/// `id` on.
pub(super) fn nonsense(symbol: &str, id: u64) -> Vec<String> {
    let mut all: Vec<String> = [
        "",
        " ",
        "null",
        "[]",
        "{}",
        "true",
        "1",
        "\"text\"",
        "\u{feff}{}",
        r#"{"e":"aggTrade"}"#,
        r#"{"e":1}"#,
        r#"{"e":"aggTrade","E":1e999}"#,
        r#"{"e":"aggTrade","a":99999999999999999999999999}"#,
        r#"{"e":"aggTrade","a":-9223372036854775809}"#,
        r#"{"e":"aggTrade","p":"1","p":"2"}"#,
        r#"{"e":"aggTrade","p":NaN}"#,
        r#"{"e":"aggTrade"} behind"#,
        r#"{"e":"aggTrade""#,
        r#"{"e":"nobody knows this","x":1}"#,
        r#"{"s":"\ud800"}"#,
        r#"{"s":"\u0000"}"#,
        "{\"s\":\"\0\"}",
        r#"{"stream":"x","data":null}"#,
        r#"{"stream":"x"}"#,
        r#"{"id":null}"#,
        r#"{"result":null,"id":-1}"#,
        r#"{"error":{"code":2,"msg":"not about anything"},"id":null}"#,
    ]
    .map(str::to_owned)
    .into();
    all.push("[".repeat(100_000));
    all.push("{\"a\":".repeat(20_000));
    all.push("9".repeat(200_000));
    all.push(serde_json::Value::from(trade(symbol, id)).to_string());
    for price in [
        "\"NaN\"",
        "\"Infinity\"",
        "\"-1\"",
        "\"1e400\"",
        "\"\"",
        "\" 1\"",
        "\"1,5\"",
        "null",
        "[\"1\"]",
        "\"65000.100000000000000000000000000000000001\"",
    ] {
        all.push(trade_at(symbol, id, now_ms(), price));
    }
    for name in ["DROP TABLE x;--", "../../etc/passwd", "\\u001b[31m"] {
        all.push(trade(name, id));
    }
    all.push(trade(&"A".repeat(100_000), id));
    all
}
