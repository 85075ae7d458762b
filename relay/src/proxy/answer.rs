//! An answer's body on its way out of the tunnel: while it lasts, its request is in flight.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use adit_common::tunnel::{TunnelBody, TunnelError};
use bytes::Bytes;
use http::HeaderMap;
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

/// Where an answer's body comes from.
#[derive(Debug)]
enum Source {
    Tunnel(TunnelBody),
    /// The relay has it already, with its trailers.
    Whole(Option<Bytes>, Option<HeaderMap>),
}

/// An answer's body. Dropped before its end, it cancels the exchange.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    body: Source,
    holding: Option<Holding>,
    metrics: Arc<Metrics>,
    span: Span,
}

impl AnswerBody {
    /// `bodyless` for the answer to a `HEAD`, whose body nobody reads.
    pub(super) fn new(body: TunnelBody, holding: Holding, metrics: Arc<Metrics>, bodyless: bool) -> Self {
        let holding = (!bodyless).then_some(holding);
        Self { body: Source::Tunnel(body), holding, metrics, span: Span::current() }
    }

    /// What was made of the answers of all agents.
    pub(super) fn whole(body: Bytes, trailers: Option<HeaderMap>, metrics: Arc<Metrics>) -> Self {
        Self { body: Source::Whole(Some(body), trailers), holding: None, metrics, span: Span::current() }
    }

    fn is_over(&self) -> bool {
        self.is_end_stream() || self.size_hint().exact() == Some(0)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = TunnelError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TunnelError>>> {
        let frame = match &mut self.body {
            Source::Tunnel(body) => ready!(Pin::new(body).poll_frame(context)),
            Source::Whole(body, trailers) => match body.take() {
                Some(body) => Some(Ok(Frame::data(body))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            },
        };
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
        match &self.body {
            Source::Tunnel(body) => body.is_end_stream(),
            Source::Whole(body, trailers) => body.is_none() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Source::Tunnel(body) => body.size_hint(),
            Source::Whole(body, _) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
        }
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
