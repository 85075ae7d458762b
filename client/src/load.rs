//! Asks a model many times by a plan, and notes for each question when it should have been sent, was sent and was answered.
//!
//! A closed loop has a fixed number of askers, each of which waits for its answer: it shows what a system can carry, but
//! while the system stalls nobody asks, so a stall is seen by a handful of questions only. An open loop sends by a
//! schedule that does not care how the answers come; a question that had to wait for a free asker counts from when the
//! schedule wanted it, so a stall is seen by everybody who would have asked during it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use adit_common::daemon::Shutdown;
use adit_common::oip::Encoded;
use adit_common::timing::Timing;
use bytes::Bytes;
use http::Method;
use rand::Rng;
use tokio::sync::{Mutex, Semaphore, mpsc};

use crate::answer::Answer;
use crate::connect::Connector;
use crate::connection::{Connection, Exchange, Setup};
use crate::error::ClientError;
use crate::model::Model;
use crate::tally::Tally;

/// How the sendings of an open loop are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// At even distances.
    Constant,
    /// At random, independent of each other, as many clients would.
    Poisson,
}

/// Who decides when a question is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pacing {
    /// The answer to the one before.
    Closed,
    /// A schedule.
    Open {
        /// Questions a second.
        rate: f64,
        /// How they are spread.
        arrivals: Arrivals,
    },
}

/// What to measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// How many questions count.
    pub requests: usize,
    /// How many may be under way at a time.
    pub concurrency: usize,
    /// Over how many connections they go; over HTTP/1.1 each asker has its own.
    pub connections: usize,
    /// When they are sent.
    pub pacing: Pacing,
    /// How many questions are asked before, which do not count.
    pub warmup: usize,
    /// A new connection for each question; its cost is part of the delay, and shown apart too.
    pub fresh: bool,
}

/// One question and what came of it.
#[derive(Debug)]
pub struct Sample {
    /// When it should have been sent: by the schedule in an open loop, when the asker was free in a closed one.
    pub intended: Instant,
    /// When it was put on its connection.
    pub sent: Instant,
    /// When its last byte had come, or it had failed.
    pub done: Instant,
    /// What the connection that was opened for it cost.
    pub setup: Option<Setup>,
    /// The question's bytes.
    pub uploaded: usize,
    /// Where the time went, if the answer said; or why there is no answer.
    pub outcome: Result<Option<Timing>, ClientError>,
}

/// When each of `requests` questions is sent, from the start of the measurement on.
pub fn schedule(rate: f64, arrivals: Arrivals, requests: usize, random: &mut impl Rng) -> Vec<Duration> {
    let mut at = 0.0;
    let next = |index| {
        match arrivals {
            Arrivals::Constant => at = index as f64 / rate,
            // Distances of a Poisson process are exponential; 1 - u keeps the logarithm finite.
            Arrivals::Poisson => at -= (1.0 - random.random::<f64>()).ln() / rate,
        }
        Duration::from_secs_f64(at)
    };
    (0..requests).map(next).collect()
}

/// Opens the connections, warms up, and asks by the plan; each question that counts is shown to `seen` as it ends. When
/// `scope` begins to drain, nothing more is asked and what was measured until then is returned.
pub async fn measure(
    plan: &Plan,
    connector: &Connector,
    model: &Model,
    image: Bytes,
    scope: &Shutdown,
    mut seen: impl FnMut(&Sample),
) -> Result<Tally, ClientError> {
    let enough = plan.requests > 0 && plan.concurrency > 0 && plan.connections > 0;
    if !enough || matches!(plan.pacing, Pacing::Open { rate, .. } if !(rate.is_finite() && rate > 0.0)) {
        return Err(ClientError::Plan("requests, concurrency, connections and rate must be above zero"));
    }
    let limit = connector.options().timeout;
    let asked = Question { path: model.infer_path(), body: model.question(image, 5, limit)?, model: model.clone() };
    let slots = (0..plan.connections.min(plan.concurrency)).map(|_| Mutex::new(None)).collect();
    let pool = Arc::new(Pool { connector: connector.clone(), scope: scope.clone(), slots, fresh: plan.fresh, asked });
    let mut askers: Vec<_> = (0..plan.concurrency).map(|index| Asker { index, connection: None }).collect();
    let mut tally = Tally::new(limit);
    if !plan.fresh {
        for asker in &mut askers {
            // The first failure is everybody's, and says what to do about it.
            asker.connect(&pool).await?.into_iter().for_each(|setup| tally.add_setup(setup));
        }
    }
    let (mut passed, mut failed) = (0, None);
    let warming = Arc::new(Tickets::new(plan.warmup, Vec::new()));
    askers = run(askers, &pool, &warming, |sample| match sample.outcome {
        Ok(_) => passed += 1,
        Err(error) => failed = failed.take().or(Some(error)),
    })
    .await?;
    match failed {
        Some(error) if passed == 0 => return Err(error),
        _ => {}
    }
    let times = match plan.pacing {
        Pacing::Closed => Vec::new(),
        Pacing::Open { rate, arrivals } => schedule(rate, arrivals, plan.requests, &mut rand::rng()),
    };
    let tickets = Arc::new(Tickets::new(plan.requests, times));
    run(askers, &pool, &tickets, |sample| {
        seen(&sample);
        tally.add(sample);
    })
    .await?;
    Ok(tally)
}

/// Lets the askers ask until the tickets are gone, and gives them back.
async fn run(
    askers: Vec<Asker>,
    pool: &Arc<Pool>,
    tickets: &Arc<Tickets>,
    mut seen: impl FnMut(Sample),
) -> Result<Vec<Asker>, ClientError> {
    let pacer = (!tickets.times.is_empty()).then(|| {
        let (tickets, scope) = (tickets.clone(), pool.scope.clone());
        // A thread of its own: the runtime's timer counts in milliseconds, which is much of a delay on a LAN.
        tokio::task::spawn_blocking(move || tickets.pace(&scope))
    });
    // As many as may wait to be counted while this task draws its progress.
    let (sender, mut samples) = mpsc::channel(1024);
    let count = askers.len();
    let ask = |asker: Asker| pool.scope.spawn("asker", asker.ask(pool.clone(), tickets.clone(), sender.clone()));
    let tasks: Vec<_> = askers.into_iter().map(ask).collect();
    drop(sender);
    while let Some(sample) = samples.recv().await {
        seen(sample);
    }
    let ended = futures_util::future::join_all(tasks).await;
    if let Some(pacer) = pacer {
        // It ends by itself once its last ticket is out or the scope drains.
        let _ = pacer.await;
    }
    let askers: Vec<_> = ended.into_iter().filter_map(|asker| asker.ok().flatten()).collect();
    if askers.len() == count { Ok(askers) } else { Err(ClientError::Plan("the measurement was cut off")) }
}

struct Question {
    path: String,
    body: Encoded,
    model: Model,
}

/// What is handed out one by one: the right to ask, and in an open loop the time for it.
struct Tickets {
    count: usize,
    next: AtomicUsize,
    times: Vec<Duration>,
    start: Instant,
    due: Semaphore,
}

impl Tickets {
    fn new(count: usize, times: Vec<Duration>) -> Self {
        // A little ahead, so that the first is not late before the askers run.
        let start = Instant::now() + Duration::from_millis(5);
        Self { count, next: AtomicUsize::new(0), times, start, due: Semaphore::new(0) }
    }

    /// Waits for a ticket that is due: when it should be sent, or `None` when there are no more.
    async fn take(&self, scope: &Shutdown) -> Option<Instant> {
        if !self.times.is_empty() {
            self.due.acquire().await.ok()?.forget();
        }
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        if ticket >= self.count || scope.is_draining() {
            // In an open loop the others wait for tickets that will not come.
            self.due.close();
            return None;
        }
        Some(self.times.get(ticket).map_or_else(Instant::now, |time| self.start + *time))
    }

    /// Makes each ticket due at its time.
    fn pace(&self, scope: &Shutdown) {
        for time in &self.times {
            loop {
                if scope.is_draining() {
                    self.due.close();
                    return;
                }
                let left = (self.start + *time).saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                // Short enough to notice that nobody wants the rest.
                std::thread::sleep(left.min(Duration::from_millis(50)));
            }
            self.due.add_permits(1);
        }
        // One more each would find no ticket: whoever waits then is told so by the first that comes too late.
        self.due.add_permits(1);
    }
}

/// Connections that askers share where HTTP/2 lets them.
struct Pool {
    connector: Connector,
    scope: Shutdown,
    slots: Vec<Mutex<Option<Connection>>>,
    fresh: bool,
    asked: Question,
}

/// One who asks and waits.
struct Asker {
    index: usize,
    connection: Option<Connection>,
}

impl Asker {
    async fn ask(mut self, pool: Arc<Pool>, tickets: Arc<Tickets>, samples: mpsc::Sender<Sample>) -> Self {
        while let Some(intended) = tickets.take(&pool.scope).await {
            let sample = self.one(&pool, intended).await;
            if samples.send(sample).await.is_err() {
                break;
            }
        }
        self
    }

    async fn one(&mut self, pool: &Pool, intended: Instant) -> Sample {
        let (mut opened, mut began) = (None, intended);
        let exchange = match self.exchange(pool, &mut opened, &mut began).await {
            // The relay ended an idle connection; nobody has seen the question yet.
            Err(ClientError::NotSent(_)) => {
                self.connection = None;
                self.exchange(pool, &mut opened, &mut began).await
            }
            other => other,
        };
        let had_key = pool.connector.options().key.is_some();
        if pool.fresh {
            self.connection = None;
        }
        let (sent, done) = exchange
            .as_ref()
            .map_or_else(|_| (began, Instant::now()), |exchange| (exchange.sent, exchange.sent + exchange.whole));
        let outcome = exchange.and_then(|exchange| Answer::read(exchange, &pool.asked.model, had_key));
        let uploaded = pool.asked.body.body.len();
        Sample { intended, sent, done, setup: opened, uploaded, outcome: outcome.map(|answer| answer.timing) }
    }

    /// One try: notes what a new connection cost, and when the question was about to be sent.
    async fn exchange(
        &mut self,
        pool: &Pool,
        opened: &mut Option<Setup>,
        began: &mut Instant,
    ) -> Result<Exchange, ClientError> {
        *opened = self.connect(pool).await?.or(*opened);
        // invariant: the connection was opened above.
        #[allow(clippy::expect_used, reason = "connect leaves a connection behind or fails")]
        let connection = self.connection.as_mut().expect("a connection is open");
        *began = Instant::now();
        connection.exchange(Method::POST, &pool.asked.path, Some(&pool.asked.body)).await
    }

    /// Makes sure of an open connection; says what it cost if it is new.
    async fn connect(&mut self, pool: &Pool) -> Result<Option<Setup>, ClientError> {
        if self.connection.as_ref().is_some_and(|connection| !connection.is_closed()) {
            return Ok(None);
        }
        if pool.fresh {
            let connection = pool.connector.connect(&pool.scope).await?;
            return Ok(Some(self.connection.insert(connection).setup()));
        }
        let mut slot = pool.slots[self.index % pool.slots.len()].lock().await;
        let shared = slot.as_ref().filter(|connection| !connection.is_closed()).and_then(Connection::share);
        if let Some(connection) = shared {
            self.connection = Some(connection);
            return Ok(None);
        }
        let connection = pool.connector.connect(&pool.scope).await?;
        *slot = connection.share();
        Ok(Some(self.connection.insert(connection).setup()))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_constant_schedule_is_even() {
        let mut random = StdRng::seed_from_u64(1);
        let times = schedule(50.0, Arrivals::Constant, 4, &mut random);
        assert_eq!(times, [0, 20, 40, 60].map(Duration::from_millis));
    }

    #[test]
    fn a_poisson_schedule_has_the_rate_and_the_spread_of_one() {
        let mut random = StdRng::seed_from_u64(1);
        let times = schedule(100.0, Arrivals::Poisson, 20_000, &mut random);
        let distances: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = distances.iter().sum::<f64>() / distances.len() as f64;
        let variance = distances.iter().map(|distance| (distance - mean).powi(2)).sum::<f64>() / distances.len() as f64;
        // Of an exponential distribution both are the mean; 20,000 draws keep within a few percent.
        assert!((mean - 0.01).abs() < 0.0005, "{mean}");
        assert!((variance.sqrt() - 0.01).abs() < 0.0005, "{}", variance.sqrt());
    }
}
