//! Adit: its relay does TLS itself, its agents carry the server as an upstream, or answer by a network of their own that takes a
//! set time (`adit-model`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use toml::{Table, Value, toml};

use crate::house::{HTTPS_PORT, Launch, Peer, Place};

/// What answers in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serves {
    /// The stand-in, as an upstream.
    Upstream,
    /// A network in the agent that takes its time over decoding.
    Model,
}

/// What differs from the lab's usual settings: a file of `--peers adit:FILE`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variant {
    /// Where its programs are, if not on the path.
    programs: Option<PathBuf>,
    /// Laid over relay.toml.
    #[serde(default)]
    relay: Table,
    /// Laid over agent.toml.
    #[serde(default)]
    agent: Table,
}

impl Variant {
    /// Reads a file of one.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} describes no variant of Adit", path.display()))
    }
}

pub(super) struct Adit {
    pub(super) name: String,
    pub(super) serves: Serves,
    pub(super) variant: Variant,
}

impl Adit {
    fn program(&self, place: &Place, name: &str) -> anyhow::Result<PathBuf> {
        match &self.variant.programs {
            Some(folder) => Ok(fs::canonicalize(folder.join(name))
                .with_context(|| format!("there is no {name} in {}", folder.display()))?),
            None => place.program(name),
        }
    }

    fn folder(&self, place: &Place) -> PathBuf {
        place.file("adit")
    }

    fn relay_toml(&self, place: &Place) -> Table {
        let folder = self.folder(place);
        let (tls, state) = (text(&folder.join("certs/relay")), text(&folder.join("state")));
        let (front, tunnel) = (format!("0.0.0.0:{HTTPS_PORT}"), place.tunnel().to_string());
        let mut written = toml! {
            drain = "1s"
            [auth]
            anonymous = ["infer"]
            [log]
            filter = "warn"
        };
        written.insert("tls".into(), tls);
        written.insert("state".into(), state);
        // As much, and for as long, as haproxy lets the others have.
        let front = [("listen".into(), front.into()), ("max_body".into(), "256MiB".into())];
        written.insert("front".into(), Table::from_iter(front).into());
        written.insert("proxy".into(), Table::from_iter([("timeout".into(), "2m".into())]).into());
        written.insert("tunnel".into(), Table::from_iter([("listen".into(), tunnel.into())]).into());
        lay_over(&mut written, &self.variant.relay);
        written
    }

    fn agent_toml(&self, place: &Place, number: usize) -> Table {
        // A thousand requests at a time are part of what is measured.
        let mut written = toml! {
            [tunnel]
            streams = 2048
            [log]
            filter = "warn"
        };
        let relay = [("address".into(), place.tunnel().to_string().into()), ("name".into(), place.name().into())];
        written.insert("relay".into(), vec![Value::from(Table::from_iter(relay))].into());
        match self.serves {
            Serves::Upstream => {
                let upstream = [
                    ("name".into(), format!("server{number}").into()),
                    ("url".into(), format!("http://{}", place.server()).into()),
                    ("host".into(), place.host(number).into()),
                    ("max_requests".into(), 4096.into()),
                    ("timeout".into(), "2m".into()),
                ];
                written.insert("upstream".into(), vec![Value::from(Table::from_iter(upstream))].into());
            }
            Serves::Model => {
                // One thread a request that is being served, as the stand-in has.
                let serving = [("decoders".into(), 512.into()), ("queue".into(), 4096.into())];
                written.insert("serving".into(), Table::from_iter(serving).into());
            }
        }
        lay_over(&mut written, &self.variant.agent);
        written
    }
}

impl Peer for Adit {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn programs(&self) -> Vec<&'static str> {
        // Of another folder it is said when it is needed.
        if self.variant.programs.is_some() { Vec::new() } else { vec!["adit-relay", "adit-agent", "adit-certs"] }
    }

    fn install(&self) -> &'static str {
        "cargo build --release, and name the folder of the programs: --programs target/release"
    }

    fn has_front(&self) -> bool {
        true
    }

    fn most_agents(&self) -> usize {
        match self.serves {
            Serves::Upstream => 1000,
            Serves::Model => 1,
        }
    }

    fn prepare(&self, place: &Place) -> anyhow::Result<()> {
        let folder = self.folder(place);
        for inside in ["models/stand_in", "state"] {
            fs::create_dir_all(folder.join(inside)).context("cannot make Adit's folders")?;
        }
        let certs = self.program(place, "adit-certs")?;
        if !folder.join("certs").exists() {
            let names =
                (0..50).map(|number| place.host(number)).chain([place.name().into(), place.tunnel().ip().to_string()]);
            run(Command::new(&certs).args(["init", "--dir"]).arg(folder.join("certs")).arg("--name").args(names))?;
        }
        for number in 0..place.agents {
            if !folder.join(format!("certs/agents/agent{number}")).exists() {
                let name = format!("agent{number}");
                run(Command::new(&certs).args(["issue", "agent", &name, "--dir"]).arg(folder.join("certs")))?;
            }
            place.write(&format!("adit/agent{number}.toml"), &toml::to_string(&self.agent_toml(place, number))?)?;
        }
        place.write("adit/relay.toml", &toml::to_string(&self.relay_toml(place))?)?;
        let model = format!("architecture = \"stand_in\"\n[stand_in]\ndecode = \"{}us\"\n", place.service_us);
        place.write("adit/models/stand_in/model.toml", &model)?;
        Ok(())
    }

    fn relay(&self, place: &Place) -> anyhow::Result<Vec<Launch>> {
        let config = self.folder(place).join("relay.toml");
        Ok(vec![Launch::new(self.program(place, "adit-relay")?, "run --config").and(config)])
    }

    fn agent(&self, place: &Place, number: usize) -> anyhow::Result<Vec<Launch>> {
        let folder = self.folder(place);
        let launch = Launch::new(self.program(place, "adit-agent")?, "run --config")
            .and(folder.join(format!("agent{number}.toml")))
            .and("--tls-dir")
            .and(folder.join(format!("certs/agents/agent{number}")));
        Ok(vec![match self.serves {
            Serves::Upstream => launch,
            Serves::Model => launch.and("--models").and(folder.join("models")),
        }])
    }

    fn authority(&self, place: &Place) -> PathBuf {
        self.folder(place).join("certs/relay/ca.pem")
    }

    fn path(&self, path: &str) -> Option<String> {
        match self.serves {
            Serves::Upstream => Some(path.into()),
            // Its time is set in model.toml.
            Serves::Model => path.starts_with("/infer").then(|| "/photo".into()),
        }
    }
}

/// Tables are laid over tables, everything else takes its namesake's place.
fn lay_over(below: &mut Table, above: &Table) {
    for (key, value) in above {
        match (below.get_mut(key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above),
            _ => drop(below.insert(key.clone(), value.clone())),
        }
    }
}

fn text(path: &Path) -> Value {
    path.display().to_string().into()
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let done = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_laid_over_the_usual_settings() {
        let mut below = toml! {
            drain = "1s"
            [tunnel]
            listen = "x"
            streams = 1
        };
        let above = toml! {
            [tunnel]
            streams = 2
            congestion = "cubic"
            [front]
            streams = 3
        };
        lay_over(&mut below, &above);
        let expected = toml! {
            drain = "1s"
            [tunnel]
            listen = "x"
            streams = 2
            congestion = "cubic"
            [front]
            streams = 3
        };
        assert_eq!(below, expected);
    }

    #[test]
    fn a_variant_says_where_it_differs_and_nothing_else() {
        let variant: Variant = toml::from_str("programs = \"x\"\n[relay.tunnel]\ncongestion = \"cubic\"\n").unwrap();
        assert_eq!(variant.relay["tunnel"]["congestion"].as_str(), Some("cubic"));
        assert!(toml::from_str::<Variant>("[tunnel]\ncongestion = \"cubic\"\n").is_err());
    }
}
