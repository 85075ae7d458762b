//! The layers that networks are made of: named structs with their weights inside.
//!
//! Why structs and not closures: a planner can walk them, fold a norm into the convolution before it, fuse the
//! activation after it and choose kernels. What runs them one by one through candle is [`crate::graph`].
//!
//! All feature maps are NCHW, of the type of the weights: f32 unless [`crate::Precision`] says otherwise.

use candle_core::{D, DType, Tensor};

use crate::depthwise;
use crate::elementwise::{self, serves};
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

    /// The window that a dilated kernel spans: between two of its taps lie `dilation - 1` others.
    #[must_use]
    pub const fn dilated(self, dilation: usize) -> Self {
        let [height, width] = self.kernel;
        Self { kernel: [(height - 1) * dilation + 1, (width - 1) * dilation + 1], ..self }
    }
}

/// What a convolution is, apart from its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Output channels.
    pub outputs: usize,
    /// How it slides.
    pub window: Window,
    /// 1, or the number of channels for a depthwise convolution.
    pub groups: usize,
    /// Distance between the taps of its kernel; 1 for a dense one.
    pub dilation: usize,
}

impl Form {
    /// A dense convolution over all channels.
    #[must_use]
    pub const fn new(outputs: usize, window: Window) -> Self {
        Self { outputs, window, groups: 1, dilation: 1 }
    }

    /// A convolution of each channel alone.
    #[must_use]
    pub const fn depthwise(channels: usize, window: Window) -> Self {
        Self { groups: channels, ..Self::new(channels, window) }
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
    /// Distance between the taps of its kernel; 1 for a dense one.
    pub dilation: usize,
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
    /// x / (1 + exp(-x)).
    Silu,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// x min(max(x + 3, 0), 6) / 6.
    HardSwish,
    /// min(max(x + 3, 0), 6) / 6.
    HardSigmoid,
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
    /// One input; the mean of each window, in which padding counts as elements of zero, as it does in PyTorch unless told otherwise.
    AveragePool(Window),
    /// One input; each element becomes two rows and two columns of itself.
    Upsample,
    /// One input; from each square of 2 x 2 elements four channels of one: top left, bottom left, top right, bottom
    /// right, each with all channels of the input.
    Focus,
    /// One input; the mean over rows and columns, which leaves 1 x 1.
    GlobalAveragePool,
    /// Two inputs of one shape; their sum.
    Add,
    /// Two inputs, `C x H x W` and `C x 1 x 1`; each channel of the first times its number of the second.
    Scale,
    /// One input; so many of its channels, from the first of them on.
    Narrow {
        /// The first channel.
        first: usize,
        /// How many.
        channels: usize,
    },
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
            (Self::AveragePool(window), [input]) => average_pool(input, window),
            (Self::Upsample, [input]) => upsample(input),
            (Self::Focus, [input]) => focus(input),
            (Self::GlobalAveragePool, [input]) => global_average_pool(input),
            (Self::Add, [left, right]) if serves(left) && serves(right) => elementwise::add(left, right),
            (Self::Add, [left, right]) => Ok(left.add(right)?),
            (Self::Scale, [input, factors]) if serves(input) && serves(factors) => elementwise::scale(input, factors),
            (Self::Scale, [input, factors]) => Ok(input.broadcast_mul(factors)?),
            (Self::Narrow { first, channels }, [input]) => Ok(input.narrow(1, *first, *channels)?.contiguous()?),
            (Self::Concat, _) => Ok(Tensor::cat(inputs, 1)?),
            _ => Err(VisionError::Layer {
                layer: self.kind().to_owned(),
                reason: format!("it does not take {} inputs", inputs.len()),
            }),
        }
    }

    /// The same layer with its weights in another type.
    pub(crate) fn to_dtype(&self, dtype: DType) -> Result<Self, VisionError> {
        Ok(match self {
            Self::Convolution(layer) => Self::Convolution(Convolution {
                weight: layer.weight.to_dtype(dtype)?,
                bias: layer.bias.as_ref().map(|bias| bias.to_dtype(dtype)).transpose()?,
                ..*layer
            }),
            Self::Linear(layer) => {
                Self::Linear(Linear { weight: layer.weight.to_dtype(dtype)?, bias: layer.bias.to_dtype(dtype)? })
            }
            Self::Norm(layer) => {
                Self::Norm(Norm { scale: layer.scale.to_dtype(dtype)?, shift: layer.shift.to_dtype(dtype)? })
            }
            Self::Activation(_)
            | Self::MaxPool(_)
            | Self::AveragePool(_)
            | Self::Upsample
            | Self::Focus
            | Self::GlobalAveragePool
            | Self::Add
            | Self::Scale
            | Self::Narrow { .. }
            | Self::Concat => self.clone(),
        })
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
            Self::AveragePool(_) => "average pool",
            Self::Upsample => "upsample",
            Self::Focus => "focus",
            Self::GlobalAveragePool => "global average pool",
            Self::Add => "add",
            Self::Scale => "scale",
            Self::Narrow { .. } => "narrow",
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
        let Self { weight, window, groups, dilation, .. } = self;
        let output = if self.is_depthwise() && *dilation == 1 && input.device().is_cpu() && input.dtype() == DType::F32
        {
            depthwise::convolve(input, weight, window)?
        } else if weight.is_variable() && *groups == 1 && *dilation == 1 {
            unfold::convolve(input, weight, window)?
        } else if let Some(padding) = window.padding.uniform() {
            input.conv2d(weight, padding, window.stride, *dilation, *groups)?
        } else {
            pad_with_zeros(input, window.padding)?.conv2d(weight, 0, window.stride, *dilation, *groups)?
        };
        match &self.bias {
            Some(bias) if serves(&output) && serves(bias) => elementwise::shift(&output, bias),
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
        if serves(input) && serves(&self.scale) && serves(&self.shift) {
            return elementwise::scale_and_shift(input, &self.scale, &self.shift);
        }
        Ok(input.broadcast_mul(&per_channel(&self.scale)?)?.broadcast_add(&per_channel(&self.shift)?)?)
    }
}

impl Activation {
    fn run(self, input: &Tensor) -> Result<Tensor, VisionError> {
        let plain = serves(input);
        match self {
            // A NaN stays one: damaged weights are to be noticed.
            Self::Relu if plain => elementwise::map(input, |value| if value < 0.0 { 0.0 } else { value }),
            Self::Relu6 if plain => elementwise::map(input, |value| value.clamp(0.0, 6.0)),
            Self::Silu if plain => elementwise::map(input, |value| value / (1.0 + (-value).exp())),
            Self::HardSwish if plain => elementwise::map(input, |value| value * sixth(value)),
            Self::HardSigmoid if plain => elementwise::map(input, sixth),
            Self::Relu => Ok(input.relu()?),
            Self::Relu6 => Ok(input.clamp(0f32, 6f32)?),
            Self::Silu => Ok(input.silu()?),
            Self::Sigmoid => Ok(candle_nn::ops::sigmoid(input)?),
            Self::HardSwish => Ok((input * sixths(input)?)?),
            Self::HardSigmoid => Ok(sixths(input)?),
        }
    }
}

/// min(max(x + 3, 0), 6) / 6.
fn sixth(value: f32) -> f32 {
    (value + 3.0).clamp(0.0, 6.0) / 6.0
}

fn sixths(input: &Tensor) -> candle_core::Result<Tensor> {
    ((input + 3.0)?.clamp(0f32, 6f32)? / 6.0)?.contiguous()
}

/// `[channels]` as `[1, channels, 1, 1]`, to be broadcast over a batch of feature maps.
fn per_channel(values: &Tensor) -> candle_core::Result<Tensor> {
    values.reshape((1, values.elem_count(), 1, 1))
}

/// A feature map with rows and columns of zeros around it.
pub(crate) fn pad_with_zeros(input: &Tensor, padding: Padding) -> candle_core::Result<Tensor> {
    input.pad_with_zeros(D::Minus2, padding.top, padding.bottom)?.pad_with_zeros(D::Minus1, padding.left, padding.right)
}

fn upsample(input: &Tensor) -> Result<Tensor, VisionError> {
    let (_, _, height, width) = input.dims4()?;
    Ok(input.upsample_nearest2d(2 * height, 2 * width)?)
}

fn focus(input: &Tensor) -> Result<Tensor, VisionError> {
    let (batch, channels, height, width) = input.dims4()?;
    let squares = input.reshape(&[batch, channels, height / 2, 2, width / 2, 2][..])?;
    // The column inside of a square first, then its row, then the channel.
    Ok(squares.permute(&[0, 5, 3, 1, 2, 4][..])?.reshape((batch, 4 * channels, height / 2, width / 2))?)
}

fn global_average_pool(input: &Tensor) -> Result<Tensor, VisionError> {
    // A sum of hundreds of halves would lose its last bits, or leave their range.
    let mean = input.to_dtype(DType::F32)?.mean_keepdim((D::Minus2, D::Minus1))?;
    Ok(mean.to_dtype(input.dtype())?)
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

fn average_pool(input: &Tensor, window: &Window) -> Result<Tensor, VisionError> {
    let padded = pad_with_zeros(input, window.padding)?.contiguous()?;
    Ok(padded.avg_pool2d_with_stride((window.kernel[0], window.kernel[1]), (window.stride, window.stride))?)
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
    fn padding_counts_in_an_average_pool() {
        let input = Tensor::from_vec(vec![9f32, 18., 27., 36.], (1, 1, 2, 2), &Device::Cpu).unwrap();
        let window = Window { kernel: [3, 3], stride: 1, padding: Padding::all(1) };
        let output = average_pool(&input, &window).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(output, [10.; 4]);
    }

    #[test]
    fn a_focus_makes_channels_of_squares_and_an_upsample_squares_of_elements() {
        let input = Tensor::arange(0f32, 16., &Device::Cpu).unwrap().reshape((1, 2, 2, 4)).unwrap();
        let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let focused = Layer::Focus.run(&[&input]).unwrap();
        assert_eq!(focused.dims(), [1, 8, 1, 2]);
        assert_eq!(values(focused), [0., 2., 8., 10., 4., 6., 12., 14., 1., 3., 9., 11., 5., 7., 13., 15.]);
        let upsampled = Layer::Upsample.run(&[&input.narrow(1, 0, 1).unwrap().narrow(3, 0, 2).unwrap()]).unwrap();
        assert_eq!(values(upsampled), [0., 0., 1., 1., 0., 0., 1., 1., 4., 4., 5., 5., 4., 4., 5., 5.]);
    }

    #[test]
    fn hard_activations_say_the_same_by_either_way() {
        let numbers = [-4f32, -3., -1., 0., 2., 3., 5.];
        let input = Tensor::new(&numbers, &Device::Cpu).unwrap();
        // What is trained is left to candle's operations.
        let trained = candle_core::Var::from_tensor(&input).unwrap();
        let run = |activation: Activation, input: &Tensor| activation.run(input).unwrap().to_vec1::<f32>().unwrap();
        for (activation, expected) in [
            (Activation::HardSwish, [0., 0., -1. / 3., 0., 5. / 3., 3., 5.]),
            (Activation::HardSigmoid, [0., 0., 1. / 3., 0.5, 5. / 6., 1., 1.]),
        ] {
            for found in [run(activation, &input), run(activation, trained.as_tensor())] {
                assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{activation:?}: {found:?}");
            }
        }
    }

    #[test]
    fn channels_are_scaled_and_narrowed() {
        let tensor = |values: &[f32], shape: (usize, usize, usize, usize)| {
            Tensor::new(values, &Device::Cpu).unwrap().reshape(shape).unwrap()
        };
        let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let input = tensor(&[1., 2., 3., 4., 5., 6., 7., 8.], (2, 2, 1, 2));
        let factors = tensor(&[1., 10., 100., 1000.], (2, 2, 1, 1));
        let scaled = Layer::Scale.run(&[&input, &factors]).unwrap();
        assert_eq!(values(scaled), [1., 2., 30., 40., 500., 600., 7000., 8000.]);
        let narrowed = Layer::Narrow { first: 1, channels: 1 }.run(&[&input]).unwrap();
        assert_eq!((narrowed.dims(), values(narrowed.clone())), (&[2, 1, 1, 2][..], vec![3., 4., 7., 8.]));
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
