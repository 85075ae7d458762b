//! rusnel: streams of one QUIC connection.

use crate::house::{Launch, Peer, Place, plain_port};

pub(super) struct Rusnel;

impl Peer for Rusnel {
    fn name(&self) -> String {
        "rusnel".into()
    }

    fn programs(&self) -> Vec<&'static str> {
        vec!["rusnel", "haproxy"]
    }

    fn install(&self) -> &'static str {
        "cargo install rusnel --root DIR, and --programs DIR/bin; apt-get install haproxy"
    }

    fn relay(&self, place: &Place) -> anyhow::Result<Vec<Launch>> {
        let tunnel = place.tunnel();
        let arguments = format!(
            "server --host {} --port {} --allow-reverse --insecure --congestion cubic",
            tunnel.ip(),
            tunnel.port()
        );
        Ok(vec![Launch::new(place.program("rusnel")?, &arguments)])
    }

    fn agent(&self, place: &Place, number: usize) -> anyhow::Result<Vec<Launch>> {
        let arguments = format!(
            "client --insecure --congestion cubic {} R:127.0.0.1:{}:{}",
            place.tunnel(),
            plain_port(number),
            place.server()
        );
        Ok(vec![Launch::new(place.program("rusnel")?, &arguments)])
    }
}
