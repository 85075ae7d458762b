//! What can be told of a version without its network: kept while it sleeps.

use std::sync::Arc;

use adit_common::id::{ModelName, Version};
use adit_vision::{ImageShape, Isa, Labels};

use super::batching::Batching;
use super::signature::Signature;

/// What is known of a version that was loaded once.
#[derive(Debug)]
pub struct Card {
    /// The model's name.
    pub name: ModelName,
    /// The version.
    pub version: Version,
    /// What runs it, such as `candle_googlenet_bn`.
    pub platform: String,
    /// The names of its classes, in order.
    pub labels: Arc<Labels>,
    /// The shape of one prepared image.
    pub shape: ImageShape,
    /// Whether it finds objects and their places; a model that does not tells classes of whole images.
    pub detects: bool,
    /// What its network computes on: `cpu` or `cuda:N`.
    pub device: Arc<str>,
    /// The instructions of the fused kernels that run its network; nothing where candle's operations do.
    pub kernels: Option<Isa>,
    /// What its tensors are called where that is the model's to say.
    pub signature: Signature,
    /// What its weights take in memory while it is loaded.
    pub bytes: u64,
    /// How requests share its network, as its description wants it.
    pub batching: Batching,
    /// How many workers run it.
    pub workers: usize,
    /// How many images may wait for it.
    pub queue: usize,
}
