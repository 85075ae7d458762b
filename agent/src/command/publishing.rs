//! Where `adit-agent train` puts what it makes: a new version in a model's folder, which an agent may be serving.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use adit_agent::serving::{Kind, Spec};
use adit_common::id::{IdError, Version};
use adit_vision::image::Preprocess;
use adit_vision::train::{Keep, ModelFolder, Workplace};
use adit_vision::{Architecture, Labels, VisionError};
use anyhow::{Context as _, bail, ensure};
use clap::Args;

/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Where the weights go.
#[derive(Debug, Args)]
pub(crate) struct Publishing {
    /// The model's folder: VERSION/model.safetensors is put into it, complete or not at all
    #[arg(long, value_name = "DIR")]
    pub(crate) model_path: PathBuf,
    /// The version to write: a number, or `next`
    #[arg(long, default_value = "next")]
    version: Wanted,
    /// Replace the version if it is there already
    #[arg(long)]
    force: bool,
    /// Go on from the checkpoint of a training that was interrupted
    #[arg(long, conflicts_with = "restart")]
    resume: bool,
    /// Begin anew, although there is a checkpoint
    #[arg(long)]
    restart: bool,
}

/// A version, or the one after the greatest that is there.
#[derive(Debug, Clone, Copy)]
struct Wanted(Option<u64>);

impl FromStr for Wanted {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text == "next" { Ok(Self(None)) } else { text.parse().map(|version: Version| Self(Some(version.0))) }
    }
}

impl Publishing {
    /// Fails if the folder holds another model than the one that is to be trained: a version of it would never be served.
    pub(crate) fn fits(
        &self,
        architecture: Architecture,
        preprocess: Option<&Preprocess>,
        labels_fit: impl FnOnce(&Labels) -> Result<(), VisionError>,
    ) -> anyhow::Result<()> {
        let file = self.model_path.join("model.toml");
        let labels = if file.exists() {
            let spec = Spec::read(&file).map_err(|reason| anyhow::anyhow!("{}: {reason}", file.display()))?;
            let Kind::Network { architecture: known, versions, labels, preprocess: prepared, .. } = spec.kind else {
                bail!("{} describes a stand-in", file.display());
            };
            ensure!(known == architecture, "{} describes a {known}, and this is a {architecture}", file.display());
            let alike = preprocess.is_none_or(|preprocess| *preprocess == *prepared);
            ensure!(alike, "{} prepares pictures in another way than the base", file.display());
            let same = versions.canonicalize().ok() == self.model_path.canonicalize().ok();
            ensure!(same, "{} takes its versions from {}", file.display(), versions.display());
            labels
        } else {
            self.model_path.join("labels.txt")
        };
        if labels.exists() {
            labels_fit(&Labels::read(&labels)?).with_context(|| format!("{} does not fit", labels.display()))?;
        }
        Ok(())
    }

    /// Makes sure, before anything is computed, that the result can be published, and that no other training is under way.
    pub(crate) fn begin(&self) -> anyhow::Result<Job> {
        let folder = ModelFolder::new(&self.model_path);
        folder.check(self.version.0, self.force).context("see --version and --force")?;
        let workplace = folder.begin()?;
        let path = workplace.checkpoint();
        match (path.exists(), self.resume) {
            (true, false) if !self.restart => {
                bail!("{} is of a training that was interrupted: give --resume or --restart", path.display())
            }
            (false, true) => bail!("there is no checkpoint to go on from: {} is not there", path.display()),
            _ => {}
        }
        let keep = Keep { path, resume: self.resume };
        Ok(Job { folder, workplace, keep, version: self.version.0, replace: self.force })
    }
}

/// A training that may begin.
#[derive(Debug)]
pub(crate) struct Job {
    folder: ModelFolder,
    pub(crate) workplace: Workplace,
    pub(crate) keep: Keep,
    version: Option<u64>,
    replace: bool,
}

impl Job {
    /// Publishes the weights, and a description of the model unless it has one. Gives the path of the weights.
    pub(crate) fn publish(
        self,
        weights: &[u8],
        curve: &str,
        labels: &[String],
        description: &str,
    ) -> anyhow::Result<PathBuf> {
        let mut lines = labels.join("\n");
        lines.push('\n');
        self.folder.describe("labels.txt", &lines)?;
        let others = [("learning.svg", curve.as_bytes())];
        let version = self.folder.publish(self.version, self.replace, weights, &others)?;
        // Last: an agent passes over a folder without it, and so never sees a model that has no version yet.
        self.folder.describe("model.toml", description)?;
        self.workplace.clear()?;
        Ok(self.folder.weights(version))
    }

    /// Says how to go on.
    pub(crate) fn interrupted(&self) -> ExitCode {
        let path = &self.keep.path;
        if path.exists() {
            eprintln!("stopped; the state is in {}: the same command with --resume goes on from there", path.display());
        } else {
            eprintln!("stopped before the first step: there is nothing to go on from");
        }
        ExitCode::from(INTERRUPTED)
    }
}
