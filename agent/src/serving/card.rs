//! What can be told of a version without its network: kept while it sleeps.

use std::sync::Arc;

use adit_common::id::{ModelName, Version};
use adit_vision::{ImageShape, Labels};

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
    /// What its weights take in memory while it is loaded.
    pub bytes: u64,
}
