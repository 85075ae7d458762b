//! What numbers flow through a network for the pictures that it is going to see: what its bytes are to stand for.
//!
//! A byte has 256 steps. How large one is has to be known before the first picture comes, layer by layer, and depends on what the
//! pictures show: so the network is run over some of the user's own, in f32, and the range of every value is written down. The file
//! belongs to one file of weights, and is refused beside another.

use std::fs;
use std::path::Path;

use adit_kernels::{Observer, Range};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::compile::observer;
use crate::error::VisionError;
use crate::graph::check_batch;
use crate::plans::threads;
use crate::shape::ImageShape;
use crate::stop::Stop;
use crate::weights::Weights;
use crate::zoo::Architecture;

/// The edition of the file; a program that knows another one does not guess.
const EDITION: u32 = 1;

/// No file of a network of ours is as long: the largest has some thousand values.
const LONGEST: u64 = 1 << 20;

/// The ranges of a network's values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    edition: u32,
    architecture: String,
    /// CRC-32 of the weights' file.
    weights: u32,
    images: usize,
    /// The lowest and the highest number of each value, the input first, in the order in which the layers are run.
    ranges: Vec<Range>,
}

impl Calibration {
    /// Reads a file that [`Self::write`] wrote.
    pub fn read(path: &Path) -> Result<Self, VisionError> {
        let wrong = |reason: String| VisionError::Calibration { path: path.to_owned(), reason };
        let unread = |source| VisionError::Read { path: path.to_owned(), source };
        if fs::metadata(path).map_err(unread)?.len() > LONGEST {
            return Err(wrong("it is too long to be one".to_owned()));
        }
        let text = fs::read(path).map_err(unread)?;
        let read: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if read.edition != EDITION {
            return Err(wrong(format!("it is of edition {}, this program knows edition {EDITION}", read.edition)));
        }
        Ok(read)
    }

    /// Writes it to a file: whole, or not at all.
    pub fn write(&self, path: &Path) -> Result<(), VisionError> {
        let unwritten = |source| VisionError::Write { path: path.to_owned(), source };
        let text = serde_json::to_vec(self).map_err(|error| unwritten(error.into()))?;
        let part = path.with_extension("part");
        fs::write(&part, text).and_then(|()| fs::rename(&part, path)).map_err(unwritten)
    }

    /// Pictures that it was made of.
    #[must_use]
    pub const fn images(&self) -> usize {
        self.images
    }

    /// The ranges, if they are those of this architecture with these weights.
    pub(crate) fn ranges(&self, architecture: Architecture, weights: &Weights) -> Result<&[Range], VisionError> {
        let stale = |made_for| Err(VisionError::StaleCalibration { made_for });
        if self.architecture != architecture.name() {
            return stale(format!("the architecture {}", self.architecture));
        }
        if self.weights != weights.checksum()? {
            return stale("other weights".to_owned());
        }
        Ok(&self.ranges)
    }
}

/// A network that is run to be calibrated: in f32, on the processor.
#[derive(Debug)]
pub struct Calibrator {
    observer: Observer,
    shape: ImageShape,
    architecture: Architecture,
    weights: u32,
    images: usize,
}

impl Calibrator {
    /// Of a network with these weights. Fails for what cannot be computed in bytes: borrowed networks, and detectors of two stages.
    pub fn new(architecture: Architecture, weights: &Weights) -> Result<Self, VisionError> {
        let graph = architecture.in_bytes(weights)?;
        Ok(Self {
            observer: observer(&graph, threads())?,
            shape: graph.input(),
            architecture,
            weights: weights.checksum()?,
            images: 0,
        })
    }

    /// Runs pictures, `[N, C, H, W]`, prepared as for the network.
    pub fn observe(&mut self, pictures: &Tensor, stop: &Stop<'_>) -> Result<(), VisionError> {
        check_batch(self.shape, pictures)?;
        let numbers = pictures.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        for picture in numbers.chunks_exact(self.shape.elements()) {
            self.observer.observe(picture, &mut || stop.asked())?;
            self.images += 1;
        }
        Ok(())
    }

    /// What was found. Fails where nothing was, or what is no number: the weights are damaged.
    pub fn finish(&self) -> Result<Calibration, VisionError> {
        let ranges = self.observer.ranges().to_vec();
        if !ranges.iter().flatten().all(|bound| bound.is_finite()) {
            return Err(VisionError::NoRanges { images: self.images });
        }
        let architecture = self.architecture.name().to_owned();
        Ok(Calibration { edition: EDITION, architecture, weights: self.weights, images: self.images, ranges })
    }
}
