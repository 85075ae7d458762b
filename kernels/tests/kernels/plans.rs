//! Plans as such: what they refuse, choose, share, and leave alone.

use std::time::Duration;

use adit_kernels::{
    Activation, Choice, Convolution, Graph, Isa, KernelError, Plan, PlanOptions, Shape, StepTime, Window, reference,
};

use crate::numbers::{numbers, planned, ran};

const INPUT: Shape = Shape::new(8, 30, 30);

/// Two convolutions of 3 x 3 with a ReLU between them, and a depthwise one.
struct Weights([Vec<f32>; 3]);

impl Weights {
    fn new() -> Self {
        Self([numbers(1, 32 * 8 * 9), numbers(2, 32 * 32 * 9), numbers(3, 32 * 9)])
    }

    fn graph(&self) -> Graph<'_> {
        let mut graph = Graph::new(INPUT).unwrap();
        let window = Window::square(3, 1, 1);
        let layer = |weight, groups| Convolution { outputs: 32, window, groups, weight, bias: None };
        let x = graph.convolution(graph.input(), layer(&self.0[0], 1)).unwrap();
        let x = graph.activation(x, Activation::Relu).unwrap();
        let x = graph.convolution(x, layer(&self.0[1], 1)).unwrap();
        graph.convolution(x, layer(&self.0[2], 32)).unwrap();
        graph
    }
}

/// A clock by which each look takes as long as the choice of the caller's has it.
fn ticking(mut step: impl FnMut() -> u64) -> impl FnMut() -> Duration {
    let mut now = Duration::ZERO;
    move || {
        now += Duration::from_millis(step());
        now
    }
}

#[test]
fn what_is_quickest_by_the_clock_is_chosen_and_can_be_pinned() {
    let weights = Weights::new();
    let graph = weights.graph();
    let options = PlanOptions { isa: Isa::Portable, ..PlanOptions::default() };
    // Ten looks a way: of the ways direct:1, 2, 3, winograd:2, 4 the fourth takes no time.
    let mut looks = 0;
    let mut clock = ticking(|| {
        looks += 1;
        u64::from((looks - 1) % 50 / 10 != 3)
    });
    let mut plan = Plan::tuned(&graph, &options, &mut clock).unwrap();
    assert_eq!(plan.choices(), [Choice::Winograd { tile: 2 }; 2]);
    let input = numbers(4, INPUT.elements());
    let found = ran(&mut plan, &input).unwrap();
    let pinned = PlanOptions { choices: Some(plan.choices().to_vec()), ..options.clone() };
    assert_eq!(planned(&graph, &pinned, &input).unwrap(), found);
    let direct = vec![Choice::Direct { blocks: 1 }; 2];
    let direct = PlanOptions { choices: Some(direct), ..options };
    assert_ne!(planned(&graph, &direct, &input).unwrap(), found, "the last bits differ");
}

#[test]
fn the_rule_weighs_tiles_against_weights() {
    let weight = numbers(1, 64 * 64 * 9);
    let options = PlanOptions { isa: Isa::Portable, ..PlanOptions::default() };
    let [direct, small, large] =
        [Choice::Direct { blocks: 2 }, Choice::Winograd { tile: 2 }, Choice::Winograd { tile: 4 }];
    for (side, expected) in [(3, direct), (8, small), (30, large)] {
        let mut graph = Graph::new(Shape::new(64, side, side)).unwrap();
        let window = Window::square(3, 1, 1);
        let layer = Convolution { outputs: 64, window, groups: 1, weight: &weight, bias: None };
        graph.convolution(graph.input(), layer).unwrap();
        assert_eq!(Plan::new(&graph, &options).unwrap().choices(), [expected], "a side of {side}");
    }
}

#[test]
fn wrong_choices_are_refused() {
    let weights = Weights::new();
    let graph = weights.graph();
    let with = |choices: &[Choice]| {
        let options = PlanOptions { isa: Isa::Portable, choices: Some(choices.to_vec()), ..PlanOptions::default() };
        Plan::new(&graph, &options).unwrap_err()
    };
    let direct = Choice::Direct { blocks: 1 };
    assert!(matches!(with(&[direct]), KernelError::Choices { found: 1, .. }));
    assert_eq!(with(&[direct; 3]), KernelError::Choices { expected: 2, found: 3 });
    let seven = Choice::Direct { blocks: 7 };
    assert_eq!(with(&[direct, seven]), KernelError::Choice { place: 1, choice: "direct:7".to_owned() });
    assert!(matches!(with(&[Choice::Winograd { tile: 3 }, direct]), KernelError::Choice { place: 0, .. }));
}

#[test]
fn wrong_sizes_are_refused_and_smaller_batches_are_not() {
    let weights = Weights::new();
    let graph = weights.graph();
    let mut plan = Plan::new(&graph, &PlanOptions { batch: 2, ..PlanOptions::default() }).unwrap();
    let output = 32 * 30 * 30;
    let mut run = |input: usize, outputs: &[usize]| {
        let mut outputs: Vec<Vec<f32>> = outputs.iter().map(|length| vec![0.0; *length]).collect();
        let mut outputs: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
        plan.run(&vec![0.5; input], &mut outputs)
    };
    let image = INPUT.elements();
    for wrong in [0, image - 1, image + 1, 3 * image] {
        assert_eq!(run(wrong, &[output]), Err(KernelError::Input { image, batch: 2, found: wrong }));
    }
    assert_eq!(run(image, &[]), Err(KernelError::Outputs { expected: 1, found: 0 }));
    let expected = KernelError::Output { place: 0, expected: 2 * output, found: output };
    assert_eq!(run(2 * image, &[output]), Err(expected));
    assert_eq!((run(image, &[output]), run(2 * image, &[2 * output])), (Ok(()), Ok(())));
    for options in [
        PlanOptions { batch: 0, ..PlanOptions::default() },
        PlanOptions { threads: 0, ..PlanOptions::default() },
        PlanOptions { batch: usize::MAX, ..PlanOptions::default() },
        PlanOptions { threads: usize::MAX, ..PlanOptions::default() },
    ] {
        assert!(matches!(Plan::new(&graph, &options), Err(KernelError::Option { .. })));
    }
}

#[test]
fn instructions_that_are_not_there_are_refused() {
    let weights = Weights::new();
    let absent = [Isa::Portable, Isa::Neon, Isa::Avx2, Isa::Avx512].into_iter().find(|isa| !isa.is_available());
    if let Some(isa) = absent {
        let found = Plan::new(&weights.graph(), &PlanOptions { isa, ..PlanOptions::default() });
        assert_eq!(found.unwrap_err(), KernelError::Isa(isa));
    }
}

#[test]
fn an_empty_graph_has_nothing_to_run() {
    let graph = Graph::new(INPUT).unwrap();
    assert_eq!(Plan::new(&graph, &PlanOptions::default()).unwrap_err(), KernelError::NoOutputs);
    assert_eq!(reference::run(&graph, &numbers(1, INPUT.elements()), 1), Err(KernelError::NoOutputs));
}

#[test]
fn workers_share_weights_and_give_the_same() {
    let weights = Weights::new();
    let plan = Plan::new(&weights.graph(), &PlanOptions { batch: 2, ..PlanOptions::default() }).unwrap();
    let input = numbers(5, 2 * INPUT.elements());
    let mut workers: Vec<Plan> = (1..=3).map(|threads| plan.another(threads).unwrap()).collect();
    let results: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = workers.iter_mut().map(|plan| scope.spawn(|| ran(plan, &input).unwrap())).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
    assert!(plan.memory() > 0 && plan.batch() == 2);
}

#[test]
fn a_blueprint_outlives_its_plan_and_a_plan_its_number_of_threads() {
    let weights = Weights::new();
    // Not Winograd's way, whose weights are more than were given, and a cache that has the last two computed together.
    let options = PlanOptions { batch: 2, winograd: false, cache: 2 * 30 * 30 * 64, ..PlanOptions::default() };
    let mut plan = Plan::new(&weights.graph(), &options).unwrap();
    let blueprint = plan.blueprint();
    let input = numbers(5, 2 * INPUT.elements());
    let expected = ran(&mut plan, &input).unwrap();
    drop(plan);
    let mut plan = blueprint.plan(1).unwrap();
    for threads in [1, 3, 2] {
        plan = plan.with_threads(threads).unwrap();
        assert_eq!((plan.threads(), ran(&mut plan, &input).unwrap()), (threads, expected.clone()));
    }
    assert!(plan.with_threads(0).is_err());
    assert_eq!((blueprint.batch(), blueprint.input()), (2, INPUT));
    assert_eq!(blueprint.outputs().collect::<Vec<_>>(), [Shape::new(32, 30, 30)]);
    let given = weights.0.iter().map(Vec::len).sum::<usize>() + 3 * 32;
    assert_eq!(blueprint.weights(), given * size_of::<f32>());
}

#[test]
fn a_pass_stops_between_two_steps_and_the_next_one_is_whole() {
    let weights = Weights::new();
    let graph = weights.graph();
    let mut plan = Plan::new(&graph, &PlanOptions::default()).unwrap();
    let input = numbers(6, INPUT.elements());
    let expected = ran(&mut plan, &input).unwrap();
    let mut asked = 0;
    let mut output = vec![0.0; expected[0].len()];
    let stopped = plan.run_until(&input, &mut [&mut output], &mut || {
        asked += 1;
        asked == 2
    });
    assert_eq!((stopped, asked), (Err(KernelError::Stopped), 2));
    plan.run(&input, &mut [&mut output]).unwrap();
    assert_eq!(output, expected[0]);
}

#[test]
fn a_part_of_whole_blocks_is_read_where_it_lies() {
    let weight = numbers(1, 64);
    // Blocks of four.
    let options = PlanOptions { isa: Isa::Portable, ..PlanOptions::default() };
    for (first, copies) in [(4, 0), (3, 1)] {
        let mut graph = Graph::new(INPUT).unwrap();
        let point = Convolution { outputs: 8, window: Window::square(1, 1, 0), groups: 1, weight: &weight, bias: None };
        let x = graph.convolution(graph.input(), point).unwrap();
        let part = graph.narrow(x, first, 4).unwrap();
        graph.activation(part, Activation::Relu).unwrap();
        let mut plan = Plan::new(&graph, &options).unwrap();
        let steps = plan.profile(&numbers(6, INPUT.elements()), &mut ticking(|| 5)).unwrap();
        assert_eq!(steps.iter().filter(|step| step.way == "regroup").count(), copies, "{steps:?}");
    }
}

#[test]
fn a_profile_tells_of_each_step() {
    let weights = Weights::new();
    let graph = weights.graph();
    let mut plan = Plan::new(&graph, &PlanOptions { winograd: false, ..PlanOptions::default() }).unwrap();
    let steps = plan.profile(&numbers(6, INPUT.elements()), &mut ticking(|| 5)).unwrap();
    assert_eq!(steps.len(), 3);
    let StepTime { name, way, multiplications, time } = &steps[2];
    assert_eq!(
        (name.as_str(), way.as_str()),
        ("convolution 3x3 / 1 of 32x30x30, to 32x30x30 in 32 groups", "depthwise")
    );
    assert_eq!((*multiplications, *time), (32 * 9 * 900, Duration::from_millis(5)));
    assert_eq!(steps.iter().map(|step| step.multiplications).sum::<usize>(), graph.multiplications());
}
