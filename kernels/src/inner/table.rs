//! The inner loops, compiled for each set of instructions.

use crate::inner::depthwise::DepthwiseRow;
use crate::inner::dot::Dot;
use crate::inner::finish::Combine;
use crate::inner::pool::{Mean, PoolRow};
use crate::inner::repeat::Repeat;
use crate::inner::scale::Scale;
use crate::inner::tile::{Tile, TileShape};
use crate::inner::winograd::{Gather, Scatter};
use crate::isa::Isa;

pub(crate) type TileFn = unsafe fn(&Tile<'_>);

/// The inner loops for one set of instructions. All of them need it; what else they need stands where they are defined.
pub(crate) struct Kernels {
    /// Elements of a vector, and channels of a block.
    pub(crate) lanes: usize,
    /// Most columns of a tile, for one and for two rows, by blocks of output channels from one on; 0 where there is none.
    pub(crate) widest: [&'static [usize]; 2],
    /// A tile, if it was compiled.
    pub(crate) tile: fn(TileShape) -> Option<TileFn>,
    pub(crate) combine: unsafe fn(&Combine),
    pub(crate) depthwise: unsafe fn(&DepthwiseRow<'_>),
    pub(crate) pool: unsafe fn(&PoolRow),
    pub(crate) mean: unsafe fn(&Mean),
    pub(crate) dot: unsafe fn(&Dot),
    pub(crate) repeat: unsafe fn(&Repeat),
    pub(crate) scale: unsafe fn(&Scale),
    /// Winograd's transforms for outputs of 2 x 2 and of 4 x 4.
    pub(crate) gather: [unsafe fn(&Gather); 2],
    pub(crate) scatter: [unsafe fn(&Scatter<'_>); 2],
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Kernels").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl Kernels {
    /// Those for a set of instructions, if the processor has it.
    pub(crate) fn of(isa: Isa) -> Option<&'static Self> {
        if !isa.is_available() {
            return None;
        }
        match isa {
            Isa::Portable => Some(&portable::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(&avx2::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(&avx512::KERNELS),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(&neon::KERNELS),
            #[allow(unreachable_patterns, reason = "on processors that have none of the others")]
            _ => None,
        }
    }

    /// Most columns of a tile of so many blocks and rows, with so many elements between inputs of neighbouring outputs; 0 where
    /// there is none.
    pub(crate) fn widest(&self, blocks: usize, rows: usize, step: usize) -> usize {
        let widest = self.widest[rows - 1].get(blocks - 1).copied().unwrap_or(0);
        let blocked = [self.lanes, 2 * self.lanes].contains(&step);
        match rows {
            1 if blocked || [1, 2].contains(&step) => widest,
            // Those that take any step.
            1 => widest.min(4),
            _ if blocked => widest,
            _ => 0,
        }
    }

    /// The tile for so many blocks, rows and columns.
    pub(crate) fn tile(&self, blocks: usize, rows: usize, columns: usize, step: usize) -> Option<TileFn> {
        let known = [1, 2, self.lanes, 2 * self.lanes].contains(&step);
        (self.tile)(TileShape { blocks, rows, columns, step: if known { step } else { 0 } })
    }

    /// Most blocks of output channels in a tile.
    pub(crate) fn most_blocks(&self) -> usize {
        self.widest[0].len()
    }
}

/// Tiles of one shape of blocks and rows, for each width.
macro_rules! widths {
    ($vector:ty, $shape:expr, $step:literal, $blocks:literal, $rows:literal, [$($width:literal)*]) => {
        match $shape.columns {
            $($width => Some(tile_of::<$blocks, $rows, $width, $step> as TileFn),)*
            _ => None,
        }
    };
}

/// A module with all loops for one set of instructions. `blocked` are the steps between pixels of blocked memory with strides 1
/// and 2; the registers set how wide a tile can be.
macro_rules! kernels {
    (
        $name:ident, $vector:ty, [$($feature:literal)?], blocked: [$next:literal $skip:literal],
        one_row: { $($blocks:literal: $widest:literal [$($width:literal)*],)* },
        two_rows: { $($blocks2:literal: $widest2:literal [$($width2:literal)*],)* },
        any: { $($blocks0:literal: [$($width0:literal)*],)* },
    ) => {
        pub(crate) mod $name {
            use crate::inner::depthwise::{self, DepthwiseRow};
            use crate::inner::dot::{self, Dot};
            use crate::inner::finish::{self, Combine};
            use crate::inner::pool::{self, Mean, PoolRow};
            use crate::inner::repeat::{self, Repeat};
            use crate::inner::scale::{self, Scale};
            use crate::inner::table::{Kernels, TileFn};
            use crate::inner::tile::{self, Tile, TileShape};
            use crate::inner::winograd::{self, Gather, Scatter};

            pub(crate) static KERNELS: Kernels = Kernels {
                lanes: $next,
                widest: [&[$($widest),*], &[$($widest2),*]],
                tile,
                combine,
                depthwise,
                pool,
                mean,
                dot,
                repeat,
                scale,
                gather: [gather::<4>, gather::<6>],
                scatter: [scatter::<4>, scatter::<6>],
            };

            fn tile(shape: TileShape) -> Option<TileFn> {
                match (shape.blocks, shape.rows, shape.step) {
                    $(($blocks, 1, $next) => widths!($vector, shape, $next, $blocks, 1, [$($width)*]),)*
                    $(($blocks, 1, $skip) => widths!($vector, shape, $skip, $blocks, 1, [$($width)*]),)*
                    $(($blocks, 1, 1) => widths!($vector, shape, 1, $blocks, 1, [$($width)*]),)*
                    $(($blocks, 1, 2) => widths!($vector, shape, 2, $blocks, 1, [$($width)*]),)*
                    $(($blocks2, 2, $next) => widths!($vector, shape, $next, $blocks2, 2, [$($width2)*]),)*
                    $(($blocks2, 2, $skip) => widths!($vector, shape, $skip, $blocks2, 2, [$($width2)*]),)*
                    $(($blocks0, 1, 0) => widths!($vector, shape, 0, $blocks0, 1, [$($width0)*]),)*
                    _ => None,
                }
            }

            // SAFETY of all of these: who calls them has found the processor to have the instructions, and vouches for the
            // memory.
            $(#[target_feature(enable = $feature)])?
            unsafe fn tile_of<const B: usize, const R: usize, const W: usize, const S: usize>(tile: &Tile<'_>) {
                // SAFETY: see above.
                unsafe { tile::tile::<$vector, B, R, W, S>(tile) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn combine(run: &Combine) {
                // SAFETY: see above.
                unsafe { finish::combine::<$vector>(run) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn depthwise(row: &DepthwiseRow<'_>) {
                // SAFETY: see above.
                unsafe { depthwise::row::<$vector>(row) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn pool(row: &PoolRow) {
                // SAFETY: see above.
                unsafe { pool::row::<$vector>(row) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn mean(plane: &Mean) {
                // SAFETY: see above.
                unsafe { pool::mean::<$vector>(plane) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn dot(dot: &Dot) {
                // SAFETY: see above.
                unsafe { dot::dot::<$vector>(dot) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn repeat(row: &Repeat) {
                // SAFETY: see above.
                unsafe { repeat::repeat::<$vector>(row) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn scale(run: &Scale) {
                // SAFETY: see above.
                unsafe { scale::scale::<$vector>(run) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn gather<const A: usize>(tile: &Gather) {
                // SAFETY: see above.
                unsafe { winograd::gather::<$vector, A>(tile) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn scatter<const A: usize>(tile: &Scatter<'_>) {
                // SAFETY: see above.
                unsafe { winograd::scatter::<$vector, A>(tile) }
            }
        }
    };
}

// Thirty-two registers: up to 28 sums, the weights of up to four blocks, and inputs straight from memory.
#[cfg(target_arch = "x86_64")]
kernels! {
    avx512, crate::lanes::avx512::Avx512, ["avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"], blocked: [16 32],
    one_row: {
        1: 14 [1 2 3 4 5 6 7 8 9 10 11 12 13 14],
        2: 14 [1 2 3 4 5 6 7 8 9 10 11 12 13 14],
        3: 9 [1 2 3 4 5 6 7 8 9],
        4: 6 [1 2 3 4 5 6],
    },
    two_rows: { 1: 7 [1 2 3 4 5 6 7], 2: 7 [1 2 3 4 5 6 7], 3: 4 [1 2 3 4], 4: 3 [1 2 3], },
    any: { 1: [1 2 3 4], 2: [1 2 3 4], 3: [1 2 3 4], 4: [1 2 3 4], },
}

// Sixteen registers.
#[cfg(target_arch = "x86_64")]
kernels! {
    avx2, crate::lanes::avx2::Avx2, ["avx2,fma"], blocked: [8 16],
    one_row: { 1: 12 [1 2 3 4 5 6 7 8 9 10 11 12], 2: 6 [1 2 3 4 5 6], 3: 4 [1 2 3 4], 4: 3 [1 2 3], },
    two_rows: { 1: 6 [1 2 3 4 5 6], 2: 3 [1 2 3], 3: 2 [1 2], },
    any: { 1: [1 2 3 4], 2: [1 2 3 4], 3: [1 2 3 4], 4: [1 2 3], },
}

// Thirty-two registers.
#[cfg(target_arch = "aarch64")]
kernels! {
    neon, crate::lanes::neon::Neon, ["neon"], blocked: [4 8],
    one_row: {
        1: 14 [1 2 3 4 5 6 7 8 9 10 11 12 13 14],
        2: 12 [1 2 3 4 5 6 7 8 9 10 11 12],
        3: 8 [1 2 3 4 5 6 7 8],
        4: 6 [1 2 3 4 5 6],
    },
    two_rows: { 1: 7 [1 2 3 4 5 6 7], 2: 6 [1 2 3 4 5 6], 3: 4 [1 2 3 4], 4: 3 [1 2 3], },
    any: { 1: [1 2 3 4], 2: [1 2 3 4], 3: [1 2 3 4], 4: [1 2 3 4], },
}

// As few registers as SSE2 has: sixteen.
kernels! {
    portable, crate::lanes::portable::Portable, [], blocked: [4 8],
    one_row: { 1: 10 [1 2 3 4 5 6 7 8 9 10], 2: 6 [1 2 3 4 5 6], 3: 4 [1 2 3 4], },
    two_rows: { 1: 5 [1 2 3 4 5], 2: 3 [1 2 3], },
    any: { 1: [1 2 3 4], 2: [1 2 3 4], 3: [1 2 3 4], },
}
