//! Depthwise convolution on a CPU through candle's element-wise operations.
//!
//! Why not `conv2d` with groups: candle runs one whole convolution a channel. Here each tap of the kernel is one
//! multiplication of the shifted input by one weight a channel, summed up.

use candle_core::{D, Tensor};

use crate::error::VisionError;
use crate::layers::{Window, pad_with_zeros};

/// `input` is `[N, C, H, W]`, `weight` is `[C, 1, kernel height, kernel width]`; gives `[N, C, H', W']` with the
/// height and width of [`Window::output`].
pub(crate) fn convolve(input: &Tensor, weight: &Tensor, window: &Window) -> Result<Tensor, VisionError> {
    let (batch, channels, _, _) = input.dims4()?;
    let padded = pad_with_zeros(input, window.padding)?;
    let (_, _, rows, columns) = padded.dims4()?;
    let stride = window.stride;
    let [kernel_height, kernel_width] = window.kernel;
    let (height, width) = ((rows - kernel_height) / stride + 1, (columns - kernel_width) / stride + 1);
    // A strided view of every phase: row r of the padded input is row r / stride of phase r % stride.
    let padded = pad_to_multiple(&padded, stride)?;
    let (_, _, rows, columns) = padded.dims4()?;
    let phases = padded.reshape((batch * channels, rows / stride, stride, columns / stride, stride))?;
    let mut sum: Option<Tensor> = None;
    for row in 0..kernel_height {
        for column in 0..kernel_width {
            let shifted = phases
                .narrow(2, row % stride, 1)?
                .narrow(4, column % stride, 1)?
                .narrow(1, row / stride, height)?
                .narrow(3, column / stride, width)?
                .contiguous()?
                .reshape((batch, channels, height, width))?;
            let tap = weight.narrow(2, row, 1)?.narrow(3, column, 1)?.reshape((1, channels, 1, 1))?;
            let product = shifted.broadcast_mul(&tap)?;
            sum = Some(match sum {
                Some(sum) => sum.add(&product)?,
                None => product,
            });
        }
    }
    sum.ok_or_else(|| VisionError::Layer { layer: "depthwise".to_owned(), reason: "empty kernel".to_owned() })
}

/// Rows and columns of zeros below and to the right, until both are multiples of `stride`.
fn pad_to_multiple(input: &Tensor, stride: usize) -> candle_core::Result<Tensor> {
    let (_, _, rows, columns) = input.dims4()?;
    input.pad_with_zeros(D::Minus2, 0, rows.next_multiple_of(stride) - rows)?.pad_with_zeros(
        D::Minus1,
        0,
        columns.next_multiple_of(stride) - columns,
    )
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::layers::Padding;

    #[test]
    fn agrees_with_a_grouped_convolution() {
        let ramp = |count: usize, step: f32| (0..count).map(|i| ((i as f32) * step).sin()).collect::<Vec<_>>();
        let input = Tensor::from_vec(ramp(2 * 5 * 9 * 7, 0.37), (2, 5, 9, 7), &Device::Cpu).unwrap();
        let weight = Tensor::from_vec(ramp(5 * 9, 0.91), (5, 1, 3, 3), &Device::Cpu).unwrap();
        for stride in [1, 2] {
            for padding in [Padding::all(1), Padding { top: 0, bottom: 1, left: 0, right: 1 }, Padding::NONE] {
                let window = Window { kernel: [3, 3], stride, padding };
                let ours = convolve(&input, &weight, &window).unwrap();
                let theirs = pad_with_zeros(&input, padding).unwrap().conv2d(&weight, 0, stride, 1, 5).unwrap();
                assert_eq!(ours.dims(), theirs.dims());
                let difference = (ours - theirs).unwrap().abs().unwrap().flatten_all().unwrap();
                let worst = difference.max(0).unwrap().to_scalar::<f32>().unwrap();
                assert!(worst < 1e-5, "stride {stride}, {padding:?}: {worst}");
            }
        }
    }
}
