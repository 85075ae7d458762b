//! How often an exchange over the tunnel allocates, both ends together, against the same bytes over bare quinn streams.
//!
//! `cargo bench -p adit-common --bench allocations` prints, for each size and each of what a tunnel travels over, allocations and bytes
//! allocated for each exchange, one at a time. The counts hardly depend on the machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    dead_code
)]

#[path = "../tests/tunnel/ends.rs"]
mod ends;
#[path = "../tests/tunnel/pair.rs"]
mod pair;

use std::alloc::System;

use adit_common::tunnel::{Session, Transport, TunnelBody};
use bytes::Bytes;
use ends::Ends;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use pair::Pair;
use quinn::Connection;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ANSWER: &[u8] = &[b'a'; 1 << 10];

/// Exchanges before any is counted, and those that are.
const WARM: usize = 200;
const COUNTED: usize = 2000;

fn main() {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(measure());
}

async fn measure() {
    println!("| exchange | over | allocations | bytes allocated |\n|---|---|---|---|");
    for (label, size) in [("1 KiB", 1 << 10), ("150 KiB", 150 << 10)] {
        let body = Bytes::from(vec![b'q'; size]);
        let bare = Pair::new().await;
        tokio::spawn(serve_bare(bare.agent.clone()));
        row(label, "bare quinn streams", async || ask_bare(&bare.relay, &body).await).await;
        for transport in Transport::ALL {
            let ends = Ends::new(transport).await;
            let (relay, agent) = ends.sessions();
            tokio::spawn(serve(agent));
            row(label, &format!("the tunnel, {transport}"), async || ask(&relay, &body).await).await;
        }
    }
}

async fn row(label: &str, over: &str, exchange: impl AsyncFn()) {
    for _ in 0..WARM {
        exchange().await;
    }
    let region = Region::new(&INSTRUMENTED_SYSTEM);
    for _ in 0..COUNTED {
        exchange().await;
    }
    let change = region.change();
    let each = |count: usize| count as f64 / COUNTED as f64;
    let (count, bytes) = (each(change.allocations + change.reallocations), each(change.bytes_allocated));
    println!("| {label} | {over} | {count:.1} | {bytes:.0} |");
}

async fn ask_bare(relay: &Connection, body: &Bytes) {
    let (mut send, mut receive) = relay.open_bi().await.unwrap();
    send.write_chunk(body.clone()).await.unwrap();
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

/// The head is made anew for each, as a relay's is.
async fn ask(relay: &Session, body: &Bytes) {
    let request = Request::post("https://relay.test/v2/models/digits/infer")
        .header("content-type", "application/octet-stream")
        .header("content-length", body.len())
        .header("x-request-id", "0123456789abcdef")
        .body(Full::new(body.clone()))
        .unwrap();
    let answer = relay.open().unwrap().send(request).await.unwrap();
    assert_eq!(answer.response.into_body().collect().await.unwrap().to_bytes().len(), ANSWER.len());
}

async fn serve(agent: Session) {
    while let Ok(callee) = agent.accept().await {
        tokio::spawn(callee.serve(async |request: Request<TunnelBody>| {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                frame.unwrap();
            }
            Response::builder()
                .header("content-type", "application/json")
                .header("content-length", ANSWER.len())
                .body(Full::new(Bytes::from_static(ANSWER)))
                .unwrap()
        }));
    }
}
