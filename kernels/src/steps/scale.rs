//! Each channel times a number of its own: the gate of a squeeze and excitation.

use crate::error::KernelError;
use crate::inner::scale;
use crate::inner::table::Kernels;
use crate::memory::Address;
use crate::steps::view::View;
use crate::threads::Pool;

#[derive(Debug)]
pub(crate) struct Scale {
    from: View,
    /// One pixel.
    factors: View,
    to: View,
    kernels: &'static Kernels,
}

impl Scale {
    pub(crate) fn new(from: View, factors: View, to: View, kernels: &'static Kernels) -> Result<Self, KernelError> {
        to.matches(&from)?;
        factors.matches(&View { height: 1, width: 1, ..from })?;
        if to.pixel != kernels.lanes {
            return Err(KernelError::Bounds);
        }
        Ok(Self { from, factors, to, kernels })
    }

    /// # Safety
    /// The views lie in `arena` for so many images, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, images: usize, pool: &mut Pool) {
        let Self { from, factors, to, kernels } = self;
        let (rows, count) =
            if from.is_dense() && to.is_dense() { (1, to.height * to.width) } else { (to.height, to.width) };
        pool.run(images * to.blocks, &|task| {
            let (image, block) = (task / to.blocks, task % to.blocks);
            for y in 0..rows {
                // SAFETY: `new` has found the views to have as many blocks and equal sides; no two tasks have a block in common.
                unsafe {
                    (kernels.scale)(&scale::Scale {
                        from: arena.at(from.at(image, block) + y * from.row),
                        factor: arena.at(factors.at(image, block)),
                        to: arena.at(to.at(image, block) + y * to.row),
                        count,
                    });
                }
            }
        });
    }
}
