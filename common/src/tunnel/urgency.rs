//! What is sent first where not everything can be at once.
//!
//! A tunnel's streams share one window, and quinn sends those of a higher priority first and takes turns among equals. Control streams
//! come before all. Then come messages that have sent little: heads, small requests and answers, the beginning of everything; who
//! has sent less than others so far will be done sooner, and nobody has to say how long it will be. What has sent more is bulk, and of
//! that the messages whose time is short come first. Most of what is not small waits for its turn before it comes here (`turns`), so
//! that this is about the last few of its bytes.

use std::time::Duration;

use http::HeaderMap;

use super::turns::Rank;
use crate::deadline::Deadline;

/// A message that has sent more than this is bulk: a few round trips of a slow path, and more than any head.
const LITTLE: u64 = 64 << 10;

/// So much of a message never waits for a turn: a head, or all of what is small.
const AT_ONCE: u64 = 16 << 10;

/// Budgets below which bulk is hurried, in seconds.
const SHORT: u64 = 1;
const MODERATE: u64 = 5;

/// How urgent a message is, as it goes along.
#[derive(Debug, Clone, Copy)]
pub(super) struct Urgency {
    sent: u64,
    bulk: Option<i32>,
}

impl Urgency {
    /// Of a message of which nothing is known.
    pub(super) const NONE: Self = Self { sent: 0, bulk: None };

    /// The priority of control streams.
    pub(super) const CONTROL: i32 = 100;

    /// A message that belongs to a request with this head.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let budget = headers.get(Deadline::HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        Self { sent: 0, bulk: budget.map(|micros| level(Duration::from_micros(micros))) }
    }

    /// Where it stands among the messages of its client that wait for their turns.
    pub(super) fn rank(&self) -> Rank {
        Rank::new(self.bulk_priority().unsigned_abs() as u8, self.sent)
    }

    const fn bulk_priority(&self) -> i32 {
        match self.bulk {
            Some(priority) => priority,
            None => -3,
        }
    }

    /// How much of it may still be sent without waiting for a turn.
    pub(super) const fn at_once(&self) -> u64 {
        AT_ONCE.saturating_sub(self.sent)
    }

    /// About to send so many bytes more; the priority, if it is another one from now on. It begins with 0, quinn's own.
    pub(super) fn sending(&mut self, bytes: usize) -> Option<i32> {
        let before = self.sent;
        self.sent += bytes as u64;
        (before <= LITTLE && self.sent > LITTLE).then(|| self.bulk_priority())
    }
}

fn level(budget: Duration) -> i32 {
    match budget.as_secs() {
        ..SHORT => -1,
        SHORT..MODERATE => -2,
        MODERATE.. => -3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_budget(micros: &'static str) -> Urgency {
        let mut headers = HeaderMap::new();
        headers.insert(Deadline::HEADER, http::HeaderValue::from_static(micros));
        Urgency::of(&headers)
    }

    #[test]
    fn what_is_small_is_never_asked_about() {
        let mut urgency = Urgency::NONE;
        for _ in 0..64 {
            assert_eq!(urgency.sending(1 << 10), None);
        }
        assert_eq!(urgency.sending(1), Some(-3));
        assert_eq!(urgency.sending(1 << 20), None, "said once");
    }

    #[test]
    fn bulk_whose_time_is_short_comes_before_other_bulk() {
        let levels = ["400000", "4000000", "60000000"].map(|micros| with_budget(micros).sending(100_000));
        assert_eq!(levels, [Some(-1), Some(-2), Some(-3)]);
        assert_eq!(with_budget("nonsense").sending(100_000), Some(-3));
    }
}
