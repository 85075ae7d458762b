//! MobileNetV4: Qin et al., "MobileNetV4: Universal Models for the Mobile Ecosystem" (2024).

use candle_nn::VarBuilder;
use candle_transformers::models::mobilenetv4::{Config, mobilenetv4};

use super::family::{Family, Passes, Stage, Variant, as_published, whole};

pub(super) const FAMILY: Family = Family {
    stem: "mobilenetv4_",
    head: "classifier.weight",
    classes: None,
    spelling: as_published,
    passes: Passes::Whole,
    variants: &[
        Variant {
            name: "mobilenetv4_conv_small",
            side: 224,
            lacks: |name, _| lacks_of(["--", "--", "bmmmms", "bbmmmm"], false, name),
            make: |weights, classes| build(&Config::small(), weights, classes),
        },
        Variant {
            name: "mobilenetv4_conv_medium",
            side: 256,
            lacks: |name, _| lacks_of(["-", "bb", "bbbbbs.s", "bbbb.sbb..s"], false, name),
            make: |weights, classes| build(&Config::medium(), weights, classes),
        },
        Variant {
            name: "mobilenetv4_conv_large",
            side: 384,
            lacks: |name, _| lacks_of(["-", "bb", "bbbbbbbbbbs", "bbbbsbssbbsss"], false, name),
            make: |weights, classes| build(&Config::large(), weights, classes),
        },
        Variant {
            name: "mobilenetv4_hybrid_medium",
            side: 256,
            lacks: |name, _| lacks_of(["-", "bb", "b.bbAbAsAbAs", "bbbb.b..asabasas"], true, name),
            make: |weights, classes| build(&Config::hybrid_medium(), weights, classes),
        },
        Variant {
            name: "mobilenetv4_hybrid_large",
            side: 384,
            lacks: |name, _| lacks_of(["-", "bb", "bbbbbbbAbAbAbAs", "bbbbsbssbbasasasas"], true, name),
            make: |weights, classes| build(&Config::hybrid_large(), weights, classes),
        },
    ],
};

fn build(config: &Config, weights: VarBuilder<'_>, classes: usize) -> candle_core::Result<Vec<Stage>> {
    Ok(whole(mobilenetv4(config, classes, weights)?))
}

/// What a block lacks. The paper's tables in one letter a block, a text a stage: a universal bottleneck with a depthwise
/// convolution at its (s)tart, in its (m)iddle, (b)oth or `.` neither; (a)ttention, or (A)ttention to a smaller picture;
/// `-` another block. Only hybrids scale their blocks.
fn lacks_of(stages: [&str; 4], scales: bool, name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let ["blocks", stage, block, rest @ ..] = parts.as_slice() else { return false };
    let kind = || stages.get(stage.parse::<usize>().ok()?)?.chars().nth(block.parse::<usize>().ok()?);
    match rest {
        ["dw_start", ..] => !matches!(kind(), Some('s' | 'b')),
        ["dw_mid", ..] => !matches!(kind(), Some('m' | 'b')),
        ["attn", "key" | "value", "down_conv" | "norm", ..] => kind() != Some('A'),
        ["layer_scale", ..] => !scales,
        _ => false,
    }
}
