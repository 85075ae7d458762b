//! No tunnel: haproxy asks the server through a port that the NAT has open for it. What a firewall takes away.

use std::net::SocketAddr;

use crate::house::{Launch, Peer, Place, opened};

pub(super) struct Direct;

impl Peer for Direct {
    fn name(&self) -> String {
        "direct".into()
    }

    fn programs(&self) -> Vec<&'static str> {
        vec!["haproxy"]
    }

    fn install(&self) -> &'static str {
        "apt-get install haproxy"
    }

    fn relay(&self, _: &Place) -> anyhow::Result<Vec<Launch>> {
        Ok(Vec::new())
    }

    fn agent(&self, _: &Place, _: usize) -> anyhow::Result<Vec<Launch>> {
        Ok(Vec::new())
    }

    fn target(&self, _: usize) -> SocketAddr {
        opened()
    }
}
