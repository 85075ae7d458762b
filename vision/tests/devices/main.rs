//! Networks on other devices and in other types than the reference's, the processor in f32: whether they say the same.
//!
//! What needs a GPU is ignored, and says what is missing where it is run without one; `docs/cuda.md` says how it is run. Every
//! network has weights by formula; those of `../shared/data` are used where that folder is there.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod gpu;
mod half;
mod kernels;

use std::path::{Path, PathBuf};

use adit_vision::image::batch;
use adit_vision::{
    Architecture, Device, Execution, Heads, ImageShape, Kernels, Network, Padded, Precision, Stop, Tensor, VisionError,
    Weights,
};

/// The weights of a trained network, or nothing.
fn trained(architecture: Architecture) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/models").join(architecture.name());
    let file = folder.join("1/model.safetensors");
    file.is_file().then_some(file)
}

/// From -1 to before 1, by a name: FNV-1a of it, then SplitMix64.
fn noise(name: &str, count: usize) -> impl Iterator<Item = f32> {
    let seed = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |value, byte| (value ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
    (1..=count as u64).map(move |place| {
        let z = seed.wrapping_add(place.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    })
}

/// Weights with which a network's numbers neither vanish nor leave the range of f16, for whatever layers it has.
fn formula(architecture: Architecture) -> Weights {
    let gain: f32 = match architecture.name() {
        "resnet101" | "resnet152" => 3.0,
        name if name.contains("resnet") => 4.0,
        "yolox_l" | "yolox_x" => 5.0,
        _ => 6.0,
    };
    Weights::made_by("a formula", move |name, shape| {
        let part = name.rsplit('.').next().unwrap();
        let scale = (gain / shape.iter().skip(1).product::<usize>() as f32).sqrt();
        let shaped = |value: f32| match part {
            "running_var" => 1.0 + 0.25 * value,
            "weight" if shape.len() == 1 => 1.0 + 0.25 * value,
            "weight" => value * scale,
            _ => 0.1 * value,
        };
        Some(noise(name, shape.iter().product()).map(shaped).collect())
    })
}

/// So many images of noise, from -1 to 1, in the processor's memory.
fn pictures(shape: ImageShape, images: usize) -> Tensor {
    let picture = |number| noise(&format!("picture {number}"), shape.elements()).collect::<Vec<_>>();
    batch(&(0..images).map(picture).collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
}

/// What a network says of so many images: a classifier's logits, all levels of a detector.
fn outputs(
    architecture: Architecture,
    weights: &Weights,
    (device, precision): (&Device, Precision),
    images: usize,
) -> Result<Vec<f32>, VisionError> {
    let numbers = |tensor: &Tensor| tensor.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>();
    if architecture.is_detector() {
        // Not its boxes: those are exponentials of what it says.
        let detector = architecture.detector(weights, device)?.in_precision(precision)?;
        let levels = detector.levels(&pictures(detector.input(), images), &Stop::never())?;
        let numbers = levels.iter().map(numbers).collect::<Result<Vec<_>, _>>()?;
        return Ok(numbers.concat());
    }
    // By candle's operations: they are the reference.
    let network = architecture.build_for(Execution { precision, kernels: Kernels::Off }, weights, device)?;
    match network.forward(&pictures(network.input(), images), &Stop::never())? {
        Heads::Classes(logits) => {
            assert!(logits.device().is_cpu(), "{architecture}: what a network gives lies in the processor's memory");
            Ok(numbers(&logits)?)
        }
        _ => panic!("{architecture} is a classifier"),
    }
}

/// Of a batch that is filled up, everybody gets what they get alone.
fn filled_up(architecture: Architecture, device: &Device, tolerance: f32) {
    let weights = formula(architecture);
    let network = architecture.build(&weights, device).unwrap();
    let padded = Padded::warm(architecture.build(&weights, device).unwrap(), &[1, 2, 4, 8]).unwrap();
    let rows = |network: &dyn Network, input: &Tensor| match network.forward(input, &Stop::never()).unwrap() {
        Heads::Classes(logits) => logits.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
        _ => panic!("a classifier"),
    };
    // Filled up to four, whole, and more than the largest.
    for images in [3, 4, 13] {
        let input = pictures(padded.input(), images);
        let alone: Vec<f32> =
            (0..images).flat_map(|image| rows(&*network, &input.narrow(0, image, 1).unwrap())).collect();
        let worst = difference(&alone, &rows(&padded, &input));
        println!("{architecture}, {images} images: {worst:.2e}");
        assert!(worst < tolerance, "{images} images: {worst}");
    }
}

#[test]
fn filled_up_batches_change_no_answer_on_the_processor() {
    filled_up(Architecture::SqueezenetTorchvision, &Device::Cpu, 1e-5);
}

/// The largest difference, as a part of the largest number of the reference.
fn difference(reference: &[f32], found: &[f32]) -> f32 {
    assert_eq!(reference.len(), found.len());
    let largest = reference.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    assert!(largest.is_finite() && largest > 0.0, "a reference that says nothing: {largest}");
    // Not by `max`, which passes over what is no number.
    let differences = reference.iter().zip(found).map(|(a, b)| (a - b).abs());
    differences.fold(0f32, |worst, next| if next.is_nan() || next > worst { next } else { worst }) / largest
}

#[test]
fn a_difference_can_be_seen() {
    assert_eq!(difference(&[1.0, -4.0], &[1.0, -4.0]), 0.0);
    assert_eq!(difference(&[1.0, -4.0], &[2.0, -4.0]), 0.25);
    assert!(difference(&[1.0, -4.0], &[f32::NAN, -4.0]).is_nan());
}
