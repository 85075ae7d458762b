//! Networks, images and training: pure computation, no network, no clock, no runtime.
//!
//! The walk of one picture: [`image::decode`] makes pixels of its bytes, [`image::prepare`] makes a network's input of the pixels,
//! [`Network::forward`] makes [`Heads`] of a batch of inputs, [`probabilities`] and [`top`] make predictions of the heads; of a
//! detector's heads, [`candidates`] and [`detections`] make boxes in the picture. A network comes from the zoo: an [`Architecture`] is
//! built with [`Weights`] on a device ([`DeviceChoice`]), as a [`Graph`] of named layers that can be walked.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod image;
pub mod train;

mod align;
mod boxes;
mod builder;
mod calibration;
mod compile;
mod compiled;
mod depthwise;
mod device;
mod elementwise;
mod error;
mod execution;
mod graph;
mod layers;
mod network;
mod networks;
mod output;
mod padded;
mod plans;
mod precision;
mod regions;
mod shape;
mod stop;
mod unfold;
mod weights;
mod zoo;

pub use crate::boxes::{Candidates, DetectOptions};
pub use crate::builder::GraphBuilder;
pub use crate::calibration::{Calibration, Calibrator};
pub use crate::compiled::Compiled;
pub use crate::device::{Compute, DeviceChoice};
pub use crate::error::{DeviceFault, VisionError};
pub use crate::execution::{Execution, Kernels};
pub use crate::graph::{Graph, Step, Value};
pub use crate::layers::{Activation, Convolution, Form, Layer, Linear, Norm, Padding, Window};
pub use crate::network::{Classifier, Detector, Heads, Network, join};
pub use crate::networks::borrowed::Borrowed;
pub use crate::output::{Detection, Labels, Prediction, candidates, detections, probabilities, top};
pub use crate::padded::Padded;
pub use crate::plans::on_threads;
pub use crate::precision::Precision;
pub use crate::shape::ImageShape;
pub use crate::stop::Stop;
pub use crate::weights::Weights;
pub use crate::zoo::Architecture;
pub use adit_kernels::{Isa, StepTime};
pub use adit_picture::ImageError;
pub use candle_core::{Device, Tensor};
