//! In which type a network computes.
//!
//! Half as many bits are half as many bytes of weights and of everything that flows between the layers, and on GPUs since 2017
//! several times as many multiplications a second. What goes in and what comes out stays f32.

use std::fmt;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::error::VisionError;

/// The type of weights and of what flows between layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE single precision: what weights are published in.
    #[default]
    F32,
    /// IEEE half precision: eleven bits of a number, up to 65504.
    F16,
    /// The upper half of an f32: eight bits of a number, of any size.
    Bf16,
    /// Bytes between convolutions, and sums of them in whole numbers: on a processor, by the fused kernels, and after a
    /// [`Calibration`](crate::Calibration).
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

impl Precision {
    /// Bytes of one number.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.dtype().size_in_bytes()
    }

    /// What candle calls it.
    pub(crate) const fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
            Self::Int8 => DType::U8,
        }
    }

    /// Fails where the device cannot compute in it: candle has no products of bf16 for a processor. Its f16 is right there, and
    /// slower than f32.
    pub fn check(self, device: &Device) -> Result<(), VisionError> {
        match (self, device.is_cpu()) {
            (Self::Int8, false) => {
                Err(VisionError::Precision { precision: self, reason: "bytes are for processors: a GPU has f16" })
            }
            (Self::Bf16, true) => Err(VisionError::Precision {
                precision: self,
                reason: "a processor multiplies no bf16 here, only a GPU does",
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_types() {
        for (precision, name, bytes) in [
            (Precision::F32, "f32", 4),
            (Precision::F16, "f16", 2),
            (Precision::Bf16, "bf16", 2),
            (Precision::Int8, "int8", 1),
        ] {
            assert_eq!(serde_json::from_str::<Precision>(&format!("\"{name}\"")).unwrap(), precision);
            assert_eq!((precision.to_string().as_str(), precision.bytes()), (name, bytes));
        }
        let error = serde_json::from_str::<Precision>("\"fp16\"").unwrap_err().to_string();
        assert!(error.contains("expected one of `f32`, `f16`, `bf16`, `int8`"), "{error}");
    }

    #[test]
    fn what_a_processor_cannot_do_is_refused() {
        assert!(Precision::F32.check(&Device::Cpu).is_ok() && Precision::F16.check(&Device::Cpu).is_ok());
        let error = Precision::Bf16.check(&Device::Cpu).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`bf16` cannot be computed in: a processor multiplies no bf16 here, only a GPU does"
        );
    }
}
