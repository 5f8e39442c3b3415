//! `replay`: recorded frames through the parser and the market of the live process; same input, same output.

use super::columns::{Table, line};
use super::{FAILED, clean, complain, print};
use crate::config::TapeLimits;
use crate::recording::Recording;
use crate::replay::{Counts, Replay, Report};
use crate::status::{Candles, Symbol, Trades};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What to replay and how to show it.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// Recorded frames, plain or .zst; several are one sequence in the order given
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Reads all files, then says what they hold. A file that cannot be read is the end of it, without a document.
pub fn run(args: ReplayArgs) -> ExitCode {
    let mut replay = Replay::new(TapeLimits::default());
    let mut progress = Progress::new();
    let mut files = Vec::new();
    for path in &args.files {
        let name = path.display().to_string();
        let read = read(path, &name, &mut replay, &mut progress);
        progress.clear();
        match read {
            Ok(file) => {
                if let Some(reason) = &file.torn {
                    complain(format_args!("{}: {reason}", clean(&name)));
                }
                files.push(file);
            }
            Err(error) => {
                complain(format_args!("{}: {error}", clean(&name)));
                return ExitCode::from(FAILED);
            }
        }
    }
    let report = replay.report();
    if !args.json {
        return print(&page(&files, &report));
    }
    match serde_json::to_string(&Document::of(&files, &report)) {
        Ok(document) => print(&format!("{document}\n")),
        Err(error) => {
            complain(error);
            ExitCode::from(FAILED)
        }
    }
}

/// One file, as far as it could be read.
struct FileRead {
    name: String,
    counts: Counts,
    malformed: u64,
    torn: Option<String>,
}

fn read(path: &Path, name: &str, replay: &mut Replay, progress: &mut Progress) -> io::Result<FileRead> {
    let mut recording = Recording::open(path)?;
    let before = replay.counts();
    while let Some(line) = recording.next_line()? {
        replay.take(&line);
        progress.step(name, replay);
    }
    let malformed = recording.malformed();
    replay.take_malformed(malformed);
    Ok(FileRead {
        name: name.to_owned(),
        counts: replay.counts().since(before),
        malformed,
        torn: recording.torn().map(str::to_owned),
    })
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'r> {
    #[serde(flatten)]
    report: &'r Report,
    /// Files whose end is not the real one.
    torn: Vec<Torn<'r>>,
}

#[derive(Serialize)]
struct Torn<'r> {
    file: &'r str,
    reason: &'r str,
}

impl<'r> Document<'r> {
    fn of(files: &'r [FileRead], report: &'r Report) -> Self {
        let torn = files.iter().filter_map(|file| Some(Torn { file: &file.name, reason: file.torn.as_deref()? }));
        Self { report, torn: torn.collect() }
    }
}

/// The same for people.
fn page(files: &[FileRead], report: &Report) -> String {
    let mut page = String::new();
    let Counts { frames, rejected, passed_over, applied } = report.counts;
    line(&mut page, &format!("{frames} frames: {applied} applied, {passed_over} passed over, {rejected} rejected"));
    let reasons: Vec<_> = report.rejected_by.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    if !reasons.is_empty() {
        line(&mut page, &format!("rejected by reason: {}", reasons.join(", ")));
    }
    if report.rejected_rows > 0 {
        line(&mut page, &format!("rows refused inside arrays of mark prices: {}", report.rejected_rows));
    }
    let mut table = Table::new(["FILE", "FRAMES", "APPLIED", "PASSED OVER", "REJECTED", "OF THEM NO LINE"]);
    for file in files {
        table.row([
            clean(&file.name),
            file.counts.frames.to_string(),
            file.counts.applied.to_string(),
            file.counts.passed_over.to_string(),
            file.counts.rejected.to_string(),
            file.malformed.to_string(),
        ]);
        if let Some(reason) = &file.torn {
            table.note(reason.clone());
        }
    }
    table.draw(&mut page);
    symbols(&mut page, report);
    page
}

fn symbols(page: &mut String, report: &Report) {
    let mut table = Table::new([
        "SOURCE",
        "SYMBOL",
        "TRADES",
        "HELD",
        "FIRST..LAST ID",
        "DUPLICATES",
        "MISSING",
        "HOLES",
        "MARK",
        "CANDLES",
    ]);
    for (source, of_source) in &report.sources {
        if of_source.symbols.is_empty() {
            let none = || "-".to_owned();
            let cells = std::array::from_fn(|at| if at == 0 { clean(source) } else { none() });
            table.row(cells);
        }
        for (name, symbol) in &of_source.symbols {
            table.row(cells(source, name, symbol));
            if let Some(trades) = &symbol.trades {
                holes(trades, |note| table.note(note));
            }
        }
    }
    table.draw(page);
}

fn cells(source: &str, name: &str, symbol: &Symbol) -> [String; 10] {
    let of_trades = |show: &dyn Fn(&Trades) -> String| symbol.trades.as_ref().map_or_else(|| "-".to_owned(), show);
    let candles: Vec<_> = symbol.candles.iter().map(|(interval, row)| candle(interval, row)).collect();
    [
        clean(source),
        clean(name),
        of_trades(&|trades| trades.received.to_string()),
        of_trades(&|trades| trades.len.to_string()),
        of_trades(&|trades| match (trades.first_id, trades.last_id) {
            (Some(first), Some(last)) => format!("{first}..{last}"),
            _ => "-".to_owned(),
        }),
        of_trades(&|trades| trades.duplicates.to_string()),
        of_trades(&|trades| trades.missing.to_string()),
        of_trades(&|trades| trades.holes.len().to_string()),
        symbol.mark_price.as_ref().map_or_else(|| "-".to_owned(), |mark| mark.price.to_string()),
        if candles.is_empty() { "-".to_owned() } else { candles.join(", ") },
    ]
}

fn candle(interval: &str, row: &Candles) -> String {
    let close = row.close.map_or_else(|| "-".to_owned(), |close| close.to_string());
    format!("{interval} {} ({} closed, {} updates) at {close}", row.len, row.closed, row.updates)
}

/// The first holes in words.
fn holes(trades: &Trades, mut note: impl FnMut(String)) {
    for hole in trades.holes.iter().take(HOLES_SHOWN) {
        note(format!("missing {}..{}: {}", hole.from, hole.to, hole.reason));
    }
    if trades.holes.len() > HOLES_SHOWN {
        note(format!("and {} more holes", trades.holes.len() - HOLES_SHOWN));
    }
}

/// A line on the terminal, if there is one, for those who wait.
struct Progress {
    wanted: bool,
    lines: u64,
    next: Instant,
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        let wanted = io::stderr().is_terminal();
        Self { wanted, lines: 0, next: Instant::now() + FIRST_WORD_AFTER, shown: false }
    }

    fn step(&mut self, name: &str, replay: &Replay) {
        self.lines += 1;
        // Looking at the clock costs more than most lines.
        if !self.wanted || !self.lines.is_multiple_of(4_096) {
            return;
        }
        let now = Instant::now();
        if now >= self.next {
            let counts = replay.counts();
            let words = format!("\r{}: {} frames, {} rejected{ERASE}", clean(name), counts.frames, counts.rejected);
            let _ = io::stderr().lock().write_all(words.as_bytes());
            self.next = now + BETWEEN_WORDS;
            self.shown = true;
        }
    }

    /// Before anything else is said.
    fn clear(&mut self) {
        if self.shown {
            let _ = write!(io::stderr().lock(), "\r{ERASE}");
            self.shown = false;
        }
    }
}

/// Holes listed under a symbol; the document has them all.
const HOLES_SHOWN: usize = 5;
/// Whoever waits less needs no word.
const FIRST_WORD_AFTER: Duration = Duration::from_secs(1);
const BETWEEN_WORDS: Duration = Duration::from_millis(200);
/// To the end of the line.
const ERASE: &str = "\x1b[K";
