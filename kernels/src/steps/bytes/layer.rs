//! A convolution of bytes as the plan hands it to those that compute it.

use crate::error::KernelError;
use crate::grid::{ByteWeights, Grid};
use crate::inner::bytes::settle::{Other, Settle, Target};
use crate::inner::bytes::table::ByteKernels;
use crate::inner::finish::Finish;
use crate::memory::{Address, Memory};
use crate::steps::channels::Channels;
use crate::steps::layer::Layer;
use crate::steps::view::View;

/// Most lanes that there are.
pub(crate) const MOST_LANES: usize = 16;

/// Bytes of an f32, in which views count.
pub(crate) const WORD: usize = size_of::<f32>();

/// f32 elements of a pixel of bytes.
pub(crate) const fn pixel(lanes: usize) -> usize {
    lanes / WORD
}

/// A convolution with all that it reads and writes.
#[derive(Debug)]
pub(crate) struct ByteLayer<'w> {
    pub(crate) layer: Layer<'w>,
    pub(crate) from: Grid,
    /// Of what is added, and of what comes out, where those are bytes.
    pub(crate) other: Option<Grid>,
    pub(crate) to: Option<Grid>,
    pub(crate) kernels: &'static ByteKernels,
}

/// What its sums become, and where they go.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) to: View,
    to_grid: Option<Grid>,
    other: Option<(View, Option<Grid>)>,
    finish: Finish,
    /// `[output blocks x lanes]`.
    steps: Memory,
    bias: Memory,
    pub(crate) kernels: &'static ByteKernels,
}

impl ByteLayer<'_> {
    /// What its sums become, where output channels lie as `channels` says; fails where views do not fit.
    pub(crate) fn ending(&self, weights: &ByteWeights, channels: &Channels) -> Result<Ending, KernelError> {
        let Self { layer, from, other, to, kernels } = self;
        let lanes = kernels.lanes;
        let of = |grid: &Option<Grid>| if grid.is_some() { pixel(lanes) } else { lanes };
        if lanes != layer.kernels.lanes
            || layer.from.pixel != pixel(lanes)
            || layer.to.pixel != of(to)
            || layer.to.blocks != channels.blocks()
            || layer.channels.blocks() != layer.from.blocks
        {
            return Err(KernelError::Bounds);
        }
        if let Some(view) = &layer.other {
            layer.to.matches(&View { pixel: layer.to.pixel, ..*view })?;
            if view.pixel != of(other) {
                return Err(KernelError::Bounds);
            }
        }
        let slots = layer.to.blocks * lanes;
        let (mut steps, mut bias) = (Memory::zeroed(slots)?, Memory::zeroed(slots)?);
        for (channel, [block, lane]) in channels.places().into_iter().enumerate() {
            steps.elements_mut()[block * lanes + lane] = weights.steps[channel] * from.step();
            bias.elements_mut()[block * lanes + lane] = layer.convolution.bias.map_or(0.0, |bias| bias[channel]);
        }
        Ok(Ending {
            to: layer.to,
            to_grid: *to,
            other: layer.other.map(|view| (view, *other)),
            finish: layer.finish,
            steps,
            bias,
            kernels,
        })
    }
}

impl Ending {
    /// Whether all pixels of a plane can be treated as one row.
    pub(crate) fn is_dense(&self) -> bool {
        self.to.is_dense() && self.other.is_none_or(|(other, _)| other.is_dense())
    }

    /// Elements of its steps and biases.
    pub(crate) fn weights(&self) -> usize {
        self.steps.elements().len() + self.bias.elements().len()
    }

    /// Makes results of the sums of some pixels of one row.
    ///
    /// # Safety
    /// The views lie in `arena` and the pixels in them, nobody else uses these, and there are as many sums.
    pub(crate) unsafe fn settle(
        &self,
        arena: Address,
        [image, block]: [usize; 2],
        [row, column]: [usize; 2],
        count: usize,
        sums: *const f32,
    ) {
        // SAFETY: the caller vouches for the memory; steps and biases are there for each block.
        unsafe {
            let at = |view: &View| arena.at(view.at(image, block) + row * view.row + column * view.pixel);
            let other = match &self.other {
                None => Other::None,
                Some((view, None)) => Other::Floats(at(view)),
                Some((view, Some(grid))) => Other::Bytes(at(view).cast(), *grid),
            };
            let to = match self.to_grid {
                None => Target::Floats(at(&self.to)),
                Some(grid) => Target::Bytes(at(&self.to).cast(), grid),
            };
            let channels = block * self.kernels.lanes;
            (self.kernels.settle)(&Settle {
                sums,
                steps: self.steps.elements().as_ptr().add(channels),
                bias: self.bias.elements().as_ptr().add(channels),
                other,
                to,
                count,
                finish: &self.finish,
            });
        }
    }
}
