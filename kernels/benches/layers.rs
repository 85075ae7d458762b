//! What the kernels reach: layers and whole networks, each set of instructions in turn.
//!
//! `cargo bench -p adit-kernels --bench layers [-- ROUNDS [THREADS [BATCH]]] [layers|networks|profile] [NAME]` prints a table of single
//! layers, in GFLOP/s as they are written down (Winograd does fewer), and of networks, in milliseconds a pass; sets of
//! instructions take turns, and the median of the rounds counts. With `profile` it prints each step of the networks instead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

mod networks;

use std::time::{Duration, Instant};

use adit_kernels::{Graph, Isa, Observer, Plan, PlanOptions};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut numbers = arguments.iter().filter_map(|argument| argument.parse::<usize>().ok());
    let rounds = numbers.next().unwrap_or(15);
    let options = PlanOptions {
        threads: numbers.next().unwrap_or(1),
        batch: numbers.next().unwrap_or(1),
        ..PlanOptions::default()
    };
    let words: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| word.parse::<usize>().is_err()).collect();
    let has = |word: &str| words.contains(&word);
    let named = |name: &str| {
        let names: Vec<_> = words.iter().filter(|word| !["layers", "networks", "profile"].contains(word)).collect();
        names.is_empty() || names.iter().any(|word| name.contains(**word))
    };
    let weights = networks::weights();
    let networks = [
        ("GoogLeNet", networks::googlenet(&weights, 224).unwrap()),
        ("ResNet-50", networks::resnet50(&weights, 224).unwrap()),
        ("MobileNetV2", networks::mobilenet_v2(&weights, 224).unwrap()),
        ("SqueezeNet", networks::squeezenet(&weights, 224).unwrap()),
    ];
    let mut networks: Vec<_> = networks.into_iter().map(|(name, graph)| (name.to_owned(), graph)).collect();
    for place in 0..networks.len() {
        let (name, graph) = &networks[place];
        let mut observer = Observer::new(graph, options.threads).unwrap();
        observer.observe(&picture(graph, 1), &mut || false).unwrap();
        networks.push((format!("{name} in bytes"), graph.quantised(observer.ranges()).unwrap()));
    }
    if has("profile") {
        networks
            .iter()
            .filter(|(name, _)| named(name))
            .for_each(|(name, graph)| profile(name, graph, rounds, &options));
        return;
    }
    println!("{} thread(s), batch {}\n", options.threads, options.batch);
    if !has("networks") {
        let mut layers = networks::layers(&weights, false).unwrap();
        layers.extend(networks::layers(&weights, true).unwrap());
        layers.retain(|(name, _)| named(name));
        table("layer, GFLOP/s", &layers, rounds, &options, |graph, time| {
            2e-9 * graph.multiplications() as f64 * options.batch as f64 / time.as_secs_f64()
        });
    }
    if !has("layers") {
        let networks: Vec<_> = networks.into_iter().filter(|(name, _)| named(name)).collect();
        table("network, ms", &networks, rounds, &options, |_, time| time.as_secs_f64() * 1e3);
    }
}

fn clock() -> impl FnMut() -> Duration {
    let begun = Instant::now();
    move || begun.elapsed()
}

/// A row for each graph, a column for each set of instructions.
fn table(
    title: &str,
    graphs: &[(String, Graph<'_>)],
    rounds: usize,
    options: &PlanOptions,
    value: impl Fn(&Graph<'_>, Duration) -> f64,
) {
    let isas = Isa::available();
    let heads: Vec<String> = isas.iter().map(|isa| format!("{isa} | way")).collect();
    println!("| {title} | {} |\n|---|{}", heads.join(" | "), "---|---|".repeat(isas.len()));
    for (name, graph) in graphs {
        let mut plans: Vec<Plan> = isas
            .iter()
            .map(|isa| Plan::tuned(graph, &PlanOptions { isa: *isa, ..options.clone() }, &mut clock()).unwrap())
            .collect();
        let input = picture(graph, options.batch);
        let mut times = vec![Vec::new(); plans.len()];
        for _ in 0..rounds {
            for (plan, times) in plans.iter_mut().zip(&mut times) {
                let of_network = title.starts_with("network");
                let steps = plan.profile(&input, &mut clock()).unwrap();
                // Of a layer its own step; of a network all of them, with carrying images in and results out.
                let layer = steps.iter().find(|step| step.multiplications > 0).map_or(Duration::ZERO, |step| step.time);
                times.push(if of_network { pass(plan, &input) } else { layer });
            }
        }
        let cells: Vec<String> = plans
            .iter()
            .zip(&mut times)
            .map(|(plan, times)| {
                times.sort();
                let way = match plan.choices() {
                    [choice] => choice.to_string(),
                    choices => format!("{} choices", choices.len()),
                };
                format!("{:.2} | {way}", value(graph, times[times.len() / 2]))
            })
            .collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
    println!();
}

fn pass(plan: &mut Plan, input: &[f32]) -> Duration {
    let images = input.len() / plan.input().elements();
    let mut outputs: Vec<Vec<f32>> = plan.outputs().map(|shape| vec![0.0; images * shape.elements()]).collect();
    let mut outputs: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    let begun = Instant::now();
    plan.run(input, &mut outputs).unwrap();
    begun.elapsed()
}

fn picture(graph: &Graph<'_>, images: usize) -> Vec<f32> {
    let elements = graph.shape(graph.input()).unwrap().elements();
    (0..images * elements).map(|place| (place % 251) as f32 / 251.0 - 0.5).collect()
}

/// Each step of a network with its share of the time: the quickest of all rounds.
fn profile(name: &str, graph: &Graph<'_>, rounds: usize, options: &PlanOptions) {
    let mut plan = Plan::tuned(graph, options, &mut clock()).unwrap();
    let input = picture(graph, options.batch);
    let mut best = plan.profile(&input, &mut clock()).unwrap();
    for _ in 0..rounds {
        for (best, step) in best.iter_mut().zip(plan.profile(&input, &mut clock()).unwrap()) {
            best.time = best.time.min(step.time);
        }
    }
    let total: Duration = best.iter().map(|step| step.time).sum();
    println!("{name}, {} thread(s), batch {}: {total:?}", options.threads, options.batch);
    for step in &best {
        let rate = 2e-9 * step.multiplications as f64 * options.batch as f64 / step.time.as_secs_f64();
        let share = 100.0 * step.time.as_secs_f64() / total.as_secs_f64();
        println!("{:9.1?} {share:5.1} % {rate:6.0} GFLOP/s {:14} {}", step.time, step.way, step.name);
    }
}
