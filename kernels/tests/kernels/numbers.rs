//! Numbers to test with, and how far results may be apart.

use adit_kernels::{Graph, KernelError, Plan, PlanOptions, reference};
use proptest::test_runner::Config;

/// So many cases as `PROPTEST_CASES` says, in parts: each is run with all instructions.
pub(crate) fn cases(part: u32) -> Config {
    let config = Config::default();
    Config { cases: (config.cases / part).max(1), failure_persistence: None, ..config }
}

/// What the elements of inputs are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// Between -1 and 1.
    Plain,
    /// A third of them so small that they are denormal.
    Denormal,
    /// A hundredth of them no numbers.
    Nan,
}

/// Numbers between -1 and 1 that follow from a seed.
pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // Xorshift, by Marsaglia.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// As [`numbers`], of a flavour.
pub(crate) fn flavoured(seed: u64, count: usize, flavour: Flavour) -> Vec<f32> {
    let choices = numbers(seed ^ 0x5555, count);
    let change = |(number, choice): (f32, f32)| match flavour {
        Flavour::Denormal if choice < -0.33 => number * 1e-39,
        Flavour::Nan if choice < -0.98 => f32::NAN,
        _ => number,
    };
    numbers(seed, count).into_iter().zip(choices).map(change).collect()
}

/// What a plan gives: rule, choices and instructions as the options say.
pub(crate) fn planned(graph: &Graph<'_>, options: &PlanOptions, input: &[f32]) -> Result<Vec<Vec<f32>>, KernelError> {
    let mut plan = Plan::new(graph, options)?;
    ran(&mut plan, input)
}

/// What a plan gives; it is run twice, first on nothing but NaN: if anything of what that pass leaves behind counted, it would be
/// seen.
pub(crate) fn ran(plan: &mut Plan, input: &[f32]) -> Result<Vec<Vec<f32>>, KernelError> {
    let images = input.len() / plan.input().elements();
    let mut outputs: Vec<Vec<f32>> = plan.outputs().map(|shape| vec![-1e30; images * shape.elements()]).collect();
    let other = vec![f32::NAN; input.len()];
    for input in [&other, input] {
        let mut room: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
        plan.run(input, &mut room)?;
    }
    Ok(outputs)
}

/// The largest difference, in parts of what each result is the sum of: `sizes` are the results for the absolute values of all
/// weights and inputs. Fails where one side is a NaN and the other is not; with `spreads` there may be more of them in `found`.
#[track_caller]
pub(crate) fn error(found: &[f32], expected: &[f32], sizes: &[f32], spreads: bool) -> f32 {
    assert_eq!((found.len(), sizes.len()), (expected.len(), expected.len()));
    let mut worst = 0f32;
    for (place, ((found, expected), size)) in found.iter().zip(expected).zip(sizes).enumerate() {
        if expected.is_nan() || found.is_nan() {
            assert!(found.is_nan() && (spreads || expected.is_nan()), "at {place}: {found}, expected {expected}");
            continue;
        }
        // What is lost below the smallest normal number is no error.
        let difference = ((found - expected).abs() - 1e-36).max(0.0);
        worst = worst.max(if difference == 0.0 { 0.0 } else { difference / size });
    }
    worst
}

/// Several layers one after another, perhaps by Winograd's F(4, 3), in parts of the largest element: a single layer is within 1e-5 of the
/// sum of its products' sizes, of which the largest element of a random one may be a third.
const LAYERS: f32 = 3e-5;

/// All outputs against the reference, in parts of the largest element of each.
#[track_caller]
pub(crate) fn agrees(graph: &Graph<'_>, options: &PlanOptions, input: &[f32], images: usize) {
    let expected = reference::run(graph, input, images).unwrap();
    let found = planned(graph, options, input).unwrap();
    for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let size = expected.iter().fold(1e-3f32, |most, element| most.max(element.abs()));
        let worst = error(found, expected, &vec![size; expected.len()], false);
        assert!(worst < LAYERS, "output {place} with {options:?}: {worst}");
    }
}
