//! What the agent counts of itself as a whole, and of each model.
//!
//! The load, which the relay balances by, lives here too, because it is a pair of gauges with an ear: whoever reports it waits
//! on a change.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_common::id::{ModelName, Version};
use adit_common::manifest::{Load, Model};
use adit_common::timing::{Stage, Timing};
use adit_common::tunnel::{Transport, UdpBuffers};
use tokio::sync::watch;

use super::account::{Account, Pending};
use super::text::{escape, head, line, seconds};
use super::triton;
use super::upstream::{self, UpstreamMeter};

/// Upper bounds of the histograms' buckets, in microseconds: from a cache hit to a slow network on a slow machine, three a decade.
const BOUNDS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000,
];

/// Everything that the agent counts.
#[derive(Debug)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(String, &'static str), u64>>,
    dials: Mutex<BTreeMap<(String, &'static str), u64>>,
    models: Mutex<Vec<Model>>,
    meters: Mutex<BTreeMap<String, Arc<Meter>>>,
    accounts: Mutex<BTreeMap<(ModelName, Version), Arc<Account>>>,
    memory: Mutex<Vec<(ModelName, Version, u64)>>,
    upstreams: Mutex<BTreeMap<String, Arc<UpstreamMeter>>>,
    /// Requests whose caller left before they were run.
    pub cancelled_queued: Counter,
    /// Requests whose caller left while they were run.
    pub cancelled_running: Counter,
    /// Requests whose deadline passed before the answer was there.
    pub expired: Counter,
    /// Requests that found a full queue, or no memory for their body.
    pub overloaded: Counter,
    /// Requests whose forward pass was begun.
    pub begun: Counter,
    /// Requests whose forward pass was run to its end.
    pub forwards: Counter,
    /// Versions whose weights were loaded, also for another time.
    pub loads: Counter,
    /// Versions that could not be loaded.
    pub failed_loads: Counter,
    /// Versions that were unloaded, because others took their place or somebody said so.
    pub unloads: Counter,
    /// Versions that were put to sleep to make room for others.
    pub evictions: Counter,
    load_time: Histogram,
    /// Exchanges on tunnels that broke off, whoever's fault it was.
    pub broken_exchanges: Counter,
    sessions: [AtomicU64; Transport::ALL.len()],
    udp_send: AtomicU64,
    udp_receive: AtomicU64,
    udp_sends: AtomicU64,
    udp_receives: AtomicU64,
    stages: [Histogram; Stage::ALL.len()],
    total: Histogram,
    load: watch::Sender<Load>,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.add_many(1);
    }

    /// So many more.
    pub fn add_many(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = BOUNDS.iter().position(|bound| micros <= *bound) {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }

    fn render(&self, out: &mut String, name: &str, label: &str) {
        let comma = if label.is_empty() { "" } else { "," };
        let mut below = 0;
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS) {
            below += bucket.load(Relaxed);
            line(out, format_args!("{name}_bucket{{{label}{comma}le=\"{}\"}} {below}", seconds(bound)));
        }
        let count = self.count.load(Relaxed);
        let braces = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
        line(out, format_args!("{name}_bucket{{{label}{comma}le=\"+Inf\"}} {count}"));
        line(out, format_args!("{name}_sum{braces} {}", seconds(self.micros.load(Relaxed))));
        line(out, format_args!("{name}_count{braces} {count}"));
    }
}

/// One request within the agent, from its head to the end of its answer: counted in the load until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Metrics>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.load.send_modify(|load| load.in_flight = load.in_flight.saturating_sub(1));
    }
}

/// Upper bounds of the buckets of a histogram of batches, in images.
const BATCHES: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// What is counted of one model's passes, whichever of its versions runs them.
#[derive(Debug, Default)]
pub struct Meter {
    batches: [AtomicU64; BATCHES.len()],
    passes: AtomicU64,
    images: AtomicU64,
    waiting: AtomicU64,
    workers: AtomicU64,
    /// Workers that were given up or have ended, and that others took the places of.
    pub replaced: Counter,
    /// Requests that were refused because no place was left in the queue.
    pub full: Counter,
    /// Requests that were refused because they could not have been answered in time.
    pub late: Counter,
    /// Requests that had to make room for more urgent ones.
    pub displaced: Counter,
}

impl Meter {
    /// A pass of so many images was run to its end.
    pub fn batch(&self, images: usize) {
        if let Some(bucket) = BATCHES.iter().position(|bound| images <= *bound) {
            self.batches[bucket].fetch_add(1, Relaxed);
        }
        self.passes.fetch_add(1, Relaxed);
        self.images.fetch_add(images as u64, Relaxed);
    }

    /// The number of an engine's workers, to be set as it changes.
    pub fn hands(self: &Arc<Self>) -> Hands {
        Hands { meter: self.clone(), count: AtomicU64::new(0) }
    }

    fn render(&self, out: &mut String, model: &str) {
        let name = "adit_agent_batch_images";
        let mut below = 0;
        for (bucket, bound) in self.batches.iter().zip(BATCHES) {
            below += bucket.load(Relaxed);
            line(out, format_args!("{name}_bucket{{{model},le=\"{bound}\"}} {below}"));
        }
        let passes = self.passes.load(Relaxed);
        line(out, format_args!("{name}_bucket{{{model},le=\"+Inf\"}} {passes}"));
        line(out, format_args!("{name}_sum{{{model}}} {}", self.images.load(Relaxed)));
        line(out, format_args!("{name}_count{{{model}}} {passes}"));
    }
}

/// An engine's workers: counted until it is dropped.
#[derive(Debug)]
pub struct Hands {
    meter: Arc<Meter>,
    count: AtomicU64,
}

impl Hands {
    /// There are so many now.
    pub fn set(&self, count: usize) {
        let before = self.count.swap(count as u64, Relaxed);
        // Wrapping, as atomics add: the sum over all engines is never below zero.
        self.meter.workers.fetch_add((count as u64).wrapping_sub(before), Relaxed);
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// One request that waits for a device: counted in the load and its images with their model until it is dropped.
#[derive(Debug)]
pub struct Queued {
    metrics: Arc<Metrics>,
    meter: Arc<Meter>,
    images: u64,
    /// Dropped with it.
    pending: Option<Pending>,
}

impl Queued {
    /// It also counts as pending with the version that it waits for.
    #[must_use]
    pub fn of(mut self, account: &Arc<Account>) -> Self {
        self.pending = Some(account.pend());
        self
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.meter.waiting.fetch_sub(self.images, Relaxed);
        self.metrics.load.send_modify(|load| load.queued = load.queued.saturating_sub(1));
    }
}

/// One live session: counted until it is dropped.
#[derive(Debug)]
pub struct Live(Arc<Metrics>, Transport);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.sessions[self.1 as usize].fetch_sub(1, Relaxed);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        Self {
            requests: Mutex::default(),
            dials: Mutex::default(),
            models: Mutex::default(),
            meters: Mutex::default(),
            accounts: Mutex::default(),
            memory: Mutex::default(),
            upstreams: Mutex::default(),
            cancelled_queued: Counter::default(),
            cancelled_running: Counter::default(),
            expired: Counter::default(),
            overloaded: Counter::default(),
            begun: Counter::default(),
            forwards: Counter::default(),
            loads: Counter::default(),
            failed_loads: Counter::default(),
            unloads: Counter::default(),
            evictions: Counter::default(),
            load_time: Histogram::default(),
            broken_exchanges: Counter::default(),
            sessions: Default::default(),
            udp_send: AtomicU64::new(0),
            udp_receive: AtomicU64::new(0),
            udp_sends: AtomicU64::new(0),
            udp_receives: AtomicU64::new(0),
            stages: Default::default(),
            total: Histogram::default(),
            load: watch::Sender::new(Load::default()),
        }
    }

    /// A request has arrived.
    pub fn arrive(self: &Arc<Self>) -> InFlight {
        self.load.send_modify(|load| load.in_flight += 1);
        InFlight(self.clone())
    }

    /// A request for so many images waits for a model, whose name the repository knows.
    pub fn wait(self: &Arc<Self>, model: &str, images: usize) -> Queued {
        self.load.send_modify(|load| load.queued += 1);
        let (meter, images) = (self.meter(model), images as u64);
        meter.waiting.fetch_add(images, Relaxed);
        Queued { metrics: self.clone(), meter, images, pending: None }
    }

    /// What is counted of a model, whose name the repository knows.
    pub fn meter(&self, model: &str) -> Arc<Meter> {
        let mut meters = lock(&self.meters);
        match meters.get(model) {
            Some(meter) => meter.clone(),
            None => meters.entry(model.to_owned()).or_default().clone(),
        }
    }

    /// What is counted of a server that requests are carried to.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMeter> {
        lock(&self.upstreams).entry(name.to_owned()).or_default().clone()
    }

    /// What is counted of a version, which the repository knows, for as long as the process lives.
    pub fn account(&self, model: &ModelName, version: Version) -> Arc<Account> {
        lock(&self.accounts).entry((model.clone(), version)).or_default().clone()
    }

    /// All accounts, by model and version.
    pub fn accounts(&self) -> Vec<(ModelName, Version, Arc<Account>)> {
        let accounts = lock(&self.accounts);
        accounts.iter().map(|((model, version), account)| (model.clone(), *version, account.clone())).collect()
    }

    /// A session stands.
    pub fn connected(self: &Arc<Self>, transport: Transport) -> Live {
        self.sessions[transport as usize].fetch_add(1, Relaxed);
        Live(self.clone(), transport)
    }

    /// How many sessions stand.
    pub fn sessions(&self) -> u64 {
        self.sessions.iter().map(|sessions| sessions.load(Relaxed)).sum()
    }

    /// How many of them travel over this.
    pub fn sessions_over(&self, transport: Transport) -> u64 {
        self.sessions[transport as usize].load(Relaxed)
    }

    /// How busy the agent is, as it changes.
    pub fn load(&self) -> watch::Receiver<Load> {
        self.load.subscribe()
    }

    /// An inference ended; `model` must be a name that the repository knows, or empty, so that callers cannot grow the table.
    pub fn finished(&self, model: &str, outcome: &'static str) {
        *lock(&self.requests).entry((model.to_owned(), outcome)).or_default() += 1;
    }

    /// How many inferences of a model ended so.
    pub fn outcomes(&self, model: &str, outcome: &'static str) -> u64 {
        lock(&self.requests).get(&(model.to_owned(), outcome)).copied().unwrap_or(0)
    }

    /// A dial of a relay ended: `connected`, or why not.
    pub fn dialled(&self, relay: &str, outcome: &'static str) {
        *lock(&self.dials).entry((relay.to_owned(), outcome)).or_default() += 1;
    }

    /// Where an inference's time went.
    pub fn observe(&self, timing: &Timing) {
        for (stage, time) in timing.stages() {
            self.stages[stage as usize].observe(time);
        }
        self.total.observe(timing.total());
    }

    /// What the operating system gave of the UDP buffers asked for, in bytes.
    pub fn udp_buffers(&self, given: &UdpBuffers) {
        self.udp_send.store(given.send as u64, Relaxed);
        self.udp_receive.store(given.receive as u64, Relaxed);
        self.udp_sends.store(given.sends as u64, Relaxed);
        self.udp_receives.store(given.receives as u64, Relaxed);
    }

    /// The models as they are now.
    pub fn set_models(&self, models: Vec<Model>) {
        *lock(&self.models) = models;
    }

    /// What the weights of each loaded version take, in bytes.
    pub fn set_memory(&self, memory: Vec<(ModelName, Version, u64)>) {
        *lock(&self.memory) = memory;
    }

    /// A version was loaded in so much time.
    pub fn loaded(&self, time: Duration) {
        self.loads.add();
        self.load_time.observe(time);
    }

    /// Prometheus text.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(8 << 10);
        let load = *self.load.borrow();
        head(&mut out, "adit_agent_requests_total", "counter", "Inferences by model and outcome.");
        for ((model, outcome), count) in lock(&self.requests).iter() {
            let labels = format!("model=\"{}\",outcome=\"{outcome}\"", escape(model));
            line(&mut out, format_args!("adit_agent_requests_total{{{labels}}} {count}"));
        }
        let singles: [(&str, &str, &str, u64); 17] = [
            (
                "cancelled_queued_total",
                "counter",
                "Caller left before the request was run.",
                self.cancelled_queued.get(),
            ),
            (
                "cancelled_running_total",
                "counter",
                "Caller left while the request was run.",
                self.cancelled_running.get(),
            ),
            ("expired_total", "counter", "Deadline passed before the answer was there.", self.expired.get()),
            ("overloaded_total", "counter", "Refused: queue full, or no memory for the body.", self.overloaded.get()),
            ("forwards_begun_total", "counter", "Requests whose forward pass was begun.", self.begun.get()),
            ("forwards_total", "counter", "Requests whose forward pass was run to its end.", self.forwards.get()),
            ("broken_exchanges_total", "counter", "Exchanges on tunnels that broke off.", self.broken_exchanges.get()),
            ("model_loads_total", "counter", "Versions loaded.", self.loads.get()),
            ("model_loads_failed_total", "counter", "Versions that could not be loaded.", self.failed_loads.get()),
            ("model_unloads_total", "counter", "Versions retired or unloaded.", self.unloads.get()),
            ("model_evictions_total", "counter", "Versions put to sleep to make room.", self.evictions.get()),
            ("in_flight", "gauge", "Requests received, queued, computed or answered now.", load.in_flight.into()),
            ("queued", "gauge", "Requests that wait for a device now.", load.queued.into()),
            ("sessions", "gauge", "Tunnels that stand now.", self.sessions()),
            ("udp_receive_buffer_bytes", "gauge", "UDP receive buffer as given.", self.udp_receive.load(Relaxed)),
            (
                "udp_send_segments",
                "gauge",
                "Packets that one call can send; 1 without GSO.",
                self.udp_sends.load(Relaxed),
            ),
            (
                "udp_receive_segments",
                "gauge",
                "Packets that one call can receive; 1 without GRO.",
                self.udp_receives.load(Relaxed),
            ),
        ];
        for (name, kind, help, value) in singles {
            head(&mut out, &format!("adit_agent_{name}"), kind, help);
            line(&mut out, format_args!("adit_agent_{name} {value}"));
        }
        head(&mut out, "adit_agent_udp_send_buffer_bytes", "gauge", "UDP send buffer as given.");
        line(&mut out, format_args!("adit_agent_udp_send_buffer_bytes {}", self.udp_send.load(Relaxed)));
        head(&mut out, "adit_agent_tunnels", "gauge", "Tunnels that stand now, by what they travel over.");
        for transport in Transport::ALL {
            let count = self.sessions_over(transport);
            line(&mut out, format_args!("adit_agent_tunnels{{transport=\"{transport}\"}} {count}"));
        }
        head(&mut out, "adit_agent_dials_total", "counter", "Dials by relay and how they ended.");
        for ((relay, outcome), count) in lock(&self.dials).iter() {
            let labels = format!("relay=\"{}\",outcome=\"{outcome}\"", escape(relay));
            line(&mut out, format_args!("adit_agent_dials_total{{{labels}}} {count}"));
        }
        head(&mut out, "adit_agent_model_state", "gauge", "One per version of a model, with its state as a label.");
        for model in lock(&self.models).iter() {
            let state = format!("{:?}", model.state).to_uppercase();
            let (name, version) = (&model.name, model.version);
            let labels = format!("model=\"{name}\",version=\"{version}\",state=\"{state}\"");
            line(&mut out, format_args!("adit_agent_model_state{{{labels}}} 1"));
        }
        self.render_meters(&mut out);
        head(&mut out, "adit_agent_model_bytes", "gauge", "What the weights of a loaded version take in memory.");
        for (name, version, bytes) in lock(&self.memory).iter() {
            line(&mut out, format_args!("adit_agent_model_bytes{{model=\"{name}\",version=\"{version}\"}} {bytes}"));
        }
        head(&mut out, "adit_agent_model_load_seconds", "histogram", "From reading a version to serving it.");
        self.load_time.render(&mut out, "adit_agent_model_load_seconds", "");
        head(&mut out, "adit_agent_stage_seconds", "histogram", "Time of inferences by stage.");
        for stage in Stage::ALL {
            let histogram = &self.stages[stage as usize];
            if histogram.count.load(Relaxed) > 0 {
                histogram.render(&mut out, "adit_agent_stage_seconds", &format!("stage=\"{}\"", stage.name()));
            }
        }
        head(
            &mut out,
            "adit_agent_request_seconds",
            "histogram",
            "From an inference's last byte to its answer's head.",
        );
        self.total.render(&mut out, "adit_agent_request_seconds", "");
        upstream::render(&mut out, &lock(&self.upstreams));
        triton::render(&mut out, &self.accounts());
        out
    }

    fn render_meters(&self, out: &mut String) {
        let meters: Vec<_> = lock(&self.meters)
            .iter()
            .map(|(model, meter)| (format!("model=\"{}\"", escape(model)), meter.clone()))
            .collect();
        type Read = fn(&Meter) -> u64;
        let singles: [(&str, &str, &str, Read); 6] = [
            ("queued_images", "gauge", "Images that wait for a worker now.", |meter| meter.waiting.load(Relaxed)),
            ("workers", "gauge", "Workers that run the model now.", |meter| meter.workers.load(Relaxed)),
            ("workers_replaced_total", "counter", "Workers given up or lost, and replaced.", |meter| {
                meter.replaced.get()
            }),
            ("refused_full_total", "counter", "Refused: no place in the model's queue.", |meter| meter.full.get()),
            ("refused_late_total", "counter", "Refused: could not have been in time.", |meter| meter.late.get()),
            ("displaced_total", "counter", "Made room for a more urgent request.", |meter| meter.displaced.get()),
        ];
        for (name, kind, help, read) in singles {
            head(out, &format!("adit_agent_{name}"), kind, help);
            for (model, meter) in &meters {
                line(out, format_args!("adit_agent_{name}{{{model}}} {}", read(meter)));
            }
        }
        head(out, "adit_agent_batch_images", "histogram", "Images in a forward pass, by model.");
        for (model, meter) in &meters {
            meter.render(out, model);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under one of these locks leaves at worst a count that is one short.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use adit_common::timing::Stopwatch;

    use super::*;

    #[test]
    fn the_load_follows_the_guards() {
        let metrics = Arc::new(Metrics::new());
        let mut load = metrics.load();
        let (first, second) = (metrics.arrive(), metrics.arrive());
        let queued = metrics.wait("digits", 3);
        assert_eq!(*load.borrow_and_update(), Load { in_flight: 2, queued: 1 });
        assert!(metrics.render().contains("\nadit_agent_queued_images{model=\"digits\"} 3\n"));
        drop((first, queued));
        assert!(metrics.render().contains("\nadit_agent_queued_images{model=\"digits\"} 0\n"));
        assert!(load.has_changed().unwrap());
        assert_eq!(*load.borrow_and_update(), Load { in_flight: 1, queued: 0 });
        drop(second);
        assert!(metrics.render().contains("\nadit_agent_in_flight 0\n"));
    }

    #[test]
    fn buckets_are_cumulative_and_labels_are_escaped() {
        let metrics = Metrics::new();
        let born = Instant::now();
        for millis in [1, 40] {
            let mut watch = Stopwatch::start_at(born);
            watch.lap_at(Stage::Forward, born + Duration::from_millis(millis));
            metrics.observe(&watch.finish_at(born + Duration::from_millis(millis)));
        }
        metrics.dialled("a\"b", "timed_out");
        metrics.finished("digits", "ok");
        let meter = metrics.meter("digits");
        [1, 3, 4, 500].into_iter().for_each(|images| meter.batch(images));
        let (hands, others) = (meter.hands(), meter.hands());
        hands.set(2);
        others.set(4);
        others.set(1);
        drop(hands);
        let text = metrics.render();
        for expected in [
            "adit_agent_stage_seconds_bucket{stage=\"forward\",le=\"0.001\"} 1\n",
            "adit_agent_stage_seconds_bucket{stage=\"forward\",le=\"0.05\"} 2\n",
            "adit_agent_stage_seconds_bucket{stage=\"forward\",le=\"+Inf\"} 2\n",
            "adit_agent_stage_seconds_sum{stage=\"forward\"} 0.041\n",
            "adit_agent_request_seconds_count 2\n",
            "adit_agent_batch_images_bucket{model=\"digits\",le=\"2\"} 1\n",
            "adit_agent_batch_images_bucket{model=\"digits\",le=\"4\"} 3\n",
            "adit_agent_batch_images_bucket{model=\"digits\",le=\"+Inf\"} 4\n",
            "adit_agent_batch_images_sum{model=\"digits\"} 508\n",
            "adit_agent_workers{model=\"digits\"} 1\n",
            "adit_agent_dials_total{relay=\"a\\\"b\",outcome=\"timed_out\"} 1\n",
            "adit_agent_requests_total{model=\"digits\",outcome=\"ok\"} 1\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(!text.contains("stage=\"queue\""), "stages that nobody passed are left out");
    }
}
