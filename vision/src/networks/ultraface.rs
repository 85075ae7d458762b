//! Ultra-Light-Fast-Generic-Face-Detector, RFB-320 (Linzaer, 2019): an SSD (Liu et al., 2016) over a thin MobileNet
//! (Howard et al., 2017) with one receptive field block (Liu et al., "Receptive Field Block Net", 2018). Class 0 is the
//! background, class 1 a face. Tensor names as in the authors' release.

use candle_core::Device;

use crate::boxes::{Candidates, Prior};
use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::{Graph, Value};
use crate::layers::{Form, Padding, Window};
use crate::network::{Decoder, Level};
use crate::shape::ImageShape;
use crate::weights::Weights;

pub(crate) const DECODER: Decoder = Decoder { classes: CLASSES, decode };

const CLASSES: usize = 2;

/// Widths and heights in pixels of the square priors in each cell of each level.
const PRIORS: [&[f32]; 4] = [&[10.0, 16.0, 24.0], &[32.0, 48.0], &[64.0, 96.0], &[128.0, 192.0, 256.0]];

/// The blocks of the base after the first: their output channels and strides. At place 7 is the receptive field block.
const BASE: [(usize, usize, usize); 11] = [
    (1, 32, 1),
    (2, 32, 2),
    (3, 32, 1),
    (4, 64, 2),
    (5, 64, 1),
    (6, 64, 1),
    (8, 128, 2),
    (9, 128, 1),
    (10, 128, 1),
    (11, 256, 2),
    (12, 256, 1),
];

/// PyTorch's.
const EPSILON: f64 = 1e-5;

const POINT: Window = Window { kernel: [1, 1], stride: 1, padding: Padding::NONE };

const fn three(stride: usize) -> Window {
    Window { kernel: [3, 3], stride, padding: Padding::all(1) }
}

pub(crate) fn graph(weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(3, 240, 320));
    let x = net.normalised("base_net.0.0", "base_net.0.1", net.input(), Form::new(16, three(2)), EPSILON)?;
    let mut x = net.relu(x);
    let mut outputs = Vec::with_capacity(PRIORS.len());
    for (place, channels, stride) in BASE {
        x = separable(&mut net, &format!("base_net.{place}"), x, channels, stride)?;
        // Levels are read where the size is halved next, and at the end.
        if place == 6 {
            x = receptive_field(&mut net, "base_net.7", x)?;
        }
        if [6, 10, 12].contains(&place) {
            let level = outputs.len();
            outputs.push(separable_head(&mut net, level, x)?);
        }
    }
    let x = net.convolution("extras.0.0", x, 64, POINT)?;
    let x = net.relu(x);
    let x = net.depthwise("extras.0.2.0", x, three(2))?;
    let x = net.relu(x);
    let x = net.convolution("extras.0.2.2", x, 256, POINT)?;
    let x = net.relu(x);
    let boxes = net.convolution("regression_headers.3", x, 4 * PRIORS[3].len(), three(1))?;
    let classes = net.convolution("classification_headers.3", x, CLASSES * PRIORS[3].len(), three(1))?;
    outputs.push(net.concat("headers.3", &[boxes, classes])?);
    net.finish_with(&outputs)
}

/// A depthwise convolution and a 1 x 1, each with its norm and rectifier.
fn separable(
    net: &mut GraphBuilder<'_>,
    name: &str,
    from: Value,
    outputs: usize,
    stride: usize,
) -> Result<Value, VisionError> {
    let form = Form::depthwise(net.shape(from).channels, three(stride));
    let x = net.normalised(&format!("{name}.0"), &format!("{name}.1"), from, form, EPSILON)?;
    let x = net.relu(x);
    let x = net.normalised(&format!("{name}.3"), &format!("{name}.4"), x, Form::new(outputs, POINT), EPSILON)?;
    Ok(net.relu(x))
}

/// Three branches whose dilated kernels see ever wider, joined, and added to a shortcut.
fn receptive_field(net: &mut GraphBuilder<'_>, name: &str, from: Value) -> Result<Value, VisionError> {
    let channels = net.shape(from).channels;
    let eighth = channels / 8;
    let unit = |net: &mut GraphBuilder<'_>, part: &str, from: Value, form: Form| {
        net.normalised(&format!("{name}.{part}.conv"), &format!("{name}.{part}.bn"), from, form, EPSILON)
    };
    let dilated = |dilation: usize| Form {
        dilation,
        ..Form::new(2 * eighth, Window { padding: Padding::all(dilation), ..three(1) })
    };
    let near = unit(net, "branch0.0", from, Form::new(eighth, POINT))?;
    let near = unit(net, "branch0.1", near, Form::new(2 * eighth, three(1)))?;
    let near = net.relu(near);
    let near = unit(net, "branch0.2", near, dilated(2))?;
    let middle = unit(net, "branch1.0", from, Form::new(eighth, POINT))?;
    let middle = unit(net, "branch1.1", middle, Form::new(2 * eighth, three(1)))?;
    let middle = net.relu(middle);
    let middle = unit(net, "branch1.2", middle, dilated(3))?;
    let far = unit(net, "branch2.0", from, Form::new(eighth, POINT))?;
    let far = unit(net, "branch2.1", far, Form::new(eighth / 2 * 3, three(1)))?;
    let far = net.relu(far);
    let far = unit(net, "branch2.2", far, Form::new(2 * eighth, three(1)))?;
    let far = net.relu(far);
    let far = unit(net, "branch2.3", far, dilated(5))?;
    let joined = net.concat(&format!("{name}.concat"), &[near, middle, far])?;
    let joined = unit(net, "ConvLinear", joined, Form::new(channels, POINT))?;
    let shortcut = unit(net, "shortcut", from, Form::new(channels, POINT))?;
    let sum = net.add(&format!("{name}.add"), joined, shortcut)?;
    Ok(net.relu(sum))
}

/// What a level states for each prior of a cell: four numbers of a box, then two of classes.
fn separable_head(net: &mut GraphBuilder<'_>, level: usize, from: Value) -> Result<Value, VisionError> {
    let mut part = |kind: &str, outputs: usize| {
        let name = format!("{kind}_headers.{level}");
        let x = net.depthwise(&format!("{name}.0"), from, three(1))?;
        let x = net.relu(x);
        net.convolution(&format!("{name}.2"), x, outputs, POINT)
    };
    let boxes = part("regression", 4 * PRIORS[level].len())?;
    let classes = part("classification", CLASSES * PRIORS[level].len())?;
    net.concat(&format!("headers.{level}"), &[boxes, classes])
}

fn decode(levels: &[Level<'_>], input: ImageShape) -> Candidates {
    let pixels = [input.width as f32, input.height as f32];
    let (mut corners, mut scores) = (Vec::new(), Vec::new());
    for (level, sides) in levels.iter().zip(PRIORS) {
        let ImageShape { height, width, .. } = level.shape;
        for cell in 0..height * width {
            let middle = [((cell % width) as f32 + 0.5) / width as f32, ((cell / width) as f32 + 0.5) / height as f32];
            for (place, side) in sides.iter().enumerate() {
                // The largest prior is higher than the picture; the authors cut it there.
                let prior = Prior { middle, size: pixels.map(|length| (side / length).min(1.0)) };
                let stated = [0, 1, 2, 3].map(|number| level.at(4 * place + number, cell));
                let [left, top, right, bottom] = prior.decode(stated);
                corners.push([left * pixels[0], top * pixels[1], right * pixels[0], bottom * pixels[1]]);
                let first = 4 * sides.len() + CLASSES * place;
                let [background, face] = [level.at(first, cell), level.at(first + 1, cell)];
                // Softmax over two.
                scores.extend([0.0, 1.0 / (1.0 + (background - face).exp())]);
            }
        }
    }
    Candidates { corners, scores, classes: CLASSES }
}
