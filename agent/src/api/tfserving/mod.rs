//! TensorFlow Serving: its REST API and its gRPC services, as its clients call them.
//!
//! One file a transport, `rest` and `grpc`, over one way to `ask`. A model's `signature` says what its tensors are called; they come
//! as protobuf (`tensors`), as JSON (`json`, which `gather`s them) or as `example`s, and what is found is told in TensorFlow's `outputs`.

mod ask;
mod example;
mod gather;
pub(super) mod grpc;
mod json;
mod outputs;
pub(super) mod rest;
mod signature;
mod tensors;
