//! One step of a plan, of whatever kind.

use crate::error::KernelError;
use crate::memory::Memory;
use crate::steps::bytes::carried::Carried;
use crate::steps::bytes::convolution::ByteConvolution;
use crate::steps::bytes::pool::BytePool;
use crate::steps::depthwise::Depthwise;
use crate::steps::direct::Direct;
use crate::steps::elementwise::Elementwise;
use crate::steps::expanded::Expanded;
use crate::steps::linear::Linear;
use crate::steps::pool::{GlobalMean, Pool};
use crate::steps::pooled::Pooled;
use crate::steps::regroup::Regroup;
use crate::steps::scale::Scale;
use crate::steps::upsample::Upsample;
use crate::steps::winograd::Winograd;
use crate::threads;

/// The memory that steps run in.
#[derive(Debug)]
pub(crate) struct Room {
    /// Values, image by image: for as many as there have been at a time.
    pub(crate) arena: Memory,
    /// Elements of the arena for one image.
    image: usize,
    /// For one step at a time, as much for each thread; nothing is kept in it.
    pub(crate) scratch: Memory,
    /// Elements of the scratch memory for each thread.
    each: usize,
    /// For each thread its own, `stride` elements apart: planes with borders of zeros.
    pub(crate) local: Memory,
    pub(crate) stride: usize,
}

impl Room {
    /// Room for images of `image` elements each, but none yet.
    pub(crate) fn new(image: usize, scratch: usize, stride: usize, threads: usize) -> Result<Self, KernelError> {
        let [arena, scratch_memory, local] = [0, times(scratch, threads)?, times(stride, threads)?];
        Ok(Self {
            arena: Memory::zeroed(arena)?,
            image,
            scratch: Memory::zeroed(scratch_memory)?,
            each: scratch,
            local: Memory::zeroed(local)?,
            stride,
        })
    }

    /// Makes room for so many images where there is less, in place of the room before; nothing is lost that the next pass needs.
    pub(crate) fn hold(&mut self, images: usize) -> Result<(), KernelError> {
        let elements = times(self.image, images)?;
        if self.arena.elements().len() < elements {
            // The old one is given back before there is a new one.
            self.arena = Memory::zeroed(0)?;
            self.arena = Memory::zeroed(elements)?;
        }
        Ok(())
    }

    /// Gives so many threads memory of their own, in place of those before.
    pub(crate) fn share(&mut self, threads: usize) -> Result<(), KernelError> {
        self.local = Memory::zeroed(times(self.stride, threads)?)?;
        self.scratch = Memory::zeroed(times(self.each, threads)?)?;
        Ok(())
    }

    /// Makes the scratch memory of each of so many threads at least as large.
    pub(crate) fn widen(&mut self, scratch: usize, threads: usize) -> Result<(), KernelError> {
        if self.each < scratch {
            self.each = scratch;
            self.scratch = Memory::zeroed(times(scratch, threads)?)?;
        }
        Ok(())
    }

    pub(crate) fn elements(&self) -> usize {
        self.arena.elements().len() + self.scratch.elements().len() + self.local.elements().len()
    }
}

fn times(elements: usize, count: usize) -> Result<usize, KernelError> {
    elements.checked_mul(count).ok_or(KernelError::Memory(usize::MAX))
}

#[derive(Debug)]
pub(crate) enum Step {
    Direct(Direct),
    Winograd(Winograd),
    Depthwise(Depthwise),
    Expanded(Box<Expanded>),
    Pooled(Box<Pooled>),
    Linear(Linear),
    Pool(Pool),
    Mean(GlobalMean),
    Elementwise(Elementwise),
    Upsample(Upsample),
    Scale(Scale),
    Regroup(Regroup),
    Bytes(Box<ByteConvolution>),
    BytePool(BytePool),
    Carried(Carried),
}

impl Step {
    /// # Safety
    /// The step's views lie in the room's arena for so many images, and scratch and local memory have as many elements as it asks
    /// for.
    pub(crate) unsafe fn run(&self, room: &mut Room, images: usize, pool: &mut threads::Pool) {
        let (arena, scratch, local) = (room.arena.address(), room.scratch.address(), room.local.address());
        // SAFETY: the caller vouches for all memory; the room is held alone.
        unsafe {
            match self {
                Self::Direct(step) => step.run(arena, images, pool),
                Self::Winograd(step) => step.run(arena, scratch, images, pool),
                Self::Depthwise(step) => step.run(arena, images, pool),
                Self::Expanded(step) => step.run(arena, local, room.stride, images, pool),
                Self::Pooled(step) => step.run(arena, local, room.stride, images, pool),
                Self::Linear(step) => step.run(arena, images, pool),
                Self::Pool(step) => step.run(arena, images, pool),
                Self::Mean(step) => step.run(arena, images, pool),
                Self::Elementwise(step) => step.run(arena, images, pool),
                Self::Upsample(step) => step.run(arena, images, pool),
                Self::Scale(step) => step.run(arena, images, pool),
                Self::Regroup(step) => step.run(arena, images, pool),
                Self::Bytes(step) => step.run(arena, images, pool),
                Self::BytePool(step) => step.run(arena, images, pool),
                Self::Carried(step) => step.run(arena, images, pool),
            }
        }
    }

    /// Elements of scratch memory that it needs for each thread.
    pub(crate) fn scratch(&self) -> usize {
        match self {
            Self::Winograd(step) => step.scratch(),
            _ => 0,
        }
    }

    /// Elements of its weights and biases as they are packed.
    pub(crate) fn weights(&self) -> usize {
        match self {
            Self::Direct(step) => step.weights(),
            Self::Winograd(step) => step.weights(),
            Self::Depthwise(step) => step.weights(),
            Self::Expanded(step) => step.weights(),
            Self::Pooled(step) => step.weights(),
            Self::Linear(step) => step.weights(),
            Self::Bytes(step) => step.weights(),
            Self::Pool(_)
            | Self::Mean(_)
            | Self::Elementwise(_)
            | Self::Upsample(_)
            | Self::Scale(_)
            | Self::Regroup(_)
            | Self::BytePool(_)
            | Self::Carried(_) => 0,
        }
    }

    /// How it is computed, in a few words.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Direct(step) => step.describe(),
            Self::Winograd(step) => format!("winograd:{}", step.tile()),
            Self::Depthwise(_) => "depthwise".to_owned(),
            Self::Expanded(step) => step.describe(),
            Self::Pooled(step) => step.describe(),
            Self::Linear(_) => "linear".to_owned(),
            Self::Pool(_) => "pool".to_owned(),
            Self::Mean(_) => "mean".to_owned(),
            Self::Elementwise(_) => "elementwise".to_owned(),
            Self::Upsample(_) => "upsample".to_owned(),
            Self::Scale(_) => "scale".to_owned(),
            Self::Regroup(_) => "regroup".to_owned(),
            Self::Bytes(step) => step.describe(),
            Self::BytePool(_) => "bytes pool".to_owned(),
            Self::Carried(step) => step.describe().to_owned(),
        }
    }
}
