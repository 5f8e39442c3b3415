//! [`Config`] → TOML text: every key with its value, such that reading it gives the same configuration again.

use super::exchange::{ENVIRONMENTS, MARKETS};
use super::rules::exact;
use super::sections::{MODES, SUBSCRIBE_BY};
use super::{Config, Environment, Interval, SIGNAL_TOKEN_ENV, Span, Url};
use std::fmt::{Display, Write};
use std::path::Path;

impl Config {
    /// The effective configuration as TOML. What is off and has no word for it stands in a comment.
    ///
    /// There is no secret in a configuration, except that the path of a webhook often is one: it shows as `***`.
    pub fn to_toml(&self) -> String {
        self.page().text
    }

    /// Every `section.key` with its value as [`to_toml`](Self::to_toml) shows it, in that order; of a section that can
    /// stand several times, each time.
    pub(super) fn listing(&self) -> Vec<(String, String)> {
        self.page().keys
    }

    fn page(&self) -> Page {
        let mut page = Page::default();
        self.show_exchange(&mut page);
        self.show_streams(&mut page);
        self.show_deadlines(&mut page);
        self.show_parts(&mut page);
        self.show_trading(&mut page);
        self.show_process(&mut page);
        page
    }

    fn show_exchange(&self, page: &mut Page) {
        let exchange = &self.exchange;
        page.section("exchange");
        page.key("environment", quoted(word(&ENVIRONMENTS, exchange.environment)));
        page.key("market", quoted(word(&MARKETS, exchange.market)));
        if exchange.environment == Environment::Custom {
            page.section("exchange.custom");
            page.key("market_ws", quoted(&exchange.market_ws));
            page.optional("private_ws", exchange.private_ws.as_ref().map(quoted));
            page.optional("rest", exchange.rest.as_ref().map(quoted));
            page.optional("ca_file", exchange.ca_file.as_deref().map(path));
        } else {
            page.comment("market_ws", &exchange.market_ws);
            for (name, url) in [("private_ws", &exchange.private_ws), ("rest", &exchange.rest)] {
                if let Some(url) = url {
                    page.comment(name, url);
                }
            }
        }
        let keys = &exchange.keys;
        page.section("exchange.keys");
        page.optional("api_key_env", keys.api_key_env.as_ref().map(quoted));
        page.optional("secret_env", keys.secret_env.as_ref().map(quoted));
        page.optional("private_key_file", keys.private_key_file.as_deref().map(path));
    }

    fn show_streams(&self, page: &mut Page) {
        let streams = &self.streams;
        page.section("streams");
        let patterns = streams.patterns.iter().map(quoted);
        page.key("symbols", list(streams.symbols.iter().map(quoted).chain(patterns)));
        page.key("symbols_max", streams.symbols_max);
        page.key("agg_trade", streams.agg_trade);
        page.key("mark_price", streams.mark_price);
        page.key("klines", list(streams.klines.iter().map(|interval: &Interval| quoted(interval))));
        page.key("subscribe_by", quoted(word(&SUBSCRIBE_BY, streams.subscribe_by)));
        page.key("per_connection", streams.per_connection);
        page.key("legs", streams.legs);
    }

    fn show_deadlines(&self, page: &mut Page) {
        let d = &self.deadlines;
        page.section("deadlines");
        page.span("resolve", d.resolve);
        page.span("tcp", d.tcp);
        page.span("tls", d.tls);
        page.span("upgrade", d.upgrade);
        page.span("connect", d.connect);
        page.span("ack", d.ack);
        page.span("first_data", d.first_data);
        page.span("stale", d.stale);
        for (name, own) in [
            ("stale_agg_trade", d.stale_agg_trade),
            ("stale_mark_price", d.stale_mark_price),
            ("stale_kline", d.stale_kline),
        ] {
            page.optional(name, own.map(|span| quoted(exact(span))));
        }
        page.span("ping_after", d.ping_after);
        page.span("pong", d.pong);
        page.span("rest", d.rest);
        page.key("attempts", d.attempts);
        page.section("backoff");
        page.span("min", self.backoff.min);
        page.span("max", self.backoff.max);
        page.section("rotation");
        page.span("every", self.rotation.every);
        page.optional("at", self.rotation.at.map(quoted));
    }

    fn show_parts(&self, page: &mut Page) {
        page.section("tape");
        page.key("trades", self.tape.trades);
        page.key("candles", self.tape.candles);
        page.key("backfill", self.tape.backfill);
        for plan in &self.plans {
            page.section("[plan]");
            page.key("name", quoted(&plan.name));
            page.key("symbol", quoted(&plan.symbol));
            page.key("when", list(plan.when.iter().map(quoted)));
        }
        let off = || quoted("");
        page.section("store");
        page.key("path", self.store_path.as_deref().map_or_else(off, path));
        page.section("recorder");
        page.key("dir", self.recorder_dir.as_deref().map_or_else(off, path));
        let signals = self.signals.as_ref();
        page.section("signals");
        page.key("url", signals.map_or_else(off, |signals| quoted(&signals.url)));
        let token_env = signals.and_then(|signals| signals.token_env.as_deref()).unwrap_or(SIGNAL_TOKEN_ENV);
        page.key("token_env", quoted(token_env));
        page.section("waves");
        page.key("check_minutes", list(self.waves.check_minutes.iter()));
        page.span("window", self.waves.window);
        page.key("max_positions", self.waves.max_positions);
        page.span("signal_deadline", self.waves.signal_deadline);
    }

    fn show_trading(&self, page: &mut Page) {
        let trading = &self.trading;
        page.section("trading");
        page.key("mode", quoted(word(&MODES, trading.mode)));
        page.key("position_usd", quoted(trading.position_usd));
        page.key("leverage", trading.leverage);
        page.key("stop_loss_pct", quoted(trading.stop_loss_pct));
        page.key("trailing_activation_pct", quoted(trading.trailing_activation_pct));
        page.key("trailing_callback_pct", quoted(trading.trailing_callback_pct));
        page.span("unprotected_within", trading.unprotected_within);
        if let Some(telegram) = &self.alerts.telegram {
            page.section("alerts.telegram");
            page.key("bot_token_env", quoted(&telegram.bot_token_env));
            page.key("chat_id", quoted(&telegram.chat_id));
            page.key("base_url", quoted(&telegram.base_url));
        }
        page.section("alerts.webhook");
        page.key("url", quoted(self.alerts.webhook.as_ref().map(masked).unwrap_or_default()));
    }

    fn show_process(&self, page: &mut Page) {
        page.section("http");
        page.key("listen", quoted(self.http_listen));
        page.section("runtime");
        page.optional("cpu", self.runtime.cpu);
        page.key("busy_poll", self.runtime.busy_poll);
        page.span("stop_within", self.runtime.stop_within);
        page.span("stall", self.runtime.stall);
        page.section("log");
        page.key("filter", quoted(&self.log_filter));
    }
}

/// TOML text as it grows.
#[derive(Default)]
struct Page {
    text: String,
    /// The section that is being written, as complaints name it.
    section: String,
    /// `section.key` and value of what was written.
    keys: Vec<(String, String)>,
}

impl Page {
    fn section(&mut self, name: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.line(format_args!("{gap}[{name}]"));
        self.section = name.trim_matches(['[', ']']).to_owned();
    }

    fn key(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        self.line(format_args!("{name} = {value}"));
        self.keys.push((format!("{}.{name}", self.section), value));
    }

    fn span(&mut self, name: &str, value: Span) {
        self.key(name, quoted(exact(value)));
    }

    fn optional(&mut self, name: &str, value: Option<impl Display>) {
        match value {
            Some(value) => self.key(name, value),
            None => self.line(format_args!("# {name} is not set")),
        }
    }

    fn comment(&mut self, name: &str, value: impl Display) {
        self.line(format_args!("# {name}: {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a String takes everything");
    }
}

/// A TOML string.
fn quoted(value: impl Display) -> String {
    let mut text = String::from('"');
    for c in value.to_string().chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => text.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

fn list(items: impl Iterator<Item = impl Display>) -> String {
    let items: Vec<_> = items.map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

fn path(path: &Path) -> String {
    quoted(path.display())
}

fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], meaning: T) -> &'static str {
    words.iter().find(|(_, known)| *known == meaning).map_or("", |(word, _)| word)
}

/// The address without its path: many webhooks carry their secret there.
pub(crate) fn masked(url: &Url) -> String {
    let path = if url.path.is_empty() { "" } else { "/***" };
    Url { path: path.to_owned(), ..url.clone() }.to_string()
}
