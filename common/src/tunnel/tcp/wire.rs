//! The TLS connection beneath a session over TCP, with what passes counted.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsStream;

use crate::tunnel::turns::Turns;

/// The tunnel's protocol over TLS on TCP: HTTP/2 with the roles reversed, as the `ptth` drafts name it.
pub const TCP_ALPN: &[u8] = b"rh2";

/// Bytes that the kernel takes before it has sent those that it has: what waits there can no longer be overtaken by a small answer.
/// Enough to keep the socket busy until the session's task has its next turn.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;

/// Over how long the rate is taken by which writers are to follow.
const SPAN: Duration = Duration::from_millis(10);

/// Sets a socket up for a tunnel: nothing waits for an acknowledgement, little waits in the kernel, and a peer that acknowledges
/// nothing for `idle_timeout` is given up by the kernel itself.
pub fn prepare_tcp(socket: &TcpStream, idle_timeout: Duration) {
    // It fails on a dead socket only, and then the handshake says so.
    let _ = socket.set_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(socket);
        // Kernels without these work as they always did.
        let _ = socket.set_tcp_user_timeout(Some(idle_timeout));
        let _ = socket.set_tcp_notsent_lowat(UNSENT);
    }
}

/// What passed on a connection.
#[derive(Debug)]
pub(super) struct Meter {
    born: Instant,
    sent: AtomicU64,
    received: AtomicU64,
    /// When something came last, in milliseconds after the birth.
    heard: AtomicU64,
    /// The round-trip time in microseconds, smoothed; 0 before the first.
    rtt: AtomicU64,
}

impl Meter {
    fn new() -> Self {
        let count = || AtomicU64::new(0);
        Self { born: Instant::now(), sent: count(), received: count(), heard: count(), rtt: count() }
    }

    /// Bytes handed to TLS.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that came out of TLS.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// When something came last.
    pub(super) fn heard(&self) -> Instant {
        self.born + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    /// A ping came back.
    pub(super) fn measured(&self, rtt: Duration) {
        let rtt = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).max(1);
        let before = self.rtt.load(Ordering::Relaxed);
        // As RFC 9002 smooths: one in eight.
        let smooth = if before == 0 { rtt } else { before - before / 8 + rtt / 8 };
        self.rtt.store(smooth, Ordering::Relaxed);
    }

    /// The smoothed round-trip time; zero before the first ping came back.
    pub(super) fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt.load(Ordering::Relaxed))
    }
}

/// The connection; its meter can be read by others.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TlsStream<TcpStream>,
    meter: Arc<Meter>,
    /// Who writes next; told what has left.
    turns: Arc<Turns>,
    /// When the rate was last taken, and bytes since.
    began: Instant,
    since: u64,
}

impl Wire {
    pub(super) fn new(stream: TlsStream<TcpStream>, turns: Arc<Turns>) -> (Self, Arc<Meter>) {
        let meter = Arc::new(Meter::new());
        (Self { stream, meter: meter.clone(), turns, began: Instant::now(), since: 0 }, meter)
    }

    /// TLS took some of what there is to write, or takes nothing now.
    fn taken(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(written)) => {
                let bytes = written as u64;
                self.meter.sent.fetch_add(bytes, Ordering::Relaxed);
                self.since += bytes;
                let lasted = self.began.elapsed();
                let rate = (lasted >= SPAN).then(|| self.since as f64 / lasted.as_secs_f64());
                if rate.is_some() {
                    (self.began, self.since) = (Instant::now(), 0);
                }
                self.turns.taken(bytes, rate);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.turns.waits(true),
        }
        written
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        let read = into.filled().len() - before;
        if read > 0 {
            self.meter.received.fetch_add(read as u64, Ordering::Relaxed);
            let age = u64::try_from(self.meter.born.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.meter.heard.store(age, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.taken(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.taken(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.turns.waits(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
