//! The server's end of one connection, without a socket: plaintext bytes in, plaintext bytes out.
//!
//! A connection begins as HTTP/1.1 and may carry any number of REST requests; one upgrade turns it into a WebSocket for
//! the rest of its life. What requests and messages *mean* is asked of [`Rules`]; here is only their framing, held as
//! strictly as RFC 9112 and RFC 6455 word it, so that a client which is merely tolerated elsewhere fails here.
//!
//! No clock, no thread, no socket: the virtual world and the loopback server drive the same code.

use std::io::{self, Read, Write};

use tungstenite::Message;
use tungstenite::error::Error as WsError;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocket, WebSocketConfig};

use super::exchange::Exchange;
use super::venue::{Action, ConnId, Refusal, RestAnswer, RestRequest};
use crate::time::UtcMs;

/// The exchange as its connections see it.
pub trait Rules {
    /// A WebSocket upgrade for this request target, already valid as an upgrade.
    ///
    /// # Errors
    /// The exchange's refusal, which becomes an HTTP status.
    fn open(&mut self, target: &str, utc: UtcMs) -> Result<ConnId, Refusal>;
    /// A text message arrived; `wire_bytes` is its size with frame header and mask.
    fn on_text(&mut self, conn: ConnId, text: &str, wire_bytes: usize, utc: UtcMs);
    /// The client pinged, and was answered.
    fn on_ping(&mut self, conn: ConnId, utc: UtcMs);
    /// The client sent a pong.
    fn on_pong(&mut self, conn: ConnId, payload: &[u8], utc: UtcMs);
    /// The client ended the connection, or broke it.
    fn on_gone(&mut self, conn: ConnId);
    /// When [`advance`](Self::advance) has something to do.
    fn next_due(&self) -> UtcMs;
    /// Time has passed.
    fn advance(&mut self, utc: UtcMs);
    /// What the exchange does next, and to which connection.
    fn poll_action(&mut self) -> Option<(ConnId, Action)>;
    /// One REST request.
    fn rest(&mut self, request: &RestRequest, utc: UtcMs) -> RestAnswer;
}

impl Rules for Exchange {
    fn open(&mut self, target: &str, utc: UtcMs) -> Result<ConnId, Refusal> {
        self.open(target, utc)
    }
    fn on_text(&mut self, conn: ConnId, text: &str, wire_bytes: usize, utc: UtcMs) {
        self.on_text(conn, text, wire_bytes, utc);
    }
    fn on_ping(&mut self, conn: ConnId, utc: UtcMs) {
        self.on_ping(conn, utc);
    }
    fn on_pong(&mut self, conn: ConnId, payload: &[u8], utc: UtcMs) {
        self.on_pong(conn, payload, utc);
    }
    fn on_gone(&mut self, conn: ConnId) {
        self.on_gone(conn);
    }
    fn next_due(&self) -> UtcMs {
        self.next_due()
    }
    fn advance(&mut self, utc: UtcMs) {
        self.advance(utc);
    }
    fn poll_action(&mut self) -> Option<(ConnId, Action)> {
        self.poll_action()
    }
    fn rest(&mut self, request: &RestRequest, utc: UtcMs) -> RestAnswer {
        self.rest(request, utc)
    }
}

/// How the server's side wants the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Once [`Peer::transmit`] is empty, with the ordinary goodbye of the transport.
    Close,
    /// At once, whatever is queued, with a reset.
    Cut,
}

/// How far the connection has come. A transport that plays faults paces each stage differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// HTTP; what is queued are REST answers or refusals.
    Http,
    /// A WebSocket whose 101 answer has not left; so many queued bytes belong to it and to what precedes it.
    Upgrading(usize),
    /// A WebSocket.
    Open,
}

/// What passed through connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// REST requests answered.
    pub requests: u64,
    /// Upgrades granted.
    pub upgrades: u64,
    /// Upgrades refused by the exchange.
    pub refused: u64,
    /// Text messages received.
    pub messages: u64,
    /// Text frames queued for sending.
    pub frames: u64,
    /// Requests or frames that broke HTTP or RFC 6455.
    pub violations: u64,
    /// Connections cut because their client did not read.
    pub slow: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.upgrades += other.upgrades;
        self.refused += other.refused;
        self.messages += other.messages;
        self.frames += other.frames;
        self.violations += other.violations;
        self.slow += other.slow;
    }
}

/// The server's end of one connection.
#[derive(Debug)]
pub struct Peer {
    state: State,
    /// Queued for the client; the first `sent` bytes have left.
    out: Vec<u8>,
    sent: usize,
    /// Queued bytes up to the end of the 101 answer.
    upgrade_left: usize,
    ending: Option<Ending>,
    tally: Tally,
}

#[derive(Debug)]
enum State {
    /// The bytes of a request that is not whole yet.
    Http(Vec<u8>),
    /// `conn` is `None` once the exchange knows that the connection is over.
    Open { conn: Option<ConnId>, socket: Box<WebSocket<Pipe>> },
}

/// Memory in place of a socket. Reading past the end would block, writing never does.
#[derive(Debug, Default)]
struct Pipe {
    rx: Vec<u8>,
    read: usize,
    tx: Vec<u8>,
}

impl Default for Peer {
    fn default() -> Self {
        Self::new()
    }
}

impl Peer {
    /// A connection on which nothing was said yet.
    pub fn new() -> Self {
        Self {
            state: State::Http(Vec::new()),
            out: Vec::new(),
            sent: 0,
            upgrade_left: 0,
            ending: None,
            tally: Tally::default(),
        }
    }

    /// Bytes from the client. Nothing is read any more once the connection is [`ending`](Self::ending).
    pub fn received(&mut self, bytes: &[u8], rules: &mut impl Rules, utc: UtcMs) {
        if self.ending.is_some() {
            return;
        }
        match &mut self.state {
            State::Http(inbox) => {
                inbox.extend_from_slice(bytes);
                self.requests(rules, utc);
            }
            State::Open { socket, .. } => {
                socket.get_mut().rx.extend_from_slice(bytes);
                self.messages(rules, utc);
            }
        }
    }

    /// The client will send no more. What was asked before is still answered.
    pub fn eof(&mut self, rules: &mut impl Rules) {
        self.forget(rules);
        self.ending.get_or_insert(Ending::Close);
    }

    /// The whole exchange goes away.
    pub fn shut_down(&mut self, rules: &mut impl Rules) {
        self.forget(rules);
        if self.ending.is_none()
            && let State::Open { socket, .. } = &mut self.state
        {
            let _ = socket.close(Some(CloseFrame { code: CloseCode::Away, reason: "going away".into() }));
            self.collect();
        }
        self.ending.get_or_insert(Ending::Close);
    }

    /// Does what the exchange decided. Gives back the connection if its client is so far behind that it was cut, which
    /// the exchange has to be told.
    #[must_use]
    pub fn perform(&mut self, action: Action) -> Option<ConnId> {
        if self.ending.is_some() {
            return None;
        }
        let State::Open { conn, socket } = &mut self.state else {
            return None;
        };
        match action {
            Action::Text(text) => {
                self.tally.frames += 1;
                // Cannot fail: the pipe takes everything, and a closed socket has an ending.
                let _ = socket.write(Message::text(&*text));
            }
            Action::Ping(payload) => {
                let _ = socket.write(Message::Ping(payload.into_bytes().into()));
            }
            Action::Close { code, reason } => {
                *conn = None;
                let _ = socket.close(Some(CloseFrame { code: CloseCode::from(code), reason: reason.into() }));
                self.ending = Some(Ending::Close);
            }
            Action::Cut => {
                *conn = None;
                self.ending = Some(Ending::Cut);
            }
        }
        self.collect();
        self.bound()
    }

    /// Bytes for the client.
    pub fn transmit(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// The first `n` bytes of [`transmit`](Self::transmit) have left.
    pub fn transmitted(&mut self, n: usize) {
        self.sent = (self.sent + n).min(self.out.len());
        self.upgrade_left = self.upgrade_left.saturating_sub(n);
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent >= COMPACT_AT {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// The exchange's name for the WebSocket, while both sides hold it open.
    pub fn conn(&self) -> Option<ConnId> {
        match &self.state {
            State::Open { conn, .. } => *conn,
            State::Http(_) => None,
        }
    }

    /// How the connection is to be ended, once that is decided.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// How far the connection has come.
    pub fn stage(&self) -> Stage {
        match &self.state {
            State::Http(_) => Stage::Http,
            State::Open { .. } if self.upgrade_left > 0 => Stage::Upgrading(self.upgrade_left),
            State::Open { .. } => Stage::Open,
        }
    }

    /// What passed through this connection so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Reads whole requests off the inbox until one upgrades, one ends the connection, or the rest is not whole.
    fn requests(&mut self, rules: &mut impl Rules, utc: UtcMs) {
        while self.ending.is_none() {
            let State::Http(inbox) = &mut self.state else { return };
            let (request, used) = match parse(inbox) {
                Parsed::Partial => return,
                Parsed::Broken(status, why) => {
                    self.tally.violations += 1;
                    self.answer(status, &[], Body::Text(why), false, utc);
                    return;
                }
                Parsed::Whole(request, used) => (request, used),
            };
            inbox.drain(..used);
            if request.wants_websocket() {
                self.upgrade(&request, rules, utc);
                return;
            }
            let keep_alive = request.keep_alive;
            let head = request.rest.method == "HEAD";
            let RestAnswer { status, headers, body } = rules.rest(&request.rest, utc);
            self.tally.requests += 1;
            self.answer(status, &headers, if head { Body::Head(&body) } else { Body::Json(&body) }, keep_alive, utc);
        }
    }

    fn upgrade(&mut self, request: &Request, rules: &mut impl Rules, utc: UtcMs) {
        let key = match request.websocket_key() {
            Ok(key) => key,
            Err((status, why)) => {
                self.tally.violations += 1;
                // A client of another version is told which one is spoken (RFC 6455, 4.4).
                let version = [("sec-websocket-version".to_owned(), "13".to_owned())];
                self.answer(status, if status == 426 { &version } else { &[] }, Body::Text(why), false, utc);
                return;
            }
        };
        match rules.open(&request.target, utc) {
            Err(Refusal { status, retry_after_s }) => {
                self.tally.refused += 1;
                let headers: Vec<_> =
                    retry_after_s.map(|s| ("retry-after".to_owned(), s.to_string())).into_iter().collect();
                self.answer(status, &headers, Body::Text(phrase(status)), false, utc);
            }
            Ok(conn) => {
                self.tally.upgrades += 1;
                self.out.extend_from_slice(
                    format!(
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Accept: {}\r\n\r\n",
                        derive_accept_key(key.as_bytes())
                    )
                    .as_bytes(),
                );
                self.upgrade_left = self.out.len() - self.sent;
                let rx = match &mut self.state {
                    State::Http(inbox) => std::mem::take(inbox),
                    State::Open { .. } => Vec::new(),
                };
                // Written through at once: the queue that counts is ours.
                let config = WebSocketConfig::default()
                    .read_buffer_size(READ_BUFFER)
                    .write_buffer_size(0)
                    .max_message_size(Some(MESSAGE_MAX))
                    .max_frame_size(Some(MESSAGE_MAX));
                let pipe = Pipe { rx, ..Pipe::default() };
                let socket = Box::new(WebSocket::from_raw_socket(pipe, Role::Server, Some(config)));
                self.state = State::Open { conn: Some(conn), socket };
                // A client may not wait for the 101 with its first message; then it is here already.
                self.messages(rules, utc);
            }
        }
    }

    /// Reads whole messages off the pipe.
    fn messages(&mut self, rules: &mut impl Rules, utc: UtcMs) {
        while self.ending.is_none() {
            let State::Open { conn, socket } = &mut self.state else { return };
            // Pongs and the answer to a close frame are queued by tungstenite and leave with the next read.
            match socket.read() {
                Ok(Message::Text(text)) => {
                    self.tally.messages += 1;
                    if let Some(conn) = *conn {
                        rules.on_text(conn, &text, wire_bytes(text.len()), utc);
                    }
                }
                Ok(Message::Ping(_)) => {
                    if let Some(conn) = *conn {
                        rules.on_ping(conn, utc);
                    }
                }
                Ok(Message::Pong(payload)) => {
                    if let Some(conn) = *conn {
                        rules.on_pong(conn, &payload, utc);
                    }
                }
                Ok(Message::Binary(_)) => self.fail(CloseCode::Unsupported, "text only", rules),
                // The answering close frame leaves with the next read, which then reports the end.
                Ok(Message::Close(_)) => self.forget(rules),
                Ok(Message::Frame(_)) => {}
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => {
                    self.forget(rules);
                    self.ending = Some(Ending::Close);
                }
                Err(WsError::Capacity(_)) => self.fail(CloseCode::Size, "message too big", rules),
                Err(WsError::Utf8(_)) => self.fail(CloseCode::Invalid, "not UTF-8", rules),
                Err(
                    WsError::Protocol(_)
                    | WsError::Io(_)
                    | WsError::Tls(_)
                    | WsError::WriteBufferFull(_)
                    | WsError::AttackAttempt
                    | WsError::Url(_)
                    | WsError::Http(_)
                    | WsError::HttpFormat(_),
                ) => self.fail(CloseCode::Protocol, "protocol error", rules),
            }
        }
        self.collect();
        if let Some(conn) = self.bound() {
            rules.on_gone(conn);
        }
    }

    /// The client broke the protocol: tell it how, and end.
    fn fail(&mut self, code: CloseCode, reason: &'static str, rules: &mut impl Rules) {
        self.tally.violations += 1;
        self.forget(rules);
        if let State::Open { socket, .. } = &mut self.state {
            let _ = socket.close(Some(CloseFrame { code, reason: reason.into() }));
        }
        self.ending = Some(Ending::Close);
    }

    /// Tells the exchange, once, that the connection is over.
    fn forget(&mut self, rules: &mut impl Rules) {
        if let State::Open { conn, .. } = &mut self.state
            && let Some(conn) = conn.take()
        {
            rules.on_gone(conn);
        }
    }

    /// Moves what the WebSocket wrote behind what is queued.
    fn collect(&mut self) {
        if let State::Open { socket, .. } = &mut self.state {
            self.out.append(&mut socket.get_mut().tx);
        }
    }

    /// Cuts a client that does not read what it asked for, and gives back its connection if the exchange knows it.
    fn bound(&mut self) -> Option<ConnId> {
        if self.out.len() - self.sent <= OUT_MAX {
            return None;
        }
        self.tally.slow += 1;
        self.ending = Some(Ending::Cut);
        match &mut self.state {
            State::Open { conn, .. } => conn.take(),
            State::Http(_) => None,
        }
    }

    fn answer(&mut self, status: u16, headers: &[(String, String)], body: Body<'_>, keep_alive: bool, utc: UtcMs) {
        let (kind, text) = match body {
            Body::Json(text) | Body::Head(text) => ("application/json;charset=UTF-8", text),
            Body::Text(text) => ("text/plain", text),
        };
        let mut head = format!(
            "HTTP/1.1 {status} {}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ndate: {}\r\nconnection: {}\r\n",
            phrase(status),
            text.len(),
            http_date(utc),
            if keep_alive { "keep-alive" } else { "close" },
        );
        for (name, value) in headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        self.out.extend_from_slice(head.as_bytes());
        match body {
            Body::Json(text) | Body::Text(text) => self.out.extend_from_slice(text.as_bytes()),
            Body::Head(_) => {}
        }
        if !keep_alive {
            self.ending = Some(Ending::Close);
        }
        let _ = self.bound();
    }
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = &self.rx[self.read..];
        if left.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = left.len().min(buf.len());
        buf[..n].copy_from_slice(&left[..n]);
        self.read += n;
        if self.read == self.rx.len() {
            self.rx.clear();
            self.read = 0;
        }
        Ok(n)
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.tx.extend_from_slice(buf);
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Body<'a> {
    Json(&'a str),
    Text(&'a str),
    /// The length of the text is told, the text is not (answer to HEAD).
    Head(&'a str),
}

struct Request {
    rest: RestRequest,
    /// Path and query together, as sent.
    target: String,
    /// HTTP/1.1 or later 1.x.
    modern: bool,
    keep_alive: bool,
}

enum Parsed {
    Partial,
    /// The status to refuse it with, and a word why.
    Broken(u16, &'static str),
    /// The request and the bytes it took.
    Whole(Request, usize),
}

impl Request {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.rest.headers.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether a list header names this token, over all its lines.
    fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name).flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
    }

    fn wants_websocket(&self) -> bool {
        self.has_token("upgrade", "websocket") || self.values("sec-websocket-key").next().is_some()
    }

    /// The client's key, if the request is a valid upgrade by RFC 6455, 4.2.1.
    fn websocket_key(&self) -> Result<&str, (u16, &'static str)> {
        if self.rest.method != "GET" || !self.modern {
            return Err((400, "an upgrade is a GET of HTTP/1.1"));
        }
        if !self.rest.body.is_empty() {
            return Err((400, "an upgrade has no body"));
        }
        if !self.has_token("upgrade", "websocket") {
            return Err((400, "Upgrade: websocket is missing"));
        }
        if !self.has_token("connection", "upgrade") {
            return Err((400, "Connection: Upgrade is missing"));
        }
        let mut versions = self.values("sec-websocket-version");
        if versions.next() != Some("13") || versions.next().is_some() {
            return Err((426, "Sec-WebSocket-Version: 13 is spoken here"));
        }
        let mut keys = self.values("sec-websocket-key");
        match (keys.next(), keys.next()) {
            (Some(key), None) if is_key(key) => Ok(key),
            _ => Err((400, "Sec-WebSocket-Key is not one base64 text of 16 bytes")),
        }
    }
}

/// The first request in `inbox`, if it is whole.
fn parse(inbox: &[u8]) -> Parsed {
    let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut storage);
    let head_len = match head.parse(inbox) {
        Ok(httparse::Status::Complete(n)) if n <= HEAD_MAX => n,
        Ok(httparse::Status::Partial) if inbox.len() <= HEAD_MAX => return Parsed::Partial,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Parsed::Broken(431, "head too large"),
        Err(_) => return Parsed::Broken(400, "not HTTP/1.1"),
    };
    let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
        return Parsed::Broken(400, "not HTTP/1.1");
    };
    let mut headers = Vec::with_capacity(head.headers.len());
    for header in head.headers.iter() {
        let Ok(value) = std::str::from_utf8(header.value) else {
            return Parsed::Broken(400, "a header is not text");
        };
        headers.push((header.name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    // The absolute form (`GET http://host/path`) means the same (RFC 9112, 3.2.2).
    let target = match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphabetic()) => {
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ => target,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        rest: RestRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: Vec::new(),
        },
        target: target.to_owned(),
        modern: minor >= 1,
        keep_alive: false,
    };
    request.keep_alive = if request.modern {
        !request.has_token("connection", "close")
    } else {
        request.has_token("connection", "keep-alive")
    };
    if request.modern && request.values("host").count() != 1 {
        return Parsed::Broken(400, "exactly one Host is needed");
    }
    if request.values("transfer-encoding").next().is_some() {
        return Parsed::Broken(501, "a body needs Content-Length");
    }
    let mut lengths = request.values("content-length");
    let body_len = match (lengths.next(), lengths.next()) {
        (None, _) => 0,
        (Some(length), None) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            length.parse().unwrap_or(usize::MAX)
        }
        _ => return Parsed::Broken(400, "Content-Length is not one number"),
    };
    drop(lengths);
    if body_len > BODY_MAX {
        return Parsed::Broken(413, "body too large");
    }
    let Some(body) = inbox[head_len..].get(..body_len) else {
        return Parsed::Partial;
    };
    request.rest.body = body.to_vec();
    Parsed::Whole(request, head_len + body_len)
}

/// Whether this is the base64 of exactly 16 bytes: 22 digits, the last of which carries two bits, and the padding.
fn is_key(key: &str) -> bool {
    let bytes = key.as_bytes();
    bytes.len() == 24
        && bytes[..22].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
        && matches!(bytes[21], b'A' | b'Q' | b'g' | b'w')
        && &bytes[22..] == b"=="
}

/// Size on the wire of a client's message of this length, sent as one frame: header, mask, payload.
fn wire_bytes(len: usize) -> usize {
    let header = match len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    header + 4 + len
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
fn http_date(utc: UtcMs) -> String {
    let stamp = jiff::Timestamp::from_millisecond(utc.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    stamp.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        418 => "I'm a teapot",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}

/// Longest request line with headers. The exchange's URLs end near 8000 characters.
const HEAD_MAX: usize = 16 * 1024;
/// Most header lines.
const HEADERS_MAX: usize = 64;
/// Longest request body.
const BODY_MAX: usize = 1024 * 1024;
/// Longest message and frame of a client.
const MESSAGE_MAX: usize = 1024 * 1024;
/// tungstenite allocates this for every connection at once, so it is small.
const READ_BUFFER: usize = 4 * 1024;
/// A client with more than this unread is cut.
pub const OUT_MAX: usize = 8 * 1024 * 1024;
/// Sent bytes are dropped from the front of the queue in steps of this size.
const COMPACT_AT: usize = 256 * 1024;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::rc::Rc;

    /// Rules that only write down what they are told, and echo messages.
    #[derive(Default)]
    pub(crate) struct Clerk {
        pub(crate) told: Vec<String>,
        pub(crate) actions: VecDeque<(ConnId, Action)>,
        pub(crate) refuse: Option<Refusal>,
        opened: u64,
    }

    impl Rules for Clerk {
        fn open(&mut self, target: &str, _: UtcMs) -> Result<ConnId, Refusal> {
            self.told.push(format!("open {target}"));
            if let Some(refusal) = self.refuse.clone() {
                return Err(refusal);
            }
            self.opened += 1;
            Ok(ConnId(self.opened))
        }
        fn on_text(&mut self, conn: ConnId, text: &str, wire_bytes: usize, _: UtcMs) {
            self.told.push(format!("text {} {text} {wire_bytes}", conn.0));
            self.actions.push_back((conn, Action::Text(Rc::from(text))));
        }
        fn on_ping(&mut self, conn: ConnId, _: UtcMs) {
            self.told.push(format!("ping {}", conn.0));
        }
        fn on_pong(&mut self, conn: ConnId, payload: &[u8], _: UtcMs) {
            self.told.push(format!("pong {} {}", conn.0, String::from_utf8_lossy(payload)));
        }
        fn on_gone(&mut self, conn: ConnId) {
            self.told.push(format!("gone {}", conn.0));
        }
        fn next_due(&self) -> UtcMs {
            UtcMs(i64::MAX)
        }
        fn advance(&mut self, _: UtcMs) {}
        fn poll_action(&mut self) -> Option<(ConnId, Action)> {
            self.actions.pop_front()
        }
        fn rest(&mut self, request: &RestRequest, _: UtcMs) -> RestAnswer {
            let RestRequest { method, path, query, body, .. } = request;
            self.told.push(format!("rest {method} {path} {query} {}", String::from_utf8_lossy(body)));
            RestAnswer { status: 200, headers: vec![("x-mbx-used-weight-1m".into(), "1".into())], body: "{}".into() }
        }
    }

    pub(crate) const UTC: UtcMs = UtcMs(1_785_000_000_000);

    /// The example of RFC 6455, 1.3, with our path.
    pub(crate) const UPGRADE: &str = "GET /market/ws/btcusdt@aggTrade?x=1 HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    /// One frame as a client sends it, masked with a fixed mask.
    pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        assert!(payload.len() < 126);
        let mask = [1, 2, 3, 4];
        let mut frame = vec![first, 0x80 | payload.len() as u8];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        frame
    }

    fn take(peer: &mut Peer) -> Vec<u8> {
        let bytes = peer.transmit().to_vec();
        peer.transmitted(bytes.len());
        bytes
    }

    fn text(peer: &mut Peer) -> String {
        String::from_utf8(take(peer)).unwrap()
    }

    fn open(clerk: &mut Clerk) -> Peer {
        let mut peer = Peer::new();
        peer.received(UPGRADE.as_bytes(), clerk, UTC);
        assert!(text(&mut peer).starts_with("HTTP/1.1 101 "));
        assert_eq!(peer.stage(), Stage::Open);
        clerk.told.clear();
        peer
    }

    #[test]
    fn an_upgrade_cut_anywhere_is_granted_with_the_key_of_the_rfc() {
        for cut in 1..UPGRADE.len() {
            let (mut clerk, mut peer) = (Clerk::default(), Peer::new());
            let (a, b) = UPGRADE.as_bytes().split_at(cut);
            peer.received(a, &mut clerk, UTC);
            assert!(peer.transmit().is_empty());
            peer.received(b, &mut clerk, UTC);
            assert_eq!(peer.stage(), Stage::Upgrading(peer.transmit().len()));
            assert!(text(&mut peer).contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
            assert_eq!(clerk.told, ["open /market/ws/btcusdt@aggTrade?x=1"]);
            assert_eq!((peer.conn(), peer.ending()), (Some(ConnId(1)), None));
        }
    }

    #[test]
    fn an_upgrade_that_the_rfc_forbids_is_refused_and_never_reaches_the_exchange() {
        let cases = [
            ("GET ", "POST ", 400),
            ("HTTP/1.1", "HTTP/1.0", 400),
            ("Host: a\r\n", "", 400),
            ("Host: a\r\n", "Host: a\r\nHost: b\r\n", 400),
            ("WebSocket", "h2c", 400),
            ("keep-alive, Upgrade", "keep-alive", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR==", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 400),
            ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", 426),
            ("Sec-WebSocket-Version: 13\r\n", "", 426),
            ("Upgrade: WebSocket\r\n", "Upgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400),
            ("GET /", "GET / \u{1}", 400),
        ];
        for (from, to, status) in cases {
            let (mut clerk, mut peer) = (Clerk::default(), Peer::new());
            peer.received(UPGRADE.replacen(from, to, 1).as_bytes(), &mut clerk, UTC);
            let answer = text(&mut peer);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{from} -> {to}: {answer}");
            assert_eq!(peer.ending(), Some(Ending::Close));
            assert!(clerk.told.is_empty());
            assert_eq!(peer.tally().violations, 1);
        }
    }

    #[test]
    fn the_exchanges_refusal_becomes_a_status_with_retry_after() {
        let mut clerk = Clerk { refuse: Some(Refusal { status: 418, retry_after_s: Some(120) }), ..Clerk::default() };
        let mut peer = Peer::new();
        peer.received(UPGRADE.as_bytes(), &mut clerk, UTC);
        let answer = text(&mut peer);
        assert!(answer.starts_with("HTTP/1.1 418 I'm a teapot\r\n"), "{answer}");
        assert!(answer.contains("\r\nretry-after: 120\r\n"), "{answer}");
        assert_eq!((peer.ending(), peer.conn(), peer.stage()), (Some(Ending::Close), None, Stage::Http));
    }

    #[test]
    fn requests_in_one_segment_are_answered_in_order_and_the_connection_stays() {
        let (mut clerk, mut peer) = (Clerk::default(), Peer::new());
        let two = "GET /fapi/v1/time HTTP/1.1\r\nHost: a\r\n\r\nPOST /fapi/v1/order?a=1 HTTP/1.1\r\nHost: a\r\n\
                   Content-Length: 3\r\n\r\nb=2GET http://a/x?y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let (last, rest) = two.as_bytes().split_last().unwrap();
        peer.received(rest, &mut clerk, UTC);
        assert_eq!(peer.ending(), None);
        assert_eq!(clerk.told, ["rest GET /fapi/v1/time  ", "rest POST /fapi/v1/order a=1 b=2"]);
        let answers = text(&mut peer);
        assert_eq!(
            answers.lines().take(7).collect::<Vec<_>>(),
            [
                "HTTP/1.1 200 OK",
                "content-type: application/json;charset=UTF-8",
                "content-length: 2",
                "date: Sat, 25 Jul 2026 17:20:00 GMT",
                "connection: keep-alive",
                "x-mbx-used-weight-1m: 1",
                "",
            ]
        );
        assert_eq!(answers.matches("\r\n\r\n{}").count(), 2);
        peer.received(&[*last], &mut clerk, UTC);
        assert_eq!(clerk.told[2], "rest GET /x y ");
        assert_eq!(peer.ending(), Some(Ending::Close));
    }

    #[test]
    fn what_is_too_large_or_ambiguous_is_refused() {
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(HEAD_MAX));
        let endless = format!("GET /{}", "x".repeat(HEAD_MAX));
        let cases = [
            (long.as_str(), 431),
            (endless.as_str(), 431),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
            ("\u{16}\u{3}\u{1} TLS on a plain port\r\n\r\n", 400),
        ];
        for (request, status) in cases {
            let (mut clerk, mut peer) = (Clerk::default(), Peer::new());
            peer.received(request.as_bytes(), &mut clerk, UTC);
            let answer = text(&mut peer);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert_eq!(peer.ending(), Some(Ending::Close));
            assert!(clerk.told.is_empty());
        }
    }

    #[test]
    fn a_message_sent_with_the_upgrade_is_not_lost() {
        let (mut clerk, mut peer) = (Clerk::default(), Peer::new());
        let mut bytes = UPGRADE.as_bytes().to_vec();
        bytes.extend(masked(0x81, b"early"));
        peer.received(&bytes, &mut clerk, UTC);
        assert_eq!(clerk.told[1], "text 1 early 11");
    }

    #[test]
    fn pings_are_answered_one_by_one_and_the_exchange_is_told() {
        let mut clerk = Clerk::default();
        let mut peer = open(&mut clerk);
        let mut bytes = masked(0x89, b"a");
        bytes.extend(masked(0x89, b"b"));
        bytes.extend(masked(0x8a, b"c"));
        // A message in two fragments with a ping between them.
        bytes.extend(masked(0x01, b"he"));
        bytes.extend(masked(0x89, b""));
        bytes.extend(masked(0x80, b"y"));
        peer.received(&bytes, &mut clerk, UTC);
        assert_eq!(clerk.told, ["ping 1", "ping 1", "pong 1 c", "ping 1", "text 1 hey 9"]);
        assert_eq!(take(&mut peer), [0x8a, 1, b'a', 0x8a, 1, b'b', 0x8a, 0]);
    }

    #[test]
    fn what_breaks_the_framing_is_closed_with_its_code_and_the_exchange_is_told_once() {
        let too_long = [0x81, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1, 1, 2, 3, 4];
        let cases: [(Vec<u8>, u16); 8] = [
            (vec![0x81, 1, b'a'], 1002),   // not masked
            (masked(0xc1, b"a"), 1002),    // compressed, and nobody agreed on it
            (masked(0x80, b"a"), 1002),    // continues nothing
            (masked(0x83, b"a"), 1002),    // no such opcode
            (masked(0x09, b"a"), 1002),    // a ping in pieces
            (masked(0x81, &[0xff]), 1007), // not UTF-8
            (masked(0x82, b"a"), 1003),    // binary
            (too_long.to_vec(), 1009),
        ];
        for (frame, code) in cases {
            let mut clerk = Clerk::default();
            let mut peer = open(&mut clerk);
            peer.received(&frame, &mut clerk, UTC);
            let sent = take(&mut peer);
            assert_eq!((sent[0], &sent[2..4]), (0x88, &code.to_be_bytes()[..]), "{frame:x?}");
            assert_eq!((peer.ending(), peer.conn()), (Some(Ending::Close), None));
            peer.received(&masked(0x81, b"late"), &mut clerk, UTC);
            peer.eof(&mut clerk);
            assert_eq!(clerk.told, ["gone 1"]);
        }
    }

    #[test]
    fn a_close_is_answered_with_its_own_code() {
        let mut clerk = Clerk::default();
        let mut peer = open(&mut clerk);
        peer.received(&masked(0x88, &1000u16.to_be_bytes()), &mut clerk, UTC);
        assert_eq!(take(&mut peer), [0x88, 2, 0x03, 0xe8]);
        assert_eq!(peer.ending(), Some(Ending::Close));
        assert_eq!(clerk.told, ["gone 1"]);
    }

    #[test]
    fn the_exchange_sends_pings_closes_and_cuts() {
        let mut clerk = Clerk::default();
        let mut peer = open(&mut clerk);
        assert_eq!(peer.perform(Action::Text(Rc::from("{}"))), None);
        assert_eq!(peer.perform(Action::Ping("17".into())), None);
        assert_eq!(peer.perform(Action::Close { code: 1008, reason: "Too many requests" }), None);
        assert_eq!(peer.perform(Action::Text(Rc::from("after"))), None);
        let mut expected = vec![0x81, 2, b'{', b'}', 0x89, 2, b'1', b'7', 0x88, 19, 0x03, 0xf0];
        expected.extend(b"Too many requests");
        assert_eq!(take(&mut peer), expected);
        assert_eq!(peer.ending(), Some(Ending::Close));

        let mut peer = open(&mut clerk);
        assert_eq!(peer.perform(Action::Cut), None);
        assert_eq!(peer.ending(), Some(Ending::Cut));
        assert!(clerk.told.is_empty(), "the exchange knows what it did itself");
    }

    #[test]
    fn a_client_that_does_not_read_is_cut() {
        let mut clerk = Clerk::default();
        let mut peer = open(&mut clerk);
        let text: Rc<str> = Rc::from("x".repeat(60_000));
        let gone = (0..200).find_map(|_| peer.perform(Action::Text(Rc::clone(&text))));
        assert_eq!((gone, peer.ending(), peer.conn()), (Some(ConnId(1)), Some(Ending::Cut), None));
        assert!(peer.transmit().len() <= OUT_MAX + 60_016);
        assert_eq!(peer.tally().slow, 1);
    }

    #[test]
    fn the_queue_leaves_in_any_pieces() {
        let mut clerk = Clerk::default();
        let mut peer = open(&mut clerk);
        let text: Rc<str> = Rc::from("y".repeat(100_000));
        let mut got = Vec::new();
        for _ in 0..10 {
            assert_eq!(peer.perform(Action::Text(Rc::clone(&text))), None);
            let n = peer.transmit().len().min(90_001);
            got.extend_from_slice(&peer.transmit()[..n]);
            peer.transmitted(n);
        }
        got.extend(take(&mut peer));
        assert_eq!(got.len(), 10 * (100_000 + 10));
        assert!(got.chunks(100_010).all(|f| f[0] == 0x81 && f[10..].iter().all(|b| *b == b'y')));
    }

    #[test]
    fn a_half_closed_client_still_gets_its_answer() {
        let (mut clerk, mut peer) = (Clerk::default(), Peer::new());
        peer.received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &mut clerk, UTC);
        peer.eof(&mut clerk);
        assert!(text(&mut peer).ends_with("{}"));
        assert_eq!(peer.ending(), Some(Ending::Close));
    }
}
