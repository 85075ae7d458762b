//! Two ends of a session on loopback, over QUIC or over TLS on TCP: the agent dials, the relay accepts.

use std::sync::Arc;

use adit_common::tunnel::{Role, Session, SessionLimits, Transport, TransportOptions, prepare_tcp};
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
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
            Transport::Tcp => Box::pin(Self::over_tcp(&options)).await,
        }
    }

    /// The relay's and the agent's.
    pub fn sessions(&self) -> (Session, Session) {
        (self.relay.clone(), self.agent.clone())
    }

    async fn over_tcp(options: &TransportOptions) -> Self {
        let (identity, limits) = (Identity::new(), SessionLimits::default());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
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
