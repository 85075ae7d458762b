//! `[batching]` of a `model.toml`: how requests share a network.

use std::time::Duration;

use serde::Deserialize;

/// How requests share a network. The defaults measure and choose; each key fixes one choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Written")]
pub struct Batching {
    /// Images that are run together at most; 0, the default, finds out by measuring what pays. 1 switches batches off.
    pub max_batch: usize,
    /// How long a request may wait for company while a worker is free. 0, the default: a lone request never waits.
    pub max_delay: Duration,
    /// Workers, each a thread that runs a batch of its own; they share the weights. 0, the default, is one a core, and
    /// one alone on a GPU.
    pub instances: usize,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    max_batch: usize,
    #[serde(with = "adit_common::daemon::humane_duration")]
    max_delay: Duration,
    instances: usize,
}

/// Far more than any device gains from.
const MOST_IMAGES: usize = 1024;

/// Each is a thread at least.
const MOST_INSTANCES: usize = 256;

/// Longer than anybody waits for company.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

impl TryFrom<Written> for Batching {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { max_batch, max_delay, instances } = written;
        if max_batch > MOST_IMAGES {
            return Err(format!("`max_batch` is at most {MOST_IMAGES}"));
        }
        if instances > MOST_INSTANCES {
            return Err(format!("`instances` is at most {MOST_INSTANCES}"));
        }
        if max_delay > LONGEST_DELAY {
            return Err(format!("`max_delay` is at most {LONGEST_DELAY:?}"));
        }
        Ok(Self { max_batch, max_delay, instances })
    }
}
