//! Models and their inferences. Knows no HTTP and no tunnel.
//!
//! The walk of one inference is [`Serving::infer`]: the [`Repository`] finds the model, the images are decoded and prepared on
//! a bounded blocking pool, the input waits in the bounded queue of the model's engine, and a worker, an OS thread, runs it
//! through the network together with others that wait. A caller that leaves takes its input out of the queue, or stops the
//! network between two layers.

mod batcher;
mod batching;
mod cost;
pub mod embedded;
mod engine;
mod infer;
mod job;
mod model;
mod progress;
mod queue;
mod repository;
mod request;
mod spec;
mod stand_in;
#[cfg(test)]
mod tests;
mod worker;

pub use batching::Batching;
pub use infer::{Limits, Serving};
pub use model::{DEVICE, Model};
pub use repository::{Catalogue, Entry, Repository};
pub use request::{Findings, InferRequest, InferResponse, Input, Priority};
pub use spec::{Kind, Spec, VersionPolicy};
pub use stand_in::StandIn;
