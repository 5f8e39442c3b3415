//! One upgrade, then messages, as strictly as RFC 6455 words them.

use std::io::{self, Read, Write};

use tungstenite::Message;
use tungstenite::error::Error as WsError;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocket, WebSocketConfig};

use super::http::{Body, Request, phrase};
use super::{Ending, Peer, Rules, State};
use crate::sim::exchange::Refusal;
use crate::time::UtcMs;

/// Memory in place of a socket. Reading past the end would block, writing never does.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) rx: Vec<u8>,
    read: usize,
    pub(super) tx: Vec<u8>,
}

impl Peer {
    pub(super) fn upgrade(&mut self, request: &Request, rules: &mut impl Rules, utc: UtcMs) {
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
    pub(super) fn messages(&mut self, rules: &mut impl Rules, utc: UtcMs) {
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
}

impl Request {
    pub(super) fn wants_websocket(&self) -> bool {
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

/// Longest message and frame of a client.
const MESSAGE_MAX: usize = 1024 * 1024;
/// tungstenite allocates this for every connection at once, so it is small.
const READ_BUFFER: usize = 4 * 1024;
