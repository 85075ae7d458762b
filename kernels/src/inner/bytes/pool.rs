//! One row of the largest bytes of windows, one block of channels.

/// Where a row reads and writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BytePoolRow {
    /// The first column of the first row that the windows of this row of outputs cover.
    pub(crate) from: *const u8,
    pub(crate) to: *mut u8,
    /// Rows of the input that the windows cover.
    pub(crate) rows: usize,
    /// Columns of the input.
    pub(crate) width: usize,
    /// Columns of padding to the left.
    pub(crate) left: usize,
    /// Outputs.
    pub(crate) columns: usize,
    /// Columns of a window, and between windows.
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Bytes between input rows.
    pub(crate) from_row: usize,
}

/// `N` is the number of bytes of a pixel: arrays of so many are vectors to every compiler.
///
/// # Safety
/// All that the row describes can be read and written, and no one else does so meanwhile where it writes.
#[inline(always)]
pub(crate) unsafe fn row<const N: usize>(row: &BytePoolRow) {
    for x in 0..row.columns {
        let begin = x * row.stride;
        let first = begin.saturating_sub(row.left);
        let end = (begin + row.kernel).saturating_sub(row.left).min(row.width);
        // SAFETY: the caller vouches for the memory; arrays of bytes need no alignment.
        unsafe {
            let mut largest = [0u8; N];
            for y in 0..row.rows {
                for column in first..end {
                    let bytes = row.from.add(y * row.from_row + column * N).cast::<[u8; N]>().read();
                    for (largest, byte) in largest.iter_mut().zip(bytes) {
                        *largest = byte.max(*largest);
                    }
                }
            }
            row.to.add(x * N).cast::<[u8; N]>().write(largest);
        }
    }
}
