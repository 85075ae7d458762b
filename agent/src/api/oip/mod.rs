//! Open Inference Protocol (KServe v2). One file a transport; what they share knows none: `ask` answers inferences, `inform` and
//! `statistics` tell of models.

mod ask;
mod control;
pub(super) mod grpc;
mod inform;
mod message;
mod outputs;
pub(super) mod rest;
mod statistics;
