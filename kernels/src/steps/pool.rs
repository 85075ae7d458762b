//! Pools, and the mean of whole planes.

use std::ops::Range;

use crate::error::KernelError;
use crate::graph;
use crate::graph::Reduction;
use crate::inner::pool::{Mean, PoolRow};
use crate::inner::table::Kernels;
use crate::memory::Address;
use crate::shape::{Shape, Window};
use crate::steps::view::View;
use crate::threads;

#[derive(Debug)]
pub(crate) struct Pool {
    from: View,
    to: View,
    window: Window,
    reduction: Reduction,
    kernels: &'static Kernels,
}

impl Pool {
    pub(crate) fn new(
        from: View,
        to: View,
        pool: &graph::Pool,
        kernels: &'static Kernels,
    ) -> Result<Self, KernelError> {
        let graph::Pool { reduction, window, ceil } = *pool;
        let sides = window.output(Shape::new(1, from.height, from.width), ceil).ok_or(KernelError::Bounds)?;
        to.matches(&View { height: sides[0], width: sides[1], ..from })?;
        if to.pixel != kernels.lanes {
            return Err(KernelError::Bounds);
        }
        Ok(Self { from, to, window, reduction, kernels })
    }

    /// # Safety
    /// The views lie in `arena` for so many images, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, images: usize, pool: &mut threads::Pool) {
        let Self { from, to, .. } = self;
        let parts = threads::parts(images * to.blocks, to.height, pool);
        pool.run(images * parts * to.blocks, &|task| {
            let (image, part, block) = (task / to.blocks / parts, task / to.blocks % parts, task % to.blocks);
            let rows = to.height * part / parts..to.height * (part + 1) / parts;
            // SAFETY: the views lie in the arena. No two tasks have a row of a block in common.
            unsafe { self.run_rows(arena, image, block, arena.at(from.at(image, block)), rows) };
        });
    }

    /// Rows that come out.
    pub(crate) const fn rows(&self) -> usize {
        self.to.height
    }

    /// The rows of the input that windows of some rows of outputs look at.
    pub(crate) fn read_by(&self, rows: Range<usize>) -> Range<usize> {
        let Window { kernel, stride, padding, .. } = self.window;
        let end = (rows.end.max(1) - 1) * stride[0] + kernel[0];
        (rows.start * stride[0]).saturating_sub(padding.top)..end.saturating_sub(padding.top).min(self.from.height)
    }

    /// Computes some rows of one block of a plane whose first row is at `from`, or would be.
    ///
    /// # Safety
    /// As [`Self::run`]; nobody else writes to these rows of the block; and the rows that [`Self::read_by`] names lie as those of the
    /// view do, from `from` on.
    pub(crate) unsafe fn run_rows(
        &self,
        arena: Address,
        image: usize,
        block: usize,
        from: *const f32,
        rows: Range<usize>,
    ) {
        let Self { from: view, to, window, reduction, kernels } = self;
        let Window { kernel, stride, padding, .. } = *window;
        for y in rows {
            let begin = y * stride[0];
            let counted_rows = (begin + kernel[0]).min(padding.top + view.height + padding.bottom) - begin;
            let read = self.read_by(y..y + 1);
            // SAFETY: rows and columns are cut to those of `from`, and `new` has found the outputs to be those of `to`.
            unsafe {
                (kernels.pool)(&PoolRow {
                    from: from.wrapping_add(read.start * view.row),
                    to: arena.at(to.at(image, block) + y * to.row),
                    rows: read.len(),
                    counted_rows,
                    width: view.width,
                    padding: [padding.left, padding.right],
                    columns: to.width,
                    kernel: kernel[1],
                    stride: stride[1],
                    from_row: view.row,
                    largest: *reduction == Reduction::Max,
                    count_padding: *reduction == Reduction::Average { count_padding: true },
                });
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct GlobalMean {
    from: View,
    to: View,
    kernels: &'static Kernels,
}

impl GlobalMean {
    pub(crate) fn new(from: View, to: View, kernels: &'static Kernels) -> Result<Self, KernelError> {
        to.matches(&View { height: 1, width: 1, ..from })?;
        if to.pixel != kernels.lanes {
            return Err(KernelError::Bounds);
        }
        Ok(Self { from, to, kernels })
    }

    /// # Safety
    /// The views lie in `arena` for so many images, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, images: usize, pool: &mut threads::Pool) {
        let Self { from, to, kernels } = self;
        pool.run(images * to.blocks, &|task| {
            let (image, block) = (task / to.blocks, task % to.blocks);
            // SAFETY: the whole plane is read, and one pixel written; no two tasks have a block in common.
            unsafe {
                (kernels.mean)(&Mean {
                    from: arena.at(from.at(image, block)),
                    to: arena.at(to.at(image, block)),
                    rows: from.height,
                    columns: from.width,
                    from_row: from.row,
                });
            }
        });
    }
}
