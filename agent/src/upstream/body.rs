//! Bodies on their way to a server and back: passed on piece by piece as they come, neither copied nor kept.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::pool::{Line, Pool};
use crate::metrics::{Held, UpstreamMeter};

/// When a request's last byte had been handed on.
#[derive(Debug, Clone, Default)]
pub(super) struct Ended(Arc<OnceLock<Instant>>);

impl Ended {
    pub(super) fn at(&self) -> Option<Instant> {
        self.0.get().copied()
    }

    fn note(&self) {
        self.0.get_or_init(Instant::now);
    }
}

/// A request's body on its way to a server; its end is noted.
#[derive(Debug)]
pub(super) struct Given {
    /// What was read of it to see whether there is any.
    first: Option<Frame<Bytes>>,
    body: Option<Body>,
    ended: Ended,
}

impl Given {
    /// None.
    pub(super) fn nothing() -> Self {
        let given = Self { first: None, body: None, ended: Ended::default() };
        given.ended.note();
        given
    }

    /// This one, which may turn out to be none.
    pub(super) fn new(body: Body) -> Self {
        if http_body::Body::is_end_stream(&body) {
            return Self::nothing();
        }
        Self { first: None, body: Some(body), ended: Ended::default() }
    }

    /// This one, of which the first piece has been read.
    pub(super) fn begun(first: Frame<Bytes>, body: Body) -> Self {
        Self { first: Some(first), body: Some(body), ended: Ended::default() }
    }

    /// Whether there is none.
    pub(super) const fn is_nothing(&self) -> bool {
        self.body.is_none()
    }

    pub(super) fn ended(&self) -> Ended {
        self.ended.clone()
    }
}

impl http_body::Body for Given {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        // Of a body whose length was said, nobody asks for more than that.
        if frame.is_none() || body.is_end_stream() || body.size_hint().exact() == Some(0) {
            self.ended.note();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) if self.first.is_none() => body.size_hint(),
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// What a request holds until its answer has ended.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) meter: Arc<UpstreamMeter>,
    pub(super) _held: Held,
    pub(super) _place: OwnedSemaphorePermit,
}

/// A server's answer. Dropped before its end, it cancels the request there.
#[derive(Debug)]
pub(super) struct Answer {
    body: Incoming,
    under_way: Option<(Line, Holding)>,
    ended: Ended,
    pool: Arc<Pool>,
}

impl Answer {
    /// The body of an answer on a line, which goes back to the pool when both bodies have ended.
    pub(super) fn new(body: Incoming, line: Line, holding: Holding, ended: Ended, pool: Arc<Pool>) -> Self {
        let mut answer = Self { body, under_way: Some((line, holding)), ended, pool };
        if http_body::Body::is_end_stream(&answer.body) {
            answer.finish();
        }
        answer
    }

    fn finish(&mut self) {
        // A request that is answered before its end leaves the rest of it on the connection.
        if let Some((line, _)) = self.under_way.take()
            && self.ended.at().is_some()
        {
            self.pool.put(line);
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Err(error)) => {
                if let Some((_, holding)) = self.under_way.take() {
                    holding.meter.ended("cut");
                    tracing::warn!(%error, "a server behind the agent broke off its answer");
                }
            }
            None => self.finish(),
            Some(Ok(_)) if self.body.is_end_stream() => self.finish(),
            Some(Ok(_)) => {}
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
