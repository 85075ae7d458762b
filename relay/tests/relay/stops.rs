//! The relay stops without failing what it has accepted, and starts where it was.

use std::time::Duration;

use http::Method;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::agent::{Does, reply};
use crate::house::{House, INFER, SOON, Version, full, get_plain, request};

#[tokio::test]
async fn a_drain_answers_what_was_accepted_and_tells_the_agents_first() {
    let house = House::new();
    let (started, mut starts) = mpsc::channel(8);
    let (release, _) = tokio::sync::broadcast::channel::<()>(1);
    let gate = release.clone();
    let does = Does::new(move |_| {
        let (started, mut gate) = (started.clone(), gate.subscribe());
        async move {
            started.send(()).await.unwrap();
            let _ = gate.recv().await;
            reply("answer")
        }
    });
    let agent = house.agent("one", does).await;
    let (addresses, key) = (house.relay.addresses().clone(), house.key.clone());
    let mut clients = [house.client(Version::Http1).await, house.client(Version::Http2).await];
    let mut idle = house.client(Version::Http1).await;
    let asks = clients.iter_mut().map(|client| client.ask(request(Method::POST, INFER, Some(&key), full("x"))));
    let asks = futures_util::future::join_all(asks);
    let House { relay, .. } = house;
    let stop = async {
        starts.recv().await.unwrap();
        starts.recv().await.unwrap();
        let mut drain = std::pin::pin!(relay.drain());
        tokio::select! {
            _ = &mut drain => panic!("requests are in flight"),
            () = async {
                tokio::time::timeout(SOON, agent.session.peer_going_away()).await.expect("GOAWAY comes at once");
                let (status, _) = get_plain(addresses.admin, "/readyz").await;
                assert_eq!(status.as_u16(), 503);
                let refused = async {
                    while TcpStream::connect(addresses.https).await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                tokio::time::timeout(SOON, refused).await.expect("nobody else is let in");
                // What a client sends on a connection that it has is accepted yet, and told to be the last.
                let late = idle.ask(request(Method::POST, INFER, Some(&key), full("x")));
                let (late, ()) = tokio::join!(late, async {
                    starts.recv().await.unwrap();
                    release.send(()).unwrap();
                });
                assert_eq!((late.status, late.header("connection")), (200, Some("close")));
            } => {}
        }
        assert!(drain.await, "within the drain time");
    };
    let (answers, ()) = tokio::join!(asks, stop);
    for answer in answers {
        assert_eq!((answer.status, &answer.body[..]), (200, &b"answer"[..]));
    }
    assert!(agent.closed_in_order().await);
}

#[tokio::test]
async fn a_drain_ends_though_a_request_does_not() {
    let house = House::with(|config| config.drain = Duration::from_millis(300));
    let (started, mut starts) = mpsc::channel(8);
    let does = Does::new(move |_| {
        let started = started.clone();
        async move {
            started.send(()).await.unwrap();
            std::future::pending().await
        }
    });
    let agent = house.agent("one", does).await;
    let mut client = house.client(Version::Http2).await;
    let key = house.key.clone();
    let House { relay, .. } = house;
    let ask = client.start(request(Method::POST, INFER, Some(&key), full("x")));
    let (answer, in_time) = tokio::join!(ask, async {
        starts.recv().await.unwrap();
        tokio::time::timeout(SOON, relay.drain()).await.expect("the drain time bounds it")
    });
    assert!(answer.is_err() && !in_time);
    assert!(agent.closed_in_order().await, "the agent is not to blame");
}
