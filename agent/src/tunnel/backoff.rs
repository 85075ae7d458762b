//! How long to wait before the next dial; pure, time and chance passed in.
//!
//! A relay that restarts is back within seconds, so for the first minute an agent asks often; one that stays away is
//! asked ever less. Jitter keeps a fleet that lost its relay together from coming back in one wave.

use std::time::{Duration, Instant};

/// Between two dials while the loss is fresh: a restarted relay has its agents back well under two seconds.
const EAGER: Duration = Duration::from_millis(250);

/// For how long a loss is fresh: a restart, a deploy or a router's reboot fits in.
const FRESH: Duration = Duration::from_secs(60);

/// The most between two dials, so that a relay that returns after a night has its agents within half a minute.
const SLOWEST: Duration = Duration::from_secs(30);

/// A session that lived this long has proved that the way works. A shorter one counts as a failed dial: two agents with
/// one id would otherwise push each other out, and dial again at once, for ever.
const PROVEN: Duration = Duration::from_secs(5);

/// The state between dials of one relay.
#[derive(Debug, Clone, Default)]
pub(super) struct Backoff {
    lost: Option<Instant>,
    slow: Duration,
}

impl Backoff {
    /// Nothing lost yet.
    pub(super) const fn new() -> Self {
        Self { lost: None, slow: Duration::ZERO }
    }

    /// A dial failed at `now`: how long to wait. `chance` is uniform in `0.0..1.0`.
    pub(super) fn failed(&mut self, now: Instant, chance: f64) -> Duration {
        let lost = *self.lost.get_or_insert(now);
        if now.saturating_duration_since(lost) < FRESH {
            return EAGER.mul_f64(0.5 + chance);
        }
        self.slow = (self.slow * 2).clamp(EAGER * 2, SLOWEST);
        self.slow.mul_f64(0.5 + chance / 2.0)
    }

    /// A session that had lived for `lived` ended at `now`, in order (GOAWAY, or closed without error) or not: how long
    /// to wait. `chance` is uniform in `0.0..1.0`.
    pub(super) fn ended(&mut self, now: Instant, lived: Duration, orderly: bool, chance: f64) -> Duration {
        if lived < PROVEN {
            return self.failed(now, chance);
        }
        *self = Self::new();
        // In order: the relay is there or will be at once, and waits for nobody; the jitter alone spreads the fleet.
        if orderly { EAGER.mul_f64(chance) } else { self.failed(now, chance) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_fresh_loss_is_followed_by_a_dial_every_quarter_second() {
        let (mut backoff, start) = (Backoff::new(), Instant::now());
        assert_eq!(backoff.ended(start, LONG, false, 0.5), EAGER);
        for second in 0..60 {
            let wait = backoff.failed(start + Duration::from_secs(second), 0.0);
            assert_eq!(wait, EAGER / 2, "after {second} s");
        }
        assert!(backoff.failed(start + Duration::from_secs(59), 0.999) < EAGER * 3 / 2);
    }

    #[test]
    fn a_long_loss_is_followed_by_ever_fewer_dials() {
        let (mut backoff, start) = (Backoff::new(), Instant::now());
        backoff.failed(start, 0.5);
        let mut now = start + FRESH;
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            let wait = backoff.failed(now, 0.999);
            assert!(wait >= last.mul_f64(0.99) && wait <= SLOWEST, "{wait:?} after {last:?}");
            (last, now) = (wait, now + wait);
        }
        assert!(last > SLOWEST.mul_f64(0.99));
        assert!(backoff.failed(now, 0.0) >= SLOWEST / 2);
    }

    #[test]
    fn a_session_that_held_starts_everything_afresh() {
        let (mut backoff, start) = (Backoff::new(), Instant::now());
        backoff.failed(start, 0.5);
        backoff.failed(start + FRESH * 10, 0.5);
        let later = start + FRESH * 20;
        assert_eq!(backoff.ended(later, LONG, false, 0.5), EAGER);
        assert_eq!(backoff.failed(later + FRESH / 2, 0.5), EAGER);
    }

    #[test]
    fn an_orderly_end_is_answered_at_once_but_not_in_one_wave() {
        let (mut backoff, start) = (Backoff::new(), Instant::now());
        assert_eq!(backoff.ended(start, LONG, true, 0.0), Duration::ZERO);
        assert!(backoff.ended(start, LONG, true, 0.999) < EAGER);
    }

    #[test]
    fn sessions_that_do_not_hold_are_dialled_as_failures() {
        let (mut backoff, start) = (Backoff::new(), Instant::now());
        let blink = Duration::from_millis(3);
        assert_eq!(backoff.ended(start, blink, true, 0.5), EAGER);
        // Even orderly ones: after a minute of them the agent slows down.
        assert!(backoff.ended(start + FRESH, blink, true, 0.999) > EAGER);
        assert!(backoff.ended(start + FRESH, blink, true, 0.999) > EAGER * 3);
    }
}
