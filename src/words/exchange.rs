//! `binance-edge exchange`: the built-in exchange alone, for any other client.
//!
//! What it prints to stdout is TOML from the first line to the last: the block that a configuration needs to use it, and
//! at the end what was served, as comments.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::Market;
use crate::shell::signals::stop_alone;
use crate::sim::exchange::{Exchange, ExchangeConfig, RecordedFrame, Source};
use crate::sim::serve::{ServeOptions, Served, serve};

/// What `exchange` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct ExchangeArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Recorded frames to send instead of a market of its own (plain or .zst, in the order given).
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub frames: Vec<PathBuf>,
    /// How many times faster than recorded, or than the real market.
    #[arg(long, value_name = "N", default_value = "1", value_parser = factor)]
    pub speed: f64,
    /// Same seed, same market.
    #[arg(long, default_value = "1")]
    pub seed: u64,
    /// Multiplies the trades of every symbol.
    #[arg(long, value_name = "X", default_value = "1", value_parser = factor)]
    pub rate: f64,
    /// Which of the venue's markets it is.
    #[arg(long, value_enum, default_value = "usdm")]
    pub market: MarketArg,
}

/// A market, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MarketArg {
    /// USD-M futures.
    Usdm,
    /// Spot.
    Spot,
}

/// Serves until SIGINT or SIGTERM; a second one ends the process at once.
pub fn run(args: ExchangeArgs) -> ExitCode {
    // Where `main` has set up its own logger already, that one stays.
    let _ = env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .filter_module("binance_edge", log::LevelFilter::Info)
        .try_init();
    let served = stop_alone().map_err(|error| format!("cannot handle signals: {error}")).and_then(|stop| {
        serve_until(&args, &mut io::stdout(), |_| {
            // Disconnected cannot be: the thread behind it lives as long as the process. It would mean the same.
            let _ = stop.recv();
        })
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "exchange: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until `wait` returns.
fn serve_until(args: &ExchangeArgs, out: &mut impl Write, wait: impl FnOnce(&Served<Exchange>)) -> Result<(), String> {
    let config = configure(args)?;
    let served = serve(args.listen, move |utc| Exchange::new(config, utc), ServeOptions::default())
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    let ca = CaFile::create(&served.ca_pem).map_err(|error| format!("cannot write the CA file: {error}"))?;
    // A reader of stdout that went away is no reason to stop serving.
    let _ = out.write_all(block(args.market, served.address, &ca.path).as_bytes()).and_then(|()| out.flush());
    wait(&served);
    let closing = served.stop(|exchange, closing| {
        use std::fmt::Write as _;
        let ledger = exchange.ledger();
        let mut told = format!(
            "# served {} connections: {} WebSockets ({} refused), {} REST requests\n\
             # {} messages in, {} frames out, {} clients cut for not reading\n\
             # violations: {} of the exchange's rules, {} of the protocols\n",
            closing.connections,
            closing.tally.upgrades,
            closing.tally.refused,
            closing.tally.requests,
            closing.tally.messages,
            closing.tally.frames,
            closing.tally.slow,
            ledger.violations,
            closing.tally.violations,
        );
        for (utc, conn, what) in ledger.first_violations.iter().take(VIOLATIONS_TOLD) {
            let whose = conn.map_or_else(String::new, |conn| format!(" on WebSocket {}", conn.0));
            let _ = writeln!(told, "#   {utc} {what:?}{whose}");
        }
        told
    });
    let closing = closing.ok_or("it did not stop in time")?;
    let _ = out.write_all(closing.as_bytes()).and_then(|()| out.flush());
    Ok(())
}

/// The exchange that these arguments ask for.
pub(super) fn configure(args: &ExchangeArgs) -> Result<ExchangeConfig, String> {
    let market = match args.market {
        MarketArg::Usdm => Market::Usdm,
        MarketArg::Spot => Market::Spot,
    };
    let mut config = ExchangeConfig::of(market);
    config.seed = args.seed;
    config.rate = args.rate;
    if args.frames.is_empty() {
        config.rate *= args.speed;
        return Ok(config);
    }
    let mut lines = Vec::new();
    for path in &args.frames {
        read_lines(path, &mut lines).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let frames = RecordedFrame::of_lines(lines.iter().map(String::as_str), market);
    if frames.is_empty() {
        return Err("the recordings hold no frame of this market".to_owned());
    }
    log::info!(
        "{} recorded frames, {} lines left out; they begin with the first subscription",
        frames.len(),
        lines.len() - frames.len()
    );
    config.source = Source::Recorded { frames, speed: args.speed, wait_for_subscriber: true };
    Ok(config)
}

/// Adds the lines of a recording, plain or zstd. Of one that was cut short the readable lines count.
fn read_lines(path: &Path, lines: &mut Vec<String>) -> io::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    let mut reader: Box<dyn BufRead> = if file.fill_buf()?.starts_with(&ZSTD_MAGIC) {
        Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(file)?))
    } else {
        Box::new(file)
    };
    let mut damaged = 0;
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => match String::from_utf8(line) {
                Ok(mut line) => {
                    line.truncate(line.trim_end_matches(['\r', '\n']).len());
                    lines.push(line);
                }
                Err(_) => damaged += 1,
            },
            Err(error) => {
                log::warn!("{}: the tail cannot be read: {error}", path.display());
                break;
            }
        }
    }
    if damaged > 0 {
        log::warn!("{}: {damaged} lines are not UTF-8", path.display());
    }
    Ok(())
}

/// A configuration that uses this exchange.
fn block(market: MarketArg, address: SocketAddr, ca: &Path) -> String {
    // An address that means all of them is nobody's name.
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let at = SocketAddr::new(ip, address.port());
    // JSON's escapes are TOML's.
    let ca = serde_json::Value::from(ca.to_string_lossy()).to_string();
    let (name, streams) = match market {
        MarketArg::Usdm => {
            ("usdm", format!("market_ws = \"wss://{at}/market\"\nprivate_ws = \"wss://{at}/private\"\n"))
        }
        MarketArg::Spot => ("spot", format!("market_ws = \"wss://{at}\"\n")),
    };
    format!(
        "[exchange]\nenvironment = \"custom\"\nmarket = \"{name}\"\n\n\
         [exchange.custom]\n{streams}rest = \"https://{at}\"\nca_file = {ca}\n\n"
    )
}

/// The CA of this run in a file of its own, which goes with the process.
struct CaFile {
    path: PathBuf,
}

impl CaFile {
    fn create(pem: &str) -> io::Result<Self> {
        let mut last = io::ErrorKind::AlreadyExists.into();
        for _ in 0..CA_NAMES_TRIED {
            let name = format!("binance-edge-ca-{}-{:08x}.pem", std::process::id(), fastrand::u32(..));
            let path = std::env::temp_dir().join(name);
            // Never through a link that somebody else put there.
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(mut file) => {
                    let this = Self { path };
                    File::write_all(&mut file, pem.as_bytes())?;
                    return Ok(this);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

impl Drop for CaFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A positive, finite number.
pub(super) fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(factor),
        _ => Err("expected a number above 0".to_owned()),
    }
}

/// Of the violations that were remembered, so many are printed.
const VIOLATIONS_TOLD: usize = 20;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Longest line; far above any frame that the client side accepts.
const LINE_MAX: u64 = 16 * 1024 * 1024;
const CA_NAMES_TRIED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use std::os::unix::fs::PermissionsExt as _;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: ExchangeArgs,
    }

    fn args(words: &[&str]) -> Result<ExchangeArgs, clap::Error> {
        Cli::try_parse_from([&["exchange"], words].concat()).map(|cli| cli.args)
    }

    #[test]
    fn what_is_typed_is_checked() {
        let plain = args(&[]).unwrap();
        assert_eq!(
            (plain.listen.to_string().as_str(), plain.speed, plain.market),
            ("127.0.0.1:0", 1.0, MarketArg::Usdm)
        );
        assert_eq!(args(&["--frames", "a", "b", "--speed", "2.5"]).unwrap().frames.len(), 2);
        assert_eq!(args(&["--market", "spot"]).unwrap().market, MarketArg::Spot);
        for bad in [["--speed", "0"], ["--speed", "nan"], ["--rate", "-1"], ["--listen", "localhost:1"]] {
            assert!(args(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn it_prints_a_configuration_that_reaches_it_and_takes_its_file_away() {
        let args = args(&["--market", "usdm", "--seed", "7"]).unwrap();
        let mut out = Vec::new();
        let mut file = PathBuf::new();
        let seen = &mut file;
        serve_until(&args, &mut out, |served| {
            let ca = std::env::temp_dir();
            let named = format!("binance-edge-ca-{}-", std::process::id());
            let found = std::fs::read_dir(ca).unwrap().filter_map(Result::ok).map(|entry| entry.path()).find(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&named))
                    && std::fs::read_to_string(path).is_ok_and(|pem| pem == served.ca_pem)
            });
            *seen = found.unwrap();
            assert_eq!(std::fs::metadata(&seen).unwrap().permissions().mode() & 0o777, 0o600);
        })
        .unwrap();
        assert!(!file.exists());
        let out = String::from_utf8(out).unwrap();
        let toml: toml::Table = out.parse().unwrap();
        let exchange = toml["exchange"].as_table().unwrap();
        assert_eq!((exchange["environment"].as_str(), exchange["market"].as_str()), (Some("custom"), Some("usdm")));
        let custom = exchange["custom"].as_table().unwrap();
        assert_eq!(custom["ca_file"].as_str().unwrap(), file.to_str().unwrap());
        let at = custom["rest"].as_str().unwrap().strip_prefix("https://127.0.0.1:").unwrap();
        assert_eq!(custom["market_ws"].as_str().unwrap(), format!("wss://127.0.0.1:{at}/market"));
        assert_eq!(custom["private_ws"].as_str().unwrap(), format!("wss://127.0.0.1:{at}/private"));
        assert!(out.contains("# served 0 connections"), "{out}");
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap().to_string();
        let error = serve_until(&args(&["--listen", &at]).unwrap(), &mut Vec::new(), |_| {}).unwrap_err();
        assert!(error.contains(&at), "{error}");
    }

    #[test]
    fn an_address_that_means_all_is_not_printed() {
        let printed = block(MarketArg::Spot, "0.0.0.0:9443".parse().unwrap(), Path::new("/tmp/a \"b\".pem"));
        assert!(printed.contains("market_ws = \"wss://127.0.0.1:9443\"\n"), "{printed}");
        let toml: toml::Table = printed.parse().unwrap();
        assert_eq!(toml["exchange"]["custom"]["ca_file"].as_str(), Some("/tmp/a \"b\".pem"));
    }

    #[test]
    fn recordings_are_read_plain_packed_and_torn() {
        let at = |name: &str| std::env::temp_dir().join(format!("binance-edge-words-{}-{name}", std::process::id()));
        let text: String = (0..5_000).map(|n| format!("{n}\tum\t{{\"n\":{n}}}\r\n")).collect();
        let packed = zstd::encode_all(text.as_bytes(), 0).unwrap();
        let read = |name: &str, bytes: &[u8]| {
            let (path, mut lines) = (at(name), Vec::new());
            std::fs::write(&path, bytes).unwrap();
            let result = read_lines(&path, &mut lines);
            std::fs::remove_file(&path).unwrap();
            result.unwrap();
            lines
        };
        let whole: Vec<_> = text.lines().map(str::to_owned).collect();
        assert_eq!(read("plain", text.as_bytes()), whole);
        assert_eq!(read("packed", &packed), whole);
        let torn = read("torn", &[&packed[..], &packed[..packed.len() / 2]].concat());
        assert!(torn.len() >= whole.len() && torn.starts_with(&whole));
        assert_eq!(read("bytes", b"a\n\xff\nb"), ["a", "b"]);
        assert!(read_lines(&at("absent"), &mut Vec::new()).is_err());
    }

    #[test]
    fn a_recording_without_a_frame_is_an_error() {
        let error = configure(&args(&["--frames", "/dev/null"]).unwrap()).unwrap_err();
        assert!(error.contains("no frame"), "{error}");
    }
}
