//! rathole: a pool of connections, one for each that it forwards; plain TCP or Noise.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::Context as _;

use crate::house::{Launch, Peer, Place, plain_port};

pub(super) struct Rathole {
    pub(super) noise: bool,
}

impl Rathole {
    /// Of its key pair: the relay's half, or the agents'.
    fn key(&self, place: &Place, relay: bool) -> anyhow::Result<String> {
        let file = place.file("rathole.keys");
        if !file.exists() {
            let done =
                Command::new(place.program("rathole")?).arg("--genkey").output().context("cannot run rathole")?;
            std::fs::write(&file, done.stdout).context("cannot write rathole's keys")?;
        }
        let text = std::fs::read_to_string(&file).context("cannot read rathole's keys")?;
        let title = if relay { "Private Key:" } else { "Public Key:" };
        let key = text.lines().skip_while(|line| line.trim() != title).nth(1);
        Ok(key.context("rathole --genkey printed no keys")?.trim().into())
    }

    fn transport(&self, place: &Place, relay: bool) -> anyhow::Result<String> {
        if !self.noise {
            return Ok(String::new());
        }
        let (side, field) = if relay { ("server", "local_private_key") } else { ("client", "remote_public_key") };
        let key = self.key(place, relay)?;
        Ok(format!(
            "[{side}.transport]\ntype = \"noise\"\n[{side}.transport.noise]\n\
             pattern = \"Noise_NK_25519_ChaChaPoly_BLAKE2s\"\n{field} = \"{key}\"\n"
        ))
    }
}

impl Peer for Rathole {
    fn name(&self) -> String {
        if self.noise { "rathole-noise" } else { "rathole" }.into()
    }

    fn programs(&self) -> Vec<&'static str> {
        vec!["rathole", "haproxy"]
    }

    fn install(&self) -> &'static str {
        "cargo install rathole --root DIR, and --programs DIR/bin; apt-get install haproxy"
    }

    fn prepare(&self, place: &Place) -> anyhow::Result<()> {
        let mut relay = format!("[server]\nbind_addr = \"{}\"\ndefault_token = \"lab\"\n", place.tunnel());
        relay += &self.transport(place, true)?;
        for number in 0..place.agents {
            let port = plain_port(number);
            let _ = writeln!(relay, "[server.services.server{number}]\nbind_addr = \"127.0.0.1:{port}\"");
            let mut agent = format!("[client]\nremote_addr = \"{}\"\ndefault_token = \"lab\"\n", place.tunnel());
            agent += &self.transport(place, false)?;
            let _ = writeln!(agent, "[client.services.server{number}]\nlocal_addr = \"{}\"", place.server());
            place.write(&format!("rathole-agent{number}.toml"), &agent)?;
        }
        place.write("rathole-relay.toml", &relay)?;
        Ok(())
    }

    fn relay(&self, place: &Place) -> anyhow::Result<Vec<Launch>> {
        let launch = Launch::new(place.program("rathole")?, "--server").and(place.file("rathole-relay.toml"));
        Ok(vec![launch.with("RUST_LOG", "warn")])
    }

    fn agent(&self, place: &Place, number: usize) -> anyhow::Result<Vec<Launch>> {
        let launch = Launch::new(place.program("rathole")?, "--client");
        let launch = launch.and(place.file(&format!("rathole-agent{number}.toml")));
        Ok(vec![launch.with("RUST_LOG", "warn")])
    }
}
