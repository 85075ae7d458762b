//! Half precision on the processor, where it is slow, but must be right.

use adit_vision::{Architecture, Device, Precision, VisionError, Weights};

use super::{difference, formula, outputs, trained};

const CPU: Device = Device::Cpu;

/// How far f16 may be from f32, as a part of the largest output: three times what was measured, or more.
fn tolerance(architecture: Architecture) -> f32 {
    match architecture {
        // Measured: 5e-3 to 1e-2. Depthwise layers add up little, so that errors do not average out.
        Architecture::Mobilenet | Architecture::MobilenetTorchvision | Architecture::YoloxNano => 3e-2,
        // 1e-3 to 5e-3.
        _ if architecture.is_detector() => 1.5e-2,
        // 5e-4 to 1.7e-3.
        _ => 5e-3,
    }
}

fn compare(architecture: Architecture, weights: &Weights, images: usize) {
    let single = outputs(architecture, weights, (&CPU, Precision::F32), images).unwrap();
    let half = outputs(architecture, weights, (&CPU, Precision::F16), images).unwrap();
    let worst = difference(&single, &half);
    println!("{architecture} f16: {worst:.2e}");
    assert!(worst < tolerance(architecture), "{architecture}: {worst}");
    assert!(worst > 1e-5, "{architecture}: was it f16 at all? {worst}");
}

/// All kinds of layers: convolutions, dense and depthwise, norms, activations, pools, sums, joins, upsampling.
#[test]
fn it_says_what_f32_says() {
    for architecture in [
        Architecture::Lenet,
        Architecture::SqueezenetTorchvision,
        Architecture::MobilenetTorchvision,
        Architecture::Resnet18,
        Architecture::YoloxNano,
        Architecture::Ultraface,
    ] {
        compare(architecture, &formula(architecture), 2);
    }
}

#[test]
#[ignore = "takes minutes: for when the layers change"]
fn every_network_of_our_own_says_what_f32_says() {
    for architecture in Architecture::OWN {
        compare(architecture, &formula(architecture), 1);
    }
}

#[test]
fn it_says_so_with_trained_weights() {
    for architecture in [Architecture::Squeezenet, Architecture::GooglenetBn, Architecture::Mobilenet] {
        let Some(file) = trained(architecture) else {
            println!("skipped: ../shared/data is not there, or has no {architecture}");
            continue;
        };
        compare(architecture, &Weights::read(&file).unwrap(), 2);
    }
}

#[test]
fn borrowed_networks_refuse_it() {
    let architecture = "convnext_atto".parse().unwrap();
    let error = outputs(architecture, &formula(architecture), (&CPU, Precision::F16), 1).unwrap_err();
    let told = "`f16` cannot be computed in: networks of candle-transformers compute in f32 only";
    assert_eq!(error.to_string(), told);
}

#[test]
fn bf16_is_refused() {
    let weights = formula(Architecture::Lenet);
    let error = outputs(Architecture::Lenet, &weights, (&CPU, Precision::Bf16), 1).unwrap_err();
    assert!(matches!(error, VisionError::Precision { precision: Precision::Bf16, .. }), "{error}");
}
