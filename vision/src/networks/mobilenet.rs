//! MobileNetV2: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), width 1.0 at 224,
//! batch normalisation folded. Tensor names as in torchvision's `mobilenet_v2`; the weights come from TensorFlow, so
//! padding is TensorFlow's SAME and class 0 is the background.

use candle_core::Device;

use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::{Graph, Value};
use crate::layers::{Padding, Window};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// Table 2: expansion t, output channels c, repetitions n, stride s of the first of them.
const TABLE: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

const POINT: Window = Window { kernel: [1, 1], stride: 1, padding: Padding::NONE };

pub(crate) fn graph(weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(3, 224, 224));
    let stem = same(&net, net.input(), 2);
    let x = net.convolution("features.0.0", net.input(), 32, stem)?;
    let mut x = net.relu6(x);
    let mut place = 1;
    for (expansion, outputs, repetitions, stride) in TABLE {
        for repetition in 0..repetitions {
            let stride = if repetition == 0 { stride } else { 1 };
            x = inverted_residual(&mut net, &format!("features.{place}"), x, expansion, outputs, stride)?;
            place += 1;
        }
    }
    let x = net.convolution("features.18.0", x, 1280, POINT)?;
    let x = net.relu6(x);
    let x = net.global_average_pool("pool", x);
    net.linear("classifier.1", x, 1001)?;
    net.finish()
}

/// A 3 x 3 window with TensorFlow's padding.
fn same(net: &GraphBuilder<'_>, from: Value, stride: usize) -> Window {
    let kernel = [3, 3];
    Window { kernel, stride, padding: Padding::same(net.shape(from), kernel, stride) }
}

/// Section 3.3: expand, convolve each channel, project without activation; add the input where the shape allows.
fn inverted_residual(
    net: &mut GraphBuilder<'_>,
    name: &str,
    from: Value,
    expansion: usize,
    outputs: usize,
    stride: usize,
) -> Result<Value, VisionError> {
    let inputs = net.shape(from).channels;
    // Without an expansion there is no first convolution, and the names of the others move up.
    let (expanded, depthwise, project) = if expansion == 1 {
        (from, format!("{name}.conv.0.0"), format!("{name}.conv.1"))
    } else {
        let x = net.convolution(&format!("{name}.conv.0.0"), from, inputs * expansion, POINT)?;
        (net.relu6(x), format!("{name}.conv.1.0"), format!("{name}.conv.2"))
    };
    let window = same(net, expanded, stride);
    let x = net.depthwise(&depthwise, expanded, window)?;
    let x = net.relu6(x);
    let x = net.convolution(&project, x, outputs, POINT)?;
    if stride == 1 && inputs == outputs { net.add(&format!("{name}.add"), from, x) } else { Ok(x) }
}
