//! The layers that networks are made of: named structs with their weights inside.
//!
//! Why structs and not closures: a planner can walk them, fold a norm into the convolution before it, fuse the
//! activation after it and choose kernels. What runs them one by one through candle is [`crate::graph`].
//!
//! All feature maps are NCHW, f32.

use candle_core::{D, Tensor};

use crate::depthwise;
use crate::error::VisionError;
use crate::shape::ImageShape;
use crate::unfold;

/// Rows and columns added around a feature map before a window slides over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// No padding.
    pub const NONE: Self = Self::all(0);

    /// The same number of rows and columns on all four sides.
    #[must_use]
    pub const fn all(size: usize) -> Self {
        Self { top: size, bottom: size, left: size, right: size }
    }

    /// TensorFlow's SAME: the output has `ceil(input / stride)` rows and columns, and what cannot be split evenly is
    /// added below and to the right.
    #[must_use]
    pub fn same(input: ImageShape, kernel: [usize; 2], stride: usize) -> Self {
        let total =
            |length: usize, kernel: usize| ((length.div_ceil(stride) - 1) * stride + kernel).saturating_sub(length);
        let (rows, columns) = (total(input.height, kernel[0]), total(input.width, kernel[1]));
        Self { top: rows / 2, bottom: rows - rows / 2, left: columns / 2, right: columns - columns / 2 }
    }

    /// Caffe's and PyTorch's ceil mode: just enough rows and columns below and to the right for the last window, if
    /// a stride leaves a remainder.
    #[must_use]
    pub fn ceil(input: ImageShape, kernel: [usize; 2], stride: usize) -> Self {
        let extra = |length: usize, kernel: usize| {
            (length.saturating_sub(kernel).div_ceil(stride) * stride + kernel).saturating_sub(length)
        };
        Self { bottom: extra(input.height, kernel[0]), right: extra(input.width, kernel[1]), ..Self::NONE }
    }

    /// The one number, where all four sides are equal.
    #[must_use]
    pub fn uniform(&self) -> Option<usize> {
        (*self == Self::all(self.top)).then_some(self.top)
    }
}

/// A window that slides over a feature map: of a convolution or of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Step in rows and in columns.
    pub stride: usize,
    /// What is added around the input.
    pub padding: Padding,
}

impl Window {
    /// Height and width that come out for an input, or nothing when the window does not fit into it.
    #[must_use]
    pub fn output(&self, input: ImageShape) -> Option<[usize; 2]> {
        let steps = |length: usize, kernel: usize| {
            let room = length.checked_sub(kernel)?;
            Some(room.checked_div(self.stride)? + 1)
        };
        let height = steps(input.height + self.padding.top + self.padding.bottom, self.kernel[0])?;
        let width = steps(input.width + self.padding.left + self.padding.right, self.kernel[1])?;
        Some([height, width])
    }
}

/// A two-dimensional convolution, with or without bias.
#[derive(Debug, Clone)]
pub struct Convolution {
    /// `[outputs, inputs / groups, kernel height, kernel width]`.
    pub weight: Tensor,
    /// `[outputs]`.
    pub bias: Option<Tensor>,
    /// How it slides.
    pub window: Window,
    /// 1, or the number of channels for a depthwise convolution.
    pub groups: usize,
}

/// A fully connected layer: flattens its input to `[N, inputs]`, gives `[N, outputs]`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[outputs, inputs]`.
    pub weight: Tensor,
    /// `[outputs]`.
    pub bias: Tensor,
}

/// Batch normalisation with its learned statistics, as one multiplication and one addition a channel
/// (Ioffe and Szegedy 2015, at inference).
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[channels]`: gamma / sqrt(variance + epsilon).
    pub scale: Tensor,
    /// `[channels]`: beta - mean x scale.
    pub shift: Tensor,
}

/// What is applied to each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
}

/// One step of a network.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Layer {
    /// One input.
    Convolution(Convolution),
    /// One input.
    Linear(Linear),
    /// One input.
    Norm(Norm),
    /// One input.
    Activation(Activation),
    /// One input; the largest element of each window. What is padded never wins.
    MaxPool(Window),
    /// One input; the mean over rows and columns, which leaves 1 x 1.
    GlobalAveragePool,
    /// Two inputs of one shape; their sum.
    Add,
    /// Two or more inputs, joined along their channels.
    Concat,
}

impl Layer {
    /// Runs the layer on its inputs.
    pub(crate) fn run(&self, inputs: &[&Tensor]) -> Result<Tensor, VisionError> {
        match (self, inputs) {
            (Self::Convolution(layer), [input]) => layer.run(input),
            (Self::Linear(layer), [input]) => layer.run(input),
            (Self::Norm(layer), [input]) => layer.run(input),
            (Self::Activation(activation), [input]) => activation.run(input),
            (Self::MaxPool(window), [input]) => max_pool(input, window),
            (Self::GlobalAveragePool, [input]) => Ok(input.mean_keepdim((D::Minus2, D::Minus1))?),
            (Self::Add, [left, right]) => Ok(left.add(right)?),
            (Self::Concat, _) => Ok(Tensor::cat(inputs, 1)?),
            _ => Err(VisionError::Layer {
                layer: self.kind().to_owned(),
                reason: format!("it does not take {} inputs", inputs.len()),
            }),
        }
    }

    /// What kind of layer this is, in one word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Convolution(_) => "convolution",
            Self::Linear(_) => "linear",
            Self::Norm(_) => "norm",
            Self::Activation(_) => "activation",
            Self::MaxPool(_) => "max pool",
            Self::GlobalAveragePool => "global average pool",
            Self::Add => "add",
            Self::Concat => "concat",
        }
    }
}

impl Convolution {
    /// Whether each channel is convolved alone.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.weight.dims().first() == Some(&self.groups) && self.weight.dims().get(1) == Some(&1)
    }

    fn run(&self, input: &Tensor) -> Result<Tensor, VisionError> {
        let output = if self.is_depthwise() && input.device().is_cpu() {
            depthwise::convolve(input, &self.weight, &self.window)?
        } else if self.weight.is_variable() && self.groups == 1 {
            unfold::convolve(input, &self.weight, &self.window)?
        } else if let Some(padding) = self.window.padding.uniform() {
            input.conv2d(&self.weight, padding, self.window.stride, 1, self.groups)?
        } else {
            pad_with_zeros(input, self.window.padding)?.conv2d(&self.weight, 0, self.window.stride, 1, self.groups)?
        };
        match &self.bias {
            Some(bias) => Ok(output.broadcast_add(&per_channel(bias)?)?),
            None => Ok(output),
        }
    }
}

impl Linear {
    fn run(&self, input: &Tensor) -> Result<Tensor, VisionError> {
        Ok(input.flatten_from(1)?.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?)
    }
}

impl Norm {
    fn run(&self, input: &Tensor) -> Result<Tensor, VisionError> {
        Ok(input.broadcast_mul(&per_channel(&self.scale)?)?.broadcast_add(&per_channel(&self.shift)?)?)
    }
}

impl Activation {
    fn run(self, input: &Tensor) -> Result<Tensor, VisionError> {
        match self {
            Self::Relu => Ok(input.relu()?),
            Self::Relu6 => Ok(input.clamp(0f32, 6f32)?),
        }
    }
}

/// `[channels]` as `[1, channels, 1, 1]`, to be broadcast over a batch of feature maps.
fn per_channel(values: &Tensor) -> candle_core::Result<Tensor> {
    values.reshape((1, values.elem_count(), 1, 1))
}

/// A feature map with rows and columns of zeros around it.
pub(crate) fn pad_with_zeros(input: &Tensor, padding: Padding) -> candle_core::Result<Tensor> {
    input.pad_with_zeros(D::Minus2, padding.top, padding.bottom)?.pad_with_zeros(D::Minus1, padding.left, padding.right)
}

fn max_pool(input: &Tensor, window: &Window) -> Result<Tensor, VisionError> {
    // The outermost rows and columns are repeated: a window that reaches into the padding also covers them (a
    // window is wider than its padding), so repeating them changes no maximum.
    let Padding { top, bottom, left, right } = window.padding;
    let padded = input.pad_with_same(D::Minus2, top, bottom)?.pad_with_same(D::Minus1, left, right)?;
    Ok(padded
        .contiguous()?
        .max_pool2d_with_stride((window.kernel[0], window.kernel[1]), (window.stride, window.stride))?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    const SIDE_224: ImageShape = ImageShape::new(3, 224, 224);

    #[test]
    fn same_padding_puts_the_odd_row_below_and_to_the_right() {
        let odd = Padding { top: 0, bottom: 1, left: 0, right: 1 };
        assert_eq!(Padding::same(SIDE_224, [3, 3], 2), odd);
        assert_eq!(Padding::same(SIDE_224, [3, 3], 1), Padding::all(1));
        assert_eq!(Padding::same(SIDE_224, [1, 1], 1), Padding::NONE);
        assert_eq!(Padding::same(ImageShape::new(3, 7, 7), [3, 3], 2), Padding::all(1));
    }

    #[test]
    fn ceil_mode_adds_a_window_only_for_a_remainder() {
        let pool = |side| {
            let input = ImageShape::new(1, side, side);
            let padding = Padding::ceil(input, [3, 3], 2);
            Window { kernel: [3, 3], stride: 2, padding }.output(input)
        };
        // The three pools of SqueezeNet 1.1 at 227 x 227.
        assert_eq!((pool(113), pool(56), pool(28)), (Some([56, 56]), Some([28, 28]), Some([14, 14])));
    }

    #[test]
    fn a_window_larger_than_its_input_is_refused() {
        let window = Window { kernel: [5, 5], stride: 1, padding: Padding::NONE };
        assert_eq!(window.output(ImageShape::new(1, 4, 9)), None);
    }

    #[test]
    fn padding_never_wins_a_max_pool() {
        let input = Tensor::from_vec(vec![-4f32, -3., -2., -1.], (1, 1, 2, 2), &Device::Cpu).unwrap();
        let window = Window { kernel: [3, 3], stride: 2, padding: Padding::all(1) };
        let output = max_pool(&input, &window).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(output, [-1.]);
    }

    #[test]
    fn a_norm_scales_and_shifts_each_channel() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let norm = Norm { scale: tensor(&[2., 10.]), shift: tensor(&[1., -1.]) };
        let input = tensor(&[1., 2., 3., 4.]).reshape((1, 2, 1, 2)).unwrap();
        let output = Layer::Norm(norm).run(&[&input]).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(output, [3., 5., 29., 39.]);
    }
}
