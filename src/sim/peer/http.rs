//! Requests and answers, as strictly as RFC 9112 words them.

use super::{Ending, Peer, Rules, State};
use crate::sim::exchange::{RestAnswer, RestRequest};
use crate::time::UtcMs;

impl Peer {
    /// Reads whole requests off the inbox until one upgrades, one ends the connection, or the rest is not whole.
    pub(super) fn requests(&mut self, rules: &mut impl Rules, utc: UtcMs) {
        while self.ending.is_none() {
            let State::Http(inbox) = &mut self.state else { return };
            let (request, used) = match parse(inbox) {
                Parsed::Partial => return,
                Parsed::Broken(status, why) => {
                    self.tally.violations += 1;
                    self.answer(status, &[], Body::Text(why), false, utc);
                    return;
                }
                Parsed::Whole(request, used) => (request, used),
            };
            inbox.drain(..used);
            if request.wants_websocket() {
                self.upgrade(&request, rules, utc);
                return;
            }
            let keep_alive = request.keep_alive;
            let head = request.rest.method == "HEAD";
            let RestAnswer { status, headers, body } = rules.rest(&request.rest, utc);
            self.tally.requests += 1;
            self.answer(status, &headers, if head { Body::Head(&body) } else { Body::Json(&body) }, keep_alive, utc);
        }
    }

    pub(super) fn answer(
        &mut self,
        status: u16,
        headers: &[(String, String)],
        body: Body<'_>,
        keep_alive: bool,
        utc: UtcMs,
    ) {
        let (kind, text) = match body {
            Body::Json(text) | Body::Head(text) => ("application/json;charset=UTF-8", text),
            Body::Text(text) => ("text/plain", text),
        };
        let mut head = format!(
            "HTTP/1.1 {status} {}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ndate: {}\r\nconnection: {}\r\n",
            phrase(status),
            text.len(),
            http_date(utc),
            if keep_alive { "keep-alive" } else { "close" },
        );
        for (name, value) in headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        self.out.extend_from_slice(head.as_bytes());
        match body {
            Body::Json(text) | Body::Text(text) => self.out.extend_from_slice(text.as_bytes()),
            Body::Head(_) => {}
        }
        if !keep_alive {
            self.ending = Some(Ending::Close);
        }
        let _ = self.bound();
    }
}

#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    Json(&'a str),
    Text(&'a str),
    /// The length of the text is told, the text is not (answer to HEAD).
    Head(&'a str),
}

pub(super) struct Request {
    pub(super) rest: RestRequest,
    /// Path and query together, as sent.
    pub(super) target: String,
    /// HTTP/1.1 or later 1.x.
    pub(super) modern: bool,
    keep_alive: bool,
}

enum Parsed {
    Partial,
    /// The status to refuse it with, and a word why.
    Broken(u16, &'static str),
    /// The request and the bytes it took.
    Whole(Request, usize),
}

impl Request {
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.rest.headers.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether a list header names this token, over all its lines.
    pub(super) fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name).flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
    }
}

/// The first request in `inbox`, if it is whole.
fn parse(inbox: &[u8]) -> Parsed {
    let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut storage);
    let head_len = match head.parse(inbox) {
        Ok(httparse::Status::Complete(n)) if n <= HEAD_MAX => n,
        Ok(httparse::Status::Partial) if inbox.len() <= HEAD_MAX => return Parsed::Partial,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Parsed::Broken(431, "head too large"),
        Err(_) => return Parsed::Broken(400, "not HTTP/1.1"),
    };
    let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
        return Parsed::Broken(400, "not HTTP/1.1");
    };
    let mut headers = Vec::with_capacity(head.headers.len());
    for header in head.headers.iter() {
        let Ok(value) = std::str::from_utf8(header.value) else {
            return Parsed::Broken(400, "a header is not text");
        };
        headers.push((header.name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    // The absolute form (`GET http://host/path`) means the same (RFC 9112, 3.2.2).
    let target = match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphabetic()) => {
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ => target,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        rest: RestRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: Vec::new(),
        },
        target: target.to_owned(),
        modern: minor >= 1,
        keep_alive: false,
    };
    request.keep_alive = if request.modern {
        !request.has_token("connection", "close")
    } else {
        request.has_token("connection", "keep-alive")
    };
    if request.modern && request.values("host").count() != 1 {
        return Parsed::Broken(400, "exactly one Host is needed");
    }
    if request.values("transfer-encoding").next().is_some() {
        return Parsed::Broken(501, "a body needs Content-Length");
    }
    let mut lengths = request.values("content-length");
    let body_len = match (lengths.next(), lengths.next()) {
        (None, _) => 0,
        (Some(length), None) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            length.parse().unwrap_or(usize::MAX)
        }
        _ => return Parsed::Broken(400, "Content-Length is not one number"),
    };
    drop(lengths);
    if body_len > BODY_MAX {
        return Parsed::Broken(413, "body too large");
    }
    let Some(body) = inbox[head_len..].get(..body_len) else {
        return Parsed::Partial;
    };
    request.rest.body = body.to_vec();
    Parsed::Whole(request, head_len + body_len)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
fn http_date(utc: UtcMs) -> String {
    let stamp = jiff::Timestamp::from_millisecond(utc.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    stamp.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

pub(super) fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        418 => "I'm a teapot",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}

/// Longest request line with headers. The exchange's URLs end near 8000 characters.
pub(super) const HEAD_MAX: usize = 16 * 1024;
/// Most header lines.
const HEADERS_MAX: usize = 64;
/// Longest request body.
const BODY_MAX: usize = 1024 * 1024;
