//! Resizing with Pillow's antialiased bilinear filter, to the last bit: a triangle as wide as the step from pixel to
//! pixel, first along the rows, then along the columns, each rounded to a byte.
//!
//! Why not a crate: those that are quick keep their weights in 16 bits, and one sample in six comes out one step off.
//! That moves class probabilities by up to 0.018, and the references were made with Pillow.

use std::borrow::Cow;

/// Rows of bytes, `channels` (1 or 3) to a pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raster<'a> {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) channels: usize,
    pub(crate) bytes: Cow<'a, [u8]>,
}

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// Pillow's fixed point: a 32-bit sum of byte x weight keeps 8 bits and two guard bits.
const PRECISION: u32 = 32 - 8 - 2;

/// The source pixels that make one pixel, and how much each counts.
struct Taps {
    start: usize,
    weights: Vec<i32>,
}

impl Raster<'_> {
    /// The same picture at another size; neither size may be 0.
    pub(crate) fn resized(&self, width: usize, height: usize) -> Raster<'static> {
        self.resized_cut(width, height, Cut { left: 0, top: 0, width, height })
    }

    /// A part of what [`Self::resized`] would give; only that part is computed.
    pub(crate) fn resized_cut(&self, width: usize, height: usize, cut: Cut) -> Raster<'static> {
        let down = taps(self.height, height, cut.top, cut.height);
        let first = down.first().map_or(0, |taps| taps.start);
        let end = down.last().map_or(0, |taps| taps.start + taps.weights.len());
        let across = taps(self.width, width, cut.left, cut.width);
        let narrow = match self.channels {
            1 => self.along_rows::<1>(&across, first, end),
            _ => self.along_rows::<3>(&across, first, end),
        };
        narrow.along_columns(&down, first)
    }

    /// A part of the picture, which must lie inside.
    pub(crate) fn cropped(&self, cut: Cut) -> Raster<'static> {
        let row = self.width * self.channels;
        let (from, length) = (cut.left * self.channels, cut.width * self.channels);
        let rows = self.bytes.chunks_exact(row).skip(cut.top).take(cut.height);
        let mut bytes = Vec::with_capacity(length * cut.height);
        rows.for_each(|row| bytes.extend_from_slice(&row[from..from + length]));
        Raster { width: cut.width, height: cut.height, channels: self.channels, bytes: bytes.into() }
    }

    /// Rows from `first` to before `end`.
    fn along_rows<const CHANNELS: usize>(&self, across: &[Taps], first: usize, end: usize) -> Raster<'static> {
        let row = self.width * CHANNELS;
        let mut bytes = Vec::with_capacity(across.len() * (end - first) * CHANNELS);
        for row in self.bytes[first * row..end * row].chunks_exact(row) {
            for taps in across {
                let pixels = row[taps.start * CHANNELS..].chunks_exact(CHANNELS);
                let mut sums = [HALF; CHANNELS];
                for (pixel, weight) in pixels.zip(&taps.weights) {
                    for (sum, sample) in sums.iter_mut().zip(pixel) {
                        *sum += i32::from(*sample) * weight;
                    }
                }
                bytes.extend(sums.map(byte));
            }
        }
        Raster { width: across.len(), height: end - first, channels: CHANNELS, bytes: bytes.into() }
    }

    /// `first` is the source row that is row 0 here.
    fn along_columns(&self, down: &[Taps], first: usize) -> Raster<'static> {
        let row = self.width * self.channels;
        let mut bytes = Vec::with_capacity(row * down.len());
        let mut sums = vec![HALF; row];
        for taps in down {
            sums.fill(HALF);
            let rows = self.bytes.chunks_exact(row).skip(taps.start - first);
            for (samples, weight) in rows.zip(&taps.weights) {
                for (sum, sample) in sums.iter_mut().zip(samples) {
                    *sum += i32::from(*sample) * weight;
                }
            }
            bytes.extend(sums.iter().map(|sum| byte(*sum)));
        }
        Raster { width: self.width, height: down.len(), channels: self.channels, bytes: bytes.into() }
    }
}

/// One half, so that cutting off the fraction rounds.
const HALF: i32 = 1 << (PRECISION - 1);

fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Taps of `count` pixels from pixel `first`, when `input` pixels become `output`.
fn taps(input: usize, output: usize, first: usize, count: usize) -> Vec<Taps> {
    if input == output {
        // Pillow leaves out a direction that does not change.
        return (first..first + count).map(|start| Taps { start, weights: vec![1 << PRECISION] }).collect();
    }
    let step = input as f64 / output as f64;
    // When it shrinks, the triangle grows with the step; when it grows, it spans neighbouring pixels.
    let reach = step.max(1.0);
    let one = |pixel: usize| {
        let centre = (pixel as f64 + 0.5) * step;
        let start = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(input);
        let triangle = |source: usize| (1.0 - ((source as f64 - centre + 0.5) / reach).abs()).max(0.0);
        let heights: Vec<f64> = (start..end).map(triangle).collect();
        let total: f64 = heights.iter().sum();
        let fixed = |height: &f64| (height / total * f64::from(1 << PRECISION) + 0.5) as i32;
        Taps { start, weights: heights.iter().map(fixed).collect() }
    };
    (first..first + count).map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// What Pillow made of a small picture; `resize.py` beside the file says how it was made.
    #[derive(Deserialize)]
    struct Stored {
        channels: usize,
        width: usize,
        height: usize,
        bytes: Vec<u8>,
        resized: Vec<Resized>,
    }

    #[derive(Deserialize)]
    struct Resized {
        width: usize,
        height: usize,
        bytes: Vec<u8>,
    }

    #[test]
    fn every_byte_is_pillows() {
        let stored: Vec<Stored> = serde_json::from_str(include_str!("../../tests/resize/pillow.json")).unwrap();
        let mut compared = 0;
        for Stored { channels, width, height, bytes, resized } in stored {
            let picture = Raster { width, height, channels, bytes: bytes.into() };
            for Resized { width, height, bytes } in resized {
                assert_eq!(picture.resized(width, height).bytes, bytes, "to {width}x{height}, {channels} channels");
                compared += 1;
            }
        }
        assert_eq!(compared, 14);
    }

    #[test]
    fn a_cut_is_a_part_of_the_whole() {
        let bytes = (0..40 * 30 * 3u32).map(|i| (i * i % 251) as u8).collect::<Vec<_>>().into();
        let picture = Raster { width: 40, height: 30, channels: 3, bytes };
        let cut = Cut { left: 5, top: 3, width: 9, height: 7 };
        assert_eq!(picture.resized_cut(23, 17, cut), picture.resized(23, 17).cropped(cut));
    }
}
