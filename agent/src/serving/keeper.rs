//! The thread that keeps the models as their folder is, and as they were asked to be.
//!
//! It alone loads, and it alone changes the catalogue: one version at a time, each beside what serves, swapped in under the
//! catalogue's lock. What there is to do is decided by each model's [`Shelf`]; whether there is memory for it, by `eviction`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_common::id::{ModelName, Version, VersionLabel};
use tokio::sync::{oneshot, watch};

use super::catalogue::Catalogue;
use super::control::{Control, Order, Turn};
use super::devices::Devices;
use super::embedded;
use super::eviction::{Room, room};
use super::folder::{self, Fault, Found};
use super::loader::Loader;
use super::model::{Model, Origin};
use super::shelf::{Line, Plan, Shelf};
use super::spec::{Spec, VersionPolicy};
use crate::config::ServingConfig;
use crate::error::{AgentError, ControlError};
use crate::metrics::Metrics;

/// How soon to look again at what cannot be waited on: a retired version's last request, memory that is in use.
const TICK: Duration = Duration::from_millis(20);

type Key = (ModelName, Version);

/// What was said of a model last.
type Told = (BTreeMap<Version, Line>, BTreeMap<VersionLabel, Version>, VersionPolicy);

/// Why a version was not loaded.
enum Refusal {
    /// It cannot be: the reason, and whether that is its size.
    Broken(String, bool),
    /// There is no room for it while others are busy.
    Later,
}

/// A version as it was loaded.
struct Made {
    model: Model,
    /// Or else it runs on what was there, and only its description is new.
    weights_read: bool,
}

/// Keeps the models.
#[derive(Debug)]
pub(super) struct Keeper {
    root: Option<PathBuf>,
    /// The name and description of the built-in model, where it is to be served.
    embedded: Option<(ModelName, Spec)>,
    interval: Duration,
    budget: Option<u64>,
    shelves: BTreeMap<ModelName, Shelf>,
    told: BTreeMap<ModelName, Told>,
    /// Folders that are no model's, as far as that was said.
    passed_over: BTreeSet<ModelName>,
    /// What versions turned out to take in memory, which may be more than their files.
    sizes: BTreeMap<Key, u64>,
    /// What found no room just now.
    deferred: BTreeSet<Key>,
    replies: Vec<Reply>,
    readable: bool,
    loader: Loader,
    catalogue: Arc<watch::Sender<Catalogue>>,
    control: Control,
    metrics: Arc<Metrics>,
}

/// Who hears of it when all is done.
#[derive(Debug)]
enum Reply {
    Look(oneshot::Sender<()>),
    Load(ModelName, oneshot::Sender<Result<(), ControlError>>),
}

impl Keeper {
    /// Reads the folder and the descriptions in it, but no weights yet.
    pub(super) fn new(
        config: &ServingConfig,
        catalogue: Arc<watch::Sender<Catalogue>>,
        control: Control,
        devices: Arc<Devices>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, AgentError> {
        let embedded = if config.embedded.unwrap_or(config.models.is_none()) {
            let name = ModelName::new(embedded::NAME).map_err(|error| AgentError::Config(error.to_string()))?;
            Some((name, embedded::spec().map_err(AgentError::Config)?))
        } else {
            None
        };
        let mut keeper = Self {
            root: config.models.clone(),
            embedded,
            interval: config.watch,
            budget: config.memory,
            shelves: BTreeMap::new(),
            told: BTreeMap::new(),
            passed_over: BTreeSet::new(),
            sizes: BTreeMap::new(),
            deferred: BTreeSet::new(),
            replies: Vec::new(),
            readable: true,
            loader: Loader::new(config.queue, devices, metrics.clone())?,
            catalogue,
            control,
            metrics,
        };
        let found = match &keeper.root {
            Some(root) => folder::read(root).map_err(|source| AgentError::Models { path: root.clone(), source })?,
            None => BTreeMap::new(),
        };
        keeper.take_in(found);
        match &keeper.root {
            Some(root) if keeper.shelves.is_empty() => {
                tracing::warn!(folder = %root.display(), "there is no model in it");
            }
            _ => {}
        }
        Ok(keeper)
    }

    /// Unloads all models but one, and what is not loaded yet will not be.
    pub(super) fn park_all_but(&mut self, model: &ModelName) {
        for name in self.shelves.keys().filter(|name| *name != model).cloned().collect::<Vec<_>>() {
            if let Some(shelf) = self.shelves.get_mut(&name) {
                shelf.park();
            }
            self.tell(&name);
        }
    }

    /// Works, looks and works again, until the control is closed.
    pub(super) fn run(&mut self) {
        self.work();
        let mut next_look = Instant::now() + self.interval;
        loop {
            let look = (!self.interval.is_zero()).then_some(next_look);
            let tick = self.is_waiting().then(|| Instant::now() + TICK);
            let until = look.into_iter().chain(tick).min();
            match self.control.wait(until) {
                Turn::Closed => return,
                Turn::Rung | Turn::Look => {}
            }
            if look.is_some_and(|look| look <= Instant::now()) {
                self.look();
                next_look = Instant::now() + self.interval;
            }
            self.work();
        }
    }

    /// Loads what is to be loaded, obeys what is ordered, and returns when there is nothing left of both.
    pub(super) fn work(&mut self) {
        self.deferred.clear();
        while !self.control.is_closed() {
            self.obey();
            self.sweep();
            if self.wake() {
                continue;
            }
            let deferred = &self.deferred;
            let free = |plan: &Plan| !deferred.contains(&(plan.name.clone(), plan.version));
            let Some(plan) = self.shelves.values().find_map(|shelf| shelf.next().filter(free)) else { break };
            self.load(plan);
        }
        if self.control.is_closed() {
            // Whoever waits finds that nobody answers.
            self.replies.clear();
            return;
        }
        for reply in std::mem::take(&mut self.replies) {
            // Nobody may be there to hear it any more.
            let _ = match reply {
                Reply::Look(done) => done.send(()),
                Reply::Load(name, done) => done.send(self.outcome(name)).map_err(|_| ()),
            };
        }
        self.catalogue.send_if_modified(Catalogue::settle);
    }

    /// Whether something may become possible without anybody saying so.
    fn is_waiting(&self) -> bool {
        !self.deferred.is_empty() || self.catalogue.borrow().is_fading()
    }

    fn outcome(&self, name: ModelName) -> Result<(), ControlError> {
        let shelf = self.shelves.get(&name).ok_or_else(|| ControlError::Unknown(name.clone()))?;
        let troubles = shelf.troubles();
        let reason = match self.deferred.iter().any(|(model, _)| *model == name) {
            true => "it waits for memory that others use just now".to_owned(),
            false if troubles.is_empty() => return Ok(()),
            false => troubles.join("; "),
        };
        Err(ControlError::Failed { model: name, reason })
    }

    fn obey(&mut self) {
        for order in self.control.take() {
            match order {
                Order::Look(reply) => {
                    self.look();
                    self.replies.push(Reply::Look(reply));
                }
                Order::Load(name, reply) => {
                    if let Some(shelf) = self.shelves.get_mut(&name) {
                        shelf.unpark();
                    }
                    self.look();
                    self.tell(&name);
                    self.replies.push(Reply::Load(name, reply));
                }
                Order::Unload(name, reply) => {
                    let known = self.shelves.get_mut(&name).map(Shelf::park).is_some();
                    self.tell(&name);
                    // Whoever asks next is told that it is gone, unless a request still holds it.
                    self.sweep();
                    let _ = reply.send(if known { Ok(()) } else { Err(ControlError::Unknown(name)) });
                }
            }
        }
    }

    /// Looks at the folder. One that cannot be read just now, such as a network's, changes nothing.
    fn look(&mut self) {
        let found = match &self.root {
            None => return,
            Some(root) => folder::read(root),
        };
        match found {
            Ok(found) => {
                self.readable = true;
                self.take_in(found);
            }
            Err(error) if self.readable => {
                self.readable = false;
                tracing::warn!(%error, "the models folder cannot be read: the models stay as they are");
            }
            Err(_) => {}
        }
    }

    fn take_in(&mut self, mut found: BTreeMap<ModelName, Result<Found, Fault>>) {
        let mut built_in = None;
        if let Some((name, spec)) = &self.embedded {
            if matches!(found.get(name), None | Some(Err(Fault::Missing))) {
                let versions = BTreeMap::from([(embedded::VERSION, None)]);
                found.insert(name.clone(), Ok(Found { spec: spec.clone(), versions, labels: None }));
                built_in = Some(name.clone());
            } else if !self.shelves.contains_key(name) {
                tracing::warn!(model = %name, "the folder has a model of the built-in one's name: the folder's is served");
            }
        }
        for (name, shelf) in &mut self.shelves {
            if !found.contains_key(name) || shelf.is_unknown() && matches!(found[name], Err(Fault::Missing)) {
                shelf.remove();
            }
        }
        self.passed_over.retain(|name| found.contains_key(name));
        for (name, found) in found {
            if !self.shelves.contains_key(&name) && matches!(found, Err(Fault::Missing)) {
                if self.passed_over.insert(name.clone()) {
                    tracing::warn!(folder = %name, "no model.toml in it: passed over");
                }
                continue;
            }
            let origin = if built_in.as_ref() == Some(&name) { embedded::ORIGIN } else { Origin::Folder };
            self.shelves.entry(name.clone()).or_insert_with(|| Shelf::new(name)).look(origin, found);
        }
        let shelves = &self.shelves;
        self.sizes.retain(|(name, version), _| shelves.get(name).is_some_and(|shelf| shelf.has(*version)));
        for name in self.shelves.keys().cloned().collect::<Vec<_>>() {
            self.tell(&name);
        }
    }

    /// Says of a model what has changed, and lets go of what is not wanted any more.
    fn tell(&mut self, name: &ModelName) {
        self.put(name, None);
    }

    /// As [`Keeper::tell`], together with a model that runs from now on.
    fn put(&mut self, name: &ModelName, model: Option<Model>) {
        let Some(shelf) = self.shelves.get_mut(name) else { return };
        for version in shelf.retire() {
            self.metrics.unloads.add();
            tracing::info!(model = %name, %version, "version retired");
        }
        let told = (shelf.lines(), shelf.labels().clone(), shelf.policy());
        if shelf.is_gone() {
            self.shelves.remove(name);
        }
        let before = self.told.insert(name.clone(), told.clone());
        if model.is_none() && before.as_ref() == Some(&told) {
            return;
        }
        report(name, before.as_ref().map(|(lines, ..)| lines), &told.0);
        let mut dropped = Vec::new();
        self.catalogue.send_modify(|catalogue| {
            dropped.extend(model.and_then(|model| catalogue.put(Arc::new(model))));
            dropped.extend(catalogue.tell(name, told.0, &told.1, &told.2));
        });
        // Here and not under the lock: the last one who lets go of an engine ends its threads.
        drop(dropped);
        if !self.shelves.contains_key(name) {
            self.told.remove(name);
        }
        self.metrics.set_memory(self.catalogue.borrow().memory());
    }

    /// Tells anew of what has finished its last requests.
    fn sweep(&mut self) {
        if !self.catalogue.borrow().is_fading() {
            return;
        }
        let mut ended = Vec::new();
        self.catalogue.send_if_modified(|catalogue| {
            ended = catalogue.sweep();
            // What is told next is the change.
            false
        });
        for name in ended {
            let (lines, labels, policy) = self.told.get(&name).cloned().unwrap_or_default();
            self.catalogue.send_modify(|catalogue| drop(catalogue.tell(&name, lines, &labels, &policy)));
        }
    }

    /// Loads a version that somebody waits for; false if there is none that can be.
    fn wake(&mut self) -> bool {
        let wanted = self.control.wakes().into_iter();
        let mut asleep =
            wanted.filter(|key| self.catalogue.borrow().is_asleep(&key.0, key.1) && !self.deferred.contains(key));
        let Some((name, version)) = asleep.next() else { return false };
        drop(asleep);
        match self.shelves.get(&name).and_then(|shelf| shelf.held(version)).cloned() {
            Some(plan) => self.load(plan),
            // It was retired between two looks.
            None => self.tell(&name),
        }
        true
    }

    /// Loads a version and puts it into its place.
    fn load(&mut self, plan: Plan) {
        let (name, version, begun) = (plan.name.clone(), plan.version, Instant::now());
        let made = self.make(&plan);
        let Some(shelf) = self.shelves.get_mut(&name) else { return };
        match made {
            Ok(Made { model, weights_read }) => {
                let (took, card) = (begun.elapsed(), model.card());
                let (labels, kernels) = (card.labels.all().len(), card.kernels.map(tracing::field::display));
                tracing::info!(model = %name, %version, ?took, weights_read, labels, kernels, "model ready");
                if weights_read {
                    self.metrics.loaded(took);
                }
                shelf.loaded(plan);
                self.put(&name, Some(model));
            }
            Err(Refusal::Broken(reason, oversize)) => {
                self.metrics.failed_loads.add();
                // What sleeps has nothing to go on with.
                if self.catalogue.borrow().is_asleep(&name, version) {
                    shelf.lost(version);
                }
                shelf.failed(plan, reason, oversize);
                self.tell(&name);
            }
            Err(Refusal::Later) => {
                tracing::debug!(model = %name, %version, "no memory for it while others are asked");
                self.deferred.insert((name, version));
            }
        }
    }

    fn make(&mut self, plan: &Plan) -> Result<Made, Refusal> {
        let key = (plan.name.clone(), plan.version);
        let broken = |reason| Refusal::Broken(reason, false);
        let same = self.shelves.get(&plan.name).and_then(|shelf| shelf.held(plan.version));
        if same.is_some_and(|held| plan.has_network_of(held)) {
            let running = self.catalogue.borrow().running(&plan.name, plan.version).map(|model| model.engine().clone());
            if let Some(engine) = running {
                let model = Loader::over(engine, plan).map_err(broken)?;
                return Ok(Made { model, weights_read: false });
            }
        }
        let file = plan.weights.map_or(0, |stamp| stamp.length);
        self.make_room(self.sizes.get(&key).copied().unwrap_or(file))?;
        let model = self.loader.open(plan).map_err(broken)?;
        // Half precision on disk is twice as much in memory.
        let bytes = model.card().bytes;
        self.sizes.insert(key, bytes);
        self.make_room(bytes)?;
        Ok(Made { model, weights_read: true })
    }

    /// Puts to sleep what has to make room for so many bytes.
    fn make_room(&self, need: u64) -> Result<(), Refusal> {
        let Some(budget) = self.budget else { return Ok(()) };
        let wanted: BTreeSet<Key> = self.control.wakes().into_iter().collect();
        let (mut slept, mut refusal) = (Vec::new(), None);
        // Under the lock nobody can take a model that is found idle.
        self.catalogue.send_if_modified(|catalogue| {
            match room(budget, need, catalogue.loaded(|name, version| wanted.contains(&(name.clone(), version)))) {
                Room::After(evicted) => {
                    for (name, version) in &evicted {
                        tracing::info!(model = %name, %version, "put to sleep to make room");
                        self.metrics.evictions.add();
                        slept.extend(catalogue.sleep(name, *version));
                    }
                }
                Room::Later => refusal = Some(Refusal::Later),
                Room::Never => {
                    let reason = format!("it takes {need} bytes, and [serving] memory allows {budget} for all models");
                    refusal = Some(Refusal::Broken(reason, true));
                }
            }
            !slept.is_empty()
        });
        drop(slept);
        refusal.map_or(Ok(()), Err)
    }
}

/// Logs what has become of versions: once each time that it changes.
fn report(name: &ModelName, before: Option<&BTreeMap<Version, Line>>, now: &BTreeMap<Version, Line>) {
    for (version, line) in now {
        if before.and_then(|before| before.get(version)) == Some(line) {
            continue;
        }
        match line {
            Line::Out { reason, .. } => tracing::error!(model = %name, %version, %reason, "model unavailable"),
            Line::Held(note) if !note.is_empty() => tracing::warn!(model = %name, %version, %note, "model"),
            _ => {}
        }
    }
}
