//! Products of 16 bits for processors without VNNI, two and their sum by one instruction.
//!
//! There is an instruction for bytes, too, but its sums of two products are cut off at 32,767: other numbers than everywhere else.

use std::arch::x86_64::*;

use crate::lanes::avx2::Avx2;
use crate::lanes::avx512::Avx512;
use crate::lanes::bytes::quads::Quads;

/// Sixteen sums.
#[derive(Clone, Copy)]
pub(crate) struct Pairs512(__m512i);

// Every block here stands in a function that is inlined into one with the instructions enabled.
impl Quads for Pairs512 {
    type Floats = Avx512;
    /// The bytes at even and at odd places.
    type Inputs = [__m512i; 2];
    type Weights = [__m512i; 2];

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: the caller vouches for the instructions and the memory.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }

    #[inline(always)]
    unsafe fn inputs(from: *const u8) -> [__m512i; 2] {
        // SAFETY: as in `load`.
        unsafe {
            let four = _mm512_set1_epi32(from.cast::<i32>().read_unaligned());
            [_mm512_and_si512(four, _mm512_set1_epi16(0xff)), _mm512_srli_epi16::<8>(four)]
        }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> [__m512i; 2] {
        // SAFETY: as in `load`.
        unsafe {
            let all = _mm512_loadu_si512(from.cast());
            [_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(all)), _mm512_srai_epi16::<8>(all)]
        }
    }

    #[inline(always)]
    fn dot(self, inputs: [__m512i; 2], weights: [__m512i; 2]) -> Self {
        // SAFETY: that there is a vector vouches for the instructions.
        unsafe {
            let even = _mm512_madd_epi16(inputs[0], weights[0]);
            let odd = _mm512_madd_epi16(inputs[1], weights[1]);
            Self(_mm512_add_epi32(self.0, _mm512_add_epi32(even, odd)))
        }
    }

    #[inline(always)]
    fn floats(self) -> Avx512 {
        // SAFETY: as in `dot`.
        Avx512(unsafe { _mm512_cvtepi32_ps(self.0) })
    }
}

/// Eight sums.
#[derive(Clone, Copy)]
pub(crate) struct Pairs256(__m256i);

impl Quads for Pairs256 {
    type Floats = Avx2;
    /// The bytes at even and at odd places.
    type Inputs = [__m256i; 2];
    type Weights = [__m256i; 2];

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: the caller vouches for the instructions and the memory.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline(always)]
    unsafe fn inputs(from: *const u8) -> [__m256i; 2] {
        // SAFETY: as in `load`.
        unsafe {
            let four = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
            [_mm256_and_si256(four, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(four)]
        }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> [__m256i; 2] {
        // SAFETY: as in `load`.
        unsafe {
            let all = _mm256_loadu_si256(from.cast());
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(all)), _mm256_srai_epi16::<8>(all)]
        }
    }

    #[inline(always)]
    fn dot(self, inputs: [__m256i; 2], weights: [__m256i; 2]) -> Self {
        // SAFETY: that there is a vector vouches for the instructions.
        unsafe {
            let even = _mm256_madd_epi16(inputs[0], weights[0]);
            let odd = _mm256_madd_epi16(inputs[1], weights[1]);
            Self(_mm256_add_epi32(self.0, _mm256_add_epi32(even, odd)))
        }
    }

    #[inline(always)]
    fn floats(self) -> Avx2 {
        // SAFETY: as in `dot`.
        Avx2(unsafe { _mm256_cvtepi32_ps(self.0) })
    }
}
