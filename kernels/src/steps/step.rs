//! One step of a plan, of whatever kind.

use crate::memory::Address;
use crate::steps::depthwise::Depthwise;
use crate::steps::direct::Direct;
use crate::steps::elementwise::Elementwise;
use crate::steps::linear::Linear;
use crate::steps::pool::{GlobalMean, Pool};
use crate::steps::regroup::Regroup;
use crate::steps::upsample::Upsample;
use crate::steps::winograd::Winograd;
use crate::threads;

#[derive(Debug)]
pub(crate) enum Step {
    Direct(Direct),
    Winograd(Winograd),
    Depthwise(Depthwise),
    Linear(Linear),
    Pool(Pool),
    Mean(GlobalMean),
    Elementwise(Elementwise),
    Upsample(Upsample),
    Regroup(Regroup),
}

impl Step {
    /// # Safety
    /// The step's views lie in `arena` for so many images, `scratch` has as many elements as it asks for, and nobody else uses
    /// either.
    pub(crate) unsafe fn run(&self, arena: Address, scratch: Address, images: usize, pool: &mut threads::Pool) {
        // SAFETY: the caller vouches for both memories.
        unsafe {
            match self {
                Self::Direct(step) => step.run(arena, images, pool),
                Self::Winograd(step) => step.run(arena, scratch, images, pool),
                Self::Depthwise(step) => step.run(arena, images, pool),
                Self::Linear(step) => step.run(arena, images, pool),
                Self::Pool(step) => step.run(arena, images, pool),
                Self::Mean(step) => step.run(arena, images, pool),
                Self::Elementwise(step) => step.run(arena, images, pool),
                Self::Upsample(step) => step.run(arena, images, pool),
                Self::Regroup(step) => step.run(arena, images, pool),
            }
        }
    }

    /// Elements of scratch memory that it needs.
    pub(crate) fn scratch(&self) -> usize {
        match self {
            Self::Winograd(step) => step.scratch(),
            _ => 0,
        }
    }

    /// How it is computed, in a few words.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Direct(step) => step.describe(),
            Self::Winograd(step) => format!("winograd:{}", step.tile()),
            Self::Depthwise(_) => "depthwise".to_owned(),
            Self::Linear(_) => "linear".to_owned(),
            Self::Pool(_) => "pool".to_owned(),
            Self::Mean(_) => "mean".to_owned(),
            Self::Elementwise(_) => "elementwise".to_owned(),
            Self::Upsample(_) => "upsample".to_owned(),
            Self::Regroup(_) => "regroup".to_owned(),
        }
    }
}
