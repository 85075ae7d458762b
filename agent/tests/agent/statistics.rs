//! What the agent counts of its models, as Triton's clients and dashboards read it.

use std::fs;

use adit_agent::config::Config;
use adit_common::oip::{ModelStatistics, Statistics};
use http::StatusCode;
use serde_json::json;

use crate::house::{House, json_image, one, stand_in};

fn keep(_: &mut Config) {}

async fn read(house: &House, path: &str) -> Vec<ModelStatistics> {
    let answer = house.get(path).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    serde_json::from_slice::<Statistics>(&answer.body).unwrap().model_stats
}

async fn of(house: &House, path: &str) -> ModelStatistics {
    let mut found = read(house, path).await;
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[tokio::test]
async fn every_stage_of_a_request_is_counted_where_triton_counts_it() {
    let house = House::new(&[("timed", &stand_in("40ms", "60ms", "200ms"))], keep).await;
    let fresh = of(&house, "/v2/models/timed/stats").await;
    assert_eq!((fresh.last_inference, fresh.inference_count, fresh.execution_count), (0, 0, 0));
    let two = json!({ "inputs": [{ "name": "image", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"] }] });
    for body in [two.to_string(), json_image(b"anything", "")] {
        let answer = house.post("/v2/models/timed/infer", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    let stats = of(&house, "/v2/models/timed/versions/1/stats").await;
    assert_eq!((stats.name.as_str(), stats.version.as_str()), ("timed", "1"));
    assert_eq!((stats.inference_count, stats.execution_count), (3, 2));
    assert!(stats.last_inference > 0);
    let times = stats.inference_stats;
    let stages = [times.queue, times.compute_input, times.compute_infer, times.compute_output];
    assert!(stages.iter().chain([&times.success]).all(|stage| stage.count == 2), "{times:?}");
    assert_eq!(times.success.ns, stages.iter().map(|stage| stage.ns).sum::<u64>());
    // Three images are decoded and prepared, and two passes are run: sleeping is never shorter than it was meant to be.
    assert!(times.compute_input.ns >= 300_000_000 && times.compute_infer.ns >= 400_000_000, "{times:?}");
    assert!(times.queue.ns < 200_000_000 && times.compute_output.ns < 200_000_000, "{times:?}");
    assert!(times.cache_hit.count + times.cache_miss.count + times.fail.count == 0);
    let sizes: Vec<_> = stats.batch_stats.iter().map(|batch| (batch.batch_size, batch.compute_infer.count)).collect();
    assert_eq!(sizes, [(1, 1), (2, 1)]);

    assert_eq!(house.metric(r#"nv_inference_count{model="timed",version="1"}"#).await, 3);
    assert_eq!(house.metric(r#"nv_inference_exec_count{model="timed",version="1"}"#).await, 2);
    let micros = house.metric(r#"nv_inference_compute_infer_duration_us{model="timed",version="1"}"#).await;
    assert_eq!(micros, times.compute_infer.ns / 1000);
}

#[tokio::test]
async fn failures_and_unknown_models_are_told_apart() {
    let house = House::new(&[("broken", "architecture = \"lenet\"\n")], keep).await;
    assert_eq!(
        house.post("/v2/models/digits/infer", json_image(b"no image", "")).await.status,
        StatusCode::BAD_REQUEST
    );
    let stats = of(&house, "/v2/models/digits/stats").await;
    assert_eq!((stats.inference_stats.fail.count, stats.inference_stats.success.count), (1, 0));
    assert_eq!((stats.memory_usage.len(), stats.memory_usage[0].kind.as_str()), (1, "CPU"));
    assert!(stats.memory_usage[0].byte_size > 10_000);
    let reason = r#"nv_inference_request_failure{model="digits",version="1",reason="OTHER"}"#;
    assert_eq!(house.metric(reason).await, 1);
    for (path, status) in [
        ("/v2/models/nobody/stats", StatusCode::NOT_FOUND),
        ("/v2/models/digits/versions/7/stats", StatusCode::NOT_FOUND),
        ("/v2/models/digits/versions/stable/stats", StatusCode::NOT_FOUND),
        ("/v2/models/broken/stats", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let answer = house.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.error());
    }
    assert_eq!(read(&house, "/v2/models/stats").await.len(), 1);
    let server = house.get("/v2").await.json();
    assert!(server["extensions"].as_array().unwrap().contains(&json!("statistics")), "{server}");
}

#[tokio::test]
async fn an_account_outlives_reloads_and_its_version() {
    let house = House::new(&[("other", &stand_in("0ms", "0ms", "0ms"))], |config| config.local.control = true).await;
    assert_eq!(house.post("/v2/models/digits/infer", json_image(&one(), "")).await.status, StatusCode::OK);
    let before = of(&house, "/v2/models/digits/stats").await;
    assert_eq!(before.inference_count, 1);
    assert_eq!(house.post("/v2/repository/models/digits/unload", "").await.status, StatusCode::OK);
    let unloaded = of(&house, "/v2/models/digits/stats").await;
    assert_eq!(ModelStatistics { memory_usage: unloaded.memory_usage.clone(), ..before.clone() }, unloaded);
    assert!(unloaded.memory_usage.is_empty());
    assert_eq!(house.post("/v2/repository/models/digits/load", "").await.status, StatusCode::OK);
    assert_eq!(of(&house, "/v2/models/digits/stats").await, before);
    assert_eq!(house.post("/v2/models/digits/infer", json_image(&one(), "")).await.status, StatusCode::OK);
    assert_eq!(of(&house, "/v2/models/digits/stats").await.inference_count, 2);

    // A new description makes a new model over the same network.
    assert_eq!(house.post("/v2/models/other/infer", json_image(b"anything", "")).await.status, StatusCode::OK);
    let description = house.models.path().join("other/model.toml");
    fs::write(&description, format!("{}max_batch = 2\n", stand_in("0ms", "0ms", "0ms"))).unwrap();
    house.agent.serving().rescan().await.unwrap();
    assert_eq!(of(&house, "/v2/models/other/stats").await.inference_count, 1);
}

/// Every number of it, in one order.
fn numbers(stats: &ModelStatistics) -> Vec<u64> {
    let all = stats.inference_stats;
    let durations = [all.success, all.fail, all.queue, all.compute_input, all.compute_infer, all.compute_output];
    let counts = [stats.last_inference, stats.inference_count, stats.execution_count];
    durations.iter().flat_map(|duration| [duration.count, duration.ns]).chain(counts).collect()
}

#[tokio::test]
async fn no_number_ever_falls_while_requests_run_and_versions_are_reloaded() {
    let house = House::new(&[("busy", &stand_in("1ms", "0ms", "2ms"))], |config| config.local.control = true).await;
    let ask = async || {
        let mut answered = 0;
        for _ in 0..20 {
            let status = house.post("/v2/models/busy/infer", json_image(b"anything", "")).await.status;
            // It may just be away.
            assert!(matches!(status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE), "{status}");
            answered += u64::from(status == StatusCode::OK);
        }
        answered
    };
    let watch = async || {
        let mut last = numbers(&of(&house, "/v2/models/busy/stats").await);
        for round in 0..20 {
            if round % 5 == 0 {
                assert_eq!(house.post("/v2/repository/models/busy/unload", "").await.status, StatusCode::OK);
                assert_eq!(house.post("/v2/repository/models/busy/load", "").await.status, StatusCode::OK);
            }
            let now = numbers(&of(&house, "/v2/models/busy/stats").await);
            assert!(last.iter().zip(&now).all(|(before, after)| before <= after), "{last:?}, then {now:?}");
            last = now;
        }
    };
    let (one, two, three, ()) = futures_util::join!(ask(), ask(), ask(), watch());
    assert_eq!(of(&house, "/v2/models/busy/stats").await.inference_count, one + two + three);
}
