//! Whether there is room for one more request.
//!
//! A request is refused here, before it has cost anything, rather than queued until its caller has gone.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Kind, ProxyError};

/// The right to have a request in flight; given back on drop.
pub(crate) type Permit = OwnedSemaphorePermit;

/// How many requests may be in flight.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    room: Arc<Semaphore>,
}

impl Admission {
    pub(crate) fn new(requests: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(requests)) }
    }

    /// A permit now, or 503.
    pub(crate) fn admit(&self) -> Result<Permit, ProxyError> {
        let permit = self.room.clone().try_acquire_owned();
        permit.map_err(|_| ProxyError::new(Kind::Overloaded, "the relay is at its limit of requests"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_makes_room() {
        let admission = Admission::new(1);
        let permit = admission.admit().unwrap();
        assert_eq!(admission.admit().unwrap_err().status().as_u16(), 503);
        drop(permit);
        assert!(admission.admit().is_ok());
    }
}
