//! What only REST can tell, or bring: whether a silent symbol trades, and the news of streams that nothing heals.
//!
//! The feed asks nobody. It has questions, and whoever can ask takes them and brings the answers.

use super::evidence::EVIDENCE_MATURES;
use super::judge::UNKNOWN_AGAIN;
use super::*;

/// A symbol whose silence was found to be the market's is asked about again after this long, doubling.
const DOUBT_AGAIN: Span = Span::from_secs(10);
const DOUBT_AGAIN_MAX: Span = Span::from_secs(60);
/// Questions of this kind in a row, and one more each so often: a twelfth of the venue's weight at most.
const DOUBTS_AT_ONCE: u32 = 6;
const DOUBT_EVERY_USDM: Span = Span::from_secs(6);
const DOUBT_EVERY_SPOT: Span = Span::from_secs(1);
/// What nothing heals is polled this often.
pub(super) const POLL_EVERY: Span = Span::from_secs(5);

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// When did the symbol last trade?
    Trades(SymbolId),
    /// The news of a stream that does not deliver.
    News(SymbolId, StreamKind),
}

/// Questions to be asked, and how often they may be.
#[derive(Debug, Default)]
pub(super) struct Questions {
    waiting: VecDeque<Question>,
    /// Symbols that wait for the budget of questions after trades, each once.
    doubted: VecDeque<SymbolId>,
    /// How many have been asked lately.
    asked: u32,
    asked_since: Instant,
    /// When what is polled is polled next.
    pub(super) poll_at: Option<Instant>,
}

impl Feed {
    /// The next question. To be asked until there is none.
    pub(crate) fn poll_question(&mut self) -> Option<Question> {
        self.questions.waiting.pop_front()
    }

    /// A symbol is silent, and no stream at hand tells of trades: REST may know.
    pub(super) fn doubt(&mut self, symbol: SymbolId, urgent: bool, now: Instant) {
        if !self.has_rest || !(urgent || self.traded[symbol.index()].may_doubt(now)) {
            return;
        }
        if !self.questions.doubted.contains(&symbol) {
            self.questions.doubted.push_back(symbol);
        }
        self.ask_about_doubted(now);
    }

    /// Asks about as many doubted symbols as the budget allows.
    fn ask_about_doubted(&mut self, now: Instant) {
        let every = match self.market {
            crate::wire::Market::Usdm => DOUBT_EVERY_USDM,
            crate::wire::Market::Spot => DOUBT_EVERY_SPOT,
        };
        let questions = &mut self.questions;
        while questions.asked > 0 && questions.asked_since + every <= now {
            questions.asked -= 1;
            questions.asked_since += every;
        }
        if questions.asked == 0 {
            questions.asked_since = now;
        }
        while questions.asked < DOUBTS_AT_ONCE
            && let Some(symbol) = questions.doubted.pop_front()
        {
            questions.asked += 1;
            questions.waiting.push_back(Question::Trades(symbol));
            self.traded[symbol.index()].doubted(now, DOUBT_AGAIN, DOUBT_AGAIN_MAX);
        }
    }

    /// When a doubted symbol that waits has its turn.
    pub(super) fn doubted_due(&self) -> Instant {
        let every = match self.market {
            crate::wire::Market::Usdm => DOUBT_EVERY_USDM,
            crate::wire::Market::Spot => DOUBT_EVERY_SPOT,
        };
        if self.questions.doubted.is_empty() { Instant::FAR } else { self.questions.asked_since + every }
    }

    /// Whatever of the questions is due.
    pub(super) fn handle_questions(&mut self, now: Instant) {
        if self.doubted_due() <= now {
            self.ask_about_doubted(now);
        }
        self.poll_streams(now);
        self.wake = self.wake.min(self.questions.poll_at.unwrap_or(Instant::FAR)).min(self.doubted_due());
    }

    /// REST knows these trades of a symbol, by the venue's time, the oldest first.
    pub(crate) fn testify_from_rest(&mut self, symbol: SymbolId, times: &[UtcMs], ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        // Before any message there is no venue clock, and our own may be wrong by hours: nothing can be told.
        let clock = self.clock;
        let arrivals: Option<Vec<Instant>> = times.iter().map(|time| clock.arrival_of(*time)).collect();
        let Some(arrivals) = arrivals else { return };
        self.traded[symbol.index()].rest_answered(now, &arrivals);
        let mut guilty = false;
        for at in self.of_symbol(symbol).collect::<Vec<_>>() {
            if self.streams[at].kind == StreamKind::MarkPrice {
                continue;
            }
            for position in 0..self.streams[at].runs.len() {
                let run = &self.streams[at].runs[position];
                if !run.state.waits_for_data() {
                    continue;
                }
                let lived = matches!(run.state, StreamState::Quiet { lived: true, .. });
                let since = if lived { run.fresh_at } else { run.acked_at } + EVIDENCE_MATURES;
                let Some(evidence) = arrivals.iter().filter(|arrival| **arrival > since).min().copied() else {
                    continue;
                };
                let slot = run.slot;
                if let Some(run) = self.streams[at].run_mut(slot).filter(|run| run.evidence_at.is_none()) {
                    guilty = true;
                    run.evidence_at = Some(evidence);
                    if let StreamState::Quiet { .. } = run.state {
                        run.state = StreamState::Quiet { until: now, lived };
                        self.arm(slot, now);
                    }
                }
            }
        }
        if guilty {
            // A question that found somebody guilty was worth it: where one is, others may be.
            self.questions.asked = self.questions.asked.saturating_sub(1);
            self.ask_about_doubted(now);
        }
    }

    /// Everything was tried: from now on the stream's news are fetched, until it delivers again.
    pub(super) fn begin_polling(&mut self, slot: usize, at: usize, ctx: &mut Context<'_>) {
        if !self.has_rest || self.streams[at].unknown || std::mem::replace(&mut self.streams[at].polled, true) {
            return;
        }
        let stream = self.streams[at].name.clone();
        self.say(slot, Note::Polled { stream, every: POLL_EVERY }, ctx);
        let due = self.questions.poll_at.unwrap_or(ctx.now.mono).min(ctx.now.mono);
        self.questions.poll_at = Some(due);
        self.wake = self.wake.min(due);
    }

    /// Asks for the news of whatever is polled, if its time has come.
    pub(super) fn poll_streams(&mut self, now: Instant) {
        if self.questions.poll_at.is_none_or(|at| at > now) {
            return;
        }
        let polled = self.streams.iter().filter(|stream| stream.polled && stream.wanted);
        let news: Vec<Question> = polled.map(|stream| Question::News(stream.symbol, stream.kind)).collect();
        self.questions.poll_at = (!news.is_empty()).then_some(now + POLL_EVERY);
        // What has not been taken since the last time is still being asked.
        self.questions.waiting.retain(|question| matches!(question, Question::Trades(_)));
        self.questions.waiting.extend(news);
    }

    /// The venue's list does, or does not, have the symbol: what does not exist is asked for no more.
    pub(crate) fn set_known(&mut self, symbol: SymbolId, known: bool, ctx: &mut Context<'_>) {
        for at in self.of_symbol(symbol).collect::<Vec<_>>() {
            let stream = &mut self.streams[at];
            // What delivers exists, whatever a list says.
            let delivers = stream.runs.iter().any(|run| run.state.is_live());
            if !stream.wanted || (!known && delivers) || std::mem::replace(&mut stream.unknown, !known) != known {
                continue;
            }
            for slot in stream.runs.iter().map(|run| run.slot).collect::<Vec<_>>() {
                let state = self.streams[at].run(slot).map(|run| run.state);
                if known {
                    self.set_pause(slot, at, ctx.now.mono);
                } else if state.is_some_and(|state| !state.is_live()) {
                    self.connections[slot].to_ask.retain(|waiting| *waiting != at);
                    if self.streams[at].failures_in_a_row == 0 {
                        self.fail(slot, at, false, UNKNOWN.into(), ctx);
                    } else {
                        self.give_up_unknown(slot, at, ctx.now.mono);
                    }
                }
            }
        }
    }
}

impl Feed {
    /// It was said of the stream already.
    fn give_up_unknown(&mut self, slot: usize, at: usize, now: Instant) {
        self.unwait(slot, at);
        if let Some(run) = self.streams[at].run_mut(slot) {
            run.state = StreamState::Failed { until: now + UNKNOWN_AGAIN };
            run.reason = Some(UNKNOWN.into());
        }
    }
}

/// Said of a stream whose news are fetched.
pub(super) fn polled_words() -> String {
    format!("polled over REST every {POLL_EVERY}")
}

/// Why streams of a symbol that the venue does not list fail.
pub(super) const UNKNOWN: &str = "unknown symbol";
