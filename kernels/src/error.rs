//! What can go wrong: all of it before a kernel runs, but for a batch of a wrong size and a pass that was stopped.

use crate::isa::Isa;
use crate::shape::Shape;

/// Why a graph or a plan could not be built, or not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A value that another graph made.
    #[error("a {node} reads a value that is not of this graph")]
    UnknownValue {
        /// What reads it.
        node: &'static str,
    },
    /// A node that does not fit what it reads.
    #[error("a {node} does not fit {shape}: {reason}")]
    Misfit {
        /// What was to be added.
        node: &'static str,
        /// What it was to read.
        shape: Shape,
        /// Why it does not fit.
        reason: &'static str,
    },
    /// Weights of another length.
    #[error("a {node} needs {expected} {what}, {found} are there")]
    Weights {
        /// What was to be added.
        node: &'static str,
        /// `weights` or `biases`.
        what: &'static str,
        /// How many it needs.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// A value of no or of too many elements.
    #[error("a {node} would give {shape}")]
    Size {
        /// What was to be added.
        node: &'static str,
        /// What would come out.
        shape: Shape,
    },
    /// A graph without outputs.
    #[error("the graph has no outputs")]
    NoOutputs,
    /// Ranges that are not of this graph, or a graph that has bytes already.
    #[error("{found} ranges were given for a graph with {expected} values of f32")]
    Ranges {
        /// Values of the graph.
        expected: usize,
        /// Ranges that were given.
        found: usize,
    },
    /// Instructions that this processor does not have.
    #[error("this processor has no {0}")]
    Isa(Isa),
    /// A batch or a number of threads that is none.
    #[error("{what} must be in 1..={most}, not {found}")]
    Option {
        /// Which one.
        what: &'static str,
        /// The largest that is taken.
        most: usize,
        /// What was asked for.
        found: usize,
    },
    /// Pinned choices that are not of this network.
    #[error("{found} choices were pinned for a network with {expected} convolutions to choose for")]
    Choices {
        /// Convolutions that leave a choice.
        expected: usize,
        /// Choices that were pinned.
        found: usize,
    },
    /// A choice that a layer does not offer.
    #[error("convolution {place} cannot be computed as {choice}")]
    Choice {
        /// Its place among those that leave a choice.
        place: usize,
        /// What was pinned.
        choice: String,
    },
    /// Text that names no choice.
    #[error("`{0}` is no choice: it is `direct:BLOCKS` or `winograd:TILE`")]
    ChoiceName(String),
    /// Text that names no instructions.
    #[error("`{0}` names no instructions: it is `portable`, `avx2`, `avx512` or `neon`")]
    IsaName(String),
    /// Memory that is not to be had.
    #[error("there is no memory for {0} elements")]
    Memory(usize),
    /// A step that would reach outside of its memory.
    #[error("a step of the plan does not fit its memory: the plan is laid out wrongly")]
    Bounds,
    /// The system starts no thread.
    #[error("no thread could be started")]
    Threads,
    /// An input that is no whole number of images, or too many.
    #[error("the input has {found} elements, expected {image} for each of up to {batch} images")]
    Input {
        /// Elements of one image.
        image: usize,
        /// Images that the plan has room for.
        batch: usize,
        /// What came.
        found: usize,
    },
    /// Room for another number of results.
    #[error("output {place} has {expected} elements, there is room for {found}")]
    Output {
        /// Which output.
        place: usize,
        /// Its elements for this batch.
        expected: usize,
        /// The length of what was handed in.
        found: usize,
    },
    /// Another number of outputs.
    #[error("the graph has {expected} outputs, there is room for {found}")]
    Outputs {
        /// Outputs of the graph.
        expected: usize,
        /// What was handed in.
        found: usize,
    },
    /// Whoever was asked between two steps said so.
    #[error("stopped between two steps")]
    Stopped,
}
