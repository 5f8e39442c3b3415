//! The one place where time is read.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::{Instant, Now, UtcMs};

/// Reads both clocks of the machine. Copies share their beginning, so instants of different threads compare.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// The run begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { mono: self.mono(), utc_ns: utc_ns() }
    }

    /// The monotonic clock alone.
    #[must_use]
    pub fn mono(&self) -> Instant {
        Instant::from_ns(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The wall clock, for stamps on what is printed.
#[must_use]
pub fn utc_now() -> UtcMs {
    Now { utc_ns: utc_ns(), ..Now::default() }.utc()
}

/// The wall clock in nanoseconds since 1970-01-01Z; negative before, the nearest end where it does not fit.
fn utc_ns() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_run_and_copies_agree() {
        let clock = SystemClock::start();
        let copy = clock;
        let (first, second) = (clock.now(), copy.now());
        assert!(second.mono >= first.mono);
        assert!(first.utc().0 > 1_600_000_000_000, "the wall clock is set");
    }
}
