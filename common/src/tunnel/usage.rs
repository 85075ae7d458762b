//! Whether a session is in use: how many exchanges were begun, and when the first is after a pause.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// Exchanges begun, and whoever waits for the first of them.
#[derive(Debug, Default)]
pub(super) struct Usage {
    exchanges: AtomicU64,
    asleep: AtomicBool,
    used: Notify,
}

impl Usage {
    /// An exchange begins.
    pub(super) fn count(&self) {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        // Read first: this is done for each exchange.
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.used.notify_one();
        }
    }

    /// How many have begun.
    pub(super) fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// Resolves when the next one begins. For one waiter.
    pub(super) async fn awoken(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        self.used.notified().await;
    }
}
