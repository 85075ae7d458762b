//! Whether what is sent goes slower than it is asked for, and it looks as if somebody limits it: some networks let UDP pass at a fraction
//! of what they allow TCP.
//!
//! A policer drops what is beyond its rate while no queue grows, and our congestion control knows its own losses from noise. Where a queue
//! stands somebody else wants the link too, and TCP would only take more of it. Each end tells the other, for only the agent can try another
//! way.

use std::time::Duration;

use tokio::sync::Notify;

/// For how long there must always have been something to send. A large upload on a slow link does that too; it has a queue.
const LONG: Duration = Duration::from_secs(3);

/// So many reductions meanwhile for losses of our doing, with no queue.
const LOSSES: u64 = 2;

/// Which way bytes go, as this end sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From here to the peer.
    Sending,
    /// From the peer to here.
    Receiving,
}

/// Both ends' complaints.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    own: Notify,
    peer: Notify,
}

impl Throttle {
    /// What this end sends is limited.
    pub(super) fn say(&self) {
        self.own.notify_one();
    }

    /// The peer said so of what it sends.
    pub(super) fn hear(&self) {
        self.peer.notify_one();
    }

    /// Resolves when either is. For one waiter.
    pub(super) async fn noticed(&self) -> Direction {
        tokio::select! {
            () = self.own.notified() => Direction::Sending,
            () = self.peer.notified() => Direction::Receiving,
        }
    }
}

/// One end's measurement of itself. Time is passed in.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// For how long there has always been something to send, and such reductions before that.
    since: Option<(Duration, u64)>,
}

impl Pressure {
    /// So much time has passed, in which there always was something to send, or not; `losses` are reductions for those of our
    /// doing without a queue, so far. Whether it is time to complain: after that it begins anew.
    pub(super) fn passed(&mut self, time: Duration, pressed: bool, losses: u64) -> bool {
        if !pressed {
            self.since = None;
            return false;
        }
        let (lasted, before) = self.since.get_or_insert((Duration::ZERO, losses));
        *lasted += time;
        let complains = *lasted >= LONG && losses >= *before + LOSSES;
        if complains {
            self.since = None;
        }
        complains
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(250);

    #[test]
    fn long_pressure_with_losses_of_ours_is_a_throttle() {
        let mut pressure = Pressure::default();
        let beats = (1..).take_while(|beat| !pressure.passed(BEAT, true, 5 + beat / 4)).count();
        assert!((11..=12).contains(&beats), "{beats}");
        assert!(!pressure.passed(BEAT, true, 100), "and then it begins anew");
    }

    #[test]
    fn pressure_without_losses_is_a_slow_link_and_losses_without_pressure_are_somebody_elses() {
        let mut pressure = Pressure::default();
        assert!((0..1000).all(|_| !pressure.passed(BEAT, true, 1)));
        assert!((0..1000).all(|beat| !pressure.passed(BEAT, beat % 10 != 0, beat)));
    }
}
