//! The trait that all inner loops are written in.
//!
//! Why a trait of our own: the loops are written once, generic, and compiled once for each set of instructions inside of a
//! function that has them enabled (`inner::table`). Everything here must be inlined into those, hence `inline(always)`.

use crate::activation::Activation;

/// A vector of [`Lanes::COUNT`] f32.
///
/// Vectors come into being only through the unsafe constructors, so whoever holds one has the instructions for what can be done
/// with it: arithmetic is safe.
pub(crate) trait Lanes: Copy {
    /// Elements of a vector.
    const COUNT: usize;

    /// All elements equal.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn splat(value: f32) -> Self;

    /// `COUNT` elements from memory.
    ///
    /// # Safety
    /// The processor has the instructions, and so many elements can be read from there. No alignment is asked for.
    unsafe fn load(from: *const f32) -> Self;

    /// `COUNT` elements to memory.
    ///
    /// # Safety
    /// So many elements can be written there. No alignment is asked for.
    unsafe fn store(self, to: *mut f32);

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// `self * factor + sum`, rounded once where there are instructions for that.
    fn mul_add(self, factor: Self, sum: Self) -> Self;
    /// The larger of both; a NaN in `self` stays.
    fn at_least(self, low: Self) -> Self;
    /// The smaller of both; a NaN in `self` stays.
    fn at_most(self, high: Self) -> Self;
    /// The larger of both; a NaN in either stays.
    fn larger(self, other: Self) -> Self;
    /// The nearest whole numbers; for what fits an i32.
    fn round(self) -> Self;
    /// `self` times two to the power of `exponent`, a whole number in -126..=127.
    fn times_power(self, exponent: Self) -> Self;
    /// 1 / `self`, to two units in the last place; for normal numbers whose results are such.
    #[inline(always)]
    fn inverse(self) -> Self {
        // SAFETY: that there is a vector vouches for the instructions.
        unsafe { Self::splat(1.0) }.div(self)
    }
    /// The sum of the elements.
    fn sum(self) -> f32;
    /// Asks for a cache line that is needed in a moment; the address need not be readable.
    fn prefetch(_at: *const f32) {}
    /// Asks for a cache line that is needed later, into the second cache; the address need not be readable.
    fn prefetch_far(_at: *const f32) {}

    /// exp, to two units in the last place; bounded to exp(-87) and exp(88), which are no infinities and no denormals.
    ///
    /// # Safety
    /// As [`Self::splat`].
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        // SAFETY: the caller vouches for the instructions.
        unsafe {
            let x = self.at_least(Self::splat(-87.0)).at_most(Self::splat(88.0));
            let exponent = x.mul(Self::splat(std::f32::consts::LOG2_E)).round();
            // ln 2 in two parts, the first of which has so few bits that its products are exact (Cody and Waite).
            let rest = exponent.mul_add(Self::splat(-0.693_359_4), x);
            let rest = exponent.mul_add(Self::splat(2.121_944_4e-4), rest);
            // Cephes' polynomial for exp on half of ln 2 to both sides.
            let mut series = Self::splat(1.987_569_1e-4);
            for coefficient in [1.398_199_9e-3f32, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
                series = series.mul_add(rest, Self::splat(coefficient));
            }
            let value = series.mul_add(rest.mul(rest), rest.add(Self::splat(1.0)));
            value.times_power(exponent)
        }
    }

    /// An activation of each element.
    ///
    /// # Safety
    /// As [`Self::splat`].
    #[inline(always)]
    unsafe fn activate(self, activation: Activation) -> Self {
        // SAFETY: the caller vouches for the instructions.
        unsafe {
            let zero = Self::splat(0.0);
            match activation {
                Activation::Identity => self,
                Activation::Relu => self.at_least(zero),
                Activation::Relu6 => self.at_least(zero).at_most(Self::splat(6.0)),
                Activation::Leaky(slope) => Self::splat(slope).mul_add(self.at_most(zero), self.at_least(zero)),
                Activation::Sigmoid => zero.sub(self).exp().add(Self::splat(1.0)).inverse(),
                Activation::Silu => self.mul(zero.sub(self).exp().add(Self::splat(1.0)).inverse()),
                Activation::HardSigmoid => self.sixth(),
                Activation::HardSwish => self.mul(self.sixth()),
            }
        }
    }

    /// min(max(x + 3, 0), 6) / 6.
    ///
    /// # Safety
    /// As [`Self::splat`].
    #[inline(always)]
    unsafe fn sixth(self) -> Self {
        // SAFETY: the caller vouches for the instructions.
        unsafe {
            let sum = self.add(Self::splat(3.0)).at_least(Self::splat(0.0)).at_most(Self::splat(6.0));
            sum.mul(Self::splat(1.0 / 6.0))
        }
    }
}
