//! One request's input on its way through a queue and a pass, and what comes back.

use std::time::{Duration, Instant};

use adit_vision::{Heads, Tensor};
use tokio::sync::oneshot;
use tracing::Span;

use super::progress::Progress;
use super::request::Priority;
use crate::metrics::Queued;

/// One input that waits for a network.
#[derive(Debug)]
pub(super) struct Job {
    /// `[N, C, H, W]`, as the network takes it.
    pub(super) input: Tensor,
    /// How urgent it is.
    pub(super) priority: Priority,
    /// Until when the answer is of use.
    pub(super) deadline: Option<Instant>,
    /// Whether anybody still waits for it.
    pub(super) progress: Progress,
    /// Where the result goes.
    pub(super) reply: oneshot::Sender<Result<Ran, Lost>>,
    /// The request, for log lines.
    pub(super) span: Span,
    /// Its place in the load report.
    pub(super) queued: Queued,
}

impl Job {
    /// Its number of images.
    pub(super) fn images(&self) -> usize {
        self.input.dims().first().copied().unwrap_or(1)
    }

    /// It will not be run.
    pub(super) fn lose(self, why: Lost) {
        // Nobody may be there to hear it any more; the caller has counted that.
        let _ = self.reply.send(Err(why));
    }
}

/// A forward pass that was run.
#[derive(Debug)]
pub(super) struct Ran {
    /// What came out for this job's images.
    pub(super) heads: Heads,
    /// When a worker took it out of the queue.
    pub(super) begun: Instant,
    /// When the pass ended.
    pub(super) ended: Instant,
    /// Images in the pass: this job's and those of others.
    pub(super) batch: usize,
}

/// Why a job that was taken has no result.
#[derive(Debug, Clone)]
pub(super) enum Lost {
    /// It had to make room for a more urgent one.
    Displaced,
    /// Its deadline passed while it waited.
    Expired,
    /// The network failed.
    Failed {
        /// For the caller.
        reason: &'static str,
        /// For the log.
        detail: String,
    },
}

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no place.
    Full,
    /// It would take so long, and its deadline comes before.
    Late(Duration),
    /// Its deadline has passed.
    Expired,
    /// No worker is left to run it.
    Faulty(&'static str),
    /// The engine ends.
    Closed,
}
