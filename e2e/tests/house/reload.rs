//! Models that change while they are asked through the relay.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use adit_e2e::{Answer, Body, House, LIMIT, Plan, Version, full};
use adit_vision::image::digit_picture;
use anyhow::{Context as _, Result};
use http::{Request, StatusCode};
use serde_json::Value;

use crate::ask::{get, largest, raw};

const SPEC: &str = include_str!("../../../agent/models/digits/model.toml");

fn weights() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/models/digits/1/model.safetensors")
}

/// A folder with `reader`, which has the digits' weights as version 1.
fn folder() -> Result<tempfile::TempDir> {
    let root = tempfile::tempdir()?;
    let model = root.path().join("reader");
    fs::create_dir(&model)?;
    fs::write(model.join("model.toml"), SPEC)?;
    let labels: Vec<_> = (0..10).map(|digit| digit.to_string()).collect();
    fs::write(model.join("labels.txt"), labels.join("\n"))?;
    publish(&model, 1)?;
    Ok(root)
}

/// Publishes a version as `adit-agent train` does: whole, by a rename.
fn publish(model: &Path, version: u64) -> Result<()> {
    let folder = model.join(version.to_string());
    fs::create_dir(&folder)?;
    fs::copy(weights(), folder.join("model.partial"))?;
    fs::rename(folder.join("model.partial"), folder.join("model.safetensors"))?;
    Ok(())
}

async fn house(root: &Path) -> Result<House> {
    let plan = Plan::new("box").models(root).change(|config| config.serving.watch = Duration::ZERO);
    House::builder().agent(plan).open().await
}

fn post(path: &str) -> Request<Body> {
    Request::post(path).body(full("")).unwrap()
}

fn version(answer: &Answer) -> Result<String> {
    Ok(answer.inferred()?.model_version.unwrap_or_default())
}

/// Waits until the relay says this of the versions of `reader`.
async fn until_versions(house: &House, wanted: &[(u64, &str)]) -> Result<()> {
    house
        .until(|fleet| {
            let models = fleet["agents"][0]["models"].as_array().into_iter().flatten();
            let found: Vec<_> = models
                .filter(|model| model["name"] == "reader")
                .filter_map(|model| Some((model["version"].as_u64()?, model["state"].as_str()?)))
                .collect();
            found == wanted
        })
        .await
        .with_context(|| format!("{wanted:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_swapped_under_load_and_nobody_notices() -> Result<()> {
    let root = folder()?;
    let model = root.path().join("reader");
    let house = house(root.path()).await?;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = Vec::new();
    for protocol in [Version::Http1, Version::Http2, Version::Http2] {
        let mut client = house.client(protocol).await?;
        let (stop, asked) = (stop.clone(), asked.clone());
        load.push(tokio::spawn(async move {
            let mut newest = 0;
            while !stop.load(Ordering::Relaxed) {
                let digit = asked.fetch_add(1, Ordering::Relaxed) % 10;
                let answer = client.ask(raw("reader", digit_picture(digit as u8)?)).await?;
                assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
                assert_eq!(largest(&answer.probabilities()?), digit);
                let version: u64 = version(&answer)?.parse()?;
                assert!(version >= newest, "{version} after {newest}: never backwards");
                newest = version;
            }
            anyhow::Ok(newest)
        }));
    }
    let agent = house.agent("box")?;
    for number in 2..=12 {
        // Every other one is broken, and the one before goes on.
        if number % 2 == 0 {
            publish(&model, number)?;
            fs::remove_dir_all(model.join((number - 1).to_string()))?;
        } else {
            fs::create_dir(model.join(number.to_string()))?;
            fs::write(model.join(number.to_string()).join("model.safetensors"), "half a fi")?;
        }
        agent.serving().rescan().await?;
        let before = asked.load(Ordering::Relaxed);
        let goes_on = async {
            while asked.load(Ordering::Relaxed) < before + 6 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LIMIT, goes_on).await?;
    }
    stop.store(true, Ordering::Relaxed);
    for one in load {
        assert_eq!(one.await??, 12);
    }
    until_versions(&house, &[(12, "READY")]).await?;
    assert_eq!(house.agent_metric("box", "adit_agent_model_loads_total")?, 7.0);
    assert_eq!(house.agent_metric("box", "adit_agent_model_loads_failed_total")?, 5.0);
    let ok = house.agent_metric("box", "adit_agent_requests_total{model=\"reader\",outcome=\"ok\"}")?;
    assert_eq!(ok, asked.load(Ordering::Relaxed) as f64);
    assert!(house.close().await);
    Ok(())
}

#[tokio::test]
async fn control_takes_a_key_that_may() -> Result<()> {
    let root = folder()?;
    let house = house(root.path()).await?;
    let (load, unload) = ("/v2/repository/models/reader/load", "/v2/repository/models/reader/unload");
    for protocol in [Version::Http1, Version::Http2] {
        let mut client = house.client(protocol).await?;
        for path in [load, unload] {
            let refused = client.ask(post(path)).await?;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
            assert!(refused.error()?.contains("control"), "{refused:?}");
        }
        let mut operator = house.client_with(protocol, Some(house.control_key())).await?;
        assert_eq!(operator.ask(post(unload)).await?.status, StatusCode::OK);
        until_versions(&house, &[(1, "UNAVAILABLE")]).await?;
        let refused = client.ask(raw("reader", digit_picture(3)?)).await?;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
        let loaded = operator.ask(post(load)).await?;
        assert_eq!((loaded.status, loaded.body.len()), (StatusCode::OK, 0), "{loaded:?}");
        until_versions(&house, &[(1, "READY")]).await?;
        let answer = client.ask(raw("reader", digit_picture(3)?)).await?;
        assert_eq!(largest(&answer.probabilities()?), 3);
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test]
async fn a_label_is_asked_through_the_relay() -> Result<()> {
    let root = folder()?;
    let model = root.path().join("reader");
    publish(&model, 2)?;
    fs::write(model.join("model.toml"), format!("{SPEC}[version_labels]\nstable = 1\ncanary = 2\n"))?;
    let house = house(root.path()).await?;
    let mut client = house.client(Version::Http2).await?;
    let ask = |label: &str, digit: u8| -> Result<Request<Body>> {
        let mut request = raw("reader", digit_picture(digit)?);
        *request.uri_mut() = format!("/v2/models/reader/versions/{label}/infer").parse()?;
        Ok(request)
    };
    for (label, number) in [("stable", "1"), ("canary", "2")] {
        let answer = client.ask(ask(label, 4)?).await?;
        assert_eq!((version(&answer)?.as_str(), largest(&answer.probabilities()?)), (number, 4));
    }
    let unknown = client.ask(ask("newest", 4)?).await?;
    assert_eq!((unknown.status, &*unknown.error()?), (StatusCode::NOT_FOUND, "the model reader has no version newest"));
    let metadata = client.ask(get("/v2/models/reader/versions/stable")).await?.json()?;
    assert_eq!(metadata["parameters"]["label.stable"], 1);

    // The label moves, and the relay follows.
    fs::write(model.join("model.toml"), format!("{SPEC}[version_labels]\nstable = 2\n"))?;
    house.agent("box")?.serving().rescan().await?;
    until_versions(&house, &[(2, "READY")]).await?;
    assert_eq!(version(&client.ask(ask("stable", 5)?).await?)?, "2");
    assert!(house.close().await);
    Ok(())
}

#[tokio::test]
async fn a_sleeping_model_is_ready_to_the_relay_and_answers() -> Result<()> {
    let root = folder()?;
    fs::create_dir(root.path().join("writer"))?;
    let spec = format!("versions = \"../reader\"\nlabels = \"../reader/labels.txt\"\n{SPEC}");
    fs::write(root.path().join("writer/model.toml"), spec)?;
    let memory = fs::metadata(weights())?.len() * 3;
    let plan = Plan::new("box").models(root.path()).change(move |config| config.serving.memory = Some(memory));
    let house = House::builder().agent(plan).open().await?;
    let mut client = house.client(Version::Http2).await?;
    for round in 0..4 {
        for model in ["reader", "writer"] {
            let answer = client.ask(raw(model, digit_picture(round)?)).await?;
            assert_eq!(largest(&answer.probabilities()?), usize::from(round), "{answer:?}");
            let index = client.ask(post("/v2/repository/index")).await?.json()?;
            let ready = |entry: &Value| entry["state"] == "READY";
            assert!(index.as_array().context("a list")?.iter().all(ready), "{index}");
        }
    }
    // One made room at the start, and each request for one puts the other to sleep.
    assert_eq!(house.agent_metric("box", "adit_agent_model_evictions_total")?, 9.0);
    assert!(house.close().await);
    Ok(())
}

#[tokio::test]
async fn a_detectors_options_change_without_its_weights_being_read() -> Result<()> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if !data.is_dir() {
        println!("skipped: ../shared/data is not there");
        return Ok(());
    }
    let data = data.canonicalize()?.display().to_string();
    let root = tempfile::tempdir()?;
    let spec = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/yolox_nano/model.toml"))?;
    let spec = spec.replace("../../../../shared/data", &data);
    let (head, _) = spec.split_once("[detect]").unwrap_or((&spec, ""));
    let describe = |most: usize| -> Result<()> {
        let text = format!("{head}[detect]\nconfidence = 0.3\nmax_detections = {most}\n");
        Ok(fs::write(root.path().join("finder/model.toml"), text)?)
    };
    fs::create_dir(root.path().join("finder"))?;
    describe(100)?;
    let house = house(root.path()).await?;
    let photos = fs::read_dir(format!("{data}/images/photos"))?;
    let photos: Vec<_> = photos.map(|entry| Ok(fs::read(entry?.path())?)).collect::<Result<_>>()?;
    let mut client = house.client(Version::Http2).await?;
    let mut found = Vec::new();
    for photo in &photos {
        let answer = client.ask(raw("finder", photo.clone())).await?;
        found.push(answer.inferred()?.output("scores").context("scores")?.shape()[1]);
    }
    let crowded = (0..found.len()).max_by_key(|at| found[*at]).context("photos")?;
    assert!(found[crowded] > 1, "{found:?}");
    let loads = house.agent_metric("box", "adit_agent_model_load_seconds_count")?;
    describe(1)?;
    house.agent("box")?.serving().rescan().await?;
    let answer = client.ask(raw("finder", photos[crowded].clone())).await?;
    assert_eq!(answer.inferred()?.output("scores").context("scores")?.shape(), [1, 1]);
    assert_eq!(house.agent_metric("box", "adit_agent_model_load_seconds_count")?, loads);
    assert!(house.close().await);
    Ok(())
}
