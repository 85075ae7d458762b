//! Kernels for f32 networks on processors: slices in, slices out.
//!
//! A [`Graph`] is a network as plain nodes, checked as it is put together. A [`Plan`] runs it: activations and additions are fused into
//! the convolutions before them, values lie in blocks of as many channels as a vector has elements, concatenations are written in place,
//! weights are packed once, and all memory is laid out when the plan is built. [`mod@reference`] computes the same slowly and obviously:
//! it is the oracle of all tests.
//!
//! Inside, from the bottom up: `lanes` (vectors), `inner` (loops over vectors, compiled for each set of instructions), `steps` (one
//! layer each, shared out to `threads`), `plan`.
//!
//! This is the only crate of the workspace that may say `unsafe`: what its inner loops read and write is proved when a step is
//! built, not each time that it is run. It knows no other crate of the workspace, no network and no clock: time is handed in.

mod activation;
mod error;
mod graph;
mod grid;
mod inner;
mod isa;
mod lanes;
mod memory;
mod observer;
mod plan;
mod quantised;
pub mod reference;
mod shape;
mod steps;
mod threads;

pub use activation::Activation;
pub use error::KernelError;
pub use graph::{Convolution, Graph, Linear, Pool, Reduction, Value};
pub use grid::Grid;
pub use isa::Isa;
pub use observer::Observer;
pub use plan::{Blueprint, Choice, Plan, PlanOptions, StepTime};
pub use quantised::Range;
pub use shape::{Padding, Shape, Window};
