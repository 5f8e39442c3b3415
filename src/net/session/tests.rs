//! A session's life, told in virtual time against hand-made bytes.

use super::*;
use crate::net::tls::client_config;
use tungstenite::handshake::derive_accept_key;

const MS: Span = Span::from_ms(1);

/// A session, its clock, and everything it said with the time it said it.
struct Story {
    session: Session,
    now: Instant,
    said: Vec<(Instant, SessionEvent)>,
    dialled: Vec<(Instant, SocketAddr)>,
    resolves: usize,
    /// What the peer has received and not yet looked at.
    wire: Vec<u8>,
}

impl Story {
    fn new(host: &str, tls: bool) -> Self {
        let settings = Settings {
            host: host.into(),
            port: 9443,
            tls: tls.then(|| client_config(None).unwrap()),
            target: "/market/stream".into(),
            deadlines: Deadlines::default(),
            backoff: Backoff::default(),
            message_bytes_max: 1 << 20,
        };
        let now = Instant::from_ns(5);
        let session = Session::new(settings, 1, now);
        let mut story = Self { session, now, said: Vec::new(), dialled: Vec::new(), resolves: 0, wire: Vec::new() };
        story.session.handle_timeout(now);
        story.settle();
        story
    }

    fn settle(&mut self) {
        while let Some(event) = self.session.poll_event(self.now) {
            self.said.push((self.now, event));
        }
        self.wire.extend_from_slice(self.session.transmit());
        self.session.transmitted(self.session.transmit().len());
        while let Some(request) = self.session.poll_request() {
            match request {
                Request::Resolve => self.resolves += 1,
                Request::Dial(address) => self.dialled.push((self.now, address)),
                Request::Hangup => {}
            }
        }
    }

    /// Lets time pass, waking the session exactly when it asked to be.
    fn pass(&mut self, span: Span) {
        let end = self.now + span;
        while self.session.deadline() <= end {
            self.now = self.session.deadline();
            self.session.handle_timeout(self.now);
            assert!(self.session.deadline() > self.now, "a wake-up that changes nothing would spin");
            self.settle();
        }
        self.now = end;
    }

    fn resolved(&mut self, addresses: &[&str]) {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        self.session.handle_resolved(Ok(&addresses), self.now);
        self.settle();
    }

    fn connected(&mut self) {
        self.session.handle_connected(self.now);
        self.settle();
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let buffer = self.session.receive_buffer();
            if buffer.is_empty() {
                return;
            }
            let n = buffer.len().min(bytes.len());
            buffer[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            self.session.handle_received(n, self.now);
            self.settle();
        }
    }

    fn accept(&mut self) -> String {
        let request = String::from_utf8(std::mem::take(&mut self.wire)).unwrap();
        let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned();
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        )
    }

    /// A plain connection, open.
    fn open() -> Self {
        let mut story = Self::new("127.0.0.1", false);
        story.connected();
        let answer = story.accept();
        story.receive(answer.as_bytes());
        assert!(matches!(story.said.pop(), Some((_, SessionEvent::Open))));
        story
    }

    fn ending(&mut self) -> (Instant, Ending) {
        match self.said.pop() {
            Some((at, SessionEvent::Ended(ending))) => (at, ending),
            other => panic!("no ending, but {other:?}"),
        }
    }

    /// Frames the peer has received: opcode and unmasked payload.
    fn frames(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        let mut rest = self.wire.as_slice();
        while let [first, second, tail @ ..] = rest {
            assert_eq!(second & 0x80, 0x80, "a client masks");
            let (n, tail) = match second & 0x7f {
                126 => (usize::from(u16::from_be_bytes([tail[0], tail[1]])), &tail[2..]),
                n => (usize::from(n), tail),
            };
            let (mask, tail) = tail.split_at(4);
            frames.push((first & 15, tail[..n].iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect()));
            rest = &tail[n..];
        }
        self.wire.clear();
        frames
    }
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        n @ 0..=125 => frame.push(n as u8),
        n @ 126..=0xffff => frame.extend([126].into_iter().chain((n as u16).to_be_bytes())),
        n => frame.extend([127].into_iter().chain((n as u64).to_be_bytes())),
    }
    frame.extend_from_slice(payload);
    frame
}

fn text(said: &(Instant, SessionEvent)) -> Option<&str> {
    let SessionEvent::Message(Incoming::Text(text)) = &said.1 else { return None };
    Some(text.as_str())
}

#[test]
fn a_silent_resolver_ends_at_its_deadline_and_the_next_attempt_follows() {
    let mut story = Story::new("venue.example", true);
    let began = story.now;
    story.pass(Span::from_secs(3));
    let (at, ending) = story.ending();
    assert_eq!(at, began + Span::from_secs(3), "not a nanosecond late");
    assert_eq!((ending.stage, ending.elapsed, ending.attempt), (Stage::Resolve, Span::from_secs(3), 1));
    assert_eq!(ending.reason, "no answer from the resolver");
    story.pass(Span::from_ms(2_001));
    assert_eq!((story.resolves, story.session.attempt(), story.session.epoch()), (2, 2, 2));
}

#[test]
fn every_address_gets_its_share_of_the_tcp_budget_and_the_good_one_is_remembered() {
    let mut story = Story::new("venue.example", false);
    story.resolved(&["10.0.0.1:9443", "10.0.0.2:9443", "[2001:db8::1]:9443", "10.0.0.1:9443"]);
    story.pass(Span::from_secs(4).saturating_sub(Span::from_ns(1)));
    let began = story.dialled[0].0;
    let order: Vec<_> = story.dialled.iter().map(|(at, a)| (at.since(began).as_ms(), a.ip().to_string())).collect();
    let expected = [(0, "2001:db8::1"), (1333, "10.0.0.1"), (2666, "10.0.0.2")];
    assert_eq!(order, expected.map(|(ms, ip)| (ms, ip.to_owned())));
    assert!(story.said.is_empty());
    story.connected();
    let answer = story.accept();
    story.receive(answer.as_bytes());
    assert!(matches!(story.said.pop(), Some((_, SessionEvent::Open))));
    story.session.handle_socket_end(Some(io::ErrorKind::ConnectionReset), story.now);
    story.settle();
    assert_eq!(story.ending().1.reason, "connection reset without a close frame");
    story.pass(Span::from_secs(2));
    story.resolved(&["10.0.0.1:9443", "10.0.0.2:9443"]);
    assert_eq!(story.dialled.last().unwrap().1.ip().to_string(), "10.0.0.2", "the last good one first");
    // And when the resolver is silent, what worked before is dialled.
    story.session.handle_socket_end(Some(io::ErrorKind::ConnectionRefused), story.now);
    story.session.handle_socket_end(Some(io::ErrorKind::ConnectionRefused), story.now);
    story.settle();
    let (_, ending) = story.ending();
    assert_eq!(ending.reason, "connection refused (last of 2 addresses)");
    let dialled = story.dialled.len();
    story.pass(Span::from_secs(8));
    assert!(story.said.iter().any(|(_, event)| matches!(event, SessionEvent::Remembered(_))));
    assert!(story.dialled.len() > dialled);
}

#[test]
fn tls_that_stays_mute_ends_at_its_deadline_and_the_sum_is_bounded() {
    let mut story = Story::new("venue.example", true);
    let began = story.now;
    story.pass(MS.times(2_900));
    story.resolved(&["10.0.0.1:9443"]);
    story.pass(MS.times(3_900));
    story.connected();
    assert!(story.wire.len() > 100, "our hello is on its way");
    story.pass(Span::from_secs(5));
    let (at, ending) = story.ending();
    assert_eq!(at, began + Span::from_secs(10), "the sum of the stages is bounded");
    assert_eq!((ending.stage, ending.elapsed), (Stage::Tls, MS.times(3_200)));
    assert_eq!(ending.reason, "no answer to our hello (connect deadline of 10s)");
    assert_eq!(ending.address, Some("10.0.0.1:9443".parse().unwrap()));
}

#[test]
fn plain_text_on_a_tls_port_is_an_immediate_failure() {
    let mut story = Story::new("venue.example", true);
    story.resolved(&["10.0.0.1:9443"]);
    story.connected();
    story.receive(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let (_, ending) = story.ending();
    assert_eq!((ending.stage, ending.violation), (Stage::Tls, true));
}

#[test]
fn an_upgrade_that_trickles_ends_at_its_deadline() {
    let mut story = Story::new("127.0.0.1", false);
    story.connected();
    let (began, answer) = (story.now, story.accept());
    for byte in answer.bytes() {
        story.pass(MS.times(100));
        story.receive(&[byte]);
        if !story.said.is_empty() {
            break;
        }
    }
    let (at, ending) = story.ending();
    assert_eq!((at, ending.stage), (began + Span::from_secs(4), Stage::Upgrade));
}

#[test]
fn frames_glued_to_the_answer_are_delivered() {
    let mut story = Story::new("127.0.0.1", false);
    story.connected();
    let mut bytes = story.accept().into_bytes();
    bytes.extend(frame(1, b"first"));
    story.receive(&bytes);
    assert_eq!(text(&story.said[1]), Some("first"));
}

#[test]
fn a_half_open_path_is_found_by_our_ping() {
    let mut story = Story::open();
    let opened = story.now;
    story.pass(Span::from_secs(15));
    assert_eq!(story.frames(), [(9, b"edge".to_vec())]);
    story.pass(Span::from_secs(10));
    let (at, ending) = story.ending();
    assert_eq!((at, ending.stage), (opened + Span::from_secs(25), Stage::Pong));
    assert_eq!(ending.reason, "no byte for 25s, our ping unanswered");
}

#[test]
fn any_byte_shows_that_the_path_lives() {
    let mut story = Story::open();
    for _ in 0..100 {
        story.pass(Span::from_secs(24));
        story.receive(&frame(10, b"edge"));
    }
    assert!(story.session.is_open());
}

#[test]
fn a_flood_of_pings_is_answered_within_the_budget_the_newest_first() {
    let mut story = Story::open();
    let mut answered = Vec::new();
    for n in 0..10_000_u32 {
        story.receive(&frame(9, &n.to_be_bytes()));
        story.pass(Span::from_us(500));
        answered.extend(story.frames().into_iter().map(|frame| (story.now, frame)));
    }
    assert!(answered.iter().all(|(_, (opcode, _))| *opcode == 10));
    assert!((19..=21).contains(&answered.len()), "{} answers in 5 s", answered.len());
    assert!(answered.windows(2).all(|w| w[1].0.since(w[0].0) >= MS.times(249)));
    let (at, (_, payload)) = answered.last().unwrap();
    let newest = at.since(answered[0].0).as_us() / 500;
    assert_eq!(u64::from(u32::from_be_bytes(payload[..].try_into().unwrap())), newest, "the newest payload");
}

#[test]
fn our_messages_and_pongs_share_one_budget() {
    let mut story = Story::open();
    assert_eq!(story.session.send("{}", story.now), Ok(()));
    assert_eq!(story.session.send("{}", story.now), Err(SendRefused::OverBudget));
    story.receive(&frame(9, b"x"));
    story.settle();
    assert_eq!(story.frames(), [(1, b"{}".to_vec())], "the pong waits");
    story.now = story.session.may_send_at();
    assert_eq!(story.session.send("{}", story.now), Err(SendRefused::OverBudget));
    story.settle();
    assert_eq!(story.frames(), [(10, b"x".to_vec())], "and goes first");
}

#[test]
fn every_end_is_one_transition_with_a_reason() {
    let close = |code: u16, words: &str| frame(8, &[&code.to_be_bytes()[..], words.as_bytes()].concat());
    let cases: [(Vec<u8>, &str, Option<u16>); 4] = [
        (close(1000, ""), "peer closed with code 1000", Some(1000)),
        (close(1001, "bye"), "peer closed with code 1001: bye", Some(1001)),
        (close(1008, "Too many\u{7} requests"), "peer closed with code 1008: Too many\\u{7} requests", Some(1008)),
        (frame(8, b""), "peer closed without a code", None),
    ];
    for (bytes, reason, code) in cases {
        let mut story = Story::open();
        story.session.proved();
        story.receive(&bytes);
        let (at, ending) = story.ending();
        assert_eq!((ending.stage, ending.reason.as_str(), ending.close_code), (Stage::Close, reason, code));
        assert!(story.frames().iter().any(|(opcode, _)| *opcode == 8), "the close is answered");
        let State::Backoff { until } = story.session.state() else { panic!("{:?}", story.session.state()) };
        let pause = until.since(at);
        assert!((Span::from_ms(500)..=Span::from_secs(1)).contains(&pause), "before attempt 1: {pause}");
        assert!(story.said.is_empty(), "one transition");
    }
}

#[test]
fn what_breaks_the_protocol_is_refused_and_counted() {
    let mut masked = frame(1, b"abc");
    masked[1] |= 0x80;
    masked.extend([0; 4]);
    let huge = [0x81, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let big = frame(1, &vec![b'a'; (1 << 20) + 1]);
    let cases: [(&[u8], u16); 7] = [
        (&masked, 1002),
        (&huge, 1009),
        (&big, 1009),
        (&frame(1, b"\xff\xfe"), 1007),
        (&frame(3, b""), 1002),
        (&[0xc1, 0], 1002),
        (&frame(0, b"orphan"), 1002),
    ];
    for (bytes, code) in cases {
        let mut story = Story::open();
        story.receive(bytes);
        let (_, ending) = story.ending();
        assert!(ending.violation && ending.stage == Stage::Read, "{ending:?}");
        assert_eq!(story.frames().last().unwrap().1, code.to_be_bytes(), "{ending:?}");
    }
}

#[test]
fn fragments_with_pings_between_are_one_message() {
    let mut story = Story::open();
    story.receive(&[0x01, 1, b'a']);
    for _ in 0..1000 {
        story.receive(&frame(9, b"p"));
        story.receive(&[0x00, 1, b'b']);
    }
    story.receive(&[0x80, 1, b'c']);
    let texts: Vec<_> = story.said.iter().filter_map(text).collect();
    assert_eq!(texts, [format!("a{}c", "b".repeat(1000))]);
}

#[test]
fn the_pause_grows_with_failures_and_only_data_resets_it() {
    let mut story = Story::new("127.0.0.1", false);
    let mut longest = Span::ZERO;
    for n in 1..=12_u32 {
        story.session.handle_socket_end(Some(io::ErrorKind::ConnectionRefused), story.now);
        story.settle();
        let (at, ending) = story.ending();
        assert_eq!(ending.attempt, n);
        let State::Backoff { until } = story.session.state() else { panic!() };
        let ceiling = Span::from_ms((500_u64 << (n + 1)).min(30_000));
        assert!((Span::from_ms(500)..=ceiling).contains(&until.since(at)), "after attempt {n}: {}", until.since(at));
        longest = longest.max(until.since(at));
        story.pass(until.since(at));
    }
    assert!(longest > Span::from_secs(5), "the jitter is full: {longest}");
    story.connected();
    let answer = story.accept();
    story.receive(answer.as_bytes());
    assert_eq!(story.session.attempt(), 13, "a bare connect proves nothing");
    story.session.proved();
    assert_eq!(story.session.attempt(), 0);
}

#[test]
fn a_venue_that_sends_us_away_is_obeyed_to_the_second() {
    let mut story = Story::new("127.0.0.1", false);
    story.connected();
    story.receive(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 47\r\n\r\n");
    let (at, ending) = story.ending();
    assert_eq!((ending.stage, ending.retry_after), (Stage::Upgrade, Some(Span::from_secs(47))));
    story.pass(Span::from_secs(47).saturating_sub(Span::from_ns(1)));
    assert_eq!(story.session.epoch(), 1);
    story.pass(Span::from_ns(1));
    assert_eq!((story.session.epoch(), story.now), (2, at + Span::from_secs(47)));
}

#[test]
fn a_clean_stop_says_goodbye_and_does_not_wait_for_ever() {
    let mut story = Story::open();
    story.session.stop(story.now);
    story.settle();
    assert_eq!(story.frames(), [(8, 1000_u16.to_be_bytes().to_vec())]);
    assert!(!story.session.is_stopped());
    story.pass(Span::from_secs(1));
    assert!(story.session.is_stopped());
    assert_eq!(story.session.deadline(), Instant::FAR);
    let mut story = Story::open();
    story.session.stop(story.now);
    story.receive(&frame(8, &1000_u16.to_be_bytes()));
    assert!(story.session.is_stopped());
}

/// Everything a server with this certificate says first, to the hello in `hello`.
fn first_flight(hello: &[u8], version: &'static rustls::SupportedProtocolVersion) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["host.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.into())
        .unwrap();
    let mut server = rustls::ServerConnection::new(Arc::new(config)).unwrap();
    server.read_tls(&mut &hello[..]).unwrap();
    server.process_new_packets().unwrap();
    let mut flight = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut flight).unwrap();
    }
    flight
}

#[test]
fn a_stranger_ends_the_attempt_wherever_its_flight_is_cut_and_nothing_else() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut cut = 0;
        loop {
            let mut story = Story::new("host.example", true);
            story.resolved(&["10.0.0.1:9443"]);
            story.connected();
            let flight = first_flight(&story.wire, version);
            let whole = cut >= flight.len();
            story.receive(&flight[..cut.min(flight.len())]);
            story.session.handle_socket_end(None, story.now);
            story.settle();
            let Some((_, SessionEvent::Ended(ending))) = story.said.last() else { panic!("cut at {cut}") };
            assert_eq!(ending.stage, Stage::Tls, "cut at {cut}: {ending}");
            if whole {
                assert!(ending.reason.contains("UnknownIssuer") && ending.violation, "{ending}");
                break;
            }
            cut += 7;
        }
    }
}

#[test]
fn a_goodbye_that_the_socket_does_not_take_keeps_no_place() {
    let mut story = Story::new("192.0.2.1", true);
    story.session.handle_connected(story.now);
    story.session.stop(story.now);
    assert!(!story.session.transmit().is_empty(), "there is something left to write");
    while story.session.poll_request().is_some() {}
    story.session.transmitted(0);
    assert!(story.session.is_settled());
}
