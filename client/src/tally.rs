//! Counts what came of the questions.
//!
//! Nothing falls out of the account: a question that timed out enters the delays with its full deadline, and every other
//! failure is counted under its class.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use adit_common::timing::{Stage, Timing};

use crate::connection::Setup;
use crate::error::ClientError;
use crate::histogram::Distribution;
use crate::jitter::Jitter;
use crate::load::Sample;

/// Failures of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// What the first of them said.
    pub example: String,
}

/// What came of the questions so far.
#[derive(Debug)]
pub struct Tally {
    limit: Duration,
    window: Option<(Instant, Instant)>,
    /// Questions that were answered.
    pub ok: u64,
    /// The others, by class.
    pub failures: BTreeMap<String, Failures>,
    /// From when a question should have been sent to its last byte; time-outs with their deadline.
    pub delay: Distribution,
    /// From when it was sent to its last byte; time-outs with their deadline.
    pub service: Distribution,
    /// From when it should have been sent to when it was.
    pub late: Distribution,
    /// Of the answered ones, in the order of their answers.
    pub jitter: Jitter,
    /// Bytes of the questions that were answered.
    pub uploaded: u64,
    /// Delays of the answered ones without the relay's own time, where it was told.
    pub network: Distribution,
    /// The stages that were told.
    pub stages: Vec<(Stage, Distribution)>,
    /// What connections cost.
    pub setup: SetupTally,
}

/// What connections cost.
#[derive(Debug, Default)]
pub struct SetupTally {
    /// All of it.
    pub total: Distribution,
    /// Finding addresses.
    pub resolve: Distribution,
    /// TCP handshakes.
    pub tcp: Distribution,
    /// TLS handshakes.
    pub tls: Distribution,
    /// How many took up an earlier TLS session.
    pub resumed: u64,
}

impl Tally {
    /// Nothing yet, of questions that time out after `limit`.
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            window: None,
            ok: 0,
            failures: BTreeMap::new(),
            delay: Distribution::default(),
            service: Distribution::default(),
            late: Distribution::default(),
            jitter: Jitter::default(),
            uploaded: 0,
            network: Distribution::default(),
            stages: Stage::ALL.into_iter().map(|stage| (stage, Distribution::default())).collect(),
            setup: SetupTally::default(),
        }
    }

    /// Adds a connection that was opened.
    pub fn add_setup(&mut self, setup: Setup) {
        self.setup.total.add(setup.total());
        self.setup.resolve.add(setup.resolve);
        self.setup.tcp.add(setup.tcp);
        setup.tls.into_iter().for_each(|tls| self.setup.tls.add(tls));
        self.setup.resumed += u64::from(setup.resumed);
    }

    /// Adds a question that has ended; they come in the order in which they ended.
    pub fn add(&mut self, sample: Sample) {
        let Sample { intended, sent, done, setup, uploaded, outcome } = sample;
        let (first, last) = self.window.unwrap_or((intended, done));
        let first = first.min(intended);
        self.window = Some((first, last.max(done)));
        setup.into_iter().for_each(|setup| self.add_setup(setup));
        let late = sent.saturating_duration_since(intended);
        match outcome {
            Ok(timing) => {
                let service = done.saturating_duration_since(sent);
                self.ok += 1;
                self.uploaded += uploaded as u64;
                self.late.add(late);
                self.service.add(service);
                self.delay.add(late + service);
                // Any zero will do: only differences enter. The first to be answered need not be the first to be sent.
                let since = |at: Instant| {
                    Duration::from_secs(3600) + at.saturating_duration_since(first)
                        - first.saturating_duration_since(at).min(Duration::from_secs(3600))
                };
                self.jitter.add(since(intended), since(done));
                timing.into_iter().for_each(|timing| self.add_timing(&timing, service));
            }
            Err(error) => {
                if let ClientError::Timeout { .. } = error {
                    self.late.add(late);
                    self.service.add(self.limit);
                    self.delay.add(late + self.limit);
                }
                let example = || Failures { count: 0, example: error.to_string() };
                self.failures.entry(error.class()).or_insert_with(example).count += 1;
            }
        }
    }

    fn add_timing(&mut self, timing: &Timing, service: Duration) {
        self.network.add(service.saturating_sub(timing.total()));
        for (stage, distribution) in &mut self.stages {
            timing.stage(*stage).into_iter().for_each(|time| distribution.add(time));
        }
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().map(|failures| failures.count).sum()
    }

    /// From the first question to the last answer.
    pub fn window(&self) -> Duration {
        self.window.map_or(Duration::ZERO, |(first, last)| last.saturating_duration_since(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn sample(start: Instant, times: [u64; 3], outcome: Result<Option<Timing>, ClientError>) -> Sample {
        let [intended, sent, done] = times.map(|time| start + ms(time));
        Sample { intended, sent, done, setup: None, uploaded: 1000, outcome }
    }

    #[test]
    fn a_stall_is_seen_by_all_who_would_have_asked_during_it() {
        let (start, mut tally) = (Instant::now(), Tally::new(ms(30_000)));
        // One asker, a question every 10 ms; the first answer takes 100 ms, the rest 1 ms each.
        tally.add(sample(start, [0, 0, 100], Ok(None)));
        (1..10).for_each(|i| tally.add(sample(start, [i * 10, 99 + i, 100 + i], Ok(None))));
        assert!(tally.delay.quantile(0.5).unwrap().abs_diff(ms(55)) < Duration::from_micros(55), "to three digits");
        assert_eq!(tally.service.quantile(0.5), Some(ms(1)));
        assert_eq!(tally.window(), ms(109));
    }

    #[test]
    fn a_time_out_enters_with_its_deadline_and_other_failures_by_class() {
        let (start, mut tally) = (Instant::now(), Tally::new(ms(500)));
        tally.add(sample(start, [0, 20, 900], Err(ClientError::Timeout { limit: ms(500) })));
        let unavailable =
            || ClientError::Unavailable { message: "no live agent".into(), retry_after: Some("1".into()) };
        tally.add(sample(start, [0, 0, 1], Err(unavailable())));
        tally.add(sample(start, [0, 0, 1], Err(unavailable())));
        assert_eq!((tally.ok, tally.failed(), tally.delay.count()), (0, 3, 1));
        assert_eq!(tally.delay.max(), Some(ms(520)));
        assert_eq!(tally.service.max(), Some(ms(500)));
        assert_eq!(tally.failures["503"].count, 2);
        assert!(tally.failures["503"].example.contains("no live agent"));
        assert_eq!(tally.jitter.last(), None);
    }

    #[test]
    fn stages_and_network_share_the_service_time() {
        let (start, mut tally) = (Instant::now(), Tally::new(ms(500)));
        let timing = Timing::parse("forward;dur=6, other;dur=2, total;dur=8").unwrap();
        tally.add(sample(start, [0, 5, 15], Ok(Some(timing))));
        assert_eq!(tally.network.sum(), ms(2));
        let stages: Duration = tally.stages.iter().map(|(_, distribution)| distribution.sum()).sum();
        assert_eq!(stages, ms(8));
        assert_eq!(tally.late.sum(), ms(5));
    }

    #[test]
    fn jitter_is_that_of_the_delays_in_the_order_of_answers() {
        let (start, mut tally) = (Instant::now(), Tally::new(ms(500)));
        // The second question is answered first.
        tally.add(sample(start + ms(1000), [20, 20, 30], Ok(None)));
        tally.add(sample(start + ms(1000), [0, 0, 42], Ok(None)));
        let jitter = tally.jitter.mean_difference().unwrap();
        assert!(jitter.abs_diff(ms(32)) < Duration::from_micros(1), "{jitter:?}");
    }
}
