//! The budget that a request carries from hop to hop.
//!
//! Clocks of two machines are never compared: what travels is how much time is left, and each hop turns it into an
//! instant of its own clock on arrival.

use std::time::{Duration, Instant};

/// Until when an answer is of use; `Deadline::never()` for callers who did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// The header by which clients of gRPC say it.
    pub const GRPC_HEADER: &'static str = "grpc-timeout";

    /// The header of a hop's request that carries what is left of the budget, in whole microseconds.
    pub const HEADER: &'static str = "adit-budget";

    /// No deadline.
    pub const fn never() -> Self {
        Self(None)
    }

    /// `budget` from `now` on.
    pub fn after(now: Instant, budget: Duration) -> Self {
        // A budget beyond the clock's range is no deadline at all.
        Self(now.checked_add(budget))
    }

    /// Reads the header's value on arrival at `now`; what is not a number is no deadline.
    pub fn parse(now: Instant, header: &str) -> Self {
        header.parse().map_or(Self::never(), |micros| Self::after(now, Duration::from_micros(micros)))
    }

    /// Reads gRPC's `grpc-timeout` on arrival at `now`: at most eight digits and a unit; what is not that is no deadline.
    pub fn parse_grpc(now: Instant, header: &str) -> Self {
        let Some((digits, unit)) = header.split_at_checked(header.len().saturating_sub(1)) else {
            return Self::never();
        };
        if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Self::never();
        }
        let Ok(count) = digits.parse::<u64>() else { return Self::never() };
        let budget = match unit {
            "H" => Duration::from_secs(count * 3600),
            "M" => Duration::from_secs(count * 60),
            "S" => Duration::from_secs(count),
            "m" => Duration::from_millis(count),
            "u" => Duration::from_micros(count),
            "n" => Duration::from_nanos(count),
            _ => return Self::never(),
        };
        Self::after(now, budget)
    }

    /// The header's value when sending at `now`: what is left, in microseconds.
    pub fn header(self, now: Instant) -> Option<String> {
        self.remaining(now).map(|left| left.as_micros().to_string())
    }

    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(one), Some(two)) => Self(Some(one.min(two))),
            (one, two) => Self(one.or(two)),
        }
    }

    /// What is left at `now`: zero once it has passed, `None` without a deadline.
    pub fn remaining(self, now: Instant) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(now))
    }

    /// Whether it has passed at `now`.
    pub fn expired(self, now: Instant) -> bool {
        self.0.is_some_and(|at| at <= now)
    }

    /// The instant itself, for timers.
    pub const fn instant(self) -> Option<Instant> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_shrinks_on_its_way() {
        let now = Instant::now();
        let deadline = Deadline::after(now, Duration::from_millis(250));
        assert_eq!(deadline.header(now + Duration::from_millis(100)).as_deref(), Some("150000"));
        assert_eq!(deadline.header(now + Duration::from_secs(1)).as_deref(), Some("0"));
        assert!(!deadline.expired(now + Duration::from_millis(249)));
        assert!(deadline.expired(now + Duration::from_millis(250)));
        let next = Deadline::parse(now, "150000");
        assert_eq!(next.remaining(now), Some(Duration::from_millis(150)));
    }

    #[test]
    fn grpc_says_it_with_a_unit() {
        let now = Instant::now();
        for (text, nanos) in [("1H", 3_600_000_000_000_u64), ("2M", 120_000_000_000), ("3S", 3_000_000_000)] {
            assert_eq!(Deadline::parse_grpc(now, text).remaining(now), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for (text, nanos) in [("4m", 4_000_000), ("5u", 5_000), ("6n", 6), ("99999999n", 99_999_999)] {
            assert_eq!(Deadline::parse_grpc(now, text).remaining(now), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in ["", "S", "1", "-1S", "1.5S", "123456789S", "1s", "1\u{e9}"] {
            assert_eq!(Deadline::parse_grpc(now, text), Deadline::never(), "{text}");
        }
    }

    #[test]
    fn nonsense_is_no_deadline() {
        let now = Instant::now();
        for text in ["", "-1", "soon", "1e9", "340282366920938463463374607431768211456"] {
            assert_eq!(Deadline::parse(now, text), Deadline::never(), "{text}");
        }
        assert_eq!(Deadline::never().min(Deadline::after(now, Duration::ZERO)).remaining(now), Some(Duration::ZERO));
    }
}
