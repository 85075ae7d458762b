//! The receiving half of an exchange over TCP.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::Frame;

use super::fate::Fate;
use super::head::of_the_message;
use crate::tunnel::credit::Credit;
use crate::tunnel::error::TunnelError;

/// What the peer sends on a stream. Dropped before its end, it resets the stream once nothing else holds it.
#[derive(Debug)]
pub(in crate::tunnel) struct Incoming {
    stream: RecvStream,
    fate: Arc<Fate>,
    /// The relay's: one more stream may be opened when this is over.
    _credit: Option<Credit>,
}

impl Incoming {
    pub(super) const fn new(stream: RecvStream, fate: Arc<Fate>, credit: Option<Credit>) -> Self {
        Self { stream, fate, _credit: credit }
    }

    /// The next piece or the trailers; `None` at the stream's proper end.
    pub(in crate::tunnel) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, TunnelError>> {
        while let Some(data) = ready!(self.stream.poll_data(context)) {
            let data = data.map_err(|error| self.fate.error(error, TunnelError::Reset))?;
            // Whoever takes it makes room for more; what nobody takes makes the peer wait. It fails if the stream is gone.
            let _ = self.stream.flow_control().release_capacity(data.len());
            // An empty piece says no more than that the end has come.
            if !data.is_empty() {
                return Poll::Ready(Ok(Some(Frame::data(data))));
            }
        }
        let trailers = ready!(self.stream.poll_trailers(context));
        let trailers = trailers.map_err(|error| self.fate.error(error, TunnelError::Reset))?;
        Poll::Ready(Ok(trailers.map(|trailers| Frame::trailers(of_the_message(trailers)))))
    }

    /// Whether all was read.
    pub(in crate::tunnel) fn is_ended(&self) -> bool {
        self.stream.is_end_stream()
    }
}
