//! A new head for real weights, trained on photographs, and asked about photographs that it never saw a part of.

use std::fs;
use std::path::Path;

use adit_vision::image::{Preprocess, batch, prepare};
use adit_vision::train::{Batch, ClassifierOptions, Epoch, Origin, Progress, classifier};
use adit_vision::{Architecture, Device, Stop, Weights, probabilities};
use image::RgbImage;
use image::imageops::crop_imm;

use crate::{data, decoded, json, written};

/// Classes with the photographs whose parts are learned, and one that is not. The two birds that there are look nothing alike
/// (a macaw, a chickadee): neither could be known from the other.
const CLASSES: [(&str, &[&str], Option<&str>); 3] = [
    ("bird", &["parrot.jpg", "bird.webp"], None),
    ("cat", &["cat_1080p.jpg", "cat_grey_progressive.jpg"], Some("chelsea.png")),
    ("vehicle", &["truck.jpg"], Some("car.jpg")),
];

struct Silent;

impl Progress for Silent {
    fn batch(&mut self, _: &Batch) {}

    fn epoch(&mut self, epoch: &Epoch) {
        println!("{epoch:?}");
    }
}

/// Ten parts of a class's photographs, each nearly as high or as wide as the whole.
fn parts(folder: &Path, photos: &Path, names: &[&str]) {
    fs::create_dir(folder).unwrap();
    for number in 0..10u32 {
        let pixels = decoded(&photos.join(names[number as usize % names.len()]));
        let whole = RgbImage::from_raw(pixels.width(), pixels.height(), pixels.rgb().to_vec()).unwrap();
        let (width, height) = whole.dimensions();
        let side = width.min(height) * (70 + 3 * number) / 100;
        let (x, y) = ((width - side) * number / 9, (height - side) * (9 - number) / 9);
        crop_imm(&whole, x, y, side, side).to_image().save(folder.join(format!("{number}.png"))).unwrap();
    }
}

fn learns(architecture: Architecture) {
    let Some(data) = data() else { return };
    let (photos, set) = (data.join("images/photos"), tempfile::tempdir().unwrap());
    for (class, names, _) in CLASSES {
        parts(&set.path().join(class), &photos, names);
    }
    let folder = data.join("models").join(architecture.name());
    let weights = Weights::read(&folder.join("1/model.safetensors")).unwrap();
    let preprocess: Preprocess = written(&json(&folder.join("model.json"))["preprocessing"], "full");
    let origin = Origin { architecture, weights: &weights, preprocess: &preprocess };
    let options = ClassifierOptions { batch: 8, flip: true, ..ClassifierOptions::new(set.path(), set.path()) };
    let trained = classifier(&options, &origin, &Stop::never(), &mut Silent).unwrap();
    assert_eq!(trained.labels, CLASSES.map(|(class, ..)| class));
    assert_eq!((trained.trained_on, trained.scores.iter().map(|score| score.pictures).sum::<usize>()), (24, 6));
    assert!(trained.best.held_out_accuracy > 0.8, "{architecture}: {:?}", trained.best);

    let stored = Weights::from_bytes("trained", trained.weights).unwrap();
    let network = architecture.build(&stored, &Device::Cpu).unwrap();
    assert_eq!(network.classes(), 3);
    for (class, (name, _, unseen)) in CLASSES.iter().enumerate() {
        let Some(unseen) = unseen else { continue };
        let picture = prepare(&decoded(&photos.join(unseen)), &preprocess).unwrap();
        let input = batch(&[picture], network.input(), &Device::Cpu).unwrap();
        let row = probabilities(&network.forward(&input, &Stop::never()).unwrap()).unwrap().remove(0);
        println!("{architecture} {unseen}: {row:?}");
        let best = (0..row.len()).max_by(|one, other| row[*one].total_cmp(&row[*other])).unwrap();
        assert_eq!(best, class, "{architecture}: {unseen} shows a {name}, and is read as {row:?}");
    }
}

#[test]
fn a_head_that_is_a_convolution_learns_photos() {
    learns(Architecture::Squeezenet);
}

#[test]
fn a_head_that_is_fully_connected_learns_photos() {
    learns(Architecture::Mobilenet);
}
