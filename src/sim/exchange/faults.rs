//! What goes wrong at the exchange, on purpose: rules that say what, on which stream, on which connection, how often.

use crate::time::UtcMs;
use std::ops::RangeInclusive;

/// What a rule does when it strikes.
#[derive(Clone, Debug, PartialEq)]
pub enum Harm {
    /// The request is obeyed, its reply never comes.
    AckLost,
    /// The reply carries another request's id.
    AckWrongId,
    /// The request is refused with an error frame; nothing is subscribed.
    AckError {
        /// The venue's code.
        code: i32,
        /// The venue's words.
        msg: &'static str,
        /// `{"code":…,"msg":…}` without id, else `{"error":{…},"id":…}`.
        bare: bool,
    },
    /// The reply comes this much later.
    AckLate {
        /// Added to the usual delay.
        ms: i64,
    },
    /// A SUBSCRIBE closes the connection instead of being answered.
    CloseOnSubscribe {
        /// Close code.
        code: u16,
    },
    /// Decided at the subscription: acknowledged, and silent for as long as it lasts.
    Mute,
    /// Decided at each frame: not delivered while the rule stands.
    Hush,
    /// Closing pushes of candles are not delivered.
    DropClosing,
    /// The frame is delivered twice.
    Duplicate,
    /// The frame is delivered after the next one of its stream.
    Reorder,
    /// The frame is never delivered; the books and REST have it.
    Skip,
    /// One of these texts is delivered before the frame, in turn.
    Malformed(Vec<String>),
    /// The frame has keys nobody knows, one of them nested.
    ExtraKeys,
    /// The frame's keys come in another order.
    ShuffledKeys,
    /// The frame lacks these keys (`nq`, `st`).
    WithoutKeys(Vec<&'static str>),
    /// The upgrade is refused.
    RefuseUpgrade {
        /// 403, 418, 429, 503.
        status: u16,
        /// `Retry-After` in seconds.
        retry_after_s: Option<u32>,
    },
    /// A REST request is answered like this instead. The path stands where the stream does, and no connection is named:
    /// a rule for some connections strikes none.
    RestAnswer {
        /// HTTP status.
        status: u16,
        /// `retry-after` in seconds.
        retry_after_s: Option<u32>,
        /// The whole body.
        body: String,
    },
}

impl Harm {
    /// One word for its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::AckLost => "ack-lost",
            Self::AckWrongId => "ack-wrong-id",
            Self::AckError { .. } => "ack-error",
            Self::AckLate { .. } => "ack-late",
            Self::CloseOnSubscribe { .. } => "close-on-subscribe",
            Self::Mute => "stream-mute",
            Self::Hush => "stream-hush",
            Self::DropClosing => "drop-closing",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Skip => "skip",
            Self::Malformed(_) => "malformed",
            Self::ExtraKeys => "extra-keys",
            Self::ShuffledKeys => "shuffled-keys",
            Self::WithoutKeys(_) => "without-keys",
            Self::RefuseUpgrade { .. } => "refuse-upgrade",
            Self::RestAnswer { .. } => "rest-answer",
        }
    }

    /// Frames that no client may believe, die of, or mistake for something else.
    pub fn hostile() -> Self {
        let deep = format!(r#"{{"e":"aggTrade","x":{}{}}}"#, "[".repeat(2_000), "]".repeat(2_000));
        let trade = |fields: &str| format!(r#"{{"e":"aggTrade","E":1,"s":"BTCUSDT",{fields},"m":true}}"#);
        Self::Malformed(vec![
            String::new(),
            "{".to_owned(),
            "null".to_owned(),
            "[]".to_owned(),
            "[{}]".to_owned(),
            r#"{"e":"aggTrade"}"#.to_owned(),
            r#"{"stream":"btcusdt@aggTrade"}"#.to_owned(),
            r#"{"stream":"btcusdt@aggTrade","data":null}"#.to_owned(),
            r#"{"e":7,"s":["BTCUSDT"],"a":{"a":1}}"#.to_owned(),
            trade(r#""a":1,"p":"NaN","q":"1","f":1,"l":1,"T":1"#),
            trade(r#""a":1,"p":"1e5","q":"1","f":1,"l":1,"T":1"#),
            trade(r#""a":1,"p":"-1","q":"1","f":1,"l":1,"T":1"#),
            trade(r#""a":1,"p":"0","q":"0","f":1,"l":1,"T":1"#),
            trade(r#""a":1,"p":1.5,"q":2,"f":1,"l":1,"T":1"#),
            trade(r#""a":99999999999999999999,"p":"1","q":"1","f":1,"l":1,"T":1"#),
            trade(r#""a":1.5,"p":"1","q":"1","f":1,"l":1,"T":1"#),
            trade(r#""a":-1,"p":"1","q":"1","f":-1,"l":-1,"T":-1"#),
            trade(r#""a":1,"p":"1.123456789","q":"1","f":2,"l":1,"T":1"#),
            trade(&format!(r#""a":1,"p":"{}","q":"1","f":1,"l":1,"T":1"#, "9".repeat(400))),
            r#"{"e":"kline","E":1,"s":"BTCUSDT","k":[]}"#.to_owned(),
            r#"{"result":{"x":1},"id":{}}"#.to_owned(),
            "\u{feff}{}".to_owned(),
            deep,
        ])
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What it does.
    pub harm: Harm,
    /// Strikes streams (or REST paths) that contain this; empty for all.
    pub stream: String,
    /// Strikes these connections, counted as they were accepted; the first is 1.
    pub connections: RangeInclusive<u64>,
    /// Strikes each `every`-th occasion; 1 for each.
    pub every: u32,
    /// Strikes this often at most.
    pub times: u32,
    /// Strikes from this moment on.
    pub from: UtcMs,
    /// And before this one.
    pub until: UtcMs,
}

impl Fault {
    /// Everywhere, each time, for ever.
    pub fn new(harm: Harm) -> Self {
        Self {
            harm,
            stream: String::new(),
            connections: 0..=u64::MAX,
            every: 1,
            times: u32::MAX,
            from: UtcMs(i64::MIN),
            until: UtcMs(i64::MAX),
        }
    }

    /// On streams (or paths) that contain `part` only.
    pub fn on(mut self, part: &str) -> Self {
        part.clone_into(&mut self.stream);
        self
    }

    /// On these connections only.
    pub fn connections(mut self, ordinals: RangeInclusive<u64>) -> Self {
        self.connections = ordinals;
        self
    }

    /// Each `every`-th occasion only.
    pub fn every(mut self, every: u32) -> Self {
        self.every = every.max(1);
        self
    }

    /// So many times at most.
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// Within `[from, until)` only.
    pub fn between(mut self, from: UtcMs, until: UtcMs) -> Self {
        (self.from, self.until) = (from, until);
        self
    }
}

/// Names a rule that was set, to take it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultId(u64);

#[derive(Debug)]
struct Rule {
    id: FaultId,
    fault: Fault,
    occasions: u32,
    strikes: u32,
}

/// The rules in force, with what they have counted.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Vec<Rule>,
    next: u64,
}

impl Faults {
    /// With these rules.
    pub fn new(faults: Vec<Fault>) -> Self {
        let mut all = Self::default();
        for fault in faults {
            all.add(fault);
        }
        all
    }

    /// Adds a rule.
    pub fn add(&mut self, fault: Fault) -> FaultId {
        self.next += 1;
        let id = FaultId(self.next);
        self.rules.push(Rule { id, fault, occasions: 0, strikes: 0 });
        id
    }

    /// Takes a rule back.
    pub fn remove(&mut self, id: FaultId) {
        self.rules.retain(|rule| rule.id != id);
    }

    /// Takes all rules back.
    pub fn clear(&mut self) {
        self.rules.clear();
    }

    /// True if nothing can go wrong.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The first rule of the wanted kind that strikes here and now. Each rule that fits counts the occasion.
    pub fn strike(
        &mut self,
        wanted: impl Fn(&Harm) -> bool,
        stream: &str,
        connection: u64,
        now: UtcMs,
    ) -> Option<(Harm, u32)> {
        let mut struck = None;
        for rule in &mut self.rules {
            let Fault { harm, stream: part, connections, every, times, from, until } = &rule.fault;
            let fits = wanted(harm)
                && stream.contains(part.as_str())
                && connections.contains(&connection)
                && (*from..*until).contains(&now)
                && rule.strikes < *times;
            if !fits {
                continue;
            }
            rule.occasions += 1;
            if rule.occasions.is_multiple_of(*every) && struck.is_none() {
                rule.strikes += 1;
                struck = Some((harm.clone(), rule.strikes));
            }
        }
        struck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_strikes_where_when_and_as_often_as_it_says() {
        let rule = Fault::new(Harm::Skip).on("@aggTrade").connections(2..=3).every(2).times(2);
        let mut faults = Faults::new(vec![rule]);
        let mut strike = |stream: &str, connection| {
            faults.strike(|harm| *harm == Harm::Skip, stream, connection, UtcMs(0)).is_some()
        };
        assert!(!strike("btcusdt@aggTrade", 1));
        assert!(!strike("btcusdt@kline_1m", 2));
        let struck: Vec<bool> = (0..8).map(|_| strike("btcusdt@aggTrade", 2)).collect();
        assert_eq!(struck, [false, true, false, true, false, false, false, false]);
    }
}
