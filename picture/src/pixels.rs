//! A decoded picture.

use std::fmt;

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

use crate::colour::Colour;
use crate::span::Span;

/// A picture as rows of RGB bytes, already turned the way it is to be looked at.
#[derive(Clone, PartialEq)]
pub struct Pixels {
    rgb: RgbImage,
    /// Width and height of the picture as it was sent, upright.
    size: [u32; 2],
    /// What of the rows is the picture, across and down: decoded at a smaller scale, the last row and column may reach
    /// beyond it, and when it is turned they may be the first.
    spans: [Span; 2],
}

impl Pixels {
    /// A picture from its rows, 3 bytes a pixel; nothing when their number does not fit the size, or is 0.
    #[must_use]
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Option<Self> {
        Self::reduced([width, height], 1, rgb)
    }

    /// A picture of this width and height, decoded at its `divided`th part, rounded up; nothing when the number of bytes
    /// does not fit that, or is 0.
    #[must_use]
    pub fn reduced(size: [u32; 2], divided: u8, rgb: Vec<u8>) -> Option<Self> {
        let [width, height] = size.map(|side| side.div_ceil(u32::from(divided)));
        if u64::from(width) * u64::from(height) * 3 != rgb.len() as u64 || rgb.is_empty() {
            return None;
        }
        let spans = size.map(|side| Span { start: 0, length: side as usize, divided: divided.into() });
        RgbImage::from_raw(width, height, rgb).map(|rgb| Self { rgb, size, spans })
    }

    /// Turns the picture as its EXIF orientation asks.
    pub(crate) fn oriented(self, orientation: Orientation) -> Self {
        if orientation == Orientation::NoTransforms {
            return self;
        }
        let Self { rgb, size, spans } = self;
        let mut image = DynamicImage::ImageRgb8(rgb);
        image.apply_orientation(orientation);
        let rgb = image.into_rgb8();
        let ([width, height], [across, down]) = (size, spans);
        let turned = is_turned(orientation);
        let (size, mut spans) = if turned { ([height, width], [down, across]) } else { (size, spans) };
        // What was the end is now the beginning.
        let [across, down] = mirrored(orientation);
        for (span, mirrored, pixels) in [(0, across, rgb.width()), (1, down, rgb.height())] {
            if mirrored {
                let Span { start, length, divided } = spans[span];
                spans[span].start = pixels as usize * divided - start - length;
            }
        }
        Self { rgb, size, spans }
    }

    /// Width of the rows in pixels. What [`decode_smaller`](crate::decode_smaller) gives may be smaller than the picture.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.rgb.width()
    }

    /// Number of the rows.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.rgb.height()
    }

    /// Width and height of the picture as it was sent, upright: what boxes are told in.
    #[must_use]
    pub fn size(&self) -> [u32; 2] {
        self.size
    }

    /// What of the rows is the picture, across and down.
    #[must_use]
    pub fn spans(&self) -> [Span; 2] {
        self.spans
    }

    /// Rows from the top, pixels from the left, red, green and blue.
    #[must_use]
    pub fn rgb(&self) -> &[u8] {
        self.rgb.as_raw()
    }

    /// Paints a rectangle: left, top, right, bottom, the latter two just beyond it. What lies outside of the rows is left out.
    pub(crate) fn fill(&mut self, [left, top, right, bottom]: [usize; 4], colour: Colour) {
        let (width, height) = (self.rgb.width() as usize, self.rgb.height() as usize);
        let (right, bottom) = (right.min(width), bottom.min(height));
        if left >= right {
            return;
        }
        for row in self.rgb.chunks_exact_mut(width * 3).take(bottom).skip(top) {
            row[left * 3..right * 3].as_chunks_mut().0.fill(colour.0);
        }
    }

    /// Mixes a colour into one pixel, as much of it as `part` says, from 0 to 1.
    pub(crate) fn blend(&mut self, [x, y]: [usize; 2], colour: Colour, part: f32) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
        if let Some(pixel) = self.rgb.get_pixel_mut_checked(x, y) {
            for (channel, ink) in pixel.0.iter_mut().zip(colour.0) {
                *channel = (f32::from(*channel) * (1.0 - part) + f32::from(ink) * part).round() as u8;
            }
        }
    }

    /// Brightness of each pixel: ITU-R 601 in the same 16-bit fixed point as Pillow's `convert("L")`.
    #[must_use]
    pub fn grey(&self) -> Vec<u8> {
        let brightness = |pixel: &[u8]| {
            let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
            // At most 255 x 65536 + 0x8000, so that the result fits into a byte.
            ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16) as u8
        };
        self.rgb.as_raw().chunks_exact(3).map(brightness).collect()
    }
}

/// Whether an orientation makes a column of what was a row.
#[must_use]
pub fn is_turned(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

/// Whether an orientation lets an axis of the turned picture run against the one that it was.
fn mirrored(orientation: Orientation) -> [bool; 2] {
    match orientation {
        Orientation::NoTransforms | Orientation::Rotate90FlipH => [false, false],
        Orientation::FlipHorizontal | Orientation::Rotate90 => [true, false],
        Orientation::FlipVertical | Orientation::Rotate270 => [false, true],
        Orientation::Rotate180 | Orientation::Rotate270FlipH => [true, true],
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
