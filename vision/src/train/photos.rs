//! Pictures in a folder for each class, and which of them are held out.

use std::fs;
use std::path::{Path, PathBuf};

use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;

use crate::error::VisionError;

/// The fewest pictures of a class: of five, one is held out, and with fewer nothing could be said of the class.
pub(crate) const LEAST: usize = 5;

/// The names of a folder's classes, in order.
pub fn class_names(folder: &Path) -> Result<Vec<String>, VisionError> {
    Ok(Photos::list(folder)?.labels)
}

/// A folder of folders: the classes' names, and the files that may be pictures.
#[derive(Debug)]
pub(crate) struct Photos {
    /// Names of the classes, sorted by their bytes.
    pub(crate) labels: Vec<String>,
    /// Files with their class, in the order of classes, then of names.
    pub(crate) files: Vec<(PathBuf, u32)>,
}

impl Photos {
    /// Lists a folder. What begins with a dot, and files beside the classes' folders, do not count.
    pub(crate) fn list(folder: &Path) -> Result<Self, VisionError> {
        let mut classes = Vec::new();
        for path in visible(folder)?.into_iter().filter(|path| path.is_dir()) {
            let label = path.file_name().and_then(|name| name.to_str()).filter(|name| is_label(name));
            let label =
                label.ok_or_else(|| wrong(&path, "a class's name is one line of text, with no space around it"))?;
            classes.push((label.to_owned(), path));
        }
        classes.sort();
        if classes.len() < 2 {
            let count = classes.len();
            return Err(wrong(
                folder,
                format!("{count} folders in it: there must be one for each of two classes or more"),
            ));
        }
        let mut photos = Self { labels: Vec::new(), files: Vec::new() };
        for (class, (label, path)) in (0..).zip(classes) {
            let files = visible(&path)?.into_iter().filter(|file| file.is_file());
            photos.files.extend(files.map(|file| (file, class)));
            photos.labels.push(label);
        }
        Ok(photos)
    }
}

/// Whether a labels file would give it back as it is.
fn is_label(name: &str) -> bool {
    !name.contains(['\n', '\r']) && name.trim() == name
}

/// What a folder holds, by name, but for what begins with a dot.
fn visible(folder: &Path) -> Result<Vec<PathBuf>, VisionError> {
    let failed = |source| VisionError::Read { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

pub(crate) fn wrong(path: &Path, reason: impl Into<String>) -> VisionError {
    VisionError::Dataset { path: path.to_owned(), reason: reason.into() }
}

/// Splits places into those to train on and those held out: of each class this part, but at least one of both.
pub(crate) fn split(classes: &[u32], part: f64, random: &mut ChaCha12Rng) -> (Vec<usize>, Vec<usize>) {
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    let count = classes.iter().max().map_or(0, |last| last + 1);
    for class in 0..count {
        let mut places: Vec<usize> = (0..classes.len()).filter(|place| classes[*place] == class).collect();
        places.shuffle(random);
        let held = (places.len() as f64 * part).round() as usize;
        let held = held.clamp(1, places.len().saturating_sub(1).max(1)).min(places.len());
        held_out.extend(&places[..held]);
        train.extend(&places[held..]);
    }
    (train, held_out)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn folders_are_classes_in_the_order_of_their_names() {
        let root = tempfile::tempdir().unwrap();
        for file in
            ["pear/2.jpg", "pear/1.jpg", "apple/x.png", "pear/.hidden", ".git/config", "readme.txt", "apple/in/y.png"]
        {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let photos = Photos::list(root.path()).unwrap();
        assert_eq!(photos.labels, ["apple", "pear"]);
        let files: Vec<_> = photos
            .files
            .iter()
            .map(|(path, class)| (path.strip_prefix(root.path()).unwrap().to_str().unwrap(), *class))
            .collect();
        assert_eq!(files, [("apple/x.png", 0), ("pear/1.jpg", 1), ("pear/2.jpg", 1)]);
        let error = Photos::list(&root.path().join("pear")).unwrap_err().to_string();
        assert!(error.contains("0 folders in it"), "{error}");
        fs::create_dir(root.path().join(" plum")).unwrap();
        let error = Photos::list(root.path()).unwrap_err().to_string();
        assert!(error.contains("one line of text"), "{error}");
        assert!(matches!(Photos::list(Path::new("/nowhere")), Err(VisionError::Read { .. })));
    }

    #[test]
    fn of_each_class_a_part_is_held_out_and_the_seed_decides_which() {
        let classes: Vec<u32> = [vec![0; 50], vec![1; 5], vec![2; 2]].concat();
        let split_by = |seed| split(&classes, 0.2, &mut ChaCha12Rng::seed_from_u64(seed));
        let (train, held_out) = split_by(1);
        let count = |places: &[usize], class| places.iter().filter(|place| classes[**place] == class).count();
        assert_eq!([0, 1, 2].map(|class| count(&held_out, class)), [10, 1, 1]);
        let mut all = [train.clone(), held_out].concat();
        all.sort_unstable();
        assert_eq!(all, (0..57).collect::<Vec<_>>());
        assert_eq!(split_by(1).0, train);
        assert_ne!(split_by(2).0, train);
    }
}
