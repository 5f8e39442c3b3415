//! Log lines that never make anybody wait: `2026-11-20T23:05:00.123Z INFO  feed market-0: live`.
//!
//! The configured filter is for our own crate. Other crates speak at warn at most: at debug and trace they print whole
//! URLs, and a URL can hold a secret.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::clock::utc_now;
use super::printer::Printer;
use crate::time::{Span, UtcMs};

/// The target under which our own modules log.
const OURS: &str = "binance_edge";
/// Characters of a message that are printed; a peer's words can be of any length.
const MESSAGE_MAX: usize = 4_096;

/// The running logger: for the figures and the end.
#[derive(Clone, Debug)]
pub struct Logger {
    printer: Printer,
}

/// Whether `filter` can be used; in words if not.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), String> {
    env_filter::Builder::new().try_parse(filter).map(|_| ()).map_err(|error| error.to_string())
}

/// Sends all log lines of the process to the standard error, through a bounded queue. The first call alone has an
/// effect; later ones return the same logger.
///
/// # Errors
/// If the thread cannot be started or another logger is installed.
pub fn start(filter: &str) -> io::Result<Logger> {
    static RUNNING: OnceLock<Logger> = OnceLock::new();
    if let Some(running) = RUNNING.get() {
        return Ok(running.clone());
    }
    let colour = io::stderr().is_terminal();
    let printer = Printer::start("log", io::stderr(), Some(lost))?;
    let gate = Gate::new(filter, colour, printer.clone());
    log::set_max_level(gate.most());
    log::set_boxed_logger(Box::new(gate)).map_err(io::Error::other)?;
    Ok(RUNNING.get_or_init(|| Logger { printer }).clone())
}

impl Logger {
    /// Lines lost because nobody read them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.printer.dropped()
    }

    /// Waits until everything logged so far was written, at most `within`. True if it was written.
    pub fn flush(&self, within: Span) -> bool {
        self.printer.flush(within)
    }
}

/// What `env_logger` formats, behind the rule about other crates.
struct Gate {
    ours: env_logger::Logger,
}

impl Gate {
    fn new(filter: &str, colour: bool, printer: Printer) -> Self {
        let ours = env_logger::Builder::new()
            .parse_filters(filter)
            .target(env_logger::Target::Pipe(Box::new(Queue(printer))))
            .format(move |out, record| {
                let message = record.args().to_string();
                let at = utc_now();
                writeln!(out, "{}", Line { at, record_level: record.level(), target: record.target(), message, colour })
            })
            .build();
        Self { ours }
    }

    /// The most talkative level that can pass.
    fn most(&self) -> LevelFilter {
        self.ours.filter()
    }
}

impl Log for Gate {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        (is_ours(metadata.target()) || metadata.level() <= Level::Warn) && self.ours.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.ours.log(record);
        }
    }

    fn flush(&self) {}
}

fn is_ours(target: &str) -> bool {
    target.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Takes one formatted line at a time from `env_logger`.
struct Queue(Printer);

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A dropped line is counted; telling the caller would only make `env_logger` print to the stream itself.
        let _ = self.0.print(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lost(lines: u64) -> String {
    let at = utc_now();
    let message = format!("{lines} lines were dropped: nobody read them in time");
    Line { at, record_level: Level::Warn, target: "binance_edge::log", message, colour: false }.to_string()
}

/// One line as it is printed, without the line feed.
struct Line<'a> {
    at: UtcMs,
    record_level: Level,
    target: &'a str,
    message: String,
    colour: bool,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (on, off) = match (self.colour, self.record_level) {
            (true, Level::Error) => ("\x1b[31m", "\x1b[0m"),
            (true, Level::Warn) => ("\x1b[33m", "\x1b[0m"),
            (true, Level::Debug | Level::Trace) => ("\x1b[2m", "\x1b[0m"),
            (true, Level::Info) | (false, _) => ("", ""),
        };
        // Of our own modules the last name is enough, of another crate its name.
        let part = if is_ours(self.target) {
            self.target.rsplit("::").next().map_or("", |last| if last == OURS { "edge" } else { last })
        } else {
            self.target.split("::").next().unwrap_or_default()
        };
        write!(f, "{} {on}{:<5}{off} {part} {}", self.at, self.record_level, Plain(&self.message))
    }
}

/// Text from anywhere as one line that a terminal shows and does not obey.
pub struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut end = self.0.char_indices().map(|(at, _)| at).skip(MESSAGE_MAX);
        let (text, cut) = end.next().map_or((self.0, false), |at| (self.0.get(..at).unwrap_or_default(), true));
        if text.chars().any(is_unprintable) {
            for c in text.chars() {
                if is_unprintable(c) { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
            }
        } else {
            f.write_str(text)?;
        }
        if cut { f.write_str("…") } else { Ok(()) }
    }
}

/// Control characters, line separators, and those that change the direction in which the rest is read.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(filter: &str, records: &[(&str, Level, &str)]) -> Vec<String> {
        let sink = Sink::default();
        let printer = Printer::start("test", sink.clone(), None).unwrap();
        let gate = Gate::new(filter, false, printer.clone());
        for (target, level, text) in records {
            gate.log(&Record::builder().target(target).level(*level).args(format_args!("{text}")).build());
        }
        assert!(printer.flush(Span::from_secs(20)));
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_have_the_promised_form() {
        let line = Line {
            at: UtcMs(1_795_215_900_123),
            record_level: Level::Info,
            target: "binance_edge::market::feed",
            message: "market-0: live".into(),
            colour: false,
        };
        assert_eq!(line.to_string(), "2026-11-20T23:05:00.123Z INFO  feed market-0: live");
        let colour = Line { colour: true, record_level: Level::Error, ..line };
        assert_eq!(colour.to_string(), "2026-11-20T23:05:00.123Z \x1b[31mERROR\x1b[0m feed market-0: live");
    }

    #[test]
    fn other_crates_speak_at_warn_at_most() {
        let lines = printed(
            "trace",
            &[
                ("ureq::run", Level::Trace, "https://api.telegram.org/botCANARY/"),
                ("tungstenite::client", Level::Debug, "CANARY"),
                ("binance_edgey", Level::Info, "CANARY"),
                ("rustls::check", Level::Warn, "a warning"),
                ("binance_edge::net::link", Level::Trace, "our own"),
                ("binance_edge", Level::Info, "the crate"),
            ],
        );
        let ends: Vec<_> = lines.iter().map(|line| line.split_at(25).1).collect();
        assert_eq!(ends, ["WARN  rustls a warning", "TRACE link our own", "INFO  edge the crate"]);
    }

    #[test]
    fn the_filter_is_obeyed_and_checked() {
        let lines = printed(
            "warn,binance_edge::net=debug",
            &[("binance_edge::market", Level::Info, "no"), ("binance_edge::net", Level::Debug, "yes")],
        );
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(check_filter("info,binance_edge::net=debug").is_ok());
        assert!(check_filter("binance_edge=loud").is_err());
    }

    #[test]
    fn what_a_peer_says_stays_on_its_line() {
        let lines = printed("info", &[("binance_edge", Level::Info, "a\nb\x1b[31m\u{202e}c\u{85}")]);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with(r"a\nb\u{1b}[31m\u{202e}c\u{85}"), "{}", lines[0]);
        assert_eq!(Plain(&"é".repeat(5_000)).to_string().chars().count(), MESSAGE_MAX + 1);
    }
}
