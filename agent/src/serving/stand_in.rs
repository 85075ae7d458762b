//! A network that computes nothing and takes set times.
//!
//! It is how the path is measured without a model: what a request costs beyond the times that are set here is the path's own,
//! and a time that is planted in one stage must be found in that stage's timing and in no other.

use std::thread::sleep;
use std::time::{Duration, Instant};

use adit_vision::{Device, Heads, ImageShape, Network, Stop, Tensor, VisionError};
use serde::Deserialize;

/// The name in a `model.toml`.
pub(super) const ARCHITECTURE: &str = "stand_in";

/// A pretended layer: as often the network asks whether to stop.
const LAYER: Duration = Duration::from_millis(1);

/// A thread that hangs cannot be ended: none is to outlive a test for long.
const LONGEST_HANG: Duration = Duration::from_secs(60);

/// `[stand_in]` of a `model.toml`: the times that each stage takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StandIn {
    /// Decoding one image.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub decode: Duration,
    /// Preparing one image.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub prepare: Duration,
    /// One forward pass, whatever the batch.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub forward: Duration,
    /// What each image of a batch adds to it: nothing unless given, as on a device for which batches are made; as much as
    /// `forward` and more on one that gains nothing from them.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub per_image: Duration,
    /// Whether it obeys whoever wants to see it fail: then a prepared `input` below zero makes it panic, and one above zero
    /// hang for so many seconds within a layer, where nothing can stop it.
    pub faults: bool,
    /// How many classes there are; the answer is always class 0.
    pub classes: usize,
}

impl Default for StandIn {
    fn default() -> Self {
        Self {
            decode: Duration::ZERO,
            prepare: Duration::ZERO,
            forward: Duration::ZERO,
            per_image: Duration::ZERO,
            faults: false,
            classes: 10,
        }
    }
}

impl StandIn {
    /// Takes the time of decoding.
    pub(super) fn decode(&self) {
        sleep(self.decode);
    }

    /// Takes the time of preparing, and gives the one number that its network looks at.
    pub(super) fn prepare(&self) -> Vec<f32> {
        sleep(self.prepare);
        vec![0.0]
    }
}

impl Network for StandIn {
    fn input(&self) -> ImageShape {
        ImageShape::new(1, 1, 1)
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward(&self, input: &Tensor, stop: &Stop<'_>) -> Result<Heads, VisionError> {
        let images = input.dim(0)?;
        let end = Instant::now() + self.forward + self.per_image * u32::try_from(images).unwrap_or(u32::MAX);
        stop.check()?;
        if self.faults {
            for wish in input.flatten_all()?.to_vec1::<f32>()? {
                assert!(wish >= 0.0, "asked to panic");
                sleep(Duration::try_from_secs_f32(wish).unwrap_or_default().min(LONGEST_HANG));
            }
        }
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            sleep(left.min(LAYER));
            stop.check()?;
        }
        // Logits: with ten classes, the first has a probability of 0.55.
        let row = (0..self.classes).map(|class| if class == 0 { 2.4_f32 } else { 0.0 });
        let logits: Vec<f32> = std::iter::repeat_n(row, images).flatten().collect();
        Ok(Heads::Classes(Tensor::from_vec(logits, (images, self.classes), &Device::Cpu)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_its_time_and_stops_when_asked() {
        let (forward, per_image) = (Duration::from_millis(10), Duration::from_millis(5));
        let network = StandIn { forward, per_image, ..StandIn::default() };
        let input = Tensor::from_vec(vec![0f32; 2], (2, 1, 1, 1), &Device::Cpu).unwrap();
        let begun = Instant::now();
        let Ok(Heads::Classes(logits)) = network.forward(&input, &Stop::never()) else { panic!("no classes") };
        assert!(begun.elapsed() >= forward + 2 * per_image);
        assert_eq!(logits.dims(), [2, 10]);
        let stopped = StandIn { forward: Duration::from_secs(3600), ..network }.forward(&input, &Stop::when(&|| true));
        assert!(matches!(stopped, Err(VisionError::Stopped)));
    }

    #[test]
    #[should_panic(expected = "asked to panic")]
    fn it_panics_only_where_it_obeys() {
        let input = Tensor::from_vec(vec![-1f32], (1, 1, 1, 1), &Device::Cpu).unwrap();
        StandIn::default().forward(&input, &Stop::never()).unwrap();
        let _ = StandIn { faults: true, ..StandIn::default() }.forward(&input, &Stop::never());
    }
}
