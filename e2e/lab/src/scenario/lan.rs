//! Nothing in the way: what a tunnel costs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;

use super::part::Cases;
use crate::house::{Cost, Lab, Measured, Role};

/// The scenario.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lan {
    /// How long each of its loads takes.
    pub(super) seconds: u32,
}

#[derive(Serialize)]
struct Memory {
    #[serde(flatten)]
    measured: Measured,
    /// Megabytes before.
    idle_mb: BTreeMap<Role, f64>,
    /// The most while a thousand requests were under way.
    peak_mb: BTreeMap<Role, f64>,
}

impl Lan {
    pub(super) async fn perform(&self, lab: &Lab, cases: &mut Cases<'_>) -> anyhow::Result<()> {
        let seconds = self.seconds;
        lab.load("/infer", "--connections 32 --requests 64").await?;
        let idle = lab.cost();
        for (name, body) in [("1k", 1024), ("150k", 150_000)] {
            for connections in [1, 32, 256] {
                // A thousand connections with large bodies measure the memory of the machine.
                if (name, connections) == ("150k", 256) {
                    continue;
                }
                let words = format!("--connections {connections} --body {body} --seconds {seconds} --warmup 0.5");
                cases.add(&format!("{name}_{connections}"), &lab.load("/infer", &words).await?)?;
            }
        }
        cases.add("100m_up", &lab.load("/infer", "--requests 4 --body 100000000 --timeout 60").await?)?;
        if lab.carries("/blob") {
            let path = "/blob?n=100000000";
            cases.add("100m_down", &lab.load(path, "--requests 4 --get --timeout 60").await?)?;
        }
        let fresh = format!("--connections 16 --fresh --seconds {seconds}");
        cases.add("fresh_16", &lab.load("/infer", &fresh).await?)?;
        cases.add("memory", &memory(lab, idle).await?)
    }
}

/// A thousand small requests at a time.
async fn memory(lab: &Lab, idle: Cost) -> anyhow::Result<Memory> {
    let words = "--connections 1000 --requests 1000 --body 1024 --timeout 30";
    let running = lab.begin_load(0, "/infer?us=4000000", words)?;
    let load = running.measured(lab);
    tokio::pin!(load);
    let mut peak_mb = BTreeMap::new();
    loop {
        for (role, megabytes) in lab.cost().rss_mb {
            let peak: &mut f64 = peak_mb.entry(role).or_default();
            *peak = peak.max(megabytes);
        }
        tokio::select! {
            measured = &mut load => return Ok(Memory { measured: measured?, idle_mb: idle.rss_mb, peak_mb }),
            () = sleep(Duration::from_millis(300)) => {}
        }
    }
}
