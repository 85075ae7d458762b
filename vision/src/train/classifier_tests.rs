//! A new head for the digits' network, trained on drawn shapes: small enough to be done for real in a test.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use image::{Rgb, RgbImage};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::error::VisionError;
use crate::image::{ImageLimits, Preprocess, batch, decode, prepare};
use crate::output::probabilities;
use crate::stop::Stop;
use crate::train::classifier::{ClassifierOptions, Origin, TrainedClassifier, classifier};
use crate::train::course::Keep;
use crate::train::progress::{Batch, Epoch, Progress};
use crate::weights::Weights;
use crate::zoo::Architecture;

const SHAPES: [&str; 3] = ["bar", "cross", "ring"];

/// Ink on paper, a bit elsewhere, a bit larger or smaller each time.
fn draw(shape: &str, random: &mut impl Rng) -> RgbImage {
    let (x, y) = (random.random_range(28..36), random.random_range(28..36));
    let (radius, pen) = (random.random_range(14..22), random.random_range(3..5));
    RgbImage::from_fn(64, 64, |column, row| {
        let (right, down) = (column as i32 - x, row as i32 - y);
        let inked = match shape {
            "bar" => right.abs() < pen && down.abs() < radius,
            "cross" => (right.abs() < pen && down.abs() < radius) || (down.abs() < pen && right.abs() < radius),
            _ => (f64::from(right).hypot(f64::from(down)) - f64::from(radius)).abs() < f64::from(pen),
        };
        let noise = random.random_range(0..20);
        Rgb(if inked { [30 + noise; 3] } else { [230 + noise; 3] })
    })
}

/// So many pictures of each shape, as files.
fn drawn(count: usize) -> tempfile::TempDir {
    let (folder, mut random) = (tempfile::tempdir().unwrap(), StdRng::seed_from_u64(7));
    for shape in SHAPES {
        fs::create_dir(folder.path().join(shape)).unwrap();
        for number in 0..count {
            draw(shape, &mut random).save(folder.path().join(format!("{shape}/{number:03}.png"))).unwrap();
        }
    }
    folder
}

fn digits_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/models/digits/1/model.safetensors")
}

fn preprocess() -> Preprocess {
    let section = r#"{ "size": [28, 28], "resize": "digit", "channels": "grey", "invert": "auto" }"#;
    serde_json::from_str(section).unwrap()
}

#[derive(Default)]
struct Told {
    features: Vec<(usize, usize)>,
    batches: usize,
    epochs: Vec<Epoch>,
}

impl Progress for Told {
    fn features(&mut self, done: usize, of: usize) {
        self.features.push((done, of));
    }

    fn batch(&mut self, _: &Batch) {
        self.batches += 1;
    }

    fn epoch(&mut self, epoch: &Epoch) {
        self.epochs.push(*epoch);
    }
}

fn train(options: &ClassifierOptions, stop: &Stop<'_>, told: &mut Told) -> Result<TrainedClassifier, VisionError> {
    let weights = Weights::read(&digits_folder()).unwrap();
    let preprocess = preprocess();
    let origin = Origin { architecture: Architecture::Lenet, weights: &weights, preprocess: &preprocess };
    classifier(options, &origin, stop, told)
}

fn options(data: &Path) -> ClassifierOptions {
    ClassifierOptions { epochs: 12, batch: 8, learning_rate: 5e-3, ..ClassifierOptions::new(data, data) }
}

#[test]
fn shapes_are_learned_and_told_apart_by_what_is_stored() {
    let set = drawn(20);
    fs::write(set.path().join("ring/note.txt"), "no picture").unwrap();
    let mut told = Told::default();
    let trained = train(&options(set.path()), &Stop::never(), &mut told).unwrap();
    assert_eq!(trained.labels, SHAPES);
    assert_eq!(told.features.last(), Some(&(61, 61)));
    assert_eq!((told.epochs.as_slice(), told.batches), (trained.curve.as_slice(), 6 * trained.curve.len()));
    assert_eq!((trained.trained_on, trained.scores.iter().map(|score| score.pictures).sum::<usize>()), (48, 12));
    assert!(trained.best.held_out_accuracy > 0.9, "{:?}", trained.best);
    let right = trained.scores.iter().map(|score| score.right).sum::<usize>();
    assert_eq!(right as f32 / 12.0, trained.best.held_out_accuracy);
    assert_eq!(trained.confusions.iter().map(|one| one.pictures).sum::<usize>(), 12 - right);
    assert_eq!(trained.broken.len(), 1);
    assert!(trained.broken[0].path.ends_with("ring/note.txt") && trained.broken[0].reason.starts_with("not a JPEG"));

    // What is stored is a whole network, which nobody has to be told the classes of.
    let stored = Weights::from_bytes("trained", trained.weights).unwrap();
    let network = Architecture::Lenet.build(&stored, &Device::Cpu).unwrap();
    assert_eq!(network.classes(), 3);
    let before = Weights::read(&digits_folder()).unwrap();
    let tensor = |weights: &Weights| weights.tensor("conv2.weight", &[40, 20, 5, 5], &Device::Cpu).unwrap();
    let numbers = |weights: &Weights| tensor(weights).flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(numbers(&stored), numbers(&before));
    let mut random = StdRng::seed_from_u64(99);
    for (class, shape) in SHAPES.iter().enumerate() {
        let pixels = image::DynamicImage::ImageRgb8(draw(shape, &mut random));
        let mut png = std::io::Cursor::new(Vec::new());
        pixels.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let pixels = decode(png.get_ref(), &ImageLimits::default()).unwrap();
        let input = batch(&[prepare(&pixels, &preprocess()).unwrap()], network.input(), &Device::Cpu).unwrap();
        let row = probabilities(&network.forward(&input, &Stop::never()).unwrap()).unwrap().remove(0);
        assert!(row[class] > 0.5, "{shape}: {row:?}");
    }
}

#[test]
fn a_broken_training_that_goes_on_is_the_same_as_an_unbroken_one() {
    let (set, place) = (drawn(10), tempfile::tempdir().unwrap());
    let options = ClassifierOptions { flip: true, ..options(set.path()) };
    let whole = train(&options, &Stop::never(), &mut Told::default()).unwrap();
    let keep = |resume| Some(Keep { path: place.path().join("checkpoint"), resume });
    // Asked before the features and between their layers too, so many times that some epochs pass.
    let asked = Cell::new(0);
    let question = || {
        asked.set(asked.get() + 1);
        asked.get() > 40
    };
    let mut told = Told::default();
    let broken = train(&ClassifierOptions { keep: keep(false), ..options.clone() }, &Stop::when(&question), &mut told);
    assert!(matches!(broken, Err(VisionError::Stopped)), "{broken:?}");
    let before = told.epochs.len();
    assert!((1..whole.curve.len()).contains(&before), "{before}");
    let resumed = train(&ClassifierOptions { keep: keep(true), ..options.clone() }, &Stop::never(), &mut told).unwrap();
    assert_eq!(told.epochs, whole.curve);
    assert!(resumed.weights == whole.weights);
    assert_eq!((resumed.scores, resumed.best), (whole.scores, whole.best));

    let other = drawn(11);
    let other = ClassifierOptions { keep: keep(true), data: other.path().to_owned(), ..options };
    let error = train(&other, &Stop::never(), &mut Told::default()).unwrap_err().to_string();
    assert!(error.contains("it is of another training"), "{error}");
}

#[test]
fn features_on_disk_are_those_in_memory() {
    let set = drawn(6);
    let options = ClassifierOptions { flip: true, epochs: 2, ..options(set.path()) };
    let in_memory = train(&options, &Stop::never(), &mut Told::default()).unwrap();
    let on_disk =
        train(&ClassifierOptions { memory: 0, ..options.clone() }, &Stop::never(), &mut Told::default()).unwrap();
    assert!(on_disk.weights == in_memory.weights);
    let plain = train(&ClassifierOptions { flip: false, ..options }, &Stop::never(), &mut Told::default()).unwrap();
    assert!(plain.weights != in_memory.weights, "mirrors make a difference");
    assert_eq!(fs::read_dir(set.path()).unwrap().count(), 3, "the file went away");
}

#[test]
fn it_stops_early_where_there_is_nothing_to_learn() {
    // The same pictures in both classes: the held-out loss can only rise once they are known by heart.
    let (set, folder) = (drawn(12), tempfile::tempdir().unwrap());
    for class in ["one", "other"] {
        fs::create_dir(folder.path().join(class)).unwrap();
        for number in 0..12 {
            let (from, to) = (format!("ring/{number:03}.png"), format!("{class}/{number:03}.png"));
            fs::copy(set.path().join(from), folder.path().join(to)).unwrap();
        }
    }
    let options = ClassifierOptions { epochs: 60, patience: 3, ..options(folder.path()) };
    let trained = train(&options, &Stop::never(), &mut Told::default()).unwrap();
    assert_eq!(trained.curve.len(), trained.best.epoch + 3);
    assert!(trained.curve.len() < 60, "{}", trained.curve.len());
    let lowest = trained.curve.iter().map(|epoch| epoch.held_out_loss).fold(f32::INFINITY, f32::min);
    assert_eq!(trained.best.held_out_loss, lowest, "the best weights are kept, not the last");
}

#[test]
fn what_cannot_be_trained_is_said_before_it_is_tried() {
    let set = drawn(6);
    fs::create_dir(set.path().join("star")).unwrap();
    for number in 0..4 {
        fs::copy(set.path().join("bar/000.png"), set.path().join(format!("star/{number}.png"))).unwrap();
    }
    let refused =
        |options: &ClassifierOptions| train(options, &Stop::never(), &mut Told::default()).unwrap_err().to_string();
    let error = refused(&options(set.path()));
    assert!(error.contains("star: 4 pictures that can be read are too few"), "{error}");
    // Enough files, but not enough pictures.
    fs::write(set.path().join("star/5.png"), "no picture").unwrap();
    let error = refused(&options(set.path()));
    assert!(error.contains("star: 4 pictures that can be read are too few"), "{error}");

    let options = options(Path::new("/nowhere"));
    for senseless in [
        ClassifierOptions { epochs: 0, ..options.clone() },
        ClassifierOptions { batch: 0, ..options.clone() },
        ClassifierOptions { patience: 0, ..options.clone() },
        ClassifierOptions { held_out: 1.0, ..options.clone() },
        ClassifierOptions { learning_rate: f64::NAN, ..options.clone() },
    ] {
        let error = refused(&senseless);
        assert!(error.starts_with("training: "), "{error}");
    }
    let weights = Weights::from_tensors("none", []);
    let preprocess = preprocess();
    let origin = Origin { architecture: Architecture::YoloxNano, weights: &weights, preprocess: &preprocess };
    let error = classifier(&options, &origin, &Stop::never(), &mut Told::default()).unwrap_err();
    assert!(matches!(error, VisionError::NoProbabilities), "{error}");
}
