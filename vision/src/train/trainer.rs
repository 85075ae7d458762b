//! The training loop: AdamW over varied digits, a rate that rises and falls once, the best weights kept.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::loss::cross_entropy;
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::error::VisionError;
use crate::network::Classifier;
use crate::networks::lenet;
use crate::stop::Stop;
use crate::train::augment::vary;
use crate::train::checkpoint;
use crate::train::dataset::{Digits, PIXELS, Part, SIDE};
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
}

impl DigitsOptions {
    /// The defaults: 20 epochs in steps of 64 images.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), epochs: 20, batch: 64, learning_rate: 2e-3, seed: 1 }
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

/// Is told how training goes: a progress bar, a log, or nothing.
pub trait Progress {
    /// After each step.
    fn batch(&mut self, batch: &Batch);

    /// After each epoch, when the held-out images have been read.
    fn epoch(&mut self, epoch: &Epoch);
}

/// One step of training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch {
    /// From 1.
    pub epoch: usize,
    /// Of how many.
    pub epochs: usize,
    /// Step within the epoch, from 1.
    pub step: usize,
    /// Of how many.
    pub steps: usize,
    /// Mean cross-entropy over the epoch so far.
    pub loss: f32,
    /// Part of the epoch's images so far that were read correctly, from 0 to 1.
    pub accuracy: f32,
}

/// One walk over the training set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Of how many.
    pub epochs: usize,
    /// Mean cross-entropy over the epoch.
    pub loss: f32,
    /// Part of the held-out images that were read correctly, from 0 to 1.
    pub held_out_accuracy: f32,
    /// Whether these are the best weights so far.
    pub best: bool,
}

/// A trained network, in the form in which it is stored.
#[derive(Debug, Clone)]
pub struct Trained {
    weights: Vec<u8>,
    /// The epoch whose weights were kept, from 1.
    pub epoch: usize,
    /// Part of the 5,000 held-out images that it reads correctly, from 0 to 1.
    pub held_out_accuracy: f32,
    /// Part of the test images that it reads correctly, from 0 to 1: measured once, with the stored weights.
    pub test_accuracy: f32,
    /// Number of test images.
    pub test_images: usize,
}

impl Trained {
    /// The bytes of the safetensors file.
    #[must_use]
    pub fn weights(&self) -> &[u8] {
        &self.weights
    }

    /// Writes `MODEL_PATH/VERSION/model.safetensors`, whole or not at all; gives its path.
    pub fn save(&self, model_path: &Path, version: u64) -> Result<PathBuf, VisionError> {
        let path = model_path.join(version.to_string()).join("model.safetensors");
        checkpoint::write(&path, &self.weights)?;
        Ok(path)
    }
}

/// Trains a LeNet on MNIST. Uses all cores that the tensor library is given; fails when a file is not what it should
/// be, or when training diverges.
pub fn digits(options: &DigitsOptions, progress: &mut impl Progress) -> Result<Trained, VisionError> {
    options.check()?;
    let all = Digits::read(&options.data, Part::Train)?;
    if all.len() <= HELD_OUT {
        return Err(VisionError::Training(format!("{} images are too few: {HELD_OUT} are held out", all.len())));
    }
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.shuffle(&mut random);
    let (held_out, train) = order.split_at_mut(HELD_OUT);
    let mut run = Run::new(options, train.len(), &mut random)?;
    let mut best: Option<(f32, usize, Vec<u8>)> = None;
    for epoch in 1..=options.epochs {
        train.shuffle(&mut random);
        let loss = run.epoch(&all, train, epoch, &mut random, progress)?;
        let stored = checkpoint::serialise(&run.variables()?)?;
        let held_out_accuracy = accuracy(&stored, &all, held_out)?;
        let better = best.as_ref().is_none_or(|(accuracy, ..)| held_out_accuracy > *accuracy);
        if better {
            best = Some((held_out_accuracy, epoch, stored));
        }
        progress.epoch(&Epoch { epoch, epochs: options.epochs, loss, held_out_accuracy, best: better });
    }
    let Some((held_out_accuracy, epoch, weights)) = best else {
        return Err(VisionError::Training("there was no epoch".to_owned()));
    };
    let test = Digits::read(&options.data, Part::Test)?;
    let order: Vec<usize> = (0..test.len()).collect();
    let test_accuracy = accuracy(&weights, &test, &order)?;
    Ok(Trained { weights, epoch, held_out_accuracy, test_accuracy, test_images: test.len() })
}

/// Part of the images at `places` that stored weights read correctly.
pub(crate) fn accuracy(stored: &[u8], digits: &Digits, places: &[usize]) -> Result<f32, VisionError> {
    let weights = Weights::from_bytes("trained weights", stored.to_vec())?;
    let network = Architecture::Lenet.classifier(&weights, &Device::Cpu)?;
    let mut right = 0;
    // 500 at a time: enough to keep all cores busy, a few megabytes of memory.
    for places in places.chunks(500) {
        let elements = places.iter().flat_map(|place| digits.image(*place)).map(|byte| f32::from(*byte) / 255.0);
        let input = Tensor::from_iter(elements, &Device::Cpu)?.reshape((places.len(), 1, SIDE, SIDE))?;
        let found = network.logits(&input, &Stop::never())?.argmax(D::Minus1)?.to_vec1::<u32>()?;
        right += found.iter().zip(places).filter(|(found, place)| **found == u32::from(digits.label(**place))).count();
    }
    Ok(right as f32 / places.len().max(1) as f32)
}

/// What lives from the first step to the last.
struct Run<'a> {
    options: &'a DigitsOptions,
    variables: Vec<(&'static str, Var)>,
    network: Classifier,
    optimiser: AdamW,
    steps: usize,
    done: usize,
}

impl<'a> Run<'a> {
    fn new(options: &'a DigitsOptions, images: usize, random: &mut impl Rng) -> Result<Self, VisionError> {
        let variables = first_weights(random)?;
        // The network shares its tensors with the optimiser, which changes them in place.
        let shared = variables.iter().map(|(name, variable)| ((*name).to_owned(), variable.as_tensor().clone()));
        let weights = Weights::from_tensors("weights in training", shared);
        let network = Architecture::Lenet.classifier(&weights, &Device::Cpu)?;
        let settings = ParamsAdamW { lr: options.learning_rate, ..ParamsAdamW::default() };
        let optimiser = AdamW::new(variables.iter().map(|(_, variable)| variable.clone()).collect(), settings)?;
        let steps = images.div_ceil(options.batch);
        Ok(Self { options, variables, network, optimiser, steps, done: 0 })
    }

    /// One walk over the training images; gives the mean loss.
    fn epoch(
        &mut self,
        all: &Digits,
        train: &[usize],
        epoch: usize,
        random: &mut impl Rng,
        progress: &mut impl Progress,
    ) -> Result<f32, VisionError> {
        let (mut losses, mut right, mut seen) = (0.0, 0, 0);
        for (step, places) in train.chunks(self.options.batch).enumerate() {
            let (loss, correct) = self.step(all, places, random)?;
            if !loss.is_finite() {
                return Err(VisionError::Training("it diverged; try a lower learning rate".to_owned()));
            }
            losses += loss * places.len() as f32;
            right += correct;
            seen += places.len();
            progress.batch(&Batch {
                epoch,
                epochs: self.options.epochs,
                step: step + 1,
                steps: self.steps,
                loss: losses / seen as f32,
                accuracy: right as f32 / seen as f32,
            });
        }
        Ok(losses / seen.max(1) as f32)
    }

    /// One step; gives the loss and how many images were read correctly.
    fn step(&mut self, all: &Digits, places: &[usize], random: &mut impl Rng) -> Result<(f32, usize), VisionError> {
        let mut elements = vec![0f32; places.len() * PIXELS];
        for (place, target) in places.iter().zip(elements.chunks_exact_mut(PIXELS)) {
            vary(all.image(*place), random, target);
        }
        let input = Tensor::from_vec(elements, (places.len(), 1, SIDE, SIDE), &Device::Cpu)?;
        let labels: Vec<u32> = places.iter().map(|place| u32::from(all.label(*place))).collect();
        let target = Tensor::new(labels.as_slice(), &Device::Cpu)?;
        let logits = self.network.logits(&input, &Stop::never())?;
        let loss = cross_entropy(&logits, &target)?;
        self.done += 1;
        self.optimiser.set_learning_rate(self.rate());
        self.optimiser.backward_step(&loss)?;
        let found = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
        let correct = found.iter().zip(&labels).filter(|(found, label)| found == label).count();
        Ok((loss.to_scalar::<f32>()?, correct))
    }

    /// Up along a line for the first tenth, then down along half a cosine.
    fn rate(&self) -> f64 {
        let total = (self.steps * self.options.epochs) as f64;
        let part = self.done as f64 / total;
        let factor =
            if part < 0.1 { part / 0.1 } else { 0.5 + 0.5 * ((part - 0.1) / 0.9 * std::f64::consts::PI).cos() };
        self.options.learning_rate * factor
    }

    fn variables(&self) -> Result<Vec<(String, Tensor)>, VisionError> {
        Ok(self.variables.iter().map(|(name, variable)| ((*name).to_owned(), variable.as_tensor().clone())).collect())
    }
}

/// He et al. (2015): uniform weights whose size depends on how many inputs a unit has; biases start at 0.
fn first_weights(random: &mut impl Rng) -> Result<Vec<(&'static str, Var)>, VisionError> {
    let one = |&(name, shape): &(&'static str, &[usize])| {
        let inputs: usize = shape.iter().skip(1).product();
        let bound = (6.0 / inputs as f32).sqrt();
        let count: usize = shape.iter().product();
        let values = (0..count).map(|_| if shape.len() == 1 { 0.0 } else { random.random_range(-bound..bound) });
        let tensor = Tensor::from_iter(values.collect::<Vec<f32>>(), &Device::Cpu)?.reshape(shape)?;
        Ok((name, Var::from_tensor(&tensor.to_dtype(DType::F32)?)?))
    };
    lenet::TENSORS.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::image::{ImageLimits, Preprocess, decode, digit_picture, prepare};

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
        let trained = digits(&options, &mut told).unwrap();
        assert_eq!((told.batches.len(), told.epochs.len()), (50, 2), "400 images are 25 steps of 16");
        let (first, last) = (told.batches[0], told.batches[49]);
        assert_eq!((first.epoch, first.step, last.epoch, last.step, last.steps), (1, 1, 2, 25, 25));
        assert!(last.loss < first.loss / 2.0, "{first:?} {last:?}");
        assert!(trained.held_out_accuracy > 0.9, "{trained:?}");
        assert!(told.epochs.iter().any(|epoch| epoch.best && epoch.epoch == trained.epoch));
        assert_eq!(trained.test_images, 40);

        let models = tempfile::tempdir().unwrap();
        let path = trained.save(models.path(), 3).unwrap();
        assert_eq!(path, models.path().join("3/model.safetensors"));
        let stored = fs::read(path).unwrap();
        assert!(stored.len() < 300 * 1024, "{} bytes", stored.len());
        let test = Digits::read(set.path(), Part::Test).unwrap();
        assert_eq!(accuracy(&stored, &test, &(0..40).collect::<Vec<_>>()).unwrap(), trained.test_accuracy);

        let again = digits(&options, &mut Told::default()).unwrap();
        assert_eq!(again.weights(), trained.weights());
    }

    #[test]
    fn senseless_options_are_refused_before_anything_is_read() {
        let options = DigitsOptions::new("/nowhere");
        for options in [
            DigitsOptions { epochs: 0, ..options.clone() },
            DigitsOptions { batch: 0, ..options.clone() },
            DigitsOptions { learning_rate: f64::NAN, ..options.clone() },
        ] {
            assert!(matches!(digits(&options, &mut Told::default()), Err(VisionError::Training(_))));
        }
    }
}
