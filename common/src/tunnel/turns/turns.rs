//! Gives turns: at once while there is little to send, else to whoever is next when there is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::backlog::Backlog;
use super::lane::Ticket;
use super::queue::{Queue, Rank, Waiting};

/// A turn among several: so much, or a quarter of what there is room for if that is more.
const TURN: u64 = 16 << 10;

/// When nothing has moved for so long, waiting is of no use: there may be less to send than it seems, another path, or none.
const PATIENCE: Duration = Duration::from_millis(50);

/// Who sends through one connection, and how much waits in it.
#[derive(Debug)]
pub(in crate::tunnel) struct Turns {
    backlog: Backlog,
    queue: Mutex<Queue<oneshot::Sender<Turn>>>,
    /// Whether anybody is in the queue: looked at for every packet.
    is_waited: AtomicBool,
}

/// The right to hand so many bytes on now; what is not used of it is given back on drop.
#[derive(Debug)]
pub(in crate::tunnel) struct Turn {
    /// Who gave it; none where there are no turns.
    turns: Option<Arc<Turns>>,
    bytes: u64,
}

impl Turns {
    /// Of a connection over QUIC.
    pub(super) fn over_quic() -> Self {
        Self::of(Backlog::of_quinn())
    }

    /// Of a connection over TCP.
    pub(in crate::tunnel) fn over_tcp() -> Self {
        Self::of(Backlog::of_h2())
    }

    fn of(backlog: Backlog) -> Self {
        Self { backlog, queue: Mutex::new(Queue::new()), is_waited: AtomicBool::new(false) }
    }

    pub(super) const fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// So many bytes were handed on by somebody who did not ask for a turn.
    pub(super) fn written(&self, bytes: u64) {
        self.backlog.written(bytes);
    }

    /// The right to send all of so many bytes, where nobody has to wait.
    pub(super) fn all_at_once(self: &Arc<Self>, ticket: Ticket, bytes: u64) -> Option<Turn> {
        self.give_now(&mut self.queue(), ticket, bytes, bytes)
    }

    /// Waits for the right to send at least one of so many bytes; none when nothing has moved for too long.
    pub(super) async fn turn(self: &Arc<Self>, ticket: Ticket, rank: Rank, bytes: u64) -> Option<Turn> {
        let mut called = match self.now_or_later(ticket, rank, bytes) {
            Ok(turn) => return Some(turn),
            Err(called) => called,
        };
        loop {
            let moves = self.backlog.moves();
            match timeout(PATIENCE, &mut called).await {
                Ok(turn) => return turn.ok(),
                Err(_) if self.backlog.moves() == moves && !self.backlog.is_waiting() => return None,
                Err(_) => {}
            }
        }
    }

    /// All that was written must have been sent, or never will be.
    pub(super) fn nothing_moves(self: &Arc<Self>) {
        self.backlog.empty();
        self.call(self.queue());
    }

    fn now_or_later(self: &Arc<Self>, ticket: Ticket, rank: Rank, bytes: u64) -> Result<Turn, oneshot::Receiver<Turn>> {
        let mut queue = self.queue();
        if let Some(turn) = self.give_now(&mut queue, ticket, bytes, 1) {
            return Ok(turn);
        }
        let (call, called) = oneshot::channel();
        queue.join(ticket.client, rank, ticket.arrival, Waiting { bytes, call });
        self.is_waited.store(true, Ordering::SeqCst);
        // Room that there has been since was offered to nobody.
        self.call(queue);
        Err(called)
    }

    /// As many of the bytes as there is room for, but `least` or none; and none if others wait.
    fn give_now(
        self: &Arc<Self>,
        queue: &mut Queue<oneshot::Sender<Turn>>,
        ticket: Ticket,
        bytes: u64,
        least: u64,
    ) -> Option<Turn> {
        let free = self.backlog.free();
        if free < least || !queue.is_empty() {
            return None;
        }
        let given = bytes.min(free.max(TURN));
        queue.charge(ticket.client, given);
        Some(self.give(given))
    }

    /// Something was sent, or arrived.
    pub(super) fn go_on(self: &Arc<Self>) {
        if self.is_waited.load(Ordering::SeqCst) && self.backlog.free() > 0 {
            self.call(self.queue());
        }
    }

    /// Calls those whose turn it is, as long as there is room.
    fn call(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue<oneshot::Sender<Turn>>>) {
        let most = TURN.max(self.backlog.room() / 4);
        while self.backlog.free() > 0
            && let Some((client, Waiting { bytes, call })) = queue.next()
        {
            let given = bytes.min(most);
            match call.send(self.give(given)) {
                Ok(()) => queue.charge(client, given),
                // It was cancelled meanwhile. The lock is held: what is given back calls nobody.
                Err(turn) => turn.refuse(),
            }
        }
        self.is_waited.store(!queue.is_empty(), Ordering::SeqCst);
    }

    /// TLS took so many bytes of a connection over TCP, which carries so many a second of late.
    pub(in crate::tunnel) fn taken(self: &Arc<Self>, bytes: u64, rate: Option<f64>) {
        self.backlog.taken(bytes);
        if let Some(rate) = rate {
            self.backlog.set_rate(rate);
        }
        self.go_on();
    }

    /// Whether it waits itself for the socket.
    pub(in crate::tunnel) fn waits(&self, waits: bool) {
        self.backlog.waits(waits);
    }

    /// quinn has nothing left to send.
    pub(super) fn ran_dry(&self) {
        self.backlog.empty();
        // It is because too little was handed to it, if somebody waits.
        if !self.is_waited.load(Ordering::SeqCst) {
            self.backlog.dried();
        }
    }

    fn give(self: &Arc<Self>, bytes: u64) -> Turn {
        self.backlog.written(bytes);
        Turn { turns: Some(self.clone()), bytes }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<oneshot::Sender<Turn>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// The right of who need not wait.
    pub(super) const fn free(bytes: u64) -> Self {
        Self { turns: None, bytes }
    }

    /// How many bytes may be sent.
    pub(in crate::tunnel) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All of it was handed on.
    pub(in crate::tunnel) fn used(mut self) {
        self.turns = None;
    }

    /// Gives it back without calling others.
    fn refuse(mut self) {
        if let Some(turns) = self.turns.take() {
            turns.backlog.taken_back(self.bytes);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            turns.backlog.taken_back(self.bytes);
            turns.go_on();
        }
    }
}
