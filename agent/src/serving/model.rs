//! One loaded version of a model: what it is, how images are made ready for it, its queue and its worker.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_common::id::{ModelName, Version};
use adit_vision::image::{Frame, ImageLimits, Preprocess, batch, decode, prepare};
use adit_vision::{
    DetectOptions, Heads, ImageError, ImageShape, Labels, Network, Stop, Tensor, VisionError, Weights, candidates,
    detections, device, probabilities,
};
use bytes::Bytes;

use super::queue::{Queue, Refused};
use super::request::Findings;
use super::spec::Kind;
use super::stand_in::StandIn;
use super::worker::{Job, Worker, chain};
use crate::error::InferError;
use crate::metrics::Metrics;

/// What networks compute on, as manifests and timings name it.
pub const DEVICE: &str = "cpu";

/// Where a version's files come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// The folders that its description names.
    Folder,
    /// The program itself.
    Embedded {
        /// A safetensors file.
        weights: &'static [u8],
        /// A labels file.
        labels: &'static str,
    },
}

/// A version that can be asked.
#[derive(Debug)]
pub struct Model {
    name: ModelName,
    version: Version,
    platform: String,
    labels: Arc<Labels>,
    shape: ImageShape,
    eye: Eye,
    /// Which boxes are told; nothing for a classifier.
    detect: Option<DetectOptions>,
    queue: Arc<Queue<Job>>,
    worker: Worker,
}

/// How an image becomes a network's input.
#[derive(Debug)]
enum Eye {
    Preprocess(Box<Preprocess>),
    StandIn(StandIn),
}

/// What a network is given.
#[derive(Debug)]
pub(super) struct Prepared {
    /// `[N, C, H, W]`.
    pub(super) input: Tensor,
    /// Where each of the N images lies in it: a detector has one for each, a classifier needs none.
    pub(super) frames: Vec<Frame>,
}

/// Images made ready, and what it took.
#[derive(Debug)]
pub(super) struct Ready {
    /// What the network is given.
    pub(super) prepared: Prepared,
    /// Time in decoding.
    pub(super) decode: Duration,
    /// Time in preparing.
    pub(super) prepare: Duration,
}

impl Model {
    /// Reads a version's weights and labels, checks that they fit, warms the network with one pass, and starts its worker.
    /// An error is the reason why the version is unavailable.
    pub(super) fn open(
        name: &ModelName,
        version: Version,
        kind: &Kind,
        origin: Origin,
        queue: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let (network, labels, eye, platform, detect) = match kind {
            Kind::StandIn(times) => {
                let labels: Vec<String> = (0..times.classes).map(|class| format!("class {class}")).collect();
                let labels = Labels::parse(&labels.join("\n")).map_err(|error| chain(&error))?;
                let network: Box<dyn Network> = Box::new(times.clone());
                (network, labels, Eye::StandIn(times.clone()), "stand_in".to_owned(), None)
            }
            Kind::Network { architecture, versions, labels, preprocess, detect } => {
                let (weights, labels) = read(versions, version, labels, origin).map_err(|error| chain(&error))?;
                let device = device(DEVICE).map_err(|error| chain(&error))?;
                let network = architecture.build(&weights, &device).map_err(|error| chain(&error))?;
                (network, labels, Eye::Preprocess(preprocess.clone()), format!("candle_{architecture}"), *detect)
            }
        };
        labels.check(network.classes()).map_err(|error| chain(&error))?;
        let shape = network.input();
        if let Eye::Preprocess(preprocess) = &eye
            && preprocess.shape() != shape
        {
            return Err(format!("[preprocess] makes {}, the network takes {shape}", preprocess.shape()));
        }
        // The first pass finds and touches its memory; it must not be a caller's. A stand-in has none to touch.
        if let Eye::Preprocess(_) = &eye {
            warm(&*network, detect.is_some()).map_err(|error| chain(&error))?;
        }
        let queue = Arc::new(Queue::new(queue));
        let worker = Worker::start(&format!("{name}/{version}"), network, queue.clone(), metrics)
            .map_err(|error| format!("its thread cannot be started: {error}"))?;
        Ok(Self { name: name.clone(), version, platform, labels: Arc::new(labels), shape, eye, detect, queue, worker })
    }

    /// Its name.
    pub const fn name(&self) -> &ModelName {
        &self.name
    }

    /// Its version.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// What runs it, such as `candle_googlenet_bn`.
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// The names of its classes, in order.
    pub const fn labels(&self) -> &Arc<Labels> {
        &self.labels
    }

    /// The shape of one prepared image.
    pub const fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Whether it finds objects and their places; a model that does not tells classes of whole images.
    pub const fn is_detector(&self) -> bool {
        self.detect.is_some()
    }

    /// Whether its worker lives, and shows progress at least every `patience` while it computes.
    pub(super) fn is_alive(&self, patience: Duration) -> bool {
        self.worker.is_alive(patience)
    }

    /// Decodes and prepares images; `gone` is asked between them. Computes for long: not for the runtime's threads.
    pub(super) fn look(
        &self,
        images: &[Bytes],
        limits: &ImageLimits,
        gone: impl Fn() -> bool,
    ) -> Result<Ready, InferError> {
        let (mut decoding, mut preparing) = (Duration::ZERO, Duration::ZERO);
        let (mut prepared, mut frames) = (Vec::with_capacity(images.len()), Vec::new());
        for (number, image) in images.iter().enumerate() {
            if gone() {
                return Err(InferError::Cancelled);
            }
            let invalid = |error: ImageError| match images.len() {
                1 => InferError::Invalid(error.to_string()),
                _ => InferError::Invalid(format!("image {number}: {error}")),
            };
            // One image after the other, so that of many only one is held decoded.
            let begun = Instant::now();
            match &self.eye {
                Eye::Preprocess(preprocess) => {
                    let pixels = decode(image, limits).map_err(invalid)?;
                    let decoded = Instant::now();
                    prepared.push(prepare(&pixels, preprocess).map_err(invalid)?);
                    if self.detect.is_some() {
                        frames.push(self.frame(preprocess, pixels.width(), pixels.height())?);
                    }
                    decoding += decoded - begun;
                    preparing += decoded.elapsed();
                }
                Eye::StandIn(times) => {
                    times.decode();
                    let decoded = Instant::now();
                    prepared.push(times.prepare());
                    decoding += decoded - begun;
                    preparing += decoded.elapsed();
                }
            }
        }
        let begun = Instant::now();
        let prepared = Prepared { input: self.tensor(&prepared)?, frames };
        Ok(Ready { prepared, decode: decoding, prepare: preparing + begun.elapsed() })
    }

    /// A network's input from images that were prepared elsewhere: `[N, C, H, W]`, row-major. What they were made of is not
    /// known: a detector tells its boxes in their own pixels.
    pub(super) fn take(&self, shape: &[usize], elements: &[f32]) -> Result<Prepared, InferError> {
        let ImageShape { channels, height, width } = self.shape;
        match shape {
            [images, c, h, w] if *images > 0 && [*c, *h, *w] == [channels, height, width] => {
                let input = self.tensor(&elements.chunks(self.shape.elements()).collect::<Vec<_>>())?;
                let frames = match &self.eye {
                    Eye::Preprocess(preprocess) if self.detect.is_some() => {
                        // A picture of the network's own size is neither scaled nor moved.
                        vec![self.frame(preprocess, width as u32, height as u32)?; *images]
                    }
                    _ => Vec::new(),
                };
                Ok(Prepared { input, frames })
            }
            other => {
                let wanted = format!("[N, {channels}, {height}, {width}]");
                Err(InferError::Invalid(format!("input has the shape {other:?}, expected {wanted}")))
            }
        }
    }

    /// What a network's output means, for the images that lie in these frames.
    pub(super) fn interpret(&self, heads: &Heads, frames: &[Frame]) -> Result<Findings, InferError> {
        let found = match &self.detect {
            None => probabilities(heads).map(Findings::Probabilities),
            Some(options) => candidates(heads).and_then(|images| {
                let images = images.iter().zip(frames);
                let found = images.map(|(image, frame)| detections(image, frame, &self.labels, options));
                found.collect::<Result<_, _>>().map(Findings::Detections)
            }),
        };
        found.map_err(|error| self.failed(chain(&error)))
    }

    fn frame(&self, preprocess: &Preprocess, width: u32, height: u32) -> Result<Frame, InferError> {
        // A description whose frames are unknown is not loaded as a detector's.
        preprocess.frame(width, height).ok_or_else(|| self.failed("a picture's place is not known".to_owned()))
    }

    fn tensor<T: AsRef<[f32]>>(&self, images: &[T]) -> Result<Tensor, InferError> {
        device(DEVICE).and_then(|device| batch(images, self.shape, &device)).map_err(|error| match error {
            VisionError::Input { .. } => InferError::Invalid(error.to_string()),
            other => self.failed(chain(&other)),
        })
    }

    /// Puts a job into the queue; its number there.
    pub(super) fn submit(&self, job: Job) -> Result<u64, InferError> {
        let images = job.input.dim(0).unwrap_or(1);
        self.queue.push(job, images).map_err(|refused| match refused {
            Refused::Full => InferError::Overloaded { model: self.name.clone() },
            Refused::Closed => self.failed("its worker has ended".to_owned()),
        })
    }

    /// Takes a job out of the queue again, if it still is there.
    pub(super) fn withdraw(&self, number: u64) {
        drop(self.queue.remove(number));
    }

    /// This model has failed; `detail` is for the log.
    pub(super) fn failed(&self, detail: String) -> InferError {
        InferError::Backend { model: self.name.clone(), detail }
    }
}

/// The file of a version's weights.
pub(super) fn weights_file(versions: &Path, version: Version) -> PathBuf {
    versions.join(version.to_string()).join("model.safetensors")
}

fn warm(network: &dyn Network, detects: bool) -> Result<(), VisionError> {
    let shape = network.input();
    let blank = batch(&[vec![0.0; shape.elements()]], shape, &device(DEVICE)?)?;
    let heads = network.forward(&blank, &Stop::never())?;
    if detects { candidates(&heads).map(drop) } else { probabilities(&heads).map(drop) }
}

fn read(versions: &Path, version: Version, labels: &Path, origin: Origin) -> Result<(Weights, Labels), VisionError> {
    match origin {
        Origin::Folder => Ok((Weights::read(&weights_file(versions, version))?, Labels::read(labels)?)),
        Origin::Embedded { weights, labels } => {
            Ok((Weights::from_bytes("the built-in model", weights.to_vec())?, Labels::parse(labels)?))
        }
    }
}
