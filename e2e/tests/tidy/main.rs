//! The rules of the house (`ARCHITECTURE.md`, "Who may import whom") as tests, so that nobody has to remember them.
//!
//! Each rule is a function from sources, or from cargo's own account of the crates, to the breaches found; a test
//! applies it to this workspace, and a second one to a planted breach, to show that the rule can fail. Only the
//! standard library and serde_json are needed, and no git.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod crates;
mod paths;
mod rooms;
mod source;
mod words;

use std::fmt;
use std::path::{Path, PathBuf};

/// One place where a rule is not kept.
struct Breach {
    place: String,
    what: String,
}

impl Breach {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { place: format!("{path}:{line}"), what: what.into() }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.what)
    }
}

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Fails with every breach, one a line.
#[track_caller]
fn kept(rule: &str, breaches: &[Breach]) {
    let list: Vec<_> = breaches.iter().map(|breach| format!("  {breach}")).collect();
    assert!(breaches.is_empty(), "{} breach(es) of the rule: {rule}\n{}", breaches.len(), list.join("\n"));
}

/// Fails unless exactly these places are found, as `path:line`.
#[track_caller]
fn finds(breaches: &[Breach], places: &[&str]) {
    let found: Vec<_> = breaches.iter().map(|breach| breach.place.as_str()).collect();
    let list: Vec<_> = breaches.iter().map(ToString::to_string).collect();
    assert_eq!(found, places, "{list:#?}");
}
