//! Every network on the first GPU, held against the processor.

use adit_vision::{Architecture, Compute, Device, DeviceChoice, Heads, Precision, Stop, Weights};

use super::{difference, filled_up, formula, outputs, pictures, trained};

/// The first GPU, or an end that says why there is none.
fn gpu() -> Compute {
    DeviceChoice::Cuda(0).open().unwrap_or_else(|error| panic!("these tests need a GPU: {error}"))
}

/// How far outputs may be from the reference, as a part of its largest number. In f32 sums are taken in another order, and cuDNN
/// may multiply in TF32, of eleven bits; halves have eleven bits too, and bf16 has eight.
const fn tolerance(precision: Precision) -> f32 {
    match precision {
        Precision::F32 if cfg!(feature = "cudnn") => 1e-2,
        Precision::F32 => 1e-3,
        Precision::F16 => 3e-2,
        Precision::Bf16 => 2e-1,
        // No GPU computes in it here.
        Precision::Int8 => 0.0,
    }
}

/// All that differ too much, or fail, and not only the first.
fn compare(precision: Precision, networks: impl Iterator<Item = (Architecture, Weights)>) {
    let device = gpu().device;
    let mut wrong = Vec::new();
    for (architecture, weights) in networks {
        let reference = outputs(architecture, &weights, (&Device::Cpu, Precision::F32), 2).unwrap();
        match outputs(architecture, &weights, (&device, precision), 2) {
            Ok(found) => {
                let worst = difference(&reference, &found);
                println!("{architecture} {precision}: {worst:.2e}");
                // What is no number is not below anything.
                if worst.is_nan() || worst >= tolerance(precision) {
                    wrong.push(format!("{architecture}: {worst}"));
                }
            }
            Err(error) => wrong.push(format!("{architecture}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{precision}: {wrong:#?}");
}

fn every() -> impl Iterator<Item = (Architecture, Weights)> {
    Architecture::ALL.into_iter().map(|architecture| (architecture, formula(architecture)))
}

/// Those that compute in halves.
fn own() -> impl Iterator<Item = (Architecture, Weights)> {
    Architecture::OWN.into_iter().map(|architecture| (architecture, formula(architecture)))
}

fn every_trained() -> impl Iterator<Item = (Architecture, Weights)> {
    let read = |architecture| Some((architecture, Weights::read(&trained(architecture)?).unwrap()));
    Architecture::ALL.into_iter().filter_map(read)
}

#[test]
#[ignore = "needs a GPU, and the feature cuda"]
fn every_network_in_f32() {
    compare(Precision::F32, every());
    compare(Precision::F32, every_trained());
}

#[test]
#[ignore = "needs a GPU, and the feature cuda"]
fn every_network_of_our_own_in_f16() {
    compare(Precision::F16, own());
    compare(Precision::F16, every_trained());
}

#[test]
#[ignore = "needs a GPU, and the feature cuda"]
fn every_network_of_our_own_in_bf16() {
    compare(Precision::Bf16, own());
    compare(Precision::Bf16, every_trained());
}

#[test]
#[ignore = "needs a GPU, and the feature cuda"]
fn filled_up_batches_change_no_answer() {
    filled_up(Architecture::Resnet18, &gpu().device, tolerance(Precision::F32));
}

/// A network is shared by threads: each has a stream of its own on the GPU.
#[test]
#[ignore = "needs a GPU, and the feature cuda"]
fn threads_share_a_network() {
    let (device, architecture) = (gpu().device, Architecture::Resnet18);
    let network = architecture.build(&formula(architecture), &device).unwrap();
    let ask = |images| match network.forward(&pictures(network.input(), images), &Stop::never()).unwrap() {
        Heads::Classes(logits) => logits.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
        _ => panic!("a classifier"),
    };
    let alone = ask(3);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..20).map(|_| ask(3)).collect::<Vec<_>>())).collect();
        for thread in threads {
            for answer in thread.join().unwrap() {
                assert!(difference(&alone, &answer) < tolerance(Precision::F32));
            }
        }
    });
}
