//! One version of a model, opened.

use std::path::Path;
use std::sync::Arc;

use adit_common::id::Version;
use adit_vision::image::{Preprocess, batch};
use adit_vision::{
    Architecture, DetectOptions, Device, Labels, Network, Stop, VisionError, Weights, candidates, probabilities,
};

use crate::serving::{Devices, Kind, Spec, calibration_file, embedded, weights_file};

/// A network with its weights, and all that makes a model of it.
#[derive(Debug)]
pub struct Opened {
    /// Its layers.
    pub architecture: Architecture,
    /// The network, on the device.
    pub network: Box<dyn Network>,
    /// What the device is called.
    pub device: Arc<str>,
    /// What its classes are called.
    pub labels: Labels,
    /// How a picture is prepared for it.
    pub preprocess: Preprocess,
    /// Which boxes a detector tells; nothing for a classifier.
    pub detect: Option<DetectOptions>,
}

impl Opened {
    /// Puts a network together and runs it once, so that everything that would keep it from being served shows: `labels` gets the
    /// number of classes, and `calibration` is read where it is to compute in bytes. The error is the reason.
    pub fn assemble(
        spec: &Spec,
        weights: &Weights,
        devices: &Devices,
        calibration: &Path,
        labels: impl FnOnce(usize) -> Result<Labels, VisionError>,
    ) -> Result<Self, String> {
        let Kind::Network { architecture, preprocess, detect, device, execution, .. } = &spec.kind else {
            return Err("a stand-in has set times instead of a network".to_owned());
        };
        let (architecture, preprocess, detect) = (*architecture, (**preprocess).clone(), *detect);
        let build = || {
            let compute = devices.of(*device)?;
            let network = architecture.build_beside(*execution, weights, &compute.device, calibration)?;
            let labels = labels(network.classes())?;
            labels.check(network.classes())?;
            Ok((network, compute.name, labels))
        };
        let (network, device, labels) = build().map_err(told)?;
        let shape = network.input();
        if preprocess.shape() != shape {
            return Err(format!("[preprocess] makes {}, the network takes {shape}", preprocess.shape()));
        }
        let run = || {
            let blank = batch(&[vec![0.0; shape.elements()]], shape, &Device::Cpu)?;
            let heads = network.forward(&blank, &Stop::never())?;
            if detect.is_some() { candidates(&heads).map(drop) } else { probabilities(&heads).map(drop) }
        };
        run().map_err(told)?;
        Ok(Self { architecture, network, device, labels, preprocess, detect })
    }

    /// The version of a model's folder, as its description says.
    pub fn of(spec: &Spec, version: Version, devices: &Devices) -> Result<Self, String> {
        let Kind::Network { versions, labels, .. } = &spec.kind else {
            return Err("a stand-in has set times instead of a network".to_owned());
        };
        let weights = Weights::read(&weights_file(versions, version)).map_err(told)?;
        let calibration = calibration_file(versions, version);
        Self::assemble(spec, &weights, devices, &calibration, |_| Labels::read(labels))
    }

    /// The digits model that is part of the program.
    pub fn embedded(devices: &Devices) -> Result<Self, String> {
        let weights = Weights::from_bytes("the built-in model", embedded::WEIGHTS.to_vec()).map_err(told)?;
        Self::assemble(&embedded::spec()?, &weights, devices, Path::new(""), |_| Labels::parse(embedded::LABELS))
    }
}

/// An error with its causes.
pub(super) fn told(error: VisionError) -> String {
    format!("{:#}", anyhow::Error::new(error))
}
