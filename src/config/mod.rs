//! What the operator asked for: parsed, typed, derived and cross-checked exactly once.
//!
//! A [`Config`] in hand is valid. Units are in the types; the values in [`Default`] are the documented defaults.

mod document;
mod errors;
mod exchange;
mod plan;
mod read;
mod reload;
mod rotation;
mod rules;
mod secrets;
mod sections;
mod show;
mod streams;
mod url;

pub use crate::wire::names::Market;
pub use errors::{ConfigErrors, Problem};
pub use plan::{Comparison, Condition, Metric, Operand, Window};
pub use read::{load, parse};
pub use reload::Reloaded;
pub use rotation::{Rotation, TimeOfDay};
pub use rules::parse_span;
pub use secrets::{ExchangeKeys, Secret, Signing, load_keys, load_token};
pub(crate) use show::masked;
pub use streams::{Pattern, Streams, SubscribeBy};
pub use url::Url;

use crate::time::Span;
use crate::wire::{Interval, StreamKind};
use rust_decimal::Decimal;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the venue is.
    pub exchange: Exchange,
    /// What is subscribed to.
    pub streams: Streams,
    /// How long each stage may take.
    pub deadlines: Deadlines,
    /// How long to pause between attempts.
    pub backoff: Backoff,
    /// When connections are replaced as planned.
    pub rotation: Rotation,
    /// What is kept in memory.
    pub tape: TapeLimits,
    /// Order-flow conditions.
    pub plans: Vec<Plan>,
    /// SQLite file; `None` turns the store off.
    pub store_path: Option<PathBuf>,
    /// Directory of recordings; `None` turns the recorder off.
    pub recorder_dir: Option<PathBuf>,
    /// The signal server; `None` turns it off.
    pub signals: Option<Signals>,
    /// When waves are checked and executed.
    pub waves: Waves,
    /// What is done about signals.
    pub trading: Trading,
    /// Who is told.
    pub alerts: Alerts,
    /// Where `/status`, `/metrics` and the page are served.
    pub http_listen: SocketAddr,
    /// The loop and the process.
    pub runtime: Runtime,
    /// `env_logger` filter of our own lines.
    pub log_filter: String,
    /// What is allowed but should be said at the start.
    pub warnings: Vec<String>,
    /// Where it was written, for complaints that can only be made later.
    pub origin: Origin,
}

/// The file a configuration came from and the lines of its keys.
///
/// Two configurations that say the same are equal wherever they were written, so all origins are equal.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// As the operator named it; empty for a configuration without a file.
    pub file: PathBuf,
    /// `section.key` to its line.
    pub lines: BTreeMap<String, usize>,
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Config {
    /// The defaults against one exchange at these addresses, without any file: no store, no recorder, a free HTTP port.
    pub fn for_exchange(symbols: &[&str], market_ws: Url, rest: Option<Url>, ca_pem: Option<String>) -> Self {
        Self {
            exchange: Exchange {
                environment: Environment::Custom,
                market: Market::Usdm,
                market_ws,
                private_ws: None,
                rest,
                ca_file: None,
                ca_pem,
                keys: Keys::default(),
            },
            streams: Streams::of(symbols.iter().map(|symbol| (*symbol).to_owned()).collect(), Market::Usdm),
            deadlines: Deadlines::default(),
            backoff: Backoff::default(),
            rotation: Rotation::default(),
            tape: TapeLimits::default(),
            plans: Vec::new(),
            store_path: None,
            recorder_dir: None,
            signals: None,
            waves: Waves::default(),
            trading: Trading::default(),
            alerts: Alerts::default(),
            http_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            runtime: Runtime::default(),
            log_filter: LOG_FILTER.to_owned(),
            warnings: Vec::new(),
            origin: Origin::default(),
        }
    }
}

/// Beside the configuration file.
const STORE_PATH: &str = "edge.db";
/// Loopback alone: the page shows positions.
const HTTP_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// State changes and whatever someone may have to act on.
const LOG_FILTER: &str = "info";
/// The variable that holds the signal server's token unless another is named.
const SIGNAL_TOKEN_ENV: &str = "SIGNAL_TOKEN";

/// `[exchange]`, with every address derived.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// Mainnet, testnet or custom.
    pub environment: Environment,
    /// USD-M futures or spot.
    pub market: Market,
    /// Base of the market streams; `/ws` and `/stream` hang below it.
    pub market_ws: Url,
    /// Base of the user stream; `None` on spot.
    pub private_ws: Option<Url>,
    /// Base of REST; `/fapi` or `/api` hang below it. With `custom` only if configured.
    pub rest: Option<Url>,
    /// Where the extra trusted roots stand.
    pub ca_file: Option<PathBuf>,
    /// Extra trusted roots, PEM text as read from `ca_file`.
    pub ca_pem: Option<String>,
    /// Where the keys are, never the keys.
    pub keys: Keys,
}

/// Which venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// Real money.
    Mainnet,
    /// The venue's own playground.
    Testnet,
    /// Addresses as configured.
    Custom,
}

/// `[exchange.keys]`: names of environment variables, or files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keys {
    /// Variable that holds the API key.
    pub api_key_env: Option<String>,
    /// Variable that holds the HMAC secret.
    pub secret_env: Option<String>,
    /// File that holds an Ed25519 key, readable by its owner alone.
    pub private_key_file: Option<PathBuf>,
}

/// `[deadlines]`
#[derive(Clone, Debug, PartialEq)]
pub struct Deadlines {
    /// Name lookup.
    pub resolve: Span,
    /// TCP connect, all addresses of the name together.
    pub tcp: Span,
    /// TLS handshake.
    pub tls: Span,
    /// WebSocket upgrade.
    pub upgrade: Span,
    /// Bound on the sum of the four.
    pub connect: Span,
    /// From a request to its acknowledgement.
    pub ack: Span,
    /// From the acknowledgement to the stream's own data.
    pub first_data: Span,
    /// Silence of a stream that lived, after which it is judged.
    pub stale: Span,
    /// As `stale`, for `@aggTrade` alone; `None` is `stale`.
    pub stale_agg_trade: Option<Span>,
    /// As `stale`, for `@markPrice@1s` alone; `None` is `stale`.
    pub stale_mark_price: Option<Span>,
    /// As `stale`, for `@kline_…` of any interval alone; `None` is `stale`.
    pub stale_kline: Option<Span>,
    /// Silence of a connection before it is pinged.
    pub ping_after: Span,
    /// Silence after our ping before the connection is ended.
    pub pong: Span,
    /// A REST call, total.
    pub rest: Span,
    /// Failures in a row before an outage is reported.
    pub attempts: u32,
}

impl Deadlines {
    /// After how much silence a stream of this kind that lived is judged.
    pub fn stale_of(&self, kind: StreamKind) -> Span {
        let own = match kind {
            StreamKind::AggTrade => self.stale_agg_trade,
            StreamKind::MarkPrice => self.stale_mark_price,
            StreamKind::Kline(_) => self.stale_kline,
        };
        own.unwrap_or(self.stale)
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            resolve: Span::from_secs(3),
            tcp: Span::from_secs(4),
            tls: Span::from_secs(4),
            upgrade: Span::from_secs(4),
            connect: Span::from_secs(10),
            ack: Span::from_secs(5),
            first_data: Span::from_secs(10),
            stale: Span::from_secs(60),
            stale_agg_trade: None,
            stale_mark_price: None,
            stale_kline: None,
            ping_after: Span::from_secs(15),
            pong: Span::from_secs(10),
            rest: Span::from_secs(5),
            attempts: 3,
        }
    }
}

/// `[backoff]`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Shortest pause.
    pub min: Span,
    /// Longest pause.
    pub max: Span,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Span::from_ms(500), max: Span::from_secs(30) }
    }
}

/// `[tape]`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TapeLimits {
    /// Trades kept per symbol.
    pub trades: usize,
    /// Candles kept per symbol and interval.
    pub candles: usize,
    /// Heal holes over REST.
    pub backfill: bool,
}

impl Default for TapeLimits {
    fn default() -> Self {
        Self { trades: 16_384, candles: 500, backfill: true }
    }
}

/// `[[plan]]`, as written; its conditions are known to parse as [`Condition`]s.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Unique name.
    pub name: String,
    /// One of the configured symbols, or one that a pattern would choose.
    pub symbol: String,
    /// Conditions, all must hold.
    pub when: Vec<String>,
}

/// `[signals]`
#[derive(Clone, Debug, PartialEq)]
pub struct Signals {
    /// The signal server.
    pub url: Url,
    /// Variable that holds the token.
    pub token_env: Option<String>,
}

/// `[waves]`
#[derive(Clone, Debug, PartialEq)]
pub struct Waves {
    /// Minutes of the hour, UTC, at which a wave is checked; ascending.
    pub check_minutes: Vec<u8>,
    /// How long after a check its wave may arrive.
    pub window: Span,
    /// Positions per wave.
    pub max_positions: u32,
    /// From a wave's execution to the sending of each order.
    pub signal_deadline: Span,
}

impl Default for Waves {
    fn default() -> Self {
        Self {
            check_minutes: vec![5, 20, 35, 50],
            window: Span::from_secs(120),
            max_positions: 5,
            signal_deadline: Span::from_secs(20),
        }
    }
}

/// `[trading]`
#[derive(Clone, Debug, PartialEq)]
pub struct Trading {
    /// Off, on paper, or live.
    pub mode: TradingMode,
    /// Notional of a position in quote currency.
    pub position_usd: Decimal,
    /// Leverage set before the first entry.
    pub leverage: u32,
    /// Stop distance in percent of the fill price.
    pub stop_loss_pct: Decimal,
    /// Profit in percent at which trailing begins.
    pub trailing_activation_pct: Decimal,
    /// Trailing distance in percent.
    pub trailing_callback_pct: Decimal,
    /// How long a filled position may be without a stop before it is closed.
    pub unprotected_within: Span,
}

/// What happens with selected signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TradingMode {
    /// Nothing.
    Off,
    /// Simulated fills at real prices.
    Paper,
    /// Real orders; needs `--live` as well.
    Live,
}

impl Default for Trading {
    fn default() -> Self {
        Self {
            mode: TradingMode::Off,
            position_usd: Decimal::new(200, 0),
            leverage: 1,
            stop_loss_pct: Decimal::new(20, 1),
            trailing_activation_pct: Decimal::new(15, 1),
            trailing_callback_pct: Decimal::new(5, 1),
            unprotected_within: Span::from_secs(5),
        }
    }
}

/// `[alerts]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alerts {
    /// `[alerts.telegram]`
    pub telegram: Option<Telegram>,
    /// `[alerts.webhook] url`
    pub webhook: Option<Url>,
}

/// `[alerts.telegram]`
#[derive(Clone, Debug, PartialEq)]
pub struct Telegram {
    /// Variable that holds the bot's token.
    pub bot_token_env: String,
    /// The chat.
    pub chat_id: String,
    /// The API's address.
    pub base_url: Url,
}

/// `[runtime]`
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// Core to pin the loop to.
    pub cpu: Option<usize>,
    /// Spin instead of sleeping.
    pub busy_poll: bool,
    /// Longest a clean stop may take.
    pub stop_within: Span,
    /// A loop turn longer than this is counted and named.
    pub stall: Span,
}

impl Default for Runtime {
    fn default() -> Self {
        Self { cpu: None, busy_poll: false, stop_within: Span::from_secs(5), stall: Span::from_ms(50) }
    }
}
