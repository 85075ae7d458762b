//! One request and its response on one stream.
//!
//! [`Caller`] is the relay's half, [`Callee`] the agent's. Cancellation is a drop: whoever drops its half resets the stream,
//! and at the other end the service's future is dropped in turn, down to the model's queue. No flag is passed.

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::Body;

use super::body::{TunnelBody, Upload};
use super::error::{ResetCode, TunnelError};
use super::fields;
use super::frame;
use super::opening::Opening;
use super::stream::{Incoming, Outgoing};

type BoxError = Box<dyn Error + Send + Sync>;

/// How much of a request had been handed to the tunnel when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Nothing: the agent cannot have seen it.
    Nothing,
    /// The head, and perhaps some of the body.
    Part,
    /// All of it.
    All,
}

/// Why an exchange has no answer.
#[derive(Debug, thiserror::Error)]
#[error("the exchange failed")]
pub struct CallError {
    /// What went wrong.
    #[source]
    pub error: TunnelError,
    /// How much the agent may have seen.
    pub sent: Sent,
}

/// An answer's head, with its body still to come.
#[derive(Debug)]
pub struct Answer {
    /// The response.
    pub response: Response<TunnelBody>,
    /// When the request's head had been handed to the tunnel.
    pub opened: Instant,
    /// When its last byte had been; `None` if the answer came before that.
    pub sent: Option<Instant>,
}

/// The asking half of an exchange; dropping it, or the future of its `send`, cancels the exchange.
#[derive(Debug)]
pub struct Caller {
    outgoing: Outgoing,
    incoming: Box<Incoming>,
}

impl Caller {
    pub(super) fn new((send, receive): (quinn::SendStream, quinn::RecvStream), max_fields: usize) -> Self {
        Self {
            outgoing: Outgoing::new(send, ResetCode::REQUEST_CANCELLED),
            incoming: Box::new(Incoming::new(receive, max_fields, ResetCode::REQUEST_CANCELLED)),
        }
    }

    /// Sends the request and waits for the answer's head. An agent may answer before it has read the whole body; the rest is
    /// then sent while the answer's body is polled.
    pub fn send<B>(self, request: Request<B>) -> impl Future<Output = Result<Answer, CallError>> + Send + use<B>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        // Encoded before anything is waited for, so that the future need not hold the head.
        let (head, mut body) = request.into_parts();
        let opening = Opening::of(Pin::new(&mut body), |out| fields::encode_request(&head, out));
        self.exchange(opening, body)
    }

    async fn exchange<B>(self, opening: Result<Opening, TunnelError>, mut body: B) -> Result<Answer, CallError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let Self { mut outgoing, mut incoming } = self;
        let opening = opening.map_err(|error| CallError { error, sent: Sent::Nothing })?;
        let more = opening.write(&mut outgoing).await.map_err(|error| CallError { error, sent: Sent::Part })?;
        let opened = Instant::now();

        let mut sent = None;
        let mut upload: Option<Upload> = None;
        if more {
            upload = Some(Box::pin(async move {
                write_rest(&mut outgoing, Pin::new(&mut body)).await?;
                Ok(Instant::now())
            }));
        } else {
            sent = Some(opened);
        }
        let mut failed = None;
        let response = {
            let mut answer = pin!(read_answer(&mut incoming));
            poll_fn(|context| {
                if let Some(running) = &mut upload
                    && let Poll::Ready(result) = running.as_mut().poll(context)
                {
                    upload = None;
                    match result {
                        Ok(at) => sent = Some(at),
                        // The agent has seen enough and is about to answer.
                        Err(TunnelError::Stopped(ResetCode::NO_ERROR)) => {}
                        Err(error) if failed.is_none() => failed = Some(error),
                        Err(_) => {}
                    }
                }
                match (failed.take(), answer.as_mut().poll(context)) {
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
        };
        let progress = if sent.is_some() { Sent::All } else { Sent::Part };
        let head = response.map_err(|error| CallError { error, sent: progress })?;
        let (parts, ()) = head.into_parts();
        let body = TunnelBody::new(incoming, &parts.headers, upload);
        Ok(Answer { response: Response::from_parts(parts, body), opened, sent })
    }
}

async fn read_answer(incoming: &mut Incoming) -> Result<Response<()>, TunnelError> {
    loop {
        let section = incoming.head().await?;
        let response = fields::decode_response(&section, incoming.max_fields())
            .inspect_err(|error| incoming.stop_with(error.code()))?;
        if !response.status().is_informational() {
            return Ok(response);
        }
        incoming.expect_another_head();
    }
}

/// The answering half of an exchange.
#[derive(Debug)]
pub struct Callee {
    outgoing: Outgoing,
    incoming: Box<Incoming>,
}

impl Callee {
    pub(super) fn new((send, receive): (quinn::SendStream, quinn::RecvStream), max_fields: usize) -> Self {
        Self {
            // Whoever drops it unanswered did not work on it.
            outgoing: Outgoing::new(send, ResetCode::REQUEST_REJECTED),
            incoming: Box::new(Incoming::new(receive, max_fields, ResetCode::NO_ERROR)),
        }
    }

    /// Reads the request's head, runs the service and writes its answer. The service's future, or the answer's body, is
    /// dropped as soon as the relay no longer wants it.
    pub async fn serve<F, A, B>(self, service: F) -> Result<(), TunnelError>
    where
        F: FnOnce(Request<TunnelBody>) -> A,
        A: Future<Output = Response<B>>,
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        // Boxed once it runs, so that whoever spawns it moves a pointer about and not all of its states.
        Box::pin(self.exchange(service)).await
    }

    async fn exchange<F, A, B>(self, service: F) -> Result<(), TunnelError>
    where
        F: FnOnce(Request<TunnelBody>) -> A,
        A: Future<Output = Response<B>>,
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let Self { mut outgoing, mut incoming } = self;
        let request = async {
            let section = incoming.head().await?;
            fields::decode_request(&section, incoming.max_fields())
        };
        let request = match request.await {
            Ok(request) => request,
            Err(error) => {
                outgoing.reset(error.code());
                incoming.stop_with(error.code());
                return Err(error);
            }
        };
        // From here on it is being worked on, and may not be sent to another agent as if it had not been.
        outgoing.reset_with(ResetCode::INTERNAL_ERROR);
        let (head, ()) = request.into_parts();
        let body = TunnelBody::new(incoming, &head.headers, None);
        let response = {
            let service = pin!(service(Request::from_parts(head, body)));
            while_wanted(service, || outgoing.unwanted()).await?
        };
        let written = write_response(&mut outgoing, response).await;
        if let Err(error) = &written {
            outgoing.reset(error.code());
        }
        written
    }
}

/// Waits for work that is of no use any more once the peer no longer wants it: then it is dropped.
///
/// The work is pinned by whoever asks: passed by value it would lie in the future twice, and a task is copied when spawned.
async fn while_wanted<W, U>(mut work: Pin<&mut W>, unwanted: impl FnOnce() -> U) -> Result<W::Output, TunnelError>
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

async fn write_response<B>(outgoing: &mut Outgoing, response: Response<B>) -> Result<(), TunnelError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (head, body) = response.into_parts();
    let mut body = pin!(body);
    let opening = Opening::of(body.as_mut(), |out| fields::encode_response(&head, out))?;
    if opening.write(outgoing).await? {
        let unwanted = outgoing.unwanted();
        // Boxed: most answers have no rest, and their tasks need no room for it.
        return Box::pin(async { while_wanted(pin!(write_rest(outgoing, body)), || unwanted).await? }).await;
    }
    Ok(())
}

async fn write_rest<B>(outgoing: &mut Outgoing, mut body: Pin<&mut B>) -> Result<(), TunnelError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut next = async || {
        let poll =
            poll_fn(|context| body.as_mut().poll_frame(context).map_err(|error| TunnelError::Body(error.into())));
        poll.await.transpose()
    };
    while let Some(next) = next().await? {
        match next.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => outgoing.write(&mut [frame::data_header(data.len()), data]).await?,
            Err(other) => {
                let mut out = BytesMut::new();
                let trailers = other.into_trailers().unwrap_or_default();
                frame::put_section(&mut out, |out| fields::encode_trailers(&trailers, out));
                outgoing.write(&mut [out.freeze()]).await?;
                break;
            }
        }
    }
    outgoing.finish();
    Ok(())
}
