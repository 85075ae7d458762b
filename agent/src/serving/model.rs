//! One loaded version of a model: what it is, how images are made ready for it, and the engine that runs it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_common::id::{ModelName, Version};
use adit_vision::image::{Frame, ImageLimits, Preprocess, batch, decode_for, normalise, prepare};
use adit_vision::{
    DetectOptions, Device, Heads, ImageError, ImageShape, Labels, Network, Padded, Stop, Tensor, VisionError, Weights,
    candidates, detections, probabilities,
};
use bytes::Bytes;

use super::batching::Batching;
use super::card::Card;
use super::devices::Devices;
use super::engine::{CPU, Engine, Loaded, workers};
use super::job::{Job, Lost, Refused};
use super::request::Findings;
use super::signature::Signature;
use super::spec::Kind;
use super::stand_in::StandIn;
use super::worker::chain;
use crate::error::InferError;
use crate::metrics::Account;

/// The batch sizes that are run on a GPU: from one to the next, half of what is computed is of use at least. The largest is what
/// the batcher tries at most.
const GPU_SIZES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Where a version's files come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    card: Arc<Card>,
    eye: Eye,
    /// Which boxes are told; nothing for a classifier.
    detect: Option<DetectOptions>,
    engine: Arc<Engine>,
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

/// Some of a request's images, looked at.
#[derive(Debug)]
pub(super) struct Seen {
    /// Each as the network wants it.
    images: Vec<Vec<f32>>,
    frames: Vec<Frame>,
    /// Time in decoding.
    pub(super) decode: Duration,
    /// Time in preparing.
    pub(super) prepare: Duration,
}

impl Model {
    /// A model over an engine that runs already: its labels are read and everything is checked against the network, but no
    /// weights are read. `kind` must be of the architecture that the engine runs.
    pub(super) fn over(
        name: &ModelName,
        version: Version,
        kind: &Kind,
        origin: Origin,
        batching: &Batching,
        engine: Arc<Engine>,
    ) -> Result<Self, String> {
        let mut signature = Signature::default();
        let (labels, eye, platform, detect) = match kind {
            Kind::StandIn(times) => {
                let labels: Vec<String> = (0..times.classes).map(|class| format!("class {class}")).collect();
                let labels = Labels::parse(&labels.join("\n")).map_err(|error| chain(&error))?;
                (labels, Eye::StandIn(times.clone()), "stand_in".to_owned(), None)
            }
            Kind::Network { architecture, labels, preprocess, detect, signature: written, .. } => {
                signature.clone_from(written);
                let labels = match origin {
                    Origin::Folder => Labels::read(labels),
                    Origin::Embedded { labels, .. } => Labels::parse(labels),
                };
                let labels = labels.map_err(|error| chain(&error))?;
                (labels, Eye::Preprocess(preprocess.clone()), format!("candle_{architecture}"), *detect)
            }
        };
        labels.check(engine.network().classes()).map_err(|error| chain(&error))?;
        let shape = engine.network().input();
        if let Eye::Preprocess(preprocess) = &eye
            && preprocess.shape() != shape
        {
            return Err(format!("[preprocess] makes {}, the network takes {shape}", preprocess.shape()));
        }
        let card = Card {
            name: name.clone(),
            version,
            platform,
            labels: Arc::new(labels),
            shape,
            detects: detect.is_some(),
            device: engine.device().clone(),
            kernels: engine.network().kernels(),
            signature,
            bytes: engine.weight_bytes() as u64,
            batching: *batching,
            workers: workers(batching, engine.device()),
            queue: engine.capacity(),
        };
        Ok(Self { card: Arc::new(card), eye, detect, engine })
    }

    /// What runs it; another model may run on the same.
    pub(super) const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What is counted of it.
    pub(super) fn account(&self) -> &Arc<Account> {
        self.engine.account()
    }

    /// What is told of it.
    pub const fn card(&self) -> &Arc<Card> {
        &self.card
    }

    /// Whether it finds objects and their places; a model that does not tells classes of whole images.
    pub(super) const fn is_detector(&self) -> bool {
        self.detect.is_some()
    }

    /// Whether nobody but the one that holds this has it: no request, and no other model over its engine.
    pub(super) fn is_idle(model: &Arc<Self>) -> bool {
        Arc::strong_count(model) == 1 && Arc::strong_count(&model.engine) == 1
    }

    /// Whether somebody tends to its workers: no pass is silent for much longer than `patience`.
    pub(super) fn is_alive(&self, patience: Duration) -> bool {
        self.engine.is_alive(patience)
    }

    /// Why it answers nobody, if so: its workers hang.
    pub(super) fn fault(&self) -> Option<&'static str> {
        self.engine.fault()
    }

    /// Decodes and prepares images, of which the first has the number `first` of a request's `total`; `gone` is asked between them. Computes
    /// for long: not for the runtime's threads.
    pub(super) fn look(
        &self,
        images: &[Bytes],
        (first, total): (usize, usize),
        limits: &ImageLimits,
        gone: impl Fn() -> bool,
    ) -> Result<Seen, InferError> {
        let (mut decoding, mut preparing) = (Duration::ZERO, Duration::ZERO);
        let (mut prepared, mut frames) = (Vec::with_capacity(images.len()), Vec::new());
        for (number, image) in images.iter().enumerate() {
            if gone() {
                return Err(InferError::Cancelled);
            }
            let invalid = |error: ImageError| match total {
                1 => InferError::Invalid(error.to_string()),
                _ => InferError::Invalid(format!("image {}: {error}", first + number)),
            };
            // One image after the other, so that of many only one is held decoded.
            let begun = Instant::now();
            match &self.eye {
                Eye::Preprocess(preprocess) => {
                    let pixels = decode_for(image, limits, preprocess).map_err(invalid)?;
                    let decoded = Instant::now();
                    prepared.push(prepare(&pixels, preprocess).map_err(invalid)?);
                    if self.detect.is_some() {
                        let [width, height] = pixels.size();
                        frames.push(self.frame(preprocess, width, height)?);
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
        Ok(Seen { images: prepared, frames, decode: decoding, prepare: preparing })
    }

    /// What the network is given of a request's images, which were looked at some by some.
    pub(super) fn join(&self, seen: &[Seen]) -> Result<Prepared, InferError> {
        let images: Vec<_> = seen.iter().flat_map(|some| &some.images).collect();
        let frames = seen.iter().flat_map(|some| &some.frames).copied().collect();
        Ok(Prepared { input: self.tensor(&images)?, frames })
    }

    /// A network's input from images that were prepared elsewhere: `[N, C, H, W]`, row-major. What they were made of is not
    /// known: a detector tells its boxes in their own pixels.
    pub(super) fn take(&self, shape: &[usize], elements: &[f32]) -> Result<Prepared, InferError> {
        let ImageShape { channels, height, width } = self.card.shape;
        match shape {
            [images, c, h, w] if *images > 0 && [*c, *h, *w] == [channels, height, width] => {
                let input = self.tensor(&elements.chunks(self.card.shape.elements()).collect::<Vec<_>>())?;
                Ok(Prepared { input, frames: self.whole(*images)? })
            }
            other => {
                let wanted = format!("[N, {channels}, {height}, {width}]");
                Err(InferError::Invalid(format!("input has the shape {other:?}, expected {wanted}")))
            }
        }
    }

    /// A network's input from pictures of its own size: `[N, H, W, C]`, row-major, from 0 to 1.
    pub(super) fn normalise(&self, images: usize, elements: &[f32]) -> Result<Prepared, InferError> {
        let each = self.card.shape.elements();
        if images.checked_mul(each) != Some(elements.len()) {
            let message = format!("{} numbers for {images} pictures, each of which has {each}", elements.len());
            return Err(InferError::Invalid(message));
        }
        let picture = |pixels: &[f32]| match &self.eye {
            Eye::Preprocess(preprocess) => normalise(pixels, preprocess),
            Eye::StandIn(_) => pixels.to_vec(),
        };
        let input = self.tensor(&elements.chunks(each).map(picture).collect::<Vec<_>>())?;
        Ok(Prepared { input, frames: self.whole(images)? })
    }

    /// Where pictures of the network's own size lie in its input: they are neither scaled nor moved.
    fn whole(&self, images: usize) -> Result<Vec<Frame>, InferError> {
        let ImageShape { height, width, .. } = self.card.shape;
        match &self.eye {
            Eye::Preprocess(preprocess) if self.detect.is_some() => {
                Ok(vec![self.frame(preprocess, width as u32, height as u32)?; images])
            }
            _ => Ok(Vec::new()),
        }
    }

    /// What a network's output means, for the images that lie in these frames.
    pub(super) fn interpret(&self, heads: &Heads, frames: &[Frame]) -> Result<Findings, InferError> {
        let found = match &self.detect {
            None => probabilities(heads).map(Findings::Probabilities),
            Some(options) => candidates(heads).and_then(|images| {
                let images = images.iter().zip(frames);
                let found = images.map(|(image, frame)| detections(image, frame, &self.card.labels, options));
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
        // In the processor's memory: a batch goes to a GPU as a whole.
        batch(images, self.card.shape, &Device::Cpu).map_err(|error| match error {
            VisionError::Input { .. } => InferError::Invalid(error.to_string()),
            other => self.failed(chain(&other)),
        })
    }

    /// Puts a job into the queue; its number there.
    pub(super) fn submit(&self, job: Job) -> Result<u64, InferError> {
        let model = || self.card.name.clone();
        self.engine.submit(job).map_err(|refused| match refused {
            Refused::Full => InferError::Overloaded { model: model() },
            Refused::Late(needed) => InferError::TooLate { model: model(), needed },
            Refused::Expired => InferError::DeadlineExceeded,
            Refused::Faulty(reason) => InferError::NotReady { model: model(), reason },
            Refused::Closed => self.failed("its workers have ended".to_owned()),
        })
    }

    /// What became of a job that was taken and not run.
    pub(super) fn lost(&self, lost: Lost) -> InferError {
        match lost {
            Lost::Displaced => InferError::Overloaded { model: self.card.name.clone() },
            Lost::Expired => InferError::DeadlineExceeded,
            Lost::Failed { reason, detail } => InferError::Backend { model: self.card.name.clone(), reason, detail },
        }
    }

    /// Takes a job out of the queue again, if it still is there.
    pub(super) fn withdraw(&self, number: u64) {
        self.engine.withdraw(number);
    }

    /// This model has failed; `detail` is for the log.
    pub(super) fn failed(&self, detail: String) -> InferError {
        InferError::Backend { model: self.card.name.clone(), reason: "an error within", detail }
    }
}

/// The file of a version's weights.
pub fn weights_file(versions: &Path, version: Version) -> PathBuf {
    versions.join(version.to_string()).join("model.safetensors")
}

/// The file beside them that says what bytes stand for, where the network computes in bytes.
pub fn calibration_file(versions: &Path, version: Version) -> PathBuf {
    versions.join(version.to_string()).join("int8.json")
}

/// The network of a version on its device, warmed. Reads and computes for seconds. An error is the reason why the version is
/// unavailable.
pub(super) fn network(version: Version, kind: &Kind, origin: Origin, devices: &Devices) -> Result<Loaded, String> {
    let (architecture, versions, device, execution) = match kind {
        // It has no memory to touch.
        Kind::StandIn(times) => {
            return Ok(Loaded { network: Arc::new(times.clone()), weight_bytes: 0, device: CPU.into() });
        }
        Kind::Network { architecture, versions, device, execution, .. } => {
            (architecture, versions, *device, *execution)
        }
    };
    let read = || -> Result<Loaded, VisionError> {
        let compute = devices.of(device)?;
        let weights = match origin {
            Origin::Folder => Weights::read(&weights_file(versions, version))?,
            Origin::Embedded { weights, .. } => Weights::from_bytes("the built-in model", weights.to_vec())?,
        };
        let calibration = calibration_file(versions, version);
        let network = architecture.build_beside(execution, &weights, &compute.device, &calibration)?;
        let network: Arc<dyn Network> =
            if compute.device.is_cpu() { network.into() } else { Arc::new(Padded::warm(network, &GPU_SIZES)?) };
        // The first pass finds and touches its memory; it must not be a caller's.
        warm(&*network, architecture.is_detector())?;
        let stored = weights.size() / size_of::<f32>() * execution.precision.bytes();
        let weight_bytes = network.weight_bytes().unwrap_or(stored);
        Ok(Loaded { network, weight_bytes, device: compute.name })
    };
    read().map_err(|error| chain(&error))
}

fn warm(network: &dyn Network, detects: bool) -> Result<(), VisionError> {
    let shape = network.input();
    let blank = batch(&[vec![0.0; shape.elements()]], shape, &Device::Cpu)?;
    let heads = network.forward(&blank, &Stop::never())?;
    if detects { candidates(&heads).map(drop) } else { probabilities(&heads).map(drop) }
}
