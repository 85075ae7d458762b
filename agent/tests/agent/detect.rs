//! Detection in an envelope.

use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::boxes::{Form, data, photo, seeing};
use crate::house::{Answer, House, ask, one, start};

fn told(answer: &Answer) -> Value {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let body = answer.json();
    assert_eq!(
        (&body["error"], &body["success"], body.as_object().unwrap().len()),
        (&json!(""), &json!(true), 3),
        "{body}"
    );
    body["data"].clone()
}

fn names(boxes: &Value) -> Vec<&str> {
    boxes["bounding-boxes"].as_array().unwrap().iter().map(|found| found["ObjectClassName"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_model_is_asked_by_name_or_by_uuid() {
    let Some(data) = data() else { return };
    let house = seeing(&data, |_| {}).await;
    let ids = house.get("/load").await.json();
    assert_eq!(
        ids.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["digits", "pretender", "ultraface_rfb320", "yolox_nano"]
    );
    // python3 -c 'import uuid; print(uuid.uuid5(uuid.NAMESPACE_DNS, "yolox_nano.adit"))'
    let id = ids["yolox_nano"].as_str().unwrap().to_owned();
    assert_eq!(id, "ac505a43-f731-5418-bc79-31902162509a");
    let dog = photo(&data, "photos/dog.jpg");
    let mut answers = Vec::new();
    for model in ["yolox_nano", &id] {
        let answer = Form::default().text("model", model).file("image", "dog.jpg", &dog).post(&house, "/detect").await;
        assert_eq!(names(&answer.json()), ["dog", "bicycle", "car", "truck"], "{answer:?}");
        answers.push(answer.json());
        let predicted =
            Form::default().file("input_data", "dog.jpg", &dog).post(&house, &format!("/models/{model}/predict")).await;
        answers.push(told(&predicted));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let first = &answers[0]["bounding-boxes"][0];
    assert_eq!(first.as_object().unwrap().len(), 4);
    assert!((first["confidence"].as_f64().unwrap() - 85.5).abs() < 1.0, "{first}");
    assert_eq!(first["ObjectClassId"], 16);
    for (side, expected) in [("left", 133), ("top", 207), ("right", 326), ("bottom", 543)] {
        let found = first["coordinates"][side].as_i64().unwrap_or_else(|| panic!("whole pixels: {first}"));
        assert!((found - expected).abs() <= 3, "{side}: {first}");
    }
}

#[tokio::test]
async fn a_batch_keeps_its_order_and_names() {
    let Some(data) = data() else { return };
    let house = seeing(&data, |config| config.serving.max_images = 2).await;
    let (dog, coffee) = (photo(&data, "photos/dog.jpg"), photo(&data, "photos/coffee.png"));
    let form = Form::default().file("input_data", "a.jpg", &dog).file("input_data", "b.png", &coffee);
    let answer = form.file("input_data", "c.jpg", &dog).post(&house, "/models/yolox_nano/predict_batch").await;
    let rows = told(&answer);
    let rows: Vec<_> =
        rows.as_array().unwrap().iter().map(|row| (row["ImageName"].as_str().unwrap(), names(row))).collect();
    let dog = || vec!["dog", "bicycle", "car", "truck"];
    assert_eq!(rows, [("a.jpg", dog()), ("b.png", vec!["cup", "diningtable"]), ("c.jpg", dog())]);
}

#[tokio::test]
async fn models_are_described_and_their_confidence_is_read_again() {
    let Some(data) = data() else { return };
    let house = seeing(&data, |config| config.serving.watch = std::time::Duration::ZERO).await;
    assert_eq!(
        told(&house.get("/models").await),
        json!({ "models": ["digits", "pretender", "ultraface_rfb320", "yolox_nano"] })
    );
    let labels = told(&house.get("/models/yolox_nano/labels").await);
    assert_eq!((labels.as_array().unwrap().len(), &labels[0]), (80, &json!("person")));
    assert_eq!(told(&house.get("/models/ultraface_rfb320/labels").await), json!(["face"]));
    let config = told(&house.get("/models/yolox_nano/config").await);
    assert_eq!(config, json!({ "framework": "candle", "type": "detection", "network": "yolox_nano" }));
    for kind in ["application/x-www-form-urlencoded", ""] {
        let request =
            Request::post("/get_labels").header("content-type", kind).body("model=ultraface_rfb320".into()).unwrap();
        let answer = ask(house.address(), request).await;
        if kind.is_empty() {
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        } else {
            let ids = answer.json();
            assert_eq!(ids.as_object().unwrap().len(), 1);
            assert_eq!(ids["face"].as_str().unwrap().len(), 36);
        }
    }

    let dog = photo(&data, "photos/dog.jpg");
    let predict = async || {
        let form = Form::default().file("input_data", "dog.jpg", &dog);
        told(&form.post(&house, "/models/yolox_nano/predict").await)["bounding-boxes"].as_array().unwrap().len()
    };
    assert_eq!(predict().await, 4);
    let file = house.models.path().join("yolox_nano/model.toml");
    let spec = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, spec.replace("confidence = 0.3", "confidence = 0.802\nmax_detections = 9")).unwrap();
    let loaded = house.get("/models/yolox_nano/load?force=true").await;
    assert_eq!(loaded.json(), json!({ "data": null, "error": "", "success": true }));
    assert_eq!(predict().await, 2);
}

#[tokio::test]
async fn drawn_pictures_do_not_meet() {
    let Some(data) = data() else { return };
    let house = seeing(&data, |_| {}).await;
    let (dog, coffee) = (photo(&data, "photos/dog.jpg"), photo(&data, "photos/coffee.png"));
    let form =
        |image: &[u8]| Form::default().file("input_data", "i", image).request("/models/yolox_nano/predict_image");
    let limits = adit_vision::image::ImageLimits::default();
    // Many at one time: each gets its own.
    let asked: Vec<_> =
        (0..8).map(|turn| start(house.address(), form(if turn % 2 == 0 { &dog } else { &coffee }))).collect();
    let mut drawn = Vec::new();
    for answer in asked {
        let answer = answer.await.unwrap();
        assert_eq!((answer.status, answer.headers["content-type"].to_str().unwrap()), (StatusCode::OK, "image/jpg"));
        assert!(answer.body.starts_with(b"\x89PNG"), "as the original has it");
        drawn.push(answer.body);
    }
    for (turn, body) in drawn.iter().enumerate() {
        let original = adit_vision::image::decode(if turn % 2 == 0 { &dog } else { &coffee }, &limits).unwrap();
        let picture = adit_vision::image::decode(body, &limits).unwrap();
        assert_eq!(picture.size(), original.size());
        let pixels = picture.rgb().chunks_exact(3).zip(original.rgb().chunks_exact(3));
        let changed = pixels.filter(|(one, other)| one != other).count() as f64 / (original.rgb().len() / 3) as f64;
        assert!((0.001..0.2).contains(&changed), "{changed} of the pixels");
        assert_eq!(*body, drawn[turn % 2]);
    }
    for (accept, magic) in [("image/png", &b"\x89PNG"[..]), ("image/jpeg", b"\xff\xd8\xff")] {
        let (mut head, body) = form(&dog).into_parts();
        head.headers.insert("accept", accept.parse().unwrap());
        let answer = ask(house.address(), Request::from_parts(head, body)).await;
        assert!(answer.headers["content-type"] == accept && answer.body.starts_with(magic), "{accept}");
    }
    // Drawn as it is to be seen: stored on its side, with the boxes of the upright picture.
    let turned = photo(&data, "formats/exif_orient6_landscape.jpg");
    let upright = adit_vision::image::decode(&turned, &limits).unwrap();
    let picture = ask(house.address(), form(&turned)).await.body;
    assert_eq!(adit_vision::image::decode(&picture, &limits).unwrap().size(), upright.size());
}

#[tokio::test]
async fn what_goes_wrong_is_told_in_the_envelope() {
    let broken = [("broken", "architecture = \"lenet\"\n")];
    let house = House::new(&broken, |config| config.api.max_body = 20_000).await;
    let image = || Form::default().file("input_data", "i", &one());
    let get = |path: &str| Request::get(path).body(bytes::Bytes::new()).unwrap();
    for (request, status, error) in [
        (image().request("/models/nobody/predict"), 200, "Model not found"),
        (image().request("/models/%2e%2e/predict_batch"), 200, "Model not found"),
        (image().request("/models/broken/predict"), 200, "Error loading model"),
        (
            image().request("/models/digits/predict_image"),
            200,
            "Invalid model configuration: digits is a classifier, not a detector",
        ),
        (Form::default().text("model", "nobody").file("image", "i", &one()).request("/detect"), 200, "Model not found"),
        (Form::default().text("model", "nobody").request("/get_labels"), 200, "Model not found"),
        (get("/models/nobody/labels"), 200, "Model not found"),
        (get("/models/nobody/config"), 200, "Model not found"),
        (get("/models/nobody/load"), 200, "Model not found"),
        (get("/models/broken/load?force=true"), 200, "Error loading model"),
        (
            Form::default().file("input_data", "i", &[0; 20_000]).request("/models/digits/predict"),
            413,
            "the request body is longer than 20000 bytes",
        ),
    ] {
        let path = request.uri().clone();
        let answer = ask(house.address(), request).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {answer:?}");
        assert_eq!(answer.json(), json!({ "data": null, "error": error, "success": false }), "{path}");
    }
    for (request, field) in [
        (Form::default().file("image", "i", &one()).request("/detect"), "model"),
        (Form::default().text("model", "digits").request("/detect"), "image"),
        (Form::default().request("/get_labels"), "model"),
        (Form::default().request("/models/digits/predict"), "input_data"),
    ] {
        let answer = ask(house.address(), request).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        let detail = json!([{ "loc": ["body", field], "msg": "field required", "type": "value_error.missing" }]);
        assert_eq!(answer.json(), json!({ "detail": detail }));
    }
    let Some(data) = data() else { return };
    let house = seeing(&data, |_| {}).await;
    let broken =
        Form::default().file("input_data", "a", &photo(&data, "photos/dog.jpg")).file("input_data", "b", b"no image");
    let answer = broken.post(&house, "/models/yolox_nano/predict_batch").await;
    assert_eq!(
        answer.json(),
        json!({ "data": null, "error": "Invalid input data: corrupted image", "success": false })
    );
}
