//! How a tunnel comes back: from a link that was cut, from another address of its agent, from a relay that was killed.

use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::part::Cases;
use super::steady::{FAR, NEAR, ready};
use crate::house::{Lab, Link};
use crate::load::{Sample, read_timeline};

/// When it happens, from the start of the load on.
const AT: Duration = Duration::from_secs(8);

/// A request that takes longer than this is not what anybody calls back to normal.
const NORMAL: Duration = Duration::from_secs(1);

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outage {
    /// Link b is cut for 5 s.
    Cut,
    /// The NAT gives the agent another address, and forgets the old one.
    Rebind,
    /// The relay is killed, and started again 1 s later.
    Restart,
    /// The same with as many agents as the lab has: when each answers again.
    Many,
}

/// How it went on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Recovery {
    pub(super) sent: usize,
    pub(super) failed: usize,
    /// Answered, but not within what is normal.
    pub(super) slow: usize,
    /// From when things were well again until every later request was answered as normal.
    pub(super) recovered_s: f64,
    /// Whether it was so before the load ended.
    pub(super) recovered: bool,
    /// The longest time without any answer.
    pub(super) longest_gap_s: f64,
}

/// What became of requests, in the order in which they were to be sent, of which things were well again from `back` on.
pub(super) fn recovery(samples: &[Sample], back: Duration, normal: Duration) -> Recovery {
    let is_bad = |sample: &&Sample| sample.failure.is_some() || sample.took > normal;
    let bad: Vec<_> = samples.iter().filter(is_bad).collect();
    let failed = bad.iter().filter(|sample| sample.failure.is_some()).count();
    let last = bad.iter().map(|sample| sample.at).max().unwrap_or_default();
    let mut answered: Vec<_> =
        samples.iter().filter(|sample| sample.failure.is_none()).map(|sample| sample.at + sample.took).collect();
    answered.sort();
    let gaps = answered.windows(2).map(|pair| pair[1] - pair[0]);
    Recovery {
        sent: samples.len(),
        failed,
        slow: bad.len() - failed,
        recovered_s: last.saturating_sub(back).as_secs_f64(),
        // Whoever fails to the very end has not recovered after so many seconds, but not at all.
        recovered: samples.last().is_some_and(|sample| sample.at > last + Duration::from_secs(1)),
        longest_gap_s: gaps.max().unwrap_or_default().as_secs_f64(),
    }
}

/// Runs a load of so many seconds, and has `happen` do something to the lab meanwhile.
pub(super) async fn timeline(
    lab: &mut Lab,
    words: &str,
    happen: impl AsyncFnOnce(&mut Lab, Instant) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Sample>> {
    let file = lab.file("timeline.csv");
    let words = format!("{words} --timeline {}", file.display());
    let running = lab.begin_load(0, "/infer?us=10000", &words)?;
    happen(lab, Instant::now()).await?;
    running.measured(lab).await?;
    read_timeline(&std::fs::read_to_string(&file).context("cannot read the timeline")?)
}

impl Outage {
    pub(super) async fn perform(self, lab: &mut Lab, cases: &mut Cases<'_>) -> anyhow::Result<()> {
        ready(lab, NEAR, FAR).await?;
        let load = |seconds: u32| {
            format!("--connections 64 --rate 20 --even --body 15000 --seconds {seconds} --timeout 10 --grace 10")
        };
        let second = Duration::from_secs(1);
        let (samples, back) = match self {
            Self::Cut => {
                let cut = async |lab: &mut Lab, start| {
                    sleep_until(start + AT).await;
                    lab.set(Link::B, "both down")?;
                    sleep_until(start + AT + 5 * second).await;
                    lab.set(Link::B, "both up")
                };
                (timeline(lab, &load(30), cut).await?, AT + 5 * second)
            }
            Self::Rebind => {
                let rebind = async |lab: &mut Lab, start| {
                    sleep_until(start + AT).await;
                    lab.rebind()
                };
                (timeline(lab, &load(45), rebind).await?, AT)
            }
            Self::Restart => {
                let restart = async |lab: &mut Lab, start| {
                    sleep_until(start + AT).await;
                    lab.kill_relay().await;
                    sleep_until(start + AT + second).await;
                    lab.start_relay()
                };
                (timeline(lab, &load(32), restart).await?, AT + second)
            }
            Self::Many => return many(lab, cases).await,
        };
        cases.add("recovery", &recovery(&samples, back, NORMAL))
    }
}

/// When agents answered again, in seconds from the start of the new relay on.
#[derive(Debug, Serialize)]
struct Returned {
    agents: usize,
    before: usize,
    after: usize,
    first_s: Option<f64>,
    median_s: Option<f64>,
    last_s: Option<f64>,
    rss_mb: Option<f64>,
}

async fn many(lab: &mut Lab, cases: &mut Cases<'_>) -> anyhow::Result<()> {
    let before = lab.probe(60).await?;
    let rss_mb = lab.cost().rss_mb.get(&crate::house::Role::Relay).copied();
    lab.kill_relay().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    lab.start_relay()?;
    let after = lab.probe(60).await?;
    let returned = Returned {
        agents: lab.agents(),
        before: before.len(),
        after: after.len(),
        first_s: after.first().copied(),
        median_s: after.get(after.len() / 2).copied(),
        last_s: after.last().copied(),
        rss_mb,
    };
    cases.add("returned", &returned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, took: u64, failed: bool) -> Sample {
        let failure = failed.then(|| "timeout".to_owned());
        Sample { at: Duration::from_millis(at), took: Duration::from_millis(took), failure }
    }

    #[test]
    fn recovery_ends_with_the_last_bad_request() {
        let mut samples = vec![sample(0, 50, false), sample(8_000, 6_000, false), sample(9_000, 10_000, true)];
        samples.extend([sample(13_500, 1_200, false), sample(14_000, 60, false), sample(30_000, 60, false)]);
        let recovery = recovery(&samples, Duration::from_secs(13), NORMAL);
        let expected =
            Recovery { sent: 6, failed: 1, slow: 2, recovered_s: 0.5, recovered: true, longest_gap_s: 30.06 - 14.7 };
        assert!((recovery.longest_gap_s - expected.longest_gap_s).abs() < 1e-9);
        assert_eq!(Recovery { longest_gap_s: expected.longest_gap_s, ..recovery }, expected);
    }

    #[test]
    fn who_was_never_disturbed_recovered_at_once_and_who_fails_to_the_end_never() {
        let good: Vec<_> = (0..100).map(|number| sample(number * 100, 50, false)).collect();
        let calm = recovery(&good, Duration::from_secs(5), NORMAL);
        assert!(calm.recovered && calm.recovered_s == 0.0 && calm.failed + calm.slow == 0);
        let bad: Vec<_> = (0..100).map(|number| sample(number * 100, 50, number > 50)).collect();
        assert!(!recovery(&bad, Duration::from_secs(5), NORMAL).recovered);
    }
}
