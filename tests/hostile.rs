//! The real binary against servers that misbehave, one way each: it lives, says what happened and where, its memory stays
//! flat, and it stops cleanly.
#![allow(clippy::disallowed_methods, reason = "outside the core")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod badpeer;

use badpeer::{BadPeer, Data, End, Frame, Mode, Subscription, Tls, Upgrade};
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);
/// Resident memory that no input may exceed; measured are about 10 MiB.
const RESIDENT_KIB_MAX: u64 = 64 * 1024;

/// What an operator must see.
#[derive(Debug)]
enum Seen {
    /// The stream is live.
    Live,
    /// The stream is live, and so many kinds of refusals are counted at least.
    LiveAndRefused(usize),
    /// Attempts end in this stage.
    EndsIn(&'static str),
    /// Attempts end in this stage, and a violation of the protocol is counted.
    Violates,
    /// Messages of this kind are counted as refused.
    Refused(&'static str),
}

fn expected(mode: Mode) -> Seen {
    match mode {
        Mode::Healthy
        | Mode::Upgrade(Upgrade::Glued)
        | Mode::Subscription(Subscription::DataBeforeAck)
        | Mode::Data(Data::Firehose | Data::StopReading | Data::MixedIds) => Seen::Live,
        Mode::Data(Data::WildTimes) => Seen::LiveAndRefused(1),
        Mode::Data(Data::BadJson) => Seen::LiveAndRefused(5),
        Mode::Tls(_) => Seen::EndsIn("tls"),
        Mode::Upgrade(_) => Seen::EndsIn("upgrade"),
        Mode::Subscription(Subscription::AckNoData) => Seen::EndsIn("first_data"),
        Mode::Subscription(_) => Seen::EndsIn("ack"),
        Mode::Data(Data::Zombie) => Seen::EndsIn("read"),
        Mode::Data(Data::Mute) => Seen::EndsIn("pong"),
        Mode::End(End::Close(_) | End::CloseOnSend) => Seen::EndsIn("close"),
        Mode::End(End::CloseOneByte | End::CloseBadReason) => Seen::Violates,
        Mode::End(End::Eof | End::Reset) => Seen::EndsIn("read"),
        Mode::Frame(Frame::Binary) => Seen::Refused("binary"),
        Mode::Frame(frame) => of_frame(frame),
    }
}

fn of_frame(frame: Frame) -> Seen {
    let name = format!("{frame:?}");
    match name.as_str() {
        // Valid, if unusual.
        "FragmentsOk" | "PongUnasked" => Seen::Live,
        // Bytes come, acknowledged is what was asked for, and no data ever.
        "Trickle" | "LongLength" | "PingFlood" => Seen::EndsIn("first_data"),
        _ => Seen::Violates,
    }
}

impl Seen {
    fn in_status(&self, status: &Value) -> bool {
        let (connection, stream) = (&status["connections"][0], &status["streams"][0]);
        let ended = connection["last_failure"]["stage"].as_str();
        let refused = connection["rejected_by"].as_object().unwrap();
        match self {
            Self::Live => stream["state"] == "live",
            Self::LiveAndRefused(kinds) => stream["state"] == "live" && refused.len() >= *kinds,
            Self::EndsIn(stage) => ended == Some(stage),
            Self::Violates => ended == Some("read") && refused.contains_key("protocol"),
            Self::Refused(kind) => refused.contains_key(*kind),
        }
    }
}

/// A process of its own, killed when the test leaves it.
struct Running {
    child: Child,
    http: String,
    _folder: folder::Folder,
}

impl Running {
    fn start(peer: &BadPeer) -> Self {
        let folder = folder::Folder::new();
        let ca = folder.path.join("ca.pem");
        std::fs::write(&ca, &peer.ca_pem).unwrap();
        let ca_line = if peer.ca_pem.is_empty() { String::new() } else { "ca_file = \"ca.pem\"".to_owned() };
        // A port that was free a moment ago; whoever takes it meanwhile makes this test fail loudly.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!(
            r#"[exchange]
environment = "custom"
[exchange.custom]
market_ws = "{}/market"
{ca_line}
[streams]
symbols = ["BTCUSDT"]
mark_price = false
klines = []
[deadlines]
resolve = "400ms"
tcp = "400ms"
tls = "400ms"
upgrade = "400ms"
connect = "2s"
ack = "500ms"
first_data = "500ms"
stale = "1500ms"
ping_after = "300ms"
pong = "400ms"
[backoff]
min = "100ms"
max = "300ms"
[store]
path = ""
[http]
listen = "{free}"
"#,
            peer.base()
        );
        let file = folder.path.join("edge.toml");
        std::fs::write(&file, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_binance-edge"))
            .args(["run", "--config"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, http: format!("http://{free}"), _folder: folder }
    }

    fn status(&mut self) -> Option<Value> {
        assert_eq!(self.child.try_wait().unwrap(), None, "the process is gone");
        let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
        let mut answer = agent.get(format!("{}/status", self.http)).call().ok()?;
        serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()
    }

    fn resident_kib_max(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// A clean stop, on SIGTERM.
    fn stop(mut self) {
        let told = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(told.success());
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "it does not stop");
            thread::sleep(Duration::from_millis(20));
        }
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

mod folder {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A folder that goes with its owner.
    pub(super) struct Folder {
        pub(super) path: PathBuf,
    }

    impl Folder {
        pub(super) fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("edge-hostile-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir(&path).unwrap();
            Self { path }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn endures(mode: Mode, tls: bool) {
    let peer = BadPeer::start(mode, tls);
    let seen = expected(mode);
    let mut process = Running::start(&peer);
    let end = Instant::now() + PATIENCE;
    loop {
        let status = process.status();
        if status.as_ref().is_some_and(|status| seen.in_status(status)) {
            break;
        }
        assert!(Instant::now() < end, "{mode:?}, TLS {tls}: expected {seen:?}, but\n{status:#?}");
        thread::sleep(Duration::from_millis(50));
    }
    let resident = process.resident_kib_max();
    assert!(resident <= RESIDENT_KIB_MAX, "{mode:?}: {resident} KiB");
    process.stop();
}

/// A few at a time: the machine may have two cores.
fn all_endure(modes: Vec<Mode>, tls: bool) {
    let left = Mutex::new(modes);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some(mode) = left.lock().unwrap().pop() else { return };
                    endures(mode, tls);
                }
            });
        }
    });
}

#[test]
fn every_hostile_server_is_endured_and_told_of_over_tls() {
    all_endure(Mode::all(), true);
}

#[test]
fn every_hostile_server_is_endured_and_told_of_without_tls() {
    all_endure(Mode::all().into_iter().filter(|mode| !matches!(mode, Mode::Tls(_))).collect(), false);
}

#[test]
fn a_certificate_that_is_not_trusted_ends_attempts_and_not_the_process() {
    for tls in [Tls::Untrusted, Tls::WrongName, Tls::Expired] {
        endures(Mode::Tls(tls), true);
    }
}
