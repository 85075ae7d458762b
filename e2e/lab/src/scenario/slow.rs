//! Clients that take their time, and what they cost the others.

use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;

use super::part::Cases;
use crate::house::{Cost, Lab, Measured};

/// Those who are looked at.
const NORMAL: &str = "--connections 32 --rate 20 --body 150000 --timeout 15 --seconds";

/// Sixteen who upload at 20 kB/s, and eight who read at 100 kB/s what they asked for at once.
const WRITERS: &str = "--connections 16 --body 400000 --slow-write 20000 --seconds 60 --timeout 90";
const READERS: &str = "--connections 8 --get --slow-read 100000 --seconds 60 --timeout 90";

/// The scenario.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slow {
    /// How long each of its loads takes.
    pub(super) seconds: u32,
}

#[derive(Serialize)]
struct Beside {
    #[serde(flatten)]
    measured: Measured,
    /// What the tunnel held before the slow ones came, megabytes.
    rss_before: f64,
    /// And with them.
    rss_after: f64,
}

impl Slow {
    pub(super) async fn perform(&self, lab: &Lab, cases: &mut Cases<'_>) -> anyhow::Result<()> {
        let normal = format!("{NORMAL} {}", self.seconds);
        cases.add("alone", &lab.load("/infer?us=10000", &format!("{normal} --warmup 1")).await?)?;
        let before = lab.cost();
        let mut slow = vec![lab.begin_load(0, "/infer", WRITERS)?];
        if lab.carries("/blob") {
            slow.push(lab.begin_load(0, "/blob?n=50000000", READERS)?);
        }
        // By then they hold all the windows that they are given.
        sleep(Duration::from_secs(3)).await;
        let measured = lab.load("/infer?us=10000", &normal).await?;
        let after = lab.cost();
        for running in slow {
            running.stop().await;
        }
        cases.add("beside", &Beside { measured, rss_before: tunnel(&before), rss_after: tunnel(&after) })?;
        if lab.carries("/ws") {
            let words = "--websocket --connections 8 --rate 200 --body 1024 --seconds 5 --timeout 5";
            cases.add("websocket", &lab.load("/ws", words).await?)?;
        }
        Ok(())
    }
}

/// Of relay and agent together.
fn tunnel(cost: &Cost) -> f64 {
    use crate::house::Role::{Agent, Relay};
    [Relay, Agent].iter().filter_map(|role| cost.rss_mb.get(role)).fold(0.0, |sum, megabytes| sum + megabytes)
}
