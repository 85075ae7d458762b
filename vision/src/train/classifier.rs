//! A classifier of the zoo for classes of one's own: its last layer is trained anew on pictures in a folder for each class.
//!
//! The other layers stay as they are, so what they make of each picture is computed once; an epoch over that takes moments.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use candle_nn::loss::cross_entropy;
use flate2::Crc;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use safetensors::tensor::{Dtype, TensorView};

use crate::error::VisionError;
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::stop::Stop;
use crate::train::course::{Course, Keep, Lesson, Marks, Outcome, Plan};
use crate::train::features::{Broken, Features, Making};
use crate::train::head::Head;
use crate::train::photos::{LEAST, Photos, split, wrong};
use crate::train::progress::{Epoch, Progress};
use crate::train::scores::{Confusion, Found, Score, scores};
use crate::weights::{Weights, f32_bytes};
use crate::zoo::Architecture;

/// Pictures examined at a time: the features of some networks are large.
const TOGETHER: usize = 64;

/// What to train, and for how long.
#[derive(Debug, Clone)]
pub struct ClassifierOptions {
    /// A folder for each class, with its pictures.
    pub data: PathBuf,
    /// At most so many walks over the pictures.
    pub epochs: usize,
    /// Pictures a step.
    pub batch: usize,
    /// Highest learning rate: reached after a tenth of all steps, and left along a cosine towards 0.
    pub learning_rate: f64,
    /// Part of each class's pictures that is never trained on, above 0 and below 1.
    pub held_out: f64,
    /// Epochs without a lower loss on the held-out pictures after which to stop.
    pub patience: usize,
    /// Whether each picture may be seen in a mirror.
    pub flip: bool,
    /// Decides what is held out, first weights, order and mirrors.
    pub seed: u64,
    /// Bytes of features that may be kept in memory; more go into a file.
    pub memory: u64,
    /// The folder of that file, which needs no name and goes away by itself.
    pub scratch: PathBuf,
    /// Where the state is kept, so that an interrupted training can go on.
    pub keep: Option<Keep>,
}

impl ClassifierOptions {
    /// The defaults: 30 epochs at most, in steps of 32 pictures; a fifth held out, five epochs of patience, no mirrors, 1 GiB
    /// of features, no state kept.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>, scratch: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            epochs: 30,
            batch: 32,
            learning_rate: 1e-3,
            held_out: 0.2,
            patience: 5,
            flip: false,
            seed: 1,
            memory: 1 << 30,
            scratch: scratch.into(),
            keep: None,
        }
    }

    fn check(&self) -> Result<(), VisionError> {
        let refuse = |reason: &str| Err(VisionError::Training(reason.to_owned()));
        let inside = |number: f64| number > 0.0 && number < 1.0;
        match self {
            Self { epochs: 0, .. } => refuse("there must be at least one epoch"),
            Self { batch: 0, .. } => refuse("a step needs at least one picture"),
            Self { batch, .. } if *batch > 4096 => refuse("a step takes at most 4096 pictures"),
            Self { patience: 0, .. } => refuse("there must be patience for at least one epoch"),
            Self { learning_rate, .. } if !inside(*learning_rate) => {
                refuse("the learning rate must lie between 0 and 1")
            }
            Self { held_out, .. } if !inside(*held_out) => refuse("the held-out part must lie between 0 and 1"),
            _ => Ok(()),
        }
    }
}

/// What the training starts from.
#[derive(Debug)]
pub struct Origin<'a> {
    /// The layers: a classifier's.
    pub architecture: Architecture,
    /// Trained weights, from a file.
    pub weights: &'a Weights,
    /// How pictures are prepared for it.
    pub preprocess: &'a Preprocess,
}

/// A classifier for other classes.
#[derive(Debug, Clone)]
pub struct TrainedClassifier {
    /// The bytes of its safetensors file: the weights that it started from, with a new last layer.
    pub weights: Vec<u8>,
    /// Names of its classes, in order.
    pub labels: Vec<String>,
    /// The epoch whose weights these are.
    pub best: Epoch,
    /// All epochs.
    pub curve: Vec<Epoch>,
    /// How it reads the held-out pictures of each class.
    pub scores: Vec<Score>,
    /// Which classes it takes for others, the most frequent first.
    pub confusions: Vec<Confusion>,
    /// Pictures trained on.
    pub trained_on: usize,
    /// Files that were left out.
    pub broken: Vec<Broken>,
}

/// Trains a new last layer for the classes of a folder. Fails when a class has too few pictures, when the network's head is
/// of a kind that is not trained here, or when training diverges. [`VisionError::Stopped`] when `stop` says so.
pub fn classifier(
    options: &ClassifierOptions,
    origin: &Origin<'_>,
    stop: &Stop<'_>,
    progress: &mut impl Progress,
) -> Result<TrainedClassifier, VisionError> {
    options.check()?;
    let network = origin.architecture.classifier(origin.weights, &Device::Cpu)?;
    let (graph, head) = Head::cut(network.graph())?;
    let photos = Photos::list(&options.data)?;
    enough(&options.data, &photos.labels, |class| photos.files.iter().filter(|(_, other)| *other == class).count())?;
    let making = Making {
        graph: &graph,
        preprocess: origin.preprocess,
        flip: options.flip,
        memory: options.memory,
        folder: &options.scratch,
    };
    let mut features = Features::compute(&photos.files, &making, stop, progress)?;
    enough(&options.data, &photos.labels, |class| features.count(class))?;

    let mut random = ChaCha12Rng::seed_from_u64(options.seed);
    let (order, held_out) = split(&features.classes, options.held_out, &mut random);
    let variables = head.first_weights(photos.labels.len(), &mut random)?;
    // The head shares its tensors with the optimiser, which changes them in place.
    let shared: Vec<(String, Tensor)> =
        variables.iter().map(|(name, variable)| (name.clone(), variable.as_tensor().clone())).collect();
    let trained_on = order.len();
    let plan = plan(options, origin, &photos.labels, &features)?;
    let mut lesson = Heading {
        network: head.build(&Weights::from_tensors("weights in training", shared.clone()))?,
        head: &head,
        features: &mut features,
        held_out: &held_out,
        variables: shared,
    };
    let Outcome { stored, best, curve } =
        Course::begin(plan, variables, order, random)?.run(&mut lesson, stop, progress)?;
    let stored = Weights::from_bytes("trained weights", stored)?;
    let found = lesson.read(&stored)?.1;
    let mut layer = Vec::with_capacity(lesson.variables.len());
    for (name, variable) in &lesson.variables {
        layer.push((name.clone(), stored.tensor(name, variable.dims(), &Device::Cpu)?));
    }
    let (scores, confusions) = scores(&found, photos.labels.len());
    Ok(TrainedClassifier {
        weights: origin.weights.with(&layer)?,
        labels: photos.labels,
        best,
        curve,
        scores,
        confusions,
        trained_on,
        broken: features.broken,
    })
}

/// Fails if a class has too few pictures.
fn enough(folder: &Path, labels: &[String], count: impl Fn(u32) -> usize) -> Result<(), VisionError> {
    for (class, label) in (0..).zip(labels) {
        let pictures = count(class);
        if pictures < LEAST {
            let reason = format!("{pictures} pictures that can be read are too few for a class: there must be {LEAST}");
            return Err(wrong(&folder.join(label), reason));
        }
    }
    Ok(())
}

fn plan(
    options: &ClassifierOptions,
    origin: &Origin<'_>,
    labels: &[String],
    features: &Features,
) -> Result<Plan, VisionError> {
    let ClassifierOptions { epochs, batch, learning_rate, held_out, patience, flip, seed, .. } = *options;
    let mut names = Crc::new();
    names.update(labels.join("\n").as_bytes());
    Ok(Plan {
        recipe: format!(
            "classifier: {}, weights with the checksum {:08x}, {} classes with the checksum {:08x}, {} pictures with the \
             checksum {:08x}, {held_out} held out, seed {seed}, {epochs} epochs of steps of {batch} pictures, learning rate \
             {learning_rate}, patience {patience}, {}",
            origin.architecture,
            origin.weights.checksum()?,
            labels.len(),
            names.sum(),
            features.classes.len(),
            features.checksum(),
            if flip { "mirrored" } else { "not mirrored" },
        ),
        epochs,
        batch,
        learning_rate,
        patience: Some(patience),
        keep: options.keep.clone(),
    })
}

/// A new last layer for known features.
struct Heading<'a> {
    network: Graph,
    head: &'a Head,
    features: &'a mut Features,
    held_out: &'a [usize],
    variables: Vec<(String, Tensor)>,
}

impl Heading<'_> {
    /// How a stored layer reads the held-out pictures.
    fn read(&mut self, stored: &Weights) -> Result<(Marks, Vec<Found>), VisionError> {
        let network = self.head.build(stored)?;
        let (mut losses, mut found) = (0.0, Vec::with_capacity(self.held_out.len()));
        for places in self.held_out.chunks(TOGETHER) {
            let wanted: Vec<(usize, usize)> = places.iter().map(|place| (*place, 0)).collect();
            let labels: Vec<u32> = places.iter().map(|place| self.features.classes[*place]).collect();
            let logits = network.run(&self.features.gather(&wanted)?, &Stop::never())?.flatten_from(1)?;
            let loss = cross_entropy(&logits, &Tensor::new(labels.as_slice(), &Device::Cpu)?)?.to_scalar::<f32>()?;
            losses += loss * places.len() as f32;
            let taken = logits.argmax(1)?.to_vec1::<u32>()?;
            found.extend(labels.iter().zip(taken).map(|(shown, taken)| (*shown as usize, taken as usize)));
        }
        let count = found.len().max(1) as f32;
        let right = found.iter().filter(|(shown, taken)| shown == taken).count();
        Ok((Marks { loss: losses / count, accuracy: right as f32 / count }, found))
    }
}

impl Lesson for Heading<'_> {
    fn answer(&mut self, places: &[usize], random: &mut ChaCha12Rng) -> Result<(Tensor, Vec<u32>), VisionError> {
        let sides = self.features.sides();
        let wanted: Vec<(usize, usize)> =
            places.iter().map(|place| (*place, if sides > 1 { random.random_range(0..sides) } else { 0 })).collect();
        let labels = places.iter().map(|place| self.features.classes[*place]).collect();
        let logits = self.network.run(&self.features.gather(&wanted)?, &Stop::never())?;
        Ok((logits.flatten_from(1)?, labels))
    }

    fn stored(&self) -> Result<Vec<u8>, VisionError> {
        let corrupt = |source| VisionError::CorruptWeights { origin: "trained weights".to_owned(), source };
        let mut contents = Vec::with_capacity(self.variables.len());
        for (name, tensor) in &self.variables {
            contents.push((name.as_str(), tensor.dims().to_vec(), f32_bytes(tensor)?));
        }
        let views = contents
            .iter()
            .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(corrupt)?;
        safetensors::serialize(views, None).map_err(corrupt)
    }

    fn examine(&mut self, stored: &[u8]) -> Result<Marks, VisionError> {
        Ok(self.read(&Weights::from_bytes("trained weights", stored.to_vec())?)?.0)
    }

    fn is_better(&self, marks: Marks, best: Marks) -> bool {
        marks.loss < best.loss
    }
}
