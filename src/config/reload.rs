//! A configuration read again while the process runs: what of it can be had at once, and what needs a restart.

use super::{Config, Streams};

/// What a file that was read again asks of a running process.
#[derive(Clone, Debug, PartialEq)]
pub struct Reloaded {
    /// The running streams with the file's choice of symbols.
    pub streams: Streams,
    /// Keys in which the file differs and which cannot change while it runs, as `section.key`.
    pub unchanged: Vec<String>,
}

impl Config {
    /// What of the configuration `file` a process that runs this one takes over: the symbols alone.
    ///
    /// # Errors
    /// Words, if the symbols are chosen in a way that the running process has no means for.
    pub fn reloaded(&self, file: &Self) -> Result<Reloaded, String> {
        let Streams { symbols, patterns, symbols_max, .. } = &file.streams;
        if !patterns.is_empty() && self.exchange.rest.is_none() {
            // The file may name an address; the process that runs has none.
            return Err("streams.symbols: patterns need exchange.custom.rest, which needs a restart".to_owned());
        }
        let streams = Streams {
            symbols: symbols.clone(),
            patterns: patterns.clone(),
            symbols_max: *symbols_max,
            ..self.streams.clone()
        };
        let mut unchanged = self.differing_keys(file);
        unchanged.retain(|key| !CHANGEABLE.contains(&key.as_str()));
        Ok(Reloaded { streams, unchanged })
    }

    /// The keys in which two configurations differ, as `section.key`, each once.
    pub fn differing_keys(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (self.listing(), other.listing());
        let values = |listing: &[(String, String)], key: &str| -> Vec<String> {
            listing.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect()
        };
        let mut differing: Vec<String> = Vec::new();
        for (key, _) in ours.iter().chain(&theirs) {
            if !differing.contains(key) && values(&ours, key) != values(&theirs, key) {
                differing.push(key.clone());
            }
        }
        // Two things that the listing does not show: a secret path, and what stands in another file.
        for (key, same) in [
            ("alerts.webhook.url", self.alerts.webhook == other.alerts.webhook),
            ("exchange.custom.ca_file", self.exchange.ca_pem == other.exchange.ca_pem),
        ] {
            if !same && !differing.iter().any(|known| known == key) {
                differing.push(key.to_owned());
            }
        }
        differing
    }
}

/// What a running process takes over.
const CHANGEABLE: [&str; 2] = ["streams.symbols", "streams.symbols_max"];
