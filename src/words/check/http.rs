//! The one question to REST, what time it is there, and what its answer says about our clock.

use super::clean;
use super::direct::of_io;
use super::stages::{Cause, Failure};
use crate::shell::clock::SystemClock;
use crate::time::{Instant, Now, Span};
use std::io::{ErrorKind, Read, Write};

/// Longest head and longest body of an answer; real ones are below 1 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Characters of a peer's own words that are repeated.
const WORDS_MAX: usize = 120;
/// A clock that is further off makes signed requests fail.
const CLOCK_OFF_MAX: Span = Span::from_secs(1);

/// A GET.
pub(super) struct Question {
    /// As the `Host` header names it.
    pub(super) authority: String,
    /// Path and query.
    pub(super) target: String,
}

/// What came back, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    status: u16,
    phrase: String,
    retry_after: Option<String>,
    body: Vec<u8>,
    /// When the question left.
    sent: Now,
    /// When the first byte of the answer was there.
    began: Instant,
}

/// Sends the question and reads the whole answer. How long that may take is the stream's affair.
pub(super) fn ask(
    stream: &mut (impl Read + Write),
    question: &Question,
    clock: SystemClock,
) -> Result<Answer, Failure> {
    let text = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: binance-edge/{}\r\nAccept: application/json\r\n\
         Accept-Encoding: identity\r\nConnection: close\r\n\r\n",
        question.target,
        question.authority,
        env!("CARGO_PKG_VERSION"),
    );
    let mut bytes = Vec::new();
    let failed = |error: std::io::Error, bytes: &[u8]| {
        of_io(&error, || match bytes.len() {
            0 => "no answer".to_owned(),
            n => format!("stalled after {n} bytes"),
        })
    };
    let sent = clock.now();
    stream.write_all(text.as_bytes()).and_then(|()| stream.flush()).map_err(|error| failed(error, &bytes))?;
    let mut began = None;
    let mut buffer = [0; 4096];
    loop {
        let n = match stream.read(&mut buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // Without TLS's goodbye; whether something is missing shows in what came.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(failed(error, &bytes)),
        };
        let began = *began.get_or_insert_with(|| clock.mono());
        bytes.extend_from_slice(&buffer[..n]);
        let wrong = |words: String| Failure::new(Cause::Words, words);
        if let Some((status, phrase, retry_after, body)) = read(&bytes, n == 0).map_err(wrong)? {
            return Ok(Answer { status, phrase, retry_after, body, sent, began });
        }
        if n == 0 {
            let words = match bytes.len() {
                0 => "peer ended the connection instead of answering".to_owned(),
                n => format!("peer ended the connection after {n} bytes of its answer"),
            };
            return Err(Failure::new(Cause::Cut, words));
        }
    }
}

type Parts = (u16, String, Option<String>, Vec<u8>);

/// Status, phrase, `Retry-After` and body, if all of the answer is there. `end`: nothing more will come.
fn read(bytes: &[u8], end: bool) -> Result<Option<Parts>, String> {
    let Some(head) = memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
        if bytes.len() >= 5 && !bytes.starts_with(b"HTTP/") {
            return Err("answer is not HTTP".to_owned());
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(format!("answer's head exceeds {HEAD_BYTES_MAX} bytes"));
        }
        return Ok(None);
    };
    let mut headers = [httparse::EMPTY_HEADER; 96];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(&bytes[..head]) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err("answer is not complete HTTP".to_owned()),
        Err(error) => return Err(format!("answer is not HTTP: {error}")),
    }
    let header = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
    };
    let rest = &bytes[head..];
    let body = if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        unchunked(rest)?
    } else if let Some(length) = header("content-length") {
        let length: usize = length.parse().map_err(|_| "answer with a Content-Length that is no number".to_owned())?;
        if length > BODY_BYTES_MAX {
            return Err(format!("answer of {length} bytes exceeds {BODY_BYTES_MAX}"));
        }
        rest.get(..length).map(<[u8]>::to_vec)
    } else {
        end.then(|| rest.to_vec())
    };
    if rest.len() > BODY_BYTES_MAX {
        return Err(format!("answer exceeds {BODY_BYTES_MAX} bytes"));
    }
    let phrase = clean(response.reason.unwrap_or_default());
    Ok(body.map(|body| (response.code.unwrap_or_default(), phrase, header("retry-after"), body)))
}

/// The body in these chunks; `None` before the last of them is there.
fn unchunked(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let mut body = Vec::new();
    loop {
        let (start, size) = match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete(chunk)) => chunk,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err("answer with a malformed chunk".to_owned()),
        };
        if size == 0 {
            return Ok(Some(body));
        }
        let size = usize::try_from(size).ok().filter(|size| *size <= BODY_BYTES_MAX);
        let size = size.ok_or_else(|| format!("answer's chunk exceeds {BODY_BYTES_MAX} bytes"))?;
        let Some(chunk) = bytes.get(start..start + size) else { return Ok(None) };
        body.extend_from_slice(chunk);
        // Behind each chunk stands an empty line's worth of CRLF.
        let Some(rest) = bytes.get(start + size + 2..) else { return Ok(None) };
        bytes = rest;
    }
}

/// The server's time in an answer, in milliseconds.
pub(super) fn server_time(answer: &Answer) -> Result<i64, Failure> {
    let said: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    if answer.status != 200 {
        let mut words = format!("HTTP {} {}", answer.status, answer.phrase).trim_end().to_owned();
        if let Some(wait) = &answer.retry_after {
            words.push_str(&format!(", retry after {}", first(wait)));
        }
        if (300..400).contains(&answer.status) {
            words.push_str(", and redirects are not followed");
        }
        // The venue's own errors; a page of HTML says nothing more than its status.
        let code = said.as_ref().and_then(|said| said.get("code")?.as_i64());
        if let Some((code, msg)) = code.zip(said.as_ref().and_then(|said| said.get("msg")?.as_str())) {
            words.push_str(&format!(": {code} {}", first(msg)));
        }
        return Err(Failure::new(Cause::Words, words));
    }
    said.as_ref().and_then(|said| said.get("serverTime")?.as_i64()).ok_or_else(|| {
        let body = String::from_utf8_lossy(&answer.body);
        Failure::new(Cause::Words, format!("HTTP 200 without a serverTime: {:?}", first(&body)))
    })
}

fn first(words: &str) -> String {
    clean(&words.chars().take(WORDS_MAX).collect::<String>())
}

/// Our clock against the server's, in words. The server read its clock at some moment between our sending and the
/// answer's first byte: half of that is the error. It fails only if it is off whatever that moment was.
pub(super) fn judge_clock(answer: &Answer, server_ms: i64) -> Result<String, Failure> {
    const MS: i128 = 1_000_000;
    let half = i128::from(answer.began.since(answer.sent.mono).as_ns() / 2);
    let ahead = i128::from(answer.sent.utc_ns) + half - i128::from(server_ms) * MS;
    // The server's milliseconds are rounded down.
    let error = half + MS;
    let (off, error_ms) = (ahead.abs(), error / MS + 1);
    if off - error <= i128::from(CLOCK_OFF_MAX.as_ns()) {
        return Ok(format!("{:+}ms (±{error_ms})", ahead / MS));
    }
    let which = if ahead > 0 { "ahead of" } else { "behind" };
    let off = Span::from_ns(u64::try_from(off).unwrap_or(u64::MAX));
    let off = Span::from_ms(off.as_ms());
    Err(Failure::new(Cause::Clock, format!("this machine's clock is {off} {which} the server's (±{error_ms}ms)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Option<Parts> {
        read(text.as_bytes(), false).unwrap()
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            phrase: "Phrase".into(),
            retry_after: None,
            body: body.as_bytes().to_vec(),
            sent: Now { mono: Instant::ZERO, utc_ns: 1_700_000_000_000_000_000 },
            began: Instant::ZERO + Span::from_ms(40),
        }
    }

    #[test]
    fn an_answer_is_whole_when_its_length_its_last_chunk_or_its_end_is_there() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n",
        ] {
            for cut in 0..text.len() {
                assert_eq!(whole(&text[..cut]), None, "cut at {cut}");
            }
            assert_eq!(whole(text).unwrap(), (200, "OK".into(), None, b"hello".to_vec()));
        }
        let endless = "HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\n\r\nhel";
        assert_eq!(whole(endless), None);
        let (status, _, wait, body) = read(endless.as_bytes(), true).unwrap().unwrap();
        assert_eq!((status, wait.as_deref(), body.as_slice()), (429, Some("7"), &b"hel"[..]));
    }

    #[test]
    fn what_is_too_long_or_no_http_is_refused_at_once() {
        for text in [
            "SSH-2.0-x".to_owned(),
            format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(4_000)),
            "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
            format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(70_000)),
        ] {
            assert!(read(text.as_bytes(), false).is_err(), "{}", &text[..40.min(text.len())]);
        }
    }

    #[test]
    fn an_error_says_status_wait_and_the_venues_words() {
        let banned =
            Answer { retry_after: Some("60".into()), ..answer(418, r#"{"code":-1003,"msg":"banned\nuntil"}"#) };
        let failure = server_time(&banned).unwrap_err();
        assert_eq!(failure.reason, "HTTP 418 Phrase, retry after 60: -1003 banned?until");
        assert_eq!(server_time(&answer(403, "<html>")).unwrap_err().reason, "HTTP 403 Phrase");
        assert!(server_time(&answer(302, "")).unwrap_err().reason.contains("not followed"));
        assert!(server_time(&answer(200, "{}")).unwrap_err().reason.contains("without a serverTime"));
        assert!(server_time(&answer(200, r#"{"serverTime":"1"}"#)).is_err());
        assert_eq!(server_time(&answer(200, r#"{"serverTime":17}"#)), Ok(17));
    }

    #[test]
    fn a_clock_fails_beyond_a_second_and_beyond_doubt() {
        // Sent at …000, answered 40 ms later: the server read its clock at …020, give or take 20.
        let judge = |server_ms: i64| judge_clock(&answer(200, ""), 1_700_000_000_000 + server_ms);
        assert_eq!(judge(20).unwrap(), "+0ms (±22)");
        assert_eq!(judge(-480).unwrap(), "+500ms (±22)");
        assert_eq!(judge(1_020).unwrap(), "-1000ms (±22)");
        assert!(judge(1_041).is_ok(), "it may be exactly one second");
        assert_eq!(judge(3_020).unwrap_err().reason, "this machine's clock is 3s behind the server's (±22ms)");
        assert_eq!(judge(-4_980).unwrap_err().reason, "this machine's clock is 5s ahead of the server's (±22ms)");
        assert!(judge_clock(&answer(200, ""), i64::MIN).is_err() && judge_clock(&answer(200, ""), i64::MAX).is_err());
    }
}
