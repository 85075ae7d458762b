//! Training: of the one network that is our own, a LeNet that reads handwritten digits ([`digits`]), and of a new last layer
//! for a network of the zoo, on pictures in a folder for each class ([`classifier`]).
//!
//! The walk: images are read, some are held out, and a course of epochs goes over the others; the weights that do best on
//! the held-out images are kept, and published as a version of a [`ModelFolder`], with the [`learning_curve`] beside them. A
//! training that was interrupted goes on from its checkpoint ([`Keep`]). It reports through [`Progress`] and knows neither
//! clock nor terminal.

mod augment;
mod checkpoint;
mod classifier;
#[cfg(test)]
mod classifier_tests;
mod course;
mod curve;
mod dataset;
mod digits;
mod features;
mod head;
mod optimiser;
mod photos;
mod progress;
mod publish;
mod scores;

pub use classifier::{ClassifierOptions, Origin, TrainedClassifier, classifier};
pub use course::Keep;
pub use curve::learning_curve;
pub use dataset::{Digits, Part};
pub use digits::{DigitsOptions, Trained, digits};
pub use features::Broken;
pub use photos::class_names;
pub use progress::{Batch, Epoch, Progress};
pub use publish::{ModelFolder, Workplace};
pub use scores::{Confusion, Score};
