//! Choosing how each convolution is computed: by rule, or by measuring all ways with a clock that the caller hands in.

use std::time::Duration;

use crate::error::KernelError;
use crate::graph;
use crate::plan::choice::Choice;
use crate::plan::layout::Geometry;
use crate::plan::network::PlanOptions;
use crate::shape::{Shape, Window};
use crate::steps::direct::Direct;
use crate::steps::expanded::Expanded;
use crate::steps::layer::Layer;
use crate::steps::pooled::Pooled;
use crate::steps::step::{Room, Step};
use crate::steps::view::View;
use crate::steps::winograd::Winograd;
use crate::threads::Pool;

/// A monotonic clock: time since any moment.
pub(crate) type Clock<'a> = &'a mut dyn FnMut() -> Duration;

/// How often each way is tried, after once for warming up. The quickest counts: whatever else the machine does only delays.
const TRIALS: usize = 4;

/// What the rule reckons with, for one core of a Xeon of 2023: products in a nanosecond for each element of a vector (88 with
/// AVX-512), and bytes of weights in a nanosecond from beyond a core's own caches.
const PRODUCTS: f64 = 5.5;
const BYTES: f64 = 10.0;

/// Nanoseconds in which a block of a tile is transformed to or back, for tiles of 2 x 2 and of 4 x 4 outputs.
const TRANSFORM: [f64; 2] = [40.0, 100.0];

/// Winograd's way is less precise, so it is to gain something: its part of the direct way's time, at most.
const WORTH: f64 = 0.9;

/// What a choice is made for.
#[derive(Debug)]
pub(crate) enum Chosen<'w> {
    /// A convolution.
    One(Box<Layer<'w>>),
    /// A convolution and the depthwise one after it, with so many planes between them.
    Pair(Box<[Layer<'w>; 2]>, usize),
    /// A convolution and the pool after it, where that writes, and how many rows lie between them at a time.
    Pooled(Box<Layer<'w>>, graph::Pool, View, usize),
}

impl Chosen<'_> {
    fn layer(&self) -> &Layer<'_> {
        match self {
            Self::One(layer) | Self::Pooled(layer, ..) => layer,
            Self::Pair(layers, _) => &layers[0],
        }
    }

    /// All ways to compute it.
    pub(crate) fn ways(&self, options: &PlanOptions) -> Vec<Choice> {
        let layer = self.layer();
        let most = layer.output_blocks().min(layer.kernels.most_blocks());
        let mut ways: Vec<Choice> = (1..=most).map(|blocks| Choice::Direct { blocks }).collect();
        if self.can_be_winograd(options) {
            ways.extend([2, 4].map(|tile| Choice::Winograd { tile }));
        }
        ways
    }

    /// The way that is right for most. Its weights are read from far away for each image, so large planes and few channels are for
    /// Winograd's way: with tiles of 4 x 4, or of 2 x 2 where those are too few for their weights.
    pub(crate) fn by_rule(&self, options: &PlanOptions) -> Choice {
        let layer = self.layer();
        let lanes = layer.kernels.lanes;
        let wide = layer.inputs() >= lanes && layer.convolution.outputs >= lanes;
        let direct = Choice::Direct { blocks: layer.output_blocks().min(2) };
        if !wide || !self.can_be_winograd(options) {
            return direct;
        }
        let (rows, columns) = (layer.to.height, layer.to.width);
        let pairs = (layer.inputs() * layer.output_blocks() * lanes) as f64;
        let rate = PRODUCTS * lanes as f64;
        let winograd = |tile: usize| {
            let (places, tiles) = ((tile + 2).pow(2) as f64, (rows.div_ceil(tile) * columns.div_ceil(tile)) as f64);
            let products = places * pairs * (tiles / rate).max(size_of::<f32>() as f64 / BYTES);
            products + tiles * (layer.from.blocks + layer.to.blocks) as f64 * TRANSFORM[tile / 2 - 1]
        };
        let at_most = WORTH * (9 * rows * columns) as f64 * pairs / rate;
        let [small, large] = [2, 4].map(winograd);
        match small.min(large) <= at_most {
            true if large <= small => Choice::Winograd { tile: 4 },
            true => Choice::Winograd { tile: 2 },
            false => direct,
        }
    }

    fn can_be_winograd(&self, options: &PlanOptions) -> bool {
        options.winograd && matches!(self, Self::One(layer) if layer.is_three_by_three())
    }

    /// The step that computes it so, for up to `images` images. Without `packed` weights are zeros.
    pub(crate) fn step(&self, choice: Choice, images: usize, packed: bool) -> Result<Step, KernelError> {
        Ok(match (self, choice) {
            (Self::One(layer), Choice::Direct { blocks }) => Step::Direct(Direct::new(layer, blocks, packed)?),
            (Self::One(layer), Choice::Winograd { tile }) => {
                Step::Winograd(Winograd::new(layer, tile, images, packed)?)
            }
            (Self::Pair(layers, planes), Choice::Direct { blocks }) => {
                Step::Expanded(Box::new(Expanded::new(&layers[0], &layers[1], blocks, *planes, packed)?))
            }
            (Self::Pooled(layer, pool, to, rows), Choice::Direct { blocks }) => {
                Step::Pooled(Box::new(Pooled::new(layer, pool, *to, *rows, blocks, packed)?))
            }
            (Self::Pair(..) | Self::Pooled(..), Choice::Winograd { .. }) => return Err(KernelError::Bounds),
        })
    }

    pub(crate) fn alike(&self) -> Alike {
        match self {
            Self::One(layer) => Alike([Some(Sizes::of(layer)), None], None),
            Self::Pair(layers, _) => Alike(layers.each_ref().map(|layer| Some(Sizes::of(layer))), None),
            Self::Pooled(layer, pool, ..) => Alike([Some(Sizes::of(layer)), None], Some(pool.window)),
        }
    }
}

/// The quickest way, run in a room for values of which the contents count for nothing.
pub(crate) fn quickest(
    ways: &[Choice],
    step: impl Fn(Choice) -> Result<Step, KernelError>,
    images: usize,
    room: &mut Room,
    pool: &mut Pool,
    clock: Clock<'_>,
) -> Result<Option<Choice>, KernelError> {
    let mut best: Option<(Duration, Choice)> = None;
    for way in ways {
        let step = step(*way)?;
        room.widen(step.scratch(), pool.threads())?;
        for trial in 0..=TRIALS {
            let begun = clock();
            // SAFETY: the room was laid out for this step and so many images.
            unsafe { step.run(room, images, pool) };
            let took = clock().saturating_sub(begun);
            if trial > 0 && best.is_none_or(|(quickest, _)| took < quickest) {
                best = Some((took, *way));
            }
        }
    }
    Ok(best.map(|(_, way)| way))
}

/// What makes two steps take equally long.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Alike([Option<Sizes>; 2], Option<Window>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sizes {
    window: Window,
    groups: usize,
    from: Geometry,
    to: Geometry,
    inputs: usize,
    other: bool,
    bounded: bool,
}

impl Sizes {
    fn of(layer: &Layer<'_>) -> Self {
        let geometry = |view: &View| {
            let shape = Shape::new(1, view.height, view.width);
            Geometry { border: view.border, ..Geometry::of(shape, view.blocks, view.pixel) }
        };
        Self {
            window: layer.convolution.window,
            groups: layer.convolution.groups,
            from: geometry(&layer.from),
            to: geometry(&layer.to),
            inputs: layer.inputs(),
            other: layer.other.is_some(),
            bounded: layer.finish.bounds.is_some(),
        }
    }
}
