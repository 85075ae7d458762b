//! How fast a model is: passes in batches of several sizes, in turns, so that what else the machine does meets all sizes alike.

use std::time::{Duration, Instant};

use adit_vision::image::{ImageLimits, batch, decode_for, prepare};
use adit_vision::{Device, Heads, Stop, candidates, detections, probabilities, top};

use super::open::Opened;

/// How long a size is measured before the next one has its turn: many passes of a small network, one of a large.
const TURN: Duration = Duration::from_millis(100);

/// How long each size is run before anything counts: the first passes find their memory and wake the threads.
const WARM_UP: Duration = Duration::from_millis(200);

/// The classes that are picked of a classifier's answer, as `POST /photo` and `infer` do.
const TOP: usize = 5;

/// What each stage took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// From the file's bytes to pixels.
    pub decode: Duration,
    /// From pixels to the network's input.
    pub prepare: Duration,
    /// The network.
    pub forward: Duration,
    /// From the network's output to classes or boxes.
    pub interpret: Duration,
}

impl Stages {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.decode + self.prepare + self.forward + self.interpret
    }
}

/// All passes of one batch size.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// Images in a batch.
    pub batch: usize,
    /// What each pass took for the whole batch, in the order in which they were run.
    pub passes: Vec<Stages>,
}

impl Measurement {
    /// Runs a model on one picture for `time` per batch size; `at` hears of what is done, from 0 to 1. The error is the reason
    /// why there is nothing to measure.
    pub fn take(
        opened: &Opened,
        image: &[u8],
        batches: &[usize],
        time: Duration,
        mut at: impl FnMut(f64),
    ) -> Result<Vec<Self>, String> {
        let mut sizes: Vec<Self> = batches.iter().map(|batch| Self { batch: *batch, passes: Vec::new() }).collect();
        for size in &sizes {
            let begun = Instant::now();
            while begun.elapsed() < WARM_UP {
                once(opened, image, size.batch)?;
            }
        }
        let whole = time.as_secs_f64().max(f64::MIN_POSITIVE) * sizes.len().max(1) as f64;
        let mut spent = vec![Duration::ZERO; sizes.len()];
        while spent.iter().any(|spent| *spent < time) {
            for (size, spent) in sizes.iter_mut().zip(&mut spent) {
                let begun = Instant::now();
                let turn = TURN.min(time.saturating_sub(*spent));
                while begun.elapsed() < turn {
                    size.passes.push(once(opened, image, size.batch)?);
                }
                *spent += begun.elapsed();
            }
            at((spent.iter().sum::<Duration>().as_secs_f64() / whole).min(1.0));
        }
        Ok(sizes)
    }

    /// Images a second, over all passes and stages.
    pub fn images_per_second(&self) -> f64 {
        let total: Duration = self.passes.iter().map(Stages::total).sum();
        (self.batch * self.passes.len()) as f64 / total.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The duration of a stage below which this part (0 to 1) of the passes stayed.
    pub fn quantile(&self, part: f64, stage: impl Fn(&Stages) -> Duration) -> Duration {
        let mut times: Vec<Duration> = self.passes.iter().map(stage).collect();
        times.sort_unstable();
        let place = (part * times.len() as f64).ceil() as usize;
        times.get(place.saturating_sub(1)).copied().unwrap_or_default()
    }
}

fn once(opened: &Opened, image: &[u8], size: usize) -> Result<Stages, String> {
    let mut stages = Stages::default();
    let (mut inputs, mut frames) = (Vec::with_capacity(size), Vec::new());
    for _ in 0..size {
        let begun = Instant::now();
        let pixels =
            decode_for(image, &ImageLimits::default(), &opened.preprocess).map_err(|error| error.to_string())?;
        let decoded = Instant::now();
        inputs.push(prepare(&pixels, &opened.preprocess).map_err(|error| error.to_string())?);
        let [width, height] = pixels.size();
        frames.extend(opened.preprocess.frame(width, height));
        stages.decode += decoded - begun;
        stages.prepare += decoded.elapsed();
    }
    let run = || {
        let begun = Instant::now();
        let input = batch(&inputs, opened.network.input(), &Device::Cpu)?;
        let prepared = Instant::now();
        let heads = opened.network.forward(&input, &Stop::never())?;
        let forwarded = Instant::now();
        match &opened.detect {
            None => {
                for row in probabilities(&heads)? {
                    top(&row, &opened.labels, TOP)?;
                }
            }
            Some(options) => {
                for (found, frame) in candidates(&heads)?.iter().zip(&frames) {
                    detections(found, frame, &opened.labels, options)?;
                }
            }
        }
        Ok::<_, adit_vision::VisionError>((heads, prepared - begun, forwarded - prepared, forwarded.elapsed()))
    };
    let (heads, prepared, forward, interpret): (Heads, _, _, _) =
        run().map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
    drop(heads);
    stages.prepare += prepared;
    (stages.forward, stages.interpret) = (forward, interpret);
    Ok(stages)
}

#[cfg(test)]
mod tests {
    use adit_vision::image::digit_picture;

    use super::*;
    use crate::serving::Devices;

    #[test]
    fn every_size_gets_its_passes_and_every_stage_its_time() {
        let opened = Opened::embedded(&Devices::cpu()).unwrap();
        let picture = digit_picture(3).unwrap();
        let mut heard = Vec::new();
        let time = Duration::from_millis(20);
        let taken = Measurement::take(&opened, &picture, &[1, 3], time, |part| heard.push(part)).unwrap();
        assert_eq!(taken.iter().map(|size| size.batch).collect::<Vec<_>>(), [1, 3]);
        for size in &taken {
            assert!(!size.passes.is_empty());
            for pass in &size.passes {
                let Stages { decode, prepare, forward, interpret } = *pass;
                assert!([decode, prepare, forward, interpret].iter().all(|time| *time > Duration::ZERO), "{pass:?}");
            }
            assert!(size.images_per_second() > 0.0);
        }
        assert_eq!(heard.last(), Some(&1.0));
        let error = Measurement::take(&opened, b"no picture", &[1], time, |_| {}).unwrap_err();
        assert!(error.contains("not a JPEG"), "{error}");
    }

    #[test]
    fn quantiles_are_of_what_was_measured() {
        let pass = |forward| Stages { forward: Duration::from_millis(forward), ..Stages::default() };
        let size = Measurement { batch: 2, passes: (1..=10).map(pass).collect() };
        assert_eq!(size.quantile(0.5, |stages| stages.forward), Duration::from_millis(5));
        assert_eq!(size.quantile(0.9, Stages::total), Duration::from_millis(9));
        // 20 images in 55 ms.
        assert!((size.images_per_second() - 363.6).abs() < 0.1);
        let empty = Measurement { batch: 1, passes: Vec::new() };
        assert_eq!((empty.quantile(0.5, Stages::total), empty.images_per_second()), (Duration::ZERO, 0.0));
    }
}
