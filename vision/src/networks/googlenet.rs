//! torchvision's GoogLeNet: Szegedy et al., "Going Deeper with Convolutions" (2014), with batch normalisation, pools that round up,
//! and 3 x 3 convolutions where the paper has 5 x 5. Tensor names as there; the auxiliary classifiers are for training alone.
//!
//! The published weights were trained on pictures with a mean and a deviation of 0.5, which torchvision makes of ImageNet's inside of
//! the network (`transform_input`); here the picture is prepared like that to begin with.

use candle_core::Device;

use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::{Graph, Value};
use crate::layers::{Form, Padding, Window};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// Table 1: the name of an inception block and the channels of its six convolutions: 1 x 1; 3 x 3 reduced, 3 x 3; 5 x 5 reduced,
/// 5 x 5; behind the pool.
type Inception = (&'static str, [usize; 6]);

/// Blocks between two pools.
const STAGES: [&[Inception]; 3] = [
    &[("inception3a", [64, 96, 128, 16, 32, 32]), ("inception3b", [128, 128, 192, 32, 96, 64])],
    &[
        ("inception4a", [192, 96, 208, 16, 48, 64]),
        ("inception4b", [160, 112, 224, 24, 64, 64]),
        ("inception4c", [128, 128, 256, 24, 64, 64]),
        ("inception4d", [112, 144, 288, 32, 64, 64]),
        ("inception4e", [256, 160, 320, 32, 128, 128]),
    ],
    &[("inception5a", [256, 160, 320, 32, 128, 128]), ("inception5b", [384, 192, 384, 48, 128, 128])],
];

const POINT: Window = Window { kernel: [1, 1], stride: 1, padding: Padding::NONE };
const THREE: Window = Window { kernel: [3, 3], stride: 1, padding: Padding::all(1) };

/// torchvision changes PyTorch's epsilon.
const EPSILON: f64 = 1e-3;

pub(crate) fn graph(weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(3, 224, 224));
    let stem = Window { kernel: [7, 7], stride: 2, padding: Padding::all(3) };
    let input = net.input();
    let x = unit(&mut net, "conv1", input, 64, stem)?;
    let x = halved(&mut net, "maxpool1", x, 3)?;
    let x = unit(&mut net, "conv2", x, 64, POINT)?;
    let mut x = unit(&mut net, "conv3", x, 192, THREE)?;
    for (stage, (pool, side)) in STAGES.iter().zip([("maxpool2", 3), ("maxpool3", 3), ("maxpool4", 2)]) {
        x = halved(&mut net, pool, x, side)?;
        for (name, channels) in *stage {
            x = inception(&mut net, name, x, channels)?;
        }
    }
    let x = net.global_average_pool("avgpool", x);
    let classes = net.classes("fc", 1000);
    net.linear("fc", x, classes)?;
    net.finish()
}

/// A convolution, its norm and its rectifier.
fn unit(
    net: &mut GraphBuilder<'_>,
    name: &str,
    from: Value,
    outputs: usize,
    window: Window,
) -> Result<Value, VisionError> {
    let form = Form::new(outputs, window);
    let x = net.normalised(&format!("{name}.conv"), &format!("{name}.bn"), from, form, EPSILON)?;
    Ok(net.relu(x))
}

/// A pool of stride 2 whose last window may hang over the edge.
fn halved(net: &mut GraphBuilder<'_>, name: &str, from: Value, side: usize) -> Result<Value, VisionError> {
    let (kernel, stride) = ([side, side], 2);
    let padding = Padding::ceil(net.shape(from), kernel, stride);
    net.max_pool(name, from, Window { kernel, stride, padding })
}

fn inception(net: &mut GraphBuilder<'_>, name: &str, from: Value, channels: &[usize; 6]) -> Result<Value, VisionError> {
    let [first, reduced_3, three, reduced_5, five, pooled] = *channels;
    let one = unit(net, &format!("{name}.branch1"), from, first, POINT)?;
    let two = unit(net, &format!("{name}.branch2.0"), from, reduced_3, POINT)?;
    let two = unit(net, &format!("{name}.branch2.1"), two, three, THREE)?;
    let three = unit(net, &format!("{name}.branch3.0"), from, reduced_5, POINT)?;
    let three = unit(net, &format!("{name}.branch3.1"), three, five, THREE)?;
    let four = net.max_pool(&format!("{name}.branch4.0"), from, THREE)?;
    let four = unit(net, &format!("{name}.branch4.1"), four, pooled, POINT)?;
    net.concat(name, &[one, two, three, four])
}
