//! What of decoded rows is the picture.

/// What of a raster is the picture, in one direction. Counted in the picture's own pixels, of which each of the raster's
/// holds the mean of `divided` (a power of two).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it starts.
    pub start: usize,
    /// How long it is.
    pub length: usize,
    /// How many of its pixels are one of the raster's.
    pub divided: usize,
}

impl Span {
    /// All of so many pixels.
    #[must_use]
    pub const fn whole(pixels: usize) -> Self {
        Self { start: 0, length: pixels, divided: 1 }
    }

    /// Where it starts and how long it is in pixels of the raster.
    #[must_use]
    pub fn in_raster(self) -> [f64; 2] {
        [self.start, self.length].map(|pixels| pixels as f64 / self.divided as f64)
    }
}
