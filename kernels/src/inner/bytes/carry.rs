//! Runs of f32 that become bytes, and of bytes that become f32.

use crate::grid::Grid;
use crate::inner::bytes::settle::{Line, within};
use crate::lanes::Lanes;
use crate::lanes::bytes::{Bytes, Quads};

/// A run of so many vectors: f32 on one side, bytes on the other.
#[derive(Clone, Copy)]
pub(crate) struct Carry {
    pub(crate) floats: *mut f32,
    pub(crate) bytes: *mut u8,
    pub(crate) count: usize,
    pub(crate) grid: Grid,
}

/// f32 become bytes.
///
/// # Safety
/// All that is described can be read and written, and no one else does so meanwhile where it writes.
#[inline(always)]
pub(crate) unsafe fn quantise<V: Quads>(run: &Carry) {
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let line = Line::to_write(run.grid);
        for at in (0..run.count).map(|place| place * V::Floats::COUNT) {
            within(line.place(V::Floats::load(run.floats.add(at)))).to_bytes(run.bytes.add(at));
        }
    }
}

/// Bytes become f32.
///
/// # Safety
/// As [`quantise`].
#[inline(always)]
pub(crate) unsafe fn restore<V: Quads>(run: &Carry) {
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let line = Line::to_read(run.grid);
        for at in (0..run.count).map(|place| place * V::Floats::COUNT) {
            line.number(V::Floats::of_bytes(run.bytes.add(at))).store(run.floats.add(at));
        }
    }
}
