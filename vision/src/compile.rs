//! Compiles a graph of named layers into a plan of fused kernels, for the processor and in f32.
//!
//! What is done here is what a plan does not know of. A norm becomes part of the convolution before it, or a convolution of one
//! tap; a focus becomes part of the convolution after it, which then looks at the picture itself: its windows are twice as wide
//! and slide twice as far. Fusing activations and additions, joining in place and packing weights are the plan's own work.
//!
//! The weights are lent to the plan while it packs them, not copied.

use std::ops;

use adit_kernels::{self as kernels, Blueprint, Observer, Plan, PlanOptions, Pool, Range, Reduction};
use candle_core::{CpuStorage, DType, Device, Storage, StorageRef, Tensor};

use crate::error::VisionError;
use crate::graph::{Graph, Step, Value, broken};
use crate::layers::{Activation, Convolution, Layer, Norm, Padding, Window};
use crate::shape::ImageShape;

/// Most images in a pass of a plan. A few are enough for weights that are read from memory once for all of them; more bring nothing
/// on a processor, and would only take memory: which a plan takes for as many as come, and not before.
pub(crate) const ROOM: usize = 8;

/// Makes the plan of a graph, for passes of up to so many images, ready to be run with about so many threads; where `ranges` are those
/// of its values, with its convolutions on bytes.
pub(crate) fn blueprint(
    graph: &Graph,
    room: usize,
    threads: usize,
    ranges: Option<&[Range]>,
) -> Result<Blueprint, VisionError> {
    let options = PlanOptions { batch: room, threads, ..PlanOptions::default() };
    of_plain(graph, |plain| {
        let plan = match ranges {
            None => Plan::new(plain, &options)?,
            Some(ranges) => Plan::new(&plain.quantised(ranges)?, &options)?,
        };
        Ok(plan.blueprint())
    })
}

/// What looks at the numbers that flow through a graph, run with so many threads.
pub(crate) fn observer(graph: &Graph, threads: usize) -> Result<Observer, VisionError> {
    of_plain(graph, |plain| Ok(Observer::new(plain, threads)?))
}

/// Makes something of a graph as the plan is to see it.
fn of_plain<T>(
    graph: &Graph,
    make: impl FnOnce(&kernels::Graph<'_>) -> Result<T, VisionError>,
) -> Result<T, VisionError> {
    let nodes = nodes(graph)?;
    let mut plain = kernels::Graph::new(shape(graph.input()))?;
    // A step makes the value after its own place: the input is the first.
    let mut values = vec![plain.input()];
    for (step, node) in graph.steps().iter().zip(&nodes) {
        let inputs: Vec<kernels::Value> = step.inputs.iter().map(|value| values[value.0]).collect();
        values.push(node.add_to(&mut plain, step, &inputs)?);
    }
    let outputs: Vec<kernels::Value> = graph.outputs().iter().map(|value| values[value.0]).collect();
    plain.set_outputs(&outputs)?;
    make(&plain)
}

/// Weights: a tensor's own elements, or what was made of them.
enum Numbers<'a> {
    Lent(StorageRef<'a>, ops::Range<usize>),
    Own(Vec<f32>),
}

impl<'a> Numbers<'a> {
    fn of(tensor: &'a Tensor) -> Result<Self, VisionError> {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(CpuStorage::F32(_)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
            return Ok(Self::Lent(storage, start..end));
        }
        drop(storage);
        Ok(Self::Own(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?))
    }

    fn all(&self) -> &[f32] {
        match self {
            Self::Own(numbers) => numbers,
            Self::Lent(storage, range) => match &**storage {
                Storage::Cpu(CpuStorage::F32(numbers)) => &numbers[range.clone()],
                // Nothing else is lent; a plan refuses weights of another length.
                _ => &[],
            },
        }
    }
}

/// A step as the plan is to see it.
enum Node<'a> {
    /// It has become part of another one, and gives what it reads.
    Absorbed,
    Convolution(Taps<'a>),
    Linear {
        outputs: usize,
        weight: Numbers<'a>,
        bias: Numbers<'a>,
    },
    /// Nothing has to be made of it.
    AsItIs,
}

/// A convolution with its weights.
struct Taps<'a> {
    outputs: usize,
    window: kernels::Window,
    groups: usize,
    weight: Numbers<'a>,
    bias: Option<Numbers<'a>>,
}

impl<'a> Taps<'a> {
    fn of(layer: &'a Convolution) -> Result<Self, VisionError> {
        let Convolution { weight, bias, window, groups, dilation } = layer;
        Ok(Self {
            outputs: weight.dim(0)?,
            window: kernels::Window { dilation: [*dilation; 2], ..plain_window(window) },
            groups: *groups,
            weight: Numbers::of(weight)?,
            bias: bias.as_ref().map(Numbers::of).transpose()?,
        })
    }

    /// A norm that stands alone.
    fn of_norm(norm: &'a Norm) -> Result<Self, VisionError> {
        let channels = norm.scale.elem_count();
        Ok(Self {
            outputs: channels,
            window: kernels::Window::square(1, 1, 0),
            groups: channels,
            weight: Numbers::of(&norm.scale)?,
            bias: Some(Numbers::of(&norm.shift)?),
        })
    }

    /// A focus of so many channels that stands alone: one weight of each output is one.
    fn of_focus(channels: usize) -> Self {
        let outputs = 4 * channels;
        let weight = (0..outputs * outputs).map(|place| if place % (outputs + 1) == 0 { 1.0 } else { 0.0 }).collect();
        let window = kernels::Window::square(1, 1, 0);
        Self { outputs, window, groups: 1, weight: Numbers::Own(weight), bias: None }.after_focus(channels)
    }

    /// With a norm after it.
    fn before_norm(mut self, norm: &Norm) -> Result<Self, VisionError> {
        let (scale, shift) = (Numbers::of(&norm.scale)?, Numbers::of(&norm.shift)?);
        let mut weight = self.weight.all().to_vec();
        let each = (weight.len() / self.outputs.max(1)).max(1);
        for (weights, scale) in weight.chunks_mut(each).zip(scale.all()) {
            weights.iter_mut().for_each(|weight| *weight *= scale);
        }
        let mut bias = shift.all().to_vec();
        for ((bias, own), scale) in bias.iter_mut().zip(self.bias.iter().flat_map(Numbers::all)).zip(scale.all()) {
            *bias += own * scale;
        }
        self.weight = Numbers::Own(weight);
        self.bias = Some(Numbers::Own(bias));
        Ok(self)
    }

    /// Whether a focus before it can become part of it.
    fn takes_focus(layer: &Layer) -> bool {
        matches!(layer, Layer::Convolution(Convolution { groups: 1, dilation: 1, .. }))
    }

    /// With a focus before it, of a picture with so many channels.
    fn after_focus(mut self, channels: usize) -> Self {
        let [rows, columns] = self.window.kernel;
        let old = self.weight.all();
        let mut weight = vec![0.0; old.len()];
        // Each tap looked at four channels of one, which are its square's elements: by column, then by row.
        for (place, number) in old.iter().enumerate() {
            let (column, row) = (place % columns, place / columns % rows);
            let (input, output) = (place / (columns * rows) % (4 * channels), place / (columns * rows * 4 * channels));
            let (square, channel) = (input / channels, input % channels);
            let (row, column) = (2 * row + square % 2, 2 * column + square / 2);
            weight[((output * channels + channel) * 2 * rows + row) * 2 * columns + column] = *number;
        }
        self.weight = Numbers::Own(weight);
        let kernels::Window { stride, padding: kernels::Padding { top, bottom, left, right }, .. } = self.window;
        self.window.kernel = [2 * rows, 2 * columns];
        self.window.stride = stride.map(|stride| 2 * stride);
        self.window.padding = kernels::Padding { top: 2 * top, bottom: 2 * bottom, left: 2 * left, right: 2 * right };
        self
    }
}

/// What becomes of each step.
fn nodes(graph: &Graph) -> Result<Vec<Node<'_>>, VisionError> {
    let steps = graph.steps();
    // The one step that reads a value, where nobody else needs it.
    let only_reader = |value: Value| -> Option<usize> {
        let mut readers = (0..steps.len()).filter(|step| steps[*step].inputs.contains(&value));
        let reader = readers.next()?;
        (readers.next().is_none() && !graph.outputs().contains(&value)).then_some(reader)
    };
    let is_absorbed = |focus: Value| only_reader(focus).is_some_and(|reader| Taps::takes_focus(&steps[reader].layer));
    let mut nodes: Vec<Node<'_>> = Vec::with_capacity(steps.len());
    for (place, Step { layer, inputs, output, name }) in steps.iter().enumerate() {
        let first = *inputs.first().ok_or_else(|| broken(name, "it reads nothing"))?;
        let channels = graph.shape(first).map_or(0, |shape| shape.channels);
        let before = first.0.checked_sub(1);
        let node = match layer {
            Layer::Focus if is_absorbed(*output) => Node::Absorbed,
            Layer::Focus => Node::Convolution(Taps::of_focus(channels)),
            Layer::Convolution(layer) => {
                let taps = Taps::of(layer)?;
                let focus = before.is_some_and(|before| matches!(steps[before].layer, Layer::Focus));
                let after_focus = focus && is_absorbed(first);
                Node::Convolution(if after_focus { taps.after_focus(channels / 4) } else { taps })
            }
            Layer::Linear(layer) => {
                let (weight, bias) = (Numbers::of(&layer.weight)?, Numbers::of(&layer.bias)?);
                Node::Linear { outputs: layer.weight.dim(0)?, weight, bias }
            }
            Layer::Norm(norm) => {
                let convolution = before.filter(|_| only_reader(first) == Some(place));
                let convolution = convolution.filter(|before| matches!(nodes[*before], Node::Convolution(_)));
                match convolution.map(|before| std::mem::replace(&mut nodes[before], Node::Absorbed)) {
                    // The norm's place is theirs, the convolution's is empty.
                    Some(Node::Convolution(taps)) => Node::Convolution(taps.before_norm(norm)?),
                    _ => Node::Convolution(Taps::of_norm(norm)?),
                }
            }
            Layer::Activation(_)
            | Layer::MaxPool(_)
            | Layer::AveragePool(_)
            | Layer::Upsample
            | Layer::GlobalAveragePool
            | Layer::Add
            | Layer::Scale
            | Layer::Narrow { .. }
            | Layer::Concat => Node::AsItIs,
        };
        nodes.push(node);
    }
    Ok(nodes)
}

impl Node<'_> {
    /// Adds it to the plan's graph.
    fn add_to<'s>(
        &'s self,
        plain: &mut kernels::Graph<'s>,
        step: &Step,
        inputs: &[kernels::Value],
    ) -> Result<kernels::Value, VisionError> {
        Ok(match (self, &step.layer, inputs) {
            (Self::Absorbed, _, [from, ..]) => *from,
            (Self::Convolution(taps), _, [from]) => {
                let Taps { outputs, window, groups, weight, bias } = taps;
                let (weight, bias) = (weight.all(), bias.as_ref().map(Numbers::all));
                let layer = kernels::Convolution { outputs: *outputs, window: *window, groups: *groups, weight, bias };
                plain.convolution(*from, layer)?
            }
            (Self::Linear { outputs, weight, bias }, _, [from]) => {
                let layer = kernels::Linear { outputs: *outputs, weight: weight.all(), bias: Some(bias.all()) };
                plain.linear(*from, layer)?
            }
            (_, Layer::Activation(activation), [from]) => plain.activation(*from, plain_activation(*activation))?,
            (_, Layer::MaxPool(window), [from]) => {
                let pool = Pool { reduction: Reduction::Max, window: plain_window(window), ceil: false };
                plain.pool(*from, pool)?
            }
            (_, Layer::AveragePool(window), [from]) => {
                let reduction = Reduction::Average { count_padding: true };
                plain.pool(*from, Pool { reduction, window: plain_window(window), ceil: false })?
            }
            (_, Layer::Upsample, [from]) => plain.upsample(*from, [2, 2])?,
            (_, Layer::GlobalAveragePool, [from]) => plain.global_average_pool(*from)?,
            (_, Layer::Add, [left, right]) => plain.add(*left, *right)?,
            (_, Layer::Scale, [from, factors]) => plain.scale(*from, *factors)?,
            (_, Layer::Narrow { first, channels }, [from]) => plain.narrow(*from, *first, *channels)?,
            (_, Layer::Concat, _) => plain.concat(inputs)?,
            _ => return Err(broken(&step.name, &format!("it does not take {} inputs", inputs.len()))),
        })
    }
}

const fn shape(ImageShape { channels, height, width }: ImageShape) -> kernels::Shape {
    kernels::Shape::new(channels, height, width)
}

const fn plain_window(window: &Window) -> kernels::Window {
    let Window { kernel, stride, padding: Padding { top, bottom, left, right } } = *window;
    let padding = kernels::Padding { top, bottom, left, right };
    kernels::Window { kernel, stride: [stride, stride], dilation: [1, 1], padding }
}

const fn plain_activation(activation: Activation) -> kernels::Activation {
    match activation {
        Activation::Relu => kernels::Activation::Relu,
        Activation::Relu6 => kernels::Activation::Relu6,
        Activation::Silu => kernels::Activation::Silu,
        Activation::Sigmoid => kernels::Activation::Sigmoid,
        Activation::HardSwish => kernels::Activation::HardSwish,
        Activation::HardSigmoid => kernels::Activation::HardSigmoid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::GraphBuilder;
    use crate::layers::Form;
    use crate::plans::Plans;
    use crate::stop::Stop;
    use crate::weights::Weights;

    const SHAPE: ImageShape = ImageShape::new(3, 12, 20);
    const THREE: Window = Window { kernel: [3, 3], stride: 1, padding: Padding::all(1) };

    /// Numbers from -1 to 1 that follow no line; variances are positive.
    fn weights() -> Weights {
        Weights::made_by("a formula", |name, shape| {
            let seed = name.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
            let number = |place: u32| ((seed ^ place.wrapping_mul(0x9E37_79B9)).wrapping_mul(0x85EB_CA6B) >> 8) as f32;
            let lift = if name.ends_with("running_var") { 1.5 } else { 0.0 };
            let count = shape.iter().product::<usize>() as u32;
            Some((0..count).map(|place| number(place) / (1 << 23) as f32 - 1.0 + lift).collect())
        })
    }

    /// Holds the plan of a graph against the graph, for two pictures; what is left of the steps.
    fn hold(build: impl Fn(&mut GraphBuilder<'_>) -> Vec<Value>) -> Vec<&'static str> {
        let weights = weights();
        let mut builder = GraphBuilder::new(&weights, &Device::Cpu, SHAPE);
        let outputs = build(&mut builder);
        let graph = builder.finish_with(&outputs).unwrap();
        let picture = weights.tensor("picture", &[2, 3, 12, 20], &Device::Cpu).unwrap();
        let expected = graph.run_all(&picture, &Stop::never()).unwrap();
        let found = Plans::of(&graph).unwrap().run(&picture, &Stop::never()).unwrap();
        assert_eq!(expected.len(), found.len());
        let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (expected, found) in expected.iter().zip(&found) {
            let (expected, found) = (numbers(expected), numbers(found));
            let largest = expected.iter().fold(0f32, |largest, number| largest.max(number.abs()));
            assert_eq!(expected.len(), found.len());
            assert!(largest > 0.1, "results that say nothing: {largest}");
            let worst = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max) / largest;
            assert!(worst < 1e-5, "{worst}");
        }
        let nodes = nodes(&graph).unwrap();
        let left = graph.steps().iter().zip(&nodes).filter(|(_, node)| !matches!(node, Node::Absorbed));
        left.map(|(step, _)| step.layer.kind()).collect()
    }

    #[test]
    fn a_norm_becomes_part_of_the_convolution_that_it_alone_reads() {
        let left = hold(|net| {
            let x = net.convolution("conv", net.input(), 5, THREE).unwrap();
            let x = net.norm("norm", x, 1e-3).unwrap();
            let x = net.norm("another", x, 1e-3).unwrap();
            let x = net.silu(x);
            let depthwise = net.depthwise("depthwise", x, Window { stride: 2, ..THREE }).unwrap();
            vec![net.norm("last", depthwise, 1e-3).unwrap()]
        });
        assert_eq!(left, ["norm", "activation", "norm"]);
    }

    #[test]
    fn a_norm_stands_alone_where_others_read_what_it_does() {
        let left = hold(|net| {
            let first = net.norm("first", net.input(), 1e-3).unwrap();
            let x = net.convolution("conv", first, 3, THREE).unwrap();
            let normed = net.norm("norm", x, 1e-3).unwrap();
            let sum = net.add("sum", x, normed).unwrap();
            let y = net.convolution("told", sum, 4, THREE).unwrap();
            vec![net.norm("end", y, 1e-3).unwrap(), y]
        });
        assert_eq!(left, ["norm", "convolution", "norm", "add", "convolution", "norm"]);
    }

    #[test]
    fn a_focus_becomes_part_of_the_convolution_after_it() {
        let padding = Padding { top: 0, bottom: 1, left: 2, right: 1 };
        for window in [THREE, Window { kernel: [3, 2], stride: 2, padding }] {
            let left = hold(|net| {
                let x = net.focus("focus", net.input()).unwrap();
                let x = net.convolution("conv", x, 7, window).unwrap();
                let x = net.norm("norm", x, 1e-3).unwrap();
                vec![net.sigmoid(x)]
            });
            assert_eq!(left, ["norm", "activation"]);
        }
    }

    #[test]
    fn a_focus_stands_alone_where_that_is_not_possible() {
        let left = hold(|net| {
            let x = net.focus("focus", net.input()).unwrap();
            let first = net.convolution("first", x, 7, THREE).unwrap();
            let second = net.convolution("second", x, 2, THREE).unwrap();
            vec![net.concat("joined", &[first, second, x]).unwrap()]
        });
        assert_eq!(left, ["focus", "convolution", "convolution", "concat"]);
        let left = hold(|net| {
            let x = net.focus("focus", net.input()).unwrap();
            let first = net.depthwise("each", x, THREE).unwrap();
            let y = net.focus("again", first).unwrap();
            let y = net.upsample("larger", y);
            let form = Form { dilation: 2, ..Form::new(3, Window { padding: Padding::all(2), ..THREE }) };
            vec![net.normalised_or_biased("wide", "absent", y, form, 1e-3).unwrap()]
        });
        assert_eq!(left, ["focus", "convolution", "focus", "upsample", "convolution"]);
    }

    #[test]
    fn a_gate_scales_and_parts_are_read() {
        hold(|net| {
            let x = net.convolution("conv", net.input(), 48, THREE).unwrap();
            let x = net.hard_swish(x);
            let gate = net.global_average_pool("mean", x);
            let gate =
                net.convolution("squeezed", gate, 48, Window { kernel: [1, 1], stride: 1, padding: Padding::NONE });
            let gate = net.hard_sigmoid(gate.unwrap());
            let x = net.scale("gated", x, gate).unwrap();
            let (whole, odd) = (net.narrow("half", x, 16, 32).unwrap(), net.narrow("odd", x, 3, 7).unwrap());
            let y = net.convolution("again", whole, 5, THREE).unwrap();
            vec![net.concat("joined", &[x, y, odd]).unwrap(), whole]
        });
    }

    #[test]
    fn a_picture_that_is_read_flat_and_one_that_is_shrunk_come_out_alike() {
        let left = hold(|net| {
            let pool = Window { kernel: [3, 3], stride: 2, padding: Padding::ceil(SHAPE, [3, 3], 2) };
            let x = net.max_pool("pool", net.input(), pool).unwrap();
            let x = net.average_pool("average", x, Window { padding: Padding::all(1), ..pool }).unwrap();
            let flat = net.linear("flat", x, 6).unwrap();
            let mean = net.global_average_pool("mean", x);
            let mean = net.relu6(mean);
            vec![net.relu(flat), net.linear("again", mean, 3).unwrap()]
        });
        assert_eq!(left.len(), 7);
    }
}
