//! The candles that were none: "328 candles in 59.5 s" were pushes of a few running ones, appended; and the "connection"
//! of the same report had delivered nothing.

use super::*;
use binance_edge::config::Config;
use binance_edge::market::candles::Standing;
use binance_edge::sim::exchange::{Harm, RecordedFrame, Source};
use binance_edge::sim::world::BEGINNING;
use binance_edge::wire::Interval;

fn only_candles(config: &mut Config) {
    (config.streams.agg_trade, config.streams.mark_price) = (false, false);
}

#[test]
fn three_hundred_and_twenty_eight_updates_are_four_candles() {
    // 178 and 150 pushes of two symbols in 59.5 s that begin 20 s before the end of a minute, as they were counted.
    let minute = BEGINNING.0.div_euclid(60_000) * 60_000;
    let begin = minute + 40_000;
    let mut frames = Vec::new();
    for (symbol, pushes) in [("BTCUSDT", 178), ("ETHUSDT", 150)] {
        for n in 0..pushes {
            let event = begin + n * 59_500 / (pushes - 1);
            // The closing push comes a little into the next minute, instead of one of the new candle's.
            let next = begin + (n - 1) * 59_500 / (pushes - 1);
            let closes = event >= minute + 60_000 && next < minute + 60_000;
            let open = if closes { minute } else { event.div_euclid(60_000) * 60_000 };
            let text = format!(
                r#"{{"stream":"{}@kline_1m","data":{{"e":"kline","E":{event},"s":"{symbol}","k":{{"t":{open},"T":{},"s":"{symbol}","i":"1m","f":1,"L":{},"o":"100.00","c":"101.00","h":"102.00","l":"99.00","v":"10.000","n":{},"x":{closes},"q":"1000.00000","V":"5.000","Q":"500.00000","B":"0"}}}}}}"#,
                symbol.to_lowercase(),
                open + 59_999,
                n + 1,
                n + 1,
            );
            frames.push(RecordedFrame { at_ns: event * 1_000_000, text });
        }
    }
    frames.sort_by_key(|frame| frame.at_ns);
    assert_eq!(frames.len(), 328);
    let mut setup = Setup::new(1, &["BTCUSDT", "ETHUSDT"]);
    only_candles(&mut setup.config);
    setup.exchange.source = Source::Recorded { frames, speed: 1.0, wait_for_subscriber: true };
    let mut world = World::new(&setup);
    world.run_for(s(62));
    assert_eq!(world.violations(), [""; 0]);
    assert_eq!(world.status().connections[0].frames, 328 + 1, "and one acknowledgement");
    for (symbol, pushes) in [("BTCUSDT", 178), ("ETHUSDT", 150)] {
        let candles = &world.status().symbols[symbol].candles["1m"];
        assert_eq!((candles.updates, candles.len, candles.closed, candles.unclosed), (pushes, 2, 1, 0), "{symbol}");
    }
}

#[test]
fn an_hour_of_updates_is_sixty_candles_and_nothing_of_history_is_pushed_out() {
    let mut setup = Setup::new(5, &["BTCUSDT", "ETHUSDT"]);
    only_candles(&mut setup.config);
    let mut world = World::new(&setup);
    world.run_for(s(3_600));
    for symbol in ["BTCUSDT", "ETHUSDT"] {
        let candles = &world.status().symbols[symbol].candles["1m"];
        // The hour begins with a minute: 60, or 61 when the next one has begun.
        assert!((60..=61).contains(&candles.len), "{symbol}: {}", candles.len);
        assert!(candles.closed + 1 >= 60 && candles.unclosed == 0, "{symbol}: {candles:?}");
        assert!(candles.updates > 5_000, "{symbol}: {}", candles.updates);
    }
    is_true(&world);
}

#[test]
fn a_lost_closing_push_leaves_a_candle_that_does_not_claim_to_be_final() {
    let mut setup = Setup::new(5, &["BTCUSDT"]);
    only_candles(&mut setup.config);
    let mut world = World::new(&setup);
    world.schedule_harm(Harm::DropClosing, Instant::ZERO, s(90), |fault| fault);
    world.run_for(s(200));
    let candles = &world.status().symbols["BTCUSDT"].candles["1m"];
    assert_eq!((candles.len, candles.closed, candles.unclosed), (4, 2, 1));
    let (_, book) = world.engine().market().books().next().unwrap();
    let standing: Vec<_> = book.candles(Interval::M1).unwrap().ring().iter().map(|candle| candle.standing).collect();
    assert_eq!(standing, [Standing::Unclosed, Standing::Closed, Standing::Closed, Standing::Running]);
    is_true(&world);
}

/// Acknowledged and mute: said to be neither live nor ready, and failed in its time with its path named.
fn acknowledged_and_mute(mut setup: Setup, harm: Option<Harm>, path: &str) {
    only_candles(&mut setup.config);
    let mut world = World::new(&setup);
    if let Some(harm) = harm {
        world.schedule_harm(harm, Instant::ZERO, s(3_600), |fault| fault);
    }
    let acked = |w: &World| w.status().streams.iter().all(|row| row.state == "acked");
    assert!(world.run_until(s(2), acked), "the venue acknowledges anything");
    let asked_and_acked = world.now();
    assert_eq!(world.status().connections[0].state, "open");
    assert!(!ready(&world) && !healthy(&world), "connected is not subscribed");
    assert!(world.status().health.reasons[0].contains("acked: no data of its own on this connection yet"));
    let failed = format!("acknowledged, no data within 10s on {path}");
    assert!(!world.run_until(s(10).saturating_sub(Span::from_ns(1)), |w| !acked(w) || ready(w)), "judged early");
    assert!(world.run_until(Span::from_ns(1), |w| !acked(w)), "judged late");
    assert_eq!(world.now(), asked_and_acked + s(10));
    assert_eq!(times(&world, &failed), [asked_and_acked + s(10); 2]);
    // Nothing on it delivers, so the connection is given up as a whole.
    let failure = last_failure(&world);
    assert_eq!((failure.stage, failure.elapsed_ms), ("first_data", 10_000));
    assert_eq!(failure.reason, format!("no stream delivered in its time on {path}"));
    world.run_for(s(600));
    assert_eq!(said(&world, ": live on ").len(), 0);
    assert_eq!(count(&world, log::Level::Error), 1, "one outage");
    let subscriptions = world.status().subscriptions;
    assert_eq!((subscriptions.successes, subscriptions.success_rate), (0, Some(0.0)));
    assert_eq!(world.violations(), [""; 0]);
}

#[test]
fn an_acknowledged_connection_without_data_is_not_connected() {
    acknowledged_and_mute(Setup::new(2, &["BTCUSDT", "ETHUSDT"]), Some(Harm::Mute), "/market/stream");
}

#[test]
fn the_path_that_acknowledges_and_never_delivers_is_named() {
    let mut setup = Setup::new(2, &["BTCUSDT", "ETHUSDT"]);
    setup.config.exchange.market_ws.path.clear();
    acknowledged_and_mute(setup, None, "/stream");
}
