//! The two clocks, as types that cannot be confused.
//!
//! [`Instant`] measures: deadlines and ages. [`UtcMs`] stamps: exchange fields, log lines, candles. Nothing here reads a
//! clock; whoever calls the engine says what time it is, in a [`Now`].

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// Monotonic time in nanoseconds since the run began. For deadlines and ages only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

/// A length of time in nanoseconds, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

/// Wall-clock time in milliseconds since 1970-01-01T00:00:00Z. For the exchange's fields and for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcMs(pub i64);

/// The time of one input, as the shell (or the simulated world) read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For deadlines and ages.
    pub mono: Instant,
    /// For stamps, in nanoseconds since 1970-01-01Z; see [`Now::utc`].
    pub utc_ns: i64,
}

impl Now {
    /// The wall clock in milliseconds.
    pub fn utc(&self) -> UtcMs {
        UtcMs(self.utc_ns.div_euclid(1_000_000))
    }
}

impl Instant {
    /// The beginning of the run.
    pub const ZERO: Self = Self(0);
    /// Later than anything that will happen.
    pub const FAR: Self = Self(u64::MAX);

    /// `ns` nanoseconds after the run began.
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the run began.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Span> for Instant {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl AddAssign<Span> for Instant {
    fn add_assign(&mut self, span: Span) {
        *self = *self + span;
    }
}

impl Sub<Span> for Instant {
    type Output = Self;
    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// Longer than any run.
    pub const MAX: Self = Self(u64::MAX);

    /// `ns` nanoseconds.
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }
    /// `us` microseconds.
    pub const fn from_us(us: u64) -> Self {
        Self(us.saturating_mul(1_000))
    }
    /// `ms` milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }
    /// `s` seconds.
    pub const fn from_secs(s: u64) -> Self {
        Self(s.saturating_mul(1_000_000_000))
    }
    /// In nanoseconds.
    pub const fn as_ns(self) -> u64 {
        self.0
    }
    /// In whole microseconds, rounded down.
    pub const fn as_us(self) -> u64 {
        self.0 / 1_000
    }
    /// In whole milliseconds, rounded down.
    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000_000
    }
    /// The same length for the standard library.
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0)
    }
    /// The part of this span that is left after `used`; zero if none.
    pub const fn saturating_sub(self, used: Self) -> Self {
        Self(self.0.saturating_sub(used.0))
    }
    /// This span `n` times.
    pub const fn times(self, n: u64) -> Self {
        Self(self.0.saturating_mul(n))
    }
}

impl fmt::Display for Span {
    /// `850ms`, `4.0s`, `23h`: as a person would say it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.as_ms();
        match ms {
            0 if self.0 == 0 => write!(f, "0s"),
            0 => write!(f, "{}us", self.as_us()),
            _ if ms.is_multiple_of(3_600_000) => write!(f, "{}h", ms / 3_600_000),
            _ if ms.is_multiple_of(60_000) => write!(f, "{}m", ms / 60_000),
            _ if ms.is_multiple_of(1_000) => write!(f, "{}s", ms / 1_000),
            _ if ms > 10_000 => write!(f, "{:.1}s", ms as f64 / 1e3),
            _ => write!(f, "{ms}ms"),
        }
    }
}

impl fmt::Display for UtcMs {
    /// RFC 3339 in UTC with milliseconds: `2025-10-21T22:45:00.000Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(stamp) => write!(f, "{stamp:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl serde::Serialize for UtcMs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_a_person_says_them() {
        assert_eq!(UtcMs(1_761_086_700_000).to_string(), "2025-10-21T22:45:00.000Z");
        assert_eq!(Span::from_ms(850).to_string(), "850ms");
        assert_eq!(Span::from_secs(10).to_string(), "10s");
        assert_eq!(Span::from_secs(23 * 3600).to_string(), "23h");
        assert_eq!(Span::ZERO.to_string(), "0s");
    }

    #[test]
    fn ages_are_never_negative() {
        assert_eq!(Instant::from_ns(5).since(Instant::from_ns(9)), Span::ZERO);
        assert_eq!(Instant::FAR + Span::from_secs(1), Instant::FAR);
    }
}
