//! Letters at any size: pictures of Noto Sans Mono's, scaled.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use crate::colour::Colour;
use crate::pixels::Pixels;

const STORED: RasterHeight = RasterHeight::Size32;
const WEIGHT: FontWeight = FontWeight::Bold;

/// What stands for a letter that there is no picture of.
const UNKNOWN: char = '?';

/// The width of a letter, in pixels, in lines of this height.
pub(crate) fn advance(height: usize) -> usize {
    (height * get_raster_width(WEIGHT, STORED)).div_ceil(STORED.val()).max(1)
}

/// Writes a line of text with its top left corner at this place. What does not fit onto the picture is left out.
pub(crate) fn write(pixels: &mut Pixels, text: &str, [left, top]: [usize; 2], height: usize, ink: Colour) {
    let step = advance(height);
    let scale = STORED.val() as f32 / height.max(1) as f32;
    for (place, letter) in text.chars().enumerate() {
        let known = get_raster(letter, WEIGHT, STORED).or_else(|| get_raster(UNKNOWN, WEIGHT, STORED));
        let Some(raster) = known else { continue };
        let stored = |x: usize, y: usize| f32::from(raster.pixel(x, y).unwrap_or(0)) / 255.0;
        for y in 0..height {
            for x in 0..step {
                let part = sample(&stored, [raster.width(), raster.height()], [x, y], scale);
                if part > 0.0 {
                    pixels.blend([left + place * step + x, top + y], ink, part);
                }
            }
        }
    }
}

/// How much of a pixel of the scaled letter is ink: where it is smaller than stored the mean of what it covers, where it is
/// larger what lies between the stored pixels, with its edge as sharp as a pixel.
fn sample(stored: &dyn Fn(usize, usize) -> f32, size: [usize; 2], place: [usize; 2], scale: f32) -> f32 {
    let range = |axis: usize| {
        let from = place[axis] as f32 * scale;
        (from, from + scale)
    };
    let (across, down) = (range(0), range(1));
    if scale >= 1.0 {
        let (mut ink, mut area) = (0.0, 0.0);
        for y in down.0 as usize..(down.1.ceil() as usize).min(size[1]) {
            let tall = (down.1.min(y as f32 + 1.0) - down.0.max(y as f32)).max(0.0);
            for x in across.0 as usize..(across.1.ceil() as usize).min(size[0]) {
                let wide = (across.1.min(x as f32 + 1.0) - across.0.max(x as f32)).max(0.0);
                ink += stored(x, y) * tall * wide;
                area += tall * wide;
            }
        }
        return if area > 0.0 { ink / area } else { 0.0 };
    }
    let middle = |(from, to): (f32, f32)| ((from + to) / 2.0 - 0.5).max(0.0);
    let (x, y) = (middle(across), middle(down));
    let (column, row) = (x as usize, y as usize);
    let (right, below) = (x.fract(), y.fract());
    let line = |row: usize| stored(column, row) * (1.0 - right) + stored(column + 1, row) * right;
    let between = line(row) * (1.0 - below) + line(row + 1) * below;
    ((between - 0.5) / scale + 0.5).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, height: usize) -> (usize, Vec<usize>) {
        let width = advance(height) * text.chars().count();
        let mut pixels = Pixels::new(width as u32, height as u32, vec![255; width * height * 3]).unwrap();
        write(&mut pixels, text, [0, 0], height, Colour::BLACK);
        let rows = pixels.rgb().chunks_exact(width * 3);
        (width, rows.map(|row| row.iter().filter(|byte| **byte < 100).count() / 3).collect())
    }

    #[test]
    fn a_letter_keeps_its_shape_at_every_size() {
        for height in [12, 20, 32, 50, 131] {
            let (width, rows) = written("I", height);
            let ink: usize = rows.iter().sum();
            let part = ink as f64 / (width * height) as f64;
            assert!((0.1..0.3).contains(&part), "{part} of the letter's place is ink at {height}");
            assert!(rows[0] == 0 && rows[height - 1] == 0, "there is room above and below at {height}");
        }
    }

    #[test]
    fn what_has_no_picture_is_a_question_mark() {
        assert_eq!(written("\u{4e00}", 32), written("?", 32));
        assert_ne!(written("é", 32), written("?", 32));
    }
}
