//! Vectors of sums of products of bytes, a file for each set of instructions. All of them give the same whole numbers.

#[cfg(target_arch = "x86_64")]
pub(crate) mod pairs;
pub(crate) mod plain;
pub(crate) mod quads;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vnni;

pub(crate) use quads::{Bytes, Quads};
