//! Frames of the market streams and replies to control messages, read from text.
//!
//! Everything here is bytes in, [`Decoded`] or [`Reject`] out. Two readers stand behind one door: `scan` compares the
//! text with the few shapes the venue really sends and is done in one pass; `tape` reads any JSON there is, in any
//! order of keys. Whatever the first is not sure of, it leaves to the second, so it can be fast without being clever.
//! Both end in the same checks (`rules`), and both refuse what they refuse for the same reason.

pub(super) mod rules;
mod scan;
mod tape;
mod text;

use super::{Frame, MarkPrice, Symbols};
use std::fmt;
pub(super) use text::escaped;
pub use text::sample;

/// What one text message was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// One event of a stream.
    Frame(Frame),
    /// An array of mark prices: those of known symbols are in [`Decoder::marks`]; `refused` rows were malformed.
    Marks {
        /// Rows of known symbols that could not be read.
        refused: u32,
        /// Why the first of them could not.
        first: Option<Reject>,
    },
    /// A reply to one of our requests.
    Control(Reply),
    /// The venue says it will close the connection (`serverShutdown`).
    Shutdown,
    /// Well formed, but of a kind nobody here asked for: depth, bookTicker, trade and the like.
    Other,
}

/// A reply to a SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS or property request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `{"result":null,"id":n}`: received, and nothing more than that.
    Ack {
        /// The request's id, if it was a whole number.
        id: Option<u64>,
    },
    /// `{"result":[…],"id":n}` or another result that is not null. Says what was asked for, not what is delivered.
    Result {
        /// The request's id, if it was a whole number.
        id: Option<u64>,
    },
    /// `{"error":{"code":c,"msg":"…"},"id":n}` or `{"code":c,"msg":"…"}`.
    Error {
        /// The request's id, where the reply names one.
        id: Option<u64>,
        /// The venue's code.
        code: i64,
        /// The venue's words, escaped and capped.
        message: String,
    },
}

/// Why a message was refused, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Of what kind the fault is; counted by it.
    pub kind: RejectKind,
    /// The field at fault, by the venue's key, where it is a field.
    pub field: Option<&'static str>,
}

/// The kinds of refusals, each with a counter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectKind {
    /// Not JSON, or nested too deep.
    Json,
    /// JSON, but neither an event nor a reply.
    Shape,
    /// A required field is absent.
    Missing,
    /// A field of another type than expected.
    Type,
    /// A number that is malformed, out of range, not positive where it must be, or has too many decimals.
    Number,
    /// A time outside the years 2010 to 2100, or times that contradict each other.
    Time,
    /// A symbol that nobody asked for.
    Symbol,
    /// A stream of a known symbol that this connection was not asked for.
    Unasked,
    /// An id too far ahead of the last one to be true.
    Id,
    /// A binary message.
    Binary,
    /// A violation of the WebSocket protocol, bad UTF-8 included.
    Protocol,
}

impl RejectKind {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 11] = [
        Self::Json,
        Self::Shape,
        Self::Missing,
        Self::Type,
        Self::Number,
        Self::Time,
        Self::Symbol,
        Self::Unasked,
        Self::Id,
        Self::Binary,
        Self::Protocol,
    ];

    /// One word, for labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Shape => "shape",
            Self::Missing => "missing",
            Self::Type => "type",
            Self::Number => "number",
            Self::Time => "time",
            Self::Symbol => "symbol",
            Self::Unasked => "unasked",
            Self::Id => "id",
            Self::Binary => "binary",
            Self::Protocol => "protocol",
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            Some(field) => write!(f, "{} in \"{field}\"", self.kind.as_str()),
            None => f.write_str(self.kind.as_str()),
        }
    }
}

/// Reads messages. Owns the scratch memory that makes reading free of allocations.
#[derive(Default)]
pub struct Decoder {
    general: tape::General,
    fallbacks: u64,
}

impl Decoder {
    /// Reads one text message. Symbols that are not in the table are refused ([`RejectKind::Symbol`]).
    ///
    /// # Errors
    /// [`Reject`] says what is wrong and where; the decoder is as new for the next message.
    pub fn decode(&mut self, text: &str, symbols: &Symbols) -> Result<Decoded, Reject> {
        if let Some(frame) = scan::frame(text.as_bytes(), symbols) {
            return Ok(Decoded::Frame(frame));
        }
        self.fallbacks += 1;
        self.general.read(text, symbols)
    }

    /// The rows of the last [`Decoded::Marks`].
    pub fn marks(&self) -> &[MarkPrice] {
        self.general.marks()
    }

    /// How many messages the field scanner passed on to the general reader.
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks
    }

    /// The field scanner alone, for tests and benches that hold the two readers against each other.
    #[doc(hidden)]
    pub fn scan_only(text: &str, symbols: &Symbols) -> Option<Frame> {
        scan::frame(text.as_bytes(), symbols)
    }

    /// The general reader alone, for the same.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    #[doc(hidden)]
    pub fn read_only(&mut self, text: &str, symbols: &Symbols) -> Result<Decoded, Reject> {
        self.general.read(text, symbols)
    }
}
