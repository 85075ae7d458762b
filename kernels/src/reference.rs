//! The slow, obvious version of every node: the oracle of all tests, and nothing else. Sums are in f64, so that what a kernel
//! differs by is the kernel's.

use crate::error::KernelError;
use crate::graph::{Convolution, Graph, Linear, Node, Operation, Pool, Reduction};
use crate::grid::{ByteWeights, Grid};
use crate::shape::Shape;

/// What a graph gives for `images` images, `[images, C, H, W]` in `input`: its outputs in order, laid out alike.
pub fn run(graph: &Graph<'_>, input: &[f32], images: usize) -> Result<Vec<Vec<f32>>, KernelError> {
    let image = graph.shapes[0].elements();
    if images == 0 || Some(input.len()) != image.checked_mul(images) {
        return Err(KernelError::Input { image, batch: images, found: input.len() });
    }
    if graph.outputs.is_empty() {
        return Err(KernelError::NoOutputs);
    }
    let mut outputs = vec![Vec::new(); graph.outputs.len()];
    for image in input.chunks_exact(image) {
        let mut values = vec![image.to_vec()];
        for (place, (node, shape)) in graph.nodes.iter().zip(&graph.shapes[1..]).enumerate() {
            let (from, to) = (graph.grids[node.inputs[0].0], graph.grids[place + 1]);
            let value = match (&node.operation, from, to) {
                (Operation::Convolution(layer), Some(grid), _) => {
                    let input = node.inputs[0].0;
                    byte_convolution(layer, grid, &values[input], graph.shapes[input], *shape)
                }
                // Bytes are kept as the numbers that they stand for.
                (Operation::Quantise, _, Some(grid)) => {
                    values[node.inputs[0].0].iter().map(|x| grid.number(grid.byte(*x))).collect()
                }
                _ => compute(node, &graph.shapes, &values, *shape),
            };
            values.push(value);
        }
        for (output, value) in outputs.iter_mut().zip(&graph.outputs) {
            output.extend_from_slice(&values[value.0]);
        }
    }
    Ok(outputs)
}

fn compute(node: &Node<'_>, shapes: &[Shape], values: &[Vec<f32>], output: Shape) -> Vec<f32> {
    let first = node.inputs[0].0;
    let (input, shape) = (&values[first], shapes[first]);
    match &node.operation {
        Operation::Convolution(layer) => convolution(layer, input, shape, output),
        Operation::Linear(layer) => linear(layer, input),
        Operation::Activation(activation) => input.iter().map(|x| activation.of(*x)).collect(),
        Operation::Pool(layer) => pool(layer, input, shape, output),
        Operation::Upsample([rows, columns]) => {
            each(output, |channel, y, x| input[(channel * shape.height + y / rows) * shape.width + x / columns])
        }
        Operation::Mean => {
            let plane = shape.height * shape.width;
            let mean = |plane: &[f32]| (plane.iter().map(|x| f64::from(*x)).sum::<f64>() / plane.len() as f64) as f32;
            input.chunks_exact(plane).map(mean).collect()
        }
        Operation::Add => input.iter().zip(&values[node.inputs[1].0]).map(|(left, right)| left + right).collect(),
        Operation::Scale => {
            let factors = &values[node.inputs[1].0];
            each(output, |channel, y, x| factors[channel] * input[(channel * shape.height + y) * shape.width + x])
        }
        Operation::Narrow { first, .. } => {
            each(output, |channel, y, x| input[((first + channel) * shape.height + y) * shape.width + x])
        }
        Operation::Concat => node.inputs.iter().flat_map(|value| values[value.0].iter().copied()).collect(),
        Operation::Flatten | Operation::Quantise | Operation::Restore => input.clone(),
    }
}

/// A value from its elements, by channel, row and column.
fn each(shape: Shape, mut element: impl FnMut(usize, usize, usize) -> f32) -> Vec<f32> {
    let mut value = Vec::with_capacity(shape.elements());
    for channel in 0..shape.channels {
        for y in 0..shape.height {
            for x in 0..shape.width {
                value.push(element(channel, y, x));
            }
        }
    }
    value
}

fn convolution(layer: &Convolution<'_>, input: &[f32], shape: Shape, output: Shape) -> Vec<f32> {
    let Convolution { outputs, window, groups, weight, bias } = layer;
    let (inputs, [height, width]) = (shape.channels / groups, window.kernel);
    each(output, |channel, y, x| {
        let group = channel / (outputs / groups);
        let mut sum = bias.map_or(0.0, |bias| f64::from(bias[channel]));
        for input_channel in 0..inputs {
            for tap_y in 0..height {
                for tap_x in 0..width {
                    let row = (y * window.stride[0] + tap_y * window.dilation[0]).checked_sub(window.padding.top);
                    let column = (x * window.stride[1] + tap_x * window.dilation[1]).checked_sub(window.padding.left);
                    let (Some(row), Some(column)) = (row, column) else { continue };
                    if row < shape.height && column < shape.width {
                        let plane = group * inputs + input_channel;
                        let place = ((channel * inputs + input_channel) * height + tap_y) * width + tap_x;
                        let element = input[(plane * shape.height + row) * shape.width + column];
                        sum += f64::from(weight[place]) * f64::from(element);
                    }
                }
            }
        }
        sum as f32
    })
}

/// A sum of whole numbers, times what one of them stands for, and the bias: in f32, as all kernels do it, for they are held to
/// it bit by bit.
fn byte_convolution(layer: &Convolution<'_>, grid: Grid, input: &[f32], shape: Shape, output: Shape) -> Vec<f32> {
    let ByteWeights { bytes, steps } = ByteWeights::of(layer);
    let weight: Vec<f32> = bytes.into_iter().map(f32::from).collect();
    let whole = |x: &f32| f32::from(grid.byte(*x)) - f32::from(grid.zero());
    let whole: Vec<f32> = input.iter().map(whole).collect();
    // f64 holds the sums exactly; each is rounded once, as an i32 is when it becomes f32.
    let mut sums = convolution(&Convolution { weight: &weight, bias: None, ..*layer }, &whole, shape, output);
    let plane = output.height * output.width;
    for (channel, sums) in sums.chunks_exact_mut(plane).enumerate() {
        let (step, bias) = (steps[channel] * grid.step(), layer.bias.map_or(0.0, |bias| bias[channel]));
        sums.iter_mut().for_each(|sum| *sum = *sum * step + bias);
    }
    sums
}

fn linear(layer: &Linear<'_>, input: &[f32]) -> Vec<f32> {
    let row = |(place, weights): (usize, &[f32])| {
        let products = weights.iter().zip(input).map(|(weight, x)| f64::from(*weight) * f64::from(*x));
        (layer.bias.map_or(0.0, |bias| f64::from(bias[place])) + products.sum::<f64>()) as f32
    };
    layer.weight.chunks_exact(input.len()).enumerate().map(row).collect()
}

fn pool(layer: &Pool, input: &[f32], shape: Shape, output: Shape) -> Vec<f32> {
    let Pool { reduction, window, .. } = layer;
    let padding = window.padding;
    each(output, |channel, y, x| {
        let (top, left) = (y * window.stride[0], x * window.stride[1]);
        let (mut largest, mut sum, mut count, mut padded) = (f32::NEG_INFINITY, 0f64, 0, 0);
        for padded_row in top..top + window.kernel[0] {
            for padded_column in left..left + window.kernel[1] {
                if padded_row < shape.height + padding.top + padding.bottom
                    && padded_column < shape.width + padding.left + padding.right
                {
                    padded += 1;
                }
                let (row, column) = (padded_row.checked_sub(padding.top), padded_column.checked_sub(padding.left));
                let (Some(row), Some(column)) = (row, column) else { continue };
                if row < shape.height && column < shape.width {
                    let element = input[(channel * shape.height + row) * shape.width + column];
                    if element > largest || element.is_nan() {
                        largest = element;
                    }
                    sum += f64::from(element);
                    count += 1;
                }
            }
        }
        match reduction {
            // Once it is a NaN, nothing is larger.
            Reduction::Max => largest,
            Reduction::Average { count_padding } => {
                (sum / f64::from(if *count_padding { padded } else { count })) as f32
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{Padding, Window};

    #[test]
    fn a_convolution_by_hand() {
        let mut graph = Graph::new(Shape::new(1, 2, 2)).unwrap();
        let window = Window { padding: Padding { top: 1, left: 1, bottom: 0, right: 0 }, ..Window::square(2, 1, 0) };
        let layer = Convolution { outputs: 1, window, groups: 1, weight: &[1., 10., 100., 1000.], bias: Some(&[0.5]) };
        graph.convolution(graph.input(), layer).unwrap();
        assert_eq!(run(&graph, &[1., 2., 3., 4.], 1).unwrap(), [[1000.5, 2100.5, 3010.5, 4321.5]]);
    }

    #[test]
    fn an_average_counts_what_it_is_told_to() {
        let average = |count_padding| {
            let mut graph = Graph::new(Shape::new(1, 2, 2)).unwrap();
            let reduction = Reduction::Average { count_padding };
            graph.pool(graph.input(), Pool { reduction, window: Window::square(2, 2, 1), ceil: true }).unwrap();
            run(&graph, &[4., 8., 12., 16.], 1).unwrap().remove(0)
        };
        assert_eq!(average(true), [1., 2., 3., 4.]);
        assert_eq!(average(false), [4., 8., 12., 16.]);
    }

    #[test]
    fn a_nan_wins_a_max_pool() {
        let mut graph = Graph::new(Shape::new(1, 1, 3)).unwrap();
        let window = Window { kernel: [1, 3], ..Window::square(1, 1, 0) };
        graph.pool(graph.input(), Pool { reduction: Reduction::Max, window, ceil: false }).unwrap();
        assert!(run(&graph, &[f32::NAN, 1., 2.], 1).unwrap()[0][0].is_nan());
        assert!(run(&graph, &[1., f32::NAN, 2.], 1).unwrap()[0][0].is_nan());
        assert_eq!(run(&graph, &[1., 3., 2.], 1).unwrap()[0], [3.]);
        assert!(run(&graph, &[1.], 1).is_err() && run(&graph, &[], 0).is_err());
    }
}
