//! What is asked, and when.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Arguments of `adit-lab load`.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// The server
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) to: SocketAddr,
    /// Speak TLS, and trust who this file of certificates vouches for
    #[arg(long, value_name = "PEM")]
    pub(crate) ca: Option<PathBuf>,
    /// The name in the server's certificate
    #[arg(long, value_name = "NAME", default_value = "relay.test")]
    pub(crate) server_name: String,
    /// The host that is asked for, if not the name in the certificate
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Path and query
    #[arg(long, default_value = "/infer")]
    pub(crate) path: String,
    /// GET instead of POST, without a body
    #[arg(long)]
    pub(crate) get: bool,
    /// A header field that every request carries
    #[arg(long, value_name = "NAME:VALUE")]
    pub(crate) header: Vec<String>,
    /// Bytes of a request's body, which do not compress
    #[arg(long, default_value_t = 1024)]
    pub(crate) body: usize,
    /// Connections, each with one request at a time
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    /// Requests a second by a schedule; without it, each connection asks again once it was answered
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Even distances in the schedule instead of those of a Poisson process
    #[arg(long)]
    pub(crate) even: bool,
    /// How long to ask, after the warm-up
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Ask so many times instead, without a schedule
    #[arg(long)]
    pub(crate) requests: Option<usize>,
    /// Seconds at the start that do not count in the figures
    #[arg(long, default_value_t = 0.0)]
    pub(crate) warmup: f64,
    /// Seconds after which a request has failed
    #[arg(long, default_value_t = 30.0)]
    pub(crate) timeout: f64,
    /// Seconds after the end of the schedule after which what could not even be sent has failed
    #[arg(long, default_value_t = 5.0)]
    pub(crate) grace: f64,
    /// A new connection for each request
    #[arg(long)]
    pub(crate) fresh: bool,
    /// HTTP/2 instead of HTTP/1.1
    #[arg(long)]
    pub(crate) h2: bool,
    /// A WebSocket for each connection, on which messages of the body's size are echoed
    #[arg(long, conflicts_with_all = ["fresh", "h2", "get"])]
    pub(crate) websocket: bool,
    /// Send bodies at so many bytes a second
    #[arg(long, value_name = "BYTES_PER_SECOND")]
    pub(crate) slow_write: Option<u64>,
    /// Read answers at so many bytes a second
    #[arg(long, value_name = "BYTES_PER_SECOND")]
    pub(crate) slow_read: Option<u64>,
    /// Write a line for each request into this file: seconds from the start, milliseconds that it took, outcome
    #[arg(long, value_name = "CSV")]
    pub(crate) timeline: Option<PathBuf>,
    /// What schedule and body begin with
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
}

/// When what is asked should be asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pacing {
    /// At these times from the start on.
    Schedule(Vec<Duration>),
    /// Whenever a connection is free, so many times.
    Requests(usize),
    /// Whenever a connection is free, until then.
    Until(Duration),
}

impl LoadArgs {
    /// Bytes that no middlebox can compress, the same for the same seed.
    pub(super) fn content(&self) -> Vec<u8> {
        let mut content = vec![0; self.body];
        ChaCha8Rng::seed_from_u64(self.seed).fill(&mut content[..]);
        content
    }

    /// When to ask.
    pub(super) fn pacing(&self) -> anyhow::Result<Pacing> {
        ensure!(self.connections > 0, "without connections nothing can be asked");
        let times = [self.seconds, self.warmup, self.timeout, self.grace];
        ensure!(times.iter().all(|seconds| seconds.is_finite() && *seconds >= 0.0), "a time below zero makes no sense");
        let total = self.seconds + self.warmup;
        match (self.rate, self.requests) {
            (Some(_), Some(_)) => anyhow::bail!("--requests are asked without a schedule, so without --rate"),
            (None, Some(requests)) => Ok(Pacing::Requests(requests)),
            (None, None) => Ok(Pacing::Until(Duration::from_secs_f64(total))),
            (Some(rate), None) => {
                ensure!(rate.is_finite() && rate > 0.0, "a rate is above zero");
                let count = total * rate;
                ensure!(count < 1e8, "{count} requests are too many for one schedule");
                let schedule = schedule(rate, self.even, total, self.seed);
                schedule.context("the schedule is too long").map(Pacing::Schedule)
            }
        }
    }
}

fn schedule(rate: f64, even: bool, seconds: f64, seed: u64) -> anyhow::Result<Vec<Duration>> {
    // Another stream of chance than the body's.
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(1);
    let (mut at, mut times) = (0.0, Vec::new());
    while at < seconds {
        times.push(Duration::try_from_secs_f64(at)?);
        // Distances of a Poisson process are exponential; 1 - u keeps the logarithm finite.
        at += if even { 1.0 / rate } else { -(1.0 - random.random::<f64>()).ln() / rate };
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poisson_schedule_has_its_rate_and_its_spread() {
        let times = schedule(100.0, false, 1000.0, 3).unwrap();
        assert!((times.len() as f64 / 100_000.0 - 1.0).abs() < 0.02, "{}", times.len());
        let gaps: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let spread = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!(
            (spread / mean - 1.0).abs() < 0.02,
            "an exponential distribution is as wide as its mean: {spread}, {mean}"
        );
        assert_eq!(times, schedule(100.0, false, 1000.0, 3).unwrap(), "the same seed asks at the same times");
    }

    #[test]
    fn an_even_schedule_is_even() {
        let times = schedule(4.0, true, 1.0, 3).unwrap();
        assert_eq!(times, [0, 250, 500, 750].map(Duration::from_millis));
    }
}
