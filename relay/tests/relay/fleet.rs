//! Agents come, drain, are replaced and die.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use adit_common::manifest::ModelState;
use adit_common::tunnel::TransportOptions;
use http::Method;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use crate::agent::{Agent, Does, dial, manifest, reply};
use crate::house::{House, INFER, SOON, Version, entries, folder_of, full, request};

/// Answers when it is told to, and counts what waits.
fn gated(text: &'static str) -> (Does, Arc<Notify>, Arc<AtomicU32>) {
    let (gate, waiting) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
    let (inner, count) = (gate.clone(), waiting.clone());
    let does = Does::new(move |_| {
        let (gate, count) = (inner.clone(), count.clone());
        async move {
            let opened = gate.notified();
            count.fetch_add(1, Ordering::SeqCst);
            opened.await;
            reply(text)
        }
    });
    (does, gate, waiting)
}

async fn until(waiting: &AtomicU32, count: u32) {
    let wait = async {
        while waiting.load(Ordering::SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("the requests should have arrived");
}

#[tokio::test]
async fn a_draining_agent_finishes_what_it_has_and_is_then_let_go() {
    let house = House::new();
    let (does, gate, waiting) = gated("old");
    let mut first = house.agent("one", does).await;
    let mut client = house.client(Version::Http2).await;
    let ask = client.ask(request(Method::POST, INFER, Some(&house.key), full("x")));
    let (answer, second) = tokio::join!(ask, async {
        until(&waiting, 1).await;
        let second = house.agent("two", Does::says("new")).await;
        first.say(|manifest| manifest.draining = true).await;
        house.until(|fleet| entries(fleet).any(|entry| entry["agent"] == "one" && entry["draining"] == true)).await;
        for _ in 0..20 {
            assert_eq!(&house.infer().await.body[..], b"new");
        }
        assert!(!first.session.is_closed(), "it has a request yet");
        gate.notify_one();
        second
    });
    assert_eq!((answer.status, &answer.body[..]), (200, &b"old"[..]));
    assert!(first.closed_in_order().await);
    assert!(!second.session.is_closed());
}

#[tokio::test]
async fn a_request_waits_for_agents_after_the_relays_start_and_after_a_loss() {
    let house = House::with(|config| config.proxy.agent_wait = SOON);
    let (answer, first) = tokio::join!(house.infer(), house.agent("one", Does::says("first")));
    assert_eq!((answer.status, &answer.body[..]), (200, &b"first"[..]));
    drop(first);
    house.until(|fleet| entries(fleet).count() == 0).await;
    let (answer, _second) = tokio::join!(house.infer(), house.agent("one", Does::says("second")));
    assert_eq!((answer.status, &answer.body[..]), (200, &b"second"[..]));
}

#[tokio::test]
async fn who_waits_for_agents_in_vain_is_told_after_a_moment() {
    let wait = Duration::from_millis(300);
    let house = House::with(|config| config.proxy.agent_wait = wait);
    let asked = Instant::now();
    assert_eq!(house.infer().await.error(), "no agent is connected");
    assert!(asked.elapsed() >= wait / 2);
}

#[tokio::test]
async fn the_newest_session_of_an_agent_takes_over_and_the_old_one_ends_in_order() {
    let house = House::new();
    let (does, gate, waiting) = gated("old");
    let first = house.agent("one", does).await;
    let mut client = house.client(Version::Http2).await;
    let ask = client.ask(request(Method::POST, INFER, Some(&house.key), full("x")));
    let (answer, _second) = tokio::join!(ask, async {
        until(&waiting, 1).await;
        let second = house.agent("one", Does::says("new")).await;
        for _ in 0..20 {
            assert_eq!(&house.infer().await.body[..], b"new");
        }
        gate.notify_one();
        second
    });
    assert_eq!((answer.status, &answer.body[..]), (200, &b"old"[..]));
    assert!(first.closed_in_order().await);
    assert_eq!(&house.infer().await.body[..], b"new", "the end of the old one took nothing away");
}

#[tokio::test]
async fn models_are_routed_as_they_come_and_go() {
    let house = House::new();
    let mut agent = house.agent("one", Does::says("answer")).await;
    for state in [ModelState::Loading, ModelState::Ready, ModelState::Unavailable, ModelState::Ready] {
        agent.say(|manifest| manifest.models[0].state = state).await;
        let text = serde_json::to_value(state).unwrap();
        house.until(|fleet| fleet["agents"][0]["models"][0]["state"] == text).await;
        assert_eq!(house.infer().await.status, if state == ModelState::Ready { 200 } else { 503 }, "{state:?}");
    }
    agent.say(|manifest| manifest.models.clear()).await;
    house.until(|fleet| fleet["agents"][0]["models"].as_array().unwrap().is_empty()).await;
    assert_eq!(house.infer().await.status, 404);
}

#[tokio::test]
async fn an_agent_must_be_who_its_certificate_says() {
    let house = House::new();
    let dialled = dial(&folder_of("one"), house.relay.addresses().tunnel, &TransportOptions::default()).await;
    let liar = Agent::new(dialled, manifest("two", &[("digits", ModelState::Ready)]), Does::says("mine"));
    assert!(!liar.closed_in_order().await);
    assert_eq!(house.infer().await.status, 503);
    assert_eq!(house.metric("adit_relay_sessions_lost_total").await, 1.0);
}

#[tokio::test]
async fn an_agent_without_stream_credit_is_passed_over() {
    let house = House::new();
    let (does, gate, waiting) = gated("slow");
    let narrow = TransportOptions { streams: 2, ..TransportOptions::default() };
    // One of its two streams is the manifest's.
    let _first = house.agent_via("one", house.relay.addresses().tunnel, &narrow, does).await;
    let mut client = house.client(Version::Http2).await;
    let ask = client.ask(request(Method::POST, INFER, Some(&house.key), full("x")));
    let (answer, _second) = tokio::join!(ask, async {
        until(&waiting, 1).await;
        let refused = house.infer().await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        assert!(refused.error().contains("limit"));
        let second = house.agent("two", Does::says("quick")).await;
        for _ in 0..10 {
            assert_eq!(&house.infer().await.body[..], b"quick");
        }
        gate.notify_one();
        second
    });
    assert_eq!(answer.status, 200);
    assert!(house.metric("adit_relay_no_credit_total").await >= 1.0);
}

#[tokio::test]
async fn an_agent_that_fails_is_left_out_and_one_that_recovers_is_taken_back() {
    let house = House::new();
    let broken = Arc::new(AtomicBool::new(true));
    let asked = Arc::new(AtomicU32::new(0));
    let (is_broken, count) = (broken.clone(), asked.clone());
    let does = Does::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let mut answer = reply("one");
        if is_broken.load(Ordering::SeqCst) {
            *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        }
        async move { answer }
    });
    let _first = house.agent("one", does).await;
    for _ in 0..5 {
        assert_eq!(house.infer().await.status, 500, "an agent's own error is passed on as it is");
    }
    let _second = house.agent("two", Does::says("two")).await;
    let before = asked.load(Ordering::SeqCst);
    let answers = futures_util::future::join_all((0..20).map(|_| house.infer())).await;
    assert!(answers.iter().all(|answer| &answer.body[..] == b"two"));
    assert_eq!(asked.load(Ordering::SeqCst), before, "it is left out");
    broken.store(false, Ordering::SeqCst);
    let recovered = async {
        while asked.load(Ordering::SeqCst) < before + 3 {
            let asks = (0..8).map(|_| house.infer());
            assert!(futures_util::future::join_all(asks).await.iter().all(|answer| answer.status == 200));
        }
    };
    tokio::time::timeout(SOON, recovered).await.expect("it should have been taken back");
    assert_eq!(house.metric("adit_relay_ejections_total").await, 1.0);
}

/// Carries datagrams between an agent and the relay until it is cut.
async fn cable(relay: SocketAddr) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = near.local_addr().unwrap();
    let carry = tokio::spawn(async move {
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (mut out, mut back) = (vec![0; 65_536], vec![0; 65_536]);
        let mut agent = None;
        loop {
            tokio::select! {
                Ok((length, from)) = near.recv_from(&mut out) => {
                    agent = Some(from);
                    far.send_to(&out[..length], relay).await.unwrap();
                }
                Ok((length, _)) = far.recv_from(&mut back) => {
                    near.send_to(&back[..length], agent.unwrap()).await.unwrap();
                }
            }
        }
    });
    (address, carry)
}

#[tokio::test]
async fn a_dead_agent_is_noticed_within_the_idle_time_whatever_is_sent_to_it() {
    let idle = Duration::from_secs(1);
    let house = House::with(|config| config.tunnel.idle_timeout = idle);
    let (at, carry) = cable(house.relay.addresses().tunnel).await;
    let options = TransportOptions {
        keep_alive: Duration::from_millis(100),
        segmentation_offload: false,
        ..TransportOptions::default()
    };
    let dialled = dial(&folder_of("one"), at, &options).await;
    let _agent = Agent::new(dialled, manifest("one", &[("digits", ModelState::Ready)]), Does::says("answer"));
    house.until(|fleet| entries(fleet).count() == 1).await;
    assert_eq!(house.infer().await.status, 200);
    carry.abort();
    let cut = Instant::now();
    // Sent late into the silence: QUIC's own timer would begin anew with it.
    tokio::time::sleep(idle * 8 / 10).await;
    let answer = house.infer().await;
    let took = cut.elapsed();
    assert_eq!(answer.status, 502);
    assert!(took < idle + Duration::from_millis(700), "{took:?}");
    assert_eq!(house.infer().await.status, 503);
}
