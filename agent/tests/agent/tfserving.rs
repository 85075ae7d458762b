//! TensorFlow Serving's dialect, over HTTP with JSON and over gRPC, as its clients send it byte by byte.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use adit_agent::config::Config;
use adit_proto::tensorflow::serving as proto;
use adit_proto::tensorflow::tensor_shape_proto::Dim;
use adit_proto::tensorflow::{
    BytesList, DataType, Example, Feature, Features, FloatList, TensorProto, TensorShapeProto, feature,
};
use adit_vision::image::{ImageLimits, decode, digit_picture};
use adit_vision::train::{Digits, Part};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use proto::model_spec::VersionChoice;
use proto::model_version_status::State;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::house::{Answer, House, LIMIT, json_image, stand_in};

const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";
const CLASSIFY: &str = "/tensorflow.serving.PredictionService/Classify";
const REGRESS: &str = "/tensorflow.serving.PredictionService/Regress";
const MULTI: &str = "/tensorflow.serving.PredictionService/MultiInference";
const METADATA: &str = "/tensorflow.serving.PredictionService/GetModelMetadata";
const STATUS: &str = "/tensorflow.serving.ModelService/GetModelStatus";
const RELOAD: &str = "/tensorflow.serving.ModelService/HandleReloadConfigRequest";

/// The numbers of gRPC's codes.
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const UNIMPLEMENTED: i32 = 12;

fn keep(_: &mut Config) {}

/// One call: the message behind a byte that says it is not compressed and four with its length, over HTTP/2.
async fn call<A: Message + Default>(
    address: SocketAddr,
    path: &str,
    message: &impl Message,
) -> Result<A, (i32, String)> {
    let calling = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let connection = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, driver) = connection.await.unwrap();
        let driver = tokio::spawn(driver);
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(message.encoded_len() as u32);
        message.encode(&mut body).unwrap();
        let request = Request::post(format!("http://{address}{path}"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let response = sender.send_request(request.body(Full::new(body.freeze())).unwrap()).await.unwrap();
        assert_eq!(
            (response.status(), response.headers()["content-type"].as_bytes()),
            (StatusCode::OK, &b"application/grpc"[..])
        );
        // An error without an answer has its status in the head.
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().unwrap_or(&head.headers).clone();
        driver.abort();
        let code: i32 = trailers["grpc-status"].to_str().unwrap().parse().unwrap();
        if code != 0 {
            let text = trailers.get("grpc-message").map_or("", |text| text.to_str().unwrap());
            return Err((code, percent_decoded(text)));
        }
        let mut bytes = body.to_bytes();
        assert_eq!(bytes.get_u8(), 0);
        assert_eq!(bytes.get_u32() as usize, bytes.len());
        Ok(A::decode(bytes).unwrap())
    };
    timeout(LIMIT, calling).await.expect("an answer in time")
}

fn percent_decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

fn spec(model: &str) -> proto::ModelSpec {
    proto::ModelSpec { name: model.into(), ..Default::default() }
}

fn tensor(datatype: DataType, shape: &[i64]) -> TensorProto {
    let dim = shape.iter().map(|size| Dim { size: *size, name: String::new() }).collect();
    TensorProto {
        dtype: datatype.into(),
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        ..Default::default()
    }
}

/// As numpy gives its numbers to TensorFlow.
fn content(shape: &[i64], numbers: &[f32]) -> TensorProto {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    TensorProto { tensor_content: bytes.into(), ..tensor(DataType::DtFloat, shape) }
}

fn asked(model: &str, input: &str, tensor: TensorProto) -> proto::PredictRequest {
    proto::PredictRequest {
        model_spec: Some(spec(model)),
        inputs: HashMap::from([(input.to_owned(), tensor)]),
        output_filter: vec![],
    }
}

async fn predict(house: &House, request: &proto::PredictRequest) -> Result<proto::PredictResponse, (i32, String)> {
    call(house.address(), PREDICT, request).await
}

fn largest(row: &[f32]) -> usize {
    (0..row.len()).max_by(|one, two| row[*one].total_cmp(&row[*two])).unwrap()
}

/// A drawn digit as its clients prepare it: bright on dark, 28 x 28, from 0 to 1.
fn drawn(digit: u8) -> Vec<f32> {
    let preprocess = r#"{ "size": [28, 28], "resize": "digit", "channels": "grey", "invert": "auto" }"#;
    let picture = decode(&digit_picture(digit).unwrap(), &ImageLimits::default()).unwrap();
    adit_vision::image::prepare(&picture, &serde_json::from_str(preprocess).unwrap()).unwrap()
}

fn data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if !folder.is_dir() {
        println!("skipped: ../shared/data is not there");
        return None;
    }
    Some(folder.canonicalize().unwrap())
}

/// Digits that people wrote where they are to be had, and drawn ones.
fn digits() -> Vec<(usize, Vec<f32>)> {
    let mut all: Vec<_> = (0..10).map(|digit| (usize::from(digit), drawn(digit))).collect();
    if let Some(data) = data() {
        let written = Digits::read(&data.join("mnist"), Part::Test).unwrap();
        all.extend((0..20).map(|index| {
            let pixels = written.image(index).iter().map(|byte| f32::from(*byte) / 255.0).collect();
            (usize::from(written.label(index)), pixels)
        }));
    }
    all
}

#[tokio::test]
async fn the_reference_client_gets_its_digit_in_float_val() {
    let house = House::new(&[], keep).await;
    let digits = digits();
    let mut right = 0;
    for (digit, pixels) in &digits {
        let answer =
            predict(&house, &asked("digits", "flatten_input", content(&[1, 28, 28, 1], pixels))).await.unwrap();
        let output = &answer.outputs["dense"];
        assert_eq!((answer.outputs.len(), output.dtype(), output.tensor_content.len()), (1, DataType::DtFloat, 0));
        let dims: Vec<_> = output.tensor_shape.as_ref().unwrap().dim.iter().map(|dim| dim.size).collect();
        assert_eq!((dims, output.float_val.len()), (vec![1, 10], 10));
        right += usize::from(largest(&output.float_val) == *digit);
        let spec = answer.model_spec.unwrap();
        assert_eq!((spec.name.as_str(), spec.signature_name.as_str()), ("digits", "serving_default"));
        assert_eq!(spec.version_choice, Some(VersionChoice::Version(1)));
    }
    println!("{right} of {} digits are read right", digits.len());
    assert!(right + 1 >= digits.len(), "{right} of {}", digits.len());
}

#[tokio::test]
async fn a_tensor_is_the_same_in_every_writing() {
    let house = House::new(&[], keep).await;
    let pixels = drawn(3);
    let typed = |shape| TensorProto { float_val: pixels.clone(), ..tensor(DataType::DtFloat, shape) };
    let doubles = TensorProto {
        double_val: pixels.iter().map(|pixel| f64::from(*pixel)).collect(),
        ..tensor(DataType::DtDouble, &[1, 784])
    };
    let bytes: Vec<u8> = pixels.iter().map(|pixel| (pixel * 255.0).round() as u8).collect();
    let bytes = TensorProto { tensor_content: bytes.into(), ..tensor(DataType::DtUint8, &[28, 28]) };
    let image = |image: Vec<u8>| TensorProto { string_val: vec![image.into()], ..tensor(DataType::DtString, &[1]) };
    let expected = predict(&house, &asked("digits", "flatten_input", content(&[28, 28], &pixels))).await.unwrap();
    let expected = &expected.outputs["dense"].float_val;
    assert_eq!(largest(expected), 3);
    for (input, tensor) in [
        ("flatten_input", typed(&[28, 28])),
        ("flatten_input", typed(&[1, 28, 28])),
        ("flatten_input", doubles),
        ("flatten_input", bytes),
        ("image", image(digit_picture(3).unwrap())),
        ("image", image(STANDARD.encode(digit_picture(3).unwrap()).into())),
    ] {
        let answer = predict(&house, &asked("digits", input, tensor.clone())).await.unwrap();
        let found = &answer.outputs["dense"].float_val;
        let far = found.iter().zip(expected).map(|(one, two)| (one - two).abs()).fold(0.0, f32::max);
        assert!(far < 1e-4, "{:?} {input}: {found:?}, not {expected:?}", tensor.dtype());
    }
    // Two, and one value for all.
    let both = [drawn(4), drawn(9)].concat();
    let answer = predict(&house, &asked("digits", "flatten_input", content(&[2, 28, 28], &both))).await.unwrap();
    let rows = &answer.outputs["dense"].float_val;
    assert_eq!((largest(&rows[..10]), largest(&rows[10..])), (4, 9));
    let dark = TensorProto { float_val: vec![0.0], ..tensor(DataType::DtFloat, &[3, 28, 28]) };
    let answer = predict(&house, &asked("digits", "flatten_input", dark)).await.unwrap();
    assert_eq!(answer.outputs["dense"].float_val.len(), 30);
}

#[tokio::test]
async fn what_cannot_be_answered_is_said_in_tensorflows_words() {
    let small = |config: &mut Config| config.api.max_body = 64 << 10;
    let house = House::new(&[("other", &stand_in("0s", "0s", "0s"))], small).await;
    let good = || content(&[1, 28, 28], &[0.0; 784]);
    let of = |version_choice| proto::ModelSpec { version_choice, ..spec("digits") };
    let label = |label: &str| Some(VersionChoice::VersionLabel(label.into()));
    let request = |model_spec| proto::PredictRequest { model_spec, ..asked("", "flatten_input", good()) };
    let filter = |name: &str| {
        let output_filter = vec![name.to_owned()];
        proto::PredictRequest { output_filter, ..asked("digits", "flatten_input", good()) }
    };
    let signature = proto::ModelSpec { signature_name: "train".into(), ..spec("digits") };
    let many = TensorProto { float_val: vec![0.5], ..tensor(DataType::DtFloat, &[1 << 20, 28, 28]) };
    let neither = proto::PredictRequest { inputs: HashMap::new(), ..asked("digits", "", good()) };
    for (request, code, because) in [
        (asked("nobody", "x", good()), NOT_FOUND, "Servable not found for request: Latest(nobody)"),
        (
            request(Some(of(Some(VersionChoice::Version(7))))),
            NOT_FOUND,
            "Servable not found for request: Specific(digits, 7)",
        ),
        (request(Some(of(label("stable")))), INVALID_ARGUMENT, "Unrecognized servable version label: stable"),
        (request(None), INVALID_ARGUMENT, "Missing ModelSpec"),
        (request(Some(signature)), FAILED_PRECONDITION, "Serving signature key \"train\" not found."),
        (
            filter("logits"),
            INVALID_ARGUMENT,
            "output tensor alias not found in signature: logits Outputs expected to be in the set {dense}.",
        ),
        (
            asked("digits", "conv", good()),
            INVALID_ARGUMENT,
            "Sent extra: {conv}. Missing but required: {flatten_input}",
        ),
        (asked("digits", "image", good()), INVALID_ARGUMENT, "`image` is DT_STRING"),
        (
            asked("digits", "flatten_input", content(&[1, 28, 27], &[0.0; 756])),
            INVALID_ARGUMENT,
            "expected [N, 28, 28, 1]",
        ),
        (
            asked("digits", "flatten_input", content(&[1, 28, 28], &[0.0; 7])),
            INVALID_ARGUMENT,
            "tensor_content has 28 bytes",
        ),
        (asked("digits", "flatten_input", many), RESOURCE_EXHAUSTED, "a tensor of more than 65536 bytes"),
        (asked("digits", "flatten_input", tensor(DataType::DtInt64, &[1])), INVALID_ARGUMENT, "not DT_INT64"),
        (
            asked("digits", "flatten_input", content(&[28, 28], &[f32::NAN; 784])),
            INVALID_ARGUMENT,
            "the number NaN, which no picture has",
        ),
        (asked("digits", "flatten_input", content(&[28, 28], &[1e30; 784])), INVALID_ARGUMENT, "the number 1e30,"),
        (asked("digits", "flatten_input", content(&[0, 28, 28], &[])), INVALID_ARGUMENT, "there is no image"),
        (neither, INVALID_ARGUMENT, "a request has one input"),
    ] {
        let (found, text) = predict(&house, &request).await.unwrap_err();
        assert!(found == code && text.contains(because), "{because}: {found} {text}");
    }
    let answer = predict(&house, &filter("dense")).await.unwrap();
    assert!(answer.outputs.contains_key("dense"));
    // A number where a label belongs, as one client's single option has it.
    assert!(predict(&house, &request(Some(of(label("1"))))).await.is_ok());
}

fn feature(kind: feature::Kind) -> Example {
    let feature = HashMap::from([("image".to_owned(), Feature { kind: Some(kind) })]);
    Example { features: Some(Features { feature }) }
}

fn examples(examples: Vec<Example>) -> Option<proto::Input> {
    Some(proto::Input { kind: Some(proto::input::Kind::ExampleList(proto::ExampleList { examples })) })
}

#[tokio::test]
async fn examples_are_classified_and_nothing_is_regressed() {
    let house = House::new(&[], keep).await;
    let encoded = |digit| {
        let value = vec![Bytes::from(digit_picture(digit).unwrap())];
        feature(feature::Kind::BytesList(BytesList { value }))
    };
    let numbers = |digit| feature(feature::Kind::FloatList(FloatList { value: drawn(digit) }));
    for input in [examples(vec![encoded(5), encoded(2)]), examples(vec![numbers(5), numbers(2)])] {
        let request = proto::ClassificationRequest { model_spec: Some(spec("digits")), input };
        let answer: proto::ClassificationResponse = call(house.address(), CLASSIFY, &request).await.unwrap();
        let rows = answer.result.unwrap().classifications;
        let best = |row: &proto::Classifications| {
            row.classes.iter().max_by(|one, two| one.score.total_cmp(&two.score)).unwrap().label.clone()
        };
        assert_eq!(rows.iter().map(best).collect::<Vec<_>>(), ["5", "2"]);
        assert_eq!(rows[0].classes.len(), 10);
    }
    let task = |method: &str| proto::InferenceTask { model_spec: Some(spec("digits")), method_name: method.into() };
    let multi = |methods: &[&str]| proto::MultiInferenceRequest {
        tasks: methods.iter().map(|method| task(method)).collect(),
        input: examples(vec![encoded(8)]),
    };
    let classify = "tensorflow/serving/classify";
    let answer: proto::MultiInferenceResponse =
        call(house.address(), MULTI, &multi(&[classify, classify])).await.unwrap();
    assert_eq!(answer.results.len(), 2);
    let regress = "tensorflow/serving/regress";
    let refused = "Expected regression signature method_name to be tensorflow/serving/regress. Was: \
                   tensorflow/serving/predict";
    let error = call::<proto::MultiInferenceResponse>(house.address(), MULTI, &multi(&[classify, regress])).await;
    assert_eq!(error, Err((INVALID_ARGUMENT, refused.to_owned())));
    let request = proto::RegressionRequest { model_spec: Some(spec("digits")), input: examples(vec![encoded(1)]) };
    let error = call::<proto::RegressionResponse>(house.address(), REGRESS, &request).await;
    assert_eq!(error, Err((INVALID_ARGUMENT, refused.to_owned())));
    for (input, because) in [
        (None, "Input is empty."),
        (examples(vec![encoded(1), numbers(1)]), "some examples are encoded pictures and some are numbers"),
        (examples(vec![Example::default()]), "example 0: expected one feature"),
    ] {
        let request = proto::ClassificationRequest { model_spec: Some(spec("digits")), input };
        let error = call::<proto::ClassificationResponse>(house.address(), CLASSIFY, &request).await.unwrap_err();
        assert!(error.1.contains(because), "{error:?}");
    }
}

#[tokio::test]
async fn status_and_metadata_are_told_both_ways() {
    let house = House::new(&[("broken", "architecture = \"nonsense\"")], keep).await;
    let status = |model: &str| proto::GetModelStatusRequest { model_spec: Some(spec(model)) };
    let told: proto::GetModelStatusResponse = call(house.address(), STATUS, &status("digits")).await.unwrap();
    let [version] = &told.model_version_status[..] else { panic!("{told:?}") };
    assert_eq!((version.version, version.state()), (1, State::Available));
    let told: proto::GetModelStatusResponse = call(house.address(), STATUS, &status("broken")).await.unwrap();
    let broken = &told.model_version_status[0];
    assert_eq!(broken.state(), State::End);
    assert!(broken.status.as_ref().unwrap().error_message.contains("nonsense"), "{broken:?}");
    let missing = call::<proto::GetModelStatusResponse>(house.address(), STATUS, &status("nobody")).await;
    assert_eq!(missing, Err((NOT_FOUND, "Could not find any versions of model nobody".to_owned())));

    let available = json!({ "model_version_status": [
        { "version": "1", "state": "AVAILABLE", "status": { "error_code": "OK", "error_message": "" } },
    ] });
    for path in ["/v1/models/digits", "/v1/models/digits/versions/1"] {
        assert_eq!(house.get(path).await.json(), available);
    }
    let missing = house.get("/v1/models/nobody").await;
    assert_eq!(
        (missing.status.as_u16(), missing.error().as_str()),
        (404, "Could not find any versions of model nobody")
    );
    let missing = house.get("/v1/models/digits/versions/9").await;
    assert_eq!(missing.error(), "Could not find version 9 of model digits");
    assert_eq!(house.get("/v1/models/digits/labels/stable").await.status, StatusCode::BAD_REQUEST);

    let request = proto::GetModelMetadataRequest {
        model_spec: Some(spec("digits")),
        metadata_field: vec!["signature_def".into()],
    };
    let told: proto::GetModelMetadataResponse = call(house.address(), METADATA, &request).await.unwrap();
    let any = &told.metadata["signature_def"];
    assert_eq!(any.type_url, "type.googleapis.com/tensorflow.serving.SignatureDefMap");
    let map = proto::SignatureDefMap::decode(&any.value[..]).unwrap().signature_def;
    let default = &map["serving_default"];
    assert_eq!(default.method_name, "tensorflow/serving/predict");
    assert_eq!(default.inputs.keys().collect::<Vec<_>>(), ["flatten_input"]);
    assert_eq!(default.outputs["dense"].dtype(), DataType::DtFloat);
    assert_eq!(map["serving_images"].inputs["image"].dtype(), DataType::DtString);
    let wrong = proto::GetModelMetadataRequest { metadata_field: vec!["graph".into()], ..request };
    let error = call::<proto::GetModelMetadataResponse>(house.address(), METADATA, &wrong).await;
    assert_eq!(error, Err((INVALID_ARGUMENT, "Metadata field graph is not supported".to_owned())));

    let told = house.get("/v1/models/digits/metadata").await.json();
    assert_eq!(told["model_spec"], json!({ "name": "digits", "signature_name": "", "version": "1" }));
    let default = &told["metadata"]["signature_def"]["signature_def"]["serving_default"];
    let expected = json!({ "dtype": "DT_FLOAT", "name": "flatten_input:0", "tensor_shape": {
        "dim": [{ "size": "-1", "name": "" }, { "size": "28", "name": "" }, { "size": "28", "name": "" }],
        "unknown_rank": false,
    } });
    assert_eq!(default["inputs"], json!({ "flatten_input": expected }));
    assert_eq!(default["method_name"], "tensorflow/serving/predict");
}

#[tokio::test]
async fn a_configuration_is_not_reloaded_and_only_the_right_caller_is_told_why() {
    for (control, code) in [(false, PERMISSION_DENIED), (true, UNIMPLEMENTED)] {
        let house = House::new(&[], |config| config.local.control = control).await;
        let request = proto::ReloadConfigRequest::default();
        let error = call::<proto::ReloadConfigResponse>(house.address(), RELOAD, &request).await.unwrap_err();
        assert_eq!(error.0, code, "{error:?}");
    }
}

fn rows(answer: &Answer, key: &str) -> Vec<Value> {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    answer.json()[key].as_array().unwrap_or_else(|| panic!("no {key}: {answer:?}")).clone()
}

fn digit(row: &Value) -> usize {
    largest(&row.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect::<Vec<_>>())
}

#[tokio::test]
async fn predictions_over_rest_have_the_form_of_their_question() {
    let house = House::new(&[], keep).await;
    let picture = |digit| json!({ "b64": STANDARD.encode(digit_picture(digit).unwrap()) });
    let nested = |digit| -> Value {
        drawn(digit).chunks(28).map(|row| row.iter().map(|pixel| json!([pixel])).collect::<Vec<_>>()).collect()
    };
    let flat = |digit| json!([nested(digit), nested(digit)]);
    for (path, body, key) in [
        ("/v1/models/digits:predict", json!({ "instances": [nested(6), nested(6)] }), "predictions"),
        ("/v1/models/digits/versions/1:predict", json!({ "instances": [picture(6), picture(6)] }), "predictions"),
        (
            "/v1/models/digits:predict",
            json!({ "signature_name": "serving_images", "instances": [{ "image": picture(6) }, { "image": picture(6) }] }),
            "predictions",
        ),
        ("/v1/models/digits:predict", json!({ "inputs": { "flatten_input": flat(6) } }), "outputs"),
        ("/v1/models/digits:predict", json!({ "inputs": [picture(6), picture(6)] }), "outputs"),
    ] {
        let rows = rows(&house.post(path, body.to_string()).await, key);
        assert_eq!(rows.iter().map(digit).collect::<Vec<_>>(), [6, 6], "{body}");
    }
    let body = json!({ "examples": [{ "image": picture(4) }, { "flatten_input": drawn(7) }] });
    let mixed = house.post("/v1/models/digits:classify", body.to_string()).await;
    assert!(mixed.error().contains("one after the other"));
    let body = json!({ "examples": [{ "image": picture(4) }, { "image": picture(7) }] });
    let rows = rows(&house.post("/v1/models/digits:classify", body.to_string()).await, "results");
    let best = |row: &Value| {
        let classes = row.as_array().unwrap();
        let score = |class: &&Value| class[1].as_f64().unwrap();
        let best = classes.iter().max_by(|one, two| score(one).total_cmp(&score(two))).unwrap();
        best[0].as_str().unwrap().to_owned()
    };
    assert_eq!(rows.iter().map(best).collect::<Vec<_>>(), ["4", "7"]);
}

#[tokio::test]
async fn errors_over_rest_have_tensorflows_words_and_numbers() {
    let house = House::new(&[], keep).await;
    let found = async |path: &str, body: &str| {
        let answer = house.post(path, body.to_owned()).await;
        assert_eq!(answer.json().as_object().unwrap().len(), 1);
        (answer.status.as_u16(), answer.error())
    };
    let picture = json!({ "instances": [{ "b64": STANDARD.encode(digit_picture(1).unwrap()) }] }).to_string();
    for (path, body, code, text) in [
        ("/v1/models/nobody:predict", &picture[..], 404, "Servable not found for request: Latest(nobody)"),
        ("/v1/models/no%2Fbody:predict", &picture, 404, "Servable not found for request: Latest(no/body)"),
        ("/v1/models/digits/versions/3:predict", &picture, 404, "Servable not found for request: Specific(digits, 3)"),
        ("/v1/models/digits/labels/stable:predict", &picture, 400, "Unrecognized servable version label: stable"),
        ("/v1/models/digits", &picture, 400, "Malformed request: POST /v1/models/digits"),
        ("/v1/models/digits:explain", &picture, 400, "Malformed request: POST /v1/models/digits:explain"),
        (
            "/v1/models/digits:regress",
            "{\"examples\":[{\"image\":\"a\"}]}",
            400,
            "Expected regression signature method_name to be",
        ),
        ("/v1/models/digits:predict", "{\"instances\":[1", 400, "JSON Parse Error: "),
        ("/v1/models/digits:predict", "{\"instances\":[NaN]}", 400, "`flatten_input` has the shape [1]"),
        (
            "/v1/models/digits:predict",
            "{\"signature_name\":\"x\",\"instances\":[1]}",
            412,
            "Serving signature key \"x\" not found.",
        ),
        (
            "/v1/models/digits:predict",
            "{\"instances\":[\"no picture\"]}",
            400,
            "not a JPEG, PNG, WebP, BMP or GIF image",
        ),
    ] {
        let (status, error) = found(path, body).await;
        assert!(status == code && error.contains(text), "{path}: {status} {error}");
    }
    let malformed = house.get("/v1/models/digits:predict").await;
    assert_eq!(malformed.error(), "Malformed request: GET /v1/models/digits:predict");
}

#[tokio::test]
async fn a_detector_tells_what_tensorflows_detectors_tell() {
    let Some(data) = data() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/models/yolox_nano/model.toml");
    let text = fs::read_to_string(folder).unwrap().replace("../../../../shared/data", data.to_str().unwrap());
    let house = House::new(&[("yolox", &text)], keep).await;
    let mut photos: Vec<_> =
        fs::read_dir(data.join("images/photos")).unwrap().map(|entry| entry.unwrap().path()).collect();
    photos.sort();
    let mut seen = 0;
    for photo in photos.iter().take(4) {
        let image = fs::read(photo).unwrap();
        let [width, height] = decode(&image, &ImageLimits::default()).unwrap().size();
        let expected = house.post("/v2/models/yolox/infer", json_image(&image, "")).await.json();
        let output = |name: &str| -> Vec<Value> {
            let outputs = expected["outputs"].as_array().unwrap();
            outputs.iter().find(|output| output["name"] == name).unwrap()["data"].as_array().unwrap().clone()
        };
        let (boxes, scores, classes, labels) = (output("boxes"), output("scores"), output("classes"), output("labels"));
        let body = json!({ "instances": [{ "b64": STANDARD.encode(&image) }] });
        let rows = rows(&house.post("/v1/models/yolox:predict", body.to_string()).await, "predictions");
        let row = rows[0].as_object().unwrap();
        assert_eq!(row["num_detections"], json!(scores.len() as f32));
        seen += scores.len();
        for (place, corners) in boxes.chunks(4).enumerate() {
            let number = |value: &Value| value.as_f64().unwrap();
            let found = row["detection_boxes"][place].as_array().unwrap().iter().map(number);
            let [left, top, right, bottom] = [0, 1, 2, 3].map(|side| number(&corners[side]));
            let (width, height) = (f64::from(width), f64::from(height));
            let wanted = [top / height, left / width, bottom / height, right / width];
            assert!(found.zip(wanted).all(|(one, two)| (one - two).abs() < 1e-5), "{photo:?} {place}");
            assert_eq!(row["detection_scores"][place], scores[place]);
            assert_eq!(number(&row["detection_classes"][place]), number(&classes[place]) + 1.0);
            assert_eq!(row["detection_class_entities"][place], labels[place]);
        }
    }
    assert!(seen > 0, "nothing was found in any photograph");
    let error = house.post("/v1/models/yolox:classify", r#"{"examples":[{"image":"a"}]}"#).await.error();
    assert!(
        error.starts_with("Expected classification signature method_name to be tensorflow/serving/classify."),
        "{error}"
    );
}
