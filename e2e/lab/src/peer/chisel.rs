//! chisel: SSH's channels over one WebSocket.

use crate::house::{Launch, Peer, Place, plain_port};

pub(super) struct Chisel;

impl Peer for Chisel {
    fn name(&self) -> String {
        "chisel".into()
    }

    fn programs(&self) -> Vec<&'static str> {
        vec!["chisel", "haproxy"]
    }

    fn install(&self) -> &'static str {
        "go install github.com/jpillora/chisel@latest; apt-get install haproxy"
    }

    fn relay(&self, place: &Place) -> anyhow::Result<Vec<Launch>> {
        let tunnel = place.tunnel();
        let arguments =
            format!("server --reverse --keepalive 5s --host {} --port {} --tls-key", tunnel.ip(), tunnel.port());
        let launch = Launch::new(place.program("chisel")?, &arguments).and(place.file("relay.key"));
        Ok(vec![launch.and("--tls-cert").and(place.file("relay.pem"))])
    }

    fn agent(&self, place: &Place, number: usize) -> anyhow::Result<Vec<Launch>> {
        let launch = Launch::new(place.program("chisel")?, "client --keepalive 5s --tls-ca").and(place.file("ca.pem"));
        let launch = launch.and(format!("https://{}", place.tunnel()));
        Ok(vec![launch.and(format!("R:127.0.0.1:{}:{}", plain_port(number), place.server()))])
    }
}
