//! One model: what its folder holds, what of it is loaded, and what is to be done next. Pure: it is told, and it answers.
//!
//! The rules that keep a model serving while its folder changes are all here. A version is retired when what takes its place is
//! there, and not before; what cannot be loaded is left alone until its files change, and its predecessor goes on; a
//! description that has become wrong leaves the former one in force.

use std::collections::{BTreeMap, BTreeSet};

use adit_common::id::{ModelName, Version, VersionLabel};

use super::batching::Batching;
use super::folder::{Fault, Found, Stamp, place};
use super::model::Origin;
use super::spec::{Kind, Spec, VersionPolicy};

/// Stands for the version of a model whose versions are unknown, or which has none.
pub(super) const UNKNOWN: Version = Version(0);

/// A version as it is to be loaded, or as it was: two that are equal need no loading.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) name: ModelName,
    pub(super) version: Version,
    pub(super) kind: Kind,
    pub(super) batching: Batching,
    pub(super) origin: Origin,
    /// The state of its weights file.
    pub(super) weights: Option<Stamp>,
    /// The state of its labels file.
    labels: Option<Stamp>,
}

impl Plan {
    /// Whether the other one's network is this one's too: then no weights need to be read.
    pub(super) fn has_network_of(&self, other: &Self) -> bool {
        let same = match (&self.kind, &other.kind) {
            (
                Kind::Network { architecture, versions, device, execution, .. },
                Kind::Network {
                    architecture: other_architecture,
                    versions: other_versions,
                    device: other_device,
                    execution: other_execution,
                    ..
                },
            ) => {
                architecture == other_architecture
                    && versions == other_versions
                    && device == other_device
                    && execution == other_execution
            }
            (Kind::StandIn(times), Kind::StandIn(others)) => times == others,
            _ => false,
        };
        same && self.origin == other.origin && self.weights == other.weights && self.version == other.version
    }
}

/// A version that could not be loaded.
#[derive(Debug)]
struct Broken {
    plan: Plan,
    reason: String,
    /// It needs more memory than there is for all.
    oversize: bool,
    /// What its files were at the last look, if not what they were when it failed.
    seen: Option<Plan>,
    /// Whether they were so twice in a row: what is still being copied is not read at every look.
    calm: bool,
}

/// What is to be said of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// It is loaded, or asleep; the text is what a person should know of it.
    Held(String),
    /// It is being loaded, or will be.
    Coming,
    /// It is not there, because of this.
    Out {
        /// Why.
        reason: String,
        /// It needs more memory than there is for all.
        oversize: bool,
    },
}

/// One model.
#[derive(Debug)]
pub(super) struct Shelf {
    name: ModelName,
    origin: Origin,
    /// The description in force: the last one that could be used.
    spec: Option<Spec>,
    /// What is wrong with the one that lies there now.
    fault: Option<String>,
    /// What a person should know of the one in force.
    remark: Option<String>,
    there: BTreeMap<Version, Option<Stamp>>,
    labels: Option<Stamp>,
    /// Unloaded on request.
    parked: bool,
    held: BTreeMap<Version, Plan>,
    broken: BTreeMap<Version, Broken>,
    /// Which version each label stands for now.
    in_force: BTreeMap<VersionLabel, Version>,
}

impl Shelf {
    pub(super) fn new(name: ModelName) -> Self {
        Self {
            name,
            origin: Origin::Folder,
            spec: None,
            fault: None,
            remark: None,
            there: BTreeMap::new(),
            labels: None,
            parked: false,
            held: BTreeMap::new(),
            broken: BTreeMap::new(),
            in_force: BTreeMap::new(),
        }
    }

    /// Takes in what its folder holds now.
    pub(super) fn look(&mut self, origin: Origin, found: Result<Found, Fault>) {
        self.fault = match found {
            Ok(found) => {
                (self.origin, self.there, self.labels) = (origin, found.versions, found.labels);
                let spec = self.spec.insert(found.spec);
                let lost = spec.labels.iter().find(|(_, version)| !self.there.contains_key(version));
                self.remark = lost.map(|(label, version)| {
                    format!("label `{label}` stands for version {version}, but it is not there")
                });
                None
            }
            Err(Fault::Missing) => Some("there is no model.toml in its folder".to_owned()),
            Err(Fault::Wrong(reason)) => Some(reason),
        };
        let plans: BTreeMap<_, _> =
            self.broken.keys().filter_map(|version| Some((*version, self.plan(*version)?))).collect();
        self.broken.retain(|version, broken| {
            let Some(plan) = plans.get(version) else { return false };
            broken.calm = broken.seen.as_ref() == Some(plan);
            broken.seen = Some(plan.clone());
            true
        });
    }

    /// Its folder is gone: nothing of it is wanted any more.
    pub(super) fn remove(&mut self) {
        (self.spec, self.fault, self.remark, self.parked) = (None, None, None, false);
        self.there.clear();
        self.broken.clear();
    }

    /// Whether there is nothing left to remember.
    pub(super) fn is_gone(&self) -> bool {
        self.spec.is_none() && self.fault.is_none() && self.held.is_empty()
    }

    /// Whether its description was never usable.
    pub(super) fn is_unknown(&self) -> bool {
        self.spec.is_none()
    }

    /// Whether a version lies in its folder.
    pub(super) fn has(&self, version: Version) -> bool {
        self.there.contains_key(&version)
    }

    /// Unloads it until [`Shelf::unpark`]. Answers whether there was anything to unload.
    pub(super) fn park(&mut self) -> bool {
        self.parked = true;
        self.broken.clear();
        !self.held.is_empty()
    }

    /// Loads it again, and tries again what could not be loaded.
    pub(super) fn unpark(&mut self) {
        self.parked = false;
        self.broken.clear();
    }

    /// What is to be loaded next, if anything is: the newest first.
    pub(super) fn next(&self) -> Option<Plan> {
        self.wanted().into_iter().rev().find_map(|version| self.due(version))
    }

    /// How a version that is held is loaded again.
    pub(super) fn held(&self, version: Version) -> Option<&Plan> {
        self.held.get(&version)
    }

    /// A version was loaded so.
    pub(super) fn loaded(&mut self, plan: Plan) {
        self.broken.remove(&plan.version);
        self.held.insert(plan.version, plan);
    }

    /// A version could not be loaded so; what it was before goes on.
    pub(super) fn failed(&mut self, plan: Plan, reason: String, oversize: bool) {
        let broken = Broken { seen: None, calm: false, reason, oversize, plan };
        self.broken.insert(broken.plan.version, broken);
    }

    /// A version that slept cannot be woken: it is held no longer.
    pub(super) fn lost(&mut self, version: Version) {
        self.held.remove(&version);
    }

    /// Lets go of what is not wanted any more, as soon as what takes its place is there. Answers what was let go.
    pub(super) fn retire(&mut self) -> Vec<Version> {
        let (wanted, hoped) = (self.wanted(), self.hoped());
        let coming = wanted.iter().filter(|version| !self.held.contains_key(version)).count();
        let replaced = wanted.iter().any(|version| self.held.contains_key(version)) || hoped.is_empty();
        let extra = self.held.keys().rev().filter(|version| !wanted.contains(version));
        let (there, gone): (Vec<_>, Vec<_>) = extra.copied().partition(|version| self.there.contains_key(version));
        let idle = self.parked || self.spec.is_none();
        let retired: Vec<_> = there
            .into_iter()
            .skip(if idle { 0 } else { coming })
            .chain(gone.into_iter().filter(|_| idle || replaced))
            .collect();
        for version in &retired {
            self.held.remove(version);
        }
        self.relabel();
        retired
    }

    /// What each label stands for now: what the description says as soon as that is held, until then what it was.
    pub(super) const fn labels(&self) -> &BTreeMap<VersionLabel, Version> {
        &self.in_force
    }

    /// Which of its versions are served.
    pub(super) fn policy(&self) -> VersionPolicy {
        self.spec.as_ref().map(|spec| spec.policy.clone()).unwrap_or_default()
    }

    /// What is to be said of each version.
    pub(super) fn lines(&self) -> BTreeMap<Version, Line> {
        let out = |reason: String| Line::Out { reason, oversize: false };
        let mut lines = BTreeMap::new();
        let wanted = self.wanted();
        if self.parked {
            for version in self.hoped() {
                lines.insert(version, out("unloaded on request".to_owned()));
            }
        }
        if let Some(Spec { policy: VersionPolicy::Specific(named), .. }) = &self.spec {
            for version in named.iter().filter(|version| !self.there.contains_key(version)) {
                lines.insert(*version, out(format!("the version policy names version {version}, but it is not there")));
            }
        }
        for version in wanted.iter().filter(|version| self.due(**version).is_some()) {
            lines.insert(*version, Line::Coming);
        }
        // Of the newest, what is older than all that is served need not be told any more.
        let oldest = wanted.iter().find(|version| self.held.contains_key(version));
        let latest = matches!(self.spec, Some(Spec { policy: VersionPolicy::Latest(_), .. }));
        let newer = |version: &Version| latest && oldest.is_none_or(|oldest| version > oldest);
        for (version, broken) in &self.broken {
            if !self.is_due(*version) && (wanted.contains(version) || newer(version)) {
                lines.insert(*version, Line::Out { reason: broken.reason.clone(), oversize: broken.oversize });
            }
        }
        for version in self.held.keys() {
            let fault = self.fault.as_ref().map(|fault| format!("served as it was described before: {fault}"));
            let broken =
                self.broken.get(version).map(|broken| format!("served as it was loaded before: {}", broken.reason));
            lines.insert(*version, Line::Held(fault.or(broken).or(self.remark.clone()).unwrap_or_default()));
        }
        if lines.is_empty() {
            match (&self.spec, &self.fault) {
                (_, Some(fault)) => lines.insert(UNKNOWN, out(fault.clone())),
                (Some(spec), None) => {
                    let place = place(spec);
                    lines.insert(UNKNOWN, out(format!("no <version>/model.safetensors in {}", place.display())))
                }
                (None, None) => None,
            };
        }
        lines
    }

    /// What is wrong with it, for whoever asked for it to be loaded.
    pub(super) fn troubles(&self) -> Vec<String> {
        let mut found: Vec<String> = self.fault.iter().chain(&self.remark).cloned().collect();
        for (version, line) in self.lines() {
            if let Line::Out { reason, .. } = line
                && Some(&reason) != self.fault.as_ref()
            {
                found.push(if version == UNKNOWN { reason } else { format!("version {version}: {reason}") });
            }
        }
        let held = self.held.keys().filter_map(|version| self.broken.get(version));
        found.extend(held.map(|broken| format!("version {}: {}", broken.plan.version, broken.reason)));
        found
    }

    /// The versions that are to be served of those that can be, as far as is known.
    fn wanted(&self) -> BTreeSet<Version> {
        let Some(spec) = self.spec.as_ref().filter(|_| !self.parked) else { return BTreeSet::new() };
        match spec.policy {
            // The next older one stands in for what cannot be loaded, also after a restart.
            VersionPolicy::Latest(_) => self.chosen(spec, |version| {
                self.held.contains_key(&version) || !self.broken.contains_key(&version) || self.is_due(version)
            }),
            _ => self.chosen(spec, |_| true),
        }
    }

    /// The versions that would be served if all that is there could be.
    fn hoped(&self) -> BTreeSet<Version> {
        self.spec.as_ref().map(|spec| self.chosen(spec, |_| true)).unwrap_or_default()
    }

    fn chosen(&self, spec: &Spec, usable: impl Fn(Version) -> bool) -> BTreeSet<Version> {
        let there = self.there.keys().copied().filter(|version| usable(*version)).collect();
        let chosen = spec.policy.choose(there).into_iter().chain(spec.labels.values().copied());
        chosen.filter(|version| self.there.contains_key(version)).collect()
    }

    fn plan(&self, version: Version) -> Option<Plan> {
        let (spec, weights) = (self.spec.as_ref()?, *self.there.get(&version)?);
        let (name, kind, batching) = (self.name.clone(), spec.kind.clone(), spec.batching);
        Some(Plan { name, version, kind, batching, origin: self.origin, weights, labels: self.labels })
    }

    /// How a version is to be loaded, if it is to be loaded now.
    fn due(&self, version: Version) -> Option<Plan> {
        let plan = self.plan(version)?;
        let fresh = self.held.get(&version) != Some(&plan);
        let allowed = self.broken.get(&version).is_none_or(|broken| {
            // A description or a label is written in one go; weights may be on their way for minutes.
            broken.plan != plan && (broken.calm || broken.plan.weights == plan.weights)
        });
        (fresh && allowed).then_some(plan)
    }

    fn is_due(&self, version: Version) -> bool {
        self.due(version).is_some()
    }

    fn relabel(&mut self) {
        let written = self.spec.as_ref().map(|spec| spec.labels.clone()).unwrap_or_default();
        let before = std::mem::take(&mut self.in_force);
        let means = |label: &VersionLabel, wanted: Version| match before.get(label) {
            Some(old) if !self.held.contains_key(&wanted) && self.held.contains_key(old) => *old,
            _ => wanted,
        };
        self.in_force = written.iter().map(|(label, version)| (label.clone(), means(label, *version))).collect();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const NETWORK: &str =
        "architecture = \"lenet\"\n[preprocess]\nsize = [28, 28]\nresize = \"digit\"\nchannels = \"grey\"\n";

    /// A model's folder with these files and this description.
    fn found(rest: &str, files: &[(u64, u64)]) -> Result<Found, Fault> {
        let spec = Spec::parse(&format!("{NETWORK}{rest}"), Path::new("/models/m")).map_err(Fault::Wrong)?;
        let stamp = |(version, length): &(u64, u64)| (Version(*version), Some(Stamp::made_of(*length, *version)));
        Ok(Found { spec, versions: files.iter().map(stamp).collect(), labels: Some(Stamp::made_of(20, 99)) })
    }

    fn shelf(rest: &str, files: &[(u64, u64)]) -> Shelf {
        let mut shelf = Shelf::new("m".parse().unwrap());
        shelf.look(Origin::Folder, found(rest, files));
        shelf
    }

    impl Shelf {
        fn see(&mut self, rest: &str, files: &[(u64, u64)]) {
            self.look(Origin::Folder, found(rest, files));
        }

        /// Loads what is due, and lets fail what must; what was tried, in order.
        fn work(&mut self, fails: &[u64]) -> Vec<u64> {
            let mut tried = Vec::new();
            while let Some(plan) = self.next() {
                tried.push(plan.version.0);
                assert!(tried.len() < 20, "no end of it: {tried:?}");
                if fails.contains(&plan.version.0) {
                    self.failed(plan, "corrupt".to_owned(), false);
                } else {
                    self.loaded(plan);
                }
                self.retire();
            }
            self.retire();
            tried
        }

        fn holds(&self) -> Vec<u64> {
            self.held.keys().map(|version| version.0).collect()
        }

        fn out(&self) -> Vec<(u64, String)> {
            let lines = self.lines().into_iter();
            lines
                .filter_map(|(version, line)| match line {
                    Line::Out { reason, .. } => Some((version.0, reason)),
                    _ => None,
                })
                .collect()
        }

        fn label(&self, label: &str) -> u64 {
            self.labels()[&label.parse().unwrap()].0
        }
    }

    #[test]
    fn the_old_one_stays_until_the_new_one_is_there() {
        let mut shelf = shelf("", &[(1, 8)]);
        assert_eq!(shelf.work(&[]), [1]);
        shelf.see("", &[(1, 8), (2, 8)]);
        assert!(shelf.retire().is_empty(), "nothing takes its place yet");
        let plan = shelf.next().unwrap();
        assert_eq!(shelf.lines()[&Version(2)], Line::Coming);
        shelf.loaded(plan);
        assert_eq!(shelf.retire(), [Version(1)]);
        assert_eq!((shelf.holds(), shelf.next()), (vec![2], None));
        // Also where it is deleted at once.
        shelf.see("", &[(3, 8)]);
        assert!(shelf.retire().is_empty());
        assert_eq!((shelf.work(&[]), shelf.holds()), (vec![3], vec![3]));
        // Nothing takes the place of a version that is all there was.
        shelf.see("", &[]);
        assert_eq!(shelf.retire(), [Version(3)]);
        assert!(shelf.out()[0].1.starts_with("no <version>/model.safetensors in /models/m"));
    }

    #[test]
    fn what_cannot_be_loaded_is_told_and_left_alone_until_it_changes() {
        let mut shelf = shelf("", &[(1, 8)]);
        shelf.work(&[]);
        shelf.see("", &[(1, 8), (2, 3)]);
        assert_eq!((shelf.work(&[2]), shelf.holds()), (vec![2], vec![1]));
        assert_eq!(shelf.out(), [(2, "corrupt".to_owned())]);
        assert_eq!(shelf.troubles(), ["version 2: corrupt"]);
        for length in [3, 4, 5, 6, 7] {
            shelf.see("", &[(1, 8), (2, length)]);
            assert_eq!(shelf.next(), None, "it is still being copied");
            assert_eq!(shelf.holds(), [1]);
        }
        shelf.see("", &[(1, 8), (2, 7)]);
        assert_eq!(shelf.lines()[&Version(2)], Line::Coming, "twice the same: it is whole");
        assert_eq!((shelf.work(&[]), shelf.holds()), (vec![2], vec![2]));
        // A better description is no copy under way.
        shelf.see("", &[(2, 7), (3, 8)]);
        shelf.work(&[3]);
        shelf.see("[batching]\nmax_batch = 1\n", &[(2, 7), (3, 8)]);
        assert_eq!((shelf.work(&[]), shelf.holds()), (vec![3], vec![3]));
    }

    #[test]
    fn the_next_older_stands_in_also_at_the_start() {
        let mut shelf = shelf("", &[(1, 8), (2, 8), (3, 8), (4, 8)]);
        assert_eq!((shelf.work(&[3, 4]), shelf.holds()), (vec![4, 3, 2], vec![2]));
        assert_eq!(shelf.out().iter().map(|(version, _)| *version).collect::<Vec<_>>(), [3, 4]);
        shelf.see("", &[(1, 8), (2, 8), (3, 8), (4, 8), (5, 8)]);
        assert_eq!((shelf.work(&[]), shelf.holds()), (vec![5], vec![5]));
        assert!(shelf.out().is_empty(), "older than what is served");
        // What is deleted while its successor is broken is not replaced, and so not retired.
        shelf.see("", &[(6, 8)]);
        assert_eq!((shelf.work(&[6]), shelf.holds()), (vec![6], vec![5]));
    }

    #[test]
    fn policies_say_what_is_served() {
        let files = [(1, 8), (2, 8), (3, 8)];
        let mut shelf = shelf("[version_policy]\nall = true\n", &files);
        assert_eq!(shelf.work(&[2]), [3, 2, 1]);
        assert_eq!((shelf.holds(), shelf.out().len()), (vec![1, 3], 1));
        shelf.see("[version_policy]\nspecific = [1, 7]\n", &files);
        assert!(shelf.work(&[]).is_empty());
        assert_eq!(shelf.holds(), [1]);
        assert_eq!(shelf.out(), [(7, "the version policy names version 7, but it is not there".to_owned())]);
        shelf.see("[version_policy]\nspecific = [2]\n", &files);
        shelf.work(&[2]);
        assert_eq!(shelf.holds(), [1], "what takes its place is broken");
        shelf.see("[version_policy]\nlatest = 2\n", &files[..2]);
        assert_eq!(shelf.holds(), [1]);
    }

    #[test]
    fn a_label_moves_when_its_version_is_there_and_keeps_it_there() {
        let labels = |stable: u64| format!("[version_labels]\nstable = {stable}\n");
        let mut shelf = shelf(&labels(1), &[(1, 8), (2, 8), (3, 8)]);
        assert_eq!((shelf.work(&[]), shelf.holds()), (vec![3, 1], vec![1, 3]));
        shelf.see(&labels(2), &[(1, 8), (2, 8), (3, 8)]);
        assert!(shelf.retire().is_empty());
        assert_eq!(shelf.label("stable"), 1, "2 is not there yet");
        assert_eq!((shelf.work(&[]), shelf.holds(), shelf.label("stable")), (vec![2], vec![2, 3], 2));
        shelf.see(&labels(9), &[(1, 8), (2, 8), (3, 8)]);
        let Line::Held(remark) = &shelf.lines()[&Version(3)] else { panic!("it is held") };
        assert_eq!(remark, "label `stable` stands for version 9, but it is not there");
    }

    #[test]
    fn a_description_that_has_become_wrong_changes_nothing() {
        let mut shelf = shelf("", &[(1, 8)]);
        shelf.work(&[]);
        let wrong = || Err(Fault::Wrong("model.toml:1:1: nonsense".to_owned()));
        shelf.look(Origin::Folder, wrong());
        assert_eq!((shelf.next(), shelf.retire()), (None, vec![]));
        let Line::Held(note) = &shelf.lines()[&Version(1)] else { panic!("it is held") };
        assert_eq!(note, "served as it was described before: model.toml:1:1: nonsense");
        shelf.look(Origin::Folder, Err(Fault::Missing));
        assert_eq!(shelf.holds(), [1], "an editor may be between two steps");
        shelf.remove();
        assert!(!shelf.is_gone());
        assert_eq!((shelf.retire(), shelf.is_gone()), (vec![Version(1)], true));
    }

    #[test]
    fn a_plan_knows_whether_weights_have_to_be_read() {
        let mut shelf = shelf("", &[(1, 8)]);
        shelf.work(&[]);
        let before = shelf.held(Version(1)).unwrap().clone();
        shelf.see("[batching]\nmax_batch = 4\n", &[(1, 8)]);
        assert!(shelf.next().unwrap().has_network_of(&before));
        shelf.see("", &[(1, 9)]);
        assert!(!shelf.next().unwrap().has_network_of(&before), "the weights were overwritten");
        // That fails: what was loaded before stays, and says so.
        shelf.work(&[1]);
        assert_eq!((shelf.holds(), shelf.next()), (vec![1], None));
        assert_eq!(shelf.lines()[&Version(1)], Line::Held("served as it was loaded before: corrupt".to_owned()));
    }

    #[test]
    fn what_is_unloaded_stays_so_until_it_is_loaded() {
        let mut shelf = shelf("", &[(1, 8)]);
        shelf.work(&[]);
        assert!(shelf.park());
        assert_eq!(shelf.retire(), [Version(1)]);
        shelf.see("", &[(1, 8), (2, 8)]);
        assert_eq!(shelf.next(), None, "a new version does not wake it");
        assert_eq!(shelf.out(), [(2, "unloaded on request".to_owned())]);
        shelf.unpark();
        assert_eq!((shelf.work(&[]), shelf.holds()), (vec![2], vec![2]));
    }
}
