//! Keeps HTTP/2 going on one connection: requests, control stream, pings, and the end.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Ping, PingPong, RecvStream, SendStream, client, server};
use http::{Method, Request, Response, StatusCode};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;

use super::control::{CONTROL_PATH, Word, Words, say_close, say_leaving};
use super::exchange::{Asked, Asking};
use super::fate::{Fate, Loss};
use super::head::to_request;
use super::wire::{Meter, Wire};
use crate::tunnel::credit::Credit;
use crate::tunnel::error::{ResetCode, TunnelError};
use crate::tunnel::farewell::Farewell;
use crate::tunnel::transport::TransportOptions;
use crate::tunnel::turns::{Lane, Turns};

/// Bytes of one stream that wait to be written: enough for a round trip of the session's task, and a bound on memory.
const SEND_BUFFER: usize = 128 << 10;

/// Streams that were given up and are remembered, so that what is still under way for them is no error. As many as may be open.
const REMEMBERED: usize = 1024;

/// Streams to open before the peer has said how many it grants: its manifest and the control stream are among them.
const FIRST_STREAMS: usize = 16;

/// A round trip for the last word, and for the peer to hang up.
const FAREWELL: Duration = Duration::from_secs(1);

/// Who was not heard of for so long is told no last word.
const HEARD: Duration = Duration::from_secs(3);

/// How many pings a relay sends within the idle time-out; the agent's come more often, and keep the session alive.
const PINGS: u32 = 3;

/// One end's HTTP/2, to be driven.
enum Driver {
    Relay(client::Connection<Wire, Bytes>),
    Agent(server::Connection<Wire, Bytes>, mpsc::Sender<Asked>),
}

/// What both ends' sessions know of their connection.
struct Beneath {
    remote: SocketAddr,
    meter: Arc<Meter>,
    /// Where writers wait for what the wire takes.
    lane: Arc<Lane>,
}

/// One end of a session over TCP.
pub(in crate::tunnel) struct TcpSession {
    /// Taken by who runs the session.
    driver: Mutex<Option<Driver>>,
    /// The relay's: opens streams.
    sender: Option<SendRequest<Bytes>>,
    /// The agent's: streams that were opened.
    accepted: tokio::sync::Mutex<Option<mpsc::Receiver<Asked>>>,
    fate: Arc<Fate>,
    /// What this end says when it closes.
    closing: OnceLock<(ResetCode, String)>,
    closed: CancellationToken,
    meter: Arc<Meter>,
    lane: Arc<Lane>,
    remote: SocketAddr,
    idle_timeout: Duration,
    ping: Duration,
}

impl TcpSession {
    /// The relay's end: HTTP/2's client on a connection that was accepted.
    pub(in crate::tunnel) async fn relay(
        stream: TlsStream<TcpStream>,
        options: &TransportOptions,
        max_fields: usize,
    ) -> Result<Self, TunnelError> {
        let (wire, beneath) = beneath(stream)?;
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(window(options.stream_window.into()))
            .initial_connection_window_size(window(options.session_window()))
            .max_header_list_size(u32::try_from(max_fields).unwrap_or(u32::MAX))
            .initial_max_send_streams(FIRST_STREAMS)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(REMEMBERED)
            // It would be counted over the session's whole life, and end it. The peer is one of ours.
            .max_local_error_reset_streams(None);
        let (sender, connection) = builder.handshake(wire).await.map_err(broken)?;
        let ping = options.idle_timeout / PINGS;
        Ok(Self::new(Driver::Relay(connection), Some(sender), None, beneath, options, ping))
    }

    /// The agent's end: HTTP/2's server on a connection that was dialled. It resolves when the relay has begun to speak, which
    /// it does once it has accepted the agent's certificate.
    pub(in crate::tunnel) async fn agent(
        stream: TlsStream<TcpStream>,
        options: &TransportOptions,
        max_fields: usize,
    ) -> Result<Self, TunnelError> {
        let (wire, beneath) = beneath(stream)?;
        let connection = server::Builder::new()
            .enable_connect_protocol()
            .initial_window_size(window(options.stream_window.into()))
            .initial_connection_window_size(window(options.session_window()))
            .max_header_list_size(u32::try_from(max_fields).unwrap_or(u32::MAX))
            // One more, for the control stream.
            .max_concurrent_streams(options.streams.saturating_add(1))
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(REMEMBERED)
            .max_pending_accept_reset_streams(REMEMBERED)
            .max_local_error_reset_streams(None)
            .handshake(wire)
            .await
            .map_err(broken)?;
        let (accept, accepted) = mpsc::channel(options.streams.max(1) as usize);
        let driver = Driver::Agent(connection, accept);
        Ok(Self::new(driver, None, Some(accepted), beneath, options, options.keep_alive))
    }

    fn new(
        driver: Driver,
        sender: Option<SendRequest<Bytes>>,
        accepted: Option<mpsc::Receiver<Asked>>,
        Beneath { remote, meter, lane }: Beneath,
        options: &TransportOptions,
        ping: Duration,
    ) -> Self {
        Self {
            driver: Mutex::new(Some(driver)),
            sender,
            accepted: tokio::sync::Mutex::new(accepted),
            fate: Arc::default(),
            closing: OnceLock::new(),
            closed: CancellationToken::new(),
            meter,
            lane,
            remote,
            idle_timeout: options.idle_timeout,
            ping,
        }
    }

    /// Drives everything until the session is over, and says why it is.
    pub(in crate::tunnel) async fn run(&self, farewell: &Farewell) -> TunnelError {
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut driver) = driver else {
            return self.closed().await;
        };
        // Whatever ends this future, exchanges are to find out why their streams died.
        let sealed = Sealed(&self.fate);
        let ping_pong = driver.ping_pong();
        let (say, mut hear) = mpsc::channel(1);
        let mut control = None;
        let error = {
            let mut driving = Box::pin(self.drive(&mut driver, say));
            let error = tokio::select! {
                loss = &mut driving => TunnelError::Lost(loss),
                Err(error) = self.converse(&mut hear, &mut control, farewell) => error,
                () = self.beat(ping_pong) => TunnelError::Lost(Loss::Silent),
                () = self.silence() => TunnelError::Lost(Loss::Silent),
                () = self.closed.cancelled() => TunnelError::Lost(Loss::Local),
            };
            let (code, reason) = self.last_word(&error);
            if let (Some(code), Some(control)) = (code, &mut control)
                && self.meter.heard().elapsed() < HEARD
            {
                say_close(control, code, reason);
                // The peer hangs up when it has read that, and then all of it has arrived.
                let _ = timeout(FAREWELL, &mut driving).await;
            }
            error
        };
        self.fate.seal(match &error {
            TunnelError::Lost(loss) => loss.clone(),
            _ => Loss::Local,
        });
        drop((sealed, driver));
        error
    }

    /// What the peer is told at the end, where there is something to tell.
    fn last_word<'a>(&'a self, error: &'a TunnelError) -> (Option<ResetCode>, &'a str) {
        match (error, self.closing.get()) {
            (TunnelError::Protocol { code, what }, _) => (Some(*code), what),
            (TunnelError::Lost(Loss::Local), Some((code, reason))) => (Some(*code), reason),
            _ => (None, ""),
        }
    }

    async fn drive(&self, driver: &mut Driver, say: mpsc::Sender<ControlStream>) -> Loss {
        match driver {
            Driver::Relay(connection) => match connection.await {
                Ok(()) => Loss::Ended,
                Err(error) => Loss::Broken(Arc::new(error)),
            },
            Driver::Agent(connection, accept) => loop {
                match connection.accept().await {
                    Some(Ok((request, respond))) if is_control(&request) => {
                        // A second one is refused by its drop.
                        let _ = say.try_send((request, respond));
                    }
                    Some(Ok((request, respond))) => {
                        // There is room for as many as were granted; one more is refused by its drop.
                        let _ = accept.try_send(Asked::new(request, respond, self.fate.clone(), self.lane.clone()));
                    }
                    Some(Err(error)) => return Loss::Broken(Arc::new(error)),
                    None => return Loss::Ended,
                }
            },
        }
    }

    /// Speaks and listens on the control stream; returns only with an error.
    async fn converse(
        &self,
        hear: &mut mpsc::Receiver<ControlStream>,
        control: &mut Option<SendStream<Bytes>>,
        farewell: &Farewell,
    ) -> Result<Infallible, TunnelError> {
        let stream = match &self.sender {
            Some(sender) => {
                let mut request = Request::new(());
                (*request.method_mut(), *request.uri_mut()) = (Method::POST, http::Uri::from_static(CONTROL_PATH));
                let request = to_request(request.into_parts().0)?;
                let (response, stream) = sender.clone().send_request(request, false).map_err(broken)?;
                *control = Some(stream);
                let response = response.await.map_err(broken)?;
                if response.status() != StatusCode::OK {
                    let what = "an agent without a control stream";
                    return Err(TunnelError::protocol(ResetCode::MISSING_SETTINGS, what));
                }
                response.into_body()
            }
            None => {
                let Some((request, mut respond)) = hear.recv().await else { return pending().await };
                *control = Some(respond.send_response(Response::new(()), false).map_err(broken)?);
                request.into_body()
            }
        };
        let (mut words, mut said) = (Words::new(stream), false);
        loop {
            tokio::select! {
                word = words.next() => match word? {
                    Word::Leaving => farewell.hear(),
                    Word::Close(code, reason) => return Err(TunnelError::Lost(Loss::Peer { code, reason })),
                },
                () = farewell.said(), if !said => {
                    said = true;
                    if let Some(control) = control {
                        say_leaving(control);
                    }
                }
            }
        }
    }

    /// Pings, and so keeps alive and measures; never returns but with a connection that is over.
    async fn beat(&self, ping_pong: Option<PingPong>) {
        let Some(mut ping_pong) = ping_pong else { return pending().await };
        loop {
            let at = Instant::now();
            if ping_pong.send_ping(Ping::opaque()).is_err() {
                // The driver knows why.
                return pending().await;
            }
            if poll_fn(|context| ping_pong.poll_pong(context)).await.is_err() {
                return pending().await;
            }
            self.meter.measured(at.elapsed());
            sleep_until(at + self.ping).await;
        }
    }

    /// Resolves when nothing was heard of the peer for too long.
    async fn silence(&self) {
        loop {
            let late = self.meter.heard() + self.idle_timeout;
            if Instant::now() >= late {
                return;
            }
            sleep_until(late).await;
        }
    }

    /// Opens a stream, now or never.
    pub(in crate::tunnel) fn open(&self, credit: Credit) -> Result<Asking, TunnelError> {
        if let Some(loss) = self.loss() {
            return Err(TunnelError::Lost(loss));
        }
        let sender = self.sender.clone().ok_or(TunnelError::NoCredit)?;
        // The control stream is one of them.
        if credit.taken() >= sender.current_max_send_streams() {
            return Err(TunnelError::NoCredit);
        }
        Ok(Asking::new(sender, self.fate.clone(), self.lane.clone(), credit))
    }

    /// The next stream; an error at the session's end.
    pub(in crate::tunnel) async fn accept(&self) -> Result<Asked, TunnelError> {
        let next = match self.accepted.lock().await.as_mut() {
            Some(accepted) => accepted.recv().await,
            None => pending().await,
        };
        match next {
            Some(asked) => Ok(asked),
            None => Err(self.closed().await),
        }
    }

    pub(in crate::tunnel) fn close(&self, code: ResetCode, reason: &str) {
        // The first reason counts.
        let _ = self.closing.set((code, reason.to_owned()));
        self.closed.cancel();
    }

    pub(in crate::tunnel) async fn closed(&self) -> TunnelError {
        TunnelError::Lost(self.fate.sealed().await)
    }

    fn loss(&self) -> Option<Loss> {
        self.fate.get().cloned().or_else(|| self.closed.is_cancelled().then_some(Loss::Local))
    }

    pub(in crate::tunnel) fn is_closed(&self) -> bool {
        self.loss().is_some()
    }

    pub(in crate::tunnel) const fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    pub(in crate::tunnel) fn rtt(&self) -> Duration {
        self.meter.rtt()
    }

    /// Bytes sent and received, within TLS.
    pub(in crate::tunnel) fn bytes(&self) -> (u64, u64) {
        (self.meter.sent(), self.meter.received())
    }
}

/// A connection for HTTP/2, and what the session keeps of it.
fn beneath(stream: TlsStream<TcpStream>) -> Result<(Wire, Beneath), TunnelError> {
    let remote = stream.get_ref().0.peer_addr()?;
    let turns = Arc::new(Turns::over_tcp());
    let (wire, meter) = Wire::new(stream, turns.clone());
    Ok((wire, Beneath { remote, meter, lane: Arc::new(Lane::over_tcp(turns)) }))
}

/// The control stream as an agent is asked for it.
type ControlStream = (Request<RecvStream>, SendResponse<Bytes>);

fn is_control(request: &Request<RecvStream>) -> bool {
    request.method() == Method::POST && request.uri().path() == CONTROL_PATH
}

/// HTTP/2's windows end at 2^31 - 1, where QUIC's go on.
fn window(bytes: u64) -> u32 {
    bytes.min(i32::MAX.unsigned_abs().into()) as u32
}

fn broken(error: h2::Error) -> TunnelError {
    TunnelError::Lost(Loss::Broken(Arc::new(error)))
}

impl Driver {
    fn ping_pong(&mut self) -> Option<PingPong> {
        match self {
            Self::Relay(connection) => connection.ping_pong(),
            Self::Agent(connection, _) => connection.ping_pong(),
        }
    }
}

/// Sees to it that a session that is no longer driven is known to be over.
struct Sealed<'a>(&'a Fate);

impl Drop for Sealed<'_> {
    fn drop(&mut self) {
        self.0.seal(Loss::Local);
    }
}

impl std::fmt::Debug for TcpSession {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TcpSession").field("remote", &self.remote).field("fate", &self.fate).finish_non_exhaustive()
    }
}
