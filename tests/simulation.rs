//! The whole system in its simulated world.

use binance_edge::sim::world::{Setup, World};
use binance_edge::time::{Instant, Span};

#[test]
fn an_hour_without_faults_is_held_to_the_last_trade() {
    let symbols = [
        "BTCUSDT",
        "ETHUSDT",
        "SOLUSDT",
        "BNBUSDT",
        "XRPUSDT",
        "DOGEUSDT",
        "1000SHIBUSDT",
        "币安人生USDT",
        "BTCUSDT_261225",
        "QUIETUSDT",
    ];
    let mut setup = Setup::new(1, &symbols);
    setup.config.tape.trades = 65_536;
    let mut world = World::new(&setup);
    let up = world.run_until(Span::from_secs(15), |w| w.engine().health(w.now()).reasons.is_empty());
    for note in world.notes() {
        println!("{} {} {}", note.utc, note.note.level(), note.note);
    }
    assert!(up, "{:?}", world.engine().health(world.now()));
    world.run_for(Span::from_secs(3600));
    let status = world.status();
    println!("{}", serde_json::to_string_pretty(&status.connections).unwrap());
    println!("{:?} frames, {} steps", status.connections.iter().map(|c| c.frames).sum::<u64>(), world.steps());
    for (name, s) in &status.symbols {
        println!("{name} {:?}", s.trades);
    }
    assert_eq!(world.violations(), [""; 0]);
    assert_eq!(world.audit(), [""; 0]);
    let _ = Instant::ZERO;
}
