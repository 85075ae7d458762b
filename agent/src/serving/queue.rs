//! A bounded queue that its callers may leave.
//!
//! A channel would keep the item of a caller that has hung up until the worker comes to it, and a full channel of such
//! items would refuse the living. Here a caller takes its item out again, and its place is free at once.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items in order of arrival, at most of a fixed weight together: an item of many images takes as many places.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<Waiting<T>>,
    weight: usize,
    next: u64,
    closed: bool,
}

#[derive(Debug)]
struct Waiting<T> {
    number: u64,
    weight: usize,
    item: T,
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
        let state = State { items: VecDeque::new(), weight: 0, next: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), capacity }
    }

    /// Takes an item of this weight, and returns the number under which [`Queue::remove`] finds it. An empty queue takes one
    /// of any weight.
    pub(super) fn push(&self, item: T, weight: usize) -> Result<u64, Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if !state.items.is_empty() && state.weight + weight > self.capacity {
            return Err(Refused::Full);
        }
        let number = state.next;
        state.next += 1;
        state.weight += weight;
        state.items.push_back(Waiting { number, weight, item });
        drop(state);
        self.changed.notify_one();
        Ok(number)
    }

    /// Takes an item out again, `None` when the worker has it already.
    pub(super) fn remove(&self, number: u64) -> Option<T> {
        let mut state = self.lock();
        let place = state.items.iter().position(|waiting| waiting.number == number)?;
        let found = state.items.remove(place)?;
        state.weight -= found.weight;
        Some(found.item)
    }

    /// The oldest item; blocks until there is one. `None` once the queue is closed.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(first) = state.items.pop_front() {
                state.weight -= first.weight;
                return Some(first.item);
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
        state.weight = 0;
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
        assert_eq!((queue.push('a', 1), queue.push('b', 1)), (Ok(0), Ok(1)));
        assert_eq!(queue.push('c', 1), Err(Refused::Full));
        assert_eq!(queue.pop(), Some('a'));
        assert_eq!(queue.push('c', 1), Ok(2));
        assert_eq!((queue.pop(), queue.pop()), (Some('b'), Some('c')));
    }

    #[test]
    fn an_item_takes_as_many_places_as_it_weighs() {
        let queue = Queue::new(4);
        assert_eq!(queue.push('a', 9), Ok(0), "too heavy for ever, unless it is let in first");
        assert_eq!(queue.push('b', 1), Err(Refused::Full));
        assert_eq!(queue.pop(), Some('a'));
        assert_eq!((queue.push('b', 3), queue.push('c', 2), queue.push('d', 1)), (Ok(1), Err(Refused::Full), Ok(2)));
        assert_eq!(queue.remove(1), Some('b'));
        assert_eq!(queue.push('c', 3), Ok(3));
    }

    #[test]
    fn who_leaves_frees_a_place() {
        let queue = Queue::new(2);
        let first = queue.push('a', 1).unwrap();
        queue.push('b', 1).unwrap();
        assert_eq!(queue.remove(first), Some('a'));
        assert_eq!(queue.remove(first), None);
        queue.push('c', 1).unwrap();
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
        assert_eq!(queue.push(item.clone(), 1), Err(Refused::Closed));
        assert_eq!(Arc::strong_count(&item), 1);
    }
}
