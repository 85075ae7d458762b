//! Puts trained weights into a model's folder so that whoever looks sees a whole version or none.
//!
//! A version is made as a folder beside its place, under a name that no repository takes for a version, written to the disk
//! file by file, and then renamed. What a training keeps while it runs lies in such a folder too.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::VisionError;

/// The weights of a version.
const WEIGHTS: &str = "model.safetensors";

/// How many folders this process has begun.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// A model's folder.
#[derive(Debug, Clone)]
pub struct ModelFolder(PathBuf);

impl ModelFolder {
    /// A folder that is there, or that will be made.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The weights of a version.
    #[must_use]
    pub fn weights(&self, version: u64) -> PathBuf {
        self.0.join(version.to_string()).join(WEIGHTS)
    }

    /// The newest version that has weights; none in a folder that is not there.
    pub fn newest(&self) -> Result<Option<u64>, VisionError> {
        Ok(self.numbers()?.into_iter().filter(|version| self.weights(*version).is_file()).max())
    }

    /// Everything with a version's name, with weights in it or not.
    fn numbers(&self) -> Result<Vec<u64>, VisionError> {
        let failed = |source| VisionError::Read { path: self.0.clone(), source };
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let plain = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
            numbers.extend(plain.and_then(|name| name.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    /// Fails if this version could not be published: to be asked before hours of training.
    pub fn check(&self, version: Option<u64>, replace: bool) -> Result<(), VisionError> {
        match version {
            Some(version) if !replace && self.numbers()?.contains(&version) => Err(self.exists(version)),
            _ => Ok(()),
        }
    }

    /// Publishes weights and other files as a version, or as the one after the greatest that is there. Gives its number. A
    /// version that is there is left alone unless `replace` is set: then each of its files is replaced at once, the weights
    /// last.
    pub fn publish(
        &self,
        version: Option<u64>,
        replace: bool,
        weights: &[u8],
        others: &[(&str, &[u8])],
    ) -> Result<u64, VisionError> {
        loop {
            let number = match version {
                Some(version) => version,
                None => self.numbers()?.into_iter().max().unwrap_or(0) + 1,
            };
            let place = self.0.join(number.to_string());
            if version.is_some() && place.exists() {
                if !replace {
                    return Err(self.exists(number));
                }
                for (name, bytes) in others {
                    write(&place.join(name), bytes)?;
                }
                write(&place.join(WEIGHTS), weights)?;
                return Ok(number);
            }
            // Several may publish at a time, in one process or in many.
            let turn = TURN.fetch_add(1, Ordering::Relaxed);
            let beside = self.0.join(format!(".{number}.{}.{turn}.partial", std::process::id()));
            let failed = |source| VisionError::Write { path: place.clone(), source };
            let moved = fill(&beside, weights, others).and_then(|()| fs::rename(&beside, &place)).and_then(|()| {
                // The new name lies in the folder, which is a file of its own to the disk.
                File::open(&self.0)?.sync_all()
            });
            if moved.is_err() {
                // Best effort: the error that counts is the other one.
                let _ = fs::remove_dir_all(&beside);
            }
            match moved {
                Ok(()) => return Ok(number),
                // Somebody else published this very version meanwhile.
                Err(_) if version.is_none() && place.exists() => {}
                Err(_) if place.exists() => return Err(self.exists(number)),
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Writes a file of the model, such as its labels, unless there is one. Says whether it did.
    pub fn describe(&self, name: &str, text: &str) -> Result<bool, VisionError> {
        let path = self.0.join(name);
        if path.exists() {
            return Ok(false);
        }
        write(&path, text.as_bytes())?;
        Ok(true)
    }

    /// Makes the folder in which a training keeps its state, and holds it against a second training.
    pub fn begin(&self) -> Result<Workplace, VisionError> {
        let path = self.0.join(".training");
        let failed = |source| VisionError::Write { path: path.clone(), source };
        fs::create_dir_all(&path).map_err(failed)?;
        // The system lets go of it when the process ends, however it ends.
        let lock = File::create(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Workplace { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(VisionError::Training(format!("another training is under way in {}", self.0.display())))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    fn exists(&self, version: u64) -> VisionError {
        VisionError::VersionExists { path: self.0.join(version.to_string()) }
    }
}

/// Where one training keeps what it needs while it runs, inside of the model's folder.
#[derive(Debug)]
pub struct Workplace {
    path: PathBuf,
    _lock: File,
}

impl Workplace {
    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the training's state.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint.safetensors")
    }

    /// Takes it away, when nothing of it is needed any more.
    pub fn clear(self) -> Result<(), VisionError> {
        fs::remove_dir_all(&self.path).map_err(|source| VisionError::Write { path: self.path.clone(), source })
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // Without a state there is nothing to go on from, and so nothing to keep; best effort.
        if !self.checkpoint().exists() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Makes a folder of a version, on the disk to the last byte.
fn fill(folder: &Path, weights: &[u8], others: &[(&str, &[u8])]) -> io::Result<()> {
    if folder.exists() {
        // Of a process of the same number that was killed.
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    for (name, bytes) in others.iter().copied().chain([(WEIGHTS, weights)]) {
        let mut file = File::create(folder.join(name))?;
        file.write_all(bytes)?;
        file.sync_all()?;
    }
    File::open(folder)?.sync_all()
}

/// Puts a file into its place at once: whoever looks sees the old one or all of the new one, also after a power cut.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), VisionError> {
    let failed = |source| VisionError::Write { path: path.to_owned(), source };
    let folder = path.parent().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    fs::create_dir_all(folder).map_err(failed)?;
    let beside = path.with_extension("partial");
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path))
        // The new name lies in the folder, which is a file of its own to the disk.
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        // Best effort: the error that counts is the one above.
        let _ = fs::remove_file(&beside);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn versions_are_counted_up_and_never_overwritten_unasked() {
        let root = tempfile::tempdir().unwrap();
        let model = ModelFolder::new(root.path().join("mine"));
        assert_eq!(model.newest().unwrap(), None);
        assert_eq!(model.publish(None, false, b"one", &[("learning.svg", b"curve")]).unwrap(), 1);
        assert_eq!(names(&root.path().join("mine/1")), ["learning.svg", "model.safetensors"]);
        assert_eq!(model.publish(Some(7), false, b"seven", &[]).unwrap(), 7);
        assert_eq!(model.publish(None, false, b"eight", &[]).unwrap(), 8);
        // A number without weights is taken all the same, and a word is no number.
        fs::create_dir_all(root.path().join("mine/11")).unwrap();
        fs::create_dir_all(root.path().join("mine/twelve")).unwrap();
        assert_eq!((model.newest().unwrap(), model.publish(None, false, b"x", &[]).unwrap()), (Some(8), 12));

        for refused in [model.check(Some(7), false), model.publish(Some(7), false, b"other", &[]).map(|_| ())] {
            let error = refused.unwrap_err();
            assert!(matches!(error, VisionError::VersionExists { .. }), "{error}");
        }
        assert_eq!(fs::read(model.weights(7)).unwrap(), b"seven");
        model.check(Some(7), true).unwrap();
        assert_eq!(model.publish(Some(7), true, b"other", &[]).unwrap(), 7);
        assert_eq!(fs::read(model.weights(7)).unwrap(), b"other");
        assert_eq!(names(&root.path().join("mine")), ["1", "11", "12", "7", "8", "twelve"]);
        assert!(model.describe("labels.txt", "a").unwrap() && !model.describe("labels.txt", "b").unwrap());
        assert_eq!(fs::read_to_string(root.path().join("mine/labels.txt")).unwrap(), "a");
    }

    /// Somebody looks into the folder all the time, as an agent does: a version that has a name has all its bytes.
    #[test]
    fn nobody_sees_half_a_version() {
        let root = tempfile::tempdir().unwrap();
        let model = ModelFolder::new(root.path());
        let (weights, done) = (vec![7; 4 << 20], AtomicBool::new(false));
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut looks = 0;
                while !done.load(Ordering::Relaxed) {
                    for version in model.numbers().unwrap() {
                        assert_eq!(fs::metadata(model.weights(version)).unwrap().len(), weights.len() as u64);
                        assert!(root.path().join(version.to_string()).join("learning.svg").is_file());
                    }
                    looks += 1;
                }
                looks
            });
            // Two publish at a time, and neither loses a version.
            let publisher = || {
                for _ in 0..10 {
                    model.publish(None, false, &weights, &[("learning.svg", b"")]).unwrap();
                }
            };
            let other = scope.spawn(publisher);
            publisher();
            other.join().unwrap();
            done.store(true, Ordering::Relaxed);
            assert!(watcher.join().unwrap() > 0);
        });
        assert_eq!(model.newest().unwrap(), Some(20));
        assert_eq!(names(root.path()).len(), 20, "nothing is left beside");
    }

    #[test]
    fn one_training_a_folder() {
        let root = tempfile::tempdir().unwrap();
        let model = ModelFolder::new(root.path());
        let first = model.begin().unwrap();
        let second = model.begin().unwrap_err().to_string();
        assert!(second.contains("another training is under way"), "{second}");
        fs::write(first.checkpoint(), b"state").unwrap();
        assert_eq!(model.numbers().unwrap(), Vec::<u64>::new());
        drop(first);
        assert!(model.begin().unwrap().checkpoint().exists());
        model.begin().unwrap().clear().unwrap();
        assert!(names(root.path()).is_empty());
        drop(model.begin().unwrap());
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn a_folder_in_the_way_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::create_dir_all(path.join("inside")).unwrap();
        let error = write(&path, b"bytes").unwrap_err();
        assert!(error.to_string().contains("model.safetensors"), "{error}");
        assert!(!path.with_extension("partial").exists());
    }
}
