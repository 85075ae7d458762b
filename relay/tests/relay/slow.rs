//! Clients that take their time stop nobody but themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adit_common::tunnel::TunnelError;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::agent::{Does, Reply, reply};
use crate::house::{Body, Client, House, INFER, SOON, Version, full, request};
use crate::streams::channel;

/// Of each kind; of the readers' answers so many unread bytes are more than any fixed window that a tunnel could have.
const SLOW: usize = 120;
const CHUNK: usize = 64 << 10;
const LARGE: usize = 1 << 20;

static ZEROS: [u8; CHUNK] = [0; CHUNK];

fn large(taken: Arc<AtomicUsize>) -> Reply {
    let chunks = futures_util::stream::iter(0..LARGE / CHUNK).map(move |_| {
        taken.fetch_add(CHUNK, Ordering::Relaxed);
        Ok::<_, TunnelError>(Frame::data(Bytes::from_static(&ZEROS)))
    });
    http::Response::new(BodyExt::boxed_unsync(StreamBody::new(chunks)))
}

fn upload(house: &House, body: Body) -> http::Request<Body> {
    request(Method::POST, INFER, Some(&house.key), body)
}

#[tokio::test]
async fn hundreds_of_slow_clients_stop_nobody_but_themselves() {
    let house = House::new();
    let taken = Arc::new(AtomicUsize::new(0));
    let (counter, begun) = (taken.clone(), Arc::new(AtomicUsize::new(0)));
    let heard = begun.clone();
    let does = Does::new(move |request| {
        let (taken, heard) = (counter.clone(), heard.clone());
        async move {
            heard.fetch_add(1, Ordering::Relaxed);
            match request.into_body().collect().await.unwrap().to_bytes() {
                body if body == "large" => large(taken),
                body => reply(body),
            }
        }
    });
    let _agent = house.agent("one", does).await;

    let readers = house.client(Version::Http2).await;
    let asks: Vec<_> = (0..SLOW)
        .map(|_| {
            let (request, mut client) = (upload(&house, full("large")), clone(&readers));
            async move { client.start(request).await.unwrap() }
        })
        .collect();
    let unread = tokio::time::timeout(SOON, join_all(asks)).await.expect("every reader should have its head");
    let writers = house.client(Version::Http2).await;
    let mut uploads = Vec::new();
    for _ in 0..SLOW {
        let (sender, body) = channel();
        let (request, mut client) = (upload(&house, body), clone(&writers));
        let answer = tokio::spawn(async move { client.ask(request).await });
        sender.send("s").await;
        uploads.push((sender, answer));
    }
    // By then each holds what it can.
    let held = async {
        while begun.load(Ordering::Relaxed) < 2 * SLOW || taken.load(Ordering::Relaxed) < SLOW * (512 << 10) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, held).await.expect("each should have its window");

    let mut brisk = house.client(Version::Http1).await;
    for _ in 0..50 {
        assert_eq!(brisk.ask(upload(&house, full("brisk"))).await.body, "brisk");
    }

    // The others' windows are the same connection's.
    let last: Vec<_> = unread.into_iter().take(3).collect();
    for answer in last {
        let body = tokio::time::timeout(SOON, answer.into_body().collect()).await.unwrap().unwrap().to_bytes();
        assert_eq!(body.len(), LARGE, "a slow reader gets all of it");
    }
    for (sender, answer) in uploads {
        sender.send("low").await;
        drop(sender);
        assert_eq!(answer.await.unwrap().body, "slow");
    }
    drop((readers, writers));
}

/// Another handle of a connection of HTTP/2.
fn clone(client: &Client) -> Client {
    match client {
        Client::Http2(client) => Client::Http2(client.clone()),
        Client::Http1(_) => panic!("a connection of HTTP/1.1 is nobody else's"),
    }
}
