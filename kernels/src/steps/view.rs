//! Where a value lies in a plan's memory.

use crate::error::KernelError;
use crate::memory::Address;
use crate::shape::Padding;

/// A value in blocked memory: `[images][blocks][rows][columns][pixel]`, or a part of the blocks of one. Around each plane lies a border
/// of zeros that nobody writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    /// The element at the top left of the first block of the first image, behind the border.
    pub(crate) start: usize,
    /// Elements between images, blocks, rows and columns.
    pub(crate) image: usize,
    pub(crate) block: usize,
    pub(crate) row: usize,
    pub(crate) pixel: usize,
    pub(crate) blocks: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) border: Padding,
    /// The byte that borders are full of: other than zero only where they stand for the zero of bytes.
    pub(crate) fill: u8,
}

impl View {
    /// The first element of a block.
    pub(crate) const fn at(&self, image: usize, block: usize) -> usize {
        self.start + image * self.image + block * self.block
    }

    /// Whether a plane follows the row before without a border between them.
    pub(crate) const fn is_dense(&self) -> bool {
        self.row == self.width * self.pixel && self.block == self.height * self.row
    }

    /// Fills the borders of all blocks.
    ///
    /// # Safety
    /// The view lies in `arena` for so many images, and nobody else uses it.
    pub(crate) unsafe fn clear_border(&self, arena: Address, images: usize) {
        let Padding { top, bottom, left, right } = self.border;
        let (row, pixel, fill) = (self.row, self.pixel, self.fill);
        for (image, block) in (0..images).flat_map(|image| (0..self.blocks).map(move |block| (image, block))) {
            let corner = self.corner() + image * self.image + block * self.block;
            // SAFETY: a plane with its border has `block` elements from its corner on.
            unsafe {
                // What is left of one row and right of the row before lies side by side.
                arena.at(corner).write_bytes(fill, top * row + left * pixel);
                for y in top + 1..top + self.height {
                    arena.at(corner + y * row - right * pixel).write_bytes(fill, (left + right) * pixel);
                }
                let end = corner + (top + self.height) * row;
                arena.at(end - right * pixel).write_bytes(fill, bottom * row + right * pixel);
            }
        }
    }

    /// The first element of the first block's border.
    pub(crate) const fn corner(&self) -> usize {
        self.start - self.border.top * self.row - self.border.left * self.pixel
    }

    /// The element from which windows with this padding slide, if `rows` and `columns` from there on lie inside of the border: what
    /// the inner loops read of each plane.
    pub(crate) fn window(&self, padding: Padding, [rows, columns]: [usize; 2]) -> Result<usize, KernelError> {
        let Padding { top, bottom, left, right } = self.border;
        let inside = padding.top <= top
            && padding.left <= left
            && rows <= self.height + padding.top + bottom
            && columns <= self.width + padding.left + right;
        if !inside {
            return Err(KernelError::Bounds);
        }
        Ok(self.start - padding.top * self.row - padding.left * self.pixel)
    }

    /// Fails unless the other view has the same sides and as many blocks.
    pub(crate) fn matches(&self, other: &Self) -> Result<(), KernelError> {
        let sides = |view: &Self| (view.blocks, view.height, view.width, view.pixel);
        if sides(self) == sides(other) { Ok(()) } else { Err(KernelError::Bounds) }
    }
}
