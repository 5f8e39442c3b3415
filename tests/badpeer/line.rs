//! One connection: bytes with or without TLS, a request, frames.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ServerConnection;
use tungstenite::handshake::derive_accept_key;

use super::text::{self, CLOSE, FIN, PING, PONG, TEXT};
use super::{Shared, TICK, What};

/// Why nothing more can be done on a connection.
pub(super) struct Gone(pub(super) String);

pub(super) type Go<T = ()> = Result<T, Gone>;

/// The server's end of a connection.
pub(super) struct Line {
    stream: TcpStream,
    tls: Option<Box<ServerConnection>>,
    /// Plain bytes of the client that were not looked at.
    inbox: Vec<u8>,
    shared: Arc<Shared>,
    number: u64,
    told: usize,
    /// Of the client's last upgrade request.
    key: String,
    /// Messages are wrapped in their stream's name.
    combined: bool,
    /// Whose trades were asked for.
    symbols: Vec<String>,
    /// Requests in text messages so far.
    pub(super) asked: u32,
}

/// How requests on an open connection are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ack {
    Never,
    Right,
    /// With an id that nobody used.
    WrongId,
    /// With an error.
    Refused,
    /// With a trade of each symbol, and then rightly.
    AfterData,
}

impl Line {
    pub(super) fn new(stream: TcpStream, shared: Arc<Shared>, number: u64) -> Self {
        let _ = stream.set_nonblocking(true);
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            tls: None,
            inbox: Vec::new(),
            shared,
            number,
            told: 0,
            key: String::new(),
            combined: false,
            symbols: Vec::new(),
            asked: 0,
        }
    }

    fn tell(&mut self, what: What) {
        // A flood of pongs is not to become a flood of memory.
        if self.told < TOLD_MAX {
            self.told += 1;
            self.shared.tell(self.number, what);
        }
    }

    /// Sleeps for so long.
    pub(super) fn pause(&self, span: Duration) -> Go {
        let until = Instant::now() + span;
        loop {
            if self.shared.stopped() {
                return Err(Gone("we stopped".into()));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(TICK));
        }
    }

    // Below TLS.

    /// Reads what is there, at most a buffer full.
    fn raw_read(&mut self) -> Go<Vec<u8>> {
        let mut buffer = vec![0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Gone("the client sent FIN".into())),
            Ok(n) => {
                buffer.truncate(n);
                Ok(buffer)
            }
            Err(error) if would_block(&error) => Ok(Vec::new()),
            Err(error) => Err(gone(error)),
        }
    }

    /// Waits for the client's first bytes.
    pub(super) fn raw_first(&mut self) -> Go<Vec<u8>> {
        loop {
            let bytes = self.raw_read()?;
            if !bytes.is_empty() {
                return Ok(bytes);
            }
            self.pause(TICK)?;
        }
    }

    pub(super) fn raw_send(&mut self, mut bytes: &[u8]) -> Go {
        self.pause(Duration::ZERO)?;
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if would_block(&error) => self.pause(TICK)?,
                Err(error) => return Err(gone(error)),
            }
        }
        Ok(())
    }

    /// Says nothing any more, and takes whatever comes, until the client leaves.
    pub(super) fn silence(&mut self) -> Go {
        loop {
            if self.raw_read()?.is_empty() {
                self.pause(TICK)?;
            }
        }
    }

    /// Ends our side without a word.
    pub(super) fn fin(&mut self) -> Go {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        self.silence()
    }

    /// Resets the connection.
    pub(super) fn reset(&mut self) -> Go {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        Err(Gone("we reset it".into()))
    }

    /// The TLS handshake, if it is that kind of server. Each byte of ours takes `pace`; no more than `most` leave.
    pub(super) fn handshake(&mut self, pace: Duration, most: usize) -> Go {
        let Some(config) = self.shared.tls.clone() else { return Ok(()) };
        let mut tls = Box::new(ServerConnection::new(config).map_err(|error| Gone(format!("TLS: {error}")))?);
        let mut sent = 0;
        while tls.is_handshaking() {
            let bytes = self.raw_first()?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                tls.read_tls(&mut rest).map_err(gone)?;
                let result = tls.process_new_packets();
                let mut ours = Vec::new();
                while tls.wants_write() {
                    tls.write_tls(&mut ours).map_err(gone)?;
                }
                if pace.is_zero() && sent + ours.len() <= most {
                    sent += ours.len();
                    self.raw_send(&ours)?;
                } else {
                    for byte in ours {
                        if sent == most {
                            return self.silence();
                        }
                        self.raw_send(&[byte])?;
                        sent += 1;
                        self.pause(pace)?;
                    }
                }
                result.map_err(|error| Gone(format!("TLS: {error}")))?;
            }
        }
        // What came with the client's last word is the beginning of what it wants.
        let mut plain = Vec::new();
        let _ = tls.reader().read_to_end(&mut plain);
        self.inbox = plain;
        self.tls = Some(tls);
        self.tell(What::Encrypted);
        Ok(())
    }

    // Plain text.

    /// Sends all of it, however long the client takes.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Go {
        if self.tls.is_none() {
            return self.raw_send(bytes);
        }
        for piece in bytes.chunks(16 * 1024) {
            let mut out = Vec::new();
            if let Some(tls) = &mut self.tls {
                tls.writer().write_all(piece).map_err(gone)?;
                while tls.wants_write() {
                    tls.write_tls(&mut out).map_err(gone)?;
                }
            }
            self.raw_send(&out)?;
        }
        Ok(())
    }

    /// Moves what is there into the inbox. False if nothing was.
    fn fill(&mut self) -> Go<bool> {
        let bytes = self.raw_read()?;
        match &mut self.tls {
            None => self.inbox.extend_from_slice(&bytes),
            Some(tls) => {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    tls.read_tls(&mut rest).map_err(gone)?;
                    let state = tls.process_new_packets().map_err(|error| Gone(format!("TLS: {error}")))?;
                    let mut plain = vec![0; state.plaintext_bytes_to_read()];
                    tls.reader().read_exact(&mut plain).map_err(gone)?;
                    self.inbox.extend_from_slice(&plain);
                    if state.peer_has_closed() && plain.is_empty() && self.inbox.is_empty() {
                        return Err(Gone("the client closed TLS".into()));
                    }
                }
            }
        }
        Ok(!bytes.is_empty())
    }

    /// Reads a request. One that is not an upgrade is answered here, and the next is read.
    pub(super) fn request(&mut self) -> Go {
        loop {
            let end = loop {
                if let Some(at) = self.inbox.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at + 4;
                }
                if self.inbox.len() > 64 * 1024 {
                    return Err(Gone("a request without an end".into()));
                }
                if !self.fill()? {
                    self.pause(TICK)?;
                }
            };
            let head: Vec<u8> = self.inbox.drain(..end).collect();
            let head = String::from_utf8_lossy(&head).into_owned();
            let request = head.lines().next().unwrap_or_default().to_owned();
            let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
            self.tell(What::Request(request));
            let header = |name: &str| {
                head.lines()
                    .filter_map(|line| line.split_once(':'))
                    .find(|(n, _)| n.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.trim().to_owned())
            };
            if let Some(key) = header("sec-websocket-key") {
                self.key = key;
                self.combined = target.split('?').next().is_some_and(|path| path.ends_with("/stream"));
                self.wants(&target);
                return Ok(());
            }
            let (status, body) = match target.ends_with("/time") {
                true => ("200 OK", format!("{{\"serverTime\":{}}}", text::now_ms())),
                false => ("404 Not Found", "{}".to_owned()),
            };
            let length = body.len();
            self.send(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())?;
        }
    }

    /// The answer that this client's key asks for.
    pub(super) fn accept_key(&self) -> String {
        derive_accept_key(self.key.as_bytes())
    }

    /// Grants the upgrade with this key, more header lines, and bytes right behind.
    pub(super) fn grant(&mut self, key: &str, more: &str, behind: &[u8]) -> Go {
        let mut answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {key}\r\n{more}\r\n"
        )
        .into_bytes();
        answer.extend_from_slice(behind);
        self.send(&answer)
    }

    /// Everything up to an open WebSocket, as it should be.
    pub(super) fn open(&mut self) -> Go {
        self.handshake(Duration::ZERO, usize::MAX)?;
        self.request()?;
        let key = self.accept_key();
        self.grant(&key, "", b"")
    }

    /// Serves the client for a while: pings are answered, requests as told.
    pub(super) fn attend(&mut self, span: Duration, ack: Ack) -> Go {
        let until = Instant::now() + span;
        loop {
            while let Some((first, payload)) = self.next_frame()? {
                self.handle(first, payload, ack)?;
            }
            let filled = self.fill()?;
            if Instant::now() >= until {
                return Ok(());
            }
            if !filled {
                self.pause(TICK)?;
            }
        }
    }

    /// Attends until the client has asked for something, or has not for [`ASKS_WITHIN`].
    pub(super) fn asked(&mut self, ack: Ack) -> Go {
        let until = Instant::now() + ASKS_WITHIN;
        while self.asked == 0 && Instant::now() < until {
            self.attend(TICK, ack)?;
        }
        Ok(())
    }

    fn next_frame(&mut self) -> Go<Option<(u8, Vec<u8>)>> {
        let [first, second, ..] = self.inbox[..] else { return Ok(None) };
        let length_bytes = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_at = 2 + length_bytes;
        let body_at = mask_at + 4;
        if second & 0x80 == 0 {
            self.tell(What::Broken("not masked".into()));
            return Err(Gone("a frame that is not masked".into()));
        }
        if self.inbox.len() < body_at {
            return Ok(None);
        }
        let length = match length_bytes {
            0 => usize::from(second & 0x7f),
            _ => self.inbox[2..mask_at].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        };
        if length > FRAME_MAX {
            self.tell(What::Broken(format!("{length} bytes")));
            return Err(Gone("a frame too long for a client of market data".into()));
        }
        if self.inbox.len() < body_at + length {
            return Ok(None);
        }
        let frame: Vec<u8> = self.inbox.drain(..body_at + length).collect();
        let mask = &frame[mask_at..body_at];
        let payload = frame[body_at..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        Ok(Some((first, payload)))
    }

    fn handle(&mut self, first: u8, payload: Vec<u8>, ack: Ack) -> Go {
        if first & 0xf0 != FIN {
            self.tell(What::Broken(format!("first byte {first:#x}")));
            return Ok(());
        }
        match first & 0x0f {
            TEXT => {
                let request = String::from_utf8_lossy(&payload).into_owned();
                self.tell(What::Text(request.clone()));
                self.asked += 1;
                self.wants(&request);
                self.answer(&request, ack)
            }
            PING => {
                self.tell(What::Ping(payload.clone()));
                self.send(&text::frame(FIN | PONG, &payload))
            }
            PONG => {
                self.tell(What::Pong(payload));
                Ok(())
            }
            CLOSE => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                self.tell(What::Close(code));
                // A second close frame of ours would be harmless, and the client that waits for the first needs it.
                let _ = self.send(&text::close(code, b""));
                Err(Gone("the client closed it".into()))
            }
            _ => {
                self.tell(What::Broken(format!("first byte {first:#x}")));
                Ok(())
            }
        }
    }

    fn answer(&mut self, request: &str, ack: Ack) -> Go {
        let request: serde_json::Value = serde_json::from_str(request).unwrap_or_default();
        let id = &request["id"];
        let right = format!(r#"{{"result":null,"id":{id}}}"#);
        match ack {
            Ack::Never => Ok(()),
            Ack::Right => self.say(&right),
            Ack::WrongId => self.say(r#"{"result":null,"id":999999999}"#),
            Ack::Refused => self.say(&format!(r#"{{"error":{{"code":2,"msg":"Invalid request"}},"id":{id}}}"#)),
            Ack::AfterData => {
                self.trades()?;
                self.say(&right)
            }
        }
    }

    /// Remembers the symbols of the trade streams that this text names.
    fn wants(&mut self, text: &str) {
        for (at, _) in text.match_indices("@aggTrade") {
            let before = text[..at].rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            let symbol = before.to_ascii_uppercase();
            if !symbol.is_empty() && !self.symbols.contains(&symbol) {
                self.symbols.push(symbol);
            }
        }
    }

    /// Sends a text message as it is.
    pub(super) fn say(&mut self, text: &str) -> Go {
        self.send(&text::message(text))
    }

    /// The first symbol asked for.
    pub(super) fn symbol(&self) -> String {
        self.symbols.first().cloned().unwrap_or_else(|| "BTCUSDT".to_owned())
    }

    /// Wraps a message of this symbol's trade stream if that is how this client gets them.
    pub(super) fn wrapped(&self, symbol: &str, data: &str) -> String {
        match self.combined {
            true => format!(r#"{{"stream":"{}@aggTrade","data":{data}}}"#, symbol.to_ascii_lowercase()),
            false => data.to_owned(),
        }
    }

    /// So many ids for trades, the first of them.
    pub(super) fn ids(&self, count: u64) -> u64 {
        self.shared.trade.fetch_add(count, Ordering::Relaxed) + 1
    }

    /// The next trade of each symbol asked for.
    pub(super) fn trades(&mut self) -> Go {
        let id = self.ids(1);
        let symbols = match self.symbols.is_empty() {
            true => vec![self.symbol()],
            false => self.symbols.clone(),
        };
        for symbol in symbols {
            let text = self.wrapped(&symbol, &text::trade(&symbol, id));
            self.say(&text)?;
        }
        Ok(())
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn gone(error: io::Error) -> Gone {
    Gone(error.to_string())
}

/// How long a client that subscribes by message takes at most to do so; one that does it by its URL never does.
const ASKS_WITHIN: Duration = Duration::from_secs(2);
/// Events of one connection that are told, but for its end.
const TOLD_MAX: usize = 10_000;
const FRAME_MAX: usize = 1024 * 1024;
