//! Reads an agent's endless answer to `GET /.adit/manifest`, line by line.

use std::future::poll_fn;
use std::pin::Pin;

use adit_common::manifest::{MANIFEST_PATH, MAX_LINE, Report};
use adit_common::tunnel::{CallError, Session, TunnelBody, TunnelError};
use bytes::{Buf, Bytes, BytesMut};
use http::{Request, Uri};
use http_body::Body;
use http_body_util::Empty;

/// Why an agent's reports cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    #[error("the agent cannot be asked for its manifest")]
    Open(#[source] TunnelError),
    #[error("the agent cannot be asked for its manifest")]
    Ask(#[source] CallError),
    #[error("the agent answers {0} instead of its manifest")]
    Status(http::StatusCode),
    #[error("the agent's reports broke off")]
    Broken(#[source] TunnelError),
    #[error("a line of more than {MAX_LINE} bytes")]
    TooLong,
    #[error("a line that is no report")]
    Malformed(#[source] serde_json::Error),
}

/// The lines of one agent.
#[derive(Debug)]
pub(super) struct Reports {
    body: TunnelBody,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no end of line.
    searched: usize,
}

impl Reports {
    /// Asks for them: the first request on every session.
    pub(super) async fn open(session: &Session) -> Result<Self, ReportError> {
        let caller = session.open().map_err(ReportError::Open)?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = Uri::from_static(MANIFEST_PATH);
        let answer = caller.send(request).await.map_err(ReportError::Ask)?;
        let (head, body) = answer.response.into_parts();
        if !head.status.is_success() {
            return Err(ReportError::Status(head.status));
        }
        Ok(Self { body, buffer: BytesMut::new(), searched: 0 })
    }

    /// The next one; `None` when the agent ends them in order. Nothing is lost if the future is dropped and made again.
    pub(super) async fn next(&mut self) -> Result<Option<Report>, ReportError> {
        loop {
            if let Some(found) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let end = self.searched + found;
                self.searched = 0;
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return serde_json::from_slice(&line).map(Some).map_err(ReportError::Malformed);
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return Err(ReportError::TooLong);
            }
            match poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await {
                None => return Ok(None),
                Some(Err(error)) => return Err(ReportError::Broken(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
