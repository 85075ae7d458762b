//! What is counted of the servers that requests are carried to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::text::{escape, head, line};

/// What is counted of one of them.
#[derive(Debug, Default)]
pub struct UpstreamMeter {
    outcomes: Mutex<BTreeMap<&'static str, u64>>,
    requests: AtomicU64,
    connections: AtomicU64,
    up: AtomicBool,
}

/// One more of something, until it is dropped.
#[derive(Debug)]
pub struct Held {
    meter: Arc<UpstreamMeter>,
    of: fn(&UpstreamMeter) -> &AtomicU64,
}

impl Drop for Held {
    fn drop(&mut self) {
        (self.of)(&self.meter).fetch_sub(1, Relaxed);
    }
}

impl UpstreamMeter {
    /// A request ended so.
    pub fn ended(&self, outcome: &'static str) {
        *self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).entry(outcome).or_default() += 1;
    }

    /// It answers, or does not.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Relaxed);
    }

    /// A request is under way there.
    pub fn request(self: &Arc<Self>) -> Held {
        self.hold(|meter| &meter.requests)
    }

    /// A connection to it is open.
    pub fn connection(self: &Arc<Self>) -> Held {
        self.hold(|meter| &meter.connections)
    }

    fn hold(self: &Arc<Self>, of: fn(&Self) -> &AtomicU64) -> Held {
        of(self).fetch_add(1, Relaxed);
        Held { meter: self.clone(), of }
    }
}

/// All of them, as Prometheus text.
pub(super) fn render(out: &mut String, meters: &BTreeMap<String, Arc<UpstreamMeter>>) {
    if meters.is_empty() {
        return;
    }
    head(out, "adit_agent_upstream_requests_total", "counter", "Requests carried to a server, by outcome.");
    for (name, meter) in meters {
        for (outcome, count) in meter.outcomes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels = format!("upstream=\"{}\",outcome=\"{outcome}\"", escape(name));
            line(out, format_args!("adit_agent_upstream_requests_total{{{labels}}} {count}"));
        }
    }
    type Read = fn(&UpstreamMeter) -> u64;
    let gauges: [(&str, &str, Read); 3] = [
        ("up", "Whether the server answers.", |meter| meter.up.load(Relaxed).into()),
        ("in_flight", "Requests under way at the server now.", |meter| meter.requests.load(Relaxed)),
        ("connections", "Connections to the server now.", |meter| meter.connections.load(Relaxed)),
    ];
    for (what, help, read) in gauges {
        head(out, &format!("adit_agent_upstream_{what}"), "gauge", help);
        for (name, meter) in meters {
            line(out, format_args!("adit_agent_upstream_{what}{{upstream=\"{}\"}} {}", escape(name), read(meter)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_until_it_is_dropped() {
        let meter = Arc::new(UpstreamMeter::default());
        let meters: BTreeMap<_, _> = [("triton".to_owned(), meter.clone())].into();
        let text = || {
            let mut out = String::new();
            render(&mut out, &meters);
            out
        };
        let (request, connection) = (meter.request(), meter.connection());
        meter.ended("ok");
        meter.set_up(true);
        for line in [
            "in_flight{upstream=\"triton\"} 1\n",
            "connections{upstream=\"triton\"} 1\n",
            "up{upstream=\"triton\"} 1\n",
        ] {
            assert!(text().contains(line), "{}", text());
        }
        assert!(text().contains("adit_agent_upstream_requests_total{upstream=\"triton\",outcome=\"ok\"} 1\n"));
        drop((request, connection));
        assert!(
            text().contains("in_flight{upstream=\"triton\"} 0\n")
                && text().contains("connections{upstream=\"triton\"} 0\n")
        );
    }
}
