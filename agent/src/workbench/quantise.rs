//! A model made ready to compute in bytes: calibrated over a user's own pictures, and held against what it says in f32.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use adit_common::id::Version;
use adit_vision::image::{ImageLimits, batch, decode_for, prepare};
use adit_vision::{
    Calibrator, Detection, Device, Execution, Network, Stop, Tensor, VisionError, Weights, candidates, detections,
    probabilities,
};

use super::open::{Opened, told};
use crate::serving::{Devices, Kind, Spec, calibration_file, weights_file};

/// Boxes are the same object from this overlap on: their common area as a part of both together.
const SAME: f32 = 0.5;

/// What was made, and how well it does.
#[derive(Debug)]
pub struct Quantised {
    /// The file that was written.
    pub file: PathBuf,
    /// Pictures that it was made of.
    pub images: usize,
    /// Pictures that could not be read, and why.
    pub unread: Vec<(PathBuf, String)>,
    /// How far bytes and f32 agree about these pictures.
    pub agreement: Agreement,
    /// What a pass took for one picture, in f32 and in bytes: the median.
    pub times: [Duration; 2],
}

/// How far two networks agree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Agreement {
    /// About classes.
    Classes {
        /// Pictures whose likeliest class is the same.
        same: usize,
        /// Of all pictures and classes, the largest difference of two probabilities.
        largest: f32,
        /// The mean difference, of the likeliest classes' probabilities alone.
        mean: f32,
    },
    /// About boxes.
    Boxes {
        /// Boxes in f32.
        plain: usize,
        /// Boxes in bytes.
        bytes: usize,
        /// Those of both that are the same object, by class and place.
        same: usize,
        /// The mean overlap of those.
        overlap: f32,
        /// The largest difference of their scores.
        largest: f32,
        /// The mean difference of their scores.
        mean: f32,
    },
}

/// What a network says of a picture.
enum Said {
    Classes(Vec<f32>),
    Boxes(Vec<Detection>),
}

/// Runs a version of a model over pictures, writes its calibration beside its weights, and compares. `at` hears of what is done, from
/// 0 to 1. The error is the reason.
pub fn quantise(
    spec: &Spec,
    version: Version,
    images: &[PathBuf],
    mut at: impl FnMut(f64),
) -> Result<Quantised, String> {
    let Kind::Network { architecture, versions, .. } = &spec.kind else {
        return Err("a stand-in has set times instead of a network".to_owned());
    };
    let (architecture, file) = (*architecture, calibration_file(versions, version));
    let mut plain = spec.clone();
    if let Kind::Network { execution, device, .. } = &mut plain.kind {
        (*execution, *device) = (Execution::default(), None);
    }
    let opened = Opened::of(&plain, version, &Devices::cpu())?;
    let weights = Weights::read(&weights_file(versions, version)).map_err(told)?;
    let mut calibrator = Calibrator::new(architecture, &weights).map_err(told)?;
    let (mut said, mut unread, mut times) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    for (place, image) in images.iter().enumerate() {
        at(place as f64 / images.len() as f64 / 2.0);
        match look(image, &opened) {
            Ok(seen) => {
                calibrator.observe(&seen.input, &Stop::never()).map_err(told)?;
                said.push((image, ask(&*opened.network, &opened, &seen, &mut times[0]).map_err(told)?));
            }
            Err(reason) => unread.push((image.clone(), reason)),
        }
    }
    if said.is_empty() {
        let reason = unread
            .first()
            .map_or("none was given".to_owned(), |(path, reason)| format!("the first, {}: {reason}", path.display()));
        return Err(format!("none of the pictures can be read: {reason}"));
    }
    let calibration = calibrator.finish().map_err(told)?;
    drop(calibrator);
    let network = architecture.build_quantised(&calibration, &weights).map_err(told)?;
    let mut pairs = Vec::with_capacity(said.len());
    let count = said.len();
    for (place, (image, plain)) in said.into_iter().enumerate() {
        at(0.5 + place as f64 / count as f64 / 2.0);
        // Prepared anew: hundreds of pictures at once would be gigabytes.
        let seen = look(image, &opened)?;
        pairs.push((plain, ask(&*network, &opened, &seen, &mut times[1]).map_err(told)?));
    }
    let agreement = compare(&pairs);
    calibration.write(&file).map_err(told)?;
    at(1.0);
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    Ok(Quantised { file, images: calibration.images(), unread, agreement, times: times.map(median) })
}

/// A picture, prepared.
struct Seen {
    input: Tensor,
    size: [u32; 2],
}

fn look(image: &Path, opened: &Opened) -> Result<Seen, String> {
    let bytes = std::fs::read(image).map_err(|error| error.to_string())?;
    let pixels = decode_for(&bytes, &ImageLimits::default(), &opened.preprocess).map_err(|error| error.to_string())?;
    let prepared = prepare(&pixels, &opened.preprocess).map_err(|error| error.to_string())?;
    let input = batch(&[prepared], opened.network.input(), &Device::Cpu).map_err(told)?;
    Ok(Seen { input, size: pixels.size() })
}

fn ask(network: &dyn Network, opened: &Opened, seen: &Seen, times: &mut Vec<Duration>) -> Result<Said, VisionError> {
    let begun = Instant::now();
    let heads = network.forward(&seen.input, &Stop::never())?;
    times.push(begun.elapsed());
    let Some(options) = &opened.detect else {
        return Ok(Said::Classes(probabilities(&heads)?.pop().unwrap_or_default()));
    };
    let [width, height] = seen.size;
    let mut boxes = Vec::new();
    // A description whose frames are unknown is no detector's.
    if let Some(frame) = opened.preprocess.frame(width, height) {
        for found in candidates(&heads)? {
            boxes.extend(detections(found, &frame, &opened.labels, options)?);
        }
    }
    Ok(Said::Boxes(boxes))
}

fn compare(pairs: &[(Said, Said)]) -> Agreement {
    let (mut classes, mut boxes) = (Vec::new(), Vec::new());
    for pair in pairs {
        match pair {
            (Said::Classes(plain), Said::Classes(bytes)) => classes.push((&plain[..], &bytes[..])),
            (Said::Boxes(plain), Said::Boxes(bytes)) => boxes.push((&plain[..], &bytes[..])),
            // One model says one kind of thing.
            _ => {}
        }
    }
    if boxes.is_empty() { of_classes(&classes) } else { of_boxes(&boxes) }
}

fn of_classes(pairs: &[(&[f32], &[f32])]) -> Agreement {
    let likeliest = |row: &[f32]| (0..row.len()).max_by(|one, other| row[*one].total_cmp(&row[*other]));
    let (mut same, mut largest, mut sum) = (0, 0f32, 0f32);
    for (plain, bytes) in pairs {
        let first = likeliest(plain);
        same += usize::from(first == likeliest(bytes));
        largest = plain.iter().zip(*bytes).fold(largest, |most, (one, other)| most.max((one - other).abs()));
        sum += first.map_or(0.0, |class| (plain[class] - bytes[class]).abs());
    }
    Agreement::Classes { same, largest, mean: sum / pairs.len().max(1) as f32 }
}

fn of_boxes(pairs: &[(&[Detection], &[Detection])]) -> Agreement {
    let (mut plain, mut bytes, mut same) = (0, 0, 0);
    let (mut overlap, mut largest, mut sum) = (0f32, 0f32, 0f32);
    for (one, other) in pairs {
        (plain, bytes) = (plain + one.len(), bytes + other.len());
        let mut left: Vec<&Detection> = other.iter().collect();
        for found in *one {
            // Boxes come with the surest first: each takes the nearest that is left.
            let place = (0..left.len())
                .filter(|place| left[*place].class == found.class)
                .map(|place| (place, shared(found.corners, left[place].corners)))
                .max_by(|one, other| one.1.total_cmp(&other.1))
                .filter(|(_, shared)| *shared >= SAME);
            if let Some((place, shared)) = place {
                let difference = (left.swap_remove(place).score - found.score).abs();
                (same, overlap, sum) = (same + 1, overlap + shared, sum + difference);
                largest = largest.max(difference);
            }
        }
    }
    let each = same.max(1) as f32;
    Agreement::Boxes { plain, bytes, same, overlap: overlap / each, largest, mean: sum / each }
}

/// The common area of two boxes as a part of both together.
fn shared(one: [f32; 4], other: [f32; 4]) -> f32 {
    let area = |[left, top, right, bottom]: [f32; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let both = area([one[0].max(other[0]), one[1].max(other[1]), one[2].min(other[2]), one[3].min(other[3])]);
    let all = area(one) + area(other) - both;
    if all > 0.0 { both / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_about_classes_is_counted() {
        let (one, other) = ([0.7, 0.2, 0.1], [0.6, 0.3, 0.1]);
        let (third, fourth) = ([0.4, 0.35, 0.25], [0.3, 0.45, 0.25]);
        let found = of_classes(&[(&one, &other), (&third, &fourth), (&one, &one)]);
        let Agreement::Classes { same, largest, mean } = found else { panic!("classes") };
        assert_eq!(same, 2);
        assert!((largest - 0.1).abs() < 1e-6 && (mean - 0.2 / 3.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn boxes_agree_by_class_and_place() {
        let found = |class, score, corners| Detection { class, label: "it".into(), score, corners };
        let plain = [found(0, 0.9, [0.0, 0.0, 10.0, 10.0]), found(1, 0.8, [0.0, 0.0, 10.0, 10.0])];
        let bytes = [
            found(0, 0.8, [0.0, 0.0, 10.0, 8.0]),
            found(1, 0.8, [5.0, 5.0, 15.0, 15.0]),
            found(1, 0.4, [0.0, 0.0, 5.0, 20.0]),
        ];
        let agreement = of_boxes(&[(&plain, &bytes), (&[], &[])]);
        let Agreement::Boxes { plain, bytes, same, overlap, largest, mean } = agreement else { panic!("boxes") };
        assert_eq!((plain, bytes, same), (2, 3, 1));
        assert!((overlap - 0.8).abs() < 1e-6 && (largest - 0.1).abs() < 1e-6 && (mean - 0.1).abs() < 1e-6);
    }
}
