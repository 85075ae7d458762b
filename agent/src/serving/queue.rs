//! A bounded queue that its callers may leave.
//!
//! A channel would keep the item of a caller that has hung up until the worker comes to it, and a full channel of such
//! items would refuse the living. Here a caller takes its item out again, and its place is free at once.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items in order of arrival, at most a fixed number of them.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<(u64, T)>,
    next: u64,
    closed: bool,
}

/// Why an item was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no place.
    Full,
    /// The worker has ended.
    Closed,
}

impl<T> Queue<T> {
    pub(super) const fn new(capacity: usize) -> Self {
        let state = State { items: VecDeque::new(), next: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), capacity }
    }

    /// Takes an item, and returns the number under which [`Queue::remove`] finds it.
    pub(super) fn push(&self, item: T) -> Result<u64, Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.items.len() >= self.capacity {
            return Err(Refused::Full);
        }
        let number = state.next;
        state.next += 1;
        state.items.push_back((number, item));
        drop(state);
        self.changed.notify_one();
        Ok(number)
    }

    /// Takes an item out again, `None` when the worker has it already.
    pub(super) fn remove(&self, number: u64) -> Option<T> {
        let mut state = self.lock();
        let place = state.items.iter().position(|(other, _)| *other == number)?;
        state.items.remove(place).map(|(_, item)| item)
    }

    /// The oldest item; blocks until there is one. `None` once the queue is closed.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some((_, item)) = state.items.pop_front() {
                return Some(item);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes nothing more, and drops what is left.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        // Dropped outside of the lock: an item's drop wakes its caller.
        let left = std::mem::take(&mut state.items);
        drop(state);
        self.changed.notify_all();
        drop(left);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code of ours panics under this lock, and every state of a queue is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn items_come_out_in_order_and_a_full_queue_refuses() {
        let queue = Queue::new(2);
        assert_eq!((queue.push('a'), queue.push('b')), (Ok(0), Ok(1)));
        assert_eq!(queue.push('c'), Err(Refused::Full));
        assert_eq!(queue.pop(), Some('a'));
        assert_eq!(queue.push('c'), Ok(2));
        assert_eq!((queue.pop(), queue.pop()), (Some('b'), Some('c')));
    }

    #[test]
    fn who_leaves_frees_a_place() {
        let queue = Queue::new(2);
        let first = queue.push('a').unwrap();
        queue.push('b').unwrap();
        assert_eq!(queue.remove(first), Some('a'));
        assert_eq!(queue.remove(first), None);
        queue.push('c').unwrap();
        assert_eq!((queue.pop(), queue.pop()), (Some('b'), Some('c')));
    }

    #[test]
    fn closing_wakes_the_worker_and_drops_what_is_left() {
        let queue = Arc::new(Queue::new(2));
        let worker = std::thread::spawn({
            let queue = queue.clone();
            move || queue.pop()
        });
        queue.close();
        assert_eq!(worker.join().unwrap(), None::<Arc<()>>);
        let item = Arc::new(());
        assert_eq!(queue.push(item.clone()), Err(Refused::Closed));
        assert_eq!(Arc::strong_count(&item), 1);
    }
}
