//! Connections, streams and legs.

use super::{Kind, Row, Samples, Seconds, Text, labels, sum, youngest};
use crate::market::feed::{Purpose, Rung};
use crate::net::Stage;
use crate::status::{Connection, Leg, Stream, Subscriptions, Successions};
use crate::wire::market::RejectKind;
use Kind::{Counter, Gauge};
use std::collections::BTreeMap;

pub(super) fn connections(text: &mut Text, rows: &[Connection]) {
    const SUMS: [Row<Connection>; 5] = [
        ("frames_total", Counter, "Messages received.", |c| c.frames),
        ("received_bytes_total", Counter, "Bytes received, TLS included.", |c| c.bytes),
        ("connection_opened_total", Counter, "Attempts that reached open.", |c| c.opened),
        ("connection_unopened_total", Counter, "Attempts that ended before open.", |c| c.failed),
        ("connection_up", Gauge, "Connections open under this name.", |c| u64::from(c.state == "open")),
    ];
    const MOST: [Row<Connection>; 3] = [
        ("connection_streams", Gauge, "Streams that the connection carries.", |c| u64::from(c.streams)),
        ("connection_streams_live", Gauge, "Streams of the connection that are live.", |c| u64::from(c.live)),
        ("connection_tries", Gauge, "Tries since the last data.", |c| u64::from(c.attempt)),
    ];
    // What a retiring row counted is in its successor's row already.
    let rows = || rows.iter().filter(|row| row.role != "retiring");
    let of = |row: &Connection| labels(&[("connection", &row.name)]);
    for (name, kind, help, figure) in SUMS {
        text.family(name, kind, help, &sum(rows().map(|row| (of(row), figure(row)))));
    }
    // Rows of one name and leg share this count.
    let begun = most(rows().map(|row| ((of(row), row.leg), row.begun)));
    let begun = sum(begun.into_iter().map(|((labels, _), count)| (labels, count)));
    text.family("connection_attempts_total", Counter, "Attempts to connect.", &begun);
    for (name, kind, help, figure) in MOST {
        let most = most(rows().map(|row| (of(row), figure(row))));
        text.family(name, kind, help, &shown(most));
    }
    let by = |label: &str, known: &[&'static str], counts: fn(&Connection) -> &BTreeMap<&'static str, u64>| {
        sum(rows().flat_map(|row| {
            let none = known.iter().map(|key| (*key, 0));
            let all = none.chain(counts(row).iter().map(|(key, count)| (*key, *count)));
            all.map(|(key, count)| (labels(&[("connection", &row.name), (label, key)]), count)).collect::<Vec<_>>()
        }))
    };
    let rejected = by("reason", &RejectKind::ALL.map(RejectKind::as_str), |row| &row.rejected_by);
    text.family("frames_rejected_total", Counter, "Messages refused, and protocol violations.", &rejected);
    let failures = by("stage", &Stage::ALL.map(Stage::as_str), |row| &row.failures_by_stage);
    text.family("connection_failures_total", Counter, "Attempts by the stage in which they ended.", &failures);
    let ages = youngest(rows().filter_map(|row| Some((of(row), row.last_byte_age_ms?))));
    text.family("connection_last_byte_age_seconds", Gauge, "Time since the connection's last byte.", &ages);
    let rotations = least(rows().filter_map(|row| Some((of(row), row.rotates_in_ms?))));
    let rotations = rotations.into_iter().map(|(labels, ms)| (labels, Seconds::of_ms(ms).to_string())).collect();
    text.family("connection_rotates_in_seconds", Gauge, "Time until the connection is replaced.", &rotations);
}

pub(super) fn streams(text: &mut Text, rows: &[Stream]) {
    const FAMILIES: [Row<Stream>; 4] = [
        ("stream_requests_total", Counter, "Times the stream was asked for.", |s| s.attempts),
        ("stream_first_data_total", Counter, "Requests that were followed by data.", |s| s.successes),
        ("stream_failures_total", Counter, "Times the stream failed or went stale.", |s| s.failures),
        ("stream_retries_total", Counter, "Requests after a failure.", |s| s.retries),
    ];
    let of = |row: &Stream| labels(&[("stream", &row.stream)]);
    let live = most(rows.iter().map(|row| (of(row), u64::from(row.state == "live"))));
    text.family("stream_live", Gauge, "1 if data arrived on the stream's present connection.", &shown(live));
    let ages = youngest(rows.iter().filter_map(|row| Some((of(row), row.last_data_age_ms?))));
    text.family("stream_last_data_age_seconds", Gauge, "Time since the stream's newest data.", &ages);
    for (name, kind, help, figure) in FAMILIES {
        text.family(name, kind, help, &sum(rows.iter().map(|row| (of(row), figure(row)))));
    }
}

/// What is known of the streams together, and what became of successors.
pub(super) fn sums(text: &mut Text, subscriptions: &Subscriptions, successions: &[Successions]) {
    let states = subscriptions.states.by_name();
    let states = states.into_iter().map(|(state, count)| (labels(&[("state", state)]), count.to_string())).collect();
    text.family("streams", Gauge, "Wanted streams by state; quiet are those that are rightly silent.", &states);
    let healed = Rung::ALL.map(|rung| {
        let count = subscriptions.healed_by.get(rung.as_str()).unwrap_or(&0);
        (labels(&[("step", rung.as_str())]), count.to_string())
    });
    text.family("stream_healed_total", Counter, "Streams brought back, by the step that did it.", &healed.into());
    let (mut begun, mut ended) = (Samples::new(), Samples::new());
    for purpose in Purpose::ALL.map(Purpose::as_str) {
        let row = successions.iter().find(|row| row.purpose == purpose);
        let [began, succeeded, failed] = row.map_or([0; 3], |row| [row.begun, row.succeeded, row.failed]);
        begun.insert(labels(&[("purpose", purpose)]), began.to_string());
        for (result, count) in [("succeeded", succeeded), ("failed", failed)] {
            ended.insert(labels(&[("purpose", purpose), ("result", result)]), count.to_string());
        }
    }
    text.family("successions_begun_total", Counter, "Successors of connections that were begun.", &begun);
    text.family("successions_total", Counter, "Successors that took over, or could not.", &ended);
}

pub(super) fn legs(text: &mut Text, legs: &[Leg]) {
    const FAMILIES: [Row<Leg>; 4] = [
        ("leg_first_total", Counter, "Messages that the leg brought first.", |l| l.race.first),
        ("leg_late_total", Counter, "Messages that the other leg had brought before.", |l| l.race.late),
        ("leg_lost_total", Counter, "Messages that only the other leg brought.", |l| l.race.lost),
        ("leg_leads_total", Counter, "Messages that came twice and were first here.", |l| l.race.leads),
    ];
    let of = |leg: &Leg| labels(&[("leg", leg.leg)]);
    for (name, kind, help, figure) in FAMILIES {
        text.family(name, kind, help, &sum(legs.iter().map(|leg| (of(leg), figure(leg)))));
    }
    let seconds = |figure: fn(&Leg) -> u64| {
        legs.iter().map(|leg| (of(leg), Seconds { us: figure(leg) }.to_string())).collect::<Samples>()
    };
    let leads = seconds(|leg| leg.race.lead_sum_us);
    text.family("leg_lead_seconds_total", Counter, "Sum of the leads of leg_leads_total.", &leads);
    let longest = seconds(|leg| leg.race.lead_max_us);
    text.family("leg_lead_longest_seconds", Gauge, "The longest lead since the start.", &longest);
}

fn most<K: Ord>(rows: impl Iterator<Item = (K, u64)>) -> BTreeMap<K, u64> {
    let mut most = BTreeMap::new();
    rows.for_each(|(key, figure)| {
        let one = most.entry(key).or_insert(figure);
        *one = figure.max(*one);
    });
    most
}

fn least(rows: impl Iterator<Item = (String, u64)>) -> BTreeMap<String, u64> {
    let mut least = BTreeMap::new();
    rows.for_each(|(key, figure)| {
        let one = least.entry(key).or_insert(figure);
        *one = figure.min(*one);
    });
    least
}

fn shown(figures: BTreeMap<String, u64>) -> Samples {
    figures.into_iter().map(|(labels, figure)| (labels, figure.to_string())).collect()
}
