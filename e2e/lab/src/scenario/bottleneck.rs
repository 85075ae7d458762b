//! Who gets how much of a narrow link, and how long packets wait in front of it.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};

use super::outage::{Recovery, recovery, timeline};
use super::part::Cases;
use super::steady::{NEAR, ready};
use crate::flow::Flows;
use crate::house::{Lab, Link, Measured, RELAY_IN, Room, Running};
use crate::load::quantile;

/// Uploads that take all that they get: together more than any window that they share with TCP.
const GREEDY: &str = "--body 150000 --timeout 60 --connections";

/// What the first seconds are like does not matter to who shares for hours.
const SETTLING: u32 = 5;

/// How often the queue is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Where flows of plain TCP listen, on the relay's side of link b.
const SINK_PORT: u16 = 5201;

/// Uploads beside plain TCP in the same direction.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fair {
    /// Link b.
    pub(super) far: String,
    /// How many flows.
    pub(super) flows: usize,
    /// Their congestion control.
    pub(super) congestion: &'static str,
    /// How long.
    pub(super) seconds: u32,
}

/// Uploads through two agents.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Share {
    /// Link b.
    pub(super) far: String,
    /// How long.
    pub(super) seconds: u32,
}

/// Uploads over a bottleneck that would queue for long.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Deep {
    /// Link b.
    pub(super) far: String,
    /// How long.
    pub(super) seconds: u32,
}

/// A rate that falls in mid-run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Narrowing {
    /// Link b, at first.
    pub(super) far: String,
    /// What is said to it when the rate falls.
    pub(super) narrow: String,
    /// Whether something takes all that it gets meanwhile.
    pub(super) greedy: bool,
}

/// How long packets waited in front of the bottleneck, of link b towards the agent.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Queue {
    queue_p50_ms: f64,
    queue_p95_ms: f64,
    queue_max_ms: f64,
    /// The mean wait in each look.
    queue_ms: Vec<f64>,
}

#[derive(Serialize)]
struct Shared {
    #[serde(flatten)]
    measured: Measured,
    #[serde(flatten)]
    queue: Queue,
    /// What the tunnel carried, of requests' bodies.
    tunnel_mbps: f64,
    /// What each flow carried.
    flows_mbps: Vec<f64>,
    /// The tunnel's part, over a flow's on average.
    ratio: f64,
}

#[derive(Serialize)]
struct Two {
    /// What each carried.
    tunnels_mbps: [f64; 2],
    /// The smaller over the larger.
    ratio: f64,
    failed: usize,
}

#[derive(Serialize)]
struct Filled {
    #[serde(flatten)]
    measured: Measured,
    #[serde(flatten)]
    queue: Queue,
}

#[derive(Serialize)]
struct Narrowed {
    #[serde(flatten)]
    recovery: Recovery,
    /// Of requests before the rate fell.
    p99_before_ms: f64,
    /// Of those that were sent 3 s after it fell, or later.
    p99_after_ms: f64,
}

/// Looks at the queue until a load has ended.
async fn watch(lab: &Lab, running: Running) -> anyhow::Result<(Measured, Queue)> {
    let load = running.measured(lab);
    tokio::pin!(load);
    let (mut before, mut waits, mut longest) = (lab.seen(Link::B)?.ab, Vec::new(), 0);
    loop {
        tokio::select! {
            measured = &mut load => return Ok((measured?, Queue::new(waits, longest))),
            () = sleep(LOOK) => {}
        }
        let seen = lab.seen(Link::B)?.ab;
        let now = seen.since(&before);
        // Nothing that arrived is nothing that waited, unless all of it still does.
        waits.push(now.queue_sum_us as f64 / now.delivered.max(1) as f64 / 1e3);
        (before, longest) = (seen, longest.max(now.queue_max_us));
    }
}

impl Queue {
    fn new(waits: Vec<f64>, longest_us: u64) -> Self {
        // The start is not what stands.
        let settled = (u64::from(SETTLING) * 1000 / LOOK.as_millis() as u64) as usize;
        let mut sorted = waits.get(settled..).unwrap_or_default().to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            queue_p50_ms: quantile(&sorted, 0.5),
            queue_p95_ms: quantile(&sorted, 0.95),
            queue_max_ms: longest_us as f64 / 1e3,
            queue_ms: waits,
        }
    }
}

/// Words of a greedy load with so many uploads at a time, of so many seconds that count.
fn greedy(uploads: u32, seconds: u32) -> String {
    format!("{GREEDY} {uploads} --seconds {seconds} --warmup {SETTLING}")
}

impl Fair {
    pub(super) async fn perform(&self, lab: &Lab, cases: &mut Cases<'_>) -> anyhow::Result<()> {
        ready(lab, NEAR, &self.far).await?;
        let to = format!("{RELAY_IN}:{SINK_PORT}");
        let sink = lab.begin_own(Room::Relay, &format!("sink --listen {to}"))?;
        sleep(Duration::from_millis(300)).await;
        // The flows are there first, and still there when the tunnel ends.
        let lead = 3;
        let flows = lab.begin_own(
            Room::Agent,
            &format!(
                "flow --to {to} --flows {} --congestion {} --seconds {} --skip {}",
                self.flows,
                self.congestion,
                lead + SETTLING + self.seconds,
                lead + SETTLING
            ),
        )?;
        sleep(Duration::from_secs(lead.into())).await;
        let (measured, queue) = watch(lab, lab.begin_load(0, "/infer", &greedy(8, self.seconds))?).await?;
        let flows: Flows = serde_json::from_str(&flows.output().await?)?;
        sink.stop().await;
        let tunnel_mbps = measured.report.up_mbps;
        let ratio = tunnel_mbps / (flows.total_mbps / self.flows as f64).max(1e-3);
        cases.add("shared", &Shared { measured, queue, tunnel_mbps, flows_mbps: flows.mean_mbps, ratio })
    }
}

impl Share {
    pub(super) async fn perform(&self, lab: &Lab, cases: &mut Cases<'_>) -> anyhow::Result<()> {
        ready(lab, NEAR, &self.far).await?;
        let words = greedy(8, self.seconds);
        let one = lab.begin_load(0, "/infer", &words)?;
        let other = lab.begin_load(1, "/infer", &words)?;
        let (one, other) = (one.measured(lab).await?.report, other.measured(lab).await?.report);
        let tunnels_mbps = [one.up_mbps, other.up_mbps];
        let ratio = tunnels_mbps[0].min(tunnels_mbps[1]) / tunnels_mbps[0].max(tunnels_mbps[1]).max(1e-3);
        cases.add("shared", &Two { tunnels_mbps, ratio, failed: one.failed + other.failed })
    }
}

impl Deep {
    pub(super) async fn perform(&self, lab: &Lab, cases: &mut Cases<'_>) -> anyhow::Result<()> {
        ready(lab, NEAR, &self.far).await?;
        // Twice what the buffer holds: only a window keeps it from being full.
        let (measured, queue) = watch(lab, lab.begin_load(0, "/infer", &greedy(32, self.seconds))?).await?;
        cases.add("filled", &Filled { measured, queue })
    }
}

impl Narrowing {
    pub(super) async fn perform(&self, lab: &mut Lab, cases: &mut Cases<'_>) -> anyhow::Result<()> {
        ready(lab, NEAR, &self.far).await?;
        let greedy = self.greedy.then(|| lab.begin_load(0, "/infer", "--body 1000000 --seconds 60 --timeout 60"));
        let greedy = greedy.transpose()?;
        let at = Duration::from_secs(10);
        let fall = async |lab: &mut Lab, start: Instant| {
            sleep_until(start + at).await;
            lab.set(Link::B, &self.narrow)
        };
        // Nearly three quarters of what is left of the link; a quarter where there is somebody to share it with.
        let rate = if self.greedy { 10 } else { 30 };
        let words = format!("--connections 64 --rate {rate} --body 15000 --seconds 30 --timeout 10 --grace 10");
        let samples = timeline(lab, &words, fall).await?;
        if let Some(greedy) = greedy {
            greedy.stop().await;
        }
        let p99 = |from: Duration, to: Duration| {
            let within =
                samples.iter().filter(|sample| sample.at >= from && sample.at < to && sample.failure.is_none());
            let mut took: Vec<_> = within.map(|sample| sample.took.as_secs_f64() * 1e3).collect();
            took.sort_by(f64::total_cmp);
            quantile(&took, 0.99)
        };
        let narrowed = Narrowed {
            recovery: recovery(&samples, at, Duration::from_millis(500)),
            p99_before_ms: p99(Duration::from_secs(1), at),
            p99_after_ms: p99(at + Duration::from_secs(3), Duration::MAX),
        };
        cases.add(if self.greedy { "beside bulk" } else { "alone" }, &narrowed)
    }
}
