//! What is done to each element of a feature map, on a CPU and on the calling thread.
//!
//! Why not candle's own operations: on tensors of more than 64 Ki elements they hand pieces to a pool of threads that the whole
//! process shares, one caller at a time, and wait for it spinning. A pass that has its core to itself gains nothing from
//! that, and two side by side fight: on two busy cores MobileNetV2 took 143 ms of processor time an image, and 44 ms without
//! it. These loops are plain, and the compiler makes vector instructions of them.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Shape, Tensor, bail};

use crate::error::VisionError;

/// Whether these loops may stand for candle's operations: f32 on the CPU, and nobody wants a gradient, for they have none.
pub(crate) fn serves(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32 && !tensor.track_op()
}

/// `function` of each element; keeps the shape.
pub(crate) fn map(input: &Tensor, function: impl Fn(f32) -> f32 + Send + Sync) -> Result<Tensor, VisionError> {
    Ok(input.contiguous()?.apply_op1_no_bwd(&Map(function))?)
}

/// `input` is `[N, C, H, W]`, `shift` is `[C]`: adds each channel's number to all of its elements.
pub(crate) fn shift(input: &Tensor, shift: &Tensor) -> Result<Tensor, VisionError> {
    Ok(input.contiguous()?.apply_op2_no_bwd(&shift.contiguous()?, &Shift)?)
}

/// `input` is `[N, C, H, W]`, `scale` and `shift` are `[C]`: multiplies by each channel's number, then adds the other.
pub(crate) fn scale_and_shift(input: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor, VisionError> {
    Ok(input.contiguous()?.apply_op3_no_bwd(&scale.contiguous()?, &shift.contiguous()?, &Affine)?)
}

/// `input` is `[N, C, H, W]`, `factors` is `[N, C, 1, 1]`: multiplies all of a channel's elements by its number.
pub(crate) fn scale(input: &Tensor, factors: &Tensor) -> Result<Tensor, VisionError> {
    Ok(input.contiguous()?.apply_op2_no_bwd(&factors.contiguous()?, &Scale)?)
}

/// The sum of two tensors of the same shape.
pub(crate) fn add(left: &Tensor, right: &Tensor) -> Result<Tensor, VisionError> {
    Ok(left.contiguous()?.apply_op2_no_bwd(&right.contiguous()?, &Add)?)
}

struct Map<F>(F);
struct Shift;
struct Affine;
struct Scale;
struct Add;

impl<F: Fn(f32) -> f32 + Send + Sync> CustomOp1 for Map<F> {
    fn name(&self) -> &'static str {
        "map"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let output = elements(input, layout)?.iter().map(|element| (self.0)(*element)).collect();
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }
}

impl CustomOp2 for Shift {
    fn name(&self) -> &'static str {
        "shift"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (input, shift) = (elements(input, layout)?, elements(shift, shift_layout)?);
        let mut output = Vec::with_capacity(input.len());
        for (plane, shift) in planes(input, layout, shift.len())?.zip(shift.iter().cycle()) {
            output.extend(plane.iter().map(|element| element + shift));
        }
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }
}

impl CustomOp3 for Affine {
    fn name(&self) -> &'static str {
        "scale and shift"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (input, scale) = (elements(input, layout)?, elements(scale, scale_layout)?);
        let shift = elements(shift, shift_layout)?;
        if scale.len() != shift.len() {
            bail!("{} channels are scaled and {} shifted", scale.len(), shift.len());
        }
        let mut output = Vec::with_capacity(input.len());
        for (plane, (scale, shift)) in planes(input, layout, scale.len())?.zip(scale.iter().zip(shift).cycle()) {
            output.extend(plane.iter().map(|element| element * scale + shift));
        }
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }
}

impl CustomOp2 for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        layout: &Layout,
        factors: &CpuStorage,
        factors_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, channels, _, _) = layout.shape().dims4()?;
        let (input, factors) = (elements(input, layout)?, elements(factors, factors_layout)?);
        if factors.len() != batch * channels {
            bail!("{} numbers do not fit {:?}", factors.len(), layout.shape());
        }
        let mut output = Vec::with_capacity(input.len());
        for (plane, factor) in planes(input, layout, channels)?.zip(factors) {
            output.extend(plane.iter().map(|element| element * factor));
        }
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }
}

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        left: &CpuStorage,
        left_layout: &Layout,
        right: &CpuStorage,
        right_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        if left_layout.shape() != right_layout.shape() {
            bail!("{:?} and {:?} cannot be added", left_layout.shape(), right_layout.shape());
        }
        let (left, right) = (elements(left, left_layout)?, elements(right, right_layout)?);
        let output = left.iter().zip(right).map(|(left, right)| left + right).collect();
        Ok((CpuStorage::F32(output), left_layout.shape().clone()))
    }
}

/// The planes of `[N, C, H, W]`, one after another; fails unless there are so many channels.
fn planes<'a>(
    elements: &'a [f32],
    layout: &Layout,
    channels: usize,
) -> candle_core::Result<std::slice::ChunksExact<'a, f32>> {
    let (_, there, height, width) = layout.shape().dims4()?;
    if there != channels || height * width == 0 {
        bail!("numbers for {channels} channels do not fit {:?}", layout.shape());
    }
    Ok(elements.chunks_exact(height * width))
}

fn elements<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("these loops need contiguous tensors"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn ramp(shape: (usize, usize, usize, usize), step: f32) -> Tensor {
        let count = shape.0 * shape.1 * shape.2 * shape.3;
        let values = (0..count).map(|index| (index as f32 * step).sin() * 9.0).collect::<Vec<_>>();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn bits(tensor: &Tensor) -> Vec<u32> {
        tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn they_give_what_candle_gives() {
        // So large that candle would share it out, and a part of something, so that it does not begin at its beginning.
        let whole = ramp((3, 8, 80, 64), 0.37);
        let input = whole.narrow(0, 1, 2).unwrap();
        let numbers = |step| ramp((1, 8, 1, 1), step);
        let (scale, shifts) = (numbers(0.7), numbers(0.3));
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap();
        let shifted = shift(&input, &flat(&shifts)).unwrap();
        assert_eq!(bits(&shifted), bits(&input.broadcast_add(&shifts).unwrap()));
        let both = scale_and_shift(&input, &flat(&scale), &flat(&shifts)).unwrap();
        assert_eq!(bits(&both), bits(&input.broadcast_mul(&scale).unwrap().broadcast_add(&shifts).unwrap()));
        let gates = ramp((2, 8, 1, 1), 0.9);
        assert_eq!(bits(&super::scale(&input, &gates).unwrap()), bits(&input.broadcast_mul(&gates).unwrap()));
        assert_eq!(bits(&add(&input, &shifted).unwrap()), bits(&input.add(&shifted).unwrap()));
        assert_eq!(bits(&map(&input, f32::abs).unwrap()), bits(&input.abs().unwrap()));
        let turned = input.transpose(2, 3).unwrap();
        assert_eq!(bits(&map(&turned, f32::abs).unwrap()), bits(&turned.abs().unwrap()));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_gradients_are_left_to_candle() {
        let input = ramp((1, 4, 2, 2), 0.5);
        let three = ramp((1, 3, 1, 1), 0.5).flatten_all().unwrap();
        assert!(shift(&input, &three).is_err() && scale_and_shift(&input, &three, &three).is_err());
        assert!(add(&input, &three).is_err() && scale(&input, &three).is_err());
        assert!(serves(&input));
        let trained = Var::from_tensor(&input).unwrap();
        assert!(!serves(trained.as_tensor()) && !serves(&(trained.as_tensor() * 2.0).unwrap()));
    }
}
