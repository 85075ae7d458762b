//! That an end is about to leave: said once by each, heard by whoever asks.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// Both ends' intentions.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    own: CancellationToken,
    peer: CancellationToken,
    /// The same to ask for each exchange: a token's answer costs a lock.
    peer_left: AtomicBool,
}

impl Farewell {
    /// This end is about to leave.
    pub(super) fn say(&self) {
        self.own.cancel();
    }

    /// Resolves when this end is about to leave.
    pub(super) async fn said(&self) {
        self.own.cancelled().await;
    }

    /// The peer said that it is about to leave.
    pub(super) fn hear(&self) {
        self.peer_left.store(true, Ordering::Relaxed);
        self.peer.cancel();
    }

    /// Resolves when the peer said that it is about to leave.
    pub(super) async fn heard(&self) {
        self.peer.cancelled().await;
    }

    /// Whether the peer said so.
    pub(super) fn is_heard(&self) -> bool {
        self.peer_left.load(Ordering::Relaxed)
    }
}
