//! Where a network computes: the processor, or an NVIDIA GPU when the crate was built with the feature `cuda`.
//!
//! A program that was built with it also starts where there is no GPU, no driver and no library of CUDA's (`docs/cuda.md`), so
//! that what is missing is found out here, and said.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde::Deserialize;

use crate::error::{DeviceFault, VisionError};

/// What was asked for: `auto`, `cpu` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum DeviceChoice {
    /// The first GPU where one works, else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The GPU of this number, as the driver counts them, from 0.
    Cuda(usize),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = VisionError;

    fn from_str(text: &str) -> Result<Self, VisionError> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => {
                // Digits alone: `parse` would also take a sign.
                let number = text.strip_prefix("cuda:").filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
                let number = number.and_then(|rest| rest.parse().ok());
                number.map(Self::Cuda).ok_or_else(|| VisionError::UnknownDevice(text.to_owned()))
            }
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = VisionError;

    fn try_from(text: String) -> Result<Self, VisionError> {
        text.parse()
    }
}

/// A device that was tried and works.
#[derive(Debug, Clone)]
pub struct Compute {
    /// Where tensors lie.
    pub device: Device,
    /// What it is called: `cpu` or `cuda:N`.
    pub name: Arc<str>,
    /// Of `auto` that came to be the processor: why it is no GPU.
    pub fallback: Option<DeviceFault>,
}

impl Compute {
    /// The processor.
    #[must_use]
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, name: "cpu".into(), fallback: None }
    }
}

impl DeviceChoice {
    /// Opens the device and computes a little on it. Fails only for `cuda:N`, where that GPU is not to be had.
    pub fn open(self) -> Result<Compute, VisionError> {
        match self {
            Self::Cpu => Ok(Compute::cpu()),
            Self::Auto => Ok(gpu(0).unwrap_or_else(|fault| Compute { fallback: Some(fault), ..Compute::cpu() })),
            Self::Cuda(number) => gpu(number).map_err(|reason| VisionError::Device { name: self.to_string(), reason }),
        }
    }
}

fn gpu(number: usize) -> Result<Compute, DeviceFault> {
    if !cfg!(feature = "cuda") {
        return Err(DeviceFault::NotBuilt);
    }
    let open = || {
        let device = Device::new_cuda(number)?;
        // The driver, a kernel of candle's, a product and a convolution: each may lack a library of its own, or be built for
        // another GPU.
        let ones = Tensor::ones((1, 1, 2, 2), candle_core::DType::F32, &device)?;
        let products = (ones.flatten_to(2)?.matmul(&ones.flatten_to(2)?)? + 1.0)?;
        let convolved = ones.conv2d(&ones, 0, 1, 1, 1)?.flatten_all()?;
        Ok((device, products.flatten_all()?.to_vec1::<f32>()?, convolved.to_vec1::<f32>()?))
    };
    match open() {
        Ok((device, products, convolved)) if products == [3.0; 4] && convolved == [4.0] => {
            Ok(Compute { device, name: DeviceChoice::Cuda(number).to_string().into(), fallback: None })
        }
        Ok((_, products, convolved)) => {
            Err(DeviceFault::Other(format!("it computes wrongly: {products:?} and {convolved:?}")))
        }
        Err::<_, candle_core::Error>(error) => Err(fault(&error.to_string())),
    }
}

/// What the words of candle's error mean. Of words, since which library failed stands nowhere else.
fn fault(words: &str) -> DeviceFault {
    const KNOWN: [(&str, DeviceFault); 10] = [
        // What the linked-in stand-in of the driver says, and nobody else.
        ("CUDA_ERROR_STUB_LIBRARY", DeviceFault::NoDriver),
        ("CUDA_ERROR_NO_DEVICE", DeviceFault::NoGpu),
        ("CUDA_ERROR_INVALID_DEVICE", DeviceFault::NoGpu),
        ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", DeviceFault::OldDriver),
        ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", DeviceFault::OldDriver),
        ("CUDA_ERROR_NO_BINARY_FOR_GPU", DeviceFault::OtherGpu),
        ("CUDA_ERROR_INVALID_PTX", DeviceFault::OtherGpu),
        ("CUBLAS_STATUS_NOT_INITIALIZED", DeviceFault::NoLibrary("cuBLAS (libcublas.so.13)")),
        ("CURAND_STATUS_INITIALIZATION_FAILED", DeviceFault::NoLibrary("cuRAND (libcurand.so.10)")),
        ("CUDNN_STATUS_NOT_INITIALIZED", DeviceFault::NoLibrary("cuDNN (libcudnn.so.9)")),
    ];
    let known = KNOWN.into_iter().find(|(word, _)| words.contains(word));
    known.map_or_else(|| DeviceFault::Other(words.lines().next().unwrap_or_default().to_owned()), |(_, fault)| fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_one_of_three() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:12", DeviceChoice::Cuda(12)),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
            assert_eq!(choice.to_string(), text);
            assert_eq!(serde_json::from_str::<DeviceChoice>(&format!("\"{text}\"")).unwrap(), choice);
        }
        for wrong in
            ["", "gpu", "cuda", "cuda0", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:99999999999999999999", "CPU"]
        {
            let error = wrong.parse::<DeviceChoice>().unwrap_err();
            assert!(matches!(&error, VisionError::UnknownDevice(name) if name == wrong), "{error:?}");
            assert!(error.to_string().contains("`auto`, `cpu` or `cuda:N`"), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_processor_is_always_there() {
        let cpu = DeviceChoice::Cpu.open().unwrap();
        assert!(cpu.device.is_cpu() && &*cpu.name == "cpu" && cpu.fallback.is_none());
        // Either a GPU, or the processor with the reason.
        let any = DeviceChoice::Auto.open().unwrap();
        assert_eq!(any.device.is_cpu(), any.fallback.is_some());
        assert_eq!(any.device.is_cpu(), &*any.name == "cpu");
    }

    #[test]
    fn a_gpu_that_is_not_to_be_had_is_an_error() {
        let error = DeviceChoice::Cuda(999).open().unwrap_err();
        assert!(matches!(error, VisionError::Device { .. }) && error.to_string().contains("`cuda:999`"), "{error}");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_missing_feature_is_said() {
        assert_eq!(DeviceChoice::Auto.open().unwrap().fallback, Some(DeviceFault::NotBuilt));
        let error = DeviceChoice::Cuda(0).open().unwrap_err();
        assert!(matches!(error, VisionError::Device { reason: DeviceFault::NotBuilt, .. }), "{error:?}");
        assert!(error.to_string().contains("cuda/build"), "{error}");
    }

    #[test]
    fn words_are_understood() {
        for (words, understood) in [
            (
                "DriverError(CUDA_ERROR_STUB_LIBRARY, \"<Failure when calling cuGetErrorString()>\")",
                DeviceFault::NoDriver,
            ),
            ("DriverError(CUDA_ERROR_NO_DEVICE, \"no CUDA-capable device is detected\")", DeviceFault::NoGpu),
            ("DriverError(CUDA_ERROR_INVALID_DEVICE, \"invalid device ordinal\")", DeviceFault::NoGpu),
            ("CublasError(CUBLAS_STATUS_NOT_INITIALIZED)", DeviceFault::NoLibrary("cuBLAS (libcublas.so.13)")),
            ("something\nbacktrace", DeviceFault::Other("something".to_owned())),
        ] {
            assert_eq!(fault(words), understood);
        }
    }
}
