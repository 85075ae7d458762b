//! What quinn, configurations and metrics see of congestion control.

use std::any::Any;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig, NewRenoConfig};
use serde::{Deserialize, Serialize};

use super::adaptive::Adaptive;
use crate::tunnel::turns::Sending;

/// Which congestion control a tunnel sends by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CongestionControl {
    /// Our own: random loss does not slow it down, and it leaves queues empty.
    #[default]
    Adaptive,
    /// quinn's CUBIC (RFC 9438): each loss is congestion.
    Cubic,
    /// quinn's NewReno (RFC 9002): the same, and slower to grow.
    NewReno,
}

impl CongestionControl {
    /// What makes quinn's controllers. One of our own begins with what `memory` knows of the path, and tells it what it finds out.
    pub fn factory(self, memory: PathMemory) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Adaptive => listened_to(OurConfig { memory }),
            Self::Cubic => listened_to(CubicConfig::default()),
            Self::NewReno => listened_to(NewRenoConfig::default()),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Cubic => "cubic",
            Self::NewReno => "new-reno",
        }
    }
}

impl fmt::Display for CongestionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no congestion control of this name.
#[derive(Debug, thiserror::Error)]
#[error("there is no congestion control {0:?}: it is \"adaptive\", \"cubic\" or \"new-reno\"")]
pub struct UnknownControl(String);

impl FromStr for CongestionControl {
    type Err = UnknownControl;

    fn from_str(text: &str) -> Result<Self, UnknownControl> {
        [Self::Adaptive, Self::Cubic, Self::NewReno]
            .into_iter()
            .find(|control| control.name() == text)
            .ok_or_else(|| UnknownControl(text.to_owned()))
    }
}

/// What our control is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Doubling each round trip: the path's limit was not met yet.
    Start,
    /// Near the limit with hardly anything in the queue.
    Calm,
    /// Somebody else fills the queue, so we take a share of it, as CUBIC does.
    Contested,
}

/// The state of our control on one path.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PathReport {
    /// What it is doing.
    pub mode: Mode,
    /// Bytes that may be under way.
    pub window: u64,
    /// Bytes a second that arrived in the best round trip of the last ten seconds.
    pub rate: f64,
    /// Seconds that a round trip takes while the queue is empty; 0 before the first.
    pub floor: f64,
    /// Losses for each packet that are not our doing.
    pub noise: f64,
    /// Times that less was sent because of a queue, of losses, and because nothing at all arrived.
    pub reductions: [u64; 3],
}

/// What was learned of a path, for whoever takes it next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KnownPath {
    /// When it was true.
    pub at: Instant,
    /// The round-trip time of the empty path.
    pub floor: Duration,
    /// The most bytes that arrived within a round trip.
    pub carried: u64,
}

impl KnownPath {
    /// What is older says too little.
    const USEFUL: Duration = Duration::from_secs(600);

    /// Whether a path that is taken now may still be like this.
    pub fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < Self::USEFUL
    }
}

/// Where a path's next session finds what the last one learned; clones are the same memory.
#[derive(Debug, Clone)]
pub struct PathMemory(Option<Arc<Mutex<Option<KnownPath>>>>);

impl PathMemory {
    /// A memory that keeps nothing.
    pub const fn none() -> Self {
        Self(None)
    }

    /// What is known.
    pub fn get(&self) -> Option<KnownPath> {
        *self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was found out.
    pub fn set(&self, known: KnownPath) {
        if let Some(memory) = &self.0 {
            *memory.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        }
    }
}

impl Default for PathMemory {
    /// A memory of which nothing is known yet.
    fn default() -> Self {
        Self(Some(Arc::default()))
    }
}

/// What our control of this connection knows; none where it is not our control.
pub(crate) fn report(connection: &quinn::Connection) -> Option<PathReport> {
    Some(ours(connection)?.adaptive.report())
}

/// How often less was sent because of losses of our doing that no queue explains; 0 where it is not our control, which cannot tell.
pub(crate) fn policed(connection: &quinn::Connection) -> u64 {
    ours(connection).map_or(0, |ours| ours.adaptive.policed())
}

/// Losses for each packet that are not our doing; 0 where it is not our control, to which all losses are.
pub(crate) fn noise(connection: &quinn::Connection) -> f64 {
    report(connection).map_or(0.0, |report| report.noise)
}

/// When the newest packet was sent that is known to have arrived; none before the first, or where it is not our control.
pub(crate) fn newest(connection: &quinn::Connection) -> Option<Instant> {
    ours(connection)?.adaptive.newest()
}

/// Lets so many bytes pass beyond the window, once, where the control is ours: what asks whether a silent path is back must not wait
/// for what the silence swallowed.
pub(crate) fn let_pass(connection: &quinn::Connection, bytes: u64) {
    if let Some(state) = ours(connection) {
        state.extra.store(bytes, Ordering::Relaxed);
    }
}

fn ours(connection: &quinn::Connection) -> Option<Box<Ours>> {
    let sending = connection.congestion_state().into_any().downcast::<Sending>().ok()?;
    sending.into_control().into_any().downcast().ok()
}

/// What makes these controls so that our writers hear of what was sent.
fn listened_to(control: impl ControllerFactory + Send + Sync + 'static) -> Arc<dyn ControllerFactory + Send + Sync> {
    Arc::new(ListenedTo(Arc::new(control)))
}

struct ListenedTo<F>(Arc<F>);

impl<F: ControllerFactory> ControllerFactory for ListenedTo<F> {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Sending::new(self.0.clone().build(now, mtu)))
    }
}

struct OurConfig {
    memory: PathMemory,
}

impl ControllerFactory for OurConfig {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let memory = self.memory.clone();
        let known = memory.get().filter(|known| known.is_fresh(now));
        Box::new(Ours { adaptive: Adaptive::new(now, mtu, known), memory, under_way: 0, extra: Arc::default() })
    }
}

/// Our control behind quinn's interface.
#[derive(Debug, Clone)]
struct Ours {
    adaptive: Adaptive,
    memory: PathMemory,
    /// Bytes under way, acknowledgements included until the next one arrives.
    under_way: u64,
    /// Bytes that may be sent beyond the window; shared with the copies that quinn hands out.
    extra: Arc<AtomicU64>,
}

impl Controller for Ours {
    fn on_sent(&mut self, _now: Instant, bytes: u64, _last: u64) {
        self.under_way += bytes;
        // Nearly always there is none, and a plain read costs nothing.
        let extra = self.extra.load(Ordering::Relaxed);
        if extra > 0 {
            self.extra.store(extra.saturating_sub(bytes), Ordering::Relaxed);
        }
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _app_limited: bool, _rtt: &RttEstimator) {
        self.adaptive.acknowledged(now, sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, _app_limited: bool, _largest: Option<u64>) {
        self.under_way = in_flight;
        self.extra.store(0, Ordering::Relaxed);
        if let Some(known) = self.adaptive.all_acknowledged(now, in_flight) {
            self.memory.set(known);
        }
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        self.adaptive.lost(sent, lost);
        if persistent {
            self.adaptive.nothing_arrived(now);
        }
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.adaptive.set_packet(mtu);
    }

    fn window(&self) -> u64 {
        match self.extra.load(Ordering::Relaxed) {
            0 => self.adaptive.window(),
            extra => self.adaptive.window().max(self.under_way) + extra,
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.adaptive.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.adaptive.window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
