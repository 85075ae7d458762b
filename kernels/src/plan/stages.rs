//! What a plan computes at a time: a node, with the activations and the addition after it that it can do on its way out.

use crate::activation::Activation;
use crate::graph::{Graph, Operation, Value};

/// A node and what is fused into it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stage {
    /// The node that is computed.
    pub(crate) node: usize,
    /// The last one that is fused into it: at its place in the graph the stage is run, when all that it reads is there.
    pub(crate) last: usize,
    pub(crate) before: Activation,
    /// What is added.
    pub(crate) other: Option<Value>,
    pub(crate) after: Activation,
}

impl Stage {
    /// What the stage gives.
    pub(crate) const fn output(&self) -> Value {
        Value(self.last + 1)
    }
}

/// The stages of a graph, in the order in which they are run.
pub(crate) fn stages(graph: &Graph<'_>) -> Vec<Stage> {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.shapes.len()];
    for (place, node) in graph.nodes.iter().enumerate() {
        for input in &node.inputs {
            readers[input.0].push(place);
        }
    }
    let mut fused = vec![false; graph.nodes.len()];
    let mut stages = Vec::new();
    // The one node that reads a value, where nobody else needs it.
    let only_reader = |value: usize| match readers[value][..] {
        [reader] if !graph.outputs.contains(&Value(value)) => Some(reader),
        _ => None,
    };
    for (node, operation) in graph.nodes.iter().map(|node| &node.operation).enumerate() {
        if fused[node] || is_read_in_place(graph, &readers, node) {
            continue;
        }
        let [before, after] = [Activation::Identity; 2];
        let mut stage = Stage { node, last: node, before, other: None, after };
        let activation = |stage: &mut Stage, fused: &mut [bool]| -> Activation {
            if let Some(reader) = only_reader(stage.last + 1)
                && let Operation::Activation(activation) = graph.nodes[reader].operation
            {
                fused[reader] = true;
                stage.last = reader;
                return activation;
            }
            Activation::Identity
        };
        match operation {
            Operation::Convolution(_) | Operation::Linear(_) => {
                stage.before = activation(&mut stage, &mut fused);
                // The other one of two that are added may have taken the sum in.
                let adds = |reader: &usize| matches!(graph.nodes[*reader].operation, Operation::Add);
                if let Some(reader) = only_reader(stage.last + 1).filter(adds).filter(|reader| !fused[*reader]) {
                    fused[reader] = true;
                    let own = Value(stage.last + 1);
                    stage.other = graph.nodes[reader].inputs.iter().copied().find(|input| *input != own);
                    stage.last = reader;
                    stage.after = activation(&mut stage, &mut fused);
                }
                // What multiplies bytes can give bytes.
                let quantises = |reader: &usize| matches!(graph.nodes[*reader].operation, Operation::Quantise);
                let of_bytes = graph.grid(graph.nodes[node].inputs[0]).is_some();
                if let Some(reader) = only_reader(stage.last + 1).filter(quantises).filter(|_| of_bytes) {
                    fused[reader] = true;
                    stage.last = reader;
                }
            }
            Operation::Add => {
                stage.other = graph.nodes[node].inputs.get(1).copied();
                stage.after = activation(&mut stage, &mut fused);
            }
            Operation::Scale => stage.other = graph.nodes[node].inputs.get(1).copied(),
            Operation::Activation(first) => stage.before = *first,
            _ => {}
        }
        stages.push(stage);
    }
    // Bytes that are restored to be added to sums of bytes, and for nothing else, are read as they are.
    let mut restored = Vec::new();
    for stage in &mut stages {
        let of_bytes = graph.grid(graph.nodes[stage.node].inputs[0]).is_some();
        let Some(other) = stage.other.filter(|other| of_bytes && only_reader(other.0).is_some()) else { continue };
        let Some(node) = other.0.checked_sub(1) else { continue };
        if matches!(graph.nodes[node].operation, Operation::Restore) {
            stage.other = Some(graph.nodes[node].inputs[0]);
            restored.push(node);
        }
    }
    stages.retain(|stage| !restored.contains(&stage.node));
    stages.sort_by_key(|stage| stage.last);
    stages
}

/// Whether a node gives nothing but another reading of what it reads: a flattening of one pixel, or for those who read elements
/// in order anyway.
fn is_read_in_place(graph: &Graph<'_>, readers: &[Vec<usize>], node: usize) -> bool {
    let Operation::Flatten = graph.nodes[node].operation else { return false };
    let shape = graph.shapes[graph.nodes[node].inputs[0].0];
    let in_order = |reader: &usize| matches!(graph.nodes[*reader].operation, Operation::Linear(_));
    (shape.height, shape.width) == (1, 1) || readers[node + 1].iter().all(in_order)
}

/// For each value the one that it is another reading of; itself for most.
pub(crate) fn roots(graph: &Graph<'_>, stages: &[Stage]) -> Vec<Value> {
    let mut roots: Vec<Value> = (0..graph.shapes.len()).map(Value).collect();
    for (node, operation) in graph.nodes.iter().enumerate() {
        if matches!(operation.operation, Operation::Flatten) && stages.iter().all(|stage| stage.node != node) {
            roots[node + 1] = roots[operation.inputs[0].0];
        }
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Convolution;
    use crate::shape::{Shape, Window};

    const POINT: Window = Window::square(1, 1, 0);
    const INPUT: Value = Value(0);

    fn convolve(graph: &mut Graph<'static>, from: Value) -> Value {
        let layer = Convolution { outputs: 1, window: POINT, groups: 1, weight: &[2.0], bias: None };
        graph.convolution(from, layer).unwrap()
    }

    #[test]
    fn a_residual_block_is_two_stages() {
        let mut graph = Graph::new(Shape::new(1, 2, 2)).unwrap();
        let x = convolve(&mut graph, INPUT);
        let x = graph.activation(x, Activation::Relu).unwrap();
        let x = convolve(&mut graph, x);
        let sum = graph.add(graph.input(), x).unwrap();
        graph.activation(sum, Activation::Relu6).unwrap();
        let stages = stages(&graph);
        let [first, second] = &stages[..] else { panic!("{stages:?}") };
        assert_eq!((first.last, first.before, first.other), (1, Activation::Relu, None));
        assert_eq!((second.last, second.before, second.after), (4, Activation::Identity, Activation::Relu6));
        assert_eq!(second.other, Some(graph.input()));
    }

    #[test]
    fn what_others_read_is_not_fused_away() {
        let mut graph = Graph::new(Shape::new(1, 2, 2)).unwrap();
        let x = convolve(&mut graph, INPUT);
        let relu = graph.activation(x, Activation::Relu).unwrap();
        graph.add(x, relu).unwrap();
        let all = stages(&graph);
        assert_eq!(all.iter().map(|stage| stage.node).collect::<Vec<_>>(), [0, 1, 2]);
        let mut graph = Graph::new(Shape::new(1, 2, 2)).unwrap();
        let x = convolve(&mut graph, INPUT);
        let doubled = graph.add(x, x).unwrap();
        graph.set_outputs(&[x, doubled]).unwrap();
        assert_eq!(stages(&graph).len(), 2);
    }

    #[test]
    fn two_convolutions_that_are_added_are_run_when_both_can_be() {
        let mut graph = Graph::new(Shape::new(1, 2, 2)).unwrap();
        let (left, right) = (convolve(&mut graph, INPUT), convolve(&mut graph, INPUT));
        graph.add(left, right).unwrap();
        let stages = stages(&graph);
        // The first takes the sum in and waits for the second.
        assert_eq!(stages.iter().map(|stage| (stage.node, stage.last)).collect::<Vec<_>>(), [(1, 1), (0, 2)]);
        assert_eq!(stages[1].other, Some(right));
    }
}
