//! An inference as every dialect asks for it, and its answer.

use std::str::FromStr;
use std::sync::Arc;

use adit_common::deadline::Deadline;
use adit_common::id::{IdError, ModelName, Version, VersionLabel};
use adit_vision::{Detection, Labels};
use bytes::Bytes;

use super::batcher::LOWEST;
use super::receipt::Receipt;

/// What is asked.
#[derive(Debug, Clone)]
pub struct InferRequest {
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Choice,
    /// What to look at.
    pub input: Input,
    /// Until when the answer is of use.
    pub deadline: Deadline,
    /// How urgent it is.
    pub priority: Priority,
}

/// How urgent a request is: it goes before one of the next lower level that came at most a second earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priority(u8);

impl Priority {
    /// How many levels there are.
    pub const LEVELS: u64 = LOWEST as u64;
    /// The level of a request that does not say: below the highest, so that there is a way to say that something is urgent.
    pub const DEFAULT: u64 = 2;

    /// From the number of a request: 1 is the highest, and 0 stands for the default, which is 2. Beyond 16 all are the same.
    pub fn new(number: u64) -> Self {
        match u8::try_from(number) {
            Ok(0) => Self::default(),
            Ok(level) => Self(level.min(LOWEST)),
            Err(_) => Self(LOWEST),
        }
    }

    /// From 1, the highest, to 16.
    pub(super) const fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(Self::DEFAULT as u8)
    }
}

/// Which version of a model is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// The newest that is ready.
    #[default]
    Newest,
    /// This one.
    Version(Version),
    /// The one that the model's description calls so.
    Label(VersionLabel),
}

impl FromStr for Choice {
    type Err = IdError;

    /// A number, or a label. What is neither is told as no version.
    fn from_str(text: &str) -> Result<Self, IdError> {
        match (text.parse(), VersionLabel::new(text)) {
            (Ok(version), _) => Ok(Self::Version(version)),
            (_, Ok(label)) => Ok(Self::Label(label)),
            (Err(error), _) => Err(error),
        }
    }
}

/// What a network is to look at.
#[derive(Debug, Clone)]
pub enum Input {
    /// Encoded images: JPEG, PNG, WebP, BMP or GIF.
    Images(Vec<Bytes>),
    /// Prepared images, `[N, C, H, W]` row-major, normalised as the network was trained.
    Tensor {
        /// N, C, H, W.
        shape: Vec<usize>,
        /// N x C x H x W numbers.
        elements: Vec<f32>,
    },
    /// Pictures of the network's own size, `[N, H, W, C]` row-major, red before green before blue, from 0 to 1.
    Pixels {
        /// N.
        images: usize,
        /// N x H x W x C numbers.
        elements: Vec<f32>,
    },
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct InferResponse {
    /// The model that answers.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// What it makes of the images.
    pub findings: Findings,
    /// The classes' names.
    pub labels: Arc<Labels>,
    /// Enters the inference in its model's statistics when it is dropped: to be kept until the answer is written.
    pub receipt: Receipt,
    /// Width and height in pixels of each image that a detector looked at; of a classifier's, nothing.
    pub sizes: Vec<[u32; 2]>,
}

/// What a model makes of the images of one request, a row an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Findings {
    /// A classifier's: a number a class, from 0 to 1; a row adds up to 1.
    Probabilities(Vec<Vec<f32>>),
    /// A detector's: what it found, the surest first, in pixels of the image as it was sent; a row may be empty.
    Detections(Vec<Vec<Detection>>),
}
