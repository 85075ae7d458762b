//! Counters and histograms, written as Prometheus text.
//!
//! A fixed set of atomics: counting takes no lock and makes no string, and the text is made when somebody asks for it.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use adit_common::timing::{Stage, Timing};
use http::StatusCode;

use crate::error::Kind;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    /// One more, until the guard is dropped.
    pub(crate) fn hold(self: &std::sync::Arc<Self>) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value.try_into().unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of a gauge's count.
#[derive(Debug)]
pub(crate) struct Held(std::sync::Arc<Gauge>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Upper bounds in seconds: 100 µs is a hop within a machine, 30 s the default budget.
const BOUNDS: [f64; 17] =
    [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How long things took.
#[derive(Debug, Default)]
struct Histogram {
    /// Per bucket, not yet added up; the last is for what exceeds every bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(time.as_nanos().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// `label` is `stage="admit"`, or nothing.
    fn write(&self, name: &str, label: &str, out: &mut String) {
        let comma = if label.is_empty() { "" } else { "," };
        let braces = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
        let mut count = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let bound = BOUNDS.get(index).map_or("+Inf".to_owned(), f64::to_string);
            line(out, format_args!("{name}_bucket{{{label}{comma}le=\"{bound}\"}} {count}"));
        }
        let sum = Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64();
        line(out, format_args!("{name}_sum{braces} {sum}"));
        line(out, format_args!("{name}_count{braces} {count}"));
    }
}

/// Everything that the relay counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Answers by status, from 100 on.
    statuses: Vec<Counter>,
    errors: [Counter; Kind::ALL.len()],
    stages: [Histogram; Stage::ALL.len()],
    total: Histogram,
    receive: Histogram,
    /// Requests between their head and the end of their answer.
    pub(crate) in_flight: std::sync::Arc<Gauge>,
    /// Exchanges that the client gave up.
    pub(crate) cancelled: Counter,
    /// Answers that broke off because their agent did.
    pub(crate) broken: Counter,
    pub(crate) retries: Counter,
    /// An agent that was picked had no stream left.
    pub(crate) no_credit: Counter,
    pub(crate) ejections: Counter,
    /// Bytes of request bodies and of answer bodies.
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) connections: std::sync::Arc<Gauge>,
    pub(crate) connections_total: Counter,
    /// Connections closed at once because there were too many.
    pub(crate) connections_refused: Counter,
    /// TLS handshakes that failed or took too long.
    pub(crate) handshakes_failed: Counter,
    pub(crate) sessions: std::sync::Arc<Gauge>,
    pub(crate) sessions_total: Counter,
    /// Sessions that ended otherwise than in order.
    pub(crate) sessions_lost: Counter,
    /// Tunnel handshakes that failed: no certificate of ours, or garbage that looks like QUIC.
    pub(crate) tunnels_failed: Counter,
    /// Tunnel handshakes that were refused: too many at a time, or draining.
    pub(crate) tunnels_refused: Counter,
    pub(crate) keys: Gauge,
    pub(crate) keys_reloads: Counter,
    pub(crate) keys_failures: Counter,
    pub(crate) udp_send_buffer: Gauge,
    pub(crate) udp_receive_buffer: Gauge,
    pub(crate) udp_send_segments: Gauge,
    pub(crate) udp_receive_segments: Gauge,
}

const FIRST_STATUS: u16 = 100;
const STATUSES: usize = 500;

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            statuses: std::iter::repeat_with(Counter::default).take(STATUSES).collect(),
            errors: Default::default(),
            stages: Default::default(),
            total: Histogram::default(),
            receive: Histogram::default(),
            in_flight: Default::default(),
            cancelled: Counter::default(),
            broken: Counter::default(),
            retries: Counter::default(),
            no_credit: Counter::default(),
            ejections: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            connections: Default::default(),
            connections_total: Counter::default(),
            connections_refused: Counter::default(),
            handshakes_failed: Counter::default(),
            sessions: Default::default(),
            sessions_total: Counter::default(),
            sessions_lost: Counter::default(),
            tunnels_failed: Counter::default(),
            tunnels_refused: Counter::default(),
            keys: Gauge::default(),
            keys_reloads: Counter::default(),
            keys_failures: Counter::default(),
            udp_send_buffer: Gauge::default(),
            udp_receive_buffer: Gauge::default(),
            udp_send_segments: Gauge::default(),
            udp_receive_segments: Gauge::default(),
        }
    }

    /// An answer's head went out.
    pub(crate) fn answered(&self, status: StatusCode) {
        if let Some(counter) = self.statuses.get(usize::from(status.as_u16().saturating_sub(FIRST_STATUS))) {
            counter.one();
        }
    }

    /// The relay answered for itself.
    pub(crate) fn failed(&self, kind: Kind) {
        self.errors[kind as usize].one();
    }

    /// An agent's answer came, and this is where its time went.
    pub(crate) fn observe(&self, timing: &Timing) {
        for (stage, time) in timing.stages() {
            self.stages[stage as usize].observe(time);
        }
        if let Some(receive) = timing.receive() {
            self.receive.observe(receive);
        }
        self.total.observe(timing.total());
    }

    /// Appends everything as Prometheus text.
    pub(crate) fn write(&self, out: &mut String) {
        head(out, "adit_relay_requests_total", "counter", "Answers by status.");
        for (index, counter) in self.statuses.iter().enumerate().filter(|(_, counter)| counter.get() > 0) {
            let status = usize::from(FIRST_STATUS) + index;
            line(out, format_args!("adit_relay_requests_total{{status=\"{status}\"}} {}", counter.get()));
        }
        head(out, "adit_relay_errors_total", "counter", "Answers that the relay made itself, by cause.");
        for (kind, counter) in Kind::ALL.into_iter().zip(&self.errors) {
            let (name, origin) = (kind.name(), kind.origin().name());
            let count = counter.get();
            line(out, format_args!("adit_relay_errors_total{{kind=\"{name}\",origin=\"{origin}\"}} {count}"));
        }
        head(out, "adit_relay_stage_seconds", "histogram", "Where the time of answered requests went.");
        for (stage, histogram) in Stage::ALL.into_iter().zip(&self.stages) {
            histogram.write("adit_relay_stage_seconds", &format!("stage=\"{}\"", stage.name()), out);
        }
        head(out, "adit_relay_receive_seconds", "histogram", "Request bodies' way to the agent; overlaps upload.");
        self.receive.write("adit_relay_receive_seconds", "", out);
        head(out, "adit_relay_request_seconds", "histogram", "From a request's head to its answer's head.");
        self.total.write("adit_relay_request_seconds", "", out);
        for (name, help, counter) in [
            ("cancelled_total", "Exchanges that the client gave up.", &self.cancelled),
            ("broken_total", "Answers that broke off in the middle.", &self.broken),
            ("retries_total", "Requests sent again to another agent.", &self.retries),
            ("no_credit_total", "Agents passed over because they had no stream left.", &self.no_credit),
            ("ejections_total", "Agents taken out after failures in a row.", &self.ejections),
            ("request_bytes_total", "Bytes of request bodies.", &self.bytes_in),
            ("answer_bytes_total", "Bytes of answer bodies.", &self.bytes_out),
            ("connections_total", "Client connections accepted.", &self.connections_total),
            ("connections_refused_total", "Client connections over the limit.", &self.connections_refused),
            ("handshakes_failed_total", "Client handshakes that failed.", &self.handshakes_failed),
            ("sessions_total", "Agent sessions registered.", &self.sessions_total),
            ("sessions_lost_total", "Agent sessions that did not end in order.", &self.sessions_lost),
            ("tunnels_failed_total", "Tunnel handshakes that failed.", &self.tunnels_failed),
            ("tunnels_refused_total", "Tunnel handshakes that were refused.", &self.tunnels_refused),
            ("keys_reloads_total", "Times that the keys file was read again.", &self.keys_reloads),
            ("keys_failures_total", "Times that it could not be read.", &self.keys_failures),
        ] {
            head(out, &format!("adit_relay_{name}"), "counter", help);
            line(out, format_args!("adit_relay_{name} {}", counter.get()));
        }
        for (name, help, gauge) in [
            ("in_flight", "Requests being answered.", &*self.in_flight),
            ("connections", "Client connections open.", &*self.connections),
            ("sessions", "Agent sessions open.", &*self.sessions),
            ("keys", "Keys that are known.", &self.keys),
            ("udp_send_buffer_bytes", "What the kernel gave.", &self.udp_send_buffer),
            ("udp_receive_buffer_bytes", "What the kernel gave.", &self.udp_receive_buffer),
            ("udp_send_segments", "Packets that one call can send; 1 without GSO.", &self.udp_send_segments),
            ("udp_receive_segments", "Packets that one call can receive; 1 without GRO.", &self.udp_receive_segments),
        ] {
            head(out, &format!("adit_relay_{name}"), "gauge", help);
            line(out, format_args!("adit_relay_{name} {}", gauge.get()));
        }
    }
}

/// Appends a metric's two comment lines.
pub(crate) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
}

/// Appends a line.
pub(crate) fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // invariant: writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use adit_common::timing::Stopwatch;

    use super::*;

    #[test]
    fn what_was_counted_is_written() {
        let metrics = Metrics::new();
        metrics.answered(StatusCode::OK);
        metrics.answered(StatusCode::OK);
        metrics.failed(Kind::Overloaded);
        let held = metrics.in_flight.hold();
        let born = Instant::now();
        let mut watch = Stopwatch::start_at(born);
        watch.lap_at(Stage::Admit, born + Duration::from_micros(200));
        metrics.observe(&watch.finish_at(born + Duration::from_millis(40)));
        let mut text = String::new();
        metrics.write(&mut text);
        for expected in [
            "adit_relay_requests_total{status=\"200\"} 2\n",
            "adit_relay_errors_total{kind=\"overloaded\",origin=\"relay\"} 1\n",
            "adit_relay_stage_seconds_bucket{stage=\"admit\",le=\"0.0001\"} 0\n",
            "adit_relay_stage_seconds_bucket{stage=\"admit\",le=\"0.00025\"} 1\n",
            "adit_relay_stage_seconds_bucket{stage=\"admit\",le=\"+Inf\"} 1\n",
            "adit_relay_stage_seconds_count{stage=\"forward\"} 0\n",
            "adit_relay_request_seconds_sum 0.04\n",
            "adit_relay_in_flight 1\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        drop(held);
        assert_eq!(metrics.in_flight.get(), 0);
    }

    #[test]
    fn every_metric_is_declared_once() {
        let mut text = String::new();
        Metrics::new().write(&mut text);
        let mut names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
