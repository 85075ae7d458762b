//! Pictures of handwritten digits, brought to the form of the MNIST set (LeCun, Cortes, Burges): white on black,
//! fitted into 20 x 20, placed by centre of mass in 28 x 28. A network that was trained on those fails on a photograph
//! of a digit as it is.

use std::borrow::Cow;

use adit_picture::ImageError;

use crate::image::resize::{Cut, Kernel, Raster};

/// Ink and ground must differ by this many of 255 steps; less is an empty sheet with noise.
const LEAST_CONTRAST: u8 = 24;

/// Below this part of the way from ground to ink, a pixel is ground: uneven light and the grain of paper.
const GROUND: f32 = 0.25;

/// Above this part of the way, a pixel is ink: strokes are not evenly dark.
const INK: f32 = 0.75;

/// Whether a grey picture shows dark on light: whether its border (by its median) is nearer to its brightest than to
/// its darkest pixels.
pub(crate) fn is_ink_on_paper(grey: &[u8], width: usize) -> bool {
    let (darkest, brightest) = extremes(grey);
    u16::from(border_median(grey, width)) * 2 > u16::from(darkest) + u16::from(brightest)
}

/// Fits a grey picture, bright ink on dark ground, into `width` x `height`.
pub(crate) fn fit(raster: &Raster<'_>, width: usize, height: usize) -> Result<Raster<'static>, ImageError> {
    let cleaned = cleaned(raster)?;
    let [left, top, right, bottom] = ink_box(&cleaned).ok_or(ImageError::Blank)?;
    let ink = cleaned.cropped(Cut { left, top, width: right - left, height: bottom - top });
    // 20 of 28 pixels, as MNIST has it, for the side that is the tighter fit.
    let (room_width, room_height) = ((width * 20 / 28).max(1), (height * 20 / 28).max(1));
    let ratio = f64::min(room_width as f64 / ink.width as f64, room_height as f64 / ink.height as f64);
    let scaled = |length: usize, room: usize| ((length as f64 * ratio).round() as usize).clamp(1, room);
    let mut small = ink.resized(Kernel::Triangle, scaled(ink.width, room_width), scaled(ink.height, room_height));
    brighten(small.bytes.to_mut());
    Ok(placed(&small, width, height))
}

/// Ground becomes 0 and ink 255, with a straight ramp between for the edges of strokes.
fn cleaned(raster: &Raster<'_>) -> Result<Raster<'static>, ImageError> {
    let ground = border_median(&raster.bytes, raster.width);
    let (_, brightest) = extremes(&raster.bytes);
    let range = brightest.saturating_sub(ground);
    if range < LEAST_CONTRAST {
        return Err(ImageError::Blank);
    }
    let ramp = |byte: u8| {
        let part = (f32::from(byte) - f32::from(ground)) / f32::from(range);
        (((part - GROUND) / (INK - GROUND)).clamp(0.0, 1.0) * 255.0).round() as u8
    };
    let bytes = raster.bytes.iter().map(|byte| ramp(*byte)).collect();
    Ok(Raster { width: raster.width, height: raster.height, channels: raster.channels, bytes: Cow::Owned(bytes) })
}

/// Left, top, and one past right and bottom of what is at least half ink.
fn ink_box(raster: &Raster<'_>) -> Option<[usize; 4]> {
    let rows = raster.bytes.chunks_exact(raster.width).enumerate();
    let mut inked = rows.filter_map(|(y, row)| {
        let left = row.iter().position(|byte| *byte >= 128)?;
        let right = row.iter().rposition(|byte| *byte >= 128)?;
        Some([left, y, right + 1, y + 1])
    });
    let first = inked.next()?;
    Some(inked.fold(first, |all, row| [all[0].min(row[0]), all[1], all[2].max(row[2]), row[3]]))
}

/// Thin strokes fade when they shrink; the brightest pixel becomes white again.
fn brighten(bytes: &mut [u8]) {
    let (_, brightest) = extremes(bytes);
    if brightest > 0 {
        bytes.iter_mut().for_each(|byte| *byte = (u16::from(*byte) * 255 / u16::from(brightest)) as u8);
    }
}

/// A black field with the picture's centre of mass in its middle, as far as the picture stays inside.
fn placed(small: &Raster<'_>, width: usize, height: usize) -> Raster<'static> {
    let (mut mass, mut across, mut down) = (0f64, 0f64, 0f64);
    for (index, byte) in small.bytes.iter().enumerate() {
        let weight = f64::from(*byte);
        mass += weight;
        across += weight * (index % small.width) as f64;
        down += weight * (index / small.width) as f64;
    }
    // MNIST's middle of 28 pixels is the fifteenth, number 14.
    let offset = |moment: f64, length: usize, side: usize| {
        let start = (side as f64 / 2.0 - moment / mass.max(1.0)).round().max(0.0) as usize;
        start.min(side - length)
    };
    let (left, top) = (offset(across, small.width, width), offset(down, small.height, height));
    let mut bytes = vec![0; width * height];
    for (row, from) in bytes.chunks_exact_mut(width).skip(top).zip(small.bytes.chunks_exact(small.width)) {
        row[left..left + small.width].copy_from_slice(from);
    }
    Raster { width, height, channels: 1, bytes: Cow::Owned(bytes) }
}

/// Median of the outermost rows and columns.
fn border_median(grey: &[u8], width: usize) -> u8 {
    let height = grey.len() / width.max(1);
    let on_border = |index: &usize| {
        let (x, y) = (index % width, index / width);
        x == 0 || y == 0 || x + 1 == width || y + 1 == height
    };
    let mut border: Vec<u8> = (0..grey.len()).filter(on_border).map(|index| grey[index]).collect();
    border.sort_unstable();
    border.get(border.len() / 2).copied().unwrap_or(0)
}

fn extremes(grey: &[u8]) -> (u8, u8) {
    grey.iter().fold((255, 0), |(darkest, brightest), byte| (darkest.min(*byte), brightest.max(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of `ground` with a filled rectangle of `ink`.
    fn drawn(side: usize, ground: u8, ink: u8, [left, top, right, bottom]: [usize; 4]) -> Raster<'static> {
        let inside = |x: usize, y: usize| (left..right).contains(&x) && (top..bottom).contains(&y);
        let bytes = (0..side * side).map(|i| if inside(i % side, i / side) { ink } else { ground }).collect();
        Raster { width: side, height: side, channels: 1, bytes: Cow::Owned(bytes) }
    }

    #[test]
    fn dark_on_light_is_recognised_on_uneven_grey_too() {
        let paper = drawn(50, 200, 40, [20, 10, 30, 40]);
        assert!(is_ink_on_paper(&paper.bytes, 50));
        let board = drawn(50, 60, 220, [20, 10, 30, 40]);
        assert!(!is_ink_on_paper(&board.bytes, 50));
    }

    #[test]
    fn a_stroke_far_off_the_middle_is_fitted_and_centred() {
        // 10 x 40 in a corner of 100 x 100 becomes 5 x 20; its middle is between two rows, and goes down.
        let fitted = fit(&drawn(100, 30, 130, [80, 55, 90, 95]), 28, 28).unwrap();
        assert_eq!(ink_box(&fitted), Some([12, 5, 17, 25]));
        assert_eq!(fitted.bytes[14 * 28 + 14], 255, "grey ink becomes white");
        assert_eq!(fitted.bytes[0], 0, "grey ground becomes black");
    }

    #[test]
    fn an_empty_sheet_is_blank() {
        let noise: Vec<u8> = (0..2500u32).map(|i| 200 + (i * 7 % 11) as u8).collect();
        let sheet = Raster { width: 50, height: 50, channels: 1, bytes: noise.into() };
        assert!(matches!(fit(&sheet, 28, 28), Err(ImageError::Blank)));
        let dot = Raster { width: 1, height: 1, channels: 1, bytes: vec![255].into() };
        assert!(fit(&dot, 28, 28).is_err());
    }
}
