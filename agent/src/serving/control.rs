//! What is asked of the thread that keeps the models: to look, to load, to unload, to wake what sleeps.
//!
//! Requests never load anything themselves. They leave here what they want, and wait for the catalogue to change; so one load
//! runs at a time, and a request that leaves takes its wish with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adit_common::deadline::Deadline;
use adit_common::id::{ModelName, Version};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::timeout_at;

use super::catalogue::{Asked, Catalogue};
use super::model::Model;
use super::request::Choice;
use crate::error::{ControlError, InferError};

/// Orders that may wait: people and scripts give them, one after another.
const ORDERS: usize = 64;

/// How long a request without a deadline waits for a sleeping model: longer than large weights take from a slow disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// What somebody waits for.
#[derive(Debug)]
pub(super) enum Order {
    /// Look at the folder, and load what is new.
    Look(oneshot::Sender<()>),
    /// Load a model.
    Load(ModelName, oneshot::Sender<Result<(), ControlError>>),
    /// Unload a model.
    Unload(ModelName, oneshot::Sender<Result<(), ControlError>>),
}

#[derive(Debug, Default)]
struct Pending {
    orders: Vec<Order>,
    /// Who wants a sleeping version, by how many requests.
    wakes: BTreeMap<(ModelName, Version), usize>,
    /// A wake is there that nobody has looked at.
    rung: bool,
    closed: bool,
}

/// Why the keeper goes on.
#[derive(Debug)]
pub(super) enum Turn {
    /// It is time to look at the folder.
    Look,
    /// There is something to be done.
    Rung,
    /// It is to end.
    Closed,
}

/// The desk between requests and the keeper; clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Control {
    pending: Arc<(Mutex<Pending>, Condvar)>,
    /// Requests that may wait for sleeping models.
    places: Arc<Semaphore>,
}

impl Control {
    /// With room for so many requests that wait for sleeping models.
    pub(super) fn new(places: usize) -> Self {
        Self { pending: Arc::default(), places: Arc::new(Semaphore::new(places)) }
    }

    /// Ends the keeper after what it is doing, and refuses everybody who waits.
    pub(super) fn close(&self) {
        let mut pending = self.lock();
        pending.closed = true;
        let left = std::mem::take(&mut pending.orders);
        drop(pending);
        self.pending.1.notify_all();
        drop(left);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until there is something to do, or `until`; for ever without one.
    pub(super) fn wait(&self, until: Option<Instant>) -> Turn {
        let mut pending = self.lock();
        loop {
            if pending.closed {
                return Turn::Closed;
            }
            if !pending.orders.is_empty() || std::mem::take(&mut pending.rung) {
                return Turn::Rung;
            }
            let bell = &self.pending.1;
            pending = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Turn::Look,
                Some(left) => bell.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0,
                None => bell.wait(pending).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// The orders that have come in.
    pub(super) fn take(&self) -> Vec<Order> {
        std::mem::take(&mut self.lock().orders)
    }

    /// The versions that requests wait for.
    pub(super) fn wakes(&self) -> Vec<(ModelName, Version)> {
        self.lock().wakes.keys().cloned().collect()
    }

    /// Looks at the folder now, and resolves when what was found has been loaded.
    pub(super) async fn look(&self) -> Result<(), ControlError> {
        let (reply, done) = oneshot::channel();
        self.order(Order::Look(reply))?;
        done.await.map_err(|_| ControlError::Busy)
    }

    pub(super) async fn load(&self, model: ModelName) -> Result<(), ControlError> {
        let (reply, done) = oneshot::channel();
        self.order(Order::Load(model, reply))?;
        done.await.map_err(|_| ControlError::Busy)?
    }

    pub(super) async fn unload(&self, model: ModelName) -> Result<(), ControlError> {
        let (reply, done) = oneshot::channel();
        self.order(Order::Unload(model, reply))?;
        done.await.map_err(|_| ControlError::Busy)?
    }

    fn order(&self, order: Order) -> Result<(), ControlError> {
        let mut pending = self.lock();
        if pending.closed || pending.orders.len() >= ORDERS {
            return Err(ControlError::Busy);
        }
        pending.orders.push(order);
        drop(pending);
        self.pending.1.notify_all();
        Ok(())
    }

    /// The model to ask. Where it sleeps, waits until it is loaded: not beyond the deadline, and only where not too many wait
    /// already.
    pub(super) async fn awake(
        &self,
        catalogue: &watch::Receiver<Catalogue>,
        name: &ModelName,
        choice: &Choice,
        deadline: Deadline,
    ) -> Result<Arc<Model>, InferError> {
        let asleep = match catalogue.borrow().find(name, choice)? {
            Asked::Awake(model) => return Ok(model),
            Asked::Asleep(version) => version,
        };
        let overloaded = || InferError::Overloaded { model: name.clone() };
        let _place = self.places.try_acquire().map_err(|_| overloaded())?;
        let patience = Instant::now() + PATIENCE;
        let until = deadline.instant().map_or(patience, |at| at.min(patience));
        let waiting = self.waiting(catalogue.clone(), name, choice, asleep);
        timeout_at(until.into(), waiting).await.unwrap_or_else(|_| {
            Err(if deadline.expired(Instant::now()) { InferError::DeadlineExceeded } else { overloaded() })
        })
    }

    async fn waiting(
        &self,
        mut catalogue: watch::Receiver<Catalogue>,
        name: &ModelName,
        choice: &Choice,
        mut version: Version,
    ) -> Result<Arc<Model>, InferError> {
        let mut wish = self.wish(name, version);
        loop {
            match catalogue.borrow_and_update().find(name, choice)? {
                Asked::Awake(model) => return Ok(model),
                Asked::Asleep(other) if other != version => {
                    version = other;
                    wish = self.wish(name, version);
                }
                Asked::Asleep(_) => {}
            }
            if catalogue.changed().await.is_err() {
                drop(wish);
                return Err(InferError::NotReady { model: name.clone(), reason: "the agent stops" });
            }
        }
    }

    fn wish(&self, name: &ModelName, version: Version) -> Wish {
        let key = (name.clone(), version);
        let mut pending = self.lock();
        *pending.wakes.entry(key.clone()).or_default() += 1;
        pending.rung = true;
        drop(pending);
        self.pending.1.notify_all();
        Wish { control: self.clone(), key }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // No code of ours panics under this lock, and every state is a whole one.
        self.pending.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request that waits for a sleeping version: dropped with it.
#[derive(Debug)]
struct Wish {
    control: Control,
    key: (ModelName, Version),
}

impl Drop for Wish {
    fn drop(&mut self) {
        let mut pending = self.control.lock();
        if let Some(count) = pending.wakes.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                pending.wakes.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bell_wakes_and_time_passes() {
        let control = Control::new(1);
        assert!(matches!(control.wait(Some(Instant::now())), Turn::Look));
        let (one, two) =
            (control.wish(&"m".parse().unwrap(), Version(1)), control.wish(&"m".parse().unwrap(), Version(1)));
        assert!(matches!(control.wait(None), Turn::Rung));
        assert!(matches!(control.wait(Some(Instant::now())), Turn::Look), "a wish rings once");
        drop(one);
        assert_eq!(control.wakes(), [("m".parse().unwrap(), Version(1))]);
        drop(two);
        assert!(control.wakes().is_empty());
        control.close();
        assert!(matches!(control.wait(None), Turn::Closed));
    }

    #[tokio::test]
    async fn a_closed_desk_refuses_those_who_wait_and_those_who_come() {
        let control = Control::new(1);
        let waiting = control.look();
        let closing = async { control.close() };
        assert_eq!(futures_util::join!(waiting, closing).0, Err(ControlError::Busy));
        assert_eq!(control.load("m".parse().unwrap()).await, Err(ControlError::Busy));
    }

    #[test]
    fn orders_are_bounded() {
        let control = Control::new(1);
        for _ in 0..ORDERS {
            control.order(Order::Look(oneshot::channel().0)).unwrap();
        }
        assert_eq!(control.order(Order::Look(oneshot::channel().0)), Err(ControlError::Busy));
        assert_eq!(control.take().len(), ORDERS);
    }
}
