//! One model as it is known over all agents: which have it, in which versions, and where it can be asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use adit_common::id::{Version, VersionLabel};
use adit_common::manifest::ModelState;

/// One version of a model on one agent.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) agent: u32,
    pub(super) version: Version,
    pub(super) state: ModelState,
    pub(super) labels: Vec<VersionLabel>,
}

/// Which version a path asks for.
#[derive(Debug)]
pub(super) enum Wanted {
    Any,
    Version(Version),
    Label(VersionLabel),
}

impl Wanted {
    pub(super) fn is(&self, instance: &Instance) -> bool {
        match self {
            Self::Any => true,
            Self::Version(version) => instance.version == *version,
            Self::Label(label) => instance.labels.contains(label),
        }
    }
}

/// One model, over all agents.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) instances: Vec<Instance>,
    /// Agents with a version that is ready.
    pub(super) ready: Arc<[u32]>,
    pub(super) by_version: HashMap<Version, Arc<[u32]>>,
    pub(super) by_label: HashMap<VersionLabel, Arc<[u32]>>,
    /// When the last agent that had it left.
    pub(super) gone: Option<Instant>,
}

impl Known {
    /// Every instance was added.
    pub(super) fn settle(&mut self) {
        let ready = |instance: &&Instance| instance.state == ModelState::Ready;
        let mut agents: Vec<u32> = self.instances.iter().filter(ready).map(|instance| instance.agent).collect();
        agents.dedup();
        self.ready = agents.into();
        let mut versions: HashMap<Version, Vec<u32>> = HashMap::new();
        let mut labels: HashMap<VersionLabel, Vec<u32>> = HashMap::new();
        for instance in self.instances.iter().filter(ready) {
            versions.entry(instance.version).or_default().push(instance.agent);
            for label in &instance.labels {
                labels.entry(label.clone()).or_default().push(instance.agent);
            }
        }
        self.by_version = versions.into_iter().map(|(version, agents)| (version, agents.into())).collect();
        self.by_label = labels.into_iter().map(|(label, agents)| (label, agents.into())).collect();
    }

    /// The agents that have it, in whatever state.
    pub(super) fn agents(&self) -> Arc<[u32]> {
        let mut agents: Vec<u32> = self.instances.iter().map(|instance| instance.agent).collect();
        agents.dedup();
        agents.into()
    }
}
