//! The relay: builds the rooms from the bottom up and drains them from the top down.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adit_certs::{Bundle, CertsError};
use adit_common::daemon::Shutdown;

use crate::admin::http::Admin;
use crate::config::Config;
use crate::fleet::listener::{ListenError, Listener};
use crate::fleet::registry::Registry;
use crate::front::service::Service;
use crate::front::tcp::TcpFront;
use crate::front::tls::Terminator;
use crate::liveness::Liveness;
use crate::metrics::Metrics;
use crate::proxy::absence::Absence;
use crate::proxy::admission::Admission;
use crate::proxy::auth::Keys;
use crate::proxy::forward::Proxy;
use crate::proxy::keys::{KeyFile, KeysError};

/// For the last packets to leave: a round trip or two, and QUIC's own farewell.
const LAST_PACKETS: Duration = Duration::from_secs(2);

/// Why the relay cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The configuration cannot work.
    #[error("the configuration cannot work: {0}")]
    Config(String),
    /// A port is taken, or not ours to take.
    #[error("cannot bind {what} to {address}")]
    Bind {
        /// Which listener.
        what: &'static str,
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The HTTPS front's certificate cannot be used.
    #[error("the certificate of the https front cannot be used")]
    Certificate(#[from] CertsError),
    /// The tunnel's port cannot be opened.
    #[error("{0}")]
    Tunnel(String, #[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The keys file cannot be used.
    #[error("the API keys cannot be used")]
    Keys(#[from] KeysError),
}

impl From<ListenError> for RelayError {
    fn from(error: ListenError) -> Self {
        match error {
            ListenError::Bind { address, source } => Self::Bind { what: "the tunnel (udp)", address, source },
            other => Self::Tunnel(
                other.to_string(),
                std::error::Error::source(&other).map(|source| source.to_string().into()),
            ),
        }
    }
}

/// Where the relay is reached; with port 0 in the configuration, the system's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// TCP: clients.
    pub https: SocketAddr,
    /// TCP: clients, at further addresses.
    pub also: Vec<SocketAddr>,
    /// TCP: clients, without TLS.
    pub plain: Vec<SocketAddr>,
    /// UDP: agents; and TCP at the same port, unless that is switched off.
    pub tunnel: SocketAddr,
    /// TCP: operators.
    pub admin: SocketAddr,
}

/// A running relay. Dropped without [`Relay::drain`], it stops at once with what is in flight.
#[derive(Debug)]
pub struct Relay {
    addresses: Addresses,
    drain: Duration,
    front: Shutdown,
    fleet: Shutdown,
    background: Shutdown,
    registry: Arc<Registry>,
    endpoint: quinn::Endpoint,
    ready: Arc<AtomicBool>,
    liveness: Liveness,
}

impl Relay {
    /// Opens every port and serves from then on. To be called within a tokio runtime.
    pub fn start(config: &Config) -> Result<Self, RelayError> {
        config.check().map_err(RelayError::Config)?;
        let metrics = Arc::new(Metrics::new());
        let liveness = Liveness::new(Instant::now());
        let (front, fleet, background) = (Shutdown::new(), Shutdown::new(), Shutdown::new());

        let registry = Arc::new(Registry::new());
        let taken: Vec<_> = std::iter::once(config.front.listen).chain(config.front.also.iter().copied()).collect();
        let mut listener = Listener::bind(
            &config.tunnel,
            &Bundle::relay(&config.tls),
            &config.reset_key_file(),
            registry.clone(),
            metrics.clone(),
            &liveness,
            &taken,
            &fleet,
        )?;

        let keys = Keys::open(KeyFile::new(config.keys_file()), &config.auth.anonymous, metrics.clone())?;
        let keys = Arc::new(keys);
        let admission = Admission::new(config.proxy.max_requests);
        let proxy = Proxy::new(
            keys.clone(),
            admission,
            config.proxy.retries,
            Absence::new(config.proxy.agent_wait, Instant::now()),
            registry.clone(),
            metrics.clone(),
        );

        let (certificate, key) = config.https_files();
        let terminator = Terminator::open(&certificate, &key, listener.gate(), config.front.handshake_timeout)?;
        let service = Service::new(proxy, &config.front, config.proxy.timeout, metrics.clone());
        let failed = |what, address| move |source| RelayError::Bind { what, address, source };
        let https = TcpFront::bind(&config.front, terminator, service, metrics.clone(), &liveness)
            .map_err(failed("the https front (tcp)", config.front.listen))?;

        let further = |addresses: &[SocketAddr], secure: bool| {
            let open = |address: &SocketAddr| {
                https.also(*address, secure, &liveness).map_err(failed("a further front (tcp)", *address))
            };
            addresses.iter().map(open).collect::<Result<Vec<_>, _>>()
        };
        let (also, plain) = (further(&config.front.also, true)?, further(&config.front.plain, false)?);
        let bound = |fronts: &[TcpFront]| fronts.iter().filter_map(|front| front.address().ok()).collect();

        let ready = Arc::new(AtomicBool::new(false));
        let admin = Admin::bind(config.admin.listen, registry.clone(), metrics, liveness.clone(), ready.clone())
            .map_err(failed("the admin listener (tcp)", config.admin.listen))?;
        let addresses = Addresses {
            https: https.address().map_err(failed("the https front (tcp)", config.front.listen))?,
            also: bound(&also),
            plain: bound(&plain),
            tunnel: listener.address(),
            admin: admin.address().map_err(failed("the admin listener (tcp)", config.admin.listen))?,
        };

        let endpoint = listener.endpoint();
        if let Some(tcp) = listener.tcp() {
            fleet.spawn("tunnel listener over tcp", tcp.run(fleet.clone()));
        }
        fleet.spawn("tunnel listener", listener.run(fleet.clone()));
        front.spawn("https front", https.run(front.clone()));
        for further in also.into_iter().chain(plain) {
            front.spawn("further front", further.run(front.clone()));
        }
        background.spawn("admin listener", admin.run(background.clone()));
        let watched = background.clone();
        background.spawn("keys", async move { keys.watch(&watched).await });
        ready.store(true, Ordering::Release);
        if !addresses.plain.is_empty() {
            tracing::warn!(addresses = ?addresses.plain, "clients are taken in without TLS: keys and pictures travel in the open");
        }
        tracing::info!(https = %addresses.https, also = ?addresses.also, tunnel = %addresses.tunnel, admin = %addresses.admin, "relay is up");
        let drain = config.drain;
        Ok(Self { addresses, drain, front, fleet, background, registry, endpoint, ready, liveness })
    }

    /// Where it is reached.
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// How many agents take requests.
    pub fn agents(&self) -> usize {
        self.registry.snapshot().members.iter().filter(|member| !member.agent.is_retired()).count()
    }

    /// The loop that has stopped, if one has: then the relay is of no use and should be started anew.
    pub fn stuck(&self) -> Option<&'static str> {
        self.liveness.stuck(Instant::now())
    }

    /// Stops without failing a request that was accepted, as long as the drain time lasts. True if it lasted.
    ///
    /// Agents are told first, for they dial the next relay at once and keep this session for what is under way; then the
    /// front answers what it has; then the sessions are closed in order.
    pub async fn drain(self) -> bool {
        self.ready.store(false, Ordering::Release);
        self.fleet.begin();
        let in_time = self.front.finish(self.drain).await;
        if !in_time {
            tracing::warn!("the drain time is over: requests in flight are cut");
        }
        self.registry.retire_all();
        let closed = tokio::time::timeout(LAST_PACKETS, async {
            while !self.registry.snapshot().members.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let _ = closed.await;
        self.endpoint.close(quinn::VarInt::from_u32(NO_ERROR), b"the relay has stopped");
        self.fleet.finish(LAST_PACKETS).await;
        let _ = tokio::time::timeout(LAST_PACKETS, self.endpoint.wait_idle()).await;
        self.background.finish(LAST_PACKETS).await;
        tracing::info!(in_time, "relay has stopped");
        in_time
    }
}

/// HTTP/3's code for an end in order (RFC 9114, section 8.1).
const NO_ERROR: u32 = 0x100;

impl Drop for Relay {
    fn drop(&mut self) {
        for scope in [&self.front, &self.fleet, &self.background] {
            scope.begin();
            scope.kill();
        }
        self.endpoint.close(quinn::VarInt::from_u32(NO_ERROR), b"the relay has stopped");
    }
}
