//! Two waits that exchanges have in common, whatever they travel over.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use super::body::Upload;
use super::error::{ResetCode, TunnelError};

/// Waits for work that is of no use any more once the peer no longer wants it: then it is dropped.
///
/// The work is pinned by whoever asks: passed by value it would lie in the future twice, and a task is copied when spawned.
pub(super) async fn while_wanted<W, U>(
    mut work: Pin<&mut W>,
    unwanted: impl FnOnce() -> U,
) -> Result<W::Output, TunnelError>
where
    W: Future,
    U: Future<Output = TunnelError>,
{
    let mut end = pin!(None);
    // Asked for only once there is something to wait for: it costs several locks, and small answers are ready at once.
    let mut unwanted = Some(unwanted);
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Ok(done));
        }
        if let Some(unwanted) = unwanted.take() {
            end.set(Some(unwanted()));
        }
        match end.as_mut().as_pin_mut() {
            Some(end) => end.poll(context).map(Err),
            None => Poll::Pending,
        }
    })
    .await
}

/// Waits for an answer's head while the request's body is on its way. `upload` is gone once it has ended, and `sent` is when
/// it had all been sent.
pub(super) async fn answered<A>(
    mut answer: Pin<&mut impl Future<Output = Result<A, TunnelError>>>,
    upload: &mut Option<Upload>,
    sent: &mut Option<Instant>,
) -> Result<A, TunnelError> {
    let mut failed = None;
    poll_fn(|context| {
        if let Some(running) = upload
            && let Poll::Ready(result) = running.as_mut().poll(context)
        {
            *upload = None;
            match result {
                Ok(at) => *sent = Some(at),
                // The agent has seen enough and is about to answer.
                Err(TunnelError::Stopped(ResetCode::NO_ERROR)) => {}
                Err(error) if failed.is_none() => failed = Some(error),
                Err(_) => {}
            }
        }
        match (failed.take(), answer.as_mut().poll(context)) {
            // Over TCP giving up the one gives up the other, and why it was is known here.
            (Some(error @ TunnelError::Body(_)), Poll::Ready(Err(_))) => Poll::Ready(Err(error)),
            // What the agent says of its own failure is worth more than that it stopped listening.
            (_, Poll::Ready(answer)) => Poll::Ready(answer),
            (Some(error @ TunnelError::Stopped(_)), Poll::Pending) => {
                failed = Some(error);
                Poll::Pending
            }
            (Some(error), Poll::Pending) => Poll::Ready(Err(error)),
            (None, Poll::Pending) => Poll::Pending,
        }
    })
    .await
}
