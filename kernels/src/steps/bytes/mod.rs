//! Steps that read or write bytes.
//!
//! A value of bytes lies in the same memory as one of f32, in blocks of as many channels: a pixel of it is a quarter as long, and what
//! borders hold is the byte that stands for zero.

pub(crate) mod carried;
pub(crate) mod convolution;
pub(crate) mod layer;
pub(crate) mod pool;
