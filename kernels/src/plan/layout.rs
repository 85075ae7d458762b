//! Where values lie: which of them share a buffer, and which buffers the same memory.
//!
//! Three ideas. A concatenation is one buffer, and its parts are written into it where they belong. Buffers whose lives do not
//! meet share memory: a border into which another one may have written is made zero again when its buffer's life begins. And
//! all this is laid out for one image, the next image's memory follows the last one's: so there is as much as there are images.

use std::cmp::Reverse;
use std::ops::Range;

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
    /// The byte that borders are full of.
    pub(crate) fill: u8,
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
    /// Whether something else than what is to be there may lie in its border when its life begins.
    dirty: bool,
}

impl Buffer {
    /// The memory that it takes.
    const fn range(&self) -> Range<usize> {
        self.start..self.start.saturating_add(self.geometry.elements())
    }
}

/// All buffers of a plan.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    buffers: Vec<Buffer>,
    /// Elements of all memory, for one image.
    pub(crate) elements: usize,
}

/// Lines that memory begins at, in elements: 64 bytes.
const LINE: usize = 16;

impl Geometry {
    pub(crate) const fn of(shape: Shape, blocks: usize, pixel: usize) -> Self {
        Self { blocks, height: shape.height, width: shape.width, border: Padding::NONE, pixel, fill: 0 }
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

    /// Elements of it, up to where something else may begin; as many as can be counted where it has more.
    pub(crate) const fn elements(&self) -> usize {
        match self.blocks.saturating_mul(self.plane()).checked_next_multiple_of(LINE) {
            Some(elements) => elements,
            None => usize::MAX,
        }
    }

    /// Some blocks of it, where it begins at `start`, and the next image so many elements on.
    pub(crate) const fn view(&self, start: usize, image: usize, first: usize, blocks: usize) -> View {
        let row = self.row();
        View {
            start: start + first * self.plane() + self.border.top * row + self.border.left * self.pixel,
            image,
            block: self.plane(),
            row,
            pixel: self.pixel,
            blocks,
            height: self.height,
            width: self.width,
            border: self.border,
            fill: self.fill,
        }
    }
}

impl Layout {
    pub(crate) fn add(&mut self, geometry: Geometry) -> BufferId {
        self.buffers.push(Buffer { geometry, life: [usize::MAX, 0], start: 0, dirty: false });
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

    /// Keeps a buffer's memory for it alone: nobody writes to all of it.
    pub(crate) fn keep(&mut self, buffer: BufferId) {
        self.buffers[buffer.0].life = [0, usize::MAX];
    }

    /// Gives every buffer its memory: the largest first, each the first that is free as long as it lives.
    pub(crate) fn place(&mut self) -> Result<(), KernelError> {
        let mut order: Vec<usize> = (0..self.buffers.len()).collect();
        order.sort_by_key(|buffer| Reverse(self.buffers[*buffer].geometry.elements()));
        let mut placed: Vec<usize> = Vec::new();
        for number in order {
            let Buffer { geometry, life: [first, last], .. } = self.buffers[number];
            let elements = geometry.elements();
            let meets = |other: &&usize| {
                let [begin, end] = self.buffers[**other].life;
                begin <= last && first <= end
            };
            let mut taken: Vec<Range<usize>> =
                placed.iter().filter(meets).map(|other| self.buffers[*other].range()).collect();
            taken.sort_by_key(|range| range.start);
            let mut start = 0usize;
            for range in taken {
                if start.checked_add(elements).is_some_and(|end| end <= range.start) {
                    break;
                }
                start = start.max(range.end);
            }
            let end = start.checked_add(elements).ok_or(KernelError::Memory(usize::MAX))?;
            self.buffers[number].start = start;
            self.elements = self.elements.max(end);
            placed.push(number);
        }
        let same = |one: &Buffer, other: &Buffer| one.start == other.start && one.geometry == other.geometry;
        let overlap = |one: Range<usize>, other: Range<usize>| one.start < other.end && other.start < one.end;
        let dirty = |buffer: &Buffer| {
            buffer.geometry.border != Padding::NONE
                && (buffer.geometry.fill != 0
                    || self.buffers.iter().any(|other| !same(buffer, other) && overlap(buffer.range(), other.range())))
        };
        let dirty: Vec<bool> = self.buffers.iter().map(dirty).collect();
        self.buffers.iter_mut().zip(dirty).for_each(|(buffer, dirty)| buffer.dirty = dirty);
        Ok(())
    }

    /// The buffers whose borders have to be cleared before a step. Only after [`Self::place`] is it known.
    pub(crate) fn dirty(&self, step: usize) -> Vec<View> {
        let begins = |buffer: &&Buffer| buffer.dirty && buffer.life[0] == step;
        let view = |buffer: &Buffer| buffer.geometry.view(buffer.start, self.elements, 0, buffer.geometry.blocks);
        self.buffers.iter().filter(begins).map(view).collect()
    }

    /// Some blocks of a buffer. Only after [`Self::place`] does it lie where it will.
    pub(crate) fn view(&self, buffer: BufferId, first: usize, blocks: usize) -> View {
        let Buffer { geometry, start, .. } = &self.buffers[buffer.0];
        geometry.view(*start, self.elements, first, blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_whose_lives_do_not_meet_share_memory() {
        let mut layout = Layout::default();
        let small = Geometry::of(Shape::new(4, 3, 5), 1, 4);
        let mut bordered = small;
        bordered.widen(Padding::all(1));
        let [a, b, c, d, kept] = [small, small, small, bordered, small].map(|geometry| layout.add(geometry));
        for (buffer, life) in [(a, [0, 1]), (b, [1, 2]), (c, [2, 3]), (d, [3, 4]), (kept, [1, 1])] {
            life.into_iter().for_each(|step| layout.used(buffer, step));
        }
        layout.keep(kept);
        layout.place().unwrap();
        let ranges = layout.buffers.iter().map(Buffer::range);
        // The largest first, then one after the other: `b` meets `a` and `c`, `c` meets `d`.
        assert_eq!(ranges.collect::<Vec<_>>(), [0..64, 64..128, 144..208, 0..144, 208..272]);
        assert_eq!(layout.elements, 272);
        let view = layout.view(d, 0, 1);
        assert_eq!((view.start, view.row, view.image), (28 + 4, 28, 272));
        let dirty = |step| layout.dirty(step).len();
        assert_eq!([0, 1, 2, 3, 4].map(dirty), [0, 0, 0, 1, 0], "others have written into its border, and have none");
    }

    #[test]
    fn a_border_into_which_nobody_writes_stays_zero() {
        let mut layout = Layout::default();
        let mut bordered = Geometry::of(Shape::new(4, 3, 5), 1, 4);
        bordered.widen(Padding::all(1));
        for step in 0..4 {
            let buffer = layout.add(bordered);
            layout.used(buffer, 2 * step);
        }
        layout.place().unwrap();
        assert_eq!(layout.elements, bordered.elements());
        assert!((0..8).all(|step| layout.dirty(step).is_empty()));
    }
}
