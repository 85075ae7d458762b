//! Four f32 in an array: every compiler makes vector instructions of these loops where the target has any.

use crate::lanes::vector::Lanes;

#[derive(Clone, Copy)]
#[repr(align(16))]
pub(crate) struct Portable([f32; 4]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, operation: impl Fn(f32, f32) -> f32) -> Self {
        let (a, b) = (self.0, other.0);
        Self([operation(a[0], b[0]), operation(a[1], b[1]), operation(a[2], b[2]), operation(a[3], b[3])])
    }
}

impl Lanes for Portable {
    const COUNT: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for the memory; arrays of f32 need no alignment beyond that of f32.
        Self(unsafe { from.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as in `load`.
        unsafe { to.cast::<[f32; 4]>().write(self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    /// Rounded twice: `f32::mul_add` is a call of a library where the target has no instruction for it.
    #[inline(always)]
    fn mul_add(self, factor: Self, sum: Self) -> Self {
        self.mul(factor).add(sum)
    }

    #[inline(always)]
    fn at_least(self, low: Self) -> Self {
        self.zip(low, |a, b| if a < b { b } else { a })
    }

    #[inline(always)]
    fn at_most(self, high: Self) -> Self {
        self.zip(high, |a, b| if a > b { b } else { a })
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b || b.is_nan() { b } else { a })
    }

    /// By adding a number so large that no bits are left behind the point.
    #[inline(always)]
    fn round(self) -> Self {
        const LARGE: f32 = 12_582_912.0;
        self.zip(self, |a, _| (a + LARGE) - LARGE)
    }

    #[inline(always)]
    fn times_power(self, exponent: Self) -> Self {
        self.zip(exponent, |a, power| a * f32::from_bits(((power as i32 + 127) << 23) as u32))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        (self.0[0] + self.0[2]) + (self.0[1] + self.0[3])
    }
}
