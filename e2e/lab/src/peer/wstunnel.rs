//! wstunnel: a WebSocket over TLS, or a QUIC connection, for each connection that it forwards.

use crate::house::{Launch, Peer, Place, plain_port};

pub(super) struct Wstunnel {
    pub(super) quic: bool,
}

impl Peer for Wstunnel {
    fn name(&self) -> String {
        if self.quic { "wstunnel-quic" } else { "wstunnel" }.into()
    }

    fn programs(&self) -> Vec<&'static str> {
        vec!["wstunnel", "haproxy"]
    }

    fn install(&self) -> &'static str {
        "cargo install --git https://github.com/erebe/wstunnel wstunnel-cli --root DIR (wstunnel-quic: --features quic), and --programs \
         DIR/bin; apt-get install haproxy"
    }

    fn relay(&self, place: &Place) -> anyhow::Result<Vec<Launch>> {
        let arguments = format!("--log-lvl WARN server wss://{} --tls-certificate", place.tunnel());
        let launch = Launch::new(place.program("wstunnel")?, &arguments).and(place.file("relay.pem"));
        let launch = launch.and("--tls-private-key").and(place.file("relay.key"));
        Ok(vec![if self.quic { launch.and("--enable-webtransport") } else { launch }])
    }

    fn agent(&self, place: &Place, number: usize) -> anyhow::Result<Vec<Launch>> {
        let scheme = if self.quic { "wts" } else { "wss" };
        let arguments = format!(
            "--log-lvl WARN client -R tcp://127.0.0.1:{}:{} {scheme}://{}",
            plain_port(number),
            place.server(),
            place.tunnel()
        );
        Ok(vec![Launch::new(place.program("wstunnel")?, &arguments)])
    }
}
