//! Open Inference Protocol (KServe v2). One file a transport.

mod control;
mod outputs;
mod rest;

pub(super) use control::{load, unload};
pub(super) use rest::{index, infer, live, metadata, model, model_ready, ready, status};
