//! Every version of every model, with its state, as requests and reports see it.
//!
//! One watched value: whoever serves a request reads it, whoever reports it waits for its next change, and one thread alone
//! changes it. A change is made under its lock, so that nobody sees a model between two versions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use adit_common::id::{ModelName, Version, VersionLabel};
use adit_common::manifest::{self, ModelState};

use super::card::Card;
use super::eviction::Loaded;
use super::model::Model;
use super::request::Choice;
use super::shelf::Line;
use super::spec::VersionPolicy;
use crate::error::InferError;

/// What is said of a version whose weights were let go to make room.
const ASLEEP: &str = "asleep: loaded at the next request";

/// One version of one model.
#[derive(Debug)]
pub struct Entry {
    /// Whether it can be asked.
    pub state: ModelState,
    /// Why it is unavailable, or what a person should know of it though it answers; empty otherwise.
    pub reason: String,
    /// What is asked; nothing while it is asleep.
    model: Option<Arc<Model>>,
    card: Option<Arc<Card>>,
    /// What finishes its last requests.
    fading: Option<Weak<Model>>,
    oversize: bool,
    /// When it was last asked.
    used: AtomicU64,
}

impl Entry {
    fn new(state: ModelState, reason: String) -> Self {
        Self { state, reason, model: None, card: None, fading: None, oversize: false, used: AtomicU64::new(0) }
    }

    /// What is known of a version that can be asked.
    pub fn card(&self) -> Option<&Arc<Card>> {
        self.card.as_ref().filter(|_| self.is_ready())
    }

    /// Whether it can be asked, but has to be loaded first.
    pub fn is_asleep(&self) -> bool {
        self.is_ready() && self.model.is_none()
    }

    /// Why its network answers nobody though it is loaded, if so.
    fn fault(&self) -> Option<&'static str> {
        self.model.as_ref().and_then(|model| model.fault())
    }

    fn is_ready(&self) -> bool {
        self.state == ModelState::Ready && self.fault().is_none()
    }
}

/// All versions of one model.
#[derive(Debug, Default)]
struct Versions {
    entries: BTreeMap<Version, Entry>,
    labels: BTreeMap<VersionLabel, Version>,
    policy: VersionPolicy,
}

/// What there is to ask.
#[derive(Debug)]
pub(super) enum Asked {
    /// A model that runs.
    Awake(Arc<Model>),
    /// This version, once it is loaded again.
    Asleep(Version),
}

/// Every version of every model, with its state.
#[derive(Debug, Default)]
pub struct Catalogue {
    models: BTreeMap<ModelName, Versions>,
    /// Counts requests: what tells which model was asked last.
    clock: AtomicU64,
    settled: bool,
}

impl Catalogue {
    /// All of them, by name and version.
    pub fn entries(&self) -> impl Iterator<Item = (&ModelName, Version, &Entry)> {
        self.models
            .iter()
            .flat_map(|(name, versions)| versions.entries.iter().map(move |(version, entry)| (name, *version, entry)))
    }

    /// The versions of one model; `None` if there is no such model.
    pub fn versions(&self, name: &ModelName) -> Option<&BTreeMap<Version, Entry>> {
        self.models.get(name).map(|versions| &versions.entries)
    }

    /// What a model's versions are called besides their numbers.
    pub fn labels(&self, name: &ModelName) -> impl Iterator<Item = (&VersionLabel, Version)> {
        self.models
            .get(name)
            .into_iter()
            .flat_map(|versions| &versions.labels)
            .map(|(label, version)| (label, *version))
    }

    /// Which versions of a model are served; what is said of models whose description does not say where there is none.
    pub fn policy(&self, name: &ModelName) -> &VersionPolicy {
        const UNSAID: &VersionPolicy = &VersionPolicy::Latest(1);
        self.models.get(name).map_or(UNSAID, |versions| &versions.policy)
    }

    /// What is known of the version that would be asked.
    pub fn card(&self, name: &ModelName, choice: &Choice) -> Result<&Arc<Card>, InferError> {
        let (_, entry) = self.pick(name, choice)?;
        entry.card().ok_or_else(|| not_ready(name, entry))
    }

    /// The model to ask. It counts as asked from now on.
    pub(super) fn find(&self, name: &ModelName, choice: &Choice) -> Result<Asked, InferError> {
        let (version, entry) = self.pick(name, choice)?;
        if !entry.is_ready() {
            return Err(not_ready(name, entry));
        }
        entry.used.store(self.clock.fetch_add(1, Relaxed) + 1, Relaxed);
        Ok(entry.model.clone().map_or(Asked::Asleep(version), Asked::Awake))
    }

    fn pick(&self, name: &ModelName, choice: &Choice) -> Result<(Version, &Entry), InferError> {
        let unknown = |version| InferError::NotFound { model: name.to_string(), version };
        let Versions { entries, labels, .. } = self.models.get(name).ok_or_else(|| unknown(None))?;
        let version = match choice {
            Choice::Newest => {
                let newest = entries.iter().rev().find(|(_, entry)| entry.is_ready());
                let (version, entry) = newest.or_else(|| entries.iter().next_back()).ok_or_else(|| unknown(None))?;
                return Ok((*version, entry));
            }
            Choice::Version(version) => *version,
            Choice::Label(label) => {
                *labels.get(label).ok_or_else(|| InferError::NoLabel { model: name.clone(), label: label.clone() })?
            }
        };
        Ok((version, entries.get(&version).ok_or_else(|| unknown(Some(version)))?))
    }

    /// The first classifier by name that is ready.
    pub fn first_classifier(&self) -> Option<&ModelName> {
        let classifies = |entry: &Entry| entry.card().is_some_and(|card| !card.detects);
        self.entries().find(|(_, _, entry)| classifies(entry)).map(|(name, ..)| name)
    }

    /// What is known of the detectors that are ready, by name; of each its newest version.
    pub fn detectors(&self) -> impl Iterator<Item = &Arc<Card>> {
        self.models.keys().filter_map(|name| self.card(name, &Choice::Newest).ok()).filter(|card| card.detects)
    }

    /// The first model by name that is ready.
    pub fn first_ready(&self) -> Option<&ModelName> {
        self.entries().find(|(_, _, entry)| entry.is_ready()).map(|(name, ..)| name)
    }

    /// Whether everything that was there at the start has been loaded, or was found not to be loadable. What comes later does
    /// not change that: it is loaded beside what serves.
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    /// As a manifest lists them.
    pub fn report(&self) -> Vec<manifest::Model> {
        let mut lines = Vec::new();
        for (name, Versions { entries, labels, .. }) in &self.models {
            for (version, entry) in entries {
                let meant = labels.iter().filter(|(_, meant)| *meant == version);
                lines.push(manifest::Model {
                    name: name.clone(),
                    version: *version,
                    state: if entry.fault().is_some() { ModelState::Unavailable } else { entry.state },
                    reason: entry.fault().map_or_else(|| entry.reason.clone(), str::to_owned),
                    labels: meant.map(|(label, _)| label.clone()).collect(),
                });
            }
        }
        lines
    }

    /// The models that answer nobody because their workers hang, by name.
    pub fn given_up(&self) -> Vec<ModelName> {
        self.entries().filter(|(_, _, entry)| entry.fault().is_some()).map(|(name, ..)| name.clone()).collect()
    }

    /// Whether a restart would make nothing better: no pass is silent without anybody minding it, and not every model has
    /// been given up.
    pub(super) fn is_alive(&self, patience: Duration) -> bool {
        let models: Vec<_> = self.entries().filter_map(|(_, _, entry)| entry.model.as_ref()).collect();
        let some = models.is_empty() || models.iter().any(|model| model.fault().is_none());
        some && models.iter().all(|model| model.is_alive(patience))
    }

    /// All that run, those that finish their last requests too.
    pub(super) fn models(&self) -> Vec<Arc<Model>> {
        let of = |entry: &Entry| entry.model.clone().or_else(|| entry.fading.as_ref().and_then(Weak::upgrade));
        self.entries().filter_map(|(_, _, entry)| of(entry)).collect()
    }

    /// The model that runs a version, if it is awake.
    pub(super) fn running(&self, name: &ModelName, version: Version) -> Option<&Arc<Model>> {
        self.models.get(name)?.entries.get(&version)?.model.as_ref()
    }

    /// Whether a version can be asked, but has to be loaded first.
    pub(super) fn is_asleep(&self, name: &ModelName, version: Version) -> bool {
        let entry = self.versions(name).and_then(|entries| entries.get(&version));
        entry.is_some_and(Entry::is_asleep)
    }

    /// Everything that is loaded, for whoever has to make room; `keep` is not to be touched.
    pub(super) fn loaded(&self, keep: impl Fn(&ModelName, Version) -> bool) -> Vec<Loaded<(ModelName, Version)>> {
        let loaded = self.entries().filter_map(|(name, version, entry)| {
            let model = entry.model.as_ref()?;
            let busy = !Model::is_idle(model) || keep(name, version);
            let (bytes, used) = (model.card().bytes, entry.used.load(Relaxed));
            Some(Loaded { key: (name.clone(), version), bytes, used, busy })
        });
        loaded.collect()
    }

    /// What each running version takes in memory.
    pub(super) fn memory(&self) -> Vec<(ModelName, Version, u64)> {
        let running = self.entries().filter(|(_, _, entry)| entry.model.is_some());
        running.filter_map(|(name, version, entry)| Some((name.clone(), version, entry.card.as_ref()?.bytes))).collect()
    }

    /// All that was there has been looked at; whether that is news.
    pub(super) const fn settle(&mut self) -> bool {
        !std::mem::replace(&mut self.settled, true)
    }

    /// A version runs. Answers what ran in its place; not to be dropped under the lock.
    pub(super) fn put(&mut self, model: Arc<Model>) -> Option<Arc<Model>> {
        let card = model.card().clone();
        let versions = self.models.entry(card.name.clone()).or_default();
        let entry =
            versions.entries.entry(card.version).or_insert_with(|| Entry::new(ModelState::Ready, String::new()));
        (entry.state, entry.fading, entry.oversize) = (ModelState::Ready, None, false);
        entry.reason.clear();
        // What is new was asked for: it is not to be the first to go.
        entry.used.store(self.clock.fetch_add(1, Relaxed) + 1, Relaxed);
        entry.card = Some(card);
        entry.model.replace(model)
    }

    /// A version goes to sleep. Answers what ran.
    pub(super) fn sleep(&mut self, name: &ModelName, version: Version) -> Option<Arc<Model>> {
        let entry = self.models.get_mut(name)?.entries.get_mut(&version)?;
        ASLEEP.clone_into(&mut entry.reason);
        entry.model.take()
    }

    /// Says of a model what is to be said. Answers what is retired by that; a retired version is listed until
    /// its last request has ended, and [`Catalogue::sweep`] has found that.
    pub(super) fn tell(
        &mut self,
        name: &ModelName,
        lines: BTreeMap<Version, Line>,
        labels: &BTreeMap<VersionLabel, Version>,
        policy: &VersionPolicy,
    ) -> Vec<Arc<Model>> {
        let versions = self.models.entry(name.clone()).or_default();
        versions.labels.clone_from(labels);
        versions.policy.clone_from(policy);
        let mut retired = Vec::new();
        for (version, entry) in &mut versions.entries {
            if matches!(lines.get(version), Some(Line::Held(_))) {
                continue;
            }
            entry.card = None;
            if let Some(model) = entry.model.take() {
                entry.fading = Some(Arc::downgrade(&model));
                retired.push(model);
            }
            (entry.state, entry.reason) = (ModelState::Unloading, "it finishes its last requests".to_owned());
        }
        versions.entries.retain(|version, entry| lines.contains_key(version) || entry.fading.is_some());
        for (version, line) in lines {
            match line {
                Line::Held(note) => {
                    if let Some(entry) = versions.entries.get_mut(&version) {
                        let asleep = entry.model.is_none() && note.is_empty();
                        entry.reason = if asleep { ASLEEP.to_owned() } else { note };
                    }
                }
                Line::Coming => {
                    versions.entries.insert(version, Entry::new(ModelState::Loading, String::new()));
                }
                Line::Out { reason, oversize } => {
                    // Until its last request has ended, that is what is to be said of it.
                    let fading = versions.entries.get_mut(&version).and_then(|entry| entry.fading.take());
                    let fading = fading.filter(|model| model.strong_count() > 0);
                    let state = if fading.is_some() { ModelState::Unloading } else { ModelState::Unavailable };
                    let entry = Entry { fading, oversize, ..Entry::new(state, reason) };
                    versions.entries.insert(version, entry);
                }
            }
        }
        if versions.entries.is_empty() {
            self.models.remove(name);
        }
        retired
    }

    /// The models of which a version has finished its last request: they are to be told of anew.
    pub(super) fn sweep(&mut self) -> Vec<ModelName> {
        let mut ended = Vec::new();
        for (name, versions) in &mut self.models {
            for entry in versions.entries.values_mut() {
                if entry.fading.as_ref().is_some_and(|model| model.strong_count() == 0) {
                    entry.fading = None;
                    ended.push(name.clone());
                }
            }
        }
        ended
    }

    /// Whether anything still finishes its last requests.
    pub(super) fn is_fading(&self) -> bool {
        self.entries().any(|(_, _, entry)| entry.fading.is_some())
    }
}

fn not_ready(name: &ModelName, entry: &Entry) -> InferError {
    if entry.oversize {
        return InferError::NoMemory { model: name.clone() };
    }
    let reason = match (entry.state, entry.fault()) {
        (_, Some(fault)) => fault,
        (ModelState::Loading, _) => "it is being loaded",
        (ModelState::Unloading, _) => "it was unloaded",
        // The reason itself names files, and is for those who may see the index.
        _ => "it is not loaded, see the repository index",
    };
    InferError::NotReady { model: name.clone(), reason }
}
