//! What arrived, second by second.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What `adit-lab flow` prints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flows {
    /// Megabits that arrived in each whole second, of each flow.
    pub(crate) per_second_mbps: Vec<Vec<f64>>,
    /// Of each flow, on average.
    pub(crate) mean_mbps: Vec<f64>,
    /// Of all flows together.
    pub(crate) total_mbps: f64,
}

/// How many bytes of one flow had arrived by when.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Vec<(Duration, u64)>);

impl Meter {
    /// So many bytes in all had arrived by then.
    pub(super) fn note(&mut self, at: Duration, bytes: u64) {
        self.0.push((at, bytes));
    }

    /// How many had arrived by then.
    fn by(&self, at: Duration) -> u64 {
        let next = self.0.partition_point(|(noted, _)| *noted <= at);
        next.checked_sub(1).map_or(0, |last| self.0[last].1)
    }

    fn mbps(&self, from: Duration, to: Duration) -> f64 {
        (self.by(to) - self.by(from)) as f64 * 8e-6 / (to - from).as_secs_f64().max(1e-9)
    }
}

/// What meters say of so many seconds, of which the first `skip` are not part of the means.
pub(super) fn flows(meters: &[Meter], skip: u64, seconds: u64) -> Flows {
    let second = Duration::from_secs;
    let each = |meter: &Meter| (0..seconds).map(|from| meter.mbps(second(from), second(from + 1))).collect();
    let mean = |meter: &Meter| meter.mbps(second(skip), second(seconds));
    let mean_mbps: Vec<f64> = meters.iter().map(mean).collect();
    Flows { per_second_mbps: meters.iter().map(each).collect(), total_mbps: mean_mbps.iter().sum(), mean_mbps }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_in_the_second_in_which_they_came() {
        let mut meter = Meter::default();
        for (millis, bytes) in [(200, 250_000), (999, 1_000_000), (1500, 1_000_000), (2400, 3_000_000)] {
            meter.note(Duration::from_millis(millis), bytes);
        }
        let flows = flows(&[meter, Meter::default()], 1, 3);
        assert_eq!(flows.per_second_mbps, [[8.0, 0.0, 16.0], [0.0; 3]]);
        assert_eq!(flows.mean_mbps, [8.0, 0.0]);
        assert_eq!(flows.total_mbps, 8.0);
    }
}
