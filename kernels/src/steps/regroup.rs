//! Elements carried one by one to other places of other blocks: for the few values whose channels lie otherwise than who reads them
//! needs it.

use crate::error::KernelError;
use crate::memory::Address;
use crate::shape::Shape;
use crate::steps::channels::Channels;
use crate::steps::view::View;
use crate::threads::Pool;

#[derive(Debug)]
pub(crate) struct Regroup {
    from: View,
    to: View,
    /// From where to where, in elements from the views' starts: f32, or bytes.
    pairs: Vec<[usize; 2]>,
    bytes: bool,
}

impl Regroup {
    /// The same channels with other blocks.
    pub(crate) fn channels(from: (View, &Channels), to: (View, &Channels)) -> Result<Self, KernelError> {
        let shape = Shape::new(from.1.places().len(), from.0.height, from.0.width);
        if (shape.height, shape.width) != (to.0.height, to.0.width) {
            return Err(KernelError::Bounds);
        }
        Self::new(shape, from, 0, to, |channel, y, x| [channel, y, x])
    }

    /// Some of the channels, from the `first` on.
    pub(crate) fn narrow(from: (View, &Channels), first: usize, to: (View, &Channels)) -> Result<Self, KernelError> {
        let shape = Shape::new(to.1.places().len(), from.0.height, from.0.width);
        if (shape.height, shape.width) != (to.0.height, to.0.width) {
            return Err(KernelError::Bounds);
        }
        Self::new(shape, from, first, to, |channel, y, x| [channel, y, x])
    }

    /// All elements as channels.
    pub(crate) fn flatten(from: (View, &Channels), to: (View, &Channels)) -> Result<Self, KernelError> {
        let shape = Shape::new(from.1.places().len(), from.0.height, from.0.width);
        let place = |channel, y, x| [(channel * shape.height + y) * shape.width + x, 0, 0];
        Self::new(shape, from, 0, to, place)
    }

    fn new(
        shape: Shape,
        from: (View, &Channels),
        first: usize,
        to: (View, &Channels),
        place: impl Fn(usize, usize, usize) -> [usize; 3],
    ) -> Result<Self, KernelError> {
        let (from_places, to_places) = (from.1.places(), to.1.places());
        let ((from, from_channels), (to, to_channels)) = (from, to);
        if from_channels.blocks() != from.blocks || to_channels.blocks() != to.blocks {
            return Err(KernelError::Bounds);
        }
        if from.pixel != to.pixel {
            return Err(KernelError::Bounds);
        }
        let bytes = from.pixel != from_channels.lanes();
        let unit = if bytes { size_of::<f32>() } else { 1 };
        let mut pairs = Vec::with_capacity(shape.elements());
        for (channel, [block, lane]) in from_places.into_iter().skip(first).take(shape.channels).enumerate() {
            for y in 0..shape.height {
                for x in 0..shape.width {
                    let [to_channel, to_y, to_x] = place(channel, y, x);
                    let [to_block, to_lane] = to_places.get(to_channel).copied().ok_or(KernelError::Bounds)?;
                    pairs.push([
                        unit * (block * from.block + y * from.row + x * from.pixel) + lane,
                        unit * (to_block * to.block + to_y * to.row + to_x * to.pixel) + to_lane,
                    ]);
                }
            }
        }
        Ok(Self { from, to, pairs, bytes })
    }

    /// # Safety
    /// The views lie in `arena` for so many images, and nobody else uses it.
    pub(crate) unsafe fn run(&self, arena: Address, images: usize, pool: &mut Pool) {
        let Self { from, to, pairs, bytes } = self;
        pool.run(images, &|image| {
            // SAFETY: all pairs lie inside of both views, each task in an image of its own.
            unsafe {
                // What lies behind the last channel of a run would else be what another value left there.
                for block in 0..to.blocks {
                    for y in 0..to.height {
                        arena.at(to.at(image, block) + y * to.row).write_bytes(0, to.width * to.pixel);
                    }
                }
                let (from, to) = (arena.at(from.at(image, 0)), arena.at(to.at(image, 0)));
                for [source, target] in pairs {
                    if *bytes {
                        *to.cast::<u8>().add(*target) = *from.cast::<u8>().add(*source);
                    } else {
                        *to.add(*target) = *from.add(*source);
                    }
                }
            }
        });
    }
}
