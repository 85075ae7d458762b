//! The messages and services of the gRPC APIs that an agent speaks, made from the `.proto` files of this crate when it is
//! built. `bytes` fields are slices of the message that they came in.

mod generated;

pub use generated::{DESCRIPTORS, inference, tensorflow};
