//! A request's body on its way into the tunnel: counted, and its end noted.
//!
//! When a request's time is up, whether its body had ended tells whose fault it was.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::error::ProxyError;
use crate::metrics::Metrics;

/// Whether a body has been read to its end.
#[derive(Debug, Clone, Default)]
pub(super) struct Ended(Arc<AtomicBool>);

impl Ended {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request's body; without one, nothing.
#[derive(Debug)]
pub(super) struct Upload<B> {
    body: Option<B>,
    ended: Ended,
    metrics: Arc<Metrics>,
}

impl<B: Body> Upload<B> {
    pub(super) fn new(body: B, metrics: Arc<Metrics>) -> Self {
        let empty = body.is_end_stream();
        let ended = Ended(Arc::new(AtomicBool::new(empty)));
        Self { body: (!empty).then_some(body), ended, metrics }
    }

    /// The same of a request that has no body.
    pub(super) fn again(&self) -> Option<Self> {
        let (ended, metrics) = (self.ended.clone(), self.metrics.clone());
        self.body.is_none().then_some(Self { body: None, ended, metrics })
    }

    pub(super) fn ended(&self) -> Ended {
        self.ended.clone()
    }
}

impl<B: Body<Data = Bytes, Error = ProxyError> + Unpin> Body for Upload<B> {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        let over = frame.is_none() || body.is_end_stream();
        if let Some(Ok(frame)) = &frame {
            self.metrics.bytes_in.add(frame.data_ref().map_or(0, Bytes::len) as u64);
        }
        if over {
            self.ended.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
