//! One request and its response on one stream.
//!
//! [`Caller`] is the relay's half, [`Callee`] the agent's. Cancellation is a drop: whoever drops its half resets the stream,
//! and at the other end the service's future is dropped in turn, down to the model's queue. No flag is passed.

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::future::Either;
use http::{Request, Response};
use http_body::Body;

use super::body::{TunnelBody, Upload};
use super::credit::Credit;
use super::error::{ResetCode, TunnelError};
use super::fields;
use super::frame;
use super::opening::Opening;
use super::parity::Parity;
use super::stream::{Incoming, Outgoing};
use super::tcp;
use super::turns::Lane;
use super::waiting::{answered, while_wanted};

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
pub struct Caller(Asking);

#[derive(Debug)]
enum Asking {
    Quic { outgoing: Outgoing, incoming: Box<Incoming> },
    Tcp(tcp::Asking),
}

impl Caller {
    pub(super) fn over_quic(
        (send, receive): (quinn::SendStream, quinn::RecvStream),
        lane: &Arc<Lane>,
        parity: &Arc<Parity>,
        max_fields: usize,
        credit: Credit,
    ) -> Self {
        Self(Asking::Quic {
            outgoing: Outgoing::new(send, lane, parity, ResetCode::REQUEST_CANCELLED),
            incoming: Box::new(Incoming::new(receive, parity, max_fields, ResetCode::REQUEST_CANCELLED, Some(credit))),
        })
    }

    pub(super) const fn over_tcp(asking: tcp::Asking) -> Self {
        Self(Asking::Tcp(asking))
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
        match self.0 {
            Asking::Quic { mut outgoing, incoming } => {
                outgoing.belongs_to(&head.headers);
                let opening = Opening::of(Pin::new(&mut body), |out| fields::encode_request(&head, out));
                Either::Left(over_quic(outgoing, incoming, opening, body))
            }
            Asking::Tcp(asking) => {
                let begun = asking.begin(head, body.is_end_stream());
                // Boxed, for the other one's sake.
                Either::Right(Box::pin(over_tcp(begun, body)))
            }
        }
    }
}

async fn over_quic<B>(
    mut outgoing: Outgoing,
    mut incoming: Box<Incoming>,
    opening: Result<Opening, TunnelError>,
    mut body: B,
) -> Result<Answer, CallError>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
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
    let response = answered(pin!(read_answer(&mut incoming)), &mut upload, &mut sent).await;
    let head = response.map_err(|error| CallError { error, sent: progress(sent) })?;
    let (parts, ()) = head.into_parts();
    let body = TunnelBody::over_quic(incoming, &parts.headers, upload);
    Ok(Answer { response: Response::from_parts(parts, body), opened, sent })
}

async fn over_tcp<B>(begun: Result<tcp::Begun, TunnelError>, body: B) -> Result<Answer, CallError>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let begun = begun.map_err(|error| CallError { error, sent: Sent::Nothing })?;
    let opened = Instant::now();
    let (mut upload, answer) = begun.split(body);
    let mut sent = upload.is_none().then_some(opened);
    let response = answered(pin!(answer), &mut upload, &mut sent).await;
    let (parts, incoming) = response.map_err(|error| CallError { error, sent: progress(sent) })?;
    let body = TunnelBody::over_tcp(incoming, &parts.headers, upload);
    Ok(Answer { response: Response::from_parts(parts, body), opened, sent })
}

const fn progress(sent: Option<Instant>) -> Sent {
    if sent.is_some() { Sent::All } else { Sent::Part }
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
pub struct Callee(Asked);

#[derive(Debug)]
enum Asked {
    Quic { outgoing: Outgoing, incoming: Box<Incoming> },
    Tcp(Box<tcp::Asked>),
}

impl Callee {
    pub(super) fn over_quic(
        (send, receive): (quinn::SendStream, quinn::RecvStream),
        lane: &Arc<Lane>,
        parity: &Arc<Parity>,
        max_fields: usize,
    ) -> Self {
        Self(Asked::Quic {
            // Whoever drops it unanswered did not work on it.
            outgoing: Outgoing::new(send, lane, parity, ResetCode::REQUEST_REJECTED),
            incoming: Box::new(Incoming::new(receive, parity, max_fields, ResetCode::NO_ERROR, None)),
        })
    }

    pub(super) fn over_tcp(asked: tcp::Asked) -> Self {
        Self(Asked::Tcp(Box::new(asked)))
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
        match self.0 {
            Asked::Quic { outgoing, incoming } => Box::pin(serve_over_quic(outgoing, incoming, service)).await,
            Asked::Tcp(asked) => Box::pin(asked.serve(service)).await,
        }
    }
}

async fn serve_over_quic<F, A, B>(
    mut outgoing: Outgoing,
    mut incoming: Box<Incoming>,
    service: F,
) -> Result<(), TunnelError>
where
    F: FnOnce(Request<TunnelBody>) -> A,
    A: Future<Output = Response<B>>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
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
    outgoing.belongs_to(&head.headers);
    let body = TunnelBody::over_quic(incoming, &head.headers, None);
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
