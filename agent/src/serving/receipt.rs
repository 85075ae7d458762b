//! An answered inference on its way into the statistics.
//!
//! Writing the answer is the dialect's work and part of what an inference takes. So an inference is not entered when the
//! network has answered, but when its dialect lets go of what it has written from: no dialect has to say so, or can forget it.

use std::sync::Arc;
use std::time::Instant;

use crate::metrics::{Account, Spent};

/// Enters an inference in its model's account when the last clone is dropped. The default one enters nothing.
#[derive(Debug, Clone, Default)]
pub struct Receipt {
    _entry: Option<Arc<Entry>>,
}

#[derive(Debug)]
struct Entry {
    account: Arc<Account>,
    images: usize,
    batch: usize,
    spent: Spent,
    interpreted: Instant,
}

impl Receipt {
    /// For an inference of so many images in a pass of `batch`, of which only the writing is left.
    pub(super) fn new(account: Arc<Account>, images: usize, batch: usize, spent: Spent) -> Self {
        Self { _entry: Some(Arc::new(Entry { account, images, batch, spent, interpreted: Instant::now() })) }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let output = self.spent.output + self.interpreted.elapsed();
        self.account.answered(self.images, self.batch, Spent { output, ..self.spent });
    }
}
