//! Decoding: JPEG by `jpeg.rs`, the other formats by the `image` crate.

use std::io::{Cursor, ErrorKind};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::error::ImageError;
use crate::jpeg;
use crate::limits::ImageLimits;
use crate::pixels::Pixels;

/// Decodes a JPEG, PNG, WebP, BMP or GIF (its first frame). The format is recognised by its first bytes; the header is
/// held against `limits` before anything is decoded; EXIF orientation is applied. Grey and CMYK become RGB, of 16 bits a
/// sample the upper 8 are taken, a transparency channel is dropped (as Pillow does), colour profiles are ignored.
pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<Pixels, ImageError> {
    any(bytes, limits, None)
}

/// As [`decode`], for whoever needs less: a JPEG is decoded at the 1st, 2nd, 4th or 8th part of its size, as `divided` says of
/// the width and height that it is stored with, and of how it is to be turned. [`Pixels::size`] is the picture's own all the
/// same, and `limits` are held against that.
pub fn decode_smaller(
    bytes: &[u8],
    limits: &ImageLimits,
    divided: &dyn Fn([u32; 2], Orientation) -> u8,
) -> Result<Pixels, ImageError> {
    any(bytes, limits, Some(divided))
}

fn any(
    bytes: &[u8],
    limits: &ImageLimits,
    divided: Option<&dyn Fn([u32; 2], Orientation) -> u8>,
) -> Result<Pixels, ImageError> {
    let format = image::guess_format(bytes).map_err(|_| ImageError::UnknownFormat)?;
    match format {
        ImageFormat::Jpeg => jpeg::decode(bytes, limits, divided),
        ImageFormat::Png => plain(bytes, format, "PNG", limits),
        ImageFormat::WebP => plain(bytes, format, "WebP", limits),
        ImageFormat::Bmp => plain(bytes, format, "BMP", limits),
        ImageFormat::Gif => plain(bytes, format, "GIF", limits),
        _ => Err(ImageError::UnknownFormat),
    }
}

fn plain(bytes: &[u8], format: ImageFormat, name: &'static str, limits: &ImageLimits) -> Result<Pixels, ImageError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut memory = Limits::no_limits();
    memory.max_alloc = Some(limits.max_alloc);
    reader.limits(memory);
    let mut decoder = reader.into_decoder().map_err(|error| refused(error, name))?;
    let (width, height) = (u64::from(decoder.dimensions().0), u64::from(decoder.dimensions().1));
    // Held at one time: what the decoder gives (up to 16 bytes a pixel), its copy as RGB, and a WebP's own frame.
    let frame = if format == ImageFormat::WebP { 4 } else { 0 };
    let held = decoder.total_bytes().saturating_add(width * height * (3 + frame));
    limits.check(width, height, held)?;
    // Orientation is a wish: a picture with a broken EXIF section is still a picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = rgb(DynamicImage::from_decoder(decoder).map_err(|error| refused(error, name))?);
    let (width, height) = image.dimensions();
    let pixels = Pixels::new(width, height, image.into_raw())
        .ok_or(ImageError::Empty { width: u64::from(width), height: u64::from(height) })?;
    Ok(pixels.oriented(orientation))
}

/// Of 16 bits a sample the upper 8, as Pillow has it; the `image` crate alone would round.
fn rgb(image: DynamicImage) -> RgbImage {
    let (width, height) = (image.width(), image.height());
    let upper = |samples: Vec<u16>, pixel: usize, colours: [usize; 3]| {
        let bytes = samples.chunks_exact(pixel).flat_map(|pixel| colours.map(|colour| (pixel[colour] >> 8) as u8));
        RgbImage::from_raw(width, height, bytes.collect()).unwrap_or_default()
    };
    match image {
        DynamicImage::ImageLuma16(image) => upper(image.into_raw(), 1, [0, 0, 0]),
        DynamicImage::ImageLumaA16(image) => upper(image.into_raw(), 2, [0, 0, 0]),
        DynamicImage::ImageRgb16(image) => upper(image.into_raw(), 3, [0, 1, 2]),
        DynamicImage::ImageRgba16(image) => upper(image.into_raw(), 4, [0, 1, 2]),
        other => other.into_rgb8(),
    }
}

fn refused(error: image::ImageError, format: &'static str) -> ImageError {
    match error {
        image::ImageError::IoError(source) if source.kind() == ErrorKind::UnexpectedEof => ImageError::Truncated,
        other => ImageError::Broken { format, source: Box::new(other) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(format: ImageFormat) -> Vec<u8> {
        let mut image = RgbImage::new(5, 3);
        for (x, y, pixel) in image.enumerate_pixels_mut() {
            pixel.0 = [40 * x as u8, 80 * y as u8, 7];
        }
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::ImageRgb8(image).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn lossless_formats_come_back_as_they_were() {
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp] {
            let pixels = decode(&stored(format), &ImageLimits::default()).unwrap();
            assert_eq!((pixels.width(), pixels.height()), (5, 3), "{format:?}");
            assert_eq!(&pixels.rgb()[pixels.rgb().len() - 3..], [160, 160, 7], "{format:?}");
        }
    }

    #[test]
    fn a_header_that_promises_too_much_is_refused_without_decoding() {
        // A PNG that ends after its header: 20,000 x 20,000 pixels of 8-bit RGB.
        let header: [u8; 33] = [
            0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13, b'I', b'H', b'D', b'R', 0, 0, 0x4e, 0x20, 0,
            0, 0x4e, 0x20, 8, 2, 0, 0, 0, 0xd6, 0x4f, 0x0f, 0x4c,
        ];
        let mut bytes = header.to_vec();
        let check = {
            let mut crc = flate2::Crc::new();
            crc.update(&bytes[12..29]);
            crc.sum()
        };
        bytes[29..33].copy_from_slice(&check.to_be_bytes());
        // The decoder wants to see the start of the picture before it calls the header complete.
        bytes.extend_from_slice(&[0, 0, 0, 1, b'I', b'D', b'A', b'T', 0x78]);
        let error = decode(&bytes, &ImageLimits::default()).unwrap_err();
        assert_eq!(error.to_string(), "image of 20000x20000 is larger than the limit of 16384 pixels a side");
    }

    #[test]
    fn no_truncation_of_a_png_is_accepted_or_panics() {
        let whole = stored(ImageFormat::Png);
        // The last 12 bytes say only that the file ends.
        for length in 0..whole.len() - 12 {
            assert!(decode(&whole[..length], &ImageLimits::default()).is_err(), "accepted {length} bytes");
        }
    }

    #[test]
    fn text_is_no_image() {
        let error = decode(b"#!/bin/sh\necho hello", &ImageLimits::default()).unwrap_err();
        assert_eq!(error.to_string(), "not a JPEG, PNG, WebP, BMP or GIF image");
        assert!(matches!(decode(b"", &ImageLimits::default()), Err(ImageError::UnknownFormat)));
    }
}
