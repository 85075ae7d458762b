//! Columns of text.

/// Rows with their columns below each other, two spaces apart; the columns of these numbers are set to the right.
pub(crate) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]], right: &[usize]) -> String {
    let widths: [usize; COLUMNS] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Bytes for people.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["name", "size"], ["a", "10.5"], ["longer", "7"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows, &[1]), "name    size\na       10.5\nlonger     7\n");
        assert_eq!(megabytes(46_800_000), "46.8 MB");
    }
}
