//! A distribution of times, and what may honestly be said of it.
//!
//! Percentiles come from a histogram of three significant digits (microseconds, up to an hour), so that a million requests
//! take no more memory than a hundred; mean and spread are exact. A percentile that too few measurements could have moved
//! is not given at all.

use std::time::Duration;

use hdrhistogram::Histogram;

/// A measured time cannot be longer than this, in microseconds: an hour.
const LONGEST: u64 = 3_600_000_000;

/// Above p99, a percentile must have this many measurements beyond it; with fewer it is the story of one of them.
const BEYOND: f64 = 10.0;

/// Times of one kind.
#[derive(Debug, Clone)]
pub struct Distribution {
    histogram: Histogram<u64>,
    sum: Duration,
    mean: f64,
    squares: f64,
    min: Duration,
    max: Duration,
}

impl Default for Distribution {
    fn default() -> Self {
        // invariant: the bounds are in order and three digits are few enough.
        #[allow(clippy::expect_used, reason = "constants cannot fail")]
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds are constants");
        Self { histogram, sum: Duration::ZERO, mean: 0.0, squares: 0.0, min: Duration::MAX, max: Duration::ZERO }
    }
}

impl Distribution {
    /// Adds a time.
    pub fn add(&mut self, time: Duration) {
        let micros = u64::try_from((time.as_nanos() + 500) / 1000).unwrap_or(LONGEST);
        self.histogram.saturating_record(micros.min(LONGEST));
        self.sum += time;
        self.min = self.min.min(time);
        self.max = self.max.max(time);
        // Welford's running mean and squares: exact where a sum of squares would cancel.
        let seconds = time.as_secs_f64();
        let delta = seconds - self.mean;
        self.mean += delta / self.count() as f64;
        self.squares += delta * (seconds - self.mean);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Their sum, exactly.
    pub const fn sum(&self) -> Duration {
        self.sum
    }

    /// Their mean.
    pub fn mean(&self) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_secs_f64(self.mean.max(0.0)))
    }

    /// Their standard deviation, of two or more.
    pub fn deviation(&self) -> Option<Duration> {
        let count = self.count();
        (count > 1).then(|| Duration::from_secs_f64((self.squares / (count - 1) as f64).max(0.0).sqrt()))
    }

    /// The shortest.
    pub fn min(&self) -> Option<Duration> {
        (self.count() > 0).then_some(self.min)
    }

    /// The longest, exactly.
    pub fn max(&self) -> Option<Duration> {
        (self.count() > 0).then_some(self.max)
    }

    /// The time within which a share `quantile` (0 to 1) of them lies, to three digits. `None` without measurements, and
    /// above p99 with fewer than ten beyond it: p99.9 needs 10,000.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        // A hair of tolerance, because 1 - 0.999 is not quite a thousandth.
        let enough = quantile <= 0.99 || self.count() as f64 * (1.0 - quantile) >= BEYOND - 1e-6;
        let value = || Duration::from_micros(self.histogram.value_at_quantile(quantile));
        // A bucket's upper edge may lie beyond the longest time in it.
        (self.count() > 0 && enough).then(|| value().clamp(self.min, self.max))
    }

    /// How many measurements lie beyond p99: what its value rests on.
    pub fn beyond_p99(&self) -> u64 {
        self.count() / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(micros: impl IntoIterator<Item = u64>) -> Distribution {
        let mut distribution = Distribution::default();
        micros.into_iter().for_each(|micros| distribution.add(Duration::from_micros(micros)));
        distribution
    }

    #[test]
    fn percentiles_mean_and_spread_are_those_of_the_times() {
        let distribution = of(1..=1000);
        assert_eq!(distribution.quantile(0.5), Some(Duration::from_micros(500)));
        assert_eq!(distribution.quantile(0.99), Some(Duration::from_micros(990)));
        assert_eq!(distribution.mean(), Some(Duration::from_nanos(500_500)));
        assert_eq!(
            (distribution.min(), distribution.max()),
            (Some(Duration::from_micros(1)), Some(Duration::from_millis(1)))
        );
        // The standard deviation of 1..=n is the root of n(n+1)/12.
        let deviation = distribution.deviation().unwrap().as_secs_f64() * 1e6;
        assert!((deviation - (1000.0_f64 * 1001.0 / 12.0).sqrt()).abs() < 1e-2, "{deviation}");
        assert_eq!(distribution.sum(), Duration::from_micros(500_500));
    }

    #[test]
    fn no_percentile_is_told_that_too_few_times_support() {
        assert_eq!(of([]).quantile(0.5), None);
        assert_eq!(of(1..=9_999).quantile(0.999), None);
        assert!(of(1..=10_000).quantile(0.999).is_some());
        assert_eq!(of(1..=10_000).quantile(0.9999), None);
        assert_eq!(of([7]).quantile(0.99), Some(Duration::from_micros(7)));
        assert_eq!(of([7]).deviation(), None);
        assert_eq!(of(1..=250).beyond_p99(), 2);
    }

    #[test]
    fn no_percentile_is_longer_than_the_longest_time() {
        let distribution = of([10_001, 10_001, 123_456]);
        assert_eq!(distribution.quantile(0.99), distribution.max());
        let mut hours = Distribution::default();
        hours.add(Duration::from_secs(10 * 3600));
        assert_eq!(hours.max(), Some(Duration::from_secs(10 * 3600)));
        assert_eq!(of([0]).quantile(0.5), Some(Duration::ZERO));
    }
}
