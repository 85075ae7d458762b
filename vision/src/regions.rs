//! Detectors that look twice (Girshick, "Fast R-CNN", 2015): the first stage says where something may be, the second looks at each of
//! those regions.

use candle_core::{DType, Device, Tensor};

use crate::error::VisionError;
use crate::network::{Decoder, Heads, Level};
use crate::shape::ImageShape;

/// Makes regions of all levels of one image; the second argument is the shape of the network's input.
pub(crate) type Gather = fn(&[Level<'_>], ImageShape) -> Gathered;

/// What the second stage looks at: so many regions as it has columns, whether or not there is something.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Row-major `[4, regions]`: left, top, right, bottom in pixels of the network's input. An empty box is none.
    pub(crate) corners: Vec<f32>,
    /// Row-major `[numbers, regions]`.
    pub(crate) numbers: Vec<f32>,
    pub(crate) regions: usize,
}

/// The second stage of a detector: a graph that reads `[1, numbers, 1, regions]`, or its plans.
#[derive(Debug, Clone)]
pub(crate) struct Regions<H> {
    pub(crate) gather: Gather,
    pub(crate) head: H,
}

impl<H> Regions<H> {
    /// The same regions, looked at by something else.
    pub(crate) fn try_map<T>(self, map: impl FnOnce(H) -> Result<T, VisionError>) -> Result<Regions<T>, VisionError> {
        Ok(Regions { gather: self.gather, head: map(self.head)? })
    }

    /// Reads levels `[N, C, H, W]`: the decoder is handed the regions' corners `[4, 1, regions]`, and then what `run` makes the head say
    /// of them.
    pub(crate) fn read(
        &self,
        levels: &[Tensor],
        input: ImageShape,
        decoder: &Decoder,
        run: impl Fn(&H, &Tensor) -> Result<Vec<Tensor>, VisionError>,
    ) -> Result<Heads, VisionError> {
        let images = levels.first().map_or(Ok(0), |level| level.dim(0))?;
        let mut all = Vec::with_capacity(images);
        for image in 0..images {
            let mut maps = Vec::with_capacity(levels.len());
            for level in levels {
                let (_, channels, height, width) = level.dims4()?;
                let values = level.narrow(0, image, 1)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
                maps.push((values, ImageShape { channels, height, width }));
            }
            let parts: Vec<Level<'_>> = maps.iter().map(|(values, shape)| Level { values, shape: *shape }).collect();
            let Gathered { corners, numbers, regions } = (self.gather)(&parts, input);
            let column = |values: Vec<f32>| {
                let rows = values.len() / regions.max(1);
                Tensor::from_vec(values, (1, rows, 1, regions), &Device::Cpu)
            };
            let mut said = vec![column(corners)?];
            said.extend(run(&self.head, &column(numbers)?)?);
            match decoder.read(&said, input)? {
                Heads::Boxes(boxes) => all.extend(boxes),
                Heads::Classes(_) => return Err(VisionError::NoBoxes),
            }
        }
        Ok(Heads::Boxes(all))
    }
}
