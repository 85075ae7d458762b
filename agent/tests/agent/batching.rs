//! Requests that share passes, requests that are more urgent than others, and networks that panic or hang.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use crate::house::{Answer, House, LIMIT, ask, start};

/// A stand-in with one worker: its `[stand_in]`, and the rest of its `[batching]`.
fn model(stand_in: &str, batching: &str) -> String {
    format!("architecture = \"stand_in\"\n[stand_in]\n{stand_in}\n[batching]\ninstances = 1\n{batching}\n")
}

fn image(model: &str) -> Request<Bytes> {
    let request = Request::post(format!("/v2/models/{model}/infer")).header("content-type", "image/jpeg");
    request.body(Bytes::from_static(b"image")).unwrap()
}

/// A request with a prepared input, which a stand-in with `faults` takes as a wish.
fn wish(model: &str, wish: f32, parameters: &str) -> Request<Bytes> {
    let text = format!(
        r#"{{"parameters":{{{parameters}}},"inputs":[{{"name":"input","datatype":"FP32","shape":[1,1,1,1],"data":[{wish}]}}]}}"#
    );
    Request::post(format!("/v2/models/{model}/infer")).body(text.into()).unwrap()
}

/// Waits until something is so.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, wait).await.expect("in time");
}

async fn health(house: &House) -> Answer {
    ask(house.agent.admin_address().unwrap(), Request::get("/healthz").body(Bytes::new()).unwrap()).await
}

#[tokio::test]
async fn who_meets_in_the_queue_shares_a_pass() {
    let slow = model("forward = \"300ms\"", "max_batch = 4");
    let house = House::new(&[("slow", &slow)], |_| {}).await;
    let first = start(house.address(), image("slow"));
    house.begun(1).await;
    let rest: Vec<_> = (0..5).map(|_| start(house.address(), image("slow"))).collect();
    house.load(|load| load.queued == 5).await;
    assert_eq!(house.metric("adit_agent_queued_images{model=\"slow\"}").await, 5);
    assert_eq!(first.await.unwrap().timing().note(), Some("cpu b=1"), "nobody waits for company");
    let mut notes = Vec::new();
    for answer in rest {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        notes.push(answer.timing().note().unwrap().to_owned());
    }
    notes.sort();
    assert_eq!(notes, ["cpu b=1", "cpu b=4", "cpu b=4", "cpu b=4", "cpu b=4"]);
    for (bucket, passes) in [("1", 2), ("2", 2), ("4", 3), ("+Inf", 3)] {
        let name = format!("adit_agent_batch_images_bucket{{model=\"slow\",le=\"{bucket}\"}}");
        assert_eq!(house.metric(&name).await, passes, "{name}");
    }
    assert_eq!(house.metric("adit_agent_batch_images_sum{model=\"slow\"}").await, 6);
    assert_eq!(house.metric("adit_agent_workers{model=\"slow\"}").await, 1);
}

#[tokio::test]
async fn who_wants_company_waits_for_it() {
    let patient = model("", "max_batch = 2\nmax_delay = \"10s\"");
    let house = House::new(&[("patient", &patient)], |_| {}).await;
    let one = start(house.address(), image("patient"));
    house.load(|load| load.queued == 1).await;
    let two = ask(house.address(), image("patient")).await;
    assert_eq!((two.timing().note(), one.await.unwrap().timing().note()), (Some("cpu b=2"), Some("cpu b=2")));
}

#[tokio::test]
async fn the_more_urgent_goes_first_and_takes_the_last_place() {
    let slow = model("forward = \"200ms\"", "max_batch = 1");
    let house = House::new(&[("slow", &slow)], |config| config.serving.queue = 2).await;
    let first = start(house.address(), image("slow"));
    house.begun(1).await;
    let default = start(house.address(), wish("slow", 0.0, ""));
    house.load(|load| load.queued == 1).await;
    let lower = start(house.address(), wish("slow", 0.0, "\"priority\":7"));
    house.load(|load| load.queued == 2).await;
    assert_eq!(ask(house.address(), wish("slow", 0.0, "\"priority\":7")).await.status, 503, "not more urgent than any");
    let urgent = start(house.address(), wish("slow", 0.0, "\"priority\":1"));
    let displaced = lower.await.unwrap();
    assert_eq!(displaced.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(displaced.error().contains("overloaded"), "{displaced:?}");
    let urgent = tokio::spawn(async move { (urgent.await.unwrap().status, Instant::now()) });
    let default = (default.await.unwrap().status, Instant::now());
    let urgent = urgent.await.unwrap();
    assert_eq!((first.await.unwrap().status, urgent.0, default.0), (StatusCode::OK, StatusCode::OK, StatusCode::OK));
    assert!(urgent.1 < default.1, "it came later and was run before");
    assert_eq!(house.metric("adit_agent_displaced_total{model=\"slow\"}").await, 1);
    assert_eq!(house.metric("adit_agent_refused_full_total{model=\"slow\"}").await, 1);
    let wrong = ask(house.address(), wish("slow", 0.0, "\"priority\":\"high\"")).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_cannot_be_in_time_is_refused_at_once() {
    let slow = model("forward = \"1s\"", "max_batch = 1");
    let house = House::new(&[("slow", &slow)], |_| {}).await;
    // What a pass takes has to be known first.
    assert_eq!(ask(house.address(), image("slow")).await.status, StatusCode::OK);
    let running = start(house.address(), image("slow"));
    house.begun(2).await;
    let asked = Instant::now();
    let late = ask(house.address(), wish("slow", 0.0, "\"timeout\":900000")).await;
    assert!(asked.elapsed() < Duration::from_millis(900), "before its time is over");
    assert_eq!(late.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(late.error().contains("too busy to answer in time: it would take"), "{late:?}");
    let enough = ask(house.address(), wish("slow", 0.0, "\"timeout\":20000000")).await;
    assert_eq!((enough.status, running.await.unwrap().status), (StatusCode::OK, StatusCode::OK));
    assert_eq!(house.metric("adit_agent_refused_late_total{model=\"slow\"}").await, 1);
    assert_eq!(house.agent.metrics().outcomes("slow", "too_late"), 1);
    assert_eq!(house.metric("adit_agent_forwards_begun_total").await, 3);
}

#[tokio::test]
async fn who_makes_the_network_panic_harms_only_itself() {
    let moody = model("forward = \"200ms\"\nfaults = true", "max_batch = 4");
    let house = House::new(&[("moody", &moody)], |_| {}).await;
    let first = start(house.address(), image("moody"));
    house.begun(1).await;
    let good: Vec<_> = (0..2).map(|_| start(house.address(), image("moody"))).collect();
    let bad = start(house.address(), wish("moody", -1.0, ""));
    house.load(|load| load.queued == 3).await;
    let bad = bad.await.unwrap();
    assert_eq!(bad.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(bad.error(), "model `moody` failed: its network panicked");
    for answer in good.into_iter().chain([first]) {
        assert_eq!(answer.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(house.metric("adit_agent_workers_replaced_total{model=\"moody\"}").await, 0);
    assert_eq!(health(&house).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_hangs_takes_down_its_model_only() {
    let moody = model("faults = true", "max_batch = 4");
    let change = |config: &mut adit_agent::config::Config| config.serving.stuck_after = Duration::from_millis(200);
    let house = House::new(&[("moody", &moody), ("sound", &model("", ""))], change).await;
    let replaced = "adit_agent_workers_replaced_total{model=\"moody\"}";

    // Who waits for it is answered, and the next one finds a new worker.
    let hung = ask(house.address(), wish("moody", 10.0, "")).await;
    assert_eq!(hung.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(hung.error(), "model `moody` failed: its network hung, and was given up");
    assert_eq!(ask(house.address(), image("moody")).await.status, StatusCode::OK);
    assert_eq!(house.metric(replaced).await, 1);
    assert!(house.agent.is_alive());

    // Threads that hang cannot be ended, so there may be only so many.
    for _ in 0..2 {
        assert_eq!(ask(house.address(), wish("moody", 10.0, "")).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    until(async || house.get("/v2/models/moody/ready").await.status == StatusCode::BAD_REQUEST).await;
    let ready = house.get("/v2/models/moody/ready").await.json();
    assert_eq!(ready["ready"], json!(false));
    assert!(ready["error"].as_str().unwrap().contains("its network hangs"), "{ready}");
    let refused = ask(house.address(), image("moody")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.error().contains("its network hangs"), "{refused:?}");
    let index = house.post("/v2/repository/index", "").await.json();
    let entry = index.as_array().unwrap().iter().find(|entry| entry["name"] == "moody").unwrap();
    assert_eq!(entry["state"], "UNAVAILABLE");
    assert_eq!(house.metric("adit_agent_workers{model=\"moody\"}").await, 0);

    // The agent lives, and its other models answer.
    assert_eq!(ask(house.address(), image("sound")).await.status, StatusCode::OK);
    assert_eq!(house.get("/v2/health/ready").await.status, StatusCode::OK);
    let health = health(&house).await;
    assert_eq!((health.status, &health.json()["models_given_up"]), (StatusCode::OK, &json!(["moody"])));
    assert!(house.agent.is_alive());

    // The first thread comes back, and the model with it.
    until(async || house.get("/v2/models/moody/ready").await.status == StatusCode::OK).await;
    assert_eq!(ask(house.address(), image("moody")).await.status, StatusCode::OK);
    assert_eq!(house.metric(replaced).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_only_model_is_given_up_is_not_well() {
    let moody = model("faults = true", "");
    let house = House::new(&[("moody", &moody)], |config| {
        config.serving.embedded = Some(false);
        config.serving.stuck_after = Duration::from_millis(100);
    })
    .await;
    assert!(house.agent.is_alive());
    for _ in 0..3 {
        assert_eq!(ask(house.address(), wish("moody", 5.0, "")).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    until(async || !house.agent.is_alive()).await;
    assert_eq!(health(&house).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(house.get("/v2/health/ready").await.status, StatusCode::BAD_REQUEST);
    until(async || house.agent.is_alive()).await;
}
