//! Boxes: how detectors state them, and which of many overlapping ones are kept.
//!
//! Pure functions over plain numbers. Why not on the device: what is left after the network is a few thousand boxes
//! an image, and the choice between them is made one after the other.
//!
//! A box is its corners `[left, top, right, bottom]`; x grows to the right, y down.

use serde::{Deserialize, Serialize};

use crate::error::VisionError;

/// Everything a detector sees in one image, before anything is left out: one box for each place it looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    /// Corners in pixels of the network's input; they may lie outside of it.
    pub corners: Vec<[f32; 4]>,
    /// Row-major `[boxes, classes]`, from 0 to 1. A background class scores 0, since nothing is never reported.
    pub scores: Vec<f32>,
    /// Number of classes.
    pub classes: usize,
}

/// What is reported of the candidates: the `[detect]` section of a `model.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Written")]
pub struct DetectOptions {
    /// The least score that counts, over 0 and at most 1; 0.3 when absent.
    pub confidence: f32,
    /// Of two boxes of one class whose intersection over union is larger than this, only the better one is kept;
    /// from 0 to 1, 0.45 when absent.
    pub iou: f32,
    /// At most this many boxes an image, the best first; 100 when absent.
    pub max_detections: usize,
}

impl Default for DetectOptions {
    fn default() -> Self {
        // YOLOX's own demonstration asks for a confidence of 0.3; 0.45 is what most exported detectors use.
        Self { confidence: 0.3, iou: 0.45, max_detections: 100 }
    }
}

/// The section as it is written, before it is checked.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    confidence: f32,
    iou: f32,
    max_detections: usize,
}

impl Default for Written {
    fn default() -> Self {
        let DetectOptions { confidence, iou, max_detections } = DetectOptions::default();
        Self { confidence, iou, max_detections }
    }
}

/// More than a network has places; an upper bound for what one answer can hold.
const MAX_DETECTIONS: usize = 10_000;

impl TryFrom<Written> for DetectOptions {
    type Error = VisionError;

    fn try_from(Written { confidence, iou, max_detections }: Written) -> Result<Self, VisionError> {
        let refuse = |reason: &str| Err(VisionError::Detect(reason.to_owned()));
        if !(confidence > 0.0 && confidence <= 1.0) {
            return refuse("`confidence` must be over 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&iou) {
            return refuse("`iou` must be from 0 to 1");
        }
        if !(1..=MAX_DETECTIONS).contains(&max_detections) {
            return refuse("`max_detections` must be from 1 to 10000");
        }
        Ok(Self { confidence, iou, max_detections })
    }
}

/// A candidate that was kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Found {
    pub(crate) corners: [f32; 4],
    pub(crate) class: usize,
    pub(crate) score: f32,
}

/// Each place's best class, where it scores enough; the best first, and none that overlaps a better one of its class
/// too much (greedy non-maximum suppression). Of equals, the earlier place comes first.
pub(crate) fn suppress(candidates: &Candidates, options: &DetectOptions) -> Vec<Found> {
    let mut found: Vec<Found> = candidates
        .corners
        .iter()
        .zip(candidates.scores.chunks_exact(candidates.classes.max(1)))
        .filter_map(|(corners, scores)| {
            let (class, score) = best(scores)?;
            (score >= options.confidence).then_some(Found { corners: *corners, class, score })
        })
        .collect();
    // A stable sort: equals stay in the order of their places.
    found.sort_by(|left, right| right.score.total_cmp(&left.score));
    // Each is held against what is kept, not against all: thousands of candidates cost thousands of comparisons.
    let mut kept: Vec<Found> = Vec::new();
    for candidate in found {
        if kept.len() == options.max_detections {
            break;
        }
        let covered = |better: &Found| {
            better.class == candidate.class && overlap(better.corners, candidate.corners) > options.iou
        };
        if !kept.iter().any(covered) {
            kept.push(candidate);
        }
    }
    kept
}

/// Which boxes are kept of those that come the best first: none that overlaps a better one too much, and at most so many.
pub(crate) fn apart(boxes: &[[f32; 4]], iou: f32, most: usize) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::new();
    for (place, candidate) in boxes.iter().enumerate() {
        if kept.len() == most {
            break;
        }
        if !kept.iter().any(|better| overlap(boxes[*better], *candidate) > iou) {
            kept.push(place);
        }
    }
    kept
}

/// The largest score and its class; of equals, the lower class.
fn best(scores: &[f32]) -> Option<(usize, f32)> {
    scores.iter().copied().enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best })
}

/// Intersection over union of two boxes, from 0 to 1; 0 when both are empty.
pub(crate) fn overlap(left: [f32; 4], right: [f32; 4]) -> f32 {
    let shared = [left[0].max(right[0]), left[1].max(right[1]), left[2].min(right[2]), left[3].min(right[3])];
    let intersection = area(shared);
    let union = area(left) + area(right) - intersection;
    if union > 0.0 { intersection / union } else { 0.0 }
}

fn area([left, top, right, bottom]: [f32; 4]) -> f32 {
    (right - left).max(0.0) * (bottom - top).max(0.0)
}

/// Corners of a box from its middle and its width and height.
pub(crate) fn around([x, y]: [f32; 2], [width, height]: [f32; 2]) -> [f32; 4] {
    [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0]
}

/// The box that an anchor-free detector states in the cell of a grid (YOLOX, section 2.1): the middle as an offset
/// from the cell in cells, width and height as logarithms of cells. `stride` is pixels a cell.
pub(crate) fn in_cell([x, y, width, height]: [f32; 4], [row, column]: [usize; 2], stride: f32) -> [f32; 4] {
    let middle = [(x + column as f32) * stride, (y + row as f32) * stride];
    around(middle, [width.exp() * stride, height.exp() * stride])
}

/// Makes probabilities of logits; a NaN among them makes all of them NaN.
pub(crate) fn softmax(logits: &mut [f32]) {
    // This passes over a NaN, the sum does not.
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter_mut().for_each(|logit| *logit = (*logit - largest).exp());
    let sum: f32 = logits.iter().sum();
    logits.iter_mut().for_each(|part| *part /= sum);
}

/// A box that a detector states its boxes relative to (SSD, section 2.2), in parts of the input's width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Prior {
    pub(crate) middle: [f32; 2],
    pub(crate) size: [f32; 2],
}

impl Prior {
    /// The box that offsets from this prior mean, in parts of the input: the middle moves by parts of the prior's size,
    /// the size grows by an exponential, both damped by their variance (SSD's 0.1 and 0.2).
    pub(crate) fn decode(&self, [x, y, width, height]: [f32; 4]) -> [f32; 4] {
        let middle = [self.middle[0] + x * 0.1 * self.size[0], self.middle[1] + y * 0.1 * self.size[1]];
        around(middle, [self.size[0] * (width * 0.2).exp(), self.size[1] * (height * 0.2).exp()])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn corners() -> impl Strategy<Value = [f32; 4]> {
        ([-50f32..450.0, -50f32..450.0], [0f32..300.0, 0f32..300.0])
            .prop_map(|([x, y], [width, height])| [x, y, x + width, y + height])
    }

    fn candidates() -> impl Strategy<Value = Candidates> {
        prop::collection::vec((corners(), prop::array::uniform3(0f32..1.0)), 0..60).prop_map(|places| {
            let (corners, scores): (Vec<_>, Vec<_>) = places.into_iter().unzip();
            Candidates { corners, scores: scores.concat(), classes: 3 }
        })
    }

    fn options() -> impl Strategy<Value = DetectOptions> {
        (0.05f32..0.9, 0f32..1.0, 1usize..40).prop_map(|(confidence, iou, max_detections)| DetectOptions {
            confidence,
            iou,
            max_detections,
        })
    }

    proptest! {
        #[test]
        fn overlap_is_symmetric_and_a_part(left in corners(), right in corners()) {
            let part = overlap(left, right);
            prop_assert!((0.0..=1.0).contains(&part));
            prop_assert_eq!(part, overlap(right, left));
            let moved = [left[0] + 1000.0, left[1], left[2] + 1000.0, left[3]];
            prop_assert_eq!(overlap(left, moved), 0.0);
            prop_assert!(area(left) <= 1.0 || (overlap(left, left) - 1.0).abs() < 1e-6);
        }

        #[test]
        fn what_is_kept_is_good_sorted_and_apart(candidates in candidates(), options in options()) {
            let kept = suppress(&candidates, &options);
            prop_assert!(kept.len() <= options.max_detections);
            prop_assert!(kept.iter().all(|found| found.score >= options.confidence));
            prop_assert!(kept.is_sorted_by(|left, right| left.score >= right.score));
            for (place, left) in kept.iter().enumerate() {
                for right in &kept[place + 1..] {
                    prop_assert!(left.class != right.class || overlap(left.corners, right.corners) <= options.iou);
                }
            }
        }

        #[test]
        fn what_is_left_out_has_a_reason(candidates in candidates(), options in options()) {
            let kept = suppress(&candidates, &options);
            for (corners, scores) in candidates.corners.iter().zip(candidates.scores.chunks_exact(3)) {
                let (class, score) = best(scores).unwrap();
                let is_kept = kept.iter().any(|found| found.corners == *corners && found.class == class);
                let is_covered = kept.iter().any(|found| {
                    found.class == class && found.score >= score && overlap(found.corners, *corners) > options.iou
                });
                let is_beyond = kept.len() == options.max_detections && kept.iter().all(|found| found.score >= score);
                prop_assert!(score < options.confidence || is_kept || is_covered || is_beyond);
            }
        }

        #[test]
        fn a_cell_states_the_box_that_was_meant(
            corners in corners().prop_filter("has an area", |c| c[2] - c[0] > 1.0 && c[3] - c[1] > 1.0),
            row in 0usize..52, column in 0usize..52, level in 3u32..6,
        ) {
            let stride = 2f32.powi(level as i32);
            let [left, top, right, bottom] = corners.map(|side| side / stride);
            let stated = [
                (left + right) / 2.0 - column as f32, (top + bottom) / 2.0 - row as f32,
                (right - left).ln(), (bottom - top).ln(),
            ];
            let found = in_cell(stated, [row, column], stride);
            prop_assert!(found.iter().zip(corners).all(|(a, b)| (a - b).abs() < 0.01), "{found:?}");
        }

        #[test]
        fn a_prior_states_the_box_that_was_meant(
            corners in corners().prop_filter("has an area", |c| c[2] - c[0] > 1.0 && c[3] - c[1] > 1.0),
            middle in [0f32..1.0, 0f32..1.0], size in [0.03f32..1.0, 0.03f32..1.0],
        ) {
            let corners = corners.map(|side| side / 300.0);
            let [left, top, right, bottom] = corners;
            let stated = [
                ((left + right) / 2.0 - middle[0]) / (0.1 * size[0]), ((top + bottom) / 2.0 - middle[1]) / (0.1 * size[1]),
                ((right - left) / size[0]).ln() / 0.2, ((bottom - top) / size[1]).ln() / 0.2,
            ];
            let found = Prior { middle, size }.decode(stated);
            prop_assert!(found.iter().zip(corners).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
        }
    }

    #[test]
    fn the_better_of_two_that_overlap_is_kept() {
        let boxes = [[0., 0., 10., 10.], [1., 0., 10., 10.], [20., 0., 30., 10.], [0., 20., 9., 30.]];
        assert_eq!(apart(&boxes, 0.7, 9), [0, 2, 3]);
        assert_eq!((apart(&boxes, 0.95, 9).len(), apart(&boxes, 0.7, 2)), (4, vec![0, 2]));
    }

    #[test]
    fn probabilities_add_up_and_large_logits_do_not_overflow() {
        let mut logits = [1000.0, 1000.0, 900.0, 1000.0 + 2f32.ln()];
        softmax(&mut logits);
        assert!(logits.iter().zip([0.25, 0.25, 0.0, 0.5]).all(|(a, b)| (a - b).abs() < 1e-4), "{logits:?}");
        let mut damaged = [0.0, f32::NAN];
        softmax(&mut damaged);
        assert!(damaged.iter().all(|part| part.is_nan()));
    }

    #[test]
    fn classes_do_not_suppress_each_other() {
        let box_ = [10., 10., 50., 50.];
        let scores = vec![0.9, 0.1, 0.2, 0.8, 0.7, 0.3];
        let candidates = Candidates { corners: vec![box_; 3], scores, classes: 2 };
        let kept = suppress(&candidates, &DetectOptions::default());
        assert_eq!(kept.iter().map(|found| (found.class, found.score)).collect::<Vec<_>>(), [(0, 0.9), (1, 0.8)]);
    }

    #[test]
    fn an_empty_section_has_defaults_and_nonsense_is_refused() {
        let parse = serde_json::from_str::<DetectOptions>;
        assert_eq!(parse("{}").unwrap(), DetectOptions::default());
        assert_eq!(parse(r#"{ "confidence": 0.7, "iou": 0.3 }"#).unwrap().iou, 0.3);
        for (wrong, because) in [
            (r#"{ "confidence": 0 }"#, "confidence"),
            (r#"{ "confidence": 1.5 }"#, "confidence"),
            (r#"{ "iou": -0.1 }"#, "iou"),
            (r#"{ "max_detections": 0 }"#, "max_detections"),
            (r#"{ "threshold": 0.5 }"#, "threshold"),
        ] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(because), "{wrong}: {error}");
        }
    }
}
