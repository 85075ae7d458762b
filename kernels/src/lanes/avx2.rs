//! Eight f32 by AVX2 and FMA.

use std::arch::x86_64::*;

use crate::lanes::bytes::Bytes;
use crate::lanes::vector::Lanes;

#[derive(Clone, Copy)]
pub(crate) struct Avx2(pub(in crate::lanes) __m256);

// As with those of `Lanes` below, these blocks stand in functions that are inlined.
impl Bytes for Avx2 {
    #[inline(always)]
    unsafe fn of_bytes(from: *const u8) -> Self {
        // SAFETY: the caller vouches for the instructions and the memory.
        Self(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) })
    }

    #[inline(always)]
    unsafe fn to_bytes(self, to: *mut u8) {
        // SAFETY: the caller vouches for the memory; that there is a vector, for the instructions.
        unsafe {
            let whole = _mm256_cvtps_epi32(self.0);
            let pairs = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole));
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(pairs, pairs));
        }
    }
}

// Every block here stands in a function that is inlined into one with AVX2 and FMA enabled.
impl Lanes for Avx2 {
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller vouches for the instructions.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for the instructions and the memory.
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for the memory; that there is a vector, for the instructions.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: that there is a vector vouches for the instructions.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, sum.0) })
    }

    /// Of two numbers one of which is a NaN, the instruction gives the second.
    #[inline(always)]
    fn at_least(self, low: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm256_max_ps(low.0, self.0) })
    }

    #[inline(always)]
    fn at_most(self, high: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm256_min_ps(high.0, self.0) })
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        unsafe {
            let nans = _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0);
            Self(_mm256_blendv_ps(_mm256_max_ps(self.0, other.0), self.0, nans))
        }
    }

    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    fn times_power(self, exponent: Self) -> Self {
        // SAFETY: as in `add`.
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(exponent.0), _mm256_set1_epi32(127));
            Self(_mm256_mul_ps(self.0, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as in `add`.
        unsafe {
            let half = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)))
        }
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
