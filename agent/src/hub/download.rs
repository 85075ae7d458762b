//! One large file, fetched into a part file that a later try goes on with.
//!
//! The part file's name is the hash that the whole must have, so what lies there can only be a beginning of the same file. It
//! is hashed while it is written: a whole file is known to be right, or wrong, the moment it has arrived.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::Context;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};

use super::client::{Hub, Place, Trouble, next};
use super::describe::Remote;
use super::failure::PullError;

/// Tries in a row that brought nothing, before it is left to the user to try again.
const TRIES: u32 = 3;

/// The pause before the first such try; each further one is as much longer. A hub that restarts a server is back by then.
const PAUSE: Duration = Duration::from_millis(500);

/// Who watches a download.
pub trait Progress {
    /// A file of `size` bytes, of which `have` were there before.
    fn begin(&mut self, file: &str, have: u64, size: u64);
    /// So many bytes of it are there now.
    fn at(&mut self, have: u64);
    /// It is whole, or was given up.
    fn end(&mut self);
    /// Something that the user should know.
    fn say(&mut self, line: &str);
}

/// Why one try ended before the file did.
enum Ended {
    /// The next one may be better.
    Broken(String),
    /// It will not.
    For(PullError),
}

/// Fetches a file into `folder`; the path of the whole, whose hash is right.
pub(super) async fn download(
    hub: &Hub,
    place: &Place,
    remote: &Remote,
    folder: &Path,
    progress: &mut impl Progress,
) -> Result<PathBuf, PullError> {
    let mut part = Part::open(folder, remote)?;
    progress.begin(&remote.name, part.length, remote.size);
    let fetched = fetch(hub, place, remote, &mut part, progress).await;
    progress.end();
    if fetched.is_err() && part.length == 0 {
        part.delete();
    }
    fetched?;
    part.finish(remote)
}

async fn fetch(
    hub: &Hub,
    place: &Place,
    remote: &Remote,
    part: &mut Part,
    progress: &mut impl Progress,
) -> Result<(), PullError> {
    let mut failures = 0;
    while part.length < remote.size {
        let before = part.length;
        let reason = match stretch(hub, place, remote, part, progress).await {
            Ok(()) => continue,
            Err(Ended::For(error)) => return Err(error),
            Err(Ended::Broken(reason)) => reason,
        };
        failures = if part.length > before { 1 } else { failures + 1 };
        if failures > TRIES {
            return Err(PullError::BrokenOff { have: part.length, size: remote.size, reason });
        }
        progress.say(&format!("broke off at {} of {} bytes ({reason}): going on", part.length, remote.size));
        tokio::time::sleep(PAUSE * failures).await;
    }
    Ok(())
}

/// One request, as far as it carries.
async fn stretch(
    hub: &Hub,
    place: &Place,
    remote: &Remote,
    part: &mut Part,
    progress: &mut impl Progress,
) -> Result<(), Ended> {
    let ended = |trouble| match trouble {
        Trouble::Way(reason) => Ended::Broken(reason),
        Trouble::Hub(error) => Ended::For(error),
    };
    let mut response = hub.open(place, &remote.name, part.length).await.map_err(ended)?;
    if part.length > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
        // A server that knows no ranges sends it all.
        part.restart(remote).map_err(Ended::For)?;
        progress.at(0);
    } else if part.length > 0 && first(&response) != Some(part.length) {
        return Err(Ended::For(hub.foreign(format!("it sent another part of {} than was asked for", remote.name))));
    }
    while let Some(bytes) = next(&mut response).await.map_err(ended)? {
        if bytes.len() as u64 > remote.size - part.length {
            part.delete();
            let reason = format!("{} is longer than the {} bytes that it states", remote.name, remote.size);
            return Err(Ended::For(hub.foreign(reason)));
        }
        part.write(&bytes, remote).map_err(Ended::For)?;
        progress.at(part.length);
    }
    if part.length < remote.size { Err(Ended::Broken("the answer ended early".to_owned())) } else { Ok(()) }
}

/// The first byte's number, of an answer that is a part.
fn first(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// What has arrived so far.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    hash: Context,
}

impl Part {
    /// What an earlier try left, or an empty one. Parts of other files are of no use any more.
    fn open(folder: &Path, remote: &Remote) -> Result<Self, PullError> {
        let name = format!("{}.part", remote.checksum.text());
        for entry in std::fs::read_dir(folder).map_err(PullError::disk("read", folder))?.flatten() {
            let other = entry.path();
            if other.extension().is_some_and(|extension| extension == "part") && !other.ends_with(&name) {
                std::fs::remove_file(&other).map_err(PullError::disk("delete", &other))?;
            }
        }
        let path = folder.join(name);
        let options = OpenOptions::new().read(true).append(true).create(true).clone();
        let file = options.open(&path).map_err(PullError::disk("write", &path))?;
        let mut part = Self { path, file, length: 0, hash: remote.checksum.begin(remote.size) };
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = part.file.read(&mut buffer).map_err(PullError::disk("read", &part.path))?;
            if count == 0 {
                break;
            }
            part.hash.update(&buffer[..count]);
            part.length += count as u64;
            if part.length > remote.size {
                part.restart(remote)?;
                break;
            }
        }
        Ok(part)
    }

    fn restart(&mut self, remote: &Remote) -> Result<(), PullError> {
        self.file.set_len(0).map_err(PullError::disk("write", &self.path))?;
        (self.length, self.hash) = (0, remote.checksum.begin(remote.size));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], remote: &Remote) -> Result<(), PullError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(count) if count > 0 => {
                    self.hash.update(&rest[..count]);
                    self.length += count as u64;
                    rest = &rest[count..];
                }
                Ok(_) => return Err(self.refused(ErrorKind::WriteZero.into(), remote)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.refused(error, remote)),
            }
        }
        Ok(())
    }

    fn refused(&self, error: std::io::Error, remote: &Remote) -> PullError {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                PullError::Full { path: self.path.clone(), needed: remote.size - self.length }
            }
            _ => PullError::Disk { doing: "write", path: self.path.clone(), source: error },
        }
    }

    /// The whole, once it is on the disk and its hash is right.
    fn finish(self, remote: &Remote) -> Result<PathBuf, PullError> {
        self.file.sync_all().map_err(PullError::disk("write", &self.path))?;
        match remote.checksum.check(self.hash.clone()) {
            Ok(()) => Ok(self.path),
            Err(found) => {
                self.delete();
                Err(PullError::WrongHash {
                    file: remote.name.clone(),
                    kind: remote.checksum.kind(),
                    found,
                    stated: remote.checksum.text().to_owned(),
                })
            }
        }
    }

    /// Best effort: what stays is found out, and replaced, by the next try.
    fn delete(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
