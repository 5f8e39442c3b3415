//! Reading of recorded frames: one frame a line, plain or zstd, with or without receive time and source.
//!
//! `<receive time, ns since 1970-01-01Z> TAB <source> TAB <frame>`, or the frame alone. Whether a file is compressed is
//! seen from its content. What cannot be a line is counted and passed over; a file that was cut short gives every
//! whole line that is in it, and then says so. Memory does not depend on what is read.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Longest frame that is read, in bytes.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Longest source's name, in bytes.
pub const SOURCE_BYTES_MAX: usize = 128;
/// The same for a line: digits of an i64, two tabs and a carriage return beside source and frame.
const LINE_BYTES_MAX: usize = FRAME_BYTES_MAX + SOURCE_BYTES_MAX + 22;
/// How much is read at once.
const BUFFER_BYTES: usize = 128 * 1024;
/// The source of a frame that stands alone.
pub const NO_SOURCE: &str = "-";

/// One recorded frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was received, in nanoseconds since 1970-01-01Z; `None` for a frame that stands alone.
    pub recv_ns: Option<i64>,
    /// Who received it: a connection or a market; [`NO_SOURCE`] for a frame that stands alone.
    pub source: &'a str,
    /// The text as it was received, well formed or not.
    pub frame: &'a str,
}

/// A recording that is being read.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// let mut recording = binance_edge::recording::Recording::open("rec.jsonl.zst".as_ref())?;
/// while let Some(line) = recording.next_line()? {
///     let _ = (line.recv_ns, line.source, line.frame);
/// }
/// let _ = (recording.malformed(), recording.torn());
/// # Ok(())
/// # }
/// ```
pub struct Recording<'r> {
    input: Box<dyn BufRead + 'r>,
    compressed: bool,
    line: Vec<u8>,
    ended: bool,
    given: u64,
    malformed: u64,
    torn: Option<String>,
}

/// What the input had next.
enum Piece {
    /// A line, its line feed taken off.
    Line,
    /// A line too long to be one; it was passed over.
    TooLong,
    /// What stands behind the last line feed; nothing, if all is well.
    Rest,
}

impl Recording<'static> {
    /// Opens a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        Recording::new(File::open(path)?)
    }
}

impl<'r> Recording<'r> {
    /// Reads from anything.
    ///
    /// # Errors
    /// What `input` says to being read.
    pub fn new(input: impl Read + 'r) -> io::Result<Self> {
        let mut input = Marked(input);
        let mut head = Vec::new();
        input.by_ref().take(4).read_to_end(&mut head)?;
        let compressed = is_zstd(&head);
        let input = BufReader::with_capacity(BUFFER_BYTES, io::Cursor::new(head).chain(input));
        let input: Box<dyn BufRead + 'r> = if compressed {
            let unpacked = zstd::stream::read::Decoder::with_buffer(input)?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, unpacked))
        } else {
            Box::new(input)
        };
        Ok(Self { input, compressed, line: Vec::new(), ended: false, given: 0, malformed: 0, torn: None })
    }

    /// The next frame; `None` at the end, where [`Recording::torn`] knows whether it is the real one.
    ///
    /// # Errors
    /// What the system says to being read, and compressed input of which nothing at all can be unpacked.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        while !self.ended {
            match self.piece()? {
                Piece::TooLong => self.malformed += 1,
                Piece::Line if parse(&self.line).is_some() => {
                    self.given += 1;
                    return Ok(parse(&self.line));
                }
                // an empty line is no line
                Piece::Line if self.line.is_empty() => {}
                Piece::Line => self.malformed += 1,
                Piece::Rest => {
                    self.ended = true;
                    // many a file ends without a line feed; a frame with all its brackets closed was not cut
                    if parse(&self.line).is_some_and(|line| is_closed(line.frame)) {
                        self.given += 1;
                        return Ok(parse(&self.line));
                    }
                    if !self.line.is_empty() && self.torn.is_none() {
                        self.torn = Some(format!("the last line is cut short after {} bytes", self.line.len()));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Lines that were none, so far.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// After the end: why what was given is not all there was, if so. The words are for people.
    pub fn torn(&self) -> Option<&str> {
        self.torn.as_deref()
    }

    /// Fills `line` up to the next line feed.
    fn piece(&mut self) -> io::Result<Piece> {
        self.line.clear();
        let mut too_long = false;
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if self.compressed && !is_of_input(&error) => {
                    let nothing = self.given == 0 && self.malformed == 0 && self.line.is_empty();
                    if nothing && error.kind() != io::ErrorKind::UnexpectedEof {
                        return Err(error);
                    }
                    self.torn = Some(format!("the compressed data is cut short or damaged: {error}"));
                    &[]
                }
                Err(error) => return Err(error),
            };
            let end = memchr::memchr(b'\n', chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            let last = chunk.is_empty();
            if self.line.len() + part.len() > LINE_BYTES_MAX {
                too_long = true;
                self.line.clear();
            } else if !too_long {
                self.line.extend_from_slice(part);
            }
            let taken = part.len() + usize::from(end.is_some());
            self.input.consume(taken);
            if last && too_long {
                self.malformed += 1;
                self.torn.get_or_insert_with(|| "the last line is cut short, and too long to be one".to_owned());
            }
            if last {
                return Ok(Piece::Rest);
            }
            if end.is_some() {
                if self.line.last() == Some(&b'\r') {
                    self.line.pop();
                }
                return Ok(if too_long { Piece::TooLong } else { Piece::Line });
            }
        }
    }
}

/// A line's parts; `None` if it is malformed.
fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = std::str::from_utf8(line).ok()?;
    if line.starts_with(['{', '[']) {
        return (line.len() <= FRAME_BYTES_MAX).then_some(Line { recv_ns: None, source: NO_SOURCE, frame: line });
    }
    let (recv_ns, rest) = line.split_once('\t')?;
    let (source, frame) = rest.split_once('\t')?;
    // parse() alone would take a plus sign
    let digits = !recv_ns.is_empty() && recv_ns.bytes().all(|byte| byte.is_ascii_digit());
    let named = (1..=SOURCE_BYTES_MAX).contains(&source.len()) && !source.chars().any(char::is_control);
    if !digits || !named || frame.len() > FRAME_BYTES_MAX {
        return None;
    }
    Some(Line { recv_ns: Some(recv_ns.parse().ok()?), source, frame })
}

/// True for a text whose brackets are all closed, the last one by its last character.
fn is_closed(frame: &str) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_u32, false, false);
    let frame = frame.trim_end().as_bytes();
    for (at, byte) in frame.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1 == frame.len();
                }
            }
            _ => {}
        }
    }
    false
}

/// True if this is how a zstd file begins: with a frame, or with one to be skipped.
fn is_zstd(bytes: &[u8]) -> bool {
    matches!(bytes, [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Marks the errors of the input itself, so that they are not taken for damaged data.
struct Marked<R>(R);

/// An error of the input itself.
#[derive(Debug)]
struct OfInput(io::Error);

impl std::error::Error for OfInput {}

impl fmt::Display for OfInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<R: Read> Read for Marked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into).map_err(|error| io::Error::new(error.kind(), OfInput(error)))
    }
}

fn is_of_input(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<OfInput>())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Owned = (Option<i64>, String, String);

    /// All lines, how many were malformed, and what is said of the end.
    fn read(bytes: &[u8]) -> (Vec<Owned>, u64, Option<String>) {
        let mut recording = Recording::new(bytes).unwrap();
        let mut lines = Vec::new();
        while let Some(line) = recording.next_line().unwrap() {
            lines.push((line.recv_ns, line.source.to_owned(), line.frame.to_owned()));
        }
        assert_eq!(recording.next_line().unwrap(), None, "the end stays the end");
        (lines, recording.malformed(), recording.torn().map(str::to_owned))
    }

    fn line(recv_ns: i64, source: &str, frame: &str) -> Owned {
        (Some(recv_ns), source.to_owned(), frame.to_owned())
    }

    fn bare(frame: &str) -> Owned {
        (None, "-".to_owned(), frame.to_owned())
    }

    #[test]
    fn lines_come_with_time_and_source_or_alone() {
        let text = "1789000000000000001\tmarket-0\t{\"a\":\"1\\t2\"}\n{\"b\":\t2}\r\n\n[3]\n7\tum\tnot json\n8\tum\t\n";
        let expected = vec![
            line(1_789_000_000_000_000_001, "market-0", "{\"a\":\"1\\t2\"}"),
            bare("{\"b\":\t2}"),
            bare("[3]"),
            line(7, "um", "not json"),
            line(8, "um", ""),
        ];
        assert_eq!(read(text.as_bytes()), (expected.clone(), 0, None));
        let packed = zstd::encode_all(text.as_bytes(), 3).unwrap();
        assert_eq!(read(&packed), (expected, 0, None));
        assert_eq!(read(b""), (vec![], 0, None));
    }

    #[test]
    fn what_is_no_line_is_counted_and_passed_over() {
        let text = "hello\n\t\t{}\n-1\tum\t{}\n+1\tum\t{}\n9223372036854775808\tum\t{}\n1\t\t{}\n1\tum{}\n1.5\tum\t{}\n1\tu\u{7}m\t{}\n2\tum\t{}\n";
        assert_eq!(read(text.as_bytes()), (vec![line(2, "um", "{}")], 9, None));
        assert_eq!(read(b"1\tum\t{\xff}\n{}\n"), (vec![bare("{}")], 1, None));
        let named = format!("1\t{}\t{{}}\n1\t{}\t{{}}\n", "x".repeat(128), "x".repeat(129));
        assert_eq!(read(named.as_bytes()), (vec![line(1, &"x".repeat(128), "{}")], 1, None));
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let head = b"{}\n1\tum\t\"".as_slice();
        let tail = b"\"\n[]\n".as_slice();
        let mut recording = Recording::new(head.chain(io::repeat(b'x').take(64 << 20)).chain(tail)).unwrap();
        assert_eq!(recording.next_line().unwrap().unwrap().frame, "{}");
        assert_eq!(recording.next_line().unwrap().unwrap().frame, "[]");
        assert_eq!(recording.next_line().unwrap(), None);
        assert_eq!((recording.malformed(), recording.torn()), (1, None));
        assert!(recording.line.capacity() <= 2 * LINE_BYTES_MAX, "{}", recording.line.capacity());
        // the longest frame there can be is still a line
        let longest = format!("\"{}\"", "x".repeat(FRAME_BYTES_MAX - 2));
        let text = format!("{}\t{}\t{longest}\r\n", i64::MAX, "s".repeat(SOURCE_BYTES_MAX));
        assert_eq!(read(text.as_bytes()).0.len(), 1);
        let (lines, malformed, torn) = read(&[b"{}\n".as_slice(), &vec![b'y'; 3 << 20]].concat());
        assert_eq!((lines, malformed, torn.is_some()), (vec![bare("{}")], 1, true));
    }

    #[test]
    fn a_torn_tail_is_told_after_every_whole_line() {
        let whole = "1\tum\t{\"a\":\"}\"}\n2\tum\t{\"b\":[\"\\\"\",{}]}";
        let both = vec![line(1, "um", "{\"a\":\"}\"}"), line(2, "um", "{\"b\":[\"\\\"\",{}]}")];
        assert_eq!(read(whole.as_bytes()), (both.clone(), 0, None), "a line feed may be missing, and nothing else");
        for cut in 1..whole.len() - 16 {
            let (lines, malformed, torn) = read(&whole.as_bytes()[..whole.len() - cut]);
            assert_eq!((lines.as_slice(), malformed), (&both[..1], 0), "{cut}");
            let at_line_feed = whole.as_bytes()[whole.len() - cut - 1] == b'\n';
            assert_eq!(torn.is_none(), at_line_feed, "{cut}");
        }
    }

    #[test]
    fn torn_and_damaged_compression_gives_what_it_can() {
        // one zstd frame a second, as the recorder writes
        let seconds: Vec<Vec<u8>> = (0..5)
            .map(|second| {
                let lines: String = (0..200).map(|n| format!("{}\tum\t{{\"n\":{n}}}\n", second * 1000 + n)).collect();
                zstd::encode_all(lines.as_bytes(), 3).unwrap()
            })
            .collect();
        let packed = seconds.concat();
        assert_eq!(read(&packed).0.len(), 1000);
        let mut end = 0;
        for (whole, second) in seconds.iter().enumerate() {
            for cut in (1..second.len()).step_by(37) {
                let (lines, malformed, torn) = read(&packed[..end + cut]);
                assert!(lines.len() >= whole * 200 && lines.len() < (whole + 1) * 200 + 1, "{whole} {cut}");
                let told = torn.is_some() || (whole == 0 && cut < 4);
                assert!(malformed == 0 && told, "{whole} {cut} {malformed} {torn:?}");
                for (n, (recv_ns, ..)) in lines.iter().enumerate() {
                    assert_eq!(*recv_ns, Some((n / 200 * 1000 + n % 200) as i64));
                }
            }
            end += second.len();
        }
        let mut damaged = packed.clone();
        damaged[seconds[0].len()] ^= 0x55;
        let (lines, malformed, torn) = read(&damaged);
        assert_eq!((lines.len(), malformed, torn.is_some()), (200, 0, true));
        // of which nothing at all can be read
        let noise = [b"\x28\xb5\x2f\xfd".as_slice(), &[0xff; 60]].concat();
        let mut nothing = Recording::new(noise.as_slice()).unwrap();
        assert!(nothing.next_line().is_err());
    }

    #[test]
    fn errors_of_the_system_are_no_torn_tail() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, "the disk is gone"))
            }
        }
        let packed = zstd::encode_all(b"{}\n".as_slice(), 3).unwrap();
        for bytes in [b"{}\n[]\n".as_slice(), &packed] {
            let mut recording = Recording::new(bytes.chain(Failing)).unwrap();
            assert!(recording.next_line().unwrap().is_some());
            let error = loop {
                match recording.next_line() {
                    Ok(line) => assert!(line.is_some(), "the error was swallowed"),
                    Err(error) => break error,
                }
            };
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (io::ErrorKind::PermissionDenied, "the disk is gone")
            );
        }
        assert!(Recording::open("/nonexistent".as_ref()).is_err());
    }
}
