//! What the build made of the `.proto` files, package by package.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

/// Open Inference Protocol.
pub mod inference {
    tonic::include_proto!("inference");
}

/// TensorFlow's tensors.
pub mod tensorflow {
    tonic::include_proto!("tensorflow");

    /// TensorFlow Serving.
    pub mod serving {
        tonic::include_proto!("tensorflow.serving");
    }
}

/// All files as a `FileDescriptorSet`, encoded: what gRPC's reflection answers from.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
