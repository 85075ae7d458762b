//! The sending half of an exchange over TCP, guarded: dropped before it is done, it resets the stream.

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;
use http_body::Body;

use super::code::reason;
use super::fate::Fate;
use super::head::of_the_message;
use crate::tunnel::error::{ResetCode, TunnelError};
use crate::tunnel::turns::{Message, Part};
use crate::tunnel::waiting::while_wanted;

/// So much of the session's window is asked for at a time: what one stream has got of it is no longer there for others, though it waits
/// for its turn.
const PIECE: usize = 64 << 10;

/// Where a body is written.
#[derive(Debug)]
pub(super) struct Outgoing {
    stream: SendStream<Bytes>,
    fate: Arc<Fate>,
    message: Message,
    /// What the peer is told if this is dropped now; `None` once it is finished or reset.
    on_drop: Option<ResetCode>,
}

impl Outgoing {
    pub(super) const fn new(stream: SendStream<Bytes>, fate: Arc<Fate>, message: Message, on_drop: ResetCode) -> Self {
        Self { stream, fate, message, on_drop: Some(on_drop) }
    }

    /// Gives up with a code of the caller's.
    pub(super) fn reset(&mut self, code: ResetCode) {
        if self.on_drop.take().is_some() {
            self.stream.send_reset(reason(code));
        }
    }

    /// Sends the body's frames and its end, waiting for flow control and for turns as needed, as long as the peer wants them.
    pub(super) async fn write<B>(&mut self, mut body: Pin<&mut B>) -> Result<(), TunnelError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        loop {
            let next = poll_fn(|context| {
                if let Poll::Ready(frame) = body.as_mut().poll_frame(context) {
                    return Poll::Ready(frame.transpose().map_err(|error| TunnelError::Body(error.into())));
                }
                self.poll_unwanted(context).map(Err)
            });
            let Some(frame) = next.await? else {
                return self.data(Bytes::new(), true).await;
            };
            match frame.into_data() {
                Ok(data) => {
                    let last = body.is_end_stream();
                    if last || !data.is_empty() {
                        self.data(data, last).await?;
                    }
                    if last {
                        return Ok(());
                    }
                }
                Err(other) => return self.trailers(other.into_trailers().unwrap_or_default()),
            }
        }
    }

    async fn data(&mut self, mut data: Bytes, last: bool) -> Result<(), TunnelError> {
        while !data.is_empty() {
            // First that: a reader that stops stops nobody else.
            let room = self.room(data.len().min(PIECE)).await?.min(data.len());
            let part = self.part(room).await?;
            let piece = data.split_to(room.min(part.bytes as usize));
            let bytes = piece.len();
            // HTTP/2's streams have no priority of ours.
            let _ = self.message.sending(bytes);
            self.send(piece, last && data.is_empty())?;
            self.message.sent(part, bytes as u64);
            if data.is_empty() {
                return Ok(());
            }
        }
        self.send(data, last)
    }

    fn send(&mut self, data: Bytes, last: bool) -> Result<(), TunnelError> {
        self.stream.send_data(data, last).map_err(|error| self.fate.error(error, TunnelError::Stopped))?;
        if last {
            self.on_drop = None;
        }
        Ok(())
    }

    fn trailers(&mut self, trailers: HeaderMap) -> Result<(), TunnelError> {
        let sent = self.stream.send_trailers(of_the_message(trailers));
        sent.map_err(|error| self.fate.error(error, TunnelError::Stopped))?;
        self.on_drop = None;
        Ok(())
    }

    /// Which of so many bytes are next.
    async fn part(&mut self, wanted: usize) -> Result<Part, TunnelError> {
        let Self { stream, fate, message, .. } = self;
        let next = pin!(message.next(wanted as u64));
        while_wanted(next, || poll_fn(|context| poll_unwanted(stream, fate, context))).await
    }

    /// How many bytes may be sent, once that are any; `wanted` are to be.
    async fn room(&mut self, wanted: usize) -> Result<usize, TunnelError> {
        self.stream.reserve_capacity(wanted);
        loop {
            // What was given before is not told of again.
            let room = self.stream.capacity();
            if room > 0 {
                return Ok(room);
            }
            let given = poll_fn(|context| {
                if let Poll::Ready(given) = self.stream.poll_capacity(context) {
                    return Poll::Ready(Ok(given));
                }
                self.poll_unwanted(context).map(Err)
            });
            match given.await? {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(self.fate.error(error, TunnelError::Stopped)),
                None => return Err(poll_fn(|context| self.poll_unwanted(context)).await),
            }
        }
    }

    fn poll_unwanted(&mut self, context: &mut Context<'_>) -> Poll<TunnelError> {
        poll_unwanted(&mut self.stream, &self.fate, context)
    }
}

/// Resolves when the peer no longer wants what is sent here, or the session is lost.
fn poll_unwanted(stream: &mut SendStream<Bytes>, fate: &Fate, context: &mut Context<'_>) -> Poll<TunnelError> {
    Poll::Ready(match ready!(stream.poll_reset(context)) {
        Ok(reason) => fate.stopped(reason),
        Err(error) => fate.error(error, TunnelError::Stopped),
    })
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(code) = self.on_drop {
            self.reset(code);
        }
    }
}
