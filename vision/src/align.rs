//! RoIAlign (He et al., "Mask R-CNN", 2017, section 3): a grid of numbers for any box on a feature map, each the mean of four points
//! between its elements.

use crate::network::Level;

/// Rows and columns of the grid.
pub(crate) const SIDE: usize = 7;

/// Points in a cell of the grid, in each direction.
const POINTS: usize = 2;

/// A feature map with the channels of a pixel beside each other, which are all read together.
#[derive(Debug)]
pub(crate) struct Pixels {
    values: Vec<f32>,
    channels: usize,
    height: usize,
    width: usize,
}

impl Pixels {
    pub(crate) fn of(level: &Level<'_>) -> Self {
        let (channels, height, width) = (level.shape.channels, level.shape.height, level.shape.width);
        let mut values = vec![0.0; level.values.len()];
        // A few pixels at a time, so that what is written stays in a near cache.
        const RUN: usize = 16;
        let cells = height * width;
        for start in (0..cells).step_by(RUN) {
            let end = (start + RUN).min(cells);
            for channel in 0..channels {
                for (cell, value) in (start..end).zip(&level.values[channel * cells + start..channel * cells + end]) {
                    values[cell * channels + channel] = *value;
                }
            }
        }
        Self { values, channels, height, width }
    }

    /// The grid of a box, whose corners are in pixels of the input and `scale` times that here: row-major `[SIDE, SIDE, channels]`. As in
    /// the first version of it, elements lie at whole numbers, and no box is smaller than one.
    pub(crate) fn grid(&self, corners: [f32; 4], scale: f32, grid: &mut [f32]) {
        let [left, top, right, bottom] = corners.map(|side| side * scale);
        let cell = [(bottom - top).max(1.0) / SIDE as f32, (right - left).max(1.0) / SIDE as f32];
        grid.fill(0.0);
        for (place, sums) in grid.chunks_exact_mut(self.channels).enumerate() {
            let (row, column) = ((place / SIDE) as f32, (place % SIDE) as f32);
            for point in 0..POINTS * POINTS {
                let inside = [point / POINTS, point % POINTS].map(|step| (step as f32 + 0.5) / POINTS as f32);
                let y = top + row * cell[0] + inside[0] * cell[0];
                let x = left + column * cell[1] + inside[1] * cell[1];
                self.add(y, x, sums);
            }
            sums.iter_mut().for_each(|sum| *sum /= (POINTS * POINTS) as f32);
        }
    }

    /// Adds all channels at a point between elements; nothing outside of the map.
    fn add(&self, y: f32, x: f32, sums: &mut [f32]) {
        let (Some([(above, upper), (below, lower)]), Some([(before, left), (after, right)])) =
            (between(y, self.height), between(x, self.width))
        else {
            return;
        };
        let at =
            |row: usize, column: usize| &self.values[(row * self.width + column) * self.channels..][..self.channels];
        let corners = [at(above, before), at(above, after), at(below, before), at(below, after)];
        let parts = [upper * left, upper * right, lower * left, lower * right];
        for (place, sum) in sums.iter_mut().enumerate() {
            *sum += parts[0] * corners[0][place]
                + parts[1] * corners[1][place]
                + parts[2] * corners[2][place]
                + parts[3] * corners[3][place];
        }
    }
}

/// The two elements that a place lies between, and the part that each has in it; nothing for a place more than one outside.
fn between(place: f32, length: usize) -> Option<[(usize, f32); 2]> {
    if !(place >= -1.0 && place <= length as f32) {
        return None;
    }
    let place = place.max(0.0);
    let first = place as usize;
    if first + 1 >= length {
        return Some([(length - 1, 1.0), (length - 1, 0.0)]);
    }
    let part = place - first as f32;
    Some([(first, 1.0 - part), (first + 1, part)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::ImageShape;

    #[test]
    fn a_slope_stays_a_slope() {
        // One channel grows to the right, the other down.
        let shape = ImageShape::new(2, 30, 40);
        let values: Vec<f32> =
            (0..1200).map(|cell| (cell % 40) as f32).chain((0..1200).map(|cell| (cell / 40) as f32)).collect();
        let pixels = Pixels::of(&Level { values: &values, shape });
        let mut grid = vec![0.0; SIDE * SIDE * 2];
        pixels.grid([8.0, 16.0, 64.0, 72.0], 0.25, &mut grid);
        for (place, cell) in grid.chunks_exact(2).enumerate() {
            let (row, column) = ((place / SIDE) as f32, (place % SIDE) as f32);
            assert!(
                (cell[0] - (2.0 + (column + 0.5) * 2.0)).abs() < 1e-4
                    && (cell[1] - (4.0 + (row + 0.5) * 2.0)).abs() < 1e-4
            );
        }
    }

    #[test]
    fn outside_there_is_nothing_and_the_edge_is_continued() {
        assert_eq!((between(-1.1, 5), between(5.1, 5), between(f32::NAN, 5)), (None, None, None));
        assert_eq!(between(-0.5, 5), Some([(0, 1.0), (1, 0.0)]));
        assert_eq!(between(4.9, 5), Some([(4, 1.0), (4, 0.0)]));
        assert_eq!(between(1.25, 5), Some([(1, 0.75), (2, 0.25)]));
    }
}
