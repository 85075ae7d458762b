//! What callers are told: statuses, shapes, names and times.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit_common::manifest::{ModelState, Scope};
use adit_common::timing::{Stage, Timing};
use http::Method;

use crate::agent::{Does, reply};
use crate::house::{House, INFER, SOON, Version, full, get_plain, request, with};

#[tokio::test]
async fn every_refusal_is_json_with_its_status_on_both_protocols() {
    let house = House::new();
    let mut agent = house.agent("one", Does::says("answer")).await;
    let loading = adit_common::manifest::Model {
        name: "slow".parse().unwrap(),
        version: "1".parse().unwrap(),
        state: ModelState::Loading,
        reason: String::new(),
        labels: Vec::new(),
    };
    agent.say(|manifest| manifest.models.push(loading)).await;
    house.until(|fleet| fleet["agents"][0]["models"].as_array().unwrap().len() == 2).await;
    let key = Some(house.key.as_str());
    for version in [Version::Http1, Version::Http2] {
        for (method, path, key, status, says) in [
            (Method::POST, INFER, None, 401, "API key is required"),
            (Method::POST, INFER, Some("adit_shop_wrong"), 401, "unknown"),
            (Method::GET, "/nowhere", None, 401, "API key is required"),
            (Method::POST, "/v2/repository/models/digits/load", key, 403, "control"),
            (Method::GET, "/nowhere", key, 404, "/nowhere"),
            (Method::GET, "/.adit/manifest", key, 404, "/.adit/manifest"),
            (Method::POST, "/v2/models/dogs/infer", key, 404, "dogs"),
            (Method::DELETE, INFER, key, 405, "POST"),
            (Method::POST, "/v2/models/slow/infer", key, 503, "being loaded"),
        ] {
            let mut client = house.client(version).await;
            let answer = client.ask(request(method.clone(), path, key, full("x"))).await;
            assert_eq!(answer.status, status, "{method} {path} {version:?}: {answer:?}");
            let error = answer.error();
            assert!(error.contains(says), "{error}");
            assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
            assert_eq!(answer.header("allow"), (status == 405).then_some("POST"));
            assert_eq!(answer.header("retry-after"), (status == 503).then_some("1"));
            assert!(answer.header("x-request-id").is_some());
            assert!(Timing::parse(answer.header("server-timing").unwrap()).is_some());
        }
        let mut client = house.client(version).await;
        let answer = client.ask(request(Method::POST, INFER, key, full("x"))).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"answer"[..]), "the others cost nobody anything");
    }
}

#[tokio::test]
async fn without_an_agent_everything_is_503_and_to_be_tried_again() {
    let house = House::new();
    let answer = house.infer().await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.error().contains("no agent"));
    let agent = house.agent("one", Does::says("answer")).await;
    assert_eq!(house.infer().await.status, 200);
    drop(agent);
    house.until(|fleet| fleet["left"].as_array().unwrap().len() == 1).await;
    let answer = house.infer().await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    house.agent("one", Does::says("again")).await;
}

#[tokio::test]
async fn a_key_with_the_scope_may_change_an_agent_and_a_revoked_one_may_nothing() {
    let house = House::new();
    let _agent = house.agent("one", Does::says("loaded")).await;
    let path = "/v2/repository/models/digits/load";
    let mut client = house.client(Version::Http1).await;
    let operator = house.keys.create("operator", &[Scope::Control]).unwrap();
    let mut wait = async |status| {
        let wait = async {
            loop {
                let answer = client.ask(request(Method::POST, path, Some(&operator), full(""))).await;
                if answer.status == status {
                    return;
                }
                assert!([200, 401].contains(&answer.status), "{answer:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("the keys file should have been read again");
    };
    wait(200).await;
    house.keys.revoke("operator").unwrap();
    wait(401).await;
    assert_eq!(house.infer().await.status, 200, "the other key is as good as before");
}

#[tokio::test]
async fn no_answer_in_time_is_504_and_the_agent_stops() {
    let house = House::with(|config| config.proxy.timeout = Duration::from_millis(300));
    let (dropped, gone) = tokio::sync::oneshot::channel::<()>();
    let dropped = Arc::new(Mutex::new(Some(dropped)));
    let does = Does::new(move |_| {
        let held = dropped.lock().unwrap().take();
        async move {
            let _held = held;
            std::future::pending().await
        }
    });
    let _agent = house.agent("one", does).await;
    let answer = house.infer().await;
    assert_eq!(answer.status, 504);
    assert!(answer.error().contains("in time"));
    assert!(tokio::time::timeout(SOON, gone).await.unwrap().is_err(), "the agent's work was dropped");
}

#[tokio::test]
async fn an_agent_lost_in_the_middle_is_502_at_once_unless_another_may_be_asked() {
    let house = House::new();
    let (started, mut starts) = tokio::sync::mpsc::channel(8);
    let hangs = Does::new(move |_| {
        let started = started.clone();
        async move {
            started.send(()).await.unwrap();
            std::future::pending().await
        }
    });
    let first = house.agent("one", hangs).await;
    let mut client = house.client(Version::Http2).await;
    let (answer, ()) = tokio::join!(client.ask(request(Method::POST, INFER, Some(&house.key), full("x"))), async {
        starts.recv().await.unwrap();
        drop(first);
    });
    assert_eq!(answer.status, 502);
    assert!(answer.error().contains("lost"));

    // What changes nothing is asked again elsewhere.
    house.until(|fleet| fleet["left"].as_array().unwrap().len() == 1).await;
    let _second = house.agent("two", Does::says("from two")).await;
    let hangs = Does::new(|_| std::future::pending());
    let first = house.agent("one", hangs).await;
    let asks = (0..8).map(|_| house.ask(Method::GET, "/v2", ""));
    let asks = futures_util::future::join_all(asks);
    let (answers, ()) = tokio::join!(asks, async {
        house
            .until(|fleet| crate::house::entries(fleet).any(|entry| entry["agent"] == "one" && entry["in_flight"] != 0))
            .await;
        drop(first);
    });
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert!(house.metric("adit_relay_retries_total").await >= 1.0);
}

#[tokio::test]
async fn the_agent_sees_the_clients_request_with_the_relays_names_on_it() {
    let house = House::new();
    let does = Does::new(|request| async move {
        let mut fields: Vec<_> =
            request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        fields.sort();
        fields.insert(0, format!("{} {}", request.method(), request.uri()));
        reply(fields.join("\n"))
    });
    let _agent = house.agent("one", does).await;
    for version in [Version::Http1, Version::Http2] {
        let mut ask = request(Method::POST, &format!("{INFER}?a=%20b"), Some(&house.key), full("x"));
        with(&mut ask, "x-request-id", "order-17");
        with(&mut ask, "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        with(&mut ask, "adit-budget", "1");
        with(&mut ask, "x-forwarded-for", "10.9.8.7");
        let answer = house.client(version).await.ask(ask).await;
        assert_eq!(answer.header("x-request-id"), Some("order-17"));
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        assert!(text.starts_with(&format!("POST https://relay.test{INFER}?a=%20b\n")), "{text}");
        assert_eq!(field("x-request-id"), Some("order-17"));
        assert_eq!(field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(field("x-forwarded-proto"), Some("https"));
        assert_eq!((field("x-api-key"), field("authorization"), field("connection")), (None, None, None));
        let parent = field("traceparent").unwrap();
        assert!(parent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && !parent.contains("00f067aa0ba902b7"));
        let budget: u64 = field("adit-budget").unwrap().parse().unwrap();
        assert!((29_000_000..=30_000_000).contains(&budget), "{budget}");
    }
}

#[tokio::test]
async fn the_time_is_found_in_the_stage_where_it_went() {
    let house = House::new();
    let does = Does::new(|request| async move {
        use http_body_util::BodyExt as _;
        request.into_body().collect().await.unwrap();
        tokio::time::sleep(Duration::from_millis(80)).await;
        let mut answer = reply("answer");
        let timing = "queue;dur=10.000, forward;dur=50.000;desc=\"cpu b=1\", other;dur=0.000, total;dur=60.000";
        answer.headers_mut().insert("server-timing", timing.parse().unwrap());
        answer
    });
    let _agent = house.agent("one", does).await;
    let mut client = house.client(Version::Http1).await;
    let (sender, body) = crate::streams::channel();
    let ask = request(Method::POST, INFER, Some(&house.key), body);
    let (answer, ()) = tokio::join!(client.ask(ask), async {
        sender.send("one").await;
        tokio::time::sleep(Duration::from_millis(120)).await;
        sender.send("two").await;
        drop(sender);
    });
    let timing = Timing::parse(answer.header("server-timing").unwrap()).unwrap();
    let millis = |stage| timing.stage(stage).unwrap().as_secs_f64() * 1000.0;
    assert_eq!((millis(Stage::Queue), millis(Stage::Forward), timing.note()), (10.0, 50.0, Some("cpu b=1")));
    assert!((115.0..150.0).contains(&millis(Stage::Upload)), "{timing:?}");
    // The agent's sleep but for the 60 ms that it accounts for.
    assert!((19.0..45.0).contains(&millis(Stage::Transit)), "{timing:?}");
    assert!(millis(Stage::Admit) + millis(Stage::Pick) < 20.0, "{timing:?}");
    let sum: Duration = timing.stages().map(|(_, time)| time).sum();
    assert!(sum.abs_diff(timing.total()) < timing.total() / 50, "{timing:?}");
    assert_eq!(answer.header("timing-allow-origin"), Some("*"));
}

#[tokio::test]
async fn operators_see_what_goes_on() {
    let house = House::new();
    let agent = house.agent("one", Does::says("answer")).await;
    agent.load(5).await;
    house.until(|fleet| fleet["agents"][0]["load"]["in_flight"] == 5).await;
    house.infer().await;
    house.ask(Method::GET, "/nowhere", "").await;
    let (status, text) = get_plain(house.admin(), "/metrics").await;
    assert_eq!(status.as_u16(), 200);
    for expected in [
        "adit_relay_requests_total{status=\"200\"} 1\n",
        "adit_relay_requests_total{status=\"404\"} 1\n",
        "adit_relay_errors_total{kind=\"unknown_path\",origin=\"client\"} 1\n",
        "adit_relay_stage_seconds_count{stage=\"transit\"} 1\n",
        "adit_relay_in_flight 0\n",
        "adit_relay_sessions 1\n",
        "adit_relay_agent_reported_in_flight{agent=\"one\"} 5\n",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    assert!(house.metric("adit_relay_agent_rtt_seconds{agent=\"one\"}").await > 0.0);
    assert_eq!(get_plain(house.admin(), "/healthz").await.1, "alive\n");
    assert_eq!(get_plain(house.admin(), "/readyz").await.1, "ready\n");
    assert_eq!(get_plain(house.admin(), "/other").await.0.as_u16(), 404);
}
