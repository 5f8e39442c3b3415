//! One GET at a time on the calling thread: connect, ask, read, all within one deadline.
//!
//! Trust is ours, not the HTTP client's: the same TLS configuration as for the streams. No redirect is followed, no
//! proxy of the environment used, no body larger than [`BODY_BYTES_MAX`] read; nothing that is said about a failure
//! contains the target. Connections are kept for the next call. The resolver's good answers are, too: while it is
//! silent, addresses that were good before are dialled.

use super::clock::SystemClock;
use super::workers::{Get, Resolve};
use crate::config::Url;
use crate::engine::{GetFailure, Response};
use crate::time::{Instant, Span};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::Duration;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, TcpConnector, Transport, TransportAdapter,
};

/// Longest body that is read; the venue's longest, spot's exchangeInfo, has a few MiB.
pub const BODY_BYTES_MAX: u64 = 16 << 20;
/// For this long a name is not looked up again.
const FRESH: Span = Span::from_secs(60);
/// Lookups that may hang at once, each on a thread of its own.
const LOOKUPS_MAX: usize = 4;
/// As many as there are threads that call.
const KEPT_CONNECTIONS: usize = 4;

thread_local! {
    /// How far this thread's present call has come.
    static STAGE: Cell<Stage> = const { Cell::new(Stage::Begin) };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Begin,
    Resolve,
    Connect,
    Tls,
    /// Bytes of the request may have left.
    Answer,
}

/// What the REST lane does. `tls` is needed for `https`; names are looked up by `resolve`.
pub fn client(tls: Option<Arc<ClientConfig>>, resolve: Resolve, clock: SystemClock) -> Get {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("binance-edge/", env!("CARGO_PKG_VERSION")))
        .accept("application/json")
        .accept_encoding("identity")
        .max_idle_connections(KEPT_CONNECTIONS)
        .max_idle_connections_per_host(KEPT_CONNECTIONS)
        .build();
    let dial = Dial { tcp: TcpConnector::default(), tls };
    let agent =
        ureq::Agent::with_parts(config, dial, Names { resolve, clock, hung: Arc::default(), known: Mutex::default() });
    Arc::new(move |base: &Url, target: &str, within: Span| {
        STAGE.set(Stage::Begin);
        get(&agent, &format!("{base}{target}"), within).map_err(|error| failure(&error, STAGE.get(), within))
    })
}

fn get(agent: &ureq::Agent, url: &str, within: Span) -> Result<Response, ureq::Error> {
    let mut answer = agent.get(url).config().timeout_global(Some(within.to_std())).build().call()?;
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let retry_after = header("retry-after").and_then(|text| text.parse().ok()).map(Span::from_secs);
    let used_weight = header("x-mbx-used-weight-1m").and_then(|text| text.parse().ok());
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_vec()?;
    Ok(Response { status, retry_after, used_weight, body })
}

fn failure(error: &ureq::Error, stage: Stage, within: Span) -> GetFailure {
    let what = match stage {
        Stage::Begin => "not asked",
        Stage::Resolve => "name lookup",
        Stage::Connect => "connect",
        Stage::Tls => "TLS",
        Stage::Answer => "answer",
    };
    let words = if matches!(error, ureq::Error::Timeout(_)) {
        format!("not done within {within}")
    } else if matches!(error, ureq::Error::BadUri(_) | ureq::Error::RequireHttpsOnly(_) | ureq::Error::Http(_)) {
        // Their own words repeat the address.
        "not an address that can be asked".to_owned()
    } else if let ureq::Error::Io(error) = error {
        // Without the client's prefix.
        format!("{error}")
    } else {
        error.to_string()
    };
    GetFailure { words: format!("{what}: {words}"), sent: stage == Stage::Answer }
}

/// Looks names up without waiting for a resolver that hangs.
struct Names {
    resolve: Resolve,
    clock: SystemClock,
    /// Lookups under way.
    hung: Arc<AtomicUsize>,
    /// The newest good answer for each host and port.
    known: Mutex<BTreeMap<(String, u16), Known>>,
}

#[derive(Clone)]
struct Known {
    since: Instant,
    addresses: Vec<SocketAddr>,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        STAGE.set(Stage::Resolve);
        let (host, port) = host_and_port(uri).ok_or_else(|| io::Error::other("the address has no host"))?;
        let addresses = match host.parse::<IpAddr>() {
            Ok(literal) => vec![SocketAddr::new(literal, port)],
            // Half of the time is kept for the addresses that were good before.
            Err(_) => self.addresses(host, port, *timeout.after / 2).map_err(io::Error::other)?,
        };
        let mut resolved = self.empty();
        addresses.into_iter().take(16).for_each(|address| resolved.push(address));
        Ok(resolved)
    }
}

impl Names {
    fn addresses(&self, host: &str, port: u16, within: std::time::Duration) -> Result<Vec<SocketAddr>, String> {
        let key = (host.to_owned(), port);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = &known
            && self.clock.mono().since(known.since) < FRESH
        {
            return Ok(known.addresses.clone());
        }
        match self.look_up(host, port, within) {
            Ok(addresses) => {
                let entry = Known { since: self.clock.mono(), addresses: addresses.clone() };
                self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, entry);
                Ok(addresses)
            }
            Err(words) => known.map(|known| known.addresses).ok_or(words),
        }
    }

    fn look_up(&self, host: &str, port: u16, within: std::time::Duration) -> Result<Vec<SocketAddr>, String> {
        let more = |hung| (hung < LOOKUPS_MAX).then_some(hung + 1);
        if self.hung.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            return Err("all lookups hang".to_owned());
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let (resolve, hung, host) = (Arc::clone(&self.resolve), Hung(Arc::clone(&self.hung)), host.to_owned());
        let started = thread::Builder::new().name("rest-lookup".to_owned()).spawn(move || {
            // Gives its place back however it ends; nobody may be left to hear what it found.
            let _hung = hung;
            let _ = answer.send(resolve(&host, port));
        });
        started.map_err(|error| format!("no thread for it: {error}"))?;
        answered.recv_timeout(within).unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }
}

struct Hung(Arc<AtomicUsize>);

impl Drop for Hung {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn host_and_port(uri: &Uri) -> Option<(&str, u16)> {
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    Some((bare(uri.host()?), uri.port_u16().unwrap_or(usual)))
}

/// An IPv6 literal without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Makes connections.
#[derive(Debug)]
struct Dial {
    tcp: TcpConnector,
    tls: Option<Arc<ClientConfig>>,
}

impl Connector for Dial {
    type Out = Wire;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Wire>, ureq::Error> {
        STAGE.set(Stage::Connect);
        let Some(tcp) = Connector::<()>::connect(&self.tcp, details, None)? else { return Ok(None) };
        let tcp: Box<dyn Transport> = Box::new(tcp);
        if !details.needs_tls() {
            return Ok(Some(Wire::Plain(tcp)));
        }
        STAGE.set(Stage::Tls);
        let tls = self.tls.as_ref().ok_or(ureq::Error::TlsRequired)?;
        let host = details.uri.host().map(bare).unwrap_or_default();
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::clone(tls), name)?;
        let mut adapter = TransportAdapter::new(tcp, Arc::clone(&details.current_time));
        adapter.set_timeout(left(details));
        tls.complete_io(&mut adapter)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Wire::Tls(Box::new(Secure { buffers, stream: StreamOwned::new(tls, adapter) }))))
    }
}

/// What is left of the time for connecting, of which TCP has had its part.
fn left(details: &ConnectionDetails<'_>) -> NextTimeout {
    use ureq::unversioned::transport::time::Instant::Exact;
    let mut timeout = details.timeout;
    if let (Duration::Exact(after), Exact(began), Exact(now)) = (timeout.after, details.now, (details.current_time)()) {
        timeout.after = Duration::Exact(after.saturating_sub(now.saturating_duration_since(began)));
    }
    timeout
}

/// A connection that notes when a request begins to leave on it.
#[derive(Debug)]
enum Wire {
    Plain(Box<dyn Transport>),
    Tls(Box<Secure>),
}

impl Wire {
    fn inner(&mut self) -> &mut dyn Transport {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(secure) => &mut **secure,
        }
    }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner().buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        STAGE.set(Stage::Answer);
        self.inner().transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.inner().await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner().is_open()
    }

    fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

/// TLS over a connection, as our configuration wants it.
struct Secure {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secure")
    }
}

impl Transport for Secure {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        io::Write::write_all(&mut self.stream, &self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = io::Read::read(&mut self.stream, self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
