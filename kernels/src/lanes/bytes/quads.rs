//! The trait that inner loops over bytes are written in.

use crate::lanes::vector::Lanes;

/// A vector of as many i32 as [`Quads::Floats`] has elements: sums of products of bytes, four of them at a time.
///
/// As with [`Lanes`], vectors come into being only through unsafe constructors, and all is to be inlined into functions that have the
/// instructions enabled.
pub(crate) trait Quads: Copy {
    /// What sums become in the end.
    type Floats: Bytes;
    /// Four bytes without a sign, the same ones for each element, in the form in which they are multiplied.
    type Inputs: Copy;
    /// Four bytes with a sign for each element, likewise.
    type Weights: Copy;

    /// `Floats::COUNT` numbers from memory.
    ///
    /// # Safety
    /// The processor has the instructions, and so many numbers can be read from there. No alignment is asked for.
    unsafe fn load(from: *const i32) -> Self;

    /// # Safety
    /// As [`Self::load`], for four bytes.
    unsafe fn inputs(from: *const u8) -> Self::Inputs;

    /// # Safety
    /// As [`Self::load`], for four times as many bytes.
    unsafe fn weights(from: *const i8) -> Self::Weights;

    /// To each element the four products of its bytes are added.
    fn dot(self, inputs: Self::Inputs, weights: Self::Weights) -> Self;

    /// As f32, rounded to the nearest, of two as near the even one.
    fn floats(self) -> Self::Floats;
}

/// A vector of f32 that can be made of bytes, and bytes of it.
pub(crate) trait Bytes: Lanes {
    /// `COUNT` bytes without a sign, as f32.
    ///
    /// # Safety
    /// The processor has the instructions, and so many bytes can be read from there.
    unsafe fn of_bytes(from: *const u8) -> Self;

    /// The nearest whole numbers, of two as near the even one, as bytes to memory.
    ///
    /// # Safety
    /// As many bytes can be written there; and all elements lie between 0 and 255.
    unsafe fn to_bytes(self, to: *mut u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::bytes::plain::Plain;

    const WEIGHTS: [i8; 64] = {
        let mut weights = [0; 64];
        let mut place = 0;
        while place < 64 {
            // Ends and middles: sums of two products that no 16 bits hold are among them.
            weights[place] = [127, -127, 127, 126, -128, -1, 3, 127, -127, -126, -127, -127][place % 12];
            place += 1;
        }
        weights
    };

    /// Twice the products of all bytes, from 1,000 on.
    fn sums<V: Quads>() -> Vec<f32> {
        let mut all = vec![0f32; V::Floats::COUNT];
        // SAFETY: there are as many numbers and bytes as a vector takes at most, and whoever calls has the instructions.
        unsafe {
            let start = [1000i32; 16];
            let [one, other] = [[255u8, 254, 255, 1], [0, 255, 128, 255]];
            let sum = V::load(start.as_ptr()).dot(V::inputs(one.as_ptr()), V::weights(WEIGHTS.as_ptr()));
            sum.dot(V::inputs(other.as_ptr()), V::weights(WEIGHTS.as_ptr())).floats().store(all.as_mut_ptr());
        }
        all
    }

    /// Bytes to numbers and back.
    fn there_and_back<V: Quads>() -> Vec<u8> {
        let mut all = vec![0u8; V::Floats::COUNT];
        let bytes: Vec<u8> = (0..16).map(|place| place * 17).collect();
        // SAFETY: as in `sums`.
        unsafe {
            let numbers = V::Floats::of_bytes(bytes.as_ptr()).sub(V::Floats::splat(0.5));
            numbers.at_least(V::Floats::splat(0.0)).to_bytes(all.as_mut_ptr());
        }
        all
    }

    fn check<V: Quads>() {
        let count = V::Floats::COUNT;
        let products = |inputs: [i32; 4], lane: usize| -> i32 {
            (0..4).map(|place| inputs[place] * i32::from(WEIGHTS[lane * 4 + place])).sum()
        };
        let expected = |lane| (1000 + products([255, 254, 255, 1], lane) + products([0, 255, 128, 255], lane)) as f32;
        assert_eq!(sums::<V>(), (0..count).map(expected).collect::<Vec<_>>());
        // Of two as near the even one.
        let rounded = |place: usize| {
            let half = (place * 17) as f32 - 0.5;
            half.max(0.0).round_ties_even() as u8
        };
        assert_eq!(there_and_back::<V>(), (0..count).map(rounded).collect::<Vec<_>>());
    }

    /// Those that this processor has: a plan takes the best of them alone.
    #[test]
    fn all_of_them_give_the_same_whole_numbers() {
        check::<Plain>();
        #[cfg(target_arch = "x86_64")]
        {
            use crate::isa::Isa;
            use crate::lanes::bytes::{pairs, vnni};
            if Isa::Avx2.is_available() {
                check::<pairs::Pairs256>();
            }
            if Isa::Avx512.is_available() {
                check::<pairs::Pairs512>();
            }
            if Isa::Avx2.is_available() && is_x86_feature_detected!("avxvnni") {
                check::<vnni::Vnni256>();
            }
            if Isa::Avx512.is_available() && is_x86_feature_detected!("avx512vnni") {
                check::<vnni::Vnni512>();
            }
        }
    }
}
