//! Images into a plan's memory, results out of it.

use crate::memory::Address;
use crate::shape::Shape;
use crate::steps::channels::Channels;
use crate::steps::view::View;
use crate::threads::Pool;

/// Up to so many elements are carried sooner than another thread comes to help.
const SMALL: usize = 1 << 14;

/// Parts of a plane that is larger.
const PARTS: usize = 4;

/// Pixels that are carried out at a time: a cache line of results.
const PIXELS: usize = 16;

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
        // Three planes are not to be shared out to two threads.
        let parts = if height * width > SMALL { PARTS.min(height) } else { 1 };
        pool.run(input.len() / (height * width) * parts, &|task| {
            let (plane, part) = (task / parts, task % parts);
            let (image, channel) = (plane / channels, plane % channels);
            let (first, end) = (height * part / parts, height * (part + 1) / parts);
            let rows = input[(plane * height + first) * width..(plane * height + end) * width].chunks_exact(width);
            for (y, row) in (first..end).zip(rows) {
                // SAFETY: the view has room for each channel; no two tasks have a row of a channel in common.
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
    /// Channels that lie beside each other.
    runs: Vec<Run>,
}

/// Channels that lie beside each other in a block.
#[derive(Debug)]
struct Run {
    channel: usize,
    count: usize,
    /// Elements from the view's start to the first of them.
    start: usize,
}

impl Outlet {
    pub(crate) fn new(shape: Shape, view: View, channels: &Channels) -> Self {
        let sizes = channels.of_blocks().into_iter().zip(channels.firsts());
        let run = |(block, (count, channel))| Run { channel, count, start: block * view.block };
        Self { shape, view, runs: sizes.enumerate().map(run).collect() }
    }

    /// Carries results out to `[images, C, H, W]`.
    ///
    /// # Safety
    /// The view lies in `arena` for as many images as there are, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, output: &mut [f32], pool: &mut Pool) {
        // Rows and columns of the view: what is read flattened has the same order.
        let image = self.runs.iter().map(|run| run.count).sum::<usize>() * self.view.height * self.view.width;
        let (images, small) = (output.len() / image, output.len() <= SMALL);
        let tasks = images * self.runs.len();
        let to = Address::new(output.as_mut_ptr());
        let carry = |task: usize| {
            let (place, run) = (task / self.runs.len(), &self.runs[task % self.runs.len()]);
            // SAFETY: each channel has a place in the view and in the output; no two tasks have one in common.
            unsafe { self.carry(arena, place, run, to.at(place * image)) };
        };
        if small { (0..tasks).for_each(carry) } else { pool.run(tasks, &carry) }
    }

    /// # Safety
    /// As [`Self::run`]; `to` is where the image's results begin, and nobody else writes to these channels of it.
    unsafe fn carry(&self, arena: Address, image: usize, run: &Run, to: *mut f32) {
        let View { height, width, row, pixel, .. } = self.view;
        let Run { channel, count, start } = *run;
        for y in 0..height {
            let from = self.view.at(image, 0) + start + y * row;
            // A few pixels of all channels before the next ones: they share cache lines.
            for first in (0..width).step_by(PIXELS) {
                for lane in 0..count {
                    for x in first..width.min(first + PIXELS) {
                        // SAFETY: the caller vouches for both memories.
                        unsafe {
                            *to.add(((channel + lane) * height + y) * width + x) = *arena.at(from + x * pixel + lane);
                        }
                    }
                }
            }
        }
    }
}
