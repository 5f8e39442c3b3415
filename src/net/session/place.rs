//! A session that takes another one's place, or shares its work.

use super::*;

impl Session {
    /// True when it is stopped and everybody knows: nothing is left to obey or to write.
    pub fn is_settled(&self) -> bool {
        self.is_stopped() && self.requests.is_empty() && self.events.is_empty() && self.farewell.is_empty()
    }

    /// The next attempt has this number: rows that take each other's place share one count.
    pub fn number_next(&mut self, epoch: u64) {
        self.epoch = epoch.saturating_sub(1);
    }

    /// Adds the counts of a session whose place this one takes.
    pub fn inherit(&mut self, old: &Self) {
        self.opened += old.opened;
        self.failed += old.failed;
        self.bytes += old.bytes;
        self.bytes_before += old.bytes;
    }

    /// Another connection for the same streams uses this address: it is the last to be tried.
    pub fn avoid(&mut self, address: Option<SocketAddr>) {
        self.avoided = address;
    }
}
