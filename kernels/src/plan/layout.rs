//! Where values lie: which of them share a buffer, and which buffers the same memory.
//!
//! Two ideas. A concatenation is one buffer, and its parts are written into it where they belong. And buffers whose lives do not
//! meet share memory if their sizes and borders are the same: so a border, once zero, stays zero.

use std::collections::HashMap;

use crate::error::KernelError;
use crate::shape::{Padding, Shape};
use crate::steps::view::View;

/// Memory of a value, or of several that are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Geometry {
    pub(crate) blocks: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) border: Padding,
    /// Elements of a pixel.
    pub(crate) pixel: usize,
}

/// A buffer by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BufferId(usize);

/// Which steps use a buffer, and where it lies.
#[derive(Debug, Clone)]
struct Buffer {
    geometry: Geometry,
    /// The first step that writes to it and the last one that reads it.
    life: [usize; 2],
    start: usize,
}

/// All buffers of a plan.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    buffers: Vec<Buffer>,
    /// Elements of all memory.
    pub(crate) elements: usize,
}

/// Lines that memory begins at, in elements: 64 bytes.
const LINE: usize = 16;

impl Geometry {
    pub(crate) const fn of(shape: Shape, blocks: usize, pixel: usize) -> Self {
        Self { blocks, height: shape.height, width: shape.width, border: Padding::NONE, pixel }
    }

    /// Makes the border wide enough for another reader.
    pub(crate) fn widen(&mut self, other: Padding) {
        let Padding { top, bottom, left, right } = &mut self.border;
        *top = (*top).max(other.top);
        *bottom = (*bottom).max(other.bottom);
        *left = (*left).max(other.left);
        *right = (*right).max(other.right);
    }

    const fn row(&self) -> usize {
        (self.width + self.border.left + self.border.right) * self.pixel
    }

    const fn plane(&self) -> usize {
        (self.height + self.border.top + self.border.bottom) * self.row()
    }

    const fn image(&self) -> usize {
        self.blocks * self.plane()
    }

    /// Elements of so many images, up to where something else may begin.
    pub(crate) fn elements(&self, images: usize) -> Option<usize> {
        images.checked_mul(self.image())?.checked_next_multiple_of(LINE)
    }

    /// Some blocks of it, where it begins at `start`.
    pub(crate) const fn view(&self, start: usize, first: usize, blocks: usize) -> View {
        let row = self.row();
        View {
            start: start + first * self.plane() + self.border.top * row + self.border.left * self.pixel,
            image: self.image(),
            block: self.plane(),
            row,
            pixel: self.pixel,
            blocks,
            height: self.height,
            width: self.width,
            border: self.border,
        }
    }
}

impl Layout {
    pub(crate) fn add(&mut self, geometry: Geometry) -> BufferId {
        self.buffers.push(Buffer { geometry, life: [usize::MAX, 0], start: 0 });
        BufferId(self.buffers.len() - 1)
    }

    pub(crate) fn widen(&mut self, buffer: BufferId, border: Padding) {
        self.buffers[buffer.0].geometry.widen(border);
    }

    /// Says that a step writes to a buffer or reads it.
    pub(crate) fn used(&mut self, buffer: BufferId, step: usize) {
        let [first, last] = &mut self.buffers[buffer.0].life;
        *first = (*first).min(step);
        *last = (*last).max(step);
    }

    /// Gives every buffer its memory, for so many images.
    pub(crate) fn place(&mut self, images: usize) -> Result<(), KernelError> {
        let mut order: Vec<usize> = (0..self.buffers.len()).collect();
        order.sort_by_key(|buffer| self.buffers[*buffer].life[0]);
        // For each geometry the pieces of memory that it has, and the last step that uses each.
        let mut pieces: HashMap<Geometry, Vec<[usize; 2]>> = HashMap::new();
        let too_much = KernelError::Memory(usize::MAX);
        for number in order {
            let Buffer { geometry, life: [first, last], .. } = self.buffers[number];
            let pieces = pieces.entry(geometry).or_default();
            let free = pieces.iter_mut().find(|[_, used_until]| *used_until < first);
            self.buffers[number].start = match free {
                Some([start, used_until]) => {
                    *used_until = last;
                    *start
                }
                None => {
                    let start = self.elements;
                    let elements = geometry.elements(images).ok_or(too_much.clone())?;
                    self.elements = start.checked_add(elements).ok_or(too_much.clone())?;
                    pieces.push([start, last]);
                    start
                }
            };
        }
        Ok(())
    }

    /// Some blocks of a buffer. Only after [`Self::place`] does it lie where it will.
    pub(crate) fn view(&self, buffer: BufferId, first: usize, blocks: usize) -> View {
        let Buffer { geometry, start, .. } = &self.buffers[buffer.0];
        geometry.view(*start, first, blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_buffers_whose_lives_do_not_meet_share_memory() {
        let mut layout = Layout::default();
        let small = Geometry::of(Shape::new(4, 3, 5), 1, 4);
        let mut bordered = small;
        bordered.widen(Padding::all(1));
        let [a, b, c, d] = [small, small, small, bordered].map(|geometry| layout.add(geometry));
        for (buffer, life) in [(a, [0, 1]), (b, [1, 2]), (c, [2, 3]), (d, [3, 4])] {
            life.into_iter().for_each(|step| layout.used(buffer, step));
        }
        layout.place(2).unwrap();
        let start = |buffer| layout.view(buffer, 0, 1).corner();
        assert_eq!((start(a), start(c)), (0, 0));
        assert_eq!((start(b), start(d)), (128, 256));
        assert_eq!(layout.elements, 256 + 2 * 5 * 7 * 4 + 8);
        let view = layout.view(d, 0, 1);
        assert_eq!((view.start, view.row, view.image), (256 + 28 + 4, 28, 140));
    }

    #[test]
    fn more_than_there_is_is_refused() {
        let mut layout = Layout::default();
        layout.add(Geometry::of(Shape::new(1, 1 << 15, 1 << 15), 1, 16));
        assert!(layout.place(usize::MAX / 2).is_err());
    }
}
