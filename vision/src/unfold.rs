//! Convolution as one matrix product over gathered rows, for training on a CPU.
//!
//! Why not `conv2d`: its gradient towards the input is a transposed convolution that candle computes one dot product
//! at a time, and computes even for the first layer, where nobody wants it. Gathering whole rows of a batch and adding
//! them back are both plain copies, and the rest is the matrix product that candle is quick at: a step of LeNet with 64
//! images takes 69 ms instead of 88 on one core. For inference `conv2d` stays the better choice: it needs less memory.

use candle_core::Tensor;

use crate::error::VisionError;
use crate::layers::{Window, pad_with_zeros};

/// `input` is `[N, C, H, W]`, `weight` is `[outputs, C, kernel height, kernel width]`; gives `[N, outputs, H', W']`
/// with the height and width of [`Window::output`].
pub(crate) fn convolve(input: &Tensor, weight: &Tensor, window: &Window) -> Result<Tensor, VisionError> {
    let padded = pad_with_zeros(input, window.padding)?;
    let (batch, channels, rows, columns) = padded.dims4()?;
    let (outputs, _, kernel_height, kernel_width) = weight.dims4()?;
    let height = (rows - kernel_height) / window.stride + 1;
    let width = (columns - kernel_width) / window.stride + 1;
    // One row for each element of an image, the batch along it.
    let elements = padded.flatten_from(1)?.t()?.contiguous()?;
    let mut places = Vec::with_capacity(channels * kernel_height * kernel_width * height * width);
    for channel in 0..channels {
        for row in 0..kernel_height {
            for column in 0..kernel_width {
                for y in 0..height {
                    for x in 0..width {
                        let (y, x) = (y * window.stride + row, x * window.stride + column);
                        // An image has fewer than 2^32 elements.
                        places.push(((channel * rows + y) * columns + x) as u32);
                    }
                }
            }
        }
    }
    let places = Tensor::new(places, input.device())?;
    let taps = channels * kernel_height * kernel_width;
    let gathered = elements.index_select(&places, 0)?.reshape((taps, height * width * batch))?;
    let product = weight.reshape((outputs, taps))?.matmul(&gathered)?;
    Ok(product
        .reshape((outputs, height * width, batch))?
        .permute((2, 0, 1))?
        .reshape((batch, outputs, height, width))?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::layers::Padding;

    fn worst(left: &Tensor, right: &Tensor) -> f32 {
        assert_eq!(left.dims(), right.dims());
        let difference = left.sub(right).unwrap().abs().unwrap().flatten_all().unwrap();
        difference.max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn values_and_gradients_agree_with_conv2d() {
        let ramp = |count: usize, step: f32| (0..count).map(|i| ((i as f32) * step).sin()).collect::<Vec<_>>();
        let input = Tensor::from_vec(ramp(3 * 2 * 9 * 7, 0.37), (3, 2, 9, 7), &Device::Cpu).unwrap();
        let weight = Tensor::from_vec(ramp(4 * 2 * 9, 0.91), (4, 2, 3, 3), &Device::Cpu).unwrap();
        for (stride, padding) in [(1, 0), (1, 1), (2, 1)] {
            let (input, weight) = (Var::from_tensor(&input).unwrap(), Var::from_tensor(&weight).unwrap());
            let window = Window { kernel: [3, 3], stride, padding: Padding::all(padding) };
            let ours = convolve(&input, &weight, &window).unwrap();
            let theirs = input.conv2d(&weight, padding, stride, 1, 1).unwrap();
            assert!(worst(&ours, &theirs) < 1e-5);
            let ours = ours.sqr().unwrap().mean_all().unwrap().backward().unwrap();
            let theirs = theirs.sqr().unwrap().mean_all().unwrap().backward().unwrap();
            assert!(worst(ours.get(&input).unwrap(), theirs.get(&input).unwrap()) < 1e-5);
            assert!(worst(ours.get(&weight).unwrap(), theirs.get(&weight).unwrap()) < 1e-5);
        }
    }
}
