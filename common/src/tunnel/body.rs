//! The body of a request or response as it comes off a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::error::TunnelError;
use super::fields;
use super::frame::Piece;
use super::stream::Incoming;

/// The rest of an upload that was answered before it had ended.
pub(super) type Upload = Pin<Box<dyn Future<Output = Result<std::time::Instant, TunnelError>> + Send>>;

/// A body that is received as it is polled: not polling it makes the peer wait. Dropping it before its end cancels the exchange.
pub struct TunnelBody {
    /// Boxed, for bodies are passed on and on.
    incoming: Box<Incoming>,
    /// Bytes still to come, when the head said how many there are.
    left: Option<u64>,
    done: bool,
    upload: Option<Upload>,
}

impl TunnelBody {
    pub(super) fn new(incoming: Box<Incoming>, headers: &http::HeaderMap, upload: Option<Upload>) -> Self {
        let length = headers.get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Self { incoming, left: length, done: false, upload }
    }

    /// Goes on with an upload that was answered early. Its failure is the peer's to report in its answer.
    fn poll_upload(&mut self, context: &mut Context<'_>) {
        if let Some(upload) = &mut self.upload
            && upload.as_mut().poll(context).is_ready()
        {
            self.upload = None;
        }
    }
}

impl Body for TunnelBody {
    type Data = Bytes;
    type Error = TunnelError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TunnelError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        self.poll_upload(context);
        let frame = match ready!(self.incoming.poll_piece(context)) {
            Ok(Some(Piece::Data(data))) => {
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Some(Ok(Frame::data(data)))
            }
            Ok(Some(Piece::Section(section))) => {
                Some(fields::decode_trailers(&section, self.incoming.max_fields()).map(Frame::trailers))
            }
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        };
        self.done = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.incoming.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for TunnelBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = out.debug_struct("TunnelBody");
        text.field("incoming", &self.incoming).field("left", &self.left).field("uploading", &self.upload.is_some());
        text.finish_non_exhaustive()
    }
}
