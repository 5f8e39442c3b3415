//! REST of the venue's public market data: the text of each question, and the strict reading of each answer.
//!
//! An answer is taken whole or not at all: one malformed row, or one that was not asked for, refuses it, and
//! [`Malformed`] says which row, which field, and what was expected there. Prices are decimal text, never floats.

mod listing;
mod rows;
mod target;

pub use listing::{ListedSymbol, exchange_info};
pub use rows::{PastTrade, agg_trades, klines, premium_index};
pub use target::{
    AGG_TRADES_MAX, KLINES_MAX, Target, agg_trades_target, exchange_info_target, klines_target, premium_index_target,
};

use super::market::{Reject, RejectKind, escaped};
use crate::time::UtcMs;
use serde::Deserialize;
use std::fmt;

/// Characters of the venue's own words that are kept.
const WORDS_CHARS: usize = 160;

/// Why an answer was refused whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Which row, from 0; `None` where the answer as a whole is meant.
    pub row: Option<usize>,
    /// Which field, by the venue's name or, where it has none, by its meaning.
    pub field: Option<&'static str>,
    /// What was expected instead, or what the reader of JSON says of it.
    pub expected: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            Some(row) => write!(f, "row {row}")?,
            None => f.write_str("answer")?,
        }
        if let Some(field) = self.field {
            write!(f, ", \"{field}\"")?;
        }
        write!(f, ": {}", self.expected)
    }
}

impl Malformed {
    fn answer(expected: impl Into<String>) -> Self {
        Self { row: None, field: None, expected: expected.into() }
    }

    fn field(row: usize, field: &'static str, expected: impl Into<String>) -> Self {
        Self { row: Some(row), field: Some(field), expected: expected.into() }
    }

    /// What broke a rule that pushed events have to keep, too; `name` tells a stream's key in REST's words.
    fn rule(row: usize, reject: Reject, name: impl Fn(&'static str) -> &'static str) -> Self {
        let expected = match reject.kind {
            RejectKind::Time => "expected milliseconds that fit the other times",
            RejectKind::Number => "expected a number in its range and in order with the others",
            RejectKind::Json
            | RejectKind::Shape
            | RejectKind::Missing
            | RejectKind::Type
            | RejectKind::Symbol
            | RejectKind::Unasked
            | RejectKind::Id
            | RejectKind::Binary
            | RejectKind::Protocol => reject.kind.as_str(),
        };
        Self { row: Some(row), field: reject.field.map(name), expected: expected.to_owned() }
    }
}

/// JSON of one shape; its own words about what is wrong say the line and column.
fn json<'a, T: Deserialize<'a>>(body: &'a [u8], shape: &str) -> Result<T, Malformed> {
    serde_json::from_slice(body)
        .map_err(|fault| Malformed::answer(format!("expected {shape}: {}", escaped(&fault.to_string(), WORDS_CHARS))))
}

/// The venue's own error: `{"code":-1121,"msg":"Invalid symbol."}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VenueError {
    /// Negative, as documented by the venue.
    pub code: i64,
    /// The venue's words, escaped and capped.
    pub message: String,
    /// Where the words name an end of a ban: when it is.
    pub banned_until: Option<UtcMs>,
}

impl fmt::Display for VenueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.message)
    }
}

/// The venue's error in a body, `None` if the body is something else (a page of HTML, say).
pub fn venue_error(body: &[u8]) -> Option<VenueError> {
    #[derive(Deserialize)]
    struct Body {
        code: i64,
        #[serde(default)]
        msg: String,
    }
    let Body { code, msg } = serde_json::from_slice(body).ok()?;
    Some(VenueError { code, banned_until: banned_until(&msg), message: escaped(&msg, WORDS_CHARS) })
}

fn banned_until(words: &str) -> Option<UtcMs> {
    let (_, rest) = words.split_once("banned until ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
    digits.parse().ok().map(UtcMs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_venues_errors_are_read_and_the_end_of_a_ban_with_them() {
        let error = venue_error(br#"{"code":-1121,"msg":"Invalid symbol."}"#).unwrap();
        assert_eq!(error, VenueError { code: -1121, message: "Invalid symbol.".into(), banned_until: None });
        assert_eq!(error.to_string(), "-1121 Invalid symbol.");
        let banned = br#"{"code":-1003,"msg":"Way too many requests; IP banned until 1795215960000. Please use\n"}"#;
        let error = venue_error(banned).unwrap();
        assert_eq!(error.banned_until, Some(UtcMs(1_795_215_960_000)));
        assert!(error.message.ends_with(r"use\n"), "{}", error.message);
        for other in ["", "<html>403</html>", "[]", "{}", r#"{"msg":"x"}"#, r#"{"code":"x"}"#] {
            assert_eq!(venue_error(other.as_bytes()), None, "{other}");
        }
        let endless = format!(r#"{{"code":-1003,"msg":"banned until {}"}}"#, "9".repeat(400));
        assert_eq!(venue_error(endless.as_bytes()).unwrap().banned_until, None);
    }
}
