//! The forward pass alone, of a network that the kernels run: the half of `benches/peers.py` that is ours.
//!
//! `forward ARCHITECTURE WEIGHTS INPUT OUTPUT` loads weights (safetensors) and images (f32, as many as INPUT holds), runs them
//! once, writes what comes of them to OUTPUT (f32, one output of the graph after the other), and says how many milliseconds
//! loading took. Then it reads lines, each a number of passes and of seconds, runs until it has had both, and answers each line
//! with the megabytes that it took at most, over those of its start, and the milliseconds of every pass. Threads are those of
//! `RAYON_NUM_THREADS`.
//!
//! `forward --profile ARCHITECTURE [ROUNDS [BATCH]]` prints where the time goes: each step of the plan, with one thread and with two in
//! turns, the quickest of all rounds. Weights are made by a formula.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::io::BufRead as _;
use std::path::Path;
use std::time::Instant;

use adit_vision::image::batch;
use adit_vision::{Architecture, Compiled, Device, Network as _, StepTime, Stop, Tensor, Weights};
use rayon::ThreadPoolBuilder;

/// As in the agent: its large pages are a part of what the kernels reach.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let ["--profile", architecture, numbers @ ..] =
        arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice()
    {
        let mut numbers = numbers.iter().map(|number| number.parse::<usize>().unwrap());
        return profile(architecture.parse().unwrap(), numbers.next().unwrap_or(30), numbers.next().unwrap_or(1));
    }
    // `cargo bench` runs it without any.
    let [architecture, weights, input, output] = arguments.as_slice() else {
        return println!("skipped: this is run by benches/peers.py");
    };
    let bytes = std::fs::read(input).unwrap();
    let numbers: Vec<f32> = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    drop(bytes);
    let start = megabytes("VmRSS");
    let begun = Instant::now();
    let network = load(architecture.parse().unwrap(), Path::new(weights));
    let loaded = milliseconds(begun);

    let images: Vec<&[f32]> = numbers.chunks_exact(network.input().elements()).collect();
    let images = batch(&images, network.input(), &Device::Cpu).unwrap();
    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let outputs = network.outputs(&images, &Stop::never()).unwrap();
    let outputs: Vec<u8> = outputs.iter().flat_map(flat).flat_map(f32::to_le_bytes).collect();
    std::fs::write(output, outputs).unwrap();
    println!("{loaded}");

    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (passes, seconds) = line.split_once(' ').unwrap();
        let (passes, seconds): (usize, f64) = (passes.parse().unwrap(), seconds.parse().unwrap());
        // The first finds the caches as another program left them.
        network.outputs(&images, &Stop::never()).unwrap();
        let (mut times, all) = (Vec::new(), Instant::now());
        while times.len() < passes || milliseconds(all) < seconds * 1e3 {
            let begun = Instant::now();
            std::hint::black_box(network.outputs(&images, &Stop::never()).unwrap());
            times.push(milliseconds(begun).to_string());
        }
        println!("{} {}", megabytes("VmHWM") - start, times.join(" "));
    }
}

fn load(architecture: Architecture, weights: &Path) -> Compiled {
    compile(architecture, &Weights::read(weights).unwrap())
}

fn compile(architecture: Architecture, weights: &Weights) -> Compiled {
    if architecture.is_detector() {
        architecture.detector(weights, &Device::Cpu).unwrap().compile().unwrap()
    } else {
        architecture.classifier(weights, &Device::Cpu).unwrap().compile().unwrap()
    }
}

/// Numbers around zero, so large that values neither vanish nor explode on their way; of a norm, those that change little.
fn made(name: &str, shape: &[usize]) -> Option<Vec<f32>> {
    let inputs: usize = shape.iter().skip(1).product();
    let (middle, width) = match shape.len() {
        1 if name.ends_with("running_var") || name.ends_with("weight") => (1.0, 0.2),
        1 => (0.0, 0.2),
        _ => (0.0, (6.0 / inputs as f32).sqrt()),
    };
    let number = |place: usize| (place as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 * 2.0 - 1.0;
    Some((1..=shape.iter().product()).map(|place| middle + width * number(place)).collect())
}

fn profile(architecture: Architecture, rounds: usize, batch: usize) {
    let network = compile(architecture, &Weights::made_by("a formula", made));
    let shape = [batch, network.input().channels, network.input().height, network.input().width];
    let images = Tensor::from_vec(made("images", &shape).unwrap(), &shape, &Device::Cpu).unwrap();
    let begun = Instant::now();
    let mut clock = || begun.elapsed();
    let pools = [1, 2].map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    let mut best: [Vec<StepTime>; 2] = [Vec::new(), Vec::new()];
    let mut whole = [f64::INFINITY; 2];
    for _ in 0..rounds {
        for (threads, pool) in pools.iter().enumerate() {
            // The first pass after a change of threads finds its memory elsewhere, and the second is a whole one.
            let steps = pool.install(|| {
                network.profile(&images, &mut clock).unwrap();
                let begun = Instant::now();
                network.outputs(&images, &Stop::never()).unwrap();
                whole[threads] = whole[threads].min(milliseconds(begun));
                network.profile(&images, &mut clock).unwrap()
            });
            if best[threads].is_empty() {
                best[threads] = steps;
            } else {
                best[threads].iter_mut().zip(steps).for_each(|(best, step)| best.time = best.time.min(step.time));
            }
        }
    }
    let rate = |step: &StepTime| 2e-9 * (step.multiplications * batch) as f64 / step.time.as_secs_f64();
    let total = best.each_ref().map(|steps| 1e3 * steps.iter().map(|step| step.time.as_secs_f64()).sum::<f64>());
    println!("| step | way | ms | GFLOP/s | ms, 2 threads | gain |\n|---|---|---|---|---|---|");
    for (one, two) in best[0].iter().zip(&best[1]) {
        let times = [one, two].map(|step| step.time.as_secs_f64() * 1e3);
        let StepTime { name, way, .. } = one;
        println!(
            "| {name} | {way} | {:.3} | {:.0} | {:.3} | {:.2} |",
            times[0],
            rate(one),
            times[1],
            times[0] / times[1]
        );
    }
    println!("| all steps | | {:.2} | | {:.2} | {:.2} |", total[0], total[1], total[0] / total[1]);
    println!("| a pass, whole | | {:.2} | | {:.2} | {:.2} |", whole[0], whole[1], whole[0] / whole[1]);
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// What the kernel says of this program's memory.
fn megabytes(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024. / 1e6
}
