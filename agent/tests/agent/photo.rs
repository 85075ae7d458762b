//! The photo dialect: `GET /` and `POST /photo`.

use http::StatusCode;
use serde_json::json;

use crate::house::{House, one, stand_in};

#[tokio::test]
async fn an_image_is_told_in_a_sentence() {
    let house = House::new(&[], |_| {}).await;
    let answer = house.post("/photo", one()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["content-length"], answer.body.len().to_string().as_str());
    let body = answer.json();
    assert_eq!(body["message"], "success");
    let sentence = body["inference"].as_str().unwrap();
    let confidence = sentence.strip_prefix("Class = 1, Confidence = ").unwrap_or_else(|| panic!("{sentence}"));
    assert_eq!(confidence.len(), "0.999".len());
    assert!(confidence.parse::<f32>().unwrap() > 0.9);
    assert!(answer.headers["server-timing"].to_str().unwrap().contains("forward;dur="));

    let broken = house.post("/photo", "no image").await;
    assert_eq!(broken.status, StatusCode::BAD_REQUEST);
    assert_eq!(broken.error(), "not a JPEG, PNG, WebP, BMP or GIF image");
}

#[tokio::test]
async fn the_configured_model_answers() {
    let models = [
        ("another", &*stand_in("0ms", "0ms", "0ms")),
        ("chosen", "architecture = \"stand_in\"\n[stand_in]\nclasses = 1\n"),
    ];
    let house = House::new(&models, |config| config.serving.default_model = Some("chosen".parse().unwrap())).await;
    let body = house.post("/photo", "anything").await.json();
    assert_eq!(body, json!({ "inference": "Class = class 0, Confidence = 1.000", "message": "success" }));
    let house = House::new(&models, |config| config.serving.embedded = Some(false)).await;
    let sentence = house.post("/photo", "anything").await.json()["inference"].to_string();
    assert!(sentence.contains("Confidence = 0.551"), "the first by name, which has ten classes: {sentence}");
}

#[tokio::test]
async fn a_visitor_is_told_who_asks_whom() {
    let house = House::new(&[], |_| {}).await;
    let answer = house.get("/").await;
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let rest = text.strip_prefix("Request:127.0.0.1,").unwrap_or_else(|| panic!("{text}"));
    let (port, rest) = rest.split_once("; HOST:agent.test; Hostname:").unwrap_or_else(|| panic!("{text}"));
    assert!(port.parse::<u16>().unwrap() > 0);
    assert!(rest.len() > 2 && rest.ends_with("\r\n"), "{text:?}");
}
