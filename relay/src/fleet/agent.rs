//! One connected agent: its session, how many requests it has, and its record.
//!
//! What requests touch is atomic or behind a lock that is held for a few instructions, never across an await.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_common::id::AgentId;
use adit_common::manifest::Load;
use adit_common::tunnel::Session;
use tokio::sync::Notify;

use super::health::{Health, Standing};
use super::latency::Latency;

/// A failure is recorded as this slow: an agent that fails at once must not look like the fastest of all.
const FAILURE: Duration = Duration::from_secs(5);

/// A refusal for being busy is recorded as this slow: what it says itself, in `Retry-After`, is a second.
const REFUSAL: Duration = Duration::from_secs(1);

/// How a request ended, as far as it says something of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer.
    Good,
    /// It said that it is too busy.
    Busy,
    /// It failed.
    Bad,
}

/// What an agent costs at a moment; less is better.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Score {
    /// Left out for failures: worse than any cost.
    pub(super) ejected: bool,
    /// Seconds of latency times requests.
    pub(super) cost: f64,
}

#[derive(Debug)]
struct Record {
    latency: Latency,
    health: Health,
}

/// One connected agent; a new session of the same agent is another one.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) session: Session,
    pub(crate) since: Instant,
    in_flight: AtomicU32,
    idle: Notify,
    retired: AtomicBool,
    silent: AtomicBool,
    reported: AtomicU64,
    record: Mutex<Record>,
}

impl Agent {
    pub(crate) fn new(id: AgentId, session: Session, now: Instant) -> Self {
        Self {
            id,
            session,
            since: now,
            in_flight: AtomicU32::new(0),
            idle: Notify::new(),
            retired: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            reported: AtomicU64::new(0),
            record: Mutex::new(Record { latency: Latency::new(now), health: Health::default() }),
        }
    }

    /// Takes a request on; `None` if the agent takes no more.
    pub(crate) fn begin(self: &Arc<Self>, now: Instant) -> Option<InFlight> {
        // Counted first, asked second: whoever retires it does both the other way round, so no request slips between.
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let probe = self.record().health.begin(now);
        let guard = InFlight { agent: self.clone(), probe };
        (!self.is_retired()).then_some(guard)
    }

    /// Takes no more requests from now on.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        self.idle.notify_one();
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// Whether it has not been heard of for long.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// Resolves when it is retired and has answered its last request. For one waiter.
    pub(crate) async fn finished(&self) {
        while !(self.is_retired() && self.in_flight() == 0) {
            self.idle.notified().await;
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// What it last said of its load.
    pub(crate) fn load(&self) -> Load {
        let packed = self.reported.load(Ordering::Relaxed);
        Load { in_flight: (packed >> 32) as u32, queued: packed as u32 }
    }

    pub(crate) fn report(&self, load: Load) {
        self.reported.store(u64::from(load.in_flight) << 32 | u64::from(load.queued), Ordering::Relaxed);
    }

    /// What another request costs here. The agent's own report counts where it is higher: other relays ask it too.
    pub(crate) fn score(&self, now: Instant) -> Score {
        let (latency, standing) = {
            let record = self.record();
            (record.latency.estimate(now), record.health.standing(now))
        };
        let requests = self.in_flight().max(self.load().in_flight);
        // A probe is due: it wins every draw, or the slowness of its failures would keep it out for minutes.
        let latency = if standing == Standing::Probation { 0.0 } else { latency };
        Score { ejected: standing == Standing::Ejected, cost: latency * (f64::from(requests) + 1.0) }
    }

    /// Its latency as recorded, and whether it is left out.
    pub(crate) fn standing(&self, now: Instant) -> (Duration, bool) {
        let record = self.record();
        let latency = Duration::from_secs_f64(record.latency.estimate(now));
        (latency, record.health.standing(now) != Standing::Good)
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        // A panic within leaves numbers that are merely old.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request that an agent has: counts until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    agent: Arc<Agent>,
    probe: bool,
}

impl InFlight {
    pub(crate) fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// Says how it went; true if the agent is ejected by this. A request of which nothing can be said is just dropped.
    pub(crate) fn settle(&mut self, outcome: Outcome, latency: Duration, now: Instant) -> bool {
        let probe = std::mem::take(&mut self.probe);
        let mut record = self.agent.record();
        match outcome {
            Outcome::Good => {
                if probe {
                    // What it was while it failed says nothing of what it is now.
                    record.latency = Latency::new(now);
                }
                record.latency.record(latency, now);
                record.health.success();
                false
            }
            // Slow, so that others are asked, but alive.
            Outcome::Busy => {
                record.latency.record(latency.max(REFUSAL), now);
                record.health.success();
                false
            }
            Outcome::Bad => {
                record.latency.record(latency.max(FAILURE), now);
                record.health.failure(probe, now)
            }
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.probe {
            self.agent.record().health.abandon();
        }
        if self.agent.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.agent.is_retired() {
            self.agent.idle.notify_one();
        }
    }
}
