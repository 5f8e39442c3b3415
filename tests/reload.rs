//! The real binary, told by SIGHUP to read its file again: what it takes over, what it names, what it refuses.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "outside the core")]

use binance_edge::sim::exchange::{Exchange, ExchangeConfig};
use binance_edge::sim::serve::{ServeOptions, Served, serve};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here should take, on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// A process with a log that is read line by line; killed when the test leaves it.
struct Running {
    child: Child,
    log: Receiver<String>,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_binance-edge"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (tell, log) = mpsc::channel();
        thread::spawn(move || lines.into_iter().all(|line| tell.send(line).is_ok()));
        Self { child, log }
    }

    /// Waits for a line of the log with these words. Gives it and all before it that nobody has read.
    fn until(&self, words: &str) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self.log.recv_timeout(end.saturating_duration_since(Instant::now())) {
            seen.push(line);
            if seen.last().is_some_and(|line| line.contains(words)) {
                return seen;
            }
        }
        panic!("never said: {words}\n{seen:#?}");
    }

    fn signal(&self, name: &str) {
        let told = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
    }

    fn stop(mut self) {
        self.signal("TERM");
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(0));
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("it did not stop");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with a configuration; gone when the test leaves it.
struct File {
    folder: PathBuf,
    served: Served<Exchange>,
}

impl File {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("binance-edge-reload-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = ExchangeConfig { warm_up_ms: 0, ..ExchangeConfig::default() };
        let served = serve(listen, move |utc| Exchange::new(config, utc), ServeOptions::default()).unwrap();
        std::fs::write(folder.join("ca.pem"), &served.ca_pem).unwrap();
        Self { folder, served }
    }

    fn path(&self) -> String {
        self.folder.join("edge.toml").display().to_string()
    }

    /// `streams` from line 1 on, below its heading.
    fn write(&self, streams: &str) {
        let port = self.served.address.port();
        let text = format!(
            "[streams]\n{streams}\n[exchange]\nenvironment = \"custom\"\n[exchange.custom]\nca_file = \"ca.pem\"\n\
             market_ws = \"wss://localhost:{port}/market\"\n[store]\npath = \"\"\n[http]\nlisten = \"127.0.0.1:0\"\n"
        );
        std::fs::write(self.path(), text).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn sighups(lines: &[String]) -> Vec<&str> {
    lines.iter().filter_map(|line| line.split_once("SIGHUP: ")).map(|(_, words)| words).collect()
}

#[test]
fn a_file_that_is_read_again_changes_symbols_and_nothing_else() {
    let file = File::new("file");
    file.write("symbols = [\"BTCUSDT\", \"ETHUSDT\"]");
    let process = Running::start(&["run", "--config", &file.path()]);
    process.until("streams live");

    file.write("symbols = [\"BTCUSDT\", \"SOLUSDT\", \"1000SHIBUSDT\"]");
    process.signal("HUP");
    let lines = process.until("reloaded: 2 symbols added, 1 removed");
    assert_eq!(sighups(&lines), Vec::<&str>::new());

    // Other keys are named, the symbols are taken all the same.
    file.write("symbols = [\"BTCUSDT\"]\nlegs = 2\n[deadlines]\nstale = \"30s\"");
    process.signal("HUP");
    let lines = process.until("reloaded: 0 symbols added, 2 removed");
    let words = "not changed while running: streams.legs, deadlines.stale: restart to change them";
    assert_eq!(sighups(&lines), [words], "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains(words) && line.contains("WARN")), "{lines:#?}");

    // A file that means nothing changes nothing, and everything that is wrong with it is told.
    file.write("symbols = [\"btcusdt\"]\nlegs = 3");
    process.signal("HUP");
    let lines = process.until("streams.legs: expected a whole number");
    let sighups = sighups(&lines);
    assert_eq!(sighups.len(), 2, "{lines:#?}");
    assert!(sighups[0].starts_with(&format!("nothing changes: {}:2: streams.symbols: expected ", file.path())));
    assert!(sighups[1].starts_with(&format!("nothing changes: {}:3: streams.legs: expected ", file.path())));
    std::fs::remove_file(file.path()).unwrap();
    process.signal("HUP");
    process.until("edge.toml: expected a readable file");

    // What runs is what was taken last.
    file.write("symbols = [\"BTCUSDT\"]");
    process.signal("HUP");
    let lines = process.until("reloaded: the same symbols");
    assert!(lines.iter().all(|line| !line.contains("SIGHUP")), "{lines:#?}");
    process.stop();
}

#[test]
fn a_process_without_a_file_says_so_and_goes_on() {
    let process = Running::start(&["demo"]);
    process.until("open after");
    process.signal("HUP");
    process.until("SIGHUP: there is no configuration file to read again; nothing changes");
    process.signal("HUP");
    process.until("SIGHUP: there is no configuration file to read again; nothing changes");
    process.stop();
}

#[test]
fn a_file_that_cannot_be_read_to_its_end_holds_up_nobody() {
    let file = File::new("pipe");
    file.write("symbols = [\"BTCUSDT\"]");
    let process = Running::start(&["run", "--config", &file.path()]);
    process.until("streams live");
    // Opening a pipe waits for whoever writes to it.
    std::fs::remove_file(file.path()).unwrap();
    assert!(Command::new("mkfifo").arg(file.path()).status().unwrap().success());
    process.signal("HUP");
    thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    process.stop();
    assert!(begun.elapsed() < PATIENCE / 2);
}
