//! All architectures, by name.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use crate::error::VisionError;
use crate::network::{Classifier, Network};
use crate::networks::{googlenet_bn, lenet, mobilenet, squeezenet};
use crate::weights::Weights;

/// A network without weights: which layers, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// Ten digits, 28 x 28 grey.
    Lenet,
    /// 1,000 classes, 227 x 227.
    Squeezenet,
    /// 1,000 classes, 224 x 224.
    GooglenetBn,
    /// 1,001 classes (0 is background), 224 x 224.
    Mobilenet,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lenet, Self::Squeezenet, Self::GooglenetBn, Self::Mobilenet];

    /// The name in a `model.toml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lenet => "lenet",
            Self::Squeezenet => "squeezenet1_1",
            Self::GooglenetBn => "googlenet_bn",
            Self::Mobilenet => "mobilenet_v2",
        }
    }

    /// Builds the network with these weights on a device. Fails when a tensor is missing or mis-shaped.
    pub fn build(self, weights: &Weights, device: &Device) -> Result<Box<dyn Network>, VisionError> {
        Ok(Box::new(self.classifier(weights, device)?))
    }

    /// As [`Self::build`], but with the layers still open to whoever wants to walk them.
    pub fn classifier(self, weights: &Weights, device: &Device) -> Result<Classifier, VisionError> {
        let graph = match self {
            Self::Lenet => lenet::graph(weights, device)?,
            Self::Squeezenet => squeezenet::graph(weights, device)?,
            Self::GooglenetBn => googlenet_bn::graph(weights, device)?,
            Self::Mobilenet => mobilenet::graph(weights, device)?,
        };
        Classifier::new(graph)
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
            VisionError::UnknownArchitecture { name: name.to_owned(), known: Self::ALL.map(Self::name).join(", ") }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_architecture() {
        for architecture in Architecture::ALL {
            assert_eq!(architecture.name().parse::<Architecture>().unwrap(), architecture);
        }
        let error = "resnet".parse::<Architecture>().unwrap_err();
        assert!(error.to_string().contains("lenet, squeezenet1_1, googlenet_bn, mobilenet_v2"), "{error}");
    }

    #[test]
    fn weights_of_another_network_are_refused_by_name() {
        let empty = Weights::from_tensors("an empty file", []);
        for architecture in Architecture::ALL {
            let error = architecture.build(&empty, &Device::Cpu).unwrap_err();
            assert!(matches!(error, VisionError::MissingTensor { .. }), "{error}");
        }
    }
}
