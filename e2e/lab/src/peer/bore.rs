//! bore: a TCP connection for each that it forwards, not encrypted. It gives up where its relay goes, so a shell starts it again.

use crate::house::{Launch, Peer, Place, plain_port};

pub(super) struct Bore;

impl Peer for Bore {
    fn name(&self) -> String {
        "bore".into()
    }

    fn programs(&self) -> Vec<&'static str> {
        vec!["bore", "haproxy"]
    }

    fn install(&self) -> &'static str {
        "cargo install bore-cli --root DIR, and --programs DIR/bin; apt-get install haproxy"
    }

    fn relay(&self, place: &Place) -> anyhow::Result<Vec<Launch>> {
        let arguments = format!(
            "server --min-port {} --max-port {} --bind-addr 0.0.0.0 --bind-tunnels 127.0.0.1",
            plain_port(0),
            plain_port(place.agents)
        );
        Ok(vec![Launch::new(place.program("bore")?, &arguments)])
    }

    fn agent(&self, place: &Place, number: usize) -> anyhow::Result<Vec<Launch>> {
        let again = format!(
            "while :; do {} local {} --local-host 127.0.0.1 --to {} --port {}; sleep 1; done",
            place.program("bore")?.display(),
            place.server().port(),
            place.tunnel().ip(),
            plain_port(number)
        );
        Ok(vec![Launch::new("/bin/sh".into(), "-c").and(again)])
    }
}
