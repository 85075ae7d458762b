//! All architectures, by name.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use candle_core::Device;

use crate::calibration::Calibration;
use crate::compiled::Compiled;
use crate::error::VisionError;
use crate::execution::{Execution, Kernels};
use crate::graph::Graph;
use crate::network::{Classifier, Decoder, Detector, Network};
use crate::networks::borrowed::{self, Borrowed};
use crate::networks::{
    faster_rcnn, googlenet, googlenet_bn, inception, lenet, mobilenet, mobilenet_v1, mobilenet_v3, resnet, squeezenet,
    ssd, ultraface, vgg, yolov8, yolox,
};
use crate::precision::Precision;
use crate::weights::Weights;

/// A network without weights: which layers, in which order.
///
/// The numbers of classes are those of the published weights. A classifier takes its own from the last layer of the weights
/// that it is built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// Ten digits, 28 x 28 grey.
    Lenet,
    /// torchvision's 1.0: 1,000 classes, 224 x 224.
    Squeezenet10,
    /// The authors' 1.1, trained with Caffe: 1,000 classes, 227 x 227.
    Squeezenet,
    /// torchvision's 1.1: 1,000 classes, 224 x 224.
    SqueezenetTorchvision,
    /// 1,000 classes, 224 x 224.
    GooglenetBn,
    /// torchvision's: 1,000 classes, 224 x 224.
    Googlenet,
    /// 1,000 classes, 299 x 299.
    InceptionV3,
    /// timm's: 1,000 classes, 224 x 224.
    MobilenetV1,
    /// TensorFlow's: 1,001 classes (0 is background), 224 x 224.
    Mobilenet,
    /// torchvision's: 1,000 classes, 224 x 224.
    MobilenetTorchvision,
    /// torchvision's: 1,000 classes, 224 x 224.
    MobilenetV3Large,
    /// torchvision's: 1,000 classes, 224 x 224.
    MobilenetV3Small,
    /// 1,000 classes, 224 x 224.
    Resnet18,
    /// 1,000 classes, 224 x 224.
    Resnet34,
    /// 1,000 classes, 224 x 224.
    Resnet50,
    /// 1,000 classes, 224 x 224.
    Resnet101,
    /// 1,000 classes, 224 x 224.
    Resnet152,
    /// 1,000 classes, 224 x 224.
    Vgg11,
    /// 1,000 classes, 224 x 224.
    Vgg13,
    /// 1,000 classes, 224 x 224.
    Vgg16,
    /// 1,000 classes, 224 x 224.
    Vgg19,
    /// Detector, 80 classes of COCO, 416 x 416.
    YoloxNano,
    /// Detector, 80 classes of COCO, 416 x 416.
    YoloxTiny,
    /// Detector, 80 classes of COCO, 640 x 640.
    YoloxS,
    /// Detector, 80 classes of COCO, 640 x 640.
    YoloxM,
    /// Detector, 80 classes of COCO, 640 x 640.
    YoloxL,
    /// Detector, 80 classes of COCO, 640 x 640.
    YoloxX,
    /// Detector, 80 classes of COCO, 640 x 640.
    Yolov8N,
    /// Detector, 80 classes of COCO, 640 x 640.
    Yolov8S,
    /// Detector, 80 classes of COCO, 640 x 640.
    Yolov8M,
    /// Detector, 80 classes of COCO, 640 x 640.
    Yolov8L,
    /// Detector, 80 classes of COCO, 640 x 640.
    Yolov8X,
    /// Detector, 20 classes of Pascal VOC (0 is background), 300 x 300.
    SsdMobilenetV1,
    /// Detector, 20 classes of Pascal VOC (0 is background), 300 x 300.
    SsdliteMobilenetV2,
    /// torchvision's: detector, 90 classes of COCO (0 is background), 320 x 320.
    SsdliteMobilenetV3,
    /// torchvision's `fasterrcnn_resnet50_fpn`: detector, 90 classes of COCO (0 is background), 1344 wide and 800 high.
    FasterRcnn,
    /// Detector of faces (class 1; 0 is background), 320 wide and 240 high.
    Ultraface,
    /// A classifier that comes from candle-transformers.
    Borrowed(Borrowed),
}

impl Architecture {
    /// Those that are graphs of our own layers: all but the borrowed ones, which are [`Borrowed::ALL`].
    pub const OWN: [Self; 37] = [
        Self::Lenet,
        Self::Squeezenet10,
        Self::Squeezenet,
        Self::SqueezenetTorchvision,
        Self::GooglenetBn,
        Self::Googlenet,
        Self::InceptionV3,
        Self::MobilenetV1,
        Self::Mobilenet,
        Self::MobilenetTorchvision,
        Self::MobilenetV3Large,
        Self::MobilenetV3Small,
        Self::Resnet18,
        Self::Resnet34,
        Self::Resnet50,
        Self::Resnet101,
        Self::Resnet152,
        Self::Vgg11,
        Self::Vgg13,
        Self::Vgg16,
        Self::Vgg19,
        Self::YoloxNano,
        Self::YoloxTiny,
        Self::YoloxS,
        Self::YoloxM,
        Self::YoloxL,
        Self::YoloxX,
        Self::Yolov8N,
        Self::Yolov8S,
        Self::Yolov8M,
        Self::Yolov8L,
        Self::Yolov8X,
        Self::SsdMobilenetV1,
        Self::SsdliteMobilenetV2,
        Self::SsdliteMobilenetV3,
        Self::FasterRcnn,
        Self::Ultraface,
    ];

    /// All of them: our own, then the borrowed ones.
    pub const ALL: [Self; Self::OWN.len() + Borrowed::ALL.len()] = {
        let mut all = [Self::Lenet; Self::OWN.len() + Borrowed::ALL.len()];
        let mut place = 0;
        while place < all.len() {
            all[place] = match place.checked_sub(Self::OWN.len()) {
                None => Self::OWN[place],
                Some(place) => Self::Borrowed(Borrowed::ALL[place]),
            };
            place += 1;
        }
        all
    };

    /// The name in a `model.toml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lenet => "lenet",
            Self::Squeezenet10 => "squeezenet1_0",
            Self::Squeezenet => "squeezenet1_1",
            Self::SqueezenetTorchvision => "squeezenet1_1_torchvision",
            Self::GooglenetBn => "googlenet_bn",
            Self::Googlenet => "googlenet",
            Self::InceptionV3 => "inception_v3",
            Self::MobilenetV1 => "mobilenetv1_100",
            Self::Mobilenet => "mobilenet_v2",
            Self::MobilenetTorchvision => "mobilenet_v2_torchvision",
            Self::MobilenetV3Large => "mobilenet_v3_large",
            Self::MobilenetV3Small => "mobilenet_v3_small",
            Self::Resnet18 => "resnet18",
            Self::Resnet34 => "resnet34",
            Self::Resnet50 => "resnet50",
            Self::Resnet101 => "resnet101",
            Self::Resnet152 => "resnet152",
            Self::Vgg11 => "vgg11",
            Self::Vgg13 => "vgg13",
            Self::Vgg16 => "vgg16",
            Self::Vgg19 => "vgg19",
            Self::YoloxNano => "yolox_nano",
            Self::YoloxTiny => "yolox_tiny",
            Self::YoloxS => "yolox_s",
            Self::YoloxM => "yolox_m",
            Self::YoloxL => "yolox_l",
            Self::YoloxX => "yolox_x",
            Self::Yolov8N => "yolov8n",
            Self::Yolov8S => "yolov8s",
            Self::Yolov8M => "yolov8m",
            Self::Yolov8L => "yolov8l",
            Self::Yolov8X => "yolov8x",
            Self::SsdMobilenetV1 => "ssd_mobilenet_v1",
            Self::SsdliteMobilenetV2 => "ssdlite_mobilenet_v2",
            Self::SsdliteMobilenetV3 => "ssdlite320_mobilenet_v3_large",
            Self::FasterRcnn => "fasterrcnn_resnet50_fpn",
            Self::Ultraface => "ultraface_rfb320",
            Self::Borrowed(borrowed) => borrowed.name(),
        }
    }

    /// Whether it gives boxes: a `model.toml` may then have a `[detect]` section.
    #[must_use]
    pub const fn is_detector(self) -> bool {
        self.decoder().is_some()
    }

    /// Builds the network with these weights on a device, to be run as it is run best. Fails when a tensor is missing or
    /// mis-shaped.
    pub fn build(self, weights: &Weights, device: &Device) -> Result<Box<dyn Network>, VisionError> {
        self.build_for(Execution::default(), weights, device)
    }

    /// As [`Self::build`], but to be run in this way. Fails where the device cannot compute in the precision, and for a borrowed
    /// network in any but f32.
    pub fn build_for(
        self,
        execution: Execution,
        weights: &Weights,
        device: &Device,
    ) -> Result<Box<dyn Network>, VisionError> {
        let Execution { precision, kernels } = execution;
        precision.check(device)?;
        let compiled = kernels == Kernels::Auto && precision == Precision::F32 && device.is_cpu();
        Ok(match (self, precision) {
            (_, Precision::Int8) => {
                let reason = "it needs a calibration: make one with `adit-agent quantise`";
                return Err(VisionError::Precision { precision, reason });
            }
            (Self::Borrowed(borrowed), Precision::F32) => borrowed.build(weights, device)?,
            (Self::Borrowed(_), _) => {
                let reason = "networks of candle-transformers compute in f32 only";
                return Err(VisionError::Precision { precision, reason });
            }
            _ if self.is_detector() => {
                let detector = self.detector(weights, device)?;
                if compiled { Box::new(detector.compile()?) } else { Box::new(detector.in_precision(precision)?) }
            }
            _ => {
                let classifier = self.classifier(weights, device)?;
                if compiled { Box::new(classifier.compile()?) } else { Box::new(classifier.in_precision(precision)?) }
            }
        })
    }

    /// As [`Self::build`], on the processor and with convolutions on bytes, as far as a calibration was made for. Fails for a
    /// calibration of another network or other weights, and for what cannot be computed in bytes.
    pub fn build_quantised(
        self,
        calibration: &Calibration,
        weights: &Weights,
    ) -> Result<Box<dyn Network>, VisionError> {
        let graph = self.in_bytes(weights)?;
        Ok(Box::new(Compiled::quantised(&graph, self.decoder(), calibration.ranges(self, weights)?)?))
    }

    /// As [`Self::build_for`] or [`Self::build_quantised`], as the precision asks: the file of the calibration is read where bytes are
    /// asked for.
    pub fn build_beside(
        self,
        execution: Execution,
        weights: &Weights,
        device: &Device,
        calibration: &Path,
    ) -> Result<Box<dyn Network>, VisionError> {
        let Execution { precision, kernels } = execution;
        if precision != Precision::Int8 {
            return self.build_for(execution, weights, device);
        }
        precision.check(device)?;
        if kernels == Kernels::Off {
            return Err(VisionError::Precision {
                precision,
                reason: "only the kernels multiply bytes, and they are off",
            });
        }
        if !calibration.exists() {
            return Err(VisionError::NoCalibration { path: calibration.to_owned() });
        }
        self.build_quantised(&Calibration::read(calibration)?, weights)
    }

    /// The graph of what can be computed in bytes.
    pub(crate) fn in_bytes(self, weights: &Weights) -> Result<Graph, VisionError> {
        let reason = match self {
            Self::Borrowed(_) => "networks of candle-transformers compute in f32 only",
            Self::FasterRcnn => "detectors of two stages compute in f32 only",
            _ => return self.graph(weights, &Device::Cpu),
        };
        Err(VisionError::Precision { precision: Precision::Int8, reason })
    }

    /// As [`Self::build`], but with the layers still open to whoever wants to walk them. Fails for a detector.
    pub fn classifier(self, weights: &Weights, device: &Device) -> Result<Classifier, VisionError> {
        match self.decoder() {
            Some(_) => Err(VisionError::NoProbabilities),
            None => Classifier::new(self.graph(weights, device)?),
        }
    }

    /// As [`Self::classifier`], for a detector. Fails for a classifier.
    pub fn detector(self, weights: &Weights, device: &Device) -> Result<Detector, VisionError> {
        match self.decoder() {
            Some(decoder) => {
                let detector = Detector::new(self.graph(weights, device)?, decoder);
                Ok(match self {
                    Self::FasterRcnn => {
                        detector.looking_closer(faster_rcnn::gather, faster_rcnn::head(weights, device)?)
                    }
                    _ => detector,
                })
            }
            None => Err(VisionError::NoBoxes),
        }
    }

    fn graph(self, weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
        match self {
            Self::Lenet => lenet::graph(weights, device),
            Self::Squeezenet10 => squeezenet::graph(squeezenet::V1_0, weights, device),
            Self::Squeezenet => squeezenet::graph(squeezenet::V1_1, weights, device),
            Self::SqueezenetTorchvision => squeezenet::graph(squeezenet::V1_1_TORCHVISION, weights, device),
            Self::GooglenetBn => googlenet_bn::graph(weights, device),
            Self::Googlenet => googlenet::graph(weights, device),
            Self::InceptionV3 => inception::graph(weights, device),
            Self::MobilenetV1 => mobilenet_v1::graph(weights, device),
            Self::Mobilenet => mobilenet::graph(mobilenet::Edition::Tensorflow, weights, device),
            Self::MobilenetTorchvision => mobilenet::graph(mobilenet::Edition::Torchvision, weights, device),
            Self::MobilenetV3Large => mobilenet_v3::graph(mobilenet_v3::LARGE, weights, device),
            Self::MobilenetV3Small => mobilenet_v3::graph(mobilenet_v3::SMALL, weights, device),
            Self::Resnet18 => resnet::graph(resnet::R18, weights, device),
            Self::Resnet34 => resnet::graph(resnet::R34, weights, device),
            Self::Resnet50 => resnet::graph(resnet::R50, weights, device),
            Self::Resnet101 => resnet::graph(resnet::R101, weights, device),
            Self::Resnet152 => resnet::graph(resnet::R152, weights, device),
            Self::Vgg11 => vgg::graph(vgg::V11, weights, device),
            Self::Vgg13 => vgg::graph(vgg::V13, weights, device),
            Self::Vgg16 => vgg::graph(vgg::V16, weights, device),
            Self::Vgg19 => vgg::graph(vgg::V19, weights, device),
            Self::YoloxNano => yolox::graph(yolox::NANO, weights, device),
            Self::YoloxTiny => yolox::graph(yolox::TINY, weights, device),
            Self::YoloxS => yolox::graph(yolox::S, weights, device),
            Self::YoloxM => yolox::graph(yolox::M, weights, device),
            Self::YoloxL => yolox::graph(yolox::L, weights, device),
            Self::YoloxX => yolox::graph(yolox::X, weights, device),
            Self::Yolov8N => yolov8::graph(yolov8::N, weights, device),
            Self::Yolov8S => yolov8::graph(yolov8::S, weights, device),
            Self::Yolov8M => yolov8::graph(yolov8::M, weights, device),
            Self::Yolov8L => yolov8::graph(yolov8::L, weights, device),
            Self::Yolov8X => yolov8::graph(yolov8::X, weights, device),
            Self::SsdMobilenetV1 => ssd::v1(weights, device),
            Self::SsdliteMobilenetV2 => ssd::lite_v2(weights, device),
            Self::SsdliteMobilenetV3 => ssd::lite_v3(weights, device),
            Self::FasterRcnn => faster_rcnn::graph(weights, device),
            Self::Ultraface => ultraface::graph(weights, device),
            Self::Borrowed(borrowed) => Err(VisionError::NoGraph { name: borrowed.name() }),
        }
    }

    /// How a detector's numbers are read; nothing for a classifier.
    const fn decoder(self) -> Option<Decoder> {
        match self {
            Self::YoloxNano | Self::YoloxTiny | Self::YoloxS | Self::YoloxM | Self::YoloxL | Self::YoloxX => {
                Some(yolox::DECODER)
            }
            Self::Yolov8N | Self::Yolov8S | Self::Yolov8M | Self::Yolov8L | Self::Yolov8X => Some(yolov8::DECODER),
            Self::SsdMobilenetV1 | Self::SsdliteMobilenetV2 => Some(ssd::VOC),
            Self::SsdliteMobilenetV3 => Some(ssd::COCO),
            Self::FasterRcnn => Some(faster_rcnn::DECODER),
            Self::Ultraface => Some(ultraface::DECODER),
            Self::Lenet
            | Self::Squeezenet10
            | Self::Squeezenet
            | Self::SqueezenetTorchvision
            | Self::GooglenetBn
            | Self::Googlenet
            | Self::InceptionV3
            | Self::MobilenetV1
            | Self::Mobilenet
            | Self::MobilenetTorchvision
            | Self::MobilenetV3Large
            | Self::MobilenetV3Small
            | Self::Resnet18
            | Self::Resnet34
            | Self::Resnet50
            | Self::Resnet101
            | Self::Resnet152
            | Self::Vgg11
            | Self::Vgg13
            | Self::Vgg16
            | Self::Vgg19
            | Self::Borrowed(_) => None,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Architecture {
    type Err = VisionError;

    fn from_str(name: &str) -> Result<Self, VisionError> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == name).ok_or_else(|| {
            let known = format!("{}, {}", Self::OWN.map(Self::name).join(", "), borrowed::listed());
            VisionError::UnknownArchitecture { name: name.to_owned(), known }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::{Arc, Mutex};

    use candle_core::{DType, Tensor};

    use super::*;

    #[test]
    fn names_lead_back_to_their_architecture() {
        for architecture in Architecture::ALL {
            assert_eq!(architecture.name().parse::<Architecture>().unwrap(), architecture);
        }
        let error = "resnet".parse::<Architecture>().unwrap_err();
        assert!(error.to_string().contains("lenet, squeezenet1_0, squeezenet1_1, "), "{error}");
        assert!(error.to_string().contains(", convnextv2_{atto, femto, "), "{error}");
        let names: HashSet<_> = Architecture::ALL.iter().map(|architecture| architecture.name()).collect();
        assert_eq!(names.len(), Architecture::ALL.len());
    }

    #[test]
    fn weights_of_another_network_are_refused_by_name() {
        let empty = Weights::from_tensors("an empty file", []);
        for architecture in Architecture::ALL {
            let error = architecture.build(&empty, &Device::Cpu).unwrap_err();
            assert!(matches!(error, VisionError::MissingTensor { .. }), "{error}");
        }
    }

    /// Zeros for every tensor of a network, but for a last layer of these shapes.
    fn zeros(architecture: Architecture, head: &str, outputs: usize, biases: usize) -> Weights {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let note = asked.clone();
        let noting = Weights::made_by("a formula", move |name, shape| {
            note.lock().unwrap().push((name.to_owned(), shape.to_vec()));
            Some(vec![0.; shape.iter().product()])
        });
        architecture.build(&noting, &Device::Cpu).unwrap();
        let tensors = std::mem::take(&mut *asked.lock().unwrap()).into_iter().map(|(name, mut shape)| {
            match name.strip_prefix(head) {
                Some(".weight") => shape[0] = outputs,
                Some(".bias") => shape[0] = biases,
                _ => {}
            }
            let tensor = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
            (name, tensor)
        });
        Weights::from_tensors("zeros", tensors.collect::<Vec<_>>())
    }

    #[test]
    fn a_classifier_has_as_many_classes_as_its_weights() {
        for (architecture, head) in [
            (Architecture::Lenet, "fc2"),
            (Architecture::Squeezenet, "classifier.1"),
            (Architecture::SqueezenetTorchvision, "classifier.1"),
            (Architecture::GooglenetBn, "linear"),
            (Architecture::Googlenet, "fc"),
            (Architecture::InceptionV3, "fc"),
            (Architecture::MobilenetV1, "classifier"),
            (Architecture::MobilenetV3Small, "classifier.3"),
            (Architecture::Mobilenet, "classifier.1"),
            (Architecture::MobilenetTorchvision, "classifier.1"),
            (Architecture::Resnet18, "fc"),
        ] {
            let network = architecture.build(&zeros(architecture, head, 3, 3), &Device::Cpu).unwrap();
            assert_eq!(network.classes(), 3, "{architecture}");
            for (outputs, biases) in [(3, 4), (0, 0)] {
                let error = architecture.build(&zeros(architecture, head, outputs, biases), &Device::Cpu).unwrap_err();
                assert!(matches!(error, VisionError::TensorShape { .. }), "{architecture}: {error}");
            }
        }
    }

    #[test]
    fn a_detector_is_no_classifier() {
        let empty = Weights::from_tensors("an empty file", []);
        for architecture in Architecture::ALL {
            let classifier = architecture.classifier(&empty, &Device::Cpu).unwrap_err();
            assert_eq!(matches!(classifier, VisionError::NoProbabilities), architecture.is_detector());
            let detector = architecture.detector(&empty, &Device::Cpu).unwrap_err();
            assert_eq!(matches!(detector, VisionError::NoBoxes), !architecture.is_detector());
        }
    }
}
