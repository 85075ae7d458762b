//! Where the peer's parity lies until the readers of its streams want it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

use super::block::{REACH, UNIT};
use super::part::Part;

/// Parity of one stream that its reader has not seen: more than this and the rest is not taken.
const MOST_PARTS: usize = 2 * REACH.div_ceil(UNIT) as usize;

/// The same of all streams of a session: three megabytes.
const MOST_KEPT: usize = 4096;

/// Parity of streams of which nothing else has come: the newest is kept. Of a request of one packet that was lost, say, until the next
/// request shows that there was one.
const MOST_EARLY: usize = 64;

/// All streams of a session that are read.
#[derive(Debug, Default)]
pub(super) struct Shelves {
    read: HashMap<u64, Arc<Shelf>>,
    /// The ids of streams that nobody has read begin here.
    unread: u64,
    early: VecDeque<Part>,
    /// How many parts lie on all shelves.
    kept: Arc<AtomicUsize>,
}

impl Shelves {
    /// Somebody reads this stream from its beginning.
    pub(super) fn begin(&mut self, stream: u64) -> Arc<Shelf> {
        let shelf = Arc::new(Shelf { kept: self.kept.clone(), shelved: Mutex::default() });
        self.unread = self.unread.max(stream + 1);
        self.read.insert(stream, shelf.clone());
        self.early.iter().filter(|part| part.stream == stream).for_each(|part| shelf.put(part.clone()));
        self.early.retain(|part| part.stream >= self.unread);
        shelf
    }

    /// Nobody does any more.
    pub(super) fn end(&mut self, stream: u64) {
        self.read.remove(&stream);
    }

    /// Parity of one of them, or of one to come. Mostly of one that was read: all of it had arrived.
    pub(super) fn put(&mut self, part: Part) {
        match self.read.get(&part.stream) {
            Some(shelf) => shelf.put(part),
            None if part.stream < self.unread => {}
            None => {
                if self.early.len() >= MOST_EARLY {
                    self.early.pop_front();
                }
                self.early.push_back(part);
            }
        }
    }
}

/// The parity of one stream.
#[derive(Debug)]
pub(super) struct Shelf {
    kept: Arc<AtomicUsize>,
    shelved: Mutex<Shelved>,
}

#[derive(Debug, Default)]
struct Shelved {
    parts: Vec<Part>,
    reader: Option<Waker>,
}

impl Shelf {
    fn put(&self, part: Part) {
        let mut shelved = self.shelved.lock().unwrap_or_else(PoisonError::into_inner);
        if shelved.parts.len() >= MOST_PARTS || self.kept.load(Ordering::Relaxed) >= MOST_KEPT {
            return;
        }
        self.kept.fetch_add(1, Ordering::Relaxed);
        shelved.parts.push(part);
        if let Some(reader) = shelved.reader.take() {
            reader.wake();
        }
    }

    /// What is there; whoever asks is woken when there is more.
    pub(super) fn take(&self, context: &Context<'_>) -> Vec<Part> {
        let mut shelved = self.shelved.lock().unwrap_or_else(PoisonError::into_inner);
        shelved.reader = Some(context.waker().clone());
        self.kept.fetch_sub(shelved.parts.len(), Ordering::Relaxed);
        std::mem::take(&mut shelved.parts)
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let shelved = self.shelved.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.kept.fetch_sub(shelved.parts.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::block::Block;
    use super::*;

    fn part(stream: u64, unit: u64) -> Part {
        let block = Block { start: unit * UNIT, length: 1, is_last: true };
        Part { stream, block, from: 0, sums: Bytes::from_static(b"a") }
    }

    fn taken(shelf: &Shelf) -> usize {
        shelf.take(&Context::from_waker(Waker::noop())).len()
    }

    #[test]
    fn parity_that_is_early_waits_and_parity_that_is_late_does_not() {
        let mut shelves = Shelves::default();
        (0..200).for_each(|unit| shelves.put(part(5, unit)));
        shelves.put(part(9, 0));
        let shelf = shelves.begin(5);
        assert_eq!(taken(&shelf), MOST_EARLY - 1, "the newest");
        shelves.put(part(5, 0));
        shelves.put(part(1, 0));
        assert_eq!(taken(&shelf), 1);
        shelves.end(5);
        shelves.put(part(5, 0));
        assert_eq!((taken(&shelf), shelves.early.len()), (0, 1));
        assert_eq!(taken(&shelves.begin(9)), 1);
    }

    #[test]
    fn all_shelves_together_are_full_at_some_time() {
        let mut shelves = Shelves::default();
        let all: Vec<_> = (0..100).map(|stream| shelves.begin(stream)).collect();
        for stream in 0..100 {
            (0..MOST_PARTS as u64).for_each(|unit| shelves.put(part(stream, unit)));
        }
        assert_eq!((shelves.kept.load(Ordering::Relaxed), taken(&all[0]), taken(&all[99])), (MOST_KEPT, MOST_PARTS, 0));
        (0..100).for_each(|stream| shelves.end(stream));
        drop(all);
        assert_eq!(shelves.kept.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_shelf_is_full_at_some_time() {
        let mut shelves = Shelves::default();
        let shelf = shelves.begin(1);
        (0..1000).for_each(|unit| shelves.put(part(1, unit)));
        assert_eq!(taken(&shelf), MOST_PARTS);
    }
}
