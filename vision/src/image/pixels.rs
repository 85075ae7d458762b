//! A decoded picture.

use std::fmt;

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

/// A picture as rows of RGB bytes, already turned the way it is to be looked at.
#[derive(Clone, PartialEq, Eq)]
pub struct Pixels {
    rgb: RgbImage,
}

impl Pixels {
    /// A picture from its rows, 3 bytes a pixel; nothing when their number does not fit the size, or is 0.
    #[must_use]
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Option<Self> {
        if u64::from(width) * u64::from(height) * 3 != rgb.len() as u64 || rgb.is_empty() {
            return None;
        }
        RgbImage::from_raw(width, height, rgb).map(|rgb| Self { rgb })
    }

    /// Turns the picture as its EXIF orientation asks.
    pub(crate) fn oriented(self, orientation: Orientation) -> Self {
        if orientation == Orientation::NoTransforms {
            return self;
        }
        let mut image = DynamicImage::ImageRgb8(self.rgb);
        image.apply_orientation(orientation);
        Self { rgb: image.into_rgb8() }
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.rgb.width()
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.rgb.height()
    }

    /// Rows from the top, pixels from the left, red, green and blue.
    #[must_use]
    pub fn rgb(&self) -> &[u8] {
        self.rgb.as_raw()
    }

    /// Brightness of each pixel: ITU-R 601 in the same 16-bit fixed point as Pillow's `convert("L")`.
    pub(crate) fn grey(&self) -> Vec<u8> {
        let brightness = |pixel: &[u8]| {
            let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
            // At most 255 x 65536 + 0x8000, so that the result fits into a byte.
            ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16) as u8
        };
        self.rgb.as_raw().chunks_exact(3).map(brightness).collect()
    }
}

impl fmt::Debug for Pixels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pixels({}x{})", self.width(), self.height())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_bytes_must_fit() {
        assert!(Pixels::new(2, 1, vec![0; 6]).is_some());
        assert!(Pixels::new(2, 1, vec![0; 5]).is_none());
        assert!(Pixels::new(2, 1, vec![0; 7]).is_none());
        assert!(Pixels::new(0, 1, Vec::new()).is_none());
    }

    #[test]
    fn grey_is_weighted_as_pillow_does() {
        let colours = vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255, 10, 20, 30];
        assert_eq!(Pixels::new(5, 1, colours).unwrap().grey(), [76, 150, 29, 255, 18]);
    }

    #[test]
    fn orientation_6_turns_a_quarter_clockwise() {
        let pixels = Pixels::new(2, 1, vec![1, 1, 1, 2, 2, 2]).unwrap().oriented(Orientation::Rotate90);
        assert_eq!((pixels.width(), pixels.height(), pixels.rgb()), (1, 2, &[1, 1, 1, 2, 2, 2][..]));
    }
}
