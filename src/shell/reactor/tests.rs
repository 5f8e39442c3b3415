//! The reactor against plain listeners.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::*;

const A: SessionId = SessionId(0);
const B: SessionId = SessionId(3);

struct Bench {
    reactor: Reactor,
    clock: SystemClock,
    buffer: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        Self { reactor: Reactor::new().unwrap(), clock: SystemClock::start(), buffer: vec![0; 1024] }
    }

    /// One turn: everything that its ready sessions say.
    fn turn(&mut self) -> Vec<Event> {
        let until = self.clock.mono() + Span::from_ms(50);
        self.reactor.wait(until, &self.clock, false).unwrap();
        let mut events = Vec::new();
        while let Some(session) = self.reactor.next_ready() {
            events.extend(self.reactor.read(session, &mut self.buffer));
        }
        events
    }

    /// Turns until something is said; the bound is for a broken build only.
    fn next(&mut self) -> Vec<Event> {
        for _ in 0..400 {
            let events = self.turn();
            if !events.is_empty() {
                return events;
            }
        }
        panic!("nothing happened");
    }

    fn expect(&mut self, what: &str) {
        assert_eq!(format!("{:?}", self.next()), format!("[{what}]"));
    }

    fn connect(&mut self, session: SessionId, listener: &TcpListener) -> TcpStream {
        self.reactor.dial(session, listener.local_addr().unwrap());
        let (peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        self.expect(&format!("Connected(SessionId({}))", session.0));
        peer
    }
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn bytes_go_both_ways_and_the_end_is_heard() {
    let (mut bench, listener) = (Bench::new(), listener());
    let mut peer = bench.connect(A, &listener);
    peer.write_all(b"hello").unwrap();
    bench.expect("Received(SessionId(0), 5)");
    assert_eq!(bench.buffer.get(..5), Some(&b"hello"[..]));
    assert_eq!(bench.reactor.write(A, b"world"), 5);
    let mut got = [0; 5];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"world");
    drop(peer);
    bench.expect("Eof(SessionId(0))");
    assert!(bench.turn().is_empty(), "the end is said once");
}

#[test]
fn the_end_right_behind_the_last_bytes_is_not_lost() {
    let (mut bench, listener) = (Bench::new(), listener());
    for _ in 0..50 {
        let mut peer = bench.connect(A, &listener);
        peer.write_all(b"last words").unwrap();
        drop(peer);
        bench.expect("Received(SessionId(0), 10)");
        bench.expect("Eof(SessionId(0))");
    }
}

#[test]
fn a_turn_reads_each_socket_once_and_comes_back_at_once_for_the_rest() {
    let (mut bench, listener) = (Bench::new(), listener());
    let mut first = bench.connect(A, &listener);
    let mut second = bench.connect(B, &listener);
    first.write_all(&[1; 5000]).unwrap();
    second.write_all(&[2; 100]).unwrap();
    let (mut from_first, mut from_second) = (0, 0);
    for _ in 0..400 {
        for event in bench.turn() {
            if let Event::Received(session, n) = event {
                *if session == A { &mut from_first } else { &mut from_second } += n;
            } else {
                panic!("{event:?}");
            }
        }
        if from_first == 5000 && from_second == 100 {
            return;
        }
    }
    panic!("{from_first} and {from_second} bytes arrived");
}

#[test]
fn a_refused_connection_is_an_event() {
    let mut bench = Bench::new();
    let address = listener().local_addr().unwrap();
    bench.reactor.dial(A, address);
    bench.expect("Failed(SessionId(0), ConnectionRefused)");
    assert_eq!(bench.reactor.sockets(), 0);
}

#[test]
fn a_dial_that_fails_on_the_spot_is_an_event_too() {
    let mut bench = Bench::new();
    // The system refuses this one without asking anybody: a TCP connection to a multicast address.
    bench.reactor.dial(A, "224.0.0.1:9".parse().unwrap());
    let events = bench.next();
    assert!(matches!(events.as_slice(), [Event::Failed(A, _)]), "{events:?}");
}

#[test]
fn nothing_of_an_old_socket_reaches_its_successor() {
    let (mut bench, listener) = (Bench::new(), listener());
    let mut old = bench.connect(A, &listener);
    // Ready with bytes and with its end when it is replaced; its events may even have been taken from the kernel.
    old.write_all(b"stale").unwrap();
    drop(old);
    let until = bench.clock.mono() + Span::from_ms(50);
    bench.reactor.wait(until, &bench.clock, false).unwrap();
    bench.reactor.dial(A, listener.local_addr().unwrap());
    let (mut new, _) = listener.accept().unwrap();
    bench.expect("Connected(SessionId(0))");
    new.write_all(b"fresh").unwrap();
    bench.expect("Received(SessionId(0), 5)");
    assert_eq!(bench.buffer.get(..5), Some(&b"fresh"[..]));
    assert_eq!(bench.reactor.sockets(), 1);
}

#[test]
fn an_event_with_an_old_generation_is_dropped() {
    let (mut bench, listener) = (Bench::new(), listener());
    let mut peer = bench.connect(A, &listener);
    // As if the kernel's answer had been about a predecessor.
    bench.reactor.slots[0].generation += 1;
    peer.write_all(b"stale").unwrap();
    assert!(bench.turn().is_empty());
    assert!(bench.turn().is_empty());
}

#[test]
fn a_hangup_is_seen_by_the_peer_and_leaves_nothing() {
    let (mut bench, listener) = (Bench::new(), listener());
    let mut peer = bench.connect(A, &listener);
    assert_eq!(bench.reactor.write(A, b"bye"), 3);
    bench.reactor.hangup(A);
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"bye");
    assert_eq!(bench.reactor.write(A, b"more"), 0);
    assert_eq!(bench.reactor.sockets(), 0);
    assert!(bench.turn().is_empty());
}

#[test]
fn a_peer_that_does_not_read_blocks_only_itself() {
    let (mut bench, listener) = (Bench::new(), listener());
    let mut peer = bench.connect(A, &listener);
    let bytes = vec![7; 32 << 20];
    let taken = bench.reactor.write(A, &bytes);
    assert!(taken < bytes.len(), "the kernel took everything");
    assert_eq!(bench.reactor.write(A, &bytes), 0, "asked again too early");
    assert_eq!(bench.reactor.next_writable(), None);
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; 32 << 20];
        peer.read_exact(&mut got).unwrap();
        got.iter().all(|byte| *byte == 7)
    });
    let mut sent = taken;
    for _ in 0..100_000 {
        if sent == bytes.len() {
            break;
        }
        assert!(bench.turn().is_empty());
        while let Some(session) = bench.reactor.next_writable() {
            sent += bench.reactor.write(session, &bytes[sent..]);
        }
    }
    assert_eq!(sent, bytes.len());
    assert!(reader.join().unwrap());
}

#[test]
fn a_session_without_room_is_read_later() {
    let (mut bench, listener) = (Bench::new(), listener());
    let mut peer = bench.connect(A, &listener);
    peer.write_all(b"patience").unwrap();
    let room = std::mem::take(&mut bench.buffer);
    assert!((0..400).any(|_| bench.turn().is_empty() && !bench.reactor.paused.is_empty()));
    assert!(bench.reactor.ready.is_empty(), "no turn is taken only to ask again");
    bench.buffer = room;
    bench.expect("Received(SessionId(0), 8)");
}

#[test]
fn the_waker_ends_the_sleep() {
    let mut bench = Bench::new();
    let waker = bench.reactor.waker();
    waker.wake().unwrap();
    bench.reactor.wait(Instant::FAR, &bench.clock, false).unwrap();
    assert_eq!(bench.reactor.events.iter().filter(|event| event.token() == WAKER).count(), 1);
}
