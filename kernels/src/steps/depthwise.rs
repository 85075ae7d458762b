//! Convolution of each channel alone.

use std::ops::Range;
use std::ptr;

use crate::error::KernelError;
use crate::inner::depthwise::DepthwiseRow;
use crate::inner::finish::Finish;
use crate::inner::table::Kernels;
use crate::memory::{Address, Memory};
use crate::steps::layer::Layer;
use crate::steps::view::View;
use crate::threads::{Pool, parts};

/// A depthwise convolution, packed.
#[derive(Debug)]
pub(crate) struct Depthwise {
    from: View,
    /// Where windows slide from.
    from_start: usize,
    to: View,
    other: Option<View>,
    finish: Finish,
    kernels: &'static Kernels,
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    /// `[blocks][kernel rows][kernel columns][lanes]`.
    weights: Memory,
    bias: Memory,
}

impl Depthwise {
    pub(crate) fn new(layer: &Layer<'_>) -> Result<Self, KernelError> {
        let Layer { convolution, from, channels, to, other, finish, kernels } = layer;
        let from_start = from.window(convolution.window.padding, layer.reach())?;
        let lanes = kernels.lanes;
        if from.pixel != lanes || to.pixel != lanes || to.blocks != from.blocks || channels.blocks() != from.blocks {
            return Err(KernelError::Bounds);
        }
        if let Some(other) = other {
            to.matches(other)?;
        }
        let taps = convolution.window.taps();
        let (mut weights, mut bias) = (Memory::zeroed(to.blocks * taps * lanes)?, Memory::zeroed(to.blocks * lanes)?);
        for (channel, [block, lane]) in channels.places().into_iter().enumerate() {
            for tap in 0..taps {
                weights.elements_mut()[(block * taps + tap) * lanes + lane] = convolution.weight[channel * taps + tap];
            }
            bias.elements_mut()[block * lanes + lane] = convolution.bias.map_or(0.0, |bias| bias[channel]);
        }
        let window = convolution.window;
        Ok(Self {
            from: *from,
            from_start,
            to: *to,
            other: *other,
            finish: *finish,
            kernels,
            kernel: window.kernel,
            stride: window.stride,
            dilation: window.dilation,
            weights,
            bias,
        })
    }

    /// Elements of its weights and biases as they are packed.
    pub(crate) fn weights(&self) -> usize {
        self.weights.elements().len() + self.bias.elements().len()
    }

    /// # Safety
    /// The views lie in `arena` for so many images, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, images: usize, pool: &mut Pool) {
        let Self { from, to, .. } = self;
        let parts = parts(images * to.blocks, to.height, pool);
        pool.run(images * parts * to.blocks, &|task| {
            let (image, part, block) = (task / to.blocks / parts, task / to.blocks % parts, task % to.blocks);
            // SAFETY: the views lie in the arena. No two tasks have a row of a block in common.
            unsafe {
                let from = arena.at(self.from_start + image * from.image + block * from.block);
                let rows = to.height * part / parts..to.height * (part + 1) / parts;
                self.run_rows(arena, image, block, from, rows);
            }
        });
    }

    /// Where windows slide from, in the first block of the first image.
    pub(crate) const fn window_start(&self) -> usize {
        self.from_start
    }

    /// Rows that come out.
    pub(crate) const fn rows(&self) -> usize {
        self.to.height
    }

    /// The rows of the input that windows of some rows of outputs look at.
    pub(crate) fn read_by(&self, rows: &Range<usize>) -> Range<usize> {
        let above = (self.from.start - self.from_start) / self.from.row;
        let end = (rows.end.max(1) - 1) * self.stride[0] + (self.kernel[0] - 1) * self.dilation[0] + 1;
        (rows.start * self.stride[0]).saturating_sub(above)..end.saturating_sub(above).min(self.from.height)
    }

    /// Computes some rows of one block; in the plane that it is computed from windows slide from `from_start` on.
    ///
    /// # Safety
    /// As [`Self::run`]; nobody else writes to these rows of the block; and from `from_start` on lies a plane like those of the view.
    pub(crate) unsafe fn run_rows(
        &self,
        arena: Address,
        image: usize,
        block: usize,
        from_start: *const f32,
        rows: Range<usize>,
    ) {
        let Self { from, to, other, kernels, .. } = self;
        let taps = self.kernel[0] * self.kernel[1] * kernels.lanes;
        // SAFETY: `new` has found the windows of all outputs to lie inside of the view's border and the outputs inside of
        // `to` and `other`; weights and biases are there for each block.
        unsafe {
            let to_start = arena.at(to.at(image, block));
            let other_start = other.map(|other| arena.at(other.at(image, block)));
            for y in rows {
                let other = match (other_start, other) {
                    (Some(start), Some(other)) => start.add(y * other.row).cast_const(),
                    _ => ptr::null(),
                };
                (kernels.depthwise)(&DepthwiseRow {
                    from: from_start.add(y * self.stride[0] * from.row),
                    weights: self.weights.elements().as_ptr().add(block * taps),
                    bias: self.bias.elements().as_ptr().add(block * kernels.lanes),
                    to: to_start.add(y * to.row),
                    other,
                    columns: to.width,
                    kernel: self.kernel,
                    tap_row: self.dilation[0] * from.row,
                    dilation: self.dilation[1],
                    stride: self.stride[1],
                    finish: &self.finish,
                    combine: kernels.combine,
                });
            }
        }
    }
}
