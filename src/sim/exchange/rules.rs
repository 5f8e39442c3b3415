//! The rules in force, with what they have counted. A rule that cannot strike here and now costs nothing.

use super::faults::{Cure, Fault, FaultId, Harm};
use crate::time::UtcMs;
use std::collections::{BTreeMap, BTreeSet};

/// What has to happen for a harm to be considered. Harms of one occasion exclude each other: the first rule strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    Upgrade,
    Accepted,
    Rest,
    Subscribe,
    SubscribeError,
    Stream,
    Ack,
    AckId,
    AckTime,
    Frame,
    ClosingFrame,
    Malformed,
    WithoutKeys,
    ExtraKeys,
    ShuffledKeys,
    Duplicate,
    Reorder,
}

/// How many there are.
const OCCASIONS: usize = Occasion::Reorder as usize + 1;

impl Occasion {
    const fn of(harm: &Harm) -> Self {
        match harm {
            Harm::AckLost => Self::Ack,
            Harm::AckWrongId => Self::AckId,
            Harm::AckError { .. } => Self::SubscribeError,
            Harm::AckLate { .. } => Self::AckTime,
            Harm::CloseOnSubscribe { .. } => Self::Subscribe,
            Harm::Mute | Harm::MuteUntil(_) | Harm::MuteAfter { .. } => Self::Stream,
            Harm::Hush | Harm::Skip => Self::Frame,
            Harm::DropClosing => Self::ClosingFrame,
            Harm::Duplicate => Self::Duplicate,
            Harm::Reorder => Self::Reorder,
            Harm::Malformed(_) => Self::Malformed,
            Harm::ExtraKeys => Self::ExtraKeys,
            Harm::ShuffledKeys => Self::ShuffledKeys,
            Harm::WithoutKeys(_) => Self::WithoutKeys,
            Harm::RefuseUpgrade { .. } => Self::Upgrade,
            Harm::CloseAfter { .. } => Self::Accepted,
            Harm::RestAnswer { .. } => Self::Rest,
        }
    }
}

/// How a stream was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Url,
    Message,
}

/// What was decided about a subscription: silent from this moment on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mute {
    pub(super) from: i64,
    rule: FaultId,
    cure: Cure,
    form: Form,
}

impl Mute {
    /// Does one more SUBSCRIBE help, now that it is silent?
    pub(super) fn ends_when_asked_again(&self) -> bool {
        self.cure == Cure::AskedAgain || self.cure == Cure::OtherForm && self.form == Form::Url
    }
}

/// Where and how a stream fell ill.
#[derive(Debug)]
struct Illness {
    first: u64,
    form: Form,
    /// All connections on which it was silent.
    on: BTreeSet<u64>,
}

impl Illness {
    /// Does asking for the stream like this help?
    fn ends(&self, cure: Cure, connection: u64, form: Form) -> bool {
        match cure {
            Cure::AskedAfresh => self.on.contains(&connection),
            Cure::NewConnection => connection > self.first,
            Cure::OtherForm => form != self.form,
            Cure::AskedAgain | Cure::Never | Cure::DecidedAnew => false,
        }
    }
}

#[derive(Debug)]
struct Rule {
    id: FaultId,
    fault: Fault,
    occasions: u32,
    strikes: u32,
    /// By stream.
    ill: BTreeMap<String, Illness>,
}

impl Rule {
    /// How long a subscription of a stream it strikes is good, and what cures that stream.
    fn good_for(&self) -> (i64, Cure) {
        if let Harm::MuteAfter { ms, cure } = self.fault.harm {
            (ms.max(0), cure)
        } else if let Harm::MuteUntil(cure) = self.fault.harm {
            (0, cure)
        } else {
            (0, Cure::DecidedAnew)
        }
    }

    /// One more occasion that fits, if it is not used up. True if it is time to strike.
    fn counts(&mut self) -> bool {
        if self.strikes >= self.fault.times {
            return false;
        }
        self.occasions += 1;
        self.occasions.is_multiple_of(self.fault.every)
    }
}

/// All rules.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// In the order in which they were set.
    rules: Vec<Rule>,
    /// Those within their time, by occasion, in the same order.
    active: [Vec<usize>; OCCASIONS],
    /// When `active` will no longer be right.
    changes_at: i64,
    set: u64,
}

impl Rules {
    pub(super) fn new(faults: Vec<Fault>) -> Self {
        let mut all = Self::default();
        for fault in faults {
            all.add(fault);
        }
        all
    }

    pub(super) fn add(&mut self, fault: Fault) -> FaultId {
        self.set += 1;
        let id = FaultId(self.set);
        self.rules.push(Rule { id, fault, occasions: 0, strikes: 0, ill: BTreeMap::new() });
        self.changes_at = i64::MIN;
        id
    }

    pub(super) fn remove(&mut self, id: FaultId) {
        self.rules.retain(|rule| rule.id != id);
        self.changes_at = i64::MIN;
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
        self.changes_at = i64::MIN;
    }

    /// True if something may go wrong with a frame. Time never goes back.
    pub(super) fn threaten_frames(&mut self, now: UtcMs) -> bool {
        self.look_at_the_time(now);
        self.active[Occasion::Frame as usize..].iter().any(|rules| !rules.is_empty())
    }

    /// Drops the rules whose time is over, and finds out which are within it.
    fn look_at_the_time(&mut self, now: UtcMs) {
        if now.0 < self.changes_at {
            return;
        }
        self.rules.retain(|rule| now < rule.fault.until);
        self.active.iter_mut().for_each(Vec::clear);
        self.changes_at = i64::MAX;
        for (at, Rule { fault, .. }) in self.rules.iter().enumerate() {
            let begun = fault.from <= now;
            self.changes_at = self.changes_at.min(if begun { fault.until.0 } else { fault.from.0 });
            if begun {
                self.active[Occasion::of(&fault.harm) as usize].push(at);
            }
        }
    }

    /// The first rule that strikes at this occasion, and how often it has now. Each rule that fits counts the occasion.
    pub(super) fn strike(
        &mut self,
        occasion: Occasion,
        about: &str,
        connection: u64,
        now: UtcMs,
    ) -> Option<(&Harm, u32)> {
        self.look_at_the_time(now);
        let mut struck = None;
        for at in &self.active[occasion as usize] {
            let rule = &mut self.rules[*at];
            if rule.fault.is_about(about, connection) && rule.counts() && struck.is_none() {
                rule.strikes += 1;
                struck = Some(*at);
            }
        }
        let rule = &self.rules[struck?];
        Some((&rule.fault.harm, rule.strikes))
    }

    /// The same for one stream that is subscribed: is it, or will it be, silent?
    pub(super) fn mute(&mut self, stream: &str, connection: u64, form: Form, now: UtcMs) -> Option<Mute> {
        self.look_at_the_time(now);
        let mut struck = None;
        for at in &self.active[Occasion::Stream as usize] {
            let rule = &mut self.rules[*at];
            if !rule.fault.is_about(stream, connection) {
                continue;
            }
            let (good_ms, cure) = rule.good_for();
            let ill = rule.ill.get(stream);
            if ill.is_some_and(|illness| illness.ends(cure, connection, form)) {
                continue;
            }
            let (strikes, good_ms) = if ill.is_some() { (true, 0) } else { (rule.counts(), good_ms) };
            if strikes && struck.is_none() {
                rule.strikes = rule.strikes.saturating_add(1);
                struck = Some(Mute { from: now.0.saturating_add(good_ms), rule: rule.id, cure, form });
            }
        }
        struck
    }

    /// A subscription has become silent as was decided: its stream is ill from now on.
    pub(super) fn fell_silent(&mut self, mute: &Mute, stream: &str, connection: u64) {
        if mute.cure == Cure::DecidedAnew {
            return;
        }
        let Some(rule) = self.rules.iter_mut().find(|rule| rule.id == mute.rule) else { return };
        let illness = rule.ill.entry(stream.to_owned());
        illness
            .or_insert_with(|| Illness { first: connection, form: mute.form, on: BTreeSet::new() })
            .on
            .insert(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strike(rules: &mut Rules, stream: &str, connection: u64, now: i64) -> bool {
        rules.strike(Occasion::Frame, stream, connection, UtcMs(now)).is_some()
    }

    #[test]
    fn a_rule_strikes_where_when_and_as_often_as_it_says() {
        let rule = Fault::new(Harm::Skip).on("@aggTrade").connections(2..=3).every(2).times(2);
        let mut rules = Rules::new(vec![rule]);
        assert!(!strike(&mut rules, "btcusdt@aggTrade", 1, 0));
        assert!(!strike(&mut rules, "btcusdt@kline_1m", 2, 0));
        let struck: Vec<bool> = (0..8).map(|_| strike(&mut rules, "btcusdt@aggTrade", 2, 0)).collect();
        assert_eq!(struck, [false, true, false, true, false, false, false, false]);
    }

    #[test]
    fn the_first_of_two_rules_strikes_and_both_count() {
        let hush = Fault::new(Harm::Hush).every(3);
        let mut rules = Rules::new(vec![hush, Fault::new(Harm::Skip).every(2)]);
        let mut harms = Vec::new();
        for _ in 0..6 {
            harms.push(rules.strike(Occasion::Frame, "a", 1, UtcMs(0)).map(|(harm, _)| harm.kind()));
        }
        let (hush, skip) = (Some(Harm::Hush.kind()), Some(Harm::Skip.kind()));
        assert_eq!(harms, [None, skip, hush, skip, None, hush]);
    }

    #[test]
    fn rules_come_and_go_with_their_time_and_keep_their_counts() {
        let between = |from, until| Fault::new(Harm::Skip).between(UtcMs(from), UtcMs(until));
        let mut rules = Rules::new(vec![between(10, 20).every(2), between(15, 30).on("b")]);
        assert!(!rules.threaten_frames(UtcMs(9)) && !strike(&mut rules, "a", 1, 9));
        assert!(rules.threaten_frames(UtcMs(10)));
        assert!(!strike(&mut rules, "a", 1, 10) && strike(&mut rules, "a", 1, 14) && !strike(&mut rules, "a", 1, 15));
        assert!(strike(&mut rules, "b", 1, 19) && strike(&mut rules, "b", 1, 20) && !strike(&mut rules, "a", 1, 20));
        assert_eq!(rules.rules.len(), 1);
        let id = rules.add(Fault::new(Harm::Skip));
        assert!(strike(&mut rules, "a", 1, 25));
        rules.remove(id);
        assert!(!strike(&mut rules, "a", 1, 26) && strike(&mut rules, "b", 1, 29));
        assert!(!rules.threaten_frames(UtcMs(30)) && rules.rules.is_empty());
        rules.add(Fault::new(Harm::AckLost));
        assert!(!rules.threaten_frames(UtcMs(31)));
    }

    #[test]
    fn names_are_exact_and_stand_beside_the_part() {
        let rule = Fault::new(Harm::Skip).streams(&["ausdt@aggTrade", "busdt@kline_1m"]);
        assert!(rule.is_about("ausdt@aggTrade", 1) && rule.is_about("x busdt@kline_1m y", 1));
        assert!(!rule.is_about("aausdt@aggTrade", 1) && !rule.is_about("", 1) && !rule.is_about("busdt@kline_15m", 1));
        let rule = rule.on("markPrice");
        assert!(rule.is_about("ausdt@aggTrade", 1) && rule.is_about("cusdt@markPrice", 1));
        assert!(!rule.is_about("cusdt@aggTrade", 1));
        assert!(Fault::new(Harm::Skip).is_about("", 1));
    }
}
