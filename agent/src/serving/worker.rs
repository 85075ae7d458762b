//! The OS thread that runs batches through a network.
//!
//! Not a task: a forward pass computes for milliseconds without ever waiting, and would starve the runtime that keeps the
//! tunnels alive. Each worker has a pool of its own for the loops that its network runs in parallel, and is that pool's first
//! thread: workers that shared one would wait for each other's loops within every layer.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adit_vision::{Network, Stop, Tensor, VisionError, join, on_threads};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;

use super::job::{Job, Lost, Ran};
use super::progress::Progress;
use super::queue::{Queue, Work};
use crate::metrics::{Account, Meter, Metrics};

/// A pass that takes less is over before another thread has begun to help.
const WORTH: Duration = Duration::from_micros(300);

/// The threads that a worker's passes are shared out to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Threads {
    /// Where every worker has something to do.
    pub(super) each: usize,
    /// Where it is the only one.
    pub(super) most: usize,
}

impl Threads {
    /// Those of a pass: with others it shares the cores, unless somebody waits who will need them in a moment. `took` is how long the one before
    /// it did.
    fn share(self, passes: Option<usize>, took: Duration) -> usize {
        match passes {
            Some(passes) if took >= WORTH => (self.most / passes.max(1)).max(self.each),
            _ => self.each,
        }
    }
}

/// What a worker shows of itself.
#[derive(Debug)]
struct Post {
    born: Instant,
    /// Milliseconds after `born`: the network's last sign of life, given between two layers.
    beat: AtomicU64,
    /// It is to leave: at once where it is taken for lost, after what it runs where it is not needed any more.
    dismissed: AtomicBool,
    lost: AtomicBool,
    ended: AtomicBool,
    /// What is being run. Whoever takes it out answers those who wait: the worker, or who has lost patience with it.
    seated: Mutex<Option<Seated>>,
}

type Reply = oneshot::Sender<Result<Ran, Lost>>;

/// Those who wait for the pass that is being run.
#[derive(Debug)]
struct Seated {
    ticket: u64,
    /// In the order of their turns: those of the pass first, then those who are still behind it.
    replies: VecDeque<Reply>,
}

impl Post {
    fn beat(&self) {
        self.beat.store(self.born.elapsed().as_millis() as u64, Relaxed);
    }

    fn silence(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(self.beat.load(Relaxed)))
    }

    fn seated(&self) -> MutexGuard<'_, Option<Seated>> {
        self.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running worker; dropping it ends its thread after what it is running.
#[derive(Debug)]
pub(super) struct Worker {
    post: Arc<Post>,
    /// Its threads end when the loop that runs on the first one has.
    _threads: ThreadPool,
}

/// What workers of one network share.
#[derive(Debug, Clone)]
pub(super) struct Shop {
    /// The layers and their weights.
    pub(super) network: Arc<dyn Network>,
    /// What is to be run.
    pub(super) queue: Arc<Queue>,
    /// The model's counters.
    pub(super) meter: Arc<Meter>,
    /// The version's.
    pub(super) account: Arc<Account>,
    /// The agent's.
    pub(super) metrics: Arc<Metrics>,
}

impl Worker {
    /// Starts a worker whose network computes with so many threads, called `name`.
    pub(super) fn start(name: &str, threads: Threads, shop: Shop) -> std::io::Result<Self> {
        let post = Arc::new(Post {
            born: Instant::now(),
            beat: AtomicU64::new(0),
            dismissed: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            seated: Mutex::new(None),
        });
        let name = name.to_owned();
        let pool = ThreadPoolBuilder::new().num_threads(threads.each.max(1)).thread_name(move |_| name.clone()).build();
        let pool = pool.map_err(std::io::Error::other)?;
        pool.spawn({
            let post = post.clone();
            move || {
                let _ended = Ended(&post);
                // A panic outside of a pass is a fault of ours: the worker is gone then, and is replaced.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&shop, &post, threads))) {
                    tracing::error!(panic = message(&*panic), "a worker panicked outside of its network");
                }
            }
        });
        Ok(Self { post, _threads: pool })
    }

    /// Whether its thread has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.post.ended.load(Relaxed)
    }

    /// How long the pass that it runs has given no sign of life; zero where it runs none.
    pub(super) fn silence(&self) -> Duration {
        if self.post.seated().is_some() { self.post.silence() } else { Duration::ZERO }
    }

    /// Gives it up if the pass that it runs has shown no progress for `patience`: those who wait for it are answered, and it
    /// ends should it ever come back. The ticket of its batch, or `None` if there is nothing wrong with it.
    pub(super) fn abandon(&self, patience: Duration) -> Option<u64> {
        let mut seated = self.post.seated();
        if self.post.silence() < patience {
            return None;
        }
        let Seated { ticket, replies } = seated.take()?;
        self.post.lost.store(true, Relaxed);
        self.dismiss();
        drop(seated);
        let detail = format!("no sign of life between two layers for {patience:?}");
        for reply in replies {
            let reason = "its network hung, and was given up";
            let _ = reply.send(Err(Lost::Failed { reason, detail: detail.clone() }));
        }
        Some(ticket)
    }

    /// It is not needed any more. Whoever says so wakes the queue.
    pub(super) fn dismiss(&self) {
        self.post.dismissed.store(true, Relaxed);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.dismiss();
    }
}

/// Says so when the thread ends, however it does.
struct Ended<'a>(&'a Post);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Relaxed);
    }
}

fn run(shop: &Shop, post: &Post, threads: Threads) {
    let mut took = Duration::ZERO;
    while let Some(Work { ticket, jobs, input, passes }) = shop.queue.take(|| post.dismissed.load(Relaxed)) {
        let (begun, all) = (Instant::now(), jobs.len());
        let (members, replies): (Vec<Member>, VecDeque<Reply>) = jobs.into_iter().filter_map(begin).unzip();
        shop.metrics.begun.add_many(members.len() as u64);
        // An input that was made for more than are left is of no use.
        let input = input.filter(|_| members.len() == all);
        let pass = Pass { shop, post, ticket, begun };
        let run = || pass.run(&members, replies, input);
        let measured = !members.is_empty() && on_threads(threads.share(passes, took), run);
        took = begun.elapsed();
        shop.queue.finished(ticket, measured);
    }
}

/// One job of a batch that is being run.
struct Member {
    input: Tensor,
    images: usize,
    progress: Progress,
    span: tracing::Span,
}

/// The job as a member of its batch and who waits for it; `None` if the caller has left.
fn begin(job: Job) -> Option<(Member, Reply)> {
    let images = job.images();
    let Job { input, progress, reply, span, queued, .. } = job;
    drop(queued);
    progress.begin().then_some((Member { input, images, progress, span }, reply))
}

/// One batch on its way through the network.
struct Pass<'a> {
    shop: &'a Shop,
    post: &'a Post,
    ticket: u64,
    begun: Instant,
}

/// How a pass ended.
enum Outcome {
    /// Its members have their answers.
    Done,
    /// Nobody waits for it any more.
    Stopped,
    Failed {
        /// For the caller.
        reason: &'static str,
        /// For the log.
        detail: String,
    },
}

impl Pass<'_> {
    /// Runs the members together, and answers each. Where that fails, each is run alone, once: whoever broke the pass breaks
    /// its own only. True if the pass came to its end.
    fn run(&self, members: &[Member], replies: VecDeque<Reply>, input: Option<Tensor>) -> bool {
        let (outcome, mut replies) = self.forward(members, replies, input);
        match (outcome, members) {
            (Outcome::Done, _) => return true,
            (Outcome::Stopped, _) => return false,
            (Outcome::Failed { reason, detail }, [_]) => {
                answer(&mut replies, Some(Lost::Failed { reason, detail }));
                return false;
            }
            (Outcome::Failed { detail, .. }, _) => {
                tracing::warn!(images = total(members), detail, "a batch failed: its members are run one by one");
            }
        }
        for member in members {
            let outcome = if member.progress.is_gone() {
                Outcome::Stopped
            } else {
                let (outcome, behind) = self.forward(std::slice::from_ref(member), replies, None);
                replies = behind;
                outcome
            };
            match outcome {
                Outcome::Done => {}
                Outcome::Stopped => answer(&mut replies, None),
                Outcome::Failed { reason, detail } => answer(&mut replies, Some(Lost::Failed { reason, detail })),
            }
        }
        false
    }

    /// One forward pass. The replies are those of the members and of whoever is still behind them; what comes back are those
    /// without an answer: nobody at all where patience was lost with the pass, because then all have been answered.
    fn forward(
        &self,
        members: &[Member],
        replies: VecDeque<Reply>,
        input: Option<Tensor>,
    ) -> (Outcome, VecDeque<Reply>) {
        let Self { shop, post, ticket, begun } = *self;
        let _span = match members {
            [member] => Some(member.span.enter()),
            _ => None,
        };
        post.beat();
        *post.seated() = Some(Seated { ticket, replies });
        let question = || {
            post.beat();
            post.lost.load(Relaxed) || members.iter().all(|member| member.progress.is_gone())
        };
        let pass = || {
            let input = match input {
                Some(input) => input,
                None => join(&members.iter().map(|member| member.input.clone()).collect::<Vec<_>>())?,
            };
            let heads = shop.network.forward(&input, &Stop::when(&question))?;
            heads.split(&members.iter().map(|member| member.images).collect::<Vec<_>>())
        };
        // A network that panics must not take its model down with it: the next input may be fine.
        let result = catch_unwind(AssertUnwindSafe(pass));
        let ended = Instant::now();
        let mut replies = post.seated().take().map_or_else(VecDeque::new, |seated| seated.replies);
        let outcome = match result {
            Ok(Ok(parts)) => {
                let batch = total(members);
                shop.meter.batch(batch);
                shop.account.ran(batch, ended - begun);
                shop.metrics.forwards.add_many(members.len().min(replies.len()) as u64);
                for heads in parts {
                    if let Some(reply) = replies.pop_front() {
                        // Nobody may be there to take it any more; the caller has counted that.
                        let _ = reply.send(Ok(Ran { heads, begun, ended, batch }));
                    }
                }
                Outcome::Done
            }
            Ok(Err(VisionError::Stopped)) => {
                tracing::debug!("stopped between two layers: nobody waits for it any more");
                Outcome::Stopped
            }
            Ok(Err(error)) => Outcome::Failed { reason: "its network gave an error", detail: chain(&error) },
            Err(panic) => Outcome::Failed {
                reason: "its network panicked",
                detail: format!("the network panicked: {}", message(&*panic)),
            },
        };
        (outcome, replies)
    }
}

/// Answers the first of the replies, if there is one: without a result or, where the caller has left, not at all.
fn answer(replies: &mut VecDeque<Reply>, lost: Option<Lost>) {
    if let (Some(reply), Some(lost)) = (replies.pop_front(), lost) {
        let _ = reply.send(Err(lost));
    }
}

fn total(members: &[Member]) -> usize {
    members.iter().map(|member| member.images).sum()
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

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use adit_common::id::Version;
    use adit_vision::{Device, Heads, ImageShape};
    use tracing::Span;

    use super::super::batcher::Options;
    use super::super::progress::Left;
    use super::super::request::Priority;
    use super::*;

    #[test]
    fn whoever_is_alone_has_the_cores_of_those_that_are_idle() {
        let threads = Threads { each: 1, most: 8 };
        let share = |passes| threads.share(passes, WORTH);
        assert_eq!([1, 2, 3, 5, 8, 9].map(|passes| share(Some(passes))), [8, 4, 2, 1, 1, 1]);
        assert_eq!(share(None), 1, "others wait for a core");
        assert_eq!(threads.share(Some(1), WORTH / 2), 1, "it is over before anybody could help");
        assert_eq!(Threads { each: 3, most: 3 }.share(Some(1), WORTH), 3, "as it was configured");
    }

    /// Panics at a negative input, goes on for ever at one above 1 unless it is stopped, and answers everything else with
    /// what it was given. Each pass takes a key first, and waits until one is there.
    #[derive(Debug)]
    struct Moody(Mutex<std::sync::mpsc::Receiver<()>>);

    impl Network for Moody {
        fn input(&self) -> ImageShape {
            ImageShape::new(1, 1, 1)
        }
        fn classes(&self) -> usize {
            1
        }
        fn forward(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Heads, VisionError> {
            let values = input.flatten_all()?.to_vec1::<f32>()?;
            self.0.lock().unwrap().recv().unwrap();
            assert!(values.iter().all(|value| *value >= 0.0), "a negative input");
            while values.iter().any(|value| *value > 1.0) {
                thread::sleep(Duration::from_millis(1));
                stop.check()?;
            }
            Ok(Heads::Classes(input.flatten_from(1)?))
        }
    }

    struct Desk {
        worker: Worker,
        shop: Shop,
        keys: std::sync::mpsc::SyncSender<()>,
    }

    type Asked = (Progress, oneshot::Receiver<Result<Ran, Lost>>);

    impl Desk {
        /// Of a worker who takes so many at a time and has passes to begin with.
        fn new(max_batch: usize, passes: usize) -> Self {
            let (keys, locks) = std::sync::mpsc::sync_channel(64);
            (0..passes).for_each(|_| keys.send(()).unwrap());
            let options = Options { capacity: 8, max_batch, max_delay: Duration::ZERO, instances: 1 };
            let metrics = Arc::new(Metrics::new());
            let (queue, meter) = (Arc::new(Queue::new(options)), metrics.meter("moody"));
            let account = metrics.account(&"moody".parse().unwrap(), Version(1));
            let shop = Shop { network: Arc::new(Moody(Mutex::new(locks))), queue, meter, account, metrics };
            Self { worker: Worker::start("moody", Threads::default(), shop.clone()).unwrap(), shop, keys }
        }

        fn ask(&self, value: f32) -> Asked {
            let (reply, ran) = oneshot::channel();
            let progress = Progress::default();
            let input = Tensor::from_vec(vec![value], (1, 1, 1, 1), &Device::Cpu).unwrap();
            let (queued, span) = (self.shop.metrics.wait("moody", 1), Span::none());
            let (deadline, priority) = (None, Priority::default());
            let job = Job { input, priority, deadline, progress: progress.clone(), reply, span, queued };
            self.shop.queue.push(job).unwrap();
            (progress, ran)
        }

        /// Waits until a pass has begun for so many requests.
        fn begun(&self, count: u64) {
            while self.shop.metrics.begun.get() < count {
                thread::yield_now();
            }
        }
    }

    fn value(asked: Asked) -> (f32, usize) {
        let ran = asked.1.blocking_recv().unwrap().unwrap();
        let Heads::Classes(logits) = ran.heads else { panic!("no classes") };
        (logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0], ran.batch)
    }

    fn failure(asked: Asked) -> &'static str {
        match asked.1.blocking_recv().unwrap() {
            Err(Lost::Failed { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_panic_is_one_callers_misfortune() {
        let desk = Desk::new(1, 2);
        let (bad, good) = (desk.ask(-1.0), desk.ask(1.0));
        assert_eq!(failure(bad), "its network panicked");
        assert_eq!(value(good), (1.0, 1));
        assert_eq!(desk.shop.metrics.forwards.get(), 1);
        assert!(!desk.worker.is_finished());
    }

    #[test]
    fn who_shares_a_pass_gets_its_own_result_and_bears_its_own_fault() {
        let desk = Desk::new(4, 0);
        let first = desk.ask(0.5);
        desk.begun(1);
        // These meet in the queue.
        let (one, bad, two) = (desk.ask(0.25), desk.ask(-1.0), desk.ask(0.75));
        let last = desk.ask(1.0);
        // The first alone, the batch that breaks, and its members one by one.
        (0..6).for_each(|_| desk.keys.send(()).unwrap());
        assert_eq!(value(first), (0.5, 1));
        assert_eq!((value(one), value(two), value(last)), ((0.25, 1), (0.75, 1), (1.0, 1)));
        assert_eq!(failure(bad), "its network panicked");
        assert_eq!((desk.shop.metrics.begun.get(), desk.shop.metrics.forwards.get()), (5, 4));

        let alone = desk.ask(0.0);
        desk.begun(6);
        let (one, two) = (desk.ask(0.25), desk.ask(0.75));
        (0..2).for_each(|_| desk.keys.send(()).unwrap());
        assert_eq!((value(alone), value(one), value(two)), ((0.0, 1), (0.25, 2), (0.75, 2)));
    }

    #[test]
    fn who_leaves_stops_its_pass_or_never_has_one() {
        let desk = Desk::new(1, 3);
        let (running, waiting, last) = (desk.ask(2.0), desk.ask(1.0), desk.ask(1.0));
        desk.begun(1);
        assert_eq!(waiting.0.leave(), Left::Waiting);
        assert_eq!(running.0.leave(), Left::Running);
        assert_eq!(value(last), (1.0, 1));
        assert!(running.1.blocking_recv().is_err(), "no result");
        assert!(waiting.1.blocking_recv().is_err(), "never run");
        assert_eq!((desk.shop.metrics.begun.get(), desk.shop.metrics.forwards.get()), (2, 1));
    }

    #[test]
    fn a_pass_goes_on_until_the_last_of_its_members_has_left() {
        let desk = Desk::new(4, 0);
        let first = desk.ask(0.5);
        desk.begun(1);
        let (one, two) = (desk.ask(2.0), desk.ask(2.0));
        (0..2).for_each(|_| desk.keys.send(()).unwrap());
        value(first);
        desk.begun(3);
        assert_eq!(one.0.leave(), Left::Running);
        let next = desk.ask(1.0);
        desk.keys.send(()).unwrap();
        assert_eq!(desk.shop.queue.waiting(), 1, "the pass goes on for the other one");
        assert_eq!(two.0.leave(), Left::Running);
        assert_eq!(value(next), (1.0, 1));
    }

    #[test]
    fn a_pass_that_hangs_is_given_up_and_everybody_answered() {
        let desk = Desk::new(4, 1);
        let first = desk.ask(0.5);
        value(first);
        let hung = desk.ask(1.0);
        desk.begun(2);
        let patience = Duration::from_millis(20);
        assert!(desk.worker.abandon(Duration::from_secs(3600)).is_none(), "patience first");
        while desk.worker.abandon(patience).is_none() {
            assert!(desk.worker.silence() < Duration::from_secs(60));
            thread::yield_now();
        }
        assert_eq!(failure(hung), "its network hung, and was given up");
        assert!(desk.worker.abandon(patience).is_none(), "once");
        // It comes back, and ends: it takes nothing more.
        let next = desk.ask(1.0);
        (0..2).for_each(|_| desk.keys.send(()).unwrap());
        while !desk.worker.is_finished() {
            thread::yield_now();
        }
        assert_eq!(desk.shop.queue.waiting(), 1);
        let another = Worker::start("another", Threads::default(), desk.shop.clone()).unwrap();
        assert_eq!(value(next), (1.0, 1));
        assert!(!another.is_finished());
    }

    #[test]
    fn a_closed_queue_ends_the_thread() {
        let desk = Desk::new(1, 0);
        desk.shop.queue.close();
        while !desk.worker.is_finished() {
            thread::yield_now();
        }
    }
}
