//! One small picture in every format that is read, against what Pillow reads from the same files; and what comes of the
//! same files when they are damaged. `../formats/formats.py` says how they were made.

use adit_vision::image::{ImageLimits, Preprocess, decode, decode_for, prepare};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Stored {
    name: String,
    file: String,
    width: u32,
    height: u32,
    rgb: String,
}

fn stored() -> Vec<Stored> {
    let stored: Vec<Stored> = serde_json::from_str(include_str!("../formats/formats.json")).unwrap();
    assert_eq!(stored.len(), 59);
    stored
}

/// How far a sample may be from Pillow's. Lossy WebP is made of YUV by a decoder of its own, whose arithmetic is not
/// libwebp's to the last bit.
fn tolerance(name: &str) -> u8 {
    if name.starts_with("webp lossy") { 3 } else { 0 }
}

#[test]
fn every_format_is_read_as_pillow_reads_it() {
    let mut wrong = Vec::new();
    for Stored { name, file, width, height, rgb } in stored() {
        let pixels = match decode(&STANDARD.decode(file).unwrap(), &ImageLimits::default()) {
            Ok(pixels) => pixels,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        assert_eq!(pixels.size(), [width, height], "{name}");
        assert_eq!((pixels.width(), pixels.height()), (width, height), "{name}");
        let off = pixels.rgb().iter().zip(&STANDARD.decode(rgb).unwrap()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        if off > tolerance(&name) {
            wrong.push(format!("{name}: {off} of 255 off"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Decoding and preparing whatever it is: an error, or a picture within the limits.
fn survive(bytes: &[u8]) {
    let limits = ImageLimits { max_pixels: 1 << 20, max_side: 4096, max_alloc: 32 << 20 };
    let section = r#"{ "size": [8, 8], "resize": { "short_side": 8 }, "decode": "scaled" }"#;
    let preprocess: Preprocess = serde_json::from_str(section).unwrap();
    if let Ok(pixels) = decode(bytes, &limits) {
        assert!(u64::from(pixels.width()) * u64::from(pixels.height()) <= limits.max_pixels);
    }
    if let Ok(pixels) = decode_for(bytes, &limits, &preprocess) {
        assert_eq!(prepare(&pixels, &preprocess).unwrap().len(), 3 * 8 * 8);
    }
}

/// What the files of each format begin with.
const MAGIC: [&[u8]; 6] = [
    b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"RIFF\xff\xff\0\0WEBPVP8 ",
    b"RIFF\xff\xff\0\0WEBPVP8L",
    b"GIF89a",
    b"BM",
];

proptest! {
    #[test]
    fn no_bytes_panic(magic in prop::sample::select(&MAGIC[..]), rest in prop::collection::vec(any::<u8>(), 0..600)) {
        survive(&rest);
        survive(&[magic, &rest].concat());
    }

    #[test]
    fn no_damage_panics(
        which in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(), truncated in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        in_header in any::<bool>(),
    ) {
        thread_local!(static FILES: Vec<Vec<u8>> =
            stored().iter().map(|stored| STANDARD.decode(&stored.file).unwrap()).collect());
        let mut file = FILES.with(|files| which.get(files).clone());
        let reach = if in_header { file.len().min(64) } else { file.len() };
        for (place, byte) in damage {
            file[place.index(reach)] = byte;
        }
        if truncated {
            file.truncate(cut.index(file.len()));
        }
        survive(&file);
    }
}

/// A JPEG that is kept as it is, and one that is scaled, are turned alike, though the scaled one's last row and column
/// reach beyond the picture.
#[test]
fn a_scaled_picture_is_turned_as_a_whole_one() {
    let section = |decode: &str| -> Preprocess {
        let section = format!(r#"{{ "size": [2, 2], "resize": "stretch", "decode": "{decode}", "scale": 1 }}"#);
        serde_json::from_str(&section).unwrap()
    };
    let (full, scaled) = (section("full"), section("scaled"));
    for Stored { name, file, width, height, .. } in stored() {
        if !name.starts_with("jpeg orientation") {
            continue;
        }
        let file = STANDARD.decode(file).unwrap();
        let seen = |section| {
            let pixels = decode_for(&file, &ImageLimits::default(), section).unwrap();
            assert_eq!(pixels.size(), [width, height], "{name}");
            (pixels.width(), prepare(&pixels, section).unwrap())
        };
        let ((whole, full), (less, scaled)) = (seen(&full), seen(&scaled));
        assert_eq!((whole, less), (width, width.div_ceil(2)), "{name}");
        let sum: f32 = full.iter().zip(&scaled).map(|(a, b)| (a - b).abs()).sum();
        let mean = sum / full.len() as f32;
        println!("{name}: {mean}");
        assert!(mean < 3.0, "{name}: {mean} of 255 off");
    }
}
