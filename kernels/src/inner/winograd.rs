//! Winograd's transforms for 3 x 3 kernels: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015),
//! F(2 x 2, 3 x 3) with 16 products for 4 outputs (36 directly), F(4 x 4, 3 x 3) with 36 for 16 (144 directly).
//!
//! An input tile `d` becomes `B' d B`, products are summed over channels by the tile loop, and a sum `m` becomes `A' m A`.

use crate::inner::finish::Finish;
use crate::lanes::Lanes;

/// An input tile to transform: `A x A` pixels of one block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gather {
    /// The first pixel.
    pub(crate) from: *const f32,
    /// Elements between rows.
    pub(crate) from_row: usize,
    /// Rows and columns that are there; the others are zeros.
    pub(crate) there: [usize; 2],
    pub(crate) to: *mut f32,
    /// Elements between the places of a transformed tile.
    pub(crate) to_place: usize,
}

/// A tile of sums to transform back: to `(A - 2) x (A - 2)` pixels of one block.
#[derive(Clone, Copy)]
pub(crate) struct Scatter<'a> {
    pub(crate) from: *const f32,
    /// Elements between the places of a tile.
    pub(crate) from_place: usize,
    pub(crate) bias: *const f32,
    /// The first pixel.
    pub(crate) to: *mut f32,
    /// Elements between rows.
    pub(crate) to_row: usize,
    /// Rows and columns that are wanted.
    pub(crate) wanted: [usize; 2],
    /// The second operand of the finish, or null.
    pub(crate) other: *const f32,
    pub(crate) other_row: usize,
    pub(crate) finish: &'a Finish,
}

/// The matrix G of a tile size, row by row: kernels are transformed by it when they are packed.
pub(crate) const fn kernel_matrix(tile: usize) -> &'static [[f64; 3]] {
    match tile {
        2 => &[[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]],
        _ => &[
            [1.0 / 4.0, 0.0, 0.0],
            [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
            [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
            [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
            [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
            [0.0, 0.0, 1.0],
        ],
    }
}

/// One column or row of `B'`.
#[inline(always)]
unsafe fn forward<V: Lanes, const A: usize>(d: [V; A]) -> [V; A] {
    // SAFETY: that there are vectors vouches for the instructions.
    unsafe {
        let mut r = d;
        if A == 4 {
            r[0] = d[0].sub(d[2]);
            r[1] = d[1].add(d[2]);
            r[2] = d[2].sub(d[1]);
            r[3] = d[1].sub(d[3]);
        } else {
            let (two, four, five) = (V::splat(2.0), V::splat(4.0), V::splat(-5.0));
            let minus_four = V::splat(-4.0);
            r[0] = four.mul_add(d[0], five.mul_add(d[2], d[4]));
            let (even, odd) = (minus_four.mul_add(d[2], d[4]), minus_four.mul_add(d[1], d[3]));
            r[1] = even.add(odd);
            r[2] = even.sub(odd);
            let (even, odd) = (d[4].sub(d[2]), d[3].sub(d[1]).mul(two));
            r[3] = even.add(odd);
            r[4] = even.sub(odd);
            r[5] = four.mul_add(d[1], five.mul_add(d[3], d[5]));
        }
        r
    }
}

/// One column or row of `A'`; of the result the first `A - 2` count.
#[inline(always)]
unsafe fn back<V: Lanes, const A: usize>(m: [V; A]) -> [V; A] {
    // SAFETY: that there are vectors vouches for the instructions.
    unsafe {
        let mut r = m;
        if A == 4 {
            r[0] = m[0].add(m[1]).add(m[2]);
            r[1] = m[1].sub(m[2]).sub(m[3]);
        } else {
            let (two, four, eight) = (V::splat(2.0), V::splat(4.0), V::splat(8.0));
            let (near_sum, near_difference) = (m[1].add(m[2]), m[1].sub(m[2]));
            let (far_sum, far_difference) = (m[3].add(m[4]), m[3].sub(m[4]));
            r[0] = m[0].add(near_sum).add(far_sum);
            r[1] = two.mul_add(far_difference, near_difference);
            r[2] = four.mul_add(far_sum, near_sum);
            r[3] = eight.mul_add(far_difference, near_difference).add(m[5]);
        }
        r
    }
}

/// # Safety
/// All that the tile describes can be read and written, and no one else does so meanwhile where it writes.
#[inline(always)]
pub(crate) unsafe fn gather<V: Lanes, const A: usize>(tile: &Gather) {
    let lanes = V::COUNT;
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let zero = V::splat(0.0);
        let mut columns = [[zero; A]; A];
        let whole = tile.there[0] >= A && tile.there[1] >= A;
        for x in 0..A {
            let mut column = [zero; A];
            for (y, pixel) in column.iter_mut().enumerate() {
                if whole || (y < tile.there[0] && x < tile.there[1]) {
                    *pixel = V::load(tile.from.add(y * tile.from_row + x * lanes));
                }
            }
            columns[x] = forward::<V, A>(column);
        }
        for y in 0..A {
            let mut row = [zero; A];
            for (x, pixel) in row.iter_mut().enumerate() {
                *pixel = columns[x][y];
            }
            for (x, result) in forward::<V, A>(row).into_iter().enumerate() {
                result.store(tile.to.add((y * A + x) * tile.to_place));
            }
        }
    }
}

/// # Safety
/// As for [`gather`].
#[inline(always)]
pub(crate) unsafe fn scatter<V: Lanes, const A: usize>(tile: &Scatter<'_>) {
    let lanes = V::COUNT;
    let Finish { before, after, .. } = *tile.finish;
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let zero = V::splat(0.0);
        let mut columns = [[zero; A]; A];
        for x in 0..A {
            let mut column = [zero; A];
            for (y, sum) in column.iter_mut().enumerate() {
                *sum = V::load(tile.from.add((y * A + x) * tile.from_place));
            }
            columns[x] = back::<V, A>(column);
        }
        let bias = V::load(tile.bias);
        for y in 0..A - 2 {
            if y >= tile.wanted[0] {
                break;
            }
            let mut row = [zero; A];
            for (x, sum) in row.iter_mut().enumerate() {
                *sum = columns[x][y];
            }
            let row = back::<V, A>(row);
            for x in 0..A - 2 {
                if x < tile.wanted[1] {
                    let value = row[x].add(bias).activate(before);
                    let value = if tile.other.is_null() {
                        value
                    } else {
                        let other = V::load(tile.other.add(y * tile.other_row + x * lanes));
                        value.add(other).activate(after)
                    };
                    value.store(tile.to.add(y * tile.to_row + x * lanes));
                }
            }
        }
    }
}
