//! `run`: the edge process.

use super::{FAILED, USAGE, closing, complain, print};
use crate::config::{Config, ConfigErrors, TradingMode, parse_span};
use crate::shell::reload::Reload;
use crate::shell::run::Shell;
use crate::shell::workers::system_resolver;
use crate::shell::{logger, run::Finished};
use crate::time::Span;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// What to run.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// End cleanly after this long, as on SIGTERM (for example 90s, 15m)
    #[arg(long, value_name = "D", value_parser = duration)]
    pub duration: Option<Span>,
    /// Needed, beside trading.mode = "live", for real orders
    #[arg(long)]
    pub live: bool,
}

/// Runs until SIGINT, SIGTERM or the end of the given time.
pub fn run(args: RunArgs) -> ExitCode {
    let config = match crate::config::load(&args.config) {
        Ok(config) => config,
        Err(errors) => {
            complain(errors);
            return ExitCode::from(USAGE);
        }
    };
    if config.trading.mode != TradingMode::Off {
        complain("trading.mode: expected \"off\": this version does not trade yet");
        return ExitCode::from(USAGE);
    }
    if args.live {
        complain("--live: expected only with trading.mode = \"live\"");
        return ExitCode::from(USAGE);
    }
    match process(&config, &args.config, args.duration) {
        Ok(finished) => {
            let code = print(&closing::statistics(&finished));
            if finished.clean { code } else { ExitCode::from(FAILED) }
        }
        Err(words) => {
            complain(words);
            ExitCode::from(FAILED)
        }
    }
}

fn process(config: &Config, file: &Path, duration: Option<Span>) -> Result<Finished, String> {
    let logger = logger::start(&config.log_filter).map_err(|error| format!("log: {error}"))?;
    let shell = Shell::start(config, fastrand::u64(..), system_resolver(), Some(again(file)), logger.clone());
    let shell = shell.map_err(|error| error.to_string())?;
    log::info!(
        "binance-edge {} on {} ({:?}, {:?}), page at http://{}/",
        env!("CARGO_PKG_VERSION"),
        config.exchange.market_ws,
        config.exchange.environment,
        config.exchange.market,
        shell.http_address()
    );
    for warning in config.warnings.iter().map(String::as_str).chain(absent(config)) {
        log::warn!("{warning}");
    }
    let finished = shell.run(duration, |_, _| {}).map_err(|error| error.to_string());
    logger.flush(Span::from_ms(300));
    finished
}

/// Reads the file again.
fn again(file: &Path) -> Reload {
    let file = file.to_owned();
    let lines = |errors: ConfigErrors| errors.to_string().lines().map(str::to_owned).collect();
    Arc::new(move || crate::config::load(&file).map_err(lines))
}

/// Parts that the configuration asks for and this version does not have: said once, at the start.
fn absent(config: &Config) -> Vec<&'static str> {
    let parts = [
        (config.store_path.is_some(), "store.path: this version has no store yet; nothing is written"),
        (config.recorder_dir.is_some(), "recorder.dir: this version has no recorder yet; nothing is recorded"),
        (config.signals.is_some(), "signals.url: this version has no signal client yet; nothing is received"),
        (!config.plans.is_empty(), "plan: this version judges no plans yet"),
        (
            config.alerts.telegram.is_some() || config.alerts.webhook.is_some(),
            "alerts: this version sends no alerts yet; watch /metrics or /healthz",
        ),
    ];
    parts.into_iter().filter(|(configured, _)| *configured).map(|(_, words)| words).collect()
}

/// A `--duration`.
pub(super) fn duration(text: &str) -> Result<Span, String> {
    parse_span(text).ok_or_else(|| "expected a duration such as 30s, 15m or 2h".to_owned())
}
