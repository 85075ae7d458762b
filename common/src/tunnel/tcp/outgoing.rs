//! The sending half of an exchange over TCP, guarded: dropped before it is done, it resets the stream.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
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

/// Where a body is written.
#[derive(Debug)]
pub(super) struct Outgoing {
    stream: SendStream<Bytes>,
    fate: Arc<Fate>,
    /// What the peer is told if this is dropped now; `None` once it is finished or reset.
    on_drop: Option<ResetCode>,
}

impl Outgoing {
    pub(super) const fn new(stream: SendStream<Bytes>, fate: Arc<Fate>, on_drop: ResetCode) -> Self {
        Self { stream, fate, on_drop: Some(on_drop) }
    }

    /// Gives up with a code of the caller's.
    pub(super) fn reset(&mut self, code: ResetCode) {
        if self.on_drop.take().is_some() {
            self.stream.send_reset(reason(code));
        }
    }

    /// Sends the body's frames and its end, waiting for flow control as needed, as long as the peer wants them.
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
            let room = self.room(data.len()).await?;
            let piece = data.split_to(room.min(data.len()));
            self.send(piece, last && data.is_empty())?;
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

    /// Resolves when the peer no longer wants what is sent here, or the session is lost.
    fn poll_unwanted(&mut self, context: &mut Context<'_>) -> Poll<TunnelError> {
        Poll::Ready(match ready!(self.stream.poll_reset(context)) {
            Ok(reason) => self.fate.stopped(reason),
            Err(error) => self.fate.error(error, TunnelError::Stopped),
        })
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(code) = self.on_drop {
            self.reset(code);
        }
    }
}
