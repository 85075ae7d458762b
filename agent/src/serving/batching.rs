//! `[batching]` of a `model.toml`: how requests share a network.

use std::time::Duration;

use serde::Deserialize;

/// How requests share a network. The defaults measure and choose; each key fixes one choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batching {
    /// Images that are run together at most; 0, the default, finds out by measuring what pays. 1 switches batches off.
    pub max_batch: usize,
    /// How long a request may wait for company while a worker is free. 0, the default: a lone request never waits.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub max_delay: Duration,
    /// Workers, each a thread that runs a batch of its own; they share the weights. 0, the default, is one a core.
    pub instances: usize,
}
