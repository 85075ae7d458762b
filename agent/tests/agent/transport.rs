//! The agent's end of tunnels over TCP: what is told where there is none, and what no other transport is tried for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adit_agent::Agent;
use adit_agent::config::{Config, RelayConfig, TransportChoice};
use adit_certs::{Bundle, Store, Validity, relay_tunnel, relay_tunnel_over_tcp, reset_key};
use adit_common::id::AgentId;
use adit_common::manifest::MANIFEST_PATH;
use adit_common::tunnel::{
    RelayTransport, Role, Session, SessionLimits, TransportOptions, UDP_BUFFER, bind_udp, relay_endpoint,
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use rustls::ServerConfig;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::house::{LIMIT, config, folder};

const ANY: &str = "127.0.0.1:0";

fn authority() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    store.init(&["relay.test".parse().unwrap()], Validity::default(), false).unwrap();
    let agent = AgentId::new("shop-7").unwrap();
    store.issue_agent(&agent, Validity::default(), &store.agent_folder(&agent)).unwrap();
    (folder, store)
}

fn own(store: &Store) -> std::path::PathBuf {
    store.agent_folder(&AgentId::new("shop-7").unwrap())
}

/// An agent's configuration for a relay whose tunnels are at these addresses.
fn for_relay(store: &Store, models: &TempDir, udp: SocketAddr, tcp: SocketAddr, transport: TransportChoice) -> Config {
    let mut config = config(models.path());
    config.tls_dir = Some(own(store));
    config.relays = vec![RelayConfig {
        name: Some("relay.test".into()),
        transport,
        tcp_address: Some(tcp.to_string()),
        ..RelayConfig::new(udp.to_string())
    }];
    config
}

/// A relay's TCP port: shakes hands with everybody, begins a session with those that pass, and counts who has come.
async fn tcp_port(tls: ServerConfig) -> (SocketAddr, Arc<AtomicUsize>, tokio::sync::mpsc::Receiver<Session>) {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let (address, came) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let (found, sessions) = tokio::sync::mpsc::channel(4);
    let (acceptor, count) = (TlsAcceptor::from(Arc::new(tls)), came.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let (acceptor, found) = (acceptor.clone(), found.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let (options, limits) = (TransportOptions::default(), SessionLimits::default());
                let session = Session::over_tcp(stream.into(), Role::Relay, &options, limits).await.unwrap();
                found.send(session.clone()).await.unwrap();
                session.run().await;
            });
        }
    });
    (address, came, sessions)
}

/// A UDP port that nobody answers on; it is taken as long as it is held.
async fn deaf() -> (tokio::net::UdpSocket, SocketAddr) {
    let socket = tokio::net::UdpSocket::bind(ANY).await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

async fn told(agent: &Agent, wanted: &str) {
    let wait = async {
        while !agent.metrics().render().contains(&format!("outcome=\"{wanted}\"")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{wanted}: {}", agent.metrics().render()));
}

#[tokio::test]
async fn where_udp_is_deaf_the_agent_serves_over_tcp_within_a_second() {
    let ((_authority, store), models) = (authority(), folder(&[]));
    let tls = relay_tunnel_over_tcp(&Bundle::relay(&store.relay_folder())).unwrap();
    let (tcp, _, mut sessions) = tcp_port(tls).await;
    let (_held, udp) = deaf().await;
    let agent = Agent::start(for_relay(&store, &models, udp, tcp, TransportChoice::Auto)).await.unwrap();
    let began = std::time::Instant::now();
    let session = timeout(LIMIT, sessions.recv()).await.unwrap().unwrap();
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = MANIFEST_PATH.parse().unwrap();
    let answer = timeout(LIMIT, session.open().unwrap().send(request)).await.unwrap().unwrap();
    let first = timeout(LIMIT, answer.response.into_body().frame()).await.unwrap().unwrap().unwrap();
    assert!(first.into_data().unwrap().starts_with(b"{\"manifest\""));
    let took = began.elapsed();
    println!("UDP deaf from the start: the manifest came {took:.2?} after the agent had started");
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert_eq!(agent.metrics().sessions(), 1);
}

#[tokio::test]
async fn who_is_told_to_use_quic_never_uses_tcp() {
    let ((_authority, store), models) = (authority(), folder(&[]));
    let tls = relay_tunnel_over_tcp(&Bundle::relay(&store.relay_folder())).unwrap();
    let (tcp, came, _sessions) = tcp_port(tls).await;
    let (_held, udp) = deaf().await;
    let agent = Agent::start(for_relay(&store, &models, udp, tcp, TransportChoice::Quic)).await.unwrap();
    told(&agent, "timed_out").await;
    assert_eq!((came.load(Ordering::Relaxed), agent.metrics().sessions()), (0, 0));
}

#[tokio::test]
async fn what_tls_finds_wrong_over_quic_is_not_hidden_by_tcp() {
    let ((_authority, store), models) = (authority(), folder(&[]));
    let relay = Bundle::relay(&store.relay_folder());
    let (tcp, came, _sessions) = tcp_port(relay_tunnel_over_tcp(&relay).unwrap()).await;
    let (socket, _) = bind_udp(ANY.parse().unwrap(), UDP_BUFFER).unwrap();
    let key = reset_key(&store.relay_folder().join("reset.key")).unwrap();
    let transport = RelayTransport::new(relay_tunnel(&relay).unwrap(), TransportOptions::default()).unwrap();
    let endpoint = relay_endpoint(socket, &transport, &key).unwrap();
    let udp = endpoint.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let _ = incoming.await;
        }
    });
    let (_other, stranger) = authority();
    let agent = Agent::start(for_relay(&stranger, &models, udp, tcp, TransportChoice::Auto)).await.unwrap();
    told(&agent, "untrusted").await;
    assert_eq!((came.load(Ordering::Relaxed), agent.metrics().sessions()), (0, 0));
}

#[tokio::test]
async fn why_there_is_no_tunnel_over_tcp_is_told_in_the_metrics() {
    let ((_authority, store), models) = (authority(), folder(&[]));
    let relay = || relay_tunnel_over_tcp(&Bundle::relay(&store.relay_folder())).unwrap();
    let (tcp, _, _sessions) = tcp_port(relay()).await;
    let outcome = async |tcp: SocketAddr, change: &dyn Fn(&mut Config), wanted: &str| {
        let (_held, udp) = deaf().await;
        let mut config = for_relay(&store, &models, udp, tcp, TransportChoice::Tcp);
        change(&mut config);
        let agent = Agent::start(config).await.unwrap();
        told(&agent, wanted).await;
        assert_eq!(agent.metrics().sessions(), 0);
    };
    let (_other, stranger) = authority();
    let strange = own(&stranger);
    outcome(tcp, &|config| config.tls_dir = Some(strange.clone()), "untrusted").await;
    std::fs::copy(own(&store).join("ca.pem"), strange.join("ca.pem")).unwrap();
    outcome(tcp, &|config| config.tls_dir = Some(strange.clone()), "rejected").await;
    outcome(tcp, &|config| config.relays[0].name = Some("other.test".into()), "name").await;
    // A relay of before, or any other server.
    let mut old = relay();
    old.alpn_protocols = vec![b"h2".to_vec()];
    let (old, _, _none) = tcp_port(old).await;
    outcome(old, &|_| {}, "protocol").await;
    let closed = TcpListener::bind(ANY).await.unwrap().local_addr().unwrap();
    outcome(closed, &|_| {}, "tcp_refused").await;
}
