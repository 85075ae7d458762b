//! The two halves of a QUIC stream, guarded: whoever drops one before it is done tells the peer so.
//!
//! quinn alone ends a dropped `SendStream` as if all had been sent, so half an upload would look like a whole one.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::HeaderMap;
use quinn::{RecvStream, SendStream};

use super::credit::Credit;
use super::error::{ResetCode, TunnelError};
use super::frame::{FrameReader, Piece};
use super::parity::{Cover, Parity, Watch};
use super::turns::{Lane, Message, Part};

/// The sending half: reset on drop unless finished.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// With what the peer is told if this is dropped now; `None` once it is finished or reset.
    stream: Option<(SendStream, ResetCode)>,
    message: Message,
    /// Where losses of what is sent here are to be repaired.
    cover: Option<Box<Cover>>,
}

impl Outgoing {
    pub(super) fn new(stream: SendStream, lane: &Arc<Lane>, parity: &Arc<Parity>, on_drop: ResetCode) -> Self {
        let (message, cover) = (Message::new(lane), parity.cover(stream.id()).map(Box::new));
        Self { stream: Some((stream, on_drop)), message, cover }
    }

    /// It belongs to a request with this head; before anything is written.
    pub(super) fn belongs_to(&mut self, request: &HeaderMap) {
        self.message.belongs_to(request);
    }

    /// Writes all chunks, waiting for turns and for flow control as needed.
    pub(super) async fn write(&mut self, chunks: &mut [Bytes]) -> Result<(), TunnelError> {
        let Self { stream, message, cover } = self;
        let (stream, _) = stream.as_mut().ok_or(quinn::WriteError::ClosedStream)?;
        loop {
            let left = chunks.iter().map(Bytes::len).sum::<usize>() as u64;
            if left == 0 {
                return Ok(());
            }
            let part = message.next(left).await;
            let (mut piece, count) = front(chunks, part.bytes);
            let piece = &mut piece[..count];
            let bytes = piece.iter().map(Bytes::len).sum();
            if let Some(priority) = message.sending(bytes) {
                // It fails only when the stream was stopped, as the write will.
                let _ = stream.set_priority(priority);
            }
            for bytes in &*piece {
                cover.take_if(|cover| !cover.add(bytes));
            }
            let mut writing = pin!(stream.write_all_chunks(piece));
            if let Some(written) = writing.as_mut().now_or_never() {
                written?;
                message.sent(part, bytes as u64);
            } else {
                // A reader that stops stops nobody else: what its writer waits for is no turn.
                drop(part);
                writing.await?;
                message.sent(Part::NONE, bytes as u64);
            }
        }
    }

    /// Says that all has been sent.
    pub(super) fn finish(&mut self) {
        // quinn's own drop finishes a stream, for one lock instead of two.
        self.stream = None;
        if let Some(cover) = self.cover.take() {
            cover.finish();
        }
    }

    /// What the peer is told from now on if this is dropped before it is finished.
    pub(super) const fn reset_with(&mut self, code: ResetCode) {
        if let Some((_, on_drop)) = &mut self.stream {
            *on_drop = code;
        }
    }

    /// Gives up with a code of the caller's.
    pub(super) fn reset(&mut self, code: ResetCode) {
        if let Some((mut stream, _)) = self.stream.take() {
            // It fails only when the stream was stopped, and then there is nobody to tell.
            let _ = stream.reset(code.to_wire());
        }
    }

    /// Resolves when the peer no longer wants what is sent here (its code) or the session is lost; never because all was
    /// received.
    pub(super) fn unwanted(&self) -> impl Future<Output = TunnelError> + Send + use<> {
        let stopped = self.stream.as_ref().map(|(stream, _)| stream.stopped());
        async move {
            let Some(stopped) = stopped else { return std::future::pending().await };
            match stopped.await {
                Ok(Some(code)) => TunnelError::Stopped(code.into()),
                Ok(None) => std::future::pending().await,
                Err(quinn::StoppedError::ConnectionLost(error)) => TunnelError::Closed(error),
                Err(_) => TunnelError::Stopped(ResetCode::INTERNAL_ERROR),
            }
        }
    }
}

/// Takes so many bytes off the front, in at most two pieces; how many pieces there are.
fn front(chunks: &mut [Bytes], bytes: u64) -> ([Bytes; 2], usize) {
    let (mut front, mut count, mut left) = ([Bytes::new(), Bytes::new()], 0, bytes as usize);
    for (chunk, piece) in chunks.iter_mut().filter(|chunk| !chunk.is_empty()).zip(&mut front) {
        *piece = chunk.split_to(chunk.len().min(left));
        left -= piece.len();
        count += usize::from(!piece.is_empty());
    }
    (front, count)
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some((_, code)) = self.stream {
            self.reset(code);
        }
    }
}

/// The receiving half with its frames taken apart: stopped on drop unless its end was read.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: RecvStream,
    frames: FrameReader,
    ended: bool,
    on_drop: ResetCode,
    /// Where the peer sends parity.
    watch: Option<Box<Watch>>,
    /// The relay's: one more stream may be opened when this is over.
    _credit: Option<Credit>,
}

impl Incoming {
    pub(super) fn new(
        stream: RecvStream,
        parity: &Arc<Parity>,
        max_fields: usize,
        on_drop: ResetCode,
        credit: Option<Credit>,
    ) -> Self {
        let (frames, watch) = (FrameReader::new(max_fields), parity.watch(stream.id()).map(Box::new));
        Self { stream, frames, ended: false, on_drop, watch, _credit: credit }
    }

    /// The next piece; `None` at a stream's proper end.
    pub(super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Piece>, TunnelError>> {
        loop {
            match self.frames.next() {
                Ok(Some(piece)) => return Poll::Ready(Ok(Some(piece))),
                Ok(None) if self.ended => return Poll::Ready(Ok(None)),
                Ok(None) => {}
                Err(error) => {
                    self.on_drop = error.code();
                    return Poll::Ready(Err(error));
                }
            }
            match ready!(self.poll_read(context)) {
                Ok(0) => {
                    self.ended = true;
                    if !self.frames.may_end() {
                        let cut =
                            TunnelError::protocol(ResetCode::REQUEST_INCOMPLETE, "a stream that ends within a message");
                        return Poll::Ready(Err(cut));
                    }
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Feeds in what has been received; 0 at the stream's end.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, TunnelError>> {
        if !self.is_scattered() {
            let read = self.poll_in_order(context);
            if read.is_ready() || !self.watch.as_mut().is_some_and(|watch| watch.begins_to_scatter(context)) {
                return read;
            }
        }
        let Self { stream, frames, watch: Some(watch), on_drop, .. } = self else { return Poll::Pending };
        let next = |context: &mut Context<'_>| pin!(stream.read_chunk(usize::MAX, false)).poll(context);
        let read = ready!(watch.poll_next(context, next));
        if let Err(TunnelError::Protocol { code, .. }) = &read {
            *on_drop = *code;
        }
        let bytes = read?.unwrap_or_default();
        frames.block().extend_from_slice(&bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_in_order(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, TunnelError>> {
        let Self { stream, frames, watch, .. } = self;
        if frames.keeps_packets() {
            // Nothing is lost when the future is dropped: it takes packets only when it is ready.
            let packets = frames.packets();
            let read = ready!(pin!(stream.read_chunks(packets)).poll(context))?;
            for packet in &*packets {
                watch.take_if(|watch| !watch.passed(packet));
            }
            return Poll::Ready(Ok(read.unwrap_or(0)));
        }
        let block = frames.block();
        let before = block.len();
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(stream), context, block)).map_err(read_error)?;
        watch.take_if(|watch| !watch.passed(&block[before..]));
        Poll::Ready(Ok(read))
    }

    /// Whether bytes come in any order.
    fn is_scattered(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.is_scattered())
    }

    /// The section that every message begins with.
    pub(super) async fn head(&mut self) -> Result<Bytes, TunnelError> {
        match poll_fn(|context| self.poll_piece(context)).await? {
            Some(Piece::Section(section)) => Ok(section),
            // invariant of FrameReader: no data before a head, no end before one.
            _ => Err(TunnelError::protocol(ResetCode::FRAME_UNEXPECTED, "a message without a head")),
        }
    }

    /// After a head of 1xx.
    pub(super) const fn expect_another_head(&mut self) {
        self.frames.expect_another_head();
    }

    /// How large a field section may be.
    pub(super) const fn max_fields(&self) -> usize {
        self.frames.max_section()
    }

    /// What the peer is told if this is dropped before its end.
    pub(super) const fn stop_with(&mut self, code: ResetCode) {
        self.on_drop = code;
    }

    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.stream.stop(self.on_drop.to_wire());
        } else if self.is_scattered() {
            // What was repaired is still on its way.
            let _ = self.stream.stop(ResetCode::NO_ERROR.to_wire());
        }
    }
}

/// quinn's `AsyncRead` wraps its own errors in IO errors: unwrap them.
fn read_error(error: std::io::Error) -> TunnelError {
    match error.downcast::<quinn::ReadError>() {
        Ok(error) => error.into(),
        Err(error) => error.into(),
    }
}
