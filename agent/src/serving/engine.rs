//! A network that runs: its weights in memory, the queue in front of it, and its workers.
//!
//! Kept apart from the model, which is labels, preprocessing and a name around it: a model whose description has changed is a
//! new one over the same engine, and its weights are neither read again nor held twice. When the last who holds an engine
//! lets go of it, its queue is closed and its threads end after what they are running.

use std::sync::Arc;
use std::time::Duration;

use adit_vision::Network;

use super::batching::Batching;
use super::queue::{Queue, Refused};
use super::worker::{Job, Worker};
use crate::metrics::Metrics;

/// A running network.
#[derive(Debug)]
pub(super) struct Engine {
    network: Arc<dyn Network>,
    weight_bytes: usize,
    queue: Arc<Queue<Job>>,
    worker: Worker,
}

impl Engine {
    /// Starts the workers of a network whose weights take so many bytes. `name` is what its threads are called.
    pub(super) fn start(
        name: &str,
        network: Arc<dyn Network>,
        weight_bytes: usize,
        _batching: &Batching,
        queue: usize,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new(queue));
        let worker = Worker::start(name, network.clone(), queue.clone(), metrics)?;
        Ok(Self { network, weight_bytes, queue, worker })
    }

    /// The layers and their weights.
    pub(super) fn network(&self) -> &dyn Network {
        &*self.network
    }

    /// What its weights take in memory, however many workers share them.
    pub(super) const fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Puts a job into the queue; its number there.
    pub(super) fn submit(&self, job: Job) -> Result<u64, Refused> {
        let images = job.input.dim(0).unwrap_or(1);
        self.queue.push(job, images)
    }

    /// Takes a job out of the queue again, if it still is there.
    pub(super) fn withdraw(&self, number: u64) {
        drop(self.queue.remove(number));
    }

    /// Whether it answers: its workers live, and show progress at least every `patience` while they compute.
    pub(super) fn is_alive(&self, patience: Duration) -> bool {
        self.worker.is_alive(patience)
    }

    /// Runs by other options from now on; what waits and what runs is not lost.
    pub(super) fn set_batching(&self, _batching: &Batching) {}
}
