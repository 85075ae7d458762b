//! Flows that share a path, in a time that only this loop moves: seconds of traffic take a fraction of one, and the same seeds
//! give the same run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::congestion::ControllerFactory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::flow::{Flow, Work};
use super::link::{Link, Path};

/// A datagram under way: when it arrives, in which order it was sent, whose it is, and whether it goes forward.
type UnderWay = Reverse<(Instant, u64, usize, bool, Vec<u8>)>;

/// Flows over one path there and one back.
pub struct Network {
    start: Instant,
    now: Instant,
    pub there: Link,
    pub back: Link,
    pub flows: Vec<Flow>,
    under_way: BinaryHeap<UnderWay>,
    order: u64,
}

impl Network {
    pub fn new(there: Path, back: Path, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            now,
            there: Link::new(there, seed, now),
            back: Link::new(back, seed + 1, now),
            flows: Vec::new(),
            under_way: BinaryHeap::new(),
            order: 0,
        }
    }

    /// Adds a flow, and returns its place.
    pub fn add(&mut self, work: Work, factory: Arc<dyn ControllerFactory + Send + Sync>) -> usize {
        let index = self.flows.len();
        self.flows.push(Flow::new(u16::try_from(index).unwrap(), work, factory, self.now));
        self.turn(index);
        index
    }

    /// Lets time pass until so long after the start.
    pub fn run_until(&mut self, end: Duration) {
        let end = self.start + end;
        loop {
            let arrival = self.under_way.peek().map(|Reverse((at, ..))| *at);
            let start = self.start;
            let wakes = self.flows.iter_mut().enumerate().filter_map(|(index, flow)| Some((flow.wake(start)?, index)));
            let wake = wakes.min();
            let next = [arrival, wake.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next < end) else { break };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let Some(Reverse((_, _, index, forward, data))) = self.under_way.pop() else { break };
                self.flows[index].receive(self.now, forward, &data);
                self.turn(index);
            } else if let Some((_, index)) = wake {
                self.turn(index);
            }
        }
        self.now = end;
    }

    fn turn(&mut self, index: usize) {
        let (forward, back) = self.flows[index].turn(self.now, self.now - self.start);
        for (datagrams, is_forward) in [(forward, true), (back, false)] {
            for data in datagrams {
                let link = if is_forward { &mut self.there } else { &mut self.back };
                if let Some(arrives) = link.take(self.now, data.len()) {
                    self.order += 1;
                    self.under_way.push(Reverse((arrives, self.order, index, is_forward, data)));
                }
            }
        }
    }
}

/// Moments at which independent callers ask, so many a second on average.
pub fn poisson(per_second: f64, from: Duration, until: Duration, seed: u64) -> Vec<Duration> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut at = from.as_secs_f64();
    let mut moments = Vec::new();
    loop {
        at += -(1.0 - random.random::<f64>()).ln() / per_second;
        if at >= until.as_secs_f64() {
            return moments;
        }
        moments.push(Duration::from_secs_f64(at));
    }
}
