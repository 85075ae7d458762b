//! What a message begins with: its head, and with it what there is of its body, so that a small message is one packet.

use std::cell::RefCell;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::Body;

use super::error::TunnelError;
use super::fields;
use super::frame::{self, kind};
use super::stream::Outgoing;

/// Up to here a body is copied behind its head: one piece costs less than two.
const SMALL: usize = 256;

/// How much is allocated for heads at once.
const BLOCK: usize = 16 << 10;

thread_local! {
    /// What the next heads are written into. They are sent as slices of it: allocated one by one, they would be freed one by
    /// one too, by whichever thread acknowledges them. It lives as long as the last of its heads is not acknowledged.
    static HEADS: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(BLOCK));
}

/// The first bytes of a message, encoded.
#[derive(Debug)]
pub(super) struct Opening {
    /// The head, with the body if that is small or trailers alone.
    head: Bytes,
    /// The first of a larger body, its frame's header being in the head.
    data: Bytes,
    more: bool,
}

impl Opening {
    /// Encodes a head by `encode`, and takes what the body has at once.
    pub(super) fn of<B>(mut body: Pin<&mut B>, encode: impl FnOnce(&mut BytesMut)) -> Result<Self, TunnelError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let first = if body.is_end_stream() {
            Poll::Ready(None)
        } else {
            // Nobody is to be woken: what is not there yet is asked for again.
            body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop()))
        };
        let first = match first {
            Poll::Ready(first) => Some(first.transpose().map_err(|error| TunnelError::Body(error.into()))?),
            Poll::Pending => None,
        };
        HEADS.with_borrow_mut(|out| {
            frame::put_section(out, encode);
            let (mut data, mut more) = (Bytes::new(), false);
            match first.map(|first| first.map(http_body::Frame::into_data)) {
                None => more = true,
                Some(None) => {}
                Some(Some(Ok(some))) => {
                    more = !body.is_end_stream();
                    if !some.is_empty() {
                        frame::put_header(kind::DATA, some.len() as u64, out);
                    }
                    if some.len() <= SMALL {
                        out.extend_from_slice(&some);
                    } else {
                        data = some;
                    }
                }
                Some(Some(Err(other))) => {
                    let trailers = other.into_trailers().unwrap_or_default();
                    frame::put_section(out, |out| fields::encode_trailers(&trailers, out));
                }
            }
            Ok(Self { head: out.split().freeze(), data, more })
        })
    }

    /// Writes it; true if more of the body is to be written, else the message is finished.
    pub(super) async fn write(self, outgoing: &mut Outgoing) -> Result<bool, TunnelError> {
        let mut pieces = [self.head, self.data];
        let count = if pieces[1].is_empty() { 1 } else { 2 };
        outgoing.write(&mut pieces[..count]).await?;
        if !self.more {
            outgoing.finish();
        }
        Ok(self.more)
    }
}
