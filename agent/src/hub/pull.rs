//! `pull`: the walk from a name to a version that is served.

use std::path::{Path, PathBuf};

use adit_common::daemon::parse;
use adit_common::id::{ModelName, Version};
use adit_vision::image::Preprocess;
use adit_vision::{Architecture, DetectOptions, Labels, VisionError, Weights};
use serde::Deserialize;
use serde_json::Value;

use super::catalogue::{Published, weights};
use super::client::{Hub, Place};
use super::describe::{Description, Remote};
use super::download::{Progress, download};
use super::failure::PullError;
use super::publish::{Shelf, Texts};
use super::settings::{Names, Settings};
use crate::serving::{Devices, Kind, Spec};
use crate::workbench::Opened;

/// A `config.json` with the names of 20,000 classes is below 2 MB.
const LONGEST_CONFIG: usize = 16 << 20;

/// Where weights are on a hub.
#[derive(Debug, Clone)]
pub struct Source {
    /// `owner/name`.
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// The file, a path in the repository.
    pub file: String,
}

/// A model that is to be pulled.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What to call it.
    pub name: ModelName,
    /// As which version.
    pub version: Version,
    /// Whether to replace what is there.
    pub force: bool,
    /// From where.
    pub source: Source,
    /// Its layers.
    pub architecture: Architecture,
    /// How pictures are prepared; else the repository has to say it.
    pub preprocess: Option<Preprocess>,
    /// Which boxes a detector tells; the usual ones unless given.
    pub detect: Option<DetectOptions>,
    /// The names of its classes, one a line; else the repository's, else numbers.
    pub labels: Option<String>,
    /// The licence of the weights, where it is known already.
    pub licence: Option<String>,
}

/// A model that was pulled.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The file of its weights.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// Which hash was checked, and what it is.
    pub hash: (&'static str, String),
    /// The commit that it is of.
    pub commit: String,
    /// The licence of the weights, as far as anybody states one.
    pub licence: Option<String>,
    /// How many classes it has.
    pub classes: usize,
    /// Whether these are only numbered.
    pub numbered: bool,
    /// Whether `model.toml` and `labels.txt` were there before, and were left as they are.
    pub kept: bool,
}

impl Wanted {
    /// A model of the catalogue.
    pub fn known(published: &Published) -> Self {
        let Published { name, architecture, repository, file, preprocess, classes, licence } = published.clone();
        Self {
            name,
            version: Version(1),
            force: false,
            source: Source { repository, revision: "main".to_owned(), file },
            architecture,
            preprocess: Some(preprocess),
            detect: None,
            labels: Some(classes.text().to_owned()),
            licence: Some(licence),
        }
    }

    /// Any repository, `owner/name`; the model is called like it.
    pub fn from_repository(repository: &str, architecture: Architecture) -> Result<Self, PullError> {
        let name = repository.rsplit('/').next().unwrap_or_default();
        let name = ModelName::new(name).map_err(|error| PullError::Wrong(format!("{repository}: {error}")))?;
        Ok(Self {
            name,
            version: Version(1),
            force: false,
            source: Source { repository: repository.to_owned(), revision: "main".to_owned(), file: weights() },
            architecture,
            preprocess: None,
            detect: None,
            labels: None,
            licence: None,
        })
    }

    /// Takes `[preprocess]` and `[detect]` from the text of a file of this name.
    pub fn take_sections(&mut self, name: &str, text: &str) -> Result<(), PullError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Sections {
            preprocess: Preprocess,
            detect: Option<DetectOptions>,
        }
        let sections: Sections = parse(name, text)?;
        (self.preprocess, self.detect) = (Some(sections.preprocess), sections.detect);
        Ok(())
    }

    /// Names become parts of addresses: nothing in them may mean something else there.
    fn check(&self) -> Result<(), PullError> {
        let plain = |text: &str, also: &[u8]| {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) || also.contains(&byte);
            !text.is_empty() && text.bytes().all(good) && text.split('/').all(|part| !part.trim_matches('.').is_empty())
        };
        let Source { repository, revision, file } = &self.source;
        if !plain(repository, b"/") || repository.split('/').count() != 2 {
            return Err(PullError::Wrong(format!("`{repository}` is no repository: OWNER/NAME")));
        }
        if !plain(revision, b"/") {
            return Err(PullError::Wrong(format!("`{revision}` is no revision: a branch, a tag or a commit")));
        }
        if !plain(file, b"/+=@") {
            return Err(PullError::Wrong(format!("`{file}` is no path of a file in a repository")));
        }
        if !file.ends_with(".safetensors") {
            return Err(PullError::Wrong(format!(
                "`{file}` is no .safetensors file: no other kind of weights is read"
            )));
        }
        Ok(())
    }
}

/// Fetches what is wanted into `models`, tries it, and puts it in its place. Computes for seconds at its end, on the thread that
/// drives it: for a program that does nothing else.
pub async fn pull(
    hub: &Hub,
    wanted: &Wanted,
    models: &Path,
    progress: &mut impl Progress,
) -> Result<Pulled, PullError> {
    wanted.check()?;
    let shelf = Shelf::new(models, &wanted.name, wanted.version);
    let there = if wanted.force { None } else { shelf.there(|spec| same(spec, wanted.architecture))? };

    let Source { repository, revision, file } = wanted.source.clone();
    let description = Description::ask(hub, &Place { repository, revision }).await?;
    let remote = description.file(&file, hub)?;
    let (spec, text, names) = match there {
        Some(spec) => (spec, None, None),
        None => {
            let (preprocess, names) = describe(hub, &description, wanted).await?;
            let text = written(wanted, &preprocess, &description, &remote);
            (Spec::parse(&text, shelf.folder()).map_err(PullError::Wrong)?, Some(text), names)
        }
    };

    let staging = shelf.stage()?;
    let part = match download(hub, &description.place, &remote, staging.folder(), progress).await {
        Ok(part) => part,
        Err(error) => {
            staging.leave();
            return Err(error);
        }
    };
    let mut chosen = Chosen::default();
    let weights = Weights::read(&part).map_err(|error| unfit(&error))?;
    let opened = Opened::assemble(&spec, &weights, &Devices::cpu(), Path::new(""), |classes| {
        chosen.choose(&spec, text.is_some(), wanted, names, classes)
    });
    let opened = opened.map_err(PullError::Unfit)?;
    drop(weights);

    let texts = text.map(|spec| Texts { spec, labels: chosen.text });
    let path = shelf.publish(staging, &part, texts.as_ref())?;
    Ok(Pulled {
        path,
        size: remote.size,
        hash: (remote.checksum.kind(), remote.checksum.text().to_owned()),
        commit: description.place.revision.clone(),
        licence: wanted.licence.clone().or(description.licence),
        classes: opened.network.classes(),
        numbered: chosen.numbered,
        kept: texts.is_none(),
    })
}

/// Whether a new version of `architecture` can be served as this model's.
fn same(spec: &Spec, architecture: Architecture) -> Result<(), String> {
    match &spec.kind {
        Kind::Network { architecture: there, .. } if *there == architecture => Ok(()),
        Kind::Network { architecture: there, .. } => Err(format!("as a {there}")),
        Kind::StandIn(_) => Err("as a stand-in".to_owned()),
    }
}

/// How pictures are prepared, and what the repository calls its classes.
async fn describe(
    hub: &Hub,
    description: &Description,
    wanted: &Wanted,
) -> Result<(Preprocess, Option<Names>), PullError> {
    if let (Some(preprocess), Some(_)) = (&wanted.preprocess, &wanted.labels) {
        return Ok((preprocess.clone(), None));
    }
    let settings = if description.has("config.json") {
        let remote = description.file("config.json", hub)?;
        let text = hub.file(&description.place, &remote.name, LONGEST_CONFIG).await?;
        let mut hash = remote.checksum.begin(remote.size);
        hash.update(&text);
        remote.checksum.check(hash).map_err(|found| PullError::WrongHash {
            file: remote.name.clone(),
            kind: remote.checksum.kind(),
            found,
            stated: remote.checksum.text().to_owned(),
        })?;
        Settings::read(&text)
    } else {
        Settings::unknown("its repository has no config.json".to_owned())
    };
    let preprocess = match &wanted.preprocess {
        Some(preprocess) => preprocess.clone(),
        None => settings.preprocess.map_err(PullError::NoSettings)?,
    };
    Ok((preprocess, settings.classes))
}

/// The labels that were settled on once the number of classes was known.
#[derive(Default)]
struct Chosen {
    text: String,
    numbered: bool,
}

impl Chosen {
    fn choose(
        &mut self,
        spec: &Spec,
        new: bool,
        wanted: &Wanted,
        names: Option<Names>,
        classes: usize,
    ) -> Result<Labels, VisionError> {
        if let (false, Kind::Network { labels, .. }) = (new, &spec.kind) {
            return Labels::read(labels);
        }
        let lines = |names: &[String]| names.iter().map(|name| format!("{}\n", one_line(name))).collect::<String>();
        self.text = match (&wanted.labels, names) {
            // What was given must fit; what only happens to be published need not.
            (Some(given), _) => given.clone(),
            (None, Some(Names::Listed(names))) if names.len() == classes => lines(&names),
            (None, Some(Names::Known(known))) if known.text().lines().count() == classes => known.text().to_owned(),
            _ => {
                self.numbered = true;
                (0..classes).map(|class| format!("class {class}\n")).collect()
            }
        };
        Labels::parse(&self.text)
    }
}

fn unfit(error: &VisionError) -> PullError {
    PullError::Unfit(error.to_string())
}

/// The text of a `model.toml`.
fn written(wanted: &Wanted, preprocess: &Preprocess, description: &Description, remote: &Remote) -> String {
    let mut text = format!(
        "# Pulled from {}, {} at commit {}.\n# {} {}\n",
        description.place.repository,
        remote.name,
        description.place.revision,
        remote.checksum.kind(),
        remote.checksum.text(),
    );
    if let Some(licence) = wanted.licence.as_ref().or(description.licence.as_ref()) {
        text.push_str(&format!("# Licence of the weights: {}\n", one_line(licence)));
    }
    text.push_str(&format!("architecture = \"{}\"\n", wanted.architecture));
    text.push_str(&section("preprocess", serde_json::to_value(preprocess)));
    if let Some(detect) = &wanted.detect {
        text.push_str(&section("detect", serde_json::to_value(detect)));
    }
    text
}

/// A section of TOML from a flat JSON object: numbers, texts and lists are written alike in both.
fn section(name: &str, value: Result<Value, serde_json::Error>) -> String {
    let mut text = format!("\n[{name}]\n");
    if let Ok(Value::Object(entries)) = value {
        for (key, value) in entries {
            text.push_str(&format!("{key} = {}\n", inline(&value)));
        }
    }
    text
}

fn inline(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let entries: Vec<_> = entries.iter().map(|(key, value)| format!("{key} = {}", inline(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        plain => plain.to_string(),
    }
}

fn one_line(text: &str) -> String {
    text.split(char::is_control).map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted::from_repository("timm/resnet18.tv_in1k", Architecture::Resnet18).unwrap()
    }

    #[test]
    fn names_that_would_mean_something_else_in_an_address_are_refused() {
        assert_eq!(wanted().name.as_str(), "resnet18.tv_in1k");
        wanted().check().unwrap();
        let changed = |change: &dyn Fn(&mut Source)| {
            let mut wanted = wanted();
            change(&mut wanted.source);
            wanted.check().is_err()
        };
        for repository in ["timm", "a/b/c", "../b", "a/..", "a/b?x=", "a/b#", "/b", "a b/c", "https://x"] {
            assert!(changed(&|source| source.repository = repository.to_owned()), "{repository}");
        }
        for revision in ["", "a/../b", "main?x", "a b"] {
            assert!(changed(&|source| source.revision = revision.to_owned()), "{revision}");
        }
        for file in ["../m.safetensors", "a/./m.safetensors", "m.safetensors?download", "pytorch_model.bin", ""] {
            assert!(changed(&|source| source.file = file.to_owned()), "{file}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut wanted = wanted();
        wanted
            .take_sections(
                "mine.toml",
                "[preprocess]\nsize = [224, 224]\nresize = { short_side = 256 }\nmean = [0.485, 0.456, 0.406]\n\
                 std = [0.229, 0.224, 0.225]\nchannels = \"bgr\"\n",
            )
            .unwrap();
        let text = section("preprocess", serde_json::to_value(wanted.preprocess.as_ref().unwrap()));
        let spec = Spec::parse(&format!("architecture = \"resnet18\"\n{text}"), Path::new("/m")).unwrap();
        let Kind::Network { preprocess, .. } = spec.kind else { panic!("a network") };
        assert_eq!(*preprocess, wanted.preprocess.unwrap());
        let error = wanted_error("[preproces]\n");
        assert!(error.contains("mine.toml:1:"), "{error}");
        assert_eq!(one_line("MIT\n[detect]"), "MIT [detect]");
    }

    fn wanted_error(text: &str) -> String {
        wanted().take_sections("mine.toml", text).unwrap_err().to_string()
    }
}
