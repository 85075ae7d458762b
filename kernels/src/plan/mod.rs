//! From a graph to a plan that runs it: `stages` fuses nodes, `placing` gives values their buffers and `layout` those their memory,
//! `build` makes steps of stages and has `tuning` choose how each convolution is computed, `network` runs them, between images
//! carried in and results carried out by `transfer`.

pub(crate) mod build;
pub(crate) mod choice;
pub(crate) mod layout;
pub(crate) mod network;
pub(crate) mod placing;
pub(crate) mod stages;
pub(crate) mod transfer;
pub(crate) mod tuning;

pub use choice::Choice;
pub use network::{Blueprint, Plan, PlanOptions, StepTime};
