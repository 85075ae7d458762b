//! What a family of borrowed networks says of itself.

use candle_core::{Module, Tensor};
use candle_nn::VarBuilder;

use super::source::Reader;
use crate::error::VisionError;

/// Networks that differ in their sizes alone.
#[derive(Debug)]
pub(super) struct Family {
    /// How all their names begin.
    pub(super) stem: &'static str,
    /// The tensor that has a row for each class, as published.
    pub(super) head: &'static str,
    /// How many classes candle-transformers gives them; nothing where it takes any number.
    pub(super) classes: Option<usize>,
    /// How tensors are found in published weights.
    pub(super) spelling: Spelling,
    /// Whether a batch goes through as a whole.
    pub(super) passes: Passes,
    /// All sizes.
    pub(super) variants: &'static [Variant],
}

/// One network.
#[derive(Debug)]
pub(super) struct Variant {
    /// Its name in a `model.toml`, which begins with the family's stem.
    pub(super) name: &'static str,
    /// Height and width of its input: three planes.
    pub(super) side: usize,
    /// Whether it has no tensor of this name and shape, although candle-transformers asks whether there is one.
    pub(super) lacks: fn(&str, &[usize]) -> bool,
    /// Has candle-transformers build it, for this many classes.
    pub(super) make: fn(VarBuilder<'_>, usize) -> candle_core::Result<Vec<Stage>>,
}

/// How the tensor that candle-transformers asks for, by name and shape, is found in published weights.
pub(super) type Spelling = fn(&Reader<'_>, &str, &[usize]) -> Result<Tensor, VisionError>;

/// What a network can do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passes {
    /// All images at once.
    Whole,
    /// One image at a time: the code knows no other batch.
    Single,
}

/// A part of a network that runs without a question in between.
pub(super) type Stage = Box<dyn Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync>;

/// A stage that is a module of its own.
pub(super) fn stage(module: impl Module + Send + Sync + 'static) -> Stage {
    Box::new(move |input| module.forward(input))
}

/// A network that is one piece: all that candle-transformers hands out of most.
pub(super) fn whole(module: impl Module + Send + Sync + 'static) -> Vec<Stage> {
    vec![stage(module)]
}

/// Names are the same on both sides.
pub(super) fn as_published(reader: &Reader<'_>, name: &str, shape: &[usize]) -> Result<Tensor, VisionError> {
    reader.tensor(name, shape)
}

/// For a network that has whatever candle-transformers asks for.
pub(super) fn lacks_nothing(_: &str, _: &[usize]) -> bool {
    false
}
