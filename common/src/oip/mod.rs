//! The Open Inference Protocol (KServe v2) as agent and client both write it.
//!
//! A request's body is walked once: [`header_length`] says where its JSON ends, [`InferRequest::parse`] reads the JSON,
//! cuts the binary tensors behind it into slices without copying, and checks that shapes, datatypes and sizes agree. From
//! there on a [`Tensor`] is the same thing whichever way it travelled. The answer goes the other way:
//! [`InferResponse::encode`] writes each output as JSON or as bytes, as the request wished. Everything is bounded, because
//! what is read here was written by anyone.

mod binary;
mod datatype;
mod error;
mod infer;
mod json;
mod metadata;
mod model_config;
mod parameters;
mod settings;
mod statistics;
mod tensor;
#[cfg(test)]
mod tests;

pub use binary::{Encoded, HEADER_LENGTH, header_length};
pub use datatype::Datatype;
pub use error::{ErrorBody, OipError};
pub use infer::{Classification, InferRequest, InferResponse, RequestedOutput};
pub use metadata::{IndexEntry, IndexRequest, ModelMetadata, ServerMetadata, TensorMetadata};
pub use model_config::{
    DynamicBatching, InstanceGroup, ModelConfig, ModelInput, ModelOutput, QueuePolicy, TransactionPolicy, VersionPolicy,
};
pub use parameters::Parameters;
pub use settings::{LogSettings, LogUpdate, TraceSettings};
pub use statistics::{BatchStatistics, InferStatistics, MemoryUsage, ModelStatistics, StatisticDuration, Statistics};
pub use tensor::{Tensor, TensorData};
