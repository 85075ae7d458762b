//! A convolution and the pool that alone reads it, a few rows at a time: what lies between them never leaves the cache.
//!
//! The first layers of classifiers make 3 MB of a picture, of which a pool keeps a quarter; written out between two steps it is
//! waited for twice.

use crate::error::KernelError;
use crate::graph;
use crate::memory::Address;
use crate::steps::direct::Direct;
use crate::steps::layer::Layer;
use crate::steps::pool::Pool;
use crate::steps::view::View;
use crate::threads;

/// Rows of outputs of a part, at the least, and parts for each thread: where parts meet, rows are computed twice.
const ROWS: usize = 7;
const PARTS: usize = 2;

#[derive(Debug)]
pub(crate) struct Pooled {
    first: Direct,
    second: Pool,
    /// Rows that there is room for in a thread's memory, besides one above and one below, into which tiles of two rows may write.
    rows: usize,
    /// Where the first of them begins, and elements between rows and between planes.
    start: usize,
    row: usize,
    block: usize,
}

impl Pooled {
    /// The convolution writes `blocks` blocks at a time to a thread's memory, of which it has so many `rows` at a time: its view is told
    /// to have all.
    pub(crate) fn new(
        layer: &Layer<'_>,
        pool: &graph::Pool,
        to: View,
        rows: usize,
        blocks: usize,
        packed: bool,
    ) -> Result<Self, KernelError> {
        let View { start, row, block, .. } = layer.to;
        let first = Direct::new(layer, blocks, packed)?;
        if layer.other.is_some() || !first.has_rows() || block < (rows + 2) * row || rows < pool.window.kernel[0] {
            return Err(KernelError::Bounds);
        }
        Ok(Self { first, second: Pool::new(layer.to, to, pool, layer.kernels)?, rows, start, row, block })
    }

    /// # Safety
    /// What the convolution reads and the pool writes lies in `arena` for so many images; `local` has memory for each thread, `stride`
    /// elements apart, with as many planes as blocks are computed at a time; and nobody else uses either.
    pub(crate) unsafe fn run(
        &self,
        arena: Address,
        local: Address,
        stride: usize,
        images: usize,
        pool: &mut threads::Pool,
    ) {
        let (groups, height, threads) = (self.first.groups().len(), self.second.rows(), pool.threads());
        let parts = if threads > 1 { (PARTS * threads).min(height / ROWS).max(1) } else { 1 };
        pool.run_on(images * parts * groups, &|task, thread| {
            let (image, part, group) = (task / groups / parts, task / groups % parts, task % groups);
            let [mut y, last] = [part, part + 1].map(|part| height * part / parts);
            // SAFETY: each thread has its own planes, at least as many as a group has blocks; no two tasks have a row of a block of
            // the pool in common, and all that one reads is computed before.
            unsafe {
                let own = local.at(thread * stride + self.start);
                // The first row that lies in memory, and the one behind the last that is computed.
                let [mut top, mut done] = [self.second.read_by(y..y + 1).start; 2];
                while y < last {
                    let begin = self.second.read_by(y..y + 1).start;
                    self.keep(own, group, begin - top..done.max(begin) - top);
                    (top, done) = (begin, done.max(begin));
                    let fits = |end: &usize| self.second.read_by(y..*end).end <= top + self.rows;
                    let end = (y + 1..=last).take_while(fits).last().unwrap_or(y + 1);
                    let wanted = self.second.read_by(y..end).end;
                    // Where the plane's first row would lie.
                    let plane = own.wrapping_sub(top * self.row);
                    if done < wanted {
                        self.first.run_group(arena, image, group, plane, done..wanted);
                        done = wanted;
                    }
                    let Some([first, count]) = self.first.groups().nth(group) else { return };
                    for place in 0..count {
                        let from = plane.wrapping_add(place * self.block);
                        self.second.run_rows(arena, image, first + place, from, y..end);
                    }
                    y = end;
                }
            }
        });
    }

    /// Moves rows of a group's planes to where the first one lies.
    ///
    /// # Safety
    /// From `own` on lie as many planes as the group has blocks, with so many rows, and nobody else uses them.
    unsafe fn keep(&self, own: *mut f32, group: usize, rows: std::ops::Range<usize>) {
        let count = self.first.groups().nth(group).map_or(0, |[_, count]| count);
        if rows.start == 0 || rows.is_empty() {
            return;
        }
        for place in 0..count {
            // SAFETY: the caller vouches for the planes.
            unsafe {
                let plane = own.add(place * self.block);
                plane.copy_from(plane.add(rows.start * self.row), rows.len() * self.row);
            }
        }
    }

    /// Elements of the convolution's weights and biases as they are packed.
    pub(crate) fn weights(&self) -> usize {
        self.first.weights()
    }

    pub(crate) fn describe(&self) -> String {
        format!("{}, pool", self.first.describe())
    }
}
