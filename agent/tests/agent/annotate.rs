//! Batches of images that come back annotated.

use adit_vision::image::{ImageLimits, decode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};

use crate::boxes::{data, photo, seeing};
use crate::house::House;

const NONE_VALID: &str = "Inputs Batch must have atleast single valid request, valid image: JPEG or PNG (< 5MB).";

fn item(image: &[u8], id: Value) -> Value {
    json!({ "image": STANDARD.encode(image), "id": id })
}

fn file(annotated: &Value) -> Vec<u8> {
    STANDARD.decode(annotated["annotated_image"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn persons_are_marked_and_others_come_back_as_they_were() {
    let Some(data) = data() else { return };
    let house = seeing(&data, |_| {}).await;
    let (person, coffee) = (photo(&data, "photos/person.jpg"), photo(&data, "photos/coffee.png"));
    let body = json!({ "input": [item(&person, json!("first")), item(&coffee, json!(2))] });
    let answer = house.post("/request", body.to_string()).await;
    assert_eq!((answer.status, answer.headers["content-type"].to_str().unwrap()), (StatusCode::OK, "application/json"));
    let body = answer.json();
    assert_eq!(body["errors"], json!({ "error_ids": [null] }));
    let [marked, unmarked] = &body["output"].as_array().unwrap()[..] else { panic!("{body}") };
    assert_eq!((&marked["id"], &unmarked["id"]), (&json!("first"), &json!("2")));
    assert_eq!(file(unmarked), coffee, "nobody is on it");

    let drawn = file(marked);
    assert!(drawn.starts_with(b"\xff\xd8\xff"));
    let [before, after] = [&person[..], &drawn].map(|bytes| decode(bytes, &ImageLimits::default()).unwrap());
    assert_eq!(before.size(), after.size());
    let [width, height] = after.size().map(|side| side as usize);
    let pixel = |x: usize, y: usize| &after.rgb()[(y * width + x) * 3..][..3];
    // The one person, at 188, 97 to 276, 371: blue at the middle of each edge, and the horse has none.
    let blue = |x: usize, y: usize| (0..5).any(|at| matches!(pixel(x + at - 2, y), [r, _, b] if *b > 200 && *r < 80));
    assert!(blue(188, 230) && blue(275, 230), "{:?}", pixel(188, 230));
    assert!((0..height).all(|y| !blue(500, y)), "only persons are marked");
    let red = (80..97)
        .flat_map(|y| (188..260).map(move |x| (x, y)))
        .filter(|(x, y)| matches!(pixel(*x, *y), [r, g, _] if *r > 200 && *g < 80));
    assert!(red.count() > 30, "its score stands above it");
    let stages: Vec<_> = answer.timing().stages().map(|(stage, _)| stage.name()).collect();
    assert!(stages.contains(&"forward") && stages.contains(&"encode"), "{stages:?}");
}

#[tokio::test]
async fn a_batch_is_one_pass_and_bad_images_are_named() {
    let Some(data) = data() else { return };
    let house = seeing(&data, |_| {}).await;
    let coffee = photo(&data, "photos/coffee.png");
    let sixteen: Vec<_> = (0..16).map(|id| item(&coffee, json!(id))).collect();
    let answer = house.post("/request", json!({ "input": sixteen }).to_string()).await.json();
    let ids: Vec<_> =
        answer["output"].as_array().unwrap().iter().map(|output| output["id"].as_str().unwrap()).collect();
    assert_eq!(ids, (0..16).map(|id| id.to_string()).collect::<Vec<_>>());
    assert_eq!(house.agent.metrics().outcomes("yolox_nano", "ok"), 1, "one inference for all");

    let truncated = &coffee[..coffee.len() / 2];
    let input = [
        item(b"GIF89a", json!("gif")),
        item(truncated, json!("cut")),
        item(&coffee, json!("good")),
        json!({ "image": "?", "id": 4 }),
    ];
    let answer = house.post("/request", json!({ "input": input }).to_string()).await;
    assert_eq!(answer.status, StatusCode::OK);
    let body = answer.json();
    assert_eq!(
        body["errors"],
        json!({ "message": "Valid Image: JPEG or PNG (<5MB).", "error_ids": ["gif", "cut", "4"] })
    );
    assert_eq!(body["output"].as_array().unwrap().len(), 1);
    assert_eq!(body["output"][0]["id"], "good");
    let cut = house.post("/request", json!({ "input": [item(truncated, json!("cut"))] }).to_string()).await;
    assert_eq!(
        (cut.status, cut.json()),
        (StatusCode::BAD_REQUEST, json!({ "message": NONE_VALID, "error_ids": ["cut"] }))
    );
}

#[tokio::test]
async fn every_refusal_is_in_its_own_words() {
    let house = House::new(&[], |config| config.api.max_body = 20_000).await;
    let png = item(b"\x89PNG\r\n\x1a\n", json!("a"));
    let many = json!({ "input": vec![&png; 17] });
    for (body, status, expected) in [
        (json!({ "input": [] }), 400, json!({ "message": NONE_VALID, "error_ids": [] })),
        (json!({ "input": [item(b"text", json!(7))] }), 400, json!({ "message": NONE_VALID, "error_ids": ["7"] })),
        (many, 406, json!({ "message": "Maximum limit for batch processing is 16 images in single req." })),
        (
            json!({ "input": [png] }),
            500,
            json!({ "message": "Internal Server Error. TF-Serving corrupted or Switched OFF." }),
        ),
        (
            json!({ "input": "x".repeat(20_000) }),
            413,
            json!({ "message": "the request body is longer than 20000 bytes" }),
        ),
        (
            json!({ "input": [{ "image": "" }] }),
            422,
            json!({ "detail": [{ "loc": ["body", "input", 0, "id"], "msg": "field required", "type": "value_error.missing" }] }),
        ),
    ] {
        let answer = house.post("/request", body.to_string()).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (status, expected));
    }
    let answer = house.post("/request", "{").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["detail"][0]["type"]), (422, &json!("value_error.jsondecode")));
}
