//! Requests over links that stay as they are.

use serde::Serialize;

use super::part::Cases;
use crate::house::{Lab, Link, Measured};
use crate::link::Seen;

/// The way that most scenarios share: 5 ms from client to relay, 20 ms from relay to agent, so a round trip takes 50 ms.
pub(super) const NEAR: &str = "both delay=5ms";
/// Link b of that way.
pub(super) const FAR: &str = "both delay=20ms";

/// Every stream is up, and every window has seen a request, before the clock starts.
const WARM: &str = "--connections 32 --requests 64 --body 1024 --timeout 20";

/// What is asked one after another, in the same tunnel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Steady {
    /// Link a.
    pub(super) near: String,
    /// Link b.
    pub(super) far: String,
    /// The loads.
    pub(super) loads: Vec<Load>,
}

/// One load.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Load {
    /// What its case is called.
    pub(super) case: String,
    /// What is asked for.
    pub(super) path: String,
    /// How, as arguments of `adit-lab load`.
    pub(super) words: String,
    /// What happens to link b before it.
    pub(super) before: Option<String>,
}

#[derive(Serialize)]
struct Figures {
    #[serde(flatten)]
    measured: Measured,
    /// What link b did meanwhile to what went to the agent.
    there: Seen,
    /// To what came back.
    back: Seen,
}

/// Sets the links of a lab, and has it asked a little.
pub(super) async fn ready(lab: &Lab, near: &str, far: &str) -> anyhow::Result<()> {
    lab.set(Link::A, near)?;
    lab.set(Link::B, far)?;
    lab.load("/infer", WARM).await.map(drop)
}

impl Steady {
    pub(super) async fn perform(&self, lab: &Lab, cases: &mut Cases<'_>) -> anyhow::Result<()> {
        ready(lab, &self.near, &self.far).await?;
        for load in self.loads.iter().filter(|load| lab.carries(&load.path)) {
            if let Some(line) = &load.before {
                lab.set(Link::B, line)?;
            }
            let before = lab.seen(Link::B)?;
            let measured = lab.load(&load.path, &load.words).await?;
            let after = lab.seen(Link::B)?;
            let (there, back) = (after.ab.since(&before.ab), after.ba.since(&before.ba));
            cases.add(&load.case, &Figures { measured, there, back })?;
        }
        Ok(())
    }
}
