//! The fused kernels on the processor, held against candle's operations.

use adit_vision::{Architecture, Device, Execution, Kernels, Precision, Stop, Tensor, Weights};

use super::{difference, formula, outputs, pictures, trained};

const CPU: Device = Device::Cpu;

/// As a part of the largest output.
const TOLERANCE: f32 = 1e-4;

fn compiled(architecture: Architecture, weights: &Weights, images: usize) -> Vec<f32> {
    let compiled = if architecture.is_detector() {
        architecture.detector(weights, &CPU).unwrap().compile()
    } else {
        architecture.classifier(weights, &CPU).unwrap().compile()
    };
    let compiled = compiled.unwrap();
    let outputs = compiled.outputs(&pictures(adit_vision::Network::input(&compiled), images), &Stop::never()).unwrap();
    outputs.iter().flat_map(|output: &Tensor| output.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
}

fn compare(architecture: Architecture, weights: &Weights, images: usize) {
    let candle = outputs(architecture, weights, (&CPU, Precision::F32), images).unwrap();
    let worst = difference(&candle, &compiled(architecture, weights, images));
    println!("{architecture} by kernels: {worst:.2e}");
    assert!(worst < TOLERANCE, "{architecture}: {worst}");
    assert!(worst > 0.0, "{architecture}: was it the kernels at all?");
}

/// All but the sizes that differ from others in how often they repeat their blocks.
#[test]
fn they_say_what_candle_says() {
    for architecture in [
        Architecture::Lenet,
        Architecture::Squeezenet10,
        Architecture::Squeezenet,
        Architecture::SqueezenetTorchvision,
        Architecture::GooglenetBn,
        Architecture::Googlenet,
        Architecture::InceptionV3,
        Architecture::MobilenetV1,
        Architecture::Mobilenet,
        Architecture::MobilenetTorchvision,
        Architecture::MobilenetV3Large,
        Architecture::MobilenetV3Small,
        Architecture::Resnet18,
        Architecture::Resnet50,
        Architecture::Vgg11,
        Architecture::YoloxNano,
        Architecture::YoloxTiny,
        Architecture::Yolov8N,
        Architecture::SsdMobilenetV1,
        Architecture::SsdliteMobilenetV2,
        Architecture::SsdliteMobilenetV3,
        Architecture::Ultraface,
    ] {
        compare(architecture, &formula(architecture), 2);
    }
}

#[test]
#[ignore = "takes minutes: for when layers or kernels change"]
fn they_say_of_every_network_of_our_own_what_candle_says() {
    for architecture in Architecture::OWN {
        compare(architecture, &formula(architecture), 1);
    }
}

/// But YOLOX, which takes bytes and makes much of the little that these pictures differ by: it is held to its authors' numbers for
/// photographs, in `../references`.
#[test]
fn they_say_so_with_trained_weights() {
    for architecture in
        [Architecture::Squeezenet, Architecture::GooglenetBn, Architecture::Mobilenet, Architecture::Ultraface]
    {
        let Some(file) = trained(architecture) else {
            println!("skipped: ../shared/data is not there, or has no {architecture}");
            continue;
        };
        compare(architecture, &Weights::read(&file).unwrap(), 2);
    }
}

#[test]
fn they_run_what_they_can_unless_they_are_switched_off() {
    let run_by = |architecture: Architecture, execution: Execution| {
        architecture.build_for(execution, &formula(architecture), &CPU).unwrap().kernels()
    };
    let off = Execution { kernels: Kernels::Off, ..Execution::default() };
    for architecture in [Architecture::Lenet, Architecture::Ultraface] {
        assert!(run_by(architecture, Execution::default()).is_some());
        assert_eq!(run_by(architecture, off), None);
        assert_eq!(run_by(architecture, Precision::F16.into()), None);
    }
    let borrowed = "convnext_atto".parse().unwrap();
    assert_eq!(run_by(borrowed, Execution::default()), None);
}

/// What a network was trained to is told of all, whoever computes it.
#[test]
fn a_compiled_network_is_told_of_as_its_graph_is() {
    for architecture in [Architecture::Lenet, Architecture::Ultraface] {
        let told = |kernels| {
            let execution = Execution { kernels, ..Execution::default() };
            let network = architecture.build_for(execution, &formula(architecture), &CPU).unwrap();
            (network.input(), network.classes())
        };
        assert_eq!(told(Kernels::Auto), told(Kernels::Off));
    }
}
