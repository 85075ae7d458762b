//! The extensions of the Open Inference Protocol, through a relay.

use std::io::Read as _;
use std::time::Duration;

use adit_common::oip::Statistics;
use adit_common::timing::Stage;
use adit_e2e::{Delays, House, Plan, Version, full};
use adit_vision::image::digit_picture;
use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::read::{GzEncoder, ZlibDecoder};
use http::{HeaderValue, Request, StatusCode};

use crate::ask::{binary, get, raw};

const MILLISECOND: Duration = Duration::from_millis(1);

#[tokio::test]
async fn statistics_are_the_sums_of_what_each_answer_said_of_itself() -> Result<()> {
    let delays = Delays { decode: 3 * MILLISECOND, prepare: 5 * MILLISECOND, forward: 20 * MILLISECOND };
    let house = House::builder().agent(Plan::new("box").stand_in("timed", delays)).open().await?;
    let mut client = house.client(Version::Http2).await?;
    let mut last = 0;
    let mut said: Vec<(Stage, Duration)> = Vec::new();
    for round in 1..=4_u64 {
        // Several at a time: some wait, and share a pass.
        let answers: Vec<_> = (0..5).map(|_| client.send(raw("timed", "image"))).collect();
        for answer in futures_util::future::join_all(answers).await {
            said.extend(answer?.timing()?.stages());
        }
        let told = client.ask(get("/v2/models/timed/versions/1/stats")).await?;
        let told: Statistics = serde_json::from_slice(&told.body)?;
        let told = told.model_stats.first().context("no statistics")?;
        assert_eq!(told.inference_count, round * 5);
        assert!((round..=round * 5).contains(&told.execution_count), "{told:?}");
        assert!(told.last_inference >= last);
        last = told.last_inference;
        let sum = |stages: &[Stage]| -> Duration {
            said.iter().filter(|(stage, _)| stages.contains(stage)).map(|(_, time)| *time).sum()
        };
        let stats = told.inference_stats;
        for (stages, told) in [
            (&[Stage::Queue][..], stats.queue),
            (&[Stage::Decode, Stage::Prepare], stats.compute_input),
            (&[Stage::Forward], stats.compute_infer),
        ] {
            let (said, told) = (sum(stages), Duration::from_nanos(told.ns));
            // An answer tells whole microseconds.
            assert!(said <= told && told - said < Duration::from_micros(round * 10), "{stages:?}: {said:?}, {told:?}");
        }
        // Writing is counted until the body stands, and lapped when its head does.
        let written = Duration::from_nanos(stats.compute_output.ns);
        let rounding = Duration::from_micros(round * 10);
        assert!(written + rounding >= sum(&[Stage::Interpret]), "{written:?}");
        assert!(written <= sum(&[Stage::Interpret, Stage::Encode]) + rounding, "{written:?}");
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test]
async fn bodies_are_compressed_end_to_end() -> Result<()> {
    let house = House::builder().agent(Plan::new("box").digits()).open().await?;
    for version in [Version::Http1, Version::Http2] {
        let mut client = house.client(version).await?;
        let picture = digit_picture(7)?;
        let plain = client.ask(binary("digits", picture.clone())?).await?.inferred()?;
        let (mut head, _) = binary("digits", picture.clone())?.into_parts();
        let encoded = adit_common::oip::InferRequest {
            inputs: vec![adit_common::oip::Tensor::bytes("image", &[32], vec![picture.clone().into(); 32])?],
            ..Default::default()
        };
        let encoded = encoded.encode(true)?;
        let mut packed = Vec::new();
        GzEncoder::new(&encoded.body[..], Compression::default()).read_to_end(&mut packed)?;
        head.headers.insert(adit_common::oip::HEADER_LENGTH, encoded.header_length.unwrap_or_default().into());
        head.headers.insert("content-encoding", HeaderValue::from_static("gzip"));
        head.headers.insert("accept-encoding", HeaderValue::from_static("gzip;q=0.1, deflate"));
        let mut answer = client.ask(Request::from_parts(head, full(packed))).await?;
        assert_eq!(answer.header("content-encoding")?, "deflate");
        let mut body = Vec::new();
        ZlibDecoder::new(&answer.body[..]).read_to_end(&mut body)?;
        answer.body = body.into();
        let (one, many) = (plain.outputs[0].to_floats()?, answer.inferred()?.outputs[0].to_floats()?);
        assert!(many.iter().zip(one.iter().cycle()).all(|(found, expected)| (found - expected).abs() < 1e-5));
        assert_eq!(many.len(), 32 * one.len());
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test]
async fn settings_are_changed_with_a_key_that_may() -> Result<()> {
    let house = House::builder().agent(Plan::new("box").digits()).open().await?;
    let mut client = house.client(Version::Http1).await?;
    let post = |path: &str| Request::post(path).body(full(r#"{"trace_level":["OFF"]}"#)).unwrap();
    let model = "/v2/models/digits/trace/setting";
    let before = client.ask(get(model)).await?.json()?;
    assert_eq!(client.ask(post(model)).await?.status, StatusCode::FORBIDDEN);
    assert_eq!(client.ask(post("/v2/logging")).await?.status, StatusCode::FORBIDDEN);
    let mut client = house.client_with(Version::Http1, Some(house.control_key())).await?;
    assert_eq!(client.ask(post(model)).await?.json()?, before);
    assert!(client.ask(post("/v2/logging")).await?.error()?.contains("trace_level"));
    assert!(house.close().await);
    Ok(())
}

#[tokio::test]
async fn the_document_and_its_page_come_through_a_relay() -> Result<()> {
    let house = House::builder().agent(Plan::new("box").digits()).open().await?;
    let mut client = house.client(Version::Http2).await?;
    let document = client.ask(get("/openapi.json")).await?.json()?;
    assert_eq!(document["openapi"], "3.1.0");
    for path in ["/docs", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"] {
        let answer = client.ask(get(path)).await?;
        assert!(answer.status == StatusCode::OK && !answer.body.is_empty(), "{path}: {}", answer.status);
    }
    // As the document says of every operation.
    let mut stranger = house.client_with(Version::Http2, None).await?;
    let refused = stranger.ask(get("/openapi.json")).await?;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(document["components"]["responses"]["Error401"]["headers"].get("WWW-Authenticate").is_some());
    assert!(refused.headers.contains_key("www-authenticate"));
    assert!(house.close().await);
    Ok(())
}
