//! Flow control by budget: who does not read, or does not write, stops nobody else, however many they are.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adit_common::tunnel::{Answer, Session, SessionLimits, Transport, TransportOptions, TunnelBody, TunnelError};
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::ends::Ends;
use crate::pair::Pair;

/// Nothing here takes longer; what does, hangs.
const LIMIT: Duration = Duration::from_secs(60);

const WINDOW: usize = 512 << 10;
/// Together they hold 80 MiB.
const STALLED: usize = 160;
const CHUNK: usize = 64 << 10;

static ZEROS: [u8; CHUNK] = [0; CHUNK];

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body without end, which counts what is taken of it.
fn endless(taken: &Arc<AtomicUsize>) -> Body {
    let taken = taken.clone();
    let chunks = stream::repeat_with(move || {
        taken.fetch_add(CHUNK, Ordering::Relaxed);
        Ok(Frame::data(Bytes::from_static(&ZEROS)))
    });
    StreamBody::new(chunks).boxed_unsync()
}

fn brisk() -> Body {
    Full::new(Bytes::from_static(b"brisk")).boxed_unsync()
}

/// Answers what is asked for at `/large` without end, reads nothing of what is sent to `/deaf`, and sends all else back.
async fn serve(agent: Session, taken: Arc<AtomicUsize>) {
    while let Ok(callee) = agent.accept().await {
        let taken = taken.clone();
        tokio::spawn(callee.serve(async move |request: Request<TunnelBody>| match request.uri().path() {
            "/large" => Response::new(endless(&taken)),
            "/deaf" => {
                let _held = request;
                std::future::pending().await
            }
            _ => Response::new(Full::new(request.into_body().collect().await.unwrap().to_bytes()).boxed_unsync()),
        }));
    }
}

fn post(path: &str, body: Body) -> Request<Body> {
    Request::post(format!("https://relay.test{path}")).body(body).unwrap()
}

async fn until_taken(taken: &AtomicUsize) {
    let all = async {
        while taken.load(Ordering::Relaxed) < STALLED * WINDOW {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, all).await.expect("each should have its window, whatever the others hold");
}

async fn passes(relay: &Session) {
    for _ in 0..50 {
        let answer = timeout(LIMIT, relay.open().unwrap().send(post("/", brisk()))).await.unwrap().unwrap();
        let body = timeout(LIMIT, answer.response.into_body().collect()).await.unwrap().unwrap();
        assert_eq!(body.to_bytes(), "brisk");
    }
}

async fn ends(transport: Transport) -> (Ends, Session, Arc<AtomicUsize>) {
    let options = TransportOptions { stream_window: WINDOW as u32, ..TransportOptions::default() };
    let ends = Ends::with(transport, options).await;
    let (relay, agent) = ends.sessions();
    let taken = Arc::new(AtomicUsize::new(0));
    tokio::spawn(serve(agent, taken.clone()));
    // Over TCP the peer's credit comes with its first words.
    passes(&relay).await;
    (ends, relay, taken)
}

async fn answers_that_nobody_reads_stop_nobody_else(transport: Transport) {
    let (_ends, relay, taken) = ends(transport).await;
    let ask = async || Ok::<Answer, TunnelError>(relay.open()?.send(post("/large", brisk())).await.unwrap());
    let held = timeout(LIMIT, try_join_all((0..STALLED).map(|_| ask()))).await.unwrap().unwrap();
    until_taken(&taken).await;
    passes(&relay).await;
    // Nor have they got more than their budget, whatever lies in buffers on the way.
    let most = STALLED * (WINDOW + 8 * CHUNK) + (32 << 20);
    assert!(taken.load(Ordering::Relaxed) < most, "{} MiB were taken", taken.load(Ordering::Relaxed) >> 20);
    drop(held);
}

async fn uploads_that_nobody_reads_stop_nobody_else(transport: Transport) {
    let (_ends, relay, taken) = ends(transport).await;
    let begun: Vec<_> = (0..STALLED).map(|_| relay.open().unwrap().send(post("/deaf", endless(&taken)))).collect();
    let stalled = tokio::spawn(try_join_all(begun));
    until_taken(&taken).await;
    passes(&relay).await;
    stalled.abort();
}

#[tokio::test]
async fn over_quic_answers_that_nobody_reads_stop_nobody_else() {
    answers_that_nobody_reads_stop_nobody_else(Transport::Quic).await;
}

#[tokio::test]
async fn over_tcp_answers_that_nobody_reads_stop_nobody_else() {
    answers_that_nobody_reads_stop_nobody_else(Transport::Tcp).await;
}

#[tokio::test]
async fn over_quic_uploads_that_nobody_reads_stop_nobody_else() {
    uploads_that_nobody_reads_stop_nobody_else(Transport::Quic).await;
}

#[tokio::test]
async fn over_tcp_uploads_that_nobody_reads_stop_nobody_else() {
    uploads_that_nobody_reads_stop_nobody_else(Transport::Tcp).await;
}

#[tokio::test]
async fn a_relay_asks_for_no_more_than_its_window_has_room_for() {
    let pair = Pair::new().await;
    let (_, agent) = pair.sessions();
    let relay = Session::new(pair.relay.clone(), SessionLimits { streams: 2, ..SessionLimits::default() });
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    tokio::spawn(async move {
        while let Ok(callee) = agent.accept().await {
            let gate = gate.clone();
            tokio::spawn(callee.serve(async move |_| {
                gate.acquire().await.unwrap().forget();
                Response::new(brisk())
            }));
        }
    });
    let one = relay.open().unwrap();
    let two = tokio::spawn(relay.open().unwrap().send(post("/", brisk())));
    assert!(matches!(relay.open(), Err(TunnelError::NoCredit)));
    drop(one);
    let one = relay.open().unwrap();
    opened.add_permits(1);
    let body = timeout(LIMIT, two).await.unwrap().unwrap().unwrap().response.into_body();
    assert!(matches!(relay.open(), Err(TunnelError::NoCredit)), "its answer is still being read");
    timeout(LIMIT, body.collect()).await.unwrap().unwrap();
    assert!(relay.open().is_ok());
    drop(one);
}
