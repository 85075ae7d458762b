//! A convolution and a depthwise one that alone reads it: computed together and apart.

use adit_kernels::{Activation, Convolution, Graph, Isa, KernelError, Plan, PlanOptions, Shape, Window};
use proptest::prelude::*;

use crate::convolutions::{activations, lanes, windows};
use crate::numbers::{Flavour, agrees, cases, flavoured, numbers, planned, ran};

/// Both, each with its activation; the second may have the sum with the network's input taken in.
#[derive(Debug, Clone)]
struct Pair {
    input: Shape,
    outputs: usize,
    windows: [Window; 2],
    activations: [Activation; 2],
    residual: bool,
}

impl Pair {
    fn graph<'w>(&self, weights: &'w [Vec<f32>; 3]) -> Result<Graph<'w>, KernelError> {
        let mut graph = Graph::new(self.input)?;
        let [first, second] = self.windows;
        let outputs = self.outputs;
        let dense = Convolution { outputs, window: first, groups: 1, weight: &weights[0], bias: None };
        let x = graph.convolution(graph.input(), dense)?;
        let x = graph.activation(x, self.activations[0])?;
        let each = Convolution { outputs, window: second, groups: outputs, weight: &weights[1], bias: None };
        let mut x = graph.convolution(x, each)?;
        let window = Window::square(1, 1, 0);
        let around = Convolution { outputs, window, groups: 1, weight: &weights[2], bias: None };
        let around = graph.convolution(graph.input(), around)?;
        if self.residual && graph.shape(around) == graph.shape(x) {
            x = graph.add(around, x)?;
        }
        let x = graph.activation(x, self.activations[1])?;
        graph.set_outputs(&[x])?;
        Ok(graph)
    }

    fn weights(&self, seed: u64) -> [Vec<f32>; 3] {
        let [first, second] = self.windows.map(|window| window.kernel[0] * window.kernel[1]);
        let dense = self.outputs * self.input.channels;
        [numbers(seed, dense * first), numbers(seed ^ 1, self.outputs * second), numbers(seed ^ 2, dense)]
    }

    /// A cache that holds half a plane of what lies between, so that they are computed together.
    fn cache(&self, isa: Isa) -> usize {
        let [height, width] = self.windows[0].output(self.input, false).unwrap();
        2 * height * width * lanes(isa) * size_of::<f32>()
    }
}

fn pairs() -> impl Strategy<Value = Pair> {
    let shape = (1..20usize, 65..130usize, 1..16usize, 1..16usize);
    let windows = [windows(), windows()];
    (shape, windows, [activations(), activations()], any::<bool>()).prop_filter_map(
        "the windows fit",
        |((inputs, outputs, height, width), windows, activations, residual)| {
            let input = Shape::new(inputs, height, width);
            let [rows, columns] = windows[0].output(input, false)?;
            windows[1].output(Shape::new(outputs, rows, columns), false)?;
            Some(Pair { input, outputs, windows, activations, residual })
        },
    )
}

proptest! {
    #![proptest_config(cases(4))]

    #[test]
    fn together_they_give_what_they_give_apart(pair in pairs(), seed: u64, images in 1..3usize, threads in 1..3usize) {
        let weights = pair.weights(seed);
        let graph = pair.graph(&weights).unwrap();
        let input = flavoured(seed, images * pair.input.elements(), Flavour::Plain);
        for isa in Isa::available() {
            let apart = PlanOptions { batch: images, isa, winograd: false, cache: usize::MAX, ..PlanOptions::default() };
            let together = PlanOptions { cache: pair.cache(isa), threads, ..apart.clone() };
            agrees(&graph, &apart, &input, images);
            let mut plan = Plan::new(&graph, &together).unwrap();
            prop_assert_eq!(ran(&mut plan, &input).unwrap(), planned(&graph, &apart, &input).unwrap());
            // Measuring runs them too, and leaves nothing behind.
            let mut now = std::time::Duration::ZERO;
            let mut clock = || { now += std::time::Duration::from_millis(1); now };
            let mut tuned = Plan::tuned(&graph, &together, &mut clock).unwrap();
            let ways: Vec<String> =
                tuned.profile(&input, &mut clock).unwrap().into_iter().map(|step| step.way).collect();
            prop_assert!(ways.iter().any(|way| way.ends_with(", depthwise")), "{:?}", ways);
            prop_assert_eq!(ran(&mut tuned, &input).unwrap(), ran(&mut plan, &input).unwrap());
        }
    }
}
