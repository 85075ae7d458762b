//! A network of candle-transformers in a folder, under published names of tensors: asked by `infer`, and served by an agent.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use adit_vision::image::{ImageLimits, Preprocess, batch, decode, prepare};
use adit_vision::{Architecture, Device, Stop, Weights, probabilities};

use http::StatusCode;

use crate::house::{House, folder, json_image, one};

const SPEC: &str = r#"architecture = "mobilenetv4_conv_small"
[preprocess]
size = [224, 224]
resize = { short_side = 256 }
filter = "bicubic"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"#;

/// Rows of the head: a network that somebody has tuned to five flowers.
const CLASSES: usize = 5;
const LABELS: &str = "rose\ntulip\niris\naster\npoppy\n";

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A number from -1 to 1 for each place of each name, such that the network's numbers neither vanish nor explode.
fn formula(name: &str, shape: &[usize]) -> Vec<f32> {
    let mut state = name.bytes().fold(7u64, |state, byte| state.wrapping_mul(0x100_0000_01B3) ^ u64::from(byte));
    let fan_in: usize = shape.iter().skip(1).product();
    let noise = (0..shape.iter().product::<usize>()).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    });
    match (name.rsplit('.').next(), shape.len()) {
        (Some("running_var"), _) | (Some("weight"), 1) => noise.map(|value| 1.0 + 0.25 * value).collect(),
        (Some("weight"), _) => noise.map(|value| value * (5.0 / fan_in as f32).sqrt()).collect(),
        _ => noise.map(|value| 0.1 * value).collect(),
    }
}

/// All that the network reads.
fn tensors() -> Tensors {
    let asked = Arc::new(Mutex::new(Tensors::new()));
    let notes = asked.clone();
    let weights = Weights::made_by("a formula", move |name, shape| {
        let values = formula(name, shape);
        notes.lock().unwrap().insert(name.to_owned(), (shape.to_vec(), values.clone()));
        Some(values)
    });
    architecture().build(&weights, &Device::Cpu).unwrap();
    let mut tensors = asked.lock().unwrap().clone();
    for name in ["classifier.weight", "classifier.bias"] {
        let (shape, values) = tensors.get_mut(name).unwrap();
        values.truncate(values.len() / shape[0] * CLASSES);
        shape[0] = CLASSES;
    }
    tensors
}

fn architecture() -> Architecture {
    "mobilenetv4_conv_small".parse().unwrap()
}

/// A safetensors file: the length of its header, the header, the numbers.
fn file(tensors: &Tensors) -> Vec<u8> {
    let (mut header, mut numbers) = (serde_json::Map::new(), Vec::new());
    for (name, (shape, values)) in tensors {
        let from = numbers.len();
        numbers.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, numbers.len()] });
        header.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &numbers].concat()
}

/// Puts weights and labels beside a `model.toml`.
fn fill(model: &Path, weights: &[u8]) {
    std::fs::create_dir_all(model.join("1")).unwrap();
    std::fs::write(model.join("labels.txt"), LABELS).unwrap();
    std::fs::write(model.join("1/model.safetensors"), weights).unwrap();
}

/// What the picture is, by the library alone: the probability of each class.
fn seen(weights: &[u8]) -> Vec<f32> {
    // As in the specification above.
    let preprocess: Preprocess = serde_json::from_value(serde_json::json!({
        "size": [224, 224],
        "resize": { "short_side": 256 },
        "filter": "bicubic",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }))
    .unwrap();
    let weights = Weights::from_bytes("a test", weights.to_vec()).unwrap();
    let network = architecture().build(&weights, &Device::Cpu).unwrap();
    let image = prepare(&decode(&one(), &ImageLimits::default()).unwrap(), &preprocess).unwrap();
    let input = batch(&[image], network.input(), &Device::Cpu).unwrap();
    probabilities(&network.forward(&input, &Stop::never()).unwrap()).unwrap().remove(0)
}

fn infer(models: &Path, image: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit-agent"));
    command.args(["infer", "--top", "1", "--model", "flowers", "--models"]).arg(models).arg(image);
    command.output().unwrap()
}

#[test]
fn a_borrowed_network_is_served_from_a_folder() {
    let models = folder(&[("flowers", SPEC)]);
    let model = models.path().join("flowers");
    let image = models.path().join("one.bmp");
    std::fs::write(&image, one()).unwrap();

    let mut tensors = tensors();
    let whole = file(&tensors);
    fill(&model, &whole);
    let output = infer(models.path(), &image);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let (class, probability) = seen(&whole).into_iter().enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let expected = format!("{:6.2} %  {}", probability * 100.0, LABELS.lines().nth(class).unwrap());
    assert!(said.lines().nth(1).is_some_and(|line| line.trim() == expected.trim()), "{expected} is not in\n{said}");

    // What candle-transformers would silently do without is asked for all the same.
    tensors.remove("blocks.2.0.dw_mid.conv.weight").unwrap();
    fill(&model, &file(&tensors));
    let checked =
        Command::new(env!("CARGO_BIN_EXE_adit-agent")).args(["check", "--models"]).arg(models.path()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert_eq!(checked.status.code(), Some(1), "{said}");
    assert!(said.contains("has no tensor `blocks.2.0.dw_mid.conv.weight`"), "{said}");
}

#[tokio::test]
async fn an_agent_serves_a_borrowed_network() {
    let whole = file(&tensors());
    let house = House::new(&[("flowers", SPEC)], |config| {
        fill(&config.serving.models.clone().unwrap().join("flowers"), &whole);
    })
    .await;
    let metadata = house.get("/v2/models/flowers").await.json();
    assert_eq!(metadata["outputs"][0]["shape"], serde_json::json!([-1, CLASSES]), "{metadata}");
    let answer = house.post("/v2/models/flowers/infer", json_image(&one(), "")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let answer = answer.json();
    let found = answer["outputs"][0]["data"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap());
    let worst = found.zip(seen(&whole)).map(|(a, b)| (a - f64::from(b)).abs()).fold(0f64, f64::max);
    assert!(worst < 1e-5, "{worst}: {answer}");
}
