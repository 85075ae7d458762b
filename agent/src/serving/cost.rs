//! What a pass costs for each number of images, and how many images a batch should have.
//!
//! On a GPU eight images cost little more than one, so batches multiply what it gets done; on a processor they cost eight
//! times as much, and only make everybody wait for everybody. Nobody has to know which it is: passes are timed, and while
//! requests pile up, every now and then twice or half as many images are tried for a few passes. Pure: times come from the
//! outside.

use std::collections::BTreeMap;
use std::time::Duration;

/// The most images that are run together without being told to: beyond it even GPUs gain little, and everybody waits longer.
const MOST: usize = 64;

/// The weight of a new time in the mean of a size: some ten passes are remembered.
const NEW: f64 = 0.2;

/// Passes of each size that a trial compares: so many that one that was disturbed does not decide.
const PASSES: usize = 8;

/// A larger batch must cost at most this share of the present one's time an image.
const GAIN: f64 = 0.95;

/// A smaller batch is as good if it costs at most this share of the present one's time an image: everybody waits less.
const EQUAL: f64 = 1.02;

/// Crowded passes from one trial to the next; doubles when a trial has changed nothing.
const FIRST_PAUSE: u32 = 8;
const LONGEST_PAUSE: u32 = 2048;

/// No batch is tried that may take longer, even should its time grow with its images: whoever comes next waits for it.
const LONGEST_PASS: Duration = Duration::from_millis(500);

/// What was measured, and what follows.
#[derive(Debug)]
pub(super) struct Costs {
    /// Mean seconds of a pass, by its images; larger ones count as `MOST`, scaled.
    means: BTreeMap<usize, f64>,
    /// The size that was asked for; without it, what was found out counts.
    fixed: Option<usize>,
    found: usize,
    /// The newest times of a crowded pass of the found size, in seconds, the oldest first.
    recent: Vec<f64>,
    trial: Option<Trial>,
    next: Direction,
    pause: u32,
    /// Crowded passes since the last trial.
    since: u32,
}

#[derive(Debug)]
struct Trial {
    size: usize,
    times: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Costs {
    /// Nothing measured yet. `fixed` is the largest batch, 0 to find it out.
    pub(super) fn new(fixed: usize) -> Self {
        Self {
            means: BTreeMap::new(),
            fixed: Some(fixed).filter(|size| *size > 0),
            found: 1,
            recent: Vec::new(),
            trial: None,
            next: Direction::Up,
            pause: FIRST_PAUSE,
            since: 0,
        }
    }

    /// Another largest batch, 0 to find it out; what was measured stays.
    pub(super) fn fix(&mut self, fixed: usize) {
        self.fixed = Some(fixed).filter(|size| *size > 0);
    }

    /// Images that a batch should have at most.
    pub(super) fn size(&self) -> usize {
        self.fixed.unwrap_or_else(|| self.trial.as_ref().map_or(self.found, |trial| trial.size))
    }

    /// What a pass of so many images takes; `None` before anything was measured.
    pub(super) fn of(&self, images: usize) -> Option<Duration> {
        let images = images.max(1);
        // Of sizes that were never run the next smaller one tells most: it errs on the side of too long.
        let below = self.means.range(..=images).next_back();
        let (size, mean) = below.or_else(|| self.means.range(images..).next())?;
        Some(Duration::from_secs_f64(mean * images as f64 / *size as f64))
    }

    /// Seconds an image at the size of now; 0 before anything was measured.
    pub(super) fn an_image(&self) -> Duration {
        let size = self.size();
        self.of(size).map_or(Duration::ZERO, |time| time / size as u32)
    }

    /// A pass took so long. `crowded` is whether others were kept waiting by it: only then sizes are compared, under the same
    /// load.
    pub(super) fn record(&mut self, images: usize, took: Duration, crowded: bool) {
        let (size, seconds) = match images.max(1) {
            size if size <= MOST => (size, took.as_secs_f64()),
            more => (MOST, took.as_secs_f64() * MOST as f64 / more as f64),
        };
        self.means.entry(size).and_modify(|mean| *mean += (seconds - *mean) * NEW).or_insert(seconds);
        if !crowded || self.fixed.is_some() {
            return;
        }
        match &mut self.trial {
            Some(trial) if trial.size == size => {
                trial.times.push(seconds);
                if trial.times.len() == PASSES {
                    self.decide();
                }
            }
            Some(_) => {}
            None if size == self.found => {
                if self.recent.len() == PASSES {
                    self.recent.remove(0);
                }
                self.recent.push(seconds);
                self.since += 1;
                if self.since >= self.pause && self.recent.len() == PASSES {
                    self.try_another();
                }
            }
            None => {}
        }
    }

    /// So many images wait, and that is too few for the trial under way: it would never end.
    pub(super) fn give_up_trial_above(&mut self, waiting: usize) {
        if self.trial.as_ref().is_some_and(|trial| trial.size > self.found && trial.size > waiting) {
            self.trial = None;
            self.since = 0;
        }
    }

    fn try_another(&mut self) {
        let (up, down) = (self.found * 2, self.found / 2);
        let bearable = median(&self.recent) * 2.0 <= LONGEST_PASS.as_secs_f64() && up <= MOST;
        let size = match self.next {
            Direction::Up if bearable => up,
            _ if down > 0 => down,
            _ if bearable => up,
            _ => return,
        };
        self.trial = Some(Trial { size, times: Vec::with_capacity(PASSES) });
    }

    fn decide(&mut self) {
        let Some(trial) = self.trial.take() else { return };
        let now = median(&self.recent) / self.found as f64;
        let tried = median(&trial.times) / trial.size as f64;
        let (better, direction) = if trial.size > self.found {
            (tried <= now * GAIN, Direction::Up)
        } else {
            (tried <= now * EQUAL, Direction::Down)
        };
        self.since = 0;
        if better {
            (self.found, self.recent) = (trial.size, trial.times);
            // What helped once may help again.
            (self.next, self.pause) = (direction, FIRST_PAUSE);
        } else {
            self.next = if direction == Direction::Up { Direction::Down } else { Direction::Up };
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Crowded passes of whatever size is wanted, on a device where a pass of so many images takes `cost`.
    fn crowd(costs: &mut Costs, passes: usize, cost: impl Fn(usize) -> Duration) {
        for _ in 0..passes {
            let size = costs.size();
            costs.record(size, cost(size), true);
        }
    }

    const fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn batches_stay_small_where_images_cost_the_same_each() {
        let mut costs = Costs::new(0);
        crowd(&mut costs, 5000, |images| millis(25) * images as u32);
        assert_eq!(costs.found, 1);
        // Trials become rare.
        let tried = (0..4000).filter(|_| {
            let size = costs.size();
            costs.record(size, millis(25) * size as u32, true);
            size > 1
        });
        assert!(tried.count() <= 3 * PASSES);
    }

    #[test]
    fn batches_grow_where_company_is_cheap_and_shrink_again() {
        let mut costs = Costs::new(0);
        crowd(&mut costs, 400, |images| millis(4) + Duration::from_micros(100) * images as u32);
        assert_eq!(costs.found, MOST, "nearly for nothing");
        crowd(&mut costs, 20_000, |images| millis(3) * images as u32);
        assert_eq!(costs.found, 1, "a device that others have taken over");
        // From eight images on, an image more costs as much as one alone.
        crowd(&mut costs, 20_000, |images| millis(10).max(millis(10) * images as u32 / 8));
        assert!((4..=8).contains(&costs.found), "{}", costs.found);
    }

    #[test]
    fn no_pass_becomes_unbearably_long_and_lone_ones_teach_nothing_of_sizes() {
        let mut costs = Costs::new(0);
        crowd(&mut costs, 1000, |_| millis(300));
        assert_eq!(costs.found, 1, "two might take longer than half a second");
        let mut costs = Costs::new(0);
        (0..1000).for_each(|_| costs.record(1, millis(1), false));
        assert_eq!((costs.size(), costs.of(1)), (1, Some(millis(1))));
    }

    #[test]
    fn a_trial_that_nobody_waits_for_ends() {
        let mut costs = Costs::new(0);
        crowd(&mut costs, PASSES, |_| millis(5));
        assert_eq!(costs.size(), 2, "a trial");
        costs.give_up_trial_above(2);
        assert_eq!(costs.size(), 2);
        costs.give_up_trial_above(1);
        assert_eq!(costs.size(), 1);
    }

    #[test]
    fn what_is_asked_for_is_not_questioned() {
        let mut costs = Costs::new(4);
        crowd(&mut costs, 1000, |_| millis(1));
        assert_eq!(costs.size(), 4);
        costs.fix(0);
        assert_eq!(costs.size(), 1);
    }

    #[test]
    fn unknown_sizes_are_told_from_the_next_smaller_one() {
        let mut costs = Costs::new(0);
        assert_eq!((costs.of(3), costs.an_image()), (None, Duration::ZERO));
        costs.record(2, millis(20), false);
        assert_eq!(costs.of(4), Some(millis(40)));
        assert_eq!(costs.of(1), Some(millis(10)));
        costs.record(4, millis(24), false);
        assert_eq!((costs.of(4), costs.of(2)), (Some(millis(24)), Some(millis(20))));
        costs.record(128, millis(640), false);
        assert_eq!(costs.of(64), Some(millis(320)));
    }
}
