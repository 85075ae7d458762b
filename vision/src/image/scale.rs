//! How much smaller than stored a JPEG is decoded when the network needs less: the inverse cosine transform can leave
//! out the finer half of its waves, or three quarters, or all but the mean of each block.
//!
//! Why it is not always the smallest that will do: what the transform leaves out, the resizing that follows would have
//! weighted otherwise. Where it still has two pixels for each one that it makes, hardly anything of that is left.

use adit_picture::{ImageError, ImageLimits, Pixels, decode_smaller};

use crate::image::preprocess::Preprocess;

/// Pixels in each direction that the resizing must find for each one that it makes. Pillow's manual calls three "almost
/// indistinguishable" for its own `reducing_gap`; with two, probabilities of classes were found to move by up to 0.05
/// (`docs/benchmarks.md`), and the first halving saves most of the time.
const GAP: u64 = 4;

/// As [`decode`](adit_picture::decode), for a network that sees the picture through this preprocessing: a JPEG that is much
/// larger than it needs is decoded at a smaller scale, unless [`Decode::Full`](crate::image::Decode::Full) is asked for.
/// [`Pixels::size`] is the picture's own all the same, and `limits` are held against that.
pub fn decode_for(bytes: &[u8], limits: &ImageLimits, preprocess: &Preprocess) -> Result<Pixels, ImageError> {
    decode_smaller(bytes, limits, &|size, orientation| {
        preprocess.needs(size, orientation).map_or(1, |wanted| denominator(size, wanted))
    })
}

/// By what a picture of this width and height may be divided (8, 4, 2 or 1) to be resized to the wanted ones.
fn denominator(size: [u32; 2], wanted: [usize; 2]) -> u8 {
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
