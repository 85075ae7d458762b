//! What is lost on the way is repaired by the parity beside it, where packets are lost at random; nowhere else is there any.

use std::time::Duration;

use adit_common::tunnel::{Session, SessionLimits, TunnelBody};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::timeout;

use crate::pair::Pair;
use crate::wire::{Terms, Wired};

/// A photograph, a hundred packets of it.
const PICTURE: usize = 150_000;

/// How long any of it may take.
const LIMIT: Duration = Duration::from_secs(60);

fn picture(which: usize) -> Bytes {
    (0..PICTURE).map(|at| ((at * 7919 + which * 31) >> 5) as u8).collect()
}

/// Sends back what comes.
async fn echo(session: Session) {
    while let Ok(callee) = session.accept().await {
        tokio::spawn(callee.serve(async |request: Request<TunnelBody>| {
            Response::new(Full::new(request.into_body().collect().await.unwrap().to_bytes()))
        }));
    }
}

/// Sends a picture there and back.
async fn pass(session: &Session, which: usize) {
    let picture = picture(which);
    let request = Request::post("https://relay.test/").body(Full::new(picture.clone())).unwrap();
    let answer = session.open().unwrap().send(request).await.unwrap();
    let back = answer.response.into_body().collect().await.unwrap().to_bytes();
    assert!(back == picture, "what came back is what was sent");
}

async fn wired(loses: Option<u32>, limits: SessionLimits) -> Wired {
    let wired = Wired::within(Terms { delay: Duration::from_millis(10), loses, ..Terms::default() }, limits).await;
    tokio::spawn(echo(wired.answers.clone()));
    wired
}

#[tokio::test]
async fn what_is_lost_at_random_is_repaired_in_both_directions() {
    let wired = wired(Some(100), SessionLimits::default()).await;
    let repaired = |session: &Session| session.parity().1 > 0;
    let passing = async {
        for which in 0.. {
            pass(&wired.asks, which).await;
            if repaired(&wired.asks) && repaired(&wired.answers) {
                return;
            }
        }
    };
    timeout(LIMIT, passing).await.expect("some of it should be repaired");
}

#[tokio::test]
async fn a_path_that_loses_nothing_carries_no_parity() {
    let wired = wired(None, SessionLimits::default()).await;
    for which in 0..30 {
        timeout(LIMIT, pass(&wired.asks, which)).await.unwrap();
    }
    for session in [&wired.asks, &wired.answers] {
        // A busy machine loses packets on its own.
        let lost = session.stats().path.lost_packets;
        assert!(session.parity().0 == 0 || lost > 0, "{:?}, {lost}", session.parity());
    }
}

#[tokio::test]
async fn an_end_that_wants_none_gets_none() {
    let wired = wired(Some(50), SessionLimits { parity: false, ..SessionLimits::default() }).await;
    for which in 0..30 {
        timeout(LIMIT, pass(&wired.asks, which)).await.unwrap();
    }
    assert_eq!((wired.asks.parity(), wired.answers.parity()), ((0, 0), (0, 0)));
}

#[tokio::test]
async fn datagrams_of_any_kind_harm_nobody() {
    let pair = Pair::new().await;
    let (asks, answers) = pair.sessions();
    tokio::spawn(echo(answers));
    for which in 0_usize..200 {
        // Parity of the first byte of streams that are far ahead; cut short, and with too much.
        let mut datagram = vec![40 + (which % 24) as u8, 0, 1, 0, 7];
        datagram.resize(5 - which % 5 + which % 7, which as u8);
        for connection in [&pair.relay, &pair.agent] {
            let _ = connection.send_datagram(datagram.clone().into());
        }
        if which % 20 == 0 {
            timeout(LIMIT, pass(&asks, which)).await.unwrap();
        }
    }
}
