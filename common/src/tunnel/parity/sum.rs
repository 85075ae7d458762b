//! Sums of a stream's bytes, by exclusive or.

use super::block::{STRIDE, place};

/// One sum for each place.
#[derive(Debug, Clone)]
pub(super) struct Sum(Box<[u8; STRIDE]>);

impl Sum {
    pub(super) fn new() -> Self {
        Self(Box::new([0; STRIDE]))
    }

    /// Adds bytes that lie at this offset of their stream.
    pub(super) fn add(&mut self, offset: u64, mut bytes: &[u8]) {
        let mut at = place(offset);
        while !bytes.is_empty() {
            let (run, rest) = bytes.split_at(bytes.len().min(STRIDE - at));
            for (sum, byte) in self.0[at..at + run.len()].iter_mut().zip(run) {
                *sum ^= byte;
            }
            (at, bytes) = (0, rest);
        }
    }

    pub(super) fn bytes(&self) -> &[u8; STRIDE] {
        &self.0
    }
}
