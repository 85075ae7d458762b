//! The forward pass alone, of a network that the kernels run: the half of `benches/peers.py` that is ours.
//!
//! `forward ARCHITECTURE WEIGHTS INPUT OUTPUT` loads weights (safetensors) and images (f32, as many as INPUT holds), runs them
//! once, writes what comes of them to OUTPUT (f32, one output of the graph after the other), and says how many milliseconds
//! loading took. Then it reads lines, each a number of passes and of seconds, runs until it has had both, and answers each line
//! with the megabytes that it took at most, over those of its start, and the milliseconds of every pass. Threads are those of
//! `RAYON_NUM_THREADS`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::io::BufRead as _;
use std::path::Path;
use std::time::Instant;

use adit_vision::image::batch;
use adit_vision::{Architecture, Compiled, Device, Network as _, Stop, Tensor, Weights};

/// As in the agent: its large pages are a part of what the kernels reach.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
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
    let weights = Weights::read(weights).unwrap();
    if architecture.is_detector() {
        architecture.detector(&weights, &Device::Cpu).unwrap().compile().unwrap()
    } else {
        architecture.classifier(&weights, &Device::Cpu).unwrap().compile().unwrap()
    }
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
