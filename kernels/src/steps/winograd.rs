//! 3 x 3 convolutions by Winograd's way: fewer multiplications, more additions, and a little less precise.
//!
//! How much less: rounding errors of products and sums grow by what the transforms multiply and add them with. Element by element,
//! the largest result of |A'| ((|G| 1 |G'|) x (|B'| 1 |B|)) |A| is 64 for F(2, 3) and 2,304 for F(4, 3), where the direct way
//! has 9: so the bound of an error is at most 7 and 256 times that of a direct sum of as many channels, which is their number times
//! 6e-8 of the largest possible sum (Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution", 2020).
//! That is for signs that conspire. Those of real sums do not: what is left for F(4, 3) is some ten times the direct way's error,
//! and tests hold it to 1e-5 of the sum of all |weight x element|, a tenth of the 1e-4 that networks are held to.

use std::ptr;

use crate::error::KernelError;
use crate::inner::finish::Finish;
use crate::inner::table::Kernels;
use crate::inner::tile::Tile;
use crate::inner::winograd::{Gather, Scatter, kernel_matrix};
use crate::memory::{Address, Memory};
use crate::steps::layer::Layer;
use crate::steps::view::View;
use crate::threads::Pool;

/// Transformed tiles that are under way at a time may fill most of a core's second cache of 2 MiB.
const CACHE: usize = 1_400_000;

/// Tiles at a time, whatever the cache: fewer leave the tile loop's registers idle, more bring nothing.
const AT_ONCE: [usize; 2] = [14, 224];

/// From so many tiles on a thread's share is cut in two, so that one that comes late does not hold up the others for long.
const ENOUGH: usize = 56;

#[derive(Debug)]
pub(crate) struct Winograd {
    from: View,
    padding: [usize; 2],
    to: View,
    other: Option<View>,
    finish: Finish,
    kernels: &'static Kernels,
    /// Output pixels along a tile's side: 2 or 4.
    tile: usize,
    /// Tiles in a column and in a row of a plane.
    tiles: [usize; 2],
    at_once: usize,
    /// Output blocks computed together: first, count, and where their weights begin for one place of the transform.
    groups: Vec<[usize; 3]>,
    channels: Vec<usize>,
    /// Elements of all weights for one place of the transform.
    place_weights: usize,
    /// `[places][groups][input channels][blocks of the group][lanes]`.
    weights: Memory,
    bias: Memory,
}

impl Winograd {
    /// A convolution in tiles of `tile` x `tile` outputs, for up to `images` images. Without `packed` its weights are zeros.
    pub(crate) fn new(layer: &Layer<'_>, tile: usize, images: usize, packed: bool) -> Result<Self, KernelError> {
        let Layer { convolution, from, to, other, finish, kernels, .. } = layer;
        let lanes = kernels.lanes;
        let padding = convolution.window.padding;
        if !layer.is_three_by_three()
            || ![2, 4].contains(&tile)
            || [from.pixel, to.pixel] != [lanes; 2]
            || to.blocks != layer.output_blocks()
            || layer.channels.blocks() != from.blocks
        {
            return Err(KernelError::Bounds);
        }
        // The windows of all outputs lie inside; what tiles cover beyond is cut off.
        from.window(padding, layer.reach())?;
        if let Some(other) = other {
            to.matches(other)?;
        }
        let side = tile + 2;
        let channels = layer.channels.of_blocks();
        let (inputs, together) = (layer.inputs(), 2.min(to.blocks));
        let (mut groups, mut place_weights) = (Vec::new(), 0);
        for first in (0..to.blocks).step_by(together) {
            let count = together.min(to.blocks - first);
            groups.push([first, count, place_weights]);
            place_weights += count * lanes * inputs;
        }
        let mut weights = Memory::zeroed(side * side * place_weights)?;
        if packed {
            pack(layer, tile, &groups, place_weights, weights.elements_mut());
        }
        let tiles = [to.height.div_ceil(tile), to.width.div_ceil(tile)];
        let bytes = side * side * (from.blocks + to.blocks) * lanes * size_of::<f32>();
        let at_once = (CACHE / bytes / AT_ONCE[0] * AT_ONCE[0]).clamp(AT_ONCE[0], AT_ONCE[1]);
        Ok(Self {
            from: *from,
            padding: [padding.top, padding.left],
            to: *to,
            other: *other,
            finish: *finish,
            kernels,
            tile,
            tiles,
            at_once: at_once.min(images * tiles[0] * tiles[1]),
            groups,
            channels,
            place_weights,
            weights,
            bias: Memory::of(&layer.bias())?,
        })
    }

    /// Elements of scratch memory that it needs for each thread.
    pub(crate) fn scratch(&self) -> usize {
        let [input_place, sum_place] = self.strides(self.at_once);
        self.places() * (input_place + sum_place)
    }

    /// Elements between places of the transform, of inputs and of sums, for so many tiles: an odd number of lines, or the places of
    /// a tile could all meet in one set of the first cache.
    const fn strides(&self, count: usize) -> [usize; 2] {
        let lanes = self.kernels.lanes;
        [((self.from.blocks * count) | 1) * lanes, ((self.to.blocks * count) | 1) * lanes]
    }

    pub(crate) const fn tile(&self) -> usize {
        self.tile
    }

    const fn places(&self) -> usize {
        (self.tile + 2) * (self.tile + 2)
    }

    /// Elements of its weights and biases as they are packed.
    pub(crate) fn weights(&self) -> usize {
        self.weights.elements().len() + self.bias.elements().len()
    }

    /// # Safety
    /// The views lie in `arena` for so many images, `scratch` has [`Self::scratch`] elements for each thread, and nobody else uses
    /// either.
    pub(crate) unsafe fn run(&self, arena: Address, scratch: Address, images: usize, pool: &mut Pool) {
        let total = images * self.tiles[0] * self.tiles[1];
        let threads = pool.threads();
        let inputs: usize = self.channels.iter().sum();
        let outputs = self.to.blocks * self.kernels.lanes;
        // Whoever has tiles for himself reads all weights; whoever shares them reads half of the tiles from another core's cache.
        let alone = threads == 1 || (inputs * outputs <= total * (inputs + outputs) && total >= threads * AT_ONCE[0]);
        if alone {
            let least = if threads > 1 && total / threads >= ENOUGH { 2 * threads } else { threads };
            let chunks = total.div_ceil(self.at_once.max(1)).max(least).next_multiple_of(threads);
            pool.run_on(chunks, &|chunk, thread| {
                let (first, end) = (total * chunk / chunks, total * (chunk + 1) / chunks);
                // SAFETY: the caller vouches for both memories; no two threads have scratch memory in common, no two chunks a tile.
                unsafe {
                    let own = Address::new(scratch.at(thread * self.scratch()));
                    (0..self.from.blocks).for_each(|block| self.gather_all(arena, own, [first, end], block));
                    (0..self.places()).for_each(|place| self.products(own, place, end - first));
                    (0..self.to.blocks).for_each(|block| self.scatter_all(arena, own, [first, end], block));
                }
            });
            return;
        }
        let chunks = total.div_ceil(self.at_once.max(1));
        for chunk in 0..chunks {
            let (first, end) = (total * chunk / chunks, total * (chunk + 1) / chunks);
            // SAFETY: the caller vouches for both memories; no two tasks have a block or a place in common.
            unsafe {
                pool.run(self.from.blocks, &|block| self.gather_all(arena, scratch, [first, end], block));
                pool.run(self.places(), &|place| self.products(scratch, place, end - first));
                pool.run(self.to.blocks, &|block| self.scatter_all(arena, scratch, [first, end], block));
            }
        }
    }

    /// Transforms a block of the tiles from the first to the last: scratch memory holds `[places][blocks][tiles][lanes]`, first of
    /// inputs, then of sums.
    ///
    /// # Safety
    /// As [`Self::run`], and nobody else writes to this block of inputs.
    unsafe fn gather_all(&self, arena: Address, scratch: Address, [first, end]: [usize; 2], block: usize) {
        let count = end - first;
        let [input_place, _] = self.strides(count);
        for tile in 0..count {
            // SAFETY: the caller vouches for both memories.
            unsafe {
                let target = scratch.at((block * count + tile) * self.kernels.lanes);
                self.gather(arena, first + tile, block, target, input_place);
            }
        }
    }

    /// Transforms a block of sums back.
    ///
    /// # Safety
    /// As [`Self::run`], and nobody else writes to this block of these tiles.
    unsafe fn scatter_all(&self, arena: Address, scratch: Address, [first, end]: [usize; 2], block: usize) {
        let count = end - first;
        let [input_place, sum_place] = self.strides(count);
        let sums = self.places() * input_place;
        for tile in 0..count {
            // SAFETY: the caller vouches for both memories.
            unsafe {
                let source = scratch.at(sums + (block * count + tile) * self.kernels.lanes);
                self.scatter(arena, first + tile, block, source, sum_place);
            }
        }
    }

    /// Image, row and column of a tile.
    const fn position(&self, tile: usize) -> [usize; 3] {
        let [rows, columns] = self.tiles;
        [tile / (rows * columns), tile / columns % rows, tile % columns]
    }

    /// # Safety
    /// As [`Self::run`], and nobody else writes to this block of `target`.
    unsafe fn gather(&self, arena: Address, tile: usize, block: usize, target: *mut f32, place: usize) {
        let Self { from, padding, .. } = self;
        let [image, row, column] = self.position(tile);
        let (y, x) = (row * self.tile, column * self.tile);
        // Rows and columns from here to the end of the border.
        let there =
            [from.height + padding[0] + from.border.bottom - y, from.width + padding[1] + from.border.right - x];
        // SAFETY: a tile begins inside, as its first output does, and reads no more than is there.
        unsafe {
            let start = from.at(image, block) - padding[0] * from.row - padding[1] * from.pixel;
            (self.kernels.gather[self.tile / 2 - 1])(&Gather {
                from: arena.at(start + y * from.row + x * from.pixel),
                from_row: from.row,
                there,
                to: target,
                to_place: place,
            });
        }
    }

    /// Sums of products at one place of the transform, of `count` tiles.
    ///
    /// # Safety
    /// As [`Self::run`], and nobody else writes to this place's sums.
    unsafe fn products(&self, scratch: Address, place: usize, count: usize) {
        let lanes = self.kernels.lanes;
        let [input_place, sum_place] = self.strides(count);
        // SAFETY: there is so much scratch memory.
        let (input, sums) = unsafe {
            let sums = self.places() * input_place + place * sum_place;
            (scratch.at(place * input_place), scratch.at(sums))
        };
        let inputs: usize = self.channels.iter().sum();
        let finish = Finish::new(crate::activation::Activation::Identity, crate::activation::Activation::Identity);
        for [first, blocks, weights] in &self.groups {
            let across = count.div_ceil(self.kernels.widest(*blocks, 1, lanes).max(1));
            // The next group's weights follow this one's; each tile asks for its share of them.
            let group = self.weights.elements().as_ptr().wrapping_add(place * self.place_weights + weights);
            let later = group.wrapping_add(inputs * blocks * lanes);
            let later_step = (blocks * lanes).div_ceil(across.max(1));
            for part in 0..across {
                let (column, end) = (count * part / across, count * (part + 1) / across);
                let Some(run) = self.kernels.tile(*blocks, 1, end - column, lanes) else { continue };
                // SAFETY: the caller vouches for both; weights are there for each place and group.
                unsafe {
                    run(&Tile {
                        from: input.add(column * lanes),
                        weights: group,
                        bias: ZEROS.as_ptr(),
                        to: sums.add((first * count + column) * lanes),
                        other: ptr::null(),
                        channels: &self.channels,
                        kernel: [1, 1],
                        from_block: count * lanes,
                        from_tap_row: 0,
                        from_tap_column: 0,
                        from_channel: 1,
                        from_row: 0,
                        from_column: lanes,
                        to_block: count * lanes,
                        to_row: 0,
                        other_block: 0,
                        other_row: 0,
                        later: later.wrapping_add(part * inputs * later_step),
                        later_step,
                        ahead: (end - column) * lanes,
                        finish: &finish,
                        combine: self.kernels.combine,
                    });
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::run`], and nobody else writes to this tile and block.
    unsafe fn scatter(&self, arena: Address, tile: usize, block: usize, source: *const f32, place: usize) {
        let Self { to, .. } = self;
        let [image, row, column] = self.position(tile);
        let (y, x) = (row * self.tile, column * self.tile);
        // SAFETY: what lies outside of the plane is not wanted.
        unsafe {
            let (other, other_row) = self.other.map_or((ptr::null(), 0), |other| {
                let start = other.at(image, block) + y * other.row + x * other.pixel;
                (arena.at(start).cast_const(), other.row)
            });
            (self.kernels.scatter[self.tile / 2 - 1])(&Scatter {
                from: source,
                from_place: place,
                bias: self.bias.elements().as_ptr().add(block * self.kernels.lanes),
                to: arena.at(to.at(image, block) + y * to.row + x * to.pixel),
                to_row: to.row,
                wanted: [to.height - y, to.width - x],
                other,
                other_row,
                finish: &self.finish,
            });
        }
    }
}

/// The biases of sums that get theirs later: of two blocks of the widest vectors.
static ZEROS: [f32; 32] = [0.0; 32];

/// Kernels transformed, in the order in which tiles read them.
fn pack(layer: &Layer<'_>, tile: usize, groups: &[[usize; 3]], place_weights: usize, packed: &mut [f32]) {
    let (lanes, inputs) = (layer.kernels.lanes, layer.inputs());
    let matrix = kernel_matrix(tile);
    for [first, count, start] in groups {
        // All outputs of an input before the next one: they lie beside each other.
        for input in 0..inputs {
            for output in first * lanes..((first + count) * lanes).min(layer.convolution.outputs) {
                let kernel = &layer.convolution.weight[(output * inputs + input) * 9..][..9];
                // G k G', in f64: it is done once.
                for (y, above) in matrix.iter().enumerate() {
                    let mut row = [0.0; 3];
                    for (column, sum) in row.iter_mut().enumerate() {
                        *sum = (0..3).map(|tap| above[tap] * f64::from(kernel[3 * tap + column])).sum();
                    }
                    for (x, beside) in matrix.iter().enumerate() {
                        let value: f64 = (0..3).map(|tap| beside[tap] * row[tap]).sum();
                        let place = y * matrix.len() + x;
                        let channel = start + input * count * lanes + (output - first * lanes);
                        packed[place * place_weights + channel] = value as f32;
                    }
                }
            }
        }
    }
}
