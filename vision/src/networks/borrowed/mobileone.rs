//! MobileOne: Vasu et al., "MobileOne: An Improved One millisecond Mobile Backbone" (2022), with the branches that it was
//! trained with; candle-transformers makes one convolution of each block's. Not `mobileone_s0`: there it leaves out the
//! branch that passes the input on in the second layer, the one network where that layer does not widen.

use candle_nn::VarBuilder;
use candle_transformers::models::mobileone::{Config, mobileone};

use super::family::{Family, Passes, Stage, Variant, as_published, whole};

pub(super) const FAMILY: Family = Family {
    stem: "mobileone_",
    head: "head.fc.weight",
    classes: None,
    spelling: as_published,
    passes: Passes::Whole,
    variants: &[
        variant("mobileone_s1", squeezes_nowhere, |weights, classes| build(&Config::s1(), weights, classes)),
        variant("mobileone_s2", squeezes_nowhere, |weights, classes| build(&Config::s2(), weights, classes)),
        variant("mobileone_s3", squeezes_nowhere, |weights, classes| build(&Config::s3(), weights, classes)),
        variant("mobileone_s4", squeezes_late, |weights, classes| build(&Config::s4(), weights, classes)),
    ],
};

type Make = fn(VarBuilder<'_>, usize) -> candle_core::Result<Vec<Stage>>;

const fn variant(name: &'static str, lacks: fn(&str, &[usize]) -> bool, make: Make) -> Variant {
    Variant { name, side: 224, lacks, make }
}

fn build(config: &Config, weights: VarBuilder<'_>, classes: usize) -> candle_core::Result<Vec<Stage>> {
    Ok(whole(mobileone(config, classes, weights)?))
}

fn squeezes_nowhere(name: &str, _: &[usize]) -> bool {
    name.contains(".attn.")
}

/// Squeeze and excitation in the latter half of the third stage's twenty layers and in all of the fourth's.
fn squeezes_late(name: &str, _: &[usize]) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        ["stages", "2", layer, "attn", ..] => layer.parse::<usize>().is_ok_and(|layer| layer < 10),
        ["stages", "3", _, "attn", ..] => false,
        _ => name.contains("attn."),
    }
}
