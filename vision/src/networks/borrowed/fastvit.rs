//! FastViT: Vasu et al., "FastViT: A Fast Hybrid Vision Transformer using Structural Reparameterization" (2023), with the
//! branches that it was trained with; candle-transformers makes one convolution of them.

use candle_nn::VarBuilder;
use candle_transformers::models::fastvit::{Config, fastvit};

use super::family::{Family, Passes, Stage, Variant, as_published, whole};

pub(super) const FAMILY: Family = Family {
    stem: "fastvit_",
    head: "head.fc.weight",
    classes: None,
    spelling: as_published,
    passes: Passes::Whole,
    variants: &[
        variant("fastvit_t8", mixes, |weights, classes| build(&Config::t8(), weights, classes)),
        variant("fastvit_t12", mixes, |weights, classes| build(&Config::t12(), weights, classes)),
        variant("fastvit_s12", mixes, |weights, classes| build(&Config::s12(), weights, classes)),
    ],
};

/// With attention, where candle-transformers mixes up the images of a batch.
pub(super) const ATTENTIVE: Family = Family {
    passes: Passes::Single,
    variants: &[
        variant("fastvit_sa12", attends, |weights, classes| build(&Config::sa12(), weights, classes)),
        variant("fastvit_sa24", attends, |weights, classes| build(&Config::sa24(), weights, classes)),
        variant("fastvit_sa36", attends, |weights, classes| build(&Config::sa36(), weights, classes)),
        variant("fastvit_ma36", attends, |weights, classes| build(&Config::ma36(), weights, classes)),
    ],
    ..FAMILY
};

type Make = fn(VarBuilder<'_>, usize) -> candle_core::Result<Vec<Stage>>;

const fn variant(name: &'static str, lacks: fn(&str, &[usize]) -> bool, make: Make) -> Variant {
    Variant { name, side: 256, lacks, make }
}

fn build(config: &Config, weights: VarBuilder<'_>, classes: usize) -> candle_core::Result<Vec<Stage>> {
    Ok(whole(fastvit(config, classes, weights)?))
}

/// Without attention, and so without encoded positions.
fn mixes(name: &str, shape: &[usize]) -> bool {
    name.contains(".pos_emb.") || attends(name, shape)
}

/// With attention in the last stage.
fn attends(name: &str, _: &[usize]) -> bool {
    if name.starts_with("stages.0.downsample.") {
        return true;
    }
    if name.contains(".pos_emb.") {
        return !name.starts_with("stages.3.");
    }
    if name.contains(".se.") {
        return !name.starts_with("final_conv.se.");
    }
    let before = |branch: &str| name.split_once(branch).map(|(block, _)| block);
    // A mixer's norm is nothing but what passes the input on.
    if let Some(block) = before(".conv_kxk.") {
        return block.ends_with(".token_mixer.norm");
    }
    // A branch of 1 x 1 only where the kernel is larger.
    if let Some(block) = before(".conv_scale.") {
        return block == "stem.2" || block.ends_with(".downsample.proj.1") || block.ends_with(".token_mixer.norm");
    }
    // The input passes only where the shape stays the same.
    before(".identity.").is_some_and(|block| matches!(block, "stem.0" | "stem.1" | "final_conv"))
}
