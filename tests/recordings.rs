//! `replay` against a count of the same frames that shares no code with it: plain JSON values, sets and maps.
#![allow(clippy::print_stderr, reason = "who runs the tests must see what was skipped")]

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const TRADES_HELD: usize = 16_384;
const CANDLES_HELD: usize = 500;
/// How far before the oldest known id one may lie and not be taken for an old acquaintance.
const BEFORE_MAX: i64 = 1_000;

// ---- the count

/// What a sequence of lines holds.
#[derive(Default)]
struct Count {
    frames: u64,
    rejected: u64,
    passed_over: u64,
    sources: BTreeMap<String, BTreeMap<String, Symbol>>,
}

#[derive(Default)]
struct Symbol {
    ids: BTreeSet<i64>,
    duplicates: u64,
    /// Event time, then mark, index and funding.
    mark: Option<(i64, [String; 3])>,
    candles: BTreeMap<String, Candles>,
}

#[derive(Default)]
struct Candles {
    updates: u64,
    by_open: BTreeMap<i64, Candle>,
}

struct Candle {
    event_time: i64,
    closed: bool,
    close: String,
}

impl Count {
    fn of(text: &str) -> Self {
        let mut count = Self::default();
        text.lines().filter(|line| !line.is_empty()).for_each(|line| count.line(line));
        count
    }

    fn line(&mut self, line: &str) {
        self.frames += 1;
        let (source, frame) = match line.splitn(3, '\t').collect::<Vec<_>>()[..] {
            _ if line.starts_with(['{', '[']) => ("-", line),
            [time, source, frame] if time.parse::<u64>().is_ok() => (source, frame),
            _ => {
                self.rejected += 1;
                return;
            }
        };
        let symbols = self.sources.entry(source.to_owned()).or_default();
        let Ok(message) = serde_json::from_str::<Value>(frame) else {
            self.rejected += 1;
            return;
        };
        let event = if message.get("stream").is_some() { message.get("data") } else { Some(&message) };
        let verdict = match event {
            Some(Value::Array(rows)) => rows.iter().map(|row| take(row, symbols)).max(),
            Some(event) => Some(take(event, symbols)),
            None => None,
        };
        match verdict {
            Some(Verdict::Taken) => {}
            Some(Verdict::NotForUs) => self.passed_over += 1,
            Some(Verdict::Wrong) | None => self.rejected += 1,
        }
    }

    /// As the document has it, apart from zeros at the end of prices.
    fn document(&self) -> Value {
        let sources = self.sources.iter().map(|(source, symbols)| {
            let symbols: serde_json::Map<_, _> =
                symbols.iter().map(|(name, symbol)| (name.clone(), symbol.document())).collect();
            (source.clone(), json!({ "symbols": symbols }))
        });
        json!({
            "frames": self.frames, "rejected": self.rejected, "passed_over": self.passed_over,
            "sources": sources.collect::<serde_json::Map<_, _>>(),
        })
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Wrong,
    NotForUs,
    Taken,
}

fn take(event: &Value, symbols: &mut BTreeMap<String, Symbol>) -> Verdict {
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| event[key].as_i64().unwrap_or(-1);
    let good = |price: &str| price.parse::<f64>().is_ok_and(|price| price > 0.0);
    match event["e"].as_str() {
        Some("aggTrade") if good(&text("p")) && good(&text("q")) && number("a") >= 0 => {
            symbols.entry(text("s")).or_default().trade(number("a"));
        }
        Some("markPriceUpdate") if good(&text("p")) && good(&text("i")) => {
            let mark = &mut symbols.entry(text("s")).or_default().mark;
            if mark.as_ref().is_none_or(|(newest, _)| *newest <= number("E")) {
                *mark = Some((number("E"), ["p", "i", "r"].map(text)));
            }
        }
        Some("kline") => {
            let interval = event["k"]["i"].as_str().unwrap_or_default().to_owned();
            let candles = &mut symbols.entry(text("s")).or_default().candles;
            candles.entry(interval).or_default().push(&event["k"], number("E"));
        }
        Some("aggTrade" | "markPriceUpdate") => return Verdict::Wrong,
        Some(_) => return Verdict::NotForUs,
        None => {
            let has = |key: &str| event.get(key).is_some();
            let known = has("result") || has("error") || has("code") || has("lastUpdateId");
            return if known || (has("u") && has("b") && has("a")) { Verdict::NotForUs } else { Verdict::Wrong };
        }
    }
    Verdict::Taken
}

impl Symbol {
    fn trade(&mut self, id: i64) {
        let too_old = self.ids.first().is_some_and(|oldest| id < oldest - BEFORE_MAX);
        if too_old || !self.ids.insert(id) {
            self.duplicates += 1;
        }
    }

    fn document(&self) -> Value {
        let candles = self.candles.iter().map(|(interval, candles)| (interval.clone(), candles.document()));
        let mark = self.mark.as_ref().map(|(_, [price, index, funding])| {
            let funding = (!funding.is_empty()).then(|| plain(funding));
            json!({"price": plain(price), "index_price": plain(index), "funding_rate": funding})
        });
        json!({
            "trades": self.trades(), "mark_price": mark, "flow": null,
            "candles": candles.collect::<serde_json::Map<_, _>>(),
        })
    }

    fn trades(&self) -> Value {
        let (Some(oldest), Some(newest)) = (self.ids.first(), self.ids.last()) else { return Value::Null };
        let neighbours = self.ids.iter().zip(self.ids.iter().skip(1));
        let gaps = neighbours.filter(|(id, next)| **id + 1 < **next).map(|(id, next)| (id + 1, next - 1));
        let holes: Vec<_> = gaps
            .map(|(from, to)| json!({"from": from, "to": to, "reason": "not delivered on an open connection"}))
            .collect();
        let len = self.ids.len().min(TRADES_HELD);
        json!({
            "len": len, "capacity": TRADES_HELD, "first_id": self.ids.iter().rev().nth(len - 1), "last_id": newest,
            "received": self.ids.len(), "duplicates": self.duplicates, "backfilled": 0,
            "missing": newest - oldest + 1 - self.ids.len() as i64, "holes": holes,
        })
    }
}

impl Candles {
    fn push(&mut self, kline: &Value, event_time: i64) {
        self.updates += 1;
        let open = kline["t"].as_i64().expect("an open time");
        let pushed = Candle {
            event_time,
            closed: kline["x"].as_bool().expect("a flag"),
            close: kline["c"].as_str().expect("a price").to_owned(),
        };
        let newest = self.by_open.keys().next_back().copied();
        match self.by_open.get_mut(&open) {
            // one that is older than all that are known is too late to begin
            None if newest.is_some_and(|newest| open < newest) => {}
            None => {
                self.by_open.insert(open, pushed);
            }
            Some(held) if !held.closed && (pushed.closed || pushed.event_time >= held.event_time) => *held = pushed,
            Some(_) => {}
        }
        if self.by_open.len() > CANDLES_HELD {
            self.by_open.pop_first();
        }
    }

    fn document(&self) -> Value {
        let (open, newest) = self.by_open.last_key_value().expect("a candle for each interval");
        let closed = self.by_open.values().filter(|candle| candle.closed).count();
        let running = usize::from(!newest.closed);
        let begun = jiff::Timestamp::from_millisecond(*open).expect("a time");
        json!({
            "len": self.by_open.len(), "capacity": CANDLES_HELD, "closed": closed,
            "unclosed": self.by_open.len() - closed - running, "updates": self.updates,
            "last_open": format!("{begun:.3}"), "close": plain(&newest.close),
        })
    }
}

/// A price without zeros at its end.
fn plain(price: &str) -> String {
    if price.contains('.') { price.trim_end_matches('0').trim_end_matches('.').to_owned() } else { price.to_owned() }
}

// ---- the binary

fn replay(files: &[&Path], json: bool) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_binance-edge"));
    command.arg("replay").args(files).stdin(Stdio::null());
    if json {
        command.arg("--json");
    }
    command.output().expect("the binary starts")
}

/// The document of a replay that must succeed, and what was said on stderr.
fn document(files: &[&Path]) -> (String, String) {
    let output = replay(files, true);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(0), "{said}");
    (String::from_utf8(output.stdout).expect("text"), said)
}

/// A document without what only it has, and with plain prices.
fn comparable(document: &str) -> Value {
    let mut document: Value = serde_json::from_str(document).expect("a document");
    let (frames, rejected) = (document["frames"].as_u64(), document["rejected"].as_u64());
    let sum = ["rejected", "passed_over", "applied"].map(|key| document[key].as_u64().expect("a number")).iter().sum();
    assert_eq!(frames, Some(sum), "every frame is counted once");
    let reasons = document["rejected_by"].as_object().expect("reasons").values().filter_map(Value::as_u64).sum();
    assert_eq!(rejected, Some(reasons), "every refusal has a reason");
    document.as_object_mut().expect("an object").retain(|key, _| COMPARED.contains(&key.as_str()));
    for source in document["sources"].as_object_mut().expect("sources").values_mut() {
        source.as_object_mut().expect("an object").retain(|key, _| key == "symbols");
        for symbol in source["symbols"].as_object_mut().expect("symbols").values_mut() {
            let mark = symbol["mark_price"].as_object_mut().into_iter().flatten().map(|(_, price)| price);
            mark.for_each(make_plain);
            let candles = symbol["candles"].as_object_mut().into_iter().flatten();
            candles.for_each(|(_, candles)| make_plain(&mut candles["close"]));
        }
    }
    document
}

const COMPARED: [&str; 4] = ["frames", "rejected", "passed_over", "sources"];

fn make_plain(price: &mut Value) {
    if let Some(text) = price.as_str() {
        *price = plain(text).into();
    }
}

/// A file of this test's own, gone with it.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("binance-edge-replay-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("a temporary file can be written");
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

// ---- recordings of our own

fn mixed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings/mixed.jsonl")
}

fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a fixture")
}

#[test]
fn a_recording_of_everything_is_counted_as_by_hand() {
    let (printed, said) = document(&[&mixed()]);
    assert_eq!(said, "");
    let document: Value = serde_json::from_str(&printed).expect("a document");
    let reason = "not delivered on an open connection";
    let trades = |[first, last, received, duplicates]: [u64; 4], holes: &[(u64, u64)]| {
        let missing: u64 = holes.iter().map(|(from, to)| to - from + 1).sum();
        let holes: Vec<_> = holes.iter().map(|(from, to)| json!({"from": from, "to": to, "reason": reason})).collect();
        json!({"len": received, "capacity": 16384, "first_id": first, "last_id": last, "received": received,
            "duplicates": duplicates, "backfilled": 0, "missing": missing, "holes": holes})
    };
    let symbol = |trades: Value, mark: Value, candles: Value| json!({"trades": trades, "mark_price": mark, "candles": candles, "flow": null});
    let none = || json!({});
    let expected = json!({
        "frames": 29, "rejected": 6, "passed_over": 4, "applied": 19, "malformed_lines": 2,
        "rejected_by": {"json": 1, "line": 2, "missing": 1, "number": 2}, "rejected_rows": 0, "torn": [],
        "sources": {
            "-": {"frames": 2, "rejected": 0, "passed_over": 0, "applied": 2, "symbols": {
                "ETHUSDT": symbol(trades([900, 900, 1, 0], &[]), Value::Null, none()),
                "币安人生USDT": symbol(Value::Null,
                    json!({"price": "0.1234", "index_price": "4322.5", "funding_rate": "0.00010000"}), none()),
            }},
            "market-0": {"frames": 22, "rejected": 4, "passed_over": 4, "applied": 14, "symbols": {
                "ETHUSDT": symbol(trades([10101, 10107, 5, 1], &[(10103, 10103), (10106, 10106)]),
                    json!({"price": "4321.75", "index_price": "4322.50", "funding_rate": "0.00010000"}),
                    json!({"1m": {"len": 2, "capacity": 500, "closed": 1, "unclosed": 0, "updates": 4,
                        "last_open": "2026-09-10T00:27:00.000Z", "close": "4321.25"}})),
                "XYZUSDT": symbol(Value::Null,
                    json!({"price": "9.5", "index_price": "4322.5", "funding_rate": null}), none()),
                "币安人生USDT": symbol(trades([20001, 20001, 1, 0], &[]), Value::Null, none()),
            }},
            "market-1": {"frames": 3, "rejected": 0, "passed_over": 0, "applied": 3, "symbols": {
                "ETHUSDT": symbol(trades([75, 78, 3, 0], &[(76, 76)]), Value::Null, none()),
            }},
        },
    });
    assert_eq!(document, expected);
}

#[test]
fn packed_or_plain_whole_or_in_pieces_it_is_the_same_document() {
    let text = text_of(&mixed());
    let (whole, _) = document(&[&mixed()]);
    assert_eq!(document(&[&mixed()]).0, whole);
    let packed = Temporary::new("packed", &zstd::encode_all(text.as_bytes(), 3).expect("packed"));
    assert_eq!(document(&[&packed.0]).0, whole);
    // a line feed may be missing at the end
    let stripped = Temporary::new("stripped", text.trim_end().as_bytes());
    assert_eq!(document(&[&stripped.0]), (whole.clone(), String::new()));
    // between two candles: the older one cannot begin after the newer
    let cut = text.match_indices('\n').nth(10).map(|(at, _)| at + 1).expect("more than ten lines");
    let first = Temporary::new("first", &text.as_bytes()[..cut]);
    let rest = Temporary::new("rest.zst", &zstd::encode_all(&text.as_bytes()[cut..], 3).expect("packed"));
    assert_eq!(document(&[&first.0, &rest.0]).0, whole);
    assert_ne!(document(&[&rest.0, &first.0]).0, whole, "the order of files matters");
    assert_eq!(comparable(&whole), Count::of(&text).document());
}

#[test]
fn a_torn_tail_is_told_and_the_rest_counts() {
    let text = text_of(&mixed());
    let check = |name: &str, bytes: &[u8], readable: &str| {
        let file = Temporary::new(name, bytes);
        let shown = file.0.display().to_string();
        let (printed, said) = document(&[&file.0]);
        assert_eq!(comparable(&printed), Count::of(readable).document(), "{name}");
        assert!(said.starts_with(&format!("{shown}: ")) && said.lines().count() == 1, "{said}");
        let printed: Value = serde_json::from_str(&printed).expect("a document");
        let torn = printed["torn"].as_array().expect("a list");
        assert_eq!((torn.len(), torn[0]["file"].as_str()), (1, Some(shown.as_str())));
        assert!(said.contains(torn[0]["reason"].as_str().expect("a reason")), "{said}");
        let for_people = replay(&[&file.0], false);
        assert_eq!(for_people.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&for_people.stdout).contains("cut short"), "told on the page too");
    };
    let last = text.trim_end().rfind('\n').expect("lines") + 1;
    check("torn-line", &text.as_bytes()[..text.len() - 20], &text[..last]);

    // one zstd frame for some lines each, as a recorder writes one each second; the last one is cut
    let mut cuts: Vec<_> = text.match_indices('\n').map(|(at, _)| at + 1).skip(6).step_by(7).collect();
    cuts.insert(0, 0);
    let pieces: Vec<_> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
    let packed: Vec<_> = pieces.iter().map(|piece| zstd::encode_all(*piece, 3).expect("packed")).collect();
    let all = packed.concat();
    let torn = packed.last().expect("pieces").len() / 2;
    check("torn-zstd", &all[..all.len() - torn], &text[..cuts[cuts.len() - 2]]);
}

#[test]
fn a_file_that_cannot_be_read_is_exit_1_without_a_document() {
    let noise = Temporary::new("noise", &[b"\x28\xb5\x2f\xfd".as_slice(), &[0xff; 60]].concat());
    for bad in [Path::new("/nowhere/rec.jsonl"), &noise.0, &std::env::temp_dir()] {
        for json in [true, false] {
            let output = replay(&[&mixed(), bad, &mixed()], json);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
            assert!(said.starts_with(&format!("{}: ", bad.display())) && said.lines().count() == 1, "{said}");
        }
    }
    // nothing in it is not the same as nothing to be read
    let empty = Temporary::new("empty", b"");
    assert_eq!(comparable(&document(&[&empty.0]).0), Count::default().document());
}

#[test]
fn people_get_a_page_that_does_not_move_their_cursor() {
    let output = replay(&[&mixed()], false);
    let page = String::from_utf8(output.stdout).expect("text");
    assert!(page.starts_with("29 frames: 19 applied, 4 passed over, 6 rejected\n"), "{page}");
    for words in ["rejected by reason: 1 json, 2 line", "10101..10107", "missing 10103..10103: ", "4321.75"] {
        assert!(page.contains(words), "{words} is not in\n{page}");
    }
    let escape = Temporary::new("esc\u{1b}[2J", b"nothing\n");
    let output = replay(&[&escape.0], false);
    assert!(!output.stdout.contains(&0x1b) && output.status.success());
}

#[test]
fn more_than_fits_is_counted_and_the_newest_held() {
    use std::fmt::Write;
    let mut text = String::new();
    let mut rng = fastrand::Rng::with_seed(11);
    for n in 0..20_000_i64 {
        // swapped neighbours, repetitions, skips
        let id = 700_000 + n + rng.i64(-3..=3);
        let _ = writeln!(
            text,
            r#"{n}	um	{{"e":"aggTrade","E":1789000000150,"a":{id},"s":"AUSDT","p":"1.5","q":"2","f":1,"l":1,"T":1789000000000,"m":true}}"#
        );
        let (open, closed) = (1_789_000_020_000 + n / 20 * 60_000, n % 20 == 19 && n % 7 > 0);
        let _ = writeln!(
            text,
            r#"{n}	um	{{"e":"kline","E":{},"s":"AUSDT","k":{{"t":{open},"T":{},"s":"AUSDT","i":"1m","f":1,"L":1,"o":"1","c":"1.{n}","h":"2","l":"1","v":"1","n":1,"x":{closed},"q":"1","V":"1","Q":"1","B":"0"}}}}"#,
            open + n % 20,
            open + 59_999
        );
    }
    let file = Temporary::new("long", text.as_bytes());
    let mut replayed = comparable(&document(&[&file.0]).0);
    let mut counted = Count::of(&text).document();
    let path = "/sources/um/symbols/AUSDT/trades";
    let (listed, all) = (holes(&mut replayed, path), holes(&mut counted, path));
    assert_eq!(replayed, counted);
    assert!(all.len() > 256 && all.ends_with(&listed), "of many holes the newest are listed");
}

/// Takes the list of holes out of a document.
fn holes(document: &mut Value, path: &str) -> Vec<Value> {
    let trades = document.pointer_mut(path).expect("a tape");
    trades["holes"].take().as_array().expect("holes").clone()
}

// ---- real ones beside the project, where there are any

fn captured() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = ["../shared/data/frames", "../../shared/data/frames"].map(|place| root.join(place));
    let mut files = Vec::new();
    if let Some(found) = places.into_iter().find(|place| place.is_dir()) {
        for folder in std::fs::read_dir(found).expect("a folder").map(|entry| entry.expect("a folder").path()) {
            let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("a file").path());
            files.extend(entries.filter(|path| path.to_string_lossy().contains(".jsonl")));
        }
    }
    if files.is_empty() {
        eprintln!("skipped: captured frames not present");
    }
    files.sort();
    files
}

fn unpacked(path: &Path) -> String {
    let bytes = std::fs::read(path).expect("a recording");
    let packed = path.extension().is_some_and(|extension| extension == "zst");
    let bytes = if packed { zstd::decode_all(bytes.as_slice()).expect("whole") } else { bytes };
    String::from_utf8(bytes).expect("text")
}

#[test]
fn real_recordings_are_counted_alike_file_by_file() {
    for file in captured() {
        let (printed, said) = document(&[&file]);
        assert_eq!(said, "", "{}", file.display());
        let count = Count::of(&unpacked(&file));
        assert_eq!(comparable(&printed), count.document(), "{}", file.display());
        assert_eq!(count.rejected, 0, "{}: real frames are good frames", file.display());
        assert_eq!(document(&[&file]).0, printed, "{}: same input, same output", file.display());
    }
}

#[test]
fn real_recordings_one_after_another_are_one_sequence() {
    let files = captured();
    if files.is_empty() {
        return;
    }
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let (printed, _) = document(&paths);
    let count = files.iter().fold(Count::default(), |mut count, file| {
        unpacked(file).lines().filter(|line| !line.is_empty()).for_each(|line| count.line(line));
        count
    });
    assert_eq!(comparable(&printed), count.document());
    assert_eq!(document(&paths).0, printed, "same input, same output");
}
