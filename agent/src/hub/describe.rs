//! What a hub says of a repository: which commit a revision is, which files are in it, and the hash of each.

use serde::Deserialize;
use serde_json::Value;

use super::checksum::{Checksum, hexadecimal};
use super::client::{Hub, Place};
use super::failure::PullError;

/// A repository's description is some hundred bytes a file; thousands of files fit.
const LONGEST: usize = 8 << 20;

/// A repository as it was at one commit.
#[derive(Debug)]
pub(super) struct Description {
    /// The repository, and the commit as its revision: what is asked from here on is of this state.
    pub(super) place: Place,
    /// As the repository's card states it.
    pub(super) licence: Option<String>,
    files: Vec<Sibling>,
}

/// A file that can be fetched and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// Its name in the repository.
    pub(super) name: String,
    /// Its bytes.
    pub(super) size: u64,
    /// What its hash must be.
    pub(super) checksum: Checksum,
}

#[derive(Deserialize)]
struct Written {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default, rename = "cardData")]
    card: Option<Card>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Stored>,
}

/// A file that the hub keeps outside of git.
#[derive(Debug, Deserialize)]
struct Stored {
    sha256: String,
    size: u64,
}

#[derive(Deserialize)]
struct Card {
    license: Option<Value>,
}

impl Description {
    /// Asks the hub.
    pub(super) async fn ask(hub: &Hub, place: &Place) -> Result<Self, PullError> {
        let text = hub.information(place, LONGEST).await?;
        Self::parse(&text, &place.repository).map_err(|reason| hub.foreign(reason))
    }

    fn parse(text: &[u8], repository: &str) -> Result<Self, String> {
        let Written { sha, siblings, card } =
            serde_json::from_slice(text).map_err(|error| format!("its description of {repository}: {error}"))?;
        let revision = hexadecimal(&sha, 40).ok_or("it names no commit")?;
        let licence = card.and_then(|card| card.license).and_then(|licence| licence.as_str().map(str::to_owned));
        Ok(Self { place: Place { repository: repository.to_owned(), revision }, licence, files: siblings })
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.rfilename == name)
    }

    /// The file of this name, with the hash that the hub states.
    pub(super) fn file(&self, name: &str, hub: &Hub) -> Result<Remote, PullError> {
        let Some(file) = self.files.iter().find(|file| file.rfilename == name) else {
            let there = self.there();
            return Err(PullError::NoFile { repository: self.place.repository.clone(), file: name.to_owned(), there });
        };
        let stated = match (&file.lfs, &file.blob, file.size) {
            (Some(stored), ..) => Checksum::sha256(&stored.sha256).map(|checksum| (stored.size, checksum)),
            (None, Some(blob), Some(size)) => Checksum::git(blob).map(|checksum| (size, checksum)),
            _ => None,
        };
        let unstated = || PullError::NoHash { endpoint: hub.endpoint().to_owned(), file: name.to_owned() };
        let (size, checksum) = stated.ok_or_else(unstated)?;
        Ok(Remote { name: name.to_owned(), size, checksum })
    }

    /// What somebody who mistook a name would look for.
    fn there(&self) -> String {
        let weights = |file: &&Sibling| file.rfilename.ends_with(".safetensors");
        let mut names: Vec<&str> = self.files.iter().filter(weights).map(|file| file.rfilename.as_str()).collect();
        if names.is_empty() {
            let few: Vec<_> = self.files.iter().take(8).map(|file| file.rfilename.as_str()).collect();
            return format!(
                "no .safetensors file, only {}",
                if few.is_empty() { "nothing".into() } else { few.join(", ") }
            );
        }
        names.truncate(8);
        names.join(", ")
    }
}
