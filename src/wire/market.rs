//! Frames of the market streams and replies to control messages, read from text.
//!
//! Everything here is bytes in, [`Decoded`] or [`Reject`] out.

use super::{Frame, MarkPrice, Symbols};
use std::fmt;

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
    marks: Vec<MarkPrice>,
    fallbacks: u64,
}

impl Decoder {
    /// Reads one text message. Symbols that are not in the table are refused ([`RejectKind::Symbol`]).
    ///
    /// # Errors
    /// [`Reject`] says what is wrong and where; the decoder is as new for the next message.
    pub fn decode(&mut self, text: &str, symbols: &Symbols) -> Result<Decoded, Reject> {
        let _ = (text, symbols, &mut self.marks);
        Err(Reject { kind: RejectKind::Shape, field: None })
    }

    /// The rows of the last [`Decoded::Marks`].
    pub fn marks(&self) -> &[MarkPrice] {
        &self.marks
    }

    /// How many messages the field scanner passed on to the general reader.
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks
    }
}

/// A message for a log line: capped, with everything that is no printable text escaped.
pub fn sample(message: &[u8]) -> String {
    String::from_utf8_lossy(&message[..message.len().min(160)]).escape_debug().to_string()
}
