//! Numbers as bytes: where on the line of numbers each of 256 steps lies.

use crate::error::KernelError;
use crate::graph::Convolution;
use crate::shape::Shape;

/// Most weights of one output of a convolution of bytes: so many products of bytes fit an i32 with room to spare.
const MOST_WEIGHTS: usize = 1 << 15;

/// The largest byte of a weight: symmetric, so that minus one times a weight is a weight.
const LARGEST_WEIGHT: f32 = 127.0;

/// A byte `q` stands for `(q - zero) * step`. Zero itself is always a byte: padding is exact.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    step: f32,
    /// One by the step.
    inverse: f32,
    zero: u8,
}

impl Grid {
    /// The grid of numbers from `low` to `high`, and of zero; nothing where these are no numbers, or nothing but zero.
    #[must_use]
    pub fn of_range(low: f32, high: f32) -> Option<Self> {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let step = (high - low) / 255.0;
        let inverse = step.recip();
        if !step.is_normal() || !inverse.is_normal() {
            return None;
        }
        Some(Self { step, inverse, zero: (-low / step).round_ties_even() as u8 })
    }

    /// The distance between neighbouring bytes' numbers.
    #[must_use]
    pub const fn step(self) -> f32 {
        self.step
    }

    /// One by the step.
    pub(crate) const fn inverse(self) -> f32 {
        self.inverse
    }

    /// The byte that stands for zero.
    #[must_use]
    pub const fn zero(self) -> u8 {
        self.zero
    }

    /// The byte nearest to a number: of two as near the even one. What lies outside of the grid is its end.
    #[must_use]
    pub fn byte(self, x: f32) -> u8 {
        // A product and a sum, each rounded: no machine may fuse them, or bytes would hang on it.
        let place = x * self.inverse + f32::from(self.zero);
        place.clamp(0.0, 255.0).round_ties_even() as u8
    }

    /// The number that a byte stands for.
    #[must_use]
    pub fn number(self, byte: u8) -> f32 {
        (f32::from(byte) - f32::from(self.zero)) * self.step
    }
}

/// The weights of a convolution as bytes: a step for each output channel, no zero but zero.
#[derive(Debug)]
pub(crate) struct ByteWeights {
    /// As those they were made of.
    pub(crate) bytes: Vec<i8>,
    /// `[outputs]`: what one of a channel's bytes stands for.
    pub(crate) steps: Vec<f32>,
}

impl ByteWeights {
    pub(crate) fn of(convolution: &Convolution<'_>) -> Self {
        let each = (convolution.weight.len() / convolution.outputs).max(1);
        let (mut bytes, mut steps) = (Vec::with_capacity(convolution.weight.len()), Vec::new());
        for weights in convolution.weight.chunks_exact(each) {
            let largest = weights.iter().fold(0f32, |most, weight| most.max(weight.abs()));
            // So small that they cannot be told from zero, or zeros.
            let step = if largest < f32::MIN_POSITIVE * LARGEST_WEIGHT { 1.0 } else { largest / LARGEST_WEIGHT };
            bytes.extend(weights.iter().map(|weight| (weight / step).round_ties_even() as i8));
            steps.push(step);
        }
        Self { bytes, steps }
    }

    /// Sums of each output channel's bytes.
    pub(crate) fn sums(&self) -> impl Iterator<Item = i32> + '_ {
        let each = (self.bytes.len() / self.steps.len()).max(1);
        self.bytes.chunks_exact(each).map(|bytes| bytes.iter().map(|byte| i32::from(*byte)).sum())
    }
}

/// Fails where a convolution of bytes cannot be: its sums might not fit, or its weights are no numbers.
pub(crate) fn fits_bytes(convolution: &Convolution<'_>, from: Shape) -> Result<(), KernelError> {
    let Convolution { outputs, groups, weight, .. } = *convolution;
    let reason = if groups > 1 {
        "bytes are convolved over all channels"
    } else if weight.len() / outputs > MOST_WEIGHTS {
        "it has too many weights for bytes"
    } else if !weight.iter().all(|weight| weight.is_finite()) {
        "its weights are no numbers"
    } else {
        return Ok(());
    };
    Err(KernelError::Misfit { node: "convolution", shape: from, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Window;

    #[test]
    fn zero_is_exact_and_ends_are_reached() {
        for (low, high) in [(0.0, 6.0), (-1.0, 1.0), (-0.3, 17.0), (-5.0, 0.0), (2.0, 3.0), (-0.278, 4.0)] {
            let grid = Grid::of_range(low, high).unwrap();
            assert_eq!(grid.number(grid.zero()), 0.0);
            assert_eq!((grid.byte(-1e30), grid.byte(1e30), grid.byte(0.0)), (0, 255, grid.zero()));
            for place in 0..=100 {
                let number = low + (high - low) * place as f32 / 100.0;
                let error = (grid.number(grid.byte(number)) - number).abs();
                // Zero is moved to a byte, by up to half a step: so one end may be out of reach by as much.
                assert!(error <= 1.01 * grid.step(), "{number} of {low}..{high}: {error}");
            }
            (0..=255).for_each(|byte| assert_eq!(grid.byte(grid.number(byte)), byte));
        }
        assert_eq!(Grid::of_range(0.0, 6.0).unwrap().zero(), 0);
        for (low, high) in [(0.0, 0.0), (f32::NAN, f32::NAN), (f32::NEG_INFINITY, 0.0), (0.0, 1e-42), (-3e38, 3e38)] {
            assert_eq!(Grid::of_range(low, high), None, "{low}..{high}");
        }
    }

    #[test]
    fn each_channel_has_weights_up_to_the_largest_byte() {
        let weight = [0.5, -1.0, 0.25, 0.0, 0.0, 0.0, 1e-3, 2e-3, -4e-3];
        let layer = Convolution { outputs: 3, window: Window::square(1, 1, 0), groups: 1, weight: &weight, bias: None };
        let weights = ByteWeights::of(&layer);
        assert_eq!(weights.bytes, [64, -127, 32, 0, 0, 0, 32, 64, -127]);
        assert_eq!(weights.sums().collect::<Vec<_>>(), [-31, 0, -31]);
        assert_eq!(weights.steps[0], 1.0 / 127.0);
        let damaged = [f32::NAN; 9];
        assert!(fits_bytes(&layer, Shape::new(3, 1, 1)).is_ok());
        assert!(fits_bytes(&Convolution { weight: &damaged, ..layer }, Shape::new(3, 1, 1)).is_err());
    }
}
