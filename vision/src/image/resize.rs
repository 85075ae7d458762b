//! Resizing with Pillow's antialiased filters, to the last bit: a [`Kernel`] as wide as the step from pixel to pixel asks
//! for, first along the rows, then along the columns, each rounded to a byte.
//!
//! Why not a crate: those that are quick keep their weights in 16 bits, and one sample in six comes out one step off.
//! That moves class probabilities by up to 0.018, and the references were made with Pillow.
//!
//! Why it is quick all the same: sixteen rows are made narrower at a time, their samples woven together, so that one
//! weight meets sixteen samples that lie side by side. The loops are plain; `pulp` runs them with the widest
//! instructions that the processor has.

use std::borrow::Cow;

use adit_picture::Span;
use pulp::Arch;

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

/// How much a source pixel counts, by its distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// A triangle: Pillow's `BILINEAR`.
    Triangle,
    /// Keys' cubic with a slope of -1/2, negative from one step to two: Pillow's `BICUBIC`.
    Cubic,
}

impl Kernel {
    /// The distance, in steps, from which on it is zero.
    const fn reach(self) -> f64 {
        match self {
            Self::Triangle => 1.0,
            Self::Cubic => 2.0,
        }
    }

    fn height(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Self::Triangle => (1.0 - x).max(0.0),
            // The order of operations is Pillow's.
            Self::Cubic if x < 1.0 => ((SLOPE + 2.0) * x - (SLOPE + 3.0)) * x * x + 1.0,
            Self::Cubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * SLOPE,
            Self::Cubic => 0.0,
        }
    }
}

/// Of the cubic, at a distance of one step.
const SLOPE: f64 = -0.5;

/// Pillow's fixed point: a 32-bit sum of byte x weight keeps 8 bits and two guard bits.
const PRECISION: u32 = 32 - 8 - 2;

/// Rows that are made narrower together: as many 32-bit sums as the widest registers hold.
const ROWS: usize = 16;

/// Samples of a row that are woven at a time: what is woven, and the steps on the way, stay in the nearest cache.
const WOVEN: usize = 768;

/// The source pixels that make one pixel, and how much each counts.
struct Taps {
    start: usize,
    weights: Vec<i32>,
}

impl Raster<'_> {
    /// All of it, across and down.
    pub(crate) const fn spans(&self) -> [Span; 2] {
        [Span::whole(self.width), Span::whole(self.height)]
    }

    /// The same picture at another size; neither size may be 0.
    pub(crate) fn resized(&self, kernel: Kernel, width: usize, height: usize) -> Raster<'static> {
        self.resized_cut(kernel, self.spans(), width, height, Cut { left: 0, top: 0, width, height })
    }

    /// What lies in `spans` at another width and height, and a part of that; only that part is computed.
    pub(crate) fn resized_cut(
        &self,
        kernel: Kernel,
        spans: [Span; 2],
        width: usize,
        height: usize,
        cut: Cut,
    ) -> Raster<'static> {
        let down = taps(kernel, self.height, spans[1], height, cut.top, cut.height);
        let first = down.first().map_or(0, |taps| taps.start);
        let end = down.last().map_or(0, |taps| taps.start + taps.weights.len());
        let across = taps(kernel, self.width, spans[0], width, cut.left, cut.width);
        let arch = Arch::new();
        let narrow = arch.dispatch(|| match self.channels {
            1 => self.along_rows::<1>(&across, first, end),
            _ => self.along_rows::<3>(&across, first, end),
        });
        arch.dispatch(|| narrow.along_columns(&down, first))
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
    #[inline(always)]
    fn along_rows<const CHANNELS: usize>(&self, across: &[Taps], first: usize, end: usize) -> Raster<'static> {
        let (row, narrow) = (self.width * CHANNELS, across.len() * CHANNELS);
        let mut bytes = vec![0; narrow * (end - first)];
        // Only what some pixel needs is woven.
        let from = across.first().map_or(0, |taps| taps.start) * CHANNELS;
        let to = across.last().map_or(0, |taps| taps.start + taps.weights.len()) * CHANNELS;
        let mut weaver = Weaver::default();
        let mut woven = vec![[0; ROWS]; to - from];
        let sources = self.bytes[first * row..end * row].chunks(row * ROWS);
        for (source, target) in sources.zip(bytes.chunks_mut(narrow * ROWS)) {
            weaver.weave(source, row, from, &mut woven);
            for (pixel, taps) in across.iter().enumerate() {
                let samples = woven[taps.start * CHANNELS - from..].chunks_exact(CHANNELS);
                let mut sums = [[HALF; ROWS]; CHANNELS];
                for (samples, weight) in samples.zip(&taps.weights) {
                    for channel in 0..CHANNELS {
                        for lane in 0..ROWS {
                            sums[channel][lane] += i32::from(samples[channel][lane]) * weight;
                        }
                    }
                }
                for (channel, sums) in sums.iter().enumerate() {
                    let rounded: [u8; ROWS] = std::array::from_fn(|lane| byte(sums[lane]));
                    let column = target[pixel * CHANNELS + channel..].iter_mut().step_by(narrow);
                    column.zip(rounded).for_each(|(target, byte)| *target = byte);
                }
            }
        }
        Raster { width: across.len(), height: end - first, channels: CHANNELS, bytes: bytes.into() }
    }

    /// `first` is the source row that is row 0 here.
    #[inline(always)]
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

/// Puts the samples of sixteen rows side by side: the first of each row, then the second of each.
#[derive(Default)]
struct Weaver {
    one: Vec<u8>,
    other: Vec<u8>,
}

impl Weaver {
    /// `source` is up to [`ROWS`] rows of `row` bytes, of which the samples from `from` on are woven; rows that are
    /// missing are left as they are.
    #[inline(always)]
    fn weave(&mut self, source: &[u8], row: usize, from: usize, woven: &mut [[u8; ROWS]]) {
        self.one.resize(WOVEN * ROWS, 0);
        self.other.resize(WOVEN * ROWS, 0);
        let mut at = from;
        for woven in woven.chunks_mut(WOVEN) {
            let length = woven.len();
            let (one, other) = (&mut self.one[..length * ROWS], &mut self.other[..length * ROWS]);
            for (target, row) in one.chunks_exact_mut(length).zip(source.chunks_exact(row)) {
                target.copy_from_slice(&row[at..at + length]);
            }
            // Four times, each row of the upper half is woven with its fellow of the lower half: of 16 rows become 8 of
            // twice the length, then 4, 2 and 1.
            interleave(one, other, length);
            interleave(other, one, length * 2);
            interleave(one, other, length * 4);
            interleave(other, woven.as_flattened_mut(), length * 8);
            at += length;
        }
    }
}

/// Weaves row 0 with row n / 2, row 1 with row n / 2 + 1 and so on, of n rows of this length.
#[inline(always)]
fn interleave(rows: &[u8], woven: &mut [u8], length: usize) {
    let (upper, lower) = rows.split_at(rows.len() / 2);
    let pairs = upper.chunks_exact(length).zip(lower.chunks_exact(length));
    for (woven, (upper, lower)) in woven.chunks_exact_mut(length * 2).zip(pairs) {
        let (woven, _) = woven.as_chunks_mut::<2>();
        for (woven, (upper, lower)) in woven.iter_mut().zip(upper.iter().zip(lower)) {
            *woven = [*upper, *lower];
        }
    }
}

/// One half, so that cutting off the fraction rounds.
const HALF: i32 = 1 << (PRECISION - 1);

#[inline(always)]
fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Taps of `count` pixels from pixel `first`, when what lies in `span` of `input` pixels becomes `output` pixels.
fn taps(kernel: Kernel, input: usize, span: Span, output: usize, first: usize, count: usize) -> Vec<Taps> {
    if span == Span::whole(output) {
        // Pillow leaves out a direction that does not change.
        return (first..first + count).map(|start| Taps { start, weights: vec![1 << PRECISION] }).collect();
    }
    let [origin, length] = span.in_raster();
    let step = length / output as f64;
    // When the picture shrinks, the kernel grows with the step; when it grows, the kernel spans neighbouring pixels.
    let scale = step.max(1.0);
    let reach = kernel.reach() * scale;
    let one = |pixel: usize| {
        let centre = origin + (pixel as f64 + 0.5) * step;
        let start = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(input);
        let height = |source: usize| kernel.height((source as f64 - centre + 0.5) / scale);
        let heights: Vec<f64> = (start..end).map(height).collect();
        let total: f64 = heights.iter().sum();
        // Halves are rounded away from zero.
        let fixed = |height: &f64| (height / total * f64::from(1 << PRECISION)).round() as i32;
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
        filter: String,
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
            for Resized { filter, width, height, bytes } in resized {
                let kernel = if filter == "BICUBIC" { Kernel::Cubic } else { Kernel::Triangle };
                let found = picture.resized(kernel, width, height).bytes;
                assert_eq!(found, bytes, "{filter} to {width}x{height}, {channels} channels");
                compared += 1;
            }
        }
        assert_eq!(compared, 28);
    }

    #[test]
    fn a_cut_is_a_part_of_the_whole() {
        let bytes = (0..40 * 30 * 3u32).map(|i| (i * i % 251) as u8).collect::<Vec<_>>().into();
        let picture = Raster { width: 40, height: 30, channels: 3, bytes };
        let cut = Cut { left: 5, top: 3, width: 9, height: 7 };
        for kernel in [Kernel::Triangle, Kernel::Cubic] {
            let whole = picture.resized(kernel, 23, 17);
            assert_eq!(picture.resized_cut(kernel, picture.spans(), 23, 17, cut), whole.cropped(cut));
        }
    }
}
