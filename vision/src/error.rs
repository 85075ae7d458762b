//! What can go wrong in this crate.
//!
//! Two enums, because two people are at fault: an [`ImageError`](adit_picture::ImageError) is the fault of whoever sent the
//! picture, and its text is written for them; a [`VisionError`] is the fault of the installation (weights, labels, device) or of
//! the program, and names files.

use std::io;
use std::path::PathBuf;

use adit_picture::ImageError;

use crate::precision::Precision;
use crate::shape::ImageShape;

/// Why a GPU is not to be had; the text says what would mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceFault {
    /// The feature is missing.
    #[error("this program was built without the feature `cuda`: build it with cuda/build")]
    NotBuilt,
    /// The driver's library is missing.
    #[error("there is no NVIDIA driver (libcuda.so.1): install one of CUDA 13, 580 or newer")]
    NoDriver,
    /// The driver knows no GPU of this number.
    #[error("the driver knows no such GPU: look with nvidia-smi -L, and at CUDA_VISIBLE_DEVICES")]
    NoGpu,
    /// The driver is older than the program's kernels.
    #[error("the NVIDIA driver is too old: install one of CUDA 13, 580 or newer")]
    OldDriver,
    /// The kernels are for other GPUs.
    #[error("this program was built for other GPUs: build it with cuda/build --capability and this one's number")]
    OtherGpu,
    /// A library of CUDA's is missing.
    #[error("{0} does not start: are the libraries of CUDA 13 there, and is LD_LIBRARY_PATH their folder?")]
    NoLibrary(&'static str),
    /// Something else; the first line of what was said.
    #[error("{0}")]
    Other(String),
}

/// Why a network could not be built, run or trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VisionError {
    /// A batch was to be taken apart into other parts than it was made of.
    #[error("the network answered for {images} images, and was asked for parts of {parts:?}")]
    Parts {
        /// Images that it answered for.
        images: usize,
        /// Images of each part.
        parts: Vec<usize>,
    },
    /// No architecture has this name.
    #[error("unknown architecture `{name}`, known are: {known}")]
    UnknownArchitecture {
        /// The name that was asked for.
        name: String,
        /// All known names, separated by commas; those of a borrowed family in one piece, `mit_{b0, b1}`.
        known: String,
    },
    /// No device is called so.
    #[error("unknown device `{0}`: it is `auto`, `cpu` or `cuda:N` with a number from 0")]
    UnknownDevice(String),
    /// A device is not to be had.
    #[error("device `{name}` is not to be had: {reason}")]
    Device {
        /// The device that was asked for.
        name: String,
        /// Why not.
        reason: DeviceFault,
    },
    /// The device, or the network, cannot be computed in a type.
    #[error("`{precision}` cannot be computed in: {reason}")]
    Precision {
        /// The type.
        precision: Precision,
        /// Why not.
        reason: &'static str,
    },
    /// A file that is no calibration.
    #[error("{} is no calibration: {reason}", .path.display())]
    Calibration {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes were asked for, and it is not known what they stand for.
    #[error(
        "`int8` needs a calibration, and {} is not there: make it with `adit-agent quantise --models DIR --model NAME IMAGES...`",
        .path.display()
    )]
    NoCalibration {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A calibration that is not of this network.
    #[error("the calibration was made for {made_for}: make it anew with `adit-agent quantise`")]
    StaleCalibration {
        /// What it was made for.
        made_for: String,
    },
    /// Nothing to calibrate by.
    #[error("{images} pictures gave no ranges to calibrate by: none was seen, or the network's numbers are no numbers")]
    NoRanges {
        /// Pictures that were run.
        images: usize,
    },
    /// A network was to be warmed at no batch size.
    #[error("there is no batch size to warm a network at")]
    NoSizes,
    /// A file could not be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The weights are not a whole safetensors file: damaged, half copied, or something else.
    #[error("{origin} is not a complete safetensors file")]
    CorruptWeights {
        /// The file, or where else the bytes came from.
        origin: String,
        /// What is wrong with it.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// The weights lack a tensor that the architecture needs.
    #[error("{origin} has no tensor `{tensor}`")]
    MissingTensor {
        /// The file, or where else the bytes came from.
        origin: String,
        /// Name of the tensor.
        tensor: String,
    },
    /// The weights hold a tensor that the architecture does not have: they are another network's.
    #[error("{origin} has a tensor `{tensor}`, which the architecture does not")]
    ExtraTensor {
        /// The file, or where else the bytes came from.
        origin: String,
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor of the weights has another shape than the architecture needs.
    #[error("tensor `{tensor}` of {origin} has the shape {found:?}, expected {expected:?}")]
    TensorShape {
        /// The file, or where else the bytes came from.
        origin: String,
        /// Name of the tensor.
        tensor: String,
        /// Shape that the architecture needs.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor of the weights has a number type that weights cannot have.
    #[error("tensor `{tensor}` of {origin} has the type {found}, expected f16, bf16 or f32")]
    TensorType {
        /// The file, or where else the bytes came from.
        origin: String,
        /// Name of the tensor.
        tensor: String,
        /// Type in the file.
        found: String,
    },
    /// Layers were put together that do not fit; a fault of a network's description.
    #[error("layer `{layer}` does not fit: {reason}")]
    Layer {
        /// Name of the layer.
        layer: String,
        /// What does not fit.
        reason: String,
    },
    /// The input tensor has another shape than the network takes.
    #[error("input has the shape {found:?}, expected [N, {expected}] with N > 0")]
    Input {
        /// What the network takes for one image.
        expected: ImageShape,
        /// What was given.
        found: Vec<usize>,
    },
    /// The caller asked to stop, and the network did so between two layers.
    #[error("stopped between two layers")]
    Stopped,
    /// The network gave scores that are not numbers; its weights are damaged.
    #[error("the network's output is not finite")]
    NotFinite,
    /// The layers of a network were asked for that is no graph of ours.
    #[error("{name} is a network of candle-transformers, whose layers cannot be walked")]
    NoGraph {
        /// The network.
        name: &'static str,
    },
    /// A detector's output was asked for probabilities.
    #[error("a detector gives boxes, not probabilities of classes")]
    NoProbabilities,
    /// A classifier's output was asked for boxes.
    #[error("a classifier gives probabilities of classes, not boxes")]
    NoBoxes,
    /// The `[detect]` section makes no sense.
    #[error("detection: {0}")]
    Detect(String),
    /// A labels file does not fit its network, or has no labels.
    #[error("labels: {0}")]
    Labels(String),
    /// A training set is not what its format promises.
    #[error("{}: {reason}", .path.display())]
    Dataset {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Training was asked for with options that make no sense.
    #[error("training: {0}")]
    Training(String),
    /// A version is there already, and nobody said that it may be replaced.
    #[error("{} is there already", .path.display())]
    VersionExists {
        /// The version's folder.
        path: PathBuf,
    },
    /// A training cannot go on from this checkpoint.
    #[error("cannot go on from {}: {reason}", .path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The network could not be compiled into kernels: no memory or no thread is to be had.
    #[error("the network could not be compiled for the processor")]
    Kernels(#[from] adit_kernels::KernelError),
    /// The tensor library failed: out of memory, or a device fault.
    #[error("computation failed")]
    Compute(#[from] candle_core::Error),
    /// An image was at fault.
    #[error(transparent)]
    Image(#[from] ImageError),
}
