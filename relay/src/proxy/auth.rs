//! From credentials to a principal: who asks, and what they may do.
//!
//! A key comes as a bearer token or in `x-api-key`. It is looked up by its hash, so how long that takes tells nothing that
//! an attacker could steer: they would have to choose the hash, not the key.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use adit_common::daemon::Shutdown;
use adit_common::manifest::Scope;
use arc_swap::ArcSwap;
use http::{HeaderMap, header};

use super::keys::{KeyFile, KeysError, digest, parse_hex};
use crate::error::{Kind, ProxyError};
use crate::metrics::Metrics;

/// How often the keys file is looked at: a revoked key is refused within two seconds.
const LOOK: Duration = Duration::from_secs(1);

/// No key is longer; what is, need not be hashed.
const LONGEST: usize = 256;

/// Who asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    /// The key's name; `None` for who came without.
    pub(crate) name: Option<Arc<str>>,
    scopes: Vec<Scope>,
}

impl Principal {
    /// Whether they may; 403 for a key that does not reach so far, 401 for who showed none.
    pub(crate) fn check(&self, scope: Scope) -> Result<(), ProxyError> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        let what = match scope {
            Scope::Infer => "infer",
            Scope::Control => "control",
        };
        Err(match self.name {
            Some(_) => ProxyError::new(Kind::Forbidden, format!("this API key lacks the scope \"{what}\"")),
            None => missing(),
        })
    }
}

fn missing() -> ProxyError {
    ProxyError::new(
        Kind::Unauthorised,
        "an API key is required: send it as \"Authorization: Bearer KEY\" or \"x-api-key: KEY\"",
    )
}

type Table = HashMap<[u8; 32], Arc<Principal>>;

/// What tells one state of a file from the next: a replaced file has another inode even within one tick of the clock.
type Stamp = Option<(SystemTime, u64, u64)>;

/// The keys that are known.
#[derive(Debug)]
pub(crate) struct Keys {
    file: KeyFile,
    anonymous: Arc<Principal>,
    table: ArcSwap<Table>,
    stamp: Mutex<Stamp>,
    metrics: Arc<Metrics>,
}

impl Keys {
    /// Reads the file; without one nobody has a key.
    pub(crate) fn open(file: KeyFile, anonymous: &[Scope], metrics: Arc<Metrics>) -> Result<Self, KeysError> {
        let anonymous = Arc::new(Principal { name: None, scopes: anonymous.to_vec() });
        let keys = Self { file, anonymous, table: ArcSwap::default(), stamp: Mutex::new(None), metrics };
        let stamp = keys.look();
        keys.read()?;
        *keys.stamp.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
        if keys.table.load().is_empty() && keys.anonymous.scopes.is_empty() {
            let path = keys.file.path().display();
            tracing::warn!(%path, "there is no API key, so nobody can ask: make one with `adit-relay key new`");
        }
        Ok(keys)
    }

    /// Who asks, by these headers.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Principal>, ProxyError> {
        let Some(token) = token(headers) else {
            return if self.anonymous.scopes.is_empty() { Err(missing()) } else { Ok(self.anonymous.clone()) };
        };
        let found = if token.len() <= LONGEST { self.table.load().get(&digest(token)).cloned() } else { None };
        // A wrong key is a mistake that its sender wants to know of, even where none is needed.
        found.ok_or_else(|| ProxyError::new(Kind::Unauthorised, "this API key is unknown or was revoked"))
    }

    /// Reads the file again whenever it changes, until draining begins.
    pub(crate) async fn watch(&self, scope: &Shutdown) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick() => self.refresh(),
                () = scope.draining() => return,
            }
        }
    }

    /// A file of a few kilobytes on a local disk: not worth another thread.
    fn refresh(&self) {
        let stamp = self.look();
        {
            let mut seen = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == stamp {
                return;
            }
            *seen = stamp;
        }
        match self.read() {
            Ok(()) => {
                self.metrics.keys_reloads.one();
                tracing::info!(keys = self.table.load().len(), "the keys file was read again");
            }
            Err(error) => {
                self.metrics.keys_failures.one();
                tracing::error!(%error, "the keys file cannot be used, the keys stay as they were");
            }
        }
    }

    fn look(&self) -> Stamp {
        let about = fs::metadata(self.file.path()).ok()?;
        Some((about.modified().ok()?, about.ino(), about.len()))
    }

    fn read(&self) -> Result<(), KeysError> {
        let keys = self.file.list()?;
        let principal = |key: &super::keys::Key| {
            let principal = Principal { name: Some(key.name.as_str().into()), scopes: key.scopes.clone() };
            Some((parse_hex(&key.sha256)?, Arc::new(principal)))
        };
        let table: Table = keys.iter().filter_map(principal).collect();
        self.metrics.keys.set(table.len() as u64);
        self.table.store(Arc::new(table));
        Ok(())
    }
}

/// The key that a request carries, if any.
fn token(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    bearer.or_else(|| headers.get("x-api-key")?.to_str().ok().map(str::trim)).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        [(name.parse().unwrap(), HeaderValue::from_str(value).unwrap())].into_iter().collect()
    }

    fn status(result: Result<Arc<Principal>, ProxyError>) -> u16 {
        result.unwrap_err().status().as_u16()
    }

    #[test]
    fn a_key_opens_what_its_scopes_say_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("keys.toml"));
        let token = file.create("shop", &[Scope::Infer]).unwrap();
        let keys = Keys::open(file, &[], Arc::new(Metrics::new())).unwrap();
        for headers in [
            headers("authorization", &format!("Bearer {token}")),
            headers("authorization", &format!("bearer  {token} ")),
            headers("x-api-key", &token),
        ] {
            let principal = keys.authenticate(&headers).unwrap();
            assert_eq!(principal.name.as_deref(), Some("shop"));
            assert!(principal.check(Scope::Infer).is_ok());
            assert_eq!(principal.check(Scope::Control).unwrap_err().kind, Kind::Forbidden);
        }
        assert_eq!(status(keys.authenticate(&HeaderMap::new())), 401);
        assert_eq!(status(keys.authenticate(&headers("x-api-key", &token[1..]))), 401);
        assert_eq!(status(keys.authenticate(&headers("x-api-key", &"a".repeat(100_000)))), 401);
        assert_eq!(status(keys.authenticate(&headers("authorization", "Basic YTpi"))), 401);
    }

    #[test]
    fn anonymous_asks_only_where_the_configuration_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("keys.toml"));
        let keys = Keys::open(file, &[Scope::Infer], Arc::new(Metrics::new())).unwrap();
        let principal = keys.authenticate(&HeaderMap::new()).unwrap();
        assert!(principal.check(Scope::Infer).is_ok());
        assert_eq!(principal.check(Scope::Control).unwrap_err().kind, Kind::Unauthorised);
        assert_eq!(status(keys.authenticate(&headers("x-api-key", "wrong"))), 401);
    }

    #[test]
    fn a_changed_file_counts_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("keys.toml"));
        let keys = Keys::open(file.clone(), &[], Arc::new(Metrics::new())).unwrap();
        let token = file.create("late", &[Scope::Infer]).unwrap();
        let asks = headers("x-api-key", &token);
        assert_eq!(status(keys.authenticate(&asks)), 401);
        keys.refresh();
        assert!(keys.authenticate(&asks).is_ok());
        fs::write(file.path(), "no keys file").unwrap();
        keys.refresh();
        assert!(keys.authenticate(&asks).is_ok());
        assert_eq!(keys.metrics.keys_failures.get(), 1);
        fs::remove_file(file.path()).unwrap();
        keys.refresh();
        assert_eq!(status(keys.authenticate(&asks)), 401);
    }
}
