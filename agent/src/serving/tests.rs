//! What holds of a batcher whatever happens, and in whichever order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::batcher::{Batcher, LEVEL, Next, Options, Request};

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[derive(Debug, Clone)]
enum Event {
    Push { weight: usize, level: u8, budget: Option<u64> },
    Leave(usize),
    Take,
    Finish(usize),
    Tick(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (1_usize..6, 1_u8..5, proptest::option::of(0_u64..200))
            .prop_map(|(weight, level, budget)| Event::Push { weight, level, budget }),
        1 => any::<usize>().prop_map(Event::Leave),
        3 => Just(Event::Take),
        3 => any::<usize>().prop_map(Event::Finish),
        2 => (0_u64..60).prop_map(Event::Tick),
    ];
    proptest::collection::vec(event, 1..200)
}

#[derive(Debug, Clone, Copy)]
struct Known {
    weight: usize,
    level: u8,
    arrived: Instant,
    deadline: Option<Instant>,
}

proptest! {
    /// Whatever happens: every item that was taken in leaves exactly once, by one door; batches and the queue hold what
    /// they may; of one level the first goes first; nothing expired is run, and nobody is passed by one that came more
    /// than its levels are worth after it.
    #[test]
    fn nothing_is_lost_doubled_or_out_of_turn(
        events in events(),
        max_batch in 0_usize..5,
        instances in 1_usize..4,
        delay in 0_u64..20,
    ) {
        let options = Options { capacity: 12, max_batch, max_delay: millis(delay), instances };
        let mut batcher = Batcher::new(options);
        let (mut now, mut count) = (Instant::now(), 0_u64);
        let mut waiting: BTreeMap<u64, (u64, Known)> = BTreeMap::new();
        let (mut running, mut left) = (Vec::new(), BTreeSet::new());
        // A last round in which everything that is left is run.
        let end = (0..500).flat_map(|_| [Event::Take, Event::Finish(0), Event::Tick(1000)]);
        for event in events.into_iter().chain(end) {
            match event {
                Event::Push { weight, level, budget } => {
                    let deadline = budget.map(|budget| now + millis(budget));
                    let (item, before) = (count, batcher.weight());
                    count += 1;
                    match batcher.push(now, Request { weight, level, deadline }, item) {
                        Ok(taken) => {
                            for gone in taken.displaced {
                                let found = waiting.iter().find(|(_, (item, _))| *item == gone).map(|(key, _)| *key);
                                let (_, known) = waiting.remove(&found.expect("it waited")).expect("just found");
                                prop_assert!(known.level > level);
                                prop_assert!(left.insert(gone));
                            }
                            let known = Known { weight, level, arrived: now, deadline };
                            prop_assert!(waiting.insert(taken.number, (item, known)).is_none());
                            prop_assert!(batcher.weight() <= 12 || batcher.weight() == weight);
                        }
                        Err(_) => prop_assert_eq!(batcher.weight(), before),
                    }
                }
                Event::Leave(which) => {
                    let Some((&number, _)) = waiting.iter().nth(which % waiting.len().max(1)) else { continue };
                    let (item, _) = waiting.remove(&number).expect("it waits");
                    prop_assert_eq!(batcher.remove(number), Some(item));
                    prop_assert!(left.insert(item));
                }
                Event::Take => {
                    for item in batcher.expired(now) {
                        let number = waiting.iter().find(|(_, (other, _))| *other == item).map(|(key, _)| *key);
                        let (_, known) = waiting.remove(&number.expect("it waited")).expect("just found");
                        prop_assert!(known.deadline.is_some_and(|deadline| deadline <= now));
                        prop_assert!(left.insert(item));
                    }
                    if running.len() >= instances {
                        continue;
                    }
                    let limit = batcher.size();
                    match batcher.next(now) {
                        Next::Wait(until) => {
                            prop_assert_eq!(until.is_none(), waiting.is_empty());
                            prop_assert!(until.is_none_or(|until| until > now && delay > 0));
                        }
                        Next::Batch(batch) => {
                            let mut weight = 0;
                            for (number, item) in &batch.items {
                                let (other, ref known) = waiting.remove(number).expect("it waited");
                                prop_assert_eq!(other, *item);
                                prop_assert!(left.insert(*item));
                                prop_assert!(known.deadline.is_none_or(|deadline| deadline > now));
                                weight += known.weight;
                                let turn = |known: &Known| known.arrived + LEVEL * u32::from(known.level);
                                let first = waiting.values().all(|(_, other)| turn(known) <= turn(other));
                                prop_assert!(first, "{known:?} goes before one whose turn it is");
                            }
                            prop_assert!(weight <= limit || batch.items.len() == 1);
                            running.push(batch.ticket);
                        }
                    }
                }
                Event::Finish(which) => {
                    if !running.is_empty() {
                        let ticket = running.swap_remove(which % running.len());
                        batcher.finished(ticket, now, true);
                    }
                }
                Event::Tick(time) => now += millis(time),
            }
            let weight: usize = waiting.values().map(|(_, known)| known.weight).sum();
            prop_assert_eq!(batcher.weight(), weight);
        }
        prop_assert!(waiting.is_empty(), "everything is run in the end: nobody starves");
    }
}
