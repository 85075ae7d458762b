//! What a stream's reader keeps so that losses can be repaired.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::desk::Parity;
use super::repair::Repair;
use super::shelves::Shelf;
use crate::tunnel::error::{ResetCode, TunnelError};

/// One stream that is read. Bytes come in order until there is parity of a block that is not whole, and from then on as they arrive.
#[derive(Debug)]
pub(in crate::tunnel) struct Watch {
    desk: Arc<Parity>,
    stream: u64,
    shelf: Arc<Shelf>,
    repair: Repair,
    is_scattered: bool,
}

impl Watch {
    /// Of a stream of which nothing has been read.
    pub(super) fn new(desk: Arc<Parity>, stream: u64, shelf: Arc<Shelf>) -> Self {
        Self { desk, stream, shelf, repair: Repair::default(), is_scattered: false }
    }

    /// Whether bytes are taken in any order. quinn cannot return to the other way.
    pub(in crate::tunnel) const fn is_scattered(&self) -> bool {
        self.is_scattered
    }

    /// These bytes came in order. False if they are so many that the stream needs no watch any more.
    pub(in crate::tunnel) fn passed(&mut self, bytes: &[u8]) -> bool {
        self.repair.passed(bytes);
        self.repair.next() <= super::block::REACH
    }

    /// The next bytes in order have not arrived: whether to go on with whatever has. If not, parity wakes the reader.
    pub(in crate::tunnel) fn begins_to_scatter(&mut self, context: &Context<'_>) -> bool {
        let mut parts = self.shelf.take(context);
        parts.retain(|part| self.repair.wants(part));
        // Not even parity is kept without the right to use it.
        self.is_scattered = !parts.is_empty() && self.desk.may_scatter();
        if self.is_scattered {
            parts.iter().for_each(|part| self.repair.learn(part));
        }
        self.is_scattered
    }

    /// Reads on by `read`, which gives bytes in any order, with their offsets, or none at the end. None when all is read.
    pub(in crate::tunnel) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        mut read: impl FnMut(&mut Context<'_>) -> Poll<Result<Option<quinn::Chunk>, quinn::ReadError>>,
    ) -> Poll<Result<Option<Bytes>, TunnelError>> {
        loop {
            if let Some(bytes) = self.repair.take() {
                return Poll::Ready(Ok(Some(bytes)));
            }
            if self.repair.is_over() {
                return Poll::Ready(Ok(None));
            }
            match read(context)? {
                Poll::Ready(Some(chunk)) => self.repair.hold(chunk.offset, &chunk.bytes).map_err(|_| {
                    TunnelError::protocol(ResetCode::EXCESSIVE_LOAD, "parity of a stream that is long, or in crumbs")
                })?,
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Pending => {
                    self.shelf.take(context).iter().for_each(|part| self.repair.learn(part));
                    if !self.repair.repair() && !self.repair.is_over() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.desk.forget(self.stream, self.is_scattered.then(|| self.repair.repaired()));
    }
}
