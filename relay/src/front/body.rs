//! One body type for every front: a request's with its limits, and an answer's, be it an agent's or the relay's own.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_common::daemon::Shutdown;
use adit_common::socket::SocketBody;
use adit_common::tunnel::TunnelError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::{Kind, ProxyError};
use crate::proxy::AnswerBody;
use crate::proxy::call::Endless;

/// How long to read on when nobody wants the rest of a body: a client on a slow link has its answer by then.
const LINGER: Duration = Duration::from_secs(2);

/// What becomes of a body's unwanted rest on HTTP/2: it is read and forgotten for a moment, in a task of this scope.
///
/// Dropped at once, it would make HTTP/2 reset the stream right behind its answer, and curl for one, busy with its upload,
/// then sees the reset and not the answer.
#[derive(Debug)]
pub(super) struct Linger<B = Said> {
    scope: Shutdown,
    discard: fn(B, &Shutdown),
}

impl Linger {
    pub(super) fn new(scope: Shutdown) -> Self {
        Self { scope, discard }
    }
}

fn discard(mut body: Said, scope: &Shutdown) {
    // The runtime's own end drops bodies too, and then there is nobody left to read them.
    if tokio::runtime::Handle::try_current().is_ok() {
        scope.spawn("linger", async move {
            let read = async { while let Some(Ok(_)) = body.frame().await {} };
            tokio::time::timeout(LINGER, read).await
        });
    }
}

/// What a client sends: a body, or what it says through a socket.
#[derive(Debug)]
pub(super) enum Said {
    Body(Incoming),
    Socket(SocketBody),
}

impl Body for Said {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Body(body) => Pin::new(body).poll_frame(context),
            Self::Socket(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Body(body) => body.is_end_stream(),
            Self::Socket(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Body(body) => body.size_hint(),
            Self::Socket(_) => SizeHint::default(),
        }
    }
}

/// A request's body: at most so many bytes, and never silent for too long.
#[derive(Debug)]
pub(super) struct FrontBody<B = Said> {
    /// There until it is dropped.
    body: Option<B>,
    linger: Option<Linger<B>>,
    endless: Endless,
    limit: u64,
    left: u64,
    patience: Duration,
    /// Runs while nothing comes.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    over: bool,
}

impl<B: Body> FrontBody<B> {
    /// `endless` lifts both limits once it has begun.
    pub(super) fn new(body: B, limit: u64, patience: Duration, linger: Option<Linger<B>>, endless: Endless) -> Self {
        let linger = linger.filter(|_| !body.is_end_stream());
        let body = Some(body);
        Self { body, linger, endless, limit, left: limit, patience, timer: None, waiting: false, over: false }
    }

    /// Refuses what says itself that it is too long.
    pub(super) fn check(&self) -> Result<(), ProxyError> {
        if self.size_hint_of().lower() > self.limit { Err(too_large(self.limit)) } else { Ok(()) }
    }

    fn size_hint_of(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }

    fn is_ended(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.waiting, true) {
            let until = Instant::now() + self.patience;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(until),
                None => self.timer = Some(Box::pin(sleep_until(until))),
            }
        }
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        while timer.as_mut().poll(context).is_ready() {
            if !self.endless.has_begun() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(Instant::now() + self.patience);
        }
        Poll::Pending
    }
}

fn too_large(limit: u64) -> ProxyError {
    let limit = adit_common::daemon::format_bytes(limit);
    ProxyError::new(Kind::BodyTooLarge, format!("the request's body is larger than {limit}"))
}

impl<B> Body for FrontBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(context) else {
            if self.poll_silence(context).is_pending() {
                return Poll::Pending;
            }
            self.over = true;
            let message = format!("no byte of the request's body came for {:?}", self.patience);
            return Poll::Ready(Some(Err(ProxyError::new(Kind::BodyTimeout, message))));
        };
        self.waiting = false;
        if frame.is_none() || self.is_ended() {
            self.linger = None;
        }
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame =
            frame.map_err(|error| ProxyError::new(Kind::ClientGone, "the request's body broke off").because(error));
        let frame = frame.and_then(|frame| {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            if !self.endless.has_begun() {
                self.left = self.left.checked_sub(length).ok_or_else(|| too_large(self.limit))?;
            }
            Ok(frame)
        });
        self.over = frame.is_err();
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.size_hint_of()
    }
}

impl<B> Drop for FrontBody<B> {
    fn drop(&mut self) {
        if let (Some(body), Some(linger)) = (self.body.take(), self.linger.take()) {
            (linger.discard)(body, &linger.scope);
        }
    }
}

/// An answer's body.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly every answer is an agent's, and a box would cost each of them")]
pub(super) enum Reply {
    /// An agent's.
    Answer(AnswerBody),
    /// The relay's own, until it is taken.
    Own(Option<Bytes>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = TunnelError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TunnelError>>> {
        match &mut *self {
            Self::Answer(body) => Pin::new(body).poll_frame(context),
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Answer(body) => body.is_end_stream(),
            Self::Own(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Answer(body) => body.size_hint(),
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::{Full, StreamBody};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn chunks(count: usize) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        StreamBody::new(stream::iter((0..count).map(|_| Ok(Frame::data(Bytes::from_static(b"0123456789"))))))
    }

    #[tokio::test]
    async fn a_body_is_cut_at_its_limit_wherever_that_shows() {
        let said =
            FrontBody::new(Full::new(Bytes::from_static(b"0123456789A")), 10, PATIENCE, None, Endless::default())
                .check()
                .unwrap_err();
        assert_eq!(said.kind, Kind::BodyTooLarge);
        let whole =
            FrontBody::new(chunks(3), 30, PATIENCE, None, Endless::default()).collect().await.unwrap().to_bytes();
        assert_eq!(whole.len(), 30);
        let mut long = FrontBody::new(chunks(4), 30, PATIENCE, None, Endless::default());
        for _ in 0..3 {
            long.frame().await.unwrap().unwrap();
        }
        assert_eq!(long.frame().await.unwrap().unwrap_err().kind, Kind::BodyTooLarge);
        assert!(long.frame().await.is_none(), "after an error there is nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn patience_begins_anew_with_every_byte() {
        let slow = stream::unfold(0_u64, |count| async move {
            tokio::time::sleep(Duration::from_secs(if count < 3 { 20 } else { 31 })).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))), count + 1))
        });
        let mut body = FrontBody::new(StreamBody::new(Box::pin(slow)), 100, PATIENCE, None, Endless::default());
        for _ in 0..3 {
            assert!(body.frame().await.unwrap().is_ok());
        }
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!((error.kind, error.status().as_u16()), (Kind::BodyTimeout, 408));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_endless_may_be_long_and_silent() {
        let slow = stream::unfold((), |()| async {
            tokio::time::sleep(10 * PATIENCE).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"0123456789"))), ()))
        });
        let endless = Endless::default();
        let mut body = FrontBody::new(StreamBody::new(Box::pin(slow)), 15, PATIENCE, None, endless.clone());
        endless.begin();
        for _ in 0..3 {
            assert!(body.frame().await.unwrap().is_ok());
        }
    }
}
