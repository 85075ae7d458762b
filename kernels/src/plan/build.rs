//! From stages to steps.

use std::collections::HashMap;

use crate::error::KernelError;
use crate::graph::{Convolution, Graph, Operation, Value};
use crate::inner::finish::Finish;
use crate::inner::table::Kernels;
use crate::memory::Memory;
use crate::plan::choice::Choice;
use crate::plan::layout::{BufferId, Geometry, Layout};
use crate::plan::network::PlanOptions;
use crate::plan::stages::{Stage, roots, stages};
use crate::plan::transfer::{Inlet, Outlet};
use crate::plan::tuning::{Clock, by_rule, quickest, step, ways};
use crate::shape::{Padding, Shape, Window};
use crate::steps::channels::Channels;
use crate::steps::depthwise::Depthwise;
use crate::steps::elementwise::Elementwise;
use crate::steps::layer::Layer;
use crate::steps::linear::Linear;
use crate::steps::pool::{GlobalMean, Pool};
use crate::steps::regroup::Regroup;
use crate::steps::step::Step;
use crate::steps::upsample::Upsample;
use crate::threads;

/// Images of so few channels are read plane by plane: blocks of them would be mostly empty.
const PLANAR: usize = 4;

/// A network ready to run, without the memory that a run needs.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) inlets: Vec<Inlet>,
    pub(crate) steps: Vec<Named>,
    pub(crate) outlets: Vec<Outlet>,
    pub(crate) choices: Vec<Choice>,
    /// Elements of the arena and of the scratch memory.
    pub(crate) arena: usize,
    pub(crate) scratch: usize,
    /// Images that there is room for.
    pub(crate) batch: usize,
}

/// A step with what is to be told of it.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) step: Step,
    pub(crate) name: String,
    pub(crate) multiplications: usize,
}

/// What is run, before anything has a place in memory.
#[derive(Debug, Clone)]
enum Task {
    Stage(Stage),
    /// A part of a concatenation that could not be written in place.
    Copy {
        from: Place,
        to: Place,
    },
    /// A value whose channels lie otherwise than a reader needs.
    Regroup {
        from: Place,
        to: Place,
    },
}

/// Where a value is to lie.
#[derive(Debug, Clone)]
struct Place {
    buffer: BufferId,
    first: usize,
    channels: Channels,
}

struct Builder<'a, 'w> {
    graph: &'a Graph<'w>,
    kernels: &'static Kernels,
    roots: Vec<Value>,
    layout: Layout,
    /// Of each root that lies in blocks.
    places: HashMap<Value, Place>,
    /// The input, where it is read plane by plane.
    planar: Option<BufferId>,
    tasks: Vec<Task>,
    /// For each stage with a second operand, where that lies.
    others: HashMap<usize, Place>,
}

pub(crate) fn build(
    graph: &Graph<'_>,
    options: &PlanOptions,
    pool: &mut threads::Pool,
    clock: Option<Clock<'_>>,
) -> Result<Program, KernelError> {
    if graph.outputs.is_empty() {
        return Err(KernelError::NoOutputs);
    }
    let kernels = Kernels::of(options.isa).ok_or(KernelError::Isa(options.isa))?;
    let stages = stages(graph);
    let mut builder = Builder {
        graph,
        kernels,
        roots: roots(graph, &stages),
        layout: Layout::default(),
        places: HashMap::new(),
        planar: None,
        tasks: Vec::new(),
        others: HashMap::new(),
    };
    builder.assign(stages)?;
    builder.live();
    builder.layout.place(options.batch)?;
    builder.program(options, pool, clock)
}

impl Builder<'_, '_> {
    fn root(&self, value: Value) -> Value {
        self.roots[value.0]
    }

    fn shape(&self, value: Value) -> Shape {
        self.graph.shapes[value.0]
    }

    /// Gives each value a buffer, in the order of the stages, and notes what has to be done besides them.
    fn assign(&mut self, stages: Vec<Stage>) -> Result<(), KernelError> {
        let joined = self.joined(&stages);
        let channels = self.channels(&stages);
        let input = self.graph.input();
        if stages.iter().any(|stage| self.reads_planes(stage)) {
            self.planar = Some(self.layout.add(Geometry::of(self.shape(input), self.shape(input).channels, 1)));
        }
        let is_read = |value: Value| {
            let reads = |stage: &Stage| {
                let by_node = self.graph.nodes[stage.node].inputs.iter().any(|read| self.root(*read) == value);
                (by_node && !self.reads_planes(stage)) || stage.other.is_some_and(|other| self.root(other) == value)
            };
            stages.iter().any(reads) || self.graph.outputs.iter().any(|output| self.root(*output) == value)
        };
        if is_read(input) {
            self.place(input, &channels[&input]);
        }
        // From the last to the first: what others are joined into has its place before its parts.
        for stage in stages.iter().rev() {
            let value = stage.output();
            match joined.get(&value) {
                Some(whole) if self.places.contains_key(&whole.0) => {
                    let (whole, first) = (&self.places[&whole.0], whole.1);
                    let place =
                        Place { buffer: whole.buffer, first: whole.first + first, channels: channels[&value].clone() };
                    self.places.insert(value, place);
                }
                _ => self.place(value, &channels[&value]),
            }
        }
        for stage in stages {
            self.schedule(stage, &joined)?;
        }
        Ok(())
    }

    fn place(&mut self, value: Value, channels: &Channels) {
        let geometry = Geometry::of(self.shape(value), channels.blocks(), self.kernels.lanes);
        let buffer = self.layout.add(geometry);
        self.places.insert(value, Place { buffer, first: 0, channels: channels.clone() });
    }

    /// For each value that is written into a concatenation: which one, and from which block on.
    fn joined(&self, stages: &[Stage]) -> HashMap<Value, (Value, usize)> {
        let channels = self.channels(stages);
        let mut joined = HashMap::new();
        for stage in stages {
            let node = &self.graph.nodes[stage.node];
            if !matches!(node.operation, Operation::Concat) {
                continue;
            }
            let mut first = 0;
            for input in &node.inputs {
                let value = self.root(*input);
                // The network's input is written by nobody, and no value can lie in two places.
                if value != self.graph.input() {
                    joined.entry(value).or_insert((stage.output(), first));
                }
                first += channels[&value].blocks();
            }
        }
        joined
    }

    /// How the channels of each value lie in blocks.
    fn channels(&self, stages: &[Stage]) -> HashMap<Value, Channels> {
        let lanes = self.kernels.lanes;
        let input = self.graph.input();
        let mut all = HashMap::from([(input, Channels::plain(self.shape(input).channels, lanes))]);
        for stage in stages {
            let node = &self.graph.nodes[stage.node];
            let plain = Channels::plain(self.shape(stage.output()).channels, lanes);
            let first = || all[&self.root(node.inputs[0])].clone();
            let channels = match &node.operation {
                Operation::Convolution(convolution) if is_depthwise(convolution) => first(),
                Operation::Convolution(_) | Operation::Linear(_) | Operation::Flatten => plain,
                Operation::Concat => Channels::joined(node.inputs.iter().map(|input| &all[&self.root(*input)]), lanes),
                Operation::Activation(_)
                | Operation::Pool(_)
                | Operation::Upsample(_)
                | Operation::Mean
                | Operation::Add => first(),
            };
            all.insert(stage.output(), channels);
        }
        all
    }

    /// Whether a stage reads the network's input plane by plane.
    fn reads_planes(&self, stage: &Stage) -> bool {
        let node = &self.graph.nodes[stage.node];
        let Operation::Convolution(convolution) = &node.operation else { return false };
        convolution.groups == 1
            && self.root(node.inputs[0]) == self.graph.input()
            && self.shape(self.graph.input()).channels <= PLANAR
    }

    /// Adds a stage's tasks, and asks for the borders that it needs.
    fn schedule(&mut self, stage: Stage, joined: &HashMap<Value, (Value, usize)>) -> Result<(), KernelError> {
        let node = &self.graph.nodes[stage.node];
        match &node.operation {
            Operation::Convolution(convolution) => {
                let border = border(self.shape(node.inputs[0]), self.shape(Value(stage.node + 1)), convolution.window);
                let buffer = match self.planar {
                    Some(planar) if self.reads_planes(&stage) => planar,
                    _ => self.places[&self.root(node.inputs[0])].buffer,
                };
                self.layout.widen(buffer, border);
            }
            Operation::Concat => {
                let (mut first, whole) = (0, self.places[&stage.output()].clone());
                for input in &node.inputs {
                    let value = self.root(*input);
                    let from = self.places[&value].clone();
                    let blocks = from.channels.blocks();
                    if joined.get(&value) != Some(&(stage.output(), first)) {
                        let to = Place { first: whole.first + first, channels: from.channels.clone(), ..whole.clone() };
                        self.tasks.push(Task::Copy { from, to });
                    }
                    first += blocks;
                }
                return Ok(());
            }
            _ => {}
        }
        if let Some(other) = stage.other {
            let (place, wanted) = (self.places[&self.root(other)].clone(), &self.places[&stage.output()].channels);
            let place = if place.channels == *wanted {
                place
            } else {
                let geometry = Geometry::of(self.shape(other), wanted.blocks(), self.kernels.lanes);
                let to = Place { buffer: self.layout.add(geometry), first: 0, channels: wanted.clone() };
                self.tasks.push(Task::Regroup { from: place, to: to.clone() });
                to
            };
            self.others.insert(stage.node, place);
        }
        self.tasks.push(Task::Stage(stage));
        Ok(())
    }

    /// Tells the layout which tasks use which buffers. The input is carried in before the first, outputs are carried out after the
    /// last.
    fn live(&mut self) {
        let end = self.tasks.len() + 1;
        let mut uses = Vec::new();
        uses.extend(self.planar.map(|buffer| (buffer, 0)));
        uses.extend(self.places.get(&self.graph.input()).map(|place| (place.buffer, 0)));
        for (place, task) in self.tasks.iter().enumerate() {
            let step = place + 1;
            match task {
                Task::Copy { from, to } | Task::Regroup { from, to } => {
                    uses.extend([(from.buffer, step), (to.buffer, step)]);
                }
                Task::Stage(stage) => {
                    let node = &self.graph.nodes[stage.node];
                    if self.reads_planes(stage) {
                        uses.extend(self.planar.map(|buffer| (buffer, step)));
                    } else {
                        let read = node.inputs.iter().map(|input| self.places[&self.root(*input)].buffer);
                        uses.extend(read.map(|buffer| (buffer, step)));
                    }
                    uses.extend(self.others.get(&stage.node).map(|place| (place.buffer, step)));
                    uses.push((self.places[&stage.output()].buffer, step));
                }
            }
        }
        uses.extend(self.graph.outputs.iter().map(|output| (self.places[&self.root(*output)].buffer, end)));
        for (buffer, step) in uses {
            self.layout.used(buffer, step);
        }
    }

    fn view(&self, place: &Place) -> crate::steps::view::View {
        self.layout.view(place.buffer, place.first, place.channels.blocks())
    }

    fn program(
        self,
        options: &PlanOptions,
        pool: &mut threads::Pool,
        mut clock: Option<Clock<'_>>,
    ) -> Result<Program, KernelError> {
        let batch = options.batch;
        let mut pinned = options.choices.as_ref().map(|choices| choices.iter());
        // Only who measures needs memory now; small numbers in it, because zeros or denormals may be quicker or slower.
        let mut arena = Memory::zeroed(if clock.is_some() { self.layout.elements } else { 0 })?;
        for (place, element) in arena.elements_mut().iter_mut().enumerate() {
            *element = (place % 7) as f32 * 0.1 - 0.3;
        }
        let mut measured: HashMap<Alike, Choice> = HashMap::new();
        let (mut steps, mut choices): (Vec<Named>, Vec<Choice>) = (Vec::new(), Vec::new());
        for task in &self.tasks {
            let stage = match task {
                Task::Copy { from, to } => {
                    let finish = Finish::new(Default::default(), Default::default());
                    let step = Elementwise::new(self.view(from), None, self.view(to), finish, self.kernels)?;
                    steps.push(Named { step: Step::Elementwise(step), name: "copy".to_owned(), multiplications: 0 });
                    continue;
                }
                Task::Regroup { from, to } => {
                    let step = Regroup::channels((self.view(from), &from.channels), (self.view(to), &to.channels))?;
                    steps.push(Named { step: Step::Regroup(step), name: "regroup".to_owned(), multiplications: 0 });
                    continue;
                }
                Task::Stage(stage) => stage,
            };
            let Some(layer) = self.dense_layer(stage) else {
                steps.push(self.named(stage, self.fixed(stage)?));
                continue;
            };
            let ways = ways(&layer, options.winograd);
            let choice = match (&mut pinned, &mut clock) {
                (Some(pinned), _) => {
                    let place = choices.len();
                    let choice = *pinned.next().ok_or(KernelError::Choices { expected: place + 1, found: place })?;
                    if !ways.contains(&choice) {
                        return Err(KernelError::Choice { place, choice: choice.to_string() });
                    }
                    choice
                }
                (None, Some(clock)) => match measured.get(&Alike::of(&layer)) {
                    Some(choice) => *choice,
                    None => {
                        let quickest = quickest(&layer, &ways, batch, &mut arena, pool, clock)?;
                        let choice = quickest.unwrap_or_else(|| by_rule(&layer, options.winograd));
                        measured.insert(Alike::of(&layer), choice);
                        choice
                    }
                },
                (None, None) => by_rule(&layer, options.winograd),
            };
            choices.push(choice);
            steps.push(self.named(stage, step(&layer, choice, batch, true)?));
        }
        if let Some(left) = pinned.map(Iterator::count).filter(|left| *left > 0) {
            return Err(KernelError::Choices { expected: choices.len(), found: choices.len() + left });
        }
        let input = self.shape(self.graph.input());
        let planar = self.planar.map(|buffer| Inlet::planar(input, self.layout.view(buffer, 0, input.channels)));
        let blocked = self.places.get(&self.graph.input());
        let blocked = blocked.map(|place| Inlet::blocked(input, self.view(place), self.kernels.lanes));
        let outlet = |output: &Value| {
            let place = &self.places[&self.root(*output)];
            Outlet::new(self.shape(*output), self.view(place), &place.channels)
        };
        Ok(Program {
            inlets: planar.into_iter().chain(blocked).collect(),
            outlets: self.graph.outputs.iter().map(outlet).collect(),
            scratch: steps.iter().map(|named| named.step.scratch()).max().unwrap_or(0),
            arena: self.layout.elements,
            steps,
            choices,
            batch,
        })
    }

    fn named(&self, stage: &Stage, step: Step) -> Named {
        let node = &self.graph.nodes[stage.node];
        let (from, to) = (self.shape(node.inputs[0]), self.shape(stage.output()));
        let (name, multiplications) = match &node.operation {
            Operation::Convolution(Convolution { window, groups, weight, .. }) => {
                let [height, width] = window.kernel;
                let groups = if *groups > 1 { format!(" in {groups} groups") } else { String::new() };
                let name = format!("convolution {height}x{width} / {} of {from}, to {to}{groups}", window.stride[0]);
                (name, weight.len() * to.height * to.width)
            }
            Operation::Linear(linear) => (format!("linear of {from}, to {to}"), linear.weight.len()),
            operation => (format!("{} of {from}, to {to}", operation.name()), 0),
        };
        Named { step, name, multiplications }
    }

    /// A convolution over all channels of its groups, which there are several ways to compute.
    fn dense_layer(&self, stage: &Stage) -> Option<Layer<'_>> {
        match &self.graph.nodes[stage.node].operation {
            Operation::Convolution(convolution) if !is_depthwise(convolution) => Some(self.layer(stage, convolution)),
            _ => None,
        }
    }

    fn layer<'w>(&self, stage: &Stage, convolution: &Convolution<'w>) -> Layer<'w> {
        let value = self.root(self.graph.nodes[stage.node].inputs[0]);
        let channels = || Channels::plain(self.shape(value).channels, self.kernels.lanes);
        let (from, channels) = match self.planar.filter(|_| self.reads_planes(stage)) {
            Some(buffer) => (self.layout.view(buffer, 0, self.shape(value).channels), channels()),
            None => (self.view(&self.places[&value]), self.places[&value].channels.clone()),
        };
        Layer {
            convolution: *convolution,
            from,
            channels,
            to: self.view(&self.places[&stage.output()]),
            other: self.others.get(&stage.node).map(|place| self.view(place)),
            finish: Finish::new(stage.before, stage.after),
            kernels: self.kernels,
        }
    }

    /// The step of a stage that leaves no choice.
    fn fixed(&self, stage: &Stage) -> Result<Step, KernelError> {
        let node = &self.graph.nodes[stage.node];
        let place = &self.places[&self.root(node.inputs[0])];
        let (from, target, kernels) = (self.view(place), &self.places[&stage.output()], self.kernels);
        let to = self.view(target);
        let finish = Finish::new(stage.before, stage.after);
        let other = self.others.get(&stage.node).map(|place| self.view(place));
        Ok(match &node.operation {
            Operation::Convolution(convolution) => Step::Depthwise(Depthwise::new(&self.layer(stage, convolution))?),
            Operation::Linear(layer) => {
                Step::Linear(Linear::new(layer, (from, &place.channels), to, other, finish, kernels)?)
            }
            Operation::Pool(pool) => Step::Pool(Pool::new(from, to, pool, kernels)?),
            Operation::Mean => Step::Mean(GlobalMean::new(from, to, kernels)?),
            Operation::Upsample(factor) => Step::Upsample(Upsample::new(from, to, *factor, kernels)?),
            Operation::Flatten => Step::Regroup(Regroup::flatten((from, &place.channels), (to, &target.channels))?),
            Operation::Activation(_) | Operation::Add | Operation::Concat => {
                Step::Elementwise(Elementwise::new(from, other, to, finish, kernels)?)
            }
        })
    }
}

fn is_depthwise(convolution: &Convolution<'_>) -> bool {
    // As many weights as outputs have taps: one input channel for each.
    convolution.groups > 1
        && convolution.groups == convolution.outputs
        && convolution.weight.len() == convolution.outputs * convolution.window.taps()
}

/// How far the windows of a convolution reach over the edges of its input.
fn border(from: Shape, to: Shape, window: Window) -> Padding {
    let Padding { top, left, .. } = window.padding;
    let [rows, columns] = window.span();
    let (bottom, right) = ((to.height - 1) * window.stride[0] + rows, (to.width - 1) * window.stride[1] + columns);
    Padding {
        top,
        bottom: bottom.saturating_sub(from.height + top),
        left,
        right: right.saturating_sub(from.width + left),
    }
}

/// What makes two convolutions take equally long.
#[derive(PartialEq, Eq, Hash)]
struct Alike {
    window: Window,
    groups: usize,
    from: Geometry,
    to: Geometry,
    inputs: usize,
    other: bool,
    bounded: bool,
}

impl Alike {
    fn of(layer: &Layer<'_>) -> Self {
        let geometry = |view: &crate::steps::view::View| {
            let shape = Shape::new(1, view.height, view.width);
            Geometry { border: view.border, ..Geometry::of(shape, view.blocks, view.pixel) }
        };
        Self {
            window: layer.convolution.window,
            groups: layer.convolution.groups,
            from: geometry(&layer.from),
            to: geometry(&layer.to),
            inputs: layer.inputs(),
            other: layer.other.is_some(),
            bounded: layer.finish.bounds.is_some(),
        }
    }
}
