//! The inner loops over bytes, generic over vectors, and the table that holds them compiled for each set of instructions.
//!
//! A pixel of a block is as many bytes as a vector of f32 has elements; everything else lies as it does for f32.

pub(crate) mod carry;
pub(crate) mod pool;
pub(crate) mod settle;
pub(crate) mod table;
pub(crate) mod tile;
