//! `simulate`: the whole system in its simulated world, seed after seed, as fast as the machine can.
//!
//! Each seed is a world of its own: some symbols, some faults, then calm. Nothing false may be said while the faults
//! last, and everything must come back by itself afterwards. A seed that fails is repeated, with its whole story, by the
//! one line that is printed for it.
//!
//! `--quiet-days` runs days on which hardly anybody trades instead, and counts alarms: true ones, false ones, missed ones.

use super::{FAILED, complain, print};
use crate::market::feed::Canary;
use crate::sim::world::swarm::{self, Run};
use crate::sim::world::vigil::{self, Day, Verdict};
use crate::time::Span;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How many worlds, and how long each of them.
#[derive(Clone, Debug, clap::Args)]
pub struct SimulateArgs {
    /// Worlds to run, one a seed [default: 200, or 1 with --seed]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: Option<u64>,
    /// Virtual hours of faults in each world, before everything must heal
    #[arg(long, value_name = "H", default_value = "0.1", value_parser = hours)]
    pub hours: f64,
    /// The first seed; alone, that seed with its whole story
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Instead: whole days of symbols that hardly trade, one a seed; exit 1 on a false or a missed alarm
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["seeds", "hours"])]
    pub quiet_days: Option<u64>,
}

/// Runs them all, however many fail.
pub fn run(args: SimulateArgs) -> ExitCode {
    let first = args.seed.unwrap_or(0);
    if let Some(days) = args.quiet_days {
        return quiet_days(first, days);
    }
    let story = args.seed.is_some() && args.seeds.is_none();
    let seeds = args.seeds.unwrap_or(if story { 1 } else { SEEDS });
    let runs = all(first, seeds, args.hours, story);
    let failed = runs.iter().any(|run| !run.violations.is_empty());
    let mut page = String::new();
    for note in runs.iter().flat_map(|run| &run.notes) {
        let _ = writeln!(page, "{note}");
    }
    page.push_str(&failures(&runs, args.hours));
    page.push_str(&summary(&runs));
    let printed = print(&page);
    if failed { ExitCode::from(FAILED) } else { printed }
}

/// One run per seed, in the order of the seeds.
fn all(first: u64, seeds: u64, hours: f64, story: bool) -> Vec<Run> {
    let faulty = Span::from_ms((hours * 3_600_000.0) as u64);
    side_by_side(first, seeds, "seeds", |seed| one(seed, faulty, story), |run| !run.violations.is_empty()).0
}

/// Something for each seed, on as many threads as there are, in the order of the seeds; and how long it took.
fn side_by_side<R: Send>(
    first: u64,
    seeds: u64,
    what: &str,
    one: impl Fn(u64) -> R + Sync,
    failed: impl Fn(&R) -> bool,
) -> (Vec<R>, Duration) {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(seeds as usize);
    let (next, began) = (AtomicU64::new(0), Instant::now());
    let mut runs = Vec::new();
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        for _ in 0..threads {
            let (tell, next, one) = (tell.clone(), &next, &one);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= seeds || tell.send((index, one(first.wrapping_add(index)))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        let mut due = began + PROGRESS_EVERY;
        for run in told {
            runs.push(run);
            if Instant::now() >= due {
                due = Instant::now() + PROGRESS_EVERY;
                let failed = runs.iter().filter(|(_, run)| failed(run)).count();
                complain(format_args!("{} of {seeds} {what}, {failed} failed", runs.len()));
            }
        }
    });
    let took = began.elapsed();
    complain(format_args!("{seeds} {what} in {:.1} s on {threads} threads", took.as_secs_f64()));
    runs.sort_by_key(|(index, _)| *index);
    (runs.into_iter().map(|(_, run)| run).collect(), took)
}

/// A process that panics has violated everything at once; its words are on stderr already.
fn one(seed: u64, faulty: Span, story: bool) -> Run {
    catch_unwind(|| swarm::run(seed, faulty, Canary::default(), story))
        .unwrap_or_else(|_| Run { violations: vec!["the process panicked".to_owned()], ..Run::of(seed) })
}

fn failures(runs: &[Run], hours: f64) -> String {
    let mut text = String::new();
    for run in runs.iter().filter(|run| !run.violations.is_empty()) {
        let _ = writeln!(text, "seed {} failed", run.seed);
        for fault in &run.faults {
            let _ = writeln!(text, "  fault:     {fault}");
        }
        for violation in &run.violations {
            let _ = writeln!(text, "  violation: {violation}");
        }
        let _ = writeln!(text, "  repeat:    binance-edge simulate --seed {} --hours {hours}", run.seed);
    }
    text
}

fn quiet_days(first: u64, days: u64) -> ExitCode {
    let day = |seed| {
        catch_unwind(|| vigil::day(seed, false))
            .unwrap_or_else(|_| Day { violations: vec!["the process panicked".to_owned()], ..Day::of(seed) })
    };
    let (days, took) = side_by_side(first, days, "days", day, |day| !day.is_good());
    let printed = print(&table(&days, took));
    if days.iter().all(Day::is_good) { printed } else { ExitCode::from(FAILED) }
}

fn table(days: &[Day], took: Duration) -> String {
    let mut text = String::new();
    for day in days.iter().filter(|day| !day.is_good()) {
        let _ = writeln!(text, "day {} failed", day.seed);
        for drawn in &day.drawn {
            let _ = writeln!(text, "  drawn:     {drawn}");
        }
        for call in day.calls.iter().filter(|call| !call.verdict.is_good()).take(CALLS_TOLD) {
            let _ = writeln!(text, "  {:<10} {}: {}", format!("{}:", call.verdict.as_str()), call.at, call.words);
        }
        for violation in &day.violations {
            let _ = writeln!(text, "  violation: {violation}");
        }
    }
    let _ = write!(text, "{:<14}", "alarms");
    for verdict in Verdict::ALL {
        let _ = write!(text, "{:>10}", verdict.as_str());
    }
    text.push('\n');
    for kind in vigil::KINDS {
        let _ = write!(text, "{kind:<14}");
        for verdict in Verdict::ALL {
            let calls = days.iter().flat_map(|day| &day.calls);
            let count = calls.filter(|call| call.kind == kind && call.verdict == verdict).count();
            let _ = write!(text, "{count:>10}");
        }
        text.push('\n');
    }
    let good = days.iter().filter(|day| day.is_good()).count();
    let _ = write!(
        text,
        "days          {}, {good} good\n\
         streams       {}\n\
         messages      {}\n\
         virtual time  {:.1} h\n\
         real time     {:.1} s\n",
        days.len(),
        days.iter().map(|day| day.streams).sum::<usize>(),
        days.iter().map(|day| day.frames).sum::<u64>(),
        days.len() as f64 * vigil::DAY.as_ms() as f64 / 3.6e6,
        took.as_secs_f64(),
    );
    text
}

fn summary(runs: &[Run]) -> String {
    let good = runs.iter().filter(|run| run.violations.is_empty()).count();
    let (first, last) = (runs.first().map_or(0, |run| run.seed), runs.last().map_or(0, |run| run.seed));
    let passed: u64 = runs.iter().map(|run| run.passed.as_ms()).sum();
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for kind in runs.iter().flat_map(|run| &run.kinds) {
        *kinds.entry(kind).or_default() += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let mut healed: Vec<Span> = runs.iter().filter_map(|run| run.healed_after).collect();
    healed.sort_unstable();
    let median = healed.get(healed.len() / 2).copied().unwrap_or_default();
    let longest = healed.last().copied().unwrap_or_default();
    let frames: u64 = runs.iter().map(|run| run.frames).sum();
    let attempts: u64 = runs.iter().map(|run| run.attempts).sum();
    let violations: usize = runs.iter().map(|run| run.violations.len()).sum();
    format!(
        "seeds         {}, {first} to {last}: {good} good, {} failed\n\
         virtual time  {:.1} h\n\
         frames        {frames}\n\
         attempts      {attempts}\n\
         faults        {}: {}\n\
         healed after  p50 {:.1} s, max {:.1} s\n\
         violations    {violations}\n",
        runs.len(),
        runs.len() - good,
        passed as f64 / 3.6e6,
        runs.iter().map(|run| run.kinds.len()).sum::<usize>(),
        kinds.join(", "),
        median.as_ms() as f64 / 1e3,
        longest.as_ms() as f64 / 1e3,
    )
}

/// A length of time that a world can have.
fn hours(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(hours) if hours > 0.0 && hours <= HOURS_MAX => Ok(hours),
        _ => Err(format!("expected hours above 0 and up to {HOURS_MAX}")),
    }
}

/// Enough to meet every kind of fault many times.
const SEEDS: u64 = 200;
/// A year.
const HOURS_MAX: f64 = 8_760.0;
/// Worlds share nothing, but each wants its memory.
const THREADS_MAX: usize = 16;
/// Of a day that failed.
const CALLS_TOLD: usize = 20;
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::world::vigil::Call;

    #[test]
    fn a_seed_that_fails_says_how_to_see_it_again() {
        let mut run = Run::of(602);
        run.faults.push("Reset at 3s for 1ms".into());
        run.violations.push("at 35.5s: market-7 lies".into());
        let text = failures(&[Run::of(601), run.clone()], 0.25);
        assert_eq!(
            text,
            "seed 602 failed\n  fault:     Reset at 3s for 1ms\n  violation: at 35.5s: market-7 lies\n  \
             repeat:    binance-edge simulate --seed 602 --hours 0.25\n"
        );
        assert!(summary(&[Run::of(601), run]).starts_with("seeds         2, 601 to 602: 1 good, 1 failed\n"));
    }

    #[test]
    fn a_day_with_a_false_alarm_is_told_with_everything_that_was_drawn() {
        let call = |kind, verdict| Call { kind, at: Span::from_secs(75), verdict, words: "a@kline_1m: stale".into() };
        let mut day = Day { streams: 9, frames: 7, ..Day::of(3) };
        day.calls.extend([call("markPrice", Verdict::True), call("kline", Verdict::False)]);
        day.drawn.push("AUSDT: never trades".into());
        let text = table(&[Day::of(2), day], Duration::from_millis(1_500));
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            words,
            "day 3 failed drawn: AUSDT: never trades false: 75s: a@kline_1m: stale alarms true false missed blind \
             aggTrade 0 0 0 0 markPrice 1 0 0 0 kline 0 1 0 0 connection 0 0 0 0 days 2, 1 good streams 9 messages 7 \
             virtual time 48.0 h real time 1.5 s"
        );
    }

    #[test]
    fn hours_are_above_nothing() {
        assert_eq!(hours("0.05"), Ok(0.05));
        for bad in ["0", "-1", "nan", "inf", "x", "9000"] {
            assert!(hours(bad).is_err(), "{bad}");
        }
    }
}
