//! The file of API keys: who they belong to and what they allow, but never the keys themselves.
//!
//! A key holds 256 random bits, so its plain SHA-256 is stored: the slow hashes that protect passwords make guessing
//! expensive, and nobody guesses 256 bits. The key itself is printed once, when it is made.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use adit_common::manifest::Scope;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const HEADER: &str = "# Keys of adit-relay: hashes, not the keys. Written by `adit-relay key`; the relay reads it again when it changes.\n\n";

/// Why the keys file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It says something that is not understood.
    #[error("{} is no keys file: {reason}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A key's name breaks its rule.
    #[error("{0:?} is no name for a key: 1 to 40 of a-z, 0-9 and '-'")]
    Name(String),
    /// There is a key of this name already.
    #[error("there is a key named {0:?} already: revoke it first, or take another name")]
    Exists(String),
    /// There is no key of this name.
    #[error("there is no key named {0:?}")]
    Unknown(String),
}

/// One key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Whose it is, for people and logs.
    pub name: String,
    /// SHA-256 of the key, in hexadecimal digits.
    pub sha256: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// When it was made, as RFC 3339.
    pub created: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default)]
    key: Vec<Key>,
}

/// The keys file, as `adit-relay key` works on it.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// The file at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every key, in the order in which they were made; none if there is no file.
    pub fn list(&self) -> Result<Vec<Key>, KeysError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => self.parse(&text),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(KeysError::Read { path: self.path.clone(), source }),
        }
    }

    /// Makes a key and returns it: `adit_NAME_` and 32 random bytes. It is stored nowhere.
    pub fn create(&self, name: &str, scopes: &[Scope]) -> Result<String, KeysError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=40).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(KeysError::Name(name.chars().take(80).collect()));
        }
        let token = format!("adit_{name}_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
        let mut scopes = scopes.to_vec();
        scopes.sort_unstable();
        scopes.dedup();
        // invariant: the current time is within what RFC 3339 can write.
        let created = OffsetDateTime::now_utc().replace_nanosecond(0).ok().and_then(|now| now.format(&Rfc3339).ok());
        let created = created.unwrap_or_default();
        self.change(|keys| {
            if keys.iter().any(|key| key.name == name) {
                return Err(KeysError::Exists(name.to_owned()));
            }
            keys.push(Key { name: name.to_owned(), sha256: hex(&digest(&token)), scopes, created });
            Ok(())
        })?;
        Ok(token)
    }

    /// Removes a key: a running relay refuses it within two seconds.
    pub fn revoke(&self, name: &str) -> Result<(), KeysError> {
        self.change(|keys| {
            let before = keys.len();
            keys.retain(|key| key.name != name);
            if keys.len() == before { Err(KeysError::Unknown(name.to_owned())) } else { Ok(()) }
        })
    }

    /// Reads `text` as a keys file.
    pub(crate) fn parse(&self, text: &str) -> Result<Vec<Key>, KeysError> {
        let malformed = |reason: String| KeysError::Malformed { path: self.path.clone(), reason };
        let contents: Contents = toml::from_str(text).map_err(|error| malformed(error.to_string()))?;
        match contents.key.iter().find(|key| parse_hex(&key.sha256).is_none()) {
            Some(key) => Err(malformed(format!("the sha256 of {:?} is not 64 hexadecimal digits", key.name))),
            None => Ok(contents.key),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Key>) -> Result<(), KeysError>) -> Result<(), KeysError> {
        let failed = |source| KeysError::Write { path: self.path.clone(), source };
        let folder = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder).map_err(failed)?;
        // Two operators at once must not lose each other's key; the folder is locked, for the file itself is replaced.
        let lock = File::open(folder).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut key = self.list()?;
        change(&mut key)?;
        let text = toml::to_string(&Contents { key })
            .map_err(|error| KeysError::Malformed { path: self.path.clone(), reason: error.to_string() })?;
        let private = Permissions::from_mode(0o600);
        let mut draft =
            tempfile::Builder::new().prefix(".adit-keys-").permissions(private).tempfile_in(folder).map_err(failed)?;
        draft.write_all(HEADER.as_bytes()).and_then(|()| draft.write_all(text.as_bytes())).map_err(failed)?;
        draft.as_file().sync_all().map_err(failed)?;
        // A relay that runs as another user must be able to read it: what it could read before, and in a folder of its own
        // what is new there.
        if let Ok(about) = fs::metadata(&self.path).or_else(|_| fs::metadata(folder)) {
            use std::os::unix::fs::MetadataExt as _;
            // Only root may give a file away; for anybody else it is theirs already.
            let _ = std::os::unix::fs::chown(draft.path(), Some(about.uid()), Some(about.gid()));
        }
        draft.persist(&self.path).map_err(|failure| failed(failure.error))?;
        lock.sync_all().map_err(failed)
    }
}

/// SHA-256 of a key.
pub(crate) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(2 * digest.len()), |mut out, byte| {
        // invariant: writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The bytes of 64 hexadecimal digits.
pub(crate) fn parse_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_once_and_stored_as_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("state/keys.toml"));
        assert_eq!(file.list().unwrap(), []);
        let token = file.create("shop-7", &[Scope::Control, Scope::Infer, Scope::Infer]).unwrap();
        assert!(token.starts_with("adit_shop-7_") && token.len() == 12 + 43, "{token}");
        let text = fs::read_to_string(file.path()).unwrap();
        assert!(!text.contains(&token[12..]), "the key itself is stored nowhere");
        let keys = file.list().unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(parse_hex(&keys[0].sha256), Some(digest(&token)));
        assert_eq!(keys[0].scopes, [Scope::Infer, Scope::Control]);
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn names_are_unique_and_a_revoked_one_is_free_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("keys.toml"));
        file.create("a", &[Scope::Infer]).unwrap();
        assert!(matches!(file.create("a", &[Scope::Infer]), Err(KeysError::Exists(_))));
        assert!(matches!(file.revoke("b"), Err(KeysError::Unknown(_))));
        file.revoke("a").unwrap();
        file.create("a", &[Scope::Infer]).unwrap();
        for bad in ["", "A", "a b", "a_b", &"a".repeat(41)] {
            assert!(matches!(file.create(bad, &[]), Err(KeysError::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn operators_at_once_lose_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("keys.toml"));
        std::thread::scope(|scope| {
            for number in 0..8 {
                let file = &file;
                scope.spawn(move || file.create(&format!("key-{number}"), &[Scope::Infer]).unwrap());
            }
        });
        assert_eq!(file.list().unwrap().len(), 8);
    }

    #[test]
    fn a_broken_file_is_named_with_its_fault() {
        let file = KeyFile::new("keys.toml");
        let text = "[[key]]\nname = \"a\"\nsha256 = \"xy\"\nscopes = [\"infer\"]\ncreated = \"\"\n";
        assert!(file.parse(text).unwrap_err().to_string().contains("64 hexadecimal digits"));
        assert!(file.parse("[[key]]\nnam = 1").unwrap_err().to_string().contains("keys.toml"));
    }
}
