//! ConvNeXt: Liu et al., "A ConvNet for the 2020s" (2022), and its second version, Woo et al., "ConvNeXt V2" (2023).

use candle_nn::VarBuilder;
use candle_transformers::models::convnext::{Config, convnext};

use super::family::{Family, Passes, Stage, Variant, as_published, whole};

pub(super) const FAMILY: Family = Family {
    stem: "convnext_",
    head: "head.fc.weight",
    classes: None,
    spelling: as_published,
    passes: Passes::Whole,
    variants: &[
        first("convnext_atto", |weights, classes| build(&Config::atto(), weights, classes)),
        first("convnext_femto", |weights, classes| build(&Config::femto(), weights, classes)),
        first("convnext_pico", |weights, classes| build(&Config::pico(), weights, classes)),
        first("convnext_nano", |weights, classes| build(&Config::nano(), weights, classes)),
        first("convnext_tiny", |weights, classes| build(&Config::tiny(), weights, classes)),
        first("convnext_small", |weights, classes| build(&Config::small(), weights, classes)),
        first("convnext_base", |weights, classes| build(&Config::base(), weights, classes)),
        first("convnext_large", |weights, classes| build(&Config::large(), weights, classes)),
        first("convnext_xlarge", |weights, classes| build(&Config::xlarge(), weights, classes)),
    ],
};

pub(super) const FAMILY_V2: Family = Family {
    stem: "convnextv2_",
    variants: &[
        second("convnextv2_atto", 224, |weights, classes| build(&Config::atto(), weights, classes)),
        second("convnextv2_femto", 224, |weights, classes| build(&Config::femto(), weights, classes)),
        second("convnextv2_pico", 224, |weights, classes| build(&Config::pico(), weights, classes)),
        second("convnextv2_nano", 224, |weights, classes| build(&Config::nano(), weights, classes)),
        second("convnextv2_tiny", 224, |weights, classes| build(&Config::tiny(), weights, classes)),
        second("convnextv2_base", 224, |weights, classes| build(&Config::base(), weights, classes)),
        second("convnextv2_large", 224, |weights, classes| build(&Config::large(), weights, classes)),
        second("convnextv2_huge", 384, |weights, classes| build(&Config::huge(), weights, classes)),
    ],
    ..FAMILY
};

type Make = fn(VarBuilder<'_>, usize) -> candle_core::Result<Vec<Stage>>;

fn build(config: &Config, weights: VarBuilder<'_>, classes: usize) -> candle_core::Result<Vec<Stage>> {
    Ok(whole(convnext(config, classes, weights)?))
}

/// Scales each block, and has no global response norm.
const fn first(name: &'static str, make: Make) -> Variant {
    Variant { name, side: 224, lacks: |name, _| name.contains(".grn."), make }
}

/// Has that norm instead of the scale.
const fn second(name: &'static str, side: usize, make: Make) -> Variant {
    Variant { name, side, lacks: |name, _| name.ends_with(".gamma"), make }
}
