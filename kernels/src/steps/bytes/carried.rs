//! f32 that become bytes, bytes that become f32, and bytes that are written in two places.

use crate::error::KernelError;
use crate::grid::Grid;
use crate::inner::bytes::carry::Carry;
use crate::inner::bytes::table::ByteKernels;
use crate::memory::Address;
use crate::steps::bytes::layer::pixel;
use crate::steps::view::View;
use crate::threads::Pool;

/// What becomes of a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Quantise(Grid),
    Restore(Grid),
    Copy,
}

#[derive(Debug)]
pub(crate) struct Carried {
    from: View,
    to: View,
    way: Way,
    kernels: &'static ByteKernels,
}

impl Carried {
    pub(crate) fn new(from: View, to: View, way: Way, kernels: &'static ByteKernels) -> Result<Self, KernelError> {
        let (bytes, floats) = (pixel(kernels.lanes), kernels.lanes);
        let pixels = match way {
            Way::Quantise(_) => [floats, bytes],
            Way::Restore(_) => [bytes, floats],
            Way::Copy => [bytes, bytes],
        };
        to.matches(&View { pixel: to.pixel, ..from })?;
        if [from.pixel, to.pixel] != pixels {
            return Err(KernelError::Bounds);
        }
        Ok(Self { from, to, way, kernels })
    }

    /// # Safety
    /// The views lie in `arena` for so many images, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, images: usize, pool: &mut Pool) {
        let Self { from, to, way, kernels } = self;
        let dense = from.is_dense() && to.is_dense();
        let (rows, count) = if dense { (1, to.height * to.width) } else { (to.height, to.width) };
        pool.run(images * to.blocks, &|task| {
            let (image, block) = (task / to.blocks, task % to.blocks);
            for y in 0..rows {
                // SAFETY: `new` has found the views to have equal sides; no two tasks have a block in common.
                unsafe {
                    let source = arena.at(from.at(image, block) + y * from.row);
                    let target = arena.at(to.at(image, block) + y * to.row);
                    match *way {
                        Way::Quantise(grid) => {
                            (kernels.quantise)(&Carry { floats: source, bytes: target.cast(), count, grid });
                        }
                        Way::Restore(grid) => {
                            (kernels.restore)(&Carry { floats: target, bytes: source.cast(), count, grid });
                        }
                        Way::Copy => target.copy_from_nonoverlapping(source, count * to.pixel),
                    }
                }
            }
        });
    }

    pub(crate) const fn describe(&self) -> &'static str {
        match self.way {
            Way::Quantise(_) => "quantise",
            Way::Restore(_) => "restore",
            Way::Copy => "copy",
        }
    }
}
