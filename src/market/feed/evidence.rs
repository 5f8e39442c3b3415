//! What other streams tell about one that is silent: that somebody traded, or that the path to its symbol works.

use super::*;
use crate::wire::{Kline, SymbolId};

/// A candle is pushed about 150 ms before the trade it tells of (measured, USD-M): evidence younger than this may
/// still be followed by the data it speaks for. Two legs may be that far apart as well.
pub(super) const EVIDENCE_MATURES: Span = Span::from_secs(1);

/// A candle that nobody traded in is closed about 2 s after its end (measured, USD-M), and on the way for a moment.
const CLOSED_WITHIN: Span = Span::from_secs(3);

/// How soon after this push the venue pushes again: a candle is closed even if nobody trades.
pub(super) fn next_push_within(kline: &Kline) -> Span {
    let end = kline.open_time.0.saturating_add(kline.interval.millis() * if kline.closed { 2 } else { 1 });
    let left = end.saturating_sub(kline.event_time.0).clamp(0, kline.interval.millis());
    Span::from_ms(left as u64 + CLOSED_WITHIN.as_ms())
}

/// When trades of a symbol were told of, by trades and running candles, as coarsely as a verdict needs it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traded {
    /// The newest.
    last: Instant,
    /// The first of the present span of [`EVIDENCE_MATURES`], and of the one before it.
    firsts: [Instant; 2],
    /// REST is not asked about it before this, and how often in a row it was.
    doubt_after: Instant,
    doubts: u32,
    rest: Option<RestTold>,
}

/// What REST last told of a symbol's trades, by when they should have reached us.
#[derive(Clone, Copy, Debug)]
struct RestTold {
    answered: Instant,
    newest: Instant,
    /// The newest that was old enough to count when it answered.
    mature: Instant,
}

/// For so long the venue's answer that nobody trades is believed.
const REST_BELIEVED: Span = Span::from_secs(75);

impl Traded {
    pub(super) fn note(&mut self, now: Instant) {
        if now.since(self.firsts[0]) >= EVIDENCE_MATURES {
            self.firsts = [now, self.firsts[0]];
        }
        self.last = now;
        self.doubts = 0;
    }

    pub(super) fn may_doubt(&self, now: Instant) -> bool {
        self.doubts == 0 || self.doubt_after <= now
    }

    pub(super) fn doubted(&mut self, now: Instant, again: Span, most: Span) {
        self.doubt_after = now + again.times(1 << self.doubts.min(16)).min(most);
        self.doubts += 1;
    }

    /// REST knows these trades, the oldest first.
    pub(super) fn rest_answered(&mut self, now: Instant, trades: &[Instant]) {
        let newest = trades.last().copied().unwrap_or(Instant::ZERO);
        let mature = trades.iter().rfind(|at| **at + EVIDENCE_MATURES <= now).copied().unwrap_or(Instant::ZERO);
        self.rest = Some(RestTold { answered: now, newest, mature });
    }

    /// Does REST know of a trade after this that is old enough to count?
    pub(super) fn rest_tells_of_trades(&self, since: Instant, now: Instant) -> bool {
        self.rest.is_some_and(|rest| {
            let counts = if rest.newest + EVIDENCE_MATURES <= now { rest.newest } else { rest.mature };
            counts > since + EVIDENCE_MATURES
        })
    }

    /// Has REST said, not long ago, that nobody has traded since then?
    pub(super) fn rest_tells_quiet(&self, since: Instant, now: Instant) -> bool {
        self.rest.is_some_and(|rest| {
            let fresh = rest.answered > since && now.since(rest.answered) <= REST_BELIEVED;
            fresh && rest.newest <= since + EVIDENCE_MATURES
        })
    }

    /// The newest that is old enough to count.
    pub(super) fn mature(&self, now: Instant) -> Instant {
        let old_enough = |at: &&Instant| **at + EVIDENCE_MATURES <= now;
        let told = [&self.last, &self.firsts[0], &self.firsts[1]];
        told.into_iter().filter(old_enough).max().copied().unwrap_or(Instant::ZERO)
    }

    /// When something newer than what counts now will count; `None` if there is nothing newer.
    pub(super) fn ripens(&self, now: Instant) -> Option<Instant> {
        let ripe = |at: &Instant| *at + EVIDENCE_MATURES;
        [self.firsts[1], self.firsts[0], self.last].iter().map(ripe).find(|at| *at > now)
    }
}

impl Feed {
    /// A trade or candle of the symbol has come over `witness`: those that wait should have theirs soon.
    pub(super) fn testify(&mut self, symbol: SymbolId, witness: (usize, usize), ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let first = symbol.index() * SLOTS;
        for place in first..first + SLOTS {
            let at = self.slots[place] as usize;
            if at >= self.streams.len() || self.streams[at].kind == StreamKind::MarkPrice {
                continue;
            }
            for position in 0..self.streams[at].runs.len() {
                let run = &mut self.streams[at].runs[position];
                // What was traded around the acknowledgement may have been told to one stream before it was asked for
                // and to the other after.
                let too_soon = now < run.acked_at + EVIDENCE_MATURES;
                let itself = (run.slot, at) == witness;
                if itself || !run.state.waits_for_data() || too_soon || run.evidence_at.is_some() {
                    continue;
                }
                run.evidence_at = Some(now);
                if let StreamState::Quiet { lived, .. } = run.state {
                    // It was rightly silent until now; from here on it has its full time again.
                    let until = now + self.deadlines.first_data;
                    run.state = StreamState::Quiet { until, lived };
                    let slot = run.slot;
                    self.arm(slot, until);
                }
            }
        }
    }

    /// Does another stream of the symbol deliver, on whichever connection, or the same stream on another one, so that
    /// silence can be told from a dead path?
    pub(super) fn path_works(&self, slot: usize, at: usize, now: Instant) -> bool {
        self.path_worked_since(slot, at, Instant::ZERO, now)
    }

    /// The same of one that lived: what fell silent together with it tells nothing.
    pub(super) fn path_worked_since(&self, slot: usize, at: usize, since: Instant, now: Instant) -> bool {
        let symbol = self.streams[at].symbol;
        self.of_symbol(symbol).any(|other| {
            let stream = &self.streams[other];
            let limit = self.stale_of(stream.kind).max(self.deadlines.first_data);
            stream.runs.iter().any(|run| {
                let itself = other == at && run.slot == slot;
                let silent_from = self.overdue_at(run, limit);
                !itself && run.state.is_live() && now <= silent_from && run.fresh_at >= since
            })
        })
    }

    /// When the silence of a run is as long as `limit`; a little later if its candle is about to be closed just then.
    pub(super) fn overdue_at(&self, run: &Run, limit: Span) -> Instant {
        let at = run.fresh_at + limit;
        run.beat_by.clamp(at, at + CLOSED_WITHIN)
    }

    pub(super) fn of_symbol(&self, symbol: SymbolId) -> impl Iterator<Item = usize> + use<'_> {
        let first = symbol.index() * SLOTS;
        self.slots[first..first + SLOTS].iter().filter(|at| **at != NONE).map(|at| *at as usize)
    }

    /// After how much silence a stream of this kind that lived is judged.
    pub(super) fn stale_of(&self, kind: StreamKind) -> Span {
        self.deadlines.stale_of(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_busy_symbol_there_is_always_evidence_old_enough_and_never_evidence_too_young() {
        let at = |ms: u64| Instant::ZERO + Span::from_ms(ms);
        let mut traded = Traded::default();
        for ms in (10_000..20_000).step_by(7) {
            traded.note(at(ms));
            if ms > 12_100 {
                let mature = traded.mature(at(ms));
                assert!(mature + EVIDENCE_MATURES <= at(ms) && at(ms).since(mature) <= Span::from_ms(2_014), "{ms}");
            }
        }
    }

    #[test]
    fn a_lone_trade_counts_once_it_is_old_enough() {
        let at = |ms: u64| Instant::ZERO + Span::from_ms(ms);
        let mut traded = Traded::default();
        traded.note(at(50_000));
        assert_eq!((traded.mature(at(50_400)), traded.ripens(at(50_400))), (Instant::ZERO, Some(at(51_000))));
        assert_eq!((traded.mature(at(51_000)), traded.ripens(at(51_000))), (at(50_000), None));
    }
}
