//! How much smaller than stored a JPEG is decoded when the network needs less: the inverse cosine transform can leave
//! out the finer half of its waves, or three quarters, or all but the mean of each block.
//!
//! Why it is not always the smallest that will do: what the transform leaves out, the resizing that follows would have
//! weighted otherwise. Where it still has two pixels for each one that it makes, hardly anything of that is left.

/// Pixels in each direction that the resizing must find for each one that it makes. Pillow's manual calls three "almost
/// indistinguishable" for its own `reducing_gap`; with two, probabilities of classes were found to move by up to 0.05
/// (`docs/benchmarks.md`), and the first halving saves most of the time.
const GAP: u64 = 4;

/// By what a picture of this width and height may be divided (8, 4, 2 or 1) to be resized to the wanted ones.
pub(super) fn denominator(size: [u32; 2], wanted: [usize; 2]) -> u8 {
    let enough = |divided: u8| {
        size.iter().zip(wanted).all(|(stored, wanted)| u64::from(*stored) >= wanted as u64 * GAP * u64::from(divided))
    };
    [8, 4, 2].into_iter().find(|divided| enough(*divided)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_pixels_remain_for_each_that_is_made() {
        assert_eq!(denominator([4032, 3024], [341, 256]), 2);
        assert_eq!(denominator([8192, 8192], [256, 256]), 8);
        assert_eq!(denominator([8191, 8192], [256, 256]), 4, "one side is too short");
        assert_eq!(denominator([2048, 2048], [256, 256]), 2);
        assert_eq!(denominator([1920, 1080], [455, 256]), 1);
        assert_eq!(denominator([10, 10], [4096, 4096]), 1);
        assert_eq!(denominator([u32::MAX; 2], [1, 1]), 8);
    }
}
