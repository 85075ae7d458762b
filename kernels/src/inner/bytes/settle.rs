//! What becomes of sums: numbers, activations, a second operand, and bytes again.

use crate::grid::Grid;
use crate::inner::finish::{Finish, bounds};
use crate::lanes::Lanes;
use crate::lanes::bytes::{Bytes, Quads};

/// The second operand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Other {
    None,
    Floats(*const f32),
    Bytes(*const u8, Grid),
}

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    Floats(*mut f32),
    Bytes(*mut u8, Grid),
}

/// A row of sums of one block of channels.
#[derive(Clone, Copy)]
pub(crate) struct Settle<'a> {
    pub(crate) sums: *const f32,
    /// What one of each channel's sums stands for, and its bias: `[lanes]`.
    pub(crate) steps: *const f32,
    pub(crate) bias: *const f32,
    pub(crate) other: Other,
    pub(crate) to: Target,
    /// Pixels.
    pub(crate) count: usize,
    pub(crate) finish: &'a Finish,
}

/// A grid in vectors.
#[derive(Clone, Copy)]
pub(crate) struct Line<V> {
    /// The step to read by, or one by it to write by.
    factor: V,
    zero: V,
}

impl<V: Lanes> Line<V> {
    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    pub(crate) unsafe fn to_read(grid: Grid) -> Self {
        // SAFETY: the caller vouches for the instructions.
        unsafe { Self { factor: V::splat(grid.step()), zero: V::splat(f32::from(grid.zero())) } }
    }

    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    pub(crate) unsafe fn to_write(grid: Grid) -> Self {
        // SAFETY: the caller vouches for the instructions.
        unsafe { Self { factor: V::splat(grid.inverse()), zero: V::splat(f32::from(grid.zero())) } }
    }

    /// The numbers that bytes stand for.
    #[inline(always)]
    pub(crate) fn number(&self, byte: V) -> V {
        byte.sub(self.zero).mul(self.factor)
    }

    /// Where on the grid a number lies.
    #[inline(always)]
    pub(crate) fn place(&self, number: V) -> V {
        number.mul(self.factor).add(self.zero)
    }
}

/// # Safety
/// All that is described can be read and written, and no one else does so meanwhile where it writes.
#[inline(always)]
pub(crate) unsafe fn settle<V: Quads>(row: &Settle<'_>) {
    const NONE: u8 = 0;
    const FLOATS: u8 = 1;
    const BYTES: u8 = 2;
    // SAFETY: the caller vouches for the memory.
    unsafe {
        if row.finish.bounds.is_none() {
            return general::<V>(row);
        }
        match (row.other, row.to) {
            (Other::None, Target::Floats(_)) => bounded::<V, NONE, false>(row),
            (Other::None, Target::Bytes(..)) => bounded::<V, NONE, true>(row),
            (Other::Floats(_), Target::Floats(_)) => bounded::<V, FLOATS, false>(row),
            (Other::Floats(_), Target::Bytes(..)) => bounded::<V, FLOATS, true>(row),
            (Other::Bytes(..), Target::Floats(_)) => bounded::<V, BYTES, false>(row),
            (Other::Bytes(..), Target::Bytes(..)) => bounded::<V, BYTES, true>(row),
        }
    }
}

/// Where both activations are bounds. The last bounds before bytes are those of the bytes: placing numbers keeps their order, so
/// that it makes no difference which of both is done first.
///
/// # Safety
/// As [`settle`]; the kinds are those of the row.
#[inline(always)]
unsafe fn bounded<V: Quads, const OTHER: u8, const BYTES: bool>(row: &Settle<'_>) {
    let lanes = V::Floats::COUNT;
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let [before, after] = bounds::<V::Floats>(row.finish);
        let (steps, bias) = (V::Floats::load(row.steps), V::Floats::load(row.bias));
        let (other, other_line) = match row.other {
            Other::Bytes(bytes, grid) => (bytes, Line::to_read(grid)),
            Other::Floats(floats) => (floats.cast(), Line { factor: bias, zero: bias }),
            Other::None => (std::ptr::null(), Line { factor: bias, zero: bias }),
        };
        let (floats, bytes, line) = match row.to {
            Target::Floats(floats) => (floats, std::ptr::null_mut(), Line { factor: bias, zero: bias }),
            Target::Bytes(bytes, grid) => (std::ptr::null_mut(), bytes, Line::to_write(grid)),
        };
        let last = if OTHER == 0 { before } else { after };
        let [low, high] = last.map(|bound| within(line.place(bound)));
        for pixel in 0..row.count {
            let at = pixel * lanes;
            let mut value = V::Floats::load(row.sums.add(at)).mul(steps).add(bias);
            if OTHER > 0 {
                let other = if OTHER == 1 {
                    V::Floats::load(other.cast::<f32>().add(at))
                } else {
                    other_line.number(V::Floats::of_bytes(other.add(at)))
                };
                value = value.at_least(before[0]).at_most(before[1]).add(other);
            }
            if BYTES {
                line.place(value).at_least(low).at_most(high).to_bytes(bytes.add(at));
            } else {
                value.at_least(last[0]).at_most(last[1]).store(floats.add(at));
            }
        }
    }
}

/// Whatever the activations are.
///
/// # Safety
/// As [`settle`].
#[inline(always)]
unsafe fn general<V: Quads>(row: &Settle<'_>) {
    let Finish { before, after, .. } = *row.finish;
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let (steps, bias) = (V::Floats::load(row.steps), V::Floats::load(row.bias));
        for pixel in 0..row.count {
            let at = pixel * V::Floats::COUNT;
            let value = V::Floats::load(row.sums.add(at)).mul(steps).add(bias).activate(before);
            let value = match row.other {
                Other::None => value,
                Other::Floats(other) => value.add(V::Floats::load(other.add(at))).activate(after),
                Other::Bytes(other, grid) => {
                    let other = Line::to_read(grid).number(V::Floats::of_bytes(other.add(at)));
                    value.add(other).activate(after)
                }
            };
            match row.to {
                Target::Floats(to) => value.store(to.add(at)),
                Target::Bytes(to, grid) => within(Line::to_write(grid).place(value)).to_bytes(to.add(at)),
            }
        }
    }
}

/// Cut off where bytes end.
///
/// # Safety
/// The processor has the instructions.
#[inline(always)]
pub(crate) unsafe fn within<V: Lanes>(place: V) -> V {
    // SAFETY: the caller vouches for the instructions.
    unsafe { place.at_least(V::splat(0.0)).at_most(V::splat(255.0)) }
}
