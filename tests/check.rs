//! `check` through the binary, against the built-in exchange on real loopback sockets: what works, and each fault in the
//! stage where it shows. Every wait has a bound that fails the test; how long things take is not judged.
#![allow(clippy::disallowed_methods, reason = "a test has clocks and threads of its own")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use binance_edge::config::Market;
use binance_edge::sim::exchange::{Exchange, ExchangeConfig, Fault, Harm};
use binance_edge::sim::serve::{Faults, Pace, ServeOptions, Served, lost_syn, serve};
use serde_json::Value;

/// Far beyond the 12 s that a check may take.
const PATIENCE: Duration = Duration::from_secs(40);
const TRICKLE: Pace = Pace::Trickle(Duration::from_millis(20));

/// Streams and REST on ports of their own, so that what befalls one spares the other.
struct Venue {
    streams: Served<Exchange>,
    rest: Served<Exchange>,
}

fn exchange(market: Market, tls: bool) -> Served<Exchange> {
    let config = ExchangeConfig { rate: 5.0, warm_up_ms: 5_000, ..ExchangeConfig::of(market) };
    let build = move |utc| Exchange::new(config, utc);
    let options = ServeOptions { tls, ..ServeOptions::default() };
    let served = serve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), build, options).unwrap();
    // Clients that come before the exchange is built wait, and would spend their deadlines on that.
    served.with(|_, _| ()).unwrap();
    served
}

impl Venue {
    fn new() -> Self {
        Self { streams: exchange(Market::Usdm, true), rest: exchange(Market::Usdm, true) }
    }

    fn config(&self) -> String {
        self.at(self.streams.address)
    }

    /// With the streams somewhere else.
    fn at(&self, streams: SocketAddr) -> String {
        custom(&format!("wss://{streams}/market"), &format!("https://{}", self.rest.address))
    }

    fn ca(&self) -> String {
        format!("{}{}", self.streams.ca_pem, self.rest.ca_pem)
    }

    /// A rule of the exchange that serves the streams.
    fn streams_do(&self, harm: Harm) {
        self.streams.with(move |exchange, _| exchange.set_fault(Fault::new(harm))).unwrap();
    }

    fn rest_answers(&self, status: u16, body: String) {
        let harm = Harm::RestAnswer { status, retry_after_s: None, body };
        self.rest.with(move |exchange, _| exchange.set_fault(Fault::new(harm).on("/time"))).unwrap();
    }

    /// The report with these `[deadlines]`.
    fn check(&self, deadlines: &str) -> Report {
        report(&format!("{}[deadlines]\n{deadlines}\n", self.config()), &self.ca())
    }
}

fn custom(market_ws: &str, rest: &str) -> String {
    format!(
        "[exchange]\nenvironment = \"custom\"\n[exchange.custom]\nmarket_ws = \"{market_ws}\"\nrest = \"{rest}\"\n\
         ca_file = \"ca.pem\"\n[streams]\nsymbols = [\"BTCUSDT\", \"ETHUSDT\"]\n"
    )
}

/// A configuration in a directory of its own.
struct Files(PathBuf);

impl Files {
    fn new(config: &str, ca: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("binance-edge-check-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("edge.toml"), config).unwrap();
        fs::write(dir.join("ca.pem"), ca).unwrap();
        Self(dir)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(word: &str, files: &Files, more: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_binance-edge"))
        .arg(word)
        .arg("--config")
        .arg(files.0.join("edge.toml"))
        .args(more)
        .current_dir(&files.0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + PATIENCE;
    // What it prints is far less than a pipe holds.
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            let _ = child.kill();
            panic!("{word} has not ended within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// What `--json` said.
struct Report(Value);

fn report(config: &str, ca: &str) -> Report {
    let files = Files::new(config, ca);
    let output = run("check", &files, &["--json"]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let value: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    let ok = value["ok"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(if ok { 0 } else { 1 }), "{out}{err}");
    assert_eq!(err.contains("check failed: "), !ok, "{err}");
    assert_eq!(fs::read_dir(&files.0).unwrap().count(), 2, "it writes no file");
    Report(value)
}

impl Report {
    fn endpoints(&self) -> &[Value] {
        self.0["endpoints"].as_array().unwrap()
    }

    fn rows(&self, endpoint: &str) -> &[Value] {
        let found = self.endpoints().iter().find(|found| found["endpoint"] == endpoint);
        found.unwrap_or_else(|| panic!("no {endpoint} in {}", self.0))["stages"].as_array().unwrap()
    }

    fn stages(&self, endpoint: &str) -> String {
        let names: Vec<_> = self.rows(endpoint).iter().map(|row| row["stage"].as_str().unwrap()).collect();
        names.join(" ")
    }

    fn assert_ok(&self) {
        assert_eq!((&self.0["ok"], &self.0["verdict"]), (&Value::from(true), &Value::from("ok")), "{}", self.0);
        for row in self.endpoints().iter().flat_map(|endpoint| endpoint["stages"].as_array().unwrap()) {
            assert!(row["ok"] == true && row["reason"].is_null() && row["elapsed_ms"].is_u64(), "{row}");
        }
    }

    /// The endpoint's last stage, and no other of any endpoint, has failed, in words that contain these.
    fn assert_failed(&self, endpoint: &str, stage: &str, verdict: &str, words: &str) {
        let all = &self.0;
        let failed: Vec<_> = self
            .endpoints()
            .iter()
            .flat_map(|found| found["stages"].as_array().unwrap().iter().map(move |row| (&found["endpoint"], row)))
            .filter(|(_, row)| row["ok"] == false)
            .collect();
        assert_eq!((all["ok"].as_bool(), failed.len()), (Some(false), 1), "{all}");
        assert_eq!((failed[0].0.as_str(), failed[0].1["stage"].as_str()), (Some(endpoint), Some(stage)), "{all}");
        assert_eq!(self.rows(endpoint).last(), Some(failed[0].1), "{all}");
        let reason = failed[0].1["reason"].as_str().unwrap();
        assert!(reason.contains(words), "{reason:?} does not contain {words:?}");
        assert_eq!(all["verdict"], verdict, "{all}");
    }
}

#[test]
fn all_is_well() {
    let venue = Venue::new();
    let report = venue.check("");
    report.assert_ok();
    assert_eq!(report.stages("market_ws"), "resolve tcp tls upgrade ack first_data");
    assert_eq!(report.stages("rest"), "resolve tcp tls rest clock");
    assert_eq!(report.endpoints().len(), 2, "{}", report.0);
    let url = format!("wss://{}/market", venue.streams.address);
    assert_eq!(report.endpoints()[0]["url"], url.as_str());

    let files = Files::new(&venue.config(), &venue.ca());
    let output = run("check", &files, &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), output.stderr.is_empty()), (Some(0), true), "{text}");
    let head: Vec<_> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["ENDPOINT", "RESOLVE", "TCP", "TLS", "UPGRADE", "ACK", "FIRST_DATA", "REST", "CLOCK"]);
    assert!(text.ends_with("verdict: ok: every endpoint did all that was asked of it\n"), "{text}");

    let (violations, attempts) =
        venue.streams.with(|exchange, _| (exchange.ledger().violations, exchange.ledger().attempts)).unwrap();
    assert_eq!((violations, attempts), (0, 2), "one try each, and by the venue's rules");
    assert_eq!(venue.streams.closing().unwrap().tally.violations, 0);
}

#[test]
fn a_subscription_by_url_has_nothing_to_acknowledge() {
    let venue = Venue::new();
    let config = venue.config() + "subscribe_by = \"url\"\n";
    let report = report(&config, &venue.ca());
    report.assert_ok();
    assert_eq!(report.stages("market_ws"), "resolve tcp tls upgrade first_data");
    assert_eq!(venue.streams.closing().unwrap().tally.messages, 0, "nothing was sent");
}

#[test]
fn spot_is_asked_for_trades_under_its_own_paths() {
    let spot = exchange(Market::Spot, true);
    let at = spot.address;
    let config = custom(&format!("wss://{at}"), &format!("https://{at}"));
    let report = report(&config.replace("[exchange.custom]", "market = \"spot\"\n[exchange.custom]"), &spot.ca_pem);
    report.assert_ok();
    assert_eq!(report.stages("market_ws"), "resolve tcp tls upgrade ack first_data");
    assert_eq!(report.stages("rest"), "resolve tcp tls rest clock");
}

#[test]
fn plain_endpoints_have_no_tls_and_others_are_tried_without_a_word() {
    let plain = exchange(Market::Usdm, false);
    let alerts = exchange(Market::Usdm, true);
    let (at, tls) = (plain.address, alerts.address);
    let config = custom(&format!("ws://localhost:{}/market", at.port()), &format!("http://{at}"))
        + &format!(
            "[signals]\nurl = \"ws://{at}/ws\"\n[alerts.telegram]\nbot_token_env = \"NOT_SET\"\nchat_id = \"1\"\n\
             base_url = \"https://{tls}\"\n[alerts.webhook]\nurl = \"https://{tls}/secret\"\n"
        );
    let report = report(&config, &alerts.ca_pem);
    report.assert_ok();
    assert_eq!(report.stages("market_ws"), "resolve tcp upgrade ack first_data");
    assert_eq!(report.stages("rest"), "resolve tcp rest clock");
    assert_eq!(report.stages("signals"), "resolve tcp upgrade");
    assert_eq!(report.stages("alerts.telegram"), "resolve tcp tls");
    assert_eq!(report.stages("alerts.webhook"), "resolve tcp tls");
    assert!(!report.0.to_string().contains("secret"), "{}", report.0);
    let closing = alerts.closing().unwrap();
    assert_eq!((closing.connections, closing.tally.requests), (2, 0), "nothing was sent");
}

#[test]
fn a_dead_port_is_this_machines_own() {
    let venue = Venue::new();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    report(&venue.at(closed), &venue.ca()).assert_failed("market_ws", "tcp", "local", "refused");
    venue.rest.set(Faults { port_closed: true, ..Faults::default() });
    venue.check("").assert_failed("rest", "tcp", "local", "refused");
}

#[test]
fn a_name_that_is_none_ends_in_resolve() {
    let venue = Venue::new();
    let config = custom("wss://nobody.invalid/market", &format!("https://{}", venue.rest.address));
    let report = report(&(config + "[deadlines]\nresolve = \"1s\"\n"), &venue.ca());
    report.assert_failed("market_ws", "resolve", "local", "");
}

#[test]
fn lost_packets_end_in_tcp() {
    let venue = Venue::new();
    let lost = lost_syn(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
    let deadlines = "[deadlines]\ntcp = \"500ms\"\n";
    let report_of = |config: &str| report(&(config.to_owned() + deadlines), &venue.ca());
    report_of(&venue.at(lost.address)).assert_failed("market_ws", "tcp", "path", "no answer");
    let config = custom(&format!("wss://{}/market", venue.streams.address), &format!("https://{}", lost.address));
    report_of(&config).assert_failed("rest", "tcp", "path", "no answer");
}

#[test]
fn tls_that_is_mute_or_trickles_is_the_paths() {
    let venue = Venue::new();
    for (pace, words) in [(Pace::Mute, "no answer to our hello"), (TRICKLE, "stalled after ")] {
        venue.streams.set(Faults { tls: pace, ..Faults::default() });
        venue.check("tls = \"500ms\"").assert_failed("market_ws", "tls", "path", words);
    }
    venue.streams.set(Faults::default());
    for (pace, words) in [(Pace::Mute, "no answer to our hello"), (TRICKLE, "stalled after ")] {
        venue.rest.set(Faults { tls: pace, ..Faults::default() });
        venue.check("tls = \"500ms\"").assert_failed("rest", "tls", "path", words);
    }
}

#[test]
fn a_stranger_is_not_trusted() {
    let venue = Venue::new();
    // Another key under the same name: the issuer is known and did not sign it.
    let words = "TLS: invalid peer certificate: BadSignature";
    report(&venue.config(), &venue.rest.ca_pem).assert_failed("market_ws", "tls", "path", words);
    report(&venue.config(), &venue.streams.ca_pem).assert_failed("rest", "tls", "path", words);

    let plain = exchange(Market::Usdm, false);
    report(&venue.at(plain.address), &venue.ca()).assert_failed("market_ws", "tls", "path", "TLS: ");
}

#[test]
fn an_upgrade_that_is_not_answered_or_refused_is_the_venues() {
    let venue = Venue::new();
    for pace in [Pace::Mute, TRICKLE] {
        venue.streams.set(Faults { upgrade: pace, ..Faults::default() });
        venue.check("upgrade = \"500ms\"").assert_failed("market_ws", "upgrade", "venue", "no complete answer");
    }
    venue.streams.set(Faults::default());
    for (status, wait, words) in
        [(403, None, "HTTP 403 Forbidden"), (429, Some(7), "HTTP 429 Too Many Requests, retry after 7s")]
    {
        venue.streams.with(|exchange, _| exchange.clear_faults()).unwrap();
        venue.streams_do(Harm::RefuseUpgrade { status, retry_after_s: wait });
        venue.check("").assert_failed("market_ws", "upgrade", "venue", words);
    }
    let attempts = venue.streams.with(|exchange, _| exchange.ledger().attempts).unwrap();
    assert!(attempts <= 4, "{attempts} attempts: each check tries once");
}

#[test]
fn answers_to_the_subscription_that_never_come_or_say_no() {
    let venue = Venue::new();
    for (harm, words) in [
        (Harm::AckLost, "btcusdt@markPrice@1s not acknowledged within 1500ms"),
        (Harm::AckWrongId, "not acknowledged within 1500ms"),
        (Harm::AckError { code: 4, msg: "Too many subscriptions", bare: false }, "4 Too many subscriptions"),
        (Harm::AckError { code: 2, msg: "Invalid request", bare: true }, "2 Invalid request"),
        (Harm::CloseOnSubscribe { code: 1008 }, "peer closed with code 1008"),
    ] {
        venue.streams.with(|exchange, _| exchange.clear_faults()).unwrap();
        venue.streams_do(harm);
        venue.check("ack = \"1500ms\"").assert_failed("market_ws", "ack", "venue", words);
    }
}

#[test]
fn a_stream_that_is_acknowledged_and_mute_ends_in_first_data() {
    let venue = Venue::new();
    venue.streams_do(Harm::Mute);
    let words = "btcusdt@markPrice@1s acknowledged, no data within 800ms on /market/stream";
    venue.check("first_data = \"800ms\"").assert_failed("market_ws", "first_data", "venue", words);
    let config = venue.config() + "subscribe_by = \"url\"\n[deadlines]\nfirst_data = \"800ms\"\n";
    let words = "asked for, no data within 800ms on /market/stream";
    report(&config, &venue.ca()).assert_failed("market_ws", "first_data", "venue", words);
    venue.streams.with(|exchange, _| exchange.clear_faults()).unwrap();

    // Asked for where no such stream is: open, acknowledged, silent.
    let config = venue.config().replace("/market\"", "/public\"") + "[deadlines]\nfirst_data = \"800ms\"\n";
    report(&config, &venue.ca()).assert_failed("market_ws", "first_data", "venue", "on /public/stream");
}

#[test]
fn rest_that_is_mute_trickles_or_answers_with_an_error() {
    let venue = Venue::new();
    venue.rest.set(Faults { rest: Pace::Mute, ..Faults::default() });
    venue.check("rest = \"1s\"").assert_failed("rest", "rest", "venue", "no answer (rest deadline of 1s)");
    venue.rest.set(Faults { rest: TRICKLE, ..Faults::default() });
    venue.check("rest = \"1s\"").assert_failed("rest", "rest", "venue", "stalled after ");
    venue.rest.set(Faults::default());
    for (status, body, words) in [
        (418, r#"{"code":-1003,"msg":"banned"}"#, "HTTP 418 I'm a teapot: -1003 banned"),
        (403, "<html>go away</html>", "HTTP 403 Forbidden"),
        (503, "", "HTTP 503 Service Unavailable"),
        (200, "<html>log in</html>", "HTTP 200 without a serverTime"),
        (200, r#"{"serverTime":null}"#, "HTTP 200 without a serverTime"),
    ] {
        venue.rest.with(|exchange, _| exchange.clear_faults()).unwrap();
        venue.rest_answers(status, body.to_owned());
        venue.check("").assert_failed("rest", "rest", "venue", words);
    }
    let text = r#"{"serverTime":1}"#.to_owned() + &" ".repeat(100_000);
    venue.rest.with(|exchange, _| exchange.clear_faults()).unwrap();
    venue.rest_answers(200, text);
    venue.check("").assert_failed("rest", "rest", "venue", "exceeds 65536");
}

#[test]
fn a_clock_that_is_off_by_more_than_a_second_fails() {
    let venue = Venue::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    for (server, words) in [(now - 600_000, "ahead of the server's"), (now + 600_000, "behind the server's")] {
        venue.rest.with(|exchange, _| exchange.clear_faults()).unwrap();
        venue.rest_answers(200, format!(r#"{{"serverTime":{server}}}"#));
        let report = venue.check("");
        report.assert_failed("rest", "clock", "local", words);
        assert_eq!(report.stages("rest"), "resolve tcp tls rest clock");
    }
}

#[test]
fn the_whole_ends_whatever_single_deadlines_say() {
    let venue = Venue::new();
    venue.streams_do(Harm::AckLost);
    let deadlines = "ack = \"60s\"\nfirst_data = \"1s\"\nconnect = \"3s\"\nrest = \"3s\"";
    let begun = Instant::now();
    venue.check(deadlines).assert_failed("market_ws", "ack", "venue", "the whole check's 4500ms were over");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn a_failure_is_told_to_people_with_the_verdict_last() {
    let venue = Venue::new();
    venue.streams_do(Harm::RefuseUpgrade { status: 403, retry_after_s: None });
    let output = run("check", &Files::new(&venue.config(), &venue.ca()), &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("/market: upgrade failed after ") && text.contains("HTTP 403 Forbidden"), "{text}");
    let last = text.lines().last().unwrap();
    assert_eq!(last, "verdict: venue: 127.0.0.1 (market_ws) was reached, and refuses at upgrade");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "check failed: market_ws at upgrade\n");
}

#[test]
fn a_configuration_that_is_wrong_is_exit_2_in_the_words_of_run() {
    for config in ["[streams]\nsymbols = []\n", "[streams]\nsymbols = [\"btc\"]\nlegs = 9\n"] {
        let files = Files::new(config, "");
        let (check, run) = (run("check", &files, &["--json"]), run("run", &files, &[]));
        assert_eq!((check.status.code(), check.stdout.is_empty()), (Some(2), true), "{config}");
        assert!(!check.stderr.is_empty());
        assert_eq!(check.stderr, run.stderr);
    }
}
