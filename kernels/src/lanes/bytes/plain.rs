//! Four sums in an array.

use crate::lanes::bytes::quads::{Bytes, Quads};
use crate::lanes::portable::Portable;
use crate::lanes::vector::Lanes;

#[derive(Clone, Copy)]
#[repr(align(16))]
pub(crate) struct Plain([i32; 4]);

impl Quads for Plain {
    type Floats = Portable;
    type Inputs = [u8; 4];
    type Weights = [[i8; 4]; 4];

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: the caller vouches for the memory; arrays of i32 need no alignment beyond that of i32.
        Self(unsafe { from.cast::<[i32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn inputs(from: *const u8) -> [u8; 4] {
        // SAFETY: the caller vouches for the memory.
        unsafe { from.cast::<[u8; 4]>().read() }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> [[i8; 4]; 4] {
        // SAFETY: the caller vouches for the memory.
        unsafe { from.cast::<[[i8; 4]; 4]>().read() }
    }

    #[inline(always)]
    fn dot(self, inputs: [u8; 4], weights: [[i8; 4]; 4]) -> Self {
        let mut sums = self.0;
        for (sum, weights) in sums.iter_mut().zip(weights) {
            for (input, weight) in inputs.into_iter().zip(weights) {
                *sum += i32::from(input) * i32::from(weight);
            }
        }
        Self(sums)
    }

    #[inline(always)]
    fn floats(self) -> Portable {
        let numbers = self.0.map(|sum| sum as f32);
        // SAFETY: a vector of plain arrays needs no instructions; the array has four elements.
        unsafe { Portable::load(numbers.as_ptr()) }
    }
}

impl Bytes for Portable {
    #[inline(always)]
    unsafe fn of_bytes(from: *const u8) -> Self {
        // SAFETY: the caller vouches for the memory; the array has four elements, and a vector of plain arrays needs no instructions.
        unsafe { Self::load(from.cast::<[u8; 4]>().read().map(f32::from).as_ptr()) }
    }

    #[inline(always)]
    unsafe fn to_bytes(self, to: *mut u8) {
        let mut rounded = [0f32; 4];
        // SAFETY: the array has four elements, and the caller vouches for the memory.
        unsafe {
            self.round().store(rounded.as_mut_ptr());
            to.cast::<[u8; 4]>().write(rounded.map(|number| number as u8));
        }
    }
}
