//! The body of a request or response as it comes off a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::error::TunnelError;
use super::fields;
use super::frame::Piece;
use super::stream::Incoming;
use super::tcp;

/// The rest of an upload that was answered before it had ended.
pub(super) type Upload = Pin<Box<dyn Future<Output = Result<std::time::Instant, TunnelError>> + Send>>;

/// A body that is received as it is polled: not polling it makes the peer wait. Dropping it before its end cancels the exchange.
pub struct TunnelBody {
    source: Source,
    /// Bytes still to come, when the head said how many there are.
    left: Option<u64>,
    done: bool,
    upload: Option<Upload>,
}

/// What it comes off. Boxed, for bodies are passed on and on.
#[derive(Debug)]
enum Source {
    Quic(Box<Incoming>),
    Tcp(Box<tcp::Incoming>),
}

impl TunnelBody {
    pub(super) fn over_quic(incoming: Box<Incoming>, headers: &HeaderMap, upload: Option<Upload>) -> Self {
        Self::new(Source::Quic(incoming), headers, upload)
    }

    pub(super) fn over_tcp(incoming: tcp::Incoming, headers: &HeaderMap, upload: Option<Upload>) -> Self {
        Self::new(Source::Tcp(Box::new(incoming)), headers, upload)
    }

    fn new(source: Source, headers: &HeaderMap, upload: Option<Upload>) -> Self {
        let length = headers.get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Self { source, left: length, done: false, upload }
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

impl Source {
    /// The next piece or the trailers; `None` at the proper end.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, TunnelError>> {
        match self {
            Self::Quic(incoming) => Poll::Ready(Ok(match ready!(incoming.poll_piece(context))? {
                Some(Piece::Data(data)) => Some(Frame::data(data)),
                Some(Piece::Section(section)) => {
                    Some(Frame::trailers(fields::decode_trailers(&section, incoming.max_fields())?))
                }
                None => None,
            })),
            Self::Tcp(incoming) => incoming.poll_frame(context),
        }
    }

    fn is_ended(&self) -> bool {
        match self {
            Self::Quic(incoming) => incoming.is_ended(),
            Self::Tcp(incoming) => incoming.is_ended(),
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
        let frame = ready!(self.source.poll_frame(context)).transpose();
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        }
        self.done = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.source.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for TunnelBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = out.debug_struct("TunnelBody");
        text.field("source", &self.source).field("left", &self.left).field("uploading", &self.upload.is_some());
        text.finish_non_exhaustive()
    }
}
