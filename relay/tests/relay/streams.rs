//! Bodies pass as they come, both ways, and stop when nobody wants them.

use std::time::Duration;

use adit_common::tunnel::TunnelError;
use bytes::Bytes;
use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;

use crate::agent::Does;
use crate::house::{Body, House, INFER, SOON, Version, full, request};

/// A body that is sent piece by piece.
pub(crate) struct Sender(mpsc::Sender<Bytes>);

impl Sender {
    pub(crate) async fn send(&self, text: &'static str) {
        self.0.send(Bytes::from_static(text.as_bytes())).await.unwrap();
    }
}

pub(crate) fn channel() -> (Sender, Body) {
    let (sender, inbox) = mpsc::channel::<Bytes>(1);
    let pieces = futures_util::stream::unfold(inbox, |mut inbox| async move {
        let piece = inbox.recv().await?;
        Some((Ok::<_, TunnelError>(Frame::data(piece)), inbox))
    });
    (Sender(sender), BodyExt::boxed_unsync(StreamBody::new(pieces)))
}

#[tokio::test]
async fn each_piece_comes_back_before_the_next_one_is_sent() {
    let house = House::new();
    let _agent = house.agent("one", Does::echoes()).await;
    for version in [Version::Http1, Version::Http2] {
        let (sender, body) = channel();
        let mut client = house.client(version).await;
        sender.send("first").await;
        let answer = client.start(request(Method::POST, INFER, Some(&house.key), body)).await.unwrap();
        let mut answer = answer.into_body();
        for piece in ["first", "second", "third"] {
            if piece != "first" {
                sender.send(piece).await;
            }
            let frame = tokio::time::timeout(SOON, answer.frame()).await.expect("nothing is held back");
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), piece);
        }
        drop(sender);
        assert!(answer.collect().await.unwrap().to_bytes().is_empty());
    }
}

#[tokio::test]
async fn twenty_megabytes_come_back_as_they_went_many_at_a_time() {
    let house = House::new();
    let _agent = house.agent("one", Does::echoes()).await;
    let body: Bytes = (0..20_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut large = house.client(Version::Http2).await;
    let mut other = house.client(Version::Http1).await;
    let key = Some(house.key.as_str());
    let (answer, ()) = tokio::join!(large.ask(request(Method::POST, INFER, key, full(body.clone()))), async {
        for _ in 0..20 {
            let answer = other.ask(request(Method::POST, INFER, key, full("small"))).await;
            assert_eq!(&answer.body[..], b"small");
        }
    });
    assert!(answer.status == 200 && answer.body == body);
    let (sent, received) =
        (house.metric("adit_relay_request_bytes_total").await, house.metric("adit_relay_answer_bytes_total").await);
    assert_eq!((sent, received), (20_000_100.0, 20_000_100.0));
}

#[tokio::test]
async fn two_hundred_requests_over_eight_connections_are_each_answered_right() {
    let house = House::new();
    let _agents = [house.agent("one", Does::echoes()).await, house.agent("two", Does::echoes()).await];
    let ask = async |number: usize| {
        let mut client = house.client(if number.is_multiple_of(2) { Version::Http1 } else { Version::Http2 }).await;
        for round in 0..25 {
            let text = format!("{number}-{round}");
            let answer = client.ask(request(Method::POST, INFER, Some(&house.key), full(text.clone()))).await;
            assert_eq!((answer.status, &answer.body[..]), (200, text.as_bytes()));
        }
    };
    futures_util::future::join_all((0..8).map(ask)).await;
    house.until(|fleet| crate::house::entries(fleet).all(|entry| entry["in_flight"] == 0)).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_stops_the_agent_and_frees_its_place() {
    let house = House::with(|config| config.proxy.max_requests = 1);
    for version in [Version::Http1, Version::Http2] {
        let (ended, mut ends) = mpsc::channel::<()>(1);
        let (started, mut starts) = mpsc::channel(1);
        let does = Does::new(move |_| {
            let (started, ended) = (started.clone(), ended.clone());
            async move {
                let _ended = ended;
                started.send(()).await.unwrap();
                std::future::pending().await
            }
        });
        let agent = house.agent("one", does).await;
        let mut client = house.client(version).await;
        {
            let ask = client.start(request(Method::POST, INFER, Some(&house.key), full("x")));
            let mut ask = std::pin::pin!(ask);
            tokio::select! {
                _ = ask.as_mut() => panic!("nobody answers"),
                _ = starts.recv() => {}
            }
            let full_house = house.infer().await;
            assert_eq!((full_house.status, full_house.header("retry-after")), (503, Some("1")));
        }
        drop(client);
        // Only the agent's own copy of the sender is left once the request's work was dropped: close it, and the channel ends.
        house.until(|fleet| fleet["agents"][0]["in_flight"] == 0).await;
        drop(agent);
        assert!(tokio::time::timeout(SOON, ends.recv()).await.expect("the work was dropped").is_none());
        house.until(|fleet| crate::house::entries(fleet).count() == 0).await;
    }
    assert_eq!(house.metric("adit_relay_cancelled_total").await, 2.0);
    assert_eq!(house.metric("adit_relay_in_flight").await, 0.0);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    let house = House::new();
    let does = Does::new(|_| async {
        let pieces = futures_util::stream::unfold(0, |count| async move {
            if count == 1 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                return Some((Err(TunnelError::NoCredit), 2));
            }
            Some((Ok(Frame::data(Bytes::from_static(b"half"))), count + 1))
        });
        http::Response::new(BodyExt::boxed_unsync(StreamBody::new(pieces)))
    });
    let _agent = house.agent("one", does).await;
    for version in [Version::Http1, Version::Http2] {
        let mut client = house.client(version).await;
        let answer = client.start(request(Method::POST, INFER, Some(&house.key), full("x"))).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        assert!(answer.into_body().collect().await.is_err(), "{version:?}");
    }
    assert_eq!(house.metric("adit_relay_broken_total").await, 2.0);
}
