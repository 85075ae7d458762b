//! A network that runs: its weights in memory, the queue in front of it, and its workers.
//!
//! Kept apart from the model, which is labels, preprocessing and a name around it: a model whose description has changed is a
//! new one over the same engine, and its weights are neither read again nor held twice. When the last who holds an engine
//! lets go of it, its queue is closed and its threads end after what they are running.
//!
//! A thread that hangs within a layer cannot be ended. It is given up: those who wait for it are answered, another worker takes
//! its place, and it ends by itself should it ever come back. As such threads go on to hold a core, there may be only so many.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use adit_common::id::{ModelName, Version};
use adit_vision::Network;

use super::batcher::Options;
use super::batching::Batching;
use super::job::{Job, Refused};
use super::queue::Queue;
use super::worker::{Shop, Threads, Worker};
use crate::metrics::{Account, Hands, Metrics};

/// Threads that were given up and have not come back, from which on nobody is put in their places.
const MOST_GIVEN_UP: usize = 3;

/// How much longer than twice its patience [`Engine::tend`] may be away before that is a fault of its own.
const GRACE: Duration = Duration::from_secs(10);

const FAULT: &str = "its network hangs, and hung again in the workers that replaced the first";

/// A network that is ready to be run.
#[derive(Debug)]
pub(super) struct Loaded {
    /// The layers and their weights.
    pub(super) network: Arc<dyn Network>,
    /// What its weights take in memory, however many workers share them.
    pub(super) weight_bytes: usize,
    /// What it computes on: `cpu` or `cuda:N`.
    pub(super) device: Arc<str>,
}

/// What the processor is called.
pub(super) const CPU: &str = "cpu";

/// A running network.
#[derive(Debug)]
pub(super) struct Engine {
    name: String,
    weight_bytes: usize,
    device: Arc<str>,
    capacity: usize,
    shop: Shop,
    crew: Mutex<Crew>,
    hands: Hands,
    /// Numbers of its threads' names.
    hired: AtomicUsize,
}

#[derive(Debug, Default)]
struct Crew {
    wanted: usize,
    /// Of each.
    threads: Threads,
    workers: Vec<Worker>,
    given_up: Vec<Worker>,
}

impl Engine {
    /// Starts the workers of a version's network, with a queue for `capacity` images.
    pub(super) fn start(
        (model, version): (&ModelName, Version),
        loaded: Loaded,
        batching: &Batching,
        capacity: usize,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let (meter, account) = (metrics.meter(model.as_str()), metrics.account(model, version));
        let Loaded { network, weight_bytes, device } = loaded;
        let (options, threads) = resolve(batching, capacity, &device);
        let queue = Arc::new(Queue::new(options));
        let hands = meter.hands();
        let shop = Shop { network, queue: queue.clone(), meter, account, metrics };
        let crew = Crew { wanted: options.instances, threads, ..Crew::default() };
        let engine = Self {
            // For threads and the log.
            name: format!("{model}/{version}"),
            weight_bytes,
            device,
            capacity,
            shop,
            crew: Mutex::new(crew),
            hands,
            hired: AtomicUsize::new(0),
        };
        engine.try_hire(&mut engine.crew())?;
        // It has nothing to do on a device where batches do not pay, and then costs nothing.
        thread::Builder::new().name(format!("{} ahead", engine.name)).spawn(move || queue.prepare())?;
        Ok(engine)
    }

    /// The layers and their weights.
    pub(super) fn network(&self) -> &dyn Network {
        &*self.shop.network
    }

    /// What it computes on: `cpu` or `cuda:N`.
    pub(super) const fn device(&self) -> &Arc<str> {
        &self.device
    }

    /// What its weights take in memory, however many workers share them.
    pub(super) const fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// What is counted of the version.
    pub(super) const fn account(&self) -> &Arc<Account> {
        &self.shop.account
    }

    /// How many images may wait.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Puts a job into the queue; its number there.
    pub(super) fn submit(&self, job: Job) -> Result<u64, Refused> {
        let (taken, meter) = (self.shop.queue.push(job), &self.shop.meter);
        match &taken {
            Ok(taken) => meter.displaced.add_many(taken.displaced as u64),
            Err(Refused::Late(_)) => meter.late.add(),
            Err(Refused::Full) => meter.full.add(),
            Err(Refused::Expired | Refused::Faulty(_) | Refused::Closed) => {}
        }
        taken.map(|taken| taken.number)
    }

    /// Takes a job out of the queue again, if it still is there.
    pub(super) fn withdraw(&self, number: u64) {
        drop(self.shop.queue.remove(number));
    }

    /// Why it answers nobody, if so.
    pub(super) fn fault(&self) -> Option<&'static str> {
        self.shop.queue.fault()
    }

    /// Whether somebody tends to it: no pass of its workers is silent for much longer than `patience`.
    pub(super) fn is_alive(&self, patience: Duration) -> bool {
        let limit = patience * 2 + GRACE;
        self.crew().workers.iter().all(|worker| worker.silence() < limit)
    }

    /// Gives up workers that have shown no progress for `patience`, and puts others in their places. To be called again and
    /// again. True if it has become faulty by that, or sound again.
    pub(super) fn tend(&self, patience: Duration) -> bool {
        let mut crew = self.crew();
        let Crew { workers, given_up, .. } = &mut *crew;
        let mut place = 0;
        while let Some(worker) = workers.get(place) {
            let lost = worker.abandon(patience);
            if let Some(ticket) = lost {
                self.shop.queue.finished(ticket, false);
                tracing::error!(model = self.name, ?patience, "a pass shows no progress: its worker is given up");
                given_up.push(workers.swap_remove(place));
            } else if worker.is_finished() {
                workers.swap_remove(place);
            } else {
                place += 1;
                continue;
            }
            self.shop.meter.replaced.add();
        }
        given_up.retain(|worker| !worker.is_finished());
        self.hire(&mut crew);
        let fault = crew.workers.is_empty().then_some(FAULT);
        let changed = fault != self.fault();
        if changed {
            match fault {
                Some(fault) => tracing::error!(model = self.name, fault, "the model answers nobody any more"),
                None => tracing::info!(model = self.name, "the model answers again"),
            }
            self.shop.queue.set_fault(fault);
        }
        changed
    }

    /// Runs by other options from now on; what waits and what runs is not lost.
    pub(super) fn set_batching(&self, batching: &Batching) {
        let (options, threads) = resolve(batching, self.capacity, &self.device);
        let mut crew = self.crew();
        if (crew.wanted, crew.threads) != (options.instances, threads) {
            (crew.wanted, crew.threads) = (options.instances, threads);
            // They finish what they run; their cores are shared anew by others.
            crew.workers.clear();
        }
        self.hire(&mut crew);
        self.shop.queue.set_options(options);
    }

    /// Fills the empty places; what cannot be filled now is tried again when it is tended to.
    fn hire(&self, crew: &mut Crew) {
        if let Err(error) = self.try_hire(crew) {
            tracing::error!(model = self.name, %error, "a worker cannot be started");
        }
    }

    fn try_hire(&self, crew: &mut Crew) -> std::io::Result<()> {
        while crew.workers.len() < crew.wanted && crew.given_up.len() < MOST_GIVEN_UP {
            let name = format!("{} {}", self.name, self.hired.fetch_add(1, Relaxed));
            crew.workers.push(Worker::start(&name, crew.threads, self.shop.clone())?);
            self.hands.set(crew.workers.len());
        }
        self.hands.set(crew.workers.len());
        Ok(())
    }

    fn crew(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shop.queue.close();
    }
}

/// What is to be done, and the threads of each worker: on a processor one worker a core and one thread each, unless other numbers of
/// either are wanted; the cores are shared out by the one that was given. As long as workers are idle, those who are not have their cores.
fn resolve(batching: &Batching, capacity: usize, device: &str) -> (Options, Threads) {
    let (cores, instances) = (thread::available_parallelism().map_or(1, usize::from), workers(batching, device));
    let Batching { max_batch, max_delay, threads, .. } = *batching;
    let threads = match threads {
        0 => Threads { each: (cores / instances).max(1), most: cores },
        fixed => Threads { each: fixed, most: fixed },
    };
    (Options { capacity, max_batch, max_delay, instances }, threads)
}

/// How many workers there are to be. On a GPU one: there company pays, not neighbours, who take turns.
pub(super) fn workers(batching: &Batching, device: &str) -> usize {
    match batching.instances {
        0 if device == CPU => {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            (cores / batching.threads.max(1)).max(1)
        }
        0 => 1,
        some => some,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use adit_vision::{Device, Tensor};
    use tokio::sync::oneshot;
    use tracing::Span;

    use super::super::job::{Lost, Ran};
    use super::super::progress::Progress;
    use super::super::request::Priority;
    use super::super::stand_in::StandIn;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn engine(batching: &Batching) -> (Engine, Arc<Metrics>) {
        let (network, metrics) = (StandIn { faults: true, ..StandIn::default() }, Arc::new(Metrics::new()));
        let loaded = Loaded { network: Arc::new(network), weight_bytes: 40, device: CPU.into() };
        let name = (&"still".parse().unwrap(), Version(1));
        let engine = Engine::start(name, loaded, batching, 16, metrics.clone()).unwrap();
        (engine, metrics)
    }

    fn ask(engine: &Engine, metrics: &Arc<Metrics>, wish: f32) -> oneshot::Receiver<Result<Ran, Lost>> {
        let (reply, ran) = oneshot::channel();
        let input = Tensor::from_vec(vec![wish], (1, 1, 1, 1), &Device::Cpu).unwrap();
        let (queued, progress) = (metrics.wait("still", 1), Progress::default());
        let (deadline, priority, span) = (None, Priority::default(), Span::none());
        engine.submit(Job { input, priority, deadline, progress, reply, span, queued }).unwrap();
        ran
    }

    fn until(holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < LIMIT, "in time");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn cores_are_shared_out_among_the_workers() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let of = |instances, threads, device| {
            let (options, threads) = resolve(&Batching { instances, threads, ..Batching::default() }, 7, device);
            assert_eq!((options.capacity, options.max_batch), (7, 0));
            (options.instances, threads.each, threads.most)
        };
        assert_eq!(of(0, 0, CPU), (cores, 1, cores));
        assert_eq!(of(0, 0, "cuda:1"), (1, cores, cores));
        assert_eq!(of(3, 0, "cuda:1"), (3, (cores / 3).max(1), cores));
        assert_eq!((of(1, 0, CPU), of(2 * cores, 0, CPU)), ((1, cores, cores), (2 * cores, 1, cores)));
        assert_eq!((of(0, 1, CPU), of(0, cores, CPU)), ((cores, 1, 1), (1, cores, cores)));
        assert_eq!((of(0, 2 * cores, CPU), of(3, 2, CPU)), ((1, 2 * cores, 2 * cores), (3, 2, 2)));
    }

    #[test]
    fn other_options_lose_nobody_and_the_last_who_lets_go_ends_its_threads() {
        let (engine, metrics) = engine(&Batching { instances: 1, ..Batching::default() });
        assert_eq!(engine.weight_bytes(), 40);
        let hands =
            |count: usize| metrics.render().contains(&format!("adit_agent_workers{{model=\"still\"}} {count}\n"));
        assert!(hands(1));
        let (busy, waiting) = (ask(&engine, &metrics, 0.2), ask(&engine, &metrics, 0.0));
        engine.set_batching(&Batching { instances: 3, max_batch: 2, ..Batching::default() });
        assert!(hands(3));
        assert!(waiting.blocking_recv().unwrap().is_ok() && busy.blocking_recv().unwrap().is_ok());
        engine.set_batching(&Batching { instances: 2, max_batch: 2, ..Batching::default() });
        assert!(ask(&engine, &metrics, 0.0).blocking_recv().unwrap().is_ok());
        let (network, running) = (Arc::downgrade(&engine.shop.network), ask(&engine, &metrics, 0.1));
        until(|| metrics.begun.get() == 4);
        drop(engine);
        assert!(hands(0));
        assert!(running.blocking_recv().unwrap().is_ok(), "what runs is finished");
        until(|| network.strong_count() == 0);
    }

    #[test]
    fn the_place_of_a_worker_that_hangs_is_filled_so_many_times() {
        let (engine, metrics) = engine(&Batching { instances: 1, ..Batching::default() });
        let patience = Duration::from_millis(20);
        assert!(!engine.tend(patience) && engine.fault().is_none());
        for number in 1..=MOST_GIVEN_UP {
            let (begun, replaced) = (metrics.begun.get(), metrics.meter("still").replaced.get());
            let hung = ask(&engine, &metrics, 3.0);
            until(|| metrics.begun.get() > begun);
            let waiting = ask(&engine, &metrics, 0.0);
            until(|| {
                engine.tend(patience);
                metrics.meter("still").replaced.get() > replaced
            });
            assert!(matches!(hung.blocking_recv().unwrap(), Err(Lost::Failed { .. })));
            let answered = waiting.blocking_recv().unwrap();
            assert_eq!(answered.is_ok(), number < MOST_GIVEN_UP, "{answered:?}");
        }
        assert_eq!(engine.fault(), Some(FAULT));
        // They come back, and it answers again.
        until(|| engine.tend(LIMIT));
        assert!(engine.fault().is_none());
        assert!(ask(&engine, &metrics, 0.0).blocking_recv().unwrap().is_ok());
    }
}
