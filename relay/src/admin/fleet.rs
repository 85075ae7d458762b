//! What is known of the agents: `/fleet` as JSON, and their part of `/metrics`.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use adit_common::id::AgentId;
use adit_common::manifest::{Load, Model, Upstream};
use adit_common::tunnel::PathReport;
use serde::Serialize;

use crate::fleet::agent::Agent;
use crate::fleet::registry::{Member, Snapshot};
use crate::metrics::{head, line};

/// One connected agent.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    agent: &'a AgentId,
    address: String,
    /// `quic` or `tcp`.
    transport: &'static str,
    software: &'a str,
    /// Takes no more requests: it drains, or a newer session has taken its place.
    draining: bool,
    connected_seconds: u64,
    rtt_micros: u64,
    /// What the congestion control knows of the path to the agent; none where another than ours is chosen.
    path: Option<PathReport>,
    in_flight: u32,
    capacity: u32,
    /// As the agent last reported it.
    load: Load,
    latency_micros: u64,
    /// Left out for failures in a row.
    ejected: bool,
    devices: &'a [String],
    models: &'a [Model],
    /// The servers behind it.
    upstreams: &'a [Upstream],
}

/// One agent that left.
#[derive(Debug, Serialize)]
struct Left<'a> {
    agent: &'a AgentId,
    seconds_ago: u64,
}

#[derive(Debug, Serialize)]
struct Listing<'a> {
    agents: Vec<Entry<'a>>,
    left: Vec<Left<'a>>,
}

/// The fleet as JSON.
pub(super) fn listing(fleet: &Snapshot, now: Instant) -> serde_json::Result<String> {
    let entry = |member: &'_ Member| {
        let (agent, manifest) = (&member.agent, &member.manifest);
        let (latency, ejected) = agent.standing(now);
        (agent.clone(), manifest.clone(), latency, ejected)
    };
    let known: Vec<_> = fleet.members.iter().map(entry).collect();
    let agents = known.iter().map(|(agent, manifest, latency, ejected)| Entry {
        agent: &agent.id,
        address: agent.session.remote_address().to_string(),
        transport: agent.session.transport().name(),
        software: &manifest.software,
        draining: agent.is_retired(),
        connected_seconds: now.saturating_duration_since(agent.since).as_secs(),
        rtt_micros: micros(agent.session.rtt()),
        path: agent.session.path(),
        in_flight: agent.in_flight(),
        capacity: manifest.capacity,
        load: agent.load(),
        latency_micros: micros(*latency),
        ejected: *ejected,
        devices: &manifest.devices,
        models: &manifest.models,
        upstreams: &manifest.upstreams,
    });
    let left = fleet.gone.iter().map(|gone| Left {
        agent: &gone.manifest.agent,
        seconds_ago: now.saturating_duration_since(gone.at).as_secs(),
    });
    serde_json::to_string_pretty(&Listing { agents: agents.collect(), left: left.collect() })
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

/// Appends what is counted for each agent; what QUIC alone counts is zero over TCP. An agent with two sessions is shown by its newest.
pub(super) fn write_metrics(fleet: &Snapshot, now: Instant, out: &mut String) {
    let mut seen = HashSet::new();
    let agents: Vec<_> = fleet.members.iter().rev().filter(|member| seen.insert(&member.agent.id)).collect();
    head(out, "adit_relay_agent_transport", "gauge", "1: what the agent's tunnel travels over.");
    for member in &agents {
        let (agent, transport) = (&member.agent.id, member.agent.session.transport());
        line(out, format_args!("adit_relay_agent_transport{{agent=\"{agent}\",transport=\"{transport}\"}} 1"));
    }
    let rows: Vec<_> = agents.iter().map(|member| (&member.agent.id, values(&member.agent, now))).collect();
    for (index, (name, kind, help)) in COLUMNS.into_iter().enumerate() {
        head(out, &format!("adit_relay_agent_{name}"), kind, help);
        for (agent, values) in &rows {
            line(out, format_args!("adit_relay_agent_{name}{{agent=\"{agent}\"}} {}", values[index]));
        }
    }
}

const COLUMNS: [(&str, &str, &str); 24] = [
    ("in_flight", "gauge", "Requests that the agent has of this relay."),
    ("reported_in_flight", "gauge", "Requests that the agent says it has."),
    ("reported_queued", "gauge", "Of these, those that wait for a device."),
    ("latency_seconds", "gauge", "What the balancer takes it for."),
    ("ejected", "gauge", "Left out for failures in a row."),
    ("rtt_seconds", "gauge", "The path's round-trip time."),
    ("cwnd_bytes", "gauge", "The congestion window."),
    (
        "path_mode",
        "gauge",
        "What our congestion control does: 0 looks for the path's limit, 1 is calm, 2 shares with flows that fill the queue.",
    ),
    ("path_rate_bytes", "gauge", "Bytes a second in the best round trip of the last ten seconds, as it knows."),
    ("path_floor_seconds", "gauge", "The round-trip time while the queue is empty, as it knows."),
    ("path_noise_ratio", "gauge", "Losses for each packet that are not its doing, as it knows."),
    ("path_queue_reductions_total", "counter", "Times that it sent less because of a queue."),
    ("path_loss_reductions_total", "counter", "Times that it sent less because of losses of its doing."),
    ("parity_sent_bytes_total", "counter", "Parity sent beside what is sent to it."),
    ("parity_repaired_bytes_total", "counter", "Bytes that it sent, that were lost, and that its parity gave back."),
    ("mtu_bytes", "gauge", "The path's packet size."),
    ("lost_packets_total", "counter", "Packets declared lost."),
    ("congestion_events_total", "counter", "Times that the window was cut."),
    ("black_holes_total", "counter", "Times that large packets vanished."),
    ("streams_blocked_total", "counter", "Times that the agent's stream credit was used up."),
    ("data_blocked_total", "counter", "Times that flow control held a body up, session and stream."),
    ("sent_bytes_total", "counter", "UDP payload sent."),
    ("received_bytes_total", "counter", "UDP payload received."),
    ("send_calls_total", "counter", "Calls to the kernel that sent it; fewer than datagrams with offload."),
];

fn values(agent: &Agent, now: Instant) -> [f64; COLUMNS.len()] {
    let (stats, load) = (agent.session.stats(), agent.load());
    let (latency, ejected) = agent.standing(now);
    let (path, frames) = (&stats.path, &stats.frame_tx);
    let ours = agent.session.path();
    let (parity, repaired) = agent.session.parity();
    [
        agent.in_flight().into(),
        load.in_flight.into(),
        load.queued.into(),
        latency.as_secs_f64(),
        f64::from(u8::from(ejected)),
        path.rtt.as_secs_f64(),
        path.cwnd as f64,
        ours.map_or(0.0, |ours| f64::from(ours.mode as u8)),
        ours.map_or(0.0, |ours| ours.rate),
        ours.map_or(0.0, |ours| ours.floor),
        ours.map_or(0.0, |ours| ours.noise),
        ours.map_or(0.0, |ours| ours.reductions[0] as f64),
        ours.map_or(0.0, |ours| ours.reductions[1] as f64),
        parity as f64,
        repaired as f64,
        path.current_mtu.into(),
        path.lost_packets as f64,
        path.congestion_events as f64,
        path.black_holes_detected as f64,
        frames.streams_blocked_bidi as f64,
        (frames.data_blocked + frames.stream_data_blocked) as f64,
        stats.udp_tx.bytes as f64,
        stats.udp_rx.bytes as f64,
        stats.udp_tx.ios as f64,
    ]
}
