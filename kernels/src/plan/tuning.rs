//! Choosing how each convolution is computed: by rule, or by measuring all ways with a clock that the caller hands in.

use std::time::Duration;

use crate::error::KernelError;
use crate::memory::Memory;
use crate::plan::choice::Choice;
use crate::steps::direct::Direct;
use crate::steps::layer::Layer;
use crate::steps::step::Step;
use crate::steps::winograd::Winograd;
use crate::threads::Pool;

/// A monotonic clock: time since any moment.
pub(crate) type Clock<'a> = &'a mut dyn FnMut() -> Duration;

/// How often each way is tried, after once for warming up. The quickest counts: whatever else the machine does only delays.
const TRIALS: usize = 4;

/// From this side on, a plane has enough tiles of 4 x 4 outputs that transforming them pays (GoogLeNet, ResNet-50 on one core
/// of a Xeon of 2023: 310 to 396 GFLOP/s at sides of 28 and 56, a loss at 7, even at 14).
const LARGE: usize = 24;

/// All ways to compute a convolution.
pub(crate) fn ways(layer: &Layer<'_>, winograd: bool) -> Vec<Choice> {
    let most = layer.output_blocks().min(layer.kernels.most_blocks());
    let mut ways: Vec<Choice> = (1..=most).map(|blocks| Choice::Direct { blocks }).collect();
    if winograd && layer.is_three_by_three() {
        ways.extend([2, 4].map(|tile| Choice::Winograd { tile }));
    }
    ways
}

/// The way that is right for most.
pub(crate) fn by_rule(layer: &Layer<'_>, winograd: bool) -> Choice {
    let lanes = layer.kernels.lanes;
    let wide = layer.inputs() >= lanes && layer.convolution.outputs >= lanes;
    if winograd && layer.is_three_by_three() && wide && layer.to.height.min(layer.to.width) >= LARGE {
        return Choice::Winograd { tile: 4 };
    }
    Choice::Direct { blocks: layer.output_blocks().min(2) }
}

/// A convolution computed so, for up to `images` images.
pub(crate) fn step(layer: &Layer<'_>, choice: Choice, images: usize, packed: bool) -> Result<Step, KernelError> {
    Ok(match choice {
        Choice::Direct { blocks } => Step::Direct(Direct::new(layer, blocks, packed)?),
        Choice::Winograd { tile } => Step::Winograd(Winograd::new(layer, tile, images, packed)?),
    })
}

/// The quickest way, run on `arena`, of which the contents count for nothing.
pub(crate) fn quickest(
    layer: &Layer<'_>,
    ways: &[Choice],
    images: usize,
    arena: &mut Memory,
    pool: &mut Pool,
    clock: Clock<'_>,
) -> Result<Option<Choice>, KernelError> {
    let mut best: Option<(Duration, Choice)> = None;
    for way in ways {
        let step = step(layer, *way, images, false)?;
        let mut scratch = Memory::zeroed(step.scratch())?;
        for trial in 0..=TRIALS {
            let begun = clock();
            // SAFETY: the arena was laid out for this step and so many images, and it is held alone.
            unsafe { step.run(arena.address(), scratch.address(), images, pool) };
            let took = clock().saturating_sub(begun);
            if trial > 0 && best.is_none_or(|(quickest, _)| took < quickest) {
                best = Some((took, *way));
            }
        }
    }
    Ok(best.map(|(_, way)| way))
}
