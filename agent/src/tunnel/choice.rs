//! When to trust QUIC, and how often to try it again while the tunnel is over TCP; pure, time and chance passed in.
//!
//! UDP is blocked in two ways. Where nothing gets through, the dial itself shows it, and there is nothing to remember. Where
//! handshakes get through and what follows does not, every dial looks well: so sessions that fall silent while they are young
//! are counted.

use std::time::{Duration, Instant};

/// A session over QUIC that lived this long has shown that the way carries it.
const HELD: Duration = Duration::from_secs(15);

/// So many young sessions that fell silent in a row are no accident: one is a pulled cable.
const ENOUGH: u32 = 2;

/// For how long QUIC is then not tried, the first time and at most; each further time it is twice as long.
const FIRST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(600);

/// Between two tries of QUIC while the tunnel is over TCP: soon, for a first packet may just have been lost, and then ever
/// less often. A try is a few packets.
const SOON: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(60);

/// What is remembered of one relay.
#[derive(Debug, Clone, Default)]
pub(super) struct Choice {
    /// Young sessions over QUIC that fell silent in a row.
    silent: u32,
    /// Until when QUIC is not tried.
    shunned: Option<Instant>,
    /// Tries of QUIC since the tunnel is over TCP.
    tries: u32,
}

impl Choice {
    /// Whether TCP is dialled first: QUIC has been seen to fail after its handshake.
    pub(super) fn shuns_quic(&self, now: Instant) -> bool {
        self.shunned.is_some_and(|until| now < until)
    }

    /// A session over QUIC that had lived for `lived` ended; `silent` if nothing was heard of the relay any more.
    pub(super) fn quic_ended(&mut self, now: Instant, lived: Duration, silent: bool) {
        if lived >= HELD {
            (self.silent, self.shunned) = (0, None);
        } else if silent {
            self.silent += 1;
            let times = self.silent.saturating_sub(ENOUGH);
            if self.silent >= ENOUGH {
                self.shunned = Some(now + (FIRST * 2_u32.saturating_pow(times.min(10))).min(LONGEST));
            }
        }
    }

    /// The tunnel is over TCP from now on.
    pub(super) const fn over_tcp(&mut self) {
        self.tries = 0;
    }

    /// How long to wait before QUIC is tried again. `chance` is uniform in `0.0..1.0`.
    pub(super) fn pause(&mut self, now: Instant, chance: f64) -> Duration {
        let pause = (SOON * 2_u32.saturating_pow(self.tries.min(10))).min(SELDOM).mul_f64(0.75 + chance / 2.0);
        self.tries += 1;
        let shunned = self.shunned.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        pause.max(shunned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG: Duration = Duration::from_secs(5);

    #[test]
    fn one_silence_is_an_accident_and_two_are_not() {
        let (mut choice, now) = (Choice::default(), Instant::now());
        choice.quic_ended(now, YOUNG, true);
        assert!(!choice.shuns_quic(now));
        choice.quic_ended(now, YOUNG, true);
        assert!(choice.shuns_quic(now) && !choice.shuns_quic(now + FIRST));
        // Ended otherwise it says nothing of the way.
        choice.quic_ended(now + FIRST, YOUNG, false);
        assert!(!choice.shuns_quic(now + FIRST));
        choice.quic_ended(now + FIRST, YOUNG, true);
        assert!(choice.shuns_quic(now + FIRST * 3 - YOUNG), "twice as long");
        for _ in 0..100 {
            choice.quic_ended(now, YOUNG, true);
        }
        assert!(!choice.shuns_quic(now + LONGEST), "never for longer than that");
    }

    #[test]
    fn a_session_that_held_makes_up_for_all() {
        let (mut choice, now) = (Choice::default(), Instant::now());
        choice.quic_ended(now, YOUNG, true);
        choice.quic_ended(now, HELD, true);
        choice.quic_ended(now, YOUNG, true);
        assert!(!choice.shuns_quic(now));
    }

    #[test]
    fn quic_is_tried_soon_and_then_ever_less_often_but_always_again() {
        let (mut choice, now) = (Choice::default(), Instant::now());
        assert_eq!(choice.pause(now, 0.5), SOON);
        let mut last = Duration::ZERO;
        for _ in 0..50 {
            let pause = choice.pause(now, 0.5);
            assert!(pause >= last && pause <= SELDOM);
            last = pause;
        }
        assert_eq!(last, SELDOM);
        assert!(choice.pause(now, 0.0) < SELDOM && choice.pause(now, 0.999) > SELDOM, "jittered");
        choice.over_tcp();
        assert_eq!(choice.pause(now, 0.5), SOON);
    }

    #[test]
    fn who_is_shunned_is_not_tried() {
        let (mut choice, now) = (Choice::default(), Instant::now());
        choice.quic_ended(now, YOUNG, true);
        choice.quic_ended(now, YOUNG, true);
        assert_eq!(choice.pause(now, 0.5), FIRST);
    }
}
