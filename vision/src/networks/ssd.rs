//! SSD: Liu et al., "SSD: Single Shot MultiBox Detector" (2016), with the light heads of MobileNetV2 (Sandler et al., 2018), over
//! MobileNets. On each of six levels every cell has six priors.
//!
//! `LITE_V3` is torchvision's `ssdlite320_mobilenet_v3_large`, for the 91 classes of COCO; `V1` and `LITE_V2` are `mb1-ssd` and
//! `mb2-ssd-lite` of pytorch-ssd (Gao, 2018), for the 21 of Pascal VOC. Class 0 is the background. Tensor names are theirs.

use candle_core::Device;

use crate::boxes::{Candidates, Prior, softmax};
use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::{Graph, Value};
use crate::layers::{Form, Padding, Window};
use crate::network::{Decoder, Level};
use crate::networks::mobilenet_v3::{self, Block};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// Of torchvision's.
pub(crate) const COCO: Decoder = Decoder { classes: 91, decode: |levels, input| decode(&TORCHVISION, levels, input) };

/// Of pytorch-ssd's.
pub(crate) const VOC: Decoder = Decoder { classes: 21, decode: |levels, input| decode(&PYTORCH_SSD, levels, input) };

/// Priors of a cell: a small and a large square, then two of each of the other proportions.
const PRIORS: usize = 6;

/// What a level states of each cell: four numbers of a box for each prior, and then its classes.
const SIDES: usize = 4 * PRIORS;

/// How priors are laid.
struct Scheme {
    classes: usize,
    /// Side of the small square on each level, and what the last level's would be on the next, in parts of the input.
    sides: [f32; 7],
    /// Pixels from cell to cell on each level; where there are none, cells share the input evenly.
    steps: Option<[f32; 6]>,
    /// A box is at most so many times as wide and high as its prior.
    most: f32,
}

const TORCHVISION: Scheme =
    Scheme { classes: COCO.classes, sides: [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0], steps: None, most: 1000.0 / 16.0 };

const PYTORCH_SSD: Scheme = Scheme {
    classes: VOC.classes,
    sides: [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.1],
    steps: Some([16.0, 32.0, 64.0, 100.0, 150.0, 300.0]),
    most: f32::INFINITY,
};

/// The proportions of a cell's priors besides squares: width to height.
const PROPORTIONS: [f32; 2] = [2.0, 3.0];

/// PyTorch's, of which torchvision's MobileNetV3 has another.
const EPSILON: f64 = 1e-5;

/// A square window that keeps the size but for its stride.
const fn window(side: usize, stride: usize) -> Window {
    Window { kernel: [side, side], stride, padding: Padding::all((side - 1) / 2) }
}

/// torchvision's SSDlite over MobileNetV3 large, the end of which has half as many channels (table 6 there).
pub(crate) fn lite_v3(weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    const EPSILON: f64 = mobilenet_v3::EPSILON;
    /// The block at whose expanded channels the first level is read: the one that halves the size to a thirty-second.
    const READ: usize = 12;
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(3, 320, 320));
    let blocks = mobilenet_v3::LARGE.blocks;
    let input = net.input();
    let mut x = mobilenet_v3::stem(&mut net, "backbone.features.0.0", input)?;
    for (place, block) in (1..).zip(&blocks[..READ]) {
        x = mobilenet_v3::inverted_residual(&mut net, &format!("backbone.features.0.{place}"), x, block)?;
    }
    let halved = |block: &Block| Block { outputs: block.outputs / 2, ..*block };
    let read = halved(&blocks[READ]);
    let first = mobilenet_v3::expand(&mut net, &format!("backbone.features.0.{}", READ + 1), x, &read)?;
    x = mobilenet_v3::project(&mut net, "backbone.features.1.0", 1, first, &read)?;
    for (place, block) in (1..).zip(&blocks[READ + 1..]) {
        let block = Block { expanded: block.expanded / 2, ..halved(block) };
        x = mobilenet_v3::inverted_residual(&mut net, &format!("backbone.features.1.{place}"), x, &block)?;
    }
    let x = unit(&mut net, "backbone.features.1.3", x, Form::new(480, window(1, 1)), EPSILON)?;
    let mut levels = vec![first, net.hard_swish(x)];
    for (place, outputs) in [512, 256, 256, 128].into_iter().enumerate() {
        let name = format!("backbone.extra.{place}");
        let inside = outputs / 2;
        let x = unit(&mut net, &format!("{name}.0"), levels[place + 1], Form::new(inside, window(1, 1)), EPSILON)?;
        let x = net.relu6(x);
        let x = unit(&mut net, &format!("{name}.1"), x, Form::depthwise(inside, window(3, 2)), EPSILON)?;
        let x = net.relu6(x);
        let x = unit(&mut net, &format!("{name}.2"), x, Form::new(outputs, window(1, 1)), EPSILON)?;
        levels.push(net.relu6(x));
    }
    let head = |net: &mut GraphBuilder<'_>, kind: &str, level: usize, from: Value, outputs: usize| {
        let name = format!("head.{kind}_head.module_list.{level}");
        let form = Form::depthwise(net.shape(from).channels, window(3, 1));
        let x = unit(net, &format!("{name}.0"), from, form, EPSILON)?;
        let x = net.relu6(x);
        net.convolution(&format!("{name}.1"), x, outputs, window(1, 1))
    };
    finish(net, &levels, COCO.classes, head)
}

/// pytorch-ssd's SSD over MobileNet V1.
pub(crate) fn v1(weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    /// The blocks after the first convolution: output channels and stride. The first level is what the twelfth reads.
    const BASE: [(usize, usize); 13] = [
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        (512, 1),
        (512, 1),
        (512, 1),
        (512, 1),
        (512, 1),
        (1024, 2),
        (1024, 1),
    ];
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(3, 300, 300));
    let x = unit(&mut net, "base_net.0", Value(0), Form::new(32, window(3, 2)), EPSILON)?;
    let mut x = net.relu(x);
    let mut levels = Vec::with_capacity(PRIORS);
    for (place, (outputs, stride)) in (1..).zip(BASE) {
        if place == 12 {
            levels.push(x);
        }
        let name = format!("base_net.{place}");
        let depthwise = Form::depthwise(net.shape(x).channels, window(3, stride));
        x = unit(&mut net, &name, x, depthwise, EPSILON)?;
        x = net.relu(x);
        let (point, norm) = (format!("{name}.3"), format!("{name}.4"));
        x = net.normalised(&point, &norm, x, Form::new(outputs, window(1, 1)), EPSILON)?;
        x = net.relu(x);
    }
    levels.push(x);
    for (place, (inside, outputs)) in [(256, 512), (128, 256), (128, 256), (128, 256)].into_iter().enumerate() {
        let x = net.convolution(&format!("extras.{place}.0"), levels[place + 1], inside, window(1, 1))?;
        let x = net.relu(x);
        let x = net.convolution(&format!("extras.{place}.2"), x, outputs, window(3, 2))?;
        levels.push(net.relu(x));
    }
    let head = |net: &mut GraphBuilder<'_>, kind: &str, level: usize, from: Value, outputs: usize| {
        net.convolution(&format!("{kind}_headers.{level}"), from, outputs, window(3, 1))
    };
    finish(net, &levels, VOC.classes, head)
}

/// pytorch-ssd's SSDlite over MobileNetV2.
pub(crate) fn lite_v2(weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    /// Expansion, output channels, repetitions, stride of the first of them. The first level is what the first block of the sixth line
    /// expands to.
    const TABLE: [(usize, usize, usize, usize); 7] =
        [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(3, 300, 300));
    let x = unit(&mut net, "base_net.0", Value(0), Form::new(32, window(3, 2)), EPSILON)?;
    let mut x = net.relu6(x);
    let mut levels = Vec::with_capacity(PRIORS);
    let mut place = 1;
    for (expansion, outputs, repetitions, stride) in TABLE {
        for repetition in 0..repetitions {
            let stride = if repetition == 0 { stride } else { 1 };
            let expanded = expansion * net.shape(x).channels;
            let (inside, after) =
                inverted_residual(&mut net, &format!("base_net.{place}"), x, [expanded, outputs], stride)?;
            if place == 14 {
                levels.push(inside);
            }
            x = after;
            place += 1;
        }
    }
    let x = unit(&mut net, &format!("base_net.{place}"), x, Form::new(1280, window(1, 1)), EPSILON)?;
    levels.push(net.relu6(x));
    for (place, channels) in [[256, 512], [128, 256], [128, 256], [64, 64]].into_iter().enumerate() {
        let (_, x) = inverted_residual(&mut net, &format!("extras.{place}"), levels[place + 1], channels, 2)?;
        levels.push(x);
    }
    let last = levels.len() - 1;
    let head = |net: &mut GraphBuilder<'_>, kind: &str, level: usize, from: Value, outputs: usize| {
        let name = format!("{kind}_headers.{level}");
        if level == last {
            return net.convolution(&name, from, outputs, window(1, 1));
        }
        let x = net.depthwise(&format!("{name}.0"), from, window(3, 1))?;
        let x = net.norm(&format!("{name}.1"), x, EPSILON)?;
        let x = net.relu6(x);
        net.convolution(&format!("{name}.3"), x, outputs, window(1, 1))
    };
    finish(net, &levels, VOC.classes, head)
}

/// A convolution and its norm.
fn unit(net: &mut GraphBuilder<'_>, name: &str, from: Value, form: Form, epsilon: f64) -> Result<Value, VisionError> {
    net.normalised(&format!("{name}.0"), &format!("{name}.1"), from, form, epsilon)
}

/// MobileNetV2's block, of so many channels inside and behind it: what it expands to, and what it gives.
fn inverted_residual(
    net: &mut GraphBuilder<'_>,
    name: &str,
    from: Value,
    [inside, outputs]: [usize; 2],
    stride: usize,
) -> Result<(Value, Value), VisionError> {
    let inputs = net.shape(from).channels;
    let layer = |net: &mut GraphBuilder<'_>, place: usize, from: Value, form: Form| {
        net.normalised(&format!("{name}.conv.{place}"), &format!("{name}.conv.{}", place + 1), from, form, EPSILON)
    };
    // Without an expansion the names of the others move up.
    let (expanded, next) = if inside == inputs {
        (from, 0)
    } else {
        let x = layer(net, 0, from, Form::new(inside, window(1, 1)))?;
        (net.relu6(x), 3)
    };
    let x = layer(net, next, expanded, Form::depthwise(inside, window(3, stride)))?;
    let x = net.relu6(x);
    let x = layer(net, next + 3, x, Form::new(outputs, window(1, 1)))?;
    let x = if stride == 1 && inputs == outputs { net.add(&format!("{name}.add"), from, x)? } else { x };
    Ok((expanded, x))
}

/// Puts both heads on each level: boxes, then classes. A head is named by its kind and its level.
fn finish(
    mut net: GraphBuilder<'_>,
    levels: &[Value],
    classes: usize,
    head: impl Fn(&mut GraphBuilder<'_>, &str, usize, Value, usize) -> Result<Value, VisionError>,
) -> Result<Graph, VisionError> {
    let mut outputs = Vec::with_capacity(levels.len());
    for (level, from) in levels.iter().enumerate() {
        let boxes = head(&mut net, "regression", level, *from, SIDES)?;
        let classes = head(&mut net, "classification", level, *from, classes * PRIORS)?;
        outputs.push(net.concat(&format!("headers.{level}"), &[boxes, classes])?);
    }
    net.finish_with(&outputs)
}

/// Widths and heights of a level's priors, in parts of the input.
fn sizes(scheme: &Scheme, level: usize) -> [[f32; 2]; PRIORS] {
    let (small, next) = (scheme.sides[level], scheme.sides[level + 1]);
    let large = (small * next).sqrt();
    let [[two, half], [three, third]] = PROPORTIONS.map(|proportion| {
        let [long, short] = [small * proportion.sqrt(), small / proportion.sqrt()];
        [[long, short], [short, long]]
    });
    // None is larger than the input.
    [[small; 2], [large; 2], two, half, three, third].map(|size| size.map(|side| side.min(1.0)))
}

fn decode(scheme: &Scheme, levels: &[Level<'_>], input: ImageShape) -> Candidates {
    let pixels = [input.width as f32, input.height as f32];
    // Damped by their variance, as in `Prior::decode`.
    let most = scheme.most.ln() / 0.2;
    let (mut corners, mut scores) = (Vec::new(), Vec::new());
    for (place, level) in levels.iter().enumerate() {
        let ImageShape { height, width, .. } = level.shape;
        let step = match scheme.steps {
            Some(steps) => pixels.map(|length| steps[place] / length),
            None => [1.0 / width as f32, 1.0 / height as f32],
        };
        for cell in 0..height * width {
            let middle = [((cell % width) as f32 + 0.5) * step[0], ((cell / width) as f32 + 0.5) * step[1]];
            for (prior, size) in sizes(scheme, place).into_iter().enumerate() {
                let [x, y, wide, high] = [0, 1, 2, 3].map(|number| level.at(4 * prior + number, cell));
                let [wide, high] = [wide, high].map(|number| if number > most { most } else { number });
                let [left, top, right, bottom] = Prior { middle, size }.decode([x, y, wide, high]);
                corners.push([left * pixels[0], top * pixels[1], right * pixels[0], bottom * pixels[1]]);
                let first = scores.len();
                let channels = SIDES + prior * scheme.classes..SIDES + (prior + 1) * scheme.classes;
                scores.extend(channels.map(|channel| level.at(channel, cell)));
                softmax(&mut scores[first..]);
                // A background that is no number must be noticed too.
                scores[first] *= 0.0;
            }
        }
    }
    Candidates { corners, scores, classes: scheme.classes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priors_are_those_of_the_papers_and_none_is_larger_than_the_input() {
        let near = |found: [[f32; 2]; PRIORS], expected: [[f32; 2]; PRIORS]| {
            found.as_flattened().iter().zip(expected.as_flattened()).all(|(a, b)| (a - b).abs() < 1e-4)
        };
        let first =
            [[0.2; 2], [0.26458; 2], [0.28284, 0.14142], [0.14142, 0.28284], [0.34641, 0.11547], [0.11547, 0.34641]];
        assert!(near(sizes(&TORCHVISION, 0), first) && near(sizes(&PYTORCH_SSD, 0), first));
        let last = [[0.95; 2], [0.97468; 2], [1.0, 0.67175], [0.67175, 1.0], [1.0, 0.54848], [0.54848, 1.0]];
        assert!(near(sizes(&TORCHVISION, 5), last));
        assert_eq!(sizes(&PYTORCH_SSD, 5)[1], [1.0; 2]);
    }

    #[test]
    fn a_prior_that_grows_without_bound_is_held() {
        let shape = ImageShape::new(SIDES + PRIORS * COCO.classes, 1, 1);
        let mut values = vec![0.0; shape.elements()];
        (values[2], values[3]) = (1e6, 5.0);
        let image = decode(&TORCHVISION, &[Level { values: &values, shape }], ImageShape::new(3, 320, 320));
        let [left, top, right, bottom] = image.corners[0];
        assert!((right - left - 0.2 * 62.5 * 320.0).abs() < 1.0 && (bottom - top - 64.0 * 1f32.exp()).abs() < 0.1);
        assert_eq!((image.scores[0], image.scores.len()), (0.0, PRIORS * COCO.classes));
        assert!((image.scores[1] - 1.0 / 91.0).abs() < 1e-6);
    }
}
