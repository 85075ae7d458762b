//! Where the messages of one connection wait for their turns, also after it has moved to another path.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quinn::Connection;

use super::backlog::Sending;
use super::client::Client;
use super::queue::Rank;
use super::turns::{Turn, Turns};

/// The writers of one connection.
#[derive(Debug)]
pub(in crate::tunnel) struct Lane {
    /// Of QUIC: it may move to another path.
    connection: Option<Connection>,
    /// Of the path that was taken when last looked; none where the connection was not made with our settings.
    turns: Mutex<Option<Arc<Turns>>>,
    arrivals: AtomicU64,
}

/// A message's place among others.
#[derive(Debug, Clone, Copy)]
pub(in crate::tunnel) struct Ticket {
    pub(super) client: Client,
    pub(super) arrival: u64,
}

impl Lane {
    pub(in crate::tunnel) fn new(connection: Connection) -> Self {
        let turns = Mutex::new(turns_of(&connection));
        Self { connection: Some(connection), turns, arrivals: AtomicU64::new(0) }
    }

    /// Of a connection over TCP, whose wire says what it has sent.
    pub(in crate::tunnel) const fn over_tcp(turns: Arc<Turns>) -> Self {
        Self { connection: None, turns: Mutex::new(Some(turns)), arrivals: AtomicU64::new(0) }
    }

    /// A place for a message of this client.
    pub(in crate::tunnel) fn ticket(&self, client: Client) -> Ticket {
        Ticket { client, arrival: self.arrivals.fetch_add(1, Ordering::Relaxed) }
    }

    /// So many bytes were handed on by somebody who did not wait.
    pub(in crate::tunnel) fn written(&self, bytes: u64) {
        if let Some(turns) = self.turns() {
            turns.written(bytes);
        }
    }

    /// What will have been sent when all that was written so far has been; for [`Lane::has_sent`].
    pub(in crate::tunnel) fn mark(&self) -> u64 {
        self.turns().map_or(0, |turns| turns.backlog().mark())
    }

    /// Whether all that had been written at that mark has been sent, as far as one knows.
    pub(in crate::tunnel) fn has_sent(&self, mark: u64) -> bool {
        self.turns().is_none_or(|turns| turns.backlog().has_sent(mark))
    }

    /// The right to send all of so many bytes, where nobody has to wait.
    pub(in crate::tunnel) fn all_at_once(&self, ticket: Ticket, bytes: u64) -> Option<Turn> {
        match self.turns() {
            Some(turns) => turns.all_at_once(ticket, bytes),
            None => Some(Turn::free(bytes)),
        }
    }

    /// Waits for the right to send at least one of so many bytes.
    pub(in crate::tunnel) async fn turn(&self, ticket: Ticket, rank: Rank, bytes: u64) -> Turn {
        loop {
            let Some(turns) = self.turns() else { return Turn::free(bytes) };
            if let Some(turn) = turns.turn(ticket, rank, bytes).await {
                return turn;
            }
            self.look_again(&turns);
        }
    }

    /// Whether there has always been something to send since this was last asked, and some of it was sent.
    pub(in crate::tunnel) fn was_pressed(&self) -> bool {
        self.turns().is_some_and(|turns| turns.backlog().was_pressed())
    }

    fn turns(&self) -> Option<Arc<Turns>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing moves: the connection has another path by now, or else it has less to send than it seemed.
    fn look_again(&self, known: &Arc<Turns>) {
        let Some(connection) = &self.connection else { return known.nothing_moves() };
        let found = turns_of(connection);
        if found.as_ref().is_some_and(|found| Arc::ptr_eq(found, known)) {
            known.nothing_moves();
        } else {
            *self.turns.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
    }
}

fn turns_of(connection: &Connection) -> Option<Arc<Turns>> {
    let sending = connection.congestion_state().into_any().downcast::<Sending>().ok()?;
    Some(sending.turns().clone())
}
