//! EVA-02: Fang et al., "EVA-02: A Visual Representation for Neon Genesis" (2023), at 448 x 448.
//!
//! candle-transformers reads the rotations of positions from the weights; published files do not have them, because they
//! follow from the sizes alone, and are computed here. It knows a batch of one image, and ImageNet's classes, only.

use candle_core::Tensor;
use candle_transformers::models::eva2::{vit_base, vit_large};

use super::family::{Family, Passes, Variant, lacks_nothing, whole};
use super::source::Reader;
use crate::error::VisionError;

pub(super) const FAMILY: Family = Family {
    stem: "eva02_",
    head: "head.weight",
    classes: Some(1000),
    spelling: timm,
    passes: Passes::Single,
    variants: &[
        Variant {
            name: "eva02_base_patch14_448",
            side: 448,
            lacks: lacks_nothing,
            make: |weights, _| Ok(whole(vit_base(weights)?)),
        },
        Variant {
            name: "eva02_large_patch14_448",
            side: 448,
            lacks: lacks_nothing,
            make: |weights, _| Ok(whole(vit_large(weights)?)),
        },
    ],
};

fn timm(reader: &Reader<'_>, name: &str, shape: &[usize]) -> Result<Tensor, VisionError> {
    match name.split_once('.') {
        None if name == "rot_pos_embed" => Ok(Tensor::from_vec(rotations(), shape, reader.device())?),
        // The mean of all patches is normalised, not each patch.
        Some(("norm", part)) => reader.tensor(&format!("fc_norm.{part}"), shape),
        _ => reader.tensor(name, shape),
    }
}

/// Patches on a side.
const SIDE: usize = 32;
/// Patches on a side when the network was first trained, 224 / 14: positions are stretched to that.
const TRAINED: usize = 16;
/// Frequencies for each axis: a head has 64 numbers, a pair of which is turned by one angle.
const BANDS: usize = 16;

/// For each patch, row by row: the sines of its 32 angles, each twice, then the cosines likewise.
fn rotations() -> Vec<f32> {
    let mut values = Vec::with_capacity(SIDE * SIDE * 128);
    for patch in 0..SIDE * SIDE {
        let places = [patch / SIDE, patch % SIDE].map(|place| (place * TRAINED) as f32 / SIDE as f32);
        let angles = places
            .into_iter()
            .flat_map(|place| (0..BANDS).map(move |band| place * (1.0 / 10_000f32.powf(band as f32 / BANDS as f32))));
        let angles: Vec<f32> = angles.flat_map(|angle| [angle, angle]).collect();
        values.extend(angles.iter().map(|angle| angle.sin()));
        values.extend(angles.iter().map(|angle| angle.cos()));
    }
    values
}
