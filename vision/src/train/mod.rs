//! Training of the one network that is our own: a LeNet that reads handwritten digits.
//!
//! [`digits`] reads the MNIST files, trains, keeps the weights that did best on images it never trained on, and reads
//! the test set once, at the end. It reports through [`Progress`] and knows neither clock nor terminal.

mod augment;
mod checkpoint;
mod dataset;
mod trainer;

pub use dataset::{Digits, Part};
pub use trainer::{Batch, DigitsOptions, Epoch, Progress, Trained, digits};
