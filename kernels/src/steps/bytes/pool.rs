//! The largest bytes of windows.

use crate::error::KernelError;
use crate::graph;
use crate::inner::bytes::pool::BytePoolRow;
use crate::inner::bytes::table::ByteKernels;
use crate::memory::Address;
use crate::shape::{Shape, Window};
use crate::steps::bytes::layer::{WORD, pixel};
use crate::steps::view::View;
use crate::threads::Pool;

#[derive(Debug)]
pub(crate) struct BytePool {
    from: View,
    to: View,
    window: Window,
    kernels: &'static ByteKernels,
}

impl BytePool {
    pub(crate) fn new(
        from: View,
        to: View,
        pool: &graph::Pool,
        kernels: &'static ByteKernels,
    ) -> Result<Self, KernelError> {
        let graph::Pool { window, ceil, .. } = *pool;
        let sides = window.output(Shape::new(1, from.height, from.width), ceil).ok_or(KernelError::Bounds)?;
        to.matches(&View { height: sides[0], width: sides[1], ..from })?;
        if to.pixel != pixel(kernels.lanes) {
            return Err(KernelError::Bounds);
        }
        Ok(Self { from, to, window, kernels })
    }

    /// # Safety
    /// The views lie in `arena` for so many images, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, images: usize, pool: &mut Pool) {
        let Self { from, to, window, kernels } = self;
        let Window { kernel, stride, padding, .. } = *window;
        pool.run(images * to.blocks, &|task| {
            let (image, block) = (task / to.blocks, task % to.blocks);
            for y in 0..to.height {
                let begin = y * stride[0];
                let first = begin.saturating_sub(padding.top);
                let end = (begin + kernel[0]).saturating_sub(padding.top).min(from.height);
                // SAFETY: rows and columns are cut to those of `from`, and `new` has found the outputs to be those of `to`; no
                // two tasks have a block in common.
                unsafe {
                    (kernels.pool)(&BytePoolRow {
                        from: arena.at(from.at(image, block) + first * from.row).cast(),
                        to: arena.at(to.at(image, block) + y * to.row).cast(),
                        rows: end - first,
                        width: from.width,
                        left: padding.left,
                        columns: to.width,
                        kernel: kernel[1],
                        stride: stride[1],
                        from_row: from.row * WORD,
                    });
                }
            }
        });
    }
}
