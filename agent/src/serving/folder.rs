//! The models folder as it is: names, sizes and times of its files, and what the descriptions say. Reads no weights.
//!
//! It is looked at again and again instead of asking the kernel for its events. Events do not cross NFS, bind mounts into
//! containers or a changed link; they come in bursts, and the looking has to be there all the same for the ones that are lost.
//! A look costs a `stat` a version and some hundred bytes a model: a hundred models take a few milliseconds of a thread that
//! nobody waits for.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adit_common::id::{ModelName, Version};
use adit_vision::Precision;

use super::model::{calibration_file, weights_file};
use super::spec::{Kind, Spec};

/// What tells one state of a file from another. Only ever compared for being the same: it says nothing of what is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) length: u64,
    modified: Option<SystemTime>,
    /// The inode: a file that was renamed into another's place may have its size and even its time.
    file: u64,
    /// The time and the inode of what has to be beside it, where something has.
    beside: Option<(Option<SystemTime>, u64)>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { length: metadata.len(), modified: metadata.modified().ok(), file: metadata.ino(), beside: None }
    }

    /// Of whatever file is there; `None` if there is none that can be read.
    pub(super) fn read(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().filter(Metadata::is_file).map(|metadata| Self::of(&metadata))
    }

    /// With the file that belongs to it.
    fn with(self, path: &Path) -> Self {
        Self { beside: Self::read(path).map(|beside| (beside.modified, beside.file)), ..self }
    }

    #[cfg(test)]
    pub(super) const fn made_of(length: u64, file: u64) -> Self {
        Self { length, modified: None, file, beside: None }
    }
}

/// What is wrong with a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not there: the folder may be anything.
    Missing,
    /// It, or the folder of versions that it names, cannot be used.
    Wrong(String),
}

/// One model's folder.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// What it says.
    pub(super) spec: Spec,
    /// The versions whose folders hold weights.
    pub(super) versions: BTreeMap<Version, Option<Stamp>>,
    /// The labels file, where there is one.
    pub(super) labels: Option<Stamp>,
}

/// Every folder of a root whose name can be a model's, by name.
pub(super) fn read(root: &Path) -> io::Result<BTreeMap<ModelName, Result<Found, Fault>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).map(ModelName::new);
        let Some(Ok(name)) = name else { continue };
        if path.is_dir() {
            found.insert(name, model(&path));
        }
    }
    Ok(found)
}

fn model(folder: &Path) -> Result<Found, Fault> {
    let file = folder.join("model.toml");
    if !file.exists() {
        return Err(Fault::Missing);
    }
    let spec = Spec::read(&file).map_err(Fault::Wrong)?;
    let (versions, labels) = match &spec.kind {
        // It has no files; policies apply to the one version that it always has.
        Kind::StandIn(_) => (BTreeMap::from([(Version(1), None)]), None),
        Kind::Network { versions, labels, execution, .. } => {
            let there = versions_in(versions, execution.precision == Precision::Int8);
            let there = there.map_err(|error| Fault::Wrong(format!("cannot read {}: {error}", versions.display())))?;
            (there, Stamp::read(labels))
        }
    };
    Ok(Found { spec, versions, labels })
}

/// `calibrated` versions are others with another calibration.
fn versions_in(folder: &Path, calibrated: bool) -> io::Result<BTreeMap<Version, Option<Stamp>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(version) = name.to_str().and_then(|name| name.parse().ok())
            && let Some(stamp) = Stamp::read(&weights_file(folder, version))
        {
            let stamp = if calibrated { stamp.with(&calibration_file(folder, version)) } else { stamp };
            found.insert(version, Some(stamp));
        }
    }
    Ok(found)
}

/// Where the versions of a description lie, for messages.
pub(super) fn place(spec: &Spec) -> PathBuf {
    match &spec.kind {
        Kind::Network { versions, .. } => versions.clone(),
        Kind::StandIn(_) => PathBuf::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_took_anothers_place_has_another_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        fs::write(&one, "abc").unwrap();
        fs::write(&two, "xyz").unwrap();
        let before = Stamp::read(&one).unwrap();
        assert_eq!(Stamp::read(&one), Some(before));
        // Even with the other's size and time.
        fs::File::open(&two).unwrap().set_modified(before.modified.unwrap()).unwrap();
        fs::rename(&two, &one).unwrap();
        assert_ne!(Stamp::read(&one), Some(before));
        assert_eq!(Stamp::read(folder.path()), None, "a folder is no file");
    }

    #[test]
    fn what_cannot_be_a_model_is_passed_over_and_what_is_wrong_is_told() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["good/3", "good/old", "good/4", "notes", ".git", "wrong"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let lenet =
            "architecture = \"lenet\"\n[preprocess]\nsize = [28, 28]\nresize = \"digit\"\nchannels = \"grey\"\n";
        fs::write(root.path().join("good/model.toml"), lenet).unwrap();
        fs::write(root.path().join("good/3/model.safetensors"), "12345").unwrap();
        fs::write(root.path().join("wrong/model.toml"), "architecture = 1").unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let found = read(root.path()).unwrap();
        let names: Vec<_> = found.keys().map(ModelName::as_str).collect();
        assert_eq!(names, ["good", "notes", "wrong"]);
        let good = found[&"good".parse().unwrap()].as_ref().unwrap();
        assert_eq!(good.versions.keys().copied().collect::<Vec<_>>(), [Version(3)]);
        assert_eq!((good.versions[&Version(3)].unwrap().length, good.labels), (5, None));
        assert_eq!(*found[&"notes".parse().unwrap()].as_ref().unwrap_err(), Fault::Missing);
        assert!(
            matches!(&found[&"wrong".parse().unwrap()], Err(Fault::Wrong(because)) if because.contains("model.toml:1"))
        );
        assert!(read(Path::new("/nowhere/models")).is_err());
    }
}
