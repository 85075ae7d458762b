//! Who waits, and whose turn it is: start-time fair queueing over clients (Goyal, Vin and Cheng, SIGCOMM 1996). Pure.
//!
//! Each client has a clock that goes on by the bytes that it was given, and whose clock is furthest behind has the next turn. Within
//! a client the order is that of [`Rank`], and among equals that of arrival: of twenty equal uploads half are done in half of the time, where
//! all of them would be done at its end if they took turns.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::client::Client;

/// So many bytes who has not asked for a while is ahead of those who ask all the time: a few pictures.
const AHEAD: u64 = 256 << 10;

/// How messages of one client follow each other: those whose time is short first, and among them those that have sent little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::tunnel) struct Rank {
    /// 0 is the most urgent.
    hurry: u8,
    /// The power of four of the bytes that were sent.
    size: u8,
}

impl Rank {
    /// Of a message that has sent so many bytes, and of this urgency; 0 is the most urgent.
    pub(in crate::tunnel) fn new(hurry: u8, sent: u64) -> Self {
        Self { hurry, size: (sent.checked_ilog2().unwrap_or(0) / 2) as u8 }
    }
}

/// Those who wait, each with something by which to call it.
#[derive(Debug)]
pub(super) struct Queue<T> {
    clients: HashMap<Client, Standing<T>>,
    /// Those who wait, by their clocks.
    waiting: BTreeSet<(u64, Client)>,
    /// Where the clock of who always waits is.
    now: u64,
    /// Clients to remember before those are forgotten of whom nothing needs to be known.
    enough: usize,
}

#[derive(Debug)]
struct Standing<T> {
    clock: u64,
    waiting: BTreeMap<(Rank, u64), Waiting<T>>,
}

/// Who has the next turn.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    /// Bytes to be sent.
    pub(super) bytes: u64,
    pub(super) call: T,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { clients: HashMap::new(), waiting: BTreeSet::new(), now: 0, enough: 64 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Waits for a turn; `arrival` tells apart, and puts in order, the messages of a client.
    pub(super) fn join(&mut self, client: Client, rank: Rank, arrival: u64, waiting: Waiting<T>) {
        let oldest = self.now.saturating_sub(AHEAD);
        let standing = self.clients.entry(client).or_insert_with(|| Standing::at(oldest));
        if standing.waiting.is_empty() {
            standing.clock = standing.clock.max(oldest);
            self.waiting.insert((standing.clock, client));
        }
        standing.waiting.insert((rank, arrival), waiting);
    }

    /// Whose turn it is: what `client` is given has still to be charged.
    pub(super) fn next(&mut self) -> Option<(Client, Waiting<T>)> {
        let (clock, client) = self.waiting.first().copied()?;
        let standing = self.clients.get_mut(&client)?;
        let (_, next) = standing.waiting.pop_first()?;
        if standing.waiting.is_empty() {
            self.waiting.remove(&(clock, client));
        }
        Some((client, next))
    }

    /// So many bytes were given to a client.
    pub(super) fn charge(&mut self, client: Client, bytes: u64) {
        let oldest = self.now.saturating_sub(AHEAD);
        let standing = self.clients.entry(client).or_insert_with(|| Standing::at(oldest));
        let began = standing.clock.max(oldest);
        let is_waiting = self.waiting.remove(&(standing.clock, client));
        standing.clock = began + bytes;
        if is_waiting {
            self.waiting.insert((standing.clock, client));
        }
        // The time of an ideal that serves all of them at once, each at its share.
        self.now = self.now.max(began) + bytes / (self.waiting.len() as u64 + u64::from(!is_waiting));
        if self.clients.len() > self.enough {
            self.forget();
        }
    }

    /// Who does not wait, and is as far behind as whoever comes anew, need not be remembered.
    fn forget(&mut self) {
        let oldest = self.now.saturating_sub(AHEAD);
        self.clients.retain(|_, standing| standing.clock > oldest || !standing.waiting.is_empty());
        self.enough = 64.max(2 * self.clients.len());
    }
}

impl<T> Standing<T> {
    const fn at(clock: u64) -> Self {
        Self { clock, waiting: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const TURN: u64 = 16 << 10;

    fn client(number: u8) -> Client {
        Client::at(IpAddr::from([192, 0, 2, number]))
    }

    fn join(queue: &mut Queue<u64>, number: u8, rank: Rank, arrival: u64) {
        queue.join(client(number), rank, arrival, Waiting { bytes: TURN, call: arrival });
    }

    /// Gives so many turns, after each of which who had it waits for another; who had how many.
    fn turns(queue: &mut Queue<u64>, count: u64) -> HashMap<Client, u64> {
        let mut had = HashMap::new();
        for _ in 0..count {
            let (client, waiting) = queue.next().unwrap();
            queue.charge(client, TURN);
            *had.entry(client).or_default() += 1;
            queue.join(client, Rank::new(2, 1 << 20), waiting.call, waiting);
        }
        had
    }

    #[test]
    fn clients_have_equal_shares_however_many_messages_they_have() {
        let mut queue = Queue::new();
        for arrival in 0..50 {
            join(&mut queue, 1, Rank::new(2, 0), arrival);
        }
        join(&mut queue, 2, Rank::new(2, 0), 50);
        join(&mut queue, 3, Rank::new(0, 0), 51);
        let had = turns(&mut queue, 300);
        assert!(had.values().all(|had| (99..=101).contains(had)), "{had:?}");
    }

    #[test]
    fn who_comes_late_is_ahead_by_a_little_and_no_more() {
        let mut queue = Queue::new();
        join(&mut queue, 1, Rank::new(2, 0), 0);
        turns(&mut queue, 1000);
        join(&mut queue, 2, Rank::new(2, 0), 1);
        let ahead = AHEAD / TURN;
        assert!(turns(&mut queue, ahead).get(&client(1)).is_none_or(|had| *had <= 1));
        let had = turns(&mut queue, 100);
        assert!((49..=51).contains(&had[&client(1)]), "{had:?}");
    }

    #[test]
    fn who_was_away_for_a_moment_catches_up() {
        let mut queue = Queue::new();
        join(&mut queue, 1, Rank::new(2, 0), 0);
        join(&mut queue, 2, Rank::new(2, 0), 1);
        turns(&mut queue, 100);
        // It is being written while another turn is given.
        let (away, waiting) = queue.next().unwrap();
        queue.charge(away, TURN);
        turns(&mut queue, 4);
        queue.join(away, Rank::new(2, 0), waiting.call, waiting);
        let had = turns(&mut queue, 14);
        assert!(had[&away] >= 8, "{had:?}");
    }

    #[test]
    fn within_a_client_it_is_by_urgency_then_by_what_was_sent_then_by_arrival() {
        let mut queue = Queue::new();
        let ranks = [Rank::new(2, 0), Rank::new(2, 1 << 20), Rank::new(0, 1 << 30), Rank::new(2, 100), Rank::new(2, 1)];
        for (arrival, rank) in ranks.into_iter().enumerate() {
            join(&mut queue, 1, rank, arrival as u64);
        }
        let order: Vec<u64> = std::iter::from_fn(|| queue.next()).map(|(_, waiting)| waiting.call).collect();
        assert_eq!(order, [2, 0, 4, 3, 1]);
        assert!(queue.is_empty());
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let mut queue: Queue<u64> = Queue::new();
        for number in 0..100_000_u32 {
            queue.charge(Client::at(IpAddr::from(number.to_be_bytes())), TURN);
        }
        assert!(queue.clients.len() <= 200, "{} are remembered", queue.clients.len());
    }
}
