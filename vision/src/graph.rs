//! A network as a list of named steps, each reading values that earlier steps made.
//!
//! Why a list: it can be walked ([`Graph::steps`]) by whoever wants to compile it, run layer by layer with a question
//! between the layers, and checked when it is built: every shape is known before the first image comes.

use candle_core::{Device, Tensor};

use crate::error::VisionError;
use crate::layers::{Activation, Convolution, Layer, Linear, Norm, Padding, Window};
use crate::shape::ImageShape;
use crate::stop::Stop;
use crate::weights::Weights;

/// Something that flows through a graph: its input, or what a step gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Value(usize);

/// One layer with its name and what it reads.
#[derive(Debug, Clone)]
pub struct Step {
    /// Name: for layers with weights, the prefix of their tensors.
    pub name: String,
    /// What is computed.
    pub layer: Layer,
    /// What it is computed from.
    pub inputs: Vec<Value>,
    /// What comes out.
    pub output: Value,
}

/// A network: steps in an order in which they can be run.
#[derive(Debug, Clone)]
pub struct Graph {
    steps: Vec<Step>,
    /// Shape of each value, the input's first.
    shapes: Vec<ImageShape>,
    /// For each step, the values that no later step reads.
    last_reads: Vec<Vec<Value>>,
    device: Device,
}

impl Graph {
    /// The steps, in order. The last one gives the graph's output.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Shape of a value for one image.
    #[must_use]
    pub fn shape(&self, value: Value) -> Option<ImageShape> {
        self.shapes.get(value.0).copied()
    }

    /// Shape of one input image.
    #[must_use]
    pub fn input(&self) -> ImageShape {
        self.shapes[0]
    }

    /// Shape of the output for one image.
    #[must_use]
    pub fn output(&self) -> ImageShape {
        self.shapes[self.shapes.len() - 1]
    }

    /// Where the weights are.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs the graph on `[N, C, H, W]` f32; `stop` is asked before each step. The output of a graph that ends in a
    /// [`Linear`] is `[N, outputs]`, else `[N, C, H, W]`.
    pub fn run(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Tensor, VisionError> {
        self.check_input(input)?;
        let mut values: Vec<Option<Tensor>> = vec![None; self.shapes.len()];
        values[0] = Some(input.to_device(&self.device)?);
        for (step, last_reads) in self.steps.iter().zip(&self.last_reads) {
            stop.check()?;
            let inputs: Vec<&Tensor> = step.inputs.iter().filter_map(|value| values[value.0].as_ref()).collect();
            let output = step.layer.run(&inputs)?;
            for value in last_reads {
                values[value.0] = None;
            }
            values[step.output.0] = Some(output);
        }
        values.pop().flatten().ok_or_else(|| broken("graph", "it has no steps"))
    }

    fn check_input(&self, input: &Tensor) -> Result<(), VisionError> {
        let ImageShape { channels, height, width } = self.input();
        match *input.dims() {
            [batch, c, h, w] if batch > 0 && (c, h, w) == (channels, height, width) => Ok(()),
            _ => Err(VisionError::Input { expected: self.input(), found: input.dims().to_vec() }),
        }
    }
}

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
        self.grouped_convolution(name, from, outputs, window, 1)
    }

    /// A depthwise convolution with a bias: tensors `NAME.weight` `[C, 1, kernel, kernel]` and `NAME.bias` `[C]`.
    pub fn depthwise(&mut self, name: &str, from: Value, window: Window) -> Result<Value, VisionError> {
        let channels = self.shape(from).channels;
        self.grouped_convolution(name, from, channels, window, channels)
    }

    fn grouped_convolution(
        &mut self,
        name: &str,
        from: Value,
        outputs: usize,
        window: Window,
        groups: usize,
    ) -> Result<Value, VisionError> {
        let [kernel_height, kernel_width] = window.kernel;
        let inputs = self.shape(from).channels / groups;
        let weight = self.tensor(name, "weight", &[outputs, inputs, kernel_height, kernel_width])?;
        let bias = Some(self.tensor(name, "bias", &[outputs])?);
        let shape = self.windowed(name, from, window, outputs)?;
        Ok(self.push(name, Layer::Convolution(Convolution { weight, bias, window, groups }), vec![from], shape))
    }

    /// A fully connected layer: tensors `NAME.weight` `[outputs, C x H x W]` and `NAME.bias` `[outputs]`.
    pub fn linear(&mut self, name: &str, from: Value, outputs: usize) -> Result<Value, VisionError> {
        let weight = self.tensor(name, "weight", &[outputs, self.shape(from).elements()])?;
        let bias = self.tensor(name, "bias", &[outputs])?;
        Ok(self.push(name, Layer::Linear(Linear { weight, bias }), vec![from], ImageShape::new(outputs, 1, 1)))
    }

    /// Batch normalisation: tensors `NAME.weight`, `.bias`, `.running_mean` and `.running_var`, all `[C]`.
    pub fn norm(&mut self, name: &str, from: Value, epsilon: f64) -> Result<Value, VisionError> {
        let shape = self.shape(from);
        let [gamma, beta, mean, variance] =
            ["weight", "bias", "running_mean", "running_var"].map(|part| self.tensor(name, part, &[shape.channels]));
        let scale = (gamma? / (variance? + epsilon)?.sqrt()?)?;
        let shift = (beta? - (mean? * &scale)?)?;
        Ok(self.push(name, Layer::Norm(Norm { scale, shift }), vec![from], shape))
    }

    /// max(x, 0).
    pub fn relu(&mut self, from: Value) -> Value {
        self.activation(from, Activation::Relu)
    }

    /// min(max(x, 0), 6).
    pub fn relu6(&mut self, from: Value) -> Value {
        self.activation(from, Activation::Relu6)
    }

    fn activation(&mut self, from: Value, activation: Activation) -> Value {
        let name = format!("{}.activation", self.name_of(from));
        self.push(&name, Layer::Activation(activation), vec![from], self.shape(from))
    }

    /// The largest element of each window.
    pub fn max_pool(&mut self, name: &str, from: Value, window: Window) -> Result<Value, VisionError> {
        let Padding { top, bottom, left, right } = window.padding;
        if top.max(bottom) >= window.kernel[0] || left.max(right) >= window.kernel[1] {
            return Err(broken(name, "a pool's padding must be smaller than its window"));
        }
        let shape = self.windowed(name, from, window, self.shape(from).channels)?;
        Ok(self.push(name, Layer::MaxPool(window), vec![from], shape))
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
        if self.steps.is_empty() {
            return Err(broken("graph", "it has no steps"));
        }
        let mut last_reads = vec![Vec::new(); self.steps.len()];
        for value in (0..self.shapes.len()).map(Value) {
            if let Some(step) = self.steps.iter().rposition(|step| step.inputs.contains(&value)) {
                last_reads[step].push(value);
            }
        }
        Ok(Graph { steps: self.steps, shapes: self.shapes, last_reads, device: self.device.clone() })
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

fn broken(layer: &str, reason: &str) -> VisionError {
    VisionError::Layer { layer: layer.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const INPUT: ImageShape = ImageShape::new(2, 4, 4);

    fn builder<'a>(weights: &'a Weights, device: &'a Device) -> GraphBuilder<'a> {
        GraphBuilder::new(weights, device, INPUT)
    }

    /// relu -> (pool | itself) -> concat -> mean: a fork, so that values live for more than one step.
    fn forked() -> Graph {
        let weights = Weights::from_tensors("a test", []);
        let mut graph = builder(&weights, &Device::Cpu);
        let rectified = graph.relu(graph.input());
        let window = Window { kernel: [1, 1], stride: 1, padding: Padding::NONE };
        let pooled = graph.max_pool("pool", rectified, window).unwrap();
        let joined = graph.concat("joined", &[pooled, rectified]).unwrap();
        graph.global_average_pool("mean", joined);
        graph.finish().unwrap()
    }

    fn picture() -> Tensor {
        Tensor::arange(-16f32, 16., &Device::Cpu).unwrap().reshape((1, 2, 4, 4)).unwrap()
    }

    #[test]
    fn a_fork_is_computed_and_its_shapes_are_known() {
        let graph = forked();
        assert_eq!(graph.output(), ImageShape::new(4, 1, 1));
        let output = graph.run(&picture(), &Stop::never()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(output, [0., 7.5, 0., 7.5]);
        let walked: Vec<_> = graph.steps().iter().map(|step| (step.name.as_str(), step.layer.kind())).collect();
        assert_eq!(
            walked,
            [
                ("input.activation", "activation"),
                ("pool", "max pool"),
                ("joined", "concat"),
                ("mean", "global average pool")
            ]
        );
    }

    #[test]
    fn it_stops_between_two_layers() {
        let graph = forked();
        let asked = Cell::new(0);
        let question = || {
            asked.set(asked.get() + 1);
            asked.get() > 2
        };
        let result = graph.run(&picture(), &Stop::when(&question));
        assert!(matches!(result, Err(VisionError::Stopped)), "{result:?}");
        assert_eq!(asked.get(), 3, "the third question ends it; two layers have run");
    }

    #[test]
    fn an_input_of_another_shape_is_refused() {
        let wrong = Tensor::zeros((1, 2, 4, 5), candle_core::DType::F32, &Device::Cpu).unwrap();
        let error = forked().run(&wrong, &Stop::never()).unwrap_err();
        assert_eq!(error.to_string(), "input has the shape [1, 2, 4, 5], expected [N, 2x4x4] with N > 0");
        let nothing = Tensor::zeros((0, 2, 4, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(forked().run(&nothing, &Stop::never()).is_err());
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
    }
}
