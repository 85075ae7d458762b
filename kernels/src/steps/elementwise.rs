//! One value, or the sum of two, with activations: what is left where nothing could be fused. Also a plain copy.

use std::ptr;

use crate::error::KernelError;
use crate::inner::finish::{Combine, Finish};
use crate::inner::table::Kernels;
use crate::memory::Address;
use crate::steps::view::View;
use crate::threads::Pool;

#[derive(Debug)]
pub(crate) struct Elementwise {
    from: View,
    other: Option<View>,
    to: View,
    finish: Finish,
    kernels: &'static Kernels,
}

impl Elementwise {
    pub(crate) fn new(
        from: View,
        other: Option<View>,
        to: View,
        finish: Finish,
        kernels: &'static Kernels,
    ) -> Result<Self, KernelError> {
        to.matches(&from)?;
        if let Some(other) = &other {
            to.matches(other)?;
        }
        if to.pixel != kernels.lanes {
            return Err(KernelError::Bounds);
        }
        Ok(Self { from, other, to, finish, kernels })
    }

    /// # Safety
    /// The views lie in `arena` for so many images, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, images: usize, pool: &mut Pool) {
        let Self { from, other, to, finish, kernels } = self;
        let dense = from.is_dense() && to.is_dense() && other.as_ref().is_none_or(View::is_dense);
        let (rows, count) = if dense { (1, to.height * to.width) } else { (to.height, to.width) };
        pool.run(images * to.blocks, &|task| {
            let (image, block) = (task / to.blocks, task % to.blocks);
            for y in 0..rows {
                // SAFETY: `new` has found the views to have equal sides; no two tasks have a block in common.
                unsafe {
                    let other = other
                        .map_or(ptr::null(), |other| arena.at(other.at(image, block) + y * other.row).cast_const());
                    (kernels.combine)(&Combine {
                        from: arena.at(from.at(image, block) + y * from.row),
                        other,
                        to: arena.at(to.at(image, block) + y * to.row),
                        count,
                        finish: *finish,
                    });
                }
            }
        });
    }
}
