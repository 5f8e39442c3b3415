//! What the engine says of itself, on request.

use super::Engine;
use super::statistics::{healed_by, race};
use crate::market::Book;
use crate::market::feed::{Connection, Purpose, Role, Stream};
use crate::net::{Stage, State};
use crate::status::{self, Level, Status};
use crate::time::{Instant, Now};
use std::collections::BTreeMap;

/// Reasons listed one by one.
const REASONS_MAX: usize = 20;

impl Engine {
    /// Everything, as plain data. The shell adds what only it knows: the loop, the workers, the log.
    pub fn status(&self, now: Now) -> Status {
        let symbols = self.market.books().map(|(name, book)| (name.to_owned(), symbol(book, Some(now.mono))));
        Status {
            version: env!("CARGO_PKG_VERSION"),
            now: now.utc(),
            uptime_ms: now.mono.since(self.started.mono).as_ms(),
            health: self.health(now.mono),
            turns: status::Turns::default(),
            connections: self.feed.connections().map(|row| self.connection(row, now.mono)).collect(),
            streams: self.stream_rows(now.mono),
            subscriptions: self.subscriptions(),
            successions: self.successions(),
            legs: self.legs(),
            symbols: symbols.collect(),
            plans: Vec::new(),
            signals: None,
            waves: Vec::new(),
            positions: Vec::new(),
            store: None,
            workers: status::Workers {
                resolver: status::Lane { timeouts: self.lookup_timeouts, ..status::Lane::default() },
                ..status::Workers::default()
            },
            rest_requests: self.rest_requests(),
            decoder_fallbacks: self.feed.decoder().fallbacks(),
            log_lines_dropped: self.notes.dropped(),
        }
    }

    /// The verdict: degraded while anything wanted is not proved, unhealthy when nothing is or an outage lasts.
    pub fn health(&self, now: Instant) -> status::Health {
        let mut reasons = Vec::new();
        let mut outage = false;
        for row in self.feed.connections() {
            outage |= row.in_outage;
            // A successor is nobody's trouble, and what another leg delivers is not missing.
            let serves = matches!(row.role, Role::Current);
            if !serves || row.session.is_open() || self.feed.is_stood_in_for(row.slot) {
                continue;
            }
            let since = now.since(row.dark_since());
            let words = match &row.last_ending {
                Some((ending, _)) => format!("last ended in {ending}"),
                None => "first attempt under way".to_owned(),
            };
            let outage = if row.in_outage { "outage, " } else { "" };
            let state = row.session.state();
            reasons.push(format!("{}: {outage}{}, no data for {since}; {words}", row.name, state.as_str()));
        }
        let mut fine = 0;
        for stream in self.feed.streams() {
            let Some(run) = stream.shown() else { continue };
            if run.state.is_fine() {
                fine += 1;
            } else if self.feed.connection(run.slot).is_some_and(|connection| connection.session.is_open()) {
                let why = run.reason.as_deref().unwrap_or("no data of its own on this connection yet");
                reasons.push(format!("{}: {}: {why}", stream.name, run.state.as_str()));
            }
        }
        if self.feed.streams().next().is_none() {
            // Nothing is wanted, so nothing can be wrong: that is not health.
            reasons.push("streams: no symbol is known yet; the venue's list has not been read".to_owned());
        }
        let level = match reasons.len() {
            0 => Level::Healthy,
            _ if fine == 0 && outage => Level::Unhealthy,
            _ => Level::Degraded,
        };
        if reasons.len() > REASONS_MAX {
            let more = reasons.len() - REASONS_MAX;
            reasons.truncate(REASONS_MAX);
            reasons.push(format!("and {more} more"));
        }
        status::Health { level, reasons }
    }

    fn rest_requests(&self) -> Vec<status::RestRequests> {
        let happened = self.rest.counts().filter(|(.., count)| *count > 0);
        happened
            .map(|(endpoint, result, count)| status::RestRequests {
                endpoint: endpoint.as_str(),
                result: result.as_str(),
                count,
            })
            .collect()
    }

    fn connection(&self, row: &Connection, now: Instant) -> status::Connection {
        let session = &row.session;
        let connected = matches!(
            session.state(),
            State::Securing { .. } | State::Upgrading { .. } | State::Open | State::Closing { .. }
        );
        let rejected_by: BTreeMap<_, _> =
            row.rejected().filter(|(_, n)| *n > 0).map(|(kind, n)| (kind.as_str(), n)).collect();
        status::Connection {
            name: row.name.to_string(),
            leg: row.leg_name(),
            url: row.url.to_string(),
            role: row.role.as_str(),
            purpose: row.purpose().map(Purpose::as_str),
            state: session.state().as_str(),
            epoch: session.epoch(),
            begun: self.feed.attempts_begun(row),
            attempt: session.attempt(),
            opened: session.opened(),
            failed: session.failed(),
            frames: row.frames,
            bytes: session.bytes(),
            rejected: rejected_by.values().sum(),
            rejected_by,
            failures_by_stage: Stage::ALL
                .iter()
                .zip(row.endings_by_stage)
                .filter(|(_, n)| *n > 0)
                .map(|(stage, n)| (stage.as_str(), n))
                .collect(),
            streams: row.streams.len() as u32,
            live: self.feed.live_on(row.slot),
            address: session.address().map(|address| address.to_string()),
            last_byte_age_ms: connected.then(|| now.since(session.last_byte()).as_ms()),
            rotates_in_ms: self.feed.rotates_at(row).map(|at| at.since(now).as_ms()),
            race: self.feed.leg_books(row).map(race),
            last_failure: row.last_ending.as_ref().map(|(ending, at)| status::Failure {
                stage: ending.stage.as_str(),
                reason: ending.reason.clone(),
                close_code: ending.close_code,
                elapsed_ms: ending.elapsed.as_ms(),
                at: *at,
            }),
        }
    }

    fn stream_rows(&self, now: Instant) -> Vec<status::Stream> {
        let rows = self.feed.streams().filter_map(|stream| {
            let run = stream.shown()?;
            let connection = self.feed.connection(run.slot)?;
            Some(status::Stream {
                stream: stream.name.to_string(),
                connection: connection.name.to_string(),
                epoch: connection.session.epoch(),
                state: run.state.as_str(),
                last_data_age_ms: stream.last_data.map(|at| now.since(at).as_ms()),
                attempts: stream.attempts,
                successes: stream.successes,
                failures: stream.failures,
                retries: stream.retries,
                reason: run.reason.as_deref().map(str::to_owned),
                healed_by: healed_by(&stream.healed),
                runs: self.run_rows(stream, now),
            })
        });
        rows.collect()
    }

    /// The runs of a stream, if it has more than one.
    fn run_rows(&self, stream: &Stream, now: Instant) -> Vec<status::Run> {
        if stream.runs.len() < 2 {
            return Vec::new();
        }
        let rows = stream.runs.iter().filter_map(|run| {
            let connection = self.feed.connection(run.slot)?;
            Some(status::Run {
                connection: connection.name.to_string(),
                leg: connection.leg_name(),
                epoch: connection.session.epoch(),
                role: connection.role.as_str(),
                state: run.state.as_str(),
                last_fresh_age_ms: (run.fresh_at != Instant::ZERO).then(|| now.since(run.fresh_at).as_ms()),
                reason: run.reason.as_deref().map(str::to_owned),
            })
        });
        rows.collect()
    }
}

/// One symbol's entry. Without `now` there are no ages: in a replay they would mean nothing.
pub fn symbol(book: &Book, now: Option<Instant>) -> status::Symbol {
    let tape_decimals = book.tape.as_ref().map_or(0, crate::market::tape::Tape::price_decimals);
    status::Symbol {
        trades: book.tape.as_ref().map(|tape| status::Trades {
            len: tape.ring().len(),
            capacity: tape.ring().capacity(),
            first_id: tape.ring().first().map(|trade| trade.id),
            last_id: tape.ring().last().map(|trade| trade.id),
            received: tape.received(),
            duplicates: tape.duplicates(),
            backfilled: tape.backfilled(),
            missing: tape.missing(),
            holes: tape
                .holes()
                .map(|hole| status::Hole { from: hole.from, to: hole.to, reason: hole.reason.to_string() })
                .collect(),
        }),
        mark_price: book.mark.as_ref().map(|(mark, at)| status::Mark {
            price: mark.price.show(tape_decimals),
            index_price: mark.index_price.show(tape_decimals),
            funding_rate: mark.funding_rate.map(|rate| rate.show(8)),
            age_ms: now.map(|now| now.since(*at).as_ms()),
        }),
        candles: book
            .candles
            .iter()
            .map(|candles| {
                let newest = candles.ring().last();
                let row = status::Candles {
                    len: candles.ring().len(),
                    capacity: candles.ring().capacity(),
                    closed: candles.closed(),
                    unclosed: candles.unclosed(),
                    updates: candles.updates(),
                    last_open: candles.last_open(),
                    close: newest.map(|candle| candle.kline.close.show(candle.kline.price_decimals)),
                };
                (candles.interval().as_str(), row)
            })
            .collect(),
        flow: None,
    }
}
