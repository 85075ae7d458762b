//! The size of one image, or of one feature map, inside a network. It stands on the ground, because images, layers
//! and networks all speak of it.

use std::fmt;

/// Channels, height and width of one image or feature map, in elements; the batch dimension is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageShape {
    /// Number of planes: 3 for colour, 1 for grey, hundreds inside a network.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageShape {
    /// A shape from its three sizes.
    #[must_use]
    pub const fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width }
    }

    /// Number of elements: channels x height x width.
    #[must_use]
    pub const fn elements(&self) -> usize {
        self.channels * self.height * self.width
    }
}

/// `3x224x224`: channels, height, width.
impl fmt::Display for ImageShape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}x{}x{}", self.channels, self.height, self.width)
    }
}
