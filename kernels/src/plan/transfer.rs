//! Images into a plan's memory, results out of it.

use crate::memory::Address;
use crate::shape::Shape;
use crate::steps::channels::Channels;
use crate::steps::view::View;
use crate::threads::Pool;

/// The network's input, as one of its readers wants it.
#[derive(Debug)]
pub(crate) struct Inlet {
    shape: Shape,
    view: View,
    /// Channels of a block; 1 where planes are read as they are.
    lanes: usize,
}

impl Inlet {
    pub(crate) const fn planar(shape: Shape, view: View) -> Self {
        Self { shape, view, lanes: 1 }
    }

    pub(crate) const fn blocked(shape: Shape, view: View, lanes: usize) -> Self {
        Self { shape, view, lanes }
    }

    /// Carries `[images, C, H, W]` in.
    ///
    /// # Safety
    /// The view lies in `arena` for so many images, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, input: &[f32], pool: &mut Pool) {
        let Self { shape: Shape { channels, height, width }, view, lanes } = *self;
        pool.run(input.len() / (height * width), &|plane| {
            let (image, channel) = (plane / channels, plane % channels);
            let rows = input[plane * height * width..][..height * width].chunks_exact(width);
            for (y, row) in rows.enumerate() {
                // SAFETY: the view has room for each channel; no two tasks have a channel in common.
                unsafe {
                    let to = arena.at(view.at(image, channel / lanes) + y * view.row + channel % lanes);
                    if lanes == 1 {
                        to.copy_from_nonoverlapping(row.as_ptr(), width);
                    } else {
                        for (x, element) in row.iter().enumerate() {
                            *to.add(x * view.pixel) = *element;
                        }
                    }
                }
            }
        });
    }
}

/// One of the network's outputs.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) shape: Shape,
    view: View,
    /// Elements from the view's start to each channel.
    channels: Vec<usize>,
}

impl Outlet {
    pub(crate) fn new(shape: Shape, view: View, channels: &Channels) -> Self {
        let start = |[block, lane]: [usize; 2]| block * view.block + lane;
        Self { shape, view, channels: channels.places().into_iter().map(start).collect() }
    }

    /// Carries results out to `[images, C, H, W]`.
    ///
    /// # Safety
    /// The view lies in `arena` for as many images as there are, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, output: &mut [f32]) {
        let View { height, width, row, pixel, .. } = self.view;
        // Rows and columns of the view: what is read flattened has the same order.
        for (plane, elements) in output.chunks_exact_mut(height * width).enumerate() {
            let (image, channel) = (plane / self.channels.len(), plane % self.channels.len());
            let start = self.view.at(image, 0) + self.channels[channel];
            for (y, line) in elements.chunks_exact_mut(width).enumerate() {
                for (x, element) in line.iter_mut().enumerate() {
                    // SAFETY: each channel has a place in the view.
                    *element = unsafe { *arena.at(start + y * row + x * pixel) };
                }
            }
        }
    }
}
