//! Open Inference Protocol (KServe v2). One file a transport over one way to `ask`.

mod ask;
mod control;
pub(super) mod grpc;
mod message;
mod outputs;
pub(super) mod rest;
mod statistics;
