//! The words between the exchange's rules and whatever carries its bytes.

/// One open WebSocket of the exchange. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// What the exchange does to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a text message.
    Text(std::rc::Rc<str>),
    /// Send a ping with this payload.
    Ping(String),
    /// Send a close frame, then end the connection.
    Close {
        /// RFC 6455 close code.
        code: u16,
        /// Close reason.
        reason: &'static str,
    },
    /// Cut the connection without a word (TCP reset).
    Cut,
}

/// The exchange refuses an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status: 403, 404, 418, 429, 503.
    pub status: u16,
    /// `Retry-After`, if the exchange gives one, in seconds.
    pub retry_after_s: Option<u32>,
}

/// A REST request as it came off the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestRequest {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path without query, as sent (percent-encoded).
    pub path: String,
    /// Query without `?`, as sent; empty if none.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, if any.
    pub body: Vec<u8>,
}

/// A REST answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestAnswer {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case, without content-length and content-type.
    pub headers: Vec<(String, String)>,
    /// JSON text.
    pub body: String,
}
