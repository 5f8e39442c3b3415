//! `demo`: the same process against the built-in exchange on loopback over TLS. No network, no keys, no files.

use super::exchange::{ExchangeArgs, MarketArg, configure, factor};
use super::run::duration;
use super::{FAILED, closing, complain};
use crate::config::{Config, Url};
use crate::engine::Engine;
use crate::shell::logger;
use crate::shell::printer::Printer;
use crate::shell::run::{Finished, Shell};
use crate::shell::workers::system_resolver;
use crate::sim::exchange::{Exchange, ExchangeConfig};
use crate::sim::serve::{ServeOptions, Served, serve};
use crate::sim::world::audit::{Audit, audit};
use crate::time::{Instant, Now, Span};
use crate::wire::Interval;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// By then whoever watches is told what lives, complete or not.
const TOLD_WITHIN: Span = Span::from_ms(2_500);
/// Between two looks at the market.
const SEEN_EVERY: Span = Span::from_secs(5);
/// Symbols of the generated market that the demonstration subscribes to.
const SYMBOLS: [&str; 6] = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "1000SHIBUSDT", "币安人生USDT", "QUIETUSDT"];

/// What to demonstrate.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// End after this long (for example 30s); without it, on Ctrl-C or at the end of the recording
    #[arg(long, value_name = "D", value_parser = duration)]
    pub duration: Option<Span>,
    /// Recorded frames to play instead of a generated market (plain or .zst, in the order given)
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub frames: Vec<PathBuf>,
    /// How many times faster than recorded, or than the real market
    #[arg(long, value_name = "N", default_value = "1", value_parser = factor)]
    pub speed: f64,
    /// Same seed, same market
    #[arg(long, default_value = "1")]
    pub seed: u64,
}

/// Runs both ends and compares them. Exit code 1 if what the process holds is not what the exchange sent.
pub fn run(args: DemoArgs) -> ExitCode {
    match demonstrate(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(words) => {
            complain(format_args!("demo: {words}"));
            ExitCode::from(FAILED)
        }
    }
}

fn demonstrate(args: &DemoArgs) -> Result<bool, String> {
    let logger = logger::start("info").map_err(|error| format!("log: {error}"))?;
    let printer = Printer::stdout().map_err(|error| format!("stdout: {error}"))?;
    let mut exchange = configure(&ExchangeArgs {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        frames: args.frames.clone(),
        speed: args.speed,
        seed: args.seed,
        rate: 1.0,
        market: MarketArg::Usdm,
    })?;
    // A market a thousand times as busy needs no past of ten minutes.
    exchange.warm_up_ms = (exchange.warm_up_ms as f64 / args.speed.max(1.0)) as i64;
    let served = start_exchange(exchange)?;
    let Some(config) = config_for(&served, !args.frames.is_empty())? else {
        printer.print(
            b"nothing   the recordings hold no aggTrade, markPrice@1s or kline frame; all were passed over\n".to_vec(),
        );
        printer.flush(Span::from_ms(1_000));
        return Ok(true);
    };
    let shell = Shell::start(&config, args.seed, system_resolver(), None, logger.clone());
    let shell = shell.map_err(|e| e.to_string())?;
    let mut hello = String::new();
    writeln!(hello, "exchange  {} (built in; its own market, CA and books)", config.exchange.market_ws).ok();
    writeln!(hello, "page      http://{}/", shell.http_address()).ok();
    printer.print(hello.into_bytes());

    let mut teller = Teller::new(&printer);
    let served = std::sync::Arc::new(served);
    if !args.frames.is_empty() {
        watch_playback(std::sync::Arc::clone(&served), shell.stopper())?;
    }
    let finished = shell.run(args.duration, |engine, now| teller.look(engine, now)).map_err(|e| e.to_string())?;
    printer.print(closing::statistics(&finished).into_bytes());
    let good = compare(served, finished, &printer)?;
    logger.flush(Span::from_ms(300));
    printer.flush(Span::from_ms(1_000));
    Ok(good)
}

fn start_exchange(config: ExchangeConfig) -> Result<Served<Exchange>, String> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    serve(listen, move |utc| Exchange::new(config, utc), ServeOptions::default())
        .map_err(|error| format!("cannot listen on loopback: {error}"))
}

/// A configuration for this exchange: some symbols of its own market, or whatever was recorded; `None` if nothing of what
/// was recorded is of a kind that is subscribed to.
fn config_for(served: &Served<Exchange>, recorded: bool) -> Result<Option<Config>, String> {
    let at = |scheme, path: &str| Url {
        scheme,
        host: served.address.ip().to_string(),
        port: served.address.port(),
        path: path.into(),
    };
    let names = served
        .with(|exchange, _| exchange.recorded_streams().map(str::to_owned).collect::<Vec<_>>())
        .ok_or("the exchange does not answer")?;
    let (mut symbols, mut trades, mut marks, mut klines) = (Vec::new(), false, false, Vec::new());
    for (symbol, kind) in names.iter().filter_map(|name| name.split_once('@')) {
        match kind.strip_prefix("kline_").map(|interval| Interval::parse(interval.as_bytes())) {
            Some(Some(interval)) if !klines.contains(&interval) => klines.push(interval),
            Some(Some(_)) => {}
            None if kind == "aggTrade" => trades = true,
            None if kind == "markPrice@1s" => marks = true,
            Some(None) | None => continue,
        }
        let symbol = symbol.to_uppercase();
        if !symbols.contains(&symbol) {
            symbols.push(symbol);
        }
    }
    if recorded && symbols.is_empty() {
        return Ok(None);
    }
    let symbols: Vec<&str> = if recorded { symbols.iter().map(String::as_str).collect() } else { SYMBOLS.into() };
    let rest = Some(at("https", ""));
    let mut config = Config::for_exchange(&symbols, at("wss", "/market"), rest, Some(served.ca_pem.clone()));
    if recorded {
        (config.streams.agg_trade, config.streams.mark_price, config.streams.klines) = (trades, marks, klines);
    }
    Ok(Some(config))
}

/// Stops the process when the recording has been played. Asking the exchange may block, so not on the loop.
fn watch_playback(served: std::sync::Arc<Served<Exchange>>, stopper: crate::shell::run::Stopper) -> Result<(), String> {
    std::thread::Builder::new()
        .name("playback".into())
        .spawn(move || {
            let served = std::sync::Arc::downgrade(&{ served });
            loop {
                std::thread::sleep(Duration::from_millis(200));
                let Some(served) = served.upgrade() else { return };
                if served.with(|exchange, _| exchange.done()).unwrap_or(true) {
                    // What was sent last is on its way.
                    std::thread::sleep(Duration::from_millis(500));
                    return stopper.stop();
                }
            }
        })
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// Tells on stdout what lives and what is seen.
struct Teller<'p> {
    printer: &'p Printer,
    began: Option<Instant>,
    told: bool,
    seen: Instant,
}

impl<'p> Teller<'p> {
    fn new(printer: &'p Printer) -> Self {
        Self { printer, began: None, told: false, seen: Instant::ZERO }
    }

    fn look(&mut self, engine: &Engine, now: Now) {
        let began = *self.began.get_or_insert(now.mono);
        let streams = || engine.feed().streams();
        let live = || streams().filter(|stream| stream.state().is_live());
        let mut out = String::new();
        if !self.told && (live().count() == streams().count() || now.mono.since(began) >= TOLD_WITHIN) {
            self.told = true;
            self.seen = now.mono;
            let names: Vec<&str> = live().map(|stream| &*stream.name).collect();
            writeln!(out, "live      {} of {}: {}", names.len(), streams().count(), names.join(" ")).ok();
            for stream in streams().filter(|stream| !stream.state().is_live()) {
                writeln!(out, "not yet   {} ({})", stream.name, stream.state().as_str()).ok();
            }
        } else if self.told && now.mono.since(self.seen) >= SEEN_EVERY {
            self.seen = now.mono;
            writeln!(out, "seen at {}", now.utc()).ok();
            for (name, symbol) in engine.status(now).symbols {
                let mut line = format!("  {name:<16}");
                if let Some(trades) = symbol.trades {
                    write!(line, " {:>7} trades, {} missing", trades.received, trades.missing).ok();
                }
                if let Some(mark) = symbol.mark_price {
                    write!(line, "   mark {}", mark.price).ok();
                }
                for (interval, candles) in symbol.candles {
                    write!(line, "   {interval}: {} candles of {} updates", candles.len, candles.updates).ok();
                    if let Some(close) = candles.close {
                        write!(line, ", close {close}").ok();
                    }
                }
                writeln!(out, "{}", line.trim_end()).ok();
            }
        }
        if !out.is_empty() {
            self.printer.print(out.into_bytes());
        }
    }
}

/// Holds what the process has against the exchange's own books, and says what came of it.
fn compare(served: std::sync::Arc<Served<Exchange>>, finished: Finished, printer: &Printer) -> Result<bool, String> {
    let market = finished.engine.into_market();
    let audit: Audit =
        served.with(move |exchange, _| audit(&market, exchange.truth())).ok_or("the exchange is gone")?;
    let Audit { trades, candles, marks, missing, differences } = audit;
    let mut out = String::new();
    let good = differences.is_empty() && missing == 0 && finished.clean;
    if good {
        writeln!(
            out,
            "equal     {trades} trades, {candles} closed candles and {marks} mark prices held are the exchange's own, \
             and no trade between the first and the last is missing"
        )
        .ok();
    } else {
        writeln!(out, "DIFFERENT {missing} trades missing; {} differences:", differences.len()).ok();
        for difference in differences {
            writeln!(out, "  {difference}").ok();
        }
        if !finished.clean {
            writeln!(out, "  and the stop was not clean").ok();
        }
    }
    printer.print(out.into_bytes());
    Ok(good)
}
