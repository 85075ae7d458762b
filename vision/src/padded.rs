//! Batches of a few sizes only: what lies between is filled up with blank images.
//!
//! A GPU's libraries choose, load and find memory for other kernels at every batch size that is new to them, and that takes many
//! times as long as the pass. So all sizes that are ever run are run once before anybody asks.

use adit_kernels::Isa;
use candle_core::Tensor;

use crate::error::VisionError;
use crate::network::{Heads, Network, join};
use crate::shape::ImageShape;
use crate::stop::Stop;

/// A network that is run in warmed batch sizes only.
#[derive(Debug)]
pub struct Padded {
    network: Box<dyn Network>,
    /// Ascending, at least one.
    sizes: Vec<usize>,
}

impl Padded {
    /// Runs a blank batch of each size, ascending, and keeps those that the device has the memory for: those before the first
    /// that fails. Fails when that is the first.
    pub fn warm(network: Box<dyn Network>, sizes: &[usize]) -> Result<Self, VisionError> {
        let ImageShape { channels, height, width } = network.input();
        let mut warmed = Vec::new();
        for size in sizes.iter().copied().filter(|size| *size > 0) {
            let blank =
                Tensor::zeros((size, channels, height, width), candle_core::DType::F32, &candle_core::Device::Cpu)?;
            match network.forward(&blank, &Stop::never()) {
                Ok(_) => warmed.push(size),
                Err(_) if !warmed.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        if warmed.is_empty() { Err(VisionError::NoSizes) } else { Ok(Self { network, sizes: warmed }) }
    }

    /// The sizes that are run, ascending.
    #[must_use]
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// A batch of at most the largest size.
    fn run(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Heads, VisionError> {
        let images = input.dim(0)?;
        let size = self.sizes.iter().copied().find(|size| *size >= images).unwrap_or(images);
        if size == images {
            return self.network.forward(input, stop);
        }
        let heads = self.network.forward(&input.pad_with_zeros(0, 0, size - images)?, stop)?;
        let mut parts = heads.split(&[images, size - images])?;
        Ok(parts.swap_remove(0))
    }
}

impl Network for Padded {
    fn input(&self) -> ImageShape {
        self.network.input()
    }

    fn classes(&self) -> usize {
        self.network.classes()
    }

    fn kernels(&self) -> Option<Isa> {
        self.network.kernels()
    }

    fn weight_bytes(&self) -> Option<usize> {
        self.network.weight_bytes()
    }

    /// What is more than the largest size is run in several passes.
    fn forward(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Heads, VisionError> {
        let (images, largest) = (input.dim(0)?, self.sizes.last().copied().unwrap_or(1));
        if images <= largest {
            return self.run(input, stop);
        }
        let mut parts = Vec::with_capacity(images.div_ceil(largest));
        for from in (0..images).step_by(largest) {
            parts.push(self.run(&input.narrow(0, from, largest.min(images - from))?, stop)?);
        }
        let (mut logits, mut boxes) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Heads::Classes(rows) => logits.push(rows),
                Heads::Boxes(seen) => boxes.extend(seen),
            }
        }
        // A network gives heads of one kind.
        if boxes.is_empty() { Ok(Heads::Classes(join(&logits)?)) } else { Ok(Heads::Boxes(boxes)) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use candle_core::{DType, Device};

    use super::*;
    use crate::boxes::Candidates;

    /// Answers each image with its one element, notes the sizes of its batches, and has no memory for more than so many.
    #[derive(Debug)]
    struct Echo {
        asked: Arc<Mutex<Vec<usize>>>,
        memory: usize,
        detects: bool,
    }

    impl Network for Echo {
        fn input(&self) -> ImageShape {
            ImageShape::new(1, 1, 1)
        }
        fn classes(&self) -> usize {
            1
        }
        fn forward(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Heads, VisionError> {
            stop.check()?;
            let images = input.dim(0)?;
            self.asked.lock().unwrap().push(images);
            if images > self.memory {
                return Err(VisionError::NotFinite);
            }
            let rows = input.flatten_from(1)?;
            if !self.detects {
                return Ok(Heads::Classes(rows));
            }
            let seen = rows.flatten_all()?.to_vec1::<f32>()?;
            let candidates = |score| Candidates { corners: vec![[0.; 4]], scores: vec![score], classes: 1 };
            Ok(Heads::Boxes(seen.into_iter().map(candidates).collect()))
        }
    }

    type Asked = Arc<Mutex<Vec<usize>>>;

    fn warmed(sizes: &[usize], memory: usize, detects: bool) -> (Result<Padded, VisionError>, Asked) {
        let asked = Asked::default();
        let padded = Padded::warm(Box::new(Echo { asked: asked.clone(), memory, detects }), sizes);
        (padded, asked)
    }

    fn ramp(images: usize) -> Tensor {
        Tensor::arange(1f32, images as f32 + 1.0, &Device::Cpu).unwrap().reshape((images, 1, 1, 1)).unwrap()
    }

    fn answers(heads: Heads) -> Vec<f32> {
        match heads {
            Heads::Classes(rows) => rows.flatten_all().unwrap().to_vec1().unwrap(),
            Heads::Boxes(boxes) => boxes.into_iter().map(|image| image.scores[0]).collect(),
        }
    }

    #[test]
    fn only_warmed_sizes_are_run_and_everybody_gets_their_own_answer() {
        for detects in [false, true] {
            let (padded, asked) = warmed(&[1, 2, 4], 64, detects);
            let padded = padded.unwrap();
            assert_eq!(std::mem::take(&mut *asked.lock().unwrap()), [1, 2, 4]);
            for (images, runs) in
                [(1, vec![1]), (2, vec![2]), (3, vec![4]), (4, vec![4]), (9, vec![4, 4, 1]), (7, vec![4, 4])]
            {
                let heads = padded.forward(&ramp(images), &Stop::never()).unwrap();
                let expected: Vec<f32> = (1..=images).map(|image| image as f32).collect();
                assert_eq!(answers(heads), expected);
                assert_eq!(std::mem::take(&mut *asked.lock().unwrap()), runs, "{images} images");
            }
        }
    }

    #[test]
    fn sizes_end_where_the_memory_does() {
        let padded = warmed(&[1, 2, 4, 8], 3, false).0.unwrap();
        assert_eq!(padded.sizes(), [1, 2]);
        assert_eq!(answers(padded.forward(&ramp(5), &Stop::never()).unwrap()), [1., 2., 3., 4., 5.]);
        assert!(matches!(warmed(&[4, 8], 3, false).0, Err(VisionError::NotFinite)));
        assert!(matches!(warmed(&[0], 3, false).0, Err(VisionError::NoSizes)));
    }

    #[test]
    fn it_stops_and_is_otherwise_the_network_itself() {
        let padded = warmed(&[1], 8, false).0.unwrap();
        assert_eq!((padded.input(), padded.classes()), (ImageShape::new(1, 1, 1), 1));
        let stopped = padded.forward(&ramp(3), &Stop::when(&|| true));
        assert!(matches!(stopped, Err(VisionError::Stopped)), "{stopped:?}");
        let none = Tensor::zeros((0, 1, 1, 1), DType::F32, &Device::Cpu).unwrap();
        assert!(padded.forward(&none, &Stop::never()).is_ok_and(|heads| answers(heads) == [0f32; 0]));
    }
}
