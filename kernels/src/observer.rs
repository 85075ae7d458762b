//! What numbers flow through a graph: how far apart they lie decides what a byte stands for.

use crate::error::KernelError;
use crate::graph::{Graph, Value};
use crate::plan::{Plan, PlanOptions};
use crate::quantised::Range;

/// Of so many numbers of an image one is cut off at each end: a few that lie far out would make the steps of all others coarse.
/// With none cut off, twice as much is lost (measured with MobileNetV2, SqueezeNet and YOLOX-nano); with one of a thousand, more.
const OUTLIERS: usize = 10_000;

/// Runs a graph of f32 and keeps the range of every value.
#[derive(Debug)]
pub struct Observer {
    plan: Plan,
    results: Vec<Vec<f32>>,
    ranges: Vec<Range>,
}

impl Observer {
    /// With so many threads. All values lie beside each other in memory.
    pub fn new(graph: &Graph<'_>, threads: usize) -> Result<Self, KernelError> {
        let mut graph = graph.clone();
        let values: Vec<Value> = (0..graph.shapes.len()).map(Value).collect();
        graph.set_outputs(&values)?;
        let plan = Plan::new(&graph, &PlanOptions { threads, ..PlanOptions::default() })?;
        let results = plan.outputs().map(|shape| vec![0.0; shape.elements()]).collect();
        Ok(Self { plan, results, ranges: vec![[f32::INFINITY, f32::NEG_INFINITY]; values.len()] })
    }

    /// Runs one image, `[C, H, W]`; `stop` is asked before each step.
    pub fn observe(&mut self, image: &[f32], stop: &mut dyn FnMut() -> bool) -> Result<(), KernelError> {
        let mut outputs: Vec<&mut [f32]> = self.results.iter_mut().map(Vec::as_mut_slice).collect();
        self.plan.run_until(image, &mut outputs, stop)?;
        for ([low, high], result) in self.ranges.iter_mut().zip(&mut self.results) {
            // A NaN stays, so that it is noticed: no grid has one.
            if low.is_nan() || result.iter().any(|number| number.is_nan()) {
                (*low, *high) = (f32::NAN, f32::NAN);
                continue;
            }
            let (beyond, last) = (result.len() / OUTLIERS, result.len() - 1);
            *low = low.min(*result.select_nth_unstable_by(beyond, f32::total_cmp).1);
            *high = high.max(*result.select_nth_unstable_by(last - beyond, f32::total_cmp).1);
        }
        Ok(())
    }

    /// The lowest and the highest number of each value, but for its outliers, in the order in which values were made, the input
    /// first.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }
}
