//! The inner loops over bytes, compiled for each set of instructions.

use crate::inner::bytes::carry::Carry;
use crate::inner::bytes::pool::BytePoolRow;
use crate::inner::bytes::settle::Settle;
use crate::inner::bytes::tile::ByteTile;
use crate::inner::tile::TileShape;
use crate::isa::Isa;

pub(crate) type ByteTileFn = unsafe fn(&ByteTile<'_>);

/// The inner loops for one set of instructions. All of them need it; what else they need stands where they are defined.
pub(crate) struct ByteKernels {
    /// Bytes of a pixel of a block, and channels of it.
    pub(crate) lanes: usize,
    /// Most columns of a tile, for one and for two rows, by blocks of output channels from one on; 0 where there is none.
    widest: [&'static [usize]; 2],
    tile: fn(TileShape) -> Option<ByteTileFn>,
    pub(crate) settle: unsafe fn(&Settle<'_>),
    pub(crate) pool: unsafe fn(&BytePoolRow),
    pub(crate) quantise: unsafe fn(&Carry),
    pub(crate) restore: unsafe fn(&Carry),
}

impl std::fmt::Debug for ByteKernels {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ByteKernels").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl ByteKernels {
    /// Those for a set of instructions, which the processor has; by VNNI, if it has that, too.
    pub(crate) fn of(isa: Isa) -> &'static Self {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if is_x86_feature_detected!("avx512vnni") => &vnni512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &pairs512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if is_x86_feature_detected!("avxvnni") => &vnni256::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &pairs256::KERNELS,
            _ => &plain::KERNELS,
        }
    }

    /// Most columns of a tile of so many blocks and rows, with so many bytes between inputs of neighbouring outputs; 0 where
    /// there is none.
    pub(crate) fn widest(&self, blocks: usize, rows: usize, step: usize) -> usize {
        let widest = self.widest[rows - 1].get(blocks - 1).copied().unwrap_or(0);
        match rows {
            _ if [self.lanes, 2 * self.lanes].contains(&step) => widest,
            // Those that take any step.
            1 => widest.min(2),
            _ => 0,
        }
    }

    /// The tile for so many blocks, rows and columns.
    pub(crate) fn tile(&self, blocks: usize, rows: usize, columns: usize, step: usize) -> Option<ByteTileFn> {
        let known = [self.lanes, 2 * self.lanes].contains(&step);
        (self.tile)(TileShape { blocks, rows, columns, step: if known { step } else { 0 } })
    }

    /// Most blocks of output channels in a tile.
    pub(crate) fn most_blocks(&self) -> usize {
        self.widest[0].len()
    }
}

/// Tiles of one shape of blocks and rows, for each width.
macro_rules! widths {
    ($shape:expr, $step:literal, $blocks:literal, $rows:literal, [$($width:literal)*]) => {
        match $shape.columns {
            $($width => Some(tile_of::<$blocks, $rows, $width, $step> as ByteTileFn),)*
            _ => None,
        }
    };
}

/// A module with all loops for one set of instructions. `blocked` are the steps between pixels with strides 1 and 2; the registers
/// set how wide a tile can be.
macro_rules! kernels {
    (
        $name:ident, $vector:ty, [$($feature:literal)?], blocked: [$next:literal $skip:literal],
        one_row: { $($blocks:literal: $widest:literal [$($width:literal)*],)* },
        two_rows: { $($blocks2:literal: $widest2:literal [$($width2:literal)*],)* },
    ) => {
        pub(crate) mod $name {
            use crate::inner::bytes::carry::{self, Carry};
            use crate::inner::bytes::pool::{self, BytePoolRow};
            use crate::inner::bytes::settle::{self, Settle};
            use crate::inner::bytes::table::{ByteKernels, ByteTileFn};
            use crate::inner::bytes::tile::{self, ByteTile};
            use crate::inner::tile::TileShape;

            pub(crate) static KERNELS: ByteKernels = ByteKernels {
                lanes: $next,
                widest: [&[$($widest),*], &[$($widest2),*]],
                tile,
                settle,
                pool,
                quantise,
                restore,
            };

            fn tile(shape: TileShape) -> Option<ByteTileFn> {
                match (shape.blocks, shape.rows, shape.step) {
                    $(($blocks, 1, $next) => widths!(shape, $next, $blocks, 1, [$($width)*]),)*
                    $(($blocks, 1, $skip) => widths!(shape, $skip, $blocks, 1, [$($width)*]),)*
                    $(($blocks2, 2, $next) => widths!(shape, $next, $blocks2, 2, [$($width2)*]),)*
                    $(($blocks2, 2, $skip) => widths!(shape, $skip, $blocks2, 2, [$($width2)*]),)*
                    $(($blocks, 1, 0) => widths!(shape, 0, $blocks, 1, [1 2]),)*
                    _ => None,
                }
            }

            // SAFETY of all of these: who calls them has found the processor to have the instructions, and vouches for the
            // memory.
            $(#[target_feature(enable = $feature)])?
            unsafe fn tile_of<const B: usize, const R: usize, const W: usize, const S: usize>(tile: &ByteTile<'_>) {
                // SAFETY: see above.
                unsafe { tile::tile::<$vector, B, R, W, S>(tile) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn settle(row: &Settle<'_>) {
                // SAFETY: see above.
                unsafe { settle::settle::<$vector>(row) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn pool(row: &BytePoolRow) {
                // SAFETY: see above.
                unsafe { pool::row::<$next>(row) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn quantise(run: &Carry) {
                // SAFETY: see above.
                unsafe { carry::quantise::<$vector>(run) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn restore(run: &Carry) {
                // SAFETY: see above.
                unsafe { carry::restore::<$vector>(run) }
            }
        }
    };
}

// Thirty-two registers: up to 28 sums, the weights of up to four blocks, and four bytes of the input.
#[cfg(target_arch = "x86_64")]
kernels! {
    vnni512, crate::lanes::bytes::vnni::Vnni512, ["avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma"],
    blocked: [16 32],
    one_row: {
        1: 14 [1 2 3 4 5 6 7 8 9 10 11 12 13 14],
        2: 14 [1 2 3 4 5 6 7 8 9 10 11 12 13 14],
        3: 9 [1 2 3 4 5 6 7 8 9],
        4: 6 [1 2 3 4 5 6],
    },
    two_rows: { 1: 7 [1 2 3 4 5 6 7], 2: 7 [1 2 3 4 5 6 7], 3: 4 [1 2 3 4], 4: 3 [1 2 3], },
}

// Two registers for the weights of a block, two for the input, two for products.
#[cfg(target_arch = "x86_64")]
kernels! {
    pairs512, crate::lanes::bytes::pairs::Pairs512, ["avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"],
    blocked: [16 32],
    one_row: {
        1: 14 [1 2 3 4 5 6 7 8 9 10 11 12 13 14],
        2: 12 [1 2 3 4 5 6 7 8 9 10 11 12],
        3: 7 [1 2 3 4 5 6 7],
    },
    two_rows: { 1: 7 [1 2 3 4 5 6 7], 2: 6 [1 2 3 4 5 6], 3: 3 [1 2 3], },
}

// Sixteen registers.
#[cfg(target_arch = "x86_64")]
kernels! {
    vnni256, crate::lanes::bytes::vnni::Vnni256, ["avx2,fma,avxvnni"], blocked: [8 16],
    one_row: { 1: 12 [1 2 3 4 5 6 7 8 9 10 11 12], 2: 6 [1 2 3 4 5 6], 3: 4 [1 2 3 4], },
    two_rows: { 1: 6 [1 2 3 4 5 6], 2: 3 [1 2 3], 3: 2 [1 2], },
}

#[cfg(target_arch = "x86_64")]
kernels! {
    pairs256, crate::lanes::bytes::pairs::Pairs256, ["avx2,fma"], blocked: [8 16],
    one_row: { 1: 8 [1 2 3 4 5 6 7 8], 2: 4 [1 2 3 4], },
    two_rows: { 1: 4 [1 2 3 4], 2: 2 [1 2], },
}

// As few registers as SSE2 has, and no instruction for it.
kernels! {
    plain, crate::lanes::bytes::plain::Plain, [], blocked: [4 8],
    one_row: { 1: 8 [1 2 3 4 5 6 7 8], 2: 4 [1 2 3 4], },
    two_rows: { 1: 4 [1 2 3 4], 2: 2 [1 2], },
}
