//! Every other kind of layer.

use adit_kernels::{
    Activation, Convolution, Graph, Isa, Linear, Padding, PlanOptions, Pool, Reduction, Shape, Value, Window,
};
use proptest::prelude::*;

use crate::numbers::{Flavour, agrees, cases, flavoured, numbers};

/// Checks a graph with every set of instructions, with one thread and with two.
#[track_caller]
fn check(graph: &Graph<'_>, seed: u64, images: usize, flavour: Flavour) {
    let shape = graph.shape(graph.input()).unwrap();
    let input = flavoured(seed, images * shape.elements(), flavour);
    for isa in Isa::available() {
        for threads in [1, 2] {
            // By Winograd's way a NaN spreads to all of its tile.
            let winograd = flavour != Flavour::Nan;
            let options = PlanOptions { batch: images + 1, threads, isa, winograd, ..PlanOptions::default() };
            agrees(graph, &options, &input, images);
        }
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    (1..40usize, 1..20usize, 1..20usize).prop_map(|(channels, height, width)| Shape::new(channels, height, width))
}

pub(crate) fn pools() -> impl Strategy<Value = Pool> {
    let reduction = prop_oneof![
        2 => Just(Reduction::Max),
        1 => any::<bool>().prop_map(|count_padding| Reduction::Average { count_padding }),
    ];
    let paddings = prop::array::uniform4(0..3usize);
    (reduction, prop::array::uniform2(1..6usize), prop::array::uniform2(1..4usize), paddings, any::<bool>()).prop_map(
        |(reduction, kernel, stride, [top, bottom, left, right], ceil)| {
            let [rows, columns] = kernel.map(|side| side - 1);
            let padding = Padding {
                top: top.min(rows),
                bottom: bottom.min(rows),
                left: left.min(columns),
                right: right.min(columns),
            };
            Pool { reduction, window: Window { kernel, stride, dilation: [1, 1], padding }, ceil }
        },
    )
}

proptest! {
    #![proptest_config(cases(4))]

    #[test]
    fn pools_agree(shape in shapes(), pool in pools(), seed: u64, images in 1..3usize, nan: bool) {
        let mut graph = Graph::new(shape).unwrap();
        if graph.pool(graph.input(), pool).is_ok() {
            check(&graph, seed, images, if nan { Flavour::Nan } else { Flavour::Plain });
        }
    }

    #[test]
    fn means_and_linear_layers_agree(shape in shapes(), outputs in 1..70usize, seed: u64, images in 1..3usize, bias: bool) {
        let mut graph = Graph::new(shape).unwrap();
        // Small, so that sums of all elements stay about as large as the other ones.
        let all: Vec<f32> = numbers(seed, outputs * shape.elements()).iter().map(|number| number * 0.1).collect();
        let of_means = numbers(seed ^ 1, outputs * shape.channels);
        let biases = numbers(seed ^ 2, outputs);
        let bias = bias.then_some(&biases[..]);
        let mean = graph.global_average_pool(graph.input()).unwrap();
        let one = graph.linear(mean, Linear { outputs, weight: &of_means, bias }).unwrap();
        let flat = graph.flatten(graph.input()).unwrap();
        let other = graph.linear(flat, Linear { outputs, weight: &all, bias }).unwrap();
        let other = graph.activation(other, Activation::HardSwish).unwrap();
        let sum = graph.add(one, other).unwrap();
        let sum = graph.activation(sum, Activation::Sigmoid).unwrap();
        graph.set_outputs(&[sum, one, flat, mean]).unwrap();
        check(&graph, seed, images, Flavour::Plain);
    }

    /// Parts that fill no blocks, parts of parts, the input, a part twice, and all kinds of readers of what was joined.
    #[test]
    fn concatenations_agree(shape in shapes(), outputs in prop::array::uniform3(1..40usize), seed: u64, nan: bool) {
        let joined = 2 * outputs[0] + outputs[1] + outputs[2] + shape.channels;
        let weights = outputs.map(|outputs| numbers(seed ^ outputs as u64, outputs * shape.channels));
        let three = numbers(seed ^ 77, 5 * joined * 9);
        let point = numbers(seed ^ 78, joined * joined);
        let each = numbers(seed ^ 79, joined * 9);
        let linear = numbers(seed ^ 80, 3 * joined * shape.height * shape.width);
        let mut graph = Graph::new(shape).unwrap();
        let [a, b, c]: [Value; 3] = std::array::from_fn(|place| {
            let x = graph.convolution(graph.input(), point_of(outputs[place], &weights[place])).unwrap();
            if place == 1 { graph.activation(x, Activation::Silu).unwrap() } else { x }
        });
        let inner = graph.concat(&[a, b]).unwrap();
        let whole = graph.concat(&[inner, graph.input(), a, c]).unwrap();
        let layer = |outputs, padding, weight, groups| {
            let side = if padding == 0 { 1 } else { 3 };
            Convolution { outputs, window: Window::square(side, 1, padding), groups, weight, bias: None }
        };
        let dense = graph.convolution(whole, layer(5, 1, &three, 1)).unwrap();
        let apart = graph.convolution(whole, layer(joined, 1, &each, joined)).unwrap();
        let mixed = graph.convolution(whole, layer(joined, 0, &point, 1)).unwrap();
        let sum = graph.add(mixed, apart).unwrap();
        let other_sum = graph.add(whole, sum).unwrap();
        let pool = Pool { reduction: Reduction::Max, window: Window::square(2, 1, 1), ceil: false };
        let pooled = graph.pool(whole, pool).unwrap();
        let rectified = graph.activation(whole, Activation::Relu).unwrap();
        let enlarged = graph.upsample(whole, [2, 3]).unwrap();
        let mean = graph.global_average_pool(whole).unwrap();
        let numbers = graph.linear(whole, Linear { outputs: 3, weight: &linear, bias: None }).unwrap();
        let flat = graph.flatten(whole).unwrap();
        let flat = graph.activation(flat, Activation::Leaky(0.5)).unwrap();
        graph.set_outputs(&[dense, sum, other_sum, pooled, rectified, enlarged, mean, numbers, flat, inner, b]).unwrap();
        check(&graph, seed, 2, if nan { Flavour::Nan } else { Flavour::Plain });
    }

    /// Gates as convolutions make them, and for what was joined; the input itself.
    #[test]
    fn scaled_channels_agree(shape in shapes(), outputs in 1..40usize, seed: u64, images in 1..3usize, nan: bool) {
        let joined = outputs + shape.channels;
        let weights = numbers(seed ^ 1, outputs * shape.channels);
        let (gate, wide) = (numbers(seed ^ 2, shape.channels * shape.channels), numbers(seed ^ 3, joined * joined));
        let point = numbers(seed ^ 4, 3 * joined * 9);
        let mut graph = Graph::new(shape).unwrap();
        let input = graph.input();
        let mean = graph.global_average_pool(input).unwrap();
        let mean = graph.convolution(mean, point_of(shape.channels, &gate)).unwrap();
        let mean = graph.activation(mean, Activation::HardSigmoid).unwrap();
        let scaled = graph.scale(input, mean).unwrap();
        let x = graph.convolution(scaled, point_of(outputs, &weights)).unwrap();
        let whole = graph.concat(&[x, scaled]).unwrap();
        let mean = graph.global_average_pool(whole).unwrap();
        let mean = graph.convolution(mean, point_of(joined, &wide)).unwrap();
        let gated = graph.scale(whole, mean).unwrap();
        let window = Window::square(3, 1, 1);
        let last = Convolution { outputs: 3, window, groups: 1, weight: &point, bias: None };
        let last = graph.convolution(gated, last).unwrap();
        graph.set_outputs(&[scaled, gated, last]).unwrap();
        check(&graph, seed, images, if nan { Flavour::Nan } else { Flavour::Plain });
    }

    /// Parts that are whole blocks and parts that are not, of what was joined, of the input, of parts, and joined themselves.
    #[test]
    fn parts_of_channels_agree(
        shape in shapes(), outputs in prop::array::uniform2(1..40usize), cut in prop::array::uniform2(0f32..1.0), aligned: bool,
        seed: u64, nan: bool,
    ) {
        // Sixteen channels are whole blocks for all instructions.
        let outputs = if aligned { outputs.map(|outputs| outputs.next_multiple_of(16)) } else { outputs };
        let weights = outputs.map(|outputs| numbers(seed ^ outputs as u64, outputs * shape.channels));
        let mut graph = Graph::new(shape).unwrap();
        let input = graph.input();
        let [a, b]: [Value; 2] = std::array::from_fn(|place| {
            graph.convolution(input, point_of(outputs[place], &weights[place])).unwrap()
        });
        let whole = graph.concat(&[a, b, input]).unwrap();
        let inside = |channels: usize, cut: f32| ((channels - 1) as f32 * cut) as usize;
        let second = graph.narrow(whole, outputs[0], outputs[1]).unwrap();
        let unaligned = inside(outputs[1], cut[0]);
        let of_part = graph.narrow(second, unaligned, outputs[1] - unaligned).unwrap();
        let of_input = inside(shape.channels, cut[1]);
        let of_input = graph.narrow(input, 0, of_input + 1).unwrap();
        let three = numbers(seed ^ 77, 5 * outputs[1] * 9);
        let layer = Convolution { outputs: 5, window: Window::square(3, 1, 1), groups: 1, weight: &three, bias: None };
        let read = graph.convolution(second, layer).unwrap();
        let rectified = graph.activation(of_part, Activation::Silu).unwrap();
        let sum = graph.add(second, b).unwrap();
        let again = graph.concat(&[of_part, second, of_input]).unwrap();
        graph.set_outputs(&[read, rectified, sum, again, second, of_input, whole]).unwrap();
        check(&graph, seed, 2, if nan { Flavour::Nan } else { Flavour::Plain });
    }

    #[test]
    fn what_cannot_be_fused_agrees(shape in shapes(), seed: u64, slope in -1f32..1.0) {
        let each = numbers(seed ^ 3, shape.channels);
        let mut graph = Graph::new(shape).unwrap();
        let input = graph.input();
        let doubled = graph.add(input, input).unwrap();
        let leaky = graph.activation(doubled, Activation::Leaky(slope)).unwrap();
        let norm = Convolution {
            outputs: shape.channels,
            window: Window::square(1, 1, 0),
            groups: shape.channels,
            weight: &each,
            bias: Some(&each),
        };
        let norm = graph.convolution(leaky, norm).unwrap();
        let twice = graph.activation(norm, Activation::HardSigmoid).unwrap();
        let twice = graph.activation(twice, Activation::Sigmoid).unwrap();
        let sum = graph.add(norm, twice).unwrap();
        graph.set_outputs(&[input, sum, leaky, input]).unwrap();
        check(&graph, seed, 2, Flavour::Denormal);
    }
}

fn point_of(outputs: usize, weight: &[f32]) -> Convolution<'_> {
    Convolution { outputs, window: Window::square(1, 1, 0), groups: 1, weight, bias: None }
}
