//! The last layer with weights of a classifier: what is trained anew, when its other layers already know what pictures are
//! made of.
//!
//! A network is cut before that layer. What comes before makes features of a picture, and stays as it is; the rest, which is
//! a fully connected layer, or a convolution with its activation and mean, is built again for other classes.

use candle_core::{DType, Device, Tensor, Var};
use rand::Rng;

use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::{Graph, Step};
use crate::layers::{Activation, Layer};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// How far from 0 first weights lie: a deviation of 0.01, as torchvision begins such layers. Features are large numbers, and
/// what larger weights make of them at random would have to be unlearned from few pictures.
const SPREAD: f32 = 0.0173;

/// A classifier from its last layer with weights on.
#[derive(Debug)]
pub(crate) struct Head {
    /// The layer, and what follows it.
    steps: Vec<Step>,
    /// Shape of what the layer reads.
    features: ImageShape,
}

impl Head {
    /// Cuts a classifier in two: what makes its features, and its head. Fails when the head is of a kind that is not
    /// trained here.
    pub(crate) fn cut(graph: &Graph) -> Result<(Graph, Self), VisionError> {
        let has_weights = |step: &Step| matches!(step.layer, Layer::Convolution(_) | Layer::Linear(_));
        let place = graph.steps().iter().rposition(has_weights);
        let place = place.ok_or_else(|| VisionError::Training("the network has no layer with weights".to_owned()))?;
        let steps = graph.steps()[place..].to_vec();
        let features = graph.before(&steps[0].name)?;
        let head = Self { steps, features: features.output() };
        for (place, step) in head.steps.iter().enumerate() {
            let known = match &step.layer {
                Layer::Convolution(layer) => place == 0 && layer.groups == 1 && layer.dilation == 1,
                Layer::Linear(_) => place == 0,
                Layer::Activation(Activation::Relu) | Layer::GlobalAveragePool => true,
                _ => false,
            };
            // Each reads what the one before it gives, or the head is no chain.
            if !known || (place > 0 && step.inputs[..] != [head.steps[place - 1].output]) {
                let (kind, name) = (step.layer.kind(), &step.name);
                return Err(VisionError::Training(format!("a head with the {kind} `{name}` cannot be trained")));
            }
        }
        Ok((features, head))
    }

    /// First weights for so many classes, by their tensors' names; biases start at 0.
    pub(crate) fn first_weights(
        &self,
        classes: usize,
        random: &mut impl Rng,
    ) -> Result<Vec<(String, Var)>, VisionError> {
        let name = &self.steps[0].name;
        let shape = match &self.steps[0].layer {
            Layer::Convolution(layer) => {
                let [height, width] = layer.window.kernel;
                vec![classes, self.features.channels, height, width]
            }
            _ => vec![classes, self.features.elements()],
        };
        let inputs: usize = shape[1..].iter().product();
        let values: Vec<f32> = (0..classes * inputs).map(|_| random.random_range(-SPREAD..SPREAD)).collect();
        let weight = Tensor::from_vec(values, shape, &Device::Cpu)?;
        let bias = Tensor::zeros(classes, DType::F32, &Device::Cpu)?;
        Ok(vec![
            (format!("{name}.weight"), Var::from_tensor(&weight)?),
            (format!("{name}.bias"), Var::from_tensor(&bias)?),
        ])
    }

    /// The head as a network of its own: features in, logits out.
    pub(crate) fn build(&self, weights: &Weights) -> Result<Graph, VisionError> {
        let mut net = GraphBuilder::new(weights, &Device::Cpu, self.features);
        let mut value = net.input();
        for Step { name, layer, .. } in &self.steps {
            let classes = net.classes(name, 0);
            value = match layer {
                Layer::Convolution(layer) => net.convolution(name, value, classes, layer.window)?,
                Layer::Linear(_) => net.linear(name, value, classes)?,
                Layer::GlobalAveragePool => net.global_average_pool(name, value),
                _ => net.relu(value),
            };
        }
        net.finish()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::D;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::stop::Stop;
    use crate::zoo::Architecture;

    /// The zoo's own classifiers: cut in two and run one after the other, they are what they were.
    #[test]
    fn every_classifier_of_the_zoo_is_its_features_and_its_head() {
        use Architecture::{Resnet101, Resnet152, Vgg13, Vgg16, Vgg19};
        // Their heads are those of smaller ones.
        let large = [Resnet101, Resnet152, Vgg13, Vgg16, Vgg19];
        let classifiers = Architecture::OWN.into_iter().filter(|architecture| !architecture.is_detector());
        for architecture in classifiers.filter(|architecture| !large.contains(architecture)) {
            let weights = Weights::made_by("a formula", |name, shape| {
                let count: usize = shape.iter().product();
                let inputs: usize = shape.iter().skip(1).product();
                let wave =
                    |place: usize| (place as f32 * 0.37 + name.len() as f32).sin() * (3.0 / inputs as f32).sqrt();
                Some((0..count).map(|place| if shape.len() == 1 { 1.0 } else { wave(place) }).collect())
            });
            let network = architecture.classifier(&weights, &Device::Cpu).unwrap();
            let (features, head) = Head::cut(network.graph()).unwrap();
            let ImageShape { channels, height, width } = network.graph().input();
            let picture = Tensor::arange(0f32, (channels * height * width) as f32, &Device::Cpu).unwrap();
            let picture = picture.sin().unwrap().reshape((1, channels, height, width)).unwrap();
            let whole = network.logits(&picture, &Stop::never()).unwrap();
            let named = head.first_weights(network.graph().output().channels, &mut StdRng::seed_from_u64(1)).unwrap();
            // With the network's own head in place of first weights.
            let own = named.into_iter().map(|(name, first)| {
                let tensor = weights.tensor(&name, first.dims(), &Device::Cpu).unwrap();
                (name, tensor)
            });
            let own = head.build(&Weights::from_tensors("its own", own)).unwrap();
            let between = features.run(&picture, &Stop::never()).unwrap();
            // What a fully connected layer gives has two dimensions only.
            let ImageShape { channels, height, width } = features.output();
            let between = between.reshape((1, channels, height, width)).unwrap();
            let parts = own.run(&between, &Stop::never()).unwrap().flatten_from(1).unwrap();
            let worst = (parts - &whole).unwrap().abs().unwrap().max(D::Minus1).unwrap().to_vec1::<f32>().unwrap()[0];
            let largest = whole.abs().unwrap().max(D::Minus1).unwrap().to_vec1::<f32>().unwrap()[0];
            assert!(worst <= 1e-5 * largest, "{architecture}: {worst} of {largest}");
        }
    }
}
