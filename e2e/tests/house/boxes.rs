//! The dialects of boxes through a relay, and `adit detect`, which draws what it got.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use adit_client::{ClassifyArgs, ClientError, ConnectionArgs, DetectArgs, classify_images, detect_images};
use adit_e2e::{House, Plan, Version, full};
use adit_vision::image::{ImageLimits, Pixels, decode};
use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::detect::{data, folder};

fn form(fields: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, content) in fields {
        let head = format!("--x9\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--x9--\r\n");
    ("multipart/form-data; boundary=x9".to_owned(), body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_dialect_of_boxes_is_answered_through_a_relay() -> Result<()> {
    let Some(data) = data() else { return Ok(()) };
    let models = folder(&data)?;
    let house = House::builder().agent(Plan::new("box").models(models.path()).digits()).open().await?;
    let mut client = house.client(Version::Http2).await?;
    let dog = fs::read(data.join("images/photos/dog.jpg"))?;
    let encoded = STANDARD.encode(&dog);
    let posts = |path: &str, fields: &[(&str, &[u8])]| {
        let (kind, body) = form(fields);
        Request::post(path).header("content-type", kind).body(full(body))
    };
    let names = |boxes: &Value, key: &str| -> Vec<String> {
        boxes.as_array().into_iter().flatten().map(|found| found[key].as_str().unwrap_or_default().to_owned()).collect()
    };

    let answer = client.ask(posts("/v1/vision/detection", &[("image", &dog)])?).await?.json()?;
    assert_eq!(names(&answer["predictions"], "label"), ["dog", "bicycle", "car"], "{answer}");
    let answer = client.ask(posts("/v1/vision/custom/yolox_nano", &[("image", &dog)])?).await?.json()?;
    assert_eq!(names(&answer["predictions"], "label"), ["dog", "bicycle", "car"], "{answer}");
    let refused = client.ask(posts("/v1/vision/detection", &[])?).await?;
    assert_eq!((refused.status, &refused.json()?["success"]), (StatusCode::BAD_REQUEST, &json!(false)));

    let all = ["dog", "bicycle", "car", "truck"];
    let answer = client.ask(posts("/models/yolox_nano/predict", &[("input_data", &dog)])?).await?.json()?;
    assert_eq!(names(&answer["data"]["bounding-boxes"], "ObjectClassName"), all, "{answer}");
    let answer = client.ask(posts("/detect", &[("model", b"yolox_nano"), ("image", &dog)])?).await?.json()?;
    assert_eq!(names(&answer["bounding-boxes"], "ObjectClassName"), all, "{answer}");
    let drawn = client.ask(posts("/models/yolox_nano/predict_image", &[("input_data", &dog)])?).await?;
    assert_eq!(drawn.header("content-type")?, "image/jpg");
    assert_eq!(decode(&drawn.body, &ImageLimits::default())?.size(), decode(&dog, &ImageLimits::default())?.size());

    let body = json!({ "input": [{ "image": encoded, "id": 7 }] }).to_string();
    let answer = client.ask(Request::post("/request").body(full(body))?).await?.json()?;
    assert_eq!((&answer["output"][0]["id"], &answer["output"][0]["annotated_image"]), (&json!("7"), &json!(encoded)));

    let body = json!({ "instances": [{ "data": encoded }] }).to_string();
    let answer = client.ask(Request::post("/predictions/yolox_nano").body(full(body))?).await?.json()?;
    assert_eq!(names(&answer["predictions"][0], "name"), all, "{answer}");
    assert!(house.close().await);
    Ok(())
}

/// How many pixels differ.
fn changed(one: &Pixels, other: &Pixels) -> usize {
    one.rgb().chunks_exact(3).zip(other.rgb().chunks_exact(3)).filter(|(one, other)| one != other).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_client_draws_what_it_got() -> Result<()> {
    let Some(data) = data() else { return Ok(()) };
    let models = folder(&data)?;
    let house = House::builder().agent(Plan::new("box").models(models.path()).digits()).open().await?;
    let connection = ConnectionArgs {
        url: house.url().parse()?,
        ca: Some(house.ca().to_owned()),
        key: Some(house.key().to_owned()),
        key_file: None,
        timeout: Duration::from_secs(20),
        http1: false,
    };
    let photo = |name: &str| data.join("images").join(name);
    let drawn = tempfile::tempdir()?;
    let detect = |model: &str, out: Option<PathBuf>, images: Vec<PathBuf>| -> Result<DetectArgs> {
        let (connection, model) = (connection.clone(), model.parse()?);
        Ok(DetectArgs { connection, model, version: None, confidence: 0.5, json: true, out, images })
    };
    // One upright, one stored on its side.
    let images = vec![photo("photos/coffee.png"), photo("formats/exif_orient6_landscape.jpg")];
    let args = detect("yolox_nano", Some(drawn.path().to_owned()), images.clone())?;
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let well = detect_images(&args, None, house.scope(), &mut out, &mut errors).await?;
    assert!(well && errors.is_empty(), "{}{}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&errors));
    let lines: Vec<Value> =
        String::from_utf8(out)?.lines().map(serde_json::from_str).collect::<Result<_, serde_json::Error>>()?;
    let labels: Vec<_> = lines[0]["predictions"].as_array().context("none")?.iter().map(|one| &one["label"]).collect();
    assert_eq!(labels, ["cup", "diningtable"]);
    for (line, image) in lines.iter().zip(&images) {
        let path = PathBuf::from(line["drawn"].as_str().context("not drawn")?);
        let [before, after] = [image, &path].map(|path| decode(&fs::read(path).unwrap(), &ImageLimits::default()));
        let (before, after) = (before?, after?);
        assert_eq!(before.size(), after.size());
        if path.extension().is_some_and(|ending| ending == "png") {
            let part = changed(&before, &after) as f64 / (before.rgb().len() / 3) as f64;
            assert!((0.005..0.2).contains(&part), "{part} of the pixels are drawn on");
        }
    }

    let wrong = detect("digits", None, images)?;
    let error = detect_images(&wrong, None, house.scope(), &mut Vec::new(), &mut Vec::new()).await;
    assert!(matches!(error, Err(ClientError::OtherKind { detects: false, .. })), "{error:?}");
    let (model, out) = ("yolox_nano".parse()?, None);
    let images = vec![photo("photos/coffee.png")];
    let wrong = ClassifyArgs { connection: connection.clone(), model, version: None, top: 1, json: true, out, images };
    let error = classify_images(&wrong, None, house.scope(), &mut Vec::new(), &mut Vec::new()).await;
    assert!(matches!(error, Err(ClientError::OtherKind { detects: true, .. })), "{error:?}");

    let file = drawn.path().join("seven.png");
    fs::write(&file, adit_vision::image::digit_picture(7)?)?;
    let named = drawn.path().join("named.png");
    let (model, out) = ("digits".parse()?, Some(named.clone()));
    let args = ClassifyArgs { connection, model, version: None, top: 3, json: true, out, images: vec![file.clone()] };
    assert!(classify_images(&args, None, house.scope(), &mut Vec::new(), &mut Vec::new()).await?);
    let [before, after] = [file, named].map(|path| decode(&fs::read(path).unwrap(), &ImageLimits::default()));
    let (before, after) = (before?, after?);
    assert!(changed(&before, &after) > 500, "three classes stand on it");
    let below = 3 * 14 * 320 * 3;
    assert_eq!(before.rgb()[below..], after.rgb()[below..], "and nothing else is touched");
    assert!(house.close().await);
    Ok(())
}
