//! Depthwise convolution on a CPU.
//!
//! Why not `conv2d` with groups: candle runs one whole convolution a channel, 100 ms for the seventeen depthwise layers
//! of MobileNetV2 on one core of a Xeon of 2023. Nine broadcast multiplications of shifted inputs through candle's own
//! operations take 33 ms; these plain loops, of which the compiler makes vector instructions, 5.5 ms.

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor, bail};

use crate::error::VisionError;
use crate::layers::Window;
use crate::shape::ImageShape;

/// `input` is `[N, C, H, W]`, `weight` is `[C, 1, kernel height, kernel width]`, both f32 on the CPU; gives
/// `[N, C, H', W']` with the height and width of [`Window::output`]. It has no gradient.
pub(crate) fn convolve(input: &Tensor, weight: &Tensor, window: &Window) -> Result<Tensor, VisionError> {
    Ok(input.contiguous()?.apply_op2_no_bwd(&weight.contiguous()?, &Depthwise { window: *window })?)
}

struct Depthwise {
    window: Window,
}

impl CustomOp2 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, channels, height, width) = input_layout.shape().dims4()?;
        let size = ImageShape { channels, height, width };
        let Some([rows, columns]) = self.window.output(size) else { bail!("the window does not fit into {size}") };
        let [kernel_height, kernel_width] = self.window.kernel;
        let input = contiguous(input, input_layout)?.chunks_exact(height * width);
        let weight = contiguous(weight, weight_layout)?.chunks_exact(kernel_height * kernel_width);
        let mut output = vec![0f32; batch * channels * rows * columns];
        let planes = output.chunks_exact_mut(rows * columns).zip(input).zip(weight.cycle());
        for ((plane, source), taps) in planes {
            for (tap, weight) in taps.iter().enumerate() {
                let place = [tap / kernel_width, tap % kernel_width];
                self.add_tap((plane, columns), (source, size), place, *weight);
            }
        }
        Ok((CpuStorage::F32(output), Shape::from((batch, channels, rows, columns))))
    }
}

impl Depthwise {
    /// Adds `weight` times the shifted source to a plane of results with `columns` in a row.
    fn add_tap(
        &self,
        (plane, columns): (&mut [f32], usize),
        (source, size): (&[f32], ImageShape),
        [row, column]: [usize; 2],
        weight: f32,
    ) {
        let Window { stride, padding, .. } = self.window;
        // Columns of the result whose source lies inside: x * stride + column - left must be in 0..width.
        let first = padding.left.saturating_sub(column).div_ceil(stride);
        let end = (size.width + padding.left).saturating_sub(column).div_ceil(stride).min(columns);
        if first >= end {
            return;
        }
        let from = first * stride + column - padding.left;
        for (y, results) in plane.chunks_exact_mut(columns).enumerate() {
            let Some(line) = (y * stride + row).checked_sub(padding.top).filter(|line| *line < size.height) else {
                continue;
            };
            let samples = &source[line * size.width + from..(line + 1) * size.width];
            let results = &mut results[first..end];
            if stride == 1 {
                results.iter_mut().zip(samples).for_each(|(result, sample)| *result += sample * weight);
            } else {
                let samples = samples.iter().step_by(stride);
                results.iter_mut().zip(samples).for_each(|(result, sample)| *result += sample * weight);
            }
        }
    }
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("a depthwise convolution needs contiguous tensors"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::layers::{Padding, pad_with_zeros};

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
