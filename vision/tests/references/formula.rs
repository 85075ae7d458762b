//! Networks of which there are no weights to be had here, held against torchvision, timm and YOLOX: both sides compute the
//! same weights by a formula. The other side stands in `../formula/formula.py`, its outputs beside it.

use adit_vision::image::batch;
use adit_vision::{Architecture, Device, Network, Stop, Tensor, Weights, candidates};
use serde::Deserialize;

/// Some numbers of a network's output.
#[derive(Deserialize)]
pub(crate) struct Stored {
    /// With which the weights neither vanish nor explode.
    pub(crate) gain: f64,
    /// How many numbers there are.
    pub(crate) elements: usize,
    /// Each so many-th is stored, from the first.
    step: usize,
    /// The largest number without its sign.
    largest: f32,
    values: Vec<f32>,
}

impl Stored {
    pub(crate) fn of(name: &str) -> Self {
        let all: serde_json::Value = serde_json::from_str(include_str!("../formula/outputs.json")).unwrap();
        serde_json::from_value(all[name].clone()).unwrap()
    }

    /// All stored numbers within 1e-4 of the largest.
    pub(crate) fn hold(&self, name: &str, found: &[f32]) {
        assert_eq!(found.len(), self.elements, "{name}");
        let differences = found.iter().step_by(self.step).zip(&self.values).map(|(a, b)| (a - b).abs());
        let worst = differences.fold(0f32, f32::max) / self.largest;
        println!("{name}: {worst:.2e}");
        assert!(worst < 1e-4, "{name}: {worst}");
    }
}

/// FNV-1a, 64 bits.
pub(crate) fn seed(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |value, byte| (value ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

/// From -1 to before 1: SplitMix64 at the places that follow the name's hash, of which 24 bits are taken.
pub(crate) fn uniform(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let seed = seed(name);
    (1..=count as u64).map(move |place| {
        let z = seed.wrapping_add(place.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let z = z ^ (z >> 31);
        (z >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

pub(crate) fn tensor(name: &str, shape: &[usize], gain: f64) -> Vec<f32> {
    let values = uniform(name, shape.iter().product());
    let part = name.rsplit('.').next().unwrap();
    let fan_in: usize = shape[1..].iter().product();
    let scale = (gain / fan_in as f64).sqrt();
    let shaped = |value: f64| match part {
        "running_var" => 1.0 + 0.25 * value,
        "gamma" => 1.0 + 0.25 * value,
        "weight" if shape.len() == 1 => 1.0 + 0.25 * value,
        "weight" => value * scale,
        _ => 0.1 * value,
    };
    values.map(|value| shaped(value) as f32).collect()
}

pub(crate) fn input(network: &impl Network) -> Tensor {
    let shape = network.input();
    let picture: Vec<f32> = uniform("input", shape.elements()).map(|value| value as f32).collect();
    batch(&[picture], shape, &Device::Cpu).unwrap()
}

pub(crate) fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
}

fn weights(stored: &Stored) -> Weights {
    let gain = stored.gain;
    Weights::made_by("a formula", move |name, shape| Some(tensor(name, shape, gain)))
}

fn classifier(architecture: Architecture) {
    let stored = Stored::of(architecture.name());
    let network = architecture.classifier(&weights(&stored), &Device::Cpu).unwrap();
    let logits = network.logits(&input(&network), &Stop::never()).unwrap();
    stored.hold(architecture.name(), &numbers(&logits));
    let logits = network.compile().unwrap().outputs(&input(&network), &Stop::never()).unwrap();
    stored.hold(&format!("{architecture} by kernels"), &numbers(&logits[0]));
}

fn detector(architecture: Architecture) {
    let stored = Stored::of(architecture.name());
    let network = architecture.detector(&weights(&stored), &Device::Cpu).unwrap();
    let hold = |name: &str, levels: Vec<Tensor>| {
        let row = |level: &Tensor| level.flatten_from(2).unwrap().transpose(1, 2).unwrap();
        stored.hold(name, &numbers(&Tensor::cat(&levels.iter().map(row).collect::<Vec<_>>(), 1).unwrap()));
    };
    hold(architecture.name(), network.levels(&input(&network), &Stop::never()).unwrap());
    let compiled = network.compile().unwrap();
    hold(&format!("{architecture} by kernels"), compiled.outputs(&input(&network), &Stop::never()).unwrap());
}

/// As [`detector`], and what becomes of the levels: boxes and scores, where no place is left out yet.
fn decoded(architecture: Architecture) {
    detector(architecture);
    let stored = Stored::of(architecture.name());
    let network = architecture.detector(&weights(&stored), &Device::Cpu).unwrap().compile().unwrap();
    let heads = network.forward(&input(&network), &Stop::never()).unwrap();
    let image = &candidates(&heads).unwrap()[0];
    let hold = |what: &str, numbers: &[f32]| {
        let name = format!("{architecture} {what}");
        Stored::of(&name).hold(&name, numbers);
    };
    hold("corners", image.corners.as_flattened());
    hold("scores", &image.scores);
}

#[test]
fn small_resnets_agree_with_torchvision() {
    classifier(Architecture::Resnet18);
    classifier(Architecture::Resnet34);
}

#[test]
fn resnets_of_bottlenecks_agree_with_torchvision() {
    classifier(Architecture::Resnet50);
    classifier(Architecture::Resnet101);
    classifier(Architecture::Resnet152);
}

#[test]
fn vggs_agree_with_timm() {
    classifier(Architecture::Vgg11);
    classifier(Architecture::Vgg16);
}

#[test]
fn squeezenets_agree_with_torchvision() {
    classifier(Architecture::Squeezenet10);
    classifier(Architecture::SqueezenetTorchvision);
}

#[test]
fn googlenet_and_inception_agree_with_torchvision() {
    classifier(Architecture::Googlenet);
    classifier(Architecture::InceptionV3);
}

#[test]
fn mobilenets_agree_with_torchvision_and_timm() {
    classifier(Architecture::MobilenetV1);
    classifier(Architecture::MobilenetTorchvision);
    classifier(Architecture::MobilenetV3Large);
    classifier(Architecture::MobilenetV3Small);
}

/// With norms that are not folded, depthwise and dense, and with more than one depth.
#[test]
fn yolox_agrees_with_its_authors_code() {
    detector(Architecture::YoloxNano);
    detector(Architecture::YoloxTiny);
    detector(Architecture::YoloxM);
}

/// Of two depths and widths; those between repeat their blocks.
#[test]
fn yolov8_agrees_with_its_description() {
    decoded(Architecture::Yolov8N);
    decoded(Architecture::Yolov8M);
}

#[test]
fn ssds_agree_with_torchvision_and_their_description() {
    decoded(Architecture::SsdMobilenetV1);
    decoded(Architecture::SsdliteMobilenetV2);
    decoded(Architecture::SsdliteMobilenetV3);
}
