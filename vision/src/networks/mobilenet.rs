//! MobileNetV2: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), width 1.0 at 224.
//! Tensor names as in torchvision's `mobilenet_v2`.
//!
//! In two editions: TensorFlow's weights, renamed, with batch normalisation folded, padding SAME, and the background as
//! class 0; and torchvision's own, with norms, padding on all sides, and no background.

use candle_core::Device;

use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::{Graph, Value};
use crate::layers::{Form, Padding, Window};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// Whose weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edition {
    Tensorflow,
    Torchvision,
}

/// Table 2: expansion t, output channels c, repetitions n, stride s of the first of them.
const TABLE: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

const POINT: Window = Window { kernel: [1, 1], stride: 1, padding: Padding::NONE };

/// PyTorch's.
const EPSILON: f64 = 1e-5;

pub(crate) fn graph(edition: Edition, weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let mut net = Builder { net: GraphBuilder::new(weights, device, ImageShape::new(3, 224, 224)), edition };
    let input = net.net.input();
    let stem = Form::new(32, net.three(input, 2));
    let mut x = net.rectified("features.0", input, stem)?;
    let mut place = 1;
    for (expansion, outputs, repetitions, stride) in TABLE {
        for repetition in 0..repetitions {
            let stride = if repetition == 0 { stride } else { 1 };
            x = net.inverted_residual(&format!("features.{place}"), x, expansion, outputs, stride)?;
            place += 1;
        }
    }
    let x = net.rectified("features.18", x, Form::new(1280, POINT))?;
    let mut net = net.net;
    let x = net.global_average_pool("pool", x);
    let published = match edition {
        Edition::Tensorflow => 1001,
        Edition::Torchvision => 1000,
    };
    let classes = net.classes("classifier.1", published);
    net.linear("classifier.1", x, classes)?;
    net.finish()
}

struct Builder<'a> {
    net: GraphBuilder<'a>,
    edition: Edition,
}

impl Builder<'_> {
    /// A 3 x 3 window with the edition's padding.
    fn three(&self, from: Value, stride: usize) -> Window {
        let kernel = [3, 3];
        let padding = match self.edition {
            Edition::Tensorflow => Padding::same(self.net.shape(from), kernel, stride),
            Edition::Torchvision => Padding::all(1),
        };
        Window { kernel, stride, padding }
    }

    /// A convolution, and the norm at the next place of its sequence unless that is folded.
    fn convolution(&mut self, name: &str, norm: &str, from: Value, form: Form) -> Result<Value, VisionError> {
        match self.edition {
            Edition::Torchvision => self.net.normalised(name, norm, from, form, EPSILON),
            Edition::Tensorflow if form.groups > 1 => self.net.depthwise(name, from, form.window),
            Edition::Tensorflow => self.net.convolution(name, from, form.outputs, form.window),
        }
    }

    /// With a ReLU6.
    fn rectified(&mut self, name: &str, from: Value, form: Form) -> Result<Value, VisionError> {
        let x = self.convolution(&format!("{name}.0"), &format!("{name}.1"), from, form)?;
        Ok(self.net.relu6(x))
    }

    /// Section 3.3: expand, convolve each channel, project without activation; add the input where the shape allows.
    fn inverted_residual(
        &mut self,
        name: &str,
        from: Value,
        expansion: usize,
        outputs: usize,
        stride: usize,
    ) -> Result<Value, VisionError> {
        let inputs = self.net.shape(from).channels;
        // Without an expansion there is no first convolution, and the names of the others move up.
        let (expanded, next) = if expansion == 1 {
            (from, 0)
        } else {
            (self.rectified(&format!("{name}.conv.0"), from, Form::new(inputs * expansion, POINT))?, 1)
        };
        let depthwise = Form::depthwise(inputs * expansion, self.three(expanded, stride));
        let x = self.rectified(&format!("{name}.conv.{next}"), expanded, depthwise)?;
        let (project, norm) = (format!("{name}.conv.{}", next + 1), format!("{name}.conv.{}", next + 2));
        let x = self.convolution(&project, &norm, x, Form::new(outputs, POINT))?;
        if stride == 1 && inputs == outputs { self.net.add(&format!("{name}.add"), from, x) } else { Ok(x) }
    }
}
