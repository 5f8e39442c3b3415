//! What an operator's file means, and what is said about a file that means nothing.

use binance_edge::config::{self, Config, Environment, Market, SubscribeBy, TradingMode, Url};
use binance_edge::time::Span;
use binance_edge::wire::{Interval, StreamKind};
use std::path::{Path, PathBuf};

fn parse(text: &str) -> Result<Config, String> {
    config::parse(text, Path::new("edge.toml"), Path::new("/etc/edge")).map_err(|errors| errors.to_string())
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("refused:\n{errors}"))
}

/// The complaints, one a line.
fn refused(text: &str) -> Vec<String> {
    let errors = parse(text).expect_err("should be refused");
    errors.lines().map(str::to_owned).collect()
}

/// A good `[streams]` section, three lines long, then the rest from line 4 on.
fn with_streams(rest: &str) -> String {
    format!("[streams]\nsymbols = [\"BTCUSDT\"]\n\n{rest}")
}

/// Exactly one complaint, and this is how it begins.
fn check(rest: &str, begins: &str) {
    let complaints = refused(&with_streams(rest));
    assert_eq!(complaints.len(), 1, "{rest}\n{complaints:#?}");
    assert!(complaints[0].starts_with(begins), "{rest}\nsays: {}\nnot:  {begins}…", complaints[0]);
}

/// A directory of this test alone.
fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("binance-edge-config-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a temporary directory can be made");
    dir
}

#[test]
fn symbols_alone_give_the_documented_defaults() {
    let config = good("[streams]\nsymbols = [\"BTCUSDT\", \"币安人生USDT\"]");
    assert_eq!(config.exchange.environment, Environment::Mainnet);
    assert_eq!(config.exchange.market, Market::Usdm);
    assert_eq!(config.exchange.market_ws.to_string(), "wss://fstream.binance.com/market");
    assert_eq!(config.exchange.private_ws.unwrap().to_string(), "wss://fstream.binance.com/private");
    assert_eq!(config.exchange.rest.unwrap().to_string(), "https://fapi.binance.com");
    assert_eq!(config.streams.symbols, ["BTCUSDT", "币安人生USDT"]);
    assert!(config.streams.agg_trade && config.streams.mark_price);
    assert_eq!(config.streams.klines, [Interval::M1]);
    assert_eq!(config.streams.subscribe_by, SubscribeBy::Message);
    assert_eq!((config.streams.per_connection, config.streams.legs), (200, 1));
    assert_eq!((config.streams.patterns.len(), config.streams.symbols_max), (0, 600));
    assert_eq!(config.deadlines.connect, Span::from_secs(10));
    assert_eq!(config.deadlines.stale, Span::from_secs(60));
    for kind in [StreamKind::AggTrade, StreamKind::MarkPrice, StreamKind::Kline(Interval::M1)] {
        assert_eq!(config.deadlines.stale_of(kind), Span::from_secs(60));
    }
    assert_eq!(config.rotation.every, Span::from_secs(23 * 3600));
    assert_eq!(config.rotation.at, None);
    assert_eq!(config.store_path.as_deref(), Some(Path::new("/etc/edge/edge.db")));
    assert_eq!(config.recorder_dir, None);
    assert_eq!(config.signals, None);
    assert_eq!(config.waves.check_minutes, [5, 20, 35, 50]);
    assert_eq!(config.trading.mode, TradingMode::Off);
    assert_eq!(config.trading.stop_loss_pct.to_string(), "2.0");
    assert_eq!((config.alerts.telegram, config.alerts.webhook), (None, None));
    assert_eq!(config.http_listen.to_string(), "127.0.0.1:9464");
    assert_eq!(config.runtime.cpu, None);
    assert_eq!(config.runtime.stall, Span::from_ms(50));
    assert_eq!(config.log_filter, "info");
}

#[test]
fn each_environment_has_its_own_addresses() {
    for (environment, market, market_ws, rest) in [
        ("mainnet", "usdm", "wss://fstream.binance.com/market", "https://fapi.binance.com"),
        ("testnet", "usdm", "wss://demo-fstream.binance.com/market", "https://demo-fapi.binance.com"),
        ("mainnet", "spot", "wss://stream.binance.com:9443", "https://api.binance.com"),
        ("testnet", "spot", "wss://stream.testnet.binance.vision", "https://testnet.binance.vision"),
    ] {
        let exchange = format!("[exchange]\nenvironment = \"{environment}\"\nmarket = \"{market}\"");
        let config = good(&with_streams(&exchange));
        assert_eq!(config.exchange.market_ws.to_string(), market_ws);
        assert_eq!(config.exchange.rest.unwrap().to_string(), rest);
        assert_eq!(config.exchange.private_ws.is_some(), market == "usdm");
        assert_eq!(config.streams.mark_price, market == "usdm", "spot has no mark price");
    }
}

#[test]
fn a_custom_exchange_is_what_is_configured_and_nothing_more() {
    let only = good(&with_streams(
        "[exchange]\nenvironment = \"custom\"\n[exchange.custom]\nmarket_ws = \"ws://127.0.0.1:9443/market\"",
    ));
    assert_eq!(only.exchange.market_ws.to_string(), "ws://127.0.0.1:9443/market");
    assert_eq!((only.exchange.private_ws, only.exchange.rest, only.exchange.ca_pem), (None, None, None));
    check(
        "[exchange]\nenvironment = \"custom\"",
        "edge.toml:4: exchange.custom.market_ws: expected an address wss://host:port/path",
    );
    check(
        "[exchange.custom]\nmarket_ws = \"wss://h\"",
        "edge.toml:4: exchange.custom: expected exchange.environment to be \"custom\"",
    );
}

#[test]
fn plain_text_is_for_this_machine_alone() {
    let custom = |key: &str, url: &str| {
        let market_ws = if key == "market_ws" { "" } else { "market_ws = \"wss://h\"\n" };
        format!(
            "exchange.environment = \"custom\"\n[exchange.custom]\n{market_ws}{key} = \"{url}\"\n[streams]\nsymbols = [\"A\"]"
        )
    };
    for (key, url) in
        [("market_ws", "ws://localhost:1"), ("private_ws", "ws://[::1]:1"), ("rest", "http://127.8.0.1:1/prefix")]
    {
        good(&custom(key, url));
    }
    for (key, url) in [
        ("market_ws", "ws://192.168.0.1:1"),
        ("private_ws", "ws://example.com"),
        ("rest", "http://10.0.0.1"),
        ("rest", "wss://127.0.0.1"),
        ("market_ws", "https://127.0.0.1"),
        ("market_ws", "wss://user:word@host"),
        ("market_ws", "wss://host/?listenKey=x"),
    ] {
        let complaints = refused(&custom(key, url));
        assert_eq!(complaints.len(), 1, "{url}: {complaints:?}");
        assert!(complaints[0].contains(&format!(": exchange.custom.{key}: expected an address ")), "{complaints:?}");
        assert!(!complaints[0].contains(url), "{complaints:?}");
    }
}

#[test]
fn signals_may_be_plain_in_a_private_network_with_a_warning() {
    assert!(good(&with_streams("[signals]\nurl = \"ws://127.0.0.1:8765\"")).warnings.is_empty());
    let private = good(&with_streams("[signals]\nurl = \"ws://192.168.1.2:8765\""));
    assert_eq!(private.warnings.len(), 1);
    assert_eq!(private.signals.unwrap().token_env.as_deref(), Some("SIGNAL_TOKEN"));
    check("[signals]\nurl = \"ws://signals.example.com\"", "edge.toml:5: signals.url: expected an address wss://");
}

#[test]
fn every_complaint_comes_at_once_with_its_line() {
    let complaints = refused(
        r#"[exchange]
environment = "prod"
[streams]
symbols = [
  "BTCUSDT",
  "ethusdt",
]
per_connection = 5000
legs = 3
[deadlines]
tcp = "4"
tpc = "4s"
attempts = 0
[http]
listen = "localhost:9464"
[dedlines]
"#,
    );
    let expected = [
        r#"edge.toml:2: exchange.environment: expected "mainnet" or "testnet" or "custom""#,
        r#"edge.toml:6: streams.symbols: expected a symbol as the venue writes it, in upper case, such as "BTCUSDT""#,
        "edge.toml:8: streams.per_connection: expected a whole number from 1 to 1024",
        "edge.toml:9: streams.legs: expected a whole number from 1 to 2",
        r#"edge.toml:11: deadlines.tcp: expected a duration from "1ms" to "1h", such as "10s" or "250ms""#,
        "edge.toml:12: deadlines.tpc: expected one of the keys resolve, tcp, tls, upgrade, connect, ack, first_data, stale, stale_agg_trade, stale_mark_price, stale_kline, ping_after, pong, rest, attempts",
        "edge.toml:13: deadlines.attempts: expected a whole number from 1 to 1000000",
        r#"edge.toml:15: http.listen: expected a literal address IP:port, such as "127.0.0.1:9464""#,
        "edge.toml:16: dedlines: expected one of the sections exchange, streams, deadlines, backoff, rotation, tape, plan, store, ",
    ];
    assert_eq!(complaints.len(), expected.len(), "{complaints:#?}");
    for (complaint, expected) in complaints.iter().zip(expected) {
        assert!(complaint.starts_with(expected), "says: {complaint}\nnot:  {expected}");
    }
}

#[test]
fn one_wrong_value_of_each_kind() {
    for (rest, begins) in [
        ("[backoff]\nmin = \"1m\"", "edge.toml:5: backoff.min: expected at most backoff.max (\"30s\")"),
        ("[backoff]\nmin = \"2s\"\nmax = \"1s\"", "edge.toml:6: backoff.max: expected at least backoff.min (\"2s\")"),
        (
            "[rotation]\nevery = \"25h\"",
            "edge.toml:5: rotation.every: expected a duration from \"100ms\" to \"24h\", or",
        ),
        (
            "[rotation]\nat = \"4:00\"",
            "edge.toml:5: rotation.at: expected a time of day UTC, hours and minutes, such as \"04:00\"",
        ),
        (
            "[rotation]\nat = \"04:00\"\nevery = \"23h\"",
            "edge.toml:6: rotation.every: expected \"24h\" or nothing beside rotation.at",
        ),
        (
            "[rotation]\nevery = \"0s\"\nat = \"04:00\"",
            "edge.toml:5: rotation.every: expected \"24h\" or nothing beside rotation.at",
        ),
        ("[deadlines]\nstale_kline = \"0s\"", "edge.toml:5: deadlines.stale_kline: expected a duration from \"1ms\""),
        ("[deadlines]\nrest = \"0s\"", "edge.toml:5: deadlines.rest: expected a duration"),
        ("[deadlines]\nrest = \"2h\"", "edge.toml:5: deadlines.rest: expected a duration"),
        (
            "[deadlines]\nrest = 5",
            "edge.toml:5: deadlines.rest: expected a duration from \"1ms\" to \"1h\", such as \"10s\" or \"250ms\", found an integer",
        ),
        ("[tape]\ntrades = 0", "edge.toml:5: tape.trades: expected a whole number from 1 to 10000000"),
        ("[tape]\ncandles = 1.5", "edge.toml:5: tape.candles: expected a whole number from 1 to 100000, found a float"),
        ("[tape]\nbackfill = \"yes\"", "edge.toml:5: tape.backfill: expected true or false, found a string"),
        ("[waves]\ncheck_minutes = [5, 60]", "edge.toml:5: waves.check_minutes: expected a whole number from 0 to 59"),
        (
            "[waves]\ncheck_minutes = [5,\n20,\n5]",
            "edge.toml:7: waves.check_minutes: expected each entry once; entry 3 repeats entry 1",
        ),
        (
            "[waves]\ncheck_minutes = 5",
            "edge.toml:5: waves.check_minutes: expected a list, each entry a whole number from 0 to 59, found an integer",
        ),
        ("[waves]\ncheck_minutes = []", "edge.toml:5: waves.check_minutes: expected at least one"),
        ("[trading]\nmode = \"on\"", "edge.toml:5: trading.mode: expected \"off\" or \"paper\" or \"live\""),
        (
            "[trading]\nposition_usd = 200",
            "edge.toml:5: trading.position_usd: expected a decimal number in quotes, above 0 and at most 100000000, found an integer",
        ),
        ("[trading]\nstop_loss_pct = \"0\"", "edge.toml:5: trading.stop_loss_pct: expected a decimal number"),
        ("[trading]\nleverage = 126", "edge.toml:5: trading.leverage: expected a whole number from 1 to 125"),
        (
            "[alerts.telegram]\nchat_id = \"1\"",
            "edge.toml:4: alerts.telegram.bot_token_env: expected the name of an environment variable, never the secret itself (required)",
        ),
        (
            "[alerts.telegram]\nbot_token_env = \"T\"\nchat_id = 1",
            "edge.toml:6: alerts.telegram.chat_id: expected the chat's id in quotes, such as \"123\", found an integer",
        ),
        (
            "[alerts.webhook]\nurl = \"http://example.com\"",
            "edge.toml:5: alerts.webhook.url: expected an address https://",
        ),
        ("[http]\nlisten = \"9464\"", "edge.toml:5: http.listen: expected a literal address"),
        ("[runtime]\ncpu = 4096", "edge.toml:5: runtime.cpu: expected a core this process may use: "),
        ("[runtime]\ncpu = -1", "edge.toml:5: runtime.cpu: expected a whole number from 0"),
        (
            "[log]\nfilter = \"verbose\"",
            "edge.toml:5: log.filter: expected off, error, warn, info, debug, trace or module=level",
        ),
        ("[store]\npath = false", "edge.toml:5: store.path: expected a path, or \"\" for off, found a boolean"),
        (
            "[exchange.keys]\nsecret_env = \"S\"",
            "edge.toml:4: exchange.keys.api_key_env: expected the name of an environment variable (required)",
        ),
        (
            "[exchange.keys]\napi_key_env = \"K\"",
            "edge.toml:4: exchange.keys.secret_env: expected this or private_key_file (required)",
        ),
        (
            "[exchange.keys]\napi_key_env = \"K\"\nsecret_env = \"S\"\nprivate_key_file = \"p\"",
            "edge.toml:7: exchange.keys.private_key_file: expected either",
        ),
        (
            "[streams.more]\nx = 1",
            "edge.toml:4: streams.more: expected one of the keys symbols, symbols_max, agg_trade",
        ),
        ("[plan]\nname = \"p\"", "edge.toml:4: plan: expected sections [[plan]]"),
        ("tape = 5", "edge.toml:4: streams.tape: expected one of the keys"),
    ] {
        check(rest, begins);
    }
    assert_eq!(refused("tape = 5\n[streams]\nsymbols = [\"A\"]"), ["edge.toml:1: tape: expected the section [tape]"]);
}

#[test]
fn symbols_are_required_upper_case_and_once() {
    let none = "streams.symbols: expected a list of the venue's upper-case symbols (required)";
    assert_eq!(refused(""), [format!("edge.toml:1: {none}")]);
    assert_eq!(refused("\n[tape]\n[streams]\nlegs = 1"), [format!("edge.toml:3: {none}")]);
    assert_eq!(
        refused("[streams]\nsymbols = []"),
        ["edge.toml:2: streams.symbols: expected 1 to 8192 symbols or patterns"]
    );
    assert_eq!(
        refused("[streams]\nsymbols = [\"BTCUSDT\",\n\"ETHUSDT\", \"BTCUSDT\"]"),
        ["edge.toml:3: streams.symbols: expected each entry once; entry 3 repeats entry 1"]
    );
    for name in
        ["btcusdt", "BTC USDT", "", "A@B", "A/B", "A\\\"B", "A'B", "A?B", "A\\u0000", "ÉTÉé", "Ａ\\u202eB", "\\u200b"]
    {
        let complaints = refused(&format!("[streams]\nsymbols = [\"{name}\"]"));
        assert_eq!(complaints.len(), 1, "{name}: {complaints:?}");
        assert!(complaints[0].starts_with("edge.toml:2: streams.symbols: expected a symbol"), "{complaints:?}");
    }
    refused(&format!("[streams]\nsymbols = [\"{}\"]", "A".repeat(65)));
    for name in ["BTCUSDT_260327", "1000PEPEUSDT", "币安人生USDT", "龙虾USDT"] {
        good(&format!("[streams]\nsymbols = [\"{name}\"]"));
    }
}

#[test]
fn symbols_are_chosen_by_name_by_pattern_or_all() {
    let streams =
        good("[streams]\nsymbols = [\"*USDT\", \"BTCUSDT\", \"1000*\", \"all\", \"ETHUSDC\"]\nsymbols_max = 2000")
            .streams;
    assert_eq!(streams.symbols, ["BTCUSDT", "ETHUSDC"], "in their order, though a pattern chooses them as well");
    let patterns: Vec<_> = streams.patterns.iter().map(ToString::to_string).collect();
    assert_eq!(patterns, ["*USDT", "1000*", "all"]);
    assert_eq!(streams.symbols_max, 2_000);
    assert_eq!(good("[streams]\nsymbols = [\"all\"]").streams.symbols, Vec::<String>::new());

    for (list, repeats) in
        [("\"*USDT\", \"A\", \"*USDT\"", "entry 3 repeats entry 1"), ("\"all\", \"*\"", "entry 2 rep")]
    {
        let complaints = refused(&format!("[streams]\nsymbols = [{list}]"));
        let expected = format!("edge.toml:2: streams.symbols: expected each entry once; {repeats}");
        assert!(complaints.len() == 1 && complaints[0].starts_with(&expected), "{complaints:?}");
    }
    for name in ["*usdt", "ALL*?", "* USDT", "[AB]*", "All", &"*".repeat(65)] {
        let complaints = refused(&format!("[streams]\nsymbols = [\"{name}\"]"));
        assert!(
            complaints[0].contains("in upper case, such as \"BTCUSDT\", or a pattern such as \"*USDT\" or \"all\"")
        );
    }
    for number in ["0", "2001"] {
        let expected = "edge.toml:3: streams.symbols_max: expected a whole number from 1 to 2000";
        assert_eq!(refused(&format!("[streams]\nsymbols = [\"A\"]\nsymbols_max = {number}")), [expected]);
    }
}

#[test]
fn patterns_need_the_exchanges_list() {
    let custom = |symbols: &str, rest: &str| {
        format!(
            "[streams]\nsymbols = [{symbols}]\n[exchange]\nenvironment = \"custom\"\n[exchange.custom]\n\
             market_ws = \"wss://127.0.0.1:1\"\n{rest}"
        )
    };
    let rest = "rest = \"https://127.0.0.1:1\"";
    let complaints = refused(&custom("\"BTCUSDT\", \"*USDC\"", ""));
    let expected = "edge.toml:2: streams.symbols: expected exact names alone, or exchange.custom.rest as well: ";
    assert!(complaints.len() == 1 && complaints[0].starts_with(expected), "{complaints:?}");
    good(&custom("\"BTCUSDT\", \"*USDC\"", rest));
    good(&custom("\"BTCUSDT\"", ""));
    // An address that is refused is one complaint, not two.
    let complaints = refused(&custom("\"all\"", "rest = \"ftp://127.0.0.1\""));
    assert!(complaints.len() == 1 && complaints[0].contains(": exchange.custom.rest: "), "{complaints:?}");
}

#[test]
fn each_kind_of_stream_may_have_a_silence_of_its_own() {
    let own = "[deadlines]\nstale = \"30s\"\nstale_agg_trade = \"5m\"\nstale_kline = \"2m\"";
    let deadlines = good(&with_streams(own)).deadlines;
    assert_eq!(deadlines.stale_of(StreamKind::AggTrade), Span::from_secs(300));
    assert_eq!(deadlines.stale_of(StreamKind::MarkPrice), Span::from_secs(30));
    assert_eq!(deadlines.stale_of(StreamKind::Kline(Interval::H1)), Span::from_secs(120));
    let marks = good(&with_streams("[deadlines]\nstale_mark_price = \"4s\"")).deadlines;
    assert_eq!(marks.stale_of(StreamKind::MarkPrice), Span::from_secs(4));
}

#[test]
fn rotation_by_the_clock_is_bounded_by_a_day() {
    let rotation = |text: &str| good(&with_streams(&format!("[rotation]\n{text}"))).rotation;
    let at = rotation("at = \"04:00\"");
    assert_eq!((at.every, at.at.unwrap().minutes()), (Span::from_secs(24 * 3600), 240));
    assert_eq!(rotation("at = \"04:00\"\nevery = \"24h\""), at);
    assert_eq!((rotation("every = \"1h\"").every, rotation("").at), (Span::from_secs(3600), None));
}

#[test]
fn a_file_that_is_read_again_changes_symbols_and_names_the_rest() {
    let running = good(RUNNING);
    let same = running.reloaded(&running).unwrap();
    assert_eq!((same.streams, same.unchanged.len()), (running.streams.clone(), 0));

    let other = RUNNING
        .replace("[\"BTCUSDT\"]", "[\"ETHUSDT\", \"BTC*\"]\nsymbols_max = 7\nlegs = 2")
        .replace("/T0/CANARY", "/T0/CANARY-2")
        .replace("stale = \"8s\"", "stale_kline = \"8s\"")
        .replace("price < 1", "price < 2");
    let reloaded = running.reloaded(&good(&other)).unwrap();
    assert_eq!((reloaded.streams.symbols[0].as_str(), reloaded.streams.symbols_max), ("ETHUSDT", 7));
    assert_eq!((reloaded.streams.patterns.len(), reloaded.streams.legs), (1, 1), "legs need a restart");
    let mut unchanged = reloaded.unchanged;
    unchanged.sort();
    let expected = ["alerts.webhook.url", "deadlines.stale", "deadlines.stale_kline", "plan.when", "streams.legs"];
    assert_eq!(unchanged, expected, "a secret path is compared and not shown");

    let url = Url::parse("wss://127.0.0.1:9443").unwrap();
    let without_rest = Config::for_exchange(&["BTCUSDT"], url, None, None);
    let words = without_rest.reloaded(&good("[streams]\nsymbols = [\"all\"]")).unwrap_err();
    assert!(words.starts_with("streams.symbols: patterns need exchange.custom.rest"), "{words}");
}

/// Some of everything that can differ.
const RUNNING: &str = r#"[streams]
symbols = ["BTCUSDT"]
[deadlines]
stale = "8s"
[[plan]]
name = "one"
symbol = "BTCUSDT"
when = ["price > 1"]
[[plan]]
name = "two"
symbol = "BTCUSDT"
when = ["price < 1"]
[alerts.webhook]
url = "https://hooks.example.com/T0/CANARY"
"#;

#[test]
fn no_stream_at_all_is_refused() {
    let streams = "[streams]\nsymbols = [\"BTCUSDT\"]\nagg_trade = false\nklines = []\n";
    assert_eq!(
        refused(&format!("{streams}mark_price = false")),
        ["edge.toml:1: streams: expected at least one stream: agg_trade, mark_price or klines"]
    );
    good(streams);
    let spot = refused(&format!("{streams}[exchange]\nmarket = \"spot\""));
    assert_eq!(spot, ["edge.toml:1: streams: expected at least one stream: agg_trade, mark_price or klines"]);
}

#[test]
fn spot_has_no_mark_price_and_its_own_interval() {
    let spot = "[exchange]\nmarket = \"spot\"\n[streams]\nsymbols = [\"BTCUSDT\"]\n";
    assert!(!good(spot).streams.mark_price);
    assert_eq!(
        refused(&format!("{spot}mark_price = true")),
        ["edge.toml:5: streams.mark_price: expected false, spot has no mark price"]
    );
    assert_eq!(good(&format!("{spot}klines = [\"1s\", \"1M\"]")).streams.klines, [Interval::S1, Interval::Mo1]);
    let usdm = refused("[streams]\nsymbols = [\"BTCUSDT\"]\nklines = [\"1s\"]");
    assert!(usdm[0].starts_with("edge.toml:3: streams.klines: expected one of the intervals 1m, 3m,"), "{usdm:?}");
    assert!(refused(&format!("{spot}[trading]\nmode = \"live\""))[0].contains(": trading.mode: expected "));
}

#[test]
fn plans_name_a_symbol_that_is_streamed_and_conditions_that_exist() {
    let plan = |symbol: &str, when: &str| format!("[[plan]]\nname = \"dip\"\nsymbol = \"{symbol}\"\nwhen = {when}\n");
    let when = r#"["delta_60s > 0", "cvd_slope > 0", "price < 95000"]"#;
    let config = good(&with_streams(&plan("BTCUSDT", when)));
    assert_eq!((config.plans[0].name.as_str(), config.plans[0].when.len()), ("dip", 3));
    check(&plan("ETHUSDT", when), "edge.toml:6: plan.symbol: expected one of streams.symbols");
    let chosen = "[streams]\nsymbols = [\"BTCUSDT\", \"*USDC\"]\n";
    good(&format!("{chosen}{}", plan("ETHUSDC", when)));
    let complaints = refused(&format!("{chosen}{}", plan("ETHUSDT", when)));
    assert_eq!(complaints, ["edge.toml:5: plan.symbol: expected one of streams.symbols"]);
    check(&plan("BTCUSDT", "[\"volume_60s > 0\"]"), "edge.toml:7: plan.when: expected a condition METRIC OP OPERAND");
    check(&plan("BTCUSDT", "[]"), "edge.toml:7: plan.when: expected a list of at least one condition");
    check(&(plan("BTCUSDT", when) + &plan("BTCUSDT", when)), "edge.toml:9: plan.name: expected a name that no other");
}

#[test]
fn broken_toml_is_told_by_line_with_what_was_understood_before_it() {
    let complaints = refused("[streams]\nsymbols = [\"btc\"]\nlegs = = 2\n[tape]\nnonsense = 1\n");
    assert!(complaints[0].starts_with("edge.toml:2: streams.symbols: expected a symbol"), "{complaints:?}");
    assert!(complaints[1].starts_with("edge.toml:3: expected valid TOML: "), "{complaints:?}");
    assert!(complaints.iter().all(|complaint| !complaint.contains("nonsense")), "{complaints:?}");
    let twice = refused("[streams]\nsymbols = [\"A\"]\nlegs = 1\nlegs = 2");
    assert_eq!(twice, ["edge.toml:4: expected valid TOML: duplicate key"]);
}

#[test]
fn no_value_is_ever_quoted() {
    for text in [
        "[exchange.keys]\napi_key_env = \"CANARY-1\"\nsecret_env = \"CANARY 2\"\nprivate_key_file = 7",
        "[exchange.keys]\napi_key = \"CANARY\"",
        "[exchange.keys]\nsecret_env = CANARY",
        "[exchange.keys]\nsecret_env = \"CANARY",
        "[exchange.keys]\nsecret_env = 'CANARY' 'CANARY'",
        "[signals]\ntoken_env = \"CANARY CANARY\"\nurl = \"wss://CANARY:CANARY@host\"",
        "[alerts.telegram]\nbot_token_env = \"123:CANARY\"\nchat_id = \"\"",
        "[alerts.webhook]\nurl = \"https://host/?key=CANARY\"",
        "[trading]\nmode = \"CANARY\"",
        "[log]\nfilter = [\"CANARY\"]",
    ] {
        let complaints = refused(&with_streams(text)).join("\n");
        assert!(!complaints.contains("CANARY"), "{complaints}");
    }
    // 64 letters and digits, the form of the venue's own keys, would be printed as a variable's name.
    check(&format!("[exchange.keys]\napi_key_env = \"{}\"\nsecret_env = \"S\"", "k".repeat(64)), "edge.toml:5:");
}

#[test]
fn a_key_that_moves_the_cursor_is_made_harmless() {
    let complaints = refused(&with_streams("[log]\n\"\\u001b[2J\" = 1"));
    assert!(complaints[0].starts_with("edge.toml:5: log.?[2J: expected one of the keys filter"), "{complaints:?}");
}

#[test]
fn relative_paths_start_at_the_file() {
    let dir = scratch("paths");
    let root = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("ca.pem"), root.cert.pem()).unwrap();
    let text = "[exchange]\nenvironment = \"custom\"\n[exchange.custom]\nmarket_ws = \"wss://127.0.0.1:1\"\n\
                ca_file = \"ca.pem\"\n[streams]\nsymbols = [\"A\"]\n[recorder]\ndir = \"sub/rec\"\n[store]\npath = \"/x.db\"";
    let file = dir.join("edge.toml");
    std::fs::write(&file, text).unwrap();
    let config = config::load(&file).unwrap();
    assert_eq!(config.exchange.ca_file, Some(dir.join("ca.pem")));
    assert_eq!(config.exchange.ca_pem.as_deref(), Some(root.cert.pem().as_str()));
    assert_eq!(config.recorder_dir, Some(dir.join("sub/rec")));
    assert_eq!(config.store_path, Some(PathBuf::from("/x.db")));

    std::fs::write(dir.join("ca.pem"), "nothing of that kind").unwrap();
    for name in ["ca.pem", "absent.pem"] {
        std::fs::write(&file, text.replace("ca.pem", name)).unwrap();
        let expected = "5: exchange.custom.ca_file: expected a readable file with at least one certificate in PEM form";
        assert_eq!(config::load(&file).unwrap_err().to_string(), format!("{}:{expected}", file.display()));
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let errors = config::load(Path::new("/nowhere/edge.toml")).unwrap_err().to_string();
    assert!(errors.starts_with("/nowhere/edge.toml: expected a readable file (No such file"), "{errors}");
    let dir = scratch("latin");
    std::fs::write(dir.join("edge.toml"), b"[log]\nfilter = \"\xff\"").unwrap();
    let errors = config::load(&dir.join("edge.toml")).unwrap_err().to_string();
    assert!(errors.ends_with("edge.toml:2: expected UTF-8 text"), "{errors}");
    std::fs::remove_dir_all(dir).unwrap();
}

/// Every key away from its default.
const FULL: &str = r#"
[exchange]
environment = "custom"
[exchange.custom]
market_ws = "wss://127.0.0.1:9443/market"
private_ws = "wss://[::1]:9443/private"
rest = "https://localhost:9444"
[exchange.keys]
api_key_env = "BINANCE_API_KEY"
private_key_file = "ed25519.pem"
[streams]
symbols = ["BTCUSDT", "币安人生USDT", "1000*USDT", "all"]
symbols_max = 601
agg_trade = false
mark_price = false
klines = ["3m", "1M"]
subscribe_by = "url"
per_connection = 7
legs = 2
[deadlines]
resolve = "1s"
tcp = "1500ms"
tls = "250us"
upgrade = "1m"
connect = "1h"
ack = "6s"
first_data = "7s"
stale = "8s"
stale_agg_trade = "81s"
stale_mark_price = "82s"
stale_kline = "83s"
ping_after = "9s"
pong = "11s"
rest = "12s"
attempts = 4
[backoff]
min = "100ms"
max = "10m"
[rotation]
every = "24h"
at = "04:05"
[tape]
trades = 1
candles = 2
backfill = false
[[plan]]
name = "a \"quoted\" \\ name"
symbol = "BTCUSDT"
when = ["delta_60s > 0", "price < mark"]
[[plan]]
name = "another"
symbol = "币安人生USDT"
when = ["trades_300s >= 5"]
[store]
path = ""
[recorder]
dir = "rec"
[signals]
url = "ws://10.1.2.3:8765/feed"
token_env = "OTHER_TOKEN"
[waves]
check_minutes = [59, 0]
window = "3m"
max_positions = 6
signal_deadline = "21s"
[trading]
mode = "live"
position_usd = "123.45"
leverage = 3
stop_loss_pct = "2.50"
trailing_activation_pct = "1.25"
trailing_callback_pct = "0.75"
unprotected_within = "6s"
[alerts.telegram]
bot_token_env = "TELEGRAM_TOKEN"
chat_id = "-100123"
base_url = "http://127.0.0.1:1"
[alerts.webhook]
url = "https://example.com"
[http]
listen = "[::1]:0"
[runtime]
busy_poll = true
stop_within = "6s"
stall = "51ms"
[log]
filter = "debug,binance_edge::net=trace"
"#;

#[test]
fn what_is_shown_reads_back_as_the_same_configuration() {
    let full = FULL.replace("250us", "250ms");
    for text in [
        with_streams(""),
        with_streams("[rotation]\nevery = \"0s\""),
        with_streams("[exchange]\nmarket = \"spot\""),
        full,
    ] {
        let config = good(&text);
        let shown = config.to_toml();
        let again = config::parse(&shown, Path::new("shown.toml"), Path::new("/elsewhere"))
            .unwrap_or_else(|errors| panic!("{errors}\n{shown}"));
        assert_eq!(again, config, "{shown}");
        assert_eq!(again.to_toml(), shown);
    }
    assert_eq!(refused(FULL).len(), 1, "microseconds are below the range of a deadline");
}

#[test]
fn the_path_of_a_webhook_is_not_shown() {
    let config = good(&with_streams("[alerts.webhook]\nurl = \"https://hooks.example.com/T0/CANARY\""));
    let shown = config.to_toml();
    assert!(shown.contains("url = \"https://hooks.example.com/***\""), "{shown}");
    assert!(!shown.contains("CANARY"));
}

#[test]
fn keys_are_read_when_asked_for_and_what_is_missing_is_named() {
    let config = good(&with_streams("[exchange.keys]\napi_key_env = \"EDGE_KEY\"\nsecret_env = \"EDGE_SECRET\""));
    let set = |name: &str| (name == "EDGE_KEY").then(|| "CANARY".to_owned());
    let errors = config::load_keys(&config, &set).unwrap_err().to_string();
    let expected = "expected the environment variable EDGE_SECRET to be set and not empty";
    assert_eq!(errors, format!("edge.toml:6: exchange.keys.secret_env: {expected}"));

    let keys = config::load_keys(&config, &|_| Some("CANARY".to_owned())).unwrap().unwrap();
    assert_eq!(keys.api_key.reveal(), "CANARY");
    assert!(!format!("{keys:?} {}", keys.api_key).contains("CANARY"));
    assert_eq!(config::load_keys(&good(&with_streams("")), &set), Ok(None));
    let empty = config::load_token(&config, "signals.token_env", "SIGNAL_TOKEN", &|_| Some(String::new()));
    assert!(empty.unwrap_err().to_string().contains("SIGNAL_TOKEN to be set and not empty"));
}

#[cfg(unix)]
#[test]
fn a_key_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = scratch("keys");
    let file = dir.join("ed25519.pem");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    std::fs::write(&file, key.serialize_pem()).unwrap();
    let text = format!("[exchange.keys]\napi_key_env = \"K\"\nprivate_key_file = {:?}", file.display().to_string());
    let config = good(&with_streams(&text));
    let load = || config::load_keys(&config, &|_| Some("k".to_owned())).map_err(|errors| errors.to_string());
    for mode in [0o640, 0o604, 0o644] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let expected = "edge.toml:6: exchange.keys.private_key_file: expected a file that only its owner can read";
        assert!(load().unwrap_err().starts_with(expected), "{:?}", load());
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(load().unwrap().unwrap().signing, config::Signing::Ed25519(_)));
    std::fs::write(&file, "not a key").unwrap();
    assert!(load().unwrap_err().contains("an Ed25519 private key"));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_configuration_can_be_made_without_a_file() {
    let url = Url::parse("wss://127.0.0.1:9443/market").unwrap();
    let config = Config::for_exchange(&["BTCUSDT"], url, None, None);
    assert_eq!((config.store_path.clone(), config.http_listen.port()), (None, 0));
    assert_eq!(good(&config.to_toml()), config);
}

/// The samples, as they are installed.
fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    std::fs::read_to_string(path).expect("the sample exists")
}

#[test]
fn the_samples_are_good() {
    for name in ["mainnet.toml", "testnet.toml", "spot.toml", "demo.toml"] {
        config::parse(&sample(name), Path::new(name), Path::new("/etc/edge"))
            .unwrap_or_else(|errors| panic!("{errors}"));
    }
    assert_eq!(good(&sample("testnet.toml")).exchange.environment, Environment::Testnet);
    assert_eq!(good(&sample("spot.toml")).exchange.market, Market::Spot);
    assert_eq!(good(&sample("demo.toml")).exchange.environment, Environment::Custom);
}

#[test]
fn the_full_sample_is_the_defaults() {
    assert_eq!(good(&sample("mainnet.toml")), good("[streams]\nsymbols = [\"BTCUSDT\", \"ETHUSDT\"]"));
}

#[test]
fn the_full_sample_has_every_key_and_those_that_are_off_are_good_too() {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    let all: String = sample("mainnet.toml").lines().map(on).collect();
    let keys = |text: &str| {
        let mut keys = std::collections::BTreeSet::new();
        let table: toml::Table = text.parse().unwrap();
        let mut open = vec![(String::new(), &table)];
        while let Some((path, table)) = open.pop() {
            for (key, value) in table {
                let path = format!("{path}.{key}");
                let inner = value.as_table().or_else(|| value.as_array()?.first()?.as_table());
                open.extend(inner.map(|table| (path.clone(), table)));
                keys.insert(path);
            }
        }
        keys
    };
    let elsewhere = "exchange.market = \"\"\n[exchange.custom]\nca_file = \"\"\n[exchange.keys]\nsecret_env = \"\"\n[runtime]\ncpu = 0\n";
    let known = keys(FULL).into_iter().chain(keys(elsewhere)).collect();
    let known: std::collections::BTreeSet<String> = known;
    assert_eq!(keys(&all).symmetric_difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());

    // Two of them exclude others, one bounds another, and one needs a file.
    let usable: String = all
        .lines()
        .filter(|line| !line.starts_with("ca_file") && !line.starts_with("private_key_file"))
        .map(|line| match line.split_once(" = ") {
            Some(("environment", _)) => "environment = \"custom\"\n".to_owned(),
            Some(("every", _)) => "every = \"24h\"\n".to_owned(),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = good(&usable);
    assert_eq!((config.plans.len(), config.runtime.cpu), (1, Some(0)));
    assert!(config.alerts.telegram.is_some() && config.exchange.keys.secret_env.is_some());
}
