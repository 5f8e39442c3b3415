//! One try at an HTTP endpoint on a thread of its own: lookup, TCP, TLS, and one question where there is one to ask.
//!
//! Blocking calls, each with what is left of its stage as its timeout: a timeout of a read bounds that read alone, and a
//! peer that sends a byte now and then would be read for ever.

use super::http::{self, Question};
use super::stages::{Cause, Failure, Log, Step};
use crate::config::Deadlines;
use crate::net::tls_words;
use crate::shell::clock::SystemClock;
use crate::shell::workers::Resolve;
use crate::time::{Instant, Span};
use crossbeam_channel::RecvTimeoutError;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Where to, and what to ask there.
pub(super) struct Direct {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Without one, the endpoint has been seen when TLS is done, and nothing is sent.
    pub(super) question: Option<Question>,
    pub(super) deadlines: Deadlines,
}

impl Direct {
    /// The stages, none of them begun.
    pub(super) fn log(&self, now: Instant) -> Log {
        let steps: &[Step] = match self.question {
            Some(_) => &[Step::Resolve, Step::Tcp, Step::Tls, Step::Rest, Step::Clock],
            None => &[Step::Resolve, Step::Tcp, Step::Tls],
        };
        Log::new(steps, self.tls.is_some(), now)
    }

    /// All stages, one after the other.
    pub(super) fn run(&self, resolve: &Resolve, clock: SystemClock) -> Log {
        let mut log = self.log(clock.mono());
        if let Err(failure) = self.stages(&mut log, resolve, clock) {
            log.fail(failure, clock.mono());
        }
        log
    }

    fn stages(&self, log: &mut Log, resolve: &Resolve, clock: SystemClock) -> Result<(), Failure> {
        // A call of the running process has no more time than this either.
        let (name, span) = match self.question {
            Some(_) => ("rest", self.deadlines.rest),
            None => ("connect", self.deadlines.connect),
        };
        let whole = Whole { name, span, until: clock.mono() + span, clock };
        let addresses = look_up(&self.host, self.port, resolve, &whole, whole.bound(self.deadlines.resolve))?;
        log.pass(clock.mono());
        let socket = dial(&addresses, &whole, whole.bound(self.deadlines.tcp))?;
        log.pass(clock.mono());
        let wire = Wire { socket, until: whole.bound(self.deadlines.tls), clock, received: 0 };
        let mut stream = match &self.tls {
            None => Stream::Plain(wire),
            Some(config) => {
                let stream = secure(wire, config, &self.host, &whole)?;
                log.pass(clock.mono());
                Stream::Tls(Box::new(stream))
            }
        };
        let Some(question) = &self.question else { return Ok(()) };
        stream.wire().until = whole.until;
        let answer = http::ask(&mut stream, question, clock).map_err(|failure| whole.explain(failure))?;
        let server_ms = http::server_time(&answer)?;
        log.pass(clock.mono());
        let shown = http::judge_clock(&answer, server_ms)?;
        log.pass_showing(Some(shown), clock.mono());
        Ok(())
    }
}

/// The bound on all stages together.
struct Whole {
    /// Its key below `deadlines`.
    name: &'static str,
    span: Span,
    until: Instant,
    clock: SystemClock,
}

impl Whole {
    /// The end of a stage that begins now.
    fn bound(&self, stage: Span) -> Instant {
        (self.clock.mono() + stage).min(self.until)
    }

    /// Says so if it was this bound that ended the wait.
    fn explain(&self, failure: Failure) -> Failure {
        let over = matches!(failure.cause, Cause::Silence | Cause::Name) && self.clock.mono() >= self.until;
        if !over {
            return failure;
        }
        Failure { reason: format!("{} ({} deadline of {})", failure.reason, self.name, self.span), ..failure }
    }
}

/// The lookup has a thread of its own: the system's resolver can hang far longer than anyone waits for it.
fn look_up(
    host: &str,
    port: u16,
    resolve: &Resolve,
    whole: &Whole,
    until: Instant,
) -> Result<Vec<SocketAddr>, Failure> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (tell, told) = crossbeam_channel::bounded(1);
    let (resolve, name) = (Arc::clone(resolve), host.to_owned());
    thread::Builder::new()
        .name("lookup".into())
        .spawn(move || {
            let _ = tell.send(resolve(&name, port));
        })
        .map_err(|error| Failure::new(Cause::Machine, format!("no thread for the lookup: {error}")))?;
    match told.recv_timeout(until.since(whole.clock.mono()).to_std()) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(words)) => Err(Failure::new(Cause::Name, super::clean(&words))),
        Err(RecvTimeoutError::Timeout) => Err(whole.explain(Failure::new(Cause::Name, "no answer from the resolver"))),
        Err(RecvTimeoutError::Disconnected) => Err(Failure::new(Cause::Name, "the resolver panicked")),
    }
}

/// The first address that connects; each has an equal share of the time that is left.
fn dial(addresses: &[SocketAddr], whole: &Whole, until: Instant) -> Result<TcpStream, Failure> {
    let addresses = &addresses[..addresses.len().min(ADDRESSES_MAX)];
    let mut last = match addresses {
        [] => Failure::new(Cause::Name, "the name has no address"),
        _ => whole.explain(Failure::new(Cause::Silence, "no time left to connect")),
    };
    for (index, address) in addresses.iter().enumerate() {
        let left = until.since(whole.clock.mono());
        if left == Span::ZERO {
            break;
        }
        let share = Span::from_ns((left.as_ns() / (addresses.len() - index) as u64).max(1));
        let kind = match TcpStream::connect_timeout(address, share.to_std()) {
            // On loopback a socket can meet itself where nobody listens.
            Ok(socket) if socket.local_addr().is_ok_and(|local| local == *address) => ErrorKind::ConnectionRefused,
            Ok(socket) => return Ok(socket),
            Err(error) => error.kind(),
        };
        let words = if kind == ErrorKind::TimedOut { "no answer".to_owned() } else { kind.to_string() };
        let tried = match addresses.len() {
            1 => format!("{words} ({address})"),
            n => format!("{words} (last of {n} addresses) ({address})"),
        };
        last = whole.explain(Failure::new(Cause::of_connect(kind), tried));
    }
    Err(last)
}

fn secure(
    mut wire: Wire,
    config: &Arc<ClientConfig>,
    host: &str,
    whole: &Whole,
) -> Result<StreamOwned<ClientConnection, Wire>, Failure> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Failure::new(Cause::Stranger, "the host is no name a certificate can bear"))?;
    let mut connection = ClientConnection::new(Arc::clone(config), name)
        .map_err(|error| Failure::new(Cause::of_tls(&tls_words(&error)), tls_words(&error)))?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut wire) {
            let address = wire.socket.peer_addr().map_or(String::new(), |address| format!(" ({address})"));
            let failure = of_io(&error, || match wire.received {
                0 => "no answer to our hello".to_owned(),
                n => format!("stalled after {n} bytes"),
            });
            return Err(whole.explain(Failure { reason: failure.reason + &address, ..failure }));
        }
    }
    Ok(StreamOwned::new(connection, wire))
}

/// What went wrong on a connected stream; `late` words the end of patience.
pub(super) fn of_io(error: &io::Error, late: impl FnOnce() -> String) -> Failure {
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        let words = tls_words(error);
        return Failure::new(Cause::of_tls(&words), words);
    }
    let (kind, cause) = (error.kind(), Cause::of_socket(error.kind()));
    let words = if cause == Cause::Silence {
        late()
    } else if kind == ErrorKind::UnexpectedEof {
        "peer ended the connection".to_owned()
    } else {
        kind.to_string()
    };
    Failure::new(cause, words)
}

/// A socket whose every call ends with the stage.
pub(super) struct Wire {
    socket: TcpStream,
    until: Instant,
    clock: SystemClock,
    received: u64,
}

impl Wire {
    /// What is left for the next call.
    fn left(&self) -> io::Result<std::time::Duration> {
        match self.until.since(self.clock.mono()) {
            Span::ZERO => Err(ErrorKind::TimedOut.into()),
            // The system counts in microseconds and takes none at all for "for ever".
            left => Ok(left.max(Span::from_ms(1)).to_std()),
        }
    }
}

/// The system says `WouldBlock` for a timeout; here it means one.
fn late(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        let n = self.socket.read(buffer).map_err(late)?;
        self.received += n as u64;
        Ok(n)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write(bytes).map_err(late)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connected socket, under TLS or plain.
enum Stream {
    Plain(Wire),
    Tls(Box<StreamOwned<ClientConnection, Wire>>),
}

impl Stream {
    fn wire(&mut self) -> &mut Wire {
        match self {
            Self::Plain(wire) => wire,
            Self::Tls(stream) => &mut stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(wire) => wire.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(wire) => wire.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(wire) => wire.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
