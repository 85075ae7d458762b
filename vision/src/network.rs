//! What every network is to its caller: images in, heads out.

use std::fmt::Debug;

use adit_kernels::Isa;
use candle_core::{DType, Device, Tensor};

use crate::boxes::Candidates;
use crate::compiled::Compiled;
use crate::error::VisionError;
use crate::graph::Graph;
use crate::precision::Precision;
use crate::regions::{Gather, Regions};
use crate::shape::ImageShape;
use crate::stop::Stop;

/// A built network: layers with their weights on a device.
pub trait Network: Send + Sync + Debug {
    /// Shape of one input image.
    fn input(&self) -> ImageShape;

    /// Number of classes that it tells apart.
    fn classes(&self) -> usize;

    /// Runs a batch: `[N, C, H, W]` f32, N > 0, prepared as the network was trained. `stop` is asked between layers;
    /// when it answers true the result is [`VisionError::Stopped`]. What it gives is there: a GPU has come to the end of the
    /// pass, and tensors lie in the processor's memory.
    fn forward(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Heads, VisionError>;

    /// The instructions of the fused kernels that run its layers; nothing where candle's operations do.
    fn kernels(&self) -> Option<Isa> {
        None
    }

    /// Bytes that its weights take in memory, where that is not what they take as they are stored.
    fn weight_bytes(&self) -> Option<usize> {
        None
    }
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

impl Heads {
    /// What belongs to each part of a batch, when the parts have so many images, in order. Fails unless they are all of the
    /// batch's.
    pub fn split(self, images: &[usize]) -> Result<Vec<Self>, VisionError> {
        let there = match &self {
            Self::Classes(logits) => logits.dim(0)?,
            Self::Boxes(boxes) => boxes.len(),
        };
        if there != images.iter().sum::<usize>() {
            return Err(VisionError::Parts { images: there, parts: images.to_vec() });
        }
        if images.len() == 1 {
            return Ok(vec![self]);
        }
        match self {
            Self::Classes(logits) => {
                let mut from = 0;
                let part = |count: &usize| {
                    from += count;
                    Ok(Self::Classes(logits.narrow(0, from - count, *count)?))
                };
                images.iter().map(part).collect()
            }
            Self::Boxes(boxes) => {
                let mut boxes = boxes.into_iter();
                Ok(images.iter().map(|count| Self::Boxes(boxes.by_ref().take(*count).collect())).collect())
            }
        }
    }
}

/// One batch `[N1 + N2 + ..., C, H, W]` of inputs `[N1, C, H, W]`, `[N2, C, H, W]`, ...; of a single one, itself.
pub fn join(inputs: &[Tensor]) -> Result<Tensor, VisionError> {
    match inputs {
        [input] => Ok(input.clone()),
        inputs => Ok(Tensor::cat(inputs, 0)?),
    }
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

    /// As [`Graph::in_precision`].
    pub fn in_precision(self, precision: Precision) -> Result<Self, VisionError> {
        Ok(Self { graph: self.graph.in_precision(precision)? })
    }

    /// The layers, for whoever wants to walk them.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The same classifier, run by fused kernels on the processor, in f32.
    pub fn compile(&self) -> Result<Compiled, VisionError> {
        Compiled::classifier(&self.graph)
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
        // Fetching it waits for the GPU; on the processor it is there.
        Ok(Heads::Classes(self.logits(input, stop)?.to_device(&Device::Cpu)?))
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

impl Decoder {
    /// Makes boxes of levels `[N, C, H, W]`, the finest first; `input` is the shape of the network's input.
    pub(crate) fn read(&self, levels: &[Tensor], input: ImageShape) -> Result<Heads, VisionError> {
        let mut maps = Vec::with_capacity(levels.len());
        for level in levels {
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
            (self.decode)(&parts, input)
        };
        let images = levels.first().map_or(Ok(0), |level| level.dim(0))?;
        Ok(Heads::Boxes((0..images).map(image).collect()))
    }
}

/// A network whose graph ends in feature maps that state boxes.
#[derive(Debug, Clone)]
pub struct Detector {
    graph: Graph,
    decoder: Decoder,
    /// What looks at regions of its levels, where it has two stages.
    regions: Option<Regions<Graph>>,
}

impl Detector {
    pub(crate) fn new(graph: Graph, decoder: Decoder) -> Self {
        Self { graph, decoder, regions: None }
    }

    /// With a second stage: `head` looks at what `gather` makes of the levels, and what it gives is decoded.
    pub(crate) fn looking_closer(self, gather: Gather, head: Graph) -> Self {
        Self { regions: Some(Regions { gather, head }), ..self }
    }

    /// As [`Graph::in_precision`].
    pub fn in_precision(self, precision: Precision) -> Result<Self, VisionError> {
        let regions = self.regions.map(|regions| regions.try_map(|head| head.in_precision(precision))).transpose()?;
        Ok(Self { graph: self.graph.in_precision(precision)?, regions, ..self })
    }

    /// The layers, for whoever wants to walk them; of two stages those of the first.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The same detector, run by fused kernels on the processor, in f32.
    pub fn compile(&self) -> Result<Compiled, VisionError> {
        Compiled::detector(&self.graph, self.decoder, self.regions.as_ref())
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
        match &self.regions {
            None => self.decoder.read(&levels, self.input()),
            Some(regions) => {
                regions.read(&levels, self.input(), &self.decoder, |head, batch| head.run_all(batch, stop))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_joined_and_split_again() {
        let row = |value: f32| Tensor::full(value, (1, 1, 1, 2), &Device::Cpu).unwrap();
        let two = join(&[row(1.), row(2.)]).unwrap();
        let three = join(&[two, row(3.)]).unwrap();
        assert_eq!(three.dims(), [3, 1, 1, 2]);
        let logits = three.reshape((3, 2)).unwrap();
        let parts = Heads::Classes(logits.clone()).split(&[2, 1]).unwrap();
        let read = |heads: &Heads| match heads {
            Heads::Classes(logits) => logits.to_vec2::<f32>().unwrap(),
            Heads::Boxes(_) => panic!("no classes"),
        };
        assert_eq!(read(&parts[0]), [[1., 1.], [2., 2.]]);
        assert_eq!(read(&parts[1]), [[3., 3.]]);
        let error = Heads::Classes(logits).split(&[2, 2]).unwrap_err().to_string();
        assert_eq!(error, "the network answered for 3 images, and was asked for parts of [2, 2]");

        let seen = |score: f32| Candidates { corners: vec![[0.; 4]], scores: vec![score], classes: 1 };
        let parts = Heads::Boxes(vec![seen(0.1), seen(0.2), seen(0.3)]).split(&[1, 2]).unwrap();
        let scores = |heads: &Heads| match heads {
            Heads::Boxes(boxes) => boxes.iter().map(|image| image.scores[0]).collect::<Vec<_>>(),
            Heads::Classes(_) => panic!("no boxes"),
        };
        assert_eq!((scores(&parts[0]), scores(&parts[1])), (vec![0.1], vec![0.2, 0.3]));
    }
}
