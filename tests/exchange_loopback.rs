//! The exchange behind real sockets, spoken to by other people's clients: blocking rustls and tungstenite, ureq, and
//! bytes written by hand. Every wait has a bound that fails the test; nothing is asserted about how long things take.
#![allow(clippy::disallowed_methods, reason = "outside the core")]
#![allow(clippy::unwrap_used, clippy::result_large_err)]

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use binance_edge::sim::exchange::{Exchange, ExchangeConfig, RecordedFrame, Source};
use binance_edge::sim::peer::Rules;
use binance_edge::sim::serve::{Faults, Pace, ServeOptions, Served, Strike, lost_syn, serve};
use binance_edge::sim::venue::{Action, ConnId, Refusal, RestAnswer, RestRequest};
use binance_edge::time::UtcMs;
use tungstenite::{Message, WebSocket};

type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// An exchange without a market: greets whoever comes with their target, echoes messages, answers REST with the path.
#[derive(Default)]
struct Echo {
    opened: u64,
    gone: u64,
    actions: VecDeque<(ConnId, Action)>,
}

impl Rules for Echo {
    fn open(&mut self, target: &str, _: UtcMs) -> Result<ConnId, Refusal> {
        if target == "/banned" {
            return Err(Refusal { status: 429, retry_after_s: Some(7) });
        }
        self.opened += 1;
        self.actions.push_back((ConnId(self.opened), Action::Text(Rc::from(target))));
        Ok(ConnId(self.opened))
    }
    fn on_text(&mut self, conn: ConnId, text: &str, _: usize, _: UtcMs) {
        let action = match text {
            "close" => Action::Close { code: 1008, reason: "asked for" },
            "cut" => Action::Cut,
            _ => Action::Text(Rc::from(text)),
        };
        self.actions.push_back((conn, action));
    }
    fn on_ping(&mut self, _: ConnId, _: UtcMs) {}
    fn on_pong(&mut self, _: ConnId, _: &[u8], _: UtcMs) {}
    fn on_gone(&mut self, _: ConnId) {
        self.gone += 1;
    }
    fn next_due(&self) -> UtcMs {
        UtcMs(i64::MAX)
    }
    fn advance(&mut self, _: UtcMs) {}
    fn poll_action(&mut self) -> Option<(ConnId, Action)> {
        self.actions.pop_front()
    }
    fn rest(&mut self, request: &RestRequest, _: UtcMs) -> RestAnswer {
        RestAnswer { status: 200, headers: Vec::new(), body: format!("{{\"path\":\"{}\"}}", request.path) }
    }
}

#[test]
fn a_websocket_over_tls_greets_echoes_and_answers_pings() {
    let served = echo(ServeOptions::default());
    let mut client = connect(&served, "/market/stream").unwrap();
    assert_eq!(text(&mut client), "/market/stream");
    client.send(Message::text("hello")).unwrap();
    client.send(Message::Ping(vec![1, 2, 3].into())).unwrap();
    assert_eq!(text(&mut client), "hello");
    assert_eq!(client.read().unwrap(), Message::Pong(vec![1, 2, 3].into()));
    client.close(None).unwrap();
    assert!(matches!(client.read(), Ok(Message::Close(None))));
    until("the exchange hears of the close", || served.with(|echo, _| echo.gone) == Some(1));
}

#[test]
fn tls_1_2_is_spoken_too_and_a_stranger_is_not_trusted() {
    let served = echo(ServeOptions::default());
    let other = echo(ServeOptions::default());
    let old = tls(served.address, &served.ca_pem, &[&rustls::version::TLS12]);
    assert_eq!(text(&mut upgrade(old, "/ws").unwrap()), "/ws");
    assert!(upgrade(tls(served.address, &other.ca_pem, rustls::ALL_VERSIONS), "/ws").is_err());
}

#[test]
fn rest_and_websockets_share_a_port_with_and_without_tls() {
    let served = echo(ServeOptions::default());
    let agent = agent(&served.ca_pem);
    for _ in 0..3 {
        let url = format!("https://{}/fapi/v1/time", served.address);
        assert_eq!(agent.get(&url).call().unwrap().body_mut().read_to_string().unwrap(), r#"{"path":"/fapi/v1/time"}"#);
    }
    drop(agent);
    let closing = served.stop(|_, closing| closing).unwrap();
    assert_eq!((closing.connections, closing.tally.requests), (1, 3), "one connection was kept alive");

    let plain = echo(ServeOptions { tls: false, ..ServeOptions::default() });
    let mut raw = socket(plain.address);
    // As Python's http.client writes it.
    raw.write_all(
        b"GET /fapi/v1/ping HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n",
    )
    .unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("{\"path\":\"/fapi/v1/ping\"}"), "{answer}");
    let (mut client, _) = tungstenite::client(format!("ws://{}/ws", plain.address), socket(plain.address)).unwrap();
    assert_eq!(client.read().unwrap(), Message::text("/ws"));
}

#[test]
fn a_refusal_is_an_http_answer() {
    let served = echo(ServeOptions::default());
    let error = connect(&served, "/banned").unwrap_err();
    let tungstenite::Error::Http(response) = error else { panic!("{error}") };
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "7");
}

#[test]
fn the_exchange_closes_with_a_code_and_cuts_without_a_word() {
    let served = echo(ServeOptions::default());
    let mut client = connect(&served, "/ws").unwrap();
    text(&mut client);
    client.send(Message::text("close")).unwrap();
    let Message::Close(Some(frame)) = client.read().unwrap() else { panic!("no close frame") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1008, "asked for"));
    assert!(matches!(client.read(), Err(tungstenite::Error::ConnectionClosed)));

    let mut client = connect(&served, "/ws").unwrap();
    text(&mut client);
    client.send(Message::text("cut")).unwrap();
    assert_eq!(io_kind(client.read()), ErrorKind::ConnectionReset);
}

#[test]
fn three_hundred_clients_at_once() {
    const CLIENTS: usize = 300;
    let served = echo(ServeOptions::default());
    let mut clients: Vec<_> = thread::scope(|scope| {
        let served = &served;
        let workers: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(move || (0..CLIENTS / 10).map(|_| connect(served, "/ws").unwrap()).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(clients.len(), CLIENTS);
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(Message::text(n.to_string())).unwrap();
    }
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!((text(client), text(client)), ("/ws".to_owned(), n.to_string()));
    }
    let goodbyes = thread::spawn(move || {
        clients.iter_mut().all(|client| match client.read() {
            Ok(Message::Close(Some(frame))) => u16::from(frame.code) == 1001,
            other => panic!("{other:?}"),
        })
    });
    let closing = served.stop(|_, closing| closing).unwrap();
    assert!(goodbyes.join().unwrap());
    assert_eq!((closing.connections, closing.tally.upgrades), (300, 300));
    assert_eq!((closing.tally.messages, closing.tally.frames), (300, 600));
}

#[test]
fn beyond_the_limit_clients_are_reset() {
    let served = echo(ServeOptions { tls: false, connections_max: 2 });
    let kept = [socket(served.address), socket(served.address)];
    until("two are there", || served.closing().is_some_and(|closing| closing.connections == 2));
    let third = TcpStream::connect(served.address).and_then(|mut third| {
        third.set_read_timeout(Some(PATIENCE))?;
        third.read(&mut [0; 1])
    });
    assert_eq!(third.unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(kept);
}

#[test]
fn a_client_that_never_reads_is_cut_and_the_exchange_is_told() {
    let served = echo(ServeOptions { tls: false, ..ServeOptions::default() });
    let (mut client, _) = tungstenite::client(format!("ws://{}/ws", served.address), socket(served.address)).unwrap();
    client.send(Message::text("x")).unwrap();
    until("the client is cut", || {
        let flood = |echo: &mut Echo| {
            let conn = ConnId(echo.opened);
            let text: Rc<str> = Rc::from("y".repeat(500_000));
            echo.actions.extend((0..8).map(|_| (conn, Action::Text(Rc::clone(&text)))));
        };
        served.with(move |echo, _| flood(echo));
        served.with(|echo, _| echo.gone) == Some(1)
    });
    assert_eq!(served.closing().unwrap().tally.slow, 1);
}

#[test]
fn a_mute_handshake_ends_when_the_fault_does() {
    let served = echo(ServeOptions::default());
    assert!(served.set(Faults { tls: Pace::Mute, ..Faults::default() }));
    let mut held = socket(served.address);
    let mut hello = client_connection(&served.ca_pem, rustls::ALL_VERSIONS);
    while hello.wants_write() {
        hello.write_tls(&mut held).unwrap();
    }
    until("it is accepted", || served.closing().is_some_and(|closing| closing.connections == 1));
    assert_silent(&mut held);
    assert!(served.set(Faults::default()));
    let stream = rustls::StreamOwned::new(hello, held);
    assert_eq!(text(&mut upgrade(stream, "/ws").unwrap()), "/ws");
}

#[test]
fn every_stage_can_trickle_and_still_arrives_whole() {
    let served = echo(ServeOptions::default());
    let slow = Pace::Trickle(Duration::from_micros(50));
    assert!(served.set(Faults { tls: slow, frames: slow, rest: slow, ..Faults::default() }));
    let mut client = connect(&served, "/ws").unwrap();
    assert_eq!(text(&mut client), "/ws");
    let body = agent(&served.ca_pem).get(format!("https://{}/x", served.address)).call().unwrap();
    assert_eq!(body.into_body().read_to_string().unwrap(), r#"{"path":"/x"}"#);

    // A 101 in many small pieces looks like an attack to tungstenite, so this one is read by hand.
    assert!(served.set(Faults { upgrade: slow, frames: slow, ..Faults::default() }));
    let mut raw = tls(served.address, &served.ca_pem, rustls::ALL_VERSIONS);
    raw.write_all(UPGRADE.as_bytes()).unwrap();
    assert!(head(&mut raw).starts_with(b"HTTP/1.1 101 "));
    let mut frame = [0; 5];
    raw.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x81\x03/ws");
}

#[test]
fn a_mute_upgrade_is_granted_but_never_said() {
    let served = echo(ServeOptions { tls: false, ..ServeOptions::default() });
    assert!(served.set(Faults { upgrade: Pace::Mute, ..Faults::default() }));
    let mut raw = socket(served.address);
    raw.write_all(UPGRADE.as_bytes()).unwrap();
    until("it is granted", || served.with(|echo, _| echo.opened) == Some(1));
    assert_silent(&mut raw);
    // The answer comes through, what follows it does not.
    assert!(served.set(Faults { frames: Pace::Mute, ..Faults::default() }));
    assert!(head(&mut raw).starts_with(b"HTTP/1.1 101 "));
    assert_silent(&mut raw);
    assert!(served.set(Faults::default()));
    let mut frame = [0; 5];
    raw.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x81\x03/ws");
}

#[test]
fn a_deaf_exchange_hears_it_later() {
    let served = echo(ServeOptions::default());
    let mut client = connect(&served, "/ws").unwrap();
    text(&mut client);
    assert!(served.set(Faults { deaf: true, ..Faults::default() }));
    client.send(Message::text("anyone?")).unwrap();
    for _ in 0..10 {
        assert_eq!(served.closing().unwrap().tally.messages, 0);
    }
    assert!(served.set(Faults::default()));
    assert_eq!(text(&mut client), "anyone?");
}

#[test]
fn strikes_befall_everyone_present() {
    let served = echo(ServeOptions::default());
    let open = || {
        let mut clients = [connect(&served, "/ws").unwrap(), connect(&served, "/ws").unwrap()];
        clients.iter_mut().for_each(|client| assert_eq!(text(client), "/ws"));
        clients
    };

    let mut clients = open();
    assert_eq!(served.strike(Strike::Reset), Some(2));
    clients.iter_mut().for_each(|client| assert_eq!(io_kind(client.read()), ErrorKind::ConnectionReset));

    let mut clients = open();
    assert_eq!(served.strike(Strike::Fin), Some(2));
    // No close frame and no TLS goodbye, only the end of the stream.
    clients.iter_mut().for_each(|client| assert_eq!(io_kind(client.read()), ErrorKind::UnexpectedEof));
    assert_eq!(served.with(|echo, _| echo.gone), Some(4));

    let mut held = open();
    served.strike(Strike::Hold).unwrap();
    let mut fresh = connect(&served, "/ws").unwrap();
    held[0].send(Message::text("anyone?")).unwrap();
    assert_eq!(text(&mut fresh), "/ws", "those who come later are served");
    assert_silent(&mut held[0].get_mut().sock);

    served.strike(Strike::Freeze(Duration::from_secs(3600))).unwrap();
    fresh.send(Message::text("late")).unwrap();
    for _ in 0..10 {
        assert_eq!(served.closing().unwrap().tally.messages, 0);
    }
    served.strike(Strike::Freeze(Duration::ZERO)).unwrap();
    assert_eq!(text(&mut fresh), "late");
}

#[test]
fn a_closed_port_refuses_and_opens_again() {
    let served = echo(ServeOptions::default());
    let mut before = connect(&served, "/ws").unwrap();
    text(&mut before);
    assert!(served.set(Faults { port_closed: true, ..Faults::default() }));
    served.closing().unwrap();
    assert_eq!(TcpStream::connect(served.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    before.send(Message::text("still here")).unwrap();
    assert_eq!(text(&mut before), "still here");
    assert!(served.set(Faults::default()));
    served.closing().unwrap();
    assert_eq!(text(&mut connect(&served, "/ws").unwrap()), "/ws");
}

#[test]
fn a_lost_syn_neither_connects_nor_fails() {
    let lost = lost_syn(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
    let error = TcpStream::connect_timeout(&lost.address, Duration::from_millis(200)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn what_is_not_tls_or_not_http_harms_nobody() {
    let served = echo(ServeOptions::default());
    let mut raw = socket(served.address);
    raw.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    // A TLS alert, then the end, ordinary or by reset.
    let _ = raw.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP"));
    let mut tls = tls(served.address, &served.ca_pem, rustls::ALL_VERSIONS);
    tls.write_all(b"\0\x01\x02 nonsense\r\n\r\n").unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(text(&mut connect(&served, "/ws").unwrap()), "/ws");
}

#[test]
fn the_market_is_subscribed_to_by_message_and_acknowledged() {
    let served = market(ServeOptions::default(), |config| config);
    let mut client = connect(&served, "/market/stream").unwrap();
    client
        .send(Message::text(r#"{"method":"SUBSCRIBE","params":["btcusdt@aggTrade","ethusdt@markPrice@1s"],"id":7}"#))
        .unwrap();
    let (mut acks, mut trades, mut marks) = (0, 0, 0);
    while acks == 0 || trades < 20 || marks == 0 {
        let frame = json(&text(&mut client));
        match frame["stream"].as_str() {
            None => {
                assert_eq!(frame, serde_json::json!({"result": null, "id": 7}));
                acks += 1;
            }
            Some("btcusdt@aggTrade") => {
                assert_eq!((&frame["data"]["e"], &frame["data"]["s"]), (&"aggTrade".into(), &"BTCUSDT".into()));
                trades += 1;
            }
            Some("ethusdt@markPrice@1s") => marks += 1,
            Some(other) => panic!("{other} was not asked for"),
        }
    }
    assert_eq!(acks, 1);
    client.close(None).unwrap();
    let (violations, closing) = served.stop(|exchange, closing| (exchange.ledger().violations, closing)).unwrap();
    assert_eq!((violations, closing.tally.violations, closing.tally.messages), (0, 0, 1));
}

#[test]
fn the_market_is_subscribed_to_by_url_and_ids_have_no_holes() {
    let served = market(ServeOptions::default(), |config| config);
    let mut client = connect(&served, "/market/ws/btcusdt@aggTrade").unwrap();
    let ids: Vec<_> = (0..50).map(|_| json(&text(&mut client))["a"].as_i64().unwrap()).collect();
    assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ids:?}");
    // The same trades over REST, on the same port.
    let url = format!("https://{}/fapi/v1/aggTrades?symbol=BTCUSDT&fromId={}&limit=50", served.address, ids[0]);
    let rows = json(&agent(&served.ca_pem).get(&url).call().unwrap().body_mut().read_to_string().unwrap());
    let over_rest: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["a"].as_i64().unwrap()).collect();
    assert_eq!(over_rest, ids);
}

#[test]
fn time_and_errors_over_rest() {
    let served = market(ServeOptions::default(), |config| config);
    let agent = agent(&served.ca_pem);
    let at = served.address;
    let mut time = agent.get(format!("https://{at}/fapi/v1/time")).call().unwrap();
    assert!(time.headers().contains_key("x-mbx-used-weight-1m"));
    let told = json(&time.body_mut().read_to_string().unwrap())["serverTime"].as_i64().unwrap();
    let now = served.with(|exchange, _| exchange.now()).unwrap();
    assert!(told > 1_600_000_000_000 && told <= now.0, "{told} {now}");
    let error = agent.get(format!("https://{at}/fapi/v1/nothing")).call().unwrap_err();
    assert!(matches!(error, ureq::Error::StatusCode(404)), "{error}");
}

#[test]
fn a_wrong_path_is_granted_acknowledged_and_silent() {
    let served = market(ServeOptions { tls: false, ..ServeOptions::default() }, |config| config);
    let plain =
        |path: &str| tungstenite::client(format!("ws://{}{path}", served.address), socket(served.address)).unwrap().0;
    let mut wrong = plain("/ws/btcusdt@aggTrade");
    let mut right = plain("/market/ws/btcusdt@aggTrade");
    wrong.send(Message::text(r#"{"method":"SUBSCRIBE","params":["btcusdt@aggTrade"],"id":1}"#)).unwrap();
    assert_eq!(wrong.read().unwrap(), Message::text(r#"{"result":null,"id":1}"#));
    for _ in 0..30 {
        assert!(right.read().unwrap().is_text());
    }
    assert_silent(wrong.get_mut());
}

#[test]
fn too_many_messages_are_closed_with_1008() {
    let served = market(ServeOptions::default(), |config| config);
    let mut client = connect(&served, "/market/stream").unwrap();
    for id in 0..6 {
        client.write(Message::text(format!(r#"{{"method":"LIST_SUBSCRIPTIONS","id":{id}}}"#))).unwrap();
    }
    client.flush().unwrap();
    let frame = loop {
        if let Message::Close(frame) = client.read().unwrap() {
            break frame.unwrap();
        }
    };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1008, "Too many requests"));
}

#[test]
fn a_recording_is_sent_again_as_it_was() {
    let frames: Vec<_> = (0..5_i64)
        .map(|n| RecordedFrame {
            at_ns: 1_700_000_000_000_000_000 + n * 1_000_000_000,
            text: format!(
                r#"{{"stream":"btcusdt@aggTrade","data":{{"e":"aggTrade","E":{0},"a":{n},"s":"BTCUSDT","p":"64123.40","q":"0.215","f":{n},"l":{n},"T":{0},"m":false}}}}"#,
                1_700_000_000_000 + n * 1_000,
            ),
        })
        .collect();
    let expected: Vec<_> = frames.iter().map(|frame| json(&frame.text)).collect();
    let served = market(ServeOptions::default(), move |config| ExchangeConfig {
        source: Source::Recorded { frames, speed: 1000.0, wait_for_subscriber: true },
        ..config
    });
    let mut client = connect(&served, "/market/stream?streams=btcusdt@aggTrade").unwrap();
    let got: Vec<_> = (0..5).map(|_| json(&text(&mut client))).collect();
    assert_eq!(got, expected);
    assert_eq!(served.with(|exchange, _| exchange.done()), Some(true));
}

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn echo(options: ServeOptions) -> Served<Echo> {
    serve(any_port(), |_| Echo::default(), options).unwrap()
}

/// The real exchange, its market twenty times as busy as usual.
fn market(
    options: ServeOptions,
    change: impl FnOnce(ExchangeConfig) -> ExchangeConfig + Send + 'static,
) -> Served<Exchange> {
    let build = |utc| Exchange::new(change(ExchangeConfig { rate: 20.0, ..ExchangeConfig::default() }), utc);
    serve(any_port(), build, options).unwrap()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

fn socket(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn certificates(ca_pem: &str) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::pem_slice_iter(ca_pem.as_bytes()).map(Result::unwrap).collect()
}

fn client_connection(ca_pem: &str, versions: &[&'static rustls::SupportedProtocolVersion]) -> rustls::ClientConnection {
    let mut roots = rustls::RootCertStore::empty();
    certificates(ca_pem).into_iter().for_each(|ca| roots.add(ca).unwrap());
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    rustls::ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap()
}

fn tls(address: SocketAddr, ca_pem: &str, versions: &[&'static rustls::SupportedProtocolVersion]) -> Tls {
    rustls::StreamOwned::new(client_connection(ca_pem, versions), socket(address))
}

fn upgrade(stream: Tls, path: &str) -> Result<WebSocket<Tls>, tungstenite::Error> {
    match tungstenite::client(format!("wss://127.0.0.1{path}"), stream) {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::HandshakeError::Failure(error)) => Err(error),
        Err(tungstenite::HandshakeError::Interrupted(_)) => panic!("no answer to the upgrade"),
    }
}

fn connect<R>(served: &Served<R>, path: &str) -> Result<WebSocket<Tls>, tungstenite::Error> {
    upgrade(tls(served.address, &served.ca_pem, rustls::ALL_VERSIONS), path)
}

fn text(client: &mut WebSocket<Tls>) -> String {
    let message = client.read().unwrap();
    assert!(message.is_text(), "{message:?}");
    message.into_text().unwrap().to_string()
}

fn io_kind(result: Result<Message, tungstenite::Error>) -> ErrorKind {
    match result {
        Err(tungstenite::Error::Io(error)) => error.kind(),
        other => panic!("{other:?}"),
    }
}

fn agent(ca_pem: &str) -> ureq::Agent {
    let roots: Vec<_> =
        certificates(ca_pem).iter().map(|der| ureq::tls::Certificate::from_der(der).to_owned()).collect();
    let tls = ureq::tls::TlsConfig::builder()
        .root_certs(ureq::tls::RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    ureq::Agent::config_builder().tls_config(tls).timeout_global(Some(PATIENCE)).build().into()
}

/// The head of an HTTP answer, and not a byte more.
fn head(stream: &mut impl Read) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    head
}

/// Nothing has arrived at this socket.
fn assert_silent(socket: &mut TcpStream) {
    socket.set_nonblocking(true).unwrap();
    assert_eq!(socket.peek(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    socket.set_nonblocking(false).unwrap();
}

/// Asks again until it is so.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(1));
    }
}
