//! How far an inference has come, shared by its caller and its worker.
//!
//! Caller and worker race: one leaves while the other begins. A single atomic decides who was first, so that every inference
//! is counted once, as run or as left before it ran.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::AcqRel, Ordering::Acquire};

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const GONE: u8 = 2;

/// Where the caller found its inference when it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Not begun; it never will be.
    Waiting,
    /// Begun; it stops at the next layer, or its result is dropped.
    Running,
}

/// One inference's progress; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicU8>);

impl Progress {
    /// The worker begins; false if the caller has left.
    pub(super) fn begin(&self) -> bool {
        self.0.compare_exchange(WAITING, RUNNING, AcqRel, Acquire).is_ok()
    }

    /// The caller leaves.
    pub(super) fn leave(&self) -> Left {
        if self.0.swap(GONE, AcqRel) == WAITING { Left::Waiting } else { Left::Running }
    }

    /// Whether the caller has left: a load, cheap enough to ask between layers.
    pub(super) fn is_gone(&self) -> bool {
        self.0.load(Acquire) == GONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_first_decides() {
        let progress = Progress::default();
        assert!(progress.begin() && !progress.is_gone());
        assert_eq!(progress.clone().leave(), Left::Running);
        assert!(progress.is_gone());

        let progress = Progress::default();
        assert_eq!(progress.leave(), Left::Waiting);
        assert!(!progress.begin());
    }
}
