//! What a path swallowed while it was down arrives soon after it is back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adit_common::tunnel::{Session, SessionLimits, TransportOptions};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::pair::{Identity, dial, listen};

/// A path of datagrams between an agent and a relay, which can be cut.
struct Wire {
    address: SocketAddr,
    is_cut: AtomicBool,
}

impl Wire {
    async fn to(relay: SocketAddr) -> Arc<Self> {
        let near = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let far = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        far.connect(relay).await.unwrap();
        let wire = Arc::new(Self { address: near.local_addr().unwrap(), is_cut: AtomicBool::new(false) });
        let carrier = Arc::clone(&wire);
        tokio::spawn(async move {
            let (mut there, mut back, mut agent) = (vec![0; 1 << 16], vec![0; 1 << 16], None);
            loop {
                // A socket may say that what it sent before was refused; nobody is to be told.
                tokio::select! {
                    Ok((length, from)) = near.recv_from(&mut there) => {
                        agent = Some(from);
                        if !carrier.is_cut() {
                            let _ = far.send(&there[..length]).await;
                        }
                    }
                    Ok(length) = far.recv(&mut back) => if let (Some(agent), false) = (agent, carrier.is_cut()) {
                        let _ = near.send_to(&back[..length], agent).await;
                    },
                    else => {}
                }
            }
        });
        wire
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }
}

/// How long after the path is back the last of many uploads is answered that were begun while it was down. QUIC's own probes are four
/// seconds apart by then.
async fn comes_back_after(farewell: bool) -> Duration {
    let (identity, options) = (Identity::new(), TransportOptions::default());
    let relay = listen(&identity, SocketAddr::from(([127, 0, 0, 1], 0)), &[7; 64], &options);
    let wire = Wire::to(relay.local_addr().unwrap()).await;
    let (accepted, (endpoint, dialled)) =
        tokio::join!(async { relay.accept().await.unwrap().await.unwrap() }, dial(&identity, wire.address, &options));
    let [asks, answers] = [accepted, dialled].map(|connection| Session::new(connection, SessionLimits::default()));
    for session in [asks.clone(), answers.clone()] {
        tokio::spawn(async move { session.run().await });
    }
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
    drop((endpoint, relay));
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
