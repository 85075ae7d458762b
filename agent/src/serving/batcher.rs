//! Which requests wait, in which order, and which of them share the next pass.
//!
//! Greedy: as soon as a worker is free it gets what is there, at most the size of a batch that pays ([`Costs`]), and at most
//! its share where several workers are free. So a lone request never waits for company, and company forms by itself while
//! the device is busy. Who waits keeps its place until a pass begins, and may leave it at any time.
//!
//! Pure: it does nothing and knows no clock. What happens is told to it, with the time at which it happened; what is to be
//! done is its answer.

use std::time::{Duration, Instant};

use super::cost::Costs;

/// What a level of priority is worth: an item goes before one of the next lower level that came at most so much earlier. With
/// a price for it, nobody waits for ever behind a stream of urgent ones.
pub(super) const LEVEL: Duration = Duration::from_secs(1);

/// Levels are 1, the highest, to this.
pub(super) const LOWEST: u8 = 16;

/// How items are batched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Options {
    /// Images that may wait.
    pub(super) capacity: usize,
    /// The largest batch; 0 finds out by measuring.
    pub(super) max_batch: usize,
    /// How long an item may wait for company while a worker is free.
    pub(super) max_delay: Duration,
    /// How many passes are run at one time.
    pub(super) instances: usize,
}

/// What an item is to the batcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// Images.
    pub(super) weight: usize,
    /// From 1, the highest, to [`LOWEST`].
    pub(super) level: u8,
    /// Until when its answer is of use.
    pub(super) deadline: Option<Instant>,
}

/// Why an item was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no place.
    Full,
    /// Its deadline will have passed, as far as can be told from what was measured: it would take so long.
    Late(Duration),
    /// Its deadline has passed.
    Expired,
}

/// An item that was taken.
#[derive(Debug)]
pub(super) struct Taken<T> {
    /// Its number, for [`Batcher::remove`].
    pub(super) number: u64,
    /// Items of lower levels that had to leave for it.
    pub(super) displaced: Vec<T>,
}

/// Items that share a pass.
#[derive(Debug)]
pub(super) struct Batch<T> {
    /// For [`Batcher::finished`].
    pub(super) ticket: u64,
    /// The items with their numbers.
    pub(super) items: Vec<(u64, T)>,
    /// How many passes run now, this one among them, if nobody waits for them.
    pub(super) passes: Option<usize>,
}

/// What a free worker is to do.
#[derive(Debug)]
pub(super) enum Next<T> {
    /// Run this.
    Batch(Batch<T>),
    /// Wait for more, but not beyond this instant if there is one.
    Wait(Option<Instant>),
}

#[derive(Debug)]
struct Waiting<T> {
    /// When its turn would be if all came at one level.
    turn: Instant,
    number: u64,
    arrived: Instant,
    request: Request,
    item: T,
}

#[derive(Debug)]
struct Running {
    ticket: u64,
    weight: usize,
    begun: Instant,
    /// Whether others were kept waiting by it.
    crowded: bool,
}

/// Items of type `T` that wait and run.
#[derive(Debug)]
pub(super) struct Batcher<T> {
    options: Options,
    costs: Costs,
    /// In the order in which they are run.
    waiting: Vec<Waiting<T>>,
    weight: usize,
    running: Vec<Running>,
    next: u64,
}

impl<T> Batcher<T> {
    pub(super) fn new(options: Options) -> Self {
        let costs = Costs::new(options.max_batch);
        Self { options, costs, waiting: Vec::new(), weight: 0, running: Vec::new(), next: 0 }
    }

    /// Goes on by other options; what waits keeps its place, even where there are fewer from now on.
    pub(super) fn set_options(&mut self, options: Options) {
        self.costs.fix(options.max_batch);
        self.options = options;
    }

    /// Images that wait.
    #[cfg(test)]
    pub(super) const fn weight(&self) -> usize {
        self.weight
    }

    /// Images that a batch of several items may have at most, at present.
    pub(super) fn size(&self) -> usize {
        self.costs.size()
    }

    /// Whether as much waits as a batch of several may have.
    pub(super) fn is_full(&self) -> bool {
        self.size() > 1 && self.weight >= self.size()
    }

    /// Takes an item that came at `now`. An empty queue takes one of any weight.
    pub(super) fn push(&mut self, now: Instant, request: Request, item: T) -> Result<Taken<T>, Refusal> {
        let request = Request { level: request.level.clamp(1, LOWEST), ..request };
        let turn = now + LEVEL * u32::from(request.level - 1);
        let number = self.next;
        let place = self.waiting.partition_point(|other| (other.turn, other.number) < (turn, number));
        if let Some(deadline) = request.deadline {
            if deadline <= now {
                return Err(Refusal::Expired);
            }
            let needed = self.needed(now, place, request.weight);
            if needed.is_some_and(|needed| deadline.saturating_duration_since(now) < needed) {
                return Err(Refusal::Late(needed.unwrap_or_default()));
            }
        }
        let displaced = self.make_room(request).ok_or(Refusal::Full)?;
        // Those behind may be gone by now.
        let place = self.waiting.partition_point(|other| (other.turn, other.number) < (turn, number));
        self.next += 1;
        self.weight += request.weight;
        self.waiting.insert(place, Waiting { turn, number, arrived: now, request, item });
        Ok(Taken { number, displaced })
    }

    /// How long an item of this weight at this place would take, at least: `None` if that is not known, or if it would be
    /// run at once, because what was measured may be wrong, and would never be put right if it turned everybody away.
    fn needed(&self, now: Instant, place: usize, weight: usize) -> Option<Duration> {
        let busy = self.running.len() >= self.options.instances;
        if !busy && self.waiting.is_empty() {
            return None;
        }
        let own = self.costs.of(weight)?;
        let left = |running: &Running| {
            let end = running.begun + self.costs.of(running.weight).unwrap_or_default();
            end.saturating_duration_since(now)
        };
        let first_free = if busy { self.running.iter().map(left).min().unwrap_or_default() } else { Duration::ZERO };
        let ahead: usize = self.waiting.iter().take(place).map(|other| other.request.weight).sum();
        let ahead = self.costs.an_image() * u32::try_from(ahead).unwrap_or(u32::MAX);
        Some(first_free + ahead / u32::try_from(self.options.instances.max(1)).unwrap_or(u32::MAX) + own)
    }

    /// Who has to leave so that this one can be taken, the least urgent first: nobody if there is room; `None` if it is more
    /// than those of lower levels can give.
    fn make_room(&mut self, request: Request) -> Option<Vec<T>> {
        let fits = |waiting: usize| waiting == 0 || waiting + request.weight <= self.options.capacity;
        if fits(self.weight) {
            return Some(Vec::new());
        }
        let mut lower: Vec<&Waiting<T>> =
            self.waiting.iter().filter(|other| other.request.level > request.level).collect();
        // Of one level the last that came: those before it have waited longer.
        lower.sort_by_key(|other| std::cmp::Reverse((other.request.level, other.number)));
        let (mut left, mut leaving) = (self.weight, Vec::new());
        for other in lower {
            if fits(left) {
                break;
            }
            left -= other.request.weight;
            leaving.push(other.number);
        }
        if !fits(left) {
            return None;
        }
        Some(leaving.into_iter().filter_map(|number| self.remove(number)).collect())
    }

    /// Takes an item out again; `None` when its pass has begun.
    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let place = self.waiting.iter().position(|waiting| waiting.number == number)?;
        let found = self.waiting.remove(place);
        self.weight -= found.request.weight;
        Some(found.item)
    }

    /// Takes out what is of no use any more: its deadline has passed.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<T> {
        let late = |waiting: &Waiting<T>| waiting.request.deadline.is_some_and(|deadline| deadline <= now);
        let numbers: Vec<u64> = self.waiting.iter().filter(|waiting| late(waiting)).map(|late| late.number).collect();
        numbers.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// Takes out everything that waits.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.weight = 0;
        self.waiting.drain(..).map(|waiting| waiting.item).collect()
    }

    /// What a worker that is free at `now` is to do.
    pub(super) fn next(&mut self, now: Instant) -> Next<T> {
        self.costs.give_up_trial_above(self.weight);
        let count = match self.choose(now) {
            Ok(count) => count,
            Err(until) => return Next::Wait(until),
        };
        let ticket = self.next;
        self.next += 1;
        let items: Vec<_> = self.waiting.drain(..count).collect();
        let weight = items.iter().map(|waiting| waiting.request.weight).sum();
        self.weight -= weight;
        let crowded = !self.waiting.is_empty();
        self.running.push(Running { ticket, weight, begun: now, crowded });
        let passes = self.waiting.is_empty().then_some(self.running.len());
        let items = items.into_iter().map(|waiting| (waiting.number, waiting.item)).collect();
        Next::Batch(Batch { ticket, items, passes })
    }

    /// What would be run next if a worker became free now: the numbers of a full batch, so that it can be made ready ahead of
    /// time; nothing as long as it could still grow.
    pub(super) fn coming(&self, now: Instant) -> Option<Vec<(u64, &T)>> {
        if self.running.len() < self.options.instances || self.weight < self.size() {
            return None;
        }
        let count = self.choose(now).ok().filter(|count| *count > 1)?;
        Some(self.waiting.iter().take(count).map(|waiting| (waiting.number, &waiting.item)).collect())
    }

    /// How many of the waiting make the next batch, or until when to wait for more.
    fn choose(&self, now: Instant) -> Result<usize, Option<Instant>> {
        if self.waiting.is_empty() {
            return Err(None);
        }
        let size = self.size();
        // Several free workers share what there is; who waits for company wants it, though.
        let free = self.options.instances.saturating_sub(self.running.len()).max(1);
        let share = if self.options.max_delay.is_zero() { self.weight.div_ceil(free) } else { self.weight };
        let limit = size.min(share).max(1);
        let (mut count, mut weight, mut tightest) = (0, 0, None::<Instant>);
        for waiting in &self.waiting {
            let grown = weight + waiting.request.weight;
            let took = self.costs.of(grown).unwrap_or_default();
            let misses = tightest.is_some_and(|deadline| now + took > deadline);
            if count > 0 && (grown > limit || misses) {
                break;
            }
            (count, weight) = (count + 1, grown);
            // Of one that cannot be in time any more, nobody has to take care.
            let alone = now + self.costs.of(waiting.request.weight).unwrap_or_default();
            let deadline = waiting.request.deadline.filter(|deadline| *deadline >= alone);
            tightest = [tightest, deadline].into_iter().flatten().min();
        }
        if self.options.max_delay.is_zero() || weight >= size || count < self.waiting.len() {
            return Ok(count);
        }
        let oldest = self.waiting.iter().map(|waiting| waiting.arrived).min().unwrap_or(now);
        let took = self.costs.of(weight).unwrap_or_default();
        let latest = tightest.map(|deadline| deadline.checked_sub(took).unwrap_or(now));
        let until = [Some(oldest + self.options.max_delay), latest].into_iter().flatten().min().unwrap_or(now);
        if until <= now { Ok(count) } else { Err(Some(until)) }
    }

    /// A pass ended at `now`. `measured` is whether its time tells anything: one that was stopped or broke off does not.
    pub(super) fn finished(&mut self, ticket: u64, now: Instant, measured: bool) {
        let Some(place) = self.running.iter().position(|running| running.ticket == ticket) else { return };
        let running = self.running.swap_remove(place);
        if measured {
            self.costs.record(running.weight, now.saturating_duration_since(running.begun), running.crowded);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options = Options { capacity: 8, max_batch: 4, max_delay: Duration::ZERO, instances: 1 };

    const fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A batcher with a clock that stands still unless it is moved.
    struct Desk {
        batcher: Batcher<&'static str>,
        now: Instant,
    }

    impl Desk {
        fn new(options: Options) -> Self {
            Self { batcher: Batcher::new(options), now: Instant::now() }
        }

        fn put(&mut self, item: &'static str, weight: usize, level: u8) -> Result<Taken<&'static str>, Refusal> {
            self.batcher.push(self.now, Request { weight, level, deadline: None }, item)
        }

        fn put_until(&mut self, item: &'static str, budget: Duration) -> Result<Taken<&'static str>, Refusal> {
            let deadline = Some(self.now + budget);
            self.batcher.push(self.now, Request { weight: 1, level: 2, deadline }, item)
        }

        /// The items of the next batch, run in no time.
        fn run(&mut self) -> Vec<&'static str> {
            self.begin().map_or_else(Vec::new, |batch| {
                self.batcher.finished(batch.ticket, self.now, false);
                batch.items.into_iter().map(|(_, item)| item).collect()
            })
        }

        fn begin(&mut self) -> Option<Batch<&'static str>> {
            match self.batcher.next(self.now) {
                Next::Batch(batch) => Some(batch),
                Next::Wait(_) => None,
            }
        }

        /// Runs one item of so many images for so long.
        fn measure(&mut self, weight: usize, took: Duration) {
            self.put("measured", weight, 1).unwrap();
            let batch = self.begin().unwrap();
            self.now += took;
            self.batcher.finished(batch.ticket, self.now, true);
        }
    }

    #[test]
    fn a_lone_item_is_run_at_once_and_company_forms_meanwhile() {
        let mut desk = Desk::new(OPTIONS);
        desk.put("a", 1, 2).unwrap();
        let first = desk.begin().unwrap();
        for item in ["b", "c", "d", "e", "f"] {
            desk.put(item, 1, 2).unwrap();
        }
        assert!(desk.batcher.coming(desk.now).is_some_and(|coming| coming.len() == 4));
        desk.batcher.finished(first.ticket, desk.now, true);
        assert_eq!(desk.run(), ["b", "c", "d", "e"]);
        assert_eq!((desk.run(), desk.run()), (vec!["f"], vec![]));
    }

    #[test]
    fn a_batch_tells_how_many_run_unless_others_wait() {
        let mut desk = Desk::new(Options { instances: 3, max_batch: 1, ..OPTIONS });
        desk.put("a", 1, 2).unwrap();
        let first = desk.begin().unwrap();
        assert_eq!(first.passes, Some(1));
        desk.put("b", 1, 2).unwrap();
        desk.put("c", 1, 2).unwrap();
        assert_eq!((desk.begin().unwrap().passes, desk.begin().unwrap().passes), (None, Some(3)));
        desk.batcher.finished(first.ticket, desk.now, true);
        desk.put("d", 1, 2).unwrap();
        assert_eq!(desk.begin().unwrap().passes, Some(3));
    }

    #[test]
    fn free_workers_share_what_there_is() {
        let mut desk = Desk::new(Options { instances: 2, ..OPTIONS });
        for item in ["a", "b", "c"] {
            desk.put(item, 1, 2).unwrap();
        }
        let (one, two) = (desk.begin().unwrap(), desk.begin().unwrap());
        assert_eq!((one.items.len(), two.items.len()), (2, 1));
    }

    #[test]
    fn what_does_not_fit_waits_and_nobody_overtakes_it() {
        let mut desk = Desk::new(OPTIONS);
        for (item, weight) in [("a", 2), ("b", 3), ("c", 1)] {
            desk.put(item, weight, 2).unwrap();
        }
        assert_eq!((desk.run(), desk.run()), (vec!["a"], vec!["b", "c"]));
        desk.put("huge", 20, 2).unwrap();
        assert_eq!(desk.put("d", 1, 2).unwrap_err(), Refusal::Full, "too heavy for ever, unless it is let in first");
        assert_eq!(desk.run(), ["huge"]);
    }

    #[test]
    fn urgent_ones_go_first_but_nobody_waits_for_ever() {
        let mut desk = Desk::new(Options { max_batch: 1, ..OPTIONS });
        desk.put("patient", 1, 2).unwrap();
        desk.put("urgent", 1, 1).unwrap();
        assert_eq!(desk.run(), ["urgent"]);
        for _ in 0..3 {
            desk.now += millis(400);
            desk.put("urgent", 1, 1).unwrap();
        }
        let order: Vec<_> = (0..4).flat_map(|_| desk.run()).collect();
        assert_eq!(order, ["urgent", "urgent", "patient", "urgent"]);
    }

    #[test]
    fn a_full_queue_makes_room_for_what_is_more_urgent() {
        let mut desk = Desk::new(Options { capacity: 3, ..OPTIONS });
        for (item, level) in [("a", 2), ("b", 3), ("c", 3)] {
            desk.put(item, 1, level).unwrap();
        }
        assert_eq!(desk.put("d", 1, 3).unwrap_err(), Refusal::Full, "not more urgent than any");
        assert_eq!(desk.put("e", 1, 2).unwrap().displaced, ["c"], "the last of the least urgent");
        assert_eq!(desk.put("f", 3, 1).unwrap().displaced, ["b", "e", "a"]);
        assert_eq!(desk.run(), ["f"]);
    }

    #[test]
    fn who_leaves_frees_a_place() {
        let mut desk = Desk::new(Options { capacity: 2, ..OPTIONS });
        let first = desk.put("a", 1, 2).unwrap().number;
        desk.put("b", 1, 2).unwrap();
        assert_eq!(desk.put("c", 1, 2).unwrap_err(), Refusal::Full);
        assert_eq!((desk.batcher.remove(first), desk.batcher.remove(first)), (Some("a"), None));
        desk.put("c", 1, 2).unwrap();
        assert_eq!(desk.run(), ["b", "c"]);
    }

    #[test]
    fn what_cannot_be_in_time_is_refused_and_what_has_expired_is_not_run() {
        let mut desk = Desk::new(Options { max_batch: 1, ..OPTIONS });
        desk.measure(1, millis(100));
        assert_eq!(desk.put_until("past", Duration::ZERO).unwrap_err(), Refusal::Expired);
        // A lone one is always tried: what was measured may be wrong.
        desk.put_until("tried", millis(1)).unwrap();
        let running = desk.begin().unwrap();
        desk.now += millis(30);
        // 70 ms until a worker is free, and 100 for itself.
        assert_eq!(desk.put_until("late", millis(169)).unwrap_err(), Refusal::Late(millis(170)));
        desk.put_until("in time", millis(170)).unwrap();
        assert_eq!(desk.put_until("behind it", millis(269)).unwrap_err(), Refusal::Late(millis(270)));
        desk.put("whenever", 1, 2).unwrap();
        desk.now += millis(200);
        assert_eq!(desk.batcher.expired(desk.now), ["in time"]);
        desk.batcher.finished(running.ticket, desk.now, false);
        assert_eq!(desk.run(), ["whenever"]);
    }

    #[test]
    fn a_batch_does_not_grow_beyond_its_tightest_deadline() {
        let mut desk = Desk::new(OPTIONS);
        desk.measure(1, millis(10));
        desk.measure(2, millis(20));
        desk.measure(3, millis(30));
        desk.put("a", 1, 2).unwrap();
        let running = desk.begin().unwrap();
        for item in ["b", "c", "d"] {
            desk.put_until(item, millis(45)).unwrap();
        }
        desk.now += millis(20);
        desk.batcher.finished(running.ticket, desk.now, false);
        // 25 ms are left: enough for two together.
        assert_eq!(desk.run(), ["b", "c"]);
    }

    #[test]
    fn who_wants_company_waits_for_it_but_not_too_long() {
        let mut desk = Desk::new(Options { max_delay: millis(5), ..OPTIONS });
        desk.put("a", 1, 2).unwrap();
        let until = desk.now + millis(5);
        assert!(matches!(desk.batcher.next(desk.now), Next::Wait(Some(at)) if at == until));
        desk.now += millis(5);
        assert_eq!(desk.run(), ["a"]);
        // A full batch waits for nobody, and a deadline is not missed for company.
        for item in ["b", "c", "d", "e"] {
            desk.put(item, 1, 2).unwrap();
        }
        assert_eq!(desk.run().len(), 4);
        desk.put_until("f", millis(3)).unwrap();
        let until = desk.now + millis(3);
        assert!(matches!(desk.batcher.next(desk.now), Next::Wait(Some(at)) if at == until));
    }

    #[test]
    fn other_options_count_from_now_on() {
        let mut desk = Desk::new(OPTIONS);
        for item in ["a", "b", "c", "d"] {
            desk.put(item, 2, 2).unwrap();
        }
        assert_eq!(desk.run(), ["a", "b"]);
        desk.batcher.set_options(Options { capacity: 2, max_batch: 1, ..OPTIONS });
        assert_eq!((desk.run(), desk.run()), (vec!["c"], vec!["d"]));
    }
}
