//! How subscribing goes, in sums: for `/status`, and in the log now and then in lines that a tired person can read.

use super::Engine;
use crate::market::feed::{LegBooks, Purpose, Rung, StreamState};
use crate::note::Note;
use crate::status::{Leg, Race, States, Subscriptions, Successions};
use crate::time::{Instant, Now, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Between two of them in the log, counted from the start.
pub(super) const STATISTICS_EVERY: Span = Span::from_secs(300);
/// A symbol with more failures than this fails often.
const OFTEN: u64 = 3;
/// Symbols named in a line; the rest is counted.
const NAMED: usize = 5;

/// How subscribing went since the start, and how the streams stand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Sums over the streams.
    pub subscriptions: Subscriptions,
    /// What became of successors, by purpose.
    pub successions: Vec<Successions>,
    /// Both legs; empty without a second leg.
    pub legs: Vec<Leg>,
}

impl Engine {
    /// How subscribing went since the start, and how the streams stand.
    pub fn statistics(&self) -> Statistics {
        Statistics { subscriptions: self.subscriptions(), successions: self.successions(), legs: self.legs() }
    }

    /// Says them, and when they are said next: never, once a stop has begun.
    pub(super) fn say_statistics(&mut self, now: Now) {
        self.notes.push(now.mono, now.utc(), Note::Statistics(Box::new(self.statistics())));
        let missed = now.mono.since(self.statistics_at).as_ns() / STATISTICS_EVERY.as_ns();
        self.statistics_at = match self.stopping {
            None => self.statistics_at + STATISTICS_EVERY.times(missed + 1),
            Some(_) => Instant::FAR,
        };
    }

    pub(super) fn subscriptions(&self) -> Subscriptions {
        let mut sums = Subscriptions::default();
        let mut problems = BTreeSet::new();
        // By symbol; a stream that is not wanted any more counts no more.
        let mut failures = BTreeMap::<_, u64>::new();
        for stream in self.feed.streams() {
            sums.attempts += stream.attempts;
            sums.successes += stream.successes;
            sums.failures += stream.failures;
            sums.retries += stream.retries;
            count(&mut sums.states, stream.state());
            if stream.state().is_down() {
                problems.insert(self.market.symbols().name(stream.symbol));
            }
            if stream.failures > 0 {
                *failures.entry(self.market.symbols().name(stream.symbol)).or_default() += stream.failures;
            }
        }
        let judged = sums.successes + sums.failures;
        // Tenths of a percent, rounded down, so that 100.0 means all.
        sums.success_rate = (judged > 0).then(|| (1_000 * sums.successes / judged) as f64 / 10.0);
        sums.problem_symbols = problems.into_iter().map(str::to_owned).collect();
        sums.healed_by = healed_by(&self.feed.healed_by_step());
        let often = failures.into_iter().filter(|(_, count)| *count > OFTEN);
        sums.often_failing = often.map(|(symbol, count)| (symbol.to_owned(), count)).collect();
        sums
    }

    pub(super) fn successions(&self) -> Vec<Successions> {
        let rows = Purpose::ALL.iter().map(|purpose| {
            let books = self.feed.books().successions(*purpose);
            let (begun, succeeded, failed) = (books.begun, books.succeeded, books.failed);
            Successions { purpose: purpose.as_str(), begun, succeeded, failed }
        });
        rows.collect()
    }

    pub(super) fn legs(&self) -> Vec<Leg> {
        let legs = self.feed.legs().into_iter().flat_map(|books| ["a", "b"].into_iter().zip(books));
        legs.map(|(leg, books)| Leg { leg, race: race(&books) }).collect()
    }
}

/// The steps that helped, in words, and how often.
pub(super) fn healed_by(counts: &[u64; Rung::ALL.len()]) -> BTreeMap<&'static str, u64> {
    let steps = Rung::ALL.iter().zip(counts).filter(|(_, count)| **count > 0);
    steps.map(|(rung, count)| (rung.as_str(), *count)).collect()
}

pub(super) fn race(books: &LegBooks) -> Race {
    Race {
        first: books.first,
        late: books.late,
        lost: books.lost,
        leads: books.leads,
        lead_mean_us: books.lead_mean().map(Span::as_us),
        lead_max_us: books.lead_max.as_us(),
        lead_sum_us: books.lead_sum.as_us(),
    }
}

fn count(states: &mut States, state: StreamState) {
    let of = match state {
        StreamState::Wanted => &mut states.wanted,
        StreamState::Sent { .. } => &mut states.sent,
        StreamState::Acked { .. } => &mut states.acked,
        StreamState::Quiet { .. } => &mut states.quiet,
        StreamState::Live { .. } => &mut states.live,
        StreamState::Stale { .. } => &mut states.stale,
        StreamState::Failed { .. } => &mut states.failed,
    };
    *of += 1;
}

/// One line a subject, without a line feed at the end. The first two are always there, and so is the third: that there
/// is no trouble is news at night. Steps, rotations and legs are told if there were any.
impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sums = &self.subscriptions;
        let states = sums.states.by_name().into_iter().filter(|(_, count)| *count > 0);
        let states = join(states.map(|(state, count)| format!("{count} {state}")));
        write!(f, "streams: {}", sums.states.total())?;
        if !states.is_empty() {
            write!(f, ", of them {states}")?;
        }
        let rate = sums.success_rate.map_or_else(|| "not known yet".to_owned(), |rate| format!("{rate:.1} %"));
        write!(
            f,
            "\nsubscriptions: {} attempts, {} successes, {} failures, {} retries, success rate {rate}",
            sums.attempts, sums.successes, sums.failures, sums.retries
        )?;
        let problems = first(sums.problem_symbols.iter().cloned(), sums.problem_symbols.len());
        write!(f, "\nsymbols in trouble now: {}", or_none(problems))?;
        if !sums.often_failing.is_empty() {
            let mut often: Vec<_> = sums.often_failing.iter().collect();
            // The worst first; the names are in order already.
            often.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let named = often.iter().map(|(symbol, count)| format!("{symbol} {count} times"));
            write!(f, "\nfailed more than {OFTEN} times since the start: {}", first(named, often.len()))?;
        }
        if !sums.healed_by.is_empty() {
            let steps = Rung::ALL.iter().filter_map(|rung| sums.healed_by.get_key_value(rung.as_str()));
            write!(f, "\nhealed by: {}", join(steps.map(|(step, count)| format!("{step} {count}"))))?;
        }
        let happened = self.successions.iter().filter(|row| row.begun > 0);
        let rows = join(happened.map(|row| {
            let Successions { purpose, begun, succeeded, failed } = row;
            format!("{purpose}: {begun} begun, {succeeded} done, {failed} failed")
        }));
        if !rows.is_empty() {
            write!(f, "\nconnections replaced: {}", rows.replace("failed, ", "failed; "))?;
        }
        for Leg { leg, race } in &self.legs {
            write!(f, "\nleg {leg}: first with {} messages, late with {}, lost {}", race.first, race.late, race.lost)?;
            if let Some(mean) = race.lead_mean_us {
                write!(
                    f,
                    "; ahead by {} on average, {} at most",
                    Span::from_us(mean),
                    Span::from_us(race.lead_max_us)
                )?;
            }
        }
        Ok(())
    }
}

fn join(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

/// The first few, and how many more there are.
fn first(words: impl Iterator<Item = String>, all: usize) -> String {
    let mut line = join(words.take(NAMED));
    if all > NAMED {
        line.push_str(&format!(" and {} more", all - NAMED));
    }
    line
}

fn or_none(words: String) -> String {
    if words.is_empty() { "none".to_owned() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn successions() -> Vec<Successions> {
        ["planned", "announced", "healing"]
            .map(|purpose| Successions { purpose, begun: 0, succeeded: 0, failed: 0 })
            .into()
    }

    #[test]
    fn a_good_night_takes_three_lines() {
        let statistics = Statistics {
            subscriptions: Subscriptions {
                attempts: 18,
                successes: 16,
                success_rate: Some(100.0),
                states: States { live: 16, quiet: 2, ..States::default() },
                ..Subscriptions::default()
            },
            successions: successions(),
            legs: Vec::new(),
        };
        let expected = "\
streams: 18, of them 16 live, 2 quiet
subscriptions: 18 attempts, 16 successes, 0 failures, 0 retries, success rate 100.0 %
symbols in trouble now: none";
        assert_eq!(statistics.to_string(), expected);
    }

    #[test]
    fn a_bad_night_says_who_and_what_was_done() {
        let mut successions = successions();
        (successions[0].begun, successions[0].succeeded) = (2, 2);
        (successions[2].begun, successions[2].failed) = (1, 1);
        let often = [("A", 4), ("B", 9), ("C", 5), ("D", 4), ("E", 4), ("F", 4), ("G", 4)];
        let race = Race {
            first: 900,
            late: 90,
            lost: 3,
            leads: 80,
            lead_mean_us: Some(1_200),
            lead_max_us: 40_000,
            lead_sum_us: 96_000,
        };
        let statistics = Statistics {
            subscriptions: Subscriptions {
                attempts: 40,
                successes: 30,
                failures: 20,
                retries: 12,
                success_rate: Some(60.0),
                problem_symbols: ["A", "B"].map(str::to_owned).into(),
                states: States { live: 10, stale: 1, failed: 1, ..States::default() },
                healed_by: BTreeMap::from([("asked again", 7), ("new connection", 2)]),
                often_failing: often.map(|(symbol, count)| (symbol.to_owned(), count)).into(),
            },
            successions,
            legs: vec![Leg { leg: "a", race }, Leg { leg: "b", race: Race::default() }],
        };
        let expected = "\
streams: 12, of them 10 live, 1 stale, 1 failed
subscriptions: 40 attempts, 30 successes, 20 failures, 12 retries, success rate 60.0 %
symbols in trouble now: A, B
failed more than 3 times since the start: B 9 times, C 5 times, A 4 times, D 4 times, E 4 times and 2 more
healed by: asked again 7, new connection 2
connections replaced: planned: 2 begun, 2 done, 0 failed; healing: 1 begun, 0 done, 1 failed
leg a: first with 900 messages, late with 90, lost 3; ahead by 1ms on average, 40ms at most
leg b: first with 0 messages, late with 0, lost 0";
        assert_eq!(statistics.to_string(), expected);
    }

    #[test]
    fn a_process_that_has_just_begun_claims_nothing() {
        let text = Statistics::default().to_string();
        assert!(text.starts_with("streams: 0\n"), "{text}");
        assert!(text.contains("success rate not known yet\n"), "{text}");
    }
}
