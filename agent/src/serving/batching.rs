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
    /// Threads that the pass of a worker on a processor is shared out to, its own among them. 0, the default: those that run share
    /// the cores.
    pub threads: usize,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    max_batch: usize,
    #[serde(with = "adit_common::daemon::humane_duration")]
    max_delay: Duration,
    instances: usize,
    threads: usize,
}

/// Far more than any device gains from.
const MOST_IMAGES: usize = 1024;

/// Each is a thread at least.
const MOST_INSTANCES: usize = 256;

/// More than a pass has use for.
const MOST_THREADS: usize = 64;

/// Longer than anybody waits for company.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

impl TryFrom<Written> for Batching {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { max_batch, max_delay, instances, threads } = written;
        if max_batch > MOST_IMAGES {
            return Err(format!("`max_batch` is at most {MOST_IMAGES}"));
        }
        if instances > MOST_INSTANCES {
            return Err(format!("`instances` is at most {MOST_INSTANCES}"));
        }
        if threads > MOST_THREADS {
            return Err(format!("`threads` is at most {MOST_THREADS}"));
        }
        if max_delay > LONGEST_DELAY {
            return Err(format!("`max_delay` is at most {LONGEST_DELAY:?}"));
        }
        Ok(Self { max_batch, max_delay, instances, threads })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_machine_has_use_for_is_refused_by_name() {
        let read = |text: &str| toml::from_str::<Batching>(text).map_err(|error| error.to_string());
        let all = "max_batch = 8\nmax_delay = \"2ms\"\ninstances = 2\nthreads = 3";
        let max_delay = Duration::from_millis(2);
        assert_eq!(read(all), Ok(Batching { max_batch: 8, max_delay, instances: 2, threads: 3 }));
        for key in ["max_batch = 1025", "instances = 257", "threads = 65", "max_delay = \"11s\"", "thread = 1"] {
            let name = key.split(' ').next().unwrap_or_default();
            let error = read(key).unwrap_err();
            assert!(error.contains(&format!("`{name}`")), "{error}");
        }
    }
}
