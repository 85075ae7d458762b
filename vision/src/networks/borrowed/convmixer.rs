//! ConvMixer: Trockman and Kolter, "Patches Are All You Need?" (2022). candle-transformers counts the layers through, as
//! the authors do; timm names their parts.

use candle_core::Tensor;
use candle_transformers::models::convmixer::{c1024_20, c1536_20};

use super::family::{Family, Passes, Variant, lacks_nothing, whole};
use super::source::Reader;
use crate::error::VisionError;

pub(super) const FAMILY: Family = Family {
    stem: "convmixer_",
    head: "head.weight",
    classes: None,
    spelling: timm,
    passes: Passes::Whole,
    variants: &[
        Variant {
            name: "convmixer_1024_20_ks9_p14",
            side: 224,
            lacks: lacks_nothing,
            make: |weights, classes| Ok(whole(c1024_20(classes, weights)?)),
        },
        Variant {
            name: "convmixer_1536_20",
            side: 224,
            lacks: lacks_nothing,
            make: |weights, classes| Ok(whole(c1536_20(classes, weights)?)),
        },
    ],
};

/// Where the blocks begin, and where the head is: between them lie the 20 blocks and two layers without weights.
const BLOCKS: usize = 3;
const HEAD: usize = 25;

fn timm(reader: &Reader<'_>, name: &str, shape: &[usize]) -> Result<Tensor, VisionError> {
    let (layer, rest) = name.split_once('.').unwrap_or((name, ""));
    let published = match layer.parse::<usize>() {
        Ok(HEAD) => format!("head.{rest}"),
        Ok(layer) if layer >= BLOCKS => format!("blocks.{}.{rest}", layer - BLOCKS),
        _ => format!("stem.{name}"),
    };
    reader.tensor(&published, shape)
}
