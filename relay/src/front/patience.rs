//! A client's connection that waits only so long, ends without losing its last answer, and never says nothing.
//!
//! Three things that hyper leaves open:
//! - A client that takes no byte of its answer would hold memory and a stream for ever: a write that stands still fails.
//! - Closing a socket with unread bytes makes the kernel throw away what was just sent (RFC 9293, 3.10.4), so the 413 for a
//!   body that is still coming would be lost: after the last byte the rest is read and forgotten for a moment.
//! - A head that hyper cannot read is answered by hyper itself with a status and no body, and our clients' libraries want
//!   `{"error": ...}` always: such an answer is given one on its way out.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_common::id::RequestId;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::wire::Wire;

/// How long to read on after the last answer: a client on a slow link has it by then.
const LINGER: Duration = Duration::from_secs(2);

/// How much to read on: what 1 Gbit/s delivers meanwhile.
const LINGER_BYTES: usize = 256 << 20;

/// No answer of hyper's own is longer.
const OWN_ANSWER: usize = 512;

#[derive(Debug, Default)]
struct Counts {
    active: AtomicU32,
    begun: AtomicU32,
}

/// How many requests a connection has and had, shared with its service.
#[derive(Debug, Clone, Default)]
pub(super) struct Activity(Arc<Counts>);

impl Activity {
    /// One more, until the guard is dropped.
    pub(super) fn begin(&self) -> Active {
        self.0.active.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Active(self.clone())
    }

    /// How many there were; wraps.
    pub(super) fn begun(&self) -> u32 {
        self.0.begun.load(Ordering::Relaxed)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.0.active.load(Ordering::Relaxed) == 0
    }
}

/// One request of a connection.
#[derive(Debug)]
pub(super) struct Active(Activity);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Closing {
    No,
    Lingering(Pin<Box<Sleep>>, usize),
    Done,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Patient {
    stream: Wire,
    write_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    is_stalled: bool,
    closing: Closing,
    /// Of an HTTP/1 connection, whose answers can be told apart.
    http1: Option<Activity>,
    /// What goes out in place of an answer without a body.
    instead: Option<Bytes>,
}

impl Patient {
    pub(super) fn new(stream: Wire, write_timeout: Duration, http1: Option<Activity>) -> Self {
        let closing = Closing::No;
        Self { stream, write_timeout, stalled: None, is_stalled: false, closing, http1, instead: None }
    }

    /// Passes on what a write did, unless it has done nothing for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.is_stalled = false;
            return poll;
        }
        if !std::mem::replace(&mut self.is_stalled, true) {
            match &mut self.stalled {
                Some(timer) => timer.as_mut().reset(Instant::now() + self.write_timeout),
                None => self.stalled = Some(Box::pin(sleep(self.write_timeout))),
            }
        }
        let expired = self.stalled.as_mut().is_some_and(|timer| timer.as_mut().poll(context).is_ready());
        if expired {
            let reason = "the client takes nothing of its answer";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason)));
        }
        Poll::Pending
    }

    /// Writes what stands in for an answer of hyper's own.
    fn poll_instead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(bytes) = &mut self.instead {
            if bytes.is_empty() {
                self.instead = None;
                break;
            }
            let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
            if let Poll::Ready(Ok(written)) = &poll {
                bytes.advance(*written);
            }
            ready!(self.watch(context, poll))?;
        }
        Poll::Ready(Ok(()))
    }
}

/// What to send in place of an answer that hyper made itself: the same status, with a body that says why.
///
/// Such an answer is a whole head with a length of zero, and none of ours: those all carry a request id.
fn with_reason(written: &[u8]) -> Option<Bytes> {
    if written.len() > OWN_ANSWER || !written.starts_with(b"HTTP/1.1 4") || !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let head = std::str::from_utf8(written).ok()?;
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next()?;
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let is_own = !head.contains(RequestId::HEADER)
        && fields.any(|(name, value)| name.eq_ignore_ascii_case("content-length") && value.trim() == "0");
    let reason = match status.get(9..12)? {
        "400" => "the request is not well-formed HTTP",
        "414" => "the request's path is too long",
        "431" => "the request's head is too large or has too many fields",
        _ => return None,
    };
    let body = format!("{{\"error\":\"{reason}\"}}");
    is_own.then(|| {
        format!(
            "{status}\r\ncontent-type: application/json\r\n{}: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            RequestId::HEADER,
            RequestId::random(),
            body.len(),
        )
        .into()
    })
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_none() && self.http1.as_ref().is_some_and(Activity::is_idle) {
            self.instead = with_reason(bytes);
        }
        if self.instead.is_some() {
            ready!(self.poll_instead(context))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = slices {
            return self.poll_write(context, only);
        }
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(context))?;
        let poll = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.closing {
                Closing::No => {
                    let poll = Pin::new(&mut this.stream).poll_shutdown(context);
                    ready!(this.watch(context, poll))?;
                    this.closing = Closing::Lingering(Box::pin(sleep(LINGER)), LINGER_BYTES);
                }
                Closing::Lingering(timer, left) => {
                    if *left == 0 || timer.as_mut().poll(context).is_ready() {
                        this.closing = Closing::Done;
                        continue;
                    }
                    // Nobody wants these bytes, so they are not even decrypted.
                    let mut sink = [0; 16 << 10];
                    let mut sink = ReadBuf::new(&mut sink);
                    let read = ready!(Pin::new(this.stream.tcp()).poll_read(context, &mut sink));
                    match (read, sink.filled().len()) {
                        (Ok(()), 1..) => *left = left.saturating_sub(sink.filled().len()),
                        _ => this.closing = Closing::Done,
                    }
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_body_is_given_one() {
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\
                    date: Sat, 21 Nov 2026 05:47:00 GMT\r\n\r\n";
        let text = String::from_utf8(with_reason(own).unwrap().to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(body["error"].as_str().unwrap().contains("too large"));
    }

    #[test]
    fn an_answer_of_an_agents_is_left_as_it_is() {
        for text in [
            "HTTP/1.1 400 Bad Request\r\nx-request-id: 17\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nmore",
            "HTTP/1.1 4",
            "",
        ] {
            assert_eq!(with_reason(text.as_bytes()), None, "{text:?}");
        }
    }
}
