//! What goes wrong at the exchange, on purpose: rules that say what, on which stream, on which connection, how often.

use crate::time::UtcMs;
use std::collections::BTreeSet;
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
    /// Decided at each subscription: acknowledged, and silent for as long as it lasts.
    Mute,
    /// Once struck, a stream is ill: each of its subscriptions is acknowledged and silent, until it is cured or the rule
    /// ends. `every` and `times` choose the streams that fall ill.
    MuteUntil(Cure),
    /// A subscription delivers, and falls silent so long after it was asked for. Then the stream is ill as above.
    MuteAfter {
        /// Good for this long.
        ms: i64,
        /// What helps.
        cure: Cure,
    },
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
    /// Decided at the upgrade, whose target stands where the stream does: accepted, and closed later.
    CloseAfter {
        /// So long after it was accepted.
        ms: i64,
        /// Close code.
        code: u16,
        /// Close reason.
        reason: &'static str,
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
            Self::MuteUntil(_) => "stream-mute-until",
            Self::MuteAfter { .. } => "stream-mute-after",
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
            Self::CloseAfter { .. } => "close-after",
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

/// What brings a mute stream back: this and nothing else, so that a test can tell which step of a recovery helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// A SUBSCRIBE of the same name on the same connection, without an UNSUBSCRIBE before it. The real venue does nothing
    /// at that; only this fault lets it help.
    AskedAgain,
    /// UNSUBSCRIBE, then SUBSCRIBE, on a connection on which it was silent.
    AskedAfresh,
    /// Any subscription on a connection accepted after the one on which the stream fell ill.
    NewConnection,
    /// Asked for in the URL instead of by a message, or the reverse: the other form than when it fell ill. A stream of the
    /// URL may be asked for by a message on the same connection, after an UNSUBSCRIBE or without one.
    OtherForm,
    /// Nothing.
    Never,
    /// Nothing is remembered: each subscription is decided anew, as for [`Harm::Mute`].
    DecidedAnew,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What it does.
    pub harm: Harm,
    /// Strikes streams (or REST paths, or upgrade targets) that contain this; empty for all, if there are no `names`.
    pub stream: String,
    /// Strikes streams of exactly these names. Empty for any name.
    pub names: BTreeSet<String>,
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
            names: BTreeSet::new(),
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

    /// On the streams of exactly these names, and on those that `on` names beside them. A request about several streams
    /// is struck if one of them is meant.
    pub fn streams(mut self, names: &[&str]) -> Self {
        self.names = names.iter().map(|name| (*name).to_owned()).collect();
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

    /// Is this place meant? `about` is a stream, several with blanks between them, a path or a target.
    pub(super) fn is_about(&self, about: &str, connection: u64) -> bool {
        let by_part = self.names.is_empty() || !self.stream.is_empty();
        self.connections.contains(&connection)
            && (by_part && about.contains(self.stream.as_str())
                || !self.names.is_empty() && about.split(' ').any(|name| self.names.contains(name)))
    }
}

/// Names a rule that was set, to take it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultId(pub(super) u64);
