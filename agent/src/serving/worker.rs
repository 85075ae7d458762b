//! The OS thread that owns a network on a device.
//!
//! Not a task: a forward pass computes for milliseconds without ever waiting, and would starve the runtime that keeps the
//! tunnels alive. First come, first served, one at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use adit_vision::{Heads, Network, Stop, Tensor, VisionError};
use tokio::sync::oneshot;
use tracing::Span;

use super::progress::Progress;
use super::queue::Queue;
use crate::metrics::{Metrics, Queued};

/// One input that waits for a network.
#[derive(Debug)]
pub(super) struct Job {
    /// `[N, C, H, W]`, as the network takes it.
    pub(super) input: Tensor,
    /// Whether anybody still waits for it.
    pub(super) progress: Progress,
    /// Where the result goes.
    pub(super) reply: oneshot::Sender<Ran>,
    /// The request, for log lines.
    pub(super) span: Span,
    /// Its place in the load report.
    pub(super) queued: Queued,
}

/// A forward pass that was run.
#[derive(Debug)]
pub(super) struct Ran {
    /// What came out; the text is for the log.
    pub(super) heads: Result<Heads, String>,
    /// When the worker took it out of the queue.
    pub(super) begun: Instant,
    /// When the pass ended.
    pub(super) ended: Instant,
}

/// A sign of life that the network gives between two layers.
#[derive(Debug)]
struct Pulse {
    born: Instant,
    busy: AtomicBool,
    /// Milliseconds after `born`.
    beat: AtomicU64,
}

impl Pulse {
    fn beat(&self) {
        self.beat.store(self.born.elapsed().as_millis() as u64, Relaxed);
    }
}

/// A running worker; dropping it ends the thread after what it is running.
#[derive(Debug)]
pub(super) struct Worker {
    queue: Arc<Queue<Job>>,
    pulse: Arc<Pulse>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a thread of this name that runs the queue's jobs.
    pub(super) fn start(
        name: &str,
        network: Arc<dyn Network>,
        queue: Arc<Queue<Job>>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let pulse = Arc::new(Pulse { born: Instant::now(), busy: AtomicBool::new(false), beat: AtomicU64::new(0) });
        let thread = thread::Builder::new().name(name.to_owned()).spawn({
            let (queue, pulse) = (queue.clone(), pulse.clone());
            move || run(&*network, &queue, &pulse, &metrics)
        })?;
        Ok(Self { queue, pulse, thread })
    }

    /// Whether the thread lives, and shows progress at least every `patience` while it computes.
    pub(super) fn is_alive(&self, patience: Duration) -> bool {
        let silent = self.pulse.born.elapsed().saturating_sub(Duration::from_millis(self.pulse.beat.load(Relaxed)));
        !self.thread.is_finished() && (!self.pulse.busy.load(Relaxed) || silent < patience)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn run(network: &dyn Network, queue: &Queue<Job>, pulse: &Pulse, metrics: &Metrics) {
    while let Some(job) = queue.pop() {
        let Job { input, progress, reply, span, queued } = job;
        drop(queued);
        let _span = span.entered();
        if !progress.begin() {
            continue;
        }
        metrics.begun.add();
        let begun = Instant::now();
        pulse.beat();
        pulse.busy.store(true, Relaxed);
        let question = || {
            pulse.beat();
            progress.is_gone()
        };
        // A network that panics must not take its model down with it: the next input may be fine.
        let heads = catch_unwind(AssertUnwindSafe(|| network.forward(&input, &Stop::when(&question))));
        pulse.busy.store(false, Relaxed);
        let ended = Instant::now();
        let heads = match heads {
            Ok(Ok(heads)) => {
                metrics.forwards.add();
                Ok(heads)
            }
            Ok(Err(VisionError::Stopped)) => {
                tracing::debug!("stopped between two layers: the caller has left");
                continue;
            }
            Ok(Err(error)) => Err(chain(&error)),
            Err(panic) => Err(format!("the network panicked: {}", message(&*panic))),
        };
        // Nobody may be there to take it any more; the caller has counted that.
        let _ = reply.send(Ran { heads, begun, ended });
    }
}

/// An error with its causes, for the log.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use adit_vision::{Device, ImageShape};

    use super::*;

    /// Panics at a negative input, hangs at a large one until it may go on, and answers everything else.
    #[derive(Debug)]
    struct Moody;

    impl Network for Moody {
        fn input(&self) -> ImageShape {
            ImageShape::new(1, 1, 1)
        }
        fn classes(&self) -> usize {
            1
        }
        fn forward(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Heads, VisionError> {
            let value = input.flatten_all()?.to_vec1::<f32>()?[0];
            assert!(value >= 0.0, "a negative input");
            if value > 1.0 {
                loop {
                    thread::sleep(Duration::from_millis(1));
                    stop.check()?;
                }
            }
            Ok(Heads::Classes(input.flatten_from(1)?))
        }
    }

    struct Desk {
        queue: Arc<Queue<Job>>,
        worker: Worker,
        metrics: Arc<Metrics>,
    }

    fn desk() -> Desk {
        let (queue, metrics) = (Arc::new(Queue::new(8)), Arc::new(Metrics::new()));
        let worker = Worker::start("moody", Arc::new(Moody), queue.clone(), metrics.clone()).unwrap();
        Desk { queue, worker, metrics }
    }

    fn ask(desk: &Desk, value: f32) -> (Progress, oneshot::Receiver<Ran>) {
        let (reply, ran) = oneshot::channel();
        let progress = Progress::default();
        let input = Tensor::from_vec(vec![value], (1, 1, 1, 1), &Device::Cpu).unwrap();
        let (queued, span) = (desk.metrics.wait(), Span::none());
        desk.queue.push(Job { input, progress: progress.clone(), reply, span, queued }, 1).unwrap();
        (progress, ran)
    }

    #[test]
    fn a_panic_is_one_callers_misfortune() {
        let desk = desk();
        let (bad, good) = (ask(&desk, -1.0), ask(&desk, 1.0));
        let error = bad.1.blocking_recv().unwrap().heads.unwrap_err();
        assert!(error.contains("a negative input"), "{error}");
        assert!(good.1.blocking_recv().unwrap().heads.is_ok());
        assert!(desk.worker.is_alive(Duration::from_secs(60)));
        assert_eq!(desk.metrics.forwards.get(), 1);
    }

    #[test]
    fn who_leaves_stops_its_pass_or_never_has_one() {
        let desk = desk();
        let (running, waiting, last) = (ask(&desk, 2.0), ask(&desk, 1.0), ask(&desk, 1.0));
        assert_eq!(waiting.0.leave(), super::super::progress::Left::Waiting);
        running.0.leave();
        assert!(last.1.blocking_recv().unwrap().heads.is_ok());
        assert!(running.1.blocking_recv().is_err(), "no result");
        assert!(waiting.1.blocking_recv().is_err(), "never run");
        assert_eq!(desk.metrics.forwards.get(), 1);
    }

    #[test]
    fn a_closed_queue_ends_the_thread_and_that_shows() {
        let desk = desk();
        desk.queue.close();
        while !desk.worker.thread.is_finished() {
            thread::yield_now();
        }
        assert!(!desk.worker.is_alive(Duration::from_secs(60)));
    }
}
