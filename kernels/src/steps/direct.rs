//! Convolution as it is written down: any kernel, stride, dilation, padding and groups, from blocked or planar input.

use std::ops::Range;
use std::ptr;

use crate::error::KernelError;
use crate::inner::finish::Finish;
use crate::inner::table::{Kernels, TileFn};
use crate::inner::tile::Tile;
use crate::memory::{Address, Memory};
use crate::steps::cover::{Placed, cover};
use crate::steps::layer::Layer;
use crate::steps::view::View;
use crate::threads::Pool;

/// Products in a task, where that leaves enough of them and not too many: some 6 us of a core of 2023, several times what it takes
/// to come by a task.
const PRODUCTS: usize = 500_000;

/// Most tasks for each thread, so that one that comes late does not hold up the others.
const TASKS: usize = 16;

/// Bytes of an input that do not stay in a core's second cache until they are read again, and of a part that do.
const LARGE: usize = 1 << 20;
const PART: usize = 1 << 18;

/// Parts of an input for each thread, at the least.
const SHARES: usize = 2;

/// From so many groups of outputs for each thread on, none is cut, nor of as many as are shared out evenly: its weights are read once.
const ENOUGH: usize = 4;

/// Bytes of weights that stay in a core's second cache beside a part of the input.
const FEW: usize = 1 << 19;

/// A convolution, packed.
#[derive(Debug)]
pub(crate) struct Direct {
    from: View,
    /// Where windows slide from.
    from_start: usize,
    to: View,
    other: Option<View>,
    finish: Finish,
    kernels: &'static Kernels,
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    /// Whether all pixels of a plane are treated as one row.
    flat: bool,
    /// For each input block how many channels it has.
    channels: Vec<usize>,
    groups: Vec<Group>,
    /// For groups of 1, 2, ... blocks: the tiles that cover a plane.
    tiles: Vec<Vec<Placed<TileFn>>>,
    /// Products for one image.
    products: usize,
    weights: Memory,
    bias: Memory,
}

/// Output blocks that are computed together.
#[derive(Debug, Clone, Copy)]
struct Group {
    first: usize,
    blocks: usize,
    /// Input blocks that are read: the first, and the one behind the last.
    inputs: [usize; 2],
    /// Where its weights begin.
    weights: usize,
}

impl Direct {
    /// A convolution whose output blocks are computed `blocks` at a time. Without `packed` its weights are zeros: for those who
    /// want to know how long it takes.
    pub(crate) fn new(layer: &Layer<'_>, blocks: usize, packed: bool) -> Result<Self, KernelError> {
        let Layer { convolution, from, to, other, finish, kernels, .. } = layer;
        let from_start = from.window(convolution.window.padding, layer.reach())?;
        if to.blocks != layer.output_blocks() || to.pixel != kernels.lanes {
            return Err(KernelError::Bounds);
        }
        if let Some(other) = other {
            to.matches(other)?;
        }
        let channels = if layer.is_planar() { vec![from.blocks] } else { layer.channels.of_blocks() };
        if !layer.is_planar() && (channels.len() != from.blocks || from.pixel != kernels.lanes) {
            return Err(KernelError::Bounds);
        }
        let dense = |view: &View| view.is_dense();
        let flat = convolution.window.is_point() && dense(from) && dense(to) && other.as_ref().is_none_or(dense);
        let (groups, length) = groups(layer, blocks.clamp(1, kernels.most_blocks()), &channels);
        let mut weights = Memory::zeroed(length)?;
        if packed {
            pack(layer, &groups, &channels, weights.elements_mut());
        }
        let sides = if flat { [1, to.height * to.width] } else { [to.height, to.width] };
        let step = convolution.window.stride[1] * from.pixel;
        let most = groups.iter().map(|group| group.blocks).max().unwrap_or(0);
        let covered = |blocks| {
            let widest = |rows| kernels.widest(blocks, rows, step);
            cover(sides, widest, |rows, columns| kernels.tile(blocks, rows, columns, step))
        };
        let tiles = (1..=most).map(covered).collect::<Result<_, _>>()?;
        Ok(Self {
            from: *from,
            from_start,
            to: *to,
            other: *other,
            finish: *finish,
            kernels,
            kernel: convolution.window.kernel,
            stride: convolution.window.stride,
            dilation: convolution.window.dilation,
            flat,
            channels,
            groups,
            tiles,
            products: length * to.height * to.width,
            weights,
            bias: Memory::of(&layer.bias())?,
        })
    }

    /// Elements of its weights and biases as they are packed.
    pub(crate) fn weights(&self) -> usize {
        self.weights.elements().len() + self.bias.elements().len()
    }

    /// # Safety
    /// The views lie in `arena` for so many images, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, images: usize, pool: &mut Pool) {
        let (groups, threads) = (self.groups.len(), pool.threads());
        let tasks = (images * self.products / PRODUCTS).clamp(threads, TASKS * threads);
        let input = self.from.blocks * self.from.block * size_of::<f32>();
        let weights = size_of_val(self.weights.elements());
        // A large input is read once, part by part: all outputs of a part before the next one. So it is with several threads, where each
        // has the weights beside its part of the input, which mostly is what it has written itself. Else each group has its weights at
        // hand until it is done.
        let once = groups > 1 && weights <= FEW && (input > LARGE || (threads > 1 && weights <= input));
        let units = images * groups;
        let whole = units >= ENOUGH * threads || (units >= 2 * threads && units.is_multiple_of(threads));
        let (units, chunks) = match (once, threads) {
            (true, 1) => (images, input.div_ceil(PART)),
            (true, _) => (images, input.div_ceil(PART).max(SHARES * threads)),
            (false, _) if threads == 1 || whole => (units, 1),
            (false, _) => (units, tasks.div_ceil(units)),
        };
        pool.run(units * chunks, &|task| {
            let (unit, chunk) = (task / chunks, task % chunks);
            let (image, together) =
                if once { (unit, 0..groups) } else { (unit / groups, unit % groups..unit % groups + 1) };
            for group in &self.groups[together] {
                let tiles = &self.tiles[group.blocks - 1];
                let part = tiles.len() * chunk / chunks..tiles.len() * (chunk + 1) / chunks;
                // SAFETY: the views lie in the arena; no two tasks have a tile in common.
                unsafe { self.part(arena, image, group, &tiles[part], arena.at(self.to.at(image, group.first))) };
            }
        });
    }

    /// Groups of output blocks that are computed together: the first block of each, and how many.
    pub(crate) fn groups(&self) -> impl ExactSizeIterator<Item = [usize; 2]> + '_ {
        self.groups.iter().map(|group| [group.first, group.blocks])
    }

    /// Whether some rows can be computed alone.
    pub(crate) const fn has_rows(&self) -> bool {
        !self.flat
    }

    /// Computes some rows of one group, or a few more, and writes its first block to `target`, the others behind that as those of `to`
    /// follow each other.
    ///
    /// # Safety
    /// As [`Self::run`]; and there is room for the group at `target`, which nobody else uses.
    pub(crate) unsafe fn run_group(
        &self,
        arena: Address,
        image: usize,
        group: usize,
        target: *mut f32,
        rows: Range<usize>,
    ) {
        let group = &self.groups[group];
        let tiles = &self.tiles[group.blocks - 1];
        // Tiles have one row or two.
        let first = tiles.partition_point(|tile| tile.row + 1 < rows.start);
        let end = tiles.partition_point(|tile| tile.row < rows.end);
        // SAFETY: the caller vouches for both memories.
        unsafe { self.part(arena, image, group, &tiles[first..end], target) }
    }

    /// # Safety
    /// As [`Self::run`]; nobody else writes to these tiles' outputs, which begin at `to_start`.
    unsafe fn part(&self, arena: Address, image: usize, group: &Group, tiles: &[Placed<TileFn>], to_start: *mut f32) {
        let Self { from, to, kernels, .. } = self;
        let planar = from.pixel == 1;
        let channels = if planar { &self.channels[..] } else { &self.channels[group.inputs[0]..group.inputs[1]] };
        // SAFETY: `new` has found the windows of all outputs to lie inside of the view's border and the outputs inside of
        // `to` and `other`; weights and biases are as long as the groups say.
        unsafe {
            let from_start = arena.at(self.from_start + image * from.image + group.inputs[0] * from.block);
            let other_start = self.other.map(|other| arena.at(other.at(image, group.first)));
            let (other_row, other_block) = self.other.map_or((0, 0), |other| (other.row, other.block));
            let mut tile = Tile {
                from: from_start,
                weights: self.weights.elements().as_ptr().add(group.weights),
                bias: self.bias.elements().as_ptr().add(group.first * kernels.lanes),
                to: to_start,
                other: ptr::null(),
                channels,
                kernel: self.kernel,
                from_block: from.block,
                from_tap_row: self.dilation[0] * from.row,
                from_tap_column: self.dilation[1] * from.pixel,
                from_channel: if planar { from.block } else { 1 },
                from_row: self.stride[0] * from.row,
                from_column: self.stride[1] * from.pixel,
                to_block: to.block,
                to_row: to.row,
                other_block,
                other_row,
                later: ptr::null(),
                later_step: 0,
                ahead: 0,
                finish: &self.finish,
                combine: kernels.combine,
            };
            // The next group's weights follow this one's; each tile asks for its share of them.
            let steps = channels.iter().sum::<usize>() * self.kernel[0] * self.kernel[1];
            let later = tile.weights.wrapping_add(steps * group.blocks * kernels.lanes);
            tile.later_step = (group.blocks * kernels.lanes).div_ceil(tiles.len().max(1));
            for (place, placed) in tiles.iter().enumerate() {
                let Placed { row, column, run, .. } = *placed;
                let after = tiles.get(place + 1).unwrap_or(placed);
                tile.ahead = (after.row * tile.from_row + after.column * tile.from_column)
                    .wrapping_sub(row * tile.from_row + column * tile.from_column);
                tile.later = later.wrapping_add(place * steps * tile.later_step);
                tile.from = from_start.add(row * tile.from_row + column * tile.from_column);
                // Of a plane that does not lie in memory as a whole the first row may not be there.
                tile.to = to_start.wrapping_add(row * to.row + column * to.pixel);
                if let Some(start) = other_start {
                    tile.other = start.add(row * other_row + column * to.pixel);
                }
                run(&tile);
            }
        }
    }

    /// How it is computed, in a few words.
    pub(crate) fn describe(&self) -> String {
        let blocks = self.groups.first().map_or(0, |group| group.blocks);
        format!("direct:{blocks}{}", if self.flat { " flat" } else { "" })
    }
}

/// Output blocks in groups, and the elements of all their weights. Only blocks that read the same input are computed together: so
/// how many there are at a time changes no result.
fn groups(layer: &Layer<'_>, at_once: usize, channels: &[usize]) -> (Vec<Group>, usize) {
    let (lanes, blocks) = (layer.kernels.lanes, layer.output_blocks());
    let outputs = layer.convolution.outputs / layer.convolution.groups;
    let places = if layer.is_planar() { Vec::new() } else { layer.channels.places() };
    let read_by = |block: usize| {
        if layer.convolution.groups == 1 {
            return [0, channels.len()];
        }
        // The blocks of the channels that its first and its last output channel need.
        let last = ((block + 1) * lanes).min(layer.convolution.outputs) - 1;
        let needed = [block * lanes / outputs, last / outputs + 1].map(|group| group * layer.group_inputs());
        [places[needed[0]][0], places[needed[1] - 1][0] + 1]
    };
    let (mut groups, mut first, mut weights) = (Vec::new(), 0, 0);
    while first < blocks {
        let inputs = read_by(first);
        let alike = (first + 1..blocks).take(at_once - 1).take_while(|block| read_by(*block) == inputs).count();
        let group = Group { first, blocks: 1 + alike, inputs, weights };
        let read: usize = channels[inputs[0]..inputs[1]].iter().sum();
        weights += read * layer.convolution.window.taps() * group.blocks * lanes;
        first += group.blocks;
        groups.push(group);
    }
    (groups, weights)
}

/// Weights in the order in which tiles read them.
fn pack(layer: &Layer<'_>, groups: &[Group], channels: &[usize], packed: &mut [f32]) {
    let convolution = &layer.convolution;
    let (lanes, taps, per_group) = (layer.kernels.lanes, convolution.window.taps(), layer.group_inputs());
    let firsts = if layer.is_planar() { vec![0] } else { layer.channels.firsts() };
    let outputs = convolution.outputs / convolution.groups;
    let mut rest = packed;
    for group in groups {
        let first = group.first * lanes;
        for block in group.inputs[0]..group.inputs[1] {
            for tap in 0..taps {
                for input in firsts[block]..firsts[block] + channels[block] {
                    let weights = rest.split_off_mut(..group.blocks * lanes).unwrap_or_default();
                    // Other groups' channels, and what lies behind the last one, count nothing.
                    let those = input / per_group * outputs..(input / per_group + 1) * outputs;
                    let [start, end] = [first.max(those.start), (first + weights.len()).min(those.end)];
                    let from = (input % per_group) * taps + tap;
                    for output in start..end {
                        weights[output - first] = convolution.weight[output * per_group * taps + from];
                    }
                }
            }
        }
    }
}
