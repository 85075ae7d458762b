//! Whether it is time to say something, so that a path that went silent is found again as soon as it can be.
//!
//! QUIC's own probes come twice as late each time (RFC 9002, 6.2), so that after five seconds without a path the next one may be
//! three seconds away; and a relay whose agent has a new address learns it from the agent's next packet. So an end of which nothing was
//! acknowledged for a moment says a word, and does so steadily while the tunnel is in use. To hear something is not enough: an end
//! whose window is full of what the silence swallowed would not even acknowledge what it hears, for quinn sends acknowledgements with
//! what is waiting to be sent. An idle tunnel is left to QUIC's keep-alive.

use std::time::{Duration, Instant};

/// Between two looks; longer where the way is.
const BEAT: Duration = Duration::from_millis(250);

/// Between two words. Small packets, and many: where losses come in long bursts, a burst ends for those who go on sending.
const WORDS: Duration = Duration::from_millis(50);

/// Without an exchange and without traffic for this long, a tunnel is idle.
const LAST: Duration = Duration::from_secs(10);

/// What one end's counters say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counters {
    /// Exchanges begun.
    pub(super) exchanges: u64,
    /// Datagrams received.
    pub(super) received: u64,
    /// When the newest packet was sent that is known to have arrived; nothing where the congestion control does not tell.
    /// Acknowledgements say less: they are repeated.
    pub(super) newest: Option<Instant>,
}

/// What to do at a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// Something that was sent has arrived.
    Rest,
    /// Nothing is known to have arrived: say a word.
    Speak,
    /// The tunnel is idle: no more beats until it is used.
    Sleep,
}

/// The beats since a tunnel was last idle.
#[derive(Debug, Clone)]
pub(super) struct Pulse {
    before: Counters,
    /// How long nothing was heard that is no answer to a word.
    quiet: Duration,
    speaks: bool,
}

impl Pulse {
    pub(super) const fn new(counters: Counters) -> Self {
        Self { before: counters, quiet: Duration::ZERO, speaks: false }
    }

    /// How long to wait for the next beat, where round trips take so long.
    pub(super) fn pause(&self, rtt: Duration) -> Duration {
        if self.speaks { WORDS } else { BEAT.max(rtt.mul_f64(1.5)) }
    }

    /// After a pause of this length.
    pub(super) fn beat(&mut self, counters: Counters, pause: Duration) -> Beat {
        let heard = counters.received.saturating_sub(self.before.received);
        let used = counters.exchanges != self.before.exchanges;
        let arrived = if counters.newest.is_some() { counters.newest != self.before.newest } else { heard > 0 };
        self.before = counters;
        // What answers a word is no traffic: an acknowledgement of ours, a word of theirs.
        self.quiet = if used || heard > 2 { Duration::ZERO } else { self.quiet + pause };
        self.speaks = !arrived;
        match arrived {
            _ if self.quiet >= LAST => Beat::Sleep,
            false => Beat::Speak,
            true => Beat::Rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(exchanges: u64, received: u64) -> Counters {
        Counters { exchanges, received, newest: None }
    }

    #[test]
    fn it_speaks_while_nothing_is_heard_and_rests_otherwise() {
        let mut pulse = Pulse::new(counters(1, 100));
        let rtt = Duration::from_millis(800);
        assert_eq!(pulse.pause(rtt), Duration::from_millis(1200));
        assert_eq!(pulse.beat(counters(1, 150), BEAT), Beat::Rest);
        assert_eq!(pulse.beat(counters(2, 150), BEAT), Beat::Speak);
        assert_eq!(pulse.pause(rtt), WORDS);
        assert_eq!(pulse.beat(counters(2, 150), WORDS), Beat::Speak);
        assert_eq!(pulse.beat(counters(2, 151), WORDS), Beat::Rest);
        assert_eq!(pulse.pause(Duration::ZERO), BEAT);
    }

    #[test]
    fn it_speaks_while_it_hears_but_is_not_heard() {
        let sent = Instant::now();
        let knows = |received, newest| Counters { exchanges: 1, received, newest: Some(newest) };
        let mut pulse = Pulse::new(knows(100, sent));
        assert_eq!(pulse.beat(knows(101, sent), BEAT), Beat::Speak);
        assert_eq!(pulse.beat(knows(120, sent), BEAT), Beat::Speak);
        assert_eq!(pulse.beat(knows(121, sent + BEAT), BEAT), Beat::Rest);
    }

    #[test]
    fn it_sleeps_ten_seconds_after_the_last_use_though_its_words_are_answered() {
        let mut pulse = Pulse::new(counters(1, 100));
        let mut quiet = Duration::ZERO;
        let mut received = 100;
        while pulse.beat(counters(1, received), BEAT) != Beat::Sleep {
            quiet += BEAT;
            received += u64::from(quiet.as_millis().is_multiple_of(500));
        }
        assert_eq!(quiet, LAST - BEAT);
    }
}
