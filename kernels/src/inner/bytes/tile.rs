//! A few blocks of output channels by a few pixels, all sums in registers: four bytes of the reduction at a time.

use crate::lanes::Lanes;
use crate::lanes::bytes::Quads;

/// Steps of the reduction by which weights are asked for ahead.
const AHEAD: usize = 16;

/// Where a tile reads and writes. All distances are in bytes, but for those of sums.
#[derive(Clone, Copy)]
pub(crate) struct ByteTile<'a> {
    /// The input under the first tap of the first output.
    pub(crate) from: *const u8,
    /// `[input blocks][kernel rows][kernel columns][quads of the block][output blocks][lanes][4]`.
    pub(crate) weights: *const i8,
    /// What sums begin with: `[output blocks][lanes]`.
    pub(crate) start: *const i32,
    /// Where sums go as f32: `[output blocks][rows][columns][lanes]`, so many elements between blocks and between rows.
    pub(crate) sums: *mut f32,
    pub(crate) sums_block: usize,
    pub(crate) sums_row: usize,
    /// Fours of channels of each input block.
    pub(crate) quads: &'a [usize],
    pub(crate) kernel: [usize; 2],
    /// Between input blocks, taps above each other, taps beside each other, inputs of outputs below each other, and inputs of outputs
    /// beside each other.
    pub(crate) from_block: usize,
    pub(crate) from_tap_row: usize,
    pub(crate) from_tap_column: usize,
    pub(crate) from_row: usize,
    pub(crate) from_column: usize,
}

/// Computes `B` blocks by `R` rows by `W` columns; `S` is the distance between inputs of neighbouring outputs, or 0 to have it
/// from the tile. Sums of whole numbers: no order changes them.
///
/// # Safety
/// All that the tile describes can be read and written, and no one else does so meanwhile where it writes.
#[inline(always)]
pub(crate) unsafe fn tile<V: Quads, const B: usize, const R: usize, const W: usize, const S: usize>(
    tile: &ByteTile<'_>,
) {
    let lanes = V::Floats::COUNT;
    let step = if S == 0 { tile.from_column } else { S };
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let first = V::load(tile.start);
        let mut sums = [[[first; W]; R]; B];
        for block in 1..B {
            sums[block] = [[V::load(tile.start.add(block * lanes)); W]; R];
        }
        let (mut weights, mut from_block) = (tile.weights, tile.from);
        for quads in tile.quads {
            let mut from_row = from_block;
            for _ in 0..tile.kernel[0] {
                let mut from_tap = from_row;
                for _ in 0..tile.kernel[1] {
                    let mut from = from_tap;
                    for _ in 0..*quads {
                        let mut factors = [V::weights(weights); B];
                        for block in 0..B {
                            factors[block] = V::weights(weights.add(block * 4 * lanes));
                            V::Floats::prefetch(weights.wrapping_add((block + B * AHEAD) * 4 * lanes).cast());
                        }
                        for row in 0..R {
                            for column in 0..W {
                                let inputs = V::inputs(from.add(row * tile.from_row + column * step));
                                for block in 0..B {
                                    sums[block][row][column] = sums[block][row][column].dot(inputs, factors[block]);
                                }
                            }
                        }
                        weights = weights.add(B * 4 * lanes);
                        from = from.wrapping_add(4);
                    }
                    from_tap = from_tap.wrapping_add(tile.from_tap_column);
                }
                from_row = from_row.wrapping_add(tile.from_tap_row);
            }
            from_block = from_block.wrapping_add(tile.from_block);
        }
        // Written out in full: an index that is not known when compiled would put all sums into memory.
        for block in 0..B {
            for row in 0..R {
                for column in 0..W {
                    let to = tile.sums.add(block * tile.sums_block + row * tile.sums_row + column * lanes);
                    sums[block][row][column].floats().store(to);
                }
            }
        }
    }
}
