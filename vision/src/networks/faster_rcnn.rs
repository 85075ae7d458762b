//! Faster R-CNN: Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks" (2015), over a feature
//! pyramid (Lin et al., "Feature Pyramid Networks for Object Detection", 2017) on a ResNet-50, as torchvision's
//! `fasterrcnn_resnet50_fpn` has it, for the 91 classes of COCO; class 0 is the background. Tensor names as that writes them.
//!
//! The input is 800 high and 1344 wide: what torchvision makes of a picture of 3 x 5, filled up to multiples of 32. Regions are looked at
//! side by side, as columns, always as many as there can be: so the second stage has a fixed shape as well.

use candle_core::Device;

use crate::align::{Pixels, SIDE};
use crate::boxes::{Candidates, Prior, apart, softmax};
use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::Graph;
use crate::layers::{Padding, Window};
use crate::network::{Decoder, Level};
use crate::networks::resnet;
use crate::regions::Gathered;
use crate::shape::ImageShape;
use crate::weights::Weights;

pub(crate) const DECODER: Decoder = Decoder { classes: CLASSES, decode };

const CLASSES: usize = 91;

/// Channels of all levels of the pyramid.
const CHANNELS: usize = 256;

/// Levels that regions are looked at on; a coarser one behind them only proposes.
const LEVELS: usize = 4;

/// Side of the square anchor on each level, and heights to widths of all three.
const ANCHORS: [f32; LEVELS + 1] = [32.0, 64.0, 128.0, 256.0, 512.0];
const PROPORTIONS: [f32; 3] = [0.5, 1.0, 2.0];

/// Most proposals of a level before those that overlap are left out, and of an image after that.
const REGIONS: usize = 1000;

/// Of two proposals of a level that overlap by more, only the likelier one counts.
const OVERLAP: f32 = 0.7;

/// What scores less is no candidate: every region has a box for each class.
const LEAST: f32 = 0.05;

/// A box is at most so many times as wide and high as what it was made of; as its logarithm.
const MOST: f32 = 4.135_166_6;

/// The published weights were trained with norms that have none.
const EPSILON: f64 = 0.0;

const POINT: Window = Window { kernel: [1, 1], stride: 1, padding: Padding::NONE };
const THREE: Window = Window { kernel: [3, 3], stride: 1, padding: Padding::all(1) };

/// The first stage: the four levels that regions are looked at on, the finest first; then what all five levels propose, for each cell three
/// logits and three times four numbers of a box.
pub(crate) fn graph(weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(3, 800, 1344));
    let stages = resnet::body(&mut net, "backbone.body.", resnet::R50, EPSILON)?;
    let mut levels = stages;
    for level in (0..LEVELS).rev() {
        let lateral =
            net.convolution(&format!("backbone.fpn.inner_blocks.{level}.0"), stages[level], CHANNELS, POINT)?;
        levels[level] = if level + 1 < LEVELS {
            let coarser = net.upsample(&format!("backbone.fpn.{level}.upsample"), levels[level + 1]);
            net.add(&format!("backbone.fpn.{level}.add"), lateral, coarser)?
        } else {
            lateral
        };
    }
    for (level, value) in levels.iter_mut().enumerate() {
        *value = net.convolution(&format!("backbone.fpn.layer_blocks.{level}.0"), *value, CHANNELS, THREE)?;
    }
    let last = net.max_pool("backbone.fpn.extra_blocks", levels[LEVELS - 1], Window { stride: 2, ..POINT })?;
    let mut outputs = levels.to_vec();
    for level in levels.into_iter().chain([last]) {
        let x = net.convolution("rpn.head.conv.0.0", level, CHANNELS, THREE)?;
        let x = net.relu(x);
        let logits = net.convolution("rpn.head.cls_logits", x, PROPORTIONS.len(), POINT)?;
        let boxes = net.convolution("rpn.head.bbox_pred", x, 4 * PROPORTIONS.len(), POINT)?;
        outputs.push(net.concat("rpn.head", &[logits, boxes])?);
    }
    net.finish_with(&outputs)
}

/// The second stage: of each region, which class it is, and for each class four numbers of a box.
pub(crate) fn head(weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let mut net = GraphBuilder::new(weights, device, ImageShape::new(CHANNELS * SIDE * SIDE, 1, REGIONS));
    let x = net.linear_each("roi_heads.box_head.fc6", net.input(), 1024)?;
    let x = net.relu(x);
    let x = net.linear_each("roi_heads.box_head.fc7", x, 1024)?;
    let x = net.relu(x);
    let classes = net.linear_each("roi_heads.box_predictor.cls_score", x, CLASSES)?;
    let boxes = net.linear_each("roi_heads.box_predictor.bbox_pred", x, 4 * CLASSES)?;
    net.finish_with(&[classes, boxes])
}

/// What the second stage looks at.
pub(crate) fn gather(levels: &[Level<'_>], input: ImageShape) -> Gathered {
    let (features, proposing) = levels.split_at(LEVELS);
    let regions = propose(proposing, input);
    let pixels: Vec<Pixels> = features.iter().map(Pixels::of).collect();
    let mut corners = vec![0.0; 4 * REGIONS];
    let mut numbers = vec![0.0; CHANNELS * SIDE * SIDE * REGIONS];
    // A few regions at a time, which lie beside each other in what is written.
    const RUN: usize = 16;
    let size = SIDE * SIDE * CHANNELS;
    let mut grids = vec![0.0; RUN * size];
    for (run, regions) in regions.chunks(RUN).enumerate() {
        for (place, (region, grid)) in regions.iter().zip(grids.chunks_exact_mut(size)).enumerate() {
            for (side, corner) in region.iter().enumerate() {
                corners[side * REGIONS + run * RUN + place] = *corner;
            }
            let level = level_of(*region);
            pixels[level].grid(*region, 0.25 / (1 << level) as f32, grid);
        }
        for cell in 0..SIDE * SIDE {
            for channel in 0..CHANNELS {
                let row = &mut numbers[(channel * SIDE * SIDE + cell) * REGIONS + run * RUN..][..regions.len()];
                for (place, number) in row.iter_mut().enumerate() {
                    *number = grids[place * size + cell * CHANNELS + channel];
                }
            }
        }
    }
    Gathered { corners, numbers, regions: REGIONS }
}

/// Equation 1 of the pyramid's paper: a region as large as the pictures of ImageNet is looked at on the third of the levels.
fn level_of([left, top, right, bottom]: [f32; 4]) -> usize {
    let side = ((right - left) * (bottom - top)).sqrt();
    // A NaN is level 0.
    ((2.0 + (side / 224.0).log2() + 1e-6).floor().max(0.0) as usize).min(LEVELS - 1)
}

/// Where something may be, the likeliest first.
fn propose(levels: &[Level<'_>], input: ImageShape) -> Vec<[f32; 4]> {
    let mut all: Vec<(f32, [f32; 4])> = Vec::new();
    for (level, side) in levels.iter().zip(ANCHORS) {
        let ImageShape { height, width, .. } = level.shape;
        let cells = height * width;
        let mut order: Vec<usize> = (0..cells * PROPORTIONS.len()).collect();
        let logit = |place: &usize| level.at(place % PROPORTIONS.len(), place / PROPORTIONS.len());
        order.sort_by(|left, right| logit(right).total_cmp(&logit(left)));
        order.truncate(REGIONS);
        // Whole numbers of pixels, as in torchvision.
        let stride = [(input.width / width) as f32, (input.height / height) as f32];
        let boxes = order.into_iter().filter_map(|place| {
            let (anchor, cell) = (place % PROPORTIONS.len(), place / PROPORTIONS.len());
            let [wide, high] = anchor_sides(side, PROPORTIONS[anchor]);
            let prior = Prior {
                middle: [(cell % width) as f32 * stride[0], (cell / width) as f32 * stride[1]],
                size: [wide, high],
            };
            let first = PROPORTIONS.len() + 4 * anchor;
            let stated = [0, 1, 2, 3].map(|number| level.at(first + number, cell));
            let corners = clipped(moved(prior, stated, [1.0, 1.0]), input);
            // A NaN stays: damaged numbers are to be noticed.
            let is_none = corners[2] - corners[0] < 1e-3 || corners[3] - corners[1] < 1e-3;
            (!is_none).then(|| (logit(&place), corners))
        });
        let (logits, boxes): (Vec<f32>, Vec<[f32; 4]>) = boxes.unzip();
        all.extend(apart(&boxes, OVERLAP, REGIONS).into_iter().map(|place| (logits[place], boxes[place])));
    }
    all.sort_by(|left, right| right.0.total_cmp(&left.0));
    all.into_iter().take(REGIONS).map(|(_, corners)| corners).collect()
}

/// Width and height of an anchor, whose corners are whole numbers.
fn anchor_sides(side: f32, proportion: f32) -> [f32; 2] {
    let root = proportion.sqrt();
    [side / root, side * root].map(|length| 2.0 * (length / 2.0).round_ties_even())
}

/// The box that numbers mean beside another one, when they were multiplied by these weights for its middle and its size.
fn moved(Prior { middle, size }: Prior, stated: [f32; 4], [place, growth]: [f32; 2]) -> [f32; 4] {
    let bounded = |number: f32| {
        let number = number / growth;
        if number > MOST { MOST } else { number }
    };
    let [x, y] = [stated[0] / place * size[0] + middle[0], stated[1] / place * size[1] + middle[1]];
    let [width, height] = [bounded(stated[2]).exp() * size[0], bounded(stated[3]).exp() * size[1]];
    [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0]
}

/// What of a box lies inside of the input.
fn clipped([left, top, right, bottom]: [f32; 4], input: ImageShape) -> [f32; 4] {
    let [width, height] = [input.width as f32, input.height as f32];
    [left.clamp(0.0, width), top.clamp(0.0, height), right.clamp(0.0, width), bottom.clamp(0.0, height)]
}

/// A box for each region and class that scores enough; its score is that class's alone.
fn decode(levels: &[Level<'_>], input: ImageShape) -> Candidates {
    let mut found = Candidates { corners: Vec::new(), scores: Vec::new(), classes: CLASSES };
    let [regions, logits, boxes] = levels else { return found };
    for region in 0..REGIONS {
        let [left, top, right, bottom] = [0, 1, 2, 3].map(|side| regions.at(side, region));
        let size = [right - left, bottom - top];
        if size[0] <= 0.0 || size[1] <= 0.0 {
            continue;
        }
        let prior = Prior { middle: [left + size[0] / 2.0, top + size[1] / 2.0], size };
        let mut scores: [f32; CLASSES] = std::array::from_fn(|class| logits.at(class, region));
        softmax(&mut scores);
        for (class, score) in scores.into_iter().enumerate().skip(1) {
            // Damaged numbers are to be noticed.
            if score <= LEAST {
                continue;
            }
            let stated = [0, 1, 2, 3].map(|number| boxes.at(4 * class + number, region));
            found.corners.push(clipped(moved(prior, stated, [10.0, 5.0]), input));
            found.scores.extend((0..CLASSES).map(|other| if other == class { score } else { 0.0 }));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_whole_numbers() {
        // torchvision's, for 32: 46 x 22, 32 x 32, 22 x 46.
        assert_eq!(
            PROPORTIONS.map(|proportion| anchor_sides(32.0, proportion)),
            [[46.0, 22.0], [32.0; 2], [22.0, 46.0]]
        );
    }

    #[test]
    fn large_regions_are_looked_at_on_coarse_levels() {
        let level = |side: f32| level_of([10.0, 10.0, 10.0 + side, 10.0 + side]);
        assert_eq!([1.0, 111.0, 112.0, 223.0, 224.0, 448.0, 1344.0].map(level), [0, 0, 1, 1, 2, 3, 3]);
        assert_eq!(level_of([f32::NAN; 4]), 0);
    }

    #[test]
    fn a_region_without_numbers_is_where_its_anchor_is() {
        let input = ImageShape::new(3, 64, 96);
        let shape = ImageShape::new(15, 2, 3);
        let mut values = vec![0.0; shape.elements()];
        // The square anchor of the cell in the middle of the second row.
        values[6 + 4] = 5.0;
        let found = propose(&[Level { values: &values, shape }], input);
        assert_eq!(found[0], [16.0, 16.0, 48.0, 48.0]);
    }
}
