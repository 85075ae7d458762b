use std::time::{Duration, Instant};

use super::adaptive::Adaptive;
use super::control::Mode;

const PACKET: u64 = 1200;

/// A path of which a test says how long each round takes, and how many packets of it are lost.
struct Rounds {
    control: Adaptive,
    now: Instant,
}

impl Rounds {
    fn new() -> Self {
        let now = Instant::now();
        Self { control: Adaptive::new(now, PACKET as u16, None), now }
    }

    /// A window's worth is sent and acknowledged a round trip later, but for some of it.
    fn round(&mut self, round_trip: Duration, lost: u64) {
        let sent = self.now;
        self.now += round_trip;
        let packets = self.control.window() / PACKET;
        for number in 0..packets {
            // A report for each: they were not lost together.
            if number < lost {
                self.control.lost(sent, PACKET);
            } else {
                self.control.acknowledged(self.now, sent, PACKET);
            }
        }
        self.control.all_acknowledged(self.now, 0);
    }

    /// So many rounds, of which every third loses four packets: it sends more until that happens.
    fn lossy(&mut self, rounds: u32, round_trip: impl Fn(u32) -> Duration) {
        for number in 0..rounds {
            self.round(round_trip(number), if number % 3 == 2 { 4 } else { 0 });
        }
    }
}

const FLOOR: Duration = Duration::from_millis(20);

#[test]
fn losses_with_nothing_in_the_queue_are_a_policers() {
    let mut path = Rounds::new();
    path.round(FLOOR, 0);
    path.lossy(60, |_| FLOOR);
    let report = path.control.report();
    assert!(path.control.policed() >= 2 && path.control.policed() == report.reductions[1], "{report:?}");
}

#[test]
fn losses_of_a_full_queue_are_not() {
    let mut path = Rounds::new();
    path.round(FLOOR, 0);
    // Others fill it, and hold it between three and four round trips whatever we do.
    path.lossy(200, |number| FLOOR + Duration::from_millis(u64::from((8 * number).min(40) + 3 * (number % 7))));
    let report = path.control.report();
    assert!(report.reductions[1] >= 2 && path.control.policed() == 0, "{report:?}");
}

#[test]
fn an_idle_path_that_becomes_a_hundred_times_longer_is_another_path() {
    let mut path = Rounds::new();
    for _ in 0..5 {
        path.round(FLOOR / 100, 0);
    }
    path.round(FLOOR, 0);
    let window = path.control.window();
    path.round(FLOOR, 0);
    let report = path.control.report();
    assert!(report.mode == Mode::Start && report.reductions == [0; 3] && path.control.window() > window, "{report:?}");
    assert!((report.floor - FLOOR.as_secs_f64()).abs() < 1e-6, "{report:?}");
}

#[test]
fn one_that_becomes_five_times_longer_has_a_queue() {
    let mut path = Rounds::new();
    path.round(FLOOR, 0);
    path.round(5 * FLOOR, 0);
    let report = path.control.report();
    assert!(report.reductions[0] == 1 && report.floor < 0.021, "{report:?}");
}
