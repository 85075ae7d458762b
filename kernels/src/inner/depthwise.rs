//! One row of a depthwise convolution, one block of channels.

use crate::inner::finish::{Combine, Finish, bounded, bounds};
use crate::lanes::Lanes;

/// Where a row reads and writes.
#[derive(Clone, Copy)]
pub(crate) struct DepthwiseRow<'a> {
    /// The input under the first tap of the first output.
    pub(crate) from: *const f32,
    /// `[kernel rows][kernel columns][lanes]`.
    pub(crate) weights: *const f32,
    /// `[lanes]`.
    pub(crate) bias: *const f32,
    pub(crate) to: *mut f32,
    /// The second operand of the finish, or null.
    pub(crate) other: *const f32,
    /// Outputs.
    pub(crate) columns: usize,
    pub(crate) kernel: [usize; 2],
    /// Elements between taps above each other.
    pub(crate) tap_row: usize,
    /// Pixels between taps beside each other.
    pub(crate) dilation: usize,
    /// Pixels between inputs of neighbouring outputs.
    pub(crate) stride: usize,
    pub(crate) finish: &'a Finish,
    /// Finishes what is more than bounds, from memory.
    pub(crate) combine: unsafe fn(&Combine),
}

/// Computes the row: common windows from registers, any other one tap by tap. Each result is `bias`, and then one
/// multiplication after another, row by row: both ways give the same bits.
///
/// # Safety
/// All that the row describes can be read and written, and no one else does so meanwhile where it writes.
#[inline(always)]
pub(crate) unsafe fn row<V: Lanes>(row: &DepthwiseRow<'_>) {
    // SAFETY: the caller vouches for the memory.
    unsafe {
        match (row.kernel[1], row.stride, row.dilation) {
            (3, 1, 1) => several::<V, 3, 1, 7, 9>(row),
            (3, 2, 1) => several::<V, 3, 2, 4, 9>(row),
            (5, 1, 1) => several::<V, 5, 1, 4, 8>(row),
            (5, 2, 1) => several::<V, 5, 2, 4, 11>(row),
            _ => singly::<V>(row, 0),
        }
        if row.finish.bounds.is_none() {
            let DepthwiseRow { to, other, columns, finish, .. } = *row;
            (row.combine)(&Combine { from: to, other, to, count: columns, finish: *finish });
        }
    }
}

/// `T` outputs at once, for which `C = (T - 1) * S + K` inputs of a row lie in registers; what is left over singly.
#[inline(always)]
unsafe fn several<V: Lanes, const K: usize, const S: usize, const T: usize, const C: usize>(row: &DepthwiseRow<'_>) {
    let lanes = V::COUNT;
    let whole = row.columns / T * T;
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let bias = V::load(row.bias);
        let bounds = bounds::<V>(row.finish);
        let mut x = 0;
        while x < whole {
            let mut sums = [bias; T];
            let mut from = row.from.add(x * S * lanes);
            let mut weights = row.weights;
            for _ in 0..row.kernel[0] {
                let mut inputs = [bias; C];
                for (place, input) in inputs.iter_mut().enumerate() {
                    *input = V::load(from.add(place * lanes));
                }
                for tap in 0..K {
                    let weight = V::load(weights.add(tap * lanes));
                    for (output, sum) in sums.iter_mut().enumerate() {
                        *sum = weight.mul_add(inputs[output * S + tap], *sum);
                    }
                }
                weights = weights.add(K * lanes);
                from = from.wrapping_add(row.tap_row);
            }
            for (output, sum) in sums.iter().enumerate() {
                finish(row, *sum, &bounds, x + output);
            }
            x += T;
        }
        singly::<V>(row, whole);
    }
}

/// One output after another, from the output `first` on.
#[inline(always)]
unsafe fn singly<V: Lanes>(row: &DepthwiseRow<'_>, first: usize) {
    let lanes = V::COUNT;
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let bias = V::load(row.bias);
        let bounds = bounds::<V>(row.finish);
        for x in first..row.columns {
            let from = row.from.add(x * row.stride * lanes);
            let mut sum = bias;
            for tap_y in 0..row.kernel[0] {
                for tap_x in 0..row.kernel[1] {
                    let weight = V::load(row.weights.add((tap_y * row.kernel[1] + tap_x) * lanes));
                    let input = V::load(from.add(tap_y * row.tap_row + tap_x * row.dilation * lanes));
                    sum = weight.mul_add(input, sum);
                }
            }
            finish(row, sum, &bounds, x);
        }
    }
}

/// Stores one result; where its finish is more than bounds, as a sum.
#[inline(always)]
unsafe fn finish<V: Lanes>(row: &DepthwiseRow<'_>, sum: V, bounds: &[[V; 2]; 2], x: usize) {
    let at = x * V::COUNT;
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let deferred = row.finish.bounds.is_none();
        let other = if deferred || row.other.is_null() { std::ptr::null() } else { row.other.add(at) };
        bounded(sum, bounds, other).store(row.to.add(at));
    }
}
