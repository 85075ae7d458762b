//! A relay and its agents in this process, with all that they need in a folder of their own.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_agent::Agent;
use adit_agent::config::{RelayConfig, TransportChoice};
use adit_certs::{RelayName, Store, Validity};
use adit_client::{Connector, Key, Options, Trust};
use adit_common::daemon::{Shutdown, format_duration};
use adit_common::id::AgentId;
use adit_common::manifest::{ModelState, Scope};
use adit_relay::{KeyFile, Relay};
use anyhow::{Context as _, Result};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;

use crate::https::{Client, LIMIT, Version, plain, tls};
use crate::link::Link;

/// Houses of one process stand side by side, unless one measures: then it stands alone.
pub(crate) static STREET: RwLock<()> = RwLock::const_new(());

/// How often a state is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(5);

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[derive(Debug)]
enum Place {
    Beside(#[allow(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>),
    Alone(#[allow(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>),
}

/// The times that a model which computes nothing takes for each stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct Delays {
    /// Decoding an image.
    pub decode: Duration,
    /// Preparing it.
    pub prepare: Duration,
    /// The forward pass.
    pub forward: Duration,
}

/// One agent to be.
pub struct Plan {
    name: String,
    digits: bool,
    folder: Option<PathBuf>,
    stand_ins: Vec<(String, Delays)>,
    /// How many requests a stand-in takes at a time.
    max_batch: usize,
    link: bool,
    udp_blocked: bool,
    at_front: bool,
    change: Box<dyn FnOnce(&mut adit_agent::config::Config) + Send>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Plan").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Plan {
    /// An agent of this name without models.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            digits: false,
            folder: None,
            stand_ins: Vec::new(),
            max_batch: 8,
            link: false,
            udp_blocked: false,
            at_front: false,
            change: Box::new(|_| {}),
        }
    }

    /// With the digits model that is part of the program.
    #[must_use]
    pub fn digits(mut self) -> Self {
        self.digits = true;
        self
    }

    /// With the models of a folder; stand-ins are not looked for then.
    #[must_use]
    pub fn models(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// With a model that takes these times and answers class 0. It has one worker, which takes up to eight waiting requests
    /// at a time.
    #[must_use]
    pub fn stand_in(mut self, model: &str, delays: Delays) -> Self {
        self.stand_ins.push((model.to_owned(), delays));
        self
    }

    /// With stand-ins that take one request at a time, so that who comes second waits.
    #[must_use]
    pub fn one_at_a_time(mut self) -> Self {
        self.max_batch = 1;
        self
    }

    /// Behind a [`Link`].
    #[must_use]
    pub fn link(mut self) -> Self {
        self.link = true;
        self
    }

    /// Behind a [`Link`] that lets no UDP through.
    #[must_use]
    pub fn udp_blocked(mut self) -> Self {
        self.udp_blocked = true;
        self.link()
    }

    /// With its tunnel over TCP, at the port of the relay's front.
    #[must_use]
    pub fn at_front(mut self) -> Self {
        self.at_front = true;
        self
    }

    /// With another configuration.
    #[must_use]
    pub fn change(mut self, change: impl FnOnce(&mut adit_agent::config::Config) + Send + 'static) -> Self {
        self.change = Box::new(change);
        self
    }
}

/// A house to be.
#[derive(Debug, Default)]
pub struct Builder {
    relay: adit_relay::Config,
    agents: Vec<Plan>,
    alone: bool,
}

impl Builder {
    /// With another configuration of the relay.
    #[must_use]
    pub fn relay(mut self, change: impl FnOnce(&mut adit_relay::Config)) -> Self {
        change(&mut self.relay);
        self
    }

    /// With this agent.
    #[must_use]
    pub fn agent(mut self, plan: Plan) -> Self {
        self.agents.push(plan);
        self
    }

    /// With no other house of this process beside it, for tests that measure time or memory.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Starts everything, and returns when the relay knows every agent's models. A test opens one house: a second one would
    /// wait for a third that wants to be alone and waits for the first.
    pub async fn open(self) -> Result<House> {
        let place = if self.alone { Place::Alone(STREET.write().await) } else { Place::Beside(STREET.read().await) };
        let folder = tempfile::tempdir()?;
        let store = Store::new(folder.path().join("certificates"));
        let names: [RelayName; 2] = ["127.0.0.1".parse()?, "localhost".parse()?];
        store.init(&names, Validity::default(), false)?;

        let mut config = self.relay;
        config.tls = store.relay_folder();
        config.state = folder.path().join("relay");
        (config.front.listen, config.tunnel.listen, config.admin.listen) = (LOOPBACK, LOOPBACK, LOOPBACK);
        let keys = KeyFile::new(config.keys_file());
        let key = keys.create("house", &[Scope::Infer])?;
        let control = keys.create("control-only", &[Scope::Control])?;
        let relay = Relay::start(&config)?;
        let ca = config.tls.join("ca.pem");
        let scope = Shutdown::new();
        let mut house = House { relay, agents: Vec::new(), key, control, ca, scope, folder, _place: place };
        for plan in self.agents {
            house.move_in(&store, plan).await?;
        }
        Ok(house)
    }
}

struct Resident {
    agent: Agent,
    link: Option<Link>,
}

/// A running house.
pub struct House {
    relay: Relay,
    agents: Vec<Resident>,
    key: String,
    control: String,
    ca: PathBuf,
    scope: Shutdown,
    folder: TempDir,
    _place: Place,
}

impl std::fmt::Debug for House {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("House").field("folder", &self.folder.path()).finish_non_exhaustive()
    }
}

impl House {
    /// A house without agents, to begin with.
    pub fn builder() -> Builder {
        Builder::default()
    }

    async fn move_in(&mut self, store: &Store, plan: Plan) -> Result<()> {
        let id: AgentId = plan.name.parse()?;
        let own = store.agent_folder(&id);
        store.issue_agent(&id, Validity::default(), &own)?;
        let mut config = adit_agent::config::Config { tls_dir: Some(own), ..Default::default() };
        config.serving.embedded = Some(plan.digits);
        config.serving.models = match plan.folder {
            Some(folder) => Some(folder),
            None if plan.stand_ins.is_empty() => None,
            None => {
                let folder = self.folder.path().join("models").join(&plan.name);
                Some(write_stand_ins(&folder, &plan.stand_ins, plan.max_batch)?)
            }
        };
        let tunnel = self.relay.addresses().tunnel;
        let link = if plan.link { Some(Link::open(tunnel, &self.scope).await?) } else { None };
        let address = link.as_ref().map_or(tunnel, Link::address).to_string();
        if let Some(link) = link.as_ref().filter(|_| plan.udp_blocked) {
            link.block_udp();
        }
        config.relays = vec![RelayConfig::new(address)];
        if plan.at_front {
            config.relays[0].transport = TransportChoice::Tcp;
            config.relays[0].tcp_address = Some(self.relay.addresses().https.to_string());
        }
        (plan.change)(&mut config);
        let agent = Agent::start(config).await?;
        timeout(LIMIT, agent.settled()).await.context("the models should have been read")?;
        self.agents.push(Resident { agent, link });
        self.until_known(&plan.name).await
    }

    /// Waits until the relay knows an agent with the models that it says it has, every one ready.
    pub async fn until_known(&self, agent: &str) -> Result<()> {
        let resident = &self.resident(agent)?.agent;
        let have: BTreeSet<String> =
            resident.serving().catalogue().report().iter().map(|model| model.name.to_string()).collect();
        let ready = serde_json::to_value(ModelState::Ready)?;
        self.until(|fleet| {
            let mut entries = fleet["agents"].as_array().into_iter().flatten();
            entries.any(|entry| {
                let models = entry["models"].as_array().into_iter().flatten();
                let known = models.filter(|model| model["state"] == ready).filter_map(|model| model["name"].as_str());
                entry["agent"] == agent && known.map(str::to_owned).collect::<BTreeSet<_>>() == have
            })
        })
        .await
        .with_context(|| format!("{agent} with {have:?}"))
    }

    /// Waits until the relay says this of its fleet.
    pub async fn until(&self, holds: impl Fn(&Value) -> bool) -> Result<()> {
        let wait = async {
            loop {
                let fleet = serde_json::from_str(&plain(self.relay.addresses().admin, "/fleet", &self.scope).await?)?;
                if holds(&fleet) {
                    return Ok(());
                }
                sleep(LOOK).await;
            }
        };
        timeout(LIMIT, wait).await.context("the fleet should have become so")?
    }

    /// Waits until the agent says this of its load: requests in flight, and of these queued.
    pub async fn until_busy(&self, agent: &str, in_flight: u32, queued: u32) -> Result<()> {
        let mut load = self.agent(agent)?.metrics().load();
        let wait = load.wait_for(|load| load.in_flight == in_flight && load.queued == queued);
        timeout(LIMIT, wait).await.with_context(|| format!("a load of {in_flight} and {queued}"))??;
        Ok(())
    }

    /// The running relay.
    pub const fn relay(&self) -> &Relay {
        &self.relay
    }

    /// A running agent.
    pub fn agent(&self, name: &str) -> Result<&Agent> {
        Ok(&self.resident(name)?.agent)
    }

    /// The link that an agent is behind.
    pub fn link(&self, agent: &str) -> Result<&Link> {
        self.resident(agent)?.link.as_ref().context("it has no link")
    }

    fn resident(&self, name: &str) -> Result<&Resident> {
        let found = self.agents.iter().find(|resident| resident.agent.id().as_str() == name);
        found.with_context(|| format!("no agent {name}"))
    }

    /// One of the relay's metrics, written with its labels.
    pub async fn relay_metric(&self, name: &str) -> Result<f64> {
        value(&plain(self.relay.addresses().admin, "/metrics", &self.scope).await?, name)
    }

    /// One of an agent's metrics, written with its labels.
    pub fn agent_metric(&self, agent: &str, name: &str) -> Result<f64> {
        value(&self.agent(agent)?.metrics().render(), name)
    }

    /// Waits until one of an agent's counters has come so far.
    pub async fn until_counted(&self, agent: &str, name: &str, count: f64) -> Result<()> {
        let wait = async {
            while self.agent_metric(agent, name)? < count {
                sleep(LOOK).await;
            }
            Ok(())
        };
        timeout(LIMIT, wait).await.with_context(|| format!("{count} of {name}"))?
    }

    /// A connection of a client that has the house's key.
    pub async fn client(&self, version: Version) -> Result<Client> {
        self.client_with(version, Some(&self.key)).await
    }

    /// A connection of a client with another key, or none.
    pub async fn client_with(&self, version: Version, key: Option<&str>) -> Result<Client> {
        Client::connect(self.relay.addresses().https, &self.ca, version, key, self.scope.child()).await
    }

    /// A key that may change agents, but not ask models.
    pub fn control_key(&self) -> &str {
        &self.control
    }

    /// The key that may ask models.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whose certificates are good.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// Tasks of this scope are stopped with the house.
    pub const fn scope(&self) -> &Shutdown {
        &self.scope
    }

    /// A bare TLS connection to the relay's front.
    pub async fn tls(&self, alpn: &str) -> Result<TlsStream<TcpStream>> {
        tls(self.relay.addresses().https, &self.ca, alpn).await
    }

    /// A bare TLS connection to the TCP port of the tunnels' own.
    pub async fn tls_to_tunnel(&self, alpn: &str) -> Result<TlsStream<TcpStream>> {
        tls(self.relay.addresses().tunnel, &self.ca, alpn).await
    }

    /// Where the program `adit` would connect.
    pub fn url(&self) -> String {
        format!("https://{}", self.relay.addresses().https)
    }

    /// Connections as the program `adit` makes them.
    pub fn connector(&self) -> Result<Connector> {
        let mut options = Options::new(self.url().parse()?);
        options.trust = Trust::File(self.ca.clone());
        options.key = Some(Key::new(&self.key)?);
        Ok(Connector::new(options)?)
    }

    /// Drains one agent, and returns when the relay has forgotten it.
    pub async fn move_out(&mut self, agent: &str) -> Result<()> {
        self.resident(agent)?;
        if let Some(place) = self.agents.iter().position(|resident| resident.agent.id().as_str() == agent) {
            self.agents.remove(place).agent.drain().await;
        }
        self.until(|fleet| fleet["agents"].as_array().into_iter().flatten().all(|entry| entry["agent"] != agent)).await
    }

    /// Drains agents and relay. True if nobody had to be cut off.
    pub async fn close(self) -> bool {
        let mut in_time = true;
        for resident in self.agents {
            in_time &= resident.agent.drain().await;
        }
        in_time &= self.relay.drain().await;
        self.scope.kill();
        in_time
    }
}

fn write_stand_ins(folder: &Path, models: &[(String, Delays)], max_batch: usize) -> Result<PathBuf> {
    for (name, delays) in models {
        let mut text = "architecture = \"stand_in\"\n[stand_in]\n".to_owned();
        for (key, time) in [("decode", delays.decode), ("prepare", delays.prepare), ("forward", delays.forward)] {
            writeln!(text, "{key} = \"{}\"", format_duration(time))?;
        }
        writeln!(text, "[batching]\nmax_batch = {max_batch}\ninstances = 1")?;
        std::fs::create_dir_all(folder.join(name))?;
        std::fs::write(folder.join(name).join("model.toml"), text)?;
    }
    Ok(folder.to_owned())
}

fn value(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {name} in\n{text}"))?.parse()?)
}
