//! Files that hold keys: written in one step, readable by their owner alone.
//!
//! A key file that is half written, or readable by others for a moment, is an incident. So every file is written
//! beside its place with its final mode, forced to the disk, and renamed; then the folder is forced to the disk too.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use crate::error::CertsError;

const PRIVATE_FILE: u32 = 0o600;
const PUBLIC_FILE: u32 = 0o644;
const PRIVATE_FOLDER: u32 = 0o700;

/// Length of a stateless-reset key: the block of the HMAC-SHA256 that it keys, so that all of it counts.
pub const RESET_KEY_BYTES: usize = 64;

/// Loads the relay's key for QUIC stateless resets, or makes one (mode 0600) where there is none.
///
/// It must outlive the process: only with the same key can a restarted relay tell the agents of its former self, within
/// a round trip, that their connections are gone.
pub fn reset_key(path: &Path) -> Result<[u8; RESET_KEY_BYTES], CertsError> {
    for _ in 0..2 {
        match fs::read(path) {
            Ok(bytes) => {
                warn_if_readable(path);
                return bytes.try_into().map_err(|bytes: Vec<u8>| CertsError::Malformed {
                    path: path.into(),
                    reason: format!(
                        "a stateless-reset key has {RESET_KEY_BYTES} bytes, this file {}: delete it, and the next start \
                         makes a new one",
                        bytes.len()
                    ),
                });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(CertsError::Read { path: path.into(), source }),
        }
        let mut key = [0; RESET_KEY_BYTES];
        let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
        random.fill(&mut key).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
        match place(path, &key, PRIVATE_FILE, false) {
            Ok(()) => return Ok(key),
            // Another process was faster: its key is the key.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(source) => return Err(CertsError::Write { path: path.into(), source }),
        }
    }
    Err(CertsError::Read { path: path.into(), source: ErrorKind::NotFound.into() })
}

/// Writes a key: mode 0600, in one step, whatever was there before.
pub(crate) fn write_private(path: &Path, contents: &str) -> Result<(), CertsError> {
    place(path, contents.as_bytes(), PRIVATE_FILE, true)
        .map_err(|source| CertsError::Write { path: path.into(), source })
}

/// Writes a certificate: mode 0644, in one step, whatever was there before.
pub(crate) fn write_public(path: &Path, contents: &str) -> Result<(), CertsError> {
    place(path, contents.as_bytes(), PUBLIC_FILE, true)
        .map_err(|source| CertsError::Write { path: path.into(), source })
}

/// Makes a folder (and its parents) that only its owner may enter, or makes an existing one so.
pub(crate) fn private_folder(path: &Path) -> Result<(), CertsError> {
    let failed = |source| CertsError::Write { path: path.into(), source };
    DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(PRIVATE_FOLDER)).map_err(failed)
}

/// Reads a text file; `remedy` tells a person what to do when it is not there.
pub(crate) fn read(path: &Path, remedy: &'static str) -> Result<String, CertsError> {
    fs::read_to_string(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => CertsError::Missing { path: path.into(), remedy },
        _ => CertsError::Read { path: path.into(), source },
    })
}

/// Says in the log when a key file is open to others, and goes on: refusing would stop a machine over a mode.
pub(crate) fn warn_if_readable(path: &Path) {
    let Ok(mode) = fs::metadata(path).map(|about| about.permissions().mode()) else { return };
    if is_open(mode) {
        tracing::warn!(path = %path.display(), mode = %format!("{:04o}", mode & 0o7777),
            "others may read or replace this key: chmod 600 it");
    }
}

/// Readable by everyone, or writable by anyone but the owner. Reading by the group is a choice (`ssl-cert`), and what
/// systemd's credentials look like, whose access list shows up as a group bit.
fn is_open(mode: u32) -> bool {
    mode & 0o026 != 0
}

fn place(path: &Path, contents: &[u8], mode: u32, replace: bool) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // In the same folder, because a rename is one step only within a file system. Dropped unrenamed, it is removed.
    let mut draft =
        tempfile::Builder::new().prefix(".adit-").permissions(Permissions::from_mode(mode)).tempfile_in(folder)?;
    // The mode at creation passes through the umask; this one does not.
    draft.as_file().set_permissions(Permissions::from_mode(mode))?;
    draft.write_all(contents)?;
    draft.as_file().sync_all()?;
    let placed = if replace { draft.persist(path) } else { draft.persist_noclobber(path) };
    placed.map_err(|failure| failure.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_reset_key_is_made_once_and_then_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reset.key");
        let first = reset_key(&path).unwrap();
        assert_eq!(reset_key(&path).unwrap(), first);
        assert_eq!(mode(&path), 0o600);
        assert_ne!(reset_key(&folder.path().join("other.key")).unwrap(), first);
        assert_ne!(first, [0; RESET_KEY_BYTES]);
    }

    #[test]
    fn a_reset_key_of_the_wrong_length_is_named_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reset.key");
        fs::write(&path, b"short").unwrap();
        let message = reset_key(&path).unwrap_err().to_string();
        assert!(message.contains("reset.key") && message.contains("this file 5"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }

    #[test]
    fn racing_starts_agree_on_one_reset_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reset.key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| reset_key(&path).unwrap())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(names(folder.path()), ["reset.key"]);
    }

    #[test]
    fn a_file_is_replaced_whole_and_a_reader_of_the_old_one_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.key");
        fs::write(&path, "old, and open to all").unwrap();
        let mut reader = File::open(&path).unwrap();
        write_private(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(mode(&path), 0o600, "the mode of the file that was there must not live on");
        let old = io::read_to_string(&mut reader).unwrap();
        assert_eq!(old, "old, and open to all", "it was renamed over, not written into");
        assert_eq!(names(folder.path()), ["agent.key"], "no draft is left");
    }

    #[test]
    fn a_failed_write_leaves_no_draft_and_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        // A folder stands in the way: the rename fails after the draft was written.
        let path = folder.path().join("agent.key");
        fs::create_dir(&path).unwrap();
        let message = write_private(&path, "new").unwrap_err().to_string();
        assert!(message.contains("agent.key"), "{message}");
        assert_eq!(names(folder.path()), ["agent.key"]);
    }

    #[test]
    fn keys_open_to_others_are_noticed() {
        for open in [0o644, 0o604, 0o660, 0o602] {
            assert!(is_open(open), "{open:o}");
        }
        for closed in [0o600, 0o400, 0o440, 0o640] {
            assert!(!is_open(closed), "{closed:o}");
        }
    }
}
