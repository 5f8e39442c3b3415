//! The watch is driven by hand here: no test waits for a real stall.

use super::*;
use std::sync::Mutex;

static ENDED: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn ms(n: u64) -> Instant {
    Instant::from_ns(n * 1_000_000)
}

fn bench() -> (Beat, Watch, Gauge) {
    let shared = Arc::<Shared>::default();
    let stall = Span::from_ms(50);
    let end = |line| ENDED.lock().unwrap().push(line);
    let watch = Watch::new(Limits { stall, give_up: Span::from_secs(10), end }, Instant::ZERO);
    let beat = Beat { shared: Arc::clone(&shared), stall, turn: 0, began: Instant::ZERO };
    (beat, watch, Gauge { shared, clock: SystemClock::start() })
}

#[test]
fn stages_survive_packing() {
    let session = SessionId(u32::MAX);
    for stage in [
        Stage::Sleep,
        Stage::Read(session),
        Stage::Obey(SessionId(0)),
        Stage::Write(SessionId(7)),
        Stage::Replies,
        Stage::Timers,
        Stage::Notes,
        Stage::Publish,
    ] {
        assert_eq!(Stage::unpack(stage.pack()), stage);
        assert_eq!(Stage::unpack(stage.pack() | 0xff_ffff << 40), stage);
    }
    assert_eq!(Stage::Read(SessionId(3)).to_string(), "reading session 3");
}

#[test]
fn turns_are_counted_by_length() {
    let (mut beat, _, gauge) = bench();
    for (at, took_us) in [(0, 5), (1, 10), (2, 11), (3, 900), (4, 60_000), (5, 200_000)] {
        beat.wake(ms(at * 1000));
        beat.sleep(ms(at * 1000) + Span::from_us(took_us));
    }
    let turns = gauge.turns();
    assert_eq!(turns.turns, 6);
    assert_eq!(turns.stalls, 2);
    assert_eq!(turns.max_turn_us, 200_000);
    assert_eq!(turns.turn_histogram, [2, 3, 4, 4, 5, 6]);
    assert_eq!(turns.turn_sum_us, 260_926);
}

#[test]
fn a_long_turn_is_counted_while_it_lasts_and_once() {
    let (mut beat, mut watch, gauge) = bench();
    beat.wake(ms(1000));
    beat.stage(Stage::Read(SessionId(1)));
    for at in (1000..=1300).step_by(20) {
        watch.look(&beat.shared, ms(at));
        assert_eq!(gauge.turns().stalls, u64::from(at > 1050), "at {at}");
    }
    beat.sleep(ms(1310));
    assert_eq!(gauge.turns().stalls, 1);
    beat.wake(ms(1400));
    watch.look(&beat.shared, ms(1460));
    assert_eq!(gauge.turns().stalls, 2, "the next one is another one");
}

#[test]
fn sleep_is_no_stall() {
    let (mut beat, mut watch, gauge) = bench();
    beat.wake(ms(10));
    beat.sleep(ms(11));
    for at in (20..900).step_by(20) {
        watch.look(&beat.shared, ms(at));
    }
    assert_eq!(gauge.turns().stalls, 0);
}

#[test]
fn a_dead_loop_ends_the_process_and_a_frozen_process_does_not() {
    let (mut beat, mut watch, _gauge) = bench();
    let ended = || std::mem::take(&mut *ENDED.lock().unwrap());
    beat.wake(ms(10));
    beat.stage(Stage::Replies);
    watch.look(&beat.shared, ms(20));
    // Stopped for a minute, and continued.
    watch.look(&beat.shared, ms(60_000));
    assert!(ended().is_empty());
    beat.sleep(ms(60_001));
    beat.wake(ms(60_002));
    beat.stage(Stage::Replies);
    for at in (60_010..70_000).step_by(20) {
        watch.look(&beat.shared, ms(at));
    }
    assert!(ended().is_empty(), "before its time");
    watch.look(&beat.shared, ms(70_020));
    let lines = ended();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("handling replies"), "{}", lines[0]);
    let shared = Arc::clone(&beat.shared);
    drop(beat);
    for at in (80_000..100_000).step_by(100) {
        watch.look(&shared, ms(at));
    }
    assert!(ended().is_empty(), "a loop that has returned is not dead");
}

#[test]
fn the_thread_ends_with_the_loop() {
    let clock = SystemClock::start();
    let (beat, gauge) = start(Limits::new(Span::from_ms(50)), clock).unwrap();
    let shared = Arc::downgrade(&gauge.shared);
    assert!(gauge.last_turn_age() < Span::from_secs(20));
    drop((beat, gauge));
    for _ in 0..20_000 {
        if shared.strong_count() == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("the thread still holds the loop's numbers");
}
