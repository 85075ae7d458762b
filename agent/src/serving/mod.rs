//! Models and their inferences. Knows no HTTP and no tunnel.
//!
//! The walk of one inference is [`Serving::infer`]: the [`Repository`] finds the model, the images are decoded and prepared on
//! a bounded blocking pool, the input waits in the bounded queue of the model's engine, and a worker, an OS thread, runs it
//! through the network together with others that wait. A caller that leaves takes its input out of the queue, or stops the
//! network between two layers.
//!
//! The walk of one change: the keeper, a thread of its own, looks at the `folder`; each model's `shelf` decides what is to be
//! loaded and what retired; the `loader` makes an engine of weights, `eviction` finds the memory for it, and the `catalogue`, in
//! which requests find their models, is changed at once. Requests and people leave their wishes with `control`.

mod batcher;
mod batching;
mod card;
mod catalogue;
mod control;
mod cost;
mod decoders;
mod description;
mod devices;
mod drawing;
pub mod embedded;
mod engine;
mod eviction;
mod folder;
mod infer;
mod job;
mod keeper;
mod loader;
mod look;
mod model;
mod progress;
mod queue;
mod receipt;
mod repository;
mod request;
mod shelf;
mod signature;
mod spec;
mod stand_in;
#[cfg(test)]
mod tests;
mod worker;

pub use batching::Batching;
pub use card::Card;
pub use catalogue::{Catalogue, Entry};
pub use description::describe;
pub use devices::Devices;
pub use infer::{Defaults, Limits, Serving};
pub use model::{Model, calibration_file, weights_file};
pub use receipt::Receipt;
pub use repository::Repository;
pub use request::{Choice, Findings, InferRequest, InferResponse, Input, Priority};
pub use signature::{IMAGE, Pixels, Signature};
pub use spec::{Kind, Spec, VersionPolicy};
pub use stand_in::StandIn;
