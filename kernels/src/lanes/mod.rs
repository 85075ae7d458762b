//! Vectors of f32 behind one trait, a file for each set of instructions: what the inner loops are written in.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod bytes;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;
pub(crate) mod vector;

pub(crate) use vector::Lanes;
