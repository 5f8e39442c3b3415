//! The misbehaving servers misbehave as they say: each towards a client that takes down every byte and judges nothing.
//! Every wait has a bound that fails the test.
#![allow(clippy::disallowed_methods, reason = "a test has clocks and threads of its own")]

mod badpeer;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use badpeer::{BadPeer, Data, End, Frame, Mode, Subscription, Tls, Upgrade, What};
use rustls::pki_types::pem::PemObject;

#[test]
fn every_mode_does_what_it_says_without_tls() {
    in_parallel(Mode::all().into_iter().filter(|mode| !needs_tls(*mode)).map(|mode| (mode, false)));
}

#[test]
fn every_mode_does_what_it_says_with_tls() {
    in_parallel(Mode::all().into_iter().map(|mode| (mode, true)));
}

#[test]
fn the_key_is_answered_as_in_the_rfc() {
    let peer = BadPeer::start(Mode::Healthy, false);
    let mut client = Client::dial(&peer);
    client.upgrade("/ws");
    client.until("the answer", |client| client.head().is_some());
    assert!(client.head().expect("just seen").contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
}

#[test]
fn the_log_tells_what_clients_did_and_requests_are_understood() {
    let peer = BadPeer::start(Mode::Healthy, true);
    let mut client = Client::dial(&peer);
    client.write(b"GET /fapi/v1/time HTTP/1.1\r\nHost: a\r\n\r\n");
    client.until("the time", |client| client.text().contains("\r\n\r\n{\"serverTime\":"));
    client.got.clear();
    client.upgrade("/market/stream?streams=ethusdt@aggTrade");
    client.write(&masked(0x89, b"hello"));
    client.subscribe();
    // Whole frames of trades of both symbols, wrapped, and the answer to the ping.
    client.until("trades", |client| {
        let texts = client.texts();
        ["ethusdt", "btcusdt"].iter().all(|name| {
            let stream = format!("{{\"stream\":\"{name}@aggTrade\",\"data\":{{\"e\":\"aggTrade\"");
            texts.iter().any(|text| text.starts_with(&stream))
        }) && client.frames().contains(&(0x8a, b"hello".to_vec()))
    });
    client.write(&masked(0x88, &1000u16.to_be_bytes()));
    client.until("its end", |client| client.end.is_some());
    assert_eq!(client.frames().last().unwrap(), &(0x88, vec![3, 0xe8]));
    let mut seen = Vec::new();
    while let Some(event) = peer.find(BOUND, |_| true) {
        assert_eq!(event.connection, 1);
        let last = matches!(event.what, What::Ended(_));
        seen.push(event.what);
        if last {
            break;
        }
    }
    assert_eq!(
        seen,
        [
            What::Connected,
            What::Encrypted,
            What::Request("GET /fapi/v1/time HTTP/1.1".into()),
            What::Request("GET /market/stream?streams=ethusdt@aggTrade HTTP/1.1".into()),
            What::Ping(b"hello".to_vec()),
            What::Text(SUBSCRIBE.into()),
            What::Close(Some(1000)),
            What::Ended("the client closed it".into()),
        ]
    );
}

#[test]
fn a_client_that_breaks_the_framing_is_told_on() {
    let peer = BadPeer::start(Mode::Healthy, false);
    let mut client = Client::dial(&peer);
    client.upgrade("/ws");
    client.write(b"\x81\x02{}");
    assert!(peer.find(BOUND, |event| event.what == What::Broken("not masked".into())).is_some());
    assert_eq!(peer.base(), format!("ws://{}", peer.address));
}

fn needs_tls(mode: Mode) -> bool {
    matches!(mode, Mode::Tls(Tls::Trickle | Tls::Cut | Tls::WrongName | Tls::Untrusted | Tls::Expired))
}

/// Most of them wait more than they work.
fn in_parallel(cases: impl Iterator<Item = (Mode, bool)>) {
    let cases: Vec<_> = cases.collect();
    assert!(cases.len() > 60);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some((mode, tls)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    case(*mode, *tls);
                }
            });
        }
    });
}

fn case(mode: Mode, tls: bool) {
    let peer = BadPeer::start(mode, tls);
    let what = format!("{mode:?}, TLS {tls}");
    assert_eq!(peer.ca_pem.is_empty(), !tls);
    // The handshake byte by byte: only its beginning is needed.
    let raw =
        matches!(mode, Mode::Tls(_)) && !matches!(mode, Mode::Tls(Tls::WrongName | Tls::Untrusted | Tls::Expired));
    let mut client = if raw { Client::raw(&peer) } else { Client::dial(&peer) };
    client.what = what.clone();
    as_intended(mode, &mut client);
    // It notices that a client left.
    drop(client);
    assert!(peer.find(BOUND, |event| matches!(event.what, What::Ended(_))).is_some(), "{what}: the end was not told");
    // And it stops, although a client neither reads nor leaves.
    let mut stuck = Client::raw(&peer);
    if !tls {
        stuck.upgrade("/ws");
        stuck.subscribe();
    }
    assert!(peer.find(BOUND, |event| event.what == What::Connected).is_some(), "{what}: the second was not told");
    let begun = Instant::now();
    drop(peer);
    assert!(begun.elapsed() < BOUND, "{what}: it took {:?} to stop", begun.elapsed());
}

fn as_intended(mode: Mode, client: &mut Client) {
    let ours = |text: &str| text.contains("\"e\":\"aggTrade\"");
    match mode {
        Mode::Tls(mode) => return tls_as_intended(mode, client),
        Mode::Upgrade(mode) => {
            client.upgrade("/market/stream");
            return upgrade_as_intended(mode, client);
        }
        Mode::Healthy | Mode::Subscription(_) | Mode::Data(_) | Mode::End(_) | Mode::Frame(_) => {}
    }
    client.upgrade("/ws");
    client.subscribe();
    let acked = |client: &Client| client.texts().iter().any(|text| text == ACK);
    let trades = move |client: &Client| client.texts().iter().filter(|text| ours(text)).count();
    let sees = |client: &Client, first: u8, payload: &[u8]| client.frames().contains(&(first, payload.to_vec()));
    match mode {
        Mode::Healthy => client.until("trades", |client| acked(client) && trades(client) >= 3),
        Mode::Subscription(Subscription::NoAck) => {
            client.ping();
            client.quiet(|client| client.texts().is_empty());
        }
        Mode::Subscription(Subscription::WrongId) => {
            client.until("an answer", |client| client.texts() == [r#"{"result":null,"id":999999999}"#]);
        }
        Mode::Subscription(Subscription::Error) => {
            client.until("an error", |client| client.text().contains(r#"{"error":{"code":2,"#));
        }
        Mode::Subscription(Subscription::AckNoData) => {
            client.until("an answer", acked);
            client.ping();
            client.quiet(|client| trades(client) == 0);
        }
        Mode::Subscription(Subscription::DataBeforeAck) => {
            client.until("both", |client| client.texts().len() >= 3);
            let texts = client.texts();
            assert!(ours(&texts[0]) && texts[1] == ACK && ours(&texts[2]), "{texts:?}");
        }
        Mode::Data(Data::Zombie) => {
            client.until("trades", |client| trades(client) == 20);
            client.ping();
            client.quiet(|client| trades(client) == 20);
        }
        Mode::Data(Data::Mute) => {
            client.until("trades", |client| trades(client) == 20);
            client.write(&masked(0x89, b"x"));
            client.quiet(|client| trades(client) == 20 && !sees(client, 0x8a, b"x"));
        }
        Mode::Data(Data::Firehose) => client.until("a lot", |client| client.got.len() > 3_000_000),
        Mode::Data(Data::StopReading) => {
            client.until("trades", |client| trades(client) >= 1);
            client.write(&masked(0x89, b"x"));
            client.until("trades", |client| trades(client) >= 5);
            client.quiet(|client| !sees(client, 0x8a, b"x"));
        }
        Mode::Data(Data::BadJson) => {
            client.until("nonsense, and then sense", |client| {
                let texts = client.texts();
                texts.iter().any(|text| text == "\"text\"")
                    && texts.len() > 60
                    && texts.last().is_some_and(|text| ours(text) && text.contains("\"s\":\"BTCUSDT\""))
            });
        }
        Mode::Data(Data::MixedIds) => client.until("its ids", |client| {
            let ids: Vec<i64> = client.ids();
            ids.windows(2).any(|pair| pair[0] == pair[1])
                && ids.windows(2).any(|pair| pair[1] < pair[0])
                && ids.windows(2).any(|pair| pair[1] > pair[0] + 1)
        }),
        Mode::Data(Data::WildTimes) => client.until("trades", |client| trades(client) >= 6),
        Mode::End(End::Close(code)) => {
            let payload = code.map_or_else(Vec::new, |code| code.to_be_bytes().to_vec());
            client.until("a close frame", |client| trades(client) == 1 && sees(client, 0x88, &payload));
        }
        Mode::End(End::CloseOneByte) => client.until("a close frame", |client| sees(client, 0x88, &[3])),
        Mode::End(End::CloseBadReason) => {
            client.until("a close frame", |client| sees(client, 0x88, b"\x03\xe8\xff\xfe"));
        }
        Mode::End(End::CloseOnSend) => {
            client.until("a close frame", |client| client.frames() == [(0x88, vec![0x03, 0xe8])]);
        }
        Mode::End(End::Eof) => {
            client.until("the end", |client| client.end.is_some());
            assert!(matches!(client.end, Some(ErrorKind::UnexpectedEof)), "{:?}", client.end);
            assert_eq!(trades(client), 1);
        }
        Mode::End(End::Reset) => {
            client.until("the end", |client| client.end.is_some());
            assert_eq!((client.end, trades(client)), (Some(ErrorKind::ConnectionReset), 1));
        }
        Mode::Frame(mode) => frame_as_intended(mode, client),
        Mode::Tls(_) | Mode::Upgrade(_) => {}
    }
}

fn tls_as_intended(mode: Tls, client: &mut Client) {
    match mode {
        Tls::Mute | Tls::Fin | Tls::Reset | Tls::Plaintext | Tls::Trickle | Tls::Cut => client.write(&client_hello()),
        Tls::WrongName | Tls::Untrusted | Tls::Expired => client.upgrade("/ws"),
    }
    match mode {
        Tls::Mute => client.quiet(|client| client.got.is_empty()),
        Tls::Fin => {
            client.until("the end", |client| client.end.is_some());
            assert_eq!((client.end, client.got.len()), (Some(ErrorKind::UnexpectedEof), 0));
        }
        Tls::Reset => {
            client.until("the end", |client| client.end.is_some());
            assert_eq!((client.end, client.got.len()), (Some(ErrorKind::ConnectionReset), 0));
        }
        Tls::Plaintext => client.until("HTTP", |client| client.text().starts_with("HTTP/1.1 400 ")),
        Tls::Trickle => {
            client.until("some bytes", |client| client.got.len() >= 3);
            assert!(client.got.len() < 100 && client.got.starts_with(&[22, 3, 3]), "{:?}", client.got);
        }
        Tls::Cut => {
            client.until("the beginning", |client| client.got.len() == 100);
            client.quiet(|client| client.got.len() == 100);
        }
        Tls::WrongName => client.until_refused("not valid for name"),
        Tls::Untrusted => client.until_refused("UnknownIssuer"),
        Tls::Expired => client.until_refused("expired"),
    }
}

fn upgrade_as_intended(mode: Upgrade, client: &mut Client) {
    let says = |what: &'static str| {
        move |client: &Client| {
            client.head().is_some_and(|head| head.starts_with("HTTP/1.1 101 ") && head.contains(what))
        }
    };
    match mode {
        Upgrade::Mute => client.quiet(|client| client.got.is_empty()),
        Upgrade::Trickle => {
            client.until("some bytes", |client| client.got.len() >= 3);
            assert!(client.got.len() < 100 && b"HTTP/1.1 101 Switching".starts_with(&client.got[..3]));
        }
        Upgrade::EndlessHeader => {
            client.until("a lot", |client| client.got.len() > 2_000_000);
            assert_eq!(client.head(), None);
        }
        Upgrade::Cut => {
            client.until("the end", |client| client.end.is_some());
            assert!(client.text().starts_with("HTTP/1.1 101 ") && client.head().is_none());
        }
        Upgrade::Status(status, retry_after) => {
            client.until("the answer", |client| client.head().is_some());
            let head = client.head().expect("just seen");
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert_eq!(head.contains("\r\nRetry-After: 7\r\n"), retry_after == Some(7), "{head}");
            assert_eq!(head.contains("\r\nLocation: "), status == 301, "{head}");
        }
        Upgrade::NotHttp => client.until("something else", |client| client.text().starts_with("220 ")),
        Upgrade::BadKey => client.until("a key", says("\r\nSec-WebSocket-Accept: AAAA")),
        Upgrade::Extension => {
            client.until("an extension", says("\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"))
        }
        Upgrade::Subprotocol => client.until("a protocol", says("\r\nSec-WebSocket-Protocol: chat\r\n")),
        Upgrade::Glued => {
            client.until("fifty trades", |client| client.ids().len() >= 50);
            assert!(client.ids().windows(2).all(|pair| pair[1] == pair[0] + 1));
            client.subscribe();
            client.until("an answer", |client| client.texts().iter().any(|text| text == ACK));
        }
    }
}

fn frame_as_intended(mode: Frame, client: &mut Client) {
    // The answer to the subscription comes first.
    client.until("an answer", |client| client.text().contains(ACK));
    let behind = |client: &Client| -> Vec<u8> {
        let at = client.got.windows(ACK.len()).position(|window| window == ACK.as_bytes()).expect("just seen");
        client.got[at + ACK.len()..].to_vec()
    };
    let exactly: &[u8] = match mode {
        Frame::HugeLength => b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff",
        Frame::NegativeLength => b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
        Frame::BadUtf8 => b"\x81\x02\xc3\x28",
        Frame::Masked => b"\x81\x82\x01\x02\x03\x04z\x7f",
        Frame::Rsv => b"\xc1\x02{}",
        Frame::BadOpcode => b"\x83\x01x",
        Frame::Binary => b"\x82\x02{}",
        Frame::FragmentedControl => b"\x09\x01a",
        Frame::Orphan => b"\x80\x01x",
        Frame::Nested => b"\x01\x01{\x81\x01}",
        Frame::LongLength => b"\x81\x7e\x00\x02{}",
        Frame::LongControl => {
            client.until("a ping", |client| behind(client).starts_with(b"\x89\x7e\x00\x7eaaa"));
            return;
        }
        Frame::Big => {
            client.until("a lot", |client| client.got.len() > 2_000_000);
            assert!(behind(client).starts_with(b"\x81\x7f\x00\x00\x00\x00\x06\x40\x00\x00aaa"));
            return;
        }
        Frame::FragmentsForever => {
            client.until("a lot", |client| client.got.len() > 2_000_000);
            let frames = client.frames();
            assert!(frames[1] == (0x01, b"[".to_vec()) && frames[2..].iter().all(|(first, _)| *first == 0));
            return;
        }
        Frame::FragmentsOk => {
            client.until("fragments, and trades", |client| {
                let frames = client.frames();
                let message: Vec<_> = frames.iter().filter(|(first, _)| first & 0x8f < 2 || *first == 0x80).collect();
                frames.iter().filter(|(first, _)| *first == 0x89).count() == 10
                    && message.len() == 1000
                    && message.iter().map(|(_, payload)| payload.len()).sum::<usize>() == 2000
                    && client.texts().len() >= 3
            });
            return;
        }
        Frame::Trickle => {
            client.until("some bytes", |client| behind(client).len() >= 6);
            assert!(behind(client).starts_with(b"\x81\x7e\x0f\xa0  ") && behind(client).len() < 100);
            return;
        }
        Frame::PingFlood => {
            client.until("pings", |client| client.frames().iter().filter(|(first, _)| *first == 0x89).count() > 1000);
            return;
        }
        Frame::PongUnasked => {
            client.until("pongs, and trades", |client| {
                client.frames().iter().filter(|(first, _)| *first == 0x8a).count() == 50 && client.texts().len() >= 3
            });
            return;
        }
    };
    client.until("the frame", |client| behind(client) == exactly);
    // And stays there, as if nothing had happened.
    client.write(&masked(0x89, b"x"));
    client.until("a pong", |client| behind(client) == [exactly, b"\x8a\x01x"].concat());
}

/// A client that takes down what it gets.
struct Client {
    socket: Socket,
    got: Vec<u8>,
    end: Option<ErrorKind>,
    error: String,
    what: String,
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Client {
    fn raw(peer: &BadPeer) -> Self {
        let stream = TcpStream::connect_timeout(&peer.address, BOUND).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
        stream.set_write_timeout(Some(BOUND)).expect("set");
        Self { socket: Socket::Plain(stream), got: Vec::new(), end: None, error: String::new(), what: String::new() }
    }

    /// With TLS if the server has it.
    fn dial(peer: &BadPeer) -> Self {
        let mut this = Self::raw(peer);
        let Socket::Plain(stream) = this.socket else { return this };
        this.socket = match peer.ca_pem.is_empty() {
            true => Socket::Plain(stream),
            false => Socket::Tls(Box::new(rustls::StreamOwned::new(session(&peer.ca_pem), stream))),
        };
        this
    }

    fn write(&mut self, mut bytes: &[u8]) {
        let until = Instant::now() + BOUND;
        while !bytes.is_empty() && self.end.is_none() {
            assert!(Instant::now() < until, "{}: not written in time", self.what);
            let result = match &mut self.socket {
                Socket::Plain(stream) => stream.write(bytes),
                Socket::Tls(stream) => stream.write(bytes),
            };
            match result {
                Ok(n) => bytes = &bytes[n..],
                Err(error) => self.failed(&error),
            }
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 65_536];
        let result = match &mut self.socket {
            Socket::Plain(stream) => stream.read(&mut buffer),
            Socket::Tls(stream) => stream.read(&mut buffer),
        };
        match result {
            Ok(0) => self.end = Some(ErrorKind::UnexpectedEof),
            Ok(n) => self.got.extend_from_slice(&buffer[..n]),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &std::io::Error) {
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) {
            self.end = Some(error.kind());
            self.error = error.to_string();
        }
    }

    /// Reads until this is so.
    fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let until = Instant::now() + BOUND;
        while !so(self) {
            let tail = self.got.len().saturating_sub(600);
            let seen = format!("{:?}, {}: {}", self.end, self.error, self.got[tail..].escape_ascii());
            assert!(Instant::now() < until, "{}: waited in vain for {what}; {seen}", self.what);
            assert!(self.end.is_none(), "{}: ended before {what}; {seen}", self.what);
            self.read();
        }
    }

    /// Reads for a while in which nothing changes about this.
    fn quiet(&mut self, so: impl Fn(&Self) -> bool) {
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            assert!(so(self) && self.end.is_none(), "{}: {}", self.what, self.got.escape_ascii());
            self.read();
        }
    }

    fn until_refused(&mut self, why: &str) {
        self.until("a refusal", |client| client.end.is_some());
        assert!(self.error.contains(why), "{}: {}", self.what, self.error);
    }

    /// The example of RFC 6455, 1.3.
    fn upgrade(&mut self, target: &str) {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        self.write(request.as_bytes());
    }

    fn subscribe(&mut self) {
        self.write(&masked(0x81, SUBSCRIBE.as_bytes()));
    }

    /// Pings, and is answered.
    fn ping(&mut self) {
        self.write(&masked(0x89, b"x"));
        self.until("a pong", |client| client.frames().contains(&(0x8a, b"x".to_vec())));
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.got).into_owned()
    }

    /// The HTTP answer, once whole.
    fn head(&self) -> Option<String> {
        let end = self.got.windows(4).position(|window| window == b"\r\n\r\n")?;
        Some(String::from_utf8_lossy(&self.got[..end + 4]).into_owned())
    }

    /// First byte and payload of every whole frame.
    fn frames(&self) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        let mut rest = &self.got[self.head().map_or(self.got.len(), |head| head.len())..];
        while let [first, length, behind @ ..] = rest {
            let (more, short) = match length {
                126 => (2, 0),
                127 => (8, 0),
                _ => (0, usize::from(*length)),
            };
            let Some((long, behind)) = behind.split_at_checked(more) else { break };
            let length = long.iter().fold(short, |sum, byte| sum << 8 | usize::from(*byte));
            let Some((payload, behind)) = behind.split_at_checked(length) else { break };
            frames.push((*first, payload.to_vec()));
            rest = behind;
        }
        frames
    }

    fn texts(&self) -> Vec<String> {
        let texts = self.frames().into_iter().filter(|(first, _)| *first == 0x81);
        texts.map(|(_, payload)| String::from_utf8_lossy(&payload).into_owned()).collect()
    }

    /// The ids of all trades.
    fn ids(&self) -> Vec<i64> {
        let id = |text: String| text.split_once("\"a\":")?.1.split(',').next()?.parse().ok();
        self.texts().into_iter().filter_map(id).collect()
    }
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let mask = [1, 2, 3, 4];
    let mut frame = vec![first, 0x80 | payload.len() as u8];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn session(ca_pem: &str) -> rustls::ClientConnection {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("PEM")).expect("a root");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    rustls::ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().expect("a name")).expect("a session")
}

/// How every TLS connection begins.
fn client_hello() -> Vec<u8> {
    let root = rcgen::generate_simple_self_signed(Vec::new()).expect("a certificate");
    let mut hello = Vec::new();
    session(&root.cert.pem()).write_tls(&mut hello).expect("into memory");
    hello
}

const SUBSCRIBE: &str = r#"{"method":"SUBSCRIBE","params":["btcusdt@aggTrade"],"id":7}"#;
const ACK: &str = r#"{"result":null,"id":7}"#;
/// No wait is longer.
const BOUND: Duration = Duration::from_secs(20);
