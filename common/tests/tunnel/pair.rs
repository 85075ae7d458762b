//! Two ends of a QUIC connection on loopback: the agent dials, the relay accepts.

use std::net::SocketAddr;

use adit_common::tunnel::{
    ALPN, PathMemory, RelayTransport, Session, SessionLimits, TransportOptions, UDP_BUFFER, agent_config,
    agent_endpoint, bind_udp, relay_endpoint,
};
use quinn::{Connection, Endpoint};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate for `relay.test`, made anew for each test.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["relay.test".to_owned()]).unwrap();
        Self { certificate: made.cert.der().clone(), key: made.signing_key.serialize_der() }
    }

    pub fn relay(&self) -> rustls::ServerConfig {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let mut tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls
    }

    pub fn agent(&self) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls
    }
}

/// An endpoint on loopback that accepts tunnels.
pub fn listen(identity: &Identity, address: SocketAddr, reset_key: &[u8; 64], options: &TransportOptions) -> Endpoint {
    let (socket, _) = bind_udp(address, UDP_BUFFER).unwrap();
    let transport = RelayTransport::new(identity.relay(), options.clone()).unwrap();
    relay_endpoint(socket, &transport, reset_key).unwrap()
}

pub async fn dial(identity: &Identity, address: SocketAddr, options: &TransportOptions) -> (Endpoint, Connection) {
    let (socket, _) = bind_udp(SocketAddr::from(([127, 0, 0, 1], 0)), UDP_BUFFER).unwrap();
    let endpoint = agent_endpoint(socket).unwrap();
    let config = agent_config(identity.agent(), options, &PathMemory::default()).unwrap();
    let connection = endpoint.connect_with(config, address, "relay.test").unwrap().await.unwrap();
    (endpoint, connection)
}

/// Both ends of one connection, with their endpoints.
pub struct Pair {
    pub relay: Connection,
    pub agent: Connection,
    _endpoints: (Endpoint, Endpoint),
}

impl Pair {
    pub async fn new() -> Self {
        Self::with(TransportOptions::default()).await
    }

    pub async fn with(options: TransportOptions) -> Self {
        let identity = Identity::new();
        let relay = listen(&identity, SocketAddr::from(([127, 0, 0, 1], 0)), &[7; 64], &options);
        let address = relay.local_addr().unwrap();
        let (accepted, (endpoint, agent)) =
            tokio::join!(async { relay.accept().await.unwrap().await.unwrap() }, dial(&identity, address, &options));
        Self { relay: accepted, agent, _endpoints: (relay, endpoint) }
    }

    /// A session at each end, with its control streams running.
    pub fn sessions(&self) -> (Session, Session) {
        let limits = SessionLimits::default();
        let sessions = (Session::new(self.relay.clone(), limits), Session::new(self.agent.clone(), limits));
        for session in [&sessions.0, &sessions.1] {
            let session = session.clone();
            tokio::spawn(async move { session.run().await });
        }
        sessions
    }
}
