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
use crate::wire::names::url_encoded;
use crate::wire::{StreamKind, SymbolId};

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

/// What bounds a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'p> {
    /// Most streams on it.
    pub per_connection: usize,
    /// All of its streams stand in the URL.
    pub by_url: bool,
    /// Path of the address, before `/stream`.
    pub path: &'p str,
}

/// The streams of these symbols in groups, one group a connection. A symbol's streams stay together where they fit;
/// `per_connection = 1` means a connection per symbol.
pub fn lay_out(kinds: &[StreamKind], limits: Limits<'_>, symbols: &[(SymbolId, &str)]) -> Vec<Vec<Wanted>> {
    let Limits { per_connection, by_url, path } = limits;
    let prefix = path.len() + QUERY.len();
    let mut groups: Vec<Vec<Wanted>> = Vec::new();
    let mut url_bytes = 0;
    for (symbol, symbol_name) in symbols.iter().copied() {
        let wanted: Vec<Wanted> =
            kinds.iter().map(|kind| Wanted { symbol, kind: *kind, name: kind.stream_name(symbol_name) }).collect();
        let whole: usize = wanted.iter().map(|stream| bytes_in_url(&stream.name)).sum();
        let room = groups.last().map_or(0, |group| per_connection.saturating_sub(group.len()));
        let fits = room >= wanted.len() && !(by_url && prefix + url_bytes + whole > URL_BYTES_MAX);
        if !fits || per_connection == 1 {
            groups.push(Vec::new());
            url_bytes = 0;
        }
        for stream in wanted {
            let bytes = bytes_in_url(&stream.name);
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

/// How many of these names fit into one URL.
pub fn fit_in_url<'n>(path: &str, names: impl Iterator<Item = &'n str>) -> usize {
    let mut bytes = path.len() + QUERY.len();
    names
        .take_while(|name| {
            bytes += bytes_in_url(name);
            bytes <= URL_BYTES_MAX
        })
        .count()
}

/// With the stroke between two names.
fn bytes_in_url(name: &str) -> usize {
    url_encoded(name).len() + 1
}

/// Between the path of the address and the names of a combined stream.
const QUERY: &str = "/stream?streams=";

/// Path and query of the upgrade request.
pub fn target<'n>(path: &str, by: SubscribeBy, names: impl Iterator<Item = &'n str>) -> String {
    match by {
        SubscribeBy::Message => format!("{path}/stream"),
        SubscribeBy::Url => {
            let names: Vec<String> = names.map(url_encoded).collect();
            format!("{path}{QUERY}{}", names.join("/"))
        }
    }
}
