//! Two ends of a session on loopback, over QUIC or over TLS on TCP: the agent dials, the relay accepts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_common::tunnel::{Role, Session, SessionLimits, Transport, TransportOptions, prepare_tcp};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::pair::{Identity, Pair};

/// Two ends of a session with it running, and what must live as long.
pub struct Ends {
    relay: Session,
    agent: Session,
    _pair: Option<Pair>,
}

impl Ends {
    pub async fn new(transport: Transport) -> Self {
        Self::with(transport, TransportOptions::default()).await
    }

    pub async fn with(transport: Transport, options: TransportOptions) -> Self {
        match transport {
            Transport::Quic => {
                let pair = Pair::with(options).await;
                let (relay, agent) = pair.sessions();
                Self { relay, agent, _pair: Some(pair) }
            }
            Transport::Tcp => Box::pin(Self::over_tcp(&options, None)).await,
        }
    }

    /// Over TCP that carries so many bytes a second each way.
    pub async fn over_slow_tcp(rate: f64) -> Self {
        Box::pin(Self::over_tcp(&TransportOptions::default(), Some(rate))).await
    }

    /// The relay's and the agent's.
    pub fn sessions(&self) -> (Session, Session) {
        (self.relay.clone(), self.agent.clone())
    }

    async fn over_tcp(options: &TransportOptions, rate: Option<f64>) -> Self {
        let (identity, limits) = (Identity::new(), SessionLimits::default());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut address = listener.local_addr().unwrap();
        if let Some(rate) = rate {
            address = slow_way(address, rate);
        }
        let accept = async {
            let (stream, _) = listener.accept().await.unwrap();
            prepare_tcp(&stream, options.idle_timeout);
            let stream = TlsAcceptor::from(Arc::new(identity.relay())).accept(stream).await.unwrap();
            Session::over_tcp(stream.into(), Role::Relay, options, limits).await.unwrap()
        };
        let dial = async {
            let stream = TcpStream::connect(address).await.unwrap();
            prepare_tcp(&stream, options.idle_timeout);
            let name = ServerName::try_from("relay.test").unwrap();
            let stream = TlsConnector::from(Arc::new(identity.agent())).connect(name, stream).await.unwrap();
            Session::over_tcp(stream.into(), Role::Agent, options, limits).await.unwrap()
        };
        // The agent's end waits for the relay to speak, so the relay's is run at once.
        let relay = async {
            let session = accept.await;
            let running = session.clone();
            tokio::spawn(async move { running.run().await });
            session
        };
        let (relay, agent) = tokio::join!(relay, dial);
        let running = agent.clone();
        tokio::spawn(async move { running.run().await });
        Self { relay, agent, _pair: None }
    }
}

/// What waits on the slow way, in bytes: little, or the test would be about its queue.
const QUEUE: u32 = 32 << 10;

/// A way to an address that carries one connection, so many bytes a second.
fn slow_way(to: SocketAddr, rate: f64) -> SocketAddr {
    let socket = || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(QUEUE).unwrap();
        socket.set_send_buffer_size(QUEUE).unwrap();
        socket
    };
    let entry = socket();
    entry.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let entry = entry.listen(1).unwrap();
    let address = entry.local_addr().unwrap();
    tokio::spawn(async move {
        let (near, _) = entry.accept().await.unwrap();
        let far = socket().connect(to).await.unwrap();
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::join!(carry(near_in, far_out, rate), carry(far_in, near_out, rate));
    });
    address
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, rate: f64) {
    let (mut piece, mut free) = ([0; 4 << 10], Instant::now());
    while let Ok(bytes @ 1..) = from.read(&mut piece).await {
        free = free.max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / rate);
        sleep_until(free).await;
        if to.write_all(&piece[..bytes]).await.is_err() {
            return;
        }
    }
}
