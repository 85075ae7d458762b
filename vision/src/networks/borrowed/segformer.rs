//! The classifiers of SegFormer, Mix Transformers: Xie et al., "SegFormer: Simple and Efficient Design for Semantic
//! Segmentation with Transformers" (2021). timm does not have them; names and tensors are those of the authors' files
//! `nvidia/mit-b0` to `mit-b5`. candle-transformers mixes up the images of a batch, so each goes through alone.

use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::segformer::{Config, ImageClassificationModel};

use super::family::{Family, Passes, Stage, Variant, as_published, lacks_nothing, whole};

pub(super) const FAMILY: Family = Family {
    stem: "mit_",
    head: "classifier.weight",
    classes: None,
    spelling: as_published,
    passes: Passes::Single,
    variants: &[
        variant("mit_b0", |weights, classes| build([32, 64, 160, 256], [2, 2, 2, 2], weights, classes)),
        variant("mit_b1", |weights, classes| build(WIDE, [2, 2, 2, 2], weights, classes)),
        variant("mit_b2", |weights, classes| build(WIDE, [3, 4, 6, 3], weights, classes)),
        variant("mit_b3", |weights, classes| build(WIDE, [3, 4, 18, 3], weights, classes)),
        variant("mit_b4", |weights, classes| build(WIDE, [3, 8, 27, 3], weights, classes)),
        variant("mit_b5", |weights, classes| build(WIDE, [3, 6, 40, 3], weights, classes)),
    ],
};

const WIDE: [usize; 4] = [64, 128, 320, 512];

type Make = fn(VarBuilder<'_>, usize) -> candle_core::Result<Vec<Stage>>;

const fn variant(name: &'static str, make: Make) -> Variant {
    Variant { name, side: 224, lacks: lacks_nothing, make }
}

fn build(
    channels: [usize; 4],
    depths: [usize; 4],
    weights: VarBuilder<'_>,
    classes: usize,
) -> candle_core::Result<Vec<Stage>> {
    let config = Config {
        id2label: std::collections::HashMap::new(),
        num_channels: 3,
        num_encoder_blocks: 4,
        depths: depths.to_vec(),
        sr_ratios: vec![8, 4, 2, 1],
        hidden_sizes: channels.to_vec(),
        patch_sizes: vec![7, 3, 3, 3],
        strides: vec![4, 2, 2, 2],
        num_attention_heads: vec![1, 2, 5, 8],
        mlp_ratios: vec![4, 4, 4, 4],
        hidden_act: Activation::Gelu,
        // PyTorch's: the published configurations say 1e-6, and the code that they were trained with does not read it.
        layer_norm_eps: 1e-5,
        // Here the width of what the classifier sees, which is the last stage.
        decoder_hidden_size: channels[3],
    };
    Ok(whole(ImageClassificationModel::new(&config, classes, weights)?))
}
