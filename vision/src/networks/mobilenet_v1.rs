//! MobileNet (V1): Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications" (2017), width 1.0
//! at 224. Tensor names as in timm's `mobilenetv1_100`.

use candle_core::Device;

use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::{Graph, Value};
use crate::layers::{Form, Padding, Window};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// Table 1, in timm's stages: output channels of each block; all but the first stage begin with a stride of 2.
const STAGES: [&[usize]; 5] = [&[64], &[128, 128], &[256, 256], &[512, 512, 512, 512, 512, 512], &[1024, 1024]];

/// PyTorch's.
const EPSILON: f64 = 1e-5;

const POINT: Window = Window { kernel: [1, 1], stride: 1, padding: Padding::NONE };

const fn three(stride: usize) -> Window {
    Window { kernel: [3, 3], stride, padding: Padding::all(1) }
}

pub(crate) fn graph(weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(3, 224, 224));
    let input = net.input();
    let mut x = unit(&mut net, "conv_stem", "bn1", input, Form::new(32, three(2)))?;
    for (stage, blocks) in STAGES.iter().enumerate() {
        for (block, outputs) in blocks.iter().enumerate() {
            let name = format!("blocks.{stage}.{block}");
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let depthwise = Form::depthwise(net.shape(x).channels, three(stride));
            x = unit(&mut net, &format!("{name}.conv_dw"), &format!("{name}.bn1"), x, depthwise)?;
            let point = Form::new(*outputs, POINT);
            x = unit(&mut net, &format!("{name}.conv_pw"), &format!("{name}.bn2"), x, point)?;
        }
    }
    let x = net.global_average_pool("global_pool", x);
    let classes = net.classes("classifier", 1000);
    net.linear("classifier", x, classes)?;
    net.finish()
}

/// A convolution, its norm and a ReLU6.
fn unit(net: &mut GraphBuilder<'_>, name: &str, norm: &str, from: Value, form: Form) -> Result<Value, VisionError> {
    let x = net.normalised(name, norm, from, form, EPSILON)?;
    Ok(net.relu6(x))
}
