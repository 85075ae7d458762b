//! One row of a pool, one block of channels; and the mean of a whole plane.

use crate::lanes::Lanes;

/// Where a row reads and writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolRow {
    /// The first column of the first row that the windows of this row of outputs cover.
    pub(crate) from: *const f32,
    pub(crate) to: *mut f32,
    /// Rows of the input that the windows cover.
    pub(crate) rows: usize,
    /// Rows that an average counts.
    pub(crate) counted_rows: usize,
    /// Columns of the input.
    pub(crate) width: usize,
    /// Columns of padding on both sides.
    pub(crate) padding: [usize; 2],
    /// Outputs.
    pub(crate) columns: usize,
    /// Columns of a window, and between windows.
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Elements between input rows.
    pub(crate) from_row: usize,
    /// Whether the largest element is sought, not the mean.
    pub(crate) largest: bool,
    /// Whether an average counts padding.
    pub(crate) count_padding: bool,
}

/// # Safety
/// All that the row describes can be read and written, and no one else does so meanwhile where it writes.
#[inline(always)]
pub(crate) unsafe fn row<V: Lanes>(row: &PoolRow) {
    // Outputs whose window lies inside: x * stride >= left, and x * stride + kernel <= left + width.
    let first = row.padding[0].div_ceil(row.stride).min(row.columns);
    let inside = (row.padding[0] + row.width).checked_sub(row.kernel);
    let end = inside.map_or(first, |room| (room / row.stride + 1).clamp(first, row.columns));
    // SAFETY: the caller vouches for the memory.
    unsafe {
        one_by_one::<V>(row, 0, first);
        let whole = match (row.largest, row.kernel, row.stride) {
            (true, 3, 2) => several::<V, 3, 2, 4, 9>(row, first, end),
            (true, 3, 1) => several::<V, 3, 1, 6, 8>(row, first, end),
            (true, 2, 2) => several::<V, 2, 2, 4, 8>(row, first, end),
            (true, 5, 1) => several::<V, 5, 1, 4, 8>(row, first, end),
            _ => first,
        };
        one_by_one::<V>(row, whole, row.columns);
    }
}

/// The largest elements of `T` windows at once, first of each of their `C = (T - 1) * S + K` columns; all of them lie inside. Gives
/// how far it came.
#[inline(always)]
unsafe fn several<V: Lanes, const K: usize, const S: usize, const T: usize, const C: usize>(
    row: &PoolRow,
    first: usize,
    end: usize,
) -> usize {
    let lanes = V::COUNT;
    let mut x = first;
    // SAFETY: the caller vouches for the memory.
    unsafe {
        while x + T <= end {
            let from = row.from.add((x * S - row.padding[0]) * lanes);
            // A window that lies inside has a first row.
            let mut columns = [V::splat(f32::NEG_INFINITY); C];
            for (place, column) in columns.iter_mut().enumerate() {
                *column = V::load(from.add(place * lanes));
            }
            for y in 1..row.rows {
                for (place, column) in columns.iter_mut().enumerate() {
                    *column = column.larger(V::load(from.add(y * row.from_row + place * lanes)));
                }
            }
            for output in 0..T {
                let mut largest = columns[output * S];
                for tap in 1..K {
                    largest = largest.larger(columns[output * S + tap]);
                }
                largest.store(row.to.add((x + output) * lanes));
            }
            x += T;
        }
    }
    x
}

#[inline(always)]
unsafe fn one_by_one<V: Lanes>(row: &PoolRow, first: usize, end: usize) {
    let lanes = V::COUNT;
    let [left, right] = row.padding;
    for x in first..end {
        let begin = x * row.stride;
        let counted = (begin + row.kernel).min(left + row.width + right) - begin;
        let (from, to) = (begin.saturating_sub(left), (begin + row.kernel).saturating_sub(left).min(row.width));
        // SAFETY: the caller vouches for the memory.
        unsafe {
            let mut result = V::splat(if row.largest { f32::NEG_INFINITY } else { 0.0 });
            for y in 0..row.rows {
                for column in from..to {
                    let element = V::load(row.from.add(y * row.from_row + column * lanes));
                    result = if row.largest { result.larger(element) } else { result.add(element) };
                }
            }
            if !row.largest {
                let count = if row.count_padding { row.counted_rows * counted } else { row.rows * (to - from) };
                result = result.div(V::splat(count as f32));
            }
            result.store(row.to.add(x * lanes));
        }
    }
}

/// A plane whose mean is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mean {
    pub(crate) from: *const f32,
    pub(crate) to: *mut f32,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) from_row: usize,
}

/// # Safety
/// All that is described can be read and written, and no one else does so meanwhile where it writes.
#[inline(always)]
pub(crate) unsafe fn mean<V: Lanes>(plane: &Mean) {
    // Four sums beside each other: an addition takes four cycles.
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let mut sums = [V::splat(0.0); 4];
        for y in 0..plane.rows {
            let row = plane.from.add(y * plane.from_row);
            let whole = plane.columns / 4 * 4;
            let mut x = 0;
            while x < whole {
                for (place, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.add(V::load(row.add((x + place) * V::COUNT)));
                }
                x += 4;
            }
            while x < plane.columns {
                sums[0] = sums[0].add(V::load(row.add(x * V::COUNT)));
                x += 1;
            }
        }
        let sum = sums[0].add(sums[1]).add(sums[2].add(sums[3]));
        sum.div(V::splat((plane.rows * plane.columns) as f32)).store(plane.to);
    }
}
