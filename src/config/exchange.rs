//! `[exchange]`: which venue, under which addresses, with which keys.

use super::document::{REQUIRED, Section};
use super::rules::{self, Plain, Rule, url};
use super::{Environment, Exchange, Keys, Market, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::{Path, PathBuf};

/// The market and whether the venue's list of symbols can be had, which decide what other sections may say; and the rest
/// if nothing needed is missing.
pub(super) fn exchange(section: Section<'_, '_>, base: &Path) -> (Market, bool, Option<Exchange>) {
    let mut market = Market::Usdm;
    let written = section.read("environment", &rules::one_of(&ENVIRONMENTS));
    section.set("market", &mut market, &rules::one_of(&MARKETS));
    let environment = written.unwrap_or(Environment::Mainnet);
    let keys = keys(section.section("keys"), base);
    let custom = section.section("custom");
    // A misspelt environment may have meant custom.
    let sure = written.is_some() || !section.has("environment");
    if sure && environment != Environment::Custom && custom.is_present() {
        custom.complain_of_it("exchange.environment to be \"custom\" beside this section");
    }
    // An address that is refused is complained about once, where it stands.
    let listed = environment != Environment::Custom || custom.has("rest");
    // Addresses that are out of place are judged all the same, so that one run tells everything.
    let given = custom_addresses(custom, environment == Environment::Custom, base);
    section.close();
    let addresses = own_addresses(environment, market).or(given);
    let exchange = addresses.map(|addresses| Exchange {
        environment,
        market,
        market_ws: addresses.market_ws,
        private_ws: addresses.private_ws.filter(|_| market == Market::Usdm),
        rest: addresses.rest,
        ca_file: addresses.ca_file,
        ca_pem: addresses.ca_pem,
        keys,
    });
    (market, listed, exchange)
}

struct Addresses {
    market_ws: Url,
    private_ws: Option<Url>,
    rest: Option<Url>,
    ca_file: Option<PathBuf>,
    ca_pem: Option<String>,
}

/// The venue's own addresses, as of November 2026; none for `custom`.
fn own_addresses(environment: Environment, market: Market) -> Option<Addresses> {
    let (market_ws, private_ws, rest) = match (environment, market) {
        (Environment::Mainnet, Market::Usdm) => {
            ("wss://fstream.binance.com/market", Some("wss://fstream.binance.com/private"), "https://fapi.binance.com")
        }
        (Environment::Testnet, Market::Usdm) => (
            "wss://demo-fstream.binance.com/market",
            Some("wss://demo-fstream.binance.com/private"),
            "https://demo-fapi.binance.com",
        ),
        (Environment::Mainnet, Market::Spot) => ("wss://stream.binance.com:9443", None, "https://api.binance.com"),
        (Environment::Testnet, Market::Spot) => {
            ("wss://stream.testnet.binance.vision", None, "https://testnet.binance.vision")
        }
        (Environment::Custom, _) => return None,
    };
    Some(Addresses {
        market_ws: Url::parse(market_ws)?,
        private_ws: private_ws.and_then(Url::parse),
        rest: Url::parse(rest),
        ca_file: None,
        ca_pem: None,
    })
}

fn custom_addresses(section: Section<'_, '_>, required: bool, base: &Path) -> Option<Addresses> {
    let stream = url(["wss", "ws"], Plain::Loopback);
    let market_ws = if required { section.require("market_ws", &stream) } else { section.read("market_ws", &stream) };
    let private_ws = section.read("private_ws", &stream);
    let rest = section.read("rest", &url(["https", "http"], Plain::Loopback));
    let ca_file = section.read("ca_file", &rules::path(CA_FILE)).map(|name| base.join(name));
    let ca_pem = ca_file.as_deref().and_then(|path| {
        let pem = roots(path);
        if pem.is_none() {
            section.complain("ca_file", CA_FILE);
        }
        pem
    });
    section.close();
    Some(Addresses { market_ws: market_ws?, private_ws, rest, ca_file, ca_pem })
}

/// The text of a file of trusted roots; `None` if it cannot be read or holds none.
fn roots(path: &Path) -> Option<String> {
    let pem = std::fs::read_to_string(path).ok()?;
    let roots: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().ok()?;
    (!roots.is_empty()).then_some(pem)
}

fn keys(section: Section<'_, '_>, base: &Path) -> Keys {
    let key_file: Rule<String> = rules::path("the name of a file with an Ed25519 private key in PEM form");
    let keys = Keys {
        api_key_env: section.read("api_key_env", &rules::env_name()),
        secret_env: section.read("secret_env", &rules::env_name()),
        private_key_file: section.read("private_key_file", &key_file).map(|name| base.join(name)),
    };
    match (section.has("api_key_env"), section.has("secret_env"), section.has("private_key_file")) {
        (_, true, true) => section.complain("private_key_file", "either secret_env or private_key_file, not both"),
        (true, false, false) => section.complain("secret_env", format!("this or private_key_file {REQUIRED}")),
        (false, true, _) | (false, _, true) => {
            section.complain("api_key_env", format!("the name of an environment variable {REQUIRED}"));
        }
        (false, false, false) | (true, true, false) | (true, false, true) => {}
    }
    section.close();
    keys
}

const CA_FILE: &str = "a readable file with at least one certificate in PEM form";

pub(super) const ENVIRONMENTS: [(&str, Environment); 3] =
    [("mainnet", Environment::Mainnet), ("testnet", Environment::Testnet), ("custom", Environment::Custom)];
pub(super) const MARKETS: [(&str, Market); 2] = [("usdm", Market::Usdm), ("spot", Market::Spot)];
