//! The control stream over TCP: what HTTP/2 has no words for.
//!
//! HTTP/2's client, the relay, cannot say that it is about to leave, nor can either end say why it closes. So the relay's first
//! request is `POST /.adit/control`, both bodies of which last as long as the session. They carry frames as the control streams
//! over QUIC do: GOAWAY, and CLOSE with a code and a reason.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream};

use super::fate::Loss;
use crate::tunnel::error::{ResetCode, TunnelError};
use crate::tunnel::frame::{self, kind};

/// Where the relay asks for it.
pub(super) const CONTROL_PATH: &str = "/.adit/control";

/// The frame that ends a session: a varint, the code; and the reason, text.
const CLOSE: u64 = 0x41d;

/// The longest frame, as over QUIC.
const MAX_FRAME: u64 = 4 << 10;

/// The longest reason.
const MAX_REASON: usize = 256;

/// What a peer says on its control stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    Leaving,
    Close(ResetCode, Arc<str>),
}

/// Says that this end is about to leave.
pub(super) fn say_leaving(stream: &mut SendStream<Bytes>) {
    let mut out = BytesMut::new();
    frame::put_header(kind::GOAWAY, 1, &mut out);
    frame::put_varint(0, &mut out);
    // It fails if the session is over, and then there is nobody to tell.
    let _ = stream.send_data(out.freeze(), false);
}

/// Says why this end closes, and that nothing follows.
pub(super) fn say_close(stream: &mut SendStream<Bytes>, code: ResetCode, reason: &str) {
    let mut said = BytesMut::new();
    frame::put_varint(code.0, &mut said);
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    said.extend_from_slice(&reason.as_bytes()[..end]);
    let mut out = BytesMut::new();
    frame::put_header(CLOSE, said.len() as u64, &mut out);
    out.extend_from_slice(&said);
    let _ = stream.send_data(out.freeze(), true);
}

/// Reads the peer's words.
#[derive(Debug)]
pub(super) struct Words {
    stream: RecvStream,
    buffer: BytesMut,
}

impl Words {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next word; an error if the peer ends the stream or breaks the protocol. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Word, TunnelError> {
        loop {
            if let Some(word) = take(&mut self.buffer)? {
                return Ok(word);
            }
            match poll_fn(|context| self.stream.poll_data(context)).await {
                Some(Ok(data)) => {
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.buffer.extend_from_slice(&data);
                }
                Some(Err(error)) if !error.is_reset() => return Err(TunnelError::Lost(Loss::Broken(Arc::new(error)))),
                _ => {
                    let what = "the control stream ended";
                    return Err(TunnelError::protocol(ResetCode::CLOSED_CRITICAL_STREAM, what));
                }
            }
        }
    }
}

/// Takes a whole word out of what was read. Frames of other kinds are passed over.
fn take(buffer: &mut BytesMut) -> Result<Option<Word>, TunnelError> {
    while let Some((found, length, header)) = frame::parse_header(buffer) {
        if length > MAX_FRAME {
            return Err(TunnelError::protocol(ResetCode::EXCESSIVE_LOAD, "a control frame over the limit"));
        }
        if buffer.len() < header + length as usize {
            return Ok(None);
        }
        buffer.advance(header);
        let said = buffer.split_to(length as usize);
        match found {
            kind::GOAWAY => return Ok(Some(Word::Leaving)),
            CLOSE => {
                let wrong = || TunnelError::protocol(ResetCode::FRAME_ERROR, "a farewell without a code");
                let (code, length) = frame::get_varint(&said).ok_or_else(wrong)?;
                let reason = String::from_utf8_lossy(&said[length..]);
                return Ok(Some(Word::Close(
                    ResetCode(code),
                    reason.chars().take(MAX_REASON).collect::<String>().into(),
                )));
            }
            _ => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Word>, TunnelError> {
        let (mut buffer, mut words) = (BytesMut::new(), Vec::new());
        // However it comes in pieces.
        for byte in bytes {
            buffer.extend_from_slice(&[*byte]);
            words.extend(take(&mut buffer)?);
        }
        Ok(words)
    }

    #[test]
    fn words_are_read_as_docs_tunnel_md_has_them() {
        let close = b"\x44\x1d\x06\x41\x00done";
        let both = [&[7, 1, 0][..], b"\x21\x02xx", close].concat();
        let expected = [Word::Leaving, Word::Close(ResetCode::NO_ERROR, "done".into())];
        assert_eq!(read(&both).unwrap(), expected);
    }

    #[test]
    fn what_is_too_long_or_empty_is_an_error() {
        assert!(matches!(read(b"\x07\x80\x01\x00\x00"), Err(TunnelError::Protocol { .. })));
        assert!(matches!(read(b"\x44\x1d\x00"), Err(TunnelError::Protocol { .. })));
    }
}
