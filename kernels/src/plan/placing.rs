//! Which buffer each value lies in, and what is to be done in which order.

use std::collections::{HashMap, HashSet};

use crate::error::KernelError;
use crate::graph::{Convolution, Graph, Operation, Value};
use crate::inner::table::Kernels;
use crate::plan::layout::{BufferId, Geometry, Layout};
use crate::plan::network::PlanOptions;
use crate::plan::stages::{Stage, roots, stages};
use crate::shape::{Padding, Shape, Window};
use crate::steps::bytes::layer::pixel;
use crate::steps::channels::Channels;
use crate::steps::view::View;

/// Images of so few channels are read plane by plane: blocks of them would be mostly empty.
const PLANAR: usize = 4;

/// Blocks of the first of two layers that are computed together, for each thread: fewer would leave threads without work.
const SHARES: usize = 2;

/// The part of a core's second cache for what lies of a block between a convolution and a pool.
const BETWEEN: usize = 16;

/// What is run, before anything has a place in memory.
#[derive(Debug, Clone)]
pub(crate) enum Task {
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
pub(crate) struct Place {
    pub(crate) buffer: BufferId,
    pub(crate) first: usize,
    pub(crate) channels: Channels,
}

/// What lies between a convolution and the depthwise one or the pool that is computed with it: in a thread's own memory.
#[derive(Debug, Clone)]
pub(crate) struct Between {
    pub(crate) first: Stage,
    geometry: Geometry,
    /// Where it begins in a thread's memory.
    start: usize,
    /// Of which only some rows lie there at a time: how many it has.
    height: Option<usize>,
}

impl Between {
    /// Planes that there are in a thread's memory.
    pub(crate) const fn planes(&self) -> usize {
        self.geometry.blocks
    }

    /// The view of it, as if there were as many planes as the value has blocks.
    pub(crate) const fn view(&self, blocks: usize) -> View {
        let view = self.geometry.view(self.start, 0, 0, blocks);
        match self.height {
            None => view,
            Some(height) => View { start: view.start + view.row, height, ..view },
        }
    }

    /// Rows that lie in a thread's memory at a time, besides one above and one below.
    pub(crate) const fn rows(&self) -> usize {
        self.geometry.height.saturating_sub(2)
    }
}

/// All values at their places.
#[derive(Debug)]
pub(crate) struct Placing<'a, 'w> {
    pub(crate) graph: &'a Graph<'w>,
    pub(crate) kernels: &'static Kernels,
    roots: Vec<Value>,
    pub(crate) layout: Layout,
    /// Of each root that lies in blocks.
    pub(crate) places: HashMap<Value, Place>,
    /// The input, where it is read plane by plane.
    pub(crate) planar: Option<BufferId>,
    pub(crate) tasks: Vec<Task>,
    /// For each stage with a second operand, where that lies.
    pub(crate) others: HashMap<usize, Place>,
    /// For each stage that is computed with the one before, what lies between them.
    pub(crate) between: HashMap<usize, Between>,
    /// Elements of a thread's own memory.
    pub(crate) local: usize,
}

impl<'a, 'w> Placing<'a, 'w> {
    pub(crate) fn new(
        graph: &'a Graph<'w>,
        kernels: &'static Kernels,
        options: &PlanOptions,
    ) -> Result<Self, KernelError> {
        let stages = stages(graph);
        let mut placing = Self {
            graph,
            kernels,
            roots: roots(graph, &stages),
            layout: Layout::default(),
            places: HashMap::new(),
            planar: None,
            tasks: Vec::new(),
            others: HashMap::new(),
            between: HashMap::new(),
            local: 0,
        };
        placing.pair(&stages, options);
        placing.assign(stages);
        placing.live();
        placing.layout.place()?;
        Ok(placing)
    }

    /// Finds convolutions that are read by a depthwise one or a pool alone, where what lies between them is more than stays in a core's
    /// cache. Of a depthwise one, whole planes lie between; of a pool, a few rows.
    fn pair(&mut self, stages: &[Stage], options: &PlanOptions) {
        let mut starts: HashMap<Geometry, usize> = HashMap::new();
        for second in stages {
            let node = &self.graph.nodes[second.node];
            let value = self.root(node.inputs[0]);
            let Some(first) = stages.iter().find(|stage| stage.output() == value) else { continue };
            let Operation::Convolution(layer) = &self.graph.nodes[first.node].operation else { continue };
            let reads = |stage: &&Stage| {
                let node = &self.graph.nodes[stage.node];
                node.inputs.iter().chain(&stage.other).any(|read| self.root(*read) == value)
            };
            let is_output = self.graph.outputs.iter().any(|output| self.root(*output) == value);
            let shape = self.shape(value);
            let blocks = shape.channels.div_ceil(self.kernels.lanes);
            let row = shape.width * self.kernels.lanes * size_of::<f32>();
            let plane = shape.height * row;
            if is_depthwise(layer)
                || self.graph.grid(value).is_some()
                || self.graph.grid(self.graph.nodes[first.node].inputs[0]).is_some()
                || first.other.is_some()
                || is_output
                || stages.iter().filter(reads).count() > 1
                || 2 * blocks * plane <= options.cache
            {
                continue;
            }
            let planes = blocks.min(self.kernels.most_blocks());
            let mut geometry = Geometry::of(shape, planes, self.kernels.lanes);
            let height = match &node.operation {
                Operation::Convolution(layer)
                    if is_depthwise(layer) && 2 * plane <= options.cache && blocks >= SHARES * options.threads =>
                {
                    geometry.widen(border(shape, self.shape(Value(second.node + 1)), layer.window));
                    None
                }
                // Winograd's way gains more.
                Operation::Pool(pool) if !(options.winograd && is_for_winograd(layer)) => {
                    let rows = (options.cache / BETWEEN / row).min(shape.height).max(pool.window.kernel[0]);
                    // Not as many as there are: who has a whole plane does not compute by rows.
                    geometry.height = rows + if rows + 2 == shape.height { 3 } else { 2 };
                    Some(shape.height)
                }
                _ => continue,
            };
            let end = self.local;
            let start = *starts.entry(geometry).or_insert(end);
            if start == end {
                self.local += geometry.elements();
            }
            self.between.insert(second.node, Between { first: first.clone(), geometry, start, height });
        }
    }

    pub(crate) fn root(&self, value: Value) -> Value {
        self.roots[value.0]
    }

    pub(crate) fn shape(&self, value: Value) -> Shape {
        self.graph.shapes[value.0]
    }

    /// Gives each value a buffer, in the order of the stages, and notes what has to be done besides them.
    fn assign(&mut self, stages: Vec<Stage>) {
        let joined = self.joined(&stages);
        let channels = self.channels(&stages);
        let input = self.graph.input();
        if stages.iter().any(|stage| self.reads_planes(stage)) {
            self.planar = Some(self.layout.add(Geometry::of(self.shape(input), self.shape(input).channels, 1)));
        }
        let parts = self.parts(&stages, &joined, &channels);
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
        let passed_on: HashSet<usize> = self.between.values().map(|between| between.first.node).collect();
        for stage in stages.iter().rev().filter(|stage| !passed_on.contains(&stage.node)) {
            let value = stage.output();
            if parts.contains_key(&value) {
                continue;
            }
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
        // From the first to the last: a part may be one of a part.
        for value in stages.iter().map(Stage::output) {
            if let Some((whole, first)) = parts.get(&value) {
                let whole = &self.places[whole];
                let place = Place { first: whole.first + first, channels: channels[&value].clone(), ..whole.clone() };
                self.places.insert(value, place);
            }
        }
        for stage in stages {
            if passed_on.contains(&stage.node) || parts.contains_key(&stage.output()) {
                continue;
            }
            self.schedule(stage, &joined);
        }
    }

    fn place(&mut self, value: Value, channels: &Channels) {
        let buffer = self.layout.add(self.geometry(value, channels));
        self.places.insert(value, Place { buffer, first: 0, channels: channels.clone() });
    }

    /// The memory that a value needs.
    fn geometry(&self, value: Value, channels: &Channels) -> Geometry {
        let lanes = self.kernels.lanes;
        let geometry = Geometry::of(self.shape(value), channels.blocks(), lanes);
        match self.graph.grid(value) {
            None => geometry,
            Some(grid) => Geometry { pixel: pixel(lanes), fill: grid.zero(), ..geometry },
        }
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

    /// For each value that is whole blocks of another one, and is read where that lies: which one, and from which block on.
    fn parts(
        &self,
        stages: &[Stage],
        joined: &HashMap<Value, (Value, usize)>,
        channels: &HashMap<Value, Channels>,
    ) -> HashMap<Value, (Value, usize)> {
        let part = |stage: &Stage| {
            let node = &self.graph.nodes[stage.node];
            let Operation::Narrow { first, channels: count } = node.operation else { return None };
            let whole = self.root(node.inputs[0]);
            let (block, _) = channels[&whole].part(first, count)?;
            (!joined.contains_key(&stage.output())).then_some((stage.output(), (whole, block)))
        };
        stages.iter().filter_map(part).collect()
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
                Operation::Narrow { first: start, channels } => {
                    first().part(*start, *channels).map_or(plain, |(_, part)| part)
                }
                Operation::Concat => Channels::joined(node.inputs.iter().map(|input| &all[&self.root(*input)]), lanes),
                Operation::Activation(_)
                | Operation::Pool(_)
                | Operation::Upsample(_)
                | Operation::Quantise
                | Operation::Restore
                | Operation::Mean
                | Operation::Add
                | Operation::Scale => first(),
            };
            all.insert(stage.output(), channels);
        }
        all
    }

    /// Whether a stage reads the network's input plane by plane.
    pub(crate) fn reads_planes(&self, stage: &Stage) -> bool {
        let node = &self.graph.nodes[stage.node];
        let Operation::Convolution(convolution) = &node.operation else { return false };
        convolution.groups == 1
            && self.root(node.inputs[0]) == self.graph.input()
            && self.shape(self.graph.input()).channels <= PLANAR
    }

    /// Adds a stage's tasks, and asks for the borders that it needs.
    fn schedule(&mut self, stage: Stage, joined: &HashMap<Value, (Value, usize)>) {
        // What two stages read is what the first of them does.
        let reader = self.between.get(&stage.node).map_or(&stage, |between| &between.first).clone();
        let node = &self.graph.nodes[reader.node];
        match &node.operation {
            Operation::Convolution(convolution) => {
                let border = border(self.shape(node.inputs[0]), self.shape(Value(reader.node + 1)), convolution.window);
                let buffer = match self.planar {
                    Some(planar) if self.reads_planes(&reader) => planar,
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
                return;
            }
            _ => {}
        }
        if let Some(other) = stage.other {
            let (place, wanted) = (self.places[&self.root(other)].clone(), &self.places[&stage.output()].channels);
            let place = if place.channels == *wanted {
                place
            } else {
                let geometry = self.geometry(self.root(other), wanted);
                let to = Place { buffer: self.layout.add(geometry), first: 0, channels: wanted.clone() };
                self.tasks.push(Task::Regroup { from: place, to: to.clone() });
                to
            };
            self.others.insert(stage.node, place);
        }
        self.tasks.push(Task::Stage(stage));
    }

    /// Tells the layout which tasks use which buffers. The input is carried in before the first, outputs are carried out after the
    /// last.
    fn live(&mut self) {
        let end = self.tasks.len() + 1;
        let mut uses = Vec::new();
        uses.extend(self.planar.map(|buffer| (buffer, 0)));
        if let Some(place) = self.places.get(&self.graph.input()) {
            // What is carried in fills no last block: what lies behind the last channel stays zero.
            self.layout.keep(place.buffer);
        }
        for (place, task) in self.tasks.iter().enumerate() {
            let step = place + 1;
            match task {
                Task::Copy { from, to } | Task::Regroup { from, to } => {
                    uses.extend([(from.buffer, step), (to.buffer, step)]);
                }
                Task::Stage(stage) => {
                    let reader = self.between.get(&stage.node).map_or(stage, |between| &between.first);
                    let node = &self.graph.nodes[reader.node];
                    if self.reads_planes(reader) {
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

    pub(crate) fn view(&self, place: &Place) -> View {
        self.layout.view(place.buffer, place.first, place.channels.blocks())
    }
}

pub(crate) fn is_depthwise(convolution: &Convolution<'_>) -> bool {
    // As many weights as outputs have taps: one input channel for each.
    convolution.groups > 1
        && convolution.groups == convolution.outputs
        && convolution.weight.len() == convolution.outputs * convolution.window.taps()
}

/// Whether Winograd's way is open to a convolution, if not of planes.
fn is_for_winograd(convolution: &Convolution<'_>) -> bool {
    let Window { kernel, stride, dilation, .. } = convolution.window;
    (kernel, stride, dilation, convolution.groups) == ([3, 3], [1, 1], [1, 1], 1)
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
