//! Halts: times in which symbols do not trade.

use super::Exchange;
use crate::time::UtcMs;

/// Some symbols do not trade for a while. What was matched before still comes, candles are closed by the clock, and at the
/// end everything goes on where it stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// Upper-case names; empty for all.
    pub symbols: Vec<String>,
    /// From this moment on.
    pub from: UtcMs,
    /// Until before this one.
    pub until: UtcMs,
    /// Marks stop as well, on REST, too: nothing of the symbol moves but the clock of its candles.
    pub marks: bool,
}

impl Halt {
    fn holds(&self, symbol: &str, at_ms: i64) -> bool {
        (self.from.0..self.until.0).contains(&at_ms)
            && (self.symbols.is_empty() || self.symbols.iter().any(|name| name == symbol))
    }
}

impl Exchange {
    /// Halts some symbols, or all; from a moment that has passed means from now on.
    pub fn halt(&mut self, halt: Halt) {
        self.config.halts.push(halt);
    }

    /// If the symbol is halted at this moment: when the last of the halts that hold it now ends.
    pub(super) fn halted_until(&self, symbol: usize, at_ms: i64) -> Option<i64> {
        let name = &self.books.at(symbol).listing.name;
        let holding = self.config.halts.iter().filter(|halt| halt.holds(name, at_ms));
        holding.map(|halt| halt.until.0).max()
    }

    /// No marks of this symbol now.
    pub(super) fn marks_halted(&self, symbol: usize) -> bool {
        let name = &self.books.at(symbol).listing.name;
        self.config.halts.iter().any(|halt| halt.marks && halt.holds(name, self.now))
    }
}
