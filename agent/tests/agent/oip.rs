//! The Open Inference Protocol over HTTP.

use std::io::Read as _;
use std::time::Duration;

use adit_agent::config::Config;
use adit_common::oip::{
    Classification, HEADER_LENGTH, InferRequest, InferResponse, Parameters, RequestedOutput, Tensor,
};
use adit_common::timing::Stage;
use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::json;

use crate::house::{Answer, House, ask, json_image, one, stand_in};

const DIGITS: &str = "/v2/models/digits/infer";

fn keep(_: &mut Config) {}

/// The answer of a model, whichever way it is coded.
fn read(answer: &Answer) -> InferResponse {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let length = answer.headers.get(HEADER_LENGTH).map(|length| length.to_str().unwrap().parse().unwrap());
    InferResponse::parse(&answer.body, length).unwrap()
}

fn largest(row: &[f32]) -> usize {
    (0..row.len()).max_by(|one, two| row[*one].total_cmp(&row[*two])).unwrap()
}

#[tokio::test]
async fn the_built_in_model_reads_a_one_in_every_coding() {
    let house = House::new(&[], keep).await;
    let json = house.post(DIGITS, json_image(&one(), r#","id":"42""#)).await;
    let response = read(&json);
    assert_eq!(json.headers["content-type"], "application/json");
    assert_eq!((response.model_name.as_str(), response.model_version.as_deref()), ("digits", Some("1")));
    assert_eq!(response.id.as_deref(), Some("42"));
    let output = response.output("probabilities").unwrap();
    assert_eq!(output.shape(), [1, 10]);
    let expected = output.to_floats().unwrap();
    assert_eq!(largest(&expected), 1);
    assert!((expected.iter().sum::<f32>() - 1.0).abs() < 1e-5);

    // Binary both ways, two images.
    let images = Tensor::bytes("image", &[2], vec![one().into(), one().into()]).unwrap();
    let parameters = Parameters::default().with("binary_data_output", true);
    let asked = InferRequest { inputs: vec![images], parameters, ..InferRequest::default() }.encode(true).unwrap();
    let request = Request::post(DIGITS).header(HEADER_LENGTH, asked.header_length.unwrap()).body(asked.body).unwrap();
    let binary = ask(house.address(), request).await;
    assert_eq!(binary.headers["content-type"], "application/octet-stream");
    let response = read(&binary);
    assert_eq!(response.outputs[0].shape(), [2, 10]);
    let rows = response.outputs[0].to_floats().unwrap();
    assert!(rows.iter().zip(expected.iter().cycle()).all(|(one, two)| (one - two).abs() < 1e-5));

    // The image itself as the body.
    for (name, value) in [("content-type", "image/bmp"), (HEADER_LENGTH, "0")] {
        let request = Request::post(DIGITS).header(name, value).body(one().into()).unwrap();
        let raw = ask(house.address(), request).await;
        assert!(raw.headers.contains_key(HEADER_LENGTH), "raw requests are answered in binary");
        assert_eq!(read(&raw).outputs[0].to_floats().unwrap(), expected);
    }
}

#[tokio::test]
async fn bodies_and_answers_are_compressed_as_their_headers_say() {
    let house = House::new(&[], keep).await;
    let images = Tensor::bytes("image", &[32], vec![one().into(); 32]).unwrap();
    for (binary, coding) in [(true, "gzip"), (false, "deflate"), (false, "gzip"), (true, "deflate")] {
        let parameters = Parameters::default().with("binary_data_output", binary);
        let asked = InferRequest { inputs: vec![images.clone()], parameters, ..InferRequest::default() };
        let mut encoded = asked.encode(true).unwrap();
        let request =
            |body: Bytes| Request::post(DIGITS).header(HEADER_LENGTH, encoded.header_length.unwrap()).body(body);
        let plain = ask(house.address(), request(encoded.body.clone()).unwrap()).await;
        assert!(!plain.headers.contains_key("content-encoding"));
        encoded.body = pack(coding, &encoded.body);
        let mut request = request(encoded.body).unwrap();
        request.headers_mut().insert("content-encoding", coding.parse().unwrap());
        request.headers_mut().insert("accept-encoding", coding.parse().unwrap());
        let mut packed = ask(house.address(), request).await;
        assert_eq!(
            (&packed.headers["content-encoding"], &packed.headers["vary"]),
            (&coding.parse().unwrap(), &"accept-encoding".parse().unwrap())
        );
        assert!(packed.body.len() < plain.body.len() / 2, "{} of {}", packed.body.len(), plain.body.len());
        packed.body = unpack(coding, &packed.body);
        assert_eq!(read(&packed), read(&plain));
    }
    // Too short to gain anything.
    let mut short = Request::post(DIGITS).body(Bytes::from(json_image(&one(), ""))).unwrap();
    short.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
    assert!(!ask(house.address(), short).await.headers.contains_key("content-encoding"));
}

fn pack(coding: &str, body: &[u8]) -> Bytes {
    let (mut packed, effort) = (Vec::new(), flate2::Compression::default());
    match coding {
        "gzip" => flate2::read::GzEncoder::new(body, effort).read_to_end(&mut packed).unwrap(),
        _ => flate2::read::ZlibEncoder::new(body, effort).read_to_end(&mut packed).unwrap(),
    };
    packed.into()
}

fn unpack(coding: &str, body: &[u8]) -> Bytes {
    let mut whole = Vec::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(body).read_to_end(&mut whole).unwrap(),
        _ => flate2::read::ZlibDecoder::new(body).read_to_end(&mut whole).unwrap(),
    };
    whole.into()
}

#[tokio::test]
async fn the_likeliest_classes_come_with_their_labels() {
    let house = House::new(&[], keep).await;
    let outputs = r#","outputs":[{"name":"probabilities","parameters":{"classification":3}}]"#;
    let response = read(&house.post(DIGITS, json_image(&one(), outputs)).await);
    assert_eq!(response.outputs[0].shape(), [1, 3]);
    let classes = Classification::read(&response.outputs[0]).unwrap();
    assert_eq!((classes[0].index, classes[0].label.as_deref()), (1, Some("1")));
    assert!(classes[0].value > 0.9 && classes[0].value >= classes[1].value && classes[1].value >= classes[2].value);
}

#[tokio::test]
async fn a_prepared_tensor_is_taken_as_it_is() {
    let house = House::new(&[], keep).await;
    let pixels: Vec<f32> = (0..28 * 28)
        .map(|at| f32::from(u8::from((5..23).contains(&(at / 28)) && (13..16).contains(&(at % 28)))))
        .collect();
    let outputs = Some(vec![RequestedOutput { name: "probabilities".into(), parameters: Parameters::default() }]);
    let request = |shape: &[usize]| InferRequest {
        inputs: vec![Tensor::floats("input", shape, &pixels).unwrap()],
        outputs: outputs.clone(),
        ..InferRequest::default()
    };
    let response = read(&house.post(DIGITS, request(&[1, 1, 28, 28]).encode(false).unwrap().body).await);
    assert_eq!(largest(&response.outputs[0].to_floats().unwrap()), 1);
    let flat = house.post(DIGITS, request(&[1, 784]).encode(false).unwrap().body).await;
    assert_eq!(flat.status, StatusCode::BAD_REQUEST);
    assert!(flat.error().contains("expected [N, 1, 28, 28]"), "{}", flat.error());
}

#[tokio::test]
async fn every_refusal_says_why_in_json() {
    let change = |config: &mut Config| {
        config.api.max_body = 100_000;
        config.serving.max_images = 2;
    };
    let house = House::new(&[("broken", "architecture = \"lenet\"\n")], change).await;
    let three = Tensor::bytes("image", &[3], vec![Bytes::from(one()); 3]).unwrap();
    let three = InferRequest { inputs: vec![three], ..InferRequest::default() }.encode(true).unwrap();
    let three = Request::post(DIGITS).header(HEADER_LENGTH, three.header_length.unwrap()).body(three.body).unwrap();
    let post = |path: &str, body: Vec<u8>| Request::post(path).body(Bytes::from(body)).unwrap();
    let get = |path: &str| Request::get(path).body(Bytes::new()).unwrap();
    let raw = |body: &'static [u8]| {
        Request::post(DIGITS).header("content-type", "image/png").body(Bytes::from_static(body)).unwrap()
    };
    for (request, status, because) in [
        (post("/v2/models/nobody/infer", Vec::new()), 404, "unknown model `nobody`"),
        (post("/v2/models/digits/versions/7/infer", Vec::new()), 404, "unknown model `digits`, version 7"),
        (post("/v2/models/digits/versions/new/infer", Vec::new()), 404, "no version labelled `new`"),
        (post("/v2/models/digits/versions/1st/infer", Vec::new()), 400, "is not a version"),
        (post("/v2/models/%2e%2e%2fetc/infer", Vec::new()), 404, "unknown model"),
        (post("/v2/models/broken/infer", Vec::new()), 503, "it is not loaded"),
        (post(DIGITS, b"{".to_vec()), 400, "the JSON of the message is wrong"),
        (post(DIGITS, json_image(b"no image", "").into()), 400, "not a JPEG, PNG, WebP, BMP or GIF image"),
        (raw(b"\x89PNG\r\n\x1a\n truncated"), 400, "PNG"),
        (three, 400, "3 images in one request, at most 2"),
        (post(DIGITS, vec![b' '; 100_001]), 413, "longer than 100000 bytes"),
        (get(DIGITS), 405, "GET is not for"),
        (get("/v2/nothing"), 404, "nothing at /v2/nothing"),
        (get("/.adit/manifest"), 404, "nothing at"),
        (Request::post(DIGITS).header("content-encoding", "br").body(Bytes::new()).unwrap(), 415, "`br` is not taken"),
        (
            Request::post(DIGITS).header("content-encoding", "gzip").body(Bytes::from("{}")).unwrap(),
            400,
            "is not what its content-encoding says",
        ),
        (
            Request::post(DIGITS).header(HEADER_LENGTH, "9").body(Bytes::from("{}")).unwrap(),
            400,
            "the body has 2 bytes",
        ),
    ] {
        let asked = format!("{} {}", request.method(), request.uri());
        let answer = ask(house.address(), request).await;
        assert_eq!(answer.status.as_u16(), status, "{asked}: {answer:?}");
        assert!(answer.error().contains(because), "{asked}: {}", answer.error());
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503, "{asked}");
        assert!(answer.headers.contains_key("server-timing") && answer.headers.contains_key("x-request-id"), "{asked}");
    }
    assert_eq!(house.agent.metrics().outcomes("digits", "invalid"), 3);
    assert_eq!(house.metric("adit_agent_in_flight").await, 0);
}

#[tokio::test]
async fn models_and_health_are_told() {
    let models = [("broken", "architecture = \"lenet\"\n"), ("fast", &stand_in("0ms", "0ms", "0ms"))];
    let house = House::new(&models, keep).await;
    let server = house.get("/v2").await.json();
    assert_eq!((&server["name"], &server["extensions"][0]), (&json!("adit"), &json!("binary_tensor_data")));
    assert_eq!(house.get("/v2/health/live").await.json(), json!({ "live": true }));
    assert_eq!(house.get("/v2/health/ready").await.json(), json!({ "ready": true }));
    let expected = json!({
        "name": "digits", "versions": ["1"], "platform": "candle_lenet",
        "inputs": [{ "name": "image", "datatype": "BYTES", "shape": [-1, 1] }],
        "outputs": [{ "name": "probabilities", "datatype": "FP32", "shape": [-1, 10] }],
    });
    for path in ["/v2/models/digits", "/v2/models/digits/versions/1"] {
        assert_eq!(house.get(path).await.json(), expected);
    }
    assert_eq!(house.get("/v2/models/fast/ready").await.json(), json!({ "name": "fast", "ready": true }));
    let broken = house.get("/v2/models/broken/ready").await;
    assert_eq!((broken.status, &broken.json()["ready"]), (StatusCode::BAD_REQUEST, &json!(false)));
    assert_eq!(house.get("/v2/models/nobody/ready").await.status, StatusCode::NOT_FOUND);

    let index = house.post("/v2/repository/index", "{}").await.json();
    let states: Vec<_> = index.as_array().unwrap().iter().map(|entry| (&entry["name"], &entry["state"])).collect();
    let state = |name, state| (json!(name), json!(state));
    let wanted = [state("broken", "UNAVAILABLE"), state("digits", "READY"), state("fast", "READY")];
    assert_eq!(states, wanted.iter().map(|(name, state)| (name, state)).collect::<Vec<_>>());
    assert!(index[0]["reason"].as_str().unwrap().contains("[preprocess] is missing"));
    let ready = house.post("/v2/repository/index", r#"{"ready":true}"#).await.json();
    assert_eq!(ready.as_array().unwrap().len(), 2);
    assert_eq!(house.post("/v2/repository/index", "").await.json().as_array().unwrap().len(), 3);

    let metrics = house.agent.metrics().render();
    assert!(
        metrics.contains(r#"adit_agent_model_state{model="broken",version="0",state="UNAVAILABLE"} 1"#),
        "{metrics}"
    );
    let health = ask(house.agent.admin_address().unwrap(), Request::get("/healthz").body(Bytes::new()).unwrap()).await;
    assert_eq!((health.status, &health.json()["alive"]), (StatusCode::OK, &json!(true)));
}

#[tokio::test]
async fn a_configuration_tells_how_a_model_is_served() {
    let batched = format!(
        "{}max_batch = 4\nmax_delay = \"2ms\"\n[version_policy]\nspecific = [1]\n",
        stand_in("0ms", "0ms", "0ms")
    );
    let alone = format!("{}max_batch = 1\n", stand_in("0ms", "0ms", "0ms"));
    let house = House::new(&[("batched", &batched), ("alone", &alone)], |config| config.serving.queue = 50).await;
    let config = house.get("/v2/models/digits/versions/1/config").await.json();
    assert_eq!(config["name"], "digits");
    assert_eq!((&config["platform"], &config["backend"]), (&json!("candle_lenet"), &json!("candle")));
    assert_eq!(config["max_batch_size"], 32);
    let image = json!([{ "name": "image", "data_type": "TYPE_STRING", "format": "FORMAT_NONE", "dims": [1], "optional": false }]);
    assert_eq!(config["input"], image);
    assert_eq!(config["output"], json!([{ "name": "probabilities", "data_type": "TYPE_FP32", "dims": [10] }]));
    assert_eq!(config["version_policy"], json!({ "latest": { "num_versions": 1 } }));
    assert_eq!(config["dynamic_batching"]["preferred_batch_size"], json!([]));

    let config = house.get("/v2/models/batched/config").await.json();
    let batching = &config["dynamic_batching"];
    assert_eq!(
        (&batching["preferred_batch_size"], &batching["max_queue_delay_microseconds"]),
        (&json!([4]), &json!(2000))
    );
    assert_eq!((&batching["priority_levels"], &batching["default_priority_level"]), (&json!(16), &json!(2)));
    assert_eq!(batching["default_queue_policy"]["max_queue_size"], 50);
    assert_eq!(config["version_policy"], json!({ "specific": { "versions": [1] } }));
    assert_eq!(config["instance_group"], json!([{ "name": "batched", "kind": "KIND_CPU", "count": 1 }]));
    assert!(house.get("/v2/models/alone/config").await.json()["dynamic_batching"].is_null());
    assert_eq!(house.get("/v2/models/nobody/config").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn each_stage_is_timed_and_they_add_up() {
    let house = House::new(&[("timed", &stand_in("100ms", "150ms", "200ms"))], keep).await;
    let request = Request::post("/v2/models/timed/infer")
        .header("content-type", "image/jpeg")
        .header("x-request-id", "walk-7")
        .body(Bytes::from_static(b"anything"))
        .unwrap();
    let answer = ask(house.address(), request).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.headers["x-request-id"], "walk-7");
    let timing = answer.timing();
    for (stage, planted) in [(Stage::Decode, 100), (Stage::Prepare, 150), (Stage::Forward, 200)] {
        let (found, planted) = (timing.stage(stage).unwrap(), Duration::from_millis(planted));
        // Sleeping takes longer on a busy machine, never shorter; but the stages must not swap.
        assert!(
            found >= planted && found < planted + Duration::from_millis(80),
            "{}: {found:?} for {planted:?}",
            stage.name()
        );
    }
    for stage in [Stage::Queue, Stage::Interpret, Stage::Encode, Stage::Other] {
        let found = timing.stage(stage).unwrap();
        assert!(found < Duration::from_millis(80), "{}: {found:?}", stage.name());
    }
    let sum: Duration = timing.stages().map(|(_, time)| time).sum();
    assert!(timing.total().abs_diff(sum) < Duration::from_micros(20), "{timing:?}");
    assert_eq!(timing.note(), Some("cpu b=1"));
    assert!(timing.receive().is_some());
    assert!(house.agent.metrics().render().contains(r#"adit_agent_stage_seconds_count{stage="forward"} 1"#));
}
