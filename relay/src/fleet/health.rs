//! Ejection: an agent that fails again and again is left out for a moment, then tried with a single request.
//!
//! Any success resets the count, so failures are never added up over a lifetime. Pure: time is passed in.

use std::time::{Duration, Instant};

/// Failures in a row after which an agent is left out: Envoy's default, and more than one bad request brings about.
const FAILURES: u32 = 5;

/// How long it is left out the first time; each failed probe doubles it.
const EJECTION: Duration = Duration::from_secs(1);

/// At most this long: a repaired agent waits no longer for its probe.
const LONGEST: Duration = Duration::from_secs(30);

/// What may be sent to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Anything.
    Good,
    /// One request, to see.
    Probation,
    /// Nothing, if there is another.
    Ejected,
}

/// One agent's record of failures.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Health {
    failures: u32,
    ejections: u32,
    until: Option<Instant>,
    probing: bool,
}

impl Health {
    pub(super) fn standing(&self, now: Instant) -> Standing {
        match self.until {
            None => Standing::Good,
            Some(until) if now >= until && !self.probing => Standing::Probation,
            Some(_) => Standing::Ejected,
        }
    }

    /// A request is sent to it. True if that request is the probe, whose end must be recorded or abandoned.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let probe = self.standing(now) == Standing::Probation;
        self.probing |= probe;
        probe
    }

    /// The probe ended without saying anything: the next request is one.
    pub(super) const fn abandon(&mut self) {
        self.probing = false;
    }

    pub(super) const fn success(&mut self) {
        *self = Self { failures: 0, ejections: 0, until: None, probing: false };
    }

    /// True if the agent is ejected by this.
    pub(super) fn failure(&mut self, probe: bool, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        let ejected = self.until.is_some_and(|until| now < until);
        // What was under way when it was ejected says nothing new.
        if ejected || (self.until.is_some() && !probe) || (self.until.is_none() && self.failures < FAILURES) {
            return false;
        }
        let wait = EJECTION.saturating_mul(1 << self.ejections.min(16)).min(LONGEST);
        self.ejections = self.ejections.saturating_add(1);
        self.until = now.checked_add(wait);
        self.probing = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ejected(now: Instant) -> Health {
        let mut health = Health::default();
        for count in 1..=FAILURES {
            assert_eq!(health.failure(false, now), count == FAILURES);
        }
        health
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let mut health = Health::default();
        for _ in 0..10 {
            (1..FAILURES).for_each(|_| assert!(!health.failure(false, now)));
            health.success();
        }
        assert_eq!(health.standing(now), Standing::Good);
        assert_eq!(ejected(now).standing(now), Standing::Ejected);
    }

    #[test]
    fn after_an_ejection_one_request_decides() {
        let now = Instant::now();
        let mut health = ejected(now);
        let later = now + EJECTION;
        assert_eq!(health.standing(later), Standing::Probation);
        assert!(health.begin(later));
        assert_eq!(health.standing(later), Standing::Ejected, "one probe at a time");
        assert!(!health.begin(later));
        assert!(health.failure(true, later));
        assert_eq!(health.standing(later + EJECTION), Standing::Ejected, "twice as long");
        assert!(health.begin(later + EJECTION * 2));
        health.abandon();
        assert!(health.begin(later + EJECTION * 2), "an abandoned probe is none");
        health.success();
        assert_eq!(health.standing(later), Standing::Good);
    }

    proptest! {
        #[test]
        fn nobody_is_left_out_for_good(steps in prop::collection::vec((0_u64..5000, 0_u8..3), 0..200)) {
            let mut now = Instant::now();
            let mut health = Health::default();
            for (wait, step) in steps {
                now += Duration::from_millis(wait);
                let probe = health.begin(now);
                match step {
                    0 => health.success(),
                    1 => { health.failure(probe, now); }
                    _ => if probe { health.abandon() },
                }
                prop_assert_ne!(health.standing(now + LONGEST), Standing::Ejected);
            }
        }
    }
}
