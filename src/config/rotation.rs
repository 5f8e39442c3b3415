//! `[rotation]`: when connections are replaced as planned.

use crate::time::{Span, UtcMs};
use std::fmt;

/// `[rotation]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Oldest a connection may become before it is replaced; `Span::ZERO` turns planned replacement off.
    pub every: Span,
    /// A connection is replaced at the first such time of day after it opened; `every` is a day then, so that it bounds
    /// the age without ever coming first by itself.
    pub at: Option<TimeOfDay>,
}

impl Default for Rotation {
    /// An hour before the venue ends a connection by itself (24 h).
    fn default() -> Self {
        Self { every: Span::from_secs(23 * 3600), at: None }
    }
}

/// A minute of the day, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay {
    minutes: u16,
}

impl TimeOfDay {
    /// The time in this text, `00:00` to `23:59`, two digits each. `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str, end: u16| -> Option<u16> {
            let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| plain && *number < end)
        };
        let (hour, minute) = text.split_once(':')?;
        Some(Self { minutes: digits(hour, 24)? * 60 + digits(minute, 60)? })
    }

    /// Minutes since midnight UTC, below 1440.
    pub fn minutes(self) -> u16 {
        self.minutes
    }

    /// The first such time after `utc`, never `utc` itself.
    pub fn next_after(self, utc: UtcMs) -> UtcMs {
        let of_day = i64::from(self.minutes) * 60_000;
        let days = (utc.0 - of_day).div_euclid(DAY_MS) + 1;
        UtcMs(days * DAY_MS + of_day)
    }
}

impl fmt::Display for TimeOfDay {
    /// `04:00`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minutes / 60, self.minutes % 60)
    }
}

const DAY_MS: i64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day_read_and_print() {
        for (text, minutes) in [("00:00", 0), ("04:00", 240), ("23:59", 1439)] {
            let time = TimeOfDay::parse(text).unwrap();
            assert_eq!((time.minutes(), time.to_string().as_str()), (minutes, text));
        }
        for text in
            ["", "4:00", "04:0", "24:00", "04:60", "0400", "04:00:00", "+4:00", "-1:00", "04:00Z", "aa:bb", " 4:00"]
        {
            assert_eq!(TimeOfDay::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_next_one_is_later_and_at_most_a_day() {
        let at = |text: &str| UtcMs(text.parse::<jiff::Timestamp>().unwrap().as_millisecond());
        let four = TimeOfDay::parse("04:00").unwrap();
        for (utc, next) in [
            ("2026-11-20T03:59:59.999Z", "2026-11-20T04:00:00Z"),
            ("2026-11-20T04:00:00Z", "2026-11-21T04:00:00Z"),
            ("2026-12-31T23:05:00Z", "2027-01-01T04:00:00Z"),
            ("1969-12-31T23:05:00Z", "1970-01-01T04:00:00Z"),
        ] {
            assert_eq!(four.next_after(at(utc)), at(next), "{utc}");
        }
    }
}
