//! A body of which the beginning is read before it is known where it goes. What was read goes first.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;

use super::naming::{Finding, Reader};
use crate::error::ProxyError;

/// How much is read for the sake of a name. Names stand at the beginning: only forms may have a picture before it.
const LIMIT: usize = 1 << 20;

/// A body with its beginning.
#[derive(Debug)]
pub(super) struct Peeked<B> {
    read: VecDeque<Frame<Bytes>>,
    body: B,
}

impl<B> Peeked<B>
where
    B: Body<Data = Bytes, Error = ProxyError> + Unpin,
{
    /// Nothing of it is read.
    pub(super) fn untouched(body: B) -> Self {
        Self { read: VecDeque::new(), body }
    }

    /// Reads until the name is found or it is clear that there is none.
    pub(super) async fn look(&mut self, reader: &Reader<'_>) -> Result<Option<String>, ProxyError> {
        let mut seen = BytesMut::new();
        self.read.iter().filter_map(Frame::data_ref).for_each(|data| seen.extend_from_slice(data));
        loop {
            let whole = self.body.is_end_stream();
            match reader.look(&seen, whole || seen.len() > LIMIT) {
                Finding::Name(name) => return Ok(Some(name)),
                Finding::Nothing => return Ok(None),
                Finding::More => {}
            }
            let Some(frame) = self.body.frame().await.transpose()? else {
                return Ok(match reader.look(&seen, true) {
                    Finding::Name(name) => Some(name),
                    _ => None,
                });
            };
            if let Some(data) = frame.data_ref() {
                seen.extend_from_slice(data);
            }
            self.read.push_back(frame);
        }
    }
}

impl<B> Body for Peeked<B>
where
    B: Body<Data = Bytes, Error = ProxyError> + Unpin,
{
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        match self.read.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.iter().filter_map(Frame::data_ref).map(Bytes::len).sum::<usize>() as u64;
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + read);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + read);
        }
        hint
    }
}
