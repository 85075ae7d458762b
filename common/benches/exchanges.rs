//! What our codec costs on top of QUIC: exchanges over the tunnel against bare quinn streams, alternating in one run.
//!
//! `cargo bench -p adit-common --bench exchanges [-- ROUNDS [WORKERS] ["1 KiB x 32"]]` prints, for each size and concurrency,
//! the median rate and the median delay of both, and the median of the per-round ratios (ours / bare). Both sides share the
//! machine and settings. Two worker threads by default; with one, which thread the scheduler wakes is left out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

#[path = "../tests/tunnel/pair.rs"]
mod pair;

use std::time::{Duration, Instant};

use adit_common::tunnel::{Session, TunnelBody};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use pair::Pair;
use quinn::Connection;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ANSWER: &[u8] = &[b'a'; 1 << 10];
/// Short, so that both sides of a round meet the same weather.
const WINDOW: Duration = Duration::from_millis(100);

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let (rounds, workers) = (numbers.next().unwrap_or(40), numbers.next().unwrap_or(2));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(workers).enable_all().build().unwrap().block_on(measure(rounds));
}

async fn measure(rounds: usize) {
    let plain = Pair::new().await;
    tokio::spawn(serve_bare(plain.agent.clone()));
    let pair = Pair::new().await;
    let (relay, agent) = pair.sessions();
    tokio::spawn(serve_ours(agent));

    println!(
        "| exchange | bare req/s | ours req/s | rate ratio | bare p50 us | ours p50 us | p50 ratio | bare CPU us | ours CPU us |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let only: Vec<String> = std::env::args().filter(|argument| argument.contains("KiB")).collect();
    for (label, size, wide) in [
        ("1 KiB x 1", 1 << 10, 1),
        ("1 KiB x 32", 1 << 10, 32),
        ("150 KiB x 1", 150 << 10, 1),
        ("150 KiB x 32", 150 << 10, 32),
    ] {
        if !only.is_empty() && !only.iter().any(|only| only == label) {
            continue;
        }
        let body = Bytes::from(vec![b'q'; size]);
        let (mut bare_runs, mut our_runs) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            // Who comes second in a round is slower, whoever it is: take turns.
            let (one, two) = if round % 2 == 0 {
                let one = run(wide, ask_bare(&plain.relay, &body)).await;
                (one, run(wide, ask_ours(&relay, &body)).await)
            } else {
                let two = run(wide, ask_ours(&relay, &body)).await;
                (run(wide, ask_bare(&plain.relay, &body)).await, two)
            };
            // The first round warms windows and caches up.
            if round > 0 {
                bare_runs.push(one);
                our_runs.push(two);
            }
        }
        let rates = median(bare_runs.iter().zip(&our_runs).map(|(bare, ours)| ours.rate / bare.rate));
        let delays = median(bare_runs.iter().zip(&our_runs).map(|(bare, ours)| ours.delay / bare.delay));
        println!(
            "| {label} | {:.0} | {:.0} | {rates:.2} | {:.0} | {:.0} | {delays:.2} | {:.1} | {:.1} |",
            median(bare_runs.iter().map(|run| run.rate)),
            median(our_runs.iter().map(|run| run.rate)),
            median(bare_runs.iter().map(|run| run.delay)),
            median(our_runs.iter().map(|run| run.delay)),
            median(bare_runs.iter().map(|run| run.cpu)),
            median(our_runs.iter().map(|run| run.cpu)),
        );
    }
}

struct Run {
    /// Exchanges a second.
    rate: f64,
    /// Median delay in microseconds.
    delay: f64,
    /// Processor time of both ends per exchange, in microseconds.
    cpu: f64,
}

/// Processor time of this process so far, in seconds; Linux counts it in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// `wide` tasks, as a relay has a task a request, each asking again as soon as it is answered.
async fn run<F: Future<Output = ()> + Send>(wide: usize, ask: impl Fn() -> F + Clone + Send + 'static) -> Run {
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let mut tasks = JoinSet::new();
    for _ in 0..wide {
        let ask = ask.clone();
        tasks.spawn(async move {
            let mut delays = Vec::new();
            while started.elapsed() < WINDOW {
                let sent = Instant::now();
                ask().await;
                delays.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            delays
        });
    }
    let delays = tasks.join_all().await.concat();
    let count = delays.len() as f64;
    Run {
        rate: count / started.elapsed().as_secs_f64(),
        delay: median(delays.into_iter()),
        cpu: (cpu_seconds() - cpu) * 1e6 / count,
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ask_bare(relay: &Connection, body: &Bytes) -> impl Fn() -> BoxFuture<'static, ()> + Clone + Send + 'static {
    let (relay, body) = (relay.clone(), body.clone());
    move || bare(relay.clone(), body.clone()).boxed()
}

async fn bare(relay: Connection, body: Bytes) {
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

/// Heads are made once and cloned: a relay has them from its front and an agent from its router, and what making them costs
/// is not the tunnel's.
fn ask_ours(relay: &Session, body: &Bytes) -> impl Fn() -> BoxFuture<'static, ()> + Clone + Send + 'static {
    let request = Request::post("https://relay.test/v2/models/digits/infer")
        .header("content-type", "application/octet-stream")
        .header("content-length", body.len())
        .header("x-request-id", "0123456789abcdef")
        .body(Full::new(body.clone()))
        .unwrap();
    let relay = relay.clone();
    move || ours(relay.clone(), request.clone()).boxed()
}

async fn ours(relay: Session, request: Request<Full<Bytes>>) {
    let answer = relay.open().unwrap().send(request).await.unwrap();
    assert_eq!(answer.response.into_body().collect().await.unwrap().to_bytes().len(), ANSWER.len());
}

async fn serve_ours(agent: Session) {
    let answer = Response::builder()
        .header("content-type", "application/json")
        .header("content-length", ANSWER.len())
        .body(Full::new(Bytes::from_static(ANSWER)))
        .unwrap();
    while let Ok(callee) = agent.accept().await {
        let answer = answer.clone();
        tokio::spawn(callee.serve(async |request: Request<TunnelBody>| {
            request.into_body().collect().await.unwrap();
            answer
        }));
    }
}
