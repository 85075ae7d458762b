//! A compiled graph and those who run it: each pass has a plan for itself, all share the packed weights.
//!
//! A plan is memory and threads. There are as many as passes have been under way at one time: whoever begins a pass takes an idle one,
//! or has one made, and gives it back. One whose pass panicked is not given back.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_kernels::{Blueprint, KernelError, Plan, Range, StepTime};
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, bail};

use crate::compile::{ROOM, blueprint};
use crate::error::VisionError;
use crate::graph::{Graph, check_batch};
use crate::shape::ImageShape;
use crate::stop::Stop;

/// More threads than a pass has use for.
const MOST_THREADS: usize = 64;

/// A graph's plans.
#[derive(Debug)]
pub(crate) struct Plans {
    blueprint: Blueprint,
    idle: Mutex<Vec<Plan>>,
}

thread_local! {
    /// What [`on_threads`] says within it.
    static WANTED: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Runs `pass` with the loops of compiled networks shared out to so many threads, instead of as many as the caller's pool has. Answers
/// are the same with any number. Networks that run as candle's operations keep to the pool.
pub fn on_threads<T>(threads: usize, pass: impl FnOnce() -> T) -> T {
    /// Also where the pass panics.
    struct Before(Option<usize>);
    impl Drop for Before {
        fn drop(&mut self) {
            WANTED.set(self.0);
        }
    }
    let _before = Before(WANTED.replace(Some(threads)));
    pass()
}

/// How many threads a pass is shared out to: as many as [`on_threads`] says, or as the caller's pool has. It has them for itself, and they
/// sleep between passes.
pub(crate) fn threads() -> usize {
    WANTED.get().unwrap_or_else(rayon::current_num_threads).clamp(1, MOST_THREADS)
}

impl Plans {
    /// Compiles a graph, wherever its weights lie and whatever their type: what comes of it computes in f32 on the processor. The
    /// graph is not needed any more.
    pub(crate) fn of(graph: &Graph) -> Result<Self, VisionError> {
        Self::with_room(graph, ROOM)
    }

    /// As [`Self::of`], with convolutions on bytes: `ranges` are those of the graph's values.
    pub(crate) fn quantised(graph: &Graph, ranges: &[Range]) -> Result<Self, VisionError> {
        Ok(Self { blueprint: blueprint(graph, ROOM, threads(), Some(ranges))?, idle: Mutex::default() })
    }

    /// As [`Self::of`], with at most so many images at a time: more are run in several goes.
    pub(crate) fn with_room(graph: &Graph, room: usize) -> Result<Self, VisionError> {
        Ok(Self { blueprint: blueprint(graph, room, threads(), None)?, idle: Mutex::default() })
    }

    /// Shape of one input image.
    pub(crate) fn input(&self) -> ImageShape {
        shape(self.blueprint.input())
    }

    /// Shapes of the outputs for one image.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = ImageShape> + '_ {
        self.blueprint.outputs().map(shape)
    }

    /// Bytes of the packed weights.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.blueprint.weights()
    }

    /// As [`Graph::run_all`], in the processor's memory, but that every output is `[N, C, H, W]`.
    pub(crate) fn run(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Vec<Tensor>, VisionError> {
        check_batch(self.input(), input)?;
        let input = input.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
        let pass = Pass { plans: self, stop, stopped: Cell::new(false) };
        let all = match input.apply_op1_no_bwd(&pass) {
            Err(_) if pass.stopped.get() => return Err(VisionError::Stopped),
            all => all?,
        };
        let (images, mut from) = (input.dim(0)?, 0);
        let output = |ImageShape { channels, height, width }: ImageShape| {
            let elements = images * channels * height * width;
            let output = all.narrow(0, from, elements)?.reshape((images, channels, height, width))?;
            from += elements;
            Ok(output)
        };
        self.outputs().map(output).collect()
    }

    /// Runs a pass and tells how long each step took by `clock`, a monotonic one; of more images than go together the first ones.
    pub(crate) fn profile(
        &self,
        input: &Tensor,
        clock: &mut dyn FnMut() -> Duration,
    ) -> Result<Vec<StepTime>, VisionError> {
        check_batch(self.input(), input)?;
        let images = input.dim(0)?.min(self.blueprint.batch());
        let input: Vec<f32> = input.narrow(0, 0, images)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let mut plan = self.take()?;
        let steps = plan.profile(&input, clock);
        self.idle().push(plan);
        Ok(steps?)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Plan>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A plan with as many threads as the caller's pool has.
    fn take(&self) -> Result<Plan, KernelError> {
        let threads = threads();
        let idle = {
            let mut idle = self.idle();
            let fitting = idle.iter().position(|plan| plan.threads() == threads);
            fitting.or(idle.len().checked_sub(1)).map(|place| idle.swap_remove(place))
        };
        match idle {
            Some(plan) => plan.with_threads(threads),
            None => self.blueprint.plan(threads),
        }
    }
}

/// A pass as one operation of candle's: images `[N, C, H, W]` in, the elements of all outputs out, one output after the other.
struct Pass<'a> {
    plans: &'a Plans,
    stop: &'a Stop<'a>,
    /// Whether it failed because it was stopped.
    stopped: Cell<bool>,
}

impl CustomOp1 for Pass<'_> {
    fn name(&self) -> &'static str {
        "compiled network"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("these loops need contiguous tensors") };
        let input = &storage.as_slice::<f32>()?[start..end];
        let mut plan = self.plans.take().map_err(candle_core::Error::wrap)?;
        let image = plan.input().elements();
        let sizes: Vec<usize> = plan.outputs().map(|output| output.elements()).collect();
        let mut all = vec![0f32; input.len() / image * sizes.iter().sum::<usize>()];
        let mut rest = all.as_mut_slice();
        let mut unfilled = Vec::with_capacity(sizes.len());
        for size in &sizes {
            unfilled.push(first(&mut rest, input.len() / image * size));
        }
        let mut run = || {
            // What is more than go together is run in several goes.
            for images in input.chunks(plan.batch() * image) {
                let count = images.len() / image;
                let parts = unfilled.iter_mut().zip(&sizes).map(|(unfilled, size)| first(unfilled, count * size));
                let mut outputs: Vec<&mut [f32]> = parts.collect();
                plan.run_until(images, &mut outputs, &mut || self.stop.asked())?;
            }
            Ok(())
        };
        let ran = run();
        self.plans.idle().push(plan);
        self.stopped.set(ran == Err(KernelError::Stopped));
        ran.map_err(candle_core::Error::wrap)?;
        let elements = all.len();
        Ok((CpuStorage::F32(all), Shape::from(elements)))
    }
}

/// The first so many elements, which are taken away.
fn first<'a>(rest: &mut &'a mut [f32], elements: usize) -> &'a mut [f32] {
    rest.split_off_mut(..elements).unwrap_or_default()
}

fn shape(kernels: adit_kernels::Shape) -> ImageShape {
    ImageShape { channels: kernels.channels, height: kernels.height, width: kernels.width }
}

#[cfg(test)]
mod tests {
    use rayon::ThreadPoolBuilder;

    use super::*;
    use crate::builder::GraphBuilder;
    use crate::layers::{Padding, Window};
    use crate::weights::Weights;

    fn weights() -> Weights {
        let number = |place: usize| (place as f32 * 0.37).sin();
        Weights::made_by("a formula", move |_, shape| Some((0..shape.iter().product()).map(number).collect()))
    }

    /// Two outputs, one of a feature map in the middle.
    fn graph() -> Graph {
        let (weights, three) = (weights(), Window { kernel: [3, 3], stride: 1, padding: Padding::all(1) });
        let mut net = GraphBuilder::new(&weights, &Device::Cpu, ImageShape::new(3, 9, 9));
        let first = net.convolution("first", net.input(), 20, three).unwrap();
        let x = net.relu(first);
        let x = net.convolution("second", x, 4, three).unwrap();
        let last = net.linear("last", x, 5).unwrap();
        net.finish_with(&[first, last]).unwrap()
    }

    fn pictures(images: usize) -> Tensor {
        weights().tensor("pictures", &[images, 3, 9, 9], &Device::Cpu).unwrap()
    }

    fn bits(outputs: &[Tensor], image: usize) -> Vec<u32> {
        let numbers = |output: &Tensor| output.get(image).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        outputs.iter().flat_map(numbers).map(f32::to_bits).collect()
    }

    #[test]
    fn company_changes_no_bit_however_much_there_is_of_it() {
        let plans = Plans::of(&graph()).unwrap();
        assert_eq!(plans.outputs().collect::<Vec<_>>(), [ImageShape::new(20, 9, 9), ImageShape::new(5, 1, 1)]);
        let (all, most) = (pictures(20), plans.blueprint.batch());
        for images in [1, 2, most, most + 1, 20] {
            let together = plans.run(&all.narrow(0, 0, images).unwrap(), &Stop::never()).unwrap();
            assert_eq!(together[0].dims(), [images, 20, 9, 9]);
            assert_eq!(together[1].dims(), [images, 5, 1, 1]);
            for image in 0..images {
                let alone = plans.run(&all.narrow(0, image, 1).unwrap(), &Stop::never()).unwrap();
                assert_eq!(bits(&alone, 0), bits(&together, image), "image {image} of {images}");
            }
        }
        assert_eq!(plans.idle().len(), 1, "one after the other, they need one plan");
        assert!(plans.run(&all.narrow(1, 0, 2).unwrap(), &Stop::never()).is_err());
    }

    #[test]
    fn it_stops_between_two_layers_and_goes_on() {
        let plans = Plans::of(&graph()).unwrap();
        let asked = Cell::new(0);
        let question = || {
            asked.set(asked.get() + 1);
            asked.get() > 1
        };
        let result = plans.run(&pictures(1), &Stop::when(&question));
        assert!(matches!(result, Err(VisionError::Stopped)), "{result:?}");
        assert_eq!(asked.get(), 2, "the second question ends it");
        assert_eq!(plans.idle().len(), 1);
        assert!(plans.run(&pictures(1), &Stop::never()).is_ok());
    }

    #[test]
    fn a_pass_that_panics_takes_its_plan_with_it_and_nobody_elses() {
        let plans = Plans::of(&graph()).unwrap();
        let expected = bits(&plans.run(&pictures(1), &Stop::never()).unwrap(), 0);
        let asked = Cell::new(0);
        let question = || {
            asked.set(asked.get() + 1);
            assert!(asked.get() < 2, "planted");
            false
        };
        let pass = std::panic::AssertUnwindSafe(|| plans.run(&pictures(1), &Stop::when(&question)));
        assert!(std::panic::catch_unwind(pass).is_err());
        assert!(plans.idle().is_empty());
        assert_eq!(bits(&plans.run(&pictures(1), &Stop::never()).unwrap(), 0), expected);
    }

    #[test]
    fn a_pass_has_as_many_threads_as_its_callers_pool() {
        let plans = Plans::of(&graph()).unwrap();
        let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let expected = bits(&pool(1).install(|| plans.run(&pictures(1), &Stop::never())).unwrap(), 0);
        for threads in [2, 3, 1] {
            let found = pool(threads).install(|| plans.run(&pictures(1), &Stop::never())).unwrap();
            assert_eq!(bits(&found, 0), expected);
            assert_eq!(plans.idle().iter().map(Plan::threads).collect::<Vec<_>>(), [threads]);
        }
    }

    #[test]
    fn a_pass_has_as_many_threads_as_it_is_told_and_only_then() {
        let plans = Plans::of(&graph()).unwrap();
        let run = || bits(&plans.run(&pictures(1), &Stop::never()).unwrap(), 0);
        let had = || plans.idle().iter().map(Plan::threads).collect::<Vec<_>>();
        let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| {
            let expected = run();
            assert_eq!((on_threads(3, || on_threads(2, run)), had()), (expected.clone(), vec![2]));
            assert_eq!((on_threads(3, run), had()), (expected.clone(), vec![3]));
            assert!(std::panic::catch_unwind(|| on_threads(3, || panic!("within"))).is_err());
            assert_eq!((run(), had()), (expected, vec![1]));
        });
    }

    #[test]
    fn passes_at_one_time_share_weights_and_nothing_else() {
        let plans = Plans::of(&graph()).unwrap();
        let expected = bits(&plans.run(&pictures(1), &Stop::never()).unwrap(), 0);
        // Whoever is first waits within its pass until the other is in its own.
        let meeting = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let met = Cell::new(false);
                    let question = || {
                        if !met.replace(true) {
                            meeting.wait();
                        }
                        false
                    };
                    let found = plans.run(&pictures(1), &Stop::when(&question)).unwrap();
                    assert_eq!(bits(&found, 0), expected);
                });
            }
        });
        assert_eq!(plans.idle().len(), 2);
    }
}
