//! TOML text → [`Config`]: every key, its unit, its range, and what must hold between keys.
//!
//! Reading goes on after a complaint, so that all of them are told at once. Besides the text this looks at the file of
//! trusted roots and at the machine's cores, and at no environment variable.

use super::document::{Notebook, REQUIRED, Section};
use super::errors::{ConfigErrors, Problem};
use super::exchange::exchange;
use super::sections::*;
use super::{Config, Origin, STORE_PATH};
use std::path::Path;
use toml::de::DeTable;

/// The configuration in this file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let unreadable = |error: std::io::Error| ConfigErrors::whole_file(path, format!("a readable file ({error})"));
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        ConfigErrors::new(path, vec![Problem { line, key: String::new(), expected: "UTF-8 text".to_owned() }])
    })?;
    parse(&text, path, absolute.parent().unwrap_or(Path::new("/")))
}

/// The configuration in `text`. Complaints name `file`; relative paths start at `base`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, file: &Path, base: &Path) -> Result<Config, ConfigErrors> {
    let (document, syntax) = DeTable::parse_recoverable(text);
    let notebook = Notebook::new(text);
    let root = Section::root(&notebook, document.get_ref());
    let config = whole_config(&root, base);
    root.close();
    let at = |error: &toml::de::Error| notebook.line(error.span().map_or(0, |span| span.start));
    let mut syntax: Vec<_> = syntax.iter().map(|error| (at(error), error.message().to_owned())).collect();
    syntax.dedup_by_key(|(line, _)| *line);
    let (mut problems, lines) = notebook.finish();
    // What follows a place that is no TOML may have been misread, and what is missing may be there.
    if let Some(sound) = syntax.iter().map(|(line, _)| *line).min() {
        problems.retain(|problem| problem.line < sound && !problem.expected.ends_with(REQUIRED));
    }
    for (line, message) in syntax {
        problems.push(Problem { line, key: String::new(), expected: format!("valid TOML: {message}") });
    }
    match config {
        Some(mut config) if problems.is_empty() => {
            config.origin = Origin { file: file.to_owned(), lines };
            Ok(config)
        }
        _ => Err(ConfigErrors::new(file, problems)),
    }
}

/// `None` only where a required value is missing or refused; that has been complained about.
fn whole_config(root: &Section<'_, '_>, base: &Path) -> Option<Config> {
    let mut warnings = Vec::new();
    let (market, listed, exchange) = exchange(root.section("exchange"), base);
    let streams = streams(root.section("streams"), market, listed);
    let config = Config {
        deadlines: deadlines(root.section("deadlines")),
        backoff: backoff(root.section("backoff")),
        rotation: rotation(root.section("rotation")),
        tape: tape(root.section("tape")),
        plans: plans(root, streams.as_ref()),
        store_path: path_of(root.section("store"), "path", STORE_PATH, base),
        recorder_dir: path_of(root.section("recorder"), "dir", "", base),
        signals: signals(root.section("signals"), &mut warnings),
        waves: waves(root.section("waves")),
        trading: trading(root.section("trading"), market),
        alerts: alerts(root.section("alerts")),
        http_listen: listen(root.section("http")),
        runtime: runtime(root.section("runtime")),
        log_filter: log(root.section("log")),
        warnings,
        origin: Origin::default(),
        exchange: exchange?,
        streams: streams?,
    };
    Some(config)
}
