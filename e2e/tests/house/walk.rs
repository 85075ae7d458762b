//! One request, there and back, in every spelling that a client has.

use std::io::Write;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use adit_client::{ClassifyArgs, ConnectionArgs, Model, classify, classify_images, waterfall};
use adit_common::timing::Stage;
use adit_e2e::{House, Plan, Version, full};
use adit_vision::image::digit_picture;
use anyhow::Result;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::ask::{binary, get, json, largest, raw};

const VERSIONS: [Version; 2] = [Version::Http1, Version::Http2];

async fn house() -> Result<House> {
    House::builder().agent(Plan::new("box").digits()).open().await
}

/// The stages of a request to a model: all but that of a server behind the agent.
fn of_a_model() -> Vec<Stage> {
    Stage::ALL.into_iter().filter(|stage| *stage != Stage::Upstream).collect()
}

#[tokio::test]
async fn every_digit_is_read_in_every_coding_over_both_versions() -> Result<()> {
    let house = house().await?;
    for version in VERSIONS {
        let mut client = house.client(version).await?;
        for digit in 0..10 {
            let image = digit_picture(digit)?;
            let mut rows = Vec::new();
            for request in [raw("digits", image.clone()), json("digits", &image), binary("digits", image)?] {
                let answer = client.ask(request).await?;
                let inferred = answer.inferred()?;
                assert_eq!((inferred.model_name.as_str(), inferred.model_version.as_deref()), ("digits", Some("1")));
                rows.push(answer.probabilities()?);
            }
            assert_eq!(largest(&rows[0]), usize::from(digit), "{version:?}: {:?}", rows[0]);
            assert!((rows[0].iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(rows.iter().all(|row| row.iter().zip(&rows[0]).all(|(one, two)| (one - two).abs() < 1e-6)));
        }
    }
    assert_eq!(house.relay_metric("adit_relay_requests_total{status=\"200\"}").await?, 60.0);
    assert_eq!(house.agent_metric("box", "adit_agent_requests_total{model=\"digits\",outcome=\"ok\"}")?, 60.0);
    assert!(house.close().await);
    Ok(())
}

#[tokio::test]
async fn the_photo_dialect_answers_as_its_clients_expect() -> Result<()> {
    let house = house().await?;
    let host = house.relay().addresses().https.to_string();
    for version in VERSIONS {
        let mut client = house.client(version).await?;
        let visit = client.ask(get("/")).await?;
        assert_eq!(visit.status, StatusCode::OK);
        assert!(visit.header("content-type")?.starts_with("text/html"), "{visit:?}");
        let text = String::from_utf8(visit.body.to_vec())?;
        let rest = text.strip_prefix("Request:127.0.0.1,").unwrap_or_else(|| panic!("{text:?}"));
        let (port, rest) = rest.split_once(&format!("; HOST:{host}; Hostname:")).unwrap_or_else(|| panic!("{text:?}"));
        assert_ne!(port.parse::<u16>()?, 0, "{text:?}");
        assert!(rest.len() > 2 && rest.ends_with("\r\n"), "{text:?}");

        let photo = Request::post("/photo").header("content-type", "image/png").body(full(digit_picture(7)?))?;
        let answer = client.ask(photo).await?;
        assert_eq!((answer.status, answer.header("content-type")?), (StatusCode::OK, "application/json"));
        let body = answer.json()?;
        let sentence = body["inference"].as_str().unwrap_or_else(|| panic!("{body}"));
        assert_eq!(body, json!({ "inference": sentence, "message": "success" }));
        let confidence = sentence.strip_prefix("Class = 7, Confidence = ").unwrap_or_else(|| panic!("{sentence}"));
        assert!(confidence.len() == 5 && confidence.parse::<f32>()? > 0.5, "{confidence}");
        assert!(answer.timing()?.stage(Stage::Forward).is_some());
    }
    assert!(house.close().await);
    Ok(())
}

/// The log lines of one request, which carries this name.
const MARKED: &str = "walk-of-4711";
static LINES: Mutex<String> = Mutex::new(String::new());

struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if text.contains(MARKED) {
            LINES.lock().unwrap().push_str(&text);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        tracing_subscriber::fmt()
            .with_env_filter("adit_relay=info,adit_agent=debug")
            .with_ansi(false)
            .with_writer(|| Log)
            .init();
    });
}

#[tokio::test]
async fn one_name_one_trace_and_one_account_of_time_along_the_whole_path() -> Result<()> {
    listen();
    let house = house().await?;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut request = raw("digits", digit_picture(3)?);
    request.headers_mut().insert("x-request-id", MARKED.parse()?);
    request.headers_mut().insert("traceparent", format!("00-{trace}-00f067aa0ba902b7-01").parse()?);
    let answer = house.client(Version::Http2).await?.ask(request).await?;
    assert_eq!(answer.header("x-request-id")?, MARKED);

    let timing = answer.timing()?;
    let passed: Vec<_> = timing.stages().map(|(stage, _)| stage).collect();
    assert_eq!(passed, of_a_model(), "{answer:?}");
    let sum: Duration = timing.stages().map(|(_, time)| time).sum();
    assert!(sum.abs_diff(timing.total()) <= timing.total() / 50, "{sum:?} of {timing:?}");
    assert!(timing.receive().is_some() && timing.note().is_some_and(|note| note.starts_with("cpu")), "{timing:?}");

    // Whoever names nothing is given names.
    let nameless = house.client(Version::Http1).await?.ask(get("/v2")).await?;
    assert!(!nameless.header("x-request-id")?.is_empty());
    for stage in ["admit", "transit", "decode", "forward", "encode"] {
        let count = format!("adit_relay_stage_seconds_count{{stage=\"{stage}\"}}");
        assert!(house.relay_metric(&count).await? >= 1.0, "{stage}");
    }
    assert_eq!(house.agent_metric("box", "adit_agent_stage_seconds_count{stage=\"forward\"}")?, 1.0);
    assert!(house.close().await);
    let lines = LINES.lock().unwrap().clone();
    for program in ["adit_relay", "adit_agent"] {
        let of = lines.lines().filter(|line| line.contains(program)).collect::<Vec<_>>();
        assert!(!of.is_empty() && of.iter().all(|line| line.contains(trace)), "{program}: {lines}");
    }
    Ok(())
}

#[tokio::test]
async fn our_own_client_reads_the_digits_and_draws_the_path() -> Result<()> {
    let house = house().await?;
    let mut connection = house.connector()?.connect(house.scope()).await?;
    let model = Model::learn(&mut connection, &"digits".parse()?, None).await?;
    for digit in 0..10 {
        let answer = classify(&mut connection, &model, digit_picture(digit)?.into(), 3).await?;
        let best = &answer.predictions[0];
        assert_eq!((best.index, best.label.as_deref()), (usize::from(digit), Some(&*digit.to_string())));
        assert_eq!(answer.predictions.len(), 3);
        let drawn = waterfall(answer.elapsed, answer.timing.as_ref());
        for stage in of_a_model() {
            assert!(drawn.contains(&format!("  {}", stage.name())), "{}:\n{drawn}", stage.name());
        }
        assert!(drawn.contains("network") && answer.network().is_some());
    }

    let folder = tempfile::tempdir()?;
    let images: Vec<_> = [8, 2].map(|digit| folder.path().join(format!("{digit}.png"))).into();
    std::fs::write(&images[0], digit_picture(8)?)?;
    std::fs::write(&images[1], digit_picture(2)?)?;
    let connection = ConnectionArgs {
        url: house.url().parse()?,
        ca: Some(house.ca().to_owned()),
        key: Some(house.key().to_owned()),
        key_file: None,
        timeout: Duration::from_secs(20),
        http1: true,
    };
    let args =
        ClassifyArgs { connection, model: "digits".parse()?, version: None, top: 1, json: true, out: None, images };
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    assert!(classify_images(&args, None, house.scope(), &mut out, &mut errors).await?);
    let lines: Vec<Value> =
        String::from_utf8(out)?.lines().map(serde_json::from_str).collect::<Result<_, serde_json::Error>>()?;
    let labels: Vec<_> = lines.iter().map(|line| line["predictions"][0]["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["8", "2"]);
    assert_eq!(lines[0]["protocol"], "HTTP/1.1");
    assert!(errors.is_empty());
    assert!(house.close().await);
    Ok(())
}
