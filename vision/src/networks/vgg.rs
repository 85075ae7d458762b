//! VGG: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2014), table 1: A, B,
//! D and E. Tensor names as in timm's `vgg11` to `vgg19`, where the first two layers of the head are convolutions.
//! candle-transformers has it too, but rectifies the logits.

use candle_core::Device;

use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::Graph;
use crate::layers::{Padding, Window};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// How many convolutions there are before each pool.
pub(crate) type Size = [usize; 5];

pub(crate) const V11: Size = [1, 1, 2, 2, 2];
pub(crate) const V13: Size = [2, 2, 2, 2, 2];
pub(crate) const V16: Size = [2, 2, 3, 3, 3];
pub(crate) const V19: Size = [2, 2, 4, 4, 4];

/// Channels of each stage.
const WIDTHS: [usize; 5] = [64, 128, 256, 512, 512];

const THREE: Window = Window { kernel: [3, 3], stride: 1, padding: Padding::all(1) };
const HALF: Window = Window { kernel: [2, 2], stride: 2, padding: Padding::NONE };
/// All that is left after five pools.
const WHOLE: Window = Window { kernel: [7, 7], stride: 1, padding: Padding::NONE };
const POINT: Window = Window { kernel: [1, 1], stride: 1, padding: Padding::NONE };

pub(crate) fn graph(size: Size, weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(3, 224, 224));
    // The place in `features`, where activations and pools count too.
    let (mut x, mut place) = (net.input(), 0);
    for (count, width) in size.into_iter().zip(WIDTHS) {
        for _ in 0..count {
            x = net.convolution(&format!("features.{place}"), x, width, THREE)?;
            x = net.relu(x);
            place += 2;
        }
        x = net.max_pool(&format!("features.{place}"), x, HALF)?;
        place += 1;
    }
    let x = net.convolution("pre_logits.fc1", x, 4096, WHOLE)?;
    let x = net.relu(x);
    let x = net.convolution("pre_logits.fc2", x, 4096, POINT)?;
    let x = net.relu(x);
    let classes = net.classes("head.fc", 1000);
    net.linear("head.fc", x, classes)?;
    net.finish()
}
