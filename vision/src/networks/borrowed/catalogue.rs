//! All borrowed networks, by family.

use candle_core::Device;

use super::adapter::Adapter;
use super::family::{Family, Variant};
use super::{convmixer, convnext, efficientnet, eva, fastvit, mobilenet, mobileone, repvgg, segformer, vit};
use crate::error::VisionError;
use crate::network::Network;
use crate::weights::Weights;

const FAMILIES: &[Family] = &[
    convmixer::FAMILY,
    convnext::FAMILY,
    convnext::FAMILY_V2,
    vit::DEIT,
    vit::DEIT3,
    vit::DINO,
    efficientnet::FAMILY,
    eva::FAMILY,
    fastvit::FAMILY,
    fastvit::ATTENTIVE,
    mobilenet::FAMILY,
    mobileone::FAMILY,
    repvgg::FAMILY,
    segformer::FAMILY,
    vit::VIT,
    vit::VIT_DINO,
    vit::VIT_DINO_REGISTERS,
];

/// How many there are.
const COUNT: usize = {
    let (mut count, mut family) = (0, 0);
    while family < FAMILIES.len() {
        count += FAMILIES[family].variants.len();
        family += 1;
    }
    count
};

/// A network of candle-transformers, by its name in timm: `convnext_tiny`, `vit_base_patch16_224`. All of them take three
/// planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Borrowed {
    /// Its place among the families.
    family: usize,
    /// Its place in the family.
    variant: usize,
}

impl Borrowed {
    /// All of them, family by family.
    pub const ALL: [Self; COUNT] = {
        let mut all = [Self { family: 0, variant: 0 }; COUNT];
        let (mut place, mut family) = (0, 0);
        while family < FAMILIES.len() {
            let mut variant = 0;
            while variant < FAMILIES[family].variants.len() {
                all[place] = Self { family, variant };
                place += 1;
                variant += 1;
            }
            family += 1;
        }
        all
    };

    const fn family(self) -> &'static Family {
        &FAMILIES[self.family]
    }

    const fn variant(self) -> &'static Variant {
        &self.family().variants[self.variant]
    }

    /// The name in a `model.toml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.variant().name
    }

    /// Builds the network with these weights on a device. Fails when a tensor is missing, mis-shaped, or not the
    /// network's.
    pub(crate) fn build(self, weights: &Weights, device: &Device) -> Result<Box<dyn Network>, VisionError> {
        Ok(Box::new(Adapter::build(self.family(), self.variant(), weights, device)?))
    }
}

/// All names, a family in one piece: `convnext_{atto, femto}, mit_{b0, b1}`.
pub(crate) fn listed() -> String {
    let families = FAMILIES.iter().map(|family| {
        let names = family.variants.iter().map(|variant| variant.name);
        let ends: Vec<&str> = names.map(|name| name.strip_prefix(family.stem).unwrap_or(name)).collect();
        match ends.as_slice() {
            [end] => format!("{}{end}", family.stem),
            ends => format!("{}{{{}}}", family.stem, ends.join(", ")),
        }
    });
    families.collect::<Vec<_>>().join(", ")
}
