//! What came of it, in figures.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    /// When it should have been sent, from the start on.
    pub(crate) at: Duration,
    /// From then to its last byte, or until it failed.
    pub(crate) took: Duration,
    /// Why it failed, if it did.
    pub(crate) failure: Option<String>,
}

/// What `adit-lab load` prints. Times are of requests that were answered and sent after the warm-up; failures are counted
/// from the start on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Answered.
    pub(crate) ok: usize,
    /// Not answered, or not with 200.
    pub(crate) failed: usize,
    /// How often each kind of failure came.
    pub(crate) failures: BTreeMap<String, usize>,
    /// How long it took, warm-up included.
    pub(crate) seconds: f64,
    /// Answers a second after the warm-up.
    pub(crate) per_second: f64,
    /// Megabits of answered requests' bodies a second, after the warm-up.
    pub(crate) up_mbps: f64,
    /// Megabits of answers' bodies a second, after the warm-up.
    pub(crate) down_mbps: f64,
    /// Milliseconds on average.
    pub(crate) mean_ms: f64,
    /// Half took no longer.
    pub(crate) p50_ms: f64,
    /// Nine of ten took no longer.
    pub(crate) p90_ms: f64,
    /// 99 of 100.
    pub(crate) p99_ms: f64,
    /// 999 of 1000.
    pub(crate) p999_ms: f64,
    /// The longest.
    pub(crate) max_ms: f64,
}

/// The smallest value that at least this share of all does not exceed; of values in order. 0 where there are none.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

impl Report {
    /// Of all samples, the bytes of a request's body, and the bytes that came in answers after the warm-up.
    pub(super) fn new(samples: &[Sample], warmup: Duration, elapsed: Duration, body: usize, down: u64) -> Self {
        let mut failures = BTreeMap::new();
        for failure in samples.iter().filter_map(|sample| sample.failure.clone()) {
            *failures.entry(failure).or_insert(0) += 1;
        }
        let counted = samples.iter().filter(|sample| sample.failure.is_none() && sample.at >= warmup);
        let mut took: Vec<_> = counted.map(|sample| sample.took.as_secs_f64() * 1e3).collect();
        took.sort_by(f64::total_cmp);
        let window = elapsed.saturating_sub(warmup).as_secs_f64().max(1e-9);
        Self {
            ok: took.len(),
            failed: failures.values().sum(),
            failures,
            seconds: elapsed.as_secs_f64(),
            per_second: took.len() as f64 / window,
            up_mbps: (took.len() * body) as f64 * 8e-6 / window,
            down_mbps: down as f64 * 8e-6 / window,
            mean_ms: took.iter().sum::<f64>() / took.len().max(1) as f64,
            p50_ms: quantile(&took, 0.5),
            p90_ms: quantile(&took, 0.9),
            p99_ms: quantile(&took, 0.99),
            p999_ms: quantile(&took, 0.999),
            max_ms: quantile(&took, 1.0),
        }
    }
}

/// Writes a line for each request: `SECONDS,MILLISECONDS,OUTCOME`.
pub(super) fn write_timeline(path: &Path, samples: &[Sample]) -> anyhow::Result<()> {
    let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut file = std::io::BufWriter::new(file);
    for Sample { at, took, failure } in samples {
        let (at, took) = (at.as_secs_f64(), took.as_secs_f64() * 1e3);
        writeln!(file, "{at:.6},{took:.3},{}", failure.as_deref().unwrap_or("ok"))?;
    }
    Ok(file.flush()?)
}

/// Reads what `--timeline` wrote, in the order in which requests were to be sent.
pub(crate) fn read_timeline(text: &str) -> anyhow::Result<Vec<Sample>> {
    let read = |line: &str| {
        let mut parts = line.splitn(3, ',');
        let mut next = || parts.next().context("three columns");
        let at = Duration::try_from_secs_f64(next()?.parse()?)?;
        let took = Duration::try_from_secs_f64(next()?.parse::<f64>()? / 1e3)?;
        let outcome = next()?;
        Ok(Sample { at, took, failure: (outcome != "ok").then(|| outcome.to_owned()) })
    };
    let mut samples: Vec<Sample> = text.lines().map(read).collect::<anyhow::Result<_>>()?;
    samples.sort_by_key(|sample| sample.at);
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        let taken = [0.0, 0.001, 0.5, 0.99, 0.999, 1.0].map(|share| quantile(&values, share));
        assert_eq!(taken, [1.0, 1.0, 500.0, 990.0, 999.0, 1000.0]);
        assert_eq!(quantile(&[7.0], 0.5), 7.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn a_report_counts_answers_after_the_warmup_and_all_failures() {
        let sample = |at, took, failure: Option<&str>| Sample {
            at: Duration::from_millis(at),
            took: Duration::from_millis(took),
            failure: failure.map(Into::into),
        };
        let samples = [
            sample(0, 900, None),
            sample(500, 10, Some("timeout")),
            sample(1000, 10, None),
            sample(1500, 30, None),
            sample(2000, 5, Some("status 503")),
            sample(2500, 5, Some("timeout")),
        ];
        let report = Report::new(&samples, Duration::from_secs(1), Duration::from_secs(3), 1000, 500_000);
        assert_eq!((report.ok, report.failed), (2, 3));
        assert_eq!(report.failures, [("status 503".to_owned(), 1), ("timeout".to_owned(), 2)].into());
        assert_eq!((report.mean_ms, report.p50_ms, report.max_ms), (20.0, 10.0, 30.0));
        assert_eq!((report.per_second, report.down_mbps), (1.0, 2.0));
        assert!((report.up_mbps - 0.008).abs() < 1e-12);
    }

    #[test]
    fn a_timeline_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("timeline.csv");
        let late = Sample { at: Duration::from_millis(1250), took: Duration::from_millis(7), failure: None };
        let early = Sample { at: Duration::from_millis(250), took: Duration::ZERO, failure: Some("closed".into()) };
        write_timeline(&path, &[late.clone(), early.clone()]).unwrap();
        assert_eq!(read_timeline(&std::fs::read_to_string(&path).unwrap()).unwrap(), [early, late]);
        assert!(read_timeline("1,x,ok").is_err());
    }
}
