//! Scopes of tasks: the one place that spawns.
//!
//! Every task belongs to a [`Shutdown`] scope, so none is orphaned: a scope begins to drain, its tasks notice and finish
//! what they have, and what is left after the limit is aborted. A task's name is its span.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A scope of tasks. Clones are the same scope.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A scope of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// A scope within this one: it drains when this one does and may drain before, and its tasks count here too.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { drain: self.drain.child_token(), kill: self.kill.child_token(), tasks: self.tasks.clone() }
    }

    /// Spawns a task that is aborted when the scope is killed; its handle then answers `None`.
    #[allow(clippy::disallowed_methods, reason = "this is the place that spawns")]
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = Mortal { killed: self.kill.clone().cancelled_owned(), future };
        tokio::spawn(self.tasks.track_future(task.instrument(tracing::debug_span!("task", task = name))))
    }

    /// Starts to drain: tasks finish what they have and take nothing new.
    pub fn begin(&self) {
        self.drain.cancel();
    }

    /// Whether draining has begun.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Resolves when draining has begun.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Aborts every task of this scope at its next suspension point.
    pub fn kill(&self) {
        self.kill.cancel();
    }

    /// Begins to drain, waits until every task has ended or `limit` has passed, and aborts the rest. True if all ended in time.
    pub async fn finish(&self, limit: Duration) -> bool {
        self.begin();
        self.tasks.close();
        let in_time = tokio::time::timeout(limit, self.tasks.wait()).await.is_ok();
        self.kill();
        self.tasks.wait().await;
        in_time
    }
}

pin_project! {
    /// A future that ends with its scope. Not an async block: that would hold the future twice, as what it was given and as what
    /// it awaits, and the tasks of requests and sessions are most of what a relay's memory is.
    struct Mortal<F> {
        #[pin]
        killed: WaitForCancellationFutureOwned,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Mortal<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.killed.poll(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => this.future.poll(context).map(Some),
        }
    }
}

/// Waits for SIGTERM or SIGINT and says which came.
pub async fn signal() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tasks_finish_what_they_have_and_stragglers_are_aborted() {
        let scope = Shutdown::new();
        let inner = scope.child();
        let polite = inner.spawn("polite", {
            let scope = inner.clone();
            async move {
                scope.draining().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                "finished"
            }
        });
        assert!(scope.finish(Duration::from_secs(5)).await);
        assert_eq!(polite.await.unwrap(), Some("finished"));

        let scope = Shutdown::new();
        let stuck = scope.child().spawn("stuck", std::future::pending::<()>());
        assert!(!scope.finish(Duration::from_secs(5)).await);
        assert_eq!(stuck.await.unwrap(), None);
    }

    #[test]
    fn a_child_drains_alone_but_not_its_parent() {
        let scope = Shutdown::new();
        let child = scope.child();
        child.begin();
        assert!(child.is_draining() && !scope.is_draining());
        assert!(!scope.child().is_draining());
    }
}
