//! What every network is to its caller: images in, heads out.

use std::fmt::Debug;

use candle_core::{DType, Tensor};

use crate::boxes::Candidates;
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
    /// What a detector sees in each of N images.
    Boxes(Vec<Candidates>),
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

/// What a network says on one level of a detector, for one image: `[C, H, W]`, row-major.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) shape: ImageShape,
}

impl Level<'_> {
    /// One number of a cell, the cells counted row by row.
    pub(crate) fn at(&self, channel: usize, cell: usize) -> f32 {
        self.values[channel * self.shape.height * self.shape.width + cell]
    }
}

/// How a detector's numbers are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoder {
    /// Number of classes, a background class among them.
    pub(crate) classes: usize,
    /// Makes boxes of all levels of one image; the second argument is the shape of the network's input.
    pub(crate) decode: fn(&[Level<'_>], ImageShape) -> Candidates,
}

/// A network whose graph ends in feature maps that state boxes.
#[derive(Debug, Clone)]
pub struct Detector {
    graph: Graph,
    decoder: Decoder,
}

impl Detector {
    pub(crate) fn new(graph: Graph, decoder: Decoder) -> Self {
        Self { graph, decoder }
    }

    /// The layers, for whoever wants to walk or compile them.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What the layers give, not yet read as boxes: `[N, C, H, W]` for each level, the finest first.
    pub fn levels(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Vec<Tensor>, VisionError> {
        self.graph.run_all(input, stop)
    }
}

impl Network for Detector {
    fn input(&self) -> ImageShape {
        self.graph.input()
    }

    fn classes(&self) -> usize {
        self.decoder.classes
    }

    fn forward(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Heads, VisionError> {
        let levels = self.levels(input, stop)?;
        let mut maps = Vec::with_capacity(levels.len());
        for level in &levels {
            let (_, channels, height, width) = level.dims4()?;
            let values = level.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            maps.push((values, ImageShape { channels, height, width }));
        }
        let image = |number: usize| {
            let mut parts = Vec::with_capacity(maps.len());
            for (values, shape) in &maps {
                let elements = shape.elements();
                parts.push(Level { values: &values[number * elements..(number + 1) * elements], shape: *shape });
            }
            (self.decoder.decode)(&parts, self.input())
        };
        Ok(Heads::Boxes((0..input.dim(0)?).map(image).collect()))
    }
}
