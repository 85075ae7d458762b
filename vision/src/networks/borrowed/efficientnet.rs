//! EfficientNet: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), as
//! TensorFlow trained it: padding SAME, norms with an epsilon of 1e-3. So timm's `tf_efficientnet_b0` to `b7`; the
//! networks without `tf_` pad all sides alike and would give other numbers. candle-transformers spells tensors as
//! torchvision does, which has no weights for this padding.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use candle_transformers::models::efficientnet::{EfficientNet, MBConvConfig};

use super::family::{Family, Passes, Stage, Variant, lacks_nothing, whole};
use super::source::Reader;
use crate::error::VisionError;

pub(super) const FAMILY: Family = Family {
    stem: "tf_efficientnet_",
    head: "classifier.weight",
    classes: None,
    spelling: timm,
    passes: Passes::Whole,
    variants: &[
        variant("tf_efficientnet_b0", 224, |weights, classes| build(MBConvConfig::b0(), weights, classes)),
        variant("tf_efficientnet_b1", 240, |weights, classes| build(MBConvConfig::b1(), weights, classes)),
        variant("tf_efficientnet_b2", 260, |weights, classes| build(MBConvConfig::b2(), weights, classes)),
        variant("tf_efficientnet_b3", 300, |weights, classes| build(MBConvConfig::b3(), weights, classes)),
        variant("tf_efficientnet_b4", 380, |weights, classes| build(MBConvConfig::b4(), weights, classes)),
        variant("tf_efficientnet_b5", 456, |weights, classes| build(MBConvConfig::b5(), weights, classes)),
        variant("tf_efficientnet_b6", 528, |weights, classes| build(MBConvConfig::b6(), weights, classes)),
        variant("tf_efficientnet_b7", 600, |weights, classes| build(MBConvConfig::b7(), weights, classes)),
    ],
};

type Make = fn(VarBuilder<'_>, usize) -> candle_core::Result<Vec<Stage>>;

const fn variant(name: &'static str, side: usize, make: Make) -> Variant {
    Variant { name, side, lacks: lacks_nothing, make }
}

fn build(blocks: Vec<MBConvConfig>, weights: VarBuilder<'_>, classes: usize) -> candle_core::Result<Vec<Stage>> {
    Ok(whole(EfficientNet::new(weights, blocks, classes)?))
}

/// `features.0` is the stem, `features.8` the head, and between them are seven stages of blocks:
/// `features.2.1.block.0.0.weight` is the first convolution of a stage's second block, `blocks.1.1.conv_pw.weight`.
fn timm(reader: &Reader<'_>, name: &str, shape: &[usize]) -> Result<Tensor, VisionError> {
    let parts: Vec<&str> = name.split('.').collect();
    let published = match parts.as_slice() {
        ["features", "0", "0", part] => format!("conv_stem.{part}"),
        ["features", "0", "1", part] => format!("bn1.{part}"),
        ["features", "8", "0", part] => format!("conv_head.{part}"),
        ["features", "8", "1", part] => format!("bn2.{part}"),
        ["features", stage, block, "block", rest @ ..] => {
            let stage = stage.parse::<usize>().unwrap_or_default().saturating_sub(1);
            format!("blocks.{stage}.{block}.{}", layer(stage == 0, rest))
        }
        ["classifier", "1", part] => format!("classifier.{part}"),
        _ => name.to_owned(),
    };
    reader.tensor(&published, shape)
}

/// A layer of a block. The first stage does not expand, so its layers come one earlier, and timm numbers their norms
/// accordingly.
fn layer(first_stage: bool, rest: &[&str]) -> String {
    let place = |text: &str| text.parse::<usize>().map(|place| place + usize::from(first_stage));
    match rest {
        [_, squeeze @ ("fc1" | "fc2"), part] => {
            format!("se.conv_{}.{part}", if *squeeze == "fc1" { "reduce" } else { "expand" })
        }
        [outer, "0", part] => match place(outer) {
            Ok(0) => format!("conv_pw.{part}"),
            Ok(1) => format!("conv_dw.{part}"),
            _ if first_stage => format!("conv_pw.{part}"),
            _ => format!("conv_pwl.{part}"),
        },
        [outer, _, part] => {
            let number = match place(outer) {
                Ok(0) => 1,
                Ok(1) => 2,
                _ => 3,
            };
            format!("bn{}.{part}", number - usize::from(first_stage))
        }
        _ => rest.join("."),
    }
}
