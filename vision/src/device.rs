//! Where a network computes: the processor, or an NVIDIA GPU when the crate was built with the feature `cuda`.

use candle_core::Device;

use crate::error::VisionError;

/// The device of a name: `cpu`, `cuda` (the first GPU) or `cuda:N`.
pub fn device(name: &str) -> Result<Device, VisionError> {
    let refuse = |reason: &str| VisionError::Device { name: name.to_owned(), reason: reason.to_owned() };
    if name == "cpu" {
        return Ok(Device::Cpu);
    }
    let ordinal = match name.strip_prefix("cuda") {
        Some("") => 0,
        Some(rest) => rest
            .strip_prefix(':')
            .and_then(|number| number.parse::<usize>().ok())
            .ok_or_else(|| refuse("a device is `cpu`, `cuda` or `cuda:N`"))?,
        None => return Err(refuse("a device is `cpu`, `cuda` or `cuda:N`")),
    };
    if !cfg!(feature = "cuda") {
        return Err(refuse("this program was built without the feature `cuda`"));
    }
    Device::new_cuda(ordinal).map_err(|error| refuse(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed() {
        assert!(device("cpu").unwrap().is_cpu());
        for wrong in ["", "gpu", "cuda0", "cuda:", "cuda:x", "CPU"] {
            let error = device(wrong).unwrap_err();
            assert!(error.to_string().contains("`cpu`, `cuda` or `cuda:N`"), "{wrong}: {error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_missing_feature_is_said() {
        assert!(device("cuda").unwrap_err().to_string().contains("without the feature"));
    }
}
