//! One client: its bytes, its place in the protocol, and when it has had its time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;

use super::routes::{Response, Route};
use crate::time::{Instant, Span};

/// The longest request head.
pub(super) const HEAD_MAX: usize = 8 * 1024;
/// Lines in a head.
const HEADERS_MAX: usize = 64;
/// A head is whole this long after its first byte, however slowly its bytes come.
const HEAD_WITHIN: Span = Span::from_secs(10);
/// A client that takes no byte of its answer for this long is gone.
const TAKE_WITHIN: Span = Span::from_secs(10);
/// A client between two requests.
const IDLE_MAX: Span = Span::from_secs(120);
/// After a last answer: how long, and how much, we listen on so that it is not lost by a reset.
const LINGER: Span = Span::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;
/// No further request is answered while this much waits to be taken.
const OUTPUT_MAX: usize = 64 * 1024;

/// A request that can be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) route: Route,
    /// HEAD: all but the body.
    with_body: bool,
    keep: bool,
    /// An old client that wants to be told that the connection stays.
    say_keep: bool,
}

/// A request whose answer is made of a snapshot to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) ticket: u64,
    pub(super) until: Instant,
}

/// What a client wants next.
pub(super) enum Next {
    Request(Request),
    /// Something that was refused; there may be more.
    Refused,
    /// Nothing that can be answered before the socket speaks again.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// The last answer is in the output.
    Finishing,
    /// It was written, and our direction is closed.
    Lingering {
        until: Instant,
        left: usize,
    },
    Over,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) waiting: Option<Waiting>,
    pub(super) last_active: Instant,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// The client sends no more.
    ended: bool,
    /// When the first byte of an unfinished head came.
    head_since: Option<Instant>,
    phase: Phase,
}

impl Connection {
    pub(super) fn new(socket: TcpStream, now: Instant) -> Self {
        Self {
            socket,
            readable: true,
            writable: true,
            waiting: None,
            last_active: now,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            ended: false,
            head_since: None,
            phase: Phase::Serving,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// When something has to happen without the client.
    pub(super) fn deadline(&self) -> Instant {
        match self.phase {
            Phase::Over => Instant::ZERO,
            Phase::Lingering { until, .. } => until,
            Phase::Finishing => self.take_by(),
            Phase::Serving => match (self.waiting, self.head_by()) {
                (Some(waiting), _) => waiting.until.min(self.take_by()),
                (None, Some(by)) => by.min(self.take_by()),
                (None, None) if self.pending() > 0 => self.take_by(),
                (None, None) => self.last_active + IDLE_MAX,
            },
        }
    }

    /// When a client that takes nothing of its answer has had its time.
    fn take_by(&self) -> Instant {
        if self.pending() > 0 { self.last_active + TAKE_WITHIN } else { Instant::FAR }
    }

    /// When a head that is being received must be whole. None while we do not look at it.
    fn head_by(&self) -> Option<Instant> {
        self.head_since.filter(|_| self.pending() < OUTPUT_MAX).map(|since| since + HEAD_WITHIN)
    }

    /// Judges the deadlines; that of a snapshot is the server's.
    pub(super) fn expire(&mut self, now: Instant) {
        if now < self.deadline() {
            return;
        }
        let head_is_late = self.phase == Phase::Serving && self.head_by().is_some_and(|by| now >= by);
        if now >= self.take_by() {
            self.phase = Phase::Over;
        } else if self.waiting.is_none() && head_is_late {
            self.refuse(408, "the request took too long");
        } else if self.waiting.is_none() {
            self.phase = Phase::Over;
        }
    }

    /// Reads what there is and room for.
    pub(super) fn fill(&mut self, now: Instant) {
        let mut chunk = [0; 4096];
        while self.readable && !self.ended && self.phase != Phase::Over {
            let room = match self.phase {
                Phase::Serving => HEAD_MAX.saturating_sub(self.input.len()),
                Phase::Finishing | Phase::Over => 0,
                Phase::Lingering { left, .. } => left,
            };
            if room == 0 {
                if matches!(self.phase, Phase::Lingering { .. }) {
                    self.phase = Phase::Over;
                }
                return;
            }
            let room = room.min(chunk.len());
            let Some(space) = chunk.get_mut(..room) else { return };
            match self.socket.read(space) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    if let Phase::Lingering { left, .. } = &mut self.phase {
                        *left -= n;
                    } else {
                        self.last_active = now;
                        self.input.extend_from_slice(chunk.get(..n).unwrap_or_default());
                        self.skip_line_ends();
                        if !self.input.is_empty() {
                            self.head_since.get_or_insert(now);
                        }
                    }
                }
                Err(error) => self.failed(&error, true),
            }
        }
        if self.ended && matches!(self.phase, Phase::Lingering { .. }) {
            self.phase = Phase::Over;
        }
    }

    /// Old clients send an empty line after a request.
    fn skip_line_ends(&mut self) {
        let ends = self.input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.input.drain(..ends);
    }

    /// The next whole request, if it may be answered now. Refusals are answered here.
    pub(super) fn next_request(&mut self, now: Instant) -> Next {
        if self.phase != Phase::Serving || self.waiting.is_some() || self.pending() >= OUTPUT_MAX {
            return Next::Nothing;
        }
        match parse(&self.input) {
            Parsed::Partial if self.input.len() >= HEAD_MAX => self.refuse(431, "the request head is over 8 KiB"),
            Parsed::Partial => {
                if self.ended {
                    // No further byte will complete it.
                    self.phase = Phase::Finishing;
                }
                return Next::Nothing;
            }
            Parsed::Refused(code, why) => self.refuse(code, why),
            Parsed::Whole { used, method_allowed, request } => {
                self.input.drain(..used);
                self.skip_line_ends();
                self.head_since = (!self.input.is_empty()).then_some(now);
                if method_allowed {
                    return Next::Request(request);
                }
                self.respond(request, &Response::refusal(405, "only GET and HEAD are served"));
            }
        }
        Next::Refused
    }

    /// Puts an answer into the output.
    pub(super) fn respond(&mut self, request: Request, response: &Response) {
        let connection = match (request.keep, request.say_keep) {
            (false, _) => "Connection: close\r\n",
            (true, true) => "Connection: keep-alive\r\n",
            (true, false) => "",
        };
        response.write_to(&mut self.output, request.with_body, connection);
        if !request.keep {
            self.phase = Phase::Finishing;
        }
    }

    fn refuse(&mut self, code: u16, why: &str) {
        let request = Request { route: Route::Unknown, with_body: true, keep: false, say_keep: false };
        self.head_since = None;
        self.input = Vec::new();
        self.respond(request, &Response::refusal(code, why));
    }

    /// Writes what the client takes.
    pub(super) fn flush(&mut self, now: Instant) {
        while self.writable && self.pending() > 0 && self.phase != Phase::Over {
            match self.socket.write(self.output.get(self.written..).unwrap_or_default()) {
                Ok(0) => self.phase = Phase::Over,
                Ok(n) => {
                    self.written += n;
                    self.last_active = now;
                }
                Err(error) => self.failed(&error, false),
            }
        }
        if self.pending() == 0 {
            self.written = 0;
            self.output.clear();
            // A large answer's memory is not kept for a client that may be idle for long.
            self.output.shrink_to(OUTPUT_MAX);
            if self.phase == Phase::Finishing {
                let _ = self.socket.shutdown(Shutdown::Write);
                self.phase =
                    if self.ended { Phase::Over } else { Phase::Lingering { until: now + LINGER, left: LINGER_BYTES } };
            }
        }
    }

    fn pending(&self) -> usize {
        self.output.len() - self.written
    }

    fn failed(&mut self, error: &io::Error, reading: bool) {
        let kind = error.kind();
        if kind == ErrorKind::WouldBlock {
            if reading { self.readable = false } else { self.writable = false }
        } else if kind != ErrorKind::Interrupted {
            self.phase = Phase::Over;
        }
    }
}

enum Parsed {
    Partial,
    Whole { used: usize, method_allowed: bool, request: Request },
    Refused(u16, &'static str),
}

fn parse(input: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let used = match head.parse(input) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => return Parsed::Refused(431, "the request has over 64 headers"),
        Err(httparse::Error::Version) => return Parsed::Refused(505, "only HTTP/1.1 and 1.0 are spoken here"),
        Err(
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::NewLine
            | httparse::Error::Status
            | httparse::Error::Token,
        ) => return Parsed::Refused(400, "not an HTTP request"),
    };
    let old = head.version == Some(0);
    let (mut keep, mut say_keep) = (!old, false);
    for header in head.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("connection") {
            let has = |word: &str| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(word));
            say_keep |= old && has("keep-alive");
            keep = !has("close") && (keep || say_keep);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding")
            || header.name.eq_ignore_ascii_case("content-length") && value != "0"
        {
            // Nothing here takes a body; the connection ends rather than guessing where the next request begins.
            keep = false;
            break;
        }
    }
    let method = head.method.unwrap_or_default();
    let request = Request {
        route: Route::of(head.path.unwrap_or_default()),
        with_body: method != "HEAD",
        keep,
        say_keep: keep && say_keep,
    };
    Parsed::Whole { used, method_allowed: matches!(method, "GET" | "HEAD"), request }
}

#[cfg(test)]
mod tests;
