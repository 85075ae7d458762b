//! Who is connected and what each serves.
//!
//! Requests read a snapshot without a lock; only a changed fleet writes. Agents that left are remembered for a while, so
//! that their models are "not here just now" and not "unknown".

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_common::id::AgentId;
use adit_common::manifest::Manifest;
use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::agent::Agent;

/// How long an agent that left is remembered: longer than a reboot.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(600);

/// How many of them: a bound on memory.
const MOST_REMEMBERED: usize = 1024;

/// A connected agent and what it last said of itself.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) agent: Arc<Agent>,
    pub(crate) manifest: Arc<Manifest>,
}

/// An agent that left.
#[derive(Debug, Clone)]
pub(crate) struct Gone {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) at: Instant,
    /// Whether it had been silent for long by then: who was merely cut off is back sooner.
    pub(crate) silent: bool,
}

/// The fleet at a moment, oldest session first.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) members: Vec<Member>,
    pub(crate) gone: Vec<Gone>,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Member>,
    gone: Vec<Gone>,
}

/// The fleet.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    state: Mutex<State>,
    snapshot: ArcSwap<Snapshot>,
    changed: Notify,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Waits until the fleet is no longer this.
    pub(crate) async fn changed_from(&self, known: &Arc<Snapshot>) {
        loop {
            let changed = self.changed.notified();
            if !Arc::ptr_eq(known, &self.snapshot()) {
                return;
            }
            changed.await;
        }
    }

    /// Adds an agent. An older session of the same agent takes no more requests: the newest one is the one that works.
    pub(crate) fn register(&self, agent: Arc<Agent>, manifest: Manifest) {
        self.change(|state| {
            state.members.iter().filter(|member| member.agent.id == agent.id).for_each(|old| old.agent.retire());
            state.gone.retain(|gone| gone.manifest.agent != agent.id);
            state.members.push(Member { agent, manifest: Arc::new(manifest) });
        });
    }

    /// An agent says something new of itself; what drains takes no more requests.
    pub(crate) fn update(&self, agent: &Arc<Agent>, manifest: Manifest) {
        self.change(|state| {
            if manifest.draining {
                agent.retire();
            }
            if let Some(member) = state.members.iter_mut().find(|member| Arc::ptr_eq(&member.agent, agent)) {
                member.manifest = Arc::new(manifest);
            }
        });
    }

    /// An agent takes no more requests.
    pub(crate) fn retire(&self, agent: &Agent) {
        self.change(|_| agent.retire());
    }

    /// No agent takes any more requests.
    pub(crate) fn retire_all(&self) {
        self.change(|state| state.members.iter().for_each(|member| member.agent.retire()));
    }

    /// An agent's session is over.
    pub(crate) fn remove(&self, agent: &Arc<Agent>, now: Instant) {
        self.change(|state| {
            agent.retire();
            let Some(index) = state.members.iter().position(|member| Arc::ptr_eq(&member.agent, agent)) else { return };
            let left = state.members.remove(index);
            if !state.has(&agent.id) {
                state.gone.push(Gone { manifest: left.manifest, at: now, silent: agent.is_silent() });
            }
            state.gone.retain(|gone| now.saturating_duration_since(gone.at) < REMEMBERED);
            let excess = state.gone.len().saturating_sub(MOST_REMEMBERED);
            state.gone.drain(..excess);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        // Within the lock, so that snapshots appear in the order of the changes.
        self.snapshot.store(Arc::new(Snapshot { members: state.members.clone(), gone: state.gone.clone() }));
        self.changed.notify_waiters();
    }
}

impl State {
    fn has(&self, id: &AgentId) -> bool {
        self.members.iter().any(|member| member.agent.id == *id)
    }
}
