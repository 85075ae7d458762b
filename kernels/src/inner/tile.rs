//! The loop that nearly all time is spent in: a few blocks of output channels by a few pixels, all sums in registers.

use crate::inner::finish::{Combine, Finish, bounded, bounds};
use crate::lanes::Lanes;

/// Steps of the reduction by which weights are asked for ahead: about the latency of a cache's next level.
const AHEAD: usize = 24;

/// Which of the compiled tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TileShape {
    /// Blocks of output channels.
    pub(crate) blocks: usize,
    /// Rows of outputs.
    pub(crate) rows: usize,
    /// Columns of outputs.
    pub(crate) columns: usize,
    /// Elements between the inputs of neighbouring outputs.
    pub(crate) step: usize,
}

/// Where a tile reads and writes.
#[derive(Clone, Copy)]
pub(crate) struct Tile<'a> {
    /// The input under the first tap of the first output.
    pub(crate) from: *const f32,
    /// `[input blocks][kernel rows][kernel columns][channels of the block][output blocks][lanes]`.
    pub(crate) weights: *const f32,
    /// `[output blocks][lanes]`.
    pub(crate) bias: *const f32,
    pub(crate) to: *mut f32,
    /// The second operand of the finish, or null.
    pub(crate) other: *const f32,
    /// Channels of each input block.
    pub(crate) channels: &'a [usize],
    pub(crate) kernel: [usize; 2],
    /// Elements between input blocks, taps above each other, taps beside each other, channels of a block, inputs of outputs below
    /// each other, and inputs of outputs beside each other.
    pub(crate) from_block: usize,
    pub(crate) from_tap_row: usize,
    pub(crate) from_tap_column: usize,
    pub(crate) from_channel: usize,
    pub(crate) from_row: usize,
    pub(crate) from_column: usize,
    /// Elements between output blocks, and between output rows.
    pub(crate) to_block: usize,
    pub(crate) to_row: usize,
    pub(crate) other_block: usize,
    pub(crate) other_row: usize,
    /// Weights that are needed after these, and how many of their elements to ask for at each step of the reduction: memory is
    /// slower than a tile, and so has the time of all tiles with these weights.
    pub(crate) later: *const f32,
    pub(crate) later_step: usize,
    /// Elements from the input of this tile to that of the next one, which is asked for meanwhile.
    pub(crate) ahead: usize,
    pub(crate) finish: &'a Finish,
    /// Finishes what is more than bounds, from memory.
    pub(crate) combine: unsafe fn(&Combine),
}

/// Computes `B` blocks by `R` rows by `W` columns; `S` is the distance between inputs of neighbouring outputs, or 0 to have it
/// from the tile.
///
/// Each result is `bias`, and then one multiplication after another in the order of the weights, whatever the tile's size: no
/// choice of tiles changes a bit.
///
/// # Safety
/// All that the tile describes can be read and written, and no one else does so meanwhile where it writes.
#[inline(always)]
pub(crate) unsafe fn tile<V: Lanes, const B: usize, const R: usize, const W: usize, const S: usize>(tile: &Tile<'_>) {
    let lanes = V::COUNT;
    let step = if S == 0 { tile.from_column } else { S };
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let mut sums = [[[V::splat(0.0); W]; R]; B];
        for block in 0..B {
            let bias = V::load(tile.bias.add(block * lanes));
            for row in 0..R {
                for column in 0..W {
                    sums[block][row][column] = bias;
                }
            }
        }
        let (mut weights, mut later) = (tile.weights, tile.later);
        let mut from_block = tile.from;
        for channels in tile.channels {
            let mut from_row = from_block;
            for _ in 0..tile.kernel[0] {
                let mut from_tap = from_row;
                let mut ahead = from_row.wrapping_add(tile.ahead);
                for _ in 0..tile.kernel[1] {
                    let mut from = from_tap;
                    for _ in 0..*channels {
                        let mut factors = [V::splat(0.0); B];
                        for block in 0..B {
                            factors[block] = V::load(weights.add(block * lanes));
                            V::prefetch(weights.wrapping_add((block + B * AHEAD) * lanes));
                        }
                        for row in 0..R {
                            for column in 0..W {
                                let element = V::splat(*from.add(row * tile.from_row + column * step));
                                for block in 0..B {
                                    sums[block][row][column] =
                                        factors[block].mul_add(element, sums[block][row][column]);
                                }
                            }
                        }
                        V::prefetch(ahead);
                        ahead = ahead.wrapping_add(lanes);
                        V::prefetch_far(later);
                        later = later.wrapping_add(tile.later_step);
                        weights = weights.add(B * lanes);
                        from = from.wrapping_add(tile.from_channel);
                    }
                    from_tap = from_tap.wrapping_add(tile.from_tap_column);
                }
                from_row = from_row.wrapping_add(tile.from_tap_row);
            }
            from_block = from_block.wrapping_add(tile.from_block);
        }
        store::<V, B, R, W>(tile, &sums);
    }
}

/// How sums are finished on their way to memory: not at all, by a lower bound, by both bounds, or with the second operand.
const PLAIN: u8 = 0;
const FLOOR: u8 = 1;
const BOUNDS: u8 = 2;
const OTHER: u8 = 3;

/// Stores all sums. Each case is written out: bounds that bound nothing take as long as others, and where little is summed up that
/// counts.
#[inline(always)]
unsafe fn store<V: Lanes, const B: usize, const R: usize, const W: usize>(tile: &Tile<'_>, sums: &[[[V; W]; R]; B]) {
    // SAFETY: the caller vouches for the memory.
    unsafe {
        match tile.finish.bounds {
            None => {
                each::<V, B, R, W, PLAIN>(tile, sums);
                combine::<V, B, R, W>(tile);
            }
            Some(_) if !tile.other.is_null() => each::<V, B, R, W, OTHER>(tile, sums),
            Some([[f32::NEG_INFINITY, f32::INFINITY], _]) => each::<V, B, R, W, PLAIN>(tile, sums),
            Some([[_, f32::INFINITY], _]) => each::<V, B, R, W, FLOOR>(tile, sums),
            Some(_) => each::<V, B, R, W, BOUNDS>(tile, sums),
        }
    }
}

/// Written out in full: an index that is not known when compiled would put all sums into memory.
#[inline(always)]
unsafe fn each<V: Lanes, const B: usize, const R: usize, const W: usize, const HOW: u8>(
    tile: &Tile<'_>,
    sums: &[[[V; W]; R]; B],
) {
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let bounds = bounds::<V>(tile.finish);
        for block in 0..B {
            for row in 0..R {
                for column in 0..W {
                    let sum = sums[block][row][column];
                    let value = match HOW {
                        PLAIN => sum,
                        FLOOR => sum.at_least(bounds[0][0]),
                        BOUNDS => bounded(sum, &bounds, std::ptr::null()),
                        _ => {
                            let at = block * tile.other_block + row * tile.other_row + column * V::COUNT;
                            bounded(sum, &bounds, tile.other.add(at))
                        }
                    };
                    value.store(tile.to.add(block * tile.to_block + row * tile.to_row + column * V::COUNT));
                }
            }
        }
    }
}

/// Finishes all sums from where they were stored.
#[inline(always)]
unsafe fn combine<V: Lanes, const B: usize, const R: usize, const W: usize>(tile: &Tile<'_>) {
    for block in 0..B {
        for row in 0..R {
            // SAFETY: the caller vouches for the memory.
            unsafe {
                let to = tile.to.add(block * tile.to_block + row * tile.to_row);
                let other = if tile.other.is_null() {
                    tile.other
                } else {
                    tile.other.add(block * tile.other_block + row * tile.other_row)
                };
                (tile.combine)(&Combine { from: to, other, to, count: W, finish: *tile.finish });
            }
        }
    }
}
