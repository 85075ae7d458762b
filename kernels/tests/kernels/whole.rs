//! Whole networks against the reference, with everything that a plan does to them.

use std::time::Duration;

use adit_kernels::{Choice, Graph, Isa, Plan, PlanOptions, reference};

use crate::networks;
use crate::numbers::{error, numbers, ran};

/// Of the largest result; networks are held to 1e-4.
const TOLERANCE: f32 = 1e-5;

/// As many ways as there are, one after another: a clock by which each convolution's quickest is another one.
fn fickle() -> impl FnMut() -> Duration {
    let (mut now, mut state) = (Duration::ZERO, 1u64);
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        now += Duration::from_nanos(state >> 40);
        now
    }
}

fn check(graph: &Graph<'_>) {
    let input = numbers(9, graph.shape(graph.input()).unwrap().elements());
    let expected = reference::run(graph, &input, 1).unwrap().remove(0);
    let size = expected.iter().fold(0f32, |most, element| most.max(element.abs()));
    assert!((1e-3..1e6).contains(&size), "results of {size} say nothing");
    let spread = expected.iter().fold(f32::INFINITY, |least, element| least.min(*element)) - size;
    assert!(spread < -0.1 * size, "all results are alike");
    for isa in Isa::available() {
        // A cache so small that everything that can be is computed together.
        for (threads, cache) in [(1, 2 << 20), (2, 200_000)] {
            let options = PlanOptions { threads, isa, cache, ..PlanOptions::default() };
            let mut plans = [Plan::new(graph, &options).unwrap(), Plan::tuned(graph, &options, &mut fickle()).unwrap()];
            for plan in &mut plans {
                let found = ran(plan, &input).unwrap().remove(0);
                let worst = error(&found, &expected, &vec![size; expected.len()], false);
                let winograd = plan.choices().iter().filter(|choice| matches!(choice, Choice::Winograd { .. })).count();
                assert!(worst < TOLERANCE, "{isa}, {threads} threads, {winograd} by Winograd's way: {worst}");
            }
        }
    }
}

#[test]
fn googlenet_agrees_with_the_reference() {
    check(&networks::googlenet(&networks::weights(), 96).unwrap());
}

#[test]
fn resnet50_agrees_with_the_reference() {
    check(&networks::resnet50(&networks::weights(), 64).unwrap());
}

#[test]
fn mobilenet_v2_agrees_with_the_reference() {
    check(&networks::mobilenet_v2(&networks::weights(), 128).unwrap());
}

#[test]
fn squeezenet_agrees_with_the_reference() {
    check(&networks::squeezenet(&networks::weights(), 96).unwrap());
}
