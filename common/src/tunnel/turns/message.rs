//! One message on its way: how much of it may go now.

use std::sync::Arc;

use http::HeaderMap;

use super::client::Client;
use super::lane::{Lane, Ticket};
use super::turns::Turn;
use crate::tunnel::urgency::Urgency;

/// A message among those of its connection.
#[derive(Debug)]
pub(in crate::tunnel) struct Message {
    lane: Arc<Lane>,
    ticket: Ticket,
    urgency: Urgency,
}

/// The front of a message that may be sent now.
#[derive(Debug)]
pub(in crate::tunnel) struct Part {
    /// How many bytes it has at most.
    pub(in crate::tunnel) bytes: u64,
    /// By what right; none for the first few of a message, which never wait.
    pub(in crate::tunnel) turn: Option<Turn>,
}

impl Part {
    /// Nothing that anybody gave.
    pub(in crate::tunnel) const NONE: Self = Self { bytes: 0, turn: None };
}

impl Message {
    /// One of which nothing is known.
    pub(in crate::tunnel) fn new(lane: &Arc<Lane>) -> Self {
        Self { lane: lane.clone(), ticket: lane.ticket(Client::UNKNOWN), urgency: Urgency::NONE }
    }

    /// One that belongs to a request with this head.
    pub(in crate::tunnel) fn of(lane: &Arc<Lane>, request: &HeaderMap) -> Self {
        let mut message = Self::new(lane);
        message.belongs_to(request);
        message
    }

    /// It belongs to a request with this head; before anything is sent.
    pub(in crate::tunnel) fn belongs_to(&mut self, request: &HeaderMap) {
        self.urgency = Urgency::of(request);
        self.ticket = self.lane.ticket(Client::of(request));
    }

    /// Waits until some of the `left` bytes that are to be sent next may be.
    pub(in crate::tunnel) async fn next(&self, left: u64) -> Part {
        let at_once = self.urgency.at_once();
        let turn = match at_once {
            few if left <= few => None,
            0 => Some(self.lane.turn(self.ticket, self.urgency.rank(), left).await),
            _ => self.lane.all_at_once(self.ticket, left),
        };
        Part { bytes: turn.as_ref().map_or(at_once, Turn::bytes), turn }
    }

    /// About to send so many bytes more; the priority, if it is another one from now on.
    pub(in crate::tunnel) fn sending(&mut self, bytes: usize) -> Option<i32> {
        self.urgency.sending(bytes)
    }

    /// So many bytes were sent of this part.
    pub(in crate::tunnel) fn sent(&self, part: Part, bytes: u64) {
        match part.turn {
            Some(turn) if turn.bytes() == bytes => turn.used(),
            turn => {
                drop(turn);
                self.lane.written(bytes);
            }
        }
    }
}
