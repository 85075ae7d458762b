//! Fully connected layers. Their weights are laid out as the input lies in memory, borders and all, so that nothing has to be
//! flattened.

use std::ptr;

use crate::error::KernelError;
use crate::graph;
use crate::inner::dot::{Dot, ROWS};
use crate::inner::finish::{Combine, Finish};
use crate::inner::table::Kernels;
use crate::memory::{Address, Memory};
use crate::steps::channels::Channels;
use crate::steps::view::View;
use crate::threads::Pool;

#[derive(Debug)]
pub(crate) struct Linear {
    from: View,
    to: View,
    other: Option<View>,
    finish: Finish,
    kernels: &'static Kernels,
    /// Elements of an image of the input, with its borders.
    length: usize,
    /// `[output blocks x lanes][length]`.
    weights: Memory,
    bias: Memory,
}

impl Linear {
    pub(crate) fn new(
        layer: &graph::Linear<'_>,
        (from, channels): (View, &Channels),
        to: View,
        other: Option<View>,
        finish: Finish,
        kernels: &'static Kernels,
    ) -> Result<Self, KernelError> {
        let lanes = kernels.lanes;
        let rows = layer.outputs.div_ceil(lanes) * lanes;
        to.matches(&View { blocks: rows / lanes, height: 1, width: 1, pixel: lanes, ..from })?;
        if let Some(other) = &other {
            to.matches(other)?;
        }
        if channels.blocks() != from.blocks || from.pixel != lanes || !lanes.is_multiple_of(ROWS) {
            return Err(KernelError::Bounds);
        }
        let length = from.blocks * from.block;
        let mut weights = Memory::zeroed(rows.checked_mul(length).ok_or(KernelError::Memory(usize::MAX))?)?;
        let mut bias = Memory::zeroed(rows)?;
        let inputs = channels.places().len() * from.height * from.width;
        let mut places = Vec::with_capacity(inputs);
        for [block, lane] in channels.places() {
            for y in 0..from.height {
                for x in 0..from.width {
                    let (row, column) = (y + from.border.top, x + from.border.left);
                    places.push(block * from.block + row * from.row + column * lanes + lane);
                }
            }
        }
        for (packed, row) in weights.elements_mut().chunks_exact_mut(length).zip(layer.weight.chunks_exact(inputs)) {
            for (place, weight) in places.iter().zip(row) {
                packed[*place] = *weight;
            }
        }
        if let Some(values) = layer.bias {
            bias.elements_mut()[..layer.outputs].copy_from_slice(values);
        }
        Ok(Self { from, to, other, finish, kernels, length, weights, bias })
    }

    /// Elements of its weights and biases as they are packed.
    pub(crate) fn weights(&self) -> usize {
        self.weights.elements().len() + self.bias.elements().len()
    }

    /// # Safety
    /// The views lie in `arena` for so many images, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, images: usize, pool: &mut Pool) {
        let Self { from, to, other, kernels, length, .. } = self;
        let lanes = kernels.lanes;
        let bias = self.bias.elements();
        pool.run(to.blocks, &|block| {
            for quad in 0..lanes / ROWS {
                let row = block * lanes + quad * ROWS;
                for image in 0..images {
                    let mut sums = [0.0; ROWS];
                    // SAFETY: an image of the input has `length` elements from its corner on, and so has each row of weights.
                    unsafe {
                        (kernels.dot)(&Dot {
                            weights: self.weights.elements().as_ptr().add(row * length),
                            input: arena.at(from.corner() + image * from.image),
                            to: sums.as_mut_ptr(),
                            length: *length,
                        });
                    }
                    for (place, sum) in sums.iter().enumerate() {
                        // SAFETY: a pixel has `lanes` elements; no two tasks have a block in common.
                        unsafe { *arena.at(to.at(image, block) + quad * ROWS + place) = sum + bias[row + place] };
                    }
                }
            }
            for image in 0..images {
                // SAFETY: the views have one pixel a block; no two tasks have a block in common.
                unsafe {
                    let to = arena.at(to.at(image, block));
                    let other = other.map_or(ptr::null(), |other| arena.at(other.at(image, block)).cast_const());
                    (kernels.combine)(&Combine { from: to, other, to, count: 1, finish: self.finish });
                }
            }
        });
    }
}
