//! Which models and versions there are, and in which state.
//!
//! The folder is read at the start; versions are then loaded one after another in the background, so that the agent is on its
//! tunnels at once and says of each model that it is loading. A broken model is reported with its reason, everywhere where
//! models are listed, and the others are served. The catalogue is one watched value: whoever serves a request reads it, whoever
//! reports it waits for its next change.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_common::id::{ModelName, Version};
use adit_common::manifest::{self, ModelState};
use tokio::sync::watch;

use super::batching::Batching;
use super::embedded;
use super::model::{Model, Origin, weights_file};
use super::spec::{Kind, Spec};
use crate::config::ServingConfig;
use crate::error::{AgentError, InferError};
use crate::metrics::Metrics;

/// Stands for the version of a model whose description is so broken that its versions are unknown.
const UNKNOWN: Version = Version(0);

/// One version of one model.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whether it can be asked.
    pub state: ModelState,
    /// Why it is unavailable; empty otherwise.
    pub reason: String,
    /// What is asked, once it is ready.
    pub model: Option<Arc<Model>>,
}

impl Entry {
    /// The model, if it answers.
    pub(super) fn sound(&self) -> Option<&Arc<Model>> {
        self.model.as_ref().filter(|model| model.fault().is_none())
    }
}

/// Every version of every model, with its state.
#[derive(Debug, Clone, Default)]
pub struct Catalogue(BTreeMap<ModelName, BTreeMap<Version, Entry>>);

impl Catalogue {
    /// All of them, by name and version.
    pub fn entries(&self) -> impl Iterator<Item = (&ModelName, Version, &Entry)> {
        self.0.iter().flat_map(|(name, versions)| versions.iter().map(move |(version, entry)| (name, *version, entry)))
    }

    /// The versions of one model; `None` if there is no such model.
    pub fn versions(&self, name: &ModelName) -> Option<&BTreeMap<Version, Entry>> {
        self.0.get(name)
    }

    /// The model to ask: of this version, or else the newest that is ready.
    pub fn find(&self, name: &ModelName, version: Option<Version>) -> Result<Arc<Model>, InferError> {
        let unknown = || InferError::NotFound { model: name.to_string(), version };
        let versions = self.0.get(name).ok_or_else(unknown)?;
        let entry = match version {
            Some(version) => versions.get(&version).ok_or_else(unknown)?,
            None => versions
                .values()
                .rev()
                .find(|entry| entry.sound().is_some())
                .or_else(|| versions.values().next_back())
                .ok_or_else(unknown)?,
        };
        entry.sound().cloned().ok_or_else(|| InferError::NotReady {
            model: name.clone(),
            reason: match (entry.state, entry.model.as_ref().and_then(|model| model.fault())) {
                (ModelState::Loading, _) => "it is being loaded",
                (_, Some(fault)) => fault,
                // The reason itself names files, and is for those who may see the index.
                _ => "it could not be loaded, see the repository index",
            },
        })
    }

    /// The first classifier by name that is ready.
    pub fn first_classifier(&self) -> Option<&ModelName> {
        let classifies = |entry: &Entry| entry.sound().is_some_and(|model| !model.is_detector());
        self.entries().find(|(_, _, entry)| classifies(entry)).map(|(name, ..)| name)
    }

    /// The first model by name that is ready.
    pub fn first_ready(&self) -> Option<&ModelName> {
        self.entries().find(|(_, _, entry)| entry.sound().is_some()).map(|(name, ..)| name)
    }

    /// Whether nothing is being loaded any more.
    pub fn is_settled(&self) -> bool {
        self.entries().all(|(_, _, entry)| entry.state != ModelState::Loading)
    }

    /// The models that answer nobody because their workers hang, by name.
    pub fn given_up(&self) -> Vec<ModelName> {
        let faulty = |entry: &Entry| entry.model.as_ref().is_some_and(|model| model.fault().is_some());
        self.entries().filter(|(_, _, entry)| faulty(entry)).map(|(name, ..)| name.clone()).collect()
    }

    /// As a manifest lists them.
    pub fn report(&self) -> Vec<manifest::Model> {
        let line = |(name, version, entry): (&ModelName, Version, &Entry)| {
            let fault = entry.model.as_ref().and_then(|model| model.fault());
            manifest::Model {
                name: name.clone(),
                version,
                state: if fault.is_some() { ModelState::Unavailable } else { entry.state },
                reason: fault.map_or_else(|| entry.reason.clone(), str::to_owned),
            }
        };
        self.entries().map(line).collect()
    }
}

/// A version that is to be loaded.
#[derive(Debug)]
struct Plan {
    name: ModelName,
    version: Version,
    kind: Kind,
    batching: Batching,
    origin: Origin,
}

/// The models of an agent.
#[derive(Debug)]
pub struct Repository {
    catalogue: watch::Sender<Catalogue>,
    plans: Vec<Plan>,
    queue: usize,
    metrics: Arc<Metrics>,
}

impl Repository {
    /// Reads the folder and the descriptions in it, but no weights yet.
    pub fn scan(config: &ServingConfig, metrics: Arc<Metrics>) -> Result<Self, AgentError> {
        let (mut catalogue, mut plans) = (Catalogue::default(), Vec::new());
        if let Some(root) = &config.models {
            for (name, spec) in folders(root)? {
                match spec {
                    Ok(spec) => plan(&name, &spec, &mut catalogue, &mut plans),
                    Err(reason) => catalogue.broken(&name, UNKNOWN, reason),
                }
            }
        }
        if config.embedded.unwrap_or(config.models.is_none()) {
            let name = ModelName::new(embedded::NAME).map_err(|error| AgentError::Config(error.to_string()))?;
            if catalogue.versions(&name).is_some() {
                tracing::warn!(model = %name, "the folder has a model of the built-in one's name: the folder's is served");
            } else {
                let Spec { kind, batching, .. } = embedded::spec().map_err(AgentError::Config)?;
                catalogue.set(&name, embedded::VERSION, ModelState::Loading, "", None);
                plans.push(Plan { name, version: embedded::VERSION, kind, batching, origin: embedded::ORIGIN });
            }
        }
        Ok(Self { catalogue: watch::Sender::new(catalogue), plans, queue: config.queue, metrics })
    }

    /// The catalogue, as it changes.
    pub fn catalogue(&self) -> watch::Receiver<Catalogue> {
        self.catalogue.subscribe()
    }

    /// Gives up workers that have shown no progress for `patience`, and puts others in their places. To be called again and
    /// again.
    pub fn tend(&self, patience: Duration) {
        let models: Vec<_> = self.catalogue.borrow().models().cloned().collect();
        let changed = models.iter().filter(|model| model.engine().tend(patience)).count();
        if changed > 0 {
            // Relays are to know who answers and who does not.
            self.catalogue.send_modify(|_| ());
        }
    }

    /// Loads what was planned, one version after another; `stop` is asked between them. Reads and computes for seconds: not
    /// for the runtime's threads.
    pub fn load(&self, stop: impl Fn() -> bool) {
        for Plan { name, version, kind, batching, origin } in &self.plans {
            if stop() {
                return;
            }
            let (version, begun) = (*version, Instant::now());
            let opened = Model::open(name, version, kind, batching, *origin, self.queue, self.metrics.clone());
            let took = begun.elapsed();
            self.catalogue.send_modify(|catalogue| match opened {
                Ok(model) => {
                    let labels = model.labels().all().len();
                    tracing::info!(model = %name, %version, ?took, labels, "model ready");
                    catalogue.set(name, version, ModelState::Ready, "", Some(Arc::new(model)));
                }
                Err(reason) => catalogue.broken(name, version, reason),
            });
        }
    }
}

impl Catalogue {
    fn set(&mut self, name: &ModelName, version: Version, state: ModelState, reason: &str, model: Option<Arc<Model>>) {
        let entry = Entry { state, reason: reason.to_owned(), model };
        self.0.entry(name.clone()).or_default().insert(version, entry);
    }

    fn broken(&mut self, name: &ModelName, version: Version, reason: String) {
        tracing::error!(model = %name, %version, %reason, "model unavailable");
        self.set(name, version, ModelState::Unavailable, &reason, None);
    }

    fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.entries().filter_map(|(_, _, entry)| entry.model.as_ref())
    }

    /// Whether a restart would make nothing better: no pass is silent without anybody minding it, and not every model has
    /// been given up.
    pub(super) fn is_alive(&self, patience: Duration) -> bool {
        let given_up = self.models().next().is_some() && self.models().all(|model| model.fault().is_some());
        !given_up && self.models().all(|model| model.is_alive(patience))
    }
}

type Described = (ModelName, Result<Spec, String>);

/// The model folders of a root, by name, each with its description or what is wrong with it.
fn folders(root: &Path) -> Result<Vec<Described>, AgentError> {
    let failed = |source| AgentError::Models { path: root.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let file = path.join("model.toml");
        if !path.is_dir() {
            continue;
        }
        let text = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Ok(name) = ModelName::new(&text) else {
            tracing::debug!(folder = text, "not a model's name: passed over");
            continue;
        };
        if !file.exists() {
            tracing::warn!(folder = %path.display(), "no model.toml in it: passed over");
            continue;
        }
        found.push((name, Spec::read(&file)));
    }
    found.sort_by(|(one, _), (two, _)| one.cmp(two));
    if found.is_empty() {
        tracing::warn!(folder = %root.display(), "there is no model in it");
    }
    Ok(found)
}

fn plan(name: &ModelName, spec: &Spec, catalogue: &mut Catalogue, plans: &mut Vec<Plan>) {
    let there = match &spec.kind {
        // It has no files; policies apply to the one version that it always has.
        Kind::StandIn(_) => vec![Version(1)],
        Kind::Network { versions, .. } => match versions_in(versions) {
            Ok(there) => there,
            Err(error) => {
                return catalogue.broken(name, UNKNOWN, format!("cannot read {}: {error}", versions.display()));
            }
        },
    };
    if there.is_empty() {
        let place = match &spec.kind {
            Kind::Network { versions, .. } => versions.display().to_string(),
            Kind::StandIn(_) => String::new(),
        };
        return catalogue.broken(name, UNKNOWN, format!("no <version>/model.safetensors in {place}"));
    }
    for version in spec.policy.choose(there.clone()) {
        if there.contains(&version) {
            catalogue.set(name, version, ModelState::Loading, "", None);
            let (kind, batching) = (spec.kind.clone(), spec.batching);
            plans.push(Plan { name: name.clone(), version, kind, batching, origin: Origin::Folder });
        } else {
            catalogue.broken(name, version, format!("the version policy names version {version}, but it is not there"));
        }
    }
}

/// The versions whose folder holds weights.
fn versions_in(folder: &Path) -> std::io::Result<Vec<Version>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(version) = name.to_str().and_then(|name| name.parse().ok())
            && weights_file(folder, version).is_file()
        {
            found.push(version);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const STAND_IN: &str = "architecture = \"stand_in\"\n";
    const LENET: &str =
        "architecture = \"lenet\"\n[preprocess]\nsize = [28, 28]\nresize = \"digit\"\nchannels = \"grey\"\n";

    fn scan(root: &Path, embedded: bool) -> (Repository, watch::Receiver<Catalogue>) {
        let config =
            ServingConfig { models: Some(root.to_owned()), embedded: Some(embedded), ..ServingConfig::default() };
        let repository = Repository::scan(&config, Arc::new(Metrics::new())).unwrap();
        let catalogue = repository.catalogue();
        (repository, catalogue)
    }

    fn name(text: &str) -> ModelName {
        ModelName::new(text).unwrap()
    }

    #[test]
    fn broken_models_are_reported_and_the_rest_is_served() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &[u8]| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write("good/model.toml", STAND_IN.as_bytes());
        write("misspelt/model.toml", b"architectur = \"lenet\"");
        write("empty/model.toml", LENET.as_bytes());
        write("half/model.toml", LENET.as_bytes());
        write("half/1/model.safetensors", b"not weights");
        write("half/labels.txt", b"zero");
        write("picky/model.toml", format!("{STAND_IN}[version_policy]\nspecific = [1, 7]\n").as_bytes());
        write("notes/readme.txt", b"no model");
        write(".git/model.toml", b"no name");
        let (repository, catalogue) = scan(root.path(), true);
        assert!(!catalogue.borrow().is_settled());
        let loading = catalogue.borrow().find(&name("good"), None).unwrap_err().to_string();
        assert_eq!(loading, "model `good` is not ready: it is being loaded");

        repository.load(|| false);
        let catalogue = catalogue.borrow();
        assert!(catalogue.is_settled() && catalogue.is_alive(Duration::from_secs(60)));
        assert_eq!(catalogue.find(&name("good"), None).unwrap().version(), Version(1));
        assert_eq!(catalogue.find(&name("picky"), None).unwrap().version(), Version(1));
        assert_eq!(catalogue.find(&name("digits"), None).unwrap().labels().all().len(), 10);
        for (model, version, because) in [
            ("misspelt", UNKNOWN, "did you mean `architecture`?"),
            ("empty", UNKNOWN, "no <version>/model.safetensors in"),
            ("half", Version(1), "not a complete safetensors file"),
            ("picky", Version(7), "names version 7"),
        ] {
            let error = catalogue.find(&name(model), Some(version)).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("model `{model}` is not ready: it could not be loaded, see the repository index")
            );
            let reason = &catalogue.versions(&name(model)).unwrap()[&version].reason;
            assert!(reason.contains(because), "{model}: {reason}");
        }
        let states: Vec<_> = catalogue
            .report()
            .into_iter()
            .map(|model| (model.name.to_string(), model.version.0, model.state))
            .collect();
        let (ready, unavailable) = (ModelState::Ready, ModelState::Unavailable);
        assert_eq!(
            states,
            [
                ("digits".into(), 1, ready),
                ("empty".into(), 0, unavailable),
                ("good".into(), 1, ready),
                ("half".into(), 1, unavailable),
                ("misspelt".into(), 0, unavailable),
                ("picky".into(), 1, ready),
                ("picky".into(), 7, unavailable),
            ]
        );
        assert_eq!(catalogue.first_ready(), Some(&name("digits")));
        assert_eq!(catalogue.first_classifier(), catalogue.first_ready());
        assert!(matches!(catalogue.find(&name("nobody"), None), Err(InferError::NotFound { .. })));
        assert!(matches!(catalogue.find(&name("good"), Some(Version(2))), Err(InferError::NotFound { .. })));
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_an_error_not_an_empty_house() {
        let config = ServingConfig { models: Some("/nowhere/models".into()), ..ServingConfig::default() };
        let error = Repository::scan(&config, Arc::new(Metrics::new())).unwrap_err().to_string();
        assert_eq!(error, "cannot read the models folder /nowhere/models");
    }
}
