//! Everything in a folder of models, and what is wrong with it.

use std::fs;
use std::io;
use std::path::Path;

use adit_common::id::{ModelName, Version};
use adit_vision::ImageShape;

use super::open::Opened;
use crate::serving::{Devices, Kind, Spec, embedded};

/// Whether a version can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It works, and an agent serves it.
    Ready,
    /// It works, but the version policy leaves it out.
    LeftOut,
    /// It does not work; the reason.
    Broken(String),
}

/// One version of one model.
#[derive(Debug, Clone)]
pub struct Surveyed {
    /// The model.
    pub name: ModelName,
    /// The version; `None` where the description is so broken, or so empty, that there is none.
    pub version: Option<Version>,
    /// What runs, where that is known.
    pub architecture: Option<String>,
    /// The shape of one prepared image, where it works.
    pub input: Option<ImageShape>,
    /// The number of its classes, where it works.
    pub classes: Option<usize>,
    /// Bytes of its weights.
    pub size: u64,
    /// Whether it can be asked.
    pub state: State,
}

/// Opens every version of every model in a folder, one after another, by name and version; `embedded` adds the digits model that
/// is part of the program, unless the folder has its name.
pub fn survey(models: Option<&Path>, embedded: bool, devices: &Devices) -> io::Result<Vec<Surveyed>> {
    let mut found = Vec::new();
    if let Some(models) = models {
        for entry in fs::read_dir(models)? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // As an agent does: what has no model's name is not one.
            if let (true, Ok(name)) = (path.is_dir(), ModelName::new(&name)) {
                model(&name, &path, devices, &mut found);
            }
        }
    }
    if embedded && !found.iter().any(|there| there.name.as_str() == embedded::NAME) {
        found.extend(built_in(devices));
    }
    found.sort_by(|one, two| (&one.name, one.version).cmp(&(&two.name, two.version)));
    Ok(found)
}

/// The versions whose folder holds weights.
pub(super) fn versions_in(folder: &Path) -> io::Result<Vec<Version>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(version) = name.to_str().and_then(|name| name.parse().ok())
            && weights(folder, version).is_file()
        {
            found.push(version);
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn weights(versions: &Path, version: Version) -> std::path::PathBuf {
    versions.join(version.to_string()).join("model.safetensors")
}

impl Surveyed {
    fn broken(name: &ModelName, version: Option<Version>, architecture: Option<String>, reason: String) -> Self {
        let state = State::Broken(reason);
        Self { name: name.clone(), version, architecture, input: None, classes: None, size: 0, state }
    }

    fn opened(mut self, opened: Result<Opened, String>, served: bool) -> Self {
        match opened {
            Ok(opened) => {
                (self.input, self.classes) = (Some(opened.network.input()), Some(opened.network.classes()));
                self.state = if served { State::Ready } else { State::LeftOut };
            }
            Err(reason) => self.state = State::Broken(reason),
        }
        self
    }
}

fn built_in(devices: &Devices) -> Option<Surveyed> {
    let name = ModelName::new(embedded::NAME).ok()?;
    let opened = Opened::embedded(devices);
    let architecture = opened.as_ref().ok().map(|opened| opened.architecture.to_string());
    let blank = Surveyed::broken(&name, Some(embedded::VERSION), architecture, String::new());
    Some(Surveyed { size: embedded::WEIGHTS.len() as u64, ..blank }.opened(opened, true))
}

fn model(name: &ModelName, folder: &Path, devices: &Devices, found: &mut Vec<Surveyed>) {
    let file = folder.join("model.toml");
    if !file.exists() {
        let reason = "there is no model.toml in it: it is passed over".to_owned();
        return found.push(Surveyed::broken(name, None, None, reason));
    }
    let spec = match Spec::read(&file) {
        Ok(spec) => spec,
        Err(reason) => return found.push(Surveyed::broken(name, None, None, reason)),
    };
    let (architecture, versions) = match &spec.kind {
        Kind::Network { architecture, versions, .. } => (architecture.to_string(), versions),
        Kind::StandIn(_) => {
            let stand_in = Surveyed::broken(name, Some(Version(1)), Some("stand_in".to_owned()), String::new());
            return found.push(Surveyed { state: State::Ready, ..stand_in });
        }
    };
    let there = match versions_in(versions) {
        Ok(there) if there.is_empty() => Err(format!("no <version>/model.safetensors in {}", versions.display())),
        Ok(there) => Ok(there),
        Err(error) => Err(format!("cannot read {}: {error}", versions.display())),
    };
    let there = match there {
        Ok(there) => there,
        Err(reason) => return found.push(Surveyed::broken(name, None, Some(architecture), reason)),
    };
    let served = spec.policy.choose(there.clone());
    for version in &there {
        let size = fs::metadata(weights(versions, *version)).map_or(0, |file| file.len());
        let blank = Surveyed::broken(name, Some(*version), Some(architecture.clone()), String::new());
        found.push(Surveyed { size, ..blank }.opened(Opened::of(&spec, *version, devices), served.contains(version)));
    }
    for version in served.iter().filter(|version| !there.contains(version)) {
        let reason = format!("the version policy names version {version}, but it is not there");
        found.push(Surveyed::broken(name, Some(*version), Some(architecture.clone()), reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENET: &str =
        "architecture = \"lenet\"\n[preprocess]\nsize = [28, 28]\nresize = \"digit\"\nchannels = \"grey\"\n";

    #[test]
    fn everything_is_listed_with_what_is_wrong() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &[u8]| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write("good/model.toml", LENET.as_bytes());
        write("good/labels.txt", embedded::LABELS.as_bytes());
        for version in [9, 10] {
            write(&format!("good/{version}/model.safetensors"), embedded::WEIGHTS);
        }
        write("good/11/model.safetensors", &embedded::WEIGHTS[..5000]);
        write("good/.pull/model.safetensors", b"no version");
        write("bare/notes.txt", b"");
        write("misspelt/model.toml", b"architectur = \"lenet\"");
        write("empty/model.toml", LENET.as_bytes());
        write("picky/model.toml", format!("{LENET}[version_policy]\nspecific = [7]\n").as_bytes());
        write("picky/labels.txt", b"one\ntwo\n");
        write("picky/3/model.safetensors", embedded::WEIGHTS);
        write("staged/model.toml", b"architecture = \"stand_in\"\n");
        write(".pull-good/model.toml", b"hidden");

        let found = survey(Some(root.path()), true, &Devices::cpu()).unwrap();
        let seen: Vec<_> = found
            .iter()
            .map(|model| {
                let state = match &model.state {
                    State::Ready => "ready",
                    State::LeftOut => "left out",
                    State::Broken(reason) => reason,
                };
                (model.name.as_str(), model.version.map(|version| version.0), model.classes, state)
            })
            .collect();
        let wanted = [
            ("bare", None, None, "there is no model.toml"),
            ("digits", Some(1), Some(10), "ready"),
            ("empty", None, None, "no <version>/model.safetensors"),
            ("good", Some(9), Some(10), "left out"),
            ("good", Some(10), Some(10), "left out"),
            ("good", Some(11), None, ""),
            ("misspelt", None, None, "model.toml:1:1"),
            ("picky", Some(3), None, "labels: 2 labels for 10 classes"),
            ("picky", Some(7), None, "the version policy names version 7"),
            ("staged", Some(1), None, "ready"),
        ];
        assert_eq!(seen.len(), wanted.len(), "{seen:?}");
        for (seen, wanted) in seen.iter().zip(wanted) {
            assert_eq!((seen.0, seen.1, seen.2), (wanted.0, wanted.1, wanted.2));
            assert!(seen.3.starts_with(wanted.3), "{seen:?}");
        }
        assert!(matches!(&found[5].state, State::Broken(reason) if reason.contains("not a complete safetensors file")));
        assert_eq!(found[4].size, embedded::WEIGHTS.len() as u64);
    }

    #[test]
    fn without_a_folder_there_is_the_built_in_one() {
        let found = survey(None, true, &Devices::cpu()).unwrap();
        assert_eq!((found.len(), found[0].name.as_str(), &found[0].state), (1, "digits", &State::Ready));
        assert!(survey(Some(Path::new("/nowhere/models")), true, &Devices::cpu()).is_err());
    }
}
