//! Whether a server is well, told by looks at it. Pure.
//!
//! One failure says little: a garbage collection, a lost packet. Two in a row say that it is down. One success says that it is up, and
//! forgets what was before: a server that answers is better asked than not.

use std::time::Duration;

/// So many failures in a row, and it is down.
const FAILURES: u32 = 2;

/// How much sooner it is looked at again after a failure.
const SOONER: u32 = 5;

/// What the looks so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Health {
    up: bool,
    failures: u32,
}

impl Health {
    /// A look found it well, or not.
    pub(super) const fn record(&mut self, well: bool) {
        self.failures = if well { 0 } else { self.failures.saturating_add(1) };
        self.up = well || self.up && self.failures < FAILURES;
    }

    /// Whether it may be asked; not before the first look.
    pub(super) const fn is_up(self) -> bool {
        self.up
    }

    /// How long to wait before the next look, where `interval` is for a server that is well.
    pub(super) fn pause(self, interval: Duration) -> Duration {
        if self.failures == 0 { interval } else { interval / SOONER }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_failures_in_a_row_and_it_is_down_one_success_and_it_is_up() {
        let mut health = Health::default();
        let mut after = |well| {
            health.record(well);
            health.is_up()
        };
        let seen = [false, true, false, true, false, true, false, false, false, true, false].map(&mut after);
        assert_eq!(seen, [false, true, true, true, true, true, true, false, false, true, true]);
    }

    #[test]
    fn what_fails_is_looked_at_sooner() {
        let (mut health, interval) = (Health::default(), Duration::from_secs(5));
        assert_eq!(health.pause(interval), interval);
        health.record(false);
        assert_eq!(health.pause(interval), Duration::from_secs(1));
        health.record(true);
        assert_eq!(health.pause(interval), interval);
    }
}
