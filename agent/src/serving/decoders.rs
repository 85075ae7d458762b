//! The threads that images are decoded, prepared and drawn on: so many at a time, shared by all requests in turn.

use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

use crate::error::InferError;

/// Places for jobs that compute for long; clones are the same ones.
#[derive(Debug, Clone)]
pub(super) struct Decoders(Arc<Semaphore>);

impl Decoders {
    /// So many jobs run at a time, and one at least.
    pub(super) fn new(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places.max(1))))
    }

    /// Runs a request's jobs side by side where there are places, and returns what they return, in their order. It waits for one place at a
    /// time, so that a request with many jobs lets others through between them. After a failure, which is seen when all before it have ended, and when
    /// the future is dropped, no further job is begun; `lost` says what it means that one panicked.
    pub(super) async fn run<T, J>(
        &self,
        jobs: impl IntoIterator<Item = J>,
        lost: impl Fn(JoinError) -> InferError,
    ) -> Result<Vec<T>, InferError>
    where
        J: FnOnce() -> Result<T, InferError> + Send + 'static,
        T: Send + 'static,
    {
        let (mut running, mut done) = (FuturesOrdered::new(), Vec::new());
        for job in jobs {
            let mut place = pin!(self.0.clone().acquire_owned());
            let place = loop {
                tokio::select! {
                    biased;
                    Some(ended) = running.next() => done.push(Result::map_err(ended, &lost)??),
                    place = &mut place => break place.map_err(|_| InferError::Cancelled)?,
                }
            };
            running.push_back(spawn_blocking(move || {
                let result = job();
                drop(place);
                result
            }));
        }
        while let Some(ended) = running.next().await {
            done.push(Result::map_err(ended, &lost)??);
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;

    fn lost(error: JoinError) -> InferError {
        InferError::Invalid(error.to_string())
    }

    #[tokio::test]
    async fn results_come_in_order_and_no_more_jobs_run_than_there_are_places() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs = (0..40).map(|number| {
            let (running, most) = (running.clone(), most.clone());
            move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(number)
            }
        });
        let done = Decoders::new(3).run(jobs, lost).await.unwrap();
        assert_eq!(done, (0..40).collect::<Vec<_>>());
        assert!(most.load(Ordering::SeqCst) <= 3);
    }

    /// Each of two jobs waits for the other.
    #[tokio::test]
    async fn the_jobs_of_one_request_run_side_by_side() {
        let ((to_second, of_first), (to_first, of_second)) = (sync_channel(1), sync_channel(1));
        let pairs = [(to_second, of_second), (to_first, of_first)];
        let jobs = pairs.map(|(say, hear)| {
            move || {
                say.send(()).unwrap();
                hear.recv().map_err(|_| InferError::Cancelled)
            }
        });
        assert_eq!(Decoders::new(2).run(jobs, lost).await.unwrap().len(), 2);
    }

    /// With one place, the job of a second request comes after one of the first request's at most, for all that it has twenty.
    #[tokio::test]
    async fn a_request_of_many_jobs_lets_another_through() {
        let (decoders, order) = (Decoders::new(1), Arc::new(Mutex::new(Vec::new())));
        let (open, gate) = sync_channel::<()>(1);
        let mut gate = Some(gate);
        let noted = |name: &'static str, gate: Option<Receiver<()>>| {
            let order = order.clone();
            move || {
                // The first one holds its place until the other request stands in the line.
                gate.map(|gate| gate.recv());
                order.lock().unwrap().push(name);
                Ok(())
            }
        };
        let many: Vec<_> = (0..20).map(|_| noted("many", gate.take())).collect();
        let other = async {
            let one = decoders.run([noted("one", None)], lost);
            let mut one = pin!(one);
            assert!(futures_util::poll!(&mut one).is_pending());
            open.send(()).unwrap();
            one.await
        };
        let (many, one) = tokio::join!(decoders.run(many, lost), other);
        assert!(many.is_ok() && one.is_ok());
        let at = order.lock().unwrap().iter().position(|name| *name == "one").unwrap();
        assert!(at <= 2, "it came after {at}");
    }

    #[tokio::test]
    async fn what_fails_ends_the_rest_and_what_panics_is_told() {
        let begun = Arc::new(AtomicUsize::new(0));
        let jobs = (0..30).map(|number| {
            let begun = begun.clone();
            move || {
                begun.fetch_add(1, Ordering::SeqCst);
                if number == 2 { Err(InferError::Cancelled) } else { Ok(()) }
            }
        });
        assert!(matches!(Decoders::new(1).run(jobs, lost).await, Err(InferError::Cancelled)));
        assert!(begun.load(Ordering::SeqCst) <= 4);
        let panics: [fn() -> Result<(), InferError>; 1] = [|| panic!("a bad picture")];
        let told = Decoders::new(1).run(panics, lost).await.unwrap_err();
        assert!(told.to_string().contains("panicked"), "{told}");
    }
}
