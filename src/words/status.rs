//! `status`: what a running process says of itself, as it said it or as a table.

mod table;

use super::{FAILED, complain, print};
use crate::config::Url;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Whom to ask and how to show it.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Base address of the process, without a path
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9464", value_parser = base_address)]
    pub url: Url,
    /// Print the body of /status as it came
    #[arg(long)]
    pub json: bool,
    /// Draw again every second until interrupted
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

/// Asks once, or until interrupted.
pub fn run(args: StatusArgs) -> ExitCode {
    if args.watch {
        return watch(&args.url);
    }
    match ask(&args.url) {
        Ok(body) if args.json => print(&format!("{}\n", body.trim_end())),
        Ok(body) => match page(&body) {
            Ok(page) => print(&page),
            Err(reason) => failed(&args.url, &reason),
        },
        Err(reason) => failed(&args.url, &reason),
    }
}

/// The first try must succeed; later an operator wants to see the process come back.
fn watch(url: &Url) -> ExitCode {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second signal ends the process at once, also while it waits for an answer.
        let at_once = signal_hook::flag::register_conditional_shutdown(signal, 0, Arc::clone(&interrupted));
        if let Err(error) = at_once.and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted))) {
            complain(format_args!("signals cannot be received: {error}"));
            return ExitCode::from(FAILED);
        }
    }
    let mut answered = false;
    while !interrupted.load(Ordering::Relaxed) {
        let shown = match ask(url).and_then(|body| page(&body)) {
            Ok(page) => page,
            Err(_) if interrupted.load(Ordering::Relaxed) => break,
            Err(reason) if answered => format!("{url}: {reason}\n"),
            Err(reason) => return failed(url, &reason),
        };
        answered = true;
        let mut out = std::io::stdout().lock();
        let above = if out.is_terminal() { CLEAR } else { "\n" };
        // In one piece, or the screen flickers.
        if out.write_all(format!("{above}{shown}").as_bytes()).and_then(|()| out.flush()).is_err() {
            break;
        }
        drop(out);
        for _ in 0..20 {
            if interrupted.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    ExitCode::SUCCESS
}

/// The body of `/status`, or why there is none.
fn ask(url: &Url) -> Result<String, String> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .new_agent();
    let mut answer = agent.get(format!("{url}/status")).call().map_err(why)?;
    if answer.status() != 200 {
        return Err(format!("answered with HTTP {} instead of its status", answer.status().as_u16()));
    }
    answer.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_string().map_err(why)
}

/// What kept the answer away, without any address.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library adds kinds; its own words will do for them")]
fn why(error: ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        ureq::Error::Io(error) => format!("no answer: {error}"),
        ureq::Error::HostNotFound => "no answer: the host is not known".to_owned(),
        ureq::Error::BadUri(_) => "no usable address".to_owned(),
        other => format!("no answer: {other}"),
    }
}

fn page(body: &str) -> Result<String, String> {
    let status = serde_json::from_str(body).map_err(|_| "answered with something that is no status".to_owned())?;
    Ok(table::page(&status))
}

fn failed(url: &Url, reason: &str) -> ExitCode {
    complain(format_args!("{url}: {reason}"));
    ExitCode::from(FAILED)
}

fn base_address(text: &str) -> Result<Url, String> {
    Url::parse(text)
        .filter(|url| matches!(url.scheme, "http" | "https") && url.path.is_empty())
        .ok_or_else(|| "expected http://host:port without a path".to_owned())
}

/// Longer than a process that lives ever takes: its answers are ready-made.
const PATIENCE: Duration = Duration::from_secs(3);
/// About 900 symbols with their streams are 2 MiB.
const BODY_BYTES_MAX: u64 = 64 << 20;
/// Cursor home, then erase to the end of the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";
