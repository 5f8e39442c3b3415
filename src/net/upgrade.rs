//! The WebSocket upgrade: our request, and a strict reading of the answer.
//!
//! tungstenite has a handshake, but it accepts an extension that nobody asked for, keeps its own limits on small reads,
//! and hides what we must obey (`Retry-After`).

use super::ending::escaped;
use crate::time::Span;
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

/// Longest head of an answer. Real ones are below 1 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest we let a peer send us away; bans last up to three days.
const RETRY_AFTER_MAX_S: u64 = 3 * 86_400;

pub(super) struct Upgrade {
    key: String,
    head: Vec<u8>,
}

/// The peer does not upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reason: String,
    pub(super) retry_after: Option<Span>,
}

impl Refused {
    fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retry_after: None }
    }
}

impl Upgrade {
    pub(super) fn new() -> Self {
        Self { key: generate_key(), head: Vec::new() }
    }

    /// The text of our request. No extension is offered: compression costs latency and is an attack surface.
    pub(super) fn request(&self, authority: &str, target: &str) -> String {
        format!(
            "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: binance-edge/{}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
            env!("CARGO_PKG_VERSION"),
            self.key
        )
    }

    /// Takes more of the answer. `Some` when its head is complete and good: what came behind it belongs to the frames.
    pub(super) fn received(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
        let searched = self.head.len().saturating_sub(3);
        self.head.extend_from_slice(bytes);
        let Some(end) = memchr::memmem::find(&self.head[searched..], b"\r\n\r\n").map(|at| searched + at + 4) else {
            if self.head.len() > HEAD_BYTES_MAX {
                return Err(Refused::because(format!("answer's head exceeds {HEAD_BYTES_MAX} bytes")));
            }
            // Something that is no HTTP at all need not run into the deadline.
            if self.head.len() >= 5 && !self.head.starts_with(b"HTTP/") {
                return Err(Refused::because("answer is not HTTP"));
            }
            return Ok(None);
        };
        if end > HEAD_BYTES_MAX {
            return Err(Refused::because(format!("answer's head exceeds {HEAD_BYTES_MAX} bytes")));
        }
        self.check(end)?;
        Ok(Some(self.head.split_off(end)))
    }

    fn check(&self, end: usize) -> Result<(), Refused> {
        let mut headers = [httparse::EMPTY_HEADER; 96];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&self.head[..end]) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(Refused::because("answer is not complete HTTP")),
            Err(error) => return Err(Refused::because(format!("answer is not HTTP: {error}"))),
        }
        let header = |name: &str| {
            response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value.trim_ascii())
        };
        let status = response.code.unwrap_or(0);
        if status != 101 {
            let phrase = escaped(response.reason.unwrap_or(""), 40);
            let asked = header("retry-after")
                .and_then(|value| std::str::from_utf8(value).ok()?.parse::<u64>().ok())
                .map(|seconds| Span::from_secs(seconds.min(RETRY_AFTER_MAX_S)));
            // A ban without a length: a full minute, as the venue's clients do.
            let retry_after = asked.or((status == 418).then_some(Span::from_secs(60)));
            let reason = match retry_after {
                Some(wait) => format!("HTTP {status} {phrase}, retry after {wait}"),
                None => format!("HTTP {status} {phrase}"),
            };
            return Err(Refused { reason: reason.trim_end().to_owned(), retry_after });
        }
        if !header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")) {
            return Err(Refused::because("101 without \"Upgrade: websocket\""));
        }
        let is_upgrade = |value: &[u8]| {
            value.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        };
        if !header("connection").is_some_and(is_upgrade) {
            return Err(Refused::because("101 without \"Connection: Upgrade\""));
        }
        if header("sec-websocket-accept") != Some(derive_accept_key(self.key.as_bytes()).as_bytes()) {
            return Err(Refused::because("101 with a wrong Sec-WebSocket-Accept"));
        }
        if header("sec-websocket-extensions").is_some() {
            return Err(Refused::because("101 with an extension nobody asked for"));
        }
        if header("sec-websocket-protocol").is_some() {
            return Err(Refused::because("101 with a subprotocol nobody asked for"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(upgrade: &Upgrade, extra: &str) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{extra}\r\n",
            derive_accept_key(upgrade.key.as_bytes())
        )
    }

    #[test]
    fn frames_glued_to_the_answer_are_kept_wherever_it_is_cut() {
        let text = {
            let upgrade = Upgrade::new();
            (answer(&upgrade, "") + "FRAMES", upgrade.key)
        };
        for cut in 0..text.0.len() {
            let mut upgrade = Upgrade { key: text.1.clone(), head: Vec::new() };
            let (first, second) = text.0.as_bytes().split_at(cut);
            let mut rest = upgrade.received(first).unwrap();
            if rest.is_none() {
                rest = upgrade.received(second).unwrap();
                assert_eq!(rest.as_deref(), Some(&b"FRAMES"[..]), "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_nobody_asked_for_is_refused() {
        for extra in ["Sec-WebSocket-Extensions: permessage-deflate\r\n", "Sec-WebSocket-Protocol: mqtt\r\n"] {
            let mut upgrade = Upgrade::new();
            let text = answer(&upgrade, extra);
            assert!(upgrade.received(text.as_bytes()).unwrap_err().reason.contains("nobody asked for"));
        }
        let mut upgrade = Upgrade::new();
        let text = answer(&Upgrade::new(), "");
        assert!(upgrade.received(text.as_bytes()).unwrap_err().reason.contains("Accept"));
    }

    #[test]
    fn a_refusal_says_its_status_and_how_long_to_stay_away() {
        let check = |text: &str| Upgrade::new().received(text.as_bytes()).unwrap_err();
        let refused = check("HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\n\r\n");
        assert_eq!(refused.retry_after, Some(Span::from_secs(7)));
        assert_eq!(refused.reason, "HTTP 429 Too Many Requests, retry after 7s");
        assert_eq!(check("HTTP/1.1 418 \r\n\r\n").retry_after, Some(Span::from_secs(60)));
        assert_eq!(check("HTTP/1.1 403 Forbidden\r\n\r\n").retry_after, None);
        assert_eq!(check("HTTP/1.1 301 Moved\r\nLocation: https://elsewhere\r\n\r\n").reason, "HTTP 301 Moved");
        assert_eq!(check("SSH-2.0-OpenSSH\r\n").reason, "answer is not HTTP");
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(4000));
        assert!(check(&endless).reason.contains("exceeds"));
    }
}
