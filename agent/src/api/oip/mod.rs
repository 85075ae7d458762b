//! Open Inference Protocol (KServe v2). One file a transport.

mod outputs;
mod rest;

pub(super) use rest::{index, infer, live, metadata, model, model_ready, ready, status};
