//! Puts graphs together, and checks that they fit: the shape of every value is known before the first image comes.

use candle_core::{Device, Tensor};

use crate::error::VisionError;
use crate::graph::{Graph, Step, Value, broken};
use crate::layers::{Activation, Convolution, Form, Layer, Linear, Norm, Padding, Window};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// Puts a graph together, step by step, and reads each layer's weights by its name.
#[derive(Debug)]
pub struct GraphBuilder<'a> {
    weights: &'a Weights,
    device: &'a Device,
    steps: Vec<Step>,
    shapes: Vec<ImageShape>,
}

impl<'a> GraphBuilder<'a> {
    /// An empty graph for images of a shape, whose weights will lie on `device`.
    #[must_use]
    pub fn new(weights: &'a Weights, device: &'a Device, input: ImageShape) -> Self {
        Self { weights, device, steps: Vec::new(), shapes: vec![input] }
    }

    /// The graph's input.
    #[must_use]
    pub const fn input(&self) -> Value {
        Value(0)
    }

    /// Shape of a value made by this builder.
    #[must_use]
    pub fn shape(&self, value: Value) -> ImageShape {
        self.shapes[value.0]
    }

    /// A convolution with a bias: tensors `NAME.weight` `[outputs, C, kernel, kernel]` and `NAME.bias` `[outputs]`.
    pub fn convolution(
        &mut self,
        name: &str,
        from: Value,
        outputs: usize,
        window: Window,
    ) -> Result<Value, VisionError> {
        self.biased(name, from, Form::new(outputs, window))
    }

    /// A depthwise convolution with a bias: tensors `NAME.weight` `[C, 1, kernel, kernel]` and `NAME.bias` `[C]`.
    pub fn depthwise(&mut self, name: &str, from: Value, window: Window) -> Result<Value, VisionError> {
        self.biased(name, from, Form::depthwise(self.shape(from).channels, window))
    }

    /// A convolution without a bias, `NAME.weight`, and the batch normalisation after it, `NORM.weight`, `.bias`,
    /// `.running_mean` and `.running_var`, all `[outputs]`, as one layer: the norm is folded into weight and bias.
    pub fn normalised(
        &mut self,
        name: &str,
        norm: &str,
        from: Value,
        form: Form,
        epsilon: f64,
    ) -> Result<Value, VisionError> {
        let weight = self.kernel(name, from, &form)?;
        let Norm { scale, shift } = self.statistics(norm, form.outputs, epsilon)?;
        let weight = weight.broadcast_mul(&scale.reshape((form.outputs, 1, 1, 1))?)?;
        self.convolve(name, from, form, weight, shift)
    }

    /// As [`Self::normalised`], but weights into which the norm was folded before they were stored are taken too: where
    /// `NORM.weight` is absent, the convolution has a `NAME.bias`.
    pub fn normalised_or_biased(
        &mut self,
        name: &str,
        norm: &str,
        from: Value,
        form: Form,
        epsilon: f64,
    ) -> Result<Value, VisionError> {
        match self.tensor(norm, "weight", &[form.outputs]) {
            Err(VisionError::MissingTensor { .. }) => self.biased(name, from, form),
            _ => self.normalised(name, norm, from, form, epsilon),
        }
    }

    fn biased(&mut self, name: &str, from: Value, form: Form) -> Result<Value, VisionError> {
        let weight = self.kernel(name, from, &form)?;
        let bias = self.tensor(name, "bias", &[form.outputs])?;
        self.convolve(name, from, form, weight, bias)
    }

    fn kernel(&self, name: &str, from: Value, form: &Form) -> Result<Tensor, VisionError> {
        let [height, width] = form.window.kernel;
        self.tensor(name, "weight", &[form.outputs, self.shape(from).channels / form.groups, height, width])
    }

    fn convolve(
        &mut self,
        name: &str,
        from: Value,
        form: Form,
        weight: Tensor,
        bias: Tensor,
    ) -> Result<Value, VisionError> {
        let Form { outputs, window, groups, dilation } = form;
        let shape = self.windowed(name, from, window.dilated(dilation), outputs)?;
        let layer = Layer::Convolution(Convolution { weight, bias: Some(bias), window, groups, dilation });
        Ok(self.push(name, layer, vec![from], shape))
    }

    /// A fully connected layer: tensors `NAME.weight` `[outputs, C x H x W]` and `NAME.bias` `[outputs]`.
    pub fn linear(&mut self, name: &str, from: Value, outputs: usize) -> Result<Value, VisionError> {
        let weight = self.tensor(name, "weight", &[outputs, self.shape(from).elements()])?;
        let bias = self.tensor(name, "bias", &[outputs])?;
        Ok(self.push(name, Layer::Linear(Linear { weight, bias }), vec![from], ImageShape::new(outputs, 1, 1)))
    }

    /// A fully connected layer over the channels of each pixel: tensors `NAME.weight` `[outputs, C]` and `NAME.bias` `[outputs]`.
    pub fn linear_each(&mut self, name: &str, from: Value, outputs: usize) -> Result<Value, VisionError> {
        let channels = self.shape(from).channels;
        let weight = self.tensor(name, "weight", &[outputs, channels])?.reshape((outputs, channels, 1, 1))?;
        let bias = self.tensor(name, "bias", &[outputs])?;
        let window = Window { kernel: [1, 1], stride: 1, padding: Padding::NONE };
        self.convolve(name, from, Form::new(outputs, window), weight, bias)
    }

    /// How many classes the layer of this name tells apart: as many as its `NAME.weight` has outputs, so that weights which
    /// somebody trained for classes of their own are taken; `published` where no weights say otherwise.
    #[must_use]
    pub fn classes(&self, name: &str, published: usize) -> usize {
        self.weights.outputs(&format!("{name}.weight")).unwrap_or(published)
    }

    /// Batch normalisation: tensors `NAME.weight`, `.bias`, `.running_mean` and `.running_var`, all `[C]`.
    pub fn norm(&mut self, name: &str, from: Value, epsilon: f64) -> Result<Value, VisionError> {
        let shape = self.shape(from);
        let norm = self.statistics(name, shape.channels, epsilon)?;
        Ok(self.push(name, Layer::Norm(norm), vec![from], shape))
    }

    fn statistics(&self, name: &str, channels: usize, epsilon: f64) -> Result<Norm, VisionError> {
        let [gamma, beta, mean, variance] =
            ["weight", "bias", "running_mean", "running_var"].map(|part| self.tensor(name, part, &[channels]));
        let scale = (gamma? / (variance? + epsilon)?.sqrt()?)?;
        let shift = (beta? - (mean? * &scale)?)?;
        Ok(Norm { scale, shift })
    }

    /// max(x, 0).
    pub fn relu(&mut self, from: Value) -> Value {
        self.activation(from, Activation::Relu)
    }

    /// min(max(x, 0), 6).
    pub fn relu6(&mut self, from: Value) -> Value {
        self.activation(from, Activation::Relu6)
    }

    /// x / (1 + exp(-x)).
    pub fn silu(&mut self, from: Value) -> Value {
        self.activation(from, Activation::Silu)
    }

    /// 1 / (1 + exp(-x)).
    pub fn sigmoid(&mut self, from: Value) -> Value {
        self.activation(from, Activation::Sigmoid)
    }

    /// x min(max(x + 3, 0), 6) / 6.
    pub fn hard_swish(&mut self, from: Value) -> Value {
        self.activation(from, Activation::HardSwish)
    }

    /// min(max(x + 3, 0), 6) / 6.
    pub fn hard_sigmoid(&mut self, from: Value) -> Value {
        self.activation(from, Activation::HardSigmoid)
    }

    fn activation(&mut self, from: Value, activation: Activation) -> Value {
        let name = format!("{}.activation", self.name_of(from));
        self.push(&name, Layer::Activation(activation), vec![from], self.shape(from))
    }

    /// The largest element of each window.
    pub fn max_pool(&mut self, name: &str, from: Value, window: Window) -> Result<Value, VisionError> {
        self.pool(name, Layer::MaxPool(window), from, window)
    }

    /// The mean of each window; padding counts as zeros.
    pub fn average_pool(&mut self, name: &str, from: Value, window: Window) -> Result<Value, VisionError> {
        self.pool(name, Layer::AveragePool(window), from, window)
    }

    fn pool(&mut self, name: &str, layer: Layer, from: Value, window: Window) -> Result<Value, VisionError> {
        let Padding { top, bottom, left, right } = window.padding;
        if top.max(bottom) >= window.kernel[0] || left.max(right) >= window.kernel[1] {
            return Err(broken(name, "a pool's padding must be smaller than its window"));
        }
        let shape = self.windowed(name, from, window, self.shape(from).channels)?;
        Ok(self.push(name, layer, vec![from], shape))
    }

    /// Twice as many rows and columns, each element four times.
    pub fn upsample(&mut self, name: &str, from: Value) -> Value {
        let ImageShape { channels, height, width } = self.shape(from);
        self.push(name, Layer::Upsample, vec![from], ImageShape::new(channels, 2 * height, 2 * width))
    }

    /// Four times as many channels, half as many rows and columns, of which there must be even numbers.
    pub fn focus(&mut self, name: &str, from: Value) -> Result<Value, VisionError> {
        let shape = self.shape(from);
        if !shape.height.is_multiple_of(2) || !shape.width.is_multiple_of(2) {
            return Err(broken(name, &format!("{shape} cannot be halved")));
        }
        let halved = ImageShape::new(4 * shape.channels, shape.height / 2, shape.width / 2);
        Ok(self.push(name, Layer::Focus, vec![from], halved))
    }

    /// The mean of each channel.
    pub fn global_average_pool(&mut self, name: &str, from: Value) -> Value {
        let shape = ImageShape::new(self.shape(from).channels, 1, 1);
        self.push(name, Layer::GlobalAveragePool, vec![from], shape)
    }

    /// The sum of two values of one shape.
    pub fn add(&mut self, name: &str, left: Value, right: Value) -> Result<Value, VisionError> {
        let (shape, other) = (self.shape(left), self.shape(right));
        if shape != other {
            return Err(broken(name, &format!("it adds {other} to {shape}")));
        }
        Ok(self.push(name, Layer::Add, vec![left, right], shape))
    }

    /// Each channel of a value times its number of `factors`, which is `C x 1 x 1`.
    pub fn scale(&mut self, name: &str, from: Value, factors: Value) -> Result<Value, VisionError> {
        let (shape, other) = (self.shape(from), self.shape(factors));
        if other != ImageShape::new(shape.channels, 1, 1) {
            return Err(broken(name, &format!("it scales {shape} by {other}")));
        }
        Ok(self.push(name, Layer::Scale, vec![from, factors], shape))
    }

    /// So many channels of a value, from the `first` on.
    pub fn narrow(&mut self, name: &str, from: Value, first: usize, channels: usize) -> Result<Value, VisionError> {
        let shape = self.shape(from);
        if channels == 0 || first.checked_add(channels).is_none_or(|end| end > shape.channels) {
            return Err(broken(name, &format!("{shape} has not {channels} channels from {first} on")));
        }
        let layer = Layer::Narrow { first, channels };
        Ok(self.push(name, layer, vec![from], ImageShape { channels, ..shape }))
    }

    /// Values of equal height and width, joined along their channels.
    pub fn concat(&mut self, name: &str, values: &[Value]) -> Result<Value, VisionError> {
        let shapes: Vec<ImageShape> = values.iter().map(|value| self.shape(*value)).collect();
        let Some(first) = shapes.first() else { return Err(broken(name, "it joins nothing")) };
        if let Some(other) = shapes.iter().find(|other| (other.height, other.width) != (first.height, first.width)) {
            return Err(broken(name, &format!("it joins {other} to {first}")));
        }
        let channels = shapes.iter().map(|shape| shape.channels).sum();
        let shape = ImageShape { channels, ..*first };
        Ok(self.push(name, Layer::Concat, values.to_vec(), shape))
    }

    /// The finished graph; its output is what the last step gives.
    pub fn finish(self) -> Result<Graph, VisionError> {
        match self.steps.last().map(|step| step.output) {
            Some(output) => self.finish_with(&[output]),
            None => Err(broken("graph", "it has no steps")),
        }
    }

    /// The finished graph with these outputs, of which there must be one.
    pub fn finish_with(self, outputs: &[Value]) -> Result<Graph, VisionError> {
        if outputs.is_empty() {
            return Err(broken("graph", "it has no outputs"));
        }
        Ok(Graph::new(self.steps, self.shapes, outputs.to_vec(), self.device.clone()))
    }

    fn tensor(&self, name: &str, part: &str, shape: &[usize]) -> Result<Tensor, VisionError> {
        self.weights.tensor(&format!("{name}.{part}"), shape, self.device)
    }

    fn windowed(&self, name: &str, from: Value, window: Window, channels: usize) -> Result<ImageShape, VisionError> {
        let input = self.shape(from);
        let Some([height, width]) = window.output(input) else {
            return Err(broken(name, &format!("a window of {:?} does not fit into {input}", window.kernel)));
        };
        Ok(ImageShape { channels, height, width })
    }

    fn push(&mut self, name: &str, layer: Layer, inputs: Vec<Value>, shape: ImageShape) -> Value {
        let output = Value(self.shapes.len());
        self.shapes.push(shape);
        self.steps.push(Step { name: name.to_owned(), layer, inputs, output });
        output
    }

    fn name_of(&self, value: Value) -> &str {
        self.steps.iter().find(|step| step.output == value).map_or("input", |step| &step.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Stop;

    const INPUT: ImageShape = ImageShape::new(2, 4, 4);

    fn builder<'a>(weights: &'a Weights, device: &'a Device) -> GraphBuilder<'a> {
        GraphBuilder::new(weights, device, INPUT)
    }

    fn picture() -> Tensor {
        Tensor::arange(-16f32, 16., &Device::Cpu).unwrap().reshape((1, 2, 4, 4)).unwrap()
    }

    #[test]
    fn a_folded_norm_gives_what_a_convolution_and_its_norm_give() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let weight = Tensor::arange(0f32, 2. * 2. * 9., &Device::Cpu).unwrap().reshape((2, 2, 3, 3)).unwrap();
        let parts = [
            ("conv.weight", weight),
            ("conv.bias", tensor(&[0., 0.])),
            ("norm.weight", tensor(&[2., 0.5])),
            ("norm.bias", tensor(&[1., -1.])),
            ("norm.running_mean", tensor(&[3., -20.])),
            ("norm.running_var", tensor(&[4., 0.25])),
        ];
        let weights = Weights::from_tensors("a test", parts.map(|(name, tensor)| (name.to_owned(), tensor)));
        let window = Window { kernel: [3, 3], stride: 1, padding: Padding::all(2) };
        let form = Form { dilation: 2, ..Form::new(2, window) };
        let run = |fold: bool| {
            let mut graph = builder(&weights, &Device::Cpu);
            let input = graph.input();
            if fold {
                graph.normalised_or_biased("conv", "norm", input, form, 1e-3).unwrap();
            } else {
                let x = graph.normalised_or_biased("conv", "absent", input, form, 1e-3).unwrap();
                graph.norm("norm", x, 1e-3).unwrap();
            }
            let graph = graph.finish().unwrap();
            assert_eq!(graph.output(), INPUT, "a dilated kernel spans five rows, and two are padded on each side");
            graph.run(&picture(), &Stop::never()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let worst = run(true).iter().zip(run(false)).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(worst < 1e-3, "{worst}");
        assert!(run(true).iter().any(|element| element.abs() > 100.0));
    }

    #[test]
    fn layers_that_do_not_fit_are_refused_when_built() {
        let weights = Weights::from_tensors("a test", []);
        let mut graph = builder(&weights, &Device::Cpu);
        let mean = graph.global_average_pool("mean", graph.input());
        assert!(graph.add("sum", graph.input(), mean).is_err());
        assert!(graph.concat("joined", &[graph.input(), mean]).is_err());
        let window = Window { kernel: [5, 5], stride: 1, padding: Padding::NONE };
        assert!(graph.max_pool("pool", graph.input(), window).is_err());
        assert!(graph.focus("focus", mean).is_err());
        assert!(graph.scale("scaled", mean, graph.input()).is_err());
        assert!(graph.narrow("part", mean, 1, 2).is_err() && graph.narrow("part", mean, 1, 0).is_err());
    }
}
