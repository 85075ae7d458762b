//! LeNet: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), in the
//! form that stayed: max pools and rectified units, and wider than the original, because it is ours to train.

use candle_core::Device;

use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::Graph;
use crate::layers::{Padding, Window};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// One grey image as MNIST has it.
pub(crate) const INPUT: ImageShape = ImageShape::new(1, 28, 28);

/// Every tensor with its shape: what a trainer has to make up.
pub(crate) const TENSORS: [(&str, &[usize]); 8] = [
    ("conv1.weight", &[20, 1, 5, 5]),
    ("conv1.bias", &[20]),
    ("conv2.weight", &[40, 20, 5, 5]),
    ("conv2.bias", &[40]),
    ("fc1.weight", &[128, 40 * 4 * 4]),
    ("fc1.bias", &[128]),
    ("fc2.weight", &[10, 128]),
    ("fc2.bias", &[10]),
];

pub(crate) fn graph(weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let five = Window { kernel: [5, 5], stride: 1, padding: Padding::NONE };
    let halve = Window { kernel: [2, 2], stride: 2, padding: Padding::NONE };
    let mut net = GraphBuilder::new(weights, device, INPUT);
    let x = net.convolution("conv1", net.input(), 20, five)?;
    let x = net.relu(x);
    let x = net.max_pool("pool1", x, halve)?;
    let x = net.convolution("conv2", x, 40, five)?;
    let x = net.relu(x);
    let x = net.max_pool("pool2", x, halve)?;
    let x = net.linear("fc1", x, 128)?;
    let x = net.relu(x);
    let classes = net.classes("fc2", 10);
    net.linear("fc2", x, classes)?;
    net.finish()
}
