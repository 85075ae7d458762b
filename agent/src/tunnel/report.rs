//! What an agent says of itself on each tunnel: a body that never ends.
//!
//! One JSON document a line: the manifest first, then a changed manifest at once, and the load when it has changed, at most
//! ten times a second, and every five seconds anyway, so that a silent agent can be told from a quiet one.

use std::convert::Infallible;
use std::time::Duration;

use adit_common::manifest::{Load, Manifest, Report};
use bytes::Bytes;
use futures_util::stream::{Stream, unfold};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Between two reports of the load: as old as a balancer's picture may get, at a few hundred bytes a second.
const PACE: Duration = Duration::from_millis(100);

/// Between two reports when nothing changes: half the tunnel's idle time-out.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Where reports come from; clones report the same.
#[derive(Debug, Clone)]
pub struct Reports {
    manifest: watch::Receiver<Manifest>,
    load: watch::Receiver<Load>,
}

impl Reports {
    /// Reports of these two, whenever they change.
    pub const fn new(manifest: watch::Receiver<Manifest>, load: watch::Receiver<Load>) -> Self {
        Self { manifest, load }
    }

    /// The lines, from the manifest as it is now; ends only when the agent does.
    pub fn lines(&self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static + use<> {
        let mut reports = self.clone();
        // Both are new to this reader, whatever was seen before.
        reports.manifest.mark_changed();
        reports.load.mark_changed();
        unfold((reports, Instant::now()), |(mut reports, said)| async move {
            let report = reports.next(said).await?;
            let mut line = serde_json::to_vec(&report).ok()?;
            line.push(b'\n');
            let said = if matches!(report, Report::Load(_)) { Instant::now() } else { said };
            Some((Ok(line.into()), (reports, said)))
        })
    }

    /// The next thing to say, when the load was last said at `said`.
    async fn next(&mut self, said: Instant) -> Option<Report> {
        loop {
            let stale = self.load.has_changed().ok()?;
            tokio::select! {
                // A manifest says what may be asked at all: it goes first.
                biased;
                changed = self.manifest.changed() => {
                    changed.ok()?;
                    return Some(Report::Manifest(self.manifest.borrow_and_update().clone()));
                }
                () = sleep_until(said + if stale { PACE } else { HEARTBEAT }) => {
                    return Some(Report::Load(*self.load.borrow_and_update()));
                }
                changed = self.load.changed(), if !stale => {
                    changed.ok()?;
                    // Seen, but not yet said.
                    self.load.mark_changed();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_common::id::AgentId;
    use futures_util::StreamExt as _;

    use super::*;

    fn manifest(draining: bool) -> Manifest {
        Manifest {
            agent: AgentId::new("shop-7").unwrap(),
            software: "0".into(),
            draining,
            models: Vec::new(),
            endpoints: Vec::new(),
            upstreams: Vec::new(),
            devices: Vec::new(),
            capacity: 1,
        }
    }

    fn read(line: Option<Result<Bytes, Infallible>>) -> Report {
        let line = line.unwrap().unwrap();
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1), "one line");
        serde_json::from_slice(&line).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_manifest_comes_first_then_changes_and_heartbeats() {
        let (say, hear) = watch::channel(manifest(false));
        let (load, loads) = watch::channel(Load::default());
        let reports = Reports::new(hear, loads);
        let start = Instant::now();
        let mut lines = Box::pin(reports.lines());
        assert_eq!(read(lines.next().await), Report::Manifest(manifest(false)));
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(read(lines.next().await), Report::Load(Load::default()));

        // Nothing changes: a heartbeat.
        let quiet = Instant::now();
        assert_eq!(read(lines.next().await), Report::Load(Load::default()));
        assert_eq!(quiet.elapsed(), HEARTBEAT);

        // Many changes are one line, after the pace.
        for in_flight in 1..50 {
            load.send_replace(Load { in_flight, queued: 0 });
        }
        let busy = Instant::now();
        assert_eq!(read(lines.next().await), Report::Load(Load { in_flight: 49, queued: 0 }));
        assert!(busy.elapsed() <= PACE + Duration::from_millis(2), "{:?}", busy.elapsed());

        // A changed manifest does not wait.
        say.send_replace(manifest(true));
        let drained = Instant::now();
        assert_eq!(read(lines.next().await), Report::Manifest(manifest(true)));
        assert_eq!(drained.elapsed(), Duration::ZERO);

        // A second tunnel hears everything from the beginning.
        assert_eq!(read(Box::pin(reports.lines()).next().await), Report::Manifest(manifest(true)));
        drop(say);
        assert!(lines.next().await.is_none());
    }
}
