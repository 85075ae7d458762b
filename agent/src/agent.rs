//! An agent: its rooms, built bottom-up and drained top-down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_certs::{Bundle, CertsError};
use adit_common::daemon::Shutdown;
use adit_common::id::AgentId;
use adit_common::manifest::{Manifest, ModelState};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::watch;

use crate::api::{Api, Carriage, Listener, admin, endpoints, router};
use crate::config::Config;
use crate::error::AgentError;
use crate::metrics::Metrics;
use crate::serving::{Catalogue, Defaults, Devices, Limits, Repository, Serving};
use crate::tunnel::{Dialer, Reports, Service, Socket};
use crate::upstream::Upstreams;

/// What an agent without relays is called: it needs no certificate, and nobody but a person reads the name.
const ALONE: &str = "local";

/// What is left of an agent's own tasks ends at once; this is for the scheduler.
const MOMENT: Duration = Duration::from_secs(1);

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    id: AgentId,
    /// What serves requests: drained first.
    scope: Shutdown,
    /// What watches over it: lives until the last request is answered.
    house: Shutdown,
    serving: Serving,
    metrics: Arc<Metrics>,
    upstreams: Upstreams,
    /// Kept: a catalogue whose owner is gone can no longer be waited on.
    _repository: Arc<Repository>,
    /// Kept: a manifest whose owner is gone would end its reports.
    _manifest: Arc<watch::Sender<Manifest>>,
    local: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    socket: Option<Socket>,
    config: Config,
}

impl Agent {
    /// Reads the identity and the models' descriptions, binds what is to be listened on, and starts to load and to dial. What
    /// can be wrong with the configuration is found here, and not later.
    pub async fn start(mut config: Config) -> Result<Self, AgentError> {
        if config.relays.is_empty() && config.local.listen.is_none() && config.local.also.is_empty() {
            let message = "there is nobody to serve: give a [[relay]], or [local] listen";
            return Err(AgentError::Config(message.to_owned()));
        }
        let identity = identity(&config)?;
        let id = match &identity {
            Some((id, _)) => id.clone(),
            None => AgentId::new(ALONE).map_err(|error| AgentError::Config(error.to_string()))?,
        };
        let (scope, house, metrics) = (Shutdown::new(), Shutdown::new(), Arc::new(Metrics::new()));
        let upstreams = Upstreams::new(&config.upstreams, &metrics, &scope, &house)?;
        let serves_models = config.serves_models();
        config.serving.embedded = Some(config.serves_embedded());

        let repository = Arc::new(Repository::scan(&config.serving, metrics.clone())?);
        let serving = serving(&config, &repository, metrics.clone());
        let (host, control) = (host_name(&id), config.local.control);
        let carriage = Carriage::new(upstreams.clone(), serves_models);
        let api = Api::new(serving.clone(), &config.api, metrics.clone(), host, control, carriage, scope.clone());
        let router = router(Arc::new(api));

        let (mut local, mut admin_address) = (None, None);
        if let Some(address) = config.local.listen {
            let listener = Listener::bind(address, "requests").await?;
            local = Some(listener.address());
            scope.spawn("local", listener.run(router.clone(), scope.clone()));
        }
        for address in &config.local.also {
            let listener = Listener::bind(*address, "requests").await?;
            scope.spawn("local", listener.run(router.clone(), scope.clone()));
        }
        if let Some(address) = config.admin.listen {
            let listener = Listener::bind(address, "health and metrics").await?;
            admin_address = Some(listener.address());
            let router = admin(serving.clone(), metrics.clone(), config.serving.stuck_after);
            house.spawn("admin", listener.run(router, house.clone()));
        }

        let describe = Describe {
            id: id.clone(),
            queue: config.serving.queue,
            devices: repository.devices().clone(),
            metrics: metrics.clone(),
            upstreams: upstreams.clone(),
            serves_models,
        };
        upstreams.watch(&house);
        let manifest = Arc::new(watch::Sender::new(describe.manifest(&serving.catalogue(), false)));
        house.spawn("manifest", describe.run(serving.watch(), manifest.clone(), scope.clone(), house.clone()));
        house.spawn("models", keep(repository.clone(), house.clone()));

        house.spawn("tend", tend(repository.clone(), config.serving.stuck_after, house.clone()));

        let mut socket = None;
        if let Some((_, bundle)) = identity {
            let bound = Socket::bind(&config.tunnel, &metrics)?;
            let reports = Reports::new(manifest.subscribe(), metrics.load());
            let service = Service::new(router, reports, metrics.clone());
            for relay in &config.relays {
                let dialer = Dialer::new(
                    relay.clone(),
                    bound.clone(),
                    bundle.clone(),
                    &config.tunnel,
                    service.clone(),
                    scope.clone(),
                    metrics.clone(),
                );
                scope.spawn("dialer", dialer.run());
            }
            socket = Some(bound);
        }
        tracing::info!(agent = %id, relays = config.relays.len(), "the agent runs");
        let (_repository, _manifest) = (repository, manifest);
        Ok(Self {
            id,
            scope,
            house,
            serving,
            metrics,
            upstreams,
            _repository,
            _manifest,
            local,
            admin: admin_address,
            socket,
            config,
        })
    }

    /// Who it is: the name in its certificate.
    pub const fn id(&self) -> &AgentId {
        &self.id
    }

    /// Where the local listener is, if it is on.
    pub const fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Where health and metrics are served, if they are.
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// What it counts.
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The models and their states.
    pub const fn serving(&self) -> &Serving {
        &self.serving
    }

    /// Resolves when every model that was there at the start is loaded, or was found not to be loadable, and every server behind the
    /// agent was looked at.
    pub async fn settled(&self) {
        // An error would mean that the repository is gone, and it is kept here.
        let _ = self.serving.watch().wait_for(Catalogue::is_settled).await;
        self.upstreams.settled().await;
    }

    /// Whether a restart would make nothing better: a model that hangs is given up and does not count, unless it is the last.
    pub fn is_alive(&self) -> bool {
        self.serving.is_alive(self.config.serving.stuck_after)
    }

    /// Finishes what was accepted and stops. The relays are told to send nothing more, and close each tunnel when they have
    /// their last answer; requests that the drain time-out cuts off are lost. True if none was.
    pub async fn drain(self) -> bool {
        tracing::info!(timeout = ?self.config.drain_timeout, "draining");
        let in_time = self.scope.finish(self.config.drain_timeout).await;
        if !in_time {
            tracing::warn!("the drain time-out has passed: what was left is cut off");
        }
        if let Some(socket) = &self.socket {
            socket.close().await;
        }
        self.house.finish(MOMENT).await;
        in_time
    }
}

/// Looks after the models' workers, several times within the patience that they are owed.
async fn tend(repository: Arc<Repository>, patience: Duration, house: Shutdown) {
    let mut tick = tokio::time::interval((patience / 4).clamp(Duration::from_millis(10), Duration::from_secs(5)));
    loop {
        tokio::select! {
            _ = tick.tick() => repository.tend(patience),
            () = house.draining() => return,
        }
    }
}

/// The serving room over a repository, as the configuration wants it.
fn serving(config: &Config, repository: &Repository, metrics: Arc<Metrics>) -> Serving {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let limits = Limits {
        max_images: config.serving.max_images,
        max_pixels: config.api.max_pixels,
        decoders: if config.serving.decoders == 0 { cores() } else { config.serving.decoders },
    };
    let defaults =
        Defaults { model: config.serving.default_model.clone(), detector: config.serving.default_detector.clone() };
    Serving::new(repository, defaults, limits, metrics)
}

/// Ends the keeping of models when it is dropped: with its task, at the latest, because a runtime waits for its blocking threads.
struct Keeping(Arc<Repository>);

impl Drop for Keeping {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Keeps the models as their folder is, until the house drains.
async fn keep(repository: Arc<Repository>, house: Shutdown) {
    let keeping = Keeping(repository.clone());
    let mut keeper = tokio::task::spawn_blocking(move || repository.keep());
    let kept = tokio::select! {
        kept = &mut keeper => kept,
        () = house.draining() => {
            drop(keeping);
            keeper.await
        }
    };
    if let Err(error) = kept {
        tracing::error!(%error, "nobody keeps the models any more: they stay as they are");
    }
}

/// The agent's certificate files and the name that they carry; none without relays.
fn identity(config: &Config) -> Result<Option<(AgentId, Bundle)>, AgentError> {
    if config.relays.is_empty() {
        return Ok(None);
    }
    let folder = config.tls_dir.as_ref().ok_or_else(|| {
        let message = "a relay needs the agent's certificate: give tls_dir, or --tls-dir, with the files of `adit-certs issue agent`";
        AgentError::Config(message.to_owned())
    })?;
    let bundle = Bundle::agent(folder);
    // Finds out all that can be wrong with the files.
    adit_certs::agent_tunnel(&bundle)?;
    let leaf = CertificateDer::from_pem_file(&bundle.certificate)
        .map_err(|error| CertsError::Malformed { path: bundle.certificate.clone(), reason: error.to_string() })?;
    let id = adit_certs::peer_agent(std::slice::from_ref(&leaf))?;
    Ok(Some((id, bundle)))
}

/// What this machine calls itself; the agent's name where it does not tell.
fn host_name(id: &AgentId) -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|name| name.trim().to_owned());
    let known = |name: &String| !name.is_empty();
    read("/proc/sys/kernel/hostname")
        .filter(known)
        .or_else(|| read("/etc/hostname").filter(known))
        .unwrap_or_else(|| id.to_string())
}

/// Keeps the manifest true.
struct Describe {
    id: AgentId,
    queue: usize,
    devices: Arc<Devices>,
    metrics: Arc<Metrics>,
    upstreams: Upstreams,
    serves_models: bool,
}

impl Describe {
    /// Says it anew whenever the state of a model or of a server behind the agent changes, and when draining begins.
    async fn run(
        self,
        mut catalogue: watch::Receiver<Catalogue>,
        manifest: Arc<watch::Sender<Manifest>>,
        scope: Shutdown,
        house: Shutdown,
    ) {
        let mut changes = self.upstreams.changes();
        loop {
            changes.mark_unchanged();
            let said = self.manifest(&catalogue.borrow_and_update(), scope.is_draining());
            self.metrics.set_models(said.models.clone());
            let draining = said.draining;
            manifest.send_if_modified(|before| {
                let changed = *before != said;
                *before = said;
                changed
            });
            tokio::select! {
                changed = catalogue.changed() => if changed.is_err() { return },
                changed = changes.changed() => if changed.is_err() { return },
                () = scope.draining(), if !draining => {}
                () = house.draining() => return,
            }
        }
    }

    fn manifest(&self, catalogue: &Catalogue, draining: bool) -> Manifest {
        let models = catalogue.report();
        let ready = models.iter().filter(|model| model.state == ModelState::Ready).count();
        Manifest {
            agent: self.id.clone(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            draining,
            models,
            // Without models of its own it leaves all paths to the servers behind it.
            endpoints: if self.serves_models { endpoints(catalogue) } else { Vec::new() },
            upstreams: self.upstreams.report(),
            devices: self.devices.names(),
            // Each model runs one and queues the rest.
            capacity: u32::try_from((self.queue + 1) * ready + self.upstreams.capacity()).unwrap_or(u32::MAX),
        }
    }
}
