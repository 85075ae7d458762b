//! What training tells whoever watches it.

/// Is told how training goes: a progress bar, a log, or nothing.
pub trait Progress {
    /// After each picture whose features have been computed: how many are done, of how many. Only where a network that is
    /// already trained gets a new last layer.
    fn features(&mut self, done: usize, of: usize) {
        let _ = (done, of);
    }

    /// After each step.
    fn batch(&mut self, batch: &Batch);

    /// After each epoch, when the held-out images have been read.
    fn epoch(&mut self, epoch: &Epoch);
}

/// One step of training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch {
    /// From 1.
    pub epoch: usize,
    /// Of how many.
    pub epochs: usize,
    /// Step within the epoch, from 1.
    pub step: usize,
    /// Of how many.
    pub steps: usize,
    /// Mean cross-entropy over the epoch so far.
    pub loss: f32,
    /// Part of the epoch's images so far that were read correctly, from 0 to 1.
    pub accuracy: f32,
}

/// One walk over the training set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Of how many.
    pub epochs: usize,
    /// Mean cross-entropy over the epoch.
    pub loss: f32,
    /// Part of the epoch's images that were read correctly, each when its turn came, from 0 to 1.
    pub accuracy: f32,
    /// Mean cross-entropy over the held-out images, after the epoch.
    pub held_out_loss: f32,
    /// Part of the held-out images that were read correctly, from 0 to 1.
    pub held_out_accuracy: f32,
    /// Whether these are the best weights so far.
    pub best: bool,
}
