//! `[streams]`: which symbols, by name or by pattern, and which of their streams.

use super::Market;
use crate::wire::Interval;
use crate::wire::names::SYMBOL_BYTES_MAX;
use std::fmt;

/// `[streams]`
#[derive(Clone, Debug, PartialEq)]
pub struct Streams {
    /// The venue's upper-case names as listed, no duplicates; at least one unless there are patterns.
    pub symbols: Vec<String>,
    /// Choose further symbols from the venue's own list, no duplicates.
    pub patterns: Vec<Pattern>,
    /// Most symbols that patterns may bring the whole to, 1 to 2000; the first by name are taken. Names that are listed
    /// count and are never left out.
    pub symbols_max: usize,
    /// Subscribe to `@aggTrade`.
    pub agg_trade: bool,
    /// Subscribe to `@markPrice@1s`.
    pub mark_price: bool,
    /// Subscribe to `@kline_<interval>` for each.
    pub klines: Vec<Interval>,
    /// How streams are asked for.
    pub subscribe_by: SubscribeBy,
    /// Most streams on one connection, 1 to 1024.
    pub per_connection: usize,
    /// 1 or 2 connections carrying the same streams.
    pub legs: u8,
}

impl Streams {
    /// The defaults for these symbols; spot has no mark price.
    pub fn of(symbols: Vec<String>, market: Market) -> Self {
        Self {
            symbols,
            patterns: Vec::new(),
            symbols_max: 600,
            agg_trade: true,
            mark_price: market == Market::Usdm,
            klines: vec![Interval::M1],
            subscribe_by: SubscribeBy::Message,
            per_connection: 200,
            legs: 1,
        }
    }

    /// True if the symbol is listed, or a pattern would choose it.
    pub fn want(&self, symbol: &str) -> bool {
        self.symbols.iter().any(|name| name == symbol) || self.patterns.iter().any(|pattern| pattern.matches(symbol))
    }
}

/// How streams are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeBy {
    /// SUBSCRIBE messages on an open connection.
    Message,
    /// The combined stream URL.
    Url,
}

/// Symbols by the look of their names: `*USDT`, `1000*`, or `all`. A `*` stands for any letters or none, everything else
/// for itself, and the whole name must fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// With at least one `*`, and no two in a row.
    glob: String,
}

impl Pattern {
    /// The pattern in this text: `all`, or up to 64 bytes with a `*`. `None` if it is none. What stands between the
    /// stars is not judged.
    pub fn parse(text: &str) -> Option<Self> {
        if text == ALL {
            return Some(Self { glob: "*".to_owned() });
        }
        if !text.contains('*') || text.len() > SYMBOL_BYTES_MAX {
            return None;
        }
        let mut glob = text.to_owned();
        while glob.contains("**") {
            glob = glob.replace("**", "*");
        }
        Some(Self { glob })
    }

    /// True if the whole name fits.
    pub fn matches(&self, symbol: &str) -> bool {
        let mut parts = self.glob.split('*');
        let (Some(first), Some(last)) = (parts.next(), parts.next_back()) else { return false };
        let Some(mut rest) = symbol.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
        // What stands between two stars is best taken where it comes first: that leaves most for the next.
        parts.all(|part| match rest.split_once(part) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    }
}

impl fmt::Display for Pattern {
    /// As [`Pattern::parse`] reads it; `*` alone is `all`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.glob == "*" { ALL } else { &self.glob })
    }
}

/// The pattern that every name fits.
pub(super) const ALL: &str = "all";

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn a_star_is_anything_and_the_whole_name_must_fit() {
        for (text, fits, fits_not) in [
            ("all", &["BTCUSDT", "币安人生USDT", "A"][..], &[][..]),
            ("*USDT", &["BTCUSDT", "USDT", "币安人生USDT"], &["BTCUSDC", "BTCUSDT_260327", "SDT"]),
            ("1000*", &["1000SHIBUSDT", "1000", "1000000MOGUSDT"], &["BTC1000", "100"]),
            ("1000*USDT", &["1000SHIBUSDT", "1000USDT"], &["1000SHIBUSDC", "1000"]),
            ("*BTC*", &["BTC", "BTCUSDT", "WBTC", "1BTC2"], &["BT", "ETHUSDT"]),
            ("B*T*T", &["BTCUSDT", "BTT"], &["BT", "BT1"]),
            // One letter is not taken twice.
            ("AB*BA", &["ABBA", "ABXBA"], &["ABA"]),
            ("*A*B*", &["AB", "XAXBX"], &["BA"]),
            ("*_*", &["BTCUSDT_260327"], &["BTCUSDT"]),
        ] {
            for name in fits {
                assert!(pattern(text).matches(name), "{text} {name}");
            }
            for name in fits_not {
                assert!(!pattern(text).matches(name), "{text} {name}");
            }
        }
    }

    #[test]
    fn one_meaning_has_one_form() {
        assert_eq!(pattern("all"), pattern("***"));
        assert_eq!(pattern("A**B"), pattern("A*B"));
        assert_eq!((pattern("*").to_string(), pattern("**USDT").to_string()), ("all".to_owned(), "*USDT".to_owned()));
        assert_eq!((Pattern::parse("BTCUSDT"), Pattern::parse(""), Pattern::parse("ALL")), (None, None, None));
        assert_eq!(Pattern::parse(&format!("*{}", "A".repeat(64))), None);
    }

    #[test]
    fn a_symbol_is_wanted_by_name_or_by_pattern() {
        let mut streams = Streams::of(vec!["BTCUSDT".to_owned()], Market::Usdm);
        streams.patterns.push(pattern("*USDC"));
        assert!(streams.want("BTCUSDT") && streams.want("ETHUSDC") && !streams.want("ETHUSDT"));
    }
}
