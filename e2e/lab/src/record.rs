//! What was measured, a line of JSON each, written at once: an interrupted run loses nothing.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The case that says that all of a part has been done.
const DONE: &str = "done";

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// In which round of the run.
    pub(crate) round: usize,
    /// The peer's name.
    pub(crate) peer: String,
    /// The scenario's.
    pub(crate) scenario: String,
    /// The part of the scenario, which had a lab of its own.
    pub(crate) part: String,
    /// What of the part was measured.
    pub(crate) case: String,
    /// Why there are no figures, if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// The figures.
    #[serde(flatten)]
    pub(crate) figures: Map<String, Value>,
}

/// One part of a scenario, with one peer, in one round.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Turn {
    /// As in the record.
    pub(crate) round: usize,
    /// As in the record.
    pub(crate) peer: String,
    /// As in the record.
    pub(crate) scenario: &'static str,
    /// As in the record.
    pub(crate) part: String,
}

impl Turn {
    /// A record of it.
    pub(crate) fn record(&self, case: &str, figures: &impl Serialize) -> anyhow::Result<Record> {
        let Value::Object(figures) = serde_json::to_value(figures)? else { anyhow::bail!("figures have names") };
        Ok(Record {
            round: self.round,
            peer: self.peer.clone(),
            scenario: self.scenario.into(),
            part: self.part.clone(),
            case: case.into(),
            error: None,
            figures,
        })
    }

    /// That it went wrong.
    pub(crate) fn failed(&self, error: &anyhow::Error) -> Record {
        let (peer, part) = (self.peer.clone(), self.part.clone());
        let (scenario, error) = (self.scenario.into(), Some(format!("{error:#}")));
        Record { round: self.round, peer, scenario, part, case: "failed".into(), error, figures: Map::new() }
    }

    /// That all of it was done.
    pub(crate) fn done(&self) -> Record {
        Record { case: DONE.into(), error: None, ..self.failed(&anyhow::Error::msg(DONE)) }
    }
}

/// The file of records.
#[derive(Debug)]
pub(crate) struct Book {
    path: PathBuf,
    file: File,
    done: HashSet<(usize, String, String, String)>,
}

impl Book {
    /// Opens it, to go on behind what is there.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let before = if path.exists() { read(path)? } else { Vec::new() };
        let done = before.into_iter().filter(|record| record.case == DONE);
        let done = done.map(|record| (record.round, record.peer, record.scenario, record.part)).collect();
        let file = File::options().create(true).append(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path: path.into(), file, done })
    }

    /// Whether this has been done in an earlier run.
    pub(crate) fn has(&self, turn: &Turn) -> bool {
        let Turn { round, peer, scenario, part } = turn.clone();
        self.done.contains(&(round, peer, scenario.into(), part))
    }

    /// Adds a record.
    pub(crate) fn add(&mut self, record: &Record) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(record)?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// All records of a file. A last line that was cut off is left out.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| format!("{}:{} is no record", path.display(), number + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn turn(round: usize) -> Turn {
        Turn { round, peer: "direct".into(), scenario: "wan", part: "loss1".into() }
    }

    #[test]
    fn an_interrupted_run_goes_on_behind_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let mut book = Book::open(&path).unwrap();
        let record = turn(1).record("150k", &json!({"p50_ms": 1.5})).unwrap();
        book.add(&record).unwrap();
        book.add(&turn(1).done()).unwrap();
        book.add(&turn(2).failed(&anyhow::anyhow!("no"))).unwrap();
        // Killed in the middle of a line.
        book.file.write_all(b"{\"round\":2,").unwrap();
        let read = read(&path).unwrap();
        assert_eq!(read[0], record);
        assert_eq!(read.len(), 3);
        let book = Book::open(&path).unwrap();
        assert!(book.has(&turn(1)) && !book.has(&turn(2)));
    }

    #[test]
    fn what_is_no_record_is_said_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        fs::write(&path, "\nhello\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().ends_with("results.jsonl:2 is no record"));
    }
}
