//! What our congestion control does on paths of all kinds, beside quinn's own, in a time of its own.

use std::sync::Arc;
use std::time::Duration;

use adit_common::tunnel::{CongestionControl, PathMemory};
use quinn_proto::congestion::ControllerFactory;

use crate::clockwork::{Loss, Network, Path, Work, poisson};

type Factory = Arc<dyn ControllerFactory + Send + Sync>;

fn ours() -> Factory {
    CongestionControl::Adaptive.factory(PathMemory::default())
}

fn cubic() -> Factory {
    CongestionControl::Cubic.factory(PathMemory::default())
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn bulk(from: f64) -> Work {
    Work::Bulk { from: seconds(from), until: Duration::MAX }
}

/// Megabits a second of each flow between two moments. Counts of the links begin at the first.
fn rates(network: &mut Network, from: f64, until: f64) -> Vec<f64> {
    network.run_until(seconds(from));
    network.there.count_anew();
    let before: Vec<_> = network.flows.iter().map(|flow| flow.received).collect();
    network.run_until(seconds(until));
    let bits = |(flow, before): (&crate::clockwork::Flow, &u64)| (flow.received - before) as f64 * 8.0;
    network.flows.iter().zip(&before).map(|pair| bits(pair) / 1e6 / (until - from)).collect()
}

/// One flow of ours, alone: megabits a second after five seconds.
fn alone(there: Path, back: Path, until: f64, seed: u64) -> (f64, Network) {
    let mut network = Network::new(there, back, seed);
    network.add(bulk(1.0), ours());
    let rate = rates(&mut network, 6.0, until)[0];
    (rate, network)
}

/// The share of what was offered to the link that it dropped for lack of room.
fn dropped(network: &Network) -> f64 {
    network.there.dropped as f64 / network.there.offered as f64
}

/// Bodies at random moments: in milliseconds the median and the 99th percentile, and how many did not arrive within 5 s of the last.
fn bodies(path: Path, factory: Factory, bytes: usize, each_second: f64, seed: u64) -> (f64, f64, usize) {
    let mut network = Network::new(path, path, seed);
    let at = poisson(each_second, seconds(2.0), seconds(14.0), seed);
    let sent = at.len();
    network.add(Work::Bodies { bytes, at }, factory);
    network.run_until(seconds(19.0));
    let mut took: Vec<_> = network.flows[0].arrivals.iter().map(|body| body.took.as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or(f64::INFINITY);
    (at(0.5), at(0.99), sent - took.len())
}

#[test]
fn random_loss_slows_nobody_down() {
    let path = Path::delayed(20);
    let (clean, ..) = bodies(path, ours(), 150_000, 20.0, 1);
    assert!(clean < 30.0, "20 ms is the path's own: {clean}");
    for seed in 1..4 {
        for share in [0.01, 0.03] {
            let path = path.loss(Loss::Random(share));
            let (median, high, missing) = bodies(path, ours(), 150_000, 20.0, seed);
            // A packet that was lost is sent again a round trip later; some are lost twice.
            assert!(median < 75.0 && high < 230.0 && missing == 0, "{share}: {median} {high} {missing}");
        }
    }
    // The same path with CUBIC shows that it is no easy one.
    let (_, _, missing) = bodies(path.loss(Loss::Random(0.01)), cubic(), 150_000, 20.0, 1);
    assert!(missing > 100, "{missing}");
}

#[test]
fn bursts_of_loss_slow_nobody_down() {
    for seed in 1..4 {
        let path = Path::delayed(20).rate(25.0, 125_000).loss(Loss::Bursts(0.01, 6.0));
        let (median, high, missing) = bodies(path, ours(), 15_000, 50.0, seed);
        assert!(median < 40.0 && high < 150.0 && missing == 0, "{median} {high} {missing}");
    }
}

#[test]
fn noise_of_any_height_is_told_from_congestion() {
    for (share, seed) in [(0.03, 1), (0.12, 2), (0.12, 3), (0.25, 4)] {
        let path = Path::delayed(20).rate(20.0, 100_000).loss(Loss::Random(share));
        let (rate, network) = alone(path, Path::delayed(20), 20.0, seed);
        // What is lost at random is lost before the link here, so all of its rate can be had.
        assert!(rate > 17.0, "{share}: {rate}");
        assert!(dropped(&network) < 0.02 && network.there.mean_wait() < 0.02, "{share}");
    }
}

#[test]
fn a_deep_queue_is_left_empty() {
    for (rate, round_trip) in [(20.0, 40), (2.0, 200), (100.0, 100), (5.0, 10)] {
        let one_second = (rate * 1e6 / 8.0) as u64;
        let path = Path::delayed(round_trip / 2).rate(rate, one_second);
        let (got, network) = alone(path, Path::delayed(round_trip / 2), 18.0, 1);
        let round_trip = round_trip as f64 / 1e3;
        assert!(got > 0.8 * rate, "{rate}: {got}");
        assert!(network.there.mean_wait() < round_trip, "{rate}: {} s", network.there.mean_wait());
    }
}

#[test]
fn a_link_of_a_few_packets_is_no_company() {
    // With less than four packets nothing can be learned; these wait, and nobody else is there to be blamed for it.
    let (rate, network) = alone(Path::delayed(20).rate(0.5, 60_000), Path::delayed(20), 40.0, 1);
    assert!(rate > 0.4, "{rate}");
    assert!(network.there.mean_wait() < 0.15, "{} s of 0.96", network.there.mean_wait());
}

#[test]
fn a_shallow_queue_and_a_policer_are_not_run_over() {
    let (rate, network) = alone(Path::delayed(20).rate(20.0, 15_000), Path::delayed(20), 20.0, 1);
    assert!(rate > 17.0 && dropped(&network) < 0.06, "{rate} {}", dropped(&network));
    let (rate, network) = alone(Path::delayed(20).policed(10.0, 30_000), Path::delayed(20), 20.0, 1);
    assert!(rate > 8.5 && dropped(&network) < 0.12, "{rate} {}", dropped(&network));
    // A policer with a deep bucket on a path with noise: the hardest to tell.
    let path = Path::delayed(20).policed(10.0, 200_000).loss(Loss::Random(0.02));
    let (rate, network) = alone(path, Path::delayed(20), 20.0, 1);
    assert!(rate > 8.5 && dropped(&network) < 0.2, "{rate} {}", dropped(&network));
}

#[test]
fn jitter_is_no_queue() {
    let (rate, _) = alone(Path::delayed(20).rate(20.0, 100_000).jitter(15), Path::delayed(20), 20.0, 1);
    assert!(rate > 15.0, "{rate}");
}

#[test]
fn flows_that_fill_the_queue_leave_us_a_share_and_get_theirs() {
    for (others, queue) in [(1, 50_000), (1, 100_000), (4, 100_000), (4, 50_000)] {
        let mut network = Network::new(Path::delayed(20).rate(20.0, queue), Path::delayed(20), 1);
        network.add(bulk(1.0), ours());
        for other in 0..others {
            network.add(bulk(3.0 + 0.1 * f64::from(other)), cubic());
        }
        let rates = rates(&mut network, 20.0, 60.0);
        let ratio = rates[0] / (rates[1..].iter().sum::<f64>() / f64::from(others));
        assert!((0.5..2.0).contains(&ratio), "beside {others}, {queue} bytes of queue: {ratio}, {rates:?}");
    }
}

#[test]
fn who_comes_late_has_a_share_within_seconds() {
    for (others, queue) in [(1, 250_000), (4, 250_000), (1, 1_000_000)] {
        for seed in 1..4 {
            let mut network = Network::new(Path::delayed(20).rate(20.0, queue), Path::delayed(20), seed);
            for other in 0..others {
                network.add(bulk(0.5 + 0.05 * f64::from(other)), cubic());
            }
            network.add(bulk(3.5 + 0.1 * seed as f64), ours());
            let rates = rates(&mut network, 8.5, 23.5);
            let (ours, others) = rates.split_last().unwrap();
            let ratio = ours / (others.iter().sum::<f64>() / others.len() as f64);
            assert!((0.5..2.0).contains(&ratio), "beside {others:?}, {queue} bytes of queue, seed {seed}: {ratio}");
        }
    }
}

#[test]
fn when_they_are_gone_the_queue_is_empty_again() {
    let mut network = Network::new(Path::delayed(20).rate(20.0, 300_000), Path::delayed(20), 1);
    network.add(bulk(1.0), ours());
    network.add(Work::Bulk { from: seconds(3.0), until: seconds(15.0) }, cubic());
    let beside = rates(&mut network, 8.0, 15.0);
    assert!(network.there.mean_wait() > 0.04, "they fill it: {}", network.there.mean_wait());
    assert!(beside[0] > 4.0, "{beside:?}");
    // What they had written by then has to be sent first.
    let alone = rates(&mut network, 32.0, 42.0);
    assert!(alone[0] > 17.0 && network.there.mean_wait() < 0.03, "{alone:?} {}", network.there.mean_wait());
}

#[test]
fn two_of_ours_share() {
    for (rate, delay, queue) in [(20.0, 20, 100_000), (20.0, 20, 2_500_000), (10.0, 50, 250_000)] {
        let mut network = Network::new(Path::delayed(delay).rate(rate, queue), Path::delayed(delay), 1);
        network.add(bulk(1.0), ours());
        network.add(bulk(5.0), ours());
        let rates = rates(&mut network, 15.0, 40.0);
        let ratio = rates[0].min(rates[1]) / rates[0].max(rates[1]);
        assert!(ratio > 0.8 && rates[0] + rates[1] > 0.9 * rate, "{rates:?}");
        assert!(network.there.mean_wait() < 0.04, "{}", network.there.mean_wait());
    }
}

#[test]
fn two_of_ours_share_though_the_path_just_became_longer() {
    for (seed, late) in [(1, 0.0), (2, 0.006), (3, 0.012), (4, 0.02), (7, 0.1)] {
        let lan = Path { delay: Duration::from_micros(50), ..Path::delayed(0) };
        let mut network = Network::new(lan, lan, seed);
        network.add(bulk(1.0), ours());
        network.add(bulk(1.0 + late), ours());
        network.run_until(seconds(0.5));
        network.there.path = Path::delayed(20).rate(20.0, 250_000);
        network.back.path = Path::delayed(20);
        let rates = rates(&mut network, 6.0, 21.0);
        let ratio = rates[0].min(rates[1]) / rates[0].max(rates[1]);
        assert!(ratio > 0.7 && network.there.mean_wait() < 0.02, "{late}: {rates:?} {}", network.there.mean_wait());
    }
}

#[test]
fn two_of_ours_that_take_each_other_for_strangers_find_out() {
    // Sessions that were made next door; and then the queue of a long way, which each takes for the other's.
    let paths = [(20.0, 20, 250_000), (50.0, 10, 400_000)];
    let moments = [0.0, 0.03, 0.1, 0.15, 0.2, 0.3, 0.5, 0.9, 1.5, 2.3];
    let mut shares = Vec::new();
    for (rate, way, queue) in paths {
        for late in moments {
            let door = Path { delay: Duration::from_micros(500), ..Path::delayed(0) };
            let mut network = Network::new(door, door, 1);
            network.add(bulk(1.0), ours());
            network.add(bulk(1.0 + late), ours());
            network.run_until(seconds(0.5));
            (network.there.path, network.back.path) = (Path::delayed(way).rate(rate, queue), Path::delayed(way));
            let rates = rates(&mut network, 6.0 + late, 21.0 + late);
            assert!(network.there.mean_wait() < 0.02, "{rate}, {late}: {} s", network.there.mean_wait());
            shares.push(rates[0].min(rates[1]) / rates[0].max(rates[1]));
        }
    }
    // Who begin in the same moment fall into step, and then who looks later at their queue gives way a little more.
    let least = shares.iter().copied().fold(1.0, f64::min);
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    assert!(least > 0.65 && mean > 0.9, "{shares:?}");
}

#[test]
fn who_stays_behind_with_another_of_ours_leaves_the_queue_empty() {
    for seed in 1..4 {
        let mut network = Network::new(Path::delayed(20).rate(20.0, 250_000), Path::delayed(20), seed);
        network.add(bulk(1.0), ours());
        network.add(bulk(1.0 + 0.3 * seed as f64), ours());
        network.add(Work::Bulk { from: seconds(3.0), until: seconds(12.0) }, cubic());
        // What it had written by then has to be sent first.
        let rates = rates(&mut network, 45.0, 60.0);
        let share = rates[0].min(rates[1]) / rates[0].max(rates[1]);
        assert!(share > 0.7 && rates[2] == 0.0, "{seed}: {rates:?}");
        assert!(network.there.mean_wait() < 0.02, "{seed}: {} s", network.there.mean_wait());
    }
}

#[test]
fn a_rate_that_falls_to_a_tenth_is_followed_within_three_seconds_and_back() {
    let mut network = Network::new(Path::delayed(20).rate(50.0, 500_000), Path::delayed(20), 1);
    network.add(bulk(1.0), ours());
    network.run_until(seconds(8.0));
    network.there.path.rate = Some(5e6);
    let slow = rates(&mut network, 11.0, 16.0)[0];
    assert!(slow > 4.0 && network.there.mean_wait() < 0.04, "{slow} {}", network.there.mean_wait());
    network.there.path.rate = Some(50e6);
    let fast = rates(&mut network, 19.0, 22.0)[0];
    assert!(fast > 40.0, "{fast}");
}

#[test]
fn a_window_that_was_found_on_a_faster_link_does_not_flood_a_slow_one() {
    let mut network = Network::new(Path::delayed(20).rate(50.0, 500_000), Path::delayed(20), 1);
    let pace = |count: u32, from: f64, each: f64| (0..count).map(move |body| seconds(from + each * f64::from(body)));
    let at = pace(36, 1.0, 0.25).chain(pace(20, 10.0, 0.8)).collect();
    network.add(Work::Bodies { bytes: 1_000_000, at }, ours());
    network.run_until(seconds(10.0));
    network.there.path.rate = Some(5e6);
    rates(&mut network, 14.0, 24.0);
    assert!(network.there.mean_wait() < 0.06 && dropped(&network) < 0.01, "{} s", network.there.mean_wait());
}

#[test]
fn a_route_that_becomes_longer_is_no_queue_for_long() {
    let mut network = Network::new(Path::delayed(20).rate(20.0, 500_000), Path::delayed(20), 1);
    network.add(bulk(1.0), ours());
    network.run_until(seconds(8.0));
    network.there.path.delay = Duration::from_millis(70);
    let meanwhile = rates(&mut network, 10.0, 20.0)[0];
    assert!(meanwhile > 10.0, "{meanwhile}");
    let after = rates(&mut network, 24.0, 30.0)[0];
    assert!(after > 17.0 && network.there.mean_wait() < 0.03, "{after} {}", network.there.mean_wait());
}

#[test]
fn a_session_that_began_next_door_is_as_quick_on_a_long_way() {
    let mut network = Network::new(Path::delayed(0), Path::delayed(0), 1);
    let mut at = poisson(200.0, seconds(0.5), seconds(2.0), 1);
    at.extend(poisson(20.0, seconds(2.0), seconds(12.0), 2));
    network.add(Work::Bodies { bytes: 150_000, at }, ours());
    network.run_until(seconds(2.0));
    let far = Path::delayed(20);
    (network.there.path, network.back.path) = (far, far);
    network.run_until(seconds(13.0));
    let late = network.flows[0].arrivals.iter().filter(|body| body.due > seconds(4.0));
    let slowest = late.map(|body| body.took).max().unwrap();
    assert!(slowest < seconds(0.15), "{slowest:?}");
}

#[test]
fn a_session_that_did_hardly_anything_next_door_is_too() {
    for seed in 1..31 {
        let door = Path { delay: Duration::from_micros(30), ..Path::delayed(0) };
        let mut network = Network::new(door, door, seed);
        let mut at = poisson(3.0 * (seed % 4) as f64 + 0.01, seconds(0.5), seconds(2.0), seed);
        at.extend(poisson(20.0, seconds(2.0), seconds(10.0), seed + 99));
        network.add(Work::Bodies { bytes: 15_000, at }, ours());
        network.run_until(seconds(1.0 + 0.04 * seed as f64));
        let far = Path::delayed(20);
        (network.there.path, network.back.path) = (far, far);
        network.run_until(seconds(12.0));
        let slowest = network.flows[0].arrivals.iter().map(|body| body.took).max().unwrap();
        assert!(slowest < seconds(0.6), "{seed}: {slowest:?}");
    }
}

#[test]
fn a_path_that_changes_in_the_midst_of_a_trial_is_no_company() {
    for seed in [10, 11, 18, 31, 37, 39] {
        let door = Path { delay: Duration::from_micros(60), ..Path::delayed(0) };
        let mut network = Network::new(door, door, seed);
        let mut at = poisson(5.0, seconds(0.5), seconds(2.0), seed);
        at.extend(poisson(20.0, seconds(2.0), seconds(10.0), seed + 99));
        network.add(Work::Bodies { bytes: 150_000, at }, ours());
        network.run_until(seconds(2.0 + 0.02 * seed as f64));
        let far = Path::delayed(20).loss(Loss::Random(0.01));
        let unsteady = Path { delay: Duration::from_millis(12 + seed % 9), ..far.jitter(8) };
        (network.there.path, network.back.path) = (unsteady, far);
        network.run_until(seconds(2.06 + 0.02 * seed as f64));
        network.there.path = far;
        network.run_until(seconds(12.0));
        let late = network.flows[0].arrivals.iter().filter(|body| body.due > seconds(4.0));
        let slowest = late.map(|body| body.took).max().unwrap();
        assert!(slowest < seconds(0.4), "{seed}: {slowest:?}");
    }
}

#[test]
fn who_comes_from_next_door_gets_a_share_beside_others() {
    for others in [1, 4] {
        let door = Path::delayed(0).rate(1000.0, 500_000);
        let mut network = Network::new(door, door, 1);
        network.add(bulk(1.15), ours());
        network.run_until(seconds(1.2));
        (network.there.path, network.back.path) = (Path::delayed(20).rate(20.0, 250_000), Path::delayed(20));
        for other in 0..others {
            network.add(bulk(1.3 + 0.1 * f64::from(other)), cubic());
        }
        let rates = rates(&mut network, 15.0, 40.0);
        let ratio = rates[0] / (rates[1..].iter().sum::<f64>() / f64::from(others));
        assert!((0.5..2.0).contains(&ratio), "beside {others}: {ratio}, {rates:?}");
    }
}

#[test]
fn a_satellite_is_used() {
    let path = Path::delayed(150).rate(25.0, 900_000).loss(Loss::Bursts(0.005, 6.0));
    let (rate, network) = alone(path, Path::delayed(150), 30.0, 1);
    assert!(rate > 20.0 && network.there.mean_wait() < 0.06, "{rate} {}", network.there.mean_wait());
}

#[test]
fn a_pause_forgets_nothing_and_neither_does_the_next_session() {
    let path = Path::delayed(50).rate(50.0, 1_000_000);
    let took = |network: &Network, index: usize| network.flows[0].arrivals[index].took.as_secs_f64() * 1e3;
    let memory = PathMemory::default();
    let mut network = Network::new(path, path, 1);
    let at = [1.0, 2.0, 3.0, 300.0].map(seconds).to_vec();
    network.add(Work::Bodies { bytes: 300_000, at }, CongestionControl::Adaptive.factory(memory.clone()));
    network.run_until(seconds(305.0));
    let (first, last) = (took(&network, 0), took(&network, 3));
    // 50 ms for the way, 48 for the link; at first two or three more round trips to find out.
    assert!(first > 200.0 && last < 160.0, "{first} {last}");

    let mut next = Network::new(path, path, 1);
    next.add(Work::Bodies { bytes: 300_000, at: vec![seconds(1.0)] }, CongestionControl::Adaptive.factory(memory));
    next.run_until(seconds(3.0));
    assert!(took(&next, 0) < first - 80.0, "{} after {first}", took(&next, 0));
}

#[test]
fn after_a_silence_everything_arrives() {
    let mut network = Network::new(Path::delayed(20), Path::delayed(20), 1);
    let at = poisson(20.0, seconds(2.0), seconds(14.0), 1);
    let sent = at.len();
    network.add(Work::Bodies { bytes: 15_000, at }, ours());
    network.run_until(seconds(5.0));
    (network.there.path.loss, network.back.path.loss) = (Loss::Cut, Loss::Cut);
    network.run_until(seconds(8.0));
    (network.there.path.loss, network.back.path.loss) = (Loss::None, Loss::None);
    network.run_until(seconds(20.0));
    let arrivals = &network.flows[0].arrivals;
    assert_eq!(arrivals.len(), sent);
    let late = arrivals.iter().filter(|body| body.due > seconds(12.0) && body.took > seconds(0.1)).count();
    assert_eq!(late, 0);
}
