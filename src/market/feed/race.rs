//! Two legs carry the same streams and the first arrival wins: who was first, by how much, and what only one delivered.

use crate::time::{Instant, Span};

/// Messages of one stream that are remembered, to meet their second copy.
const TRADES_REMEMBERED: usize = 256;
const OTHERS_REMEMBERED: usize = 32;

/// A leg's books, over all its streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegBooks {
    /// Messages that this leg brought first.
    pub first: u64,
    /// Messages that the other leg had brought before.
    pub late: u64,
    /// Messages that only the other leg brought, while this one was live.
    pub lost: u64,
    /// Sum of the leads over the other leg, over the messages that came twice and were first here.
    pub lead_sum: Span,
    /// Longest of them.
    pub lead_max: Span,
    /// How many they are.
    pub leads: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: i64,
    at: Instant,
    leg: usize,
    /// The other leg brought it as well.
    twice: bool,
    /// The other leg was live when it came, so its copy is to be expected.
    expected: bool,
}

/// What came on one stream lately, over both legs.
#[derive(Clone, Debug)]
pub(super) struct Race {
    entries: Vec<Option<Entry>>,
}

impl Race {
    pub(super) fn of_trades() -> Self {
        Self { entries: vec![None; TRADES_REMEMBERED] }
    }

    pub(super) fn of_others() -> Self {
        Self { entries: vec![None; OTHERS_REMEMBERED] }
    }

    /// A message came on `leg`. `key` tells messages of the stream apart; `spot` is its place, so that neighbours do not
    /// push each other out. `other_live`: the other leg could have brought it.
    pub(super) fn arrived(
        &mut self,
        (key, spot): (i64, i64),
        leg: usize,
        other_live: bool,
        books: &mut [LegBooks; 2],
        now: Instant,
    ) {
        let other = 1 - leg;
        let place = spot.rem_euclid(self.entries.len() as i64) as usize;
        match &mut self.entries[place] {
            Some(entry) if entry.key == key => {
                if entry.leg == leg || entry.twice {
                    return;
                }
                entry.twice = true;
                let lead = now.since(entry.at);
                books[leg].late += 1;
                let winner = &mut books[other];
                winner.leads += 1;
                winner.lead_sum = Span::from_ns(winner.lead_sum.as_ns().saturating_add(lead.as_ns()));
                winner.lead_max = winner.lead_max.max(lead);
            }
            Some(entry) if entry.key > key => {
                // So late that its place was taken: it was held to be lost.
                books[leg].late += 1;
                books[leg].lost = books[leg].lost.saturating_sub(1);
            }
            entry => {
                if let Some(old) = entry
                    && old.expected
                    && !old.twice
                {
                    books[1 - old.leg].lost += 1;
                }
                *entry = Some(Entry { key, at: now, leg, twice: false, expected: other_live });
                books[leg].first += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leads_losses_and_late_copies_are_those_that_happened() {
        let (mut race, mut books) = (Race::of_trades(), [LegBooks::default(); 2]);
        let at = |ms: u64| Instant::ZERO + Span::from_ms(ms);
        for id in 0..1_000_i64 {
            let ms = id as u64 * 10;
            race.arrived((id, id), 0, true, &mut books, at(ms));
            if id % 10 != 0 {
                race.arrived((id, id), 1, true, &mut books, at(ms + 3));
            }
        }
        for id in 1_000..1_300 {
            race.arrived((id, id), 1, false, &mut books, at(20_000));
        }
        let [a, b] = books;
        assert_eq!((a.first, a.late, a.lost), (1_000, 0, 0));
        assert_eq!((a.leads, a.lead_max, a.lead_sum), (900, Span::from_ms(3), Span::from_ms(2_700)));
        assert_eq!((b.first, b.late, b.lost), (300, 900, 100));
    }

    #[test]
    fn what_comes_when_its_place_is_taken_is_late_and_not_lost() {
        let (mut race, mut books) = (Race::of_others(), [LegBooks::default(); 2]);
        for key in 0..36 {
            race.arrived((key, key), 0, true, &mut books, Instant::ZERO);
        }
        assert_eq!(books[1].lost, 4);
        for key in 0..36 {
            race.arrived((key, key), 1, true, &mut books, Instant::ZERO);
        }
        assert_eq!((books[1].lost, books[1].late, books[0].leads), (0, 36, 32));
    }
}
