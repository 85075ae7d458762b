//! What a path swallowed while it was down arrives soon after it is back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::wire::{Terms, Wired};

/// How long after the path is back the last of many uploads is answered that were begun while it was down. QUIC's own probes are four
/// seconds apart by then.
async fn comes_back_after(farewell: bool) -> Duration {
    let Wired { wire, asks, answers, .. } = &Wired::new(Terms::default()).await;
    let answers = answers.clone();
    tokio::spawn(async move {
        while let Ok(callee) = answers.accept().await {
            tokio::spawn(callee.serve(async |request: Request<_>| {
                let length = request.into_body().collect().await.unwrap().to_bytes().len();
                Response::new(Full::new(Bytes::from(length.to_string())))
            }));
        }
    });
    // More of them than the window has room for.
    let begun = Semaphore::new(0);
    let ask = || async {
        let request = Request::post("https://relay.test/").body(Full::new(Bytes::from(vec![7; 150_000]))).unwrap();
        let caller = asks.open().unwrap();
        begun.add_permits(1);
        let answer = caller.send(request).await.unwrap();
        assert_eq!(answer.response.into_body().collect().await.unwrap().to_bytes(), "150000");
    };
    timeout(Duration::from_secs(10), ask()).await.unwrap();
    begun.acquire().await.unwrap().forget();

    wire.cut(true);
    let uploads = async {
        join_all((0..40).map(|_| ask())).await;
        Instant::now()
    };
    let path = async {
        begun.acquire_many(40).await.unwrap().forget();
        if farewell {
            asks.goaway();
        }
        // So long that the probes are rare.
        sleep(Duration::from_secs(4)).await;
        wire.cut(false);
        Instant::now()
    };
    let (last, back) = timeout(Duration::from_secs(20), async { tokio::join!(uploads, path) }).await.unwrap();
    last - back
}

#[tokio::test]
async fn uploads_go_on_within_a_moment() {
    for farewell in [false, true] {
        let took = comes_back_after(farewell).await;
        println!("after a farewell: {farewell}, {took:?}");
        assert!(took < Duration::from_millis(1500), "after a farewell: {farewell}, {took:?}");
    }
}
