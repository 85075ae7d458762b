//! Plans against the reference: every kind of layer, every set of instructions that this processor has, every way to compute a
//! convolution.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod allocations;
mod bytes;
mod convolutions;
#[path = "../../benches/networks.rs"]
#[allow(dead_code, reason = "its single layers are for measuring")]
mod networks;
mod numbers;
mod others;
mod pairs;
mod plans;
mod whole;
