//! GoogLeNet with batch normalisation folded into its convolutions: Szegedy et al., "Going Deeper with Convolutions"
//! (2014), with the two 3 x 3 in place of 5 x 5 of Ioffe and Szegedy (2015).
//!
//! It differs from torchvision's `googlenet` and from the Caffe model: 2 x 2 max pools, no pool in the fourth branch,
//! and no rectifier after the first two convolutions. Tensor names are those of the published weights.

use candle_core::Device;

use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::{Graph, Value};
use crate::layers::{Padding, Window};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// Output channels of an inception block's four branches.
struct Inception {
    name: &'static str,
    /// 1 x 1.
    first: usize,
    /// 1 x 1, 3 x 3.
    second: [usize; 2],
    /// 1 x 1, 3 x 3, 3 x 3.
    third: [usize; 3],
    /// 1 x 1.
    fourth: usize,
}

const fn block(name: &'static str, first: usize, second: [usize; 2], third: [usize; 3], fourth: usize) -> Inception {
    Inception { name, first, second, third, fourth }
}

/// Blocks between two pools.
const STAGES: [&[Inception]; 3] = [
    &[
        block("a3", 64, [64, 64], [64, 96, 96], 32),
        block("b3", 64, [64, 96], [64, 96, 96], 64),
        block("c3", 160, [128, 160], [64, 96, 96], 160),
    ],
    &[
        block("a4", 224, [64, 96], [96, 128, 128], 128),
        block("b4", 192, [96, 128], [96, 128, 128], 128),
        block("c4", 160, [128, 160], [128, 160, 160], 128),
        block("d4", 96, [128, 192], [160, 192, 192], 128),
        block("e4", 480, [128, 192], [192, 256, 256], 128),
    ],
    &[block("a5", 352, [192, 320], [160, 224, 224], 128), block("b5", 352, [192, 320], [160, 224, 224], 128)],
];

const POINT: Window = Window { kernel: [1, 1], stride: 1, padding: Padding::NONE };
const THREE: Window = Window { kernel: [3, 3], stride: 1, padding: Padding::all(1) };
const HALVE: Window = Window { kernel: [2, 2], stride: 2, padding: Padding::NONE };

pub(crate) fn graph(weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(3, 224, 224));
    let stem = Window { kernel: [7, 7], stride: 2, padding: Padding::all(3) };
    let x = net.convolution("pre_layers.1", net.input(), 64, stem)?;
    let x = net.max_pool("pool1", x, HALVE)?;
    let x = net.convolution("pre_layers.4", x, 64, POINT)?;
    let mut x = rectified(&mut net, "pre_layers.6", x, 192, THREE)?;
    for (stage, pool) in STAGES.iter().zip(["pool2", "pool3", "pool4"]) {
        x = net.max_pool(pool, x, HALVE)?;
        for block in *stage {
            x = inception(&mut net, block, x)?;
        }
    }
    let x = net.global_average_pool("pool5", x);
    let classes = net.classes("linear", 1000);
    net.linear("linear", x, classes)?;
    net.finish()
}

/// A convolution and its rectifier.
fn rectified(
    net: &mut GraphBuilder<'_>,
    name: &str,
    from: Value,
    outputs: usize,
    window: Window,
) -> Result<Value, VisionError> {
    let x = net.convolution(name, from, outputs, window)?;
    Ok(net.relu(x))
}

fn inception(net: &mut GraphBuilder<'_>, block: &Inception, from: Value) -> Result<Value, VisionError> {
    let Inception { name, first, second, third, fourth } = block;
    let one = rectified(net, &format!("{name}.b1.conv1"), from, *first, POINT)?;
    let two = rectified(net, &format!("{name}.b2.conv1"), from, second[0], POINT)?;
    let two = rectified(net, &format!("{name}.b2.conv2"), two, second[1], THREE)?;
    let three = rectified(net, &format!("{name}.b3.conv1"), from, third[0], POINT)?;
    let three = rectified(net, &format!("{name}.b3.conv2"), three, third[1], THREE)?;
    let three = rectified(net, &format!("{name}.b3.conv3"), three, third[2], THREE)?;
    let four = rectified(net, &format!("{name}.b4.conv1"), from, *fourth, POINT)?;
    net.concat(name, &[one, two, three, four])
}
