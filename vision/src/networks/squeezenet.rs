//! SqueezeNet 1.1: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters" (2016), and the
//! authors' release 1.1. Tensor names as in torchvision's `squeezenet1_1`.

use candle_core::Device;

use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::{Graph, Value};
use crate::layers::{Padding, Window};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// Channels of the Fire modules by their place in `features`: squeeze, and each of the two expands. Places 2, 5 and
/// 8 are pools.
const STAGES: [&[(usize, usize, usize)]; 3] = [
    &[(3, 16, 64), (4, 16, 64)],
    &[(6, 32, 128), (7, 32, 128)],
    &[(9, 48, 192), (10, 48, 192), (11, 64, 256), (12, 64, 256)],
];

const POINT: Window = Window { kernel: [1, 1], stride: 1, padding: Padding::NONE };
const THREE: Window = Window { kernel: [3, 3], stride: 1, padding: Padding::all(1) };

pub(crate) fn graph(weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(3, 227, 227));
    let stem = Window { kernel: [3, 3], stride: 2, padding: Padding::NONE };
    let x = net.convolution("features.0", net.input(), 64, stem)?;
    let mut x = net.relu(x);
    for (stage, pool) in STAGES.iter().zip(["features.2", "features.5", "features.8"]) {
        x = ceil_pool(&mut net, pool, x)?;
        for &(place, squeeze, expand) in *stage {
            x = fire(&mut net, &format!("features.{place}"), x, squeeze, expand)?;
        }
    }
    // The authors' release pads this 1 x 1 convolution by one; torchvision's copy does not.
    let padded = Window { padding: Padding::all(1), ..POINT };
    let x = net.convolution("classifier.1", x, 1000, padded)?;
    let x = net.relu(x);
    net.global_average_pool("classifier.3", x);
    net.finish()
}

/// Caffe's pools round up: the last window may hang over the edge.
fn ceil_pool(net: &mut GraphBuilder<'_>, name: &str, from: Value) -> Result<Value, VisionError> {
    let (kernel, stride) = ([3, 3], 2);
    let padding = Padding::ceil(net.shape(from), kernel, stride);
    net.max_pool(name, from, Window { kernel, stride, padding })
}

/// Section 3.1: squeeze with 1 x 1, then expand with 1 x 1 and 3 x 3 beside each other.
fn fire(
    net: &mut GraphBuilder<'_>,
    name: &str,
    from: Value,
    squeeze: usize,
    expand: usize,
) -> Result<Value, VisionError> {
    let squeezed = net.convolution(&format!("{name}.squeeze"), from, squeeze, POINT)?;
    let squeezed = net.relu(squeezed);
    let narrow = net.convolution(&format!("{name}.expand1x1"), squeezed, expand, POINT)?;
    let narrow = net.relu(narrow);
    let wide = net.convolution(&format!("{name}.expand3x3"), squeezed, expand, THREE)?;
    let wide = net.relu(wide);
    net.concat(name, &[narrow, wide])
}
