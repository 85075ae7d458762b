//! Enlargement by whole numbers.

use crate::error::KernelError;
use crate::inner::repeat::Repeat;
use crate::inner::table::Kernels;
use crate::memory::Address;
use crate::steps::view::View;
use crate::threads::Pool;

#[derive(Debug)]
pub(crate) struct Upsample {
    from: View,
    to: View,
    factor: [usize; 2],
    kernels: &'static Kernels,
}

impl Upsample {
    pub(crate) fn new(
        from: View,
        to: View,
        factor: [usize; 2],
        kernels: &'static Kernels,
    ) -> Result<Self, KernelError> {
        let enlarged = View { height: from.height * factor[0], width: from.width * factor[1], ..from };
        to.matches(&enlarged)?;
        if to.pixel != kernels.lanes {
            return Err(KernelError::Bounds);
        }
        Ok(Self { from, to, factor, kernels })
    }

    /// # Safety
    /// The views lie in `arena` for so many images, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, images: usize, pool: &mut Pool) {
        let Self { from, to, factor, kernels } = self;
        pool.run(images * to.blocks, &|task| {
            let (image, block) = (task / to.blocks, task % to.blocks);
            for y in 0..to.height {
                // SAFETY: `new` has found `to` to be as many times larger; no two tasks have a block in common.
                unsafe {
                    (kernels.repeat)(&Repeat {
                        from: arena.at(from.at(image, block) + y / factor[0] * from.row),
                        to: arena.at(to.at(image, block) + y * to.row),
                        columns: from.width,
                        times: factor[1],
                    });
                }
            }
        });
    }
}
