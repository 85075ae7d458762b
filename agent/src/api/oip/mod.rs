//! Open Inference Protocol (KServe v2). One file a transport; what they share knows none: `ask` answers inferences, `inform` and
//! `statistics` tell of models (over gRPC as `described`), `settings` changes what is written down.

mod ask;
mod asked;
mod control;
mod described;
mod extensions;
pub(super) mod grpc;
mod inform;
mod message;
mod outputs;
pub(super) mod rest;
mod settings;
mod statistics;
