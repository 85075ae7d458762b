//! The one adapter: a borrowed network as a [`Network`].

use std::fmt;

use candle_core::{Device, Tensor};

use super::family::{Family, Passes, Stage, Variant};
use super::source::Source;
use crate::error::VisionError;
use crate::graph::{broken, check_batch};
use crate::network::{Heads, Network};
use crate::shape::ImageShape;
use crate::stop::Stop;
use crate::weights::Weights;

/// What networks are trained for where their weights do not say: ImageNet's classes.
const CLASSES: usize = 1000;

/// A network of candle-transformers with its weights on a device.
pub(super) struct Adapter {
    name: &'static str,
    input: ImageShape,
    classes: usize,
    passes: Passes,
    device: Device,
    stages: Vec<Stage>,
}

impl fmt::Debug for Adapter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, input, classes, passes, device, stages } = self;
        write!(
            formatter,
            "Adapter({name}, {input}, {classes} classes, {passes:?}, {} stages, {device:?})",
            stages.len()
        )
    }
}

impl Adapter {
    /// Builds a network from published weights. Its classes are as many as the weights have, where the family allows it.
    pub(super) fn build(
        family: &Family,
        variant: &Variant,
        weights: &Weights,
        device: &Device,
    ) -> Result<Self, VisionError> {
        let classes = family.classes.or_else(|| weights.outputs(family.head)).unwrap_or(CLASSES);
        let source = Source::new(weights, device, family.spelling, variant.lacks);
        let stages = (variant.make)(source.builder(), classes);
        let stages = source.judge(stages)?;
        let input = ImageShape::new(3, variant.side, variant.side);
        Ok(Self { name: variant.name, input, classes, passes: family.passes, device: device.clone(), stages })
    }

    fn pass(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Tensor, VisionError> {
        let mut value = input.clone();
        for stage in &self.stages {
            stop.check()?;
            value = stage(&value)?;
        }
        if value.dims() != [input.dim(0)?, self.classes] {
            let reason = format!("it gives {:?}, expected {} numbers for each image", value.dims(), self.classes);
            return Err(broken(self.name, &reason));
        }
        Ok(value)
    }
}

impl Network for Adapter {
    fn input(&self) -> ImageShape {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    /// `stop` is asked before each stage: between the blocks of a ViT, and before the pass of a network that
    /// candle-transformers hands out in one piece. Where images go through one by one, it is asked before each.
    fn forward(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Heads, VisionError> {
        // What the borrowed code would do with another shape is its own affair, and may be a panic.
        check_batch(self.input, input)?;
        let input = input.to_device(&self.device)?.contiguous()?;
        let logits = match self.passes {
            Passes::Whole => self.pass(&input, stop)?,
            Passes::Single => {
                let images = input.dim(0)?;
                let rows = (0..images).map(|image| self.pass(&input.narrow(0, image, 1)?.contiguous()?, stop));
                Tensor::cat(&rows.collect::<Result<Vec<_>, _>>()?, 0)?
            }
        };
        // Fetching it waits for the GPU; on the processor it is there.
        Ok(Heads::Classes(logits.to_device(&Device::Cpu)?))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    use candle_core::DType;

    use super::*;
    use crate::zoo::Architecture;

    /// Weights for a network, all of one small number.
    fn weights(architecture: &str) -> HashMap<String, Tensor> {
        let asked = Arc::new(Mutex::new(HashMap::new()));
        let notes = asked.clone();
        let made = Weights::made_by("a test", move |name, shape| {
            let tensor = Tensor::full(0.01f32, shape, &Device::Cpu).unwrap();
            let values = tensor.flatten_all().unwrap().to_vec1().unwrap();
            notes.lock().unwrap().insert(name.to_owned(), tensor);
            Some(values)
        });
        build(architecture, &made).unwrap();
        let asked = asked.lock().unwrap();
        asked.clone()
    }

    fn build(architecture: &str, weights: &Weights) -> Result<Box<dyn Network>, VisionError> {
        architecture.parse::<Architecture>().unwrap().build(weights, &Device::Cpu)
    }

    fn built(architecture: &str, tensors: HashMap<String, Tensor>) -> Result<Box<dyn Network>, VisionError> {
        build(architecture, &Weights::from_tensors("a test", tensors))
    }

    fn zeros(shape: &[usize]) -> Tensor {
        Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_tensor_that_is_missing_misshapen_or_too_much_is_named() {
        let whole = weights("convnext_atto");
        // The first three are read where they are there: without them the network would run, and be wrong.
        for name in ["stages.2.blocks.3.gamma", "stages.2.blocks.3.mlp.fc2.bias", "head.fc.weight", "stem.0.weight"] {
            let mut less = whole.clone();
            less.remove(name).unwrap();
            let error = built("convnext_atto", less).unwrap_err();
            assert!(matches!(&error, VisionError::MissingTensor { tensor, .. } if tensor == name), "{error}");
            let mut wrong = whole.clone();
            wrong.insert(name.to_owned(), zeros(&[3, 2]));
            let error = built("convnext_atto", wrong).unwrap_err();
            assert!(matches!(&error, VisionError::TensorShape { tensor, .. } if tensor == name), "{error}");
        }
        let mut more = whole;
        more.insert("stages.2.blocks.6.gamma".to_owned(), zeros(&[160]));
        let error = built("convnext_atto", more).unwrap_err();
        assert_eq!(error.to_string(), "a test has a tensor `stages.2.blocks.6.gamma`, which the architecture does not");
    }

    #[test]
    fn branches_that_may_be_absent_elsewhere_are_missed_where_they_belong() {
        for (architecture, name) in [
            ("mobilenetv4_conv_small", "blocks.2.0.dw_start.bn.weight"),
            ("repvgg_a0", "stages.0.1.identity.weight"),
            ("fastvit_t8", "stages.1.downsample.proj.0.large_conv.conv.weight"),
            ("fastvit_t8", "final_conv.se.fc1.weight"),
            ("vit_tiny_patch16_224", "blocks.11.attn.qkv.bias"),
        ] {
            let mut less = weights(architecture);
            less.remove(name).unwrap_or_else(|| panic!("{architecture} has no {name}"));
            let error = built(architecture, less).unwrap_err();
            assert!(matches!(&error, VisionError::MissingTensor { tensor, .. } if tensor == name), "{error}");
        }
    }

    #[test]
    fn there_are_as_many_classes_as_the_head_has_rows() {
        let mut tuned = weights("vit_tiny_patch16_224");
        tuned.insert("head.weight".to_owned(), zeros(&[7, 192]));
        tuned.insert("head.bias".to_owned(), zeros(&[7]));
        let network = built("vit_tiny_patch16_224", tuned.clone()).unwrap();
        assert_eq!((network.classes(), network.input()), (7, ImageShape::new(3, 224, 224)));
        let Heads::Classes(logits) = network.forward(&zeros(&[2, 3, 224, 224]), &Stop::never()).unwrap() else {
            panic!("a classifier")
        };
        assert_eq!(logits.dims(), [2, 7]);
        for rows in [0, 3] {
            tuned.insert("head.weight".to_owned(), zeros(&[rows, 192]));
            built("vit_tiny_patch16_224", tuned.clone()).unwrap_err();
        }
    }

    #[test]
    fn it_stops_between_blocks_and_refuses_other_shapes() {
        let network = built("vit_tiny_patch16_224", weights("vit_tiny_patch16_224")).unwrap();
        let asked = Cell::new(0);
        let question = || {
            asked.set(asked.get() + 1);
            asked.get() > 3
        };
        let result = network.forward(&zeros(&[1, 3, 224, 224]), &Stop::when(&question));
        assert!(matches!(result, Err(VisionError::Stopped)), "{result:?}");
        assert_eq!(asked.get(), 4, "the embedding and two blocks have run");
        for shape in [[1, 3, 224, 223], [0, 3, 224, 224], [1, 1, 224, 224], [1, 3, 448, 448]] {
            let result = network.forward(&zeros(&shape), &Stop::never());
            assert!(matches!(result, Err(VisionError::Input { .. })), "{result:?}");
        }
    }
}
