//! YOLOv8 (Ultralytics, 2023), for the 80 classes of COCO, at 640: a CSPDarknet whose cross stage partial layers pass on what each
//! bottleneck makes (C2f), a path aggregation network, and a decoupled head without anchors on each of three levels, which states the
//! four sides of a box as distributions (Li et al., "Generalized Focal Loss", 2020).
//!
//! Tensor names as in the files that Ultralytics' library writes: `model.N` is the N-th layer of the description of the network. Of the
//! sizes the depth, the width and the most channels differ.

use candle_core::Device;

use crate::boxes::{Candidates, softmax};
use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::{Graph, Value};
use crate::layers::{Form, Padding, Window};
use crate::network::{Decoder, Level};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// What makes one size of another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Hundredths of the bottlenecks of YOLOv8-l.
    depth: usize,
    /// Hundredths of the channels of YOLOv8-l.
    width: usize,
    /// No layer has more channels, before the width is taken.
    most: usize,
}

pub(crate) const N: Size = Size { depth: 33, width: 25, most: 1024 };
pub(crate) const S: Size = Size { depth: 33, width: 50, most: 1024 };
pub(crate) const M: Size = Size { depth: 67, width: 75, most: 768 };
pub(crate) const L: Size = Size { depth: 100, width: 100, most: 512 };
pub(crate) const X: Size = Size { depth: 100, width: 125, most: 512 };

pub(crate) const DECODER: Decoder = Decoder { classes: CLASSES, decode };

const CLASSES: usize = 80;

/// Lengths that a side of a box may have, in cells: 0 to 15, each with its probability.
const LENGTHS: usize = 16;

/// The library changes PyTorch's epsilon.
const EPSILON: f64 = 1e-3;

impl Size {
    /// Channels where the description has so many.
    fn channels(self, described: usize) -> usize {
        (described.min(self.most) * self.width).div_ceil(100).next_multiple_of(8)
    }

    /// Bottlenecks where the description has so many; rounded, and there is always one.
    fn bottlenecks(self, described: usize) -> usize {
        ((described * self.depth + 50) / 100).max(1)
    }
}

pub(crate) fn graph(size: Size, weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let mut net = Builder { net: GraphBuilder::new(weights, device, ImageShape::new(3, 640, 640)), size };
    let features = net.backbone()?;
    let levels = net.pyramid(features)?;
    let mut outputs = Vec::with_capacity(levels.len());
    for (place, level) in levels.into_iter().enumerate() {
        outputs.push(net.head(place, level, levels[0])?);
    }
    net.net.finish_with(&outputs)
}

/// The blocks of the description over the layers of a graph.
struct Builder<'a> {
    net: GraphBuilder<'a>,
    size: Size,
}

impl Builder<'_> {
    /// Feature maps at 1/8, 1/16 and 1/32 of the input's size.
    fn backbone(&mut self) -> Result<[Value; 3], VisionError> {
        let size = self.size;
        let x = self.net.input();
        let x = self.unit("model.0", x, size.channels(64), 3, 2)?;
        let x = self.unit("model.1", x, size.channels(128), 3, 2)?;
        let x = self.partial("model.2", x, size.channels(128), size.bottlenecks(3), true)?;
        let x = self.unit("model.3", x, size.channels(256), 3, 2)?;
        let eighth = self.partial("model.4", x, size.channels(256), size.bottlenecks(6), true)?;
        let x = self.unit("model.5", eighth, size.channels(512), 3, 2)?;
        let sixteenth = self.partial("model.6", x, size.channels(512), size.bottlenecks(6), true)?;
        let x = self.unit("model.7", sixteenth, size.channels(1024), 3, 2)?;
        let x = self.partial("model.8", x, size.channels(1024), size.bottlenecks(3), true)?;
        let last = self.spatial_pyramid("model.9", x, size.channels(1024))?;
        Ok([eighth, sixteenth, last])
    }

    /// Coarse features flow down to the finer levels, and back up.
    fn pyramid(&mut self, [eighth, sixteenth, last]: [Value; 3]) -> Result<[Value; 3], VisionError> {
        let size = self.size;
        let repeats = size.bottlenecks(3);
        let x = self.net.upsample("model.10", last);
        let x = self.net.concat("model.11", &[x, sixteenth])?;
        let down = self.partial("model.12", x, size.channels(512), repeats, false)?;
        let x = self.net.upsample("model.13", down);
        let x = self.net.concat("model.14", &[x, eighth])?;
        let fine = self.partial("model.15", x, size.channels(256), repeats, false)?;
        let x = self.unit("model.16", fine, size.channels(256), 3, 2)?;
        let x = self.net.concat("model.17", &[x, down])?;
        let middle = self.partial("model.18", x, size.channels(512), repeats, false)?;
        let x = self.unit("model.19", middle, size.channels(512), 3, 2)?;
        let x = self.net.concat("model.20", &[x, last])?;
        let coarse = self.partial("model.21", x, size.channels(1024), repeats, false)?;
        Ok([fine, middle, coarse])
    }

    /// The decoupled head of a level: the logits of all lengths of four sides, and scores of classes. How many channels it has inside
    /// hangs on the finest level.
    fn head(&mut self, level: usize, from: Value, finest: Value) -> Result<Value, VisionError> {
        const NAME: &str = "model.22";
        let finest = self.net.shape(finest).channels;
        let (sides, classes) = (4 * LENGTHS, CLASSES);
        let mut part = |kind: &str, inside: usize, outputs: usize| {
            let name = format!("{NAME}.{kind}.{level}");
            let x = self.unit(&format!("{name}.0"), from, inside, 3, 1)?;
            let x = self.unit(&format!("{name}.1"), x, inside, 3, 1)?;
            self.net.convolution(&format!("{name}.2"), x, outputs, window(1, 1))
        };
        let boxes = part("cv2", (finest / 4).max(sides), sides)?;
        let scores = part("cv3", finest.max(classes), classes)?;
        let scores = self.net.sigmoid(scores);
        self.net.concat(&format!("{NAME}.{level}"), &[boxes, scores])
    }

    /// A cross stage partial layer: half of the channels go through bottlenecks, and what each of them gives is kept. `add` says whether
    /// a bottleneck adds its input.
    fn partial(
        &mut self,
        name: &str,
        from: Value,
        outputs: usize,
        repeats: usize,
        add: bool,
    ) -> Result<Value, VisionError> {
        let hidden = outputs / 2;
        let whole = self.unit(&format!("{name}.cv1"), from, 2 * hidden, 1, 1)?;
        let mut through = self.net.narrow(&format!("{name}.half"), whole, hidden, hidden)?;
        let mut parts = vec![whole];
        for repeat in 0..repeats {
            let name = format!("{name}.m.{repeat}");
            let x = self.unit(&format!("{name}.cv1"), through, hidden, 3, 1)?;
            let x = self.unit(&format!("{name}.cv2"), x, hidden, 3, 1)?;
            through = if add { self.net.add(&format!("{name}.add"), through, x)? } else { x };
            parts.push(through);
        }
        let x = self.net.concat(&format!("{name}.concat"), &parts)?;
        self.unit(&format!("{name}.cv2"), x, outputs, 1, 1)
    }

    /// Max pools of 5, one after another, beside each other.
    fn spatial_pyramid(&mut self, name: &str, from: Value, outputs: usize) -> Result<Value, VisionError> {
        let x = self.unit(&format!("{name}.cv1"), from, self.net.shape(from).channels / 2, 1, 1)?;
        let mut parts = vec![x];
        for place in 0..3 {
            parts.push(self.net.max_pool(&format!("{name}.m.{place}"), parts[place], window(5, 1))?);
        }
        let x = self.net.concat(&format!("{name}.concat"), &parts)?;
        self.unit(&format!("{name}.cv2"), x, outputs, 1, 1)
    }

    /// Convolution, norm and SiLU.
    fn unit(
        &mut self,
        name: &str,
        from: Value,
        outputs: usize,
        kernel: usize,
        stride: usize,
    ) -> Result<Value, VisionError> {
        let (convolution, norm) = (format!("{name}.conv"), format!("{name}.bn"));
        let form = Form::new(outputs, window(kernel, stride));
        let x = self.net.normalised_or_biased(&convolution, &norm, from, form, EPSILON)?;
        Ok(self.net.silu(x))
    }
}

/// A square window that keeps the size but for its stride.
const fn window(side: usize, stride: usize) -> Window {
    Window { kernel: [side, side], stride, padding: Padding::all((side - 1) / 2) }
}

/// Sides lie as far from the middle of their cell as is to be expected of their lengths: left, top, right, bottom.
fn decode(levels: &[Level<'_>], input: ImageShape) -> Candidates {
    let cells = levels.iter().map(|level| level.shape.height * level.shape.width).sum();
    let mut corners = Vec::with_capacity(cells);
    let mut scores = Vec::with_capacity(cells * CLASSES);
    for level in levels {
        let columns = level.shape.width;
        let stride = input.width as f32 / columns as f32;
        for cell in 0..level.shape.height * columns {
            let [left, top, right, bottom] = [0, 1, 2, 3]
                .map(|side| expected(std::array::from_fn(|length| level.at(side * LENGTHS + length, cell))));
            let (x, y) = ((cell % columns) as f32 + 0.5, (cell / columns) as f32 + 0.5);
            corners.push([x - left, y - top, x + right, y + bottom].map(|side| side * stride));
            scores.extend((4 * LENGTHS..4 * LENGTHS + CLASSES).map(|channel| level.at(channel, cell)));
        }
    }
    Candidates { corners, scores, classes: CLASSES }
}

/// The length to be expected where these are the logits of all lengths.
fn expected(mut logits: [f32; LENGTHS]) -> f32 {
    softmax(&mut logits);
    logits.iter().enumerate().map(|(length, part)| part * length as f32).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    /// Learned numbers in the weights as published, that is with norms.
    fn parameters(size: Size) -> usize {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let weights = Weights::made_by("a count", move |name, shape| {
            let elements = shape.iter().product();
            // The norm's weight is asked for twice: whether it is there, and what it is.
            let counted = match name.rsplit_once(".bn.") {
                Some((_, "bias")) => 2 * elements,
                Some(_) => 0,
                None => elements,
            };
            counter.fetch_add(counted, Relaxed);
            Some(vec![1.0; elements])
        });
        graph(size, &weights, &Device::Cpu).unwrap();
        count.load(Relaxed)
    }

    #[test]
    fn every_size_has_as_many_parameters_as_its_authors_say() {
        // 3.2, 11.2, 25.9, 43.7 and 68.2 million; the library also counts the sixteen lengths.
        let thousands = [N, S, M, L, X].map(|size| (parameters(size) + LENGTHS) / 1000);
        assert_eq!(thousands, [3157, 11166, 25902, 43691, 68229]);
    }

    #[test]
    fn a_side_is_what_is_to_be_expected_of_its_lengths() {
        let logits = |three: f32, nine: f32| {
            let mut logits = [-1000.0; LENGTHS];
            (logits[3], logits[9]) = (three, nine);
            logits
        };
        assert_eq!(expected(logits(500.0, 500.0)), 6.0);
        assert_eq!((expected(logits(0.0, -1000.0)), expected([7.0; LENGTHS])), (3.0, 7.5));
        assert!(expected(logits(f32::NAN, 0.0)).is_nan());
    }
}
