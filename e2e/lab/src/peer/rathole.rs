//! rathole: a pool of connections, one for each that it forwards; over plain TCP, Noise, TLS, or WebSockets over TLS.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::house::{Launch, Peer, Place, plain_port};

/// What a connection between its ends is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Tcp,
    Noise,
    Tls,
    Wss,
}

pub(super) struct Rathole {
    pub(super) over: Over,
}

/// What opens the relay's PKCS 12 file.
const PASSWORD: &str = "lab";

impl Rathole {
    /// Of its Noise key pair: the relay's half, or the agents'.
    fn key(place: &Place, relay: bool) -> anyhow::Result<String> {
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

    fn noise(place: &Place, relay: bool) -> anyhow::Result<String> {
        let field = if relay { "local_private_key" } else { "remote_public_key" };
        let key = Self::key(place, relay)?;
        Ok(format!("pattern = \"Noise_NK_25519_ChaChaPoly_BLAKE2s\"\n{field} = \"{key}\"\n"))
    }

    /// Certificate and key in the one form that it reads, for the relay; what agents check it by.
    fn tls(place: &Place, relay: bool) -> anyhow::Result<String> {
        if !relay {
            let root = place.file("ca.pem");
            return Ok(format!("trusted_root = \"{}\"\nhostname = \"{}\"\n", root.display(), place.name()));
        }
        let file = place.file("rathole.p12");
        if !file.exists() {
            let mut openssl = Command::new(place.program("openssl")?);
            openssl.args(["pkcs12", "-export", "-passout"]).arg(format!("pass:{PASSWORD}"));
            openssl.arg("-in").arg(place.file("relay.pem")).arg("-inkey").arg(place.file("relay.key"));
            let done = openssl.arg("-out").arg(&file).status().context("cannot run openssl")?;
            ensure!(done.success(), "openssl made no PKCS 12 file of the relay's certificate");
        }
        Ok(format!("pkcs12 = \"{}\"\npkcs12_password = \"{PASSWORD}\"\n", file.display()))
    }

    fn transport(&self, place: &Place, relay: bool) -> anyhow::Result<String> {
        let side = if relay { "server" } else { "client" };
        let table = |name: &str, text: String| format!("[{side}.transport.{name}]\n{text}");
        let (kind, tables) = match self.over {
            Over::Tcp => return Ok(String::new()),
            Over::Noise => ("noise", table("noise", Self::noise(place, relay)?)),
            Over::Tls => ("tls", table("tls", Self::tls(place, relay)?)),
            Over::Wss => {
                let over_tls = table("websocket", "tls = true\n".into());
                ("websocket", over_tls + &table("tls", Self::tls(place, relay)?))
            }
        };
        Ok(format!("[{side}.transport]\ntype = \"{kind}\"\n{tables}"))
    }
}

impl Peer for Rathole {
    fn name(&self) -> String {
        match self.over {
            Over::Tcp => "rathole",
            Over::Noise => "rathole-noise",
            Over::Tls => "rathole-tls",
            Over::Wss => "rathole-wss",
        }
        .into()
    }

    fn programs(&self) -> Vec<&'static str> {
        match self.over {
            Over::Tcp | Over::Noise => vec!["rathole", "haproxy"],
            Over::Tls | Over::Wss => vec!["rathole", "haproxy", "openssl"],
        }
    }

    fn install(&self) -> &'static str {
        "cargo install rathole --root DIR, and --programs DIR/bin; apt-get install haproxy openssl"
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
