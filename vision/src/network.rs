//! What every network is to its caller: images in, heads out.

use std::fmt::Debug;

use candle_core::Tensor;

use crate::error::VisionError;
use crate::graph::Graph;
use crate::shape::ImageShape;
use crate::stop::Stop;

/// A built network: layers with their weights on a device.
pub trait Network: Send + Sync + Debug {
    /// Shape of one input image.
    fn input(&self) -> ImageShape;

    /// Number of classes that it tells apart.
    fn classes(&self) -> usize;

    /// Runs a batch: `[N, C, H, W]` f32, N > 0, prepared as the network was trained. `stop` is asked between layers;
    /// when it answers true the result is [`VisionError::Stopped`].
    fn forward(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Heads, VisionError>;
}

/// What comes out of a network, before anybody interprets it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Heads {
    /// A classifier's logits `[N, classes]`, f32: softmax makes them probabilities.
    Classes(Tensor),
}

/// A network whose graph ends in one number a class.
#[derive(Debug, Clone)]
pub struct Classifier {
    graph: Graph,
}

impl Classifier {
    /// A classifier from its graph, whose output must be `classes x 1 x 1`.
    pub fn new(graph: Graph) -> Result<Self, VisionError> {
        let output = graph.output();
        if (output.height, output.width) != (1, 1) {
            let reason = format!("a classifier gives one number a class, this graph gives {output}");
            return Err(VisionError::Layer { layer: "output".to_owned(), reason });
        }
        Ok(Self { graph })
    }

    /// The layers, for whoever wants to walk or compile them.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The logits alone, `[N, classes]`.
    pub fn logits(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Tensor, VisionError> {
        Ok(self.graph.run(input, stop)?.flatten_from(1)?)
    }
}

impl Network for Classifier {
    fn input(&self) -> ImageShape {
        self.graph.input()
    }

    fn classes(&self) -> usize {
        self.graph.output().channels
    }

    fn forward(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Heads, VisionError> {
        self.logits(input, stop).map(Heads::Classes)
    }
}
