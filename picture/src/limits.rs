//! How large a picture may be. A few hundred bytes can promise gigapixels, so the header is judged before anything is
//! decoded.

use serde::{Deserialize, Serialize};

use crate::error::ImageError;

/// What a picture's header may promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct ImageLimits {
    /// Width x height. 50 million: the largest photographs that common cameras and telephones store by default.
    pub max_pixels: u64,
    /// Width and height each. 16,384: the largest side that WebP can have; nothing real is longer.
    pub max_side: u32,
    /// Bytes that decoding may hold at one time. 512 MiB: a progressive JPEG of 50 million pixels keeps its
    /// coefficients (at most 6 bytes a pixel) beside its pixels (3).
    pub max_alloc: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { max_pixels: 50_000_000, max_side: 16_384, max_alloc: 512 << 20 }
    }
}

impl ImageLimits {
    /// Judges a header; `bytes` is what decoding will hold at most.
    pub(crate) fn check(&self, width: u64, height: u64, bytes: u64) -> Result<(), ImageError> {
        if width == 0 || height == 0 {
            return Err(ImageError::Empty { width, height });
        }
        if width.max(height) > u64::from(self.max_side) {
            let limit = format!("{} pixels a side", self.max_side);
            return Err(ImageError::TooLarge { width, height, limit });
        }
        if width * height > self.max_pixels {
            let limit = format!("{} pixels", self.max_pixels);
            return Err(ImageError::TooLarge { width, height, limit });
        }
        if bytes > self.max_alloc {
            return Err(ImageError::TooMuchMemory { width, height });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_kept() {
        let limits = ImageLimits { max_pixels: 100, max_side: 50, max_alloc: 300 };
        assert!(limits.check(10, 10, 300).is_ok());
        assert!(matches!(limits.check(0, 10, 0), Err(ImageError::Empty { .. })));
        assert!(matches!(limits.check(51, 1, 0), Err(ImageError::TooLarge { .. })));
        assert!(matches!(limits.check(11, 10, 0), Err(ImageError::TooLarge { .. })));
        assert!(matches!(limits.check(10, 10, 301), Err(ImageError::TooMuchMemory { .. })));
        assert!(limits.check(u64::from(u32::MAX), u64::from(u32::MAX), 0).is_err());
    }
}
