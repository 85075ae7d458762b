//! DeepStack and CodeProject.AI.

use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::boxes::{Form, data, photo, seeing};
use crate::house::{Answer, House, ask, one};

/// The keys of an object, in the order in which they were written.
fn keys(answer: &Answer) -> Vec<String> {
    let text = std::str::from_utf8(&answer.body).unwrap();
    let mut object: Vec<(usize, String)> = answer
        .json()
        .as_object()
        .unwrap()
        .keys()
        .map(|key| (text.find(&format!("\"{key}\":")).unwrap(), key.clone()))
        .collect();
    object.sort();
    object.into_iter().map(|(_, key)| key).collect()
}

fn labels(answer: &Answer) -> Vec<String> {
    let predictions = answer.json()["predictions"].as_array().cloned().unwrap();
    predictions.iter().map(|prediction| prediction["label"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn objects_come_with_the_fields_of_both_systems() {
    let Some(data) = data() else { return };
    let house = seeing(&data, |_| {}).await;
    let dog = photo(&data, "photos/dog.jpg");
    let answer = Form::default().file("image", "image", &dog).post(&house, "/v1/vision/detection").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let body = answer.json();
    assert_eq!((&body["success"], &body["count"], &body["duration"]), (&json!(true), &json!(3), &json!(0)));
    assert_eq!(labels(&answer), ["dog", "bicycle", "car"], "surest first; a truck at 0.31 is below 0.4");
    assert_eq!(body["message"], "Found dog, bicycle, car");
    assert_eq!((&body["moduleId"], &body["inferenceDevice"]), (&json!("yolox_nano"), &json!("CPU")));
    for time in ["inferenceMs", "processMs", "analysisRoundTripMs"] {
        assert!(body[time].is_u64(), "{time}: {body}");
    }
    assert!(body["inferenceMs"].as_u64() <= body["processMs"].as_u64(), "{body}");
    assert_eq!(keys(&answer)[..3], ["success", "predictions", "count"]);
    let first = &body["predictions"][0];
    assert!((first["confidence"].as_f64().unwrap() - 0.855).abs() < 0.01, "{first}");
    for (side, expected) in [("x_min", 133), ("y_min", 207), ("x_max", 326), ("y_max", 543)] {
        let found = first[side].as_i64().unwrap_or_else(|| panic!("whole pixels: {first}"));
        assert!((found - expected).abs() <= 3, "{side}: {first}");
    }
    assert!(answer.timing().stages().count() > 4, "{:?}", answer.timing());

    let ask = async |least: &str| {
        let form = Form::default().text("min_confidence", least).text("api_key", "k").file("image", "", &dog);
        form.post(&house, "/v1/vision/custom/yolox_nano").await
    };
    assert_eq!(labels(&ask("0.0").await), ["dog", "bicycle", "car", "truck"], "the model's own least is 0.3");
    assert_eq!(labels(&ask("0.85").await), ["dog"]);
    let none = ask("1").await.json();
    assert_eq!(
        (&none["success"], &none["predictions"], &none["message"]),
        (&json!(true), &json!([]), &json!("No objects found"))
    );
}

#[tokio::test]
async fn twenty_at_most_are_told() {
    let Some(data) = data() else { return };
    let house = seeing(&data, |_| {}).await;
    let file = house.models.path().join("yolox_nano/model.toml");
    let spec = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, spec.replace("confidence = 0.3", "confidence = 0.05")).unwrap();
    assert_eq!(house.get("/models/yolox_nano/load").await.status, StatusCode::OK);
    let crowd = photo(&data, "photos/crowd.jpg");
    let answer = Form::default()
        .file("image", "i", &crowd)
        .text("min_confidence", "0")
        .post(&house, "/v1/vision/detection")
        .await;
    assert_eq!(labels(&answer).len(), 20);
    let scores: Vec<_> =
        answer.json()["predictions"].as_array().unwrap().iter().map(|p| p["confidence"].as_f64()).collect();
    assert!(scores.is_sorted_by(|one, two| one >= two), "{scores:?}");
}

#[tokio::test]
async fn faces_scenes_and_names() {
    let Some(data) = data() else { return };
    let house = seeing(&data, |_| {}).await;
    let face = photo(&data, "photos/face.jpg");
    let answer = Form::default().file("image", "i", &face).post(&house, "/v1/vision/face").await;
    assert!(!labels(&answer).is_empty() && labels(&answer).iter().all(|label| label == "face"), "{answer:?}");
    assert_eq!(answer.json()["moduleId"], "ultraface_rfb320");

    let scene = Form::default().file("image", "i", &one()).post(&house, "/v1/vision/scene").await.json();
    assert_eq!((&scene["success"], &scene["label"]), (&json!(true), &json!("1")));
    assert!(scene["confidence"].as_f64().unwrap() > 0.9, "{scene}");

    let list = house.post("/v1/vision/listmodels", "").await.json();
    let names: Vec<&Value> = list["models"].as_array().unwrap().iter().map(|model| &model["name"]).collect();
    assert_eq!(names, ["ultraface_rfb320", "yolox_nano"]);
    assert_eq!(
        house.post("/v1/vision/custom/list", "").await.json()["models"],
        json!(["ultraface_rfb320", "yolox_nano"])
    );
}

#[tokio::test]
async fn every_refusal_is_in_its_own_words() {
    let house = House::new(&[], |config| config.api.max_body = 20_000).await;
    let form = || Form::default().file("image", "image", &one());
    for (request, status, error) in [
        (Form::default().request("/v1/vision/detection"), 400, "No valid image file found"),
        (form().text("min_confidence", "1.1").request("/v1/vision/detection"), 400, "Invalid value for min_confidence"),
        (
            form().text("min_confidence", "much").request("/v1/vision/detection"),
            400,
            "Invalid value for min_confidence",
        ),
        (form().text("min_confidence", "nan").request("/v1/vision/detection"), 400, "Invalid value for min_confidence"),
        (form().request("/v1/vision/detection"), 403, "Detection endpoint not activated"),
        (form().request("/v1/vision/face"), 403, "Face endpoint not activated"),
        (form().request("/v1/vision/custom/nobody"), 404, "unknown model `nobody`"),
        (form().request("/v1/vision/custom/digits"), 400, "`digits` is a classifier and finds no boxes"),
        (Form::default().file("image", "i", b"text").request("/v1/vision/scene"), 400, "invalid image file"),
        (
            Form::default().file("image", "i", &[0; 20_000]).request("/v1/vision/scene"),
            413,
            "the request body is longer than 20000 bytes",
        ),
        (
            Request::post("/v1/vision/scene")
                .header("content-type", "multipart/form-data; boundary=x")
                .body("--x".into())
                .unwrap(),
            400,
            "the form is broken: incomplete multipart stream",
        ),
        (Request::post("/v1/vision/scene").body("no form".into()).unwrap(), 400, "No valid image file found"),
    ] {
        let path = request.uri().clone();
        let answer = ask(house.address(), request).await;
        let body = answer.json();
        assert_eq!((answer.status.as_u16(), body["error"].as_str()), (status, Some(error)), "{path}: {answer:?}");
        assert_eq!(
            (&body["success"], &body["duration"], &body["code"]),
            (&json!(false), &json!(0), &json!(status)),
            "{path}"
        );
    }
    let late = Form::default().file("image", "i", &one()).request("/v1/vision/scene");
    let (mut head, body) = late.into_parts();
    head.headers.insert("adit-budget", "0".parse().unwrap());
    let answer = ask(house.address(), Request::from_parts(head, body)).await;
    assert_eq!((answer.status.as_u16(), answer.error()), (500, "failed to process request before timeout".to_owned()));
}
