//! Which values of a graph become bytes: those that convolutions multiply, and what lies between them.
//!
//! Bytes pay where they stay bytes. A convolution of f32 that were made bytes for it alone is no quicker than one of f32, so what leads
//! from one convolution to the next without arithmetic, maxima and concatenations, is done in bytes, too; everything else reads f32.
//! Depthwise convolutions do: on bytes they were quicker by a twentieth of MobileNetV2, and lost a third of YOLOX-nano's boxes, for their
//! channels' ranges lie far apart.

use crate::error::KernelError;
use crate::graph::{Graph, Operation, Reduction, Value};
use crate::grid::{Grid, fits_bytes};

/// So many convolutions on any way from the input stay f32: what they lose all others inherit, and they are a small part of the work.
/// With them on bytes probabilities moved by half as much again or twice as much (GoogLeNet, SqueezeNet, MobileNetV2).
const EARLY: usize = 3;

/// The lowest and the highest number of a value.
pub type Range = [f32; 2];

/// What is known of an f32 graph before its values become bytes.
struct Survey {
    /// Whether a node is a convolution that can multiply bytes.
    multiplies: Vec<bool>,
    /// Whether a value is the result of one, or of what is fused into one.
    settled: Vec<bool>,
    /// Whether somebody wants a value's bytes.
    wanted: Vec<bool>,
    /// Whether a value is added to another one, and has numbers below zero: those of sums that no activation bounds are far
    /// apart, and each addition would lose as much again.
    summed: Vec<bool>,
    /// The grid of each value's bytes.
    grids: Vec<Option<Grid>>,
}

/// A value of the f32 graph in the new one: as f32, as bytes, or both.
#[derive(Debug, Clone, Copy, Default)]
struct Twin {
    floats: Option<Value>,
    bytes: Option<Value>,
}

impl<'w> Graph<'w> {
    /// The same graph with its convolutions on bytes, where `ranges` are those of each value in the order in which values were made,
    /// the input first: see [`Observer`](crate::Observer). Values without a range that makes a grid stay f32, and so do the
    /// first layers, depthwise convolutions, means, and linear layers.
    pub fn quantised(&self, ranges: &[Range]) -> Result<Self, KernelError> {
        if ranges.len() != self.shapes.len() || self.grids.iter().any(Option::is_some) {
            return Err(KernelError::Ranges { expected: self.shapes.len(), found: ranges.len() });
        }
        let survey = Survey::of(self, ranges);
        let mut graph = Self::new(self.shapes[0])?;
        let mut twins = vec![Twin::default(); self.shapes.len()];
        twins[0].floats = Some(graph.input());
        for (place, node) in self.nodes.iter().enumerate() {
            let value = place + 1;
            let in_bytes = survey.multiplies[place]
                || (survey.is_carried(self, place) && survey.wanted[value] && survey.grids[value].is_some());
            let mut inputs = Vec::with_capacity(node.inputs.len());
            for input in &node.inputs {
                let twin = &mut twins[input.0];
                inputs.push(if in_bytes {
                    twin.bytes(&mut graph, survey.grids[input.0])?
                } else {
                    twin.floats(&mut graph)?
                });
            }
            let made = graph.repeat(&node.operation, &inputs)?;
            if graph.grid(made).is_some() {
                twins[value].bytes = Some(made);
                continue;
            }
            twins[value].floats = Some(made);
            if survey.wanted[value] && survey.grids[value].is_some() {
                twins[value].bytes(&mut graph, survey.grids[value])?;
                // What is settled goes straight to bytes, where nobody asks for the f32.
                let asked = survey.summed[value] || self.outputs.contains(&Value(value));
                if survey.settled[value] && !asked {
                    twins[value].floats = None;
                }
            }
        }
        let outputs = self.outputs.iter().map(|output| twins[output.0].floats(&mut graph));
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        graph.set_outputs(&outputs)?;
        Ok(graph)
    }

    /// Adds a node of another graph.
    fn repeat(&mut self, operation: &Operation<'w>, inputs: &[Value]) -> Result<Value, KernelError> {
        match (operation, inputs) {
            (Operation::Convolution(convolution), [from]) => self.convolution(*from, *convolution),
            (Operation::Linear(linear), [from]) => self.linear(*from, *linear),
            (Operation::Activation(activation), [from]) => self.activation(*from, *activation),
            (Operation::Pool(pool), [from]) => self.pool(*from, *pool),
            (Operation::Upsample(factor), [from]) => self.upsample(*from, *factor),
            (Operation::Mean, [from]) => self.global_average_pool(*from),
            (Operation::Add, [left, right]) => self.add(*left, *right),
            (Operation::Scale, [from, factors]) => self.scale(*from, *factors),
            (Operation::Concat, _) => self.concat(inputs),
            (Operation::Narrow { first, channels }, [from]) => self.narrow(*from, *first, *channels),
            (Operation::Flatten, [from]) => self.flatten(*from),
            (operation, _) => Err(KernelError::UnknownValue { node: operation.name() }),
        }
    }
}

impl Twin {
    fn floats(&mut self, graph: &mut Graph<'_>) -> Result<Value, KernelError> {
        match (self.floats, self.bytes) {
            (None, Some(bytes)) => graph.restore(bytes),
            (Some(floats), _) => Ok(floats),
            (None, None) => Err(KernelError::UnknownValue { node: "restore" }),
        }
    }

    fn bytes(&mut self, graph: &mut Graph<'_>, grid: Option<Grid>) -> Result<Value, KernelError> {
        let bytes = match (self.bytes, self.floats, grid) {
            (Some(bytes), _, _) => bytes,
            (None, Some(floats), Some(grid)) => graph.quantise(floats, grid)?,
            (None, _, _) => return Err(KernelError::UnknownValue { node: "quantise" }),
        };
        self.bytes = Some(bytes);
        Ok(bytes)
    }
}

impl Survey {
    fn of(graph: &Graph<'_>, ranges: &[Range]) -> Self {
        let values = graph.shapes.len();
        let mut survey = Self {
            multiplies: vec![false; graph.nodes.len()],
            settled: vec![false; values],
            wanted: vec![false; values],
            summed: vec![false; values],
            grids: ranges.iter().map(|[low, high]| Grid::of_range(*low, *high)).collect(),
        };
        // Convolutions on the longest way to each value.
        let mut depth = vec![0; values];
        for (place, node) in graph.nodes.iter().enumerate() {
            let first = node.inputs[0].0;
            let before = node.inputs.iter().map(|input| depth[input.0]).max().unwrap_or(0);
            depth[place + 1] = before + usize::from(matches!(node.operation, Operation::Convolution(_)));
            survey.multiplies[place] = match &node.operation {
                Operation::Convolution(layer) => {
                    before >= EARLY && survey.grids[first].is_some() && fits_bytes(layer, graph.shapes[first]).is_ok()
                }
                _ => false,
            };
            survey.settled[place + 1] = match &node.operation {
                Operation::Convolution(_) => survey.multiplies[place],
                Operation::Activation(_) => survey.settled[first],
                Operation::Add => node.inputs.iter().any(|input| survey.settled[input.0]),
                _ => false,
            };
        }
        for place in (0..graph.nodes.len()).rev() {
            survey.ask(graph, place);
        }
        for node in &graph.nodes {
            // Of two sums the first takes the other one in, which has to lie somewhere until then.
            if let (Operation::Add, [left, right]) = (&node.operation, &node.inputs[..]) {
                for input in [left.0, right.0] {
                    survey.summed[input] |= survey.grids[input].is_some_and(|grid| grid.zero() > 0);
                }
                let both = survey.settled[left.0] && survey.settled[right.0];
                if both && !survey.wanted[left.0] && !survey.wanted[right.0] {
                    survey.wanted[left.0.max(right.0)] = true;
                }
            }
        }
        survey.join(graph, ranges);
        survey
    }

    /// Whether a node carries bytes without arithmetic.
    fn is_carried(&self, graph: &Graph<'_>, place: usize) -> bool {
        let node = &graph.nodes[place];
        let all = node.inputs.iter().all(|input| input.0 > 0 && self.grids[input.0].is_some());
        match &node.operation {
            Operation::Pool(pool) => all && pool.reduction == Reduction::Max && self.wanted[node.inputs[0].0],
            Operation::Concat => all,
            _ => false,
        }
    }

    /// Notes which of a node's inputs it wants as bytes; all who read its result have been asked.
    fn ask(&mut self, graph: &Graph<'_>, place: usize) {
        let node = &graph.nodes[place];
        match (&node.operation, &node.inputs[..]) {
            (Operation::Convolution(_), [from]) if self.multiplies[place] => self.wanted[from.0] = true,
            // The bytes of what is f32 anyway are made of fewer numbers after the pool.
            (Operation::Pool(_), [from]) if self.wanted[place + 1] && self.carries_bytes(graph, from.0) => {
                self.wanted[from.0] = true;
            }
            (Operation::Concat, inputs) if self.wanted[place + 1] && self.is_carried(graph, place) => {
                inputs.iter().for_each(|input| self.wanted[input.0] = true);
            }
            _ => {}
        }
    }

    /// Whether a value comes as bytes from where it is made.
    fn carries_bytes(&self, graph: &Graph<'_>, value: usize) -> bool {
        let Some(place) = value.checked_sub(1) else { return false };
        let node = &graph.nodes[place];
        self.settled[value]
            || match node.operation {
                Operation::Pool(pool) => {
                    pool.reduction == Reduction::Max && self.carries_bytes(graph, node.inputs[0].0)
                }
                Operation::Concat => node.inputs.iter().all(|input| self.carries_bytes(graph, input.0)),
                _ => false,
            }
    }

    /// Gives one grid to all values that are the same bytes: the widest range of all.
    fn join(&mut self, graph: &Graph<'_>, ranges: &[Range]) {
        let mut leaders: Vec<usize> = (0..ranges.len()).collect();
        fn leader(leaders: &[usize], mut value: usize) -> usize {
            while leaders[value] != value {
                value = leaders[value];
            }
            value
        }
        for (place, node) in graph.nodes.iter().enumerate() {
            if self.wanted[place + 1] && self.is_carried(graph, place) {
                for input in &node.inputs {
                    let (one, other) = (leader(&leaders, input.0), leader(&leaders, place + 1));
                    leaders[one] = other;
                }
            }
        }
        let mut joined = ranges.to_vec();
        for (value, [low, high]) in ranges.iter().enumerate() {
            let [lowest, highest] = &mut joined[leader(&leaders, value)];
            (*lowest, *highest) = (lowest.min(*low), highest.max(*high));
        }
        for (value, grid) in self.grids.iter_mut().enumerate() {
            let [low, high] = joined[leader(&leaders, value)];
            *grid = grid.and(Grid::of_range(low, high));
        }
    }
}
