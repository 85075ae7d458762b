//! One live tunnel: requests are opened at the relay's end and accepted at the agent's.
//!
//! To HTTP/3 the relay is the client and the agent the server, whoever dialled. Each end opens one control stream with its
//! SETTINGS, and later a GOAWAY when it is about to leave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::congestion::{self, PathReport};
use super::error::{ResetCode, TunnelError};
use super::exchange::{Callee, Caller};
use super::frame::{self, kind};
use super::pulse::{BEAT, Beat, Counters, Pulse};

/// The kinds of unidirectional streams (RFC 9114, section 6.2; RFC 9204, section 4.2).
const STREAM_CONTROL: u64 = 0x0;
const STREAM_QPACK: [u64; 2] = [0x2, 0x3];

/// The setting that says how large a field section this end reads.
const SETTING_MAX_FIELD_SECTION_SIZE: u64 = 0x6;

/// The setting that says that an extended CONNECT is understood (RFC 9220).
const SETTING_ENABLE_CONNECT_PROTOCOL: u64 = 0x8;

/// The longest frame that a control stream may carry: a handful of settings.
const MAX_CONTROL_FRAME: u64 = 4 << 10;

/// What a word on the control stream may take of the path, in bytes, whatever is under way: two packets.
const WORD: u64 = 3000;

/// What one end takes from the other.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// The size of a field section, in bytes as RFC 9114 counts them. 64 KiB is what browsers and nginx allow at most.
    pub max_fields: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { max_fields: 64 << 10 }
    }
}

/// One live tunnel; clones are the same one.
#[derive(Debug, Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connection: Connection,
    limits: SessionLimits,
    leaving: CancellationToken,
    peer_leaving: CancellationToken,
    /// The same to ask for each exchange: a token's answer costs a lock.
    peer_left: AtomicBool,
    /// Exchanges begun, and whoever waits for the first of them.
    exchanges: AtomicU64,
    asleep: AtomicBool,
    used: Notify,
}

impl Session {
    /// A session over a connection whose handshake is complete. Nothing happens until [`Session::run`] is polled.
    pub fn new(connection: Connection, limits: SessionLimits) -> Self {
        let (leaving, peer_leaving) = (CancellationToken::new(), CancellationToken::new());
        Self {
            shared: Arc::new(Shared {
                connection,
                limits,
                leaving,
                peer_leaving,
                peer_left: AtomicBool::new(false),
                exchanges: AtomicU64::new(0),
                asleep: AtomicBool::new(false),
                used: Notify::new(),
            }),
        }
    }

    /// Drives the control streams until the session is over, and says why it is. Its owner polls it beside the exchanges.
    pub async fn run(&self) -> TunnelError {
        tokio::select! {
            error = self.control() => {
                self.close(error.code(), "the control stream failed");
                error
            }
            error = self.receive_control() => {
                if !self.is_closed() {
                    self.close(error.code(), "the peer broke the protocol");
                }
                error
            }
            error = self.closed() => error,
        }
    }

    /// Opens a request stream, now or never: when the peer's credit is used up another agent should be asked.
    pub fn open(&self) -> Result<Caller, TunnelError> {
        if self.shared.peer_left.load(Ordering::Relaxed) {
            return Err(TunnelError::GoingAway);
        }
        match self.shared.connection.open_bi().now_or_never() {
            Some(stream) => {
                self.is_used();
                Ok(Caller::new(stream?, self.shared.limits.max_fields))
            }
            None => Err(TunnelError::NoCredit),
        }
    }

    /// The next request stream; an error at the session's end.
    pub async fn accept(&self) -> Result<Callee, TunnelError> {
        let stream = self.shared.connection.accept_bi().await?;
        self.is_used();
        Ok(Callee::new(stream, self.shared.limits.max_fields))
    }

    /// Tells the peer, once, that this end is about to leave.
    pub fn goaway(&self) {
        self.shared.leaving.cancel();
    }

    /// Resolves when the peer said that it is about to leave.
    pub async fn peer_going_away(&self) {
        self.shared.peer_leaving.cancelled().await;
    }

    /// Ends the session at once, with what is in flight.
    pub fn close(&self, code: ResetCode, reason: &str) {
        self.shared.connection.close(code.to_wire(), reason.as_bytes());
    }

    /// Resolves when the session is over, with why it is.
    pub async fn closed(&self) -> TunnelError {
        self.shared.connection.closed().await.into()
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.shared.connection.close_reason().is_some()
    }

    /// Where the peer is, as far as this end can see.
    pub fn remote_address(&self) -> SocketAddr {
        self.shared.connection.remote_address()
    }

    /// The path's round-trip time, smoothed.
    pub fn rtt(&self) -> Duration {
        self.shared.connection.rtt()
    }

    /// What QUIC counts: packets, losses, windows, blocked frames.
    pub fn stats(&self) -> quinn::ConnectionStats {
        self.shared.connection.stats()
    }

    /// What our congestion control knows of the path; none where another is chosen.
    pub fn path(&self) -> Option<PathReport> {
        congestion::report(&self.shared.connection)
    }

    /// The connection beneath.
    pub fn connection(&self) -> &Connection {
        &self.shared.connection
    }

    /// Sends SETTINGS, and GOAWAY when it is time; returns only with an error.
    async fn control(&self) -> TunnelError {
        let stream = async {
            let mut stream = self.shared.connection.open_uni().await?;
            // Ahead of every body: a late GOAWAY costs requests.
            let _ = stream.set_priority(100);
            let mut out = BytesMut::new();
            frame::put_varint(STREAM_CONTROL, &mut out);
            let mut settings = BytesMut::new();
            frame::put_varint(SETTING_MAX_FIELD_SECTION_SIZE, &mut settings);
            frame::put_varint(self.shared.limits.max_fields as u64, &mut settings);
            frame::put_varint(SETTING_ENABLE_CONNECT_PROTOCOL, &mut settings);
            frame::put_varint(1, &mut settings);
            frame::put_header(kind::SETTINGS, settings.len() as u64, &mut out);
            out.extend_from_slice(&settings);
            stream.write_all(&out).await?;
            Ok::<SendStream, TunnelError>(stream)
        };
        let mut stream = match stream.await {
            Ok(stream) => stream,
            Err(error) => return error,
        };
        tokio::select! {
            () = self.shared.leaving.cancelled() => {}
            error = self.pulsate(&mut stream) => return error,
        }
        // The id says which requests were too late: none, as the peer is to finish what it has (RFC 9114, section 5.2).
        let mut id = BytesMut::new();
        frame::put_varint(if self.shared.connection.side().is_client() { (1 << 62) - 4 } else { 0 }, &mut id);
        let mut out = BytesMut::new();
        frame::put_header(kind::GOAWAY, id.len() as u64, &mut out);
        out.extend_from_slice(&id);
        if let Err(error) = stream.write_all(&out).await {
            return error.into();
        }
        // Kept open: closing a control stream is an error.
        let closed = self.closed().await;
        drop(stream);
        closed
    }

    fn is_used(&self) {
        self.shared.exchanges.fetch_add(1, Ordering::Relaxed);
        // Read first: this is done for each exchange.
        if self.shared.asleep.load(Ordering::Relaxed) && self.shared.asleep.swap(false, Ordering::Relaxed) {
            self.shared.used.notify_one();
        }
    }

    fn counters(&self) -> Counters {
        Counters {
            exchanges: self.shared.exchanges.load(Ordering::Relaxed),
            received: self.shared.connection.stats().udp_rx.datagrams,
        }
    }

    /// Says a word on the control stream whenever a tunnel that is in use has gone silent; returns only with an error.
    async fn pulsate(&self, stream: &mut SendStream) -> TunnelError {
        let connection = &self.shared.connection;
        let mut word = BytesMut::new();
        frame::put_header(kind::RESERVED, 0, &mut word);
        loop {
            self.shared.asleep.store(true, Ordering::Relaxed);
            self.shared.used.notified().await;
            let mut pulse = Pulse::new(self.counters());
            loop {
                tokio::time::sleep(BEAT.max(connection.rtt().mul_f64(1.5))).await;
                match pulse.beat(self.counters()) {
                    Beat::Rest => {}
                    Beat::Sleep => break,
                    Beat::Speak => {
                        congestion::let_pass(connection, WORD);
                        if let Err(error) = stream.write_all(&word).await {
                            return error.into();
                        }
                    }
                }
            }
        }
    }

    /// Reads the peer's unidirectional streams; returns only with an error.
    async fn receive_control(&self) -> TunnelError {
        let mut readers = FuturesUnordered::new();
        let mut control_seen = false;
        loop {
            let (mut stream, found) = tokio::select! {
                stream = self.shared.connection.accept_uni() => match stream {
                    Ok(stream) => { readers.push(stream_kind(stream).boxed()); continue }
                    Err(error) => return error.into(),
                },
                Some(next) = readers.next() => match next {
                    Ok(Some(found)) => found,
                    Ok(None) => continue,
                    Err(error) => return error,
                },
            };
            if found == STREAM_CONTROL {
                if std::mem::replace(&mut control_seen, true) {
                    return TunnelError::protocol(ResetCode::STREAM_CREATION_ERROR, "a second control stream");
                }
                readers.push(self.read_control(stream).map(Err).boxed());
            } else if STREAM_QPACK.contains(&found) {
                // Without a dynamic table there is nothing to read, yet the stream must stay open.
                readers.push(drain(stream).boxed());
            } else {
                let _ = stream.stop(ResetCode::STREAM_CREATION_ERROR.to_wire());
            }
        }
    }

    /// Reads the peer's control stream; returns only with an error.
    async fn read_control(&self, mut stream: RecvStream) -> TunnelError {
        let mut buffer = BytesMut::new();
        let mut settings_seen = false;
        loop {
            while let Some((found, length, header)) = frame::parse_header(&buffer) {
                if length > MAX_CONTROL_FRAME {
                    return TunnelError::protocol(ResetCode::EXCESSIVE_LOAD, "a control frame over the limit");
                }
                let whole = header + length as usize;
                if buffer.len() < whole {
                    break;
                }
                buffer.advance(whole);
                match (found, settings_seen) {
                    (kind::SETTINGS, false) => settings_seen = true,
                    (_, false) => {
                        return TunnelError::protocol(ResetCode::MISSING_SETTINGS, "a control stream without settings");
                    }
                    (kind::GOAWAY, true) => {
                        self.shared.peer_left.store(true, Ordering::Relaxed);
                        self.shared.peer_leaving.cancel();
                    }
                    (kind::SETTINGS | kind::DATA | kind::HEADERS | kind::PUSH_PROMISE, true) => {
                        return TunnelError::protocol(ResetCode::FRAME_UNEXPECTED, "a frame where it may not be");
                    }
                    _ => {}
                }
            }
            match stream.read_chunk(MAX_CONTROL_FRAME as usize, true).await {
                Ok(Some(chunk)) => buffer.extend_from_slice(&chunk.bytes),
                Ok(None) => {
                    return TunnelError::protocol(ResetCode::CLOSED_CRITICAL_STREAM, "the control stream ended");
                }
                Err(error) => return error.into(),
            }
        }
    }
}

/// A unidirectional stream with its kind; `None` if it ended before it said.
async fn stream_kind(mut stream: RecvStream) -> Result<Option<(RecvStream, u64)>, TunnelError> {
    let mut bytes = [0; 8];
    let mut length = 0;
    loop {
        if let Some((found, _)) = frame::get_varint(&bytes[..length]) {
            return Ok(Some((stream, found)));
        }
        // Byte by byte: what follows the kind belongs to whoever reads the stream.
        match stream.read(&mut bytes[length..=length]).await {
            Ok(Some(read)) => length += read,
            Ok(None) | Err(quinn::ReadError::Reset(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

async fn drain(mut stream: RecvStream) -> Result<Option<(RecvStream, u64)>, TunnelError> {
    let mut sink = [0; 256];
    loop {
        match stream.read(&mut sink).await {
            Ok(Some(_)) => {}
            Ok(None) | Err(quinn::ReadError::Reset(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}
