//! The binary as a shell script sees it: what it prints where, and how it exits.
#![allow(clippy::disallowed_methods, reason = "a test has clocks and threads of its own")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn edge(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_binance-edge"));
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    edge(args).output().expect("the binary starts")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The words that `--help` lists.
fn words() -> Vec<String> {
    let help = out(&run(&["--help"]));
    let listed = help.split("Commands:\n").nth(1).expect("a list of words").split("\n\n").next().unwrap_or_default();
    listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// A server for one request that answers with these pieces, pausing before each but the first.
fn server(pieces: Vec<String>, pause: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        let _ = stream.read(&mut [0; 4096]);
        for (index, piece) in pieces.iter().enumerate() {
            if index > 0 {
                std::thread::sleep(pause);
            }
            if stream.write_all(piece.as_bytes()).is_err() {
                return;
            }
        }
    });
    url
}

fn answer(status: &str, body: &str) -> String {
    server(vec![format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())], Duration::ZERO)
}

#[test]
fn every_word_explains_itself_and_knows_its_version() {
    let version = format!(" {}\n", env!("CARGO_PKG_VERSION"));
    let shown = run(&["--version"]);
    assert_eq!((shown.status.code(), out(&shown).ends_with(&version)), (Some(0), true), "{}", out(&shown));
    let words = words();
    assert!(words.contains(&"config".to_owned()) && words.contains(&"status".to_owned()), "{words:?}");
    for word in words {
        let help = run(&[&word, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{word}");
        assert!(out(&help).contains(&format!("Usage: binance-edge {word}")), "{}", out(&help));
        assert_eq!(err(&help), "");
        let shown = run(&[&word, "--version"]);
        assert_eq!((shown.status.code(), out(&shown).ends_with(&version)), (Some(0), true), "{word}");
    }
}

#[test]
fn wrong_usage_is_exit_2_with_a_word_on_stderr() {
    for args in [
        &[][..],
        &["nonsense"],
        &["config"],
        &["config", "--config"],
        &["replay"],
        &["replay", "--json"],
        &["config", "--live", "--config", "x"],
        &["status", "--url"],
        &["status", "--url", "http://127.0.0.1:9464/status"],
        &["status", "--url", "ftp://127.0.0.1"],
        &["status", "--url", "127.0.0.1:9464"],
        &["status", "--json", "--watch"],
        &["simulate", "--seeds", "0"],
        &["simulate", "--hours", "0"],
        &["simulate", "--seed", "-1"],
        &["simulate", "--quiet-days", "0"],
        &["simulate", "--quiet-days", "1", "--seeds", "1"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(out(&output), "", "{args:?}");
        assert!(!err(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn simulate_runs_worlds_and_says_what_they_came_to() {
    let many = run(&["simulate", "--seeds", "3", "--hours", "0.01"]);
    assert_eq!(many.status.code(), Some(0), "{}", out(&many));
    let text = out(&many);
    let keys: Vec<_> = text.lines().map(|line| line.split("  ").next().unwrap_or_default()).collect();
    assert_eq!(keys, ["seeds", "virtual time", "frames", "attempts", "faults", "healed after", "violations"]);
    assert!(text.starts_with("seeds         3, 0 to 2: 3 good, 0 failed\n"), "{text}");
    assert!(err(&many).contains("3 seeds in "), "{}", err(&many));
    // One seed tells its story first, the same one each time.
    let one = run(&["simulate", "--seed", "2", "--hours", "0.01"]);
    assert!(out(&one).starts_with("2026-11-20T23:05:00.000Z INFO market-0: attempt 1: ws"), "{}", out(&one));
    assert!(out(&one).contains("\nseeds         1, 2 to 2: 1 good, 0 failed\n"), "{}", out(&one));
    assert_eq!(out(&one), out(&run(&["simulate", "--seed", "2", "--hours", "0.01"])));
}

#[test]
fn simulate_counts_the_alarms_of_quiet_days() {
    let days = run(&["simulate", "--quiet-days", "1", "--seed", "4"]);
    let text = out(&days);
    assert_eq!(days.status.code(), Some(0), "{text}");
    let words: Vec<_> = text.lines().map(|line| line.split_whitespace().next().unwrap_or_default()).collect();
    let rows =
        ["alarms", "aggTrade", "markPrice", "kline", "connection", "days", "streams", "messages", "virtual", "real"];
    assert_eq!(words, rows, "{text}");
    assert!(text.contains("\nvirtual time  24.0 h\n") && err(&days).contains("1 days in "), "{text}");
}

#[test]
fn config_shows_what_it_understood_or_everything_that_is_wrong() {
    let dir = std::env::temp_dir().join(format!("binance-edge-cli-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a temporary directory can be made");
    let file = dir.join("edge.toml");
    let path = file.to_str().expect("a plain name");

    std::fs::write(&file, "[streams]\nsymbols = [\"BTCUSDT\"]\n[signals]\nurl = \"ws://10.0.0.1:1\"").expect("written");
    let shown = run(&["config", "--config", path]);
    assert_eq!(shown.status.code(), Some(0));
    assert!(out(&shown).contains("symbols = [\"BTCUSDT\"]\nsymbols_max = 600\nagg_trade = true\n"), "{}", out(&shown));
    assert_eq!(err(&shown), "signals.url: plain ws:// to a private address, the token travels unencrypted\n");

    std::fs::write(&file, "[streams]\nsymbols = [\"btc\"]\nleg = 2").expect("written");
    let refused = run(&["config", "--config", path]);
    assert_eq!((refused.status.code(), out(&refused)), (Some(2), String::new()));
    assert_eq!(err(&refused).lines().count(), 2, "{}", err(&refused));
    assert!(err(&refused).starts_with(&format!("{path}:2: streams.symbols: expected ")), "{}", err(&refused));

    let absent = run(&["config", "--config", "/nowhere/edge.toml"]);
    assert_eq!(absent.status.code(), Some(2));
    assert!(err(&absent).starts_with("/nowhere/edge.toml: expected a readable file"), "{}", err(&absent));
    std::fs::remove_dir_all(dir).expect("removed");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/mainnet.toml");
    for args in [&["config", "--config", file][..], &["--help"]] {
        let mut child = edge(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), err(&output)), (Some(0), String::new()), "{args:?}");
    }
}

#[test]
fn status_prints_the_body_or_a_table() {
    let body = r#"{"version":"9.9.9","health":{"level":"healthy","reasons":[]}}"#;
    let json = run(&["status", "--json", "--url", &answer("200 OK", body)]);
    assert_eq!((json.status.code(), out(&json)), (Some(0), format!("{body}\n")));
    let table = run(&["status", "--url", &answer("200 OK", body)]);
    assert_eq!(table.status.code(), Some(0));
    assert!(out(&table).starts_with("binance-edge 9.9.9 "), "{}", out(&table));
}

#[test]
fn status_without_a_usable_answer_is_exit_1_with_one_line() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    let redirect = "302 Found\r\nlocation: http://127.0.0.1:1/status";
    for url in [closed, answer("500 Broken", ""), answer(redirect, ""), answer("200 OK", "<html>")] {
        let output = run(&["status", "--url", &url]);
        assert_eq!((output.status.code(), out(&output)), (Some(1), String::new()), "{url}");
        assert!(err(&output).starts_with(&format!("{url}: ")), "{}", err(&output));
        assert_eq!(err(&output).lines().count(), 1, "{}", err(&output));
    }
}

#[test]
fn status_gives_up_on_a_server_that_trickles() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".to_owned();
    let pieces = std::iter::once(head).chain((0..100).map(|_| "x".to_owned())).collect();
    let begun = Instant::now();
    let output = run(&["status", "--url", &server(pieces, Duration::from_millis(200))]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains(": no answer within 3 s"), "{}", err(&output));
}

#[cfg(unix)]
#[test]
fn status_watches_until_interrupted() {
    let url = answer("200 OK", r#"{"version":"9.9.9"}"#);
    let mut child = edge(&["status", "--watch", "--url", &url]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut page = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(page.any(|line| line.starts_with("binance-edge 9.9.9 ")));
    let told = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill exists");
    assert!(told.success());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[cfg(unix)]
#[test]
fn one_wish_to_stop_may_come_twice_and_another_ends_what_is_stuck() {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    // Its stdout is a socket that is full when it wants to say goodbye: it cannot end by itself.
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let stdout = OwnedFd::from(theirs.try_clone().expect("another descriptor"));
    let mut child = edge(&["exchange"]).stdout(stdout).stderr(Stdio::null()).spawn().expect("it starts");
    let mut printed = BufReader::new(ours);
    let mut line = String::new();
    while !line.starts_with("ca_file") {
        line.clear();
        assert!(printed.read_line(&mut line).expect("it prints") > 0, "it ended early");
    }
    theirs.set_nonblocking(true).expect("set");
    while (&theirs).write(&[b'#'; 4096]).is_ok() {}
    theirs.set_nonblocking(false).expect("set");

    signals(&child, &["INT", "TERM"]);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(child.try_wait().expect("asked"), None, "it was ended by the same wish");
    signals(&child, &["INT"]);
    assert_eq!(exit_code(&mut child), Some(130));
    // Ended like this it leaves its file behind.
    let ca = line.trim_start_matches("ca_file = ").trim().trim_matches('"');
    std::fs::remove_file(ca).expect("its CA");

    let mut child = edge(&["exchange"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut printed = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let ca = printed.find_map(|line| line.strip_prefix("ca_file = ").map(str::to_owned)).expect("its CA");
    signals(&child, &["INT", "TERM"]);
    assert_eq!(exit_code(&mut child), Some(0));
    assert!(printed.any(|line| line.starts_with("# served ")));
    assert!(!std::path::Path::new(ca.trim_matches('"')).exists(), "{ca}");
}

/// Sends these signals in one go.
#[cfg(unix)]
fn signals(child: &Child, names: &[&str]) {
    let script: String = names.iter().map(|name| format!("kill -{name} {};", child.id())).collect();
    assert!(Command::new("sh").args(["-c", &script]).status().expect("a shell").success());
}

/// How it exited, or `None` if it had to be killed for taking too long.
#[cfg(unix)]
fn exit_code(child: &mut Child) -> Option<i32> {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        if let Some(status) = child.try_wait().expect("asked") {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("killed");
    child.wait().expect("it ends").code()
}
