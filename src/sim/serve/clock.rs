//! The server's clock, and the pace of its log.

use std::time::{Duration, Instant, SystemTime};

use crate::time::UtcMs;

/// The wall clock, which for the exchange never goes back.
#[derive(Default)]
pub(super) struct Clock {
    last: i64,
}

impl Clock {
    pub(super) fn utc(&mut self) -> UtcMs {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last = self.last.max(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        UtcMs(self.last)
    }
}

/// Log lines about connections, so many a second: a storm of clients is not a storm of lines.
pub(super) struct Lines {
    since: Instant,
    said: u32,
    hushed: u64,
}

impl Default for Lines {
    fn default() -> Self {
        Self { since: Instant::now(), said: 0, hushed: 0 }
    }
}

impl Lines {
    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        if self.since.elapsed() >= Duration::from_secs(1) {
            if self.hushed > 0 {
                log::info!("{} more lines about connections left out", self.hushed);
            }
            *self = Self::default();
        }
        if self.said == LINES_PER_SECOND {
            self.hushed += 1;
            return;
        }
        self.said += 1;
        log::info!("{}", line());
    }
}

const LINES_PER_SECOND: u32 = 40;
