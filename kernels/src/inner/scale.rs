//! A run of vectors times one vector: each channel of a block by a number of its own.

use crate::lanes::Lanes;

/// Where a run reads and writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) from: *const f32,
    /// One vector.
    pub(crate) factor: *const f32,
    pub(crate) to: *mut f32,
    /// Vectors.
    pub(crate) count: usize,
}

/// # Safety
/// `count` vectors can be read from `from`, one from `factor`, and `count` be written to `to`; no one else does so meanwhile where it
/// writes.
#[inline(always)]
pub(crate) unsafe fn scale<V: Lanes>(run: &Scale) {
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let factor = V::load(run.factor);
        for place in 0..run.count {
            let at = place * V::COUNT;
            V::load(run.from.add(at)).mul(factor).store(run.to.add(at));
        }
    }
}
