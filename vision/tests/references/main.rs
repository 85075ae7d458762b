//! Networks and images held against stored results of other programs: `../shared/data` has weights, photographs and
//! what onnxruntime and Pillow made of them. Without that folder these tests say so and pass.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod borrowed;
mod detectors;
mod formats;
mod formula;
mod heads;
mod regions;
mod scaled;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use adit_vision::image::{ImageLimits, Pixels, Preprocess, batch, decode, decode_for, digit_picture, prepare};
use adit_vision::train::{Digits, Part};
use adit_vision::{Architecture, Device, Labels, Network, Stop, Tensor, Weights, probabilities, top};
use serde_json::Value;

/// The folder of test data, or nothing.
fn data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if !folder.is_dir() {
        println!("skipped: ../shared/data is not there");
        return None;
    }
    Some(folder)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// All files of a folder, in order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn decoded(path: &Path) -> Pixels {
    decode(&fs::read(path).unwrap(), &ImageLimits::default()).unwrap_or_else(|error| panic!("{}: {error}", name(path)))
}

/// As [`decoded`], at the scale that the preprocessing allows.
fn decoded_for(path: &Path, preprocess: &Preprocess) -> Pixels {
    decode_for(&fs::read(path).unwrap(), &ImageLimits::default(), preprocess)
        .unwrap_or_else(|error| panic!("{}: {error}", name(path)))
}

struct Model {
    network: Box<dyn Network>,
    preprocess: Preprocess,
    folder: PathBuf,
}

impl Model {
    fn open(data: &Path, architecture: Architecture) -> Self {
        let folder = data.join("models").join(architecture.name());
        let weights = Weights::read(&folder.join("1/model.safetensors")).unwrap();
        let network = architecture.build(&weights, &Device::Cpu).unwrap();
        let preprocess = written(&json(&folder.join("model.json"))["preprocessing"], "full");
        assert_eq!(network.input(), preprocess.shape());
        Self { network, preprocess, folder }
    }

    fn probabilities(&self, image: &[f32]) -> Vec<f32> {
        let input = batch(&[image], self.network.input(), &Device::Cpu).unwrap();
        let heads = self.network.forward(&input, &Stop::never()).unwrap();
        probabilities(&heads).unwrap().remove(0)
    }

    /// Holds one picture against its stored five best classes: the worst difference of their probabilities. The first
    /// may be another only where the stored first and second are closer than the tolerance.
    fn difference(&self, path: &Path, stored: &Value, tolerance: f32) -> f32 {
        let probabilities = self.probabilities(&prepare(&decoded(path), &self.preprocess).unwrap());
        let best = (0..probabilities.len()).max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b])).unwrap();
        let stored: Vec<(usize, f32)> = stored["top5"]
            .as_array()
            .unwrap()
            .iter()
            .map(|class| (class["index"].as_u64().unwrap() as usize, class["prob"].as_f64().unwrap() as f32))
            .collect();
        if stored[0].1 - stored[1].1 > tolerance {
            assert_eq!(best, stored[0].0, "{}: {}", self.folder.display(), name(path));
        }
        stored.iter().map(|(index, probability)| (probabilities[*index] - probability).abs()).fold(0.0, f32::max)
    }
}

/// A model.json's preprocessing in the words of a `[preprocess]` section, with JPEGs decoded in this way.
fn written(stored: &Value, decode: &str) -> Preprocess {
    let scale = if stored["scale"] == "1" { 1.0 } else { 1.0 / 255.0 };
    serde_json::from_value(serde_json::json!({
        "size": [stored["size"], stored["size"]],
        "resize": { "short_side": stored["resize_short"] },
        "decode": decode,
        "channels": stored["channel_order"].as_str().unwrap().to_lowercase(),
        "scale": scale,
        "mean": stored["mean"],
        "std": stored["std"],
    }))
    .unwrap()
}

/// The stored network input leads to the stored probabilities: the network alone.
fn parity(architecture: Architecture) {
    let Some(data) = data() else { return };
    let model = Model::open(&data, architecture);
    for path in files(&model.folder.join("parity")).iter().filter(|path| path.extension().unwrap() == "safetensors") {
        let stored: HashMap<String, Tensor> = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        let input = stored["input"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected = stored["prob"].to_vec1::<f32>().unwrap();
        let found = model.probabilities(&input);
        assert_eq!(found.len(), expected.len());
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{architecture} parity {}: {worst:.2e}", name(path));
        assert!(worst < 1e-4, "{architecture} {}: {worst}", name(path));
    }
}

/// Every photograph, from its file's bytes: decoder, resizing, normalisation and network together.
fn photos(architecture: Architecture) {
    let Some(data) = data() else { return };
    let model = Model::open(&data, architecture);
    let reference = json(&model.folder.join("reference.json"));
    let mut worst = (0.0, String::new());
    for path in files(&data.join("images/photos")) {
        let stored = &reference["images"][format!("images/photos/{}", name(&path))];
        let difference = model.difference(&path, stored, 1e-3);
        if difference > worst.0 {
            worst = (difference, name(&path));
        }
    }
    println!("{architecture} photos: worst {:.2e} ({})", worst.0, worst.1);
    assert!(worst.0 < 1e-3, "{architecture}: {worst:?}");
}

#[test]
fn googlenet_agrees_on_stored_inputs() {
    parity(Architecture::GooglenetBn);
}

#[test]
fn mobilenet_agrees_on_stored_inputs() {
    parity(Architecture::Mobilenet);
}

#[test]
fn squeezenet_agrees_on_stored_inputs() {
    parity(Architecture::Squeezenet);
}

#[test]
fn googlenet_agrees_on_all_photos() {
    photos(Architecture::GooglenetBn);
}

#[test]
fn mobilenet_agrees_on_all_photos() {
    photos(Architecture::Mobilenet);
}

#[test]
fn squeezenet_agrees_on_all_photos() {
    photos(Architecture::Squeezenet);
}

/// Grey, CMYK, animated, turned and oddly written pictures are seen as Pillow sees them.
#[test]
fn unusual_formats_agree() {
    let Some(data) = data() else { return };
    let model = Model::open(&data, Architecture::Squeezenet);
    let reference = json(&model.folder.join("reference.json"));
    let mut checked = 0;
    for path in files(&data.join("images/formats")) {
        let stored = &reference["images"][format!("images/formats/{}", name(&path))];
        let difference = model.difference(&path, stored, 1e-3);
        println!("{}: {difference:.2e}", name(&path));
        assert!(difference < 1e-3, "{}: {difference}", name(&path));
        checked += 1;
    }
    assert_eq!(checked, 12);
}

/// One landscape, stored upright and stored lying with a note to turn it.
#[test]
fn exif_orientation_is_applied() {
    let Some(data) = data() else { return };
    let folder = data.join("images/formats");
    let upright = decoded(&folder.join("exif_orient1_landscape.jpg"));
    let turned = decoded(&folder.join("exif_orient6_landscape.jpg"));
    assert_eq!((turned.width(), turned.height()), (upright.width(), upright.height()));
    let sum: u64 = upright.rgb().iter().zip(turned.rgb()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    let mean = sum as f64 / upright.rgb().len() as f64;
    assert!(mean < 8.0, "the two pictures differ by {mean} of 255 a sample");
}

/// Bad pictures end in an error, or in a picture within the limits: without panic, and without gigabytes.
#[test]
fn bad_pictures_do_no_harm() {
    let Some(data) = data() else { return };
    let limits = ImageLimits { max_pixels: 4_000_000, max_side: 4096, max_alloc: 64 << 20 };
    let refused = ["Bad_reallybig.bmp", "Bad_width.bmp", "broken.png", "decompression_bomb.gif"];
    let truncated = ["Bad_shortfile.bmp", "truncated_image.png", "truncated_jpeg.jpg"];
    for path in files(&data.join("images/bad")) {
        match decode(&fs::read(&path).unwrap(), &limits) {
            Ok(pixels) => {
                println!("{}: {}x{}", name(&path), pixels.width(), pixels.height());
                assert!(u64::from(pixels.width()) * u64::from(pixels.height()) <= limits.max_pixels);
                assert!(!refused.contains(&name(&path).as_str()), "{} was decoded", name(&path));
                assert!(!truncated.contains(&name(&path).as_str()), "{} was decoded", name(&path));
            }
            Err(error) => println!("{}: {error}", name(&path)),
        }
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kibibytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        // All tests of this file share the process; the smallest of the bombs alone would be over 12 GiB.
        assert!(kibibytes < 4 << 20, "the process grew to {kibibytes} KiB");
    }
}

/// The labels of the stored models fit their networks.
#[test]
fn labels_fit() {
    let Some(data) = data() else { return };
    for architecture in [Architecture::GooglenetBn, Architecture::Mobilenet, Architecture::Squeezenet] {
        let model = Model::open(&data, architecture);
        let labels = Labels::read(&model.folder.join("labels.txt")).unwrap();
        labels.check(model.network.classes()).unwrap();
        let pixels = decoded(&data.join("images/photos/parrot.jpg"));
        let best = top(&model.probabilities(&prepare(&pixels, &model.preprocess).unwrap()), &labels, 1).unwrap();
        assert!(best[0].label.contains("macaw"), "{architecture}: {best:?}");
    }
}

/// Decoding and preparing a photograph gives the stored network input: the images alone.
#[test]
fn prepared_photos_are_the_stored_inputs() {
    let Some(data) = data() else { return };
    for architecture in [Architecture::GooglenetBn, Architecture::Mobilenet, Architecture::Squeezenet] {
        let model = Model::open(&data, architecture);
        for photo in ["cat_1080p", "dog", "parrot"] {
            let pixels = decoded(&data.join(format!("images/photos/{photo}.jpg")));
            let prepared = prepare(&pixels, &model.preprocess).unwrap();
            let stored = model.folder.join(format!("parity/{photo}.safetensors"));
            let stored = candle_core::safetensors::load(stored, &Device::Cpu).unwrap();
            let stored = stored["input"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let worst = prepared.iter().zip(&stored).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-6, "{architecture} {photo}: {worst}");
        }
    }
}

/// The committed digits network with the preprocessing of its model.toml.
fn digits_model() -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/models/digits");
    let weights = Weights::read(&folder.join("1/model.safetensors")).unwrap();
    let network = Architecture::Lenet.build(&weights, &Device::Cpu).unwrap();
    let section = r#"{ "size": [28, 28], "resize": "digit", "channels": "grey", "invert": "auto" }"#;
    Model { network, preprocess: serde_json::from_str(section).unwrap(), folder }
}

fn most_likely(probabilities: &[f32]) -> (usize, f32) {
    let best = (0..probabilities.len()).max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b])).unwrap();
    (best, probabilities[best])
}

/// All ten pictures of the demonstration are read correctly, and without doubt.
#[test]
fn drawn_digits_are_read() {
    let model = digits_model();
    assert!(fs::metadata(model.folder.join("1/model.safetensors")).unwrap().len() < 300 * 1024);
    for digit in 0..10u8 {
        let pixels = decode(&digit_picture(digit).unwrap(), &ImageLimits::default()).unwrap();
        let (read, probability) = most_likely(&model.probabilities(&prepare(&pixels, &model.preprocess).unwrap()));
        println!("{digit}: read as {read}, {probability}");
        assert_eq!(read, usize::from(digit));
        assert!(probability > 0.9, "{digit}: {probability}");
    }
}

/// The accuracy in the model card, and what is left of it when test images pass through the preparation that
/// photographs get.
#[test]
fn mnist_is_read_as_the_model_card_says() {
    let Some(data) = data() else { return };
    let model = digits_model();
    let digits = Digits::read(&data.join("mnist"), Part::Test).unwrap();
    let plain = |index: usize| digits.image(index).iter().map(|byte| f32::from(*byte) / 255.0).collect::<Vec<_>>();
    let fitted = |index: usize| {
        let rgb = digits.image(index).iter().flat_map(|byte| [*byte; 3]).collect();
        prepare(&Pixels::new(28, 28, rgb).unwrap(), &model.preprocess).unwrap()
    };
    let right = |images: &dyn Fn(usize) -> Vec<f32>| {
        let mut right = 0;
        for start in (0..digits.len()).step_by(500) {
            let batched: Vec<Vec<f32>> = (start..start + 500).map(images).collect();
            let input = batch(&batched, model.network.input(), &Device::Cpu).unwrap();
            let rows = probabilities(&model.network.forward(&input, &Stop::never()).unwrap()).unwrap();
            right +=
                (start..).zip(&rows).filter(|(i, row)| most_likely(row).0 == usize::from(digits.label(*i))).count();
        }
        right
    };
    let (plain, fitted) = (right(&plain), right(&fitted));
    println!("of 10000: {plain} as they are, {fitted} fitted anew");
    assert!(plain >= 9920, "{plain}");
    assert!(fitted >= 9900, "{fitted}");
}
