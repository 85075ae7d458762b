//! The loop that every training walks: shuffle, step, examine, keep the best; stop early, or go on where another stopped.
//!
//! What is learned, and from what, is a [`Lesson`]. After each epoch, and when it is told to stop, the whole state goes
//! into a checkpoint: weights, the optimiser's moments, the order of the images, the place in the random numbers, the
//! curve and the best weights so far. Whoever goes on from it computes the same numbers as if there had been no break.

use std::path::PathBuf;

use candle_core::{D, Tensor, Var};
use candle_nn::loss::cross_entropy;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;

use crate::error::VisionError;
use crate::stop::Stop;
use crate::train::checkpoint::{Partial, State};
use crate::train::optimiser::AdamW;
use crate::train::progress::{Batch, Epoch, Progress};

/// Part of all steps in which the learning rate rises.
const RISE: f64 = 0.1;

/// Where the state of a training is kept while it runs.
#[derive(Debug, Clone)]
pub struct Keep {
    /// The file.
    pub path: PathBuf,
    /// Whether to go on from what is there.
    pub resume: bool,
}

/// What is learned, and from what.
pub(crate) trait Lesson {
    /// Logits `[N, classes]` of the images at these places, which may be varied at random, and their classes.
    fn answer(&mut self, places: &[usize], random: &mut ChaCha12Rng) -> Result<(Tensor, Vec<u32>), VisionError>;

    /// The weights in the form in which they will be stored.
    fn stored(&self) -> Result<Vec<u8>, VisionError>;

    /// How weights in that form read the held-out images.
    fn examine(&mut self, stored: &[u8]) -> Result<Marks, VisionError>;

    /// Whether weights with the first marks are to be preferred.
    fn is_better(&self, marks: Marks, best: Marks) -> bool;
}

/// How held-out images are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Marks {
    /// Mean cross-entropy.
    pub(crate) loss: f32,
    /// Part that is read correctly, from 0 to 1.
    pub(crate) accuracy: f32,
}

/// How long, and how.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Everything that decides the result, in words: a checkpoint is only taken up by the same.
    pub(crate) recipe: String,
    pub(crate) epochs: usize,
    /// Images a step.
    pub(crate) batch: usize,
    /// The highest learning rate.
    pub(crate) learning_rate: f64,
    /// Epochs without a better one after which to stop.
    pub(crate) patience: Option<usize>,
    pub(crate) keep: Option<Keep>,
}

/// What comes out.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The best weights, as the lesson stores them.
    pub(crate) stored: Vec<u8>,
    /// The epoch that they are of.
    pub(crate) best: Epoch,
    /// All epochs.
    pub(crate) curve: Vec<Epoch>,
}

/// A training under way.
#[derive(Debug)]
pub(crate) struct Course {
    plan: Plan,
    optimiser: AdamW,
    random: ChaCha12Rng,
    order: Vec<usize>,
    curve: Vec<Epoch>,
    best: Vec<u8>,
    partial: Partial,
}

impl Course {
    /// Begins with these variables, or goes on from the plan's checkpoint: then what they hold is replaced. `order` has the
    /// places of all images to train on.
    pub(crate) fn begin(
        plan: Plan,
        variables: Vec<(String, Var)>,
        order: Vec<usize>,
        random: ChaCha12Rng,
    ) -> Result<Self, VisionError> {
        let optimiser = AdamW::new(variables)?;
        let (curve, best, partial) = (Vec::new(), Vec::new(), Partial::default());
        let mut course = Self { plan, optimiser, random, order, curve, best, partial };
        if let Some(Keep { path, resume: true }) = &course.plan.keep {
            let state = State::read(path, &course.plan.recipe, course.plan.epochs)?;
            course.take_up(state)?;
        }
        Ok(course)
    }

    /// Walks to the end, or until `stop`, which leaves a checkpoint behind and is [`VisionError::Stopped`].
    pub(crate) fn run(
        mut self,
        lesson: &mut impl Lesson,
        stop: &Stop<'_>,
        progress: &mut impl Progress,
    ) -> Result<Outcome, VisionError> {
        let steps = self.order.len().div_ceil(self.plan.batch);
        while self.curve.len() < self.plan.epochs && !self.has_stalled() {
            stop.check()?;
            if self.partial.steps == 0 {
                self.order.shuffle(&mut self.random);
            }
            while self.partial.steps < steps {
                self.step(lesson, steps, progress)?;
                if self.partial.steps < steps && stop.asked() {
                    self.keep()?;
                    return Err(VisionError::Stopped);
                }
            }
            progress.epoch(&self.close(lesson)?);
            self.keep()?;
        }
        match self.curve.iter().rfind(|epoch| epoch.best).copied() {
            Some(best) => Ok(Outcome { stored: self.best, best, curve: self.curve }),
            None => Err(VisionError::Training("no epoch was better than nothing".to_owned())),
        }
    }

    fn step(
        &mut self,
        lesson: &mut impl Lesson,
        steps: usize,
        progress: &mut impl Progress,
    ) -> Result<(), VisionError> {
        let from = self.partial.steps * self.plan.batch;
        let places = &self.order[from..self.order.len().min(from + self.plan.batch)];
        let (logits, labels) = lesson.answer(places, &mut self.random)?;
        let loss = cross_entropy(&logits, &Tensor::new(labels.as_slice(), logits.device())?)?;
        let rate = self.rate(steps);
        self.optimiser.step(&loss.backward()?, rate)?;
        let loss = loss.to_scalar::<f32>()?;
        if !loss.is_finite() {
            return Err(VisionError::Training("it diverged; try a lower learning rate".to_owned()));
        }
        let partial = &mut self.partial;
        partial.losses += loss * places.len() as f32;
        partial.right += right(&logits, &labels)?;
        partial.seen += places.len();
        partial.steps += 1;
        progress.batch(&Batch {
            epoch: self.curve.len() + 1,
            epochs: self.plan.epochs,
            step: partial.steps,
            steps,
            loss: partial.losses / partial.seen as f32,
            accuracy: partial.right as f32 / partial.seen as f32,
        });
        Ok(())
    }

    /// Ends an epoch: examines its weights, and keeps them if they are the best.
    fn close(&mut self, lesson: &mut impl Lesson) -> Result<Epoch, VisionError> {
        let stored = lesson.stored()?;
        let marks = lesson.examine(&stored)?;
        let best = self.curve.iter().rfind(|epoch| epoch.best);
        let best = best.is_none_or(|best| {
            lesson.is_better(marks, Marks { loss: best.held_out_loss, accuracy: best.held_out_accuracy })
        });
        if best {
            self.best = stored;
        }
        let Partial { losses, right, seen, .. } = std::mem::take(&mut self.partial);
        let epoch = Epoch {
            epoch: self.curve.len() + 1,
            epochs: self.plan.epochs,
            loss: losses / seen.max(1) as f32,
            accuracy: right as f32 / seen.max(1) as f32,
            held_out_loss: marks.loss,
            held_out_accuracy: marks.accuracy,
            best,
        };
        self.curve.push(epoch);
        Ok(epoch)
    }

    /// Whether the best epoch lies too far back.
    fn has_stalled(&self) -> bool {
        let since = self.curve.iter().rev().take_while(|epoch| !epoch.best).count();
        self.plan.patience.is_some_and(|patience| since >= patience)
    }

    /// Of the step after those that have been made: up along a line for the first tenth of all steps, then down along half
    /// a cosine.
    fn rate(&self, steps: usize) -> f64 {
        let part = (self.optimiser.steps + 1) as f64 / (steps * self.plan.epochs) as f64;
        let factor = if part < RISE {
            part / RISE
        } else {
            0.5 + 0.5 * ((part - RISE) / (1.0 - RISE) * std::f64::consts::PI).cos()
        };
        self.plan.learning_rate * factor
    }

    fn keep(&self) -> Result<(), VisionError> {
        let Some(Keep { path, .. }) = &self.plan.keep else { return Ok(()) };
        let mut learned = Vec::with_capacity(self.optimiser.learned.len());
        for one in &self.optimiser.learned {
            learned.push((one.name.clone(), [one.value.as_tensor().clone(), one.first.clone(), one.second.clone()]));
        }
        let state = State {
            learned,
            updates: self.optimiser.steps,
            drawn: self.random.get_word_pos(),
            order: self.order.clone(),
            curve: self.curve.clone(),
            best: self.best.clone(),
            partial: self.partial,
        };
        state.write(path, &self.plan.recipe)
    }

    fn take_up(&mut self, state: State) -> Result<(), VisionError> {
        let path = || self.plan.keep.as_ref().map(|keep| keep.path.clone()).unwrap_or_default();
        let refuse = |reason: &str| VisionError::Checkpoint { path: path(), reason: reason.to_owned() };
        let sorted = |order: &[usize]| {
            let mut order = order.to_vec();
            order.sort_unstable();
            order
        };
        if sorted(&state.order) != sorted(&self.order) {
            return Err(refuse("it is of another set of images"));
        }
        for one in &mut self.optimiser.learned {
            let known = state.learned.iter().find(|(name, _)| *name == one.name);
            let [value, first, second] =
                known.map(|(_, tensors)| tensors).ok_or_else(|| refuse("it lacks a tensor that is learned"))?;
            if [value, first, second].iter().any(|tensor| tensor.dims() != one.value.dims()) {
                return Err(refuse("a tensor has another shape"));
            }
            one.value.set(value)?;
            (one.first, one.second) = (first.clone(), second.clone());
        }
        self.optimiser.steps = state.updates;
        self.random.set_word_pos(state.drawn);
        (self.order, self.curve, self.best, self.partial) = (state.order, state.curve, state.best, state.partial);
        Ok(())
    }
}

/// How many of a batch are read correctly.
pub(crate) fn right(logits: &Tensor, labels: &[u32]) -> Result<usize, VisionError> {
    let found = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
    Ok(found.iter().zip(labels).filter(|(found, label)| found == label).count())
}
