//! Which stream on which connection, within the venue's limits.
//!
//! | kind | root (USD-M) | source |
//! |---|---|---|
//! | aggTrade, markPrice, kline | `/market` | the venue's notice of the stream split, 2026-04-23 |
//! | bookTicker, depth | `/public` | same; not subscribed to here |
//! | user data | `/private` | same; not subscribed to here |
//!
//! A stream asked for on the wrong root is acknowledged and silent for ever. Spot has no roots.

use crate::config::{Config, SubscribeBy};
use crate::wire::{StreamKind, SymbolId, Symbols};

/// Longest upgrade URL: the venue cuts near 8,000 characters.
const URL_BYTES_MAX: usize = 7_000;
/// Longest SUBSCRIBE message: above 4,096 bytes on the wire it is swallowed without a word.
pub const SUBSCRIBE_BYTES_MAX: usize = 3_500;
/// Most names in one SUBSCRIBE.
pub const SUBSCRIBE_NAMES_MAX: usize = 100;

/// One wanted stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose.
    pub symbol: SymbolId,
    /// What it carries.
    pub kind: StreamKind,
    /// Its name on the wire.
    pub name: String,
}

/// The kinds of streams each symbol has.
pub fn kinds(config: &Config) -> Vec<StreamKind> {
    let streams = &config.streams;
    let mut kinds = Vec::new();
    if streams.agg_trade {
        kinds.push(StreamKind::AggTrade);
    }
    if streams.mark_price {
        kinds.push(StreamKind::MarkPrice);
    }
    kinds.extend(streams.klines.iter().map(|interval| StreamKind::Kline(*interval)));
    kinds
}

/// All wanted streams in groups, one group a connection. A symbol's streams stay together where they fit;
/// `per_connection = 1` means a connection per symbol.
pub fn lay_out(config: &Config, symbols: &Symbols) -> Vec<Vec<Wanted>> {
    let kinds = kinds(config);
    let (per_connection, by_url) = (config.streams.per_connection, config.streams.subscribe_by == SubscribeBy::Url);
    let prefix = config.exchange.market_ws.path.len() + "/stream?streams=".len();
    let mut groups: Vec<Vec<Wanted>> = Vec::new();
    let mut url_bytes = 0;
    for (symbol, symbol_name) in symbols.iter() {
        let wanted: Vec<Wanted> =
            kinds.iter().map(|kind| Wanted { symbol, kind: *kind, name: kind.stream_name(symbol_name) }).collect();
        let whole: usize = wanted.iter().map(|stream| url_encoded(&stream.name).len() + 1).sum();
        let room = groups.last().map_or(0, |group| per_connection.saturating_sub(group.len()));
        let fits = room >= wanted.len() && !(by_url && prefix + url_bytes + whole > URL_BYTES_MAX);
        if !fits || per_connection == 1 {
            groups.push(Vec::new());
            url_bytes = 0;
        }
        for stream in wanted {
            let bytes = url_encoded(&stream.name).len() + 1;
            let full = per_connection > 1 && groups.last().is_some_and(|group| group.len() >= per_connection);
            if full || (by_url && prefix + url_bytes + bytes > URL_BYTES_MAX) {
                groups.push(Vec::new());
                url_bytes = 0;
            }
            url_bytes += bytes;
            if let Some(group) = groups.last_mut() {
                group.push(stream);
            }
        }
    }
    groups
}

/// Path and query of the upgrade request for a group.
pub fn target(config: &Config, group: &[Wanted]) -> String {
    let base = &config.exchange.market_ws.path;
    match config.streams.subscribe_by {
        SubscribeBy::Message => format!("{base}/stream"),
        SubscribeBy::Url => {
            let names: Vec<String> = group.iter().map(|stream| url_encoded(&stream.name)).collect();
            format!("{base}/stream?streams={}", names.join("/"))
        }
    }
}

/// Stream names may hold letters outside ASCII; in a URL those are percent-encoded UTF-8.
fn url_encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => out.push(char::from(byte)),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    out
}
