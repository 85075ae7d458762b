//! The connections to one server.
//!
//! Over HTTP/1.1 each carries a request at a time: the one that was used last is taken, so that those beyond what is needed grow old
//! and are closed. Over HTTP/2 many share one, and there are several only where that is full. What was not there is dialled by who
//! needs it, within the time of its request; nobody waits for a connection of somebody else's.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_common::daemon::Shutdown;
use adit_common::id::UpstreamName;
use http::uri::Authority;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use super::body::Given;
use super::fault::Fault;
use crate::config::UpstreamProtocol;
use crate::metrics::{Held, UpstreamMeter};

/// An idle connection that is older is not used again: common servers close theirs after 5 s, and a request that meets the close is
/// lost if it has a body.
const IDLE: Duration = Duration::from_secs(4);

/// How long a connection may take to be ready again whose answer has ended: its task needs to be scheduled, and no more.
const READY: Duration = Duration::from_millis(10);

/// Requests on one HTTP/2 connection; 100 is the least that RFC 9113 recommends servers to allow.
const STREAMS: usize = 100;

/// An HTTP/2 connection that is silent is asked whether it lives, and given up if it says nothing for as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long an HTTP/2 server may take to say whether it takes WebSockets: its settings are the first that it says.
const SETTINGS: Duration = Duration::from_secs(1);

/// How often they are looked for: as a handshake within one machine takes.
const LOOK: Duration = Duration::from_millis(1);

/// An HTTP/2 connection, shared.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    sender: http2::SendRequest<Given>,
    /// One for each request, and one for the pool.
    busy: Arc<()>,
    /// Whether it takes WebSockets.
    sockets: watch::Receiver<bool>,
}

/// A connection that was taken for a request.
#[derive(Debug)]
pub(super) enum Line {
    One { sender: http1::SendRequest<Given>, used: bool },
    Many { shared: Shared, used: bool },
}

impl Line {
    /// Whether it carried requests before, and so may have been closed meanwhile.
    pub(super) const fn is_used(&self) -> bool {
        match self {
            Self::One { used, .. } | Self::Many { used, .. } => *used,
        }
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Given>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Given>>> {
        match self {
            Self::One { sender, .. } => sender.try_send_request(request).await,
            Self::Many { shared, .. } => shared.sender.try_send_request(request).await,
        }
    }

    /// Whether a WebSocket may be opened on it.
    pub(super) async fn takes_sockets(&mut self) -> bool {
        match self {
            Self::One { .. } => true,
            Self::Many { shared, .. } => {
                matches!(timeout(SETTINGS, shared.sockets.wait_for(|takes| *takes)).await, Ok(Ok(_)))
            }
        }
    }
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<Given>,
    since: Instant,
}

/// The connections to one server.
#[derive(Debug)]
pub(super) struct Pool {
    name: UpstreamName,
    address: Authority,
    protocol: UpstreamProtocol,
    connect_timeout: Duration,
    /// So many may be idle.
    most: usize,
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Vec<Shared>>,
    /// One at a time dials what many will share.
    dialling: tokio::sync::Mutex<()>,
    meter: Arc<UpstreamMeter>,
    /// Whose tasks its connections are.
    house: Shutdown,
}

impl Pool {
    pub(super) fn new(
        name: UpstreamName,
        address: Authority,
        protocol: UpstreamProtocol,
        connect_timeout: Duration,
        most: usize,
        meter: Arc<UpstreamMeter>,
        house: Shutdown,
    ) -> Self {
        let (idle, shared, dialling) = (Mutex::default(), Mutex::default(), tokio::sync::Mutex::default());
        Self { name, address, protocol, connect_timeout, most, idle, shared, dialling, meter, house }
    }

    /// A connection: a new one if it must be `fresh`.
    pub(super) async fn take(&self, fresh: bool) -> Result<Line, Fault> {
        match self.protocol {
            UpstreamProtocol::H1 if fresh => self.dial_one().await,
            UpstreamProtocol::H1 => {
                while let Some(mut sender) = self.pop() {
                    if sender.is_ready() || matches!(timeout(READY, sender.ready()).await, Ok(Ok(()))) {
                        return Ok(Line::One { sender, used: true });
                    }
                }
                self.dial_one().await
            }
            UpstreamProtocol::H2c => {
                if let Some(shared) = self.roomy(fresh) {
                    return Ok(Line::Many { shared, used: true });
                }
                let _alone = self.dialling.lock().await;
                // Somebody else has just dialled it.
                if let Some(shared) = self.roomy(fresh) {
                    return Ok(Line::Many { shared, used: true });
                }
                let shared = self.dial_many().await?;
                lock(&self.shared).push(shared.clone());
                Ok(Line::Many { shared, used: false })
            }
        }
    }

    /// A connection of its own, which nobody else uses.
    pub(super) async fn dial(&self) -> Result<Line, Fault> {
        match self.protocol {
            UpstreamProtocol::H1 => self.dial_one().await,
            UpstreamProtocol::H2c => Ok(Line::Many { shared: self.dial_many().await?, used: false }),
        }
    }

    /// Takes a connection back whose request and answer have ended.
    pub(super) fn put(&self, line: Line) {
        if let Line::One { sender, .. } = line
            && !sender.is_closed()
        {
            let mut idle = lock(&self.idle);
            if idle.len() < self.most {
                idle.push(Idle { sender, since: Instant::now() });
            }
        }
    }

    /// Closes what has been idle for too long.
    pub(super) fn sweep(&self) {
        lock(&self.idle).retain(is_good);
        lock(&self.shared).retain(|shared| !shared.sender.is_closed());
    }

    /// Opens the server's port, and no more.
    pub(super) async fn connect(&self) -> Result<TcpStream, Fault> {
        let unreachable = |source| Fault::Unreachable { name: self.name.clone(), source };
        let port = self.address.port_u16().unwrap_or(80);
        // Without the brackets that an IPv6 address has in a URL.
        let host = self.address.host().trim_start_matches('[').trim_end_matches(']');
        let connect = TcpStream::connect((host, port));
        let Ok(stream) = timeout(self.connect_timeout, connect).await else {
            return Err(Fault::Late(self.name.clone()));
        };
        let stream = stream.map_err(unreachable)?;
        // A head and a body in two segments would otherwise wait 40 ms for each other.
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(stream)
    }

    fn pop(&self) -> Option<http1::SendRequest<Given>> {
        let mut idle = lock(&self.idle);
        while idle.last().is_some_and(|last| !is_good(last)) {
            idle.pop();
        }
        // The last one may have been given back a moment ago, and not be ready yet.
        let ready = idle.iter().rposition(|idle| idle.sender.is_ready() && is_good(idle));
        let found = ready.or_else(|| idle.len().checked_sub(1))?;
        Some(idle.remove(found).sender)
    }

    /// A shared connection with room for another request; the one with the fewest.
    fn roomy(&self, fresh: bool) -> Option<Shared> {
        let mut shared = lock(&self.shared);
        if fresh {
            // Those that are there are no good: their requests finish, and nothing new is asked on them.
            shared.clear();
        }
        shared.retain(|shared| !shared.sender.is_closed());
        let least = shared.iter().min_by_key(|shared| Arc::strong_count(&shared.busy))?;
        (Arc::strong_count(&least.busy) <= STREAMS).then(|| least.clone())
    }

    async fn dial_one(&self) -> Result<Line, Fault> {
        let io = TokioIo::new(self.connect().await?);
        let handshake = http1::Builder::new().handshake(io).await;
        let (sender, connection) = handshake.map_err(|error| self.broken(error))?;
        let held = self.meter.connection();
        self.drive(held, connection.with_upgrades());
        Ok(Line::One { sender, used: false })
    }

    async fn dial_many(&self) -> Result<Shared, Fault> {
        let io = TokioIo::new(self.connect().await?);
        let mut builder = http2::Builder::new(InHouse(self.house.clone()));
        builder.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
        let (sender, mut connection) = builder.handshake(io).await.map_err(|error| self.broken(error))?;
        let (takes, sockets) = watch::channel(false);
        let held = self.meter.connection();
        // Nobody is told when the server's settings come: they are looked for while they may.
        let (begun, mut tick, mut told) = (Instant::now(), interval(LOOK), false);
        let connection = poll_fn(move |context| {
            while !told && tick.poll_tick(context).is_ready() {
                told = connection.is_extended_connect_protocol_enabled();
                takes.send_replace(told);
                told |= begun.elapsed() > SETTINGS;
            }
            Pin::new(&mut connection).poll(context)
        });
        self.drive(held, connection);
        Ok(Shared { sender, busy: Arc::new(()), sockets })
    }

    /// Runs a connection until it ends, or the house does: nobody asks anything on it any more then.
    fn drive(&self, held: Held, connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
        let house = self.house.clone();
        self.house.spawn("upstream", async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to a server behind the agent broke off");
                },
                () = house.draining() => {}
            }
            drop(held);
        });
    }

    fn broken(&self, error: hyper::Error) -> Fault {
        Fault::Broken { name: self.name.clone(), source: error.into() }
    }
}

fn is_good(idle: &Idle) -> bool {
    !idle.sender.is_closed() && idle.since.elapsed() < IDLE
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is under these locks is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// HTTP/2 has tasks of its own; they belong to the house like all others.
#[derive(Debug, Clone)]
struct InHouse(Shutdown);

impl<F> hyper::rt::Executor<F> for InHouse
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("upstream", future);
    }
}
