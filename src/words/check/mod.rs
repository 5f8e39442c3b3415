//! `check`: every endpoint tried once, all side by side, stage by stage, and a verdict whose fault it is.
//!
//! | endpoint | stages | asked |
//! |---|---|---|
//! | `market_ws` | resolve tcp tls upgrade ack first_data | `<first symbol>@markPrice@1s`, on spot `@aggTrade` |
//! | `rest` | resolve tcp tls rest clock | what time it is |
//! | `signals` | resolve tcp tls upgrade | nothing |
//! | `alerts.telegram`, `alerts.webhook` | resolve tcp tls | nothing |
//!
//! A plain endpoint has no `tls`. With `streams.subscribe_by = "url"` the upgrade itself asks, and there is no `ack`. A
//! literal address is resolved at once. It changes nothing at the venue and takes no port, file or key.
//!
//! Not here yet, and where it will be: the private stream and a signed request join [`endpoints`] when keys are
//! configured; the signal server's authentication follows its upgrade as a question of its own.

mod direct;
mod drive;
mod http;
mod report;
mod socket;
mod stages;
mod verdict;

use super::{FAILED, USAGE, clean, complain, print};
use crate::config::{Config, Deadlines, Market, SubscribeBy, Url, masked};
use crate::market::layout;
use crate::net::{self, Session, Settings};
use crate::shell::clock::SystemClock;
use crate::shell::workers::{Resolve, system_resolver};
use crate::time::{Instant, Span};
use crate::wire::{StreamKind, Symbols};
use direct::Direct;
use drive::Way;
use rustls::ClientConfig;
use socket::{Probe, Question};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use verdict::{Endpoint, Place, Word};

/// Longest message that is read.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What the whole check may take beyond the longest single deadline: 11.5 s at the defaults, so that it has ended, with
/// its goodbyes and its printing, within 12 s.
const BEYOND: Span = Span::from_ms(1_500);

/// What to check.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Print one JSON document instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Tries everything once and says what it found.
pub fn run(args: CheckArgs) -> ExitCode {
    let config = match crate::config::load(&args.config) {
        Ok(config) => config,
        Err(errors) => {
            complain(errors);
            return ExitCode::from(USAGE);
        }
    };
    config.warnings.iter().for_each(complain);
    let tls = match net::client_config(config.exchange.ca_pem.as_deref()) {
        Ok(tls) => tls,
        Err(error) => {
            complain(format_args!("exchange.custom.ca_file: {error}"));
            return ExitCode::from(USAGE);
        }
    };
    let endpoints = match check(&config, &tls, &system_resolver()) {
        Ok(endpoints) => endpoints,
        Err(error) => {
            complain(format_args!("check: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    let (word, why) = verdict::verdict(&endpoints);
    let text = if args.json {
        match report::json(&endpoints, word) {
            Ok(text) => text,
            Err(error) => {
                complain(format_args!("check: {error}"));
                return ExitCode::from(FAILED);
            }
        }
    } else {
        report::text(&endpoints, word, &why)
    };
    let printed = print(&text);
    if word == Word::Ok {
        return printed;
    }
    let failed = endpoints
        .iter()
        .filter_map(|endpoint| endpoint.failure().map(|(step, _)| format!("{} at {}", endpoint.name, step.as_str())));
    complain(format_args!("check failed: {}", failed.collect::<Vec<_>>().join(", ")));
    ExitCode::from(FAILED)
}

fn check(config: &Config, tls: &Arc<ClientConfig>, resolve: &Resolve) -> std::io::Result<Vec<Endpoint>> {
    let clock = SystemClock::start();
    let (mut endpoints, ways): (Vec<_>, Vec<_>) = endpoints(config, tls, clock.mono()).into_iter().unzip();
    let Deadlines { connect, first_data, rest, .. } = config.deadlines;
    let whole = Span::from_ns(connect.max(first_data).max(rest).as_ns().saturating_add(BEYOND.as_ns()));
    for (endpoint, log) in endpoints.iter_mut().zip(drive::run(ways, whole, clock, resolve)?) {
        endpoint.rows = log.into_rows();
    }
    Ok(endpoints)
}

/// What the configuration names, and how it is tried.
fn endpoints(config: &Config, tls: &Arc<ClientConfig>, now: Instant) -> Vec<(Endpoint, Way)> {
    let exchange = &config.exchange;
    let mut all = vec![(endpoint("market_ws", &exchange.market_ws, true), market(config, tls, now))];
    if let Some(url) = &exchange.rest {
        let path = match exchange.market {
            Market::Usdm => "/fapi/v1/time",
            Market::Spot => "/api/v3/time",
        };
        let question = http::Question {
            authority: net::authority(&url.host, url.port, url.is_tls()),
            target: format!("{}{path}", url.path),
        };
        all.push((endpoint("rest", url, true), direct(config, url, tls, Some(question))));
    }
    if let Some(signals) = &config.signals {
        let path = if signals.url.path.is_empty() { "/" } else { &signals.url.path };
        let session = session(config, &signals.url, path.to_owned(), tls, now);
        let way = Way::Socket(Box::new(Probe::new(session, None, now)));
        all.push((endpoint("signals", &signals.url, false), way));
    }
    if let Some(telegram) = &config.alerts.telegram {
        let way = direct(config, &telegram.base_url, tls, None);
        all.push((endpoint("alerts.telegram", &telegram.base_url, false), way));
    }
    if let Some(url) = &config.alerts.webhook {
        let shown = Endpoint { url: masked(url), ..endpoint("alerts.webhook", url, false) };
        all.push((shown, direct(config, url, tls, None)));
    }
    all
}

fn endpoint(name: &'static str, url: &Url, of_exchange: bool) -> Endpoint {
    let place = if url.is_loopback() {
        Place::Loopback
    } else if url.host.parse::<IpAddr>().is_ok() {
        Place::Address
    } else {
        Place::Name
    };
    Endpoint { name, url: url.to_string(), host: url.host.clone(), place, of_exchange, rows: Vec::new() }
}

/// One stream of the first symbol, asked for as the running process asks. The mark price comes every second whether
/// anybody trades or not.
fn market(config: &Config, tls: &Arc<ClientConfig>, now: Instant) -> Way {
    let symbols = Symbols::new([config.streams.symbols.first().map_or(ANY_SYMBOL, String::as_str)]);
    let kind = match config.exchange.market {
        Market::Usdm => StreamKind::MarkPrice,
        Market::Spot => StreamKind::AggTrade,
    };
    let name = symbols.iter().next().map_or_else(String::new, |(_, symbol)| kind.stream_name(symbol));
    let path = &config.exchange.market_ws.path;
    let target = layout::target(path, config.streams.subscribe_by, std::iter::once(name.as_str()));
    let question = Question {
        name,
        kind,
        symbols,
        by_url: config.streams.subscribe_by == SubscribeBy::Url,
        ack_within: config.deadlines.ack,
        data_within: config.deadlines.first_data,
    };
    let session = session(config, &config.exchange.market_ws, target, tls, now);
    Way::Socket(Box::new(Probe::new(session, Some(question), now)))
}

/// What is asked for where patterns choose the symbols: every market of the venue has it.
const ANY_SYMBOL: &str = "BTCUSDT";

fn session(config: &Config, url: &Url, target: String, tls: &Arc<ClientConfig>, now: Instant) -> Session {
    let settings = Settings {
        host: url.host.clone(),
        port: url.port,
        tls: url.is_tls().then(|| Arc::clone(tls)),
        target,
        deadlines: config.deadlines.clone(),
        backoff: config.backoff,
        message_bytes_max: MESSAGE_BYTES_MAX,
    };
    // The seed only spreads attempts, and there is one.
    Session::new(settings, 0, now)
}

fn direct(config: &Config, url: &Url, tls: &Arc<ClientConfig>, question: Option<http::Question>) -> Way {
    Way::Direct(Box::new(Direct {
        host: url.host.clone(),
        port: url.port,
        tls: url.is_tls().then(|| Arc::clone(tls)),
        question,
        deadlines: config.deadlines.clone(),
    }))
}
