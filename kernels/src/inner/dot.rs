//! Four rows of a fully connected layer by one input: weights are read once and never again, so memory sets the pace.

use crate::lanes::Lanes;

/// Rows at a time.
pub(crate) const ROWS: usize = 4;

/// Where four dot products read and write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dot {
    /// `ROWS` rows of `length` elements.
    pub(crate) weights: *const f32,
    pub(crate) input: *const f32,
    /// `ROWS` sums.
    pub(crate) to: *mut f32,
    /// A multiple of the lanes.
    pub(crate) length: usize,
}

/// # Safety
/// All that is described can be read and written, and no one else does so meanwhile where it writes.
#[inline(always)]
pub(crate) unsafe fn dot<V: Lanes>(dot: &Dot) {
    let lanes = V::COUNT;
    // SAFETY: the caller vouches for the memory.
    unsafe {
        // Two sums a row: eight additions under way hide each other's latency.
        let mut sums = [[V::splat(0.0); 2]; ROWS];
        let pairs = dot.length / (2 * lanes);
        for pair in 0..pairs {
            let at = 2 * pair * lanes;
            let input = [V::load(dot.input.add(at)), V::load(dot.input.add(at + lanes))];
            for row in 0..ROWS {
                let weights = dot.weights.add(row * dot.length + at);
                sums[row][0] = V::load(weights).mul_add(input[0], sums[row][0]);
                sums[row][1] = V::load(weights.add(lanes)).mul_add(input[1], sums[row][1]);
            }
        }
        if dot.length > 2 * pairs * lanes {
            let at = 2 * pairs * lanes;
            let input = V::load(dot.input.add(at));
            for row in 0..ROWS {
                sums[row][0] = V::load(dot.weights.add(row * dot.length + at)).mul_add(input, sums[row][0]);
            }
        }
        for row in 0..ROWS {
            *dot.to.add(row) = sums[row][0].add(sums[row][1]).sum();
        }
    }
}
