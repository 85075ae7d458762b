//! What can go wrong on the way from a hub into the folder of models. Each text says what to do about it.

use std::io;
use std::path::PathBuf;

use adit_common::daemon::ConfigError;
use adit_common::id::{ModelName, Version};

/// Why a model was not pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The catalogue has no such name.
    #[error(
        "there is no model named `{name}` in the catalogue, which has: {known}; what is not in it is pulled as OWNER/REPOSITORY \
         with --architecture"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Wrong(String),
    /// A file that was given is not what it should be.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// No answer from the hub.
    #[error("cannot reach {endpoint}: {reason}; look at the network, or name another hub in HF_ENDPOINT")]
    Unreachable {
        /// The hub.
        endpoint: String,
        /// What happened instead.
        reason: String,
    },
    /// The hub wants to know who asks. It says the same of what is not there.
    #[error("{endpoint} does not show {repository} to {}", stranger(endpoint, *.token))]
    Unauthorised {
        /// The hub.
        endpoint: String,
        /// The repository.
        repository: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The hub knows who asks, and does not give it.
    #[error(
        "{endpoint} does not give {repository} to {}: accept its terms at {endpoint}/{repository}, and give a token of the same \
         account in HF_TOKEN",
        if *.token { "the holder of this token" } else { "strangers" }
    )]
    Forbidden {
        /// The hub.
        endpoint: String,
        /// The repository.
        repository: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The hub has no such repository or revision.
    #[error("{endpoint} has no {repository} at revision {revision}: look at its name, and at --revision")]
    NotFound {
        /// The hub.
        endpoint: String,
        /// The repository.
        repository: String,
        /// Its revision.
        revision: String,
    },
    /// The repository has no such file.
    #[error("{repository} has no file {file}: name one with --file; it has {there}")]
    NoFile {
        /// The repository.
        repository: String,
        /// What was asked for.
        file: String,
        /// Safetensors files that it has, or the first of the others.
        there: String,
    },
    /// Another answer than was asked for.
    #[error("{endpoint} answered {status} for {what}: try again later")]
    Status {
        /// The hub.
        endpoint: String,
        /// The status.
        status: u16,
        /// What was asked for.
        what: String,
    },
    /// An answer that no hub gives.
    #[error("{endpoint} does not speak as a hub does: {reason}")]
    Foreign {
        /// What should have been a hub.
        endpoint: String,
        /// What is wrong with its answer.
        reason: String,
    },
    /// The hub keeps no hash by which the file could be checked.
    #[error("{endpoint} states no hash of {file}: without one it cannot be checked, and is not taken")]
    NoHash {
        /// The hub.
        endpoint: String,
        /// The file.
        file: String,
    },
    /// The connection broke, again and again.
    #[error("the download broke off at {have} of {size} bytes: {reason}; the same command goes on from there")]
    BrokenOff {
        /// Bytes that are there.
        have: u64,
        /// Bytes of the whole.
        size: u64,
        /// What happened last.
        reason: String,
    },
    /// Something else arrived than the hub says it has.
    #[error("{file} arrived damaged: its {kind} is {found}, the hub states {stated}; it was deleted, pull it again")]
    WrongHash {
        /// The file.
        file: String,
        /// Which hash.
        kind: &'static str,
        /// Of what arrived.
        found: String,
        /// What the hub says.
        stated: String,
    },
    /// How pictures are made ready for it is not known.
    #[error(
        "how pictures are prepared for this network is not known: {0}; write its [preprocess] section into a file and name that \
         with --preprocess"
    )]
    NoSettings(String),
    /// The weights are whole, but of another network.
    #[error("the weights do not fit: {0}")]
    Unfit(String),
    /// There is such a version already.
    #[error("{name} version {version} is there already: --version adds another one, --force replaces it")]
    Taken {
        /// The model.
        name: ModelName,
        /// The version.
        version: Version,
    },
    /// There is another model of this name.
    #[error("{name} is there already, {reason}: choose another name with --as, or replace it with --force")]
    Another {
        /// The model.
        name: ModelName,
        /// In what it differs.
        reason: String,
    },
    /// Somebody else pulls the same model.
    #[error("{name} is being pulled by another process")]
    Busy {
        /// The model.
        name: ModelName,
    },
    /// The disk is full.
    #[error("no room is left for {}: {needed} more bytes are needed; the same command goes on from there", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// Bytes that are still missing.
        needed: u64,
    },
    /// A file or folder could not be written or read.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl PullError {
    /// As [`PullError::Disk`], to be put behind a call.
    pub(super) fn disk(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Disk { doing, path, source }
    }
}

fn stranger(endpoint: &str, token: bool) -> String {
    if token {
        format!("the holder of this token: look at the name, and whether the token in HF_TOKEN is valid at {endpoint}")
    } else {
        "strangers: look at the name; if it is private or gated, give a token in HF_TOKEN".to_owned()
    }
}
