//! A plan: a network laid out in memory, with that memory and the threads that it runs with.

use std::sync::Arc;
use std::time::Duration;

use crate::error::KernelError;
use crate::graph::Graph;
use crate::isa::Isa;
use crate::plan::build::{Named, Program, build};
use crate::plan::choice::Choice;
use crate::shape::Shape;
use crate::steps::step::Room;
use crate::threads::Pool;

/// More images than a processor has use for at a time.
const MOST_IMAGES: usize = 1 << 12;

/// What a plan is built for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanOptions {
    /// Most images in a pass; it takes memory for as many as there have been in one.
    pub batch: usize,
    /// Threads that share a pass, the caller's among them.
    pub threads: usize,
    /// Instructions that are used.
    pub isa: Isa,
    /// Whether Winograd's way is open: quicker, and a few times less precise (relative errors of some 1e-6).
    pub winograd: bool,
    /// Bytes of a core's second cache: where more than that lies between a convolution and a depthwise one that alone reads it, both
    /// are computed together, piece by piece.
    pub cache: usize,
    /// What an earlier plan chose ([`Plan::choices`]): then nothing is measured, and results are its bit for bit.
    pub choices: Option<Vec<Choice>>,
}

/// One image, one thread, the best instructions, Winograd where it pays, a second cache of 2 MiB.
impl Default for PlanOptions {
    fn default() -> Self {
        Self { batch: 1, threads: 1, isa: Isa::best(), winograd: true, cache: 2 << 20, choices: None }
    }
}

/// How long a step took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepTime {
    /// What is computed.
    pub name: String,
    /// How: `direct:2`, `winograd:4`, `pool`.
    pub way: String,
    /// Multiplications for one image, as they are written down.
    pub multiplications: usize,
    /// The time.
    pub time: Duration,
}

/// A network ready to run: weights packed, every buffer at its place. A pass allocates nothing, unless it is the first of so many
/// images.
///
/// Results do not depend on the number of threads, nor on what else is in a batch; on instructions and choices they do, in
/// their last bits.
#[derive(Debug)]
pub struct Plan {
    program: Arc<Program>,
    input: Shape,
    room: Room,
    pool: Pool,
}

/// What all plans over the same weights have in common: the steps, and the weights packed for them.
#[derive(Debug, Clone)]
pub struct Blueprint {
    program: Arc<Program>,
    input: Shape,
}

impl Blueprint {
    /// A plan with memory and so many threads of its own: for a worker.
    pub fn plan(&self, threads: usize) -> Result<Plan, KernelError> {
        Plan::with(Arc::clone(&self.program), self.input, Pool::new(threads)?)
    }

    /// Most images in a pass of its plans.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.program.batch
    }

    /// Shape of one image of the input.
    #[must_use]
    pub const fn input(&self) -> Shape {
        self.input
    }

    /// Shapes of one image of each output.
    pub fn outputs(&self) -> impl Iterator<Item = Shape> + '_ {
        self.program.outlets.iter().map(|outlet| outlet.shape)
    }

    /// Bytes of the packed weights, however many plans share them.
    #[must_use]
    pub fn weights(&self) -> usize {
        self.program.steps.iter().map(|named| named.step.weights()).sum::<usize>() * size_of::<f32>()
    }
}

impl Plan {
    /// A plan whose convolutions are computed as a rule of thumb has it, or as `options` pin it.
    pub fn new(graph: &Graph<'_>, options: &PlanOptions) -> Result<Self, KernelError> {
        Self::build(graph, options, None)
    }

    /// A plan for which every way to compute each convolution is measured by `clock`, a monotonic one, and the quickest kept.
    pub fn tuned(
        graph: &Graph<'_>,
        options: &PlanOptions,
        clock: &mut dyn FnMut() -> Duration,
    ) -> Result<Self, KernelError> {
        Self::build(graph, options, Some(clock))
    }

    fn build(
        graph: &Graph<'_>,
        options: &PlanOptions,
        clock: Option<&mut dyn FnMut() -> Duration>,
    ) -> Result<Self, KernelError> {
        if !(1..=MOST_IMAGES).contains(&options.batch) {
            return Err(KernelError::Option { what: "the batch", most: MOST_IMAGES, found: options.batch });
        }
        let mut pool = Pool::new(options.threads)?;
        let program = Arc::new(build(graph, options, &mut pool, clock)?);
        Self::with(program, graph.shapes[0], pool)
    }

    fn with(program: Arc<Program>, input: Shape, pool: Pool) -> Result<Self, KernelError> {
        let room = Room::new(program.image, program.scratch, program.local, pool.threads())?;
        Ok(Self { program, input, room, pool })
    }

    /// Another plan over the same weights, with memory and so many threads of its own: for another worker.
    pub fn another(&self, threads: usize) -> Result<Self, KernelError> {
        self.blueprint().plan(threads)
    }

    /// What makes other plans over the same weights, without the memory that this one runs in.
    #[must_use]
    pub fn blueprint(&self) -> Blueprint {
        Blueprint { program: Arc::clone(&self.program), input: self.input }
    }

    /// The same plan, in the same memory, with so many threads.
    pub fn with_threads(mut self, threads: usize) -> Result<Self, KernelError> {
        if threads != self.pool.threads() {
            self.pool = Pool::new(threads)?;
            self.room.share(threads)?;
        }
        Ok(self)
    }

    /// Threads that share a pass, the caller's among them.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// How each convolution that leaves a choice is computed, in order.
    #[must_use]
    pub fn choices(&self) -> &[Choice] {
        &self.program.choices
    }

    /// Most images in a pass.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.program.batch
    }

    /// Shape of one image of the input.
    #[must_use]
    pub const fn input(&self) -> Shape {
        self.input
    }

    /// Shapes of one image of each output.
    pub fn outputs(&self) -> impl Iterator<Item = Shape> + '_ {
        self.program.outlets.iter().map(|outlet| outlet.shape)
    }

    /// Bytes that passes work in, besides the weights: for as many images as there have been in one.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.room.elements() * size_of::<f32>()
    }

    /// Runs `[N, C, H, W]`, for N from 1 to the batch, and fills each output with `[N, C, H, W]`.
    pub fn run(&mut self, input: &[f32], outputs: &mut [&mut [f32]]) -> Result<(), KernelError> {
        self.run_until(input, outputs, &mut || false)
    }

    /// As [`Self::run`]; `stop` is asked before each step, and ends the pass when it says so: then the outputs hold nothing of
    /// meaning.
    pub fn run_until(
        &mut self,
        input: &[f32],
        outputs: &mut [&mut [f32]],
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), KernelError> {
        let images = self.images(input)?;
        let outlets = &self.program.outlets;
        if outlets.len() != outputs.len() {
            return Err(KernelError::Outputs { expected: outlets.len(), found: outputs.len() });
        }
        for (place, (outlet, output)) in outlets.iter().zip(outputs.iter()).enumerate() {
            let expected = images * outlet.shape.elements();
            if output.len() != expected {
                return Err(KernelError::Output { place, expected, found: output.len() });
            }
        }
        self.enter(input, images)?;
        for place in 0..self.program.steps.len() {
            if stop() {
                return Err(KernelError::Stopped);
            }
            self.step(place, images);
        }
        let arena = self.room.arena.address();
        for (outlet, output) in self.program.outlets.iter().zip(outputs) {
            // SAFETY: the arena was laid out for this outlet and has room for the images; it is held alone.
            unsafe { outlet.run(arena, output, &mut self.pool) };
        }
        Ok(())
    }

    /// Runs a pass and tells how long each step took by `clock`, a monotonic one.
    pub fn profile(
        &mut self,
        input: &[f32],
        clock: &mut dyn FnMut() -> Duration,
    ) -> Result<Vec<StepTime>, KernelError> {
        let images = self.images(input)?;
        self.enter(input, images)?;
        let program = Arc::clone(&self.program);
        let mut begun = clock();
        let mut time = |(place, named): (usize, &Named)| {
            self.step(place, images);
            let ended = clock();
            let time = ended.saturating_sub(std::mem::replace(&mut begun, ended));
            let (name, way) = (named.name.clone(), named.step.describe());
            StepTime { name, way, multiplications: named.multiplications, time }
        };
        Ok(program.steps.iter().enumerate().map(&mut time).collect())
    }

    fn images(&self, input: &[f32]) -> Result<usize, KernelError> {
        let (image, batch) = (self.input.elements(), self.program.batch);
        let images = input.len() / image;
        if images * image != input.len() || !(1..=batch).contains(&images) {
            return Err(KernelError::Input { image, batch, found: input.len() });
        }
        Ok(images)
    }

    fn enter(&mut self, input: &[f32], images: usize) -> Result<(), KernelError> {
        self.room.hold(images)?;
        let arena = self.room.arena.address();
        // SAFETY: the arena was laid out for these borders and inlets and has room for the images; it is held alone.
        unsafe {
            self.program.borders.iter().for_each(|view| view.clear_border(arena, images));
            self.program.inlets.iter().for_each(|inlet| inlet.run(arena, input, &mut self.pool));
        }
        Ok(())
    }

    fn step(&mut self, place: usize, images: usize) {
        let Named { step, borders, .. } = &self.program.steps[place];
        let arena = self.room.arena.address();
        // SAFETY: the room was laid out for this step, its borders and the pool's threads, and `enter` found room for the images.
        unsafe {
            borders.iter().for_each(|view| view.clear_border(arena, images));
            step.run(&mut self.room, images, &mut self.pool);
        }
    }
}
