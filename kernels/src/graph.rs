//! A network as plain nodes: what is computed from what, with weights as slices. What runs it is a plan.

use crate::activation::Activation;
use crate::error::KernelError;
use crate::grid::{Grid, fits_bytes};
use crate::shape::{Shape, Window};

/// Something that flows through a graph: its input, or what a node gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) usize);

/// A two-dimensional convolution. A batch norm that stands alone is one too, depthwise with one tap.
#[derive(Debug, Clone, Copy)]
pub struct Convolution<'w> {
    /// Output channels.
    pub outputs: usize,
    /// How it slides.
    pub window: Window,
    /// 1, or the number of parts of the channels that are convolved apart: as many as channels for a depthwise one.
    pub groups: usize,
    /// `[outputs, inputs / groups, kernel height, kernel width]`.
    pub weight: &'w [f32],
    /// `[outputs]`.
    pub bias: Option<&'w [f32]>,
}

/// A fully connected layer: flattens its input, channels first.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'w> {
    /// Numbers that come out.
    pub outputs: usize,
    /// `[outputs, channels x height x width]`.
    pub weight: &'w [f32],
    /// `[outputs]`.
    pub bias: Option<&'w [f32]>,
}

/// What a pool makes of the elements of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// The largest; what is padded never wins, a NaN always does.
    Max,
    /// The mean.
    Average {
        /// Whether padding counts as elements of zero, as it does in PyTorch unless told otherwise. What `ceil` adds behind the
        /// padding never counts.
        count_padding: bool,
    },
}

/// A pool. Its padding must be smaller than its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// What is made of a window.
    pub reduction: Reduction,
    /// How it slides; pools have no dilation.
    pub window: Window,
    /// Whether a remainder that a stride leaves gets a window of its own ([`Window::output`]).
    pub ceil: bool,
}

/// What a node computes.
#[derive(Debug, Clone)]
pub(crate) enum Operation<'w> {
    Convolution(Convolution<'w>),
    Linear(Linear<'w>),
    Activation(Activation),
    Pool(Pool),
    /// Rows and columns are repeated so many times.
    Upsample([usize; 2]),
    Mean,
    Add,
    /// Each channel times a number of its own.
    Scale,
    Concat,
    /// So many channels, from the first of them on.
    Narrow {
        first: usize,
        channels: usize,
    },
    Flatten,
    /// f32 to bytes of the value's grid.
    Quantise,
    /// Bytes to f32.
    Restore,
}

impl Operation<'_> {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Convolution(_) => "convolution",
            Self::Linear(_) => "linear",
            Self::Activation(_) => "activation",
            Self::Pool(_) => "pool",
            Self::Upsample(_) => "upsample",
            Self::Mean => "mean",
            Self::Add => "add",
            Self::Scale => "scale",
            Self::Concat => "concat",
            Self::Narrow { .. } => "narrow",
            Self::Flatten => "flatten",
            Self::Quantise => "quantise",
            Self::Restore => "restore",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Node<'w> {
    pub(crate) operation: Operation<'w>,
    pub(crate) inputs: Vec<Value>,
}

/// A network under construction: every method adds a node that reads values made before, and gives its value. All shapes are
/// known and checked at once.
#[derive(Debug, Clone)]
pub struct Graph<'w> {
    /// Node `n` makes value `n + 1`; value 0 is the input.
    pub(crate) nodes: Vec<Node<'w>>,
    pub(crate) shapes: Vec<Shape>,
    /// For each value its grid, where it is of bytes and not of f32.
    pub(crate) grids: Vec<Option<Grid>>,
    pub(crate) outputs: Vec<Value>,
}

impl<'w> Graph<'w> {
    /// An empty graph for images of a shape.
    pub fn new(input: Shape) -> Result<Self, KernelError> {
        if !input.is_sound() {
            return Err(KernelError::Size { node: "input", shape: input });
        }
        Ok(Self { nodes: Vec::new(), shapes: vec![input], grids: vec![None], outputs: Vec::new() })
    }

    /// The graph's input.
    #[must_use]
    pub const fn input(&self) -> Value {
        Value(0)
    }

    /// Shape of one image of a value, if the value is of this graph.
    #[must_use]
    pub fn shape(&self, value: Value) -> Option<Shape> {
        self.shapes.get(value.0).copied()
    }

    /// The grid of a value that is of bytes.
    #[must_use]
    pub fn grid(&self, value: Value) -> Option<Grid> {
        self.grids.get(value.0).copied().flatten()
    }

    /// Shapes of the outputs, in order.
    pub fn output_shapes(&self) -> impl Iterator<Item = Shape> + '_ {
        self.outputs.iter().map(|output| self.shapes[output.0])
    }

    /// Multiplications of convolutions and linear layers for one image.
    #[must_use]
    pub fn multiplications(&self) -> usize {
        let of = |(node, shape): (&Node<'_>, &Shape)| match &node.operation {
            Operation::Convolution(convolution) => convolution.weight.len() * shape.height * shape.width,
            Operation::Linear(linear) => linear.weight.len(),
            _ => 0,
        };
        self.nodes.iter().zip(&self.shapes[1..]).map(of).sum()
    }

    /// Adds a convolution. One of bytes has its weights rounded to bytes, too, with a step for each output channel; its sums are
    /// whole numbers, and what comes out is f32.
    pub fn convolution(&mut self, from: Value, convolution: Convolution<'w>) -> Result<Value, KernelError> {
        const NODE: &str = "convolution";
        let shape = self.any(NODE, from)?;
        let Convolution { outputs, window, groups, weight, bias } = convolution;
        let misfit = |reason| KernelError::Misfit { node: NODE, shape, reason };
        if groups == 0 || !shape.channels.is_multiple_of(groups) || outputs == 0 || !outputs.is_multiple_of(groups) {
            return Err(misfit("its groups do not divide its channels"));
        }
        let [height, width] = window.output(shape, false).ok_or(misfit("its window does not fit"))?;
        let expected = [outputs, shape.channels / groups, window.taps()]
            .into_iter()
            .try_fold(1, usize::checked_mul)
            .ok_or(misfit("it has too many weights"))?;
        weights(NODE, "weights", expected, weight.len())?;
        weights(NODE, "biases", outputs, bias.map_or(outputs, <[f32]>::len))?;
        if self.grid(from).is_some() {
            fits_bytes(&convolution, shape)?;
        }
        self.push(Operation::Convolution(convolution), &[from], Shape::new(outputs, height, width))
    }

    /// Adds a fully connected layer, which gives `outputs x 1 x 1`.
    pub fn linear(&mut self, from: Value, linear: Linear<'w>) -> Result<Value, KernelError> {
        const NODE: &str = "linear";
        let shape = self.known(NODE, from)?;
        let Linear { outputs, weight, bias } = linear;
        let reason = "it has too many weights";
        let expected =
            outputs.checked_mul(shape.elements()).ok_or(KernelError::Misfit { node: NODE, shape, reason })?;
        weights(NODE, "weights", expected, weight.len())?;
        weights(NODE, "biases", outputs, bias.map_or(outputs, <[f32]>::len))?;
        self.push(Operation::Linear(linear), &[from], Shape::new(outputs, 1, 1))
    }

    /// Adds an activation.
    pub fn activation(&mut self, from: Value, activation: Activation) -> Result<Value, KernelError> {
        let shape = self.known("activation", from)?;
        self.push(Operation::Activation(activation), &[from], shape)
    }

    /// Adds a pool. The largest of bytes are bytes of the same grid.
    pub fn pool(&mut self, from: Value, pool: Pool) -> Result<Value, KernelError> {
        const NODE: &str = "pool";
        let shape = self.any(NODE, from)?;
        let misfit = |reason| KernelError::Misfit { node: NODE, shape, reason };
        let grid = self.grid(from);
        if grid.is_some() && pool.reduction != Reduction::Max {
            return Err(misfit("bytes have no mean"));
        }
        let Window { kernel, dilation, padding, .. } = pool.window;
        let [height, width] = pool.window.output(shape, pool.ceil).ok_or(misfit("its window does not fit"))?;
        if dilation != [1, 1] {
            return Err(misfit("pools have no dilation"));
        }
        if padding.top.max(padding.bottom) >= kernel[0] || padding.left.max(padding.right) >= kernel[1] {
            return Err(misfit("its padding is not smaller than its window"));
        }
        self.push_as(Operation::Pool(pool), &[from], Shape { height, width, ..shape }, grid)
    }

    /// Adds the mean of each channel, which gives `channels x 1 x 1`.
    pub fn global_average_pool(&mut self, from: Value) -> Result<Value, KernelError> {
        let shape = self.known("mean", from)?;
        self.push(Operation::Mean, &[from], Shape::new(shape.channels, 1, 1))
    }

    /// Adds an enlargement by whole numbers of rows and columns: each element is repeated.
    pub fn upsample(&mut self, from: Value, factor: [usize; 2]) -> Result<Value, KernelError> {
        const NODE: &str = "upsample";
        let shape = self.known(NODE, from)?;
        let sides = [shape.height.checked_mul(factor[0]), shape.width.checked_mul(factor[1])];
        let [Some(height), Some(width)] = sides else {
            return Err(KernelError::Misfit { node: NODE, shape, reason: "its factor is too large" });
        };
        self.push(Operation::Upsample(factor), &[from], Shape { height, width, ..shape })
    }

    /// Adds the sum of two values of one shape.
    pub fn add(&mut self, left: Value, right: Value) -> Result<Value, KernelError> {
        let (shape, other) = (self.known("add", left)?, self.known("add", right)?);
        if shape != other {
            return Err(KernelError::Misfit { node: "add", shape, reason: "its two values have different shapes" });
        }
        self.push(Operation::Add, &[left, right], shape)
    }

    /// Adds a value each of whose channels is multiplied by a number of its own: `factors` is `channels x 1 x 1`.
    pub fn scale(&mut self, from: Value, factors: Value) -> Result<Value, KernelError> {
        let (shape, other) = (self.known("scale", from)?, self.known("scale", factors)?);
        if other != Shape::new(shape.channels, 1, 1) {
            return Err(KernelError::Misfit { node: "scale", shape, reason: "it has not one factor for each channel" });
        }
        self.push(Operation::Scale, &[from, factors], shape)
    }

    /// Adds so many channels of a value, from the `first` on.
    pub fn narrow(&mut self, from: Value, first: usize, channels: usize) -> Result<Value, KernelError> {
        let shape = self.known("narrow", from)?;
        if first.checked_add(channels).is_none_or(|end| end > shape.channels) {
            return Err(KernelError::Misfit { node: "narrow", shape, reason: "it has fewer channels" });
        }
        self.push(Operation::Narrow { first, channels }, &[from], Shape { channels, ..shape })
    }

    /// Adds the bytes of a value of f32, on a grid.
    pub fn quantise(&mut self, from: Value, grid: Grid) -> Result<Value, KernelError> {
        let shape = self.known("quantise", from)?;
        self.push_as(Operation::Quantise, &[from], shape, Some(grid))
    }

    /// Adds the numbers that the bytes of a value stand for.
    pub fn restore(&mut self, from: Value) -> Result<Value, KernelError> {
        const NODE: &str = "restore";
        let shape = self.any(NODE, from)?;
        if self.grid(from).is_none() {
            return Err(KernelError::Misfit { node: NODE, shape, reason: "it is not of bytes" });
        }
        self.push(Operation::Restore, &[from], shape)
    }

    /// Adds values of equal height and width, joined along their channels; of bytes, they have one grid.
    pub fn concat(&mut self, values: &[Value]) -> Result<Value, KernelError> {
        const NODE: &str = "concat";
        let Some(first) = values.first() else { return Err(KernelError::UnknownValue { node: NODE }) };
        let (grid, first) = (self.grid(*first), self.any(NODE, *first)?);
        let mut channels = 0usize;
        for value in values {
            let shape = self.any(NODE, *value)?;
            if self.grid(*value) != grid {
                return Err(KernelError::Misfit { node: NODE, shape, reason: "its values have different grids" });
            }
            if (shape.height, shape.width) != (first.height, first.width) {
                return Err(KernelError::Misfit { node: NODE, shape, reason: "its values have different sides" });
            }
            channels = channels.saturating_add(shape.channels);
        }
        self.push_as(Operation::Concat, values, Shape { channels, ..first }, grid)
    }

    /// Adds a reading of all elements as channels, in the order channel, row, column.
    pub fn flatten(&mut self, from: Value) -> Result<Value, KernelError> {
        let shape = self.known("flatten", from)?;
        self.push(Operation::Flatten, &[from], Shape::new(shape.elements(), 1, 1))
    }

    /// Says which values come out, in order; without this the last one does. A value may come out more than once; none is of bytes.
    pub fn set_outputs(&mut self, outputs: &[Value]) -> Result<(), KernelError> {
        for output in outputs {
            self.known("graph", *output)?;
        }
        if outputs.is_empty() {
            return Err(KernelError::NoOutputs);
        }
        self.outputs = outputs.to_vec();
        Ok(())
    }

    /// The shape of a value of f32.
    fn known(&self, node: &'static str, value: Value) -> Result<Shape, KernelError> {
        let shape = self.any(node, value)?;
        match self.grid(value) {
            None => Ok(shape),
            Some(_) => Err(KernelError::Misfit { node, shape, reason: "it is of bytes" }),
        }
    }

    /// The shape of a value, of f32 or of bytes.
    fn any(&self, node: &'static str, value: Value) -> Result<Shape, KernelError> {
        self.shape(value).ok_or(KernelError::UnknownValue { node })
    }

    fn push(&mut self, operation: Operation<'w>, inputs: &[Value], shape: Shape) -> Result<Value, KernelError> {
        self.push_as(operation, inputs, shape, None)
    }

    fn push_as(
        &mut self,
        operation: Operation<'w>,
        inputs: &[Value],
        shape: Shape,
        grid: Option<Grid>,
    ) -> Result<Value, KernelError> {
        if !shape.is_sound() {
            return Err(KernelError::Size { node: operation.name(), shape });
        }
        self.nodes.push(Node { operation, inputs: inputs.to_vec() });
        let value = Value(self.shapes.len());
        self.shapes.push(shape);
        self.grids.push(grid);
        self.outputs = vec![value];
        Ok(value)
    }
}

fn weights(node: &'static str, what: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if expected == found { Ok(()) } else { Err(KernelError::Weights { node, what, expected, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Graph<'static> {
        Graph::new(Shape::new(4, 6, 6)).unwrap()
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut graph = graph();
        let input = graph.input();
        let weight = [0.0; 4 * 4 * 9];
        let sound = Convolution { outputs: 4, window: Window::square(3, 1, 1), groups: 1, weight: &weight, bias: None };
        for wrong in [
            Convolution { groups: 0, ..sound },
            Convolution { groups: 3, ..sound },
            Convolution { outputs: 0, ..sound },
            Convolution { outputs: 3, ..sound },
            Convolution { outputs: usize::MAX, ..sound },
            Convolution { window: Window::square(9, 1, 1), ..sound },
            Convolution { window: Window::square(3, 0, 1), ..sound },
            Convolution { weight: &weight[1..], ..sound },
            Convolution { bias: Some(&[1.0]), ..sound },
        ] {
            assert!(graph.convolution(input, wrong).is_err(), "{:?}", wrong.window);
        }
        let elsewhere = Value(7);
        assert_eq!(graph.convolution(elsewhere, sound), Err(KernelError::UnknownValue { node: "convolution" }));
        assert!(graph.linear(input, Linear { outputs: 2, weight: &weight, bias: None }).is_err());
        assert!(graph.linear(input, Linear { outputs: usize::MAX, weight: &weight, bias: None }).is_err());
        assert!(graph.upsample(input, [0, 1]).is_err() && graph.upsample(input, [usize::MAX, 1]).is_err());
        assert!(graph.concat(&[]).is_err() && graph.set_outputs(&[]).is_err());
        let mean = graph.global_average_pool(input).unwrap();
        assert!(graph.add(input, mean).is_err() && graph.concat(&[input, mean]).is_err());
        assert!(graph.scale(mean, input).is_err() && graph.scale(input, input).is_err());
        for (first, channels) in [(0, 0), (0, 5), (3, 2), (usize::MAX, 2)] {
            assert!(graph.narrow(input, first, channels).is_err());
        }
        let window = Window::square(3, 1, 3);
        assert!(graph.pool(input, Pool { reduction: Reduction::Max, window, ceil: false }).is_err());
        let window = Window { dilation: [2, 1], ..Window::square(2, 1, 0) };
        assert!(graph.pool(input, Pool { reduction: Reduction::Max, window, ceil: false }).is_err());
        assert!(graph.convolution(input, sound).is_ok());
    }

    #[test]
    fn the_last_value_comes_out_unless_others_are_named() {
        let mut graph = graph();
        let relu = graph.activation(graph.input(), Activation::Relu).unwrap();
        let flat = graph.flatten(relu).unwrap();
        assert_eq!(graph.output_shapes().collect::<Vec<_>>(), [Shape::new(144, 1, 1)]);
        graph.set_outputs(&[relu, flat, relu]).unwrap();
        assert_eq!(graph.output_shapes().count(), 3);
        assert!(Graph::new(Shape::new(0, 1, 1)).is_err());
    }
}
