//! Four products and their sum by one instruction: VNNI, of AVX-512 and of AVX2.

use std::arch::x86_64::*;

use crate::lanes::avx2::Avx2;
use crate::lanes::avx512::Avx512;
use crate::lanes::bytes::quads::Quads;

/// Sixteen sums.
#[derive(Clone, Copy)]
pub(crate) struct Vnni512(__m512i);

// Every block here stands in a function that is inlined into one with the instructions enabled.
impl Quads for Vnni512 {
    type Floats = Avx512;
    type Inputs = __m512i;
    type Weights = __m512i;

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: the caller vouches for the instructions and the memory.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }

    #[inline(always)]
    unsafe fn inputs(from: *const u8) -> __m512i {
        // SAFETY: as in `load`.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> __m512i {
        // SAFETY: as in `load`.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    fn dot(self, inputs: __m512i, weights: __m512i) -> Self {
        // SAFETY: that there is a vector vouches for the instructions.
        Self(unsafe { _mm512_dpbusd_epi32(self.0, inputs, weights) })
    }

    #[inline(always)]
    fn floats(self) -> Avx512 {
        // SAFETY: as in `dot`.
        Avx512(unsafe { _mm512_cvtepi32_ps(self.0) })
    }
}

/// Eight sums.
#[derive(Clone, Copy)]
pub(crate) struct Vnni256(__m256i);

impl Quads for Vnni256 {
    type Floats = Avx2;
    type Inputs = __m256i;
    type Weights = __m256i;

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: the caller vouches for the instructions and the memory.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline(always)]
    unsafe fn inputs(from: *const u8) -> __m256i {
        // SAFETY: as in `load`.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> __m256i {
        // SAFETY: as in `load`.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    fn dot(self, inputs: __m256i, weights: __m256i) -> Self {
        // SAFETY: that there is a vector vouches for the instructions.
        Self(unsafe { _mm256_dpbusd_avx_epi32(self.0, inputs, weights) })
    }

    #[inline(always)]
    fn floats(self) -> Avx2 {
        // SAFETY: as in `dot`.
        Avx2(unsafe { _mm256_cvtepi32_ps(self.0) })
    }
}
