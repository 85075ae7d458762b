//! Vision Transformers: Dosovitskiy et al., "An Image is Worth 16x16 Words" (2020); DeiT, Touvron et al. (2020), and DeiT
//! III (2022); DINOv2, Oquab et al. (2023), without and with registers, Darcet et al. (2023).
//!
//! All are put together from candle-transformers' embeddings and encoder, a block at a time, so that there is a moment to
//! stop after each. Its `vit` spells tensors as the library Transformers does, with query, key and value apart; timm has
//! the three in one. What DeiT III and DINOv2 have beyond it is worked into the weights: a block's scale multiplies the
//! last matrix before it, and positions that leave out the class token are preceded by a zero. Its own `dinov2` and
//! `dinov2reg4` are not used: they compute GELU by its approximation, and take one image.

use candle_core::{D, Tensor};
use candle_nn::{Activation, LayerNorm, Module, VarBuilder, layer_norm, linear};
use candle_transformers::models::vit::{Config, Embeddings, Encoder};

use super::family::{Family, Passes, Stage, Variant, lacks_nothing, stage};
use super::source::Reader;
use crate::error::VisionError;

/// What was published for 224 and 384 pixels.
pub(super) const VIT: Family = Family {
    stem: "vit_",
    head: "head.weight",
    classes: None,
    spelling: |reader, name, shape| timm(Extras::NONE, reader, name, shape),
    passes: Passes::Whole,
    variants: &[
        variant("vit_tiny_patch16_224", 224, |weights, classes| build(TINY, 224, 16, weights, classes)),
        variant("vit_tiny_patch16_384", 384, |weights, classes| build(TINY, 384, 16, weights, classes)),
        variant("vit_small_patch16_224", 224, |weights, classes| build(SMALL, 224, 16, weights, classes)),
        variant("vit_small_patch16_384", 384, |weights, classes| build(SMALL, 384, 16, weights, classes)),
        variant("vit_small_patch32_224", 224, |weights, classes| build(SMALL, 224, 32, weights, classes)),
        variant("vit_small_patch32_384", 384, |weights, classes| build(SMALL, 384, 32, weights, classes)),
        variant("vit_base_patch8_224", 224, |weights, classes| build(BASE, 224, 8, weights, classes)),
        variant("vit_base_patch16_224", 224, |weights, classes| build(BASE, 224, 16, weights, classes)),
        variant("vit_base_patch16_384", 384, |weights, classes| build(BASE, 384, 16, weights, classes)),
        variant("vit_base_patch32_224", 224, |weights, classes| build(BASE, 224, 32, weights, classes)),
        variant("vit_base_patch32_384", 384, |weights, classes| build(BASE, 384, 32, weights, classes)),
        variant("vit_large_patch16_224", 224, |weights, classes| build(LARGE, 224, 16, weights, classes)),
        variant("vit_large_patch16_384", 384, |weights, classes| build(LARGE, 384, 16, weights, classes)),
        variant("vit_large_patch32_384", 384, |weights, classes| build(LARGE, 384, 32, weights, classes)),
    ],
};

/// The same networks, trained otherwise.
pub(super) const DEIT: Family = Family {
    stem: "deit_",
    variants: &[
        variant("deit_tiny_patch16_224", 224, |weights, classes| build(TINY, 224, 16, weights, classes)),
        variant("deit_small_patch16_224", 224, |weights, classes| build(SMALL, 224, 16, weights, classes)),
        variant("deit_base_patch16_224", 224, |weights, classes| build(BASE, 224, 16, weights, classes)),
        variant("deit_base_patch16_384", 384, |weights, classes| build(BASE, 384, 16, weights, classes)),
    ],
    ..VIT
};

/// Scaled blocks, and a class token without a position.
pub(super) const DEIT3: Family = Family {
    stem: "deit3_",
    spelling: |reader, name, shape| timm(Extras { scales: true, classless_positions: true }, reader, name, shape),
    variants: &[
        variant("deit3_small_patch16_224", 224, |weights, classes| build(SMALL, 224, 16, weights, classes)),
        variant("deit3_small_patch16_384", 384, |weights, classes| build(SMALL, 384, 16, weights, classes)),
        variant("deit3_medium_patch16_224", 224, |weights, classes| build(MEDIUM, 224, 16, weights, classes)),
        variant("deit3_base_patch16_224", 224, |weights, classes| build(BASE, 224, 16, weights, classes)),
        variant("deit3_base_patch16_384", 384, |weights, classes| build(BASE, 384, 16, weights, classes)),
        variant("deit3_large_patch16_224", 224, |weights, classes| build(LARGE, 224, 16, weights, classes)),
        variant("deit3_large_patch16_384", 384, |weights, classes| build(LARGE, 384, 16, weights, classes)),
    ],
    ..VIT
};

/// DINOv2 under a head for its class token: what timm makes when it fine-tunes one. As published it has no head.
pub(super) const VIT_DINO: Family = Family {
    stem: "vit_",
    spelling: |reader, name, shape| timm(Extras { scales: true, classless_positions: false }, reader, name, shape),
    variants: &[
        variant("vit_small_patch14_dinov2", 518, |weights, classes| build(SMALL, 518, 14, weights, classes)),
        variant("vit_base_patch14_dinov2", 518, |weights, classes| build(BASE, 518, 14, weights, classes)),
        variant("vit_large_patch14_dinov2", 518, |weights, classes| build(LARGE, 518, 14, weights, classes)),
    ],
    ..VIT
};

/// The same with four registers: tokens that the network thinks with.
pub(super) const VIT_DINO_REGISTERS: Family = Family {
    spelling: |reader, name, shape| timm(Extras { scales: true, classless_positions: true }, reader, name, shape),
    variants: &[
        variant("vit_small_patch14_reg4_dinov2", 518, |weights, classes| dino(SMALL, Pool::Class, 4, weights, classes)),
        variant("vit_base_patch14_reg4_dinov2", 518, |weights, classes| dino(BASE, Pool::Class, 4, weights, classes)),
        variant("vit_large_patch14_reg4_dinov2", 518, |weights, classes| dino(LARGE, Pool::Class, 4, weights, classes)),
    ],
    ..VIT_DINO
};

/// The authors' own classifier of ImageNet, by their name for it: it sees the class token and the mean of the patches.
pub(super) const DINO: Family = Family {
    stem: "dinov2_",
    variants: &[variant("dinov2_vits14_lc", 518, |weights, classes| {
        dino(SMALL, Pool::ClassAndMean, 0, weights, classes)
    })],
    ..VIT_DINO
};

/// Width, depth, and heads of the attention.
#[derive(Debug, Clone, Copy)]
struct Size(usize, usize, usize);

const TINY: Size = Size(192, 12, 3);
const SMALL: Size = Size(384, 12, 6);
const MEDIUM: Size = Size(512, 12, 8);
const BASE: Size = Size(768, 12, 12);
const LARGE: Size = Size(1024, 24, 16);

/// What the head sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pool {
    /// The class token.
    Class,
    /// The class token, and the mean of all patches after it.
    ClassAndMean,
}

type Make = fn(VarBuilder<'_>, usize) -> candle_core::Result<Vec<Stage>>;

const fn variant(name: &'static str, side: usize, make: Make) -> Variant {
    Variant { name, side, lacks: lacks_nothing, make }
}

/// Epsilon of all norms.
const EPSILON: f64 = 1e-6;

fn config(Size(width, _, heads): Size, side: usize, patch: usize) -> Config {
    Config {
        hidden_size: width,
        // One at a time.
        num_hidden_layers: 1,
        num_attention_heads: heads,
        intermediate_size: 4 * width,
        hidden_act: Activation::Gelu,
        layer_norm_eps: EPSILON,
        image_size: side,
        patch_size: patch,
        num_channels: 3,
        qkv_bias: true,
    }
}

fn build(
    size: Size,
    side: usize,
    patch: usize,
    weights: VarBuilder<'_>,
    classes: usize,
) -> candle_core::Result<Vec<Stage>> {
    stages(size, &config(size, side, patch), Pool::Class, 0, &weights, classes)
}

fn dino(
    size: Size,
    pool: Pool,
    registers: usize,
    weights: VarBuilder<'_>,
    classes: usize,
) -> candle_core::Result<Vec<Stage>> {
    stages(size, &config(size, 518, 14), pool, registers, &weights, classes)
}

fn stages(
    size: Size,
    config: &Config,
    pool: Pool,
    registers: usize,
    weights: &VarBuilder<'_>,
    classes: usize,
) -> candle_core::Result<Vec<Stage>> {
    let Size(width, depth, _) = size;
    let mut stages = vec![embed(config, registers, weights)?];
    for block in 0..depth {
        stages.push(stage(Encoder::new(config, weights.pp("blocks").pp(block))?));
    }
    let norm = layer_norm(width, EPSILON, weights.pp("norm"))?;
    let seen = if pool == Pool::Class { width } else { 2 * width };
    let head = linear(seen, classes, weights.pp("head"))?;
    stages.push(Box::new(move |tokens| head.forward(&pooled(&norm, pool, tokens)?)));
    Ok(stages)
}

/// From pictures to tokens `[N, 1 + registers + patches, width]`: the class, the registers, the patches row by row.
fn embed(config: &Config, registers: usize, weights: &VarBuilder<'_>) -> candle_core::Result<Stage> {
    let embeddings = Embeddings::new(config, false, weights.pp("embeddings"))?;
    if registers == 0 {
        return Ok(Box::new(move |images| embeddings.forward(images, None, false)));
    }
    let register = weights.get((1, registers, config.hidden_size), "reg_token")?;
    Ok(Box::new(move |images| {
        let tokens = embeddings.forward(images, None, false)?;
        let (images, count, width) = tokens.dims3()?;
        let register = register.broadcast_as((images, registers, width))?;
        Tensor::cat(&[&tokens.narrow(1, 0, 1)?, &register, &tokens.narrow(1, 1, count - 1)?], 1)
    }))
}

fn pooled(norm: &LayerNorm, pool: Pool, tokens: &Tensor) -> candle_core::Result<Tensor> {
    match pool {
        Pool::Class => norm.forward(&tokens.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?),
        Pool::ClassAndMean => {
            let tokens = norm.forward(tokens)?;
            let patches = tokens.narrow(1, 1, tokens.dim(1)? - 1)?.mean(1)?;
            Tensor::cat(&[&tokens.narrow(1, 0, 1)?.squeeze(1)?, &patches], D::Minus1)
        }
    }
}

/// What a network's weights have beyond the first Vision Transformer's.
#[derive(Debug, Clone, Copy)]
struct Extras {
    /// What each block adds is multiplied by `ls1.gamma` and `ls2.gamma`.
    scales: bool,
    /// The class token has no position.
    classless_positions: bool,
}

impl Extras {
    const NONE: Self = Self { scales: false, classless_positions: false };
}

fn timm(extras: Extras, reader: &Reader<'_>, name: &str, shape: &[usize]) -> Result<Tensor, VisionError> {
    match name {
        "embeddings.cls_token" => reader.tensor("cls_token", shape),
        "embeddings.position_embeddings" => positions(extras.classless_positions, reader, shape),
        _ => {
            if let Some(part) = name.strip_prefix("embeddings.patch_embeddings.projection.") {
                return reader.tensor(&format!("patch_embed.proj.{part}"), shape);
            }
            match name.split_once(".layer.0.") {
                Some((block, rest)) => in_block(extras.scales, reader, block, rest, shape),
                None => reader.tensor(name, shape),
            }
        }
    }
}

fn positions(classless: bool, reader: &Reader<'_>, shape: &[usize]) -> Result<Tensor, VisionError> {
    if !classless {
        return reader.tensor("pos_embed", shape);
    }
    let patches = reader.tensor("pos_embed", &[1, shape[1] - 1, shape[2]])?;
    Ok(patches.pad_with_zeros(1, 1, 0)?)
}

fn in_block(
    scales: bool,
    reader: &Reader<'_>,
    block: &str,
    rest: &str,
    shape: &[usize],
) -> Result<Tensor, VisionError> {
    let (layer, part) = rest.rsplit_once('.').unwrap_or((rest, ""));
    let plain = |layer: &str| reader.tensor(&format!("{block}.{layer}.{part}"), shape);
    // The scale of what a layer gives, worked into that layer.
    let scaled = |layer: &str, scale: &str| {
        let tensor = plain(layer)?;
        if !scales {
            return Ok(tensor);
        }
        let mut rows = vec![1; shape.len()];
        rows[0] = shape[0];
        let scale = reader.tensor(&format!("{block}.{scale}.gamma"), &shape[..1])?.reshape(rows)?;
        Ok(tensor.broadcast_mul(&scale)?)
    };
    let third = |place: usize| {
        let mut all = shape.to_vec();
        all[0] *= 3;
        let joined = reader.tensor(&format!("{block}.attn.qkv.{part}"), &all)?;
        Ok(joined.narrow(0, place * shape[0], shape[0])?.copy()?)
    };
    match layer {
        "layernorm_before" => plain("norm1"),
        "attention.attention.query" => third(0),
        "attention.attention.key" => third(1),
        "attention.attention.value" => third(2),
        "attention.output.dense" => scaled("attn.proj", "ls1"),
        "layernorm_after" => plain("norm2"),
        "intermediate.dense" => plain("mlp.fc1"),
        "output.dense" => scaled("mlp.fc2", "ls2"),
        _ => reader.tensor(&format!("{block}.{rest}"), shape),
    }
}
