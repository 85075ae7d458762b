//! What our codec costs on top of QUIC: exchanges over the tunnel against bare quinn streams, alternating in one run.
//!
//! `cargo bench -p adit-common --bench exchanges [-- ROUNDS]` prints, for each size and concurrency, the median rate and the
//! median delay of both, and the median of the per-round ratios (ours / bare). Both sides share the machine and settings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

#[path = "../tests/tunnel/pair.rs"]
mod pair;

use std::time::{Duration, Instant};

use adit_common::tunnel::{Session, TunnelBody};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use pair::Pair;
use quinn::Connection;

const ANSWER: &[u8] = &[b'a'; 1 << 10];
const WINDOW: Duration = Duration::from_millis(400);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(9);
    let bare = Pair::new().await;
    tokio::spawn(serve_bare(bare.agent.clone()));
    let ours = Pair::new().await;
    let (relay, agent) = ours.sessions();
    tokio::spawn(serve_ours(agent));

    println!("| exchange | bare req/s | ours req/s | rate ratio | bare p50 us | ours p50 us | p50 ratio |");
    println!("|---|---|---|---|---|---|---|");
    for (label, size, wide) in
        [("1 KiB x 1", 1 << 10, 1), ("1 KiB x 32", 1 << 10, 32), ("150 KiB x 1", 150 << 10, 1), ("150 KiB x 32", 150 << 10, 32)]
    {
        let body = Bytes::from(vec![b'q'; size]);
        let (mut bare_runs, mut our_runs) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            let one = run(wide, || ask_bare(&bare.relay, body.clone())).await;
            let two = run(wide, || ask_ours(&relay, body.clone())).await;
            // The first round warms windows and caches up.
            if round > 0 {
                bare_runs.push(one);
                our_runs.push(two);
            }
        }
        let rates = median(bare_runs.iter().zip(&our_runs).map(|(bare, ours)| ours.rate / bare.rate));
        let delays = median(bare_runs.iter().zip(&our_runs).map(|(bare, ours)| ours.delay / bare.delay));
        println!(
            "| {label} | {:.0} | {:.0} | {rates:.2} | {:.0} | {:.0} | {delays:.2} |",
            median(bare_runs.iter().map(|run| run.rate)),
            median(our_runs.iter().map(|run| run.rate)),
            median(bare_runs.iter().map(|run| run.delay)),
            median(our_runs.iter().map(|run| run.delay)),
        );
    }
}

struct Run {
    /// Exchanges a second.
    rate: f64,
    /// Median delay in microseconds.
    delay: f64,
}

async fn run<F: Future<Output = ()>>(wide: usize, ask: impl Fn() -> F) -> Run {
    let started = Instant::now();
    let timed = || async {
        let sent = Instant::now();
        ask().await;
        sent.elapsed().as_secs_f64() * 1e6
    };
    let mut flying: FuturesUnordered<_> = (0..wide).map(|_| timed()).collect();
    let mut delays = Vec::new();
    while let Some(delay) = flying.next().await {
        delays.push(delay);
        if started.elapsed() < WINDOW {
            flying.push(timed());
        }
    }
    Run { rate: delays.len() as f64 / started.elapsed().as_secs_f64(), delay: median(delays.into_iter()) }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn ask_bare(relay: &Connection, body: Bytes) {
    let (mut send, mut receive) = relay.open_bi().await.unwrap();
    send.write_chunk(body).await.unwrap();
    send.finish().unwrap();
    assert_eq!(receive.read_to_end(1 << 20).await.unwrap().len(), ANSWER.len());
}

async fn serve_bare(agent: Connection) {
    while let Ok((mut send, mut receive)) = agent.accept_bi().await {
        tokio::spawn(async move {
            receive.read_to_end(1 << 20).await.unwrap();
            send.write_chunk(Bytes::from_static(ANSWER)).await.unwrap();
            send.finish().unwrap();
        });
    }
}

async fn ask_ours(relay: &Session, body: Bytes) {
    let request = Request::post("https://relay.test/v2/models/digits/infer")
        .header("content-type", "application/octet-stream")
        .header("content-length", body.len())
        .header("x-request-id", "0123456789abcdef")
        .body(Full::new(body))
        .unwrap();
    let answer = relay.open().unwrap().send(request).await.unwrap();
    assert_eq!(answer.response.into_body().collect().await.unwrap().to_bytes().len(), ANSWER.len());
}

async fn serve_ours(agent: Session) {
    while let Ok(callee) = agent.accept().await {
        tokio::spawn(callee.serve(async |request: Request<TunnelBody>| {
            request.into_body().collect().await.unwrap();
            Response::builder()
                .header("content-type", "application/json")
                .header("content-length", ANSWER.len())
                .body(Full::new(Bytes::from_static(ANSWER)))
                .unwrap()
        }));
    }
}
