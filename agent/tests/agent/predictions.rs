//! The body of Vertex AI.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::json;

use crate::boxes::{data, photo, seeing};
use crate::house::House;

#[tokio::test]
async fn instances_become_lists_of_boxes() {
    let Some(data) = data() else { return };
    let house = seeing(&data, |_| {}).await;
    let instance = |name: &str| json!({ "data": STANDARD.encode(photo(&data, name)) });
    let body = json!({ "instances": [instance("photos/dog.jpg"), instance("photos/sunflower.bmp")] });
    let answer = house.post("/predictions/yolox_nano", body.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let body = answer.json();
    let [dog, sunflower] = &body["predictions"].as_array().unwrap()[..] else { panic!("{body}") };
    assert_eq!(sunflower, &json!([]));
    let names: Vec<_> = dog.as_array().unwrap().iter().map(|found| found["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dog", "bicycle", "car", "truck"]);
    let first = &dog[0];
    assert_eq!(first["class"], 16);
    assert!((first["confidence"].as_f64().unwrap() - 0.855).abs() < 0.01);
    for (side, expected) in [("x1", 133.), ("y1", 207.), ("x2", 326.), ("y2", 543.)] {
        assert!((first["box"][side].as_f64().unwrap() - expected).abs() < 3., "{first}");
    }
}

#[tokio::test]
async fn refusals_say_why() {
    let house = House::new(&[], |_| {}).await;
    for (model, body, status, error) in [
        ("nobody", "{}", 404, "unknown model `nobody`"),
        ("digits", "{}", 400, "`digits` is a classifier and finds no boxes"),
    ] {
        let answer = house.post(&format!("/predictions/{model}"), body).await;
        assert_eq!((answer.status.as_u16(), answer.error()), (status, error.to_owned()));
    }
    let Some(data) = data() else { return };
    let house = seeing(&data, |_| {}).await;
    for (body, because) in [
        ("{", "the JSON of the message is wrong"),
        ("{}", "missing field `instances`"),
        (r#"{"instances":[]}"#, "0 instances in one request"),
        (r#"{"instances":[{"data":"%"}]}"#, "instance 0: `data` is not base64"),
        (r#"{"instances":[{"data":"aGVsbG8="}]}"#, "not a JPEG, PNG, WebP, BMP or GIF image"),
    ] {
        let answer = house.post("/predictions/yolox_nano", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(answer.error().contains(because), "{body}: {}", answer.error());
    }
}
