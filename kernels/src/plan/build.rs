//! From stages to steps.

use std::collections::HashMap;

use crate::error::KernelError;
use crate::graph::{Convolution, Graph, Operation, Value};
use crate::inner::bytes::table::ByteKernels;
use crate::inner::finish::Finish;
use crate::inner::table::Kernels;
use crate::plan::choice::Choice;
use crate::plan::network::PlanOptions;
use crate::plan::placing::{Place, Placing, Task, is_depthwise};
use crate::plan::stages::Stage;
use crate::plan::transfer::{Inlet, Outlet};
use crate::plan::tuning::{Alike, Chosen, Clock, quickest};
use crate::steps::bytes::carried::{Carried, Way};
use crate::steps::bytes::convolution::ByteConvolution;
use crate::steps::bytes::layer::ByteLayer;
use crate::steps::bytes::pool::BytePool;
use crate::steps::channels::Channels;
use crate::steps::depthwise::Depthwise;
use crate::steps::elementwise::Elementwise;
use crate::steps::layer::Layer;
use crate::steps::linear::Linear;
use crate::steps::pool::{GlobalMean, Pool};
use crate::steps::regroup::Regroup;
use crate::steps::scale::Scale;
use crate::steps::step::{Room, Step};
use crate::steps::upsample::Upsample;
use crate::steps::view::View;
use crate::threads;

/// Output blocks at a time of a convolution of bytes.
const BLOCKS: usize = 2;

/// A network ready to run, without the memory that a run needs.
#[derive(Debug)]
pub(crate) struct Program {
    /// What has to be made zero before the input is carried in.
    pub(crate) borders: Vec<View>,
    pub(crate) inlets: Vec<Inlet>,
    pub(crate) steps: Vec<Named>,
    pub(crate) outlets: Vec<Outlet>,
    pub(crate) choices: Vec<Choice>,
    /// Elements of an image's part of the arena, of the scratch memory, and of each thread's own.
    pub(crate) image: usize,
    pub(crate) scratch: usize,
    pub(crate) local: usize,
    /// Most images in a pass.
    pub(crate) batch: usize,
}

/// A step with what is to be told of it.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) step: Step,
    /// What has to be made zero before it: another value may have lain there.
    pub(crate) borders: Vec<View>,
    pub(crate) name: String,
    pub(crate) multiplications: usize,
}

/// Makes a program: places, then steps.
pub(crate) fn build(
    graph: &Graph<'_>,
    options: &PlanOptions,
    pool: &mut threads::Pool,
    clock: Option<Clock<'_>>,
) -> Result<Program, KernelError> {
    if graph.outputs.is_empty() {
        return Err(KernelError::NoOutputs);
    }
    if let Some(output) = graph.outputs.iter().find(|output| graph.grid(**output).is_some()) {
        let shape = graph.shapes[output.0];
        return Err(KernelError::Misfit { node: "graph", shape, reason: "its output is of bytes" });
    }
    let kernels = Kernels::of(options.isa).ok_or(KernelError::Isa(options.isa))?;
    let placing = Placing::new(graph, kernels, options)?;
    Builder { placing, options, kernels, byte_kernels: ByteKernels::of(options.isa) }.program(pool, clock)
}

struct Builder<'a, 'w> {
    placing: Placing<'a, 'w>,
    options: &'a PlanOptions,
    kernels: &'static Kernels,
    byte_kernels: &'static ByteKernels,
}

impl Builder<'_, '_> {
    fn program(self, pool: &mut threads::Pool, mut clock: Option<Clock<'_>>) -> Result<Program, KernelError> {
        let Self { placing, options, .. } = &self;
        let batch = options.batch;
        let mut pinned = options.choices.as_ref().map(|choices| choices.iter());
        // Only who measures needs memory now; small numbers in it, because zeros or denormals may be quicker or slower.
        let elements = |elements: usize| if clock.is_some() { elements } else { 0 };
        let mut room = Room::new(elements(placing.layout.elements), 0, elements(placing.local), pool.threads())?;
        room.hold(batch)?;
        for (place, element) in room.arena.elements_mut().iter_mut().enumerate() {
            *element = (place % 7) as f32 * 0.1 - 0.3;
        }
        let mut measured: HashMap<Alike, Choice> = HashMap::new();
        let (mut steps, mut choices): (Vec<Named>, Vec<Choice>) = (Vec::new(), Vec::new());
        for (place, task) in placing.tasks.iter().enumerate() {
            // The input is carried in before the first.
            let borders = placing.layout.dirty(place + 1);
            let stage = match task {
                Task::Copy { from, to } if placing.view(to).pixel != self.kernels.lanes => {
                    let step = Carried::new(placing.view(from), placing.view(to), Way::Copy, self.byte_kernels)?;
                    let (step, name) = (Step::Carried(step), "copy".to_owned());
                    steps.push(Named { step, borders, name, multiplications: 0 });
                    continue;
                }
                Task::Copy { from, to } => {
                    let finish = Finish::new(Default::default(), Default::default());
                    let step = Elementwise::new(placing.view(from), None, placing.view(to), finish, self.kernels)?;
                    let (step, name) = (Step::Elementwise(step), "copy".to_owned());
                    steps.push(Named { step, borders, name, multiplications: 0 });
                    continue;
                }
                Task::Regroup { from, to } => {
                    let (from, to) = ((placing.view(from), &from.channels), (placing.view(to), &to.channels));
                    let step = Step::Regroup(Regroup::channels(from, to)?);
                    steps.push(Named { step, borders, name: "regroup".to_owned(), multiplications: 0 });
                    continue;
                }
                Task::Stage(stage) => stage,
            };
            let Some(chosen) = self.chosen(stage) else {
                steps.push(self.named(stage, self.fixed(stage)?, borders));
                continue;
            };
            let ways = chosen.ways(options);
            let choice = match (&mut pinned, &mut clock) {
                (Some(pinned), _) => {
                    let place = choices.len();
                    let choice = *pinned.next().ok_or(KernelError::Choices { expected: place + 1, found: place })?;
                    if !ways.contains(&choice) {
                        return Err(KernelError::Choice { place, choice: choice.to_string() });
                    }
                    choice
                }
                (None, Some(clock)) => match measured.get(&chosen.alike()) {
                    Some(choice) => *choice,
                    None => {
                        let step = |choice| chosen.step(choice, batch, false);
                        let quickest = quickest(&ways, step, batch, &mut room, pool, clock)?;
                        let choice = quickest.unwrap_or_else(|| chosen.by_rule(options));
                        measured.insert(chosen.alike(), choice);
                        choice
                    }
                },
                (None, None) => chosen.by_rule(options),
            };
            choices.push(choice);
            steps.push(self.named(stage, chosen.step(choice, batch, true)?, borders));
        }
        if let Some(left) = pinned.map(Iterator::count).filter(|left| *left > 0) {
            return Err(KernelError::Choices { expected: choices.len(), found: choices.len() + left });
        }
        let input = placing.shape(placing.graph.input());
        let planar = placing.planar.map(|buffer| Inlet::planar(input, placing.layout.view(buffer, 0, input.channels)));
        let blocked = placing.places.get(&placing.graph.input());
        let blocked = blocked.map(|place| Inlet::blocked(input, placing.view(place), self.kernels.lanes));
        let outlet = |output: &Value| {
            let place = &placing.places[&placing.root(*output)];
            Outlet::new(placing.shape(*output), placing.view(place), &place.channels)
        };
        Ok(Program {
            borders: placing.layout.dirty(0),
            inlets: planar.into_iter().chain(blocked).collect(),
            outlets: placing.graph.outputs.iter().map(outlet).collect(),
            scratch: steps.iter().map(|named| named.step.scratch()).max().unwrap_or(0),
            image: placing.layout.elements,
            local: placing.local,
            steps,
            choices,
            batch,
        })
    }

    fn named(&self, stage: &Stage, step: Step, borders: Vec<View>) -> Named {
        let (name, multiplications) = self.told(stage);
        match self.placing.between.get(&stage.node) {
            Some(between) => {
                let (first, before) = self.told(&between.first);
                let (name, multiplications) = (format!("{first}; {name}"), before + multiplications);
                Named { step, borders, name, multiplications }
            }
            None => Named { step, borders, name, multiplications },
        }
    }

    /// What a stage is called, and how much it multiplies.
    fn told(&self, stage: &Stage) -> (String, usize) {
        let node = &self.placing.graph.nodes[stage.node];
        let (from, to) = (self.placing.shape(node.inputs[0]), self.placing.shape(stage.output()));
        match &node.operation {
            Operation::Convolution(Convolution { window, groups, weight, .. }) => {
                let [height, width] = window.kernel;
                let groups = if *groups > 1 { format!(" in {groups} groups") } else { String::new() };
                let name = format!("convolution {height}x{width} / {} of {from}, to {to}{groups}", window.stride[0]);
                (name, weight.len() * to.height * to.width)
            }
            Operation::Linear(linear) => (format!("linear of {from}, to {to}"), linear.weight.len()),
            operation => (format!("{} of {from}, to {to}", operation.name()), 0),
        }
    }

    /// What is to be chosen for a stage: how a convolution over all channels of its groups is computed, alone or with the depthwise
    /// one after it.
    fn chosen(&self, stage: &Stage) -> Option<Chosen<'_>> {
        let convolution = |stage: &Stage| match &self.placing.graph.nodes[stage.node].operation {
            Operation::Convolution(convolution) => Some(*convolution),
            _ => None,
        };
        if let Some(between) = self.placing.between.get(&stage.node) {
            let first = convolution(&between.first)?;
            let view = between.view(first.outputs.div_ceil(self.kernels.lanes));
            let first = self.layer(&between.first, &first, [None, Some(view)]);
            if let Operation::Pool(pool) = &self.placing.graph.nodes[stage.node].operation {
                let to = self.placing.view(&self.placing.places[&stage.output()]);
                return Some(Chosen::Pooled(Box::new(first), *pool, to, between.rows()));
            }
            let second = convolution(stage)?;
            let layers = [first, self.layer(stage, &second, [Some(view), None])];
            return Some(Chosen::Pair(Box::new(layers), between.planes()));
        }
        let of_bytes = self.placing.graph.grid(self.placing.graph.nodes[stage.node].inputs[0]).is_some();
        let convolution = convolution(stage).filter(|convolution| !is_depthwise(convolution) && !of_bytes)?;
        Some(Chosen::One(Box::new(self.layer(stage, &convolution, [None; 2]))))
    }

    /// A convolution with its views, or with others where it is one of two that are computed together.
    fn layer<'c>(&self, stage: &Stage, convolution: &Convolution<'c>, [from, to]: [Option<View>; 2]) -> Layer<'c> {
        let placing = &self.placing;
        let value = placing.root(placing.graph.nodes[stage.node].inputs[0]);
        let plain = || Channels::plain(placing.shape(value).channels, self.kernels.lanes);
        let planar = placing.planar.filter(|_| placing.reads_planes(stage));
        let (from, channels) = match (from, planar) {
            (Some(view), _) => (view, plain()),
            (None, Some(buffer)) => (placing.layout.view(buffer, 0, placing.shape(value).channels), plain()),
            (None, None) => (placing.view(&placing.places[&value]), placing.places[&value].channels.clone()),
        };
        Layer {
            convolution: *convolution,
            from,
            channels,
            to: to.unwrap_or_else(|| placing.view(&placing.places[&stage.output()])),
            other: placing.others.get(&stage.node).map(|place| placing.view(place)),
            finish: Finish::new(stage.before, stage.after),
            kernels: self.kernels,
        }
    }

    /// The step of a stage that leaves no choice.
    fn fixed(&self, stage: &Stage) -> Result<Step, KernelError> {
        let node = &self.placing.graph.nodes[stage.node];
        let place = &self.placing.places[&self.placing.root(node.inputs[0])];
        let (from, to) = (self.placing.view(place), self.placing.view(&self.placing.places[&stage.output()]));
        let other = self.placing.others.get(&stage.node).map(|place| self.placing.view(place));
        let (graph, bytes) = (self.placing.graph, self.byte_kernels);
        let grid = graph.grid(node.inputs[0]);
        Ok(match (&node.operation, grid) {
            (Operation::Convolution(convolution), Some(grid)) => {
                let layer = ByteLayer {
                    layer: self.layer(stage, convolution, [None; 2]),
                    from: grid,
                    other: stage.other.and_then(|other| graph.grid(other)),
                    to: graph.grid(stage.output()),
                    kernels: bytes,
                };
                Step::Bytes(Box::new(ByteConvolution::new(&layer, BLOCKS)?))
            }
            (Operation::Pool(pool), Some(_)) => Step::BytePool(BytePool::new(from, to, pool, bytes)?),
            (Operation::Restore, Some(grid)) => Step::Carried(Carried::new(from, to, Way::Restore(grid), bytes)?),
            (Operation::Quantise, None) => {
                let grid = graph.grid(stage.output()).ok_or(KernelError::Bounds)?;
                Step::Carried(Carried::new(from, to, Way::Quantise(grid), bytes)?)
            }
            (operation, _) => self.plain(stage, operation, place, other)?,
        })
    }

    /// As [`Self::fixed`], of what reads f32 and gives f32.
    fn plain(
        &self,
        stage: &Stage,
        operation: &Operation<'_>,
        place: &Place,
        other: Option<View>,
    ) -> Result<Step, KernelError> {
        let (from, target, kernels) = (self.placing.view(place), &self.placing.places[&stage.output()], self.kernels);
        let to = self.placing.view(target);
        let finish = Finish::new(stage.before, stage.after);
        Ok(match operation {
            Operation::Convolution(convolution) => {
                Step::Depthwise(Depthwise::new(&self.layer(stage, convolution, [None; 2]))?)
            }
            Operation::Linear(layer) => {
                Step::Linear(Linear::new(layer, (from, &place.channels), to, other, finish, kernels)?)
            }
            Operation::Pool(pool) => Step::Pool(Pool::new(from, to, pool, kernels)?),
            Operation::Mean => Step::Mean(GlobalMean::new(from, to, kernels)?),
            Operation::Upsample(factor) => Step::Upsample(Upsample::new(from, to, *factor, kernels)?),
            Operation::Scale => Step::Scale(Scale::new(from, other.ok_or(KernelError::Bounds)?, to, kernels)?),
            Operation::Narrow { first, .. } => {
                Step::Regroup(Regroup::narrow((from, &place.channels), *first, (to, &target.channels))?)
            }
            Operation::Flatten => Step::Regroup(Regroup::flatten((from, &place.channels), (to, &target.channels))?),
            Operation::Activation(_) | Operation::Add | Operation::Concat => {
                Step::Elementwise(Elementwise::new(from, other, to, finish, kernels)?)
            }
            // Bytes on one side.
            Operation::Quantise | Operation::Restore => return Err(KernelError::Bounds),
        })
    }
}
