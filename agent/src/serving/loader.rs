//! Makes running models of plans: reads the weights, warms the network, starts its engine.
//!
//! It must not be felt by the models that serve. So it has one thread, which is also all of the pool that the network's own
//! parallel parts run in while they are warmed, and on Linux that thread is of low priority: it takes what nobody else wants
//! of one core. The workers are started from outside of it, because a thread inherits the priority of the one that starts it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::devices::Devices;
use super::engine::Engine;
use super::model::{Model, network};
use super::shelf::Plan;
use crate::error::AgentError;
use crate::metrics::Metrics;

/// Nicer than a worker by this much: some tenth of a core where the workers want all of it, and the whole where they do not.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// What loads.
#[derive(Debug)]
pub(super) struct Loader {
    pool: ThreadPool,
    queue: usize,
    devices: Arc<Devices>,
    metrics: Arc<Metrics>,
}

impl Loader {
    /// `queue` is how many images may wait for each model.
    pub(super) fn new(queue: usize, devices: Arc<Devices>, metrics: Arc<Metrics>) -> Result<Self, AgentError> {
        let pool =
            ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "loader".to_owned()).start_handler(|_| meek());
        let pool = pool.build().map_err(|error| AgentError::Config(format!("cannot start the loader: {error}")))?;
        Ok(Self { pool, queue, devices, metrics })
    }

    /// Reads and warms a version. Takes seconds. An error is the reason why it is unavailable.
    pub(super) fn open(&self, plan: &Plan) -> Result<Model, String> {
        // Weights may come from anywhere: what they break is their own version only.
        let load = || network(plan.version, &plan.kind, plan.origin, &self.devices);
        let made = catch_unwind(AssertUnwindSafe(|| self.pool.install(load)));
        let loaded = made.unwrap_or_else(|_| Err("reading it panicked: the log says where".to_owned()))?;
        let name = (&plan.name, plan.version);
        let engine = Engine::start(name, loaded, &plan.batching, self.queue, self.metrics.clone())
            .map_err(|error| format!("its threads cannot be started: {error}"))?;
        Self::over(Arc::new(engine), plan)
    }

    /// Another model over an engine that runs: no weights are read.
    pub(super) fn over(engine: Arc<Engine>, plan: &Plan) -> Result<Model, String> {
        let model = Model::over(&plan.name, plan.version, &plan.kind, plan.origin, &plan.batching, engine)?;
        model.engine().set_batching(&plan.batching);
        Ok(model)
    }
}

/// Lowers the priority of this thread; where that fails, loading is felt a little more.
fn meek() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "loading at normal priority");
    }
}
