//! TLS, upgrade and WebSocket frames over in-memory buffers: one socket's life above the socket.

use super::channel::Channel;
use super::ending::escaped;
use super::upgrade::{Refused, Upgrade};
use crate::time::Span;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io::{self, Read};
use std::sync::Arc;
use tungstenite::error::CapacityError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Bytes, Error, Message, Utf8Bytes, WebSocket};

/// tungstenite zero-fills this much before each read of its own; a small value costs less than it saves in calls.
const READ_BUFFER: usize = 4 * 1024;

/// Something that came over an open connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message, complete and valid UTF-8.
    Text(Utf8Bytes),
    /// A binary message of so many bytes.
    Binary(usize),
    /// A ping or a pong.
    Control,
    /// The peer closes, with its code and words if it gave any.
    Closed(Option<(u16, String)>),
}

/// Why a link cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) reason: String,
    /// True if the peer violated a protocol, rather than the path having failed.
    pub(super) violation: bool,
    pub(super) retry_after: Option<Span>,
}

impl Broken {
    fn tls(error: &rustls::Error) -> Self {
        Self { reason: tls_words(error), violation: true, retry_after: None }
    }
}

impl From<Refused> for Broken {
    fn from(refused: Refused) -> Self {
        Self { reason: refused.reason, violation: false, retry_after: refused.retry_after }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Securing,
    Upgrading,
    Open,
}

pub(super) struct Link {
    phase: Phase,
    message_bytes_max: usize,
}

enum Phase {
    Securing(Channel),
    Upgrading(Channel, Upgrade),
    Open(Box<WebSocket<Channel>>),
    /// Only while a phase is replaced.
    Between,
}

impl Link {
    /// A link for a fresh socket. `tls` is the configuration and the name the certificate must bear.
    pub(super) fn new(
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
        message_bytes_max: usize,
    ) -> Result<Self, Broken> {
        let channel = match tls {
            Some((config, name)) => Channel::tls(config, name).map_err(|error| Broken::tls(&error))?,
            None => Channel::plain(),
        };
        Ok(Self { phase: Phase::Securing(channel), message_bytes_max })
    }

    fn channel(&mut self) -> &mut Channel {
        match &mut self.phase {
            Phase::Securing(channel) | Phase::Upgrading(channel, _) => channel,
            Phase::Open(socket) => socket.get_mut(),
            Phase::Between => unreachable!("a phase is always replaced before it is used"),
        }
    }

    /// Where received bytes go.
    pub(super) fn buffer(&mut self) -> &mut [u8] {
        self.channel().buffer()
    }

    /// So many were put there.
    pub(super) fn received(&mut self, n: usize) {
        self.channel().received(n);
    }

    /// Bytes for the socket.
    pub(super) fn transmit(&self) -> &[u8] {
        match &self.phase {
            Phase::Securing(channel) | Phase::Upgrading(channel, _) => channel.transmit(),
            Phase::Open(socket) => socket.get_ref().transmit(),
            Phase::Between => &[],
        }
    }

    /// So many of them were taken.
    pub(super) fn transmitted(&mut self, n: usize) {
        self.channel().transmitted(n);
    }

    /// Goes on with the handshakes as far as the received bytes allow.
    pub(super) fn advance(&mut self, authority: &str, target: &str) -> Result<Progress, Broken> {
        if let Phase::Securing(channel) = &mut self.phase {
            channel.handshake().map_err(|error| Broken::tls(&error))?;
            if channel.peer_closed() {
                return Err(Broken { reason: "peer closed TLS".into(), violation: false, retry_after: None });
            }
            if !channel.secured() {
                return Ok(Progress::Securing);
            }
            let upgrade = Upgrade::new();
            let request = upgrade.request(authority, target);
            channel.send(request.as_bytes()).map_err(|error| Broken::tls(&error))?;
            if let Phase::Securing(channel) = std::mem::replace(&mut self.phase, Phase::Between) {
                self.phase = Phase::Upgrading(channel, upgrade);
            }
        }
        if let Phase::Upgrading(channel, upgrade) = &mut self.phase {
            let mut piece = [0; READ_BUFFER];
            loop {
                match channel.read(&mut piece) {
                    Ok(n) => {
                        if let Some(frames) = upgrade.received(&piece[..n])? {
                            self.open(frames);
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if channel.peer_closed() {
                            let reason = "peer closed TLS instead of answering".into();
                            return Err(Broken { reason, violation: false, retry_after: None });
                        }
                        return Ok(Progress::Upgrading);
                    }
                    Err(error) => return Err(io_words(&error)),
                }
            }
        }
        Ok(Progress::Open)
    }

    fn open(&mut self, frames: Vec<u8>) {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(self.message_bytes_max + 64 * 1024)
            .max_message_size(Some(self.message_bytes_max))
            .max_frame_size(Some(self.message_bytes_max));
        if let Phase::Upgrading(channel, _) = std::mem::replace(&mut self.phase, Phase::Between) {
            let socket = WebSocket::from_partially_read(channel, frames, Role::Client, Some(config));
            self.phase = Phase::Open(Box::new(socket));
        }
    }

    /// The next message at hand; `None` if what has been received holds no complete one.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that may grow")]
    pub(super) fn read(&mut self) -> Result<Option<Incoming>, Broken> {
        let Phase::Open(socket) = &mut self.phase else { return Ok(None) };
        let error = match socket.read() {
            Ok(Message::Text(text)) => return Ok(Some(Incoming::Text(text))),
            Ok(Message::Binary(bytes)) => return Ok(Some(Incoming::Binary(bytes.len()))),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => return Ok(Some(Incoming::Control)),
            Ok(Message::Close(frame)) => {
                // The reply is queued; it goes out with the next flush.
                let _ = socket.flush();
                return Ok(Some(Incoming::Closed(
                    frame.map(|frame| (frame.code.into(), escaped(frame.reason.as_str(), 120))),
                )));
            }
            Err(error) => error,
        };
        let (code, reason) = match error {
            Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if socket.get_ref().peer_closed() {
                    let reason = "peer closed TLS without a close frame".into();
                    return Err(Broken { reason, violation: false, retry_after: None });
                }
                return Ok(None);
            }
            Error::Io(error) => return Err(io_words(&error)),
            Error::ConnectionClosed | Error::AlreadyClosed => return Ok(Some(Incoming::Closed(None))),
            Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
                (CloseCode::Size, format!("message of {size} bytes exceeds {max_size}"))
            }
            Error::Utf8(_) => (CloseCode::Invalid, "text message is not UTF-8".to_owned()),
            Error::Protocol(error) => (CloseCode::Protocol, format!("protocol violation: {error}")),
            error => (CloseCode::Protocol, format!("protocol violation: {error}")),
        };
        let _ = socket.close(Some(CloseFrame { code, reason: Utf8Bytes::from_static("") }));
        Err(Broken { reason: escaped(&reason, 200), violation: true, retry_after: None })
    }

    /// Queues a text message.
    pub(super) fn send_text(&mut self, text: &str) -> Result<(), Broken> {
        self.send(Message::Text(text.into()))
    }

    /// Queues a ping.
    pub(super) fn send_ping(&mut self) -> Result<(), Broken> {
        self.send(Message::Ping(Bytes::from_static(b"edge")))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that may grow")]
    fn send(&mut self, message: Message) -> Result<(), Broken> {
        let Phase::Open(socket) = &mut self.phase else { return Ok(()) };
        socket.send(message).map_err(|error| match error {
            Error::Io(error) => io_words(&error),
            error => Broken { reason: escaped(&error.to_string(), 200), violation: false, retry_after: None },
        })
    }

    /// True if a pong waits for the budget.
    pub(super) fn has_pong(&self) -> bool {
        matches!(&self.phase, Phase::Open(socket) if socket.get_ref().has_pong())
    }

    /// Queues the newest pong.
    pub(super) fn release_pong(&mut self) -> Result<(), Broken> {
        let channel = self.channel();
        match channel.take_pong() {
            Some(frame) => channel.send(&frame).map_err(|error| Broken::tls(&error)),
            None => Ok(()),
        }
    }

    /// Queues a close frame of our own.
    pub(super) fn close(&mut self, code: u16) {
        if let Phase::Open(socket) = &mut self.phase {
            // Best effort: the connection is over either way.
            let _ = socket.close(Some(CloseFrame { code: code.into(), reason: Utf8Bytes::from_static("") }));
        }
    }

    /// The last bytes for the socket: what is queued, and TLS's goodbye.
    pub(super) fn farewell(mut self) -> Vec<u8> {
        let channel = self.channel();
        channel.close_notify();
        channel.take_transmit()
    }
}

fn io_words(error: &io::Error) -> Broken {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => Broken::tls(error),
        None => Broken { reason: escaped(&error.to_string(), 200), violation: false, retry_after: None },
    }
}

/// Behind the words for a certificate that is outside its time.
pub(crate) const CLOCK_HINT: &str = " (is this machine's clock right?)";

/// A certificate's fault in words that tell a bad peer from a bad clock.
#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that may grow")]
pub(crate) fn tls_words(error: &rustls::Error) -> String {
    use rustls::CertificateError as Certificate;
    let hint = match error {
        rustls::Error::InvalidCertificate(
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. },
        ) => CLOCK_HINT,
        _ => "",
    };
    escaped(&format!("TLS: {error}{hint}"), 240)
}
