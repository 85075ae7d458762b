//! From a part file to a version that is served: everything is made ready in a hidden folder on the same disk, and appears by
//! being renamed. Whoever reads the folder of models meanwhile sees a version whole, or not at all.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use adit_common::id::{ModelName, Version};

use super::failure::PullError;
use crate::serving::{Kind, Spec};

/// A model's place in the folder of models.
#[derive(Debug)]
pub(super) struct Shelf {
    models: PathBuf,
    folder: PathBuf,
    name: ModelName,
    version: Version,
}

/// Texts that go beside the weights.
#[derive(Debug)]
pub(super) struct Texts {
    /// `model.toml`.
    pub(super) spec: String,
    /// `labels.txt`.
    pub(super) labels: String,
}

impl Shelf {
    /// The place of this version; nothing is touched.
    pub(super) fn new(models: &Path, name: &ModelName, version: Version) -> Self {
        let folder = models.join(name.as_str());
        Self { models: models.to_owned(), folder, name: name.clone(), version }
    }

    /// The model's folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The description of the model that is there already. A version is added to it only if it stays what it is: its weights lie
    /// in its own folder, this version is not among them, and `same` finds nothing against it.
    pub(super) fn there(&self, same: impl FnOnce(&Spec) -> Result<(), String>) -> Result<Option<Spec>, PullError> {
        let file = self.folder.join("model.toml");
        if !file.exists() {
            return if self.weights().exists() { Err(self.taken()) } else { Ok(None) };
        }
        let another = |reason| PullError::Another { name: self.name.clone(), reason };
        let spec = Spec::read(&file).map_err(|reason| another(format!("and broken: {reason}")))?;
        same(&spec).map_err(another)?;
        match &spec.kind {
            Kind::Network { versions, .. } if *versions != self.folder.join("") && *versions != self.folder => {
                Err(another(format!("with its weights in {}", versions.display())))
            }
            _ if self.weights().exists() => Err(self.taken()),
            _ => Ok(Some(spec)),
        }
    }

    fn taken(&self) -> PullError {
        PullError::Taken { name: self.name.clone(), version: self.version }
    }

    fn weights(&self) -> PathBuf {
        self.versions().join("model.safetensors")
    }

    fn versions(&self) -> PathBuf {
        self.folder.join(self.version.to_string())
    }

    /// The hidden folder, of which one process is the holder.
    pub(super) fn stage(&self) -> Result<Staging, PullError> {
        let folder = self.models.join(format!(".pull-{}", self.name));
        fs::create_dir_all(&folder).map_err(PullError::disk("create", &folder))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(PullError::disk("write", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Staging { folder, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(PullError::Busy { name: self.name.clone() }),
            Err(TryLockError::Error(source)) => Err(PullError::Disk { doing: "lock", path, source }),
        }
    }

    /// Puts the weights, and the texts where there are new ones, in their places.
    pub(super) fn publish(
        &self,
        staging: Staging,
        weights: &Path,
        texts: Option<&Texts>,
    ) -> Result<PathBuf, PullError> {
        let new = staging.folder.join("new");
        if new.exists() {
            // Left by one that was stopped just here.
            fs::remove_dir_all(&new).map_err(PullError::disk("delete", &new))?;
        }
        let version = new.join(self.version.to_string());
        fs::create_dir_all(&version).map_err(PullError::disk("create", &version))?;
        rename(weights, &version.join("model.safetensors"))?;
        if let Some(texts) = texts {
            write(&new.join("labels.txt"), &texts.labels)?;
            write(&new.join("model.toml"), &texts.spec)?;
        }
        if !self.folder.exists() {
            rename(&new, &self.folder)?;
        } else {
            // Without its description nothing in a folder is served: that comes last.
            if self.versions().exists() {
                rename(&version.join("model.safetensors"), &self.weights())?;
            } else {
                rename(&version, &self.versions())?;
            }
            if texts.is_some() {
                for name in ["labels.txt", "model.toml"] {
                    rename(&new.join(name), &self.folder.join(name))?;
                }
            }
        }
        // The names are on the disk once their folders are. A file system that cannot say so has to be believed.
        for folder in [&self.models, &self.folder, &self.versions()] {
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        staging.remove()?;
        Ok(self.weights())
    }
}

/// The hidden folder. What has arrived in it stays, for the next try.
#[derive(Debug)]
pub(super) struct Staging {
    folder: PathBuf,
    _lock: File,
}

impl Staging {
    /// Where it is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// After a failure: keeps the folder only if there is anything in it to go on with.
    pub(super) fn leave(self) {
        // Best effort: what stays is hidden, and is used or replaced by the next try.
        let _ = fs::remove_file(self.folder.join("lock"));
        let _ = fs::remove_dir(&self.folder);
    }

    fn remove(self) -> Result<(), PullError> {
        fs::remove_dir_all(&self.folder).map_err(PullError::disk("delete", &self.folder))
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), PullError> {
    fs::rename(from, to).map_err(PullError::disk("write", to))
}

fn write(path: &Path, text: &str) -> Result<(), PullError> {
    let write = || {
        fs::write(path, text)?;
        File::open(path)?.sync_all()
    };
    write().map_err(PullError::disk("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENET: &str =
        "architecture = \"lenet\"\n[preprocess]\nsize = [28, 28]\nresize = \"digit\"\nchannels = \"grey\"\n";

    fn shelf(models: &Path, version: u64) -> Shelf {
        Shelf::new(models, &ModelName::new("mine").unwrap(), Version(version))
    }

    fn put(shelf: &Shelf, weights: &str, texts: Option<&Texts>) -> PathBuf {
        let staging = shelf.stage().unwrap();
        let part = staging.folder().join("0.part");
        fs::write(&part, weights).unwrap();
        shelf.publish(staging, &part, texts).unwrap()
    }

    fn texts(labels: &str) -> Texts {
        Texts { spec: LENET.to_owned(), labels: labels.to_owned() }
    }

    #[test]
    fn versions_come_one_after_the_other_and_texts_stay_unless_replaced() {
        let models = tempfile::tempdir().unwrap();
        let read = |path: &str| fs::read_to_string(models.path().join("mine").join(path)).unwrap();
        let first = shelf(models.path(), 1);
        assert!(first.there(|_| Ok(())).unwrap().is_none());
        assert_eq!(put(&first, "one", Some(&texts("a"))), models.path().join("mine/1/model.safetensors"));
        assert!(matches!(first.there(|_| Ok(())), Err(PullError::Taken { .. })));

        let second = shelf(models.path(), 2);
        assert!(second.there(|_| Ok(())).unwrap().is_some());
        let other = second.there(|_| Err("as a resnet18".to_owned())).unwrap_err().to_string();
        assert!(other.starts_with("mine is there already, as a resnet18: choose"), "{other}");
        put(&second, "two", None);
        assert_eq!((read("1/model.safetensors"), read("2/model.safetensors")), ("one".into(), "two".into()));
        assert_eq!(read("labels.txt"), "a");

        // What --force does.
        put(&second, "three", Some(&texts("b")));
        assert_eq!((read("2/model.safetensors"), read("labels.txt")), ("three".into(), "b".into()));
        let left: Vec<_> = fs::read_dir(models.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["mine"]);
    }

    #[test]
    fn a_model_that_is_something_else_is_not_added_to() {
        let models = tempfile::tempdir().unwrap();
        let shelf = shelf(models.path(), 1);
        fs::create_dir(shelf.folder()).unwrap();
        let spec = |text: &str| fs::write(shelf.folder().join("model.toml"), text).unwrap();
        for (text, because) in [
            ("architectur = \"lenet\"".to_owned(), "and broken"),
            (format!("versions = \"../elsewhere\"\n{LENET}"), "with its weights in"),
        ] {
            spec(&text);
            let error = shelf.there(|_| Ok(())).unwrap_err().to_string();
            assert!(error.contains(because), "{error}");
        }
        spec(LENET);
        assert!(shelf.there(|_| Ok(())).unwrap().is_some());
    }

    #[test]
    fn two_do_not_pull_the_same_model_at_a_time() {
        let models = tempfile::tempdir().unwrap();
        let shelf = shelf(models.path(), 1);
        let held = shelf.stage().unwrap();
        assert!(matches!(shelf.stage(), Err(PullError::Busy { .. })));
        drop(held);
        assert!(shelf.stage().is_ok());
    }

    #[test]
    fn what_a_stopped_one_left_is_no_hindrance() {
        let models = tempfile::tempdir().unwrap();
        let shelf = shelf(models.path(), 1);
        let left = shelf.stage().unwrap();
        fs::create_dir_all(left.folder().join("new/1")).unwrap();
        fs::write(left.folder().join("new/1/model.safetensors"), "half").unwrap();
        drop(left);
        put(&shelf, "whole", Some(&texts("a")));
        assert_eq!(fs::read_to_string(shelf.weights()).unwrap(), "whole");
    }
}
