//! Vectors repeated beside themselves: a row of an enlargement.

use crate::lanes::Lanes;

/// Where a row reads and writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repeat {
    pub(crate) from: *const f32,
    pub(crate) to: *mut f32,
    /// Vectors to read.
    pub(crate) columns: usize,
    /// How often each is written.
    pub(crate) times: usize,
}

/// # Safety
/// All that is described can be read and written, and no one else does so meanwhile where it writes.
#[inline(always)]
pub(crate) unsafe fn repeat<V: Lanes>(row: &Repeat) {
    for column in 0..row.columns {
        // SAFETY: the caller vouches for the memory.
        unsafe {
            let pixel = V::load(row.from.add(column * V::COUNT));
            for time in 0..row.times {
                pixel.store(row.to.add((column * row.times + time) * V::COUNT));
            }
        }
    }
}
