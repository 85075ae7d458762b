//! Callers that leave, deadlines that pass, and queues that are full.

use std::time::{Duration, Instant};

use adit_agent::config::Config;
use bytes::Bytes;
use http::{Request, StatusCode};

use crate::house::{House, LIMIT, ask, stand_in, start};

/// Longer than any test: whoever waits for it waits for ever.
const ENDLESS: &str = "1h";

fn request(model: &str) -> http::request::Builder {
    Request::post(format!("/v2/models/{model}/infer")).header("content-type", "image/jpeg")
}

fn image(model: &str) -> Request<Bytes> {
    request(model).body(Bytes::from_static(b"image")).unwrap()
}

async fn house() -> House {
    let models = [("endless", &*stand_in("0ms", "0ms", ENDLESS)), ("fast", &stand_in("0ms", "0ms", "0ms"))];
    House::new(&models, |config: &mut Config| config.serving.queue = 1).await
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_the_others_go_on() {
    let house = house().await;
    let running = start(house.address(), image("endless"));
    house.begun(1).await;
    let waiting = start(house.address(), image("endless"));
    house.load(|load| load.in_flight == 2 && load.queued == 1).await;
    let refused = ask(house.address(), image("endless")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.error().contains("model `endless` is overloaded"), "{}", refused.error());
    assert_eq!(ask(house.address(), image("fast")).await.status, StatusCode::OK);
    assert_eq!(house.metric("adit_agent_overloaded_total").await, 1);
    running.abort();
    waiting.abort();
    house.load(|load| load.in_flight == 0).await;
}

#[tokio::test]
async fn a_caller_that_leaves_frees_its_place_before_and_while_it_is_run() {
    let house = house().await;
    let first = start(house.address(), image("endless"));
    house.begun(1).await;
    let second = start(house.address(), image("endless"));
    house.load(|load| load.in_flight == 2 && load.queued == 1).await;
    second.abort();
    house.load(|load| load.in_flight == 1 && load.queued == 0).await;
    assert_eq!(house.metric("adit_agent_cancelled_queued_total").await, 1);
    assert_eq!(house.metric("adit_agent_cancelled_running_total").await, 0);

    // Its place is free; who takes it begins to run as soon as the first one leaves.
    let third = start(house.address(), image("endless"));
    house.load(|load| load.in_flight == 2 && load.queued == 1).await;
    first.abort();
    house.begun(2).await;
    assert_eq!(house.metric("adit_agent_cancelled_running_total").await, 1);
    assert_eq!(house.metric("adit_agent_forwards_total").await, 0);
    assert_eq!(house.agent.metrics().outcomes("endless", "cancelled"), 2);
    third.abort();
    house.load(|load| load.in_flight == 0).await;
}

#[tokio::test]
async fn a_deadline_is_kept_queued_or_running() {
    let house = house().await;
    let begun = Instant::now();
    let budget = |model: &str, micros: &str| request(model).header("adit-budget", micros).body(Bytes::new()).unwrap();
    let late = ask(house.address(), budget("endless", "50000")).await;
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(late.error().contains("deadline"), "{}", late.error());
    assert!(begun.elapsed() < LIMIT / 2);
    // What had expired on arrival is not run at all.
    let expired = ask(house.address(), budget("fast", "0")).await;
    assert_eq!(expired.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(house.metric("adit_agent_forwards_total").await, 0);
    assert_eq!(house.metric("adit_agent_expired_total").await, 2);
    assert_eq!(house.metric("adit_agent_cancelled_running_total").await, 0);

    // The request's own time-out is one too; it is in microseconds.
    let own =
        r#"{"parameters":{"timeout":50000},"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"data":["x"]}]}"#;
    assert_eq!(house.post("/v2/models/endless/infer", own).await.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(ask(house.address(), budget("fast", "30000000")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_draining_agent_answers_what_it_has() {
    let slow = stand_in("0ms", "0ms", "300ms");
    let house = House::new(&[("slow", &slow)], |_| {}).await;
    let address = house.address();
    let asked = start(address, image("slow"));
    house.load(|load| load.in_flight == 1).await;
    let House { agent, models: _models } = house;
    assert!(agent.drain().await, "in time");
    assert_eq!(asked.await.unwrap().status, StatusCode::OK);
    let refused = tokio::net::TcpStream::connect(address).await;
    assert!(refused.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn the_drain_timeout_cuts_off_what_will_not_end() {
    let house = House::new(&[("endless", &stand_in("0ms", "0ms", ENDLESS))], |config| {
        config.drain_timeout = Duration::from_millis(100);
    })
    .await;
    let asked = start(house.address(), image("endless"));
    house.load(|load| load.in_flight == 1).await;
    let House { agent, models: _models } = house;
    assert!(!agent.drain().await, "not in time");
    assert!(asked.await.is_err(), "the connection was closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_two_hundred_is_answered() {
    let house = House::new(&[("slower", &stand_in("0ms", "0ms", "3ms"))], |_| {}).await;
    for model in ["digits", "slower"] {
        let image = Bytes::from(crate::house::one());
        let burst: Vec<_> =
            (0..200).map(|_| start(house.address(), request(model).body(image.clone()).unwrap())).collect();
        let mut refused = 0;
        for answer in burst {
            refused += usize::from(answer.await.unwrap().status != StatusCode::OK);
        }
        assert_eq!(refused, 0, "of 200 to {model}");
    }
}
