//! A convolution and the depthwise one that alone reads it, a few blocks at a time: what lies between them never leaves the cache.
//!
//! MobileNetV2's first blocks expand 0.8 MB to 4.8 and reduce them again; with the whole of it between two steps they wait for memory.

use crate::error::KernelError;
use crate::memory::Address;
use crate::steps::depthwise::Depthwise;
use crate::steps::direct::Direct;
use crate::steps::layer::Layer;
use crate::threads::Pool;

/// Rows of outputs for each thread, at the least: where parts meet, rows are computed twice.
const ROWS: usize = 14;

#[derive(Debug)]
pub(crate) struct Expanded {
    first: Direct,
    second: Depthwise,
    /// Where the first block's plane begins in a thread's memory, behind its border; and elements between planes.
    start: usize,
    block: usize,
}

impl Expanded {
    /// The first layer writes its blocks `blocks` at a time to a thread's memory, from where the second one reads them: the view of what
    /// lies between has as many planes as a thread's memory has, `planes`, and is told to have all.
    pub(crate) fn new(
        first: &Layer<'_>,
        second: &Layer<'_>,
        blocks: usize,
        planes: usize,
        packed: bool,
    ) -> Result<Self, KernelError> {
        let between = first.to;
        if between != second.from || first.other.is_some() || blocks > planes {
            return Err(KernelError::Bounds);
        }
        let (start, block) = (between.start, between.block);
        let first = Direct::new(first, blocks, packed)?;
        Ok(Self { first, second: Depthwise::new(second)?, start, block })
    }

    /// # Safety
    /// The layers' other views lie in `arena` for so many images; `local` has memory for each thread, `stride` elements apart, with
    /// as many planes as were told of; and nobody else uses either.
    pub(crate) unsafe fn run(&self, arena: Address, local: Address, stride: usize, images: usize, pool: &mut Pool) {
        let (groups, height, threads) = (self.first.groups().len(), self.second.rows(), pool.threads());
        // Each thread has rows of its own rather than blocks: who reads the results reads all blocks of some rows.
        let parts = if self.first.has_rows() && height >= threads * ROWS { threads } else { 1 };
        pool.run_on(images * parts * groups, &|task, thread| {
            let (image, part, group) = (task / groups / parts, task / groups % parts, task % groups);
            let Some([first, count]) = self.first.groups().nth(group) else { return };
            let own = thread * stride;
            let rows = height * part / parts..height * (part + 1) / parts;
            // SAFETY: each thread has its own planes, at least as many as a group has blocks; no two tasks have a row of a block of
            // the second layer in common, and all that one reads is computed before.
            unsafe {
                self.first.run_group(arena, image, group, local.at(own + self.start), self.second.read_by(&rows));
                for place in 0..count {
                    let from = local.at(own + self.second.window_start() + place * self.block);
                    self.second.run_rows(arena, image, first + place, from, rows.clone());
                }
            }
        });
    }

    /// Elements of both layers' weights and biases as they are packed.
    pub(crate) fn weights(&self) -> usize {
        self.first.weights() + self.second.weights()
    }

    pub(crate) fn describe(&self) -> String {
        format!("{}, depthwise", self.first.describe())
    }
}
