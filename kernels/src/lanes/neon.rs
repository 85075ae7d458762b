//! Four f32 by NEON.

use std::arch::aarch64::*;

use crate::lanes::vector::Lanes;

#[derive(Clone, Copy)]
pub(crate) struct Neon(float32x4_t);

// Every block here stands in a function that is inlined into one with NEON enabled.
impl Lanes for Neon {
    const COUNT: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller vouches for the instructions.
        Self(unsafe { vdupq_n_f32(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for the instructions and the memory.
        Self(unsafe { vld1q_f32(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for the memory; that there is a vector, for the instructions.
        unsafe { vst1q_f32(to, self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: that there is a vector vouches for the instructions.
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { vsubq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { vmulq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { vdivq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { vfmaq_f32(sum.0, self.0, factor.0) })
    }

    /// These instructions keep a NaN on either side.
    #[inline(always)]
    fn at_least(self, low: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { vmaxq_f32(self.0, low.0) })
    }

    #[inline(always)]
    fn at_most(self, high: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { vminq_f32(self.0, high.0) })
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { vmaxq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { vrndnq_f32(self.0) })
    }

    #[inline(always)]
    fn times_power(self, exponent: Self) -> Self {
        // SAFETY: as in `add`.
        unsafe {
            let biased = vaddq_s32(vcvtq_s32_f32(exponent.0), vdupq_n_s32(127));
            Self(vmulq_f32(self.0, vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as in `add`.
        unsafe { vaddvq_f32(self.0) }
    }
}
