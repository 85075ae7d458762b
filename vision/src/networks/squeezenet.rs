//! SqueezeNet: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters" (2016), and the authors'
//! release 1.1. Tensor names as in torchvision's `squeezenet1_0` and `squeezenet1_1`.

use candle_core::Device;

use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::{Graph, Value};
use crate::layers::{Padding, Window};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// A release: what differs between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Release {
    /// Height and width of the input.
    side: usize,
    /// Channels and kernel of the first convolution, whose stride is 2.
    stem: (usize, usize),
    stages: [Stage; 3],
    /// By how much the last convolution is padded, although it is 1 x 1.
    border: usize,
}

/// A pool at its place in `features`, and the Fire modules after it by their place: channels of the squeeze, and of each
/// of the two expands.
type Stage = (usize, &'static [(usize, usize, usize)]);

/// 1.1 has its pools earlier.
const STAGES_1_1: [Stage; 3] = [
    (2, &[(3, 16, 64), (4, 16, 64)]),
    (5, &[(6, 32, 128), (7, 32, 128)]),
    (8, &[(9, 48, 192), (10, 48, 192), (11, 64, 256), (12, 64, 256)]),
];

/// torchvision's 1.0.
pub(crate) const V1_0: Release = Release {
    side: 224,
    stem: (96, 7),
    stages: [
        (2, &[(3, 16, 64), (4, 16, 64), (5, 32, 128)]),
        (6, &[(7, 32, 128), (8, 48, 192), (9, 48, 192), (10, 64, 256)]),
        (11, &[(12, 64, 256)]),
    ],
    border: 0,
};

/// The authors' 1.1, trained with Caffe, whose last convolution is padded by one.
pub(crate) const V1_1: Release = Release { side: 227, stem: (64, 3), stages: STAGES_1_1, border: 1 };

/// torchvision's 1.1, without that.
pub(crate) const V1_1_TORCHVISION: Release = Release { side: 224, border: 0, ..V1_1 };

const POINT: Window = Window { kernel: [1, 1], stride: 1, padding: Padding::NONE };
const THREE: Window = Window { kernel: [3, 3], stride: 1, padding: Padding::all(1) };

pub(crate) fn graph(release: Release, weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let Release { side, stem: (outputs, kernel), stages, border } = release;
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(3, side, side));
    let stem = Window { kernel: [kernel, kernel], stride: 2, padding: Padding::NONE };
    let x = net.convolution("features.0", net.input(), outputs, stem)?;
    let mut x = net.relu(x);
    for (pool, stage) in stages {
        x = ceil_pool(&mut net, &format!("features.{pool}"), x)?;
        for &(place, squeeze, expand) in stage {
            x = fire(&mut net, &format!("features.{place}"), x, squeeze, expand)?;
        }
    }
    let padded = Window { padding: Padding::all(border), ..POINT };
    let classes = net.classes("classifier.1", 1000);
    let x = net.convolution("classifier.1", x, classes, padded)?;
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
