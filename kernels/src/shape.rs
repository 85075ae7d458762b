//! Sizes of values, and windows that slide over them.

use std::fmt;

/// No side, kernel, stride or padding is larger: so far from `usize`'s end, sizes can be multiplied without a second thought.
const LONGEST: usize = 1 << 16;

/// No value has more elements; 4 GiB of f32 an image are more than any network's.
const MOST_ELEMENTS: usize = 1 << 30;

/// Channels, height and width of one image or feature map, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Number of planes.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Shape {
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

    /// Whether a network can be expected to have a value of this shape.
    pub(crate) fn is_sound(&self) -> bool {
        let sides = [self.channels, self.height, self.width];
        let elements = sides.iter().try_fold(1, |product: usize, side| product.checked_mul(*side));
        sides.iter().all(|side| *side > 0) && elements.is_some_and(|elements| elements <= MOST_ELEMENTS)
    }
}

/// `3x224x224`: channels, height, width.
impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// Rows and columns added around a feature map before a window slides over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// No padding.
    pub const NONE: Self = Self::all(0);

    /// The same number of rows and columns on all four sides.
    #[must_use]
    pub const fn all(size: usize) -> Self {
        Self { top: size, bottom: size, left: size, right: size }
    }
}

/// A window that slides over a feature map: of a convolution or of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Step in rows and in columns.
    pub stride: [usize; 2],
    /// Distance between the taps of the kernel, in rows and in columns; 1 for a dense one.
    pub dilation: [usize; 2],
    /// What is added around the input.
    pub padding: Padding,
}

impl Window {
    /// A dense square window.
    #[must_use]
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel: [kernel, kernel], stride: [stride, stride], dilation: [1, 1], padding: Padding::all(padding) }
    }

    /// Rows and columns from the first tap to the last one, both included.
    pub(crate) const fn span(&self) -> [usize; 2] {
        [(self.kernel[0] - 1) * self.dilation[0] + 1, (self.kernel[1] - 1) * self.dilation[1] + 1]
    }

    /// Taps of the kernel.
    pub(crate) const fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Whether this is one tap that looks at every element.
    pub(crate) fn is_point(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == Padding::NONE
    }

    fn is_sound(&self) -> bool {
        let Padding { top, bottom, left, right } = self.padding;
        let all = [self.kernel, self.stride, self.dilation];
        all.iter().flatten().all(|number| (1..=LONGEST).contains(number))
            && [top, bottom, left, right].iter().all(|number| *number <= LONGEST)
    }

    /// Height and width that come out for an input, or nothing when the window does not fit into it. With `ceil`, a remainder
    /// that a stride leaves gets a window of its own, if that one begins inside of the input or of the padding before it
    /// (PyTorch's `ceil_mode`).
    #[must_use]
    pub fn output(&self, input: Shape, ceil: bool) -> Option<[usize; 2]> {
        if !self.is_sound() {
            return None;
        }
        let Padding { top, bottom, left, right } = self.padding;
        let [span_y, span_x] = self.span();
        let steps = |length: usize, before: usize, after: usize, span: usize, stride: usize| {
            let room = length.checked_add(before + after)?.checked_sub(span)?;
            if !ceil {
                return Some(room / stride + 1);
            }
            let steps = room.div_ceil(stride) + 1;
            Some(if (steps - 1) * stride >= length + before { steps - 1 } else { steps })
        };
        let height = steps(input.height, top, bottom, span_y, self.stride[0])?;
        let width = steps(input.width, left, right, span_x, self.stride[1])?;
        Some([height, width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_those_of_pytorch() {
        let side =
            |length, window: Window, ceil| window.output(Shape::new(1, length, length), ceil).map(|[side, _]| side);
        assert_eq!(side(224, Window::square(7, 2, 3), false), Some(112));
        assert_eq!(side(112, Window::square(3, 2, 0), true), Some(56));
        assert_eq!(side(112, Window::square(3, 2, 0), false), Some(55));
        // The last window would begin behind the input.
        assert_eq!(side(3, Window::square(1, 2, 1), true), Some(2));
        assert_eq!(side(4, Window::square(5, 1, 0), false), None);
        assert_eq!(side(4, Window { dilation: [2, 2], ..Window::square(3, 1, 0) }, false), None);
        assert_eq!(side(5, Window { dilation: [2, 2], ..Window::square(3, 1, 0) }, false), Some(1));
    }

    #[test]
    fn windows_and_shapes_without_sense_are_refused() {
        let shape = Shape::new(1, 4, 4);
        for window in [
            Window::square(0, 1, 0),
            Window::square(1, 0, 0),
            Window { dilation: [0, 1], ..Window::square(1, 1, 0) },
            Window::square(1, 1, usize::MAX),
            Window::square(usize::MAX, 1, 0),
        ] {
            assert_eq!(window.output(shape, false), None, "{window:?}");
        }
        assert!(shape.is_sound() && !Shape::new(0, 1, 1).is_sound());
        assert!(!Shape::new(usize::MAX, usize::MAX, 2).is_sound() && !Shape::new(1 << 20, 1 << 20, 1).is_sound());
    }
}
