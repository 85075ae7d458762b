//! The control streams of a session over QUIC: SETTINGS at its beginning, GOAWAY when an end is about to leave.
//!
//! To HTTP/3 the relay is the client and the agent the server, whoever dialled.

use bytes::BytesMut;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use quinn::{Connection, RecvStream, SendStream};

use super::congestion;
use super::error::{ResetCode, TunnelError};
use super::farewell::Farewell;
use super::frame::{self, kind};
use super::parity::Parity;
use super::pulse::{Beat, Counters, Pulse};
use super::session::SessionLimits;
use super::throttle::{Pressure, Throttle};
use super::turns::Lane;
use super::urgency::Urgency;
use super::usage::Usage;

/// The kinds of unidirectional streams (RFC 9114, section 6.2; RFC 9204, section 4.2).
const STREAM_CONTROL: u64 = 0x0;
const STREAM_QPACK: [u64; 2] = [0x2, 0x3];

/// The setting that says how large a field section this end reads.
const SETTING_MAX_FIELD_SECTION_SIZE: u64 = 0x6;

/// The setting that says that an extended CONNECT is understood (RFC 9220).
const SETTING_ENABLE_CONNECT_PROTOCOL: u64 = 0x8;

/// Ours: that parity is of use to this end.
const SETTING_PARITY: u64 = 0x41f;

/// The longest frame that a control stream may carry: a handful of settings.
const MAX_CONTROL_FRAME: u64 = 4 << 10;

/// What a word on the control stream may take of the path, in bytes, whatever is under way: two packets.
const WORD: u64 = 3000;

/// Both control streams of one end.
#[derive(Debug)]
pub(super) struct Control<'a> {
    pub(super) connection: &'a Connection,
    pub(super) farewell: &'a Farewell,
    pub(super) usage: &'a Usage,
    pub(super) lane: &'a Lane,
    pub(super) parity: &'a Parity,
    pub(super) throttle: &'a Throttle,
    pub(super) limits: &'a SessionLimits,
}

impl Control<'_> {
    /// Drives them until the session is over, and says why it is.
    pub(super) async fn run(&self) -> TunnelError {
        tokio::select! {
            error = self.control() => {
                self.close(error.code(), "the control stream failed");
                error
            }
            error = self.receive_control() => {
                if self.connection.close_reason().is_none() {
                    self.close(error.code(), "the peer broke the protocol");
                }
                error
            }
            error = self.parity.run(self.connection) => error,
            error = self.connection.closed() => error.into(),
        }
    }

    fn close(&self, code: ResetCode, reason: &str) {
        self.connection.close(code.to_wire(), reason.as_bytes());
    }

    /// Sends SETTINGS, and GOAWAY when it is time; returns only with an error.
    async fn control(&self) -> TunnelError {
        let stream = async {
            let mut stream = self.connection.open_uni().await?;
            // Ahead of every body: a late GOAWAY costs requests.
            let _ = stream.set_priority(Urgency::CONTROL);
            let mut out = BytesMut::new();
            frame::put_varint(STREAM_CONTROL, &mut out);
            let mut settings = BytesMut::new();
            frame::put_varint(SETTING_MAX_FIELD_SECTION_SIZE, &mut settings);
            frame::put_varint(self.limits.max_fields as u64, &mut settings);
            frame::put_varint(SETTING_ENABLE_CONNECT_PROTOCOL, &mut settings);
            frame::put_varint(1, &mut settings);
            if self.limits.parity {
                frame::put_varint(SETTING_PARITY, &mut settings);
                frame::put_varint(1, &mut settings);
            }
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
            () = self.farewell.said() => {}
            error = self.pulsate(&mut stream) => return error,
        }
        // The id says which requests were too late: none, as the peer is to finish what it has (RFC 9114, section 5.2).
        let mut id = BytesMut::new();
        frame::put_varint(if self.connection.side().is_client() { (1 << 62) - 4 } else { 0 }, &mut id);
        let mut out = BytesMut::new();
        frame::put_header(kind::GOAWAY, id.len() as u64, &mut out);
        out.extend_from_slice(&id);
        if let Err(error) = stream.write_all(&out).await {
            return error.into();
        }
        // Kept open, for closing a control stream is an error; and what was asked before may still be under way.
        self.pulsate(&mut stream).await
    }

    fn counters(&self) -> Counters {
        let received = self.connection.stats().udp_rx.datagrams;
        Counters { exchanges: self.usage.exchanges(), received, newest: congestion::newest(self.connection) }
    }

    /// Says a word on the control stream whenever nothing that was sent arrives in a tunnel that is in use, and another one when
    /// somebody limits what is sent; returns only with an error.
    async fn pulsate(&self, stream: &mut SendStream) -> TunnelError {
        let word = |kind| {
            let mut word = BytesMut::new();
            frame::put_header(kind, 0, &mut word);
            word
        };
        let (nothing, limited, mut pressure) = (word(kind::RESERVED), word(kind::LIMITED), Pressure::default());
        loop {
            let mut pulse = Pulse::new(self.counters());
            loop {
                let pause = pulse.pause(self.connection.rtt());
                tokio::time::sleep(pause).await;
                match pulse.beat(self.counters(), pause) {
                    Beat::Rest => {}
                    Beat::Sleep => break,
                    Beat::Speak => {
                        congestion::let_pass(self.connection, WORD);
                        if let Err(error) = stream.write_all(&nothing).await {
                            return error.into();
                        }
                    }
                }
                self.parity.set_path(congestion::noise(self.connection), &self.connection.stats().path);
                if pressure.passed(pause, self.lane.was_pressed(), congestion::policed(self.connection)) {
                    self.throttle.say();
                    if let Err(error) = stream.write_all(&limited).await {
                        return error.into();
                    }
                }
            }
            self.usage.awoken().await;
        }
    }

    /// Reads the peer's unidirectional streams; returns only with an error.
    async fn receive_control(&self) -> TunnelError {
        let mut readers = FuturesUnordered::new();
        let mut control_seen = false;
        loop {
            let (mut stream, found) = tokio::select! {
                stream = self.connection.accept_uni() => match stream {
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
                let content = buffer.split_to(whole).split_off(header);
                match (found, settings_seen) {
                    (kind::SETTINGS, false) => {
                        settings_seen = true;
                        if setting(&content, SETTING_PARITY).is_some_and(|value| value != 0) {
                            self.parity.understood();
                        }
                    }
                    (_, false) => {
                        return TunnelError::protocol(ResetCode::MISSING_SETTINGS, "a control stream without settings");
                    }
                    (kind::GOAWAY, true) => self.farewell.hear(),
                    (kind::LIMITED, true) => self.throttle.hear(),
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

/// The value of a setting, if it is there.
fn setting(mut settings: &[u8], wanted: u64) -> Option<u64> {
    loop {
        let (id, first) = frame::get_varint(settings)?;
        let (value, second) = frame::get_varint(&settings[first..])?;
        if id == wanted {
            return Some(value);
        }
        settings = &settings[first + second..];
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
