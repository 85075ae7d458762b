//! What is lost on the way is repaired by the parity beside it, where packets are lost at random; nowhere else is there any.

use std::time::Duration;

use adit_common::tunnel::{Session, TransportOptions, TunnelBody};
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

async fn wired(loses: Option<u32>, options: [TransportOptions; 2]) -> Wired {
    let wired = Wired::with(Terms { delay: Duration::from_millis(10), loses, ..Terms::default() }, options).await;
    tokio::spawn(echo(wired.answers.clone()));
    wired
}

#[tokio::test]
async fn what_is_lost_at_random_is_repaired_in_both_directions() {
    // Few streams: those whose end was repaired must be given back as well.
    let options = TransportOptions { streams: 16, ..TransportOptions::default() };
    let wired = wired(Some(100), [options.clone(), options]).await;
    let repaired = |session: &Session| session.parity().1 > 10_000;
    let passing = async {
        for which in 0.. {
            pass(&wired.asks, which).await;
            if which > 64 && repaired(&wired.asks) && repaired(&wired.answers) {
                return;
            }
        }
    };
    timeout(LIMIT, passing).await.expect("some of it should be repaired");
}

#[tokio::test]
async fn a_path_that_loses_nothing_carries_no_parity() {
    let wired = wired(None, Default::default()).await;
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
async fn an_end_that_wants_none_gets_and_sends_none() {
    let without = TransportOptions { parity: false, ..TransportOptions::default() };
    for options in [[TransportOptions::default(), without.clone()], [without.clone(), TransportOptions::default()]] {
        let wired = wired(Some(50), options).await;
        let noisy = |session: &Session| session.path().is_some_and(|path| path.noise > 0.005);
        let passing = async {
            let mut after = 0;
            for which in 0.. {
                pass(&wired.asks, which).await;
                after += usize::from(noisy(&wired.asks) && noisy(&wired.answers));
                if after > 20 {
                    return;
                }
            }
        };
        timeout(LIMIT, passing).await.expect("both ends should know that the path loses packets");
        assert_eq!((wired.asks.parity(), wired.answers.parity()), ((0, 0), (0, 0)));
    }
}

/// A datagram of parity as `docs/tunnel.md` has it: of a block of `length` bytes from a unit, with a flag if it is the last.
fn lie(quarter: u64, unit: u64, length: u32, is_last: bool) -> Vec<u8> {
    let (quarter, unit) = (quarter as u8 & 63, [0x40 | (unit >> 8) as u8, unit as u8]);
    let mut datagram = [&[quarter][..], &unit, &(0x8000_0000 | length).to_be_bytes(), &[u8::from(is_last)]].concat();
    datagram.resize(datagram.len() + length.min(716) as usize, 7);
    datagram
}

#[tokio::test]
async fn parity_that_lies_spoils_its_own_streams_alone() {
    let pair = Pair::new().await;
    let (asks, answers) = pair.sessions();
    tokio::spawn(echo(answers));
    for quarter in 0..40_u64 {
        // Of its ends and middle, of what overlaps, ends early, or lies at the edge of what is taken; and what is no parity at all.
        let lies = [
            lie(quarter, 0, 1, false),
            lie(quarter, 0, 14_320, quarter % 3 == 0),
            lie(quarter, 0, 42_960, false),
            lie(quarter, 5, 700, quarter % 5 == 0),
            lie(quarter, 82, 5_408, false),
            lie(quarter, 82, 6_000, false),
            vec![quarter as u8; quarter as usize],
        ];
        for (connection, datagram) in [&pair.relay, &pair.agent].into_iter().cycle().zip(lies.iter().cycle()).take(14) {
            let _ = connection.send_datagram(datagram.clone().into());
        }
        let request = Request::post("https://relay.test/").body(Full::new(picture(0))).unwrap();
        let exchange = async {
            let answer = asks.open().unwrap().send(request).await.ok()?;
            answer.response.into_body().collect().await.ok()
        };
        timeout(LIMIT, exchange).await.expect("it may fail, but not hang");
    }
    timeout(LIMIT, pass(&asks, 1)).await.unwrap();
}
