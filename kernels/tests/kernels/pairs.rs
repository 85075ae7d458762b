//! A convolution and a depthwise one or a pool that alone reads it: computed together and apart.

use adit_kernels::{Activation, Convolution, Graph, Isa, KernelError, Plan, PlanOptions, Pool, Shape, Window};
use proptest::prelude::*;

use crate::convolutions::{activations, lanes, windows};
use crate::numbers::{Flavour, agrees, cases, flavoured, numbers, planned, ran};
use crate::others::pools;

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

/// A convolution, an activation and a pool.
#[derive(Debug, Clone)]
struct Pooled {
    input: Shape,
    outputs: usize,
    window: Window,
    activation: Activation,
    pool: Pool,
}

impl Pooled {
    fn graph<'w>(&self, weight: &'w [f32]) -> Result<Graph<'w>, KernelError> {
        let mut graph = Graph::new(self.input)?;
        let layer = Convolution { outputs: self.outputs, window: self.window, groups: 1, weight, bias: None };
        let x = graph.convolution(graph.input(), layer)?;
        let x = graph.activation(x, self.activation)?;
        graph.pool(x, self.pool)?;
        Ok(graph)
    }

    /// A cache too small for what lies between, that leaves room for some rows of it.
    fn cache(&self, isa: Isa, part: usize) -> usize {
        let [height, width] = self.window.output(self.input, false).unwrap();
        let lanes = lanes(isa);
        (2 * self.outputs.div_ceil(lanes) * height * width * lanes * size_of::<f32>() - 1) / part
    }
}

fn pooled() -> impl Strategy<Value = Pooled> {
    let shape = (1..20usize, 1..130usize, 1..60usize, 1..30usize);
    (shape, windows(), activations(), pools()).prop_filter_map(
        "the windows fit",
        |((inputs, outputs, height, width), window, activation, pool)| {
            let input = Shape::new(inputs, height, width);
            let [rows, columns] = window.output(input, false)?;
            pool.window.output(Shape::new(outputs, rows, columns), pool.ceil)?;
            Some(Pooled { input, outputs, window, activation, pool })
        },
    )
}

proptest! {
    #![proptest_config(cases(4))]

    #[test]
    fn with_a_pool_they_give_what_they_give_apart(
        pooled in pooled(), seed: u64, images in 1..3usize, threads in 1..4usize, part in 1..5usize, nan: bool,
    ) {
        let taps = pooled.window.kernel[0] * pooled.window.kernel[1];
        let weight = numbers(seed, pooled.outputs * pooled.input.channels * taps);
        let graph = pooled.graph(&weight).unwrap();
        let flavour = if nan { Flavour::Nan } else { Flavour::Plain };
        let input = flavoured(seed, images * pooled.input.elements(), flavour);
        for isa in Isa::available() {
            let apart = PlanOptions { batch: images, isa, winograd: false, cache: usize::MAX, ..PlanOptions::default() };
            let together = PlanOptions { cache: pooled.cache(isa, part), threads, ..apart.clone() };
            agrees(&graph, &apart, &input, images);
            let bits = |found: Vec<Vec<f32>>| found[0].iter().map(|number| number.to_bits()).collect::<Vec<_>>();
            let expected = bits(planned(&graph, &apart, &input).unwrap());
            let mut plan = Plan::new(&graph, &together).unwrap();
            prop_assert_eq!(bits(ran(&mut plan, &input).unwrap()), &expected[..]);
            // Measuring runs them too, with other numbers of blocks at a time.
            let (mut now, mut looks) = (std::time::Duration::ZERO, seed);
            let mut clock = || {
                looks = looks.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                now += std::time::Duration::from_nanos(looks >> 40);
                now
            };
            let mut tuned = Plan::tuned(&graph, &together, &mut clock).unwrap();
            let ways: Vec<String> =
                tuned.profile(&input, &mut clock).unwrap().into_iter().map(|step| step.way).collect();
            prop_assert!(ways.len() == 1 && ways[0].ends_with(", pool"), "{:?}", ways);
            prop_assert_eq!(bits(ran(&mut tuned, &input).unwrap()), expected);
        }
    }
}
