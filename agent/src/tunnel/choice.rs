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

/// For how long it is settled which of the two carries more where somebody limits UDP, the first time and at most.
const SETTLED: Duration = Duration::from_secs(600);
const LONG_SETTLED: Duration = Duration::from_secs(7200);

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
    /// How often TCP was tried because somebody limited UDP, and carried more, or no more, the last times in a row.
    won: u32,
    lost: u32,
    /// Until when that is not tried again.
    settled: Option<Instant>,
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
            if self.silent >= ENOUGH {
                self.shunned = Some(now + doubled(FIRST, self.silent - ENOUGH, LONGEST));
            }
        }
    }

    /// Under somebody's limit on UDP, TCP was seen to carry more: it is taken for a while.
    pub(super) fn tcp_won(&mut self, now: Instant) {
        (self.won, self.lost) = (self.won + 1, 0);
        self.shunned = Some(now + doubled(SETTLED, self.won - 1, LONG_SETTLED));
    }

    /// It was seen to carry no more.
    pub(super) fn tcp_lost(&mut self, now: Instant) {
        (self.won, self.lost) = (0, self.lost + 1);
        self.settled = Some(now + doubled(SETTLED, self.lost - 1, LONG_SETTLED));
    }

    /// Whether TCP is worth a try where somebody limits UDP.
    pub(super) fn may_try_tcp(&self, now: Instant) -> bool {
        self.settled.is_none_or(|until| now >= until)
    }

    /// Whether TCP was chosen because it carries more.
    pub(super) const fn has_won(&self) -> bool {
        self.won > 0
    }

    /// The tunnel is over TCP from now on.
    pub(super) const fn over_tcp(&mut self) {
        self.tries = 0;
    }

    /// How long to wait before QUIC is tried again. `chance` is uniform in `0.0..1.0`.
    pub(super) fn pause(&mut self, now: Instant, chance: f64) -> Duration {
        let pause = doubled(SOON, self.tries, SELDOM).mul_f64(0.75 + chance / 2.0);
        self.tries += 1;
        let shunned = self.shunned.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        pause.max(shunned)
    }
}

fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    (first * 2_u32.saturating_pow(times.min(10))).min(most)
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
    fn what_was_settled_by_trying_stays_so_for_a_while_and_longer_each_time() {
        let (mut choice, now) = (Choice::default(), Instant::now());
        assert!(choice.may_try_tcp(now));
        choice.tcp_lost(now);
        assert!(!choice.may_try_tcp(now + SETTLED / 2) && choice.may_try_tcp(now + SETTLED));
        choice.tcp_lost(now);
        assert!(!choice.may_try_tcp(now + SETTLED));
        choice.tcp_won(now);
        assert!(choice.has_won() && choice.shuns_quic(now) && !choice.shuns_quic(now + SETTLED));
        assert_eq!(choice.pause(now, 0.5), SETTLED);
        choice.tcp_won(now);
        assert!(choice.shuns_quic(now + SETTLED));
        for _ in 0..100 {
            choice.tcp_won(now);
        }
        assert!(!choice.shuns_quic(now + LONG_SETTLED), "never for longer than that");
    }

    #[test]
    fn who_is_shunned_is_not_tried() {
        let (mut choice, now) = (Choice::default(), Instant::now());
        choice.quic_ended(now, YOUNG, true);
        choice.quic_ended(now, YOUNG, true);
        assert_eq!(choice.pause(now, 0.5), FIRST);
    }
}
