//! JPEG, decoded by mozjpeg: libjpeg-turbo's arithmetic to the last bit, and so Pillow's.
//!
//! Why this decoder: pure-Rust decoders round the inverse cosine transform and the chroma upsampling differently (up
//! to 5 steps of 255 a pixel), which moves class probabilities by more than the 1e-3 that the references allow.

use std::any::Any;
use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use mozjpeg::{ColorSpace, Decompress, Marker};

use crate::error::ImageError;
use crate::limits::ImageLimits;
use crate::pixels::Pixels;

/// A progressive JPEG has about ten scans, the most thorough optimisers make a few dozen.
const MAX_SCANS: usize = 100;

/// What an APP1 segment begins with when it holds EXIF.
const EXIF: &[u8] = b"Exif\0\0";

/// By what a JPEG stored with this width and height, and to be turned so, may be divided.
type Divided<'a> = Option<&'a dyn Fn([u32; 2], Orientation) -> u8>;

/// Decodes at the 1st, 2nd, 4th or 8th part, as `divided` says; at full scale where it says nothing.
pub(crate) fn decode(bytes: &[u8], limits: &ImageLimits, divided: Divided<'_>) -> Result<Pixels, ImageError> {
    check_scans(bytes)?;
    let ran_dry = Cell::new(false);
    // libjpeg reports a fatal error by a function that must not return, and mozjpeg unwinds out of it (without the
    // panic hook, so nothing is printed). Catching that is the crate's own way to get the error.
    let source = Source { rest: bytes, ran_dry: &ran_dry };
    let outcome = catch_unwind(AssertUnwindSafe(|| decompress(source, limits, divided)));
    match outcome {
        Ok(Ok(pixels)) => Ok(pixels),
        // libjpeg goes on with grey where a file ends too early; here that is no picture.
        _ if ran_dry.get() => Err(ImageError::Truncated),
        Ok(Err(error)) => Err(error),
        Err(payload) => Err(broken(message(&*payload))),
    }
}

/// A start-of-scan marker cannot occur inside compressed data, so that counting them needs no parsing.
fn check_scans(bytes: &[u8]) -> Result<(), ImageError> {
    let scans = memchr::memmem::find_iter(bytes, &[0xff, 0xda]).count();
    if scans > MAX_SCANS { Err(ImageError::TooManyScans { scans, limit: MAX_SCANS }) } else { Ok(()) }
}

fn decompress(source: Source<'_>, limits: &ImageLimits, divided: Divided<'_>) -> Result<Pixels, ImageError> {
    let ran_dry = source.ran_dry;
    let mut header = Decompress::builder().with_markers(&[Marker::APP(1)]).from_reader(source).map_err(broken)?;
    let (width, height) = (header.width() as u64, header.height() as u64);
    // Before anything is divided by them.
    limits.check(width, height, 0)?;
    // Sides of a JPEG are 16-bit numbers.
    let size = [width as u32, height as u32];
    let orientation = header
        .markers()
        .find_map(|marker| Orientation::from_exif_chunk(marker.data.strip_prefix(EXIF)?))
        .unwrap_or(Orientation::NoTransforms);
    // What libjpeg can do; anything else would be another size than is promised here.
    let divided =
        divided.map(|divided| divided(size, orientation)).filter(|by| matches!(by, 1 | 2 | 4 | 8)).unwrap_or(1);
    header.scale(8 / divided);
    // At most one 16-bit coefficient a sample, the samples as they come out, and the pixels once more when the
    // picture is turned or converted.
    let channels = header.components().len() as u64;
    let [across, down] = [width, height].map(|side| side.div_ceil(u64::from(divided)));
    limits.check(width, height, width * height * channels * 2 + across * down * (channels + 3))?;
    let rgb = match header.color_space() {
        ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => {
            let mut lines = header.to_colorspace(ColorSpace::JCS_CMYK).map_err(broken)?;
            let samples: Vec<[u8; 4]> = lines.read_scanlines().map_err(broken)?;
            samples.into_iter().map(from_inverted_cmyk).collect::<Vec<_>>()
        }
        _ => {
            let mut lines = header.rgb().map_err(broken)?;
            lines.read_scanlines::<[u8; 3]>().map_err(broken)?
        }
    };
    if ran_dry.get() {
        return Err(ImageError::Truncated);
    }
    let pixels = Pixels::reduced(size, divided, rgb.into_flattened()).ok_or(ImageError::Empty { width, height })?;
    Ok(pixels.oriented(orientation))
}

/// Adobe stores CMYK inverted (255 is no ink), and every program relies on it, as Pillow does. The product is
/// rounded as Pillow's is.
fn from_inverted_cmyk([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let white = u32::from(black);
    [cyan, magenta, yellow].map(|inverted| {
        let product = u32::from(255 - inverted) * white + 128;
        let absorbed = ((product >> 8) + product) >> 8;
        // `absorbed` is at most `white`, which is at most 255.
        (white - absorbed) as u8
    })
}

/// The bytes, and whether the decoder wanted more than there are.
struct Source<'a> {
    rest: &'a [u8],
    ran_dry: &'a Cell<bool>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.rest.read(buffer)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() {
            self.ran_dry.set(true);
        }
        Ok(self.rest)
    }

    fn consume(&mut self, amount: usize) {
        self.rest.consume(amount);
    }
}

fn broken(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ImageError {
    ImageError::Broken { format: "JPEG", source: source.into() }
}

/// What libjpeg said, as far as the unwinding carried it.
fn message(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<String>(), payload.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (None, Some(text)) => (*text).to_owned(),
        (None, None) => "decoder failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small picture with all colours, as JPEG; progressive or not.
    fn stored(progressive: bool) -> Vec<u8> {
        let mut compress = mozjpeg::Compress::new(ColorSpace::JCS_RGB);
        compress.set_size(40, 24);
        if progressive {
            compress.set_progressive_mode();
        }
        let mut started = compress.start_compress(Vec::new()).unwrap();
        let lines: Vec<u8> = (0..40 * 24 * 3u32).map(|i| (i * i / 7) as u8).collect();
        started.write_scanlines(&lines).unwrap();
        started.finish().unwrap()
    }

    #[test]
    fn no_truncation_is_accepted() {
        for progressive in [false, true] {
            let whole = stored(progressive);
            assert!(decode(&whole, &ImageLimits::default(), None).is_ok());
            // The last two bytes are the end marker.
            for length in 2..whole.len() - 2 {
                let result = decode(&whole[..length], &ImageLimits::default(), None);
                assert!(result.is_err(), "accepted {length} of {} bytes", whole.len());
            }
        }
    }

    #[test]
    fn damage_anywhere_never_panics() {
        let whole = stored(false);
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 0xff;
            let limits = ImageLimits { max_pixels: 1_000_000, ..ImageLimits::default() };
            if let Ok(pixels) = decode(&damaged, &limits, None) {
                assert!(u64::from(pixels.width()) * u64::from(pixels.height()) <= limits.max_pixels);
            }
        }
    }

    #[test]
    fn a_header_of_65500_a_side_is_refused() {
        let mut bytes = stored(false);
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0] || pair == [0xff, 0xc2]).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
        let result = decode(&bytes, &ImageLimits::default(), None);
        assert!(matches!(result, Err(ImageError::TooLarge { width: 65500, height: 65500, .. })), "{result:?}");
    }

    #[test]
    fn endless_scans_are_refused() {
        let mut bytes = stored(false);
        bytes.extend([0xff, 0xda].repeat(MAX_SCANS));
        assert!(matches!(decode(&bytes, &ImageLimits::default(), None), Err(ImageError::TooManyScans { .. })));
    }

    #[test]
    fn ycck_is_the_same_ink() {
        // Smooth, for YCCK is stored with its colours at half the size.
        let ink = |place: u32| [place % 40 * 6, place / 40 * 10, 255 - place % 40 * 3, 230].map(|ink| ink as u8);
        let ink: Vec<u8> = (0..40 * 24).flat_map(ink).collect();
        let stored = |space: ColorSpace| {
            let mut compress = mozjpeg::Compress::new(ColorSpace::JCS_CMYK);
            compress.set_size(40, 24);
            compress.set_color_space(space);
            compress.set_quality(98.0);
            let mut started = compress.start_compress(Vec::new()).unwrap();
            started.write_scanlines(&ink).unwrap();
            decode(&started.finish().unwrap(), &ImageLimits::default(), None).unwrap()
        };
        let [cmyk, ycck] = [ColorSpace::JCS_CMYK, ColorSpace::JCS_YCCK].map(stored);
        let sum: u64 = cmyk.rgb().iter().zip(ycck.rgb()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        let mean = sum as f64 / cmyk.rgb().len() as f64;
        assert!(mean < 3.0, "{mean} of 255 apart");
    }

    #[test]
    fn inverted_cmyk_is_ink_on_white() {
        assert_eq!(from_inverted_cmyk([255, 255, 255, 255]), [255, 255, 255], "no ink");
        assert_eq!(from_inverted_cmyk([255, 255, 255, 0]), [0, 0, 0], "black ink");
        assert_eq!(from_inverted_cmyk([0, 255, 255, 255]), [0, 255, 255], "cyan ink");
        assert_eq!(from_inverted_cmyk([128, 64, 32, 200]), [100, 50, 25]);
    }
}
