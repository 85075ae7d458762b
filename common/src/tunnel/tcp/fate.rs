//! How a session over TCP ended, known to all its exchanges.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use super::code::code;
use crate::tunnel::error::{ResetCode, TunnelError};

/// Why a session over TCP is over.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// This end closed it.
    #[error("closed by this end")]
    Local,
    /// The peer closed it, and said why.
    #[error("closed by the peer: {code}: {reason}")]
    Peer {
        /// NO_ERROR if in order.
        code: ResetCode,
        /// In the peer's words.
        reason: Arc<str>,
    },
    /// Nothing came from the peer for the idle time-out.
    #[error("timed out")]
    Silent,
    /// The connection broke, or the peer broke HTTP/2.
    #[error("the connection broke: {0}")]
    Broken(Arc<h2::Error>),
    /// The connection ended without a farewell.
    #[error("the connection ended without a farewell")]
    Ended,
}

/// Decided once.
#[derive(Debug, Default)]
pub(super) struct Fate {
    loss: OnceLock<Loss>,
    over: CancellationToken,
}

impl Fate {
    /// The first to say why decides.
    pub(super) fn seal(&self, loss: Loss) {
        // It fails if it was decided before.
        let _ = self.loss.set(loss);
        self.over.cancel();
    }

    /// Why the session is over; `None` as long as it is not.
    pub(super) fn get(&self) -> Option<&Loss> {
        self.loss.get()
    }

    /// Resolves when the session is over, with why it is.
    pub(super) async fn sealed(&self) -> Loss {
        self.over.cancelled().await;
        self.loss.get().cloned().unwrap_or(Loss::Ended)
    }

    /// What an error of a stream means: the session's end if it has one, else what the peer did to this stream; `reset` says
    /// which half it meant.
    pub(super) fn error(&self, error: h2::Error, reset: impl FnOnce(ResetCode) -> TunnelError) -> TunnelError {
        if let Some(loss) = self.loss.get() {
            return TunnelError::Lost(loss.clone());
        }
        match error.reason() {
            Some(reason) if error.is_reset() => reset(code(reason)),
            _ => TunnelError::Lost(Loss::Broken(Arc::new(error))),
        }
    }

    /// The same for a stream that was reset.
    pub(super) fn stopped(&self, reason: h2::Reason) -> TunnelError {
        match self.loss.get() {
            Some(loss) => TunnelError::Lost(loss.clone()),
            None => TunnelError::Stopped(code(reason)),
        }
    }
}
