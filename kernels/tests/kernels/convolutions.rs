//! Convolutions of all shapes.

use std::time::Duration;

use adit_kernels::{
    Activation, Choice, Convolution, Graph, Isa, KernelError, Padding, Plan, PlanOptions, Shape, Window, reference,
};
use proptest::prelude::*;

use crate::numbers::{Flavour, cases, error, flavoured, numbers, planned};

/// Sums in f32 instead of f64, one product after another; some hundreds of them, with errors of random signs.
const DIRECT: f32 = 3e-6;
/// F(4, 3), as `steps/winograd.rs` has it.
const WINOGRAD: f32 = 1e-5;

/// A convolution with what stands around it.
#[derive(Debug, Clone)]
struct Case {
    input: Shape,
    outputs: usize,
    groups: usize,
    window: Window,
    bias: bool,
    before: Activation,
    /// A value of the output's shape is added, and this activation follows.
    residual: Option<Activation>,
    images: usize,
    threads: usize,
    seed: u64,
    flavour: Flavour,
}

pub(crate) fn activations() -> impl Strategy<Value = Activation> {
    prop_oneof![
        Just(Activation::Identity),
        Just(Activation::Relu),
        Just(Activation::Relu6),
        Just(Activation::Leaky(0.1)),
        Just(Activation::Sigmoid),
        Just(Activation::Silu),
        Just(Activation::HardSigmoid),
        Just(Activation::HardSwish),
    ]
}

fn flavours() -> impl Strategy<Value = Flavour> {
    prop_oneof![3 => Just(Flavour::Plain), 1 => Just(Flavour::Denormal), 1 => Just(Flavour::Nan)]
}

pub(crate) fn windows() -> impl Strategy<Value = Window> {
    let pair = |most: usize| prop::array::uniform2(1..=most);
    let padding = (0..4usize, 0..4usize, 0..4usize, 0..4usize);
    let any =
        (pair(5), pair(3), pair(3), padding).prop_map(|(kernel, stride, dilation, (top, bottom, left, right))| {
            Window { kernel, stride, dilation, padding: Padding { top, bottom, left, right } }
        });
    // Those that networks have, half of the time.
    let common = prop_oneof![
        Just(Window::square(1, 1, 0)),
        Just(Window::square(3, 1, 1)),
        Just(Window::square(3, 2, 1)),
        Just(Window::square(5, 1, 2)),
        Just(Window::square(7, 2, 3)),
    ];
    prop_oneof![any, common]
}

fn layers() -> impl Strategy<Value = Case> {
    let groups = prop_oneof![2 => Just((0, 0)), 1 => Just((1, 1)), 1 => (1..6usize, 1..6usize)];
    let shape = (1..40usize, 1..40usize, 1..20usize, 1..20usize, groups);
    let around = (any::<bool>(), activations(), prop::option::of(activations()), 1..4usize, 1..4usize);
    (shape, windows(), around, any::<u64>(), flavours()).prop_filter_map(
        "the window fits",
        |((inputs, outputs, height, width, (per_group, outputs_per_group)), window, around, seed, flavour)| {
            // Over all channels; each alone; so many to so many.
            let groups = if per_group == 0 { 1 } else { inputs };
            let channels = if per_group == 0 { inputs } else { inputs * per_group };
            let outputs = if per_group == 0 { outputs } else { groups * outputs_per_group };
            let (bias, before, residual, images, threads) = around;
            let input = Shape::new(channels, height, width);
            window.output(input, false)?;
            Some(Case { input, outputs, groups, window, bias, before, residual, images, threads, seed, flavour })
        },
    )
}

impl Case {
    fn weights(&self) -> (Vec<f32>, Vec<f32>) {
        let count = self.outputs * self.input.channels / self.groups * self.window.kernel[0] * self.window.kernel[1];
        (numbers(self.seed ^ 1, count), numbers(self.seed ^ 2, self.outputs))
    }

    /// The layer alone; or its sum with a pointwise convolution of the same input where that has the same sides.
    fn graph<'w>(&self, weight: &'w [f32], bias: &'w [f32], residual: &'w [f32]) -> Result<Graph<'w>, KernelError> {
        let mut graph = Graph::new(self.input)?;
        let bias = self.bias.then_some(bias);
        let Self { outputs, groups, window, .. } = *self;
        let x = graph.convolution(graph.input(), Convolution { outputs, window, groups, weight, bias })?;
        let shape = graph.shape(x);
        let x = graph.activation(x, self.before)?;
        let window = Window::square(1, 1, 0);
        let layer = Convolution { outputs, window, groups: 1, weight: residual, bias: None };
        let other = graph.convolution(graph.input(), layer)?;
        match self.residual {
            Some(after) if graph.shape(other) == shape => {
                let sum = graph.add(x, other)?;
                let after = graph.activation(sum, after)?;
                graph.set_outputs(&[after])?;
            }
            _ => graph.set_outputs(&[x])?,
        }
        Ok(graph)
    }

    /// Sums of absolute values, and results: what errors are measured by. Activations make no error much larger.
    fn sizes(&self, weight: &[f32], bias: &[f32], residual: &[f32], input: &[f32], results: &[f32]) -> Vec<f32> {
        let absolute = |numbers: &[f32]| numbers.iter().map(|number| number.abs()).collect::<Vec<_>>();
        let (weight, bias, residual) = (absolute(weight), absolute(bias), absolute(residual));
        let plain = Self {
            before: Activation::Identity,
            residual: self.residual.map(|_| Activation::Identity),
            ..self.clone()
        };
        let graph = plain.graph(&weight, &bias, &residual).unwrap();
        let sums = reference::run(&graph, &absolute(input), self.images).unwrap().remove(0);
        sums.iter().zip(results).map(|(sum, result)| sum + result.abs()).collect()
    }

    fn check(&self, pinned: Option<Choice>, tolerance: f32) {
        let (weight, bias) = self.weights();
        let residual = numbers(self.seed ^ 3, self.outputs * self.input.channels);
        let graph = self.graph(&weight, &bias, &residual).unwrap();
        let input = flavoured(self.seed, self.images * self.input.elements(), self.flavour);
        let expected = reference::run(&graph, &input, self.images).unwrap().remove(0);
        let sizes = self.sizes(&weight, &bias, &residual, &input, &expected);
        // Zeros in a block's weights stand for other groups' channels, and Winograd's tiles share their inputs.
        let depthwise = [self.input.channels, self.outputs] == [self.groups; 2];
        let spreads = pinned.is_some() || (self.groups > 1 && !depthwise);
        for isa in Isa::available() {
            let options = PlanOptions { batch: self.images, threads: self.threads, isa, ..PlanOptions::default() };
            let mut chosen = Plan::new(&graph, &PlanOptions { winograd: false, ..options.clone() }).unwrap();
            let mut choices = chosen.choices().to_vec();
            if let Some(choice) = pinned {
                // The pointwise one beside it stays as it is; which of both comes first is up to the plan.
                let place = usize::from(
                    chosen.profile(&input, &mut || Duration::ZERO).unwrap()[0].name.starts_with("convolution 1x1"),
                );
                choices[place] = choice;
            }
            let options = PlanOptions { choices: Some(choices), ..options };
            let found = planned(&graph, &options, &input).unwrap().remove(0);
            let worst = error(&found, &expected, &sizes, spreads);
            assert!(worst < tolerance, "{isa}: {worst}");
        }
    }
}

proptest! {
    #![proptest_config(cases(3))]

    #[test]
    fn convolutions_agree_with_the_reference(case in layers()) {
        case.check(None, DIRECT);
    }

    #[test]
    fn winograd_agrees_with_the_reference(
        case in layers(),
        channels in 5..40usize,
        padding in prop::array::uniform4(0..3usize),
        tile in prop_oneof![Just(2usize), Just(4)],
    ) {
        let [top, bottom, left, right] = padding;
        let window = Window { padding: Padding { top, bottom, left, right }, ..Window::square(3, 1, 0) };
        let input = Shape { channels, height: case.input.height + 2, width: case.input.width + 2 };
        let case = Case { input, groups: 1, window, ..case };
        case.check(Some(Choice::Winograd { tile }), WINOGRAD);
    }

    /// However many blocks, threads, and images beside it: each result is the same to the last bit.
    #[test]
    fn blocks_threads_and_company_change_no_bit(case in layers(), threads in 2..5usize) {
        let case = Case { images: 3, ..case };
        let (weight, bias) = case.weights();
        let residual = numbers(case.seed ^ 3, case.outputs * case.input.channels);
        let graph = case.graph(&weight, &bias, &residual).unwrap();
        let input = flavoured(case.seed, 3 * case.input.elements(), case.flavour);
        for isa in Isa::available() {
            for winograd in [false, true] {
                let alone = PlanOptions { isa, winograd, ..PlanOptions::default() };
                let image = case.input.elements();
                let expected: Vec<u32> = input
                    .chunks_exact(image)
                    .flat_map(|image| planned(&graph, &alone, image).unwrap().remove(0))
                    .map(f32::to_bits)
                    .collect();
                let more = |choice: &Choice, blocks: usize| match choice {
                    Choice::Direct { .. } if blocks * lanes(isa) < case.outputs + lanes(isa) => Choice::Direct { blocks },
                    other => *other,
                };
                let chosen = Plan::new(&graph, &alone).unwrap();
                for blocks in 1..=3 {
                    let choices = Some(chosen.choices().iter().map(|choice| more(choice, blocks)).collect());
                    let options = PlanOptions { batch: 3, threads, choices, ..alone.clone() };
                    let found = planned(&graph, &options, &input).unwrap().remove(0);
                    let found: Vec<u32> = found.into_iter().map(f32::to_bits).collect();
                    prop_assert!(same(&found, &expected), "{} {}", isa, blocks);
                }
            }
        }
    }
}

/// Equal bits; a NaN has many.
fn same(found: &[u32], expected: &[u32]) -> bool {
    let is_nan = |bits: u32| f32::from_bits(bits).is_nan();
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(one, other)| one == other || (is_nan(*one) && is_nan(*other)))
}

pub(crate) fn lanes(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 16,
        Isa::Avx2 => 8,
        _ => 4,
    }
}

/// The layers that networks spend their time in, as large as they are there.
#[test]
fn layers_of_real_networks_agree() {
    let layers = [
        (Shape::new(64, 56, 56), 64, Window::square(3, 1, 1)),
        (Shape::new(3, 224, 224), 64, Window::square(7, 2, 3)),
        (Shape::new(256, 14, 14), 256, Window::square(3, 1, 1)),
        (Shape::new(512, 7, 7), 512, Window::square(3, 1, 1)),
        (Shape::new(192, 28, 28), 96, Window::square(1, 1, 0)),
        (Shape::new(24, 56, 56), 144, Window::square(1, 1, 0)),
    ];
    for (input, outputs, window) in layers {
        let case = Case {
            input,
            outputs,
            groups: 1,
            window,
            bias: true,
            before: Activation::Relu,
            residual: None,
            images: 1,
            threads: 2,
            seed: 7,
            flavour: Flavour::Plain,
        };
        case.check(None, DIRECT);
        if window == Window::square(3, 1, 1) {
            case.check(Some(Choice::Winograd { tile: 2 }), WINOGRAD);
            case.check(Some(Choice::Winograd { tile: 4 }), WINOGRAD);
        }
    }
}
