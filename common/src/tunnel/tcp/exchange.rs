//! One request and its response on one stream of HTTP/2.

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Request, Response, request};
use http_body::Body;

use super::code::reason;
use super::fate::Fate;
use super::head;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use crate::tunnel::body::{TunnelBody, Upload};
use crate::tunnel::credit::Credit;
use crate::tunnel::error::{ResetCode, TunnelError};
use crate::tunnel::turns::{Lane, Message};
use crate::tunnel::waiting::while_wanted;

type BoxError = Box<dyn Error + Send + Sync>;

/// The asking half before its request is sent.
#[derive(Debug)]
pub(in crate::tunnel) struct Asking {
    sender: SendRequest<Bytes>,
    fate: Arc<Fate>,
    lane: Arc<Lane>,
    credit: Credit,
}

/// A request whose head was sent.
#[derive(Debug)]
pub(in crate::tunnel) struct Begun {
    response: ResponseFuture,
    stream: Option<SendStream<Bytes>>,
    fate: Arc<Fate>,
    message: Message,
    credit: Credit,
}

impl Asking {
    pub(super) const fn new(sender: SendRequest<Bytes>, fate: Arc<Fate>, lane: Arc<Lane>, credit: Credit) -> Self {
        Self { sender, fate, lane, credit }
    }

    /// Sends a head; `ends` if there is no body.
    pub(in crate::tunnel) fn begin(mut self, head: request::Parts, ends: bool) -> Result<Begun, TunnelError> {
        let message = Message::of(&self.lane, &head.headers);
        let request = head::to_request(head)?;
        let sent = self.sender.send_request(request, ends);
        let (response, stream) = sent.map_err(|error| self.fate.error(error, TunnelError::Stopped))?;
        Ok(Begun { response, stream: (!ends).then_some(stream), fate: self.fate, message, credit: self.credit })
    }
}

impl Begun {
    /// The body's way to the peer, where there is one, and the answer's head with its body to come.
    pub(in crate::tunnel) fn split<B>(
        self,
        body: B,
    ) -> (Option<Upload>, impl Future<Output = Result<(http::response::Parts, Incoming), TunnelError>> + Send)
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let Self { response, stream, fate, message, credit } = self;
        let upload = stream.map(|stream| -> Upload {
            let outgoing = Outgoing::new(stream, fate.clone(), message, ResetCode::REQUEST_CANCELLED);
            let (mut outgoing, mut body) = (outgoing, body);
            Box::pin(async move {
                outgoing.write(Pin::new(&mut body)).await?;
                Ok(Instant::now())
            })
        });
        let answer = async move {
            let response = response.await.map_err(|error| fate.error(error, TunnelError::Reset))?;
            let (parts, stream) = response.into_parts();
            Ok((head::from_response(parts)?, Incoming::new(stream, fate, Some(credit))))
        };
        (upload, answer)
    }
}

/// The answering half; dropped unanswered, it says that nothing was done.
#[derive(Debug)]
pub(in crate::tunnel) struct Asked {
    request: Request<RecvStream>,
    lane: Arc<Lane>,
    responder: Responder,
}

impl Asked {
    pub(super) const fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        fate: Arc<Fate>,
        lane: Arc<Lane>,
    ) -> Self {
        let responder = Responder { respond, fate, on_drop: Some(ResetCode::REQUEST_REJECTED) };
        Self { request, lane, responder }
    }

    /// Runs the service and writes its answer, as long as the peer wants it.
    pub(in crate::tunnel) async fn serve<F, A, B>(self, service: F) -> Result<(), TunnelError>
    where
        F: FnOnce(Request<TunnelBody>) -> A,
        A: Future<Output = Response<B>>,
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let Self { request, lane, mut responder } = self;
        let (parts, stream) = request.into_parts();
        let parts = head::from_request(parts).inspect_err(|error| responder.on_drop = Some(error.code()))?;
        // From here on it is being worked on, and may not be sent to another agent as if it had not been.
        responder.on_drop = Some(ResetCode::INTERNAL_ERROR);
        let message = Message::of(&lane, &parts.headers);
        let incoming = Incoming::new(stream, responder.fate.clone(), None);
        let body = TunnelBody::over_tcp(incoming, &parts.headers, None);
        let response = {
            let service = pin!(service(Request::from_parts(parts, body)));
            while_wanted(service, || poll_fn(|context| responder.poll_unwanted(context))).await?
        };
        let (parts, body) = response.into_parts();
        let mut body = pin!(body);
        let Some(mut outgoing) = responder.begin(head::to_response(parts), body.is_end_stream(), message)? else {
            return Ok(());
        };
        let written = outgoing.write(body.as_mut()).await;
        if let Err(error) = &written {
            outgoing.reset(error.code());
        }
        written
    }
}

/// Where the answer's head goes.
#[derive(Debug)]
struct Responder {
    respond: SendResponse<Bytes>,
    fate: Arc<Fate>,
    /// What the peer is told if this is dropped now; `None` once the head is sent.
    on_drop: Option<ResetCode>,
}

impl Responder {
    /// Sends the head, and says where the body goes if there is one.
    fn begin(mut self, head: Response<()>, ends: bool, message: Message) -> Result<Option<Outgoing>, TunnelError> {
        let sent = self.respond.send_response(head, ends);
        let stream = sent.map_err(|error| self.fate.error(error, TunnelError::Stopped))?;
        self.on_drop = None;
        Ok((!ends).then(|| Outgoing::new(stream, self.fate.clone(), message, ResetCode::INTERNAL_ERROR)))
    }

    fn poll_unwanted(&mut self, context: &mut Context<'_>) -> Poll<TunnelError> {
        Poll::Ready(match ready!(self.respond.poll_reset(context)) {
            Ok(reason) => self.fate.stopped(reason),
            Err(error) => self.fate.error(error, TunnelError::Stopped),
        })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(code) = self.on_drop {
            self.respond.send_reset(reason(code));
        }
    }
}
