//! Tiles that cover a plane, as wide as they can be and about equally wide.

use crate::error::KernelError;

/// A tile at its place in a plane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed<F> {
    pub(crate) row: usize,
    pub(crate) column: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) run: F,
}

/// `widest` is the most columns of a tile of so many rows, 0 where there is none; `tile` has one of so many rows and columns.
pub(crate) fn cover<F>(
    [rows, columns]: [usize; 2],
    widest: impl Fn(usize) -> usize,
    tile: impl Fn(usize, usize) -> Option<F>,
) -> Result<Vec<Placed<F>>, KernelError> {
    let mut tiles = Vec::new();
    let mut row = 0;
    while row < rows {
        // Two rows where one alone would leave registers idle.
        let high = if columns <= widest(2) && row + 2 <= rows { 2 } else { 1 };
        let across = columns.div_ceil(widest(high).max(1));
        for place in 0..across {
            let (column, end) = (columns * place / across, columns * (place + 1) / across);
            let run = tile(high, end - column).ok_or(KernelError::Bounds)?;
            tiles.push(Placed { row, column, rows: high, columns: end - column, run });
        }
        row += high;
    }
    Ok(tiles)
}
