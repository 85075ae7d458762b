//! How many requests are open on a session, of as many as its window has room for.
//!
//! What an answer holds unread is bounded by its stream's window. A session's window is as large as those of all its streams together,
//! so it never stops anybody; what bounds the memory of a session is how many streams it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The room of one session.
#[derive(Debug)]
pub(super) struct Room {
    open: Arc<AtomicUsize>,
    limit: usize,
}

/// One of its places, until it is dropped.
#[derive(Debug)]
pub(super) struct Credit(Arc<AtomicUsize>);

impl Room {
    /// For so many at a time.
    pub(super) fn new(limit: u32) -> Self {
        Self { open: Arc::default(), limit: limit as usize }
    }

    /// A place, if one is free.
    pub(super) fn take(&self) -> Option<Credit> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let credit = Credit(self.open.clone());
        (before < self.limit).then_some(credit)
    }
}

impl Credit {
    /// How many places are taken, this one among them.
    pub(super) fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_was_given_back_is_given_again() {
        let room = Room::new(2);
        let (one, two) = (room.take().unwrap(), room.take().unwrap());
        assert!(room.take().is_none() && room.take().is_none());
        assert_eq!((one.taken(), two.taken()), (2, 2));
        drop(one);
        assert!(room.take().is_some_and(|credit| credit.taken() == 2));
    }
}
