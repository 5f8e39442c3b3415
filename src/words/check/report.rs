//! What was found: one JSON document, or a table for people.

use super::stages::{Row, Step};
use super::verdict::{Endpoint, Word};
use serde::Serialize;
use std::fmt::Write as _;

#[derive(Serialize)]
struct Document<'a> {
    ok: bool,
    verdict: &'static str,
    endpoints: Vec<EndpointJson<'a>>,
}

#[derive(Serialize)]
struct EndpointJson<'a> {
    endpoint: &'static str,
    url: &'a str,
    stages: Vec<StageJson<'a>>,
}

#[derive(Serialize)]
struct StageJson<'a> {
    stage: &'static str,
    ok: bool,
    elapsed_ms: u64,
    reason: Option<&'a str>,
}

/// For programs.
pub(super) fn json(endpoints: &[Endpoint], word: Word) -> serde_json::Result<String> {
    let document = Document {
        ok: word == Word::Ok,
        verdict: word.as_str(),
        endpoints: endpoints
            .iter()
            .map(|endpoint| EndpointJson {
                endpoint: endpoint.name,
                url: &endpoint.url,
                stages: endpoint.rows.iter().map(stage).collect(),
            })
            .collect(),
    };
    serde_json::to_string(&document).map(|text| text + "\n")
}

/// For people: a row per endpoint, a column per stage, the failures in full, and the verdict last.
pub(super) fn text(endpoints: &[Endpoint], word: Word, why: &str) -> String {
    let columns: Vec<Step> = Step::ALL
        .into_iter()
        .filter(|step| endpoints.iter().any(|endpoint| endpoint.rows.iter().any(|row| row.step == *step)))
        .collect();
    let mut lines = vec![
        std::iter::once("ENDPOINT".to_owned())
            .chain(columns.iter().map(|step| step.as_str().to_uppercase()))
            .collect::<Vec<_>>(),
    ];
    for endpoint in endpoints {
        let cell = |step: &Step| endpoint.rows.iter().find(|row| row.step == *step).map_or(String::new(), cell);
        lines.push(std::iter::once(endpoint.name.to_owned()).chain(columns.iter().map(cell)).collect());
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text.push('\n');
    for endpoint in endpoints {
        for (row, failure) in endpoint.rows.iter().filter_map(|row| row.failure.as_ref().map(|failure| (row, failure)))
        {
            let (name, url, stage) = (endpoint.name, &endpoint.url, row.step.as_str());
            let _ = writeln!(text, "{name} {url}: {stage} failed after {}: {}", row.elapsed, failure.reason);
        }
    }
    let _ = writeln!(text, "verdict: {}: {why}", word.as_str());
    text
}

fn stage(row: &Row) -> StageJson<'_> {
    StageJson {
        stage: row.step.as_str(),
        ok: row.failure.is_none(),
        elapsed_ms: row.elapsed.as_ms(),
        reason: row.failure.as_ref().map(|failure| failure.reason.as_str()),
    }
}

fn cell(row: &Row) -> String {
    match (&row.failure, &row.shown) {
        (Some(_), _) => "FAILED".to_owned(),
        (None, Some(shown)) => shown.clone(),
        (None, None) => row.elapsed.to_string(),
    }
}
