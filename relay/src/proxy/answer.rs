//! An answer's body on its way out of the tunnel: while it lasts, its request is in flight.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use adit_common::tunnel::{TunnelBody, TunnelError};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tracing::Span;

use super::admission::Permit;
use crate::fleet::agent::InFlight;
use crate::metrics::{Held, Metrics};

/// What a request holds until its answer has ended, for nothing but to be dropped then.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) _in_flight: InFlight,
    pub(super) _permit: Permit,
    pub(super) _held: Held,
}

/// An answer's body. Dropped before its end, it cancels the exchange.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    body: TunnelBody,
    holding: Option<Holding>,
    metrics: Arc<Metrics>,
    span: Span,
}

impl AnswerBody {
    /// `bodyless` for the answer to a `HEAD`, whose body nobody reads.
    pub(super) fn new(body: TunnelBody, holding: Holding, metrics: Arc<Metrics>, bodyless: bool) -> Self {
        let holding = (!bodyless).then_some(holding);
        Self { body, holding, metrics, span: Span::current() }
    }

    fn is_over(&self) -> bool {
        self.body.is_end_stream() || self.body.size_hint().exact() == Some(0)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = TunnelError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TunnelError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => self.metrics.bytes_out.add(frame.data_ref().map_or(0, Bytes::len) as u64),
            Some(Err(error)) => {
                self.metrics.broken.one();
                let _entered = self.span.enter();
                tracing::warn!(%error, "the answer broke off");
                drop(_entered);
                self.holding = None;
            }
            None => self.holding = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if self.holding.is_some() && !self.is_over() {
            self.metrics.cancelled.one();
            self.span.in_scope(|| tracing::debug!("the client gave up its answer"));
        }
    }
}
