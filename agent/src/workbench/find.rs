//! One model by name, as an agent would serve it.

use std::fs;
use std::path::Path;

use adit_common::id::{ModelName, Version};

use super::open::Opened;
use super::survey::versions_in;
use crate::serving::{Devices, Kind, Spec, embedded, weights_file};

/// A model that was found.
#[derive(Debug)]
pub struct Found {
    /// Its name.
    pub name: ModelName,
    /// Its version.
    pub version: Version,
    /// Bytes of its weights.
    pub size: u64,
    /// The network, with all that it needs.
    pub opened: Opened,
}

/// Opens a model of the folder, or the digits model that is part of the program where `embedded` says so; without a version,
/// the newest that an agent serves. The error says what is not there, or why it does not work.
pub fn find(
    models: Option<&Path>,
    embedded: bool,
    name: &ModelName,
    version: Option<Version>,
    devices: &Devices,
) -> Result<Found, String> {
    let folder = models.map(|models| models.join(name.as_str())).filter(|folder| folder.is_dir());
    let Some(folder) = folder else {
        let is_built_in = embedded && name.as_str() == embedded::NAME;
        if !is_built_in || version.is_some_and(|version| version != embedded::VERSION) {
            let place = models.map_or("without --models there is the built-in one only".to_owned(), |models| {
                format!("look with: adit-agent list --models {}", models.display())
            });
            return Err(format!("there is no model {name}{}: {place}", written(version)));
        }
        let (version, size) = (embedded::VERSION, embedded::WEIGHTS.len() as u64);
        return Ok(Found { name: name.clone(), version, size, opened: Opened::embedded(devices)? });
    };
    let Located { spec, version } = located(&folder, name, version)?;
    let size = match &spec.kind {
        Kind::Network { versions, .. } => fs::metadata(weights_file(versions, version)).map_or(0, |file| file.len()),
        Kind::StandIn(_) => 0,
    };
    Ok(Found { name: name.clone(), version, size, opened: Opened::of(&spec, version, devices)? })
}

/// A version of a model where it lies, not opened.
#[derive(Debug)]
pub struct Located {
    /// Its description.
    pub spec: Spec,
    /// Its version.
    pub version: Version,
}

/// As [`find`], of a folder's models alone, and opens nothing.
pub fn locate(models: Option<&Path>, name: &ModelName, version: Option<Version>) -> Result<Located, String> {
    let models = models.ok_or("say where the models are: --models DIR")?;
    let folder = models.join(name.as_str());
    if !folder.is_dir() {
        let place = models.display();
        return Err(format!("there is no model {name}: look with: adit-agent list --models {place}"));
    }
    located(&folder, name, version)
}

fn located(folder: &Path, name: &ModelName, version: Option<Version>) -> Result<Located, String> {
    let spec = Spec::read(&folder.join("model.toml"))?;
    let Kind::Network { versions, .. } = &spec.kind else {
        return Err(format!("{name} is a stand-in: it has set times instead of a network"));
    };
    let there = versions_in(versions).map_err(|error| format!("cannot read {}: {error}", versions.display()))?;
    let version = match version {
        Some(version) if there.contains(&version) => version,
        Some(_) => return Err(format!("there is no model {name}{}", written(version))),
        None => {
            let served = spec.policy.choose(there.clone()).into_iter().rev().find(|version| there.contains(version));
            served.ok_or_else(|| format!("there is no version of {name} in {}", versions.display()))?
        }
    };
    Ok(Located { spec, version })
}

fn written(version: Option<Version>) -> String {
    version.map(|version| format!(" version {version}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_works_by_the_policy_is_found() {
        let models = tempfile::tempdir().unwrap();
        let mine = models.path().join("mine");
        for version in ["2", "10"] {
            fs::create_dir_all(mine.join(version)).unwrap();
            fs::write(mine.join(version).join("model.safetensors"), embedded::WEIGHTS).unwrap();
        }
        let spec = "architecture = \"lenet\"\n[preprocess]\nsize = [28, 28]\nresize = \"digit\"\nchannels = \"grey\"\n";
        fs::write(mine.join("model.toml"), spec).unwrap();
        fs::write(mine.join("labels.txt"), embedded::LABELS).unwrap();
        let ask = |name: &str, version: Option<u64>| {
            let name = ModelName::new(name).unwrap();
            find(Some(models.path()), true, &name, version.map(Version), &Devices::cpu())
        };
        assert_eq!(ask("mine", None).unwrap().version, Version(10));
        let two = ask("mine", Some(2)).unwrap();
        assert_eq!(
            (two.version, two.size, two.opened.labels.all().len()),
            (Version(2), embedded::WEIGHTS.len() as u64, 10)
        );
        assert_eq!(ask("digits", None).unwrap().version, embedded::VERSION);
        assert_eq!(ask("mine", Some(3)).unwrap_err(), "there is no model mine version 3");
        assert!(ask("yours", None).unwrap_err().contains("adit-agent list --models"));
        fs::write(mine.join("model.toml"), "architecture = \"stand_in\"\n").unwrap();
        assert!(ask("mine", None).unwrap_err().contains("set times"));
    }
}
