//! Detectors held against what onnxruntime and OpenCV made of the same weights and pictures.

use std::ops::Range;
use std::path::Path;

use adit_vision::image::{Preprocess, batch, prepare};
use adit_vision::{
    Architecture, Compiled, DetectOptions, Detection, Detector, Device, Labels, Network, Stop, Tensor, Weights,
    candidates, detections,
};
use serde_json::{Value, json};

use crate::{data, decoded, decoded_for, files, json, name};

/// A detector with its preprocessing, as a `model.toml` would have it.
struct Model {
    detector: Detector,
    /// The same on the kernels, as it is served.
    compiled: Compiled,
    preprocess: Preprocess,
    labels: Labels,
    reference: Value,
}

impl Model {
    fn open(data: &Path, architecture: Architecture, preprocess: Value) -> Self {
        let folder = data.join("models").join(architecture.name());
        let weights = Weights::read(&folder.join("1/model.safetensors")).unwrap();
        let detector = architecture.detector(&weights, &Device::Cpu).unwrap();
        let preprocess: Preprocess = serde_json::from_value(preprocess).unwrap();
        assert_eq!(detector.input(), preprocess.shape());
        let labels = Labels::read(&folder.join("labels.txt")).unwrap();
        let compiled = detector.compile().unwrap();
        Self { detector, compiled, preprocess, labels, reference: json(&folder.join("reference.json")) }
    }

    fn yolox(data: &Path) -> Self {
        let section = json!({ "size": [416, 416], "resize": { "letterbox": 114 }, "filter": "bilinear",
            "channels": "bgr", "scale": 1 });
        Self::open(data, Architecture::YoloxNano, section)
    }

    fn ultraface(data: &Path) -> Self {
        let section = json!({ "size": [240, 320], "resize": "stretch", "filter": "bilinear", "scale": 1,
            "mean": [127, 127, 127], "std": [128, 128, 128] });
        Self::open(data, Architecture::Ultraface, section)
    }

    /// From a file to boxes in its picture, which has this width and height.
    fn detect(&self, path: &Path, options: &DetectOptions) -> (Vec<Detection>, [f32; 2]) {
        let pixels = decoded_for(path, &self.preprocess);
        let image = prepare(&pixels, &self.preprocess).unwrap();
        let input = batch(&[image], self.detector.input(), &Device::Cpu).unwrap();
        let heads = self.compiled.forward(&input, &Stop::never()).unwrap();
        let [width, height] = pixels.size();
        let frame = self.preprocess.frame(width, height).unwrap();
        let found = detections(&candidates(&heads).unwrap()[0], &frame, &self.labels, options).unwrap();
        (found, [width as f32, height as f32])
    }

    /// Holds all photographs against the stored boxes, whose label is `label` where none is stored.
    ///
    /// Each stored box over 0.4 must be found, with IoU of at least 0.9 and a score within 0.02; no other over `extra`
    /// may be.
    fn hold(&self, data: &Path, options: &DetectOptions, label: &str, extra: f32) {
        let (mut held, mut worst) = (0, (1f32, 0f32));
        for path in files(&data.join("images/photos")) {
            let stored = &self.reference["images"][format!("images/photos/{}", name(&path))];
            let stored = stored.get("detections").unwrap_or(stored).as_array().unwrap();
            let (mut found, size) = self.detect(&path, options);
            for stored in stored {
                let class = stored["label"].as_str().unwrap_or(label);
                let score = stored["score"].as_f64().unwrap() as f32;
                let corners: Vec<f32> =
                    stored["box_xyxy"].as_array().unwrap().iter().map(|side| side.as_f64().unwrap() as f32).collect();
                // The stored boxes are not clamped.
                let corners: [f32; 4] = std::array::from_fn(|side| corners[side].clamp(0.0, size[side % 2]));
                let same =
                    |found: &Detection| if &*found.label == class { overlap(found.corners, corners) } else { 0.0 };
                let best = (0..found.len()).max_by(|a, b| same(&found[*a]).total_cmp(&same(&found[*b])));
                let best = best.filter(|best| same(&found[*best]) >= 0.9);
                if score > 0.4 {
                    let best = best.unwrap_or_else(|| panic!("{}: no {class} at {corners:?}: {found:?}", name(&path)));
                    let difference = (found[best].score - score).abs();
                    worst = (worst.0.min(same(&found[best])), worst.1.max(difference));
                    assert!(difference < 0.02, "{}: {class} {score}, found {}", name(&path), found[best].score);
                    held += 1;
                }
                if let Some(best) = best {
                    found.remove(best);
                }
            }
            let more: Vec<_> = found.iter().filter(|found| found.score > extra).collect();
            assert!(more.is_empty(), "{}: {more:?}", name(&path));
        }
        println!("{held} boxes, worst IoU {}, worst score difference {}", worst.0, worst.1);
        assert!(held > 15, "{held}");
    }
}

/// Intersection over union, written once more, so that the crate is not held against itself.
fn overlap(a: [f32; 4], b: [f32; 4]) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let area = |c: [f32; 4]| (c[2] - c[0]) * (c[3] - c[1]);
    width * height / (area(a) + area(b) - width * height)
}

/// The stored letterboxed picture leads to the stored numbers: the network alone.
#[test]
fn yolox_agrees_on_stored_inputs() {
    let Some(data) = data() else { return };
    let model = Model::yolox(&data);
    for photo in ["dog", "crowd"] {
        let folder = data.join("models/yolox_nano/parity");
        let image = prepare(&decoded(&folder.join(format!("{photo}.png"))), &model.preprocess).unwrap();
        let input = batch(&[image], model.detector.input(), &Device::Cpu).unwrap();
        let stored = candle_core::safetensors::load(folder.join(format!("{photo}.safetensors")), &Device::Cpu).unwrap();
        let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (way, levels) in [
            ("candle", model.detector.levels(&input, &Stop::never()).unwrap()),
            ("kernels", model.compiled.outputs(&input, &Stop::never()).unwrap()),
        ] {
            let rows: Vec<Tensor> =
                levels.iter().map(|level| level.flatten_from(2).unwrap().transpose(1, 2).unwrap()).collect();
            let found = Tensor::cat(&rows, 1).unwrap();
            assert_eq!(found.dims(), stored["output"].dims());
            let (found, stored) = (numbers(&found), numbers(&stored["output"]));
            // Relative to the largest of its kind; element by element PyTorch itself is further off than 1e-4.
            let worst = |columns: Range<usize>| {
                let pairs = || (0..found.len()).filter(|place| columns.contains(&(place % 85)));
                let largest = pairs().map(|place| stored[place].abs()).fold(0.0, f32::max);
                pairs().map(|place| (found[place] - stored[place]).abs()).fold(0.0, f32::max) / largest
            };
            let (boxes, scores) = (worst(0..4), worst(4..85));
            println!("yolox_nano parity {photo} by {way}: boxes {boxes:.2e}, scores {scores:.2e}");
            assert!(boxes < 1e-4 && scores < 1e-4, "{photo} by {way}: {boxes}, {scores}");
        }
    }
}

/// A photograph's file becomes the stored letterboxed picture, every byte of it.
#[test]
fn letterboxed_photos_are_the_stored_inputs() {
    let Some(data) = data() else { return };
    let model = Model::yolox(&data);
    for photo in ["dog", "crowd"] {
        let stored = decoded(&data.join(format!("models/yolox_nano/parity/{photo}.png")));
        let pixels = decoded(&data.join(format!("images/photos/{photo}.jpg")));
        let found = prepare(&pixels, &model.preprocess).unwrap();
        // BGR planes against RGB pixels.
        let side = 416 * 416;
        let expected = |place: usize| f32::from(stored.rgb()[place % side * 3 + 2 - place / side]);
        let other = (0..found.len()).filter(|place| found[*place] != expected(*place)).count();
        assert_eq!(other, 0, "{photo}: {other} of {} elements", found.len());
    }
}

#[test]
fn yolox_finds_what_is_on_all_photos() {
    let Some(data) = data() else { return };
    Model::yolox(&data).hold(&data, &DetectOptions::default(), "", 0.5);
}

#[test]
fn ultraface_finds_the_faces_on_all_photos() {
    let Some(data) = data() else { return };
    let options = DetectOptions { confidence: 0.7, iou: 0.3, ..DetectOptions::default() };
    Model::ultraface(&data).hold(&data, &options, "face", 0.72);
}

/// Two pictures in one batch give what each gives alone.
#[test]
fn a_batch_of_pictures_is_told_apart() {
    let Some(data) = data() else { return };
    let model = Model::ultraface(&data);
    let image = |photo: &str| prepare(&decoded(&data.join("images/photos").join(photo)), &model.preprocess).unwrap();
    let run = |images: &[Vec<f32>]| {
        let input = batch(images, model.detector.input(), &Device::Cpu).unwrap();
        candidates(&model.compiled.forward(&input, &Stop::never()).unwrap()).unwrap().to_vec()
    };
    let (first, second) = (image("astronaut.png"), image("crowd.jpg"));
    let together = run(&[first.clone(), second.clone()]);
    for (together, alone) in together.iter().zip([run(&[first]), run(&[second])]) {
        let worst = together.scores.iter().zip(&alone[0].scores).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{worst}");
    }
}

/// A detector may be told to decode at a smaller scale: a large photograph's boxes stay where they are.
#[test]
fn boxes_of_a_scaled_picture_lie_in_the_whole_one() {
    let Some(data) = data() else { return };
    let mut model = Model::yolox(&data);
    let path = data.join("images/photos/harbour_12mp.jpg");
    let (whole, size) = model.detect(&path, &DetectOptions::default());
    let mut section = serde_json::to_value(&model.preprocess).unwrap();
    section["decode"] = "scaled".into();
    model.preprocess = serde_json::from_value(section).unwrap();
    assert_eq!(decoded_for(&path, &model.preprocess).width(), 2016);
    let (scaled, scaled_size) = model.detect(&path, &DetectOptions::default());
    assert_eq!((size, scaled_size), ([4032.0, 3024.0], size));
    let sure: Vec<_> = whole.iter().filter(|found| found.score > 0.4).collect();
    assert!(!sure.is_empty());
    for found in sure {
        let same = |other: &&Detection| other.label == found.label && overlap(other.corners, found.corners) > 0.9;
        let other = scaled.iter().find(same).unwrap_or_else(|| panic!("no {found:?} among {scaled:?}"));
        println!(
            "{}: {} and {}, overlap {}",
            found.label,
            found.score,
            other.score,
            overlap(other.corners, found.corners)
        );
        // The network was not trained on smoothed pictures: this is why it has to be asked for.
        assert!((found.score - other.score).abs() < 0.1, "{found:?} and {other:?}");
    }
}
