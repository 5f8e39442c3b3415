//! Whole connections, byte by byte, against rules that only write down what they are told.

use super::http::HEAD_MAX;
use super::*;
use crate::sim::exchange::{Refusal, RestAnswer, RestRequest};
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
