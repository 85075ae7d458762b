//! Resizing as OpenCV's `INTER_LINEAR` does it, to the last bit: each pixel from the four around its place, whatever
//! the step, in fixed point.
//!
//! Why beside the antialiased filter: detectors such as YOLOX were trained on pictures that OpenCV made smaller. Such
//! pictures are harsher, and with others the boxes and scores move.

use adit_picture::Span;

use crate::image::resize::{Cut, Raster};

/// OpenCV's fixed point for weights: 11 bits.
const ONE: f32 = 2048.0;

/// The two source pixels that make one pixel, and how much each counts.
#[derive(Clone, Copy)]
struct Pair {
    places: [usize; 2],
    weights: [i32; 2],
}

/// What lies in `spans` of the picture at another width and height, and a part of that; only that part is computed.
/// Neither size may be 0.
pub(super) fn resized_cut(
    picture: &Raster<'_>,
    spans: [Span; 2],
    width: usize,
    height: usize,
    cut: Cut,
) -> Raster<'static> {
    let channels = picture.channels;
    let across = pairs(picture.width, spans[0], width, cut.left, cut.width);
    let down = pairs(picture.height, spans[1], height, cut.top, cut.height);
    // Two source rows, already narrowed, are kept: the next result row mostly needs the same.
    let mut rows: [(usize, Vec<i32>); 2] = [(usize::MAX, Vec::new()), (usize::MAX, Vec::new())];
    let mut bytes = Vec::with_capacity(cut.width * cut.height * channels);
    for Pair { places, weights } in down {
        if rows[1].0 == places[0] {
            rows.swap(0, 1);
        }
        for (row, place) in rows.iter_mut().zip(places) {
            if row.0 != place {
                let source = &picture.bytes[place * picture.width * channels..(place + 1) * picture.width * channels];
                row.0 = place;
                narrowed(source, channels, &across, &mut row.1);
            }
        }
        let [upper, lower] = &rows;
        // Both products are cut to 18 bits before they are added: this is how the vector instructions of OpenCV do it.
        bytes.extend(upper.1.iter().zip(&lower.1).map(|(upper, lower)| {
            let sum = ((weights[0] * (upper >> 4)) >> 16) + ((weights[1] * (lower >> 4)) >> 16);
            ((sum + 2) >> 2).clamp(0, 255) as u8
        }));
    }
    Raster { width: cut.width, height: cut.height, channels, bytes: bytes.into() }
}

fn narrowed(source: &[u8], channels: usize, across: &[Pair], target: &mut Vec<i32>) {
    target.clear();
    for Pair { places, weights } in across {
        let [left, right] = places.map(|place| &source[place * channels..(place + 1) * channels]);
        let mixed = left.iter().zip(right);
        target.extend(mixed.map(|(left, right)| i32::from(*left) * weights[0] + i32::from(*right) * weights[1]));
    }
}

/// Pairs for `count` pixels from pixel `first`, when what lies in `span` of `input` pixels becomes `output`; the outermost
/// pixels stand in for what lies beyond them.
fn pairs(input: usize, span: Span, output: usize, first: usize, count: usize) -> Vec<Pair> {
    // The inverse of the inverse, as OpenCV computes it.
    let [start, length] = span.in_raster();
    let step = 1.0 / (output as f64 / length);
    let one = |pixel: usize| {
        let place = (start + (pixel as f64 + 0.5) * step - 0.5) as f32;
        let lower = place.floor();
        let part = place - lower;
        let inside = |place: f32| place.clamp(0.0, (input - 1) as f32) as usize;
        let fixed = |part: f32| (part * ONE).round_ties_even() as i32;
        Pair { places: [inside(lower), inside(lower + 1.0)], weights: [fixed(1.0 - part), fixed(part)] }
    };
    (first..first + count).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resized(picture: &Raster<'_>, width: usize, height: usize) -> Vec<u8> {
        resized_cut(picture, picture.spans(), width, height, Cut { left: 0, top: 0, width, height }).bytes.into_owned()
    }

    /// That real photographs come out as OpenCV's is shown on the stored inputs of the detectors.
    #[test]
    fn pixels_are_mixed_from_their_neighbours() {
        let picture = Raster { width: 2, height: 1, channels: 1, bytes: vec![0, 100].into() };
        assert_eq!(resized(&picture, 4, 1), [0, 25, 75, 100]);
        assert_eq!(resized(&picture, 1, 1), [50]);
        // Not antialiased: of nine pixels to one only the middle one counts.
        let dots =
            Raster { width: 9, height: 1, channels: 1, bytes: vec![255, 255, 255, 255, 7, 255, 255, 255, 255].into() };
        assert_eq!(resized(&dots, 1, 1), [7]);
        let colour = Raster { width: 1, height: 2, channels: 3, bytes: vec![0, 10, 20, 100, 110, 120].into() };
        assert_eq!(resized(&colour, 1, 1), [50, 60, 70]);
    }

    #[test]
    fn a_cut_is_a_part_of_the_whole() {
        let bytes = (0..40 * 30 * 3u32).map(|i| (i * i % 251) as u8).collect::<Vec<_>>().into();
        let picture = Raster { width: 40, height: 30, channels: 3, bytes };
        let cut = Cut { left: 5, top: 3, width: 9, height: 7 };
        let whole = Raster { width: 53, height: 17, channels: 3, bytes: resized(&picture, 53, 17).into() };
        assert_eq!(resized_cut(&picture, picture.spans(), 53, 17, cut), whole.cropped(cut));
    }
}
