//! What an agent notices when its relay is killed and started again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_common::tunnel::{TransportOptions, TunnelError};
use tokio::runtime::Runtime;

use crate::pair::{Identity, dial, listen};

#[test]
fn a_restarted_relay_is_noticed_by_the_stateless_reset_of_the_same_key() {
    let identity = Identity::new();
    let key = [42; 64];
    // The agent is the one to send: its keep-alive meets the new relay.
    let options = TransportOptions { keep_alive: Duration::from_millis(200), ..TransportOptions::default() };
    let (first_life, second_life) = (Runtime::new().unwrap(), Runtime::new().unwrap());

    let relay = first_life.block_on(async { listen(&identity, SocketAddr::from(([127, 0, 0, 1], 0)), &key, &options) });
    let address = relay.local_addr().unwrap();
    let accepting = first_life.spawn({
        let relay = relay.clone();
        async move { relay.accept().await.unwrap().await.unwrap() }
    });
    let (endpoint, agent) = second_life.block_on(dial(&identity, address, &options));
    let accepted = first_life.block_on(accepting).unwrap();
    // A killed process says nothing: its tasks end where they are, and its socket is closed.
    first_life.shutdown_timeout(Duration::from_secs(5));
    drop((accepted, relay));

    second_life.block_on(async {
        let started = Instant::now();
        let restarted = listen(&identity, address, &key, &options);
        let why = tokio::time::timeout(Duration::from_secs(5), agent.closed()).await.expect("no stateless reset came");
        assert!(matches!(why, quinn::ConnectionError::Reset), "{why}");
        assert!(started.elapsed() < Duration::from_secs(3), "that was the idle time-out, not the reset");
        assert!(!TunnelError::from(why).is_orderly_close());
        drop((endpoint, restarted));
    });
}
