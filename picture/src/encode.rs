//! Encoding: PNG, from which the same pixels come back, or JPEG.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _};
use mozjpeg::{ColorSpace, Compress};

use crate::error::ImageError;
use crate::pixels::Pixels;

/// High enough that lines and letters of few pixels keep their edges.
const QUALITY: f32 = 95.0;

/// What a picture is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Without loss.
    Png,
    /// Smaller: quality 95.
    Jpeg,
}

impl Format {
    /// Its name in a `Content-Type`.
    #[must_use]
    pub const fn mime(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
        }
    }
}

/// The picture's rows as a file. Computes for long: some 10 ms a million pixels.
pub fn encode(pixels: &Pixels, format: Format) -> Result<Vec<u8>, ImageError> {
    match format {
        Format::Png => png(pixels),
        // As in decoding, a fatal error unwinds.
        Format::Jpeg => catch_unwind(AssertUnwindSafe(|| jpeg(pixels)))
            .unwrap_or_else(|_| Err(ImageError::Draw("the JPEG encoder failed".to_owned()))),
    }
}

fn png(pixels: &Pixels) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    // Photographs hardly get smaller by trying harder, and somebody waits.
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive)
        .write_image(pixels.rgb(), pixels.width(), pixels.height(), ExtendedColorType::Rgb8)
        .map_err(|error| ImageError::Draw(error.to_string()))?;
    Ok(bytes.into_inner())
}

fn jpeg(pixels: &Pixels) -> Result<Vec<u8>, ImageError> {
    let failed = |error: std::io::Error| ImageError::Draw(error.to_string());
    let mut compress = Compress::new(ColorSpace::JCS_RGB);
    compress.set_size(pixels.width() as usize, pixels.height() as usize);
    // libjpeg-turbo's own way: mozjpeg's search for fewer bytes takes ten times as long.
    compress.set_fastest_defaults();
    compress.set_quality(QUALITY);
    // Red letters on a photograph would be smeared at half the resolution of colours.
    compress.set_chroma_sampling_pixel_sizes((1, 1), (1, 1));
    let mut lines = compress.start_compress(Vec::new()).map_err(failed)?;
    lines.write_scanlines(pixels.rgb()).map_err(failed)?;
    lines.finish().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode;
    use crate::limits::ImageLimits;

    fn picture(width: u32, height: u32) -> Pixels {
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let rgb = places.flat_map(|(x, y)| [(x * 2) as u8, (y * 3) as u8, (x + y) as u8]);
        Pixels::new(width, height, rgb.collect()).unwrap()
    }

    #[test]
    fn a_png_is_the_same_picture_and_a_jpeg_nearly() {
        for (width, height) in [(1, 1), (1, 40), (97, 61)] {
            let picture = picture(width, height);
            let [png, jpeg] = [Format::Png, Format::Jpeg]
                .map(|format| decode(&encode(&picture, format).unwrap(), &ImageLimits::default()).unwrap());
            assert_eq!(png, picture);
            let worst = jpeg.rgb().iter().zip(picture.rgb()).map(|(one, other)| one.abs_diff(*other)).max();
            assert!(worst.unwrap() <= 12, "{worst:?} of 255 apart at {width}x{height}");
        }
    }
}
