//! A client's deadlines, with the clock driven by hand.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as StdStream};
use std::time::Duration;

use super::*;

fn at(ms: u64) -> Instant {
    Instant::from_ns(ms * 1_000_000)
}

fn pair() -> (StdStream, Connection) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    (peer, Connection::new(TcpStream::from_std(socket), at(0)))
}

/// Waits until the socket has something to read.
fn arrive(client: &Connection) {
    let arrived = (0..20_000).any(|_| {
        let silent = client.socket.peek(&mut [0]).is_err();
        if silent {
            std::thread::sleep(Duration::from_millis(1));
        }
        !silent
    });
    assert!(arrived, "nothing arrived");
}

/// What the server does when a socket has spoken.
fn hear(client: &mut Connection, now: Instant) -> usize {
    arrive(client);
    serve(client, now)
}

fn serve(client: &mut Connection, now: Instant) -> usize {
    client.readable = true;
    client.writable = true;
    let mut requests = 0;
    loop {
        client.flush(now);
        client.fill(now);
        match client.next_request(now) {
            Next::Request(request) => {
                requests += 1;
                client.respond(request, &Response::refusal(404, "here is nothing"));
            }
            Next::Refused => {}
            Next::Nothing => break,
        }
    }
    client.expire(now);
    client.flush(now);
    requests
}

fn said(peer: &mut StdStream) -> String {
    let mut text = String::new();
    peer.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_head_that_never_ends_is_told_off_after_its_time() {
    let (mut peer, mut client) = pair();
    for (n, byte) in b"GET / HTTP/1.1\r\nA: slow".iter().enumerate() {
        peer.write_all(&[*byte]).unwrap();
        // Each byte comes in time; the whole does not.
        hear(&mut client, at(1_000 + 400 * n as u64));
    }
    assert!(!client.is_over());
    assert_eq!(client.deadline(), at(11_000));
    serve(&mut client, at(11_000));
    assert!(said(&mut peer).starts_with("HTTP/1.1 408 "));
    assert_eq!(client.deadline(), at(12_000), "it lingers for a moment");
    client.expire(at(12_000));
    assert!(client.is_over());
}

#[test]
fn a_kept_connection_may_be_idle_for_long_and_not_for_ever() {
    let (mut peer, mut client) = pair();
    peer.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(hear(&mut client, at(500)), 1);
    assert_eq!(client.deadline(), at(120_500));
    peer.write_all(b"\r\n").unwrap();
    assert_eq!(hear(&mut client, at(60_000)), 0);
    assert_eq!(client.deadline(), at(180_000), "an empty line begins no head");
    client.expire(at(180_000));
    assert!(client.is_over());
}

#[test]
fn a_client_that_takes_nothing_is_dropped_and_a_slow_one_is_not() {
    let (mut peer, mut client) = pair();
    let request = Request { route: Route::Unknown, with_body: true, keep: true, say_keep: false };
    let body = vec![b'x'; 32 << 20];
    client.respond(request, &Response { code: 200, kind: "text/plain", headers: "", body });
    client.flush(at(1_000));
    assert!(client.pending() > 0, "the kernel took everything");
    peer.read_exact(&mut vec![0; client.written]).unwrap();
    let before = client.written;
    let went_on = (0..20_000).any(|_| {
        client.writable = true;
        client.flush(at(9_000));
        if client.written == before {
            std::thread::sleep(Duration::from_millis(1));
        }
        client.written > before
    });
    assert!(went_on, "there was room and it was not used");
    client.expire(at(11_000));
    assert!(!client.is_over(), "it takes its time");
    assert_eq!(client.deadline(), at(19_000));
    client.expire(at(19_000));
    assert!(client.is_over());
}

#[test]
fn waiting_for_a_snapshot_is_the_servers_affair() {
    let (mut peer, mut client) = pair();
    peer.write_all(b"GET /status HTTP/1.1\r\n\r\nGET /status HTTP/1.1\r\nA: half").unwrap();
    arrive(&client);
    client.fill(at(100));
    let Next::Request(request) = client.next_request(at(100)) else { panic!("no request") };
    client.waiting = Some(Waiting { request, ticket: 1, until: at(300) });
    assert!(matches!(client.next_request(at(100)), Next::Nothing), "answers keep their order");
    assert_eq!(client.deadline(), at(300));
    client.expire(at(20_000));
    assert!(!client.is_over());
}

#[test]
fn a_client_that_left_is_over() {
    let (peer, mut client) = pair();
    drop(peer);
    hear(&mut client, at(10));
    assert!(client.is_over());
}

#[test]
fn connection_headers_are_understood() {
    let keeps = |head: &str| match parse(format!("{head}\r\n\r\n").as_bytes()) {
        Parsed::Whole { request, .. } => (request.keep, request.say_keep),
        Parsed::Partial | Parsed::Refused(..) => panic!("{head}"),
    };
    assert_eq!(keeps("GET / HTTP/1.1"), (true, false));
    assert_eq!(keeps("GET / HTTP/1.1\r\nConnection: Close"), (false, false));
    assert_eq!(keeps("GET / HTTP/1.1\r\nConnection: upgrade, close"), (false, false));
    assert_eq!(keeps("GET / HTTP/1.0"), (false, false));
    assert_eq!(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive"), (true, true));
    assert_eq!(keeps("GET / HTTP/1.1\r\nContent-Length: 0"), (true, false));
    assert_eq!(keeps("GET / HTTP/1.1\r\nContent-Length: 5"), (false, false));
    assert_eq!(keeps("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive"), (false, false));
}
