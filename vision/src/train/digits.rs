//! The network that is our own: a LeNet that reads handwritten digits, trained on varied images of MNIST.

use std::fmt::Debug;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::loss::cross_entropy;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use safetensors::tensor::{Dtype, TensorView};

use crate::error::VisionError;
use crate::network::Classifier;
use crate::networks::lenet;
use crate::stop::Stop;
use crate::train::augment::vary;
use crate::train::course::{Course, Keep, Lesson, Marks, Outcome, Plan, right};
use crate::train::dataset::{Digits, PIXELS, Part, SIDE};
use crate::train::progress::{Epoch, Progress};
use crate::weights::Weights;
use crate::zoo::Architecture;

/// Images of the training set that are never trained on: the best weights are chosen by them.
const HELD_OUT: usize = 5_000;

/// What to train, and for how long.
#[derive(Debug, Clone)]
pub struct DigitsOptions {
    /// Folder with the four MNIST files.
    pub data: PathBuf,
    /// Walks over the training set.
    pub epochs: usize,
    /// Images a step.
    pub batch: usize,
    /// Highest learning rate: reached after a tenth of all steps, and left along a cosine towards 0.
    pub learning_rate: f64,
    /// Decides first weights, order and variations: the same seed on the same machine trains the same network.
    pub seed: u64,
    /// Where the state is kept, so that an interrupted training can go on.
    pub keep: Option<Keep>,
}

impl DigitsOptions {
    /// The defaults: 20 epochs in steps of 64 images, and no state kept.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), epochs: 20, batch: 64, learning_rate: 2e-3, seed: 1, keep: None }
    }

    fn check(&self) -> Result<(), VisionError> {
        let refuse = |reason: &str| Err(VisionError::Training(reason.to_owned()));
        match self {
            Self { epochs: 0, .. } => refuse("there must be at least one epoch"),
            Self { batch: 0, .. } => refuse("a step needs at least one image"),
            Self { batch, .. } if *batch > HELD_OUT => refuse("a step takes at most 5000 images"),
            Self { learning_rate, .. } if !(*learning_rate > 0.0 && *learning_rate < 1.0) => {
                refuse("the learning rate must lie between 0 and 1")
            }
            _ => Ok(()),
        }
    }
}

/// A trained network.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The bytes of its safetensors file.
    pub weights: Vec<u8>,
    /// The epoch whose weights these are.
    pub best: Epoch,
    /// All epochs.
    pub curve: Vec<Epoch>,
    /// Part of the test images that it reads correctly, from 0 to 1: measured once, with the stored weights.
    pub test_accuracy: f32,
    /// Number of test images.
    pub test_images: usize,
}

/// Trains a LeNet on MNIST. Uses all cores that the tensor library is given; fails when a file is not what it should
/// be, or when training diverges. [`VisionError::Stopped`] when `stop` says so.
pub fn digits(options: &DigitsOptions, stop: &Stop<'_>, progress: &mut impl Progress) -> Result<Trained, VisionError> {
    options.check()?;
    let all = Digits::read(&options.data, Part::Train)?;
    if all.len() <= HELD_OUT {
        return Err(VisionError::Training(format!("{} images are too few: {HELD_OUT} are held out", all.len())));
    }
    // The generator behind rand's StdRng, by its own name: it can say where it stands.
    let mut random = ChaCha12Rng::seed_from_u64(options.seed);
    let mut held_out: Vec<usize> = (0..all.len()).collect();
    held_out.shuffle(&mut random);
    let order = held_out.split_off(HELD_OUT);
    let variables = first_weights(&mut random)?;
    // The network shares its tensors with the optimiser, which changes them in place.
    let shared = variables.iter().map(|(name, variable)| (name.clone(), variable.as_tensor().clone()));
    let shared: Vec<(String, Tensor)> = shared.collect();
    let weights = Weights::from_tensors("weights in training", shared.clone());
    let network = Architecture::Lenet.classifier(&weights, &Device::Cpu)?;
    let DigitsOptions { epochs, batch, learning_rate, seed, .. } = *options;
    let plan = Plan {
        recipe: format!(
            "digits: {} images with the checksum {:08x}, seed {seed}, {epochs} epochs of steps of {batch} images, learning \
             rate {learning_rate}",
            all.len(),
            all.checksum(),
        ),
        epochs,
        batch,
        learning_rate,
        patience: None,
        keep: options.keep.clone(),
    };
    let mut lesson = Reading { all: &all, held_out: &held_out, network, variables: shared };
    let Outcome { stored, best, curve } =
        Course::begin(plan, variables, order, random)?.run(&mut lesson, stop, progress)?;
    let test = Digits::read(&options.data, Part::Test)?;
    let places: Vec<usize> = (0..test.len()).collect();
    let test_accuracy = marks(&stored, &test, &places)?.accuracy;
    Ok(Trained { weights: stored, best, curve, test_accuracy, test_images: test.len() })
}

/// Reading digits.
struct Reading<'a> {
    all: &'a Digits,
    held_out: &'a [usize],
    network: Classifier,
    variables: Vec<(String, Tensor)>,
}

impl Lesson for Reading<'_> {
    fn answer(&mut self, places: &[usize], random: &mut ChaCha12Rng) -> Result<(Tensor, Vec<u32>), VisionError> {
        let mut elements = vec![0f32; places.len() * PIXELS];
        for (place, target) in places.iter().zip(elements.chunks_exact_mut(PIXELS)) {
            vary(self.all.image(*place), random, target);
        }
        let input = Tensor::from_vec(elements, (places.len(), 1, SIDE, SIDE), &Device::Cpu)?;
        let labels = places.iter().map(|place| u32::from(self.all.label(*place))).collect();
        Ok((self.network.logits(&input, &Stop::never())?, labels))
    }

    fn stored(&self) -> Result<Vec<u8>, VisionError> {
        in_halves(&self.variables)
    }

    fn examine(&mut self, stored: &[u8]) -> Result<Marks, VisionError> {
        marks(stored, self.all, self.held_out)
    }

    fn is_better(&self, marks: Marks, best: Marks) -> bool {
        marks.accuracy > best.accuracy
    }
}

/// How stored weights read the images at `places`.
fn marks(stored: &[u8], digits: &Digits, places: &[usize]) -> Result<Marks, VisionError> {
    let weights = Weights::from_bytes("trained weights", stored.to_vec())?;
    let network = Architecture::Lenet.classifier(&weights, &Device::Cpu)?;
    let (mut losses, mut correct) = (0.0, 0);
    // 500 at a time: enough to keep all cores busy, a few megabytes of memory.
    for places in places.chunks(500) {
        let elements = places.iter().flat_map(|place| digits.image(*place)).map(|byte| f32::from(*byte) / 255.0);
        let input = Tensor::from_iter(elements, &Device::Cpu)?.reshape((places.len(), 1, SIDE, SIDE))?;
        let labels: Vec<u32> = places.iter().map(|place| u32::from(digits.label(*place))).collect();
        let logits = network.logits(&input, &Stop::never())?;
        let loss = cross_entropy(&logits, &Tensor::new(labels.as_slice(), &Device::Cpu)?)?.to_scalar::<f32>()?;
        losses += loss * places.len() as f32;
        correct += right(&logits, &labels)?;
    }
    let count = places.len().max(1) as f32;
    Ok(Marks { loss: losses / count, accuracy: correct as f32 / count })
}

/// The bytes of a safetensors file with these tensors in half precision: half the size, and too precise still to
/// change a digit's class.
fn in_halves(tensors: &[(String, Tensor)]) -> Result<Vec<u8>, VisionError> {
    let mut contents = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let halves = tensor.to_device(&Device::Cpu)?.flatten_all()?.to_dtype(DType::F16)?.to_vec1::<half::f16>()?;
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        contents.push((name.as_str(), tensor.dims().to_vec(), bytes));
    }
    let corrupt = |source| VisionError::CorruptWeights { origin: "trained weights".to_owned(), source };
    let views = contents
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F16, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(corrupt)?;
    safetensors::serialize(views, None).map_err(corrupt)
}

/// He et al. (2015): uniform weights whose size depends on how many inputs a unit has; biases start at 0.
fn first_weights(random: &mut impl Rng) -> Result<Vec<(String, Var)>, VisionError> {
    let one = |&(name, shape): &(&'static str, &[usize])| {
        let inputs: usize = shape.iter().skip(1).product();
        let bound = (6.0 / inputs as f32).sqrt();
        let count: usize = shape.iter().product();
        let values = (0..count).map(|_| if shape.len() == 1 { 0.0 } else { random.random_range(-bound..bound) });
        let tensor = Tensor::from_iter(values.collect::<Vec<f32>>(), &Device::Cpu)?.reshape(shape)?;
        Ok((name.to_owned(), Var::from_tensor(&tensor.to_dtype(DType::F32)?)?))
    };
    lenet::TENSORS.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;
    use crate::image::{ImageLimits, Preprocess, decode, digit_picture, prepare};
    use crate::train::progress::Batch;

    /// MNIST-shaped files of drawn digits: 5,400 to train and hold out, 40 to test.
    fn drawn_set() -> tempfile::TempDir {
        let section = r#"{ "size": [28, 28], "resize": "digit", "channels": "grey", "invert": "auto", "scale": 1 }"#;
        let preprocess: Preprocess = serde_json::from_str(section).unwrap();
        let image = |digit| {
            let pixels = decode(&digit_picture(digit).unwrap(), &ImageLimits::default()).unwrap();
            prepare(&pixels, &preprocess).unwrap().iter().map(|element| *element as u8).collect::<Vec<_>>()
        };
        let images: Vec<Vec<u8>> = (0..10).map(image).collect();
        let folder = tempfile::tempdir().unwrap();
        for (prefix, count) in [("train", 5400usize), ("t10k", 40)] {
            let header = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
            let mut pixels = header(&[0x0803, count as u32, 28, 28]);
            let mut labels = header(&[0x0801, count as u32]);
            for place in 0..count {
                pixels.extend(&images[place % 10]);
                labels.push((place % 10) as u8);
            }
            fs::write(folder.path().join(format!("{prefix}-images-idx3-ubyte")), pixels).unwrap();
            fs::write(folder.path().join(format!("{prefix}-labels-idx1-ubyte")), labels).unwrap();
        }
        folder
    }

    #[derive(Default)]
    struct Told {
        batches: Vec<Batch>,
        epochs: Vec<Epoch>,
    }

    impl Progress for Told {
        fn batch(&mut self, batch: &Batch) {
            self.batches.push(*batch);
        }

        fn epoch(&mut self, epoch: &Epoch) {
            self.epochs.push(*epoch);
        }
    }

    #[test]
    fn it_learns_tells_and_stores_and_the_seed_decides_all() {
        let set = drawn_set();
        let options = DigitsOptions { epochs: 2, batch: 16, ..DigitsOptions::new(set.path()) };
        let mut told = Told::default();
        let trained = digits(&options, &Stop::never(), &mut told).unwrap();
        assert_eq!((told.batches.len(), told.epochs.len()), (50, 2), "400 images are 25 steps of 16");
        let (first, last) = (told.batches[0], told.batches[49]);
        assert_eq!((first.epoch, first.step, last.epoch, last.step, last.steps), (1, 1, 2, 25, 25));
        assert!(last.loss < first.loss / 2.0, "{first:?} {last:?}");
        assert!(trained.best.held_out_accuracy > 0.9, "{trained:?}");
        assert_eq!(told.epochs, trained.curve);
        assert!(trained.curve.contains(&trained.best) && trained.best.best);
        assert_eq!(trained.test_images, 40);
        assert!(trained.weights.len() < 300 * 1024, "{} bytes", trained.weights.len());
        let test = Digits::read(set.path(), Part::Test).unwrap();
        let again = marks(&trained.weights, &test, &(0..40).collect::<Vec<_>>()).unwrap();
        assert_eq!(again.accuracy, trained.test_accuracy);

        let again = digits(&options, &Stop::never(), &mut Told::default()).unwrap();
        assert_eq!(again.weights, trained.weights);
    }

    /// Stopped in the middle of an epoch, and again between two, and gone on with: the same to the bit.
    #[test]
    fn a_broken_training_that_goes_on_is_the_same_as_an_unbroken_one() {
        let (set, place) = (drawn_set(), tempfile::tempdir().unwrap());
        let options = DigitsOptions { epochs: 3, batch: 16, ..DigitsOptions::new(set.path()) };
        let whole = digits(&options, &Stop::never(), &mut Told::default()).unwrap();

        let path = place.path().join("checkpoint");
        let keep = |resume| Some(Keep { path: path.clone(), resume });
        let mut told = Told::default();
        // Asked before each epoch, and after each of its 25 steps but the last: in the middle, then before the third epoch.
        for (patience, resume, batches) in [(10, false, 10), (40, true, 50)] {
            let asked = Cell::new(0);
            let question = || {
                asked.set(asked.get() + 1);
                asked.get() > patience
            };
            let options = DigitsOptions { keep: keep(resume), ..options.clone() };
            let result = digits(&options, &Stop::when(&question), &mut told);
            assert!(matches!(result, Err(VisionError::Stopped)), "{result:?}");
            assert_eq!(told.batches.len(), batches);
        }
        let resumed =
            digits(&DigitsOptions { keep: keep(true), ..options.clone() }, &Stop::never(), &mut told).unwrap();
        assert_eq!(told.batches.len(), 75, "no step is made twice");
        assert_eq!(told.epochs, whole.curve);
        assert_eq!((resumed.weights == whole.weights, &resumed.curve), (true, &whole.curve));
        assert_eq!(resumed.test_accuracy, whole.test_accuracy);

        // A training that had only to publish what it has does no more than that.
        let done = digits(&DigitsOptions { keep: keep(true), ..options.clone() }, &Stop::never(), &mut Told::default());
        assert!(done.unwrap().weights == whole.weights);
        let other = DigitsOptions { keep: keep(true), seed: 2, ..options };
        let error = digits(&other, &Stop::never(), &mut Told::default()).unwrap_err().to_string();
        assert!(error.contains("it is of another training"), "{error}");
    }

    #[test]
    fn what_is_stored_in_halves_can_be_read() {
        let tensor = Tensor::new(&[[0.5f32, -2.0], [1.0, 65504.0]], &Device::Cpu).unwrap();
        let bytes = in_halves(&[("a.weight".to_owned(), tensor.clone())]).unwrap();
        let read = Weights::from_bytes("halves", bytes).unwrap().tensor("a.weight", &[2, 2], &Device::Cpu).unwrap();
        assert_eq!(read.to_vec2::<f32>().unwrap(), tensor.to_vec2::<f32>().unwrap());
    }

    #[test]
    fn senseless_options_are_refused_before_anything_is_read() {
        let options = DigitsOptions::new("/nowhere");
        for options in [
            DigitsOptions { epochs: 0, ..options.clone() },
            DigitsOptions { batch: 0, ..options.clone() },
            DigitsOptions { learning_rate: f64::NAN, ..options.clone() },
        ] {
            let result = digits(&options, &Stop::never(), &mut Told::default());
            assert!(matches!(result, Err(VisionError::Training(_))));
        }
    }
}
