//! ResNet: He et al., "Deep Residual Learning for Image Recognition" (2015), with the stride of a bottleneck in its 3 x 3
//! convolution as torchvision has it ("v1.5"). Tensor names as in torchvision's `resnet18` to `resnet152`.

use candle_core::Device;

use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::{Graph, Value};
use crate::layers::{Form, Padding, Window};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// Table 1: how often each stage repeats its block, and which block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    repeats: [usize; 4],
    bottleneck: bool,
}

pub(crate) const R18: Size = Size { repeats: [2, 2, 2, 2], bottleneck: false };
pub(crate) const R34: Size = Size { repeats: [3, 4, 6, 3], bottleneck: false };
pub(crate) const R50: Size = Size { repeats: [3, 4, 6, 3], bottleneck: true };
pub(crate) const R101: Size = Size { repeats: [3, 4, 23, 3], bottleneck: true };
pub(crate) const R152: Size = Size { repeats: [3, 8, 36, 3], bottleneck: true };

/// PyTorch's.
const EPSILON: f64 = 1e-5;

pub(crate) fn graph(size: Size, weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(3, 224, 224));
    let [.., x] = body(&mut net, "", size, EPSILON)?;
    let x = net.global_average_pool("avgpool", x);
    let classes = net.classes("fc", 1000);
    net.linear("fc", x, classes)?;
    net.finish()
}

/// All but the classifier: what each stage gives, at 1/4 to 1/32 of the input's size. Names of tensors begin with `prefix`.
pub(crate) fn body(
    net: &mut GraphBuilder<'_>,
    prefix: &str,
    size: Size,
    epsilon: f64,
) -> Result<[Value; 4], VisionError> {
    let (stem, input) = (Form::new(64, window(7, 2)), net.input());
    let x = net.normalised(&format!("{prefix}conv1"), &format!("{prefix}bn1"), input, stem, epsilon)?;
    let x = net.relu(x);
    let mut x = net.max_pool(&format!("{prefix}maxpool"), x, window(3, 2))?;
    let mut stages = [x; 4];
    for (stage, repeats) in size.repeats.into_iter().enumerate() {
        let width = 64 << stage;
        for repeat in 0..repeats {
            let stride = if stage > 0 && repeat == 0 { 2 } else { 1 };
            let name = format!("{prefix}layer{}.{repeat}", stage + 1);
            x = residual(net, &name, x, (width, size.bottleneck), stride, epsilon)?;
        }
        stages[stage] = x;
    }
    Ok(stages)
}

/// Figure 5: two 3 x 3 convolutions, or 1 x 1, 3 x 3, 1 x 1 with four times the channels at the end; added to the input,
/// which is projected where its shape differs.
fn residual(
    net: &mut GraphBuilder<'_>,
    name: &str,
    from: Value,
    (width, bottleneck): (usize, bool),
    stride: usize,
    epsilon: f64,
) -> Result<Value, VisionError> {
    let unit = |net: &mut GraphBuilder<'_>, place: usize, from: Value, outputs: usize, window: Window| {
        let (convolution, norm) = (format!("{name}.conv{place}"), format!("{name}.bn{place}"));
        net.normalised(&convolution, &norm, from, Form::new(outputs, window), epsilon)
    };
    let (x, outputs) = if bottleneck {
        let x = unit(net, 1, from, width, window(1, 1))?;
        let x = net.relu(x);
        let x = unit(net, 2, x, width, window(3, stride))?;
        let x = net.relu(x);
        (unit(net, 3, x, 4 * width, window(1, 1))?, 4 * width)
    } else {
        let x = unit(net, 1, from, width, window(3, stride))?;
        let x = net.relu(x);
        (unit(net, 2, x, width, window(3, 1))?, width)
    };
    let shortcut = if stride == 1 && net.shape(from).channels == outputs {
        from
    } else {
        let form = Form::new(outputs, window(1, stride));
        net.normalised(&format!("{name}.downsample.0"), &format!("{name}.downsample.1"), from, form, epsilon)?
    };
    let sum = net.add(&format!("{name}.add"), x, shortcut)?;
    Ok(net.relu(sum))
}

/// A square window that keeps the size but for its stride.
const fn window(side: usize, stride: usize) -> Window {
    Window { kernel: [side, side], stride, padding: Padding::all(side / 2) }
}
