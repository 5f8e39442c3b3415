//! The sections below the exchange: each function reads one and gives what it says, defaults filled in.

use super::document::{REQUIRED, Section};
use super::plan::{Condition, LANGUAGE};
use super::rules::{self, Plain, or_off, span, text, whole};
use super::streams::ALL;
use super::*;
use crate::wire::names::{SYMBOL_BYTES_MAX, SYMBOLS_MAX};
use std::path::Path;

/// `listed`: there is an address that the venue's list of symbols can be had from.
pub(super) fn streams(section: Section<'_, '_>, market: Market, listed: bool) -> Option<Streams> {
    let mut streams = Streams::of(Vec::new(), market);
    let chosen = section.list("symbols", &chosen());
    if !section.has("symbols") {
        section.complain("symbols", format!("a list of the venue's upper-case symbols {REQUIRED}"));
    }
    if chosen.as_ref().is_some_and(|chosen| !(1..=SYMBOLS_MAX).contains(&chosen.len())) {
        section.complain("symbols", format!("1 to {SYMBOLS_MAX} symbols or patterns"));
    }
    let by_pattern = |chosen: &Vec<Chosen>| chosen.iter().any(|entry| matches!(entry, Chosen::By(_)));
    if !listed && chosen.as_ref().is_some_and(by_pattern) {
        let words =
            "exact names alone, or exchange.custom.rest as well: patterns choose from the list the exchange gives";
        section.complain("symbols", words);
    }
    section.set("symbols_max", &mut streams.symbols_max, &whole(1, 2_000));
    section.set("agg_trade", &mut streams.agg_trade, &rules::switch());
    section.set("mark_price", &mut streams.mark_price, &rules::switch());
    if market == Market::Spot && streams.mark_price {
        section.complain("mark_price", "false, spot has no mark price");
        streams.mark_price = false;
    }
    if let Some(klines) = section.list("klines", &interval(market)) {
        streams.klines = klines;
    }
    section.set("subscribe_by", &mut streams.subscribe_by, &rules::one_of(&SUBSCRIBE_BY));
    section.set("per_connection", &mut streams.per_connection, &whole(1, 1024));
    section.set("legs", &mut streams.legs, &whole(1, 2));
    if !streams.agg_trade && !streams.mark_price && streams.klines.is_empty() {
        section.complain_of_it("at least one stream: agg_trade, mark_price or klines");
    }
    section.close();
    for entry in chosen? {
        match entry {
            Chosen::Name(name) => streams.symbols.push(name),
            Chosen::By(pattern) => streams.patterns.push(pattern),
        }
    }
    Some(streams)
}

/// One entry of `streams.symbols`.
#[derive(PartialEq)]
enum Chosen {
    Name(String),
    By(Pattern),
}

/// The venue's name of a symbol, or a pattern of names. Letters beyond ASCII are allowed: the venue lists such symbols.
fn chosen() -> rules::Rule<Chosen> {
    let expected = "a symbol as the venue writes it, in upper case, such as \"BTCUSDT\", or a pattern such as \"*USDT\" or \"all\"";
    text(expected, |name| {
        let fits = (1..=SYMBOL_BYTES_MAX).contains(&name.len());
        let ascii = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.' | '*');
        let beyond = |c: char| !c.is_ascii() && c.is_alphanumeric() && !c.is_lowercase();
        let fits = name == ALL || (fits && name.chars().all(|c| ascii(c) || beyond(c)));
        fits.then(|| Pattern::parse(name).map_or_else(|| Chosen::Name(name.to_owned()), Chosen::By))
    })
}

fn interval(market: Market) -> rules::Rule<Interval> {
    let allowed = move |interval: &Interval| *interval != Interval::S1 || market == Market::Spot;
    let names: Vec<_> = Interval::ALL.into_iter().filter(allowed).map(Interval::as_str).collect();
    text(format!("one of the intervals {}", names.join(", ")), move |name| {
        Interval::parse(name.as_bytes()).filter(allowed)
    })
}

pub(super) fn deadlines(section: Section<'_, '_>) -> Deadlines {
    let mut d = Deadlines::default();
    let rule = span(Span::from_ms(1), HOUR);
    section.set("resolve", &mut d.resolve, &rule);
    section.set("tcp", &mut d.tcp, &rule);
    section.set("tls", &mut d.tls, &rule);
    section.set("upgrade", &mut d.upgrade, &rule);
    section.set("connect", &mut d.connect, &rule);
    section.set("ack", &mut d.ack, &rule);
    section.set("first_data", &mut d.first_data, &rule);
    section.set("stale", &mut d.stale, &rule);
    d.stale_agg_trade = section.read("stale_agg_trade", &rule);
    d.stale_mark_price = section.read("stale_mark_price", &rule);
    d.stale_kline = section.read("stale_kline", &rule);
    section.set("ping_after", &mut d.ping_after, &rule);
    section.set("pong", &mut d.pong, &rule);
    section.set("rest", &mut d.rest, &rule);
    section.set("attempts", &mut d.attempts, &whole(1, 1_000_000));
    section.close();
    d
}

pub(super) fn backoff(section: Section<'_, '_>) -> Backoff {
    let mut backoff = Backoff::default();
    section.set("min", &mut backoff.min, &span(Span::from_ms(1), HOUR));
    section.set("max", &mut backoff.max, &span(Span::from_ms(1), HOUR.times(24)));
    if backoff.min > backoff.max {
        if section.has("max") {
            section.complain("max", format!("at least backoff.min (\"{}\")", rules::exact(backoff.min)));
        } else {
            section.complain("min", format!("at most backoff.max (\"{}\")", rules::exact(backoff.max)));
        }
    }
    section.close();
    backoff
}

pub(super) fn rotation(section: Section<'_, '_>) -> Rotation {
    let day = HOUR.times(24);
    let at = section.read("at", &text("a time of day UTC, hours and minutes, such as \"04:00\"", TimeOfDay::parse));
    let written = section.read("every", &rules::span_or_never(Span::from_ms(100), day));
    // A shorter age would end a connection before its time of day, and again at it.
    if at.is_some() && written.is_some_and(|every| every != day) {
        section.complain("every", format!("\"{}\" or nothing beside rotation.at", rules::exact(day)));
    }
    section.close();
    let default = if at.is_some() { day } else { Rotation::default().every };
    Rotation { every: written.unwrap_or(default), at }
}

pub(super) fn tape(section: Section<'_, '_>) -> TapeLimits {
    let mut tape = TapeLimits::default();
    section.set("trades", &mut tape.trades, &whole(1, 10_000_000));
    section.set("candles", &mut tape.candles, &whole(1, 100_000));
    section.set("backfill", &mut tape.backfill, &rules::switch());
    section.close();
    tape
}

pub(super) fn plans(root: &Section<'_, '_>, streams: Option<&Streams>) -> Vec<Plan> {
    let mut plans: Vec<Plan> = Vec::new();
    for section in root.sections("plan") {
        let name = section.require("name", &rules::label("a name of 1 to 64 bytes"));
        let symbol = section.require("symbol", &text("one of streams.symbols", |name| Some(name.to_owned())));
        let when = section.list("when", &text(LANGUAGE, |text| Condition::parse(text).map(|_| text.to_owned())));
        if !section.has("when") || when.as_ref().is_some_and(Vec::is_empty) {
            section.complain("when", format!("a list of at least one condition {REQUIRED}"));
        }
        if let (Some(symbol), Some(streams)) = (&symbol, streams)
            && !streams.want(symbol)
        {
            section.complain("symbol", "one of streams.symbols");
        }
        if name.as_ref().is_some_and(|name| plans.iter().any(|plan| plan.name == *name)) {
            section.complain("name", "a name that no other plan has");
        }
        if let (Some(name), Some(symbol), Some(when)) = (name, symbol, when) {
            plans.push(Plan { name, symbol, when });
        }
        section.close();
    }
    plans
}

pub(super) fn path_of(section: Section<'_, '_>, key: &'static str, default: &str, base: &Path) -> Option<PathBuf> {
    let mut name = Some(default.to_owned()).filter(|name| !name.is_empty());
    section.set(key, &mut name, &or_off(rules::path("a path")));
    section.close();
    name.map(|name| base.join(name))
}

pub(super) fn signals(section: Section<'_, '_>, warnings: &mut Vec<String>) -> Option<Signals> {
    let mut url = None;
    let mut token_env = SIGNAL_TOKEN_ENV.to_owned();
    section.set("url", &mut url, &or_off(rules::url(["wss", "ws"], Plain::Private)));
    section.set("token_env", &mut token_env, &rules::env_name());
    section.close();
    let url = url?;
    if !url.is_tls() && !url.is_loopback() {
        warnings.push("signals.url: plain ws:// to a private address, the token travels unencrypted".to_owned());
    }
    Some(Signals { url, token_env: Some(token_env) })
}

pub(super) fn waves(section: Section<'_, '_>) -> Waves {
    let mut waves = Waves::default();
    if let Some(mut minutes) = section.list("check_minutes", &whole(0, 59)) {
        minutes.sort_unstable();
        waves.check_minutes = minutes;
    }
    if waves.check_minutes.is_empty() {
        section.complain("check_minutes", "at least one minute from 0 to 59");
    }
    section.set("window", &mut waves.window, &span(Span::from_ms(1), HOUR));
    section.set("max_positions", &mut waves.max_positions, &whole(1, 1_000));
    section.set("signal_deadline", &mut waves.signal_deadline, &span(Span::from_ms(1), HOUR));
    section.close();
    waves
}

pub(super) fn trading(section: Section<'_, '_>, market: Market) -> Trading {
    let mut trading = Trading::default();
    section.set("mode", &mut trading.mode, &rules::one_of(&MODES));
    if market == Market::Spot && trading.mode == TradingMode::Live {
        section.complain("mode", "\"off\" or \"paper\", spot is market data only");
    }
    section.set("position_usd", &mut trading.position_usd, &rules::decimal(100_000_000));
    section.set("leverage", &mut trading.leverage, &whole(1, 125));
    section.set("stop_loss_pct", &mut trading.stop_loss_pct, &rules::decimal(99));
    section.set("trailing_activation_pct", &mut trading.trailing_activation_pct, &rules::decimal(1_000));
    section.set("trailing_callback_pct", &mut trading.trailing_callback_pct, &rules::decimal(99));
    section.set("unprotected_within", &mut trading.unprotected_within, &span(Span::from_ms(1), HOUR));
    section.close();
    trading
}

pub(super) fn alerts(section: Section<'_, '_>) -> Alerts {
    let mut alerts = Alerts::default();
    let https = || rules::url(["https", "http"], Plain::Loopback);
    let telegram = section.section("telegram");
    if telegram.is_present() {
        let bot_token_env = telegram.require("bot_token_env", &rules::env_name());
        let chat_id = telegram.require("chat_id", &rules::label("the chat's id in quotes, such as \"123\""));
        let base_url = telegram.read("base_url", &https()).or_else(|| Url::parse(TELEGRAM_URL));
        if let (Some(bot_token_env), Some(chat_id), Some(base_url)) = (bot_token_env, chat_id, base_url) {
            alerts.telegram = Some(Telegram { bot_token_env, chat_id, base_url });
        }
    }
    telegram.close();
    let webhook = section.section("webhook");
    webhook.set("url", &mut alerts.webhook, &or_off(https()));
    webhook.close();
    section.close();
    alerts
}

pub(super) fn listen(section: Section<'_, '_>) -> SocketAddr {
    let mut listen = HTTP_LISTEN;
    let rule = text("a literal address IP:port, such as \"127.0.0.1:9464\"", |text| text.parse().ok());
    section.set("listen", &mut listen, &rule);
    section.close();
    listen
}

pub(super) fn runtime(section: Section<'_, '_>) -> Runtime {
    let mut runtime = Runtime { cpu: section.read("cpu", &whole(0, 65_535)), ..Runtime::default() };
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if runtime.cpu.is_some_and(|cpu| !cores.iter().any(|core| core.id == cpu)) {
        let numbers: Vec<_> = cores.iter().map(|core| core.id.to_string()).collect();
        section.complain("cpu", format!("a core this process may use: {}", numbers.join(", ")));
    }
    section.set("busy_poll", &mut runtime.busy_poll, &rules::switch());
    section.set("stop_within", &mut runtime.stop_within, &span(Span::from_ms(1), HOUR));
    section.set("stall", &mut runtime.stall, &span(Span::from_us(1), Span::from_secs(60)));
    section.close();
    runtime
}

pub(super) fn log(section: Section<'_, '_>) -> String {
    let mut log_filter = LOG_FILTER.to_owned();
    section.set("filter", &mut log_filter, &filter());
    section.close();
    log_filter
}

/// `LEVEL` or `module=LEVEL`, separated by commas. `env_logger` would take a misspelt level for a module's name.
fn filter() -> rules::Rule<String> {
    let level = |word: &str| LOG_LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let module = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte))
    };
    text("off, error, warn, info, debug, trace or module=level, separated by commas", move |text| {
        let directive = |part: &str| match part.trim().split_once('=') {
            Some((name, word)) => module(name) && level(word),
            None => level(part.trim()),
        };
        text.split(',').all(directive).then(|| text.to_owned())
    })
}

/// Bound of most durations: beyond it a deadline is a mistake in the unit.
const HOUR: Span = Span::from_secs(3600);
const TELEGRAM_URL: &str = "https://api.telegram.org";
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
pub(super) const SUBSCRIBE_BY: [(&str, SubscribeBy); 2] =
    [("message", SubscribeBy::Message), ("url", SubscribeBy::Url)];
pub(super) const MODES: [(&str, TradingMode); 3] =
    [("off", TradingMode::Off), ("paper", TradingMode::Paper), ("live", TradingMode::Live)];
