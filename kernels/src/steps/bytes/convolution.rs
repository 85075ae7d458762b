//! Convolution of bytes over all channels: any kernel, stride, dilation and padding.

use std::mem::MaybeUninit;

use crate::error::KernelError;
use crate::grid::ByteWeights;
use crate::inner::bytes::table::ByteTileFn;
use crate::inner::bytes::tile::ByteTile;
use crate::memory::{Address, Memory};
use crate::shape::Window;
use crate::steps::bytes::layer::{ByteLayer, Ending, MOST_LANES, WORD};
use crate::steps::channels::Channels;
use crate::steps::cover::{Placed, cover};
use crate::steps::layer::Layer;
use crate::steps::view::View;
use crate::threads::Pool;

/// Tasks for each thread, so that one that comes late does not hold up the others.
const TASKS: usize = 4;

/// A convolution, packed.
#[derive(Debug)]
pub(crate) struct ByteConvolution {
    from: View,
    /// Where windows slide from.
    from_start: usize,
    window: Window,
    /// Whether all pixels of a plane are treated as one row.
    flat: bool,
    /// For each input block how many fours of channels it has.
    quads: Vec<usize>,
    /// Output blocks, and how many of them are computed together.
    blocks: usize,
    at_once: usize,
    /// For groups of 1, 2, ... blocks: the tiles that cover a plane.
    tiles: Vec<Vec<Placed<ByteTileFn>>>,
    /// `[groups][input blocks][kernel rows][kernel columns][quads][blocks of the group][lanes][4]`.
    weights: Memory,
    /// What sums begin with, whole numbers: `[output blocks][lanes]`.
    start: Memory,
    ending: Ending,
}

/// Sums that are settled together, in pixels of a block: more than one tile's, for settling has much to set up.
const BAND: usize = 256;

/// Room for the sums of one band, which is reached by its address alone.
#[repr(align(64))]
#[expect(dead_code, reason = "nobody names its elements")]
struct Sums([f32; BAND * MOST_LANES]);

/// Tiles that are settled together: those that make one row, as long as there is room for their sums.
fn bands(mut tiles: &[Placed<ByteTileFn>], blocks: usize) -> impl Iterator<Item = &[Placed<ByteTileFn>]> {
    std::iter::from_fn(move || {
        let first = tiles.first()?;
        let fits = |next: &&Placed<ByteTileFn>| {
            let columns = (next.column + next.columns).saturating_sub(first.column);
            next.row == first.row && blocks * next.rows * columns <= BAND
        };
        // One tile always fits.
        let count = tiles.iter().skip(1).take_while(fits).count() + 1;
        let (band, rest) = tiles.split_at(count);
        tiles = rest;
        Some(band)
    })
}

impl ByteConvolution {
    /// A convolution whose output blocks are computed `at_once` at a time.
    pub(crate) fn new(layer: &ByteLayer<'_>, at_once: usize) -> Result<Self, KernelError> {
        let weights = ByteWeights::of(&layer.layer.convolution);
        let outputs = Channels::plain(layer.layer.convolution.outputs, layer.kernels.lanes);
        let ending = layer.ending(&weights, &outputs)?;
        let ByteLayer { layer, from: grid, kernels, .. } = layer;
        let (window, lanes) = (layer.convolution.window, kernels.lanes);
        let from_start = layer.from.window(window.padding, layer.reach())?;
        let flat = window.is_point() && layer.from.is_dense() && ending.is_dense();
        let to = &layer.to;
        let sides = if flat { [1, to.height * to.width] } else { [to.height, to.width] };
        let step = window.stride[1] * lanes;
        let at_once = at_once.clamp(1, kernels.most_blocks().min(to.blocks));
        let covered = |blocks| {
            let widest = |rows| kernels.widest(blocks, rows, step);
            cover(sides, widest, |rows, columns| kernels.tile(blocks, rows, columns, step))
        };
        let tiles = (1..=at_once).map(covered).collect::<Result<_, _>>()?;
        let channels = layer.channels.of_blocks();
        let mut start: Vec<i32> = weights.sums().map(|sum| -i32::from(grid.zero()) * sum).collect();
        start.resize(to.blocks * lanes, 0);
        Ok(Self {
            from: layer.from,
            from_start,
            window,
            flat,
            quads: channels.iter().map(|channels| channels.div_ceil(4)).collect(),
            blocks: to.blocks,
            at_once,
            tiles,
            weights: Memory::of_bytes(&pack(layer, &weights, at_once))?,
            start: Memory::of_bytes(&start.iter().flat_map(|start| start.to_ne_bytes()).collect::<Vec<_>>())?,
            ending,
        })
    }

    /// Elements of its weights and biases as they are packed.
    pub(crate) fn weights(&self) -> usize {
        self.weights.elements().len() + self.start.elements().len() + self.ending.weights()
    }

    /// How it is computed, in a few words.
    pub(crate) fn describe(&self) -> String {
        format!("bytes:{}{}", self.at_once, if self.flat { " flat" } else { "" })
    }

    /// # Safety
    /// The views lie in `arena` for so many images, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, images: usize, pool: &mut Pool) {
        let groups = self.blocks.div_ceil(self.at_once);
        let units = images * groups;
        let chunks = if pool.threads() == 1 { 1 } else { (TASKS * pool.threads()).div_ceil(units) };
        pool.run(units * chunks, &|task| {
            let (unit, chunk) = (task / chunks, task % chunks);
            let (image, first) = (unit / groups, unit % groups * self.at_once);
            let tiles = &self.tiles[self.at_once.min(self.blocks - first) - 1];
            let part = tiles.len() * chunk / chunks..tiles.len() * (chunk + 1) / chunks;
            // SAFETY: the views lie in the arena; no two tasks have a tile in common.
            unsafe { self.part(arena, image, first, &tiles[part]) };
        });
    }

    /// # Safety
    /// As [`Self::run`]; nobody else writes to these tiles' outputs.
    unsafe fn part(&self, arena: Address, image: usize, first: usize, tiles: &[Placed<ByteTileFn>]) {
        let Self { from, window, ending, .. } = self;
        let (lanes, blocks) = (ending.kernels.lanes, self.at_once.min(self.blocks - first));
        let Window { kernel, stride, dilation, .. } = *window;
        let steps = self.quads.iter().sum::<usize>() * window.taps();
        let mut sums = MaybeUninit::<Sums>::uninit();
        // SAFETY: `new` has found the windows of all outputs to lie inside of the view's border, and the outputs inside of what they
        // end in; a band has no more sums than there is room for, and all of them are written before they are settled; weights
        // and starts are there for each block.
        unsafe {
            let from_start = arena.at(self.from_start + image * from.image).cast::<u8>().cast_const();
            let sums = sums.as_mut_ptr().cast::<f32>();
            let mut tile = ByteTile {
                from: from_start,
                weights: self.weights.elements().as_ptr().cast::<i8>().add(first * steps * 4 * lanes),
                start: self.start.elements().as_ptr().cast::<i32>().add(first * lanes),
                sums,
                sums_block: 0,
                sums_row: 0,
                quads: &self.quads,
                kernel,
                from_block: from.block * WORD,
                from_tap_row: dilation[0] * from.row * WORD,
                from_tap_column: dilation[1] * from.pixel * WORD,
                from_row: stride[0] * from.row * WORD,
                from_column: stride[1] * from.pixel * WORD,
            };
            for band in bands(tiles, blocks) {
                let [Placed { row, column, rows, .. }, ..] = band else { continue };
                let columns: usize = band.iter().map(|placed| placed.columns).sum();
                tile.sums_row = columns * lanes;
                tile.sums_block = rows * tile.sums_row;
                for placed in band {
                    tile.from = from_start.add(placed.row * tile.from_row + placed.column * tile.from_column);
                    tile.sums = sums.add((placed.column - column) * lanes);
                    (placed.run)(&tile);
                }
                for block in 0..blocks {
                    for within in 0..*rows {
                        let sums = sums.add(block * tile.sums_block + within * tile.sums_row);
                        ending.settle(arena, [image, first + block], [row + within, *column], columns, sums);
                    }
                }
            }
        }
    }
}

/// Weights in the order in which tiles read them; zeros stand for channels that are not there.
fn pack(layer: &Layer<'_>, weights: &ByteWeights, at_once: usize) -> Vec<u8> {
    let (lanes, taps) = (layer.kernels.lanes, layer.convolution.window.taps());
    let (channels, firsts) = (layer.channels.of_blocks(), layer.channels.firsts());
    let (outputs, blocks) = (layer.convolution.outputs, layer.to.blocks);
    let inputs: usize = channels.iter().sum();
    let mut packed = Vec::new();
    for group in (0..blocks).step_by(at_once) {
        let group = group * lanes..(group + at_once).min(blocks) * lanes;
        for (channels, first) in channels.iter().zip(&firsts) {
            for tap in 0..taps {
                for quad in 0..channels.div_ceil(4) {
                    for output in group.clone() {
                        for input in quad * 4..quad * 4 + 4 {
                            let there = input < *channels && output < outputs;
                            let place = (output * inputs + first + input) * taps + tap;
                            packed.push(if there { weights.bytes[place] as u8 } else { 0 });
                        }
                    }
                }
            }
        }
    }
    packed
}
