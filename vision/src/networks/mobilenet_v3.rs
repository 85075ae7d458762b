//! MobileNetV3: Howard et al., "Searching for MobileNetV3" (2019), large and small, width 1.0 at 224. Tensor names as in torchvision's
//! `mobilenet_v3_large` and `mobilenet_v3_small`.

use candle_core::Device;

use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::{Graph, Value};
use crate::layers::{Form, Padding, Window};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// A line of table 1 or 2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub(crate) kernel: usize,
    /// Channels that it is expanded to.
    pub(crate) expanded: usize,
    pub(crate) outputs: usize,
    /// Whether its channels are squeezed and excited.
    pub(crate) gate: bool,
    /// Whether its activations are hard swishes, not rectifiers.
    pub(crate) swish: bool,
    pub(crate) stride: usize,
}

const fn block(kernel: usize, expanded: usize, outputs: usize, gate: bool, swish: bool, stride: usize) -> Block {
    Block { kernel, expanded, outputs, gate, swish, stride }
}

/// Which of the two: its blocks, and the channels of the layer before the last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) blocks: &'static [Block],
    hidden: usize,
}

/// Table 1.
pub(crate) const LARGE: Size = Size {
    blocks: &[
        block(3, 16, 16, false, false, 1),
        block(3, 64, 24, false, false, 2),
        block(3, 72, 24, false, false, 1),
        block(5, 72, 40, true, false, 2),
        block(5, 120, 40, true, false, 1),
        block(5, 120, 40, true, false, 1),
        block(3, 240, 80, false, true, 2),
        block(3, 200, 80, false, true, 1),
        block(3, 184, 80, false, true, 1),
        block(3, 184, 80, false, true, 1),
        block(3, 480, 112, true, true, 1),
        block(3, 672, 112, true, true, 1),
        block(5, 672, 160, true, true, 2),
        block(5, 960, 160, true, true, 1),
        block(5, 960, 160, true, true, 1),
    ],
    hidden: 1280,
};

/// Table 2.
pub(crate) const SMALL: Size = Size {
    blocks: &[
        block(3, 16, 16, true, false, 2),
        block(3, 72, 24, false, false, 2),
        block(3, 88, 24, false, false, 1),
        block(5, 96, 40, true, true, 2),
        block(5, 240, 40, true, true, 1),
        block(5, 240, 40, true, true, 1),
        block(5, 120, 48, true, true, 1),
        block(5, 144, 48, true, true, 1),
        block(5, 288, 96, true, true, 2),
        block(5, 576, 96, true, true, 1),
        block(5, 576, 96, true, true, 1),
    ],
    hidden: 1024,
};

/// torchvision changes PyTorch's epsilon.
pub(crate) const EPSILON: f64 = 1e-3;

pub(crate) fn graph(size: Size, weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(3, 224, 224));
    let input = net.input();
    let mut x = stem(&mut net, "features.0", input)?;
    for (place, block) in (1..).zip(size.blocks) {
        x = inverted_residual(&mut net, &format!("features.{place}"), x, block)?;
    }
    let last = Form::new(6 * net.shape(x).channels, window(1, 1));
    let x = unit(&mut net, &format!("features.{}", size.blocks.len() + 1), x, last)?;
    let x = net.hard_swish(x);
    let x = net.global_average_pool("avgpool", x);
    let x = net.linear("classifier.0", x, size.hidden)?;
    let x = net.hard_swish(x);
    let classes = net.classes("classifier.3", 1000);
    net.linear("classifier.3", x, classes)?;
    net.finish()
}

/// A square window that keeps the size but for its stride.
pub(crate) const fn window(side: usize, stride: usize) -> Window {
    Window { kernel: [side, side], stride, padding: Padding::all((side - 1) / 2) }
}

/// A convolution and its norm.
pub(crate) fn unit(net: &mut GraphBuilder<'_>, name: &str, from: Value, form: Form) -> Result<Value, VisionError> {
    net.normalised(&format!("{name}.0"), &format!("{name}.1"), from, form, EPSILON)
}

/// What halves the picture.
pub(crate) fn stem(net: &mut GraphBuilder<'_>, name: &str, from: Value) -> Result<Value, VisionError> {
    let x = unit(net, name, from, Form::new(16, window(3, 2)))?;
    Ok(net.hard_swish(x))
}

/// Section 3: expand, convolve each channel, scale, project; add the input where the shape allows.
pub(crate) fn inverted_residual(
    net: &mut GraphBuilder<'_>,
    name: &str,
    from: Value,
    block: &Block,
) -> Result<Value, VisionError> {
    let inputs = net.shape(from).channels;
    // Without an expansion there is no first convolution, and the names of the others move up.
    let (x, next) =
        if block.expanded == inputs { (from, 0) } else { (expand(net, &format!("{name}.block.0"), from, block)?, 1) };
    let x = project(net, &format!("{name}.block"), next, x, block)?;
    if block.stride == 1 && inputs == block.outputs { net.add(&format!("{name}.add"), from, x) } else { Ok(x) }
}

/// The first convolution of a block.
pub(crate) fn expand(net: &mut GraphBuilder<'_>, name: &str, from: Value, block: &Block) -> Result<Value, VisionError> {
    let x = unit(net, name, from, Form::new(block.expanded, window(1, 1)))?;
    Ok(activated(net, x, block))
}

/// All of a block behind its first convolution, at the places from `next` on of a sequence.
pub(crate) fn project(
    net: &mut GraphBuilder<'_>,
    name: &str,
    next: usize,
    from: Value,
    block: &Block,
) -> Result<Value, VisionError> {
    let depthwise = Form::depthwise(block.expanded, window(block.kernel, block.stride));
    let x = unit(net, &format!("{name}.{next}"), from, depthwise)?;
    let x = activated(net, x, block);
    let (x, next) =
        if block.gate { (gated(net, &format!("{name}.{}", next + 1), x)?, next + 2) } else { (x, next + 1) };
    unit(net, &format!("{name}.{next}"), x, Form::new(block.outputs, window(1, 1)))
}

fn activated(net: &mut GraphBuilder<'_>, from: Value, block: &Block) -> Value {
    if block.swish { net.hard_swish(from) } else { net.relu(from) }
}

/// Squeeze and excitation: each channel times a number that all channels' means have a say in.
fn gated(net: &mut GraphBuilder<'_>, name: &str, from: Value) -> Result<Value, VisionError> {
    let channels = net.shape(from).channels;
    let x = net.global_average_pool(&format!("{name}.avgpool"), from);
    let x = net.convolution(&format!("{name}.fc1"), x, squeezed(channels), window(1, 1))?;
    let x = net.relu(x);
    let x = net.convolution(&format!("{name}.fc2"), x, channels, window(1, 1))?;
    let gate = net.hard_sigmoid(x);
    net.scale(name, from, gate)
}

/// A quarter of the channels: to the nearest multiple of eight, but not less than nine tenths of the quarter.
const fn squeezed(channels: usize) -> usize {
    let quarter = channels / 4;
    let nearest = (quarter + 4) / 8 * 8;
    let nearest = if nearest < 8 { 8 } else { nearest };
    if 10 * nearest < 9 * quarter { nearest + 8 } else { nearest }
}
