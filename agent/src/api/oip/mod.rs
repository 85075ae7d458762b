//! Open Inference Protocol (KServe v2). One file a transport.

mod control;
mod outputs;
mod rest;

pub(super) use rest::paths;
