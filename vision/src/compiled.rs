//! A network whose layers were compiled into fused kernels: to its callers what it was before, several times as fast on a
//! processor (`docs/benchmarks.md`).
//!
//! The network that it was made of stays what it is: whoever wants to walk, train or check its layers has it built for that.

use std::time::Duration;

use adit_kernels::{Isa, Range, StepTime};
use candle_core::Tensor;

use crate::error::VisionError;
use crate::graph::{Graph, broken};
use crate::network::{Decoder, Heads, Network};
use crate::plans::Plans;
use crate::regions::Regions;
use crate::shape::ImageShape;
use crate::stop::Stop;

/// A compiled network. It holds the weights in the kernels' order alone.
#[derive(Debug)]
pub struct Compiled {
    plans: Plans,
    isa: Isa,
    /// How its outputs are read; nothing for a classifier.
    decoder: Option<Decoder>,
    /// What looks at regions of its outputs, where it has two stages.
    regions: Option<Regions<Plans>>,
}

impl Compiled {
    /// Of a classifier's graph.
    pub(crate) fn classifier(graph: &Graph) -> Result<Self, VisionError> {
        Ok(Self { plans: Plans::of(graph)?, isa: Isa::best(), decoder: None, regions: None })
    }

    /// Of a detector's graph, with how it is read, and its second stage.
    pub(crate) fn detector(
        graph: &Graph,
        decoder: Decoder,
        regions: Option<&Regions<Graph>>,
    ) -> Result<Self, VisionError> {
        let Some(Regions { gather, head }) = regions else {
            return Ok(Self { plans: Plans::of(graph)?, isa: Isa::best(), decoder: Some(decoder), regions: None });
        };
        // Regions are looked at image by image, and pictures that are large enough for two stages take hundreds of megabytes each.
        let plans = Plans::with_room(graph, 1)?;
        let regions = Regions { gather: *gather, head: Plans::with_room(head, 1)? };
        Ok(Self { plans, isa: Isa::best(), decoder: Some(decoder), regions: Some(regions) })
    }

    /// Of a graph with these ranges, on bytes; `decoder` is nothing for a classifier.
    pub(crate) fn quantised(graph: &Graph, decoder: Option<Decoder>, ranges: &[Range]) -> Result<Self, VisionError> {
        Ok(Self { plans: Plans::quantised(graph, ranges)?, isa: Isa::best(), decoder, regions: None })
    }

    /// What the layers give, not yet interpreted: `[N, C, H, W]` for each output of the graph, in the processor's memory.
    pub fn outputs(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Vec<Tensor>, VisionError> {
        self.plans.run(input, stop)
    }

    /// Runs a pass of the layers and tells how long each step took by `clock`, a monotonic one: for those who want to know where
    /// the time goes.
    pub fn profile(&self, input: &Tensor, clock: &mut dyn FnMut() -> Duration) -> Result<Vec<StepTime>, VisionError> {
        self.plans.profile(input, clock)
    }
}

impl Network for Compiled {
    fn input(&self) -> ImageShape {
        self.plans.input()
    }

    fn classes(&self) -> usize {
        match &self.decoder {
            Some(decoder) => decoder.classes,
            None => self.plans.outputs().last().map_or(0, |output| output.channels),
        }
    }

    fn forward(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Heads, VisionError> {
        let mut outputs = self.outputs(input, stop)?;
        match (&self.decoder, &self.regions) {
            (Some(decoder), None) => return decoder.read(&outputs, self.input()),
            (Some(decoder), Some(regions)) => {
                return regions.read(&outputs, self.input(), decoder, |head, batch| head.run(batch, stop));
            }
            (None, _) => {}
        }
        let logits = outputs.pop().ok_or_else(|| broken("graph", "it has no outputs"))?;
        Ok(Heads::Classes(logits.flatten_from(1)?))
    }

    fn kernels(&self) -> Option<Isa> {
        Some(self.isa)
    }

    fn weight_bytes(&self) -> Option<usize> {
        let regions = self.regions.as_ref().map_or(0, |regions| regions.head.weight_bytes());
        Some(self.plans.weight_bytes() + regions)
    }
}
