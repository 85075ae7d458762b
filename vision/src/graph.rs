//! A network as a list of named steps, each reading values that earlier steps made.
//!
//! Why a list: it can be walked ([`Graph::steps`]) by whoever wants to compile it, run layer by layer with a question
//! between the layers, and checked when it is built: every shape is known before the first image comes.

use candle_core::{DType, Device, Tensor};

use crate::error::VisionError;
use crate::layers::Layer;
use crate::precision::Precision;
use crate::shape::ImageShape;
use crate::stop::Stop;

/// Something that flows through a graph: its input, or what a step gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Value(pub(crate) usize);

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
    /// For each step, the values that no later step reads, and that are no outputs.
    last_reads: Vec<Vec<Value>>,
    outputs: Vec<Value>,
    device: Device,
    precision: Precision,
}

impl Graph {
    /// Steps in an order in which they can be run, the shapes of all values, and which of them are its outputs.
    pub(crate) fn new(steps: Vec<Step>, shapes: Vec<ImageShape>, outputs: Vec<Value>, device: Device) -> Self {
        let mut last_reads = vec![Vec::new(); steps.len()];
        for value in (0..shapes.len()).map(Value).filter(|value| !outputs.contains(value)) {
            if let Some(step) = steps.iter().rposition(|step| step.inputs.contains(&value)) {
                last_reads[step].push(value);
            }
        }
        Self { steps, shapes, last_reads, outputs, device, precision: Precision::F32 }
    }

    /// The steps, in order.
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

    /// Shape of the output for one image; of several, the last one.
    #[must_use]
    pub fn output(&self) -> ImageShape {
        self.shapes[self.outputs[self.outputs.len() - 1].0]
    }

    /// What the graph gives, in order: one value for a classifier, one a level for a detector.
    #[must_use]
    pub fn outputs(&self) -> &[Value] {
        &self.outputs
    }

    /// Where the weights are.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The same graph with its weights in another type, which is then that of everything between input and outputs: those stay
    /// f32. Fails where the device cannot compute in it.
    pub fn in_precision(mut self, precision: Precision) -> Result<Self, VisionError> {
        precision.check(&self.device)?;
        if precision == Precision::Int8 {
            let reason = "layers are not computed in bytes one by one, only by fused kernels";
            return Err(VisionError::Precision { precision, reason });
        }
        for step in &mut self.steps {
            step.layer = step.layer.to_dtype(precision.dtype())?;
        }
        self.precision = precision;
        Ok(self)
    }

    /// Runs the graph on `[N, C, H, W]` f32; `stop` is asked before each step. The output of a graph that ends in a
    /// [`Layer::Linear`] is `[N, outputs]`, else `[N, C, H, W]`. Of several outputs it gives the last one.
    pub fn run(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Tensor, VisionError> {
        self.run_all(input, stop)?.pop().ok_or_else(|| broken("graph", "it has no outputs"))
    }

    /// As [`Self::run`], but gives all outputs.
    pub fn run_all(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Vec<Tensor>, VisionError> {
        check_batch(self.input(), input)?;
        let mut values: Vec<Option<Tensor>> = vec![None; self.shapes.len()];
        values[0] = Some(input.to_device(&self.device)?.to_dtype(self.precision.dtype())?);
        for (step, last_reads) in self.steps.iter().zip(&self.last_reads) {
            stop.check()?;
            let inputs: Vec<&Tensor> = step.inputs.iter().filter_map(|value| values[value.0].as_ref()).collect();
            let output = step.layer.run(&inputs)?;
            for value in last_reads {
                values[value.0] = None;
            }
            values[step.output.0] = Some(output);
        }
        let output = |value: &Value| {
            let output = values[value.0].as_ref().ok_or_else(|| broken("graph", "it lacks an output"))?;
            Ok(output.to_dtype(DType::F32)?)
        };
        self.outputs.iter().map(output).collect()
    }

    /// The part of the graph that computes what the layer of this name reads, as a graph of its own: of a classifier's last
    /// layer with weights, the features. Fails when there is no such layer, or when it reads several values.
    pub fn before(&self, name: &str) -> Result<Self, VisionError> {
        let place =
            self.steps.iter().position(|step| step.name == name).ok_or_else(|| broken(name, "it is not there"))?;
        let [input] = self.steps[place].inputs[..] else { return Err(broken(name, "it reads several values")) };
        // A step makes the value after its own place: the input is the first.
        let (steps, shapes) = (self.steps[..place].to_vec(), self.shapes[..=place].to_vec());
        Ok(Self { precision: self.precision, ..Self::new(steps, shapes, vec![input], self.device.clone()) })
    }
}

/// A network's input: images of its shape, and at least one.
pub(crate) fn check_batch(expected: ImageShape, input: &Tensor) -> Result<(), VisionError> {
    let ImageShape { channels, height, width } = expected;
    match *input.dims() {
        [batch, c, h, w] if batch > 0 && (c, h, w) == (channels, height, width) => Ok(()),
        _ => Err(VisionError::Input { expected, found: input.dims().to_vec() }),
    }
}

/// Layers that do not fit together.
pub(crate) fn broken(layer: &str, reason: &str) -> VisionError {
    VisionError::Layer { layer: layer.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::builder::GraphBuilder;
    use crate::layers::{Padding, Window};
    use crate::weights::Weights;

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
    fn outputs_in_the_middle_are_kept() {
        let weights = Weights::from_tensors("a test", []);
        let mut graph = builder(&weights, &Device::Cpu);
        let first = graph.relu(graph.input());
        let second = graph.global_average_pool("mean", first);
        graph.relu6(second);
        let graph = graph.finish_with(&[first, second]).unwrap();
        let outputs = graph.run_all(&picture(), &Stop::never()).unwrap();
        assert_eq!(outputs.iter().map(Tensor::dims).collect::<Vec<_>>(), [&[1, 2, 4, 4][..], &[1, 2, 1, 1]]);
        assert_eq!(graph.output(), ImageShape::new(2, 1, 1));
        assert!(builder(&weights, &Device::Cpu).finish_with(&[]).is_err());
    }

    #[test]
    fn it_can_be_run_up_to_what_a_layer_reads() {
        let graph = forked();
        let features = graph.before("mean").unwrap();
        assert_eq!((features.steps().len(), features.output()), (3, ImageShape::new(4, 4, 4)));
        let joined = features.run(&picture(), &Stop::never()).unwrap();
        assert_eq!(joined.dims(), [1, 4, 4, 4]);
        let whole = graph.run(&picture(), &Stop::never()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let means = joined.mean((2, 3)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(means, whole);
        let untouched = graph.before("input.activation").unwrap().run(&picture(), &Stop::never()).unwrap();
        assert_eq!(untouched.dims(), [1, 2, 4, 4]);
        assert!(graph.before("joined").is_err() && graph.before("absent").is_err());
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
}
