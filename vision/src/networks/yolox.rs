//! YOLOX: Ge et al., "YOLOX: Exceeding YOLO Series in 2021" (2021), for the 80 classes of COCO: a CSPDarknet that opens
//! with a focus, a path aggregation network (PAFPN), and a decoupled head without anchors on each of three levels.
//!
//! Tensor names as in the authors' release, of which the sizes differ in depth and width alone; nano has depthwise
//! convolutions. Weights are taken with batch normalisation beside each convolution, as published, or folded into it.

use candle_core::Device;

use crate::boxes::{Candidates, in_cell};
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
    /// Hundredths of the bottlenecks of YOLOX-l.
    depth: usize,
    /// Thousandths of the channels of YOLOX-l.
    width: usize,
    /// Whether a 3 x 3 convolution is a depthwise one and a 1 x 1.
    depthwise: bool,
    /// Height and width of the input.
    side: usize,
}

pub(crate) const NANO: Size = Size { depth: 33, width: 250, depthwise: true, side: 416 };
pub(crate) const TINY: Size = Size { depth: 33, width: 375, depthwise: false, side: 416 };
pub(crate) const S: Size = Size { depth: 33, width: 500, depthwise: false, side: 640 };
pub(crate) const M: Size = Size { depth: 67, width: 750, depthwise: false, side: 640 };
pub(crate) const L: Size = Size { depth: 100, width: 1000, depthwise: false, side: 640 };
pub(crate) const X: Size = Size { depth: 133, width: 1250, depthwise: false, side: 640 };

pub(crate) const DECODER: Decoder = Decoder { classes: CLASSES, decode };

const CLASSES: usize = 80;

/// The release changes PyTorch's epsilon.
const EPSILON: f64 = 1e-3;

impl Size {
    /// Channels where YOLOX-l has so many.
    const fn channels(self, of_large: usize) -> usize {
        of_large * self.width / 1000
    }

    /// Bottlenecks where YOLOX-l has so many; rounded, and there is always one. The release rounds the depth of three
    /// first, and takes three times that where YOLOX-l has nine.
    fn bottlenecks(self, of_large: usize) -> usize {
        let three = ((3 * self.depth + 50) / 100).max(1);
        three * of_large / 3
    }
}

pub(crate) fn graph(size: Size, weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let input = ImageShape::new(3, size.side, size.side);
    let mut net = Builder { net: GraphBuilder::new(weights, device, input), size };
    let features = net.backbone()?;
    let levels = net.pyramid(features)?;
    let mut outputs = Vec::with_capacity(levels.len());
    for (place, level) in levels.into_iter().enumerate() {
        outputs.push(net.head(place, level)?);
    }
    net.net.finish_with(&outputs)
}

/// The blocks of the release over the layers of a graph.
struct Builder<'a> {
    net: GraphBuilder<'a>,
    size: Size,
}

impl Builder<'_> {
    /// CSPDarknet: feature maps at 1/8, 1/16 and 1/32 of the input's size.
    fn backbone(&mut self) -> Result<[Value; 3], VisionError> {
        const NAME: &str = "backbone.backbone";
        let size = self.size;
        let x = self.net.focus(&format!("{NAME}.stem.focus"), self.net.input())?;
        let x = self.unit(&format!("{NAME}.stem.conv"), x, size.channels(64), 3, 1)?;
        let x = self.three(&format!("{NAME}.dark2.0"), x, size.channels(128), 2)?;
        let x = self.partial(&format!("{NAME}.dark2.1"), x, size.channels(128), size.bottlenecks(3), true)?;
        let x = self.three(&format!("{NAME}.dark3.0"), x, size.channels(256), 2)?;
        let eighth = self.partial(&format!("{NAME}.dark3.1"), x, size.channels(256), size.bottlenecks(9), true)?;
        let x = self.three(&format!("{NAME}.dark4.0"), eighth, size.channels(512), 2)?;
        let sixteenth = self.partial(&format!("{NAME}.dark4.1"), x, size.channels(512), size.bottlenecks(9), true)?;
        let x = self.three(&format!("{NAME}.dark5.0"), sixteenth, size.channels(1024), 2)?;
        let x = self.spatial_pyramid(&format!("{NAME}.dark5.1"), x, size.channels(1024))?;
        let x = self.partial(&format!("{NAME}.dark5.2"), x, size.channels(1024), size.bottlenecks(3), false)?;
        Ok([eighth, sixteenth, x])
    }

    /// PAFPN: coarse features flow down to the finer levels, and back up.
    fn pyramid(&mut self, [eighth, sixteenth, last]: [Value; 3]) -> Result<[Value; 3], VisionError> {
        const NAME: &str = "backbone";
        let size = self.size;
        let repeats = size.bottlenecks(3);
        let lateral = self.unit(&format!("{NAME}.lateral_conv0"), last, size.channels(512), 1, 1)?;
        let x = self.net.upsample(&format!("{NAME}.upsample0"), lateral);
        let x = self.net.concat(&format!("{NAME}.p4"), &[x, sixteenth])?;
        let x = self.partial(&format!("{NAME}.C3_p4"), x, size.channels(512), repeats, false)?;
        let reduced = self.unit(&format!("{NAME}.reduce_conv1"), x, size.channels(256), 1, 1)?;
        let x = self.net.upsample(&format!("{NAME}.upsample1"), reduced);
        let x = self.net.concat(&format!("{NAME}.p3"), &[x, eighth])?;
        let fine = self.partial(&format!("{NAME}.C3_p3"), x, size.channels(256), repeats, false)?;
        let x = self.three(&format!("{NAME}.bu_conv2"), fine, size.channels(256), 2)?;
        let x = self.net.concat(&format!("{NAME}.n3"), &[x, reduced])?;
        let middle = self.partial(&format!("{NAME}.C3_n3"), x, size.channels(512), repeats, false)?;
        let x = self.three(&format!("{NAME}.bu_conv1"), middle, size.channels(512), 2)?;
        let x = self.net.concat(&format!("{NAME}.n4"), &[x, lateral])?;
        let coarse = self.partial(&format!("{NAME}.C3_n4"), x, size.channels(1024), repeats, false)?;
        Ok([fine, middle, coarse])
    }

    /// The decoupled head of a level (section 2.1): four numbers of a box, whether there is a thing, and its class.
    fn head(&mut self, level: usize, from: Value) -> Result<Value, VisionError> {
        let channels = self.size.channels(256);
        let stem = self.unit(&format!("head.stems.{level}"), from, channels, 1, 1)?;
        let mut classes = stem;
        let mut boxes = stem;
        for repeat in 0..2 {
            classes = self.three(&format!("head.cls_convs.{level}.{repeat}"), classes, channels, 1)?;
            boxes = self.three(&format!("head.reg_convs.{level}.{repeat}"), boxes, channels, 1)?;
        }
        let classes = self.net.convolution(&format!("head.cls_preds.{level}"), classes, CLASSES, window(1, 1))?;
        let classes = self.net.sigmoid(classes);
        let thing = self.net.convolution(&format!("head.obj_preds.{level}"), boxes, 1, window(1, 1))?;
        let thing = self.net.sigmoid(thing);
        let boxes = self.net.convolution(&format!("head.reg_preds.{level}"), boxes, 4, window(1, 1))?;
        self.net.concat(&format!("head.{level}"), &[boxes, thing, classes])
    }

    /// A cross stage partial layer: half of the channels go through bottlenecks, half around them. `add` says whether
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
        let mut through = self.unit(&format!("{name}.conv1"), from, hidden, 1, 1)?;
        let around = self.unit(&format!("{name}.conv2"), from, hidden, 1, 1)?;
        for repeat in 0..repeats {
            let name = format!("{name}.m.{repeat}");
            let x = self.unit(&format!("{name}.conv1"), through, hidden, 1, 1)?;
            let x = self.three(&format!("{name}.conv2"), x, hidden, 1)?;
            through = if add { self.net.add(&format!("{name}.add"), x, through)? } else { x };
        }
        let x = self.net.concat(&format!("{name}.concat"), &[through, around])?;
        self.unit(&format!("{name}.conv3"), x, outputs, 1, 1)
    }

    /// Max pools of 5, 9 and 13 beside each other. Two pools of 5 in a row see 9 elements, three see 13: the same
    /// numbers at a quarter of the work.
    fn spatial_pyramid(&mut self, name: &str, from: Value, outputs: usize) -> Result<Value, VisionError> {
        let five = window(5, 1);
        let x = self.unit(&format!("{name}.conv1"), from, outputs / 2, 1, 1)?;
        let sees_5 = self.net.max_pool(&format!("{name}.m.0"), x, five)?;
        let sees_9 = self.net.max_pool(&format!("{name}.m.1"), sees_5, five)?;
        let sees_13 = self.net.max_pool(&format!("{name}.m.2"), sees_9, five)?;
        let x = self.net.concat(&format!("{name}.concat"), &[x, sees_5, sees_9, sees_13])?;
        self.unit(&format!("{name}.conv2"), x, outputs, 1, 1)
    }

    /// A 3 x 3 convolution: of nano each channel alone, and then a 1 x 1 over all.
    fn three(&mut self, name: &str, from: Value, outputs: usize, stride: usize) -> Result<Value, VisionError> {
        if !self.size.depthwise {
            return self.unit(name, from, outputs, 3, stride);
        }
        let form = Form::depthwise(self.net.shape(from).channels, window(3, stride));
        let x = self.convolution(&format!("{name}.dconv"), from, form)?;
        self.unit(&format!("{name}.pconv"), x, outputs, 1, 1)
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
        self.convolution(name, from, Form::new(outputs, window(kernel, stride)))
    }

    fn convolution(&mut self, name: &str, from: Value, form: Form) -> Result<Value, VisionError> {
        let (convolution, norm) = (format!("{name}.conv"), format!("{name}.bn"));
        let x = self.net.normalised_or_biased(&convolution, &norm, from, form, EPSILON)?;
        Ok(self.net.silu(x))
    }
}

/// A square window that keeps the size but for its stride.
const fn window(side: usize, stride: usize) -> Window {
    Window { kernel: [side, side], stride, padding: Padding::all((side - 1) / 2) }
}

/// A place's score for a class: that there is a thing, times that it is of the class.
fn decode(levels: &[Level<'_>], input: ImageShape) -> Candidates {
    let cells = levels.iter().map(|level| level.shape.height * level.shape.width).sum();
    let mut corners = Vec::with_capacity(cells);
    let mut scores = Vec::with_capacity(cells * CLASSES);
    for level in levels {
        let columns = level.shape.width;
        let stride = input.width as f32 / columns as f32;
        for cell in 0..level.shape.height * columns {
            let stated = [0, 1, 2, 3].map(|channel| level.at(channel, cell));
            corners.push(in_cell(stated, [cell / columns, cell % columns], stride));
            let thing = level.at(4, cell);
            scores.extend((5..5 + CLASSES).map(|channel| thing * level.at(channel, cell)));
        }
    }
    Candidates { corners, scores, classes: CLASSES }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    /// Learned numbers in the weights as published, that is with norms; in hundredths of a million.
    fn parameters(size: Size) -> usize {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let weights = Weights::made_by("a count", move |name, shape| {
            let elements = shape.iter().product();
            // The norm's weight is asked for twice: whether it is there, and what it is.
            let counted = match name.rsplit_once(".bn.") {
                Some((_, "weight")) => 0,
                Some((_, "bias")) => 2 * elements,
                Some(_) => 0,
                None => elements,
            };
            counter.fetch_add(counted, Relaxed);
            Some(vec![1.0; elements])
        });
        graph(size, &weights, &Device::Cpu).unwrap();
        (count.load(Relaxed) + 5_000) / 10_000
    }

    #[test]
    fn every_size_has_as_many_parameters_as_its_authors_say() {
        // The table of the release: 0.91, 5.06, 9.0, 25.3, 54.2 and 99.1 million.
        assert_eq!((parameters(NANO), parameters(TINY)), (91, 506));
        let tenths = [S, M, L, X].map(|size| (parameters(size) + 5) / 10);
        assert_eq!(tenths, [90, 253, 542, 991]);
    }
}
