//! Sixteen f32 by AVX-512.

use std::arch::x86_64::*;

use crate::lanes::bytes::Bytes;
use crate::lanes::vector::Lanes;

#[derive(Clone, Copy)]
pub(crate) struct Avx512(pub(in crate::lanes) __m512);

// As with those of `Lanes` below, these blocks stand in functions that are inlined.
impl Bytes for Avx512 {
    #[inline(always)]
    unsafe fn of_bytes(from: *const u8) -> Self {
        // SAFETY: the caller vouches for the instructions and the memory.
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) })
    }

    #[inline(always)]
    unsafe fn to_bytes(self, to: *mut u8) {
        // SAFETY: the caller vouches for the memory; that there is a vector, for the instructions.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0))) }
    }
}

// Every block here stands in a function that is inlined into one with AVX-512 enabled.
impl Lanes for Avx512 {
    const COUNT: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller vouches for the instructions.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for the instructions and the memory.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for the memory; that there is a vector, for the instructions.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: that there is a vector vouches for the instructions.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, sum.0) })
    }

    /// Of two numbers one of which is a NaN, the instruction gives the second.
    #[inline(always)]
    fn at_least(self, low: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm512_max_ps(low.0, self.0) })
    }

    #[inline(always)]
    fn at_most(self, high: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm512_min_ps(high.0, self.0) })
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        unsafe {
            let numbers = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(self.0, self.0);
            Self(_mm512_mask_max_ps(self.0, numbers, self.0, other.0))
        }
    }

    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm512_roundscale_ps::<0>(self.0) })
    }

    #[inline(always)]
    fn times_power(self, exponent: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm512_scalef_ps(self.0, exponent.0) })
    }

    /// A guess of 14 bits and a step of Newton's: a third of the time of a division.
    #[inline(always)]
    fn inverse(self) -> Self {
        // SAFETY: as in `add`.
        unsafe {
            let guess = _mm512_rcp14_ps(self.0);
            let missing = _mm512_fnmadd_ps(self.0, guess, _mm512_set1_ps(1.0));
            Self(_mm512_fmadd_ps(guess, missing, guess))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as in `add`.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }

    #[inline(always)]
    fn prefetch(at: *const f32) {
        // SAFETY: a prefetch never faults, and every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn prefetch_far(at: *const f32) {
        // SAFETY: as in `prefetch`.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}
