//! RepVGG: Ding et al., "RepVGG: Making VGG-style ConvNets Great Again" (2021), with the branches that it was trained
//! with; candle-transformers makes one convolution of them.

use candle_nn::VarBuilder;
use candle_transformers::models::repvgg::{Config, repvgg};

use super::family::{Family, Passes, Stage, Variant, as_published, lacks_nothing, whole};

pub(super) const FAMILY: Family = Family {
    stem: "repvgg_",
    head: "head.fc.weight",
    classes: None,
    spelling: as_published,
    passes: Passes::Whole,
    variants: &[
        variant("repvgg_a0", |weights, classes| build(&Config::a0(), weights, classes)),
        variant("repvgg_a1", |weights, classes| build(&Config::a1(), weights, classes)),
        variant("repvgg_a2", |weights, classes| build(&Config::a2(), weights, classes)),
        variant("repvgg_b0", |weights, classes| build(&Config::b0(), weights, classes)),
        variant("repvgg_b1", |weights, classes| build(&Config::b1(), weights, classes)),
        variant("repvgg_b1g4", |weights, classes| build(&Config::b1g4(), weights, classes)),
        variant("repvgg_b2", |weights, classes| build(&Config::b2(), weights, classes)),
        variant("repvgg_b2g4", |weights, classes| build(&Config::b2g4(), weights, classes)),
        variant("repvgg_b3", |weights, classes| build(&Config::b3(), weights, classes)),
        variant("repvgg_b3g4", |weights, classes| build(&Config::b3g4(), weights, classes)),
    ],
};

type Make = fn(VarBuilder<'_>, usize) -> candle_core::Result<Vec<Stage>>;

const fn variant(name: &'static str, make: Make) -> Variant {
    Variant { name, side: 224, lacks: lacks_nothing, make }
}

fn build(config: &Config, weights: VarBuilder<'_>, classes: usize) -> candle_core::Result<Vec<Stage>> {
    Ok(whole(repvgg(config, classes, weights)?))
}
