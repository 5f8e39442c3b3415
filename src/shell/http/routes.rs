//! Which path says what.

use std::fmt::Write;

use serde::Serialize;

use crate::shell::metrics;
use crate::shell::watchdog::Gauge;
use crate::status::{Level, Status, Stream};
use crate::time::Span;

/// The loop's age from which it counts as not turning.
const LATE: Span = Span::from_secs(1);
/// The page: one file, nothing fetched from anywhere but here.
const PAGE: &str = include_str!("page.html");
const JSON: &str = "application/json";
/// The page may run its own script and ask its own server, nothing else.
const PAGE_POLICY: &str = "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; \
     script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'\r\n";

/// A path that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Status,
    Ready,
    Metrics,
    Health,
    Page,
    Unknown,
}

impl Route {
    /// Of a request's target, whatever its query.
    pub(super) fn of(target: &str) -> Self {
        let path = target.split(['?', '#']).next().unwrap_or_default();
        // The absolute form, as proxies send it.
        let path = path.strip_prefix("http://").map_or(path, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
        match path {
            "/status" => Self::Status,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Health,
            "/" => Self::Page,
            _ => Self::Unknown,
        }
    }

    /// Whether the answer is made of a snapshot.
    pub(super) fn needs_snapshot(self) -> bool {
        match self {
            Self::Status | Self::Ready | Self::Metrics => true,
            Self::Health | Self::Page | Self::Unknown => false,
        }
    }
}

/// One answer, without the connection's own headers.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) code: u16,
    pub(super) kind: &'static str,
    /// Whole lines.
    pub(super) headers: &'static str,
    pub(super) body: Vec<u8>,
}

impl Response {
    fn json(code: u16, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => Self { code, kind: JSON, headers: "", body },
            Err(error) => Self::refusal(500, &error.to_string()),
        }
    }

    /// `{"error":"…"}`
    pub(super) fn refusal(code: u16, why: &str) -> Self {
        let headers = if code == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let body = serde_json::json!({ "error": why }).to_string().into_bytes();
        Self { code, kind: JSON, headers, body }
    }

    /// As bytes; `length` is said even if the body is not sent.
    pub(super) fn write_to(&self, out: &mut Vec<u8>, with_body: bool, connection: &str) {
        let mut head = String::with_capacity(256);
        // Writing to a String cannot fail.
        let _ = write!(
            head,
            "HTTP/1.1 {} {}\r\nDate: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n{}{connection}\r\n",
            self.code,
            phrase(self.code),
            date(),
            self.kind,
            self.body.len(),
            self.headers,
        );
        out.extend_from_slice(head.as_bytes());
        if with_body {
            out.extend_from_slice(&self.body);
        }
    }
}

fn phrase(code: u16) -> &'static str {
    match code {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

/// `Fri, 20 Nov 2026 23:05:00 GMT`
fn date() -> String {
    let now = crate::shell::clock::utc_now();
    jiff::Timestamp::from_millisecond(now.0)
        .and_then(|stamp| jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&stamp))
        .unwrap_or_else(|_| "Thu, 01 Jan 1970 00:00:00 GMT".into())
}

/// The answer of a route, from the newest snapshot and the loop's own figures of this moment.
pub(super) fn answer(route: Route, snapshot: &mut Status, gauge: &Gauge) -> Response {
    let age = gauge.last_turn_age();
    match route {
        Route::Status => {
            snapshot.turns = gauge.turns();
            if age < LATE { Response::json(200, snapshot) } else { Response::json(200, &late(snapshot, age)) }
        }
        Route::Metrics => {
            snapshot.turns = gauge.turns();
            let body = if age < LATE { metrics::render(snapshot) } else { metrics::render(&late(snapshot, age)) };
            Response { code: 200, kind: metrics::CONTENT_TYPE, headers: "", body: body.into_bytes() }
        }
        Route::Ready => ready(&snapshot.streams, age),
        Route::Health => {
            #[derive(Serialize)]
            struct Body {
                ok: bool,
                last_turn_age_ms: u64,
            }
            let ok = age < LATE;
            Response::json(if ok { 200 } else { 503 }, &Body { ok, last_turn_age_ms: age.as_ms() })
        }
        Route::Page => {
            Response { code: 200, kind: "text/html; charset=utf-8", headers: PAGE_POLICY, body: PAGE.into() }
        }
        Route::Unknown => Response::refusal(404, "not found; there are / /status /healthz /readyz /metrics"),
    }
}

/// The last snapshot of a loop that does not turn: all that is true of it is that it was.
fn late(snapshot: &Status, age: Span) -> Status {
    let mut status = snapshot.clone();
    status.health.level = Level::Unhealthy;
    status.health.reasons.insert(0, format!("loop: no turn for {age}; the rest is as of {}", status.now));
    status
}

fn ready(streams: &[Stream], age: Span) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        ready: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        not_live: Option<Vec<&'a str>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    let not_live: Vec<_> = streams.iter().filter(|row| !is_live_or_quiet(row)).map(|row| row.stream.as_str()).collect();
    let reason = if age >= LATE {
        Some(format!("loop: no turn for {age}"))
    } else if streams.is_empty() {
        Some("no stream is known yet".into())
    } else {
        None
    };
    if not_live.is_empty() && reason.is_none() {
        Response::json(200, &Body { ready: true, not_live: None, reason: None })
    } else {
        Response::json(503, &Body { ready: false, not_live: Some(not_live), reason })
    }
}

fn is_live_or_quiet(row: &Stream) -> bool {
    match row.state {
        "live" => true,
        "acked" => row.reason.as_deref().is_some_and(|reason| reason.starts_with("quiet")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_find_their_routes() {
        for (target, route) in [
            ("/status", Route::Status),
            ("/status?pretty", Route::Status),
            ("http://127.0.0.1:9464/metrics", Route::Metrics),
            ("http://127.0.0.1:9464", Route::Page),
            ("/", Route::Page),
            ("/?x=1", Route::Page),
            ("/status/", Route::Unknown),
            ("*", Route::Unknown),
            ("", Route::Unknown),
        ] {
            assert_eq!(Route::of(target), route, "{target}");
        }
    }

    #[test]
    fn readiness_is_live_or_quiet_and_nothing_else() {
        let mut status = crate::shell::sample::status();
        let body = |status: &Status, age| {
            let response = ready(&status.streams, age);
            (response.code, String::from_utf8(response.body).unwrap())
        };
        let failing = r#"{"ready":false,"not_live":["ethusdt@markPrice@1s","ethusdt@kline_1m"]}"#;
        assert_eq!(body(&status, Span::ZERO), (503, failing.into()));
        status.streams.retain(is_live_or_quiet);
        assert_eq!(status.streams.len(), 4, "three live, one quiet");
        assert_eq!(body(&status, Span::ZERO), (200, r#"{"ready":true}"#.into()));
        assert_eq!(body(&status, Span::from_secs(2)).0, 503, "nobody knows");
        status.streams[3].reason = None;
        assert_eq!(body(&status, Span::ZERO).0, 503, "acknowledged is not live");
        status.streams.clear();
        assert_eq!(body(&status, Span::ZERO).0, 503, "nothing is known");
    }

    #[test]
    fn a_loop_that_does_not_turn_is_said_first() {
        let status = late(&crate::shell::sample::status(), Span::from_ms(3_200));
        assert_eq!(status.health.level, Level::Unhealthy);
        assert_eq!(status.health.reasons[0], "loop: no turn for 3200ms; the rest is as of 2026-11-20T23:05:00.000Z");
        assert_eq!(status.health.reasons.len(), 2);
    }
}
