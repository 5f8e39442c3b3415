//! Secrets, read only by the words that need them, and never printed.

use super::{Config, ConfigErrors, Problem};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::io::Read;
use std::path::Path;

/// Text that nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// This text, from now on hidden.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that sends or signs with it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What signed calls need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeKeys {
    /// Sent in a header.
    pub api_key: Secret,
    /// Signs the query.
    pub signing: Signing,
}

/// How calls are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signing {
    /// HMAC-SHA256 with this secret.
    Hmac(Secret),
    /// With this Ed25519 key, PEM text.
    Ed25519(Secret),
}

/// The keys that `[exchange.keys]` names, `None` if it names none. `env` looks up an environment variable.
///
/// # Errors
/// A variable that is unset or empty, a key file that others can read or that holds no key.
pub fn load_keys(config: &Config, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<ExchangeKeys>, ConfigErrors> {
    let keys = &config.exchange.keys;
    let mut problems = Vec::new();
    let mut keep = |result: Result<Secret, Problem>| result.map_err(|problem| problems.push(problem)).ok();
    let api_key =
        keys.api_key_env.as_ref().and_then(|name| keep(variable(config, "exchange.keys.api_key_env", name, env)));
    let secret =
        keys.secret_env.as_ref().and_then(|name| keep(variable(config, "exchange.keys.secret_env", name, env)));
    let private_key = keys.private_key_file.as_ref().and_then(|path| {
        let key = "exchange.keys.private_key_file";
        keep(key_file(path).map_err(|expected| problem(config, key, expected)))
    });
    if !problems.is_empty() {
        return Err(ConfigErrors::new(&config.origin.file, problems));
    }
    let signing = secret.map(Signing::Hmac).or(private_key.map(Signing::Ed25519));
    Ok(api_key.zip(signing).map(|(api_key, signing)| ExchangeKeys { api_key, signing }))
}

/// The token in the environment variable `name`, which stands at `key` of the configuration.
///
/// # Errors
/// The variable is unset or empty.
pub fn load_token(
    config: &Config,
    key: &str,
    name: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Secret, ConfigErrors> {
    variable(config, key, name, env).map_err(|problem| ConfigErrors::new(&config.origin.file, vec![problem]))
}

fn variable(config: &Config, key: &str, name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Secret, Problem> {
    // A line feed at the end is what `$(cat file)` of other shells and unit files leaves behind.
    let value = env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    value
        .map(Secret)
        .ok_or_else(|| problem(config, key, format!("the environment variable {name} to be set and not empty")))
}

/// The text of a private key file that nobody but its owner may read.
fn key_file(path: &Path) -> Result<Secret, String> {
    let mut file = std::fs::File::open(path).map_err(|error| format!("a readable file ({error})"))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata().map_err(|error| format!("a readable file ({error})"))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err("a file that only its owner can read (chmod 600)".to_owned());
        }
    }
    let mut pem = String::new();
    let read = file.read_to_string(&mut pem).is_ok();
    if !read || PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).is_err() {
        return Err("a file with an Ed25519 private key in PEM form".to_owned());
    }
    Ok(Secret(pem))
}

fn problem(config: &Config, key: &str, expected: String) -> Problem {
    Problem { line: config.origin.lines.get(key).copied().unwrap_or(0), key: key.to_owned(), expected }
}
