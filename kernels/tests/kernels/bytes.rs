//! Bytes against the reference: whole numbers have no last bits to differ in, so every set of instructions, number of threads and
//! batch gives what it gives.

use adit_kernels::{
    Activation, Convolution, Graph, Grid, Isa, KernelError, Observer, Plan, PlanOptions, Pool, Reduction, Shape,
    Window, reference,
};
use proptest::prelude::*;

use crate::convolutions::{activations, windows};
use crate::networks;
use crate::numbers::{cases, error, numbers, ran};

/// What is added to a convolution of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    None,
    Floats,
    Bytes,
}

/// A convolution of bytes with what stands around it.
#[derive(Debug, Clone)]
struct Case {
    input: Shape,
    outputs: usize,
    window: Window,
    bias: bool,
    before: Activation,
    other: Other,
    after: Activation,
    /// The lowest and the highest number of the input's grid, and of the result's where that is of bytes.
    from: [f32; 2],
    to: Option<[f32; 2]>,
    images: usize,
    threads: usize,
    seed: u64,
}

fn ranges() -> impl Strategy<Value = [f32; 2]> {
    prop_oneof![Just([0.0, 1.0]), Just([-1.0, 1.0]), Just([-0.3, 0.9]), Just([-1.0, 0.0])]
}

fn layers() -> impl Strategy<Value = Case> {
    let shape = (1..40usize, 1..70usize, 1..20usize, 1..20usize);
    let around = (any::<bool>(), activations(), 0..3usize, activations());
    let ends = (ranges(), prop::option::of(ranges()), 1..4usize, 1..4usize);
    (shape, windows(), around, ends, any::<u64>()).prop_filter_map(
        "the window fits",
        |((inputs, outputs, height, width), window, (bias, before, other, after), ends, seed)| {
            let input = Shape::new(inputs, height, width);
            window.output(input, false)?;
            let other = [Other::None, Other::Floats, Other::Bytes][other];
            let (from, to, images, threads) = ends;
            let case = Case { input, outputs, window, bias, before, other, after, from, to, images, threads, seed };
            Some(case)
        },
    )
}

fn grid([low, high]: [f32; 2]) -> Grid {
    Grid::of_range(low, high).unwrap()
}

impl Case {
    fn weights(&self) -> [Vec<f32>; 3] {
        let inputs = self.input.channels;
        let taps = self.window.kernel[0] * self.window.kernel[1];
        let scale = 2.0 / ((inputs * taps) as f32).sqrt();
        let weight = numbers(self.seed ^ 1, self.outputs * inputs * taps).into_iter().map(|weight| scale * weight);
        [
            weight.collect(),
            numbers(self.seed ^ 2, self.outputs),
            numbers(self.seed ^ 3, self.outputs * self.input.channels),
        ]
    }

    fn graph<'w>(&self, [weight, bias, beside]: &'w [Vec<f32>; 3]) -> Result<Graph<'w>, KernelError> {
        let mut graph = Graph::new(self.input)?;
        let Self { outputs, window, .. } = *self;
        let bytes = graph.quantise(graph.input(), grid(self.from))?;
        let bias = self.bias.then_some(&bias[..]);
        let x = graph.convolution(bytes, Convolution { outputs, window, groups: 1, weight, bias })?;
        let mut x = graph.activation(x, self.before)?;
        let layer = Convolution { outputs, window: Window::square(1, 1, 0), groups: 1, weight: beside, bias: None };
        let mut other = graph.convolution(bytes, layer)?;
        if self.other != Other::None && graph.shape(other) == graph.shape(x) {
            if self.other == Other::Bytes {
                let bytes = graph.quantise(other, grid([-2.0, 1.5]))?;
                other = graph.restore(bytes)?;
            }
            x = graph.add(x, other)?;
            x = graph.activation(x, self.after)?;
        }
        if let Some(range) = self.to {
            // A pool and a concatenation of bytes, and bytes that are restored.
            let x = graph.quantise(x, grid(range))?;
            let pool = Pool { reduction: Reduction::Max, window: Window::square(2, 1, 1), ceil: false };
            let pooled = graph.pool(x, pool)?;
            let again = graph.pool(x, pool)?;
            let joined = graph.concat(&[pooled, again, pooled])?;
            let [x, joined] = [graph.restore(x)?, graph.restore(joined)?];
            graph.set_outputs(&[x, joined])?;
        } else {
            graph.set_outputs(&[x])?;
        }
        Ok(graph)
    }

    fn check(&self) {
        let weights = self.weights();
        let graph = self.graph(&weights).unwrap();
        let input = numbers(self.seed, self.images * self.input.elements());
        let expected = reference::run(&graph, &input, self.images).unwrap();
        // Bounds are exact on every machine; exp is not.
        let bounds = |activation| matches!(activation, Activation::Identity | Activation::Relu | Activation::Relu6);
        let exact = bounds(self.before) && bounds(self.after);
        for isa in Isa::available() {
            let options = PlanOptions { batch: self.images, threads: self.threads, isa, ..PlanOptions::default() };
            let found = ran(&mut Plan::new(&graph, &options).unwrap(), &input).unwrap();
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.len(), expected.len());
                for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
                    // One step where two results are as near: where the reference is not exact.
                    let near = self.to.map_or(1e-5, |range| 1.01 * grid(range).step());
                    let same = if exact { found == expected } else { (found - expected).abs() <= near };
                    assert!(same, "{isa} at {place}: {found}, expected {expected}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(2))]

    #[test]
    fn convolutions_of_bytes_are_those_of_the_reference(case in layers()) {
        case.check();
    }

    #[test]
    fn with_bounds_to_the_last_bit(case in layers(), before in 0..3usize, after in 0..3usize) {
        let bounds = [Activation::Identity, Activation::Relu, Activation::Relu6];
        Case { before: bounds[before], after: bounds[after], ..case }.check();
    }
}

/// The layers that networks spend their time in, as large as they are there.
#[test]
fn layers_of_real_networks_agree() {
    for (input, outputs, window) in [
        (Shape::new(64, 56, 56), 64, Window::square(3, 1, 1)),
        (Shape::new(512, 7, 7), 512, Window::square(3, 1, 1)),
        (Shape::new(192, 28, 28), 96, Window::square(1, 1, 0)),
        (Shape::new(80, 28, 28), 100, Window::square(3, 2, 1)),
    ] {
        let case = Case {
            input,
            outputs,
            window,
            bias: true,
            before: Activation::Identity,
            other: Other::Bytes,
            after: Activation::Relu,
            from: [-0.5, 1.0],
            to: Some([0.0, 2.0]),
            images: 1,
            threads: 2,
            seed: 7,
        };
        case.check();
    }
}

#[test]
fn what_bytes_cannot_do_is_refused() {
    let mut graph = Graph::new(Shape::new(4, 6, 6)).unwrap();
    let (input, grid, other) = (graph.input(), grid([0.0, 1.0]), grid([0.0, 2.0]));
    let bytes = graph.quantise(input, grid).unwrap();
    assert_eq!((graph.grid(bytes), graph.grid(input)), (Some(grid), None));
    assert!(Plan::new(&graph, &PlanOptions::default()).is_err(), "bytes do not come out");
    assert!(graph.quantise(bytes, grid).is_err() && graph.restore(input).is_err());
    assert!(graph.activation(bytes, Activation::Relu).is_err() && graph.add(bytes, bytes).is_err());
    assert!(graph.global_average_pool(bytes).is_err() && graph.flatten(bytes).is_err());
    assert!(graph.set_outputs(&[bytes]).is_err() && graph.narrow(bytes, 0, 1).is_err());
    let window = Window::square(2, 1, 0);
    let average = Reduction::Average { count_padding: true };
    assert!(graph.pool(bytes, Pool { reduction: average, window, ceil: false }).is_err());
    let wider = graph.quantise(input, other).unwrap();
    assert!(graph.concat(&[bytes, wider]).is_err() && graph.concat(&[bytes, input]).is_err());
    let weight = [1.0; 4 * 2 * 4];
    let grouped = Convolution { outputs: 4, window, groups: 2, weight: &weight, bias: None };
    assert!(graph.convolution(input, grouped).is_ok() && graph.convolution(bytes, grouped).is_err());
    let damaged = [f32::INFINITY; 16];
    let damaged = Convolution { outputs: 1, window, groups: 1, weight: &damaged, bias: None };
    assert!(graph.convolution(input, damaged).is_ok() && graph.convolution(bytes, damaged).is_err());
}

/// What its values become, by a clock that stands still: what each step is, and how it is computed.
fn ways(graph: &Graph<'_>) -> Vec<String> {
    let mut plan = Plan::new(graph, &PlanOptions::default()).unwrap();
    let input = vec![0.5; graph.shape(graph.input()).unwrap().elements()];
    let steps = plan.profile(&input, &mut || std::time::Duration::ZERO).unwrap();
    steps.into_iter().map(|step| step.way).collect()
}

fn quantised<'w>(graph: &Graph<'w>, images: usize) -> Graph<'w> {
    let mut observer = Observer::new(graph, 1).unwrap();
    for seed in 0..images {
        let image = numbers(seed as u64, graph.shape(graph.input()).unwrap().elements());
        observer.observe(&image, &mut || false).unwrap();
    }
    graph.quantised(observer.ranges()).unwrap()
}

/// Whole networks to the last bit, with everything that is fused.
#[test]
fn networks_on_bytes_are_those_of_the_reference() {
    let weights = networks::weights();
    for (graph, restored) in [
        (networks::googlenet(&weights, 64).unwrap(), 1),
        (networks::resnet50(&weights, 64).unwrap(), 0),
        (networks::mobilenet_v2(&weights, 64).unwrap(), 0),
    ] {
        let bytes = quantised(&graph, 2);
        let ways = ways(&bytes);
        let count = |prefix: &str| ways.iter().filter(|way| way.starts_with(prefix)).count();
        // What is added is read as bytes, and results are written as such: nothing is carried but for what reads f32.
        assert!(count("bytes") >= 30 && count("elementwise") == 0 && count("restore") <= restored, "{ways:?}");
        let input = numbers(9, graph.shape(graph.input()).unwrap().elements());
        let first = reference::run(&bytes, &input, 1).unwrap().remove(0);
        let plain = reference::run(&graph, &input, 1).unwrap().remove(0);
        let size = plain.iter().fold(0f32, |most, element| most.max(element.abs()));
        let worst = error(&first, &plain, &vec![size; plain.len()], false);
        assert!((1e-4..0.3).contains(&worst), "bytes are near f32, and not f32: {worst}");
        // f32 layers have their own last bits, which may move a byte by a step: the sums of whole numbers do not, whatever runs them.
        let mut found = Vec::new();
        for threads in [1, 2] {
            let options = PlanOptions { threads, ..PlanOptions::default() };
            found.push(ran(&mut Plan::new(&bytes, &options).unwrap(), &input).unwrap().remove(0));
        }
        assert_eq!(found[0], found[1]);
        let worst = error(&found[0], &first, &vec![size; first.len()], false);
        assert!(worst < 0.05, "{worst}");
    }
}

#[test]
fn what_is_no_number_becomes_no_bytes() {
    let weight = [0.1; 16];
    let layer = Convolution { outputs: 4, window: Window::square(1, 1, 0), groups: 1, weight: &weight, bias: None };
    let mut graph = Graph::new(Shape::new(4, 3, 3)).unwrap();
    let mut x = graph.input();
    for _ in 0..5 {
        x = graph.convolution(x, layer).unwrap();
    }
    assert_eq!(ways(&quantised(&graph, 1)).iter().filter(|way| way.starts_with("bytes")).count(), 2);
    let mut observer = Observer::new(&graph, 1).unwrap();
    assert!(graph.quantised(observer.ranges()).is_ok_and(|graph| graph.grid(x).is_none()), "nothing was seen");
    observer.observe(&[f32::NAN; 36], &mut || false).unwrap();
    observer.observe(&[0.5; 36], &mut || false).unwrap();
    assert!(observer.ranges().iter().flatten().all(|bound| bound.is_nan()));
    assert_eq!(observer.observe(&[0.5; 36], &mut || true), Err(KernelError::Stopped));
    let ranges = quantised(&graph, 1);
    assert!(graph.quantised(&[[0.0, 1.0]]).is_err() && ranges.quantised(&[[0.0, 1.0]; 6]).is_err());
}
